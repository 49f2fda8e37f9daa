package revocation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"
)

// openOwn opens a regular file that only this user and root can change. It does not
// follow a symbolic link, which somebody else may have put there, and which a rename
// would replace.
func openOwn(path string, flag int) (*os.File, fs.FileInfo, error) {
	if info, err := os.Lstat(path); err == nil {
		if err := checkOwn(info); err != nil {
			return nil, nil, err // A FIFO or a device is not even opened.
		}
	}
	f, err := os.OpenFile(path, flag|openFlags, 0o600)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkOwn(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func checkOwn(info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link: give the path of the file itself")
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file: give another path")
	}
	return checkAccess(info)
}

// createOwn creates a file for this user alone. It fails if the file exists.
func createOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL|openFlags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil { // whatever the umask is
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// lockPath waits for the lock of a file, which no other process or store has then. The
// lock ends when the returned file is closed, or with the process.
func lockPath(ctx context.Context, path string) (*os.File, error) {
	for {
		f, info, err := openOwn(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, fmt.Errorf("cannot open the lock file %s: %w", path, err)
		}
		if err := waitLock(ctx, f); err != nil {
			_ = f.Close()
			return nil, err
		}
		// Somebody may have removed or replaced it meanwhile.
		if now, err := os.Lstat(path); err == nil && os.SameFile(info, now) {
			return f, nil
		}
		_ = f.Close()
	}
}

// waitLock tries to get the lock until ctx is done. It tries often, because the lock is
// free for a short time only while others append without a pause.
func waitLock(ctx context.Context, f *os.File) error {
	for pause := 50 * time.Microsecond; ; pause = min(pause*5/4, 2*time.Millisecond) {
		if locked, err := tryLock(f); locked || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}
