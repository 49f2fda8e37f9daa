package examples_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// build compiles the examples as go run does.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// The examples run with no set-up.
func TestExamples(t *testing.T) {
	dir := build(t)
	t.Run("each ends well, so all its answers were as it says", func(t *testing.T) { toTheEnd(t, dir) })
	t.Run("the curl lines do what they say", func(t *testing.T) { curlLines(t, dir) })
}

func toTheEnd(t *testing.T, dir string) {
	for _, test := range []struct {
		name string
		args []string
		says []string
	}{
		{"quickstart", []string{"-once"}, []string{"9. The issuer is down", "503 Service Unavailable"}},
		{"nethttp", []string{"-once"}, []string{"200 OK", "401 Unauthorized", "403 Forbidden", "whoever you are"}},
		{"gorillamux", []string{"-once"}, []string{"200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), filepath.Join(dir, test.name), test.args...).CombinedOutput()
			require.NoError(t, err, string(out))
			for _, text := range test.says {
				assert.Contains(t, string(out), text)
			}
		})
	}
}

// curlLines tries them while the program serves, which ends well when it is
// interrupted.
func curlLines(t *testing.T, dir string) {
	for name, lines := range map[string]int{"quickstart": 6, "nethttp": 9, "gorillamux": 11} {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), filepath.Join(dir, name))
			command.WaitDelay = 10 * time.Second
			stdout, err := command.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, command.Start())
			tried, said := 0, 0
			scanner := bufio.NewScanner(stdout)
			for scanner.Scan() && !strings.HasPrefix(scanner.Text(), "Serving on ") {
				line := scanner.Text()
				if status, found := strings.CutPrefix(line, "# "); found {
					said, err = strconv.Atoi(status[:3])
					require.NoError(t, err)
				} else if strings.HasPrefix(line, "curl ") {
					assert.Equal(t, said, paste(t, line), line)
					tried++
				}
			}
			assert.Equal(t, lines, tried)
			require.NoError(t, command.Process.Signal(os.Interrupt))
			_, err = io.Copy(io.Discard, stdout)
			require.NoError(t, err)
			assert.NoError(t, command.Wait())
		})
	}
}

var curlLine = regexp.MustCompile(`^curl -i(?: -X (\w+))?(?: -H '([\w-]+): ([^']+)')? '([^']+)'$`)

// paste does what a shell with curl would, and returns the status.
func paste(t *testing.T, line string) int {
	t.Helper()
	parts := curlLine.FindStringSubmatch(line)
	require.NotNil(t, parts, line)
	req, err := http.NewRequestWithContext(t.Context(), parts[1], parts[4], nil)
	require.NoError(t, err)
	if parts[2] != "" {
		req.Header.Set(parts[2], parts[3])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}
