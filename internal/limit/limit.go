// Package limit bounds what invented tokens and issuers cost. Its types must not be used
// concurrently: their owners have locks.
package limit

import "time"

// Rate allows something once in an interval, after a burst.
type Rate struct {
	Interval time.Duration
	Burst    int

	paid time.Time // until when what was allowed so far is paid for, at one per Interval
}

// Take reports whether it is allowed now, and counts it if so.
func (r *Rate) Take() bool {
	now := time.Now()
	if r.paid.Before(now) {
		r.paid = now
	}
	if r.paid.Sub(now) > time.Duration(r.Burst-1)*r.Interval {
		return false
	}
	r.paid = r.paid.Add(r.Interval)
	return true
}

// Recent remembers values for a short time, and only those of the last Max keys.
type Recent[K comparable, V any] struct {
	Max int

	values map[K]recent[V]
	order  []K // the keys, in a ring
	next   int // the place in order of the next key
}

type recent[V any] struct {
	value V
	until time.Time
}

// Find returns the value of a key, unless its time has passed.
func (r *Recent[K, V]) Find(key K) (value V, ok bool) {
	if found, known := r.values[key]; known && time.Now().Before(found.until) {
		return found.value, true
	}
	return value, false
}

// Add remembers the value of a key for that time.
func (r *Recent[K, V]) Add(key K, value V, keep time.Duration) {
	if r.values == nil {
		r.values = make(map[K]recent[V])
	}
	if _, known := r.values[key]; !known {
		if len(r.order) < r.Max {
			r.order = append(r.order, key)
		} else {
			delete(r.values, r.order[r.next])
			r.order[r.next] = key
			r.next = (r.next + 1) % r.Max
		}
	}
	r.values[key] = recent[V]{value, time.Now().Add(keep)}
}

// Forget makes Find return nothing for a key.
func (r *Recent[K, V]) Forget(key K) {
	if _, known := r.values[key]; known {
		r.values[key] = recent[V]{}
	}
}

// Len returns how many keys are remembered.
func (r *Recent[K, V]) Len() int { return len(r.values) }
