package revocationtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

// follower records what one call of Follow gives.
type follower struct {
	end  context.CancelFunc
	done chan struct{} // closed when Follow has returned
	err  error         // what it returned; read it after done

	busy  atomic.Bool // apply or current is running
	calls atomic.Int64

	mu       sync.Mutex
	given    []revocation.Receipt
	currents []proof
	overlap  bool
	changed  chan struct{} // closed at the next change
}

// proof is one call of current.
type proof struct {
	at, called time.Time
	given      int // rules that had been given
}

// follow calls Follow in a goroutine. It ends with the test at the latest.
func follow(t *testing.T, s revocation.Store, from uint64) *follower {
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{end: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.err = s.Follow(ctx, from, f.apply, f.current)
	}()
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *follower) apply(r revocation.Receipt) {
	f.record(func() { f.given = append(f.given, r) })
}

func (f *follower) current(at time.Time) {
	f.record(func() { f.currents = append(f.currents, proof{at, time.Now(), len(f.given)}) })
}

// record notes a change, and whether another callback runs at the same time.
func (f *follower) record(change func()) {
	alone := f.busy.CompareAndSwap(false, true)
	if f.calls.Add(1) < 100 {
		time.Sleep(20 * time.Microsecond) // so that calls that overlap meet
	}
	f.mu.Lock()
	change()
	f.overlap = f.overlap || !alone
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	if alone {
		f.busy.Store(false)
	}
}

// waitFor waits until the condition is true, and reports whether it became true. The
// condition is called with mu locked.
func (f *follower) waitFor(limit time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		ok, changed := condition(), f.changed
		f.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-f.done:
			f.mu.Lock()
			defer f.mu.Unlock()
			return condition()
		case <-deadline.C:
			return false
		}
	}
}

// waitCurrent waits until current is called after n rules were given, and returns the
// rules given by then.
func (f *follower) waitCurrent(t *testing.T, n int) []revocation.Receipt {
	t.Helper()
	ok := f.waitFor(patience, func() bool {
		return len(f.currents) > 0 && f.currents[len(f.currents)-1].given >= n
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ok {
		t.Fatalf("Follow gave %d rules and called current %d times in %v, want %d rules, and current after them", len(f.given), len(f.currents), patience, n)
	}
	return slices.Clone(f.given)
}

// settle waits a little for what is too much, and returns the rules given by then.
func (f *follower) settle() []revocation.Receipt {
	time.Sleep(20 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.given)
}

// stop ends Follow, and fails unless it returns soon with the error of its context.
func (f *follower) stop(t *testing.T) {
	t.Helper()
	f.end()
	f.wait(t, context.Canceled)
}

// wait fails unless Follow returns soon with that error.
func (f *follower) wait(t *testing.T, want error) {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatalf("Follow has not returned %v after its context was done", patience)
	}
	if !errors.Is(f.err, want) {
		t.Errorf("Follow returned %v, want the error of its context: %v", f.err, want)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.overlap {
		t.Errorf("Follow called apply or current while another call was running")
	}
}

// all returns the rules that a store has.
func all(t *testing.T, s revocation.Store, n int) []revocation.Receipt {
	t.Helper()
	f := follow(t, s, 0)
	f.waitCurrent(t, n)
	got := f.settle()
	f.stop(t)
	return got
}

// waitEnd reports whether Follow returned within the limit.
func (f *follower) waitEnd(limit time.Duration) bool {
	select {
	case <-f.done:
		return true
	case <-time.After(limit):
		return false
	}
}
