package koreauth_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocs_PromisesNameTests keeps SECURITY.md from promising what
// nothing holds.
func TestDocs_PromisesNameTests(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	var code strings.Builder
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		code.Write(text)
	}
	promises := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| promise") {
			continue
		}
		promises++
		names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([a-z-]+))?`").FindAllStringSubmatch(line, -1)
		assert.NotEmpty(t, names, "no test holds: %s", line)
		for _, name := range names {
			assert.Contains(t, code.String(), "func "+name[1]+"(", "%s", line)
			if name[2] != "" {
				vectors, err := filepath.Glob("testdata/vectors/" + name[2] + "*.txt")
				require.NoError(t, err)
				assert.NotEmpty(t, vectors, "%s", name[0])
			}
		}
	}
	assert.Greater(t, promises, 15)
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(page), -1) {
		_, err := os.Stat(link[1])
		assert.NoError(t, err)
	}
}
