//go:build !unix

package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// open opens a file. Who can write it is not checked here.
func open(name string) (*os.File, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be opened: %w", err)
	}
	return file, nil
}

// makeFolder creates a folder, if it is missing.
func makeFolder(name string) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("is in a folder that cannot be created: %w", err)
	}
	return nil
}

// lock creates a new file. Other processes are not kept from writing here.
func lock(name string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(name), filepath.Base(name)+"-*")
}

// publish renames a new file. It must be closed for that here.
func publish(file *os.File, name string) error {
	return errors.Join(file.Close(), os.Rename(file.Name(), name))
}

// discard removes a new file.
func discard(file *os.File) {
	_ = file.Close()
	_ = os.Remove(file.Name())
}
