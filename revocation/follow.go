package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/redact"
)

const (
	firstPause   = 50 * time.Millisecond // before following again
	longestPause = 5 * time.Second
	steady       = 5 * time.Second  // after which a failure is a new one
	patience     = 30 * time.Second // without a call of apply or current
	maxPatience  = 10 * time.Minute
	hangTime     = time.Second // how long a store may take to return when ctx is done
	warnAge      = 10 * time.Second
	maxAudited   = 100 // rules between two calls of current with a record each
)

// following is a call of Follow.
type following struct {
	list    *List
	store   Store
	feed    *feed
	start   time.Time
	current chan struct{} // has an element when the store may lack rules
}

// follow follows the store until ctx is done.
func (f *following) follow(ctx context.Context) error {
	f.feed = f.list.fresh.begin(f.store)
	defer f.list.fresh.end(f.feed)
	f.start, f.current = time.Now(), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	done := make(chan struct{})
	background.Go(func() { f.keep(ctx) })
	if fleet, ok := f.store.(Fleet); ok {
		background.Go(func() { (&member{following: f, fleet: fleet}).run(ctx) })
	}
	go func() {
		background.Wait()
		close(done)
	}()
	defer waitFor(done)
	defer cancel()
	pause, calm := firstPause, patience
	for {
		begun := time.Now()
		err := f.session(ctx, calm)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.list.fresh.failed(f.feed, err)
		if errors.Is(err, errSilent) {
			calm = min(2*calm, maxPatience) // The store may need long for the first rule.
		}
		if time.Since(begun) >= steady {
			pause = firstPause
		}
		select { // a random half, so that replicas do not all come at once
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, longestPause)
	}
}

// waitFor waits for goroutines that end when their context is done, unless a store
// that they call does not return.
func waitFor(done <-chan struct{}) {
	timer := time.NewTimer(hangTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

var (
	errEnded  = errors.New("revocation: the store stopped following without an error: a Store must follow until the context is done")
	errSilent = errors.New("revocation: the store gives no sign of life: a Store must call current every two seconds")
)

// session follows the store once, from the last rule that it gave. It returns when the
// store does, and when the store is silent for too long.
func (f *following) session(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{following: f, sign: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() {
		err := errEnded
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("revocation: the store panicked with a %T", p)
			}
			s.end()
			done <- err
		}()
		if failed := f.store.Follow(ctx, f.list.fresh.from(f.feed), s.apply, s.complete); failed != nil {
			err = fmt.Errorf("revocation: the store failed: %w", failed)
		}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-s.sign:
			timer.Reset(patience)
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		silent := ctx.Err() == nil
		s.end() // even if the store does not return
		cancel()
		timer.Reset(hangTime)
		select {
		case <-done:
		case <-timer.C:
		}
		if silent {
			return errSilent
		}
		return ctx.Err()
	}
}

// keep does what is due while the store is followed.
func (f *following) keep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.list.saveCache(true)
			return
		}
		f.list.rules.tidy()
		f.list.saveCache(false)
		f.warnIfStale()
	}
}

// warnIfStale warns once a minute while the list is not current.
func (f *following) warnIfStale() {
	age := time.Since(f.start)
	if s := f.list.fresh.standing.Load(); s != nil && s.stamp != nil {
		age = s.stamp.age()
	}
	if age < warnAge {
		return
	}
	attrs := redact.Attrs{slog.Duration("age", age.Round(time.Second))}
	if _, _, err := f.list.fresh.status(); err != nil {
		attrs.Add("cause", redact.Text(err.Error()))
	}
	f.list.journal.warn(f.list.Logger, "stale", "revocation: the list is not current: rules of the last seconds may be missing; check the store", attrs...)
}

// session is a call of Store.Follow. The store must not call it from two goroutines at
// once, but nothing breaks if it does.
type session struct {
	*following
	sign chan struct{} // has an element when the store has called

	mu      sync.Mutex
	ended   bool
	added   int  // rules since the last call of complete
	given   bool // complete was called
	gave    bool // the store gave a rule that it had given before
	skipped int
}

// alive notes a sign of life.
func (s *session) alive() {
	select {
	case s.sign <- struct{}{}:
	default:
	}
}

// apply applies a receipt of the store. One that is not valid is skipped, since the
// rules behind it must not be lost.
func (s *session) apply(r Receipt) {
	s.alive()
	k, err := r.check()
	if err != nil {
		s.skip(&r, err)
		return
	}
	set := &s.list.rules
	set.mu.Lock()
	result := set.add(&r, k, fromStore, time.Now())
	set.mu.Unlock()
	again := s.list.fresh.given(s.feed, &r, result)
	s.mu.Lock()
	s.gave = s.gave || again
	if result != repeated {
		s.added++
	}
	logged := result != repeated && s.added <= maxAudited
	s.mu.Unlock()
	if logged {
		s.list.journal.audit(s.list.Logger, &r, k)
	}
}

// check completes the rule of a receipt, and returns its key.
func (r *Receipt) check() (key, error) {
	if r.Seq == 0 || r.At.IsZero() {
		return key{}, errors.New("revocation: Receipt.Seq or Receipt.At is zero")
	}
	rule, err := r.Rule.Complete(r.At)
	if err != nil {
		return key{}, err
	}
	r.Rule = rule
	return keyOfRule(&rule), nil
}

// skip reports a receipt that is not valid.
func (s *session) skip(r *Receipt, err error) {
	err = fmt.Errorf("revocation: the store gave an invalid rule with seq %d, which was skipped: append it again correctly: %w", r.Seq, err)
	s.list.fresh.skip(s.feed, r.Seq, err)
	s.mu.Lock()
	s.skipped++
	n := s.skipped
	s.mu.Unlock()
	if n <= 10 { // A store may be full of them.
		s.list.journal.log(s.list.Logger, slog.LevelWarn, "revocation: the store gave an invalid rule, which was skipped; append it again correctly",
			slog.Uint64("seq", r.Seq), slog.String("cause", redact.Text(err.Error())))
	}
}

// complete notes that the store has given all rules that it had at a moment.
func (s *session) complete(at time.Time) {
	s.alive()
	s.mu.Lock()
	ended, first, gave := s.ended, !s.given, s.gave
	s.given, s.gave = true, false
	s.mu.Unlock()
	if ended {
		return // The list no longer follows this call.
	}
	s.summarize()
	s.list.rules.tidy()
	if at.IsZero() {
		s.list.fresh.skip(s.feed, 0, errors.New("revocation: the store called current with a zero time, which was ignored"))
		return
	}
	s.list.fresh.complete(s.feed, first, gave)
	s.list.fresh.current(s.feed, at)
	if first || gave {
		select {
		case s.current <- struct{}{}:
		default:
		}
	}
}

// summarize writes one record for many rules, such as those of the first load.
func (s *session) summarize() {
	s.mu.Lock()
	added := s.added
	s.added = 0
	s.mu.Unlock()
	if added > maxAudited {
		s.list.journal.log(s.list.Logger, slog.LevelInfo, "revocation: rules applied", slog.Int("rules", added), slog.Int("without_record", added-maxAudited))
	}
}

func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.summarize()
}

// isNil reports whether s is nil or a nil pointer.
func isNil(s Store) bool {
	v := reflect.ValueOf(s)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}
