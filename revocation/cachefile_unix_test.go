//go:build unix

package revocation_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// platformFaults are the faults that only Unix has.
var platformFaults = []faultyFile{
	{name: "a file that the group can write", spoil: func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o620)) }, cause: "can be written by others"},
	{name: "a file that others can write", spoil: func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o602)) }, cause: "can be written by others"},
	{name: "a foreign file that others can write", spoil: func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path, []byte("my diary"), 0o600))
		require.NoError(t, os.Chmod(path, 0o666))
	}, cause: "was not written by this version", isKept: true},
	{name: "a file that others can read", spoil: func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o644)) }, isRead: true},
	{name: "a file of another user", spoil: func(t *testing.T, path string) {
		if os.Geteuid() != 0 {
			t.Skip("only root can give a file away")
		}
		require.NoError(t, os.Chown(path, 65534, -1))
	}, cause: "belongs to another user", isKept: true},
	{name: "a file that cannot be read", spoil: func(t *testing.T, path string) {
		if os.Geteuid() == 0 {
			t.Skip("root can read every file")
		}
		require.NoError(t, os.Chmod(path, 0))
	}, cause: "cannot be read", isKept: true},
	{name: "a pipe", spoil: func(t *testing.T, path string) {
		require.NoError(t, os.Remove(path))
		require.NoError(t, syscall.Mkfifo(path, 0o600))
	}, cause: "is not a regular file", isKept: true},
}
