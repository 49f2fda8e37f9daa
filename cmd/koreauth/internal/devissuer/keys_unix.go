//go:build unix

package devissuer

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags do not follow a symbolic link, nor wait for a FIFO.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// checkAccess returns an error if another user than this one and root can read or
// change the file.
func checkAccess(info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d: run as that user, or change its owner to user %d", stat.Uid, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("others can use its private keys (mode %04o): set its mode to 0600", mode)
	}
	return nil
}
