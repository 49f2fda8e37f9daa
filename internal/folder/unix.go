//go:build unix

// Package folder makes changes of folders last.
package folder

import (
	"errors"
	"os"
	"syscall"
)

// Sync makes sure that the names of files that were created in a folder, or renamed, are
// stored.
func Sync(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	err = folder.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // This file system has no such call.
	}
	return errors.Join(err, folder.Close())
}
