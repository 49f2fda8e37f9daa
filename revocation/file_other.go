//go:build !unix || aix || solaris

package revocation

import (
	"io/fs"
	"os"
)

// Here only the store itself keeps its calls of Append apart.

const openFlags = 0

func checkAccess(fs.FileInfo) error { return nil }

func keepAccess(*os.File, fs.FileInfo) error { return nil }

func tryLock(*os.File) (locked bool, err error) { return true, nil }

// truncate cuts the file. A file that is open for appending cannot be cut on Windows.
func truncate(f *os.File, size int64) error { return os.Truncate(f.Name(), size) }
