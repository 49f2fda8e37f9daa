//go:build unix

package keyfile_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/keyfile"
)

// temporary is the name of the file that is renamed to keys.json.
const temporary = ".keys.json.new"

// entries lists the names in the folder of a file.
func entries(t testing.TB, path string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, one := range found {
		names = append(names, one.Name())
	}
	return names
}

// Save looks at the file each time, whatever it has written before.
func TestFile_IsRepaired(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"removed":                 func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"removed with its folder": func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) },
		"damaged":                 write("{"),
		"large":                   write(strings.Repeat(" ", 3<<20)),
		"another format":          changed("format", "koreauth keys 2"),
		"a large document":        changed("document", make([]byte, 1<<20+1)),
		"others can write":        func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o666)) },
		"an older document":       changed("document", []byte("old")),
		"another source":          changed("source", "https://issuer.example/moved"),
		"another URL":             changed("url", "https://issuer.example/moved"),
		"the future":              changed("fetched", time.Now().Add(time.Hour)),
		"a time longer ago":       changed("fetched", time.Now().Add(-3*time.Hour)),
		"a symbolic link": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink("x", path))
		},
		"the rest of a killed process": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), temporary), []byte(strings.Repeat("{", 10_000)), 0o666))
			require.NoError(t, os.Remove(path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folder", "keys.json")
			f, at := newFile(path), time.Now().Add(-time.Hour)
			require.NoError(t, f.Save("s", at, []byte("new")))
			change(t, path)
			require.NoError(t, f.Save("s", at.Add(time.Minute), []byte("new")))
			r, err := load(t, path)
			require.NoError(t, err)
			assert.Equal(t, "new", string(r.Document))
			assert.True(t, at.Add(time.Minute).Equal(r.Fetched))
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
			assert.Equal(t, []string{"keys.json"}, entries(t, path))
		})
	}
}

// What a killed process left is removed, also if the file needs no write.
func TestFile_RemovesTheRestOfKilledProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	f, at := newFile(path), time.Now().Add(-time.Hour)
	require.NoError(t, f.Save("s", at, []byte("new")))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), temporary), []byte("{"), 0o600))
	require.NoError(t, f.Save("s", at.Add(time.Minute), []byte("new")))
	assert.Equal(t, []string{"keys.json"}, entries(t, path))
}

// The time of the fetch counts for MaxStale, so that a short one needs more writes.
func TestFile_IsWrittenForMaxStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	f, at := newFile(path), time.Now().Add(-20*time.Minute)
	f.MaxStale = 40 * time.Minute
	for _, row := range []struct{ after, want time.Duration }{{0, 0}, {9 * time.Minute, 0}, {10 * time.Minute, 10 * time.Minute}, {19 * time.Minute, 10 * time.Minute}} {
		require.NoError(t, f.Save("s", at.Add(row.after), []byte("one")))
		r, err := load(t, path)
		require.NoError(t, err)
		assert.Equal(t, row.want, r.Fetched.Sub(at).Round(time.Second))
	}
}

// A process that fetched before another one, and writes after it, does not replace its
// document, however their steps interleave.
func TestFile_OlderDocumentOfAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	at := time.Now().Add(-time.Hour)
	other, err := os.OpenFile(filepath.Join(filepath.Dir(path), temporary), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(other.Fd()), syscall.LOCK_EX))
	saved := make(chan error, 1)
	go func() { saved <- newFile(path).Save("s", at, []byte("old")) }()
	assert.Never(t, func() bool { return len(saved) > 0 }, 50*time.Millisecond, time.Millisecond, "it waits for the other process")
	later := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, newFile(later).Save("s", at.Add(time.Minute), []byte("new")))
	text, err := os.ReadFile(later)
	require.NoError(t, err)
	_, err = other.Write(text)
	require.NoError(t, err)
	require.NoError(t, os.Rename(other.Name(), path))
	require.NoError(t, other.Close())
	require.NoError(t, <-saved)
	r, err := load(t, path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(r.Document))
	assert.Equal(t, []string{"keys.json"}, entries(t, path))
}

// The keys of another issuer are not replaced, but those of another URL are.
func TestFile_OfAnotherIssuer(t *testing.T) {
	const a, b = "https://a.example", "https://b.example"
	for _, row := range []struct {
		name         string
		issuer, url  string // of the file
		other, place string // of the key set
		says         string // empty: no error
	}{
		{"another issuer", a, "", b, "", `has the keys of "https://a.example": use one file for each issuer`},
		{"another issuer with a URL", a, "", b, b + "/keys", `has the keys of "https://a.example": use`},
		{"another issuer with the same URL", a, a + "/keys", b, a + "/keys", `has the keys of "https://a.example", from "https://a.example/keys": use`},
		{"another URL", "", a + "/keys", "", b + "/keys", `has the keys of "https://a.example/keys": use`},
		{"an issuer without the same URL", "", a + "/keys", a, "", `has the keys of "https://a.example/keys": use`},
		{"another URL of the same issuer", a, a + "/keys", a, a + "/certs", ""},
		{"a URL of the same issuer", a, "", a, a + "/certs", ""},
		{"the same URL, now with an issuer", "", a + "/keys", a, a + "/keys", ""},
	} {
		path := filepath.Join(t.TempDir(), "keys.json")
		first := &keyfile.File{Path: path, Issuer: row.issuer, URL: row.url, MaxStale: time.Hour}
		require.NoError(t, first.Save("s", time.Now().Add(-time.Minute), []byte("one")))
		second := &keyfile.File{Path: path, Issuer: row.other, URL: row.place, MaxStale: time.Hour}
		err := second.Save("s", time.Now(), []byte("two"))
		if row.says == "" {
			require.NoError(t, err, row.name)
			_, err = second.Load(t.Context())
			assert.NoError(t, err, row.name)
			continue
		}
		assert.ErrorContains(t, err, "the key file "+path+" "+row.says, row.name)
		r, err := first.Load(t.Context())
		require.NoError(t, err, row.name)
		assert.Equal(t, "one", string(r.Document), row.name)
		assert.Equal(t, []string{"keys.json"}, entries(t, path), row.name)
	}
}

// The last folder is created, for this user only: so the file can be on a volume that
// others can write, such as an emptyDir.
func TestFile_CreatesItsFolder(t *testing.T) {
	for name, mode := range map[string]fs.FileMode{"an emptyDir": 0o777, "a volume with an fsGroup": 0o775 | fs.ModeSetgid, "a folder of this user": 0o700, "like /tmp": 0o777 | fs.ModeSticky} {
		t.Run(name, func(t *testing.T) {
			volume := t.TempDir()
			require.NoError(t, os.Chmod(volume, mode))
			path := filepath.Join(volume, "koreauth", "keys.json")
			_, err := load(t, path)
			assert.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, newFile(path).Save("s", time.Now(), []byte("one")))
			info, err := os.Stat(filepath.Dir(path))
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
			_, err = load(t, path)
			assert.NoError(t, err)
		})
	}
}

// Others must not be able to lead the name to another folder of this user.
func TestFile_BehindALink(t *testing.T) {
	for name, row := range map[string]struct {
		mode fs.FileMode // of the folder that has the link
		want bool
	}{
		"this user can write":             {0o755, true},
		"others can write":                {0o777, false},
		"the group can write":             {0o775, false},
		"others can write but not rename": {0o777 | fs.ModeSticky, true},
	} {
		t.Run(name, func(t *testing.T) {
			elsewhere, volume := filepath.Join(t.TempDir(), "a"), t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(elsewhere, "b"), 0o700))
			require.NoError(t, os.Symlink(elsewhere, filepath.Join(volume, "link")))
			for _, path := range []string{filepath.Join(volume, "link", "keys.json"), filepath.Join(volume, "link", "b", "keys.json")} {
				require.NoError(t, os.Chmod(volume, 0o700))
				require.NoError(t, newFile(path).Save("s", time.Now(), []byte("one")))
				require.NoError(t, os.Chmod(volume, row.mode))
				_, err := load(t, path)
				saved := newFile(path).Save("s", time.Now(), []byte("two"))
				if row.want {
					assert.NoError(t, errors.Join(err, saved))
					continue
				}
				assert.ErrorContains(t, err, "is behind the symbolic link "+filepath.Join(volume, "link"))
				assert.ErrorContains(t, saved, "is behind the symbolic link ")
			}
		})
	}
}

// A relative name is that of one file, also if the working directory changes.
func TestFile_RelativeName(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	t.Chdir(one)
	f := newFile("keys.json")
	require.NoError(t, f.Save("s", time.Now().Add(-time.Minute), []byte("one")))
	t.Chdir(two)
	require.NoError(t, f.Save("s", time.Now(), []byte("two")))
	r, err := load(t, filepath.Join(one, "keys.json"))
	require.NoError(t, err)
	assert.Equal(t, "two", string(r.Document))
	assert.Empty(t, entries(t, filepath.Join(two, "keys.json")))
}

// A read that hangs holds one goroutine, not one for each retry.
func TestFile_HangingRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	f := newFile(path)
	require.NoError(t, f.Save("s", time.Now(), []byte("one")))
	f.Reading(true)
	for range 3 {
		_, err := f.Load(context.Background())
		assert.ErrorContains(t, err, "the disk has not answered yet")
	}
	f.Reading(false)
	for range 3 {
		_, err := f.Load(context.Background())
		assert.NoError(t, err)
	}
}

func TestFile_News(t *testing.T) {
	f := newFile(filepath.Join(t.TempDir(), "keys.json"))
	assert.True(t, f.News(errors.New("one")))
	assert.False(t, f.News(errors.New("one")))
	assert.True(t, f.News(errors.New("two")))
	assert.False(t, f.News(errors.New("two")))
	require.NoError(t, f.Save("s", time.Now(), []byte("one")))
	assert.True(t, f.News(errors.New("two")), "after a write")
}

// Texts are one sentence, and say what to do.
func TestFile_Errors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err := load(t, path)
	assert.EqualError(t, err, "the key file "+path+" is not a file")
	assert.ErrorContains(t, newFile(path).Save("s", time.Now(), nil), "the key file "+path+" cannot be written: rename ")
	assert.Equal(t, []string{"keys.json"}, entries(t, path), "the temporary file is removed")
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(filepath.Join(filepath.Dir(path), temporary), 0o600))
	assert.ErrorContains(t, newFile(path).Save("s", time.Now(), nil), "is not a file: remove it")
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), temporary)))
	require.NoError(t, os.Symlink(path, filepath.Join(filepath.Dir(path), temporary)))
	assert.ErrorContains(t, newFile(path).Save("s", time.Now(), nil), "cannot be written: open ")
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(filepath.Dir(path), 1234, -1))
		_, err = load(t, path)
		assert.ErrorContains(t, err, "is in a folder that belongs to another user")
	}
}
