package koreauth_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocs_PromisesNameTests checks that each promise in SECURITY.md names
// existing tests, vectors and files.
func TestDocs_PromisesNameTests(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	code := testFiles(t)
	promises := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| promise") {
			continue
		}
		promises++
		names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([a-z-]+))?`").FindAllStringSubmatch(line, -1)
		assert.NotEmpty(t, names, "the promise names no test: %s", line)
		for _, name := range names {
			assert.True(t, strings.Contains(code, "\nfunc "+name[1]+"("), "%s does not exist: %s", name[1], line)
			if name[2] != "" {
				vectors, err := filepath.Glob("testdata/vectors/" + name[2] + "*.txt")
				require.NoError(t, err)
				assert.NotEmpty(t, vectors, "%s names no vectors", name[0])
			}
		}
	}
	assert.Greater(t, promises, 15, "number of promises")
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(page), -1) {
		_, err := os.Stat(link[1])
		assert.NoError(t, err)
	}
}

// testFiles returns the text of all test files of the repository.
func testFiles(t *testing.T) string {
	t.Helper()
	var code strings.Builder
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	require.NoError(t, err)
	return code.String()
}
