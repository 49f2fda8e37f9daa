//go:build unix

package revocation_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// TestFile_RejectsFilesOfOthers has files that somebody else may have put there or may
// change.
func TestFile_RejectsFilesOfOthers(t *testing.T) {
	t.Parallel() // It mostly waits.
	mode := func(mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, mode)) }
	}
	replace := func(by func(path, old string) error) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".old"))
			require.NoError(t, by(path, path+".old"))
		}
	}
	for _, row := range []struct {
		name   string
		change func(*testing.T, string)
		says   string // empty: it is used
	}{
		{"mode 0600", mode(0o600), ""},
		{"mode 0644", mode(0o644), ""},
		{"mode 0640", mode(0o640), ""},
		{"mode 0660", mode(0o660), "set its mode to 0600"},
		{"mode 0602", mode(0o602), "set its mode to 0600"},
		{"mode 0666", mode(0o666), "set its mode to 0600"},
		{"another owner", func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			require.NoError(t, os.Chown(path, 12345, -1))
		}, "it belongs to user 12345: run as that user"},
		{"a symbolic link", replace(func(path, old string) error { return os.Symlink(old, path) }), "it is a symbolic link"},
		{"a symbolic link to nothing", replace(func(path, _ string) error { return os.Symlink(path+".none", path) }), "it is a symbolic link"},
		{"a hard link", replace(func(path, old string) error { return os.Link(old, path) }), ""},
		{"a folder", replace(func(path, _ string) error { return os.Mkdir(path, 0o700) }), "it is no regular file"},
		{"a FIFO", replace(func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }), "it is no regular file"},
		{"a device", replace(func(path, _ string) error {
			if os.Geteuid() != 0 {
				return os.Mkdir(path, 0o700)
			}
			return syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3)
		}), "it is no regular file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := newFile(t)
			old := revocation.File(path)
			receipts := fill(t, old, 2)
			w := watch(t, old, 0)
			w.waitCurrent(t)
			row.change(t, path)
			for _, store := range []revocation.Store{old, revocation.File(path)} {
				given, err := load(store, 0)
				_, appendErr := store.Append(t.Context(), fileRule("t"))
				refillErr := store.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{{At: time.Now(), Rule: fileRule("t")}})
				if row.says == "" {
					assert.NoError(t, err)
					assert.NoError(t, appendErr)
					assert.NoError(t, refillErr)
					assert.NotEmpty(t, given)
					continue
				}
				for _, err := range []error{err, appendErr, refillErr} {
					assert.ErrorContains(t, err, row.says)
					assert.ErrorContains(t, err, "revocation: file "+path+": ")
				}
				assert.Empty(t, given)
			}
			if row.says != "" {
				assert.ErrorContains(t, <-w.err, row.says, "a follower must notice")
			}
			assert.Equal(t, receipts, w.all()[:2])
		})
	}
}

func TestFile_RejectsALockFileOfOthers(t *testing.T) {
	for name, change := range map[string]func(lock string) error{
		"a symbolic link": func(lock string) error { return os.Symlink(filepath.Join(filepath.Dir(lock), "other"), lock) },
		"a FIFO":          func(lock string) error { return syscall.Mkfifo(lock, 0o600) },
		"a folder":        func(lock string) error { return os.Mkdir(lock, 0o700) },
		"mode 0666": func(lock string) error {
			if err := os.WriteFile(lock, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(lock, 0o666)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			require.NoError(t, change(path+".lock"))
			_, err := revocation.File(path).Append(t.Context(), fileRule("t"))
			assert.ErrorContains(t, err, path+".lock: ")
			assert.NoFileExists(t, path)
			assert.NoFileExists(t, filepath.Join(filepath.Dir(path), "other"))
		})
	}
	t.Run("a lock file that was removed is made again", func(t *testing.T) {
		path := newFile(t)
		store := revocation.File(path)
		for range 3 {
			fill(t, store, 1)
			require.NoError(t, os.Remove(path+".lock"))
		}
		assert.Len(t, mustLoad(t, store), 3)
	})
}

// TestFile_NeedsPermission runs as another user than root, which may read everything.
func TestFile_NeedsPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		folder, err := os.MkdirTemp("", "revocation")
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		require.NoError(t, os.Chown(folder, 65534, 65534))
		binary := filepath.Join(folder, "test")
		data, err := os.ReadFile(os.Args[0])
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(binary, data, 0o755))
		require.NoError(t, os.Chmod(folder, 0o755))
		cmd := exec.Command(binary, "-test.run", "^TestFile_NeedsPermission$", "-test.v")
		cmd.Env = append(os.Environ(), "TMPDIR="+folder)
		cmd.Dir = folder
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	path := newFile(t)
	store := revocation.File(path)
	receipts := fill(t, store, 2)
	refuses := func(says string) {
		t.Helper()
		_, err := store.Append(t.Context(), fileRule("t"))
		assert.ErrorIs(t, err, os.ErrPermission)
		assert.ErrorContains(t, err, says)
	}
	// It can be read, but not written.
	require.NoError(t, os.Chmod(path, 0o400))
	assert.Equal(t, receipts, mustLoad(t, revocation.File(path)))
	refuses("run as the user who owns it")
	// It cannot be read.
	require.NoError(t, os.Chmod(path, 0o200))
	_, err := load(revocation.File(path), 0)
	assert.ErrorIs(t, err, os.ErrPermission)
	refuses("run as the user who owns it")
	// It is missing, and cannot be made. Nobody may take that for an empty store.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Remove(path+".lock"))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o500))
	given, err := load(revocation.File(path), 0)
	assert.ErrorIs(t, err, os.ErrPermission)
	assert.Empty(t, given)
	refuses("run as the user who owns it")
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o700))
}

func TestFile_ReleasesFiles(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("there is no /proc")
		}
		return len(entries)
	}
	path := newFile(t)
	fill(t, revocation.File(path), 1)
	before := open()
	for i := range 100 {
		store := revocation.File(path)
		fill(t, store, 1)
		mustLoad(t, store)
		require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{{At: time.Unix(int64(i), 0), Rule: fileRule("t")}}))
	}
	assert.Equal(t, before, open())
}
