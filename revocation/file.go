package revocation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pollInterval is how often followers look at the file.
	pollInterval = 200 * time.Millisecond
	// refillLines is up to how many lines a refill appends one by one. More of them are
	// written with a new file.
	refillLines = 64
	// maxGiven is how many lines the positions may have where calls of Follow ended. Each
	// takes four bytes.
	maxGiven = 4_000_000
)

// File returns a store in a file, for the processes of one machine. It makes the file
// when it is used first; the folder must exist. Use a local file system, and one value
// of File for each file in a process.
//
// The file has one line of text for each rule. It grows at its end, and when Append
// returns, the rule is on the disk. A last line that is incomplete, because the machine
// or the process stopped while it was written, is not a rule: it is ignored, and the
// next Append removes it. Any other damaged line is an error, which names the line.
// Once the file is over 1 MiB, and more than half of its lines are not needed anymore,
// Append replaces it by a file without them. To put back a copy of the file, move it
// there, so that it is replaced at once. Running lists keep what they know, whatever
// happens to the file, and append again what it lacks.
//
// If Append returns an error, the rule may be stored or not, as with any store: append
// it again.
//
// The file, and the lock file beside it whose name ends in ".lock", have mode 0600. File
// does not use a symbolic link, a file that another user owns, except root, or one that
// others can write. On Windows it does not check this, and has no lock between
// processes: there, only one process may append.
func File(path string) Store {
	return &file{w: writer{path: path, disk: realDisk, turn: make(chan struct{}, 1)}}
}

// file is the store of File.
type file struct {
	w writer

	refilled atomic.Int64 // w.losses, before Refill returned nil
	logger   atomic.Pointer[slog.Logger]

	mu    sync.Mutex
	given []position // where calls of Follow ended, the latest last
}

func (s *file) Append(ctx context.Context, r Rule) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	if err := checkRule(r); err != nil {
		return Receipt{}, err // without making a file
	}
	if err := s.w.begin(ctx); err != nil {
		return Receipt{}, s.failed(err)
	}
	receipt, err := s.appendNew(r)
	var fault error
	if err == nil {
		fault = s.w.compact(ctx)
	}
	s.finish(ctx)
	if fault != nil && ctx.Err() == nil {
		s.warn(ctx, "the store could not remove lines that are not needed from its file", "error", s.failed(fault))
	}
	return receipt, err
}

// checkRule returns an error if a rule cannot be appended.
func checkRule(r Rule) error {
	now := time.Now()
	r, err := r.Complete(now)
	if err != nil {
		return err
	}
	return checkLine(Receipt{At: now, Rule: r})
}

// appendNew completes and appends a rule, during a turn.
func (s *file) appendNew(r Rule) (Receipt, error) {
	at := nextAt(s.w.end.latest)
	r, err := r.Complete(at)
	if err != nil {
		return Receipt{}, err
	}
	text, receipt, err := formatLine(Receipt{Seq: s.w.end.seq + 1, At: at, Rule: r})
	if err != nil {
		return Receipt{}, err
	}
	if err := s.w.append(text); err != nil {
		return Receipt{}, s.failed(err)
	}
	return receipt, nil
}

// finish ends a turn of the writer.
func (s *file) finish(ctx context.Context) {
	repaired := s.w.repaired
	s.w.finish()
	if repaired != "" {
		s.warn(ctx, "the store repaired the end of its file", "repaired", repaired)
	}
}

// failed returns an error that names the file.
func (s *file) failed(err error) error {
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case s.w.path == "":
		return errors.New("revocation: File has no path: give it one")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("revocation: file %s: make its folder, or give another path: %w", s.w.path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("revocation: file %s: run as the user who owns it: %w", s.w.path, err)
	}
	return fmt.Errorf("revocation: file %s: %w", s.w.path, err)
}

func (s *file) Refill(ctx context.Context, receipts []Receipt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lacking, fault := findLacking(receipts)
	// Most of the reading is done without the lock.
	seen, err := s.seek(ctx, lacking)
	if err != nil {
		return s.failed(err)
	}
	if err := s.w.begin(ctx); err != nil {
		return s.failed(err)
	}
	defer s.finish(ctx)
	losses := s.w.losses.Load()
	same, err := seen.holds(s.w.f, s.w.end.offset)
	if err == nil && !same {
		seen = position{}
		lacking, _ = findLacking(receipts)
	}
	if err == nil {
		err = lacking.seek(ctx, &seen, s.w.f, s.w.end.offset)
	}
	if err == nil {
		err = s.appendAll(ctx, lacking.receipts())
	}
	if err != nil {
		return s.failed(err)
	}
	if fault == nil {
		s.refilled.Store(losses)
	}
	return fault
}

// seek looks in the file for the receipts of a refill, and returns where it ended.
func (s *file) seek(ctx context.Context, lacking lacking) (position, error) {
	var at position
	f, info, err := openOwn(s.w.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err != nil {
		return at, err
	}
	defer f.Close()
	err = lacking.seek(ctx, &at, f, info.Size())
	return at, err
}

// appendAll appends receipts, during a turn. A crash during one write of many lines may
// damage any of them, so that many are written with a new file.
func (s *file) appendAll(ctx context.Context, receipts []Receipt) error {
	if len(receipts) > refillLines {
		all := func(*line) bool { return true }
		return s.w.rewrite(ctx, all, func(write func([]byte) error) error {
			return formatAll(ctx, receipts, s.w.end.seq, write)
		})
	}
	return formatAll(ctx, receipts, s.w.end.seq, s.w.append)
}

// formatAll writes the lines of receipts, with the numbers after last.
func formatAll(ctx context.Context, receipts []Receipt, last uint64, write func([]byte) error) error {
	for i, r := range receipts {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Seq = last + 1 + uint64(i)
		text, _, err := formatLine(r)
		if err == nil {
			err = write(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Report does nothing: the replicas are processes of one machine.
func (s *file) Report(context.Context, string, uint64) error { return nil }

func (s *file) Replicas(context.Context) (known, current int, err error) { return 1, 1, nil }

// Lost reports whether it was found that rules are gone since Refill last returned nil.
func (s *file) Lost() bool { return s.w.losses.Load() != s.refilled.Load() }

func (s *file) Follow(ctx context.Context, from uint64, apply func(Receipt), current func(at time.Time)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l := loggerOf(ctx); l != nil {
		s.logger.Store(l)
	}
	f := &follower{store: s, apply: apply, from: from, before: s.known(from)}
	defer func() { s.remember(f.at) }()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		at := time.Now()
		complete, err := f.look(ctx)
		if err != nil {
			return s.failed(err)
		}
		if complete {
			current(at)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// remember keeps where a call of Follow ended.
func (s *file) remember(at position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = slices.DeleteFunc(s.given, func(p position) bool {
		return p.epoch == at.epoch && p.seq == at.seq && p.sum == at.sum
	})
	s.given = append(s.given, at)
	lines := 0
	for _, p := range s.given {
		lines += p.number
	}
	for len(s.given) > 1 && (len(s.given) > 64 || lines > maxGiven) {
		lines -= s.given[0].number
		s.given[0] = position{} // so that its memory is released
		s.given = s.given[1:]
	}
}

// known returns what was read of the file up to a Seq, or else what was read last.
func (s *file) known(from uint64) past {
	s.mu.Lock()
	defer s.mu.Unlock()
	var there past
	for _, p := range s.given {
		if p.seq == from {
			there.add(p)
		}
	}
	if n := len(s.given); n > 0 && from > 0 && len(there.positions) == 0 {
		there.add(s.given[n-1])
	}
	return there
}

// warn logs to the Logger of the list that follows, or followed last.
func (s *file) warn(ctx context.Context, message string, args ...any) {
	if logger := s.logger.Load(); logger != nil {
		logger.WarnContext(ctx, "koreauth: "+message, append(args, "file", s.w.path)...)
	}
}
