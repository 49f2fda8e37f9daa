// Package clock measures ages by two clocks. The monotonic clock stands still while
// a machine is suspended, and the wall clock can be set back: of the two, the one
// that says older counts.
package clock

import (
	"sync/atomic"
	"time"
)

// Instant is a moment on both clocks. The zero Instant is longer ago than any
// duration.
type Instant struct {
	monotonic time.Time
	wall      int64 // nanoseconds since 1970, which are cheaper to subtract than a Time
}

// Now returns the current moment.
func Now() Instant {
	now := time.Now()
	return Instant{now, now.UnixNano() + suspended.Load()}
}

// Ago returns the moment that long ago.
func Ago(age time.Duration) Instant {
	now := Now()
	return Instant{now.monotonic.Add(-age), now.wall - int64(age)}
}

// Age returns how long ago i was, by the clock that says more.
func (i Instant) Age() time.Duration { return i.AgeAt(Now()) }

// AgeAt returns how old i was at a later moment.
func (i Instant) AgeAt(later Instant) time.Duration {
	return max(later.monotonic.Sub(i.monotonic), time.Duration(later.wall-i.wall))
}

// Time returns the moment as time.Now returned it.
func (i Instant) Time() time.Time { return i.monotonic }

// Wall returns the moment on the wall clock, or the zero Time for the zero Instant.
func (i Instant) Wall() time.Time {
	if i.monotonic.IsZero() {
		return time.Time{}
	}
	return time.Unix(0, i.wall)
}

// suspended is how far the wall clock is ahead of the monotonic clock in a test.
var suspended atomic.Int64

// Suspend moves the wall clock forward and leaves the monotonic clock, as a
// suspended machine does. It is for tests; a negative d sets the wall clock back.
// The function that it returns undoes it.
func Suspend(d time.Duration) (undo func()) {
	suspended.Add(int64(d))
	return func() { suspended.Add(-int64(d)) }
}
