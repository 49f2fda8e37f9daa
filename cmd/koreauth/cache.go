package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/koreauth/koreauth/koreclient"
)

// leastLeft is how long a token must live to be given out from the cache.
const leastLeft = 30 * time.Second

// tokenCache keeps one token in a file that only its owner can read. The name of the
// file depends on all that the token depends on, and on a digest of the secret.
type tokenCache struct{ file string }

// cachedToken is the content of the file.
type cachedToken struct {
	Value  string    `json:"value"`
	Expiry time.Time `json:"expiry"`
	Scope  string    `json:"scope"`
}

// newTokenCache returns the cache in a folder. An empty folder means that nothing is
// cached.
func newTokenCache(folder string, c koreclient.Config) tokenCache {
	if folder == "" {
		return tokenCache{}
	}
	sum := sha256.New()
	secret := sha256.Sum256([]byte(c.ClientSecret))
	for _, part := range []string{c.TokenURL, c.Issuer, c.ClientID, fmt.Sprint(c.Style), c.Scope, c.Resource, string(secret[:])} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return tokenCache{filepath.Join(folder, "koreauth", hex.EncodeToString(sum.Sum(nil))+".json")}
}

// find returns the cached token, if it lives long enough.
func (c tokenCache) find() (koreclient.Token, bool) {
	if c.file == "" {
		return koreclient.Token{}, false
	}
	info, err := os.Lstat(c.file)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return koreclient.Token{}, false
	}
	text, err := os.ReadFile(c.file)
	var t cachedToken
	if err != nil || json.Unmarshal(text, &t) != nil || t.Value == "" || time.Until(t.Expiry) < leastLeft {
		return koreclient.Token{}, false
	}
	return koreclient.Token(t), true
}

// lock gets the lock of the cache, which keeps other processes from fetching the same
// token. After an error, or if nothing is cached, there is no lock.
func (c tokenCache) lock(ctx context.Context) (unlock func(), err error) {
	if c.file == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return func() {}, err
	}
	lock := flock.New(c.file+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return func() {}, err
	}
	return func() { _ = lock.Unlock() }, nil
}

// keep caches a token, unless it does not live long enough. It replaces the file at
// once, so that another process reads the old one or the new one.
func (c tokenCache) keep(t koreclient.Token) error {
	if c.file == "" || time.Until(t.Expiry) < leastLeft {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(cachedToken(t))
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.file), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// forget removes the cached token.
func (c tokenCache) forget() error {
	if c.file == "" {
		return nil
	}
	if err := os.Remove(c.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
