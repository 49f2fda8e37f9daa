//go:build unix && !aix && !solaris

package revocation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags do not follow a symbolic link, nor wait for a FIFO.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// checkAccess returns an error if another user than this one and root can change the
// file.
func checkAccess(info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others can write it (mode %04o): set its mode to 0600", mode)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d: run as that user, or change its owner to user %d", stat.Uid, os.Geteuid())
	}
	return nil
}

// keepAccess gives a new file the mode and the group of the one that it replaces.
func keepAccess(f *os.File, old fs.FileInfo) error {
	mode := old.Mode().Perm()
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok || f.Chown(-1, int(stat.Gid)) != nil {
		mode &^= 0o070 // It was a group that this user is not in.
	}
	return f.Chmod(mode)
}

// tryLock gets the lock of the file if nobody else has it.
func tryLock(f *os.File) (locked bool, err error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("cannot lock %s: use a local file system: %w", f.Name(), err)
		}
	}
}

// truncate cuts the file, which is open for appending.
func truncate(f *os.File, size int64) error { return f.Truncate(size) }
