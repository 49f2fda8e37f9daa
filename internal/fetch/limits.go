package fetch

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// The defaults of Limits.
const (
	minInterval = 10 * time.Second
	maxAge      = 15 * time.Minute
	maxStale    = 24 * time.Hour
	timeout     = 5 * time.Second
)

// Limits are the times of a koreauth.RemoteKeySet. Zero means the default.
type Limits struct{ Timeout, MinInterval, MaxAge, MaxStale time.Duration }

// Faults lists what is wrong, each with its remedy.
func (l Limits) Faults() (faults []error) {
	for _, one := range []struct {
		name  string
		value time.Duration
	}{{"Timeout", l.Timeout}, {"MinInterval", l.MinInterval}, {"MaxAge", l.MaxAge}, {"MaxStale", l.MaxStale}} {
		if one.value < 0 {
			faults = append(faults, fmt.Errorf("RemoteKeySet.%s is negative: set it to zero, for the default, or more", one.name))
		}
	}
	return faults
}

// Request returns the maximum time of one request.
func (l Limits) Request() time.Duration { return cmp.Or(l.Timeout, timeout) }

// Age returns the age at which keys are refreshed.
func (l Limits) Age() time.Duration { return cmp.Or(l.MaxAge, maxAge) }

// Interval returns the minimum time between fetches.
func (l Limits) Interval() time.Duration { return min(cmp.Or(l.MinInterval, minInterval), l.Age()) }

// Stale returns the age up to which keys are used.
func (l Limits) Stale() time.Duration { return max(cmp.Or(l.MaxStale, maxStale), l.Age()) }

// Lifetime returns how long the keys of a document need no refresh.
func (l Limits) Lifetime(doc *Document) time.Duration {
	if age, ok := doc.MaxAge(l.Age()); ok {
		return min(max(age, l.Interval()), l.Age())
	}
	return l.Age()
}

// Spread returns a random 80 to 100 % of a lifetime, so that many sets that fetched at
// the same time do not do so again.
func Spread(lifetime time.Duration) time.Duration { return scale(lifetime, random(0.8)) }

// random returns a random number from least to one.
func random(least float64) float64 {
	part := rand.Float64()
	if at := fixed.Load(); at != nil {
		part = *at
	}
	return least + (1-least)*part
}

// after returns a random time up to longest or, with Fix, zero.
func after(longest time.Duration) time.Duration {
	if fixed.Load() != nil {
		return 0
	}
	return scale(longest, random(0))
}

// scale returns a part of a duration. It does not overflow.
func scale(d time.Duration, part float64) time.Duration {
	return d - time.Duration((1-part)*float64(d))
}

var fixed atomic.Pointer[float64] // nil: random

// Fix replaces what is random by one number, from 0 for the earliest times to 1 for the
// latest. Nothing is then added to a Retry-After. It is for tests. The function that it
// returns undoes it.
func Fix(at float64) (undo func()) {
	before := fixed.Swap(&at)
	return func() { fixed.Store(before) }
}

// Random undoes Fix for a while.
func Random() (undo func()) {
	before := fixed.Swap(nil)
	return func() { fixed.Store(before) }
}
