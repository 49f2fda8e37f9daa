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

// open opens a file that nobody else can write, in a folder that nobody else can write. It
// opens the folder that it has checked, also if its name becomes that of another folder
// meanwhile. It does not wait for a FIFO.
func open(name string) (*os.File, error) {
	in, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("is in a folder that cannot be read: %w", err)
	}
	defer in.Close()
	if err := checkFolder(in, filepath.Dir(name)); err != nil {
		return nil, err
	}
	name = filepath.Base(name)
	info, err := in.Lstat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be opened: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, errors.New("is a symbolic link: use the name of the file that it points to")
	}
	file, err := in.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot be opened: %w", err)
	}
	info, err = file.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("cannot be read: %w", err)
	case !info.Mode().IsRegular():
		err = errors.New("is not a file")
	default:
		err = check(info, "", "remove their permission")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// makeFolder creates a folder for this user only, if it is missing, and checks it.
func makeFolder(name string) error {
	in, err := os.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("is in a folder that cannot be created: %w", err)
		}
		in, err = os.OpenRoot(name)
	}
	if err != nil {
		return fmt.Errorf("is in a folder that cannot be read: %w", err)
	}
	defer in.Close()
	return checkFolder(in, name)
}

// checkFolder returns an error if others can replace the files of a folder. in is the
// opened folder.
func checkFolder(in *os.Root, name string) error {
	info, err := in.Stat(".")
	if err != nil {
		return fmt.Errorf("is in a folder that cannot be read: %w", err)
	}
	if err := check(info, "is in a folder that ", "remove their permission, or name a new folder in it, which is then created"); err != nil {
		return err
	}
	return checkLinks(name)
}

// checkLinks returns an error if others can replace a symbolic link on the way to a
// folder: they could lead it to any other folder of this user. Who can write a folder
// above can rename the folder itself, too. But only this user and root can own what is
// there instead, and move a folder of this user to another one.
func checkLinks(name string) error {
	for in := filepath.Dir(name); in != name; name, in = in, filepath.Dir(in) {
		link, err := os.Lstat(name)
		if err != nil {
			return fmt.Errorf("is in a folder that cannot be read: %w", err)
		}
		if link.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		above, err := os.Stat(in)
		switch {
		case err != nil:
			return fmt.Errorf("is in a folder that cannot be read: %w", err)
		case !ours(link), !ours(above), above.Mode().Perm()&0o022 != 0 && above.Mode()&fs.ModeSticky == 0:
			return fmt.Errorf("is behind the symbolic link %s, which others can replace, who could forge tokens: use the name of the folder", name)
		}
	}
	return nil
}

// check returns an error if another user than this one and root can write.
func check(info fs.FileInfo, what, cure string) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%scan be written by others, who could forge tokens (mode %04o): %s", what, mode, cure)
	}
	if !ours(info) {
		return fmt.Errorf("%sbelongs to another user, who could forge tokens: change its owner", what)
	}
	return nil
}

// ours reports whether something belongs to this user or to root.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid()
}

// lock creates a file, or empties the one that a killed process left, and waits until no
// other process has it. It is unlocked when it is closed, and when the process ends.
func lock(name string) (*os.File, error) {
	for range 100 {
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		err = flock(file)
		opened, statErr := file.Stat()
		if err = errors.Join(err, statErr); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		// The process that had the lock has renamed or removed the file, unless it was killed.
		if named, err := os.Lstat(name); err != nil || !os.SameFile(opened, named) {
			_ = file.Close()
			continue
		}
		if !opened.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file: remove it", name)
		}
		if err = errors.Join(err, file.Chmod(0o600), file.Truncate(0)); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	}
	return nil, fmt.Errorf("%s is always locked by other processes", name)
}

// publish renames a new file, which stays locked.
func publish(file *os.File, name string) error { return os.Rename(file.Name(), name) }

// discard removes a new file, which stays locked.
func discard(file *os.File) { _ = os.Remove(file.Name()) }
