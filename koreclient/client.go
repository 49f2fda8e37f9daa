package koreclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/safelog"
)

const (
	fetchTimeout = 10 * time.Second // of one fetch
	// freshFor is up to how long a token is given out without a look at the clock. A
	// machine that was suspended notices after that.
	freshFor = 30 * time.Second
	// forcedInterval is the least time between two fetches for tokens that an API
	// rejected as invalid.
	forcedInterval = 5 * time.Second
	// scopeInterval is the least time between two fetches for changed scopes.
	scopeInterval = 10 * time.Minute
	badInterval   = time.Minute // the least time between two uses of credentials that were rejected
	// Between fetches after failures; up to a half is added at random.
	firstBackOff = 500 * time.Millisecond
	maxBackOff   = 20 * time.Second
)

// Client gets tokens and caches one. Create it with [New]. It is safe for concurrent
// use by multiple goroutines, and there is nothing to close: its only goroutines are
// those of a fetch.
type Client struct {
	config   Config
	endpoint *endpoint

	fresh atomic.Pointer[Token] // the cached token, while no look at the clock is due

	mu       sync.Mutex // guards the fields below; never locked while waiting
	current  *cached    // nil: there is none
	inflight *call      // the current fetch, or nil
	failures int        // in a row
	lastErr  *Error     // of the last fetch, or nil
	nextTry  time.Time  // not before, after a failure
	calm     time.Time  // not before in the background, after a token that was not cached
	forced   time.Time  // when a fetch for a rejected token began last
	scoped   time.Time  // the same, for changed scopes
}

// cached is the cached token.
type cached struct {
	token   Token
	fetched clock.Instant
	life    time.Duration // after fetched
	renew   time.Duration // when to replace it, after fetched
}

// call is a fetch that callers wait for.
type call struct {
	rejected string        // the token that an API rejected as invalid, or ""
	done     chan struct{} // closed at its end; then the fields below are set
	token    Token
	err      *Error
}

// Token returns the cached token, or fetches one. Callers share a fetch. It waits no
// longer than until ctx is done; the fetch goes on for the others, for at most 10
// seconds. The error is an [*Error], which wraps that of ctx if ctx is done.
//
// A token that does not say when it expires is returned to the callers that waited for
// it, and is not cached.
func (c *Client) Token(ctx context.Context) (Token, error) {
	if token := c.fresh.Load(); token != nil {
		return *token, nil
	}
	return c.get(ctx)
}

// get is Token with a look at the clock.
func (c *Client) get(ctx context.Context) (Token, error) {
	c.mu.Lock()
	age, ok := c.usable()
	if ok && age < c.current.renew {
		token := c.current.token
		c.keepFresh(age)
		c.mu.Unlock()
		return token, nil
	}
	if ok { // It is good while it is replaced in the background.
		token := c.current.token
		if now := time.Now(); c.inflight == nil && !now.Before(c.nextTry) && !now.Before(c.calm) {
			c.begin()
		}
		c.mu.Unlock()
		return token, nil
	}
	if ctx.Err() != nil {
		c.mu.Unlock()
		return Token{}, doneError(ctx)
	}
	f, err := c.join()
	c.mu.Unlock()
	if err != nil {
		return Token{}, err
	}
	return f.wait(ctx)
}

// usable returns the age of the cached token, and whether it is still good.
func (c *Client) usable() (age time.Duration, ok bool) {
	if c.current == nil {
		return 0, false
	}
	age = c.current.fetched.Age()
	return age, age < c.current.life
}

// keepFresh lets Token return the cached token without a look at the clock.
func (c *Client) keepFresh(age time.Duration) {
	token := &c.current.token
	c.fresh.Store(token)
	time.AfterFunc(min(freshFor, c.current.renew-age), func() { c.fresh.CompareAndSwap(token, nil) })
}

// join returns the current fetch, or begins one. The error is that of the last fetch if
// it is too early for another one.
func (c *Client) join() (*call, error) {
	if c.inflight != nil {
		return c.inflight, nil
	}
	if wait := time.Until(c.nextTry); wait > 0 && c.lastErr != nil {
		err := *c.lastErr
		err.RetryAfter = wait
		return nil, &err
	}
	return c.begin(), nil
}

// begin starts a fetch in a goroutine of its own.
func (c *Client) begin() *call {
	f := &call{done: make(chan struct{})}
	c.inflight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		start := clock.Now()
		token, err := bounded.Call(ctx, c.endpoint.fetch)
		c.end(f, start, token, err)
	}()
	return f
}

// end keeps the result of a fetch, and lets its callers go on.
func (c *Client) end(f *call, start clock.Instant, token Token, err error) {
	c.mu.Lock()
	if err != nil {
		f.err = c.failed(err)
	} else {
		f.token = token
		c.failures, c.lastErr, c.nextTry = 0, nil, time.Time{}
		c.keep(token, start, f.rejected)
	}
	_, still := c.usable()
	c.inflight = nil
	c.mu.Unlock()
	close(f.done)
	if f.err != nil && still {
		c.warn("koreclient: no new token; the old one is still used", f.err)
	}
}

// keep caches a token. One that does not say when it expires is not cached; then the old
// one stays while it is good, unless an API rejected it.
func (c *Client) keep(token Token, start clock.Instant, rejected string) {
	c.fresh.Store(nil)
	life := token.Expiry.Sub(start.Time())
	if token.Expiry.IsZero() || life <= 0 {
		if _, ok := c.usable(); !ok || c.current.token.Value == rejected {
			c.current = nil
		} else {
			c.calm = time.Now().Add(forcedInterval)
		}
		return
	}
	// The last tenth of its life, but at least 30 s and at most 5 min.
	window := min(max(life/10, 30*time.Second), 5*time.Minute, life/2)
	renew := life - time.Duration(float64(window)*(0.9+0.2*rand.Float64()))
	if after := c.config.RefreshAfter; after > 0 {
		renew = min(renew, after)
	}
	c.current = &cached{token, start, life, renew}
}

// failed keeps the error of a fetch, and returns it with the time until the next one.
func (c *Client) failed(err error) *Error {
	e := &Error{}
	if !errors.As(err, &e) {
		e = &Error{Description: c.endpoint.clean(err.Error(), c.config.ClientSecret), cause: authserver.ContextError(err)}
	}
	c.failures++
	wait := min(firstBackOff<<min(c.failures-1, 10), maxBackOff)
	wait += time.Duration(rand.Int64N(int64(wait/2) + 1))
	wait = max(wait, e.RetryAfter)
	if e.badCredentials() {
		wait = max(wait, badInterval)
	}
	e.RetryAfter = wait
	c.lastErr, c.nextTry = e, time.Now().Add(wait)
	return e
}

// wait returns the result of a fetch, or the error of ctx.
func (f *call) wait(ctx context.Context) (Token, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		select {
		case <-f.done: // It has ended as well: its result says more.
		default:
			return Token{}, doneError(ctx)
		}
	}
	if f.err != nil {
		return Token{}, f.err
	}
	return f.token, nil
}

// doneError wraps the error of a context that is done, and its cause.
func doneError(ctx context.Context) *Error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		err = errors.Join(err, cause)
	}
	return &Error{Description: "the context of the caller is done", cause: err}
}

// Invalidate removes the token from the cache, for example because an API rejected it,
// so that the next call of [Client.Token] fetches another one. It does nothing if the
// token was replaced already.
func (c *Client) Invalidate(t Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && c.current.token.Value == t.Value {
		c.fresh.Store(nil)
		c.current = nil
	}
}

// reason says why an API rejected a token.
type reason int

const (
	notRejected reason = iota
	invalidToken
	insufficientScope
)

// replace returns a token in place of one that an API rejected. It returns false if
// there is none. The old one stays until there is another.
func (c *Client) replace(ctx context.Context, old string, why reason) (Token, bool) {
	c.mu.Lock()
	if _, ok := c.usable(); ok && c.current.token.Value != old { // somebody else has replaced it
		token := c.current.token
		c.mu.Unlock()
		return token, true
	}
	now, last, interval := time.Now(), &c.forced, forcedInterval
	if why == insufficientScope {
		last, interval = &c.scoped, scopeInterval
	}
	tooEarly := !last.IsZero() && now.Sub(*last) < interval
	if c.inflight == nil && (tooEarly || now.Before(c.nextTry)) {
		c.mu.Unlock()
		return Token{}, false
	}
	*last = now
	f := c.inflight
	if f == nil {
		f = c.begin()
	}
	if why == invalidToken {
		f.rejected = old
	}
	c.mu.Unlock()
	token, err := f.wait(ctx)
	return token, err == nil && token.Value != old
}

// replaceLater begins to replace a token that an API rejected, for later requests.
func (c *Client) replaceLater(old string, why reason) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	c.replace(done, old, why)
}

func (c *Client) warn(message string, err *Error) {
	safelog.Log(context.Background(), c.config.Logger, slog.LevelWarn, message, slog.String("cause", err.Error()), slog.Duration("retry_after", err.RetryAfter))
}

// Format writes the Config without secrets, whatever the verb is.
func (c *Client) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "koreclient.Client{%v}", &c.config) }
