package introspection

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/limit"
)

// The limits of requests to the issuer.
const (
	maxInFlight = 64                     // about new tokens; as many again about tokens that were good
	askInterval = time.Second / 200      // between requests about new tokens, after a burst
	askBurst    = 400                    // requests
	failFast    = 250 * time.Millisecond // after a failure, until the next request
)

var (
	errRate  = errors.New("too many unknown tokens: the issuer is asked about at most 200 in a second")
	errBusy  = errors.New("too many unknown tokens: the issuer is asked about at most 64 at a time")
	errQueue = errors.New("the issuer is slow, so that requests queue up")
	errDown  = errors.New("the last request to the issuer failed a moment ago")
)

// gate decides whether the issuer may be asked.
type gate struct {
	places chan struct{} // one for each request about a token that was good; others wait for one

	mu       sync.Mutex
	inFlight int        // of new tokens
	rate     limit.Rate // of requests about new tokens
	down     bool       // the last request failed
	probing  bool       // a request has begun since
	retryAt  time.Time  // not before, while it is down
}

// kind is what is known of a token.
type kind int

const (
	unknown kind = iota
	wasGood      // its last answer was good
)

// enter reports with nil that the issuer may be asked now. wait, result and leave must be
// called then.
func (g *gate) enter(k kind) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	switch {
	case g.down && (g.probing || now.Before(g.retryAt)):
		return errDown
	case k == unknown && g.inFlight >= maxInFlight:
		return errBusy
	}
	if k == unknown {
		if !g.rate.Take() {
			return errRate
		}
		g.inFlight++
	}
	g.probing = g.down
	return nil
}

// wait waits for a place among the requests about tokens that were good.
func (g *gate) wait(ctx context.Context, k kind) error {
	if k == unknown {
		return nil
	}
	select {
	case g.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errQueue
	}
}

// result notes how a request ended.
func (g *gate) result(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down, g.probing = down, false
	if down {
		g.retryAt = time.Now().Add(failFast)
	}
}

// leave notes that nothing of the request runs any more.
func (g *gate) leave(k kind) {
	if k == wasGood {
		<-g.places
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
}

// isDown reports whether the last request failed.
func (g *gate) isDown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down
}

// giveUp notes that a request ended before it was sent, and lets another one try.
func (g *gate) giveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing, g.retryAt = false, time.Now().Add(failFast)
}
