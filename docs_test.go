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

// TestDocs_PromisesNameTests checks that each guarantee in SECURITY.md names
// existing tests, vectors and files.
func TestDocs_PromisesNameTests(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	code := testFiles(t)
	_, section, found := strings.Cut(string(page), "\n## Guarantees\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	section, _, _ = strings.Cut(section, "\n\nThe [report on mutants]")
	guarantees := strings.Split(section, "\n- ")[1:]
	assert.Greater(t, len(guarantees), 15, "number of guarantees")
	for _, guarantee := range guarantees {
		names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([a-z-]+))?`").FindAllStringSubmatch(guarantee, -1)
		assert.NotEmpty(t, names, "the guarantee names no test: %s", guarantee)
		for _, name := range names {
			assert.True(t, strings.Contains(code, "\nfunc "+name[1]+"("), "%s does not exist: %s", name[1], guarantee)
			if name[2] != "" {
				vectors, err := filepath.Glob("testdata/vectors/" + name[2] + "*.txt")
				require.NoError(t, err)
				assert.NotEmpty(t, vectors, "%s names no vectors", name[0])
			}
		}
	}
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
