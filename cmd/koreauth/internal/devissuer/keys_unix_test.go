//go:build unix

package devissuer_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
)

func TestRun_RejectsAKeysFileThatOthersCanUse(t *testing.T) {
	t.Parallel()
	file := keysFile(t)
	for _, mode := range []os.FileMode{0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o777} {
		require.NoError(t, os.Chmod(file, mode))
		err := devissuer.Run(t.Context(), "127.0.0.1:0", file, io.Discard)
		assert.ErrorContains(t, err, fmt.Sprintf("others can use its private keys (mode %04o): set its mode to 0600", mode))
	}
	for _, mode := range []os.FileMode{0o600, 0o700} {
		require.NoError(t, os.Chmod(file, mode))
		assert.NoError(t, start(t, "127.0.0.1:0", file).stop())
	}
	require.NoError(t, os.Chmod(file, 0o400))
	assert.NoError(t, start(t, "127.0.0.1:0", file).stop(), "it is never written")
}

func TestRun_RejectsAKeysFileOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	file := keysFile(t)
	require.NoError(t, os.Chown(file, 12345, -1))
	err := devissuer.Run(t.Context(), "127.0.0.1:0", file, io.Discard)
	assert.ErrorContains(t, err, "it belongs to user 12345: run as that user, or change its owner to user 0")
}

func TestRun_RejectsAKeysFileThatIsNoFile(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(keysFile(t), link))
	dangling := filepath.Join(t.TempDir(), "dangling")
	require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "none"), dangling))
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	for path, want := range map[string]string{
		link:     "it is a symbolic link: give the path of the file itself",
		dangling: "it is a symbolic link: give the path of the file itself",
		fifo:     "it is not a regular file: give another path",
	} {
		assert.ErrorContains(t, devissuer.Run(t.Context(), "127.0.0.1:0", path, io.Discard), want, path)
	}
}
