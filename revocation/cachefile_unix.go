//go:build unix

package revocation

import (
	"errors"
	"os"
	"syscall"
)

// cacheFlags keep a file that was replaced by a link or a pipe from being followed or
// from blocking.
const cacheFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// checkOwner returns an error if another user owns the file or can write it.
func checkOwner(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return foreign("cannot be read: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return foreign("belongs to another user: name another file, or change its owner")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return &cacheFault{errors.New("can be written by others, who could remove rules from it: its mode must be 0600"), false}
	}
	return nil
}
