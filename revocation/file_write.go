package revocation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/koreauth/koreauth/internal/folder"
)

// disk has the calls that fail if the disk is full or broken.
type disk struct {
	write      func(f *os.File, text []byte) (int, error)
	sync       func(f *os.File) error
	truncate   func(f *os.File, size int64) error
	rename     func(from, to string) error
	syncFolder func(path string) error
}

var realDisk = disk{(*os.File).Write, (*os.File).Sync, truncate, os.Rename, func(path string) error { return folder.Sync(filepath.Dir(path)) }}

// writer changes a file, while no other writer does. It remembers the end of the file,
// so that it reads only what others have appended.
type writer struct {
	path string
	disk disk

	turn chan struct{} // holds one value while a call has its turn; it guards the rest

	lock, f    *os.File // open during a turn
	info       fs.FileInfo
	end        position // of the last line of f
	compaction compaction

	repaired string // what was repaired during this turn

	losses atomic.Int64 // how often it was found that rules are gone
}

// begin waits for the turn and for the lock, opens the file, and repairs its end. If it
// returns nil, call finish.
func (w *writer) begin(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.repaired = ""
	err := w.open(ctx)
	if err != nil {
		w.finish()
	}
	return err
}

func (w *writer) finish() {
	for _, f := range []*os.File{w.f, w.lock} {
		if f != nil {
			_ = f.Close() // What was written has been synced.
		}
	}
	w.f, w.lock = nil, nil
	<-w.turn
}

func (w *writer) open(ctx context.Context) error {
	if w.info == nil { // Do not make a lock file for a file that is not ours.
		if _, err := peek(w.path); err != nil {
			return err
		}
	}
	var err error
	if w.lock, err = lockPath(ctx, w.path+".lock"); err != nil {
		return err
	}
	if err := w.reopen(); err != nil {
		return err
	}
	info, err := w.f.Stat()
	if err != nil {
		return err
	}
	epoch := w.end.epoch
	if err := w.load(ctx, info.Size()); err != nil {
		return err
	}
	if w.info == nil || !os.SameFile(w.info, info) || epoch != w.end.epoch {
		// Its name is new here, and whoever gave it may have stopped before it was
		// stored.
		w.info = nil
		if err := w.disk.syncFolder(w.path); err != nil {
			return err
		}
	}
	w.info = info
	return nil
}

// peek reports whether a file exists. The error says that it is not ours.
func peek(path string) (exists bool, err error) {
	f, info, err := openOwn(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer f.Close()
	start, err := readStart(f, info.Size())
	if err != nil {
		return true, err
	}
	_, err = readHeader(start)
	return true, err
}

// reopen opens the file, or creates it.
func (w *writer) reopen() (err error) {
	w.f, _, err = openOwn(w.path, os.O_RDWR|os.O_APPEND)
	if errors.Is(err, fs.ErrNotExist) {
		w.f, err = createOwn(w.path)
	}
	return err
}

// load reads what was appended since the last turn, or everything if the file is
// another one, and repairs the end.
func (w *writer) load(ctx context.Context, size int64) error {
	same, err := w.end.holds(w.f, size)
	if err != nil {
		return err
	}
	end, before := w.end, past{}
	if !same {
		before.add(w.end)
		end = position{}
	}
	lost := false
	rest, err := end.read(ctx, w.f, size, func(l *line) error {
		lost = lost || before.line(end.epoch, l) != nil
		return nil
	})
	if err != nil {
		return err
	}
	if lost || before.end(end) != nil || rest.whole {
		w.losses.Add(1)
	}
	if w.end.latest.After(end.latest) {
		end.latest = w.end.latest // Lists may know a rule of then.
	}
	w.end = end
	if end.epoch == "" {
		return w.start(size)
	}
	if rest.length == 0 {
		return nil
	}
	if err := w.cut(); err != nil {
		return fmt.Errorf("cannot remove line %d, the last, which is incomplete or damaged: %w", end.number+1, err)
	}
	w.repaired = fmt.Sprintf("line %d, the last, was incomplete or damaged: %d bytes were removed", end.number+1, rest.length)
	return nil
}

// start writes the first line of a file that is new, was emptied, or ends within it.
func (w *writer) start(size int64) error {
	if size > 0 {
		if err := w.disk.truncate(w.f, 0); err != nil {
			return err
		}
	}
	header := newHeader()
	_, err := w.disk.write(w.f, header)
	if err == nil {
		err = w.disk.sync(w.f)
	}
	if err != nil {
		_ = w.disk.truncate(w.f, 0)
		return err
	}
	epoch, err := readHeader(header)
	w.end.begin(epoch)
	return err
}

// cut removes what follows the last line.
func (w *writer) cut() error {
	if err := w.disk.truncate(w.f, w.end.offset); err != nil {
		return err
	}
	return w.disk.sync(w.f)
}

// append appends a line, which is stored when it returns nil.
func (w *writer) append(text []byte) error {
	_, err := w.disk.write(w.f, text)
	if err == nil {
		err = w.disk.sync(w.f)
	}
	if err != nil {
		if undo := w.cut(); undo != nil {
			return fmt.Errorf("the rule may be stored, or not: append it again: %w", errors.Join(err, undo))
		}
		return fmt.Errorf("the rule is not stored: %w", err)
	}
	l := line{number: w.end.number + 1, offset: w.end.offset, whole: text}
	if !l.parse() {
		return errors.New("the rule cannot be read back")
	}
	w.end.pass(&l)
	return nil
}

// rewrite replaces the file by one with the lines to keep, and with more lines. A crash
// leaves either the old file or the new one.
func (w *writer) rewrite(ctx context.Context, keep func(*line) bool, more func(write func([]byte) error) error) error {
	path := w.path + ".new"
	if exists, err := peek(path); err != nil {
		return fmt.Errorf("the new file cannot be made at %s: %w", path, err)
	} else if exists { // A process that stopped has left it.
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	f, err := createOwn(path)
	if err != nil {
		return err
	}
	err = w.copy(ctx, f, keep, more)
	if err == nil {
		err = keepAccess(f, w.info)
	}
	if err == nil {
		err = w.disk.sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		_ = w.f.Close() // Windows replaces no file that is open.
		err = w.disk.rename(path, w.path)
		err = errors.Join(err, w.reopen())
	}
	if err != nil {
		_ = os.Remove(path)
		return err
	}
	w.info = nil // so that the next turn syncs the folder, should this one fail
	info, err := w.f.Stat()
	if err != nil {
		return err
	}
	w.end = position{}
	if _, err := w.end.read(context.WithoutCancel(ctx), w.f, info.Size(), func(*line) error { return nil }); err != nil {
		return err
	}
	if err := w.disk.syncFolder(w.path); err != nil {
		return err
	}
	w.info = info
	return nil
}

// copy writes the lines of a new file.
func (w *writer) copy(ctx context.Context, to *os.File, keep func(*line) bool, more func(write func([]byte) error) error) error {
	out := bufio.NewWriterSize(diskWriter{w.disk, to}, 256<<10)
	write := func(text []byte) error { _, err := out.Write(text); return err }
	if err := write(formatHeader(w.end.epoch)); err != nil {
		return err
	}
	var at position
	_, err := at.read(ctx, w.f, w.end.offset, func(l *line) error {
		if !keep(l) {
			return nil
		}
		return write(l.whole)
	})
	if err == nil && more != nil {
		err = more(write)
	}
	return errors.Join(err, out.Flush())
}

type diskWriter struct {
	disk disk
	f    *os.File
}

func (d diskWriter) Write(text []byte) (int, error) { return d.disk.write(d.f, text) }
