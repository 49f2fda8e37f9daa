// Package keyfile keeps the last good key document of an issuer on disk. Whoever can
// write the file can forge tokens, so that it is read only if nobody else can.
package keyfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/folder"
)

const (
	maxDocument = 1 << 20 // bytes, as of a document that is fetched
	maxSize     = 2 << 20 // bytes of the file, which has the document encoded as base64
	format      = "koreauth keys 1"
	rewrite     = time.Hour // between two writes of the same document
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

// owner names the key set of a record.
func (r *Record) owner() string {
	switch {
	case r.URL == "":
		return fmt.Sprintf("%.128q", r.Issuer)
	case r.Issuer == "":
		return fmt.Sprintf("%.128q", r.URL)
	}
	return fmt.Sprintf("%.128q, from %.128q", r.Issuer, r.URL)
}

// File is the file of one key set. Set its fields before its first use.
type File struct {
	Path        string        // If it is relative, it is made absolute at the first use.
	Issuer, URL string        // of the key set
	MaxStale    time.Duration // how long keys are used after they were fetched

	once     sync.Once              // sets absolute
	absolute string                 // of Path
	reading  atomic.Bool            // a Load has not ended, although its time may be over
	saving   sync.Mutex             // held by Save, which does not wait for it
	told     atomic.Pointer[string] // the text of the error that was news last
}

// path returns the absolute name. A later change of the working directory does not
// change it.
func (f *File) path() string {
	f.once.Do(func() {
		var err error
		if f.absolute, err = filepath.Abs(f.Path); err != nil {
			f.absolute = f.Path
		}
	})
	return f.absolute
}

// News reports whether an error of Load differs from the last one. An error that repeats
// with each retry is worth one record in the log.
func (f *File) News(err error) bool {
	text := err.Error()
	last := f.told.Swap(&text)
	return last == nil || *last != text
}

// Load returns the document, if it is one of this key set and not older than MaxStale. A
// file that does not exist is an error that wraps fs.ErrNotExist. If reading hangs, Load
// returns when ctx is done, and later calls fail until the reading has ended.
func (f *File) Load(ctx context.Context) (Record, error) {
	if !f.reading.CompareAndSwap(false, true) {
		return Record{}, fmt.Errorf("the key file %s cannot be read: the disk has not answered yet", f.Path)
	}
	r, err := bounded.Call(ctx, func(context.Context) (Record, error) {
		defer f.reading.Store(false)
		return f.read()
	})
	switch age := time.Since(r.Fetched); {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		err = fmt.Errorf("cannot be read: %w", err)
	case err != nil:
	case age < 0:
		err = fmt.Errorf("is from the future, %s: check the clock of this machine", r.Fetched.UTC().Format(time.RFC3339))
	case age >= f.MaxStale:
		err = fmt.Errorf("is from %s, which is longer ago than MaxStale", r.Fetched.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return Record{}, fmt.Errorf("the key file %s %w", f.Path, err)
	}
	return r, nil
}

// errForeign is the error of a file that another key set uses.
var errForeign = errors.New("use one file for each issuer")

// read reads and checks the file. The texts of errors follow its name.
func (f *File) read() (r Record, err error) {
	file, err := open(f.path())
	if err != nil {
		return r, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("cannot be read: %w", err)
	case len(text) > maxSize:
		return r, errors.New("is larger than 2 MiB, so it is not a key file of koreauth: it is replaced after the next fetch")
	case json.Unmarshal(text, &r) != nil || r.Format != format:
		return r, errors.New("is not a key file of koreauth, or is damaged: it is replaced after the next fetch")
	case len(r.Document) > maxDocument:
		return r, errors.New("has a key set that is larger than 1 MiB: it is replaced after the next fetch")
	case f.foreign(&r):
		return r, fmt.Errorf("has the keys of %s: %w", r.owner(), errForeign)
	case r.Issuer != f.Issuer || r.URL != f.URL:
		return r, fmt.Errorf("has the keys of %s, which is another place: it is replaced after the next fetch", r.owner())
	}
	return r, nil
}

// foreign reports whether a record is of another issuer. A set without an Issuer is known
// by its URL only.
func (f *File) foreign(r *Record) bool {
	if r.Issuer != "" && f.Issuer != "" {
		return r.Issuer != f.Issuer
	}
	return r.URL != f.URL
}

// Save writes a document that was fetched, unless the file has it already. The same
// document is written again after an hour or, if that is shorter, a quarter of MaxStale,
// because the time of the fetch counts for MaxStale. A document that was fetched later, by
// another process, stays. The keys of another issuer are not replaced.
//
// The file is replaced at once: whoever reads it finds the old document or the new one,
// also after a crash. If the folder is missing, it is created, but not the one above it.
// Save waits for other processes that write the file. While another Save of this File
// runs, it does nothing.
func (f *File) Save(source string, fetched time.Time, document []byte) error {
	if !f.saving.TryLock() {
		return nil
	}
	defer f.saving.Unlock()
	if err := f.save(&Record{format, f.Issuer, f.URL, source, fetched.UTC(), document}); err != nil {
		return fmt.Errorf("the key file %s %w", f.Path, err)
	}
	f.told.Store(nil)
	return nil
}

// save is Save. The texts of errors follow the name of the file.
func (f *File) save(r *Record) error {
	in := filepath.Dir(f.path())
	if err := makeFolder(in); err != nil {
		return err
	}
	// The new file is also the lock. It has one name, so that killed processes leave one.
	temporary, err := lock(filepath.Join(in, "."+filepath.Base(f.path())+".new"))
	if err != nil {
		return fmt.Errorf("cannot be written: %w", err)
	}
	defer temporary.Close()
	old, err := f.read()
	if errors.Is(err, errForeign) {
		discard(temporary)
		return err
	}
	if err == nil && f.serves(&old, r) {
		discard(temporary)
		return nil
	}
	text, err := json.Marshal(r)
	if err == nil {
		_, err = temporary.Write(text)
	}
	if err = errors.Join(err, temporary.Sync()); err == nil {
		err = publish(temporary, f.path())
	}
	if err != nil {
		discard(temporary)
		return fmt.Errorf("cannot be written: %w", err)
	}
	if err := folder.Sync(in); err != nil {
		return fmt.Errorf("may be lost in a crash: %w", err)
	}
	return nil
}

// serves reports whether the record in the file is as good as a new one.
func (f *File) serves(old, r *Record) bool {
	switch age := r.Fetched.Sub(old.Fetched); {
	case old.Fetched.After(time.Now()):
		return false
	case age < 0:
		return true
	default:
		return old.Source == r.Source && string(old.Document) == string(r.Document) && age < min(rewrite, f.MaxStale/4)
	}
}
