package revocation

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/clock"
)

// stamp says when the list was complete. Its age is measured by two clocks.
type stamp struct {
	at       time.Time     // by the clock of the store
	received clock.Instant // when the store said so
	lag      time.Duration // from at until then, by the wall clock
}

// newStamp returns the stamp for a moment that a store or a cache file names. The
// future counts as now, so that a wrong clock does not make the list fresh for long.
func newStamp(at time.Time) *stamp {
	now := clock.Now()
	if at.After(now.Wall()) {
		at = now.Wall()
	}
	return &stamp{at: at.Round(0), received: now, lag: min(now.Wall().Sub(at), maxLag)}
}

func (s *stamp) age() time.Duration { return s.received.Age() + s.lag }

const maxLag = 100 * 365 * 24 * time.Hour // so that ages do not overflow

// standing is how complete the list is. It is immutable.
type standing struct {
	stamp *stamp // of the store that has said so longest ago; nil: one has never said so
	alone bool   // the list was fed by Apply alone
}

// freshness knows how complete the list is, and why it is not.
type freshness struct {
	standing atomic.Pointer[standing] // nil: the list was never fed

	mu      sync.Mutex // guards the fields below, and changes of standing
	feeds   []*feed    // the stores that are followed, and the last that was
	earlier *stamp     // from the cache file, or of a store that is no longer followed
	applied bool       // Apply was called
	seq     uint64     // of the last rule applied
	fault   error      // why the cache file was not read
}

// feed is what is known of a store that is followed. freshness.mu guards its fields.
type feed struct {
	store    Store
	follows  int           // calls of Follow that run
	begun    clock.Instant // when the last of them began
	stamp    *stamp        // nil: it was never current in this process
	err      error         // why the store is not current, or nil
	seq      uint64        // of the last rule that it gave
	highest  uint64
	connects int       // how often it was current after it was followed anew
	skipped  error     // what was wrong with the last receipt that was skipped
	skipAt   time.Time // and when that was
	owed     []Receipt // what other stores gave and this one may lack
	owesAll  bool      // it may lack any rule
}

const (
	maxOwed     = 10_000
	showSkipped = time.Minute // how long Status.Err shows that a receipt was skipped
)

// begin returns the feed of a store that is to be followed.
func (f *freshness) begin(s Store) *feed {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.feeds = slices.DeleteFunc(f.feeds, func(old *feed) bool {
		if old.follows > 0 || sameStore(old.store, s) {
			return false
		}
		// s may be another value for the same store, so the list gets no older than it is.
		f.earlier = cmp.Or(old.stamp, f.earlier)
		return true
	})
	i := slices.IndexFunc(f.feeds, func(old *feed) bool { return sameStore(old.store, s) })
	if i < 0 {
		i = len(f.feeds)
		f.feeds = append(f.feeds, &feed{store: s, owesAll: f.seq > 0}) // Another store gave rules.
	}
	f.feeds[i].follows++
	f.feeds[i].begun = clock.Now()
	f.update()
	return f.feeds[i]
}

// sameStore reports whether a and b are one store. Values that cannot be compared are
// different stores.
func sameStore(a, b Store) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.ValueOf(a).Comparable() && a == b
}

// end notes that a call of Follow has ended. A store that is no longer followed no
// longer counts, unless it is the last one: then the list gets older.
func (f *freshness) end(ended *feed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended.follows--
	if ended.follows == 0 && slices.ContainsFunc(f.feeds, func(other *feed) bool { return other.follows > 0 }) {
		f.feeds = slices.DeleteFunc(f.feeds, func(other *feed) bool { return other == ended })
	}
	f.update()
}

// current notes that the store has given all rules that it had at a moment.
func (f *freshness) current(from *feed, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from.stamp, from.err, f.fault = newStamp(at), nil, nil
	f.update()
}

// failed notes why the store is not current.
func (f *freshness) failed(from *feed, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from.err = err
}

// skip notes what was wrong with a receipt. It counts as given: this list will not get
// more of it. seq may be zero.
func (f *freshness) skip(from *feed, seq uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from.skipped, from.skipAt = err, time.Now()
	if seq > 0 {
		from.seq, from.highest = seq, max(from.highest, seq)
	}
}

// given notes that a store gave a rule, and reports whether it gave one with that seq
// or a later one before. If the rule was not known, the other stores may lack it.
func (f *freshness) given(from *feed, r *Receipt, result effect) (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again = r.Seq <= from.highest
	from.seq, from.highest, f.seq = r.Seq, max(from.highest, r.Seq), r.Seq
	if result == repeated || len(f.feeds) == 1 {
		return again
	}
	for _, other := range f.feeds {
		switch {
		case other == from || other.owesAll:
		case len(other.owed) == maxOwed:
			other.owed, other.owesAll = nil, true
		default:
			other.owed = append(other.owed, *r)
		}
	}
	return again
}

// complete notes that a store has given all rules. It may lack some of this list if it
// gave a seq again, and if it was connected to again and cannot say whether it lost
// some.
func (f *freshness) complete(from *feed, first, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first {
		from.connects++
	}
	_, canSay := from.store.(losing)
	from.owesAll = from.owesAll || again || first && from.connects > 1 && !canSay
}

// losing is a store that knows whether it lost rules. See Fleet.
type losing interface{ Lost() bool }

// take returns the rules that the store may lack, or that it may lack any. The caller
// must give them to the store, or call owe.
func (f *freshness) take(from *feed) (receipts []Receipt, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	receipts, all = from.owed, from.owesAll
	from.owed, from.owesAll = nil, false
	return receipts, all
}

// owe notes that the store may lack any rule.
func (f *freshness) owe(from *feed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from.owed, from.owesAll = nil, true
}

// from returns the seq of the last rule that the store gave.
func (f *freshness) from(feed *feed) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return feed.seq
}

// isCurrent reports whether the store has given all its rules, and has not failed since.
func (f *freshness) isCurrent(from *feed) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return from.stamp != nil && from.err == nil
}

// quiet returns an error if the store should have been current since.
func (f *feed) quiet() error {
	age := f.begun.Age()
	if f.stamp != nil {
		age = min(age, f.stamp.age())
	}
	if age < warnAge {
		return nil
	}
	return fmt.Errorf("revocation: the store has not said for %v that it gave all rules", age.Round(time.Second))
}

// load notes that the cache file was read: the list was complete at a moment. err is
// why the file was not read.
func (f *freshness) load(at time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
	if err == nil && !at.IsZero() {
		f.earlier = newStamp(at)
	}
	f.update()
}

// apply notes that Apply was called.
func (f *freshness) apply() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = true
	f.update()
}

// update sets standing. The caller must hold mu.
func (f *freshness) update() {
	switch {
	case len(f.feeds) > 0:
		oldest := f.stampOf(f.feeds[0])
		for _, other := range f.feeds[1:] {
			if s := f.stampOf(other); s == nil || oldest != nil && s.age() > oldest.age() {
				oldest = s
			}
		}
		f.standing.Store(&standing{stamp: oldest})
	case f.applied:
		f.standing.Store(&standing{alone: true})
	}
}

// stampOf returns the stamp of a store or, until it has one, that of an earlier one.
func (f *freshness) stampOf(from *feed) *stamp { return cmp.Or(from.stamp, f.earlier) }

// status returns the parts of Status that freshness knows.
func (f *freshness) status() (seq uint64, current time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.standing.Load(); s != nil && s.alone {
		current = time.Now()
	} else if s != nil && s.stamp != nil {
		current = s.stamp.at
	}
	for _, from := range f.feeds {
		if from.follows > 0 {
			err = cmp.Or(err, from.err, from.quiet())
		}
	}
	for _, from := range f.feeds {
		if from.skipped != nil && time.Since(from.skipAt) < showSkipped {
			err = cmp.Or(err, from.skipped)
		}
	}
	return f.seq, current, cmp.Or(err, f.fault)
}
