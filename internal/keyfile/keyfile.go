// Package keyfile keeps the last good key document of an issuer on disk. Whoever can
// write the file can forge tokens, so that it is read only if nobody else can.
package keyfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/folder"
)

const (
	maxSize = 2 << 20 // bytes: a document of 1 MiB, encoded as base64
	format  = "koreauth keys 1"
	rewrite = time.Hour // between two writes of the same document
)

// Record is a key document, and where and when it was fetched.
type Record struct {
	Format   string    `json:"format"`
	Issuer   string    `json:"issuer"` // of the key set; may be empty if it has a URL
	URL      string    `json:"url"`    // of the key set; empty if it was discovered
	Source   string    `json:"source"` // the URL that the document came from
	Fetched  time.Time `json:"fetched"`
	Document []byte    `json:"document"`
}

// File is the file of one key set.
type File struct {
	Path        string
	Issuer, URL string // of the key set

	mu   sync.Mutex // guards last
	last Record     // as it was written last
}

// Load returns the document, if it is one of this key set and not older than maxAge. A
// file that does not exist is an error that wraps fs.ErrNotExist. If reading hangs, Load
// returns when ctx is done.
func (f *File) Load(ctx context.Context, maxAge time.Duration) (Record, error) {
	r, err := bounded.Call(ctx, func(context.Context) (Record, error) { return f.read() })
	if err == nil {
		switch age := time.Since(r.Fetched); {
		case age < 0:
			err = fmt.Errorf("is from the future, %s: check the clock of this machine", r.Fetched.UTC().Format(time.RFC3339))
		case age >= maxAge:
			err = fmt.Errorf("is from %s, which is longer ago than MaxStale", r.Fetched.UTC().Format(time.RFC3339))
		}
	}
	if err != nil {
		return Record{}, fmt.Errorf("the key file %s %w", f.Path, err)
	}
	return r, nil
}

// read reads and checks the file. The texts of errors follow its name.
func (f *File) read() (r Record, err error) {
	file, err := open(f.Path)
	if err != nil {
		return r, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("cannot be read: %w", err)
	case len(text) > maxSize:
		return r, errors.New("is larger than 2 MiB, so it is not one of these")
	case json.Unmarshal(text, &r) != nil || r.Format != format:
		return r, errors.New("is not a key file of koreauth, or is damaged: remove it, and it is written anew")
	case r.Issuer != f.Issuer || r.URL != f.URL:
		return r, fmt.Errorf("has the keys of %.128q: use one file for each issuer", r.Issuer+r.URL)
	}
	return r, nil
}

// Save writes a document, unless it is in the file already, for less than an hour. It
// replaces the file at once: whoever reads it finds the old document or the new one,
// also after a crash. A newer one, of another process, stays. While another Save runs, it
// does nothing.
func (f *File) Save(source string, fetched time.Time, document []byte) error {
	if !f.mu.TryLock() {
		return nil
	}
	defer f.mu.Unlock()
	r := Record{format, f.Issuer, f.URL, source, fetched.UTC(), document}
	if same := r.Source == f.last.Source && string(r.Document) == string(f.last.Document); same && fetched.Sub(f.last.Fetched) < rewrite {
		return nil
	}
	if newer, err := f.read(); err == nil && newer.Fetched.After(fetched) && !newer.Fetched.After(time.Now()) {
		return nil
	}
	if err := f.write(r); err != nil {
		return fmt.Errorf("the key file %s cannot be written: %w", f.Path, err)
	}
	f.last = r
	return nil
}

func (f *File) write(r Record) error {
	in := filepath.Dir(f.Path)
	if err := checkFolder(in); err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(in, ".keys-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), f.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return folder.Sync(in)
}
