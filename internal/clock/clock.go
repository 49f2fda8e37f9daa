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
	wall      time.Time
}

// Now returns the current moment.
func Now() Instant {
	now := time.Now()
	return Instant{now, now.Round(0).Add(time.Duration(suspended.Load()))}
}

// Age returns how long ago i was, by the clock that says more.
func (i Instant) Age() time.Duration {
	now := Now()
	return max(now.monotonic.Sub(i.monotonic), now.wall.Sub(i.wall))
}

// Wall returns the moment on the wall clock, or the zero Time for the zero Instant.
func (i Instant) Wall() time.Time { return i.wall }

// suspended is how far the wall clock is ahead of the monotonic clock in a test.
var suspended atomic.Int64

// Suspend moves the wall clock forward and leaves the monotonic clock, as a
// suspended machine does. It is for tests; a negative d sets the wall clock back.
// The function that it returns undoes it.
func Suspend(d time.Duration) (undo func()) {
	suspended.Add(int64(d))
	return func() { suspended.Add(-int64(d)) }
}
