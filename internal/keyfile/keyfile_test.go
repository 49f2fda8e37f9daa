//go:build unix

package keyfile_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/keyfile"
)

const issuer = "https://issuer.example"

func newFile(path string) *keyfile.File {
	return &keyfile.File{Path: path, Issuer: issuer, MaxStale: 24 * time.Hour}
}

func load(t testing.TB, path string) (keyfile.Record, error) {
	t.Helper()
	return newFile(path).Load(t.Context())
}

func TestFile_SaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	_, err := load(t, path)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	at := time.Now().Add(-time.Minute)
	require.NoError(t, newFile(path).Save("https://issuer.example/keys", at, []byte(`{"keys":[]}`)))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	r, err := load(t, path)
	require.NoError(t, err)
	assert.Equal(t, "https://issuer.example/keys", r.Source)
	assert.Equal(t, `{"keys":[]}`, string(r.Document))
	assert.True(t, at.Equal(r.Fetched))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file is left")
}

// The file is written if something has changed, and once an hour.
func TestFile_IsWrittenSeldom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	f, at := newFile(path), time.Now().Add(-3*time.Hour)
	written := func(source string, after time.Duration, document string) bool {
		before, _ := os.ReadFile(path)
		require.NoError(t, f.Save(source, at.Add(after), []byte(document)))
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(before) != string(now)
	}
	assert.True(t, written("a", 0, "one"))
	assert.False(t, written("a", 15*time.Minute, "one"))
	assert.True(t, written("a", 16*time.Minute, "two"))
	assert.False(t, written("a", 75*time.Minute, "two"))
	assert.True(t, written("a", 77*time.Minute, "two"))
	assert.True(t, written("b", 78*time.Minute, "two"))
	other := newFile(path) // another process, which is behind
	require.NoError(t, other.Save("a", at.Add(time.Minute), []byte("old")))
	r, err := load(t, path)
	require.NoError(t, err)
	assert.Equal(t, "two", string(r.Document), "an older document does not replace a newer one")
}

// What others could have written is not read, nor what is not of this key set.
func TestFile_IsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		change func(t *testing.T, path string)
		says   string
	}{
		"others can write":      {func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o666)) }, "can be written by others"},
		"the group can write":   {func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o660)) }, "can be written by others"},
		"a folder of others":    {func(t *testing.T, path string) { require.NoError(t, os.Chmod(filepath.Dir(path), 0o777)) }, "is in a folder that can be written by others"},
		"a folder of the group": {func(t *testing.T, path string) { require.NoError(t, os.Chmod(filepath.Dir(path), 0o770)) }, "is in a folder that can be written by others"},
		"a sticky folder":       {func(t *testing.T, path string) { require.NoError(t, os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky)) }, "is in a folder that can be written by others"},
		"a symbolic link": {func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+"2"))
			require.NoError(t, os.Symlink(path+"2", path))
		}, "is a symbolic link: use the name of the file"},
		"a folder": {func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, "is not a file"},
		"a FIFO": {func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, syscall.Mkfifo(path, 0o600))
		}, "is not a file"},
		"an empty file":          {write(""), "or is damaged"},
		"a key set":              {write(`{"keys":[]}`), "is not a key file of koreauth"},
		"a large file":           {write(strings.Repeat(" ", 3<<20)), "is larger than 2 MiB"},
		"another issuer":         {changed("issuer", "https://other.example"), `has the keys of "https://other.example": use one file for each issuer`},
		"another URL":            {changed("url", "https://other.example/keys"), `has the keys of "https://issuer.example", from "https://other.example/keys", which is another place`},
		"a large document":       {changed("document", make([]byte, 1<<20+1)), "has a key set that is larger than 1 MiB"},
		"the future":             {changed("fetched", time.Now().Add(time.Hour)), "is from the future"},
		"longer ago than a day":  {changed("fetched", time.Now().Add(-25*time.Hour)), "longer ago than MaxStale"},
		"no time":                {changed("fetched", nil), "longer ago than MaxStale"},
		"an odd time":            {changed("fetched", "soon"), "or is damaged"},
		"another format":         {changed("format", "koreauth keys 2"), "is not a key file of koreauth"},
		"a document as a number": {changed("document", 7), "or is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folder", "keys.json")
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
			require.NoError(t, newFile(path).Save("s", time.Now(), []byte("{}")))
			row.change(t, path)
			_, err := load(t, path)
			require.ErrorContains(t, err, row.says)
			assert.ErrorContains(t, err, "the key file "+path)
		})
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, newFile(path).Save("s", time.Now(), []byte("{}")))
	require.NoError(t, os.Chmod(path, 0o644))
	_, err := load(t, path)
	assert.NoError(t, err, "others may read it")
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
	assert.ErrorContains(t, newFile(path).Save("s", time.Now(), []byte("{1}")), "the key file "+path+" is in a folder that can be written by others")
}

func write(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
}

func changed(member string, value any) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		members := map[string]any{}
		require.NoError(t, json.Unmarshal(text, &members))
		members[member] = value
		text, err = json.Marshal(members)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
}

// A file that was cut at any byte is damaged, and never another document.
func TestFile_CutAtAnyByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, newFile(path).Save("s", time.Now(), []byte(`{"keys":[1,2,3]}`)))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for n := range whole {
		require.NoError(t, os.WriteFile(path, whole[:n], 0o600))
		_, err := load(t, path)
		require.Error(t, err, n)
	}
	require.NoError(t, newFile(path).Save("s", time.Now(), []byte("{}")), "a damaged file is replaced")
	_, err = load(t, path)
	assert.NoError(t, err)
}

// Readers find a whole document while others write.
func TestFile_ReadWhileWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, newFile(path).Save("s", time.Now().Add(-time.Hour), []byte("first")))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			f := newFile(path)
			for n := range 50 {
				if err := f.Save("s", time.Now(), []byte(strings.Repeat("x", n*100))); err != nil {
					t.Error(err)
				}
				if _, err := f.Load(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	f := newFile(filepath.Join(t.TempDir(), "no", "no", "keys.json"))
	assert.ErrorContains(t, f.Save("s", time.Now(), nil), "is in a folder that cannot be created")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Load(canceled)
	assert.True(t, errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.Canceled))
}
