//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package keyfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// flock waits until no other process has locked a file.
func flock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("%s cannot be locked: %w", file.Name(), err)
		}
	}
}
