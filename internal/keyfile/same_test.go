//go:build unix

package keyfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/keyfile"
)

func TestSame(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	t.Chdir(dir)
	one := filepath.Join(dir, "keys.json")
	for _, name := range []string{one, dir + "/./keys.json", dir + "//keys.json", "keys.json", "./keys.json", link + "/keys.json", dir + "/x/../keys.json"} {
		assert.True(t, keyfile.Same(one, name), name)
		assert.True(t, keyfile.Same(name, one), name)
	}
	for _, name := range []string{"", dir, dir + "/keys2.json", "../keys.json", dir + "/x/keys.json"} {
		assert.False(t, keyfile.Same(one, name), name)
	}
	assert.False(t, keyfile.Same("", ""), "no file is not shared")
	assert.True(t, keyfile.Same(link+"/new/keys.json", dir+"/new/keys.json"), "the folder is not there yet")
	assert.True(t, keyfile.Same(link+"/new/er/keys.json", "new/er/keys.json"))
}
