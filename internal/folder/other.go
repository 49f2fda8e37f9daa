//go:build !unix

// Package folder makes changes of folders last.
package folder

// Sync does nothing: folders cannot be opened for that here.
func Sync(string) error { return nil }
