package fetch

import (
	"time"

	"github.com/koreauth/koreauth/internal/clock"
)

const (
	minIntervalEmpty = 250 * time.Millisecond // the first retry while there are no keys
	fetchBurst       = 3
	maxBackoff       = 8                // times MinInterval
	maxRetryAfter    = time.Minute      // of what an issuer may ask for
	minSpread        = 20 * time.Second // after what it asked for
)

// Reason is why keys are fetched. Each reason has its own rate limit.
type Reason int

const (
	NoKeys     Reason = iota
	UnknownKey        // no key has the ID, or none made the signature
	OldKeys
)

// Pace decides when keys may be fetched.
type Pace struct {
	lastTry   clock.Instant // when the last fetch began
	lastEnd   clock.Instant // when it ended
	failures  int           // the failed fetches since the last good one
	part      float64       // of the interval that is waited after the last failure
	notBefore time.Time     // the moment for which the issuer asked, and a random time
	budget    time.Time     // when the fetches for unknown keys will be paid for, at one per interval
}

// Next returns when a fetch for that reason may begin.
func (p *Pace) Next(why Reason, interval time.Duration) time.Time {
	var next time.Time
	switch {
	case why == UnknownKey:
		next = p.budget
		for range fetchBurst - 1 { // The product of the largest intervals would overflow.
			next = next.Add(-interval)
		}
	case why == NoKeys && p.failures > 0:
		next = p.retry(min(minIntervalEmpty, interval), interval)
	case why == OldKeys && p.failures > 0:
		longest := interval
		for range maxBackoff - 1 {
			longest = max(longest, longest+interval) // no overflow
		}
		next = p.retry(interval, longest)
	}
	if next.Before(p.notBefore) {
		return p.notBefore
	}
	return next
}

// retry returns when to retry after failures: after a random share of the first interval,
// which each further failure doubles, up to longest.
func (p *Pace) retry(first, longest time.Duration) time.Time {
	for range p.failures - 1 {
		if first > longest/2 {
			first = longest
			break
		}
		first *= 2
	}
	return time.Now().Add(scale(min(first, longest), p.part) - p.lastTry.Age())
}

// Idle returns how long ago the last fetch ended.
func (p *Pace) Idle() time.Duration { return p.lastEnd.Age() }

// Begin notes that a fetch begins.
func (p *Pace) Begin(why Reason, now time.Time, interval time.Duration) {
	p.lastTry = clock.Now()
	if why != UnknownKey {
		return
	}
	if p.budget.Before(now) {
		p.budget = now
	}
	p.budget = p.budget.Add(interval)
}

// End notes that the fetch has ended. Each StatusError in err may ask to wait.
func (p *Pace) End(err error) {
	p.lastEnd = clock.Now()
	if err == nil {
		p.failures, p.notBefore = 0, time.Time{}
		return
	}
	p.failures++
	p.part = random(0.5)
	if wait := longestWait(err); wait > 0 {
		// All sets were asked to come back at the same moment, often as a date. So a retry of
		// most sets must not be due at it, but in the time after it.
		wait = min(wait, maxRetryAfter)
		p.notBefore = time.Now().Add(wait + after(min(max(minSpread, 2*wait), maxRetryAfter)))
	}
}

// longestWait returns the longest RetryAfter in err, which joins the errors of
// several requests.
func longestWait(err error) (longest time.Duration) {
	switch err := err.(type) {
	case *StatusError:
		return err.RetryAfter
	case outage:
		return longestWait(err.error)
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			longest = max(longest, longestWait(one))
		}
	}
	return longest
}
