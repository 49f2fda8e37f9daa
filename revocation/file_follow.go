package revocation

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// follower is one call of Follow of a file.
type follower struct {
	store *file
	apply func(Receipt)
	from  uint64   // Seq of the last rule that was given
	at    position // up to where the file was read
	// before is what was read of the file earlier. It is checked while the file is read
	// from its start.
	before past

	damaged   int       // number of the damaged line that the last look found
	rest      tail      // what followed the last line at the last look
	restAt    int64     // where that began
	restSince time.Time // when it was seen first
	warned    bool      // of rest
}

// look gives the rules that are new. It returns true if it gave all that the file has.
func (f *follower) look(ctx context.Context) (complete bool, err error) {
	file, info, err := openOwn(f.store.w.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, f.create(ctx)
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	rest, err := f.read(ctx, file, info.Size())
	var damage *damage
	switch {
	case errors.As(err, &damage) && f.damaged != damage.number:
		// The file may have been written while it was read: look again.
		f.damaged = damage.number
		return false, nil
	case damage != nil || errors.Is(err, errHeader):
		f.store.w.losses.Add(1) // The line may be deleted.
		return false, err
	case err != nil:
		return false, err
	case f.at.epoch == "":
		return false, f.create(ctx)
	}
	f.damaged, f.before = 0, past{}
	f.warn(ctx, rest)
	return true, nil
}

// create makes the file, or writes its first line. A file that is missing may be at a
// wrong path, so that it is not taken for an empty store unless it can be made.
func (f *follower) create(ctx context.Context) error {
	if f.at.seq > 0 {
		f.before.positions = append(f.before.positions, f.at)
		f.at = position{}
	}
	if err := f.store.w.begin(ctx); err != nil {
		return err
	}
	f.store.finish(ctx)
	return nil
}

// read reads the file from where the last look ended, or, if it is another file now,
// from its start.
func (f *follower) read(ctx context.Context, file *os.File, size int64) (tail, error) {
	same, err := f.at.holds(file, size)
	if err != nil {
		return tail{}, err
	}
	if !same {
		if f.at.seq > 0 {
			f.before.positions = append(f.before.positions, f.at)
		}
		f.at = position{}
	}
	rest, err := f.at.read(ctx, file, size, f.line)
	if err == nil {
		err = f.before.end(f.at)
	}
	again := errors.Is(err, errOther)
	if again {
		f.store.w.losses.Add(1)
	}
	if again || err == nil && f.from > f.at.seq {
		f.from, f.at, f.before = 0, position{}, past{}
		rest, err = f.at.read(ctx, file, size, f.line)
	}
	return rest, err
}

func (f *follower) line(l *line) error {
	if err := f.before.line(f.at.epoch, l); err != nil {
		return err
	}
	if l.seq <= f.from {
		return nil
	}
	r, err := l.receipt()
	if err != nil {
		return err
	}
	f.from = l.seq
	f.apply(r)
	return nil
}

// warn reports what follows the last line, once. At first it may be a line that is being
// written.
func (f *follower) warn(ctx context.Context, rest tail) {
	if rest != f.rest || f.restAt != f.at.offset {
		f.rest, f.restAt, f.restSince, f.warned = rest, f.at.offset, time.Now(), false
	}
	logger := loggerOf(ctx)
	if rest.length == 0 || f.warned || logger == nil || time.Since(f.restSince) < time.Second {
		return
	}
	f.warned = true
	logger.WarnContext(ctx, "koreauth: the last line of the store is incomplete or damaged and is ignored; the next Append removes it",
		"file", f.store.w.path, "line", f.at.number+1, "bytes", rest.length)
}
