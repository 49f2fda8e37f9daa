//go:build !unix

package revocation

import "os"

const openFlags = 0

// checkOwner checks nothing: permissions are not those of Unix.
func checkOwner(*os.File) error { return nil }

// syncFolder does nothing: folders cannot be opened for that.
func syncFolder(string) {}
