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

// build compiles the examples.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// The examples run without any set-up.
func TestExamples_Run(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs, which their own tests run")
	}
	dir := build(t)
	t.Run("every response is as expected", func(t *testing.T) { runOnce(t, dir) })
	t.Run("the curl commands get the printed status", func(t *testing.T) { runCurlCommands(t, dir) })
}

// runOnce runs the examples with -once, which exit with 1 if a response is wrong.
func runOnce(t *testing.T, dir string) {
	for _, test := range []struct {
		name string
		want []string
	}{
		{"quickstart", []string{"9. The issuer is down", "503 Service Unavailable"}},
		{"nethttp", []string{"200 OK", "401 Unauthorized", "403 Forbidden", "anonymous caller"}},
		{"revocation", []string{"201 Created", "API 2 answers 403", "by=kc_operator", "14. The client has a new secret"}},
		{"gorillamux", []string{"200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "405 Method Not Allowed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), filepath.Join(dir, test.name), "-once").CombinedOutput()
			require.NoError(t, err, string(out))
			for _, text := range test.want {
				assert.Contains(t, string(out), text)
			}
		})
	}
}

// runCurlCommands repeats the printed curl commands while the program serves. The
// program must exit with 0 when it is interrupted.
func runCurlCommands(t *testing.T, dir string) {
	for name, want := range map[string]int{"quickstart": 6, "nethttp": 9, "gorillamux": 11, "revocation": 4} {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), filepath.Join(dir, name))
			command.WaitDelay = 10 * time.Second
			stdout, err := command.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, command.Start())
			commands, status := 0, 0
			scanner := bufio.NewScanner(stdout)
			for scanner.Scan() && !strings.HasPrefix(scanner.Text(), "Serving on ") {
				line := scanner.Text()
				if title, found := strings.CutPrefix(line, "# "); found {
					status, err = strconv.Atoi(title[:3])
					require.NoError(t, err)
				} else if strings.HasPrefix(line, "curl ") {
					assert.Equal(t, status, curl(t, line), line)
					commands++
				}
			}
			assert.Equal(t, want, commands)
			require.NoError(t, command.Process.Signal(os.Interrupt))
			_, err = io.Copy(io.Discard, stdout)
			require.NoError(t, err)
			assert.NoError(t, command.Wait())
		})
	}
}

var curlLine = regexp.MustCompile(`^curl -i(?: -X (\w+))?(?: -H '([\w-]+): ([^']+)')?(?: -H 'Content-Type: application/json' -d '([^']+)')? '([^']+)'$`)

// curl sends the request of a curl command and returns the status.
func curl(t *testing.T, line string) int {
	t.Helper()
	parts := curlLine.FindStringSubmatch(line)
	require.NotNil(t, parts, line)
	req, err := http.NewRequestWithContext(t.Context(), parts[1], parts[5], strings.NewReader(parts[4]))
	require.NoError(t, err)
	if parts[4] != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if parts[2] != "" {
		req.Header.Set(parts[2], parts[3])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}
