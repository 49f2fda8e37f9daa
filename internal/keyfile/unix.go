//go:build unix

package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// open opens a file that nobody else can write. It follows no symbolic link at the end of
// the name, and does not wait for a FIFO.
func open(name string) (*os.File, error) {
	if err := checkFolder(filepath.Dir(name)); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot be opened: %w", err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("cannot be read: %w", err)
	case !info.Mode().IsRegular():
		err = errors.New("is not a file")
	default:
		err = check(info, "")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// checkFolder returns an error if others can replace the files of a folder.
func checkFolder(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("is in a folder that cannot be read: %w", err)
	}
	return check(info, "is in a folder that ")
}

// check returns an error if another user than this one and root can write.
func check(info fs.FileInfo, what string) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%scan be written by others, who could forge tokens (mode %04o): remove their permission", what, mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%sbelongs to another user, who could forge tokens: change its owner", what)
	}
	return nil
}
