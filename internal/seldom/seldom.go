// Package seldom limits how often something is logged.
package seldom

import (
	"sync"
	"time"
)

// Limit allows something at most once in an interval. The zero value allows it now. It is
// safe for concurrent use by multiple goroutines.
type Limit struct {
	mu   sync.Mutex // guards last
	last time.Time
}

// Allow reports whether the last call that it allowed is at least an interval ago.
func (l *Limit) Allow(interval time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && time.Since(l.last) < interval {
		return false
	}
	l.last = time.Now()
	return true
}
