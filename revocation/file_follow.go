package revocation

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

const (
	// timePrecision is at least the precision of the times that a file system keeps.
	timePrecision = 2 * time.Second
	// checkRate is how many bytes a second a follower reads again, to check that a file
	// which was written has still what was read. It reads up to 6 MiB at each look.
	checkRate = 32 << 20
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

	checked   fs.FileInfo // of the file when all that was read of it was read or checked last
	checkedAt time.Time   // when that was
	empty     bool        // the last look found no first line

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
	rest, err := f.read(ctx, file, info)
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
	case f.at.epoch == "" && !f.empty:
		// Somebody may be about to write a copy into it: look again.
		f.empty = true
		return false, nil
	case f.at.epoch == "":
		return false, f.create(ctx)
	}
	f.damaged, f.before, f.empty = 0, past{}, false
	f.warn(ctx, rest)
	return true, nil
}

// create makes the file, or writes its first line. A file that is missing may be at a
// wrong path, so that it is not taken for an empty store unless it can be made.
func (f *follower) create(ctx context.Context) error {
	f.restart()
	if err := f.store.w.begin(ctx); err != nil {
		return err
	}
	f.store.finish(ctx)
	return nil
}

// restart begins to read the file from its start, and compares it with what was read.
func (f *follower) restart() {
	f.before.add(f.at)
	f.before.again()
	f.at = position{}
}

// read reads the file from where the last look ended, or, if it is another file now,
// from its start.
func (f *follower) read(ctx context.Context, file *os.File, info fs.FileInfo) (rest tail, err error) {
	same, err := f.at.holds(file, info.Size())
	switch {
	case err != nil:
		return tail{}, err
	case same:
		err = f.check(ctx, file, info)
	default:
		f.restart()
		f.checked, f.checkedAt = info, time.Now()
	}
	if err == nil {
		rest, err = f.at.read(ctx, file, info.Size(), f.line)
	}
	if err == nil {
		err = f.before.end(f.at)
	}
	again := errors.Is(err, errOther)
	if again {
		f.store.w.losses.Add(1)
	}
	if again || err == nil && f.from > f.at.seq {
		f.from, f.at, f.before = 0, position{}, past{}
		f.checked, f.checkedAt = info, time.Now()
		rest, err = f.at.read(ctx, file, info.Size(), f.line)
	}
	return rest, err
}

// check returns errOther if what was read of the file has changed. It does not look at a
// file that nobody has written since the last check, and reads at most checkRate.
func (f *follower) check(ctx context.Context, file *os.File, info fs.FileInfo) error {
	now := time.Now()
	written := f.checked.Size() != info.Size() || !f.checked.ModTime().Equal(info.ModTime()) || !os.SameFile(f.checked, info)
	// Two changes within the precision of a file system's clock have the same time.
	written = written || f.checkedAt.Sub(info.ModTime()) < timePrecision
	if !written || now.Sub(f.checkedAt).Seconds() < float64(f.at.offset)/checkRate {
		return nil
	}
	unchanged, err := f.at.unchanged(ctx, file)
	if err == nil && !unchanged {
		err = errOther
	}
	f.checked, f.checkedAt = info, now
	return err
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
