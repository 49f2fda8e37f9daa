package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/fetch"
)

// The defaults of RemoteKeySet, and its limits.
const (
	minInterval      = 10 * time.Second
	minIntervalEmpty = 250 * time.Millisecond // between fetches while there are no keys
	maxAge           = 15 * time.Minute
	maxStale         = 24 * time.Hour
	fetchTimeout     = 5 * time.Second
	fetchBurst       = 3
)

// RemoteKeySet is a [KeySet] that fetches the keys of an issuer and caches them.
// Set its fields before its first use and do not change them afterwards. It is
// safe for concurrent use by multiple goroutines, and it needs no Close: its only
// goroutine is that of a fetch, which ends within 5 seconds.
//
// Keys are fetched when they are first needed. A request whose key is cached does
// not wait: keys older than MaxAge are refreshed in the background. A request
// waits for the refresh only if the last fetch ended at least two MaxAge ago. If the
// refresh fails, it uses the old keys.
//
// An unknown key ID causes a fetch too. Such fetches are limited to a burst of
// three, then one per MinInterval, however many tokens with invented IDs arrive.
// If the issuer is down, the cached keys are used for up to
// MaxStale.
//
// A fetch takes at most 5 seconds (the transport of the HTTP client must respect
// the context), reads at most 1 MiB, and follows at most three redirects, within
// one scheme, host and port. It uses https unless the host is 127.0.0.0/8, ::1 or
// localhost.
type RemoteKeySet struct {
	// URL is where the JWK Set is. If URL is empty, it is discovered from Issuer.
	URL string
	// Issuer is the URL of the issuer, whose metadata names the URL of the keys:
	// OpenID Connect Discovery 1.0 §4 or, if that is a 404, RFC 8414 §3. Issuer is
	// not used if URL is set.
	Issuer string
	// HTTPClient sends the requests. If HTTPClient is nil, a client on
	// http.DefaultTransport is used. The client is copied; its Timeout applies in
	// addition to the 5 seconds, and its CheckRedirect in addition to the rules
	// above.
	HTTPClient *http.Client
	// MinInterval is the minimum time between fetches for unknown key IDs, after
	// the burst, and between retries of a failed refresh. Zero means 10 seconds.
	// A value over MaxAge counts as MaxAge.
	MinInterval time.Duration
	// MaxAge is the age at which keys are refreshed. A shorter max-age in the
	// Cache-Control of the server is used instead, but not below MinInterval. Zero
	// means 15 minutes. It is not Config.MaxAge, the maximum age of
	// a token.
	MaxAge time.Duration
	// MaxStale is how long keys are used after they were last fetched, while every
	// refresh fails. Zero means 24 hours. A value under MaxAge counts as MaxAge.
	MaxStale time.Duration
	// DangerouslyAllowHTTP allows http URLs with any host. Anyone on the network
	// path can then replace the keys and forge tokens.
	DangerouslyAllowHTTP bool
	// Logger gets a warning for each background refresh that fails. If Logger is
	// nil, nothing is logged.
	Logger *slog.Logger

	current atomic.Pointer[snapshot]
	lastErr atomic.Pointer[error] // how the last fetch ended; written with mu locked

	mu            sync.Mutex // guards the fields below; never locked while waiting
	inflight      *fetchCall // the current fetch, or nil
	lastTry       time.Time  // when the last fetch began
	lastEnd       time.Time  // when it ended
	unknownBudget time.Time  // when the fetches for unknown IDs will be paid for, at one per MinInterval

	// The fields below are used only by the current fetch.
	location string // the discovered URL of the keys
	suspect  bool   // the last fetch from location failed: discover first
}

// KeyStatus describes the keys of one issuer, for a status page or a metric.
type KeyStatus struct {
	Issuer  string    // as in Config.Issuer
	Keys    int       // the usable keys; zero for a custom KeySet
	Ignored int       // the published keys that are not used
	Reasons []string  // for each ignored key, its "kid" and why; at most 1,000
	Fetched time.Time // when the keys were last fetched; zero if never
	Source  string    // the URL of the keys; empty for a static or custom KeySet
	Err     error     // why the last fetch failed; nil if it did not
	StaleAt time.Time // until when the keys are used if no refresh succeeds
}

// snapshot is the result of a successful fetch. It is immutable.
type snapshot struct {
	keyIndex
	ignored  ignoredKeys
	source   string // the URL of the keys
	etag     string
	lifetime time.Duration // the time between fetched and fresh
	fetched  time.Time
	fresh    time.Time // when to refresh
	stale    time.Time // when to stop using the keys
}

// fetchCall is a fetch that several callers may wait for.
type fetchCall struct {
	done       chan struct{} // closed when the fetch has ended
	err        error         // valid once done is closed
	awaited    bool          // callers whose keys are older than two MaxAge wait for it as well
	background bool          // no caller gets its error, so it is logged
}

// wait returns when the fetch has ended, or with an error when ctx is done.
func (f *fetchCall) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return unavailable(context.Cause(ctx), 0)
	}
}

// Keys returns the keys whose ID is kid, or all keys if kid is empty. It fetches
// them if necessary, as the comment of RemoteKeySet describes. The error is
// ErrUnknownKey if there is no such key, and ErrUnavailable if the fetch failed or
// ctx is done.
func (s *RemoteKeySet) Keys(ctx context.Context, kid string, fetch bool) ([]Key, error) {
	now := time.Now()
	snap := s.current.Load()
	if snap == nil || !now.Before(snap.stale) {
		if !fetch {
			return nil, ErrUnknownKey
		}
		return s.fetched(ctx, kid, noKeys, snap)
	}
	keys := snap.find(kid)
	switch {
	case len(keys) == 0 && !fetch:
		return nil, ErrUnknownKey
	case len(keys) == 0:
		return s.fetched(ctx, kid, unknownID, snap)
	case fetch && !now.Before(snap.fresh):
		return s.refreshed(ctx, kid, snap)
	}
	return keys, nil
}

// fetched returns keys that are not cached. A fetch that the caller joined may
// have read the document before the key was published, so it is followed by one
// more.
func (s *RemoteKeySet) fetched(ctx context.Context, kid string, why fetchReason, loaded *snapshot) ([]Key, error) {
	for again := true; ; again = false {
		f, joined, err := s.begin(ctx, why, loaded)
		if err != nil {
			return nil, err
		}
		if err := f.wait(ctx); err != nil {
			return nil, err
		}
		if f.err != nil {
			return nil, s.failed(f.err, why)
		}
		loaded = s.current.Load()
		if !time.Now().Before(loaded.stale) {
			return nil, s.failed(errStale, why)
		}
		if keys := loaded.find(kid); len(keys) > 0 {
			return keys, nil
		}
		if !joined || !again {
			return nil, ErrUnknownKey
		}
		why = unknownID
	}
}

// refreshed returns keys that are cached and due for a refresh.
func (s *RemoteKeySet) refreshed(ctx context.Context, kid string, old *snapshot) ([]Key, error) {
	f, _, err := s.begin(ctx, oldKeys, old)
	if err != nil || !f.awaited {
		return old.find(kid), nil // A refresh is not yet due again, or is running.
	}
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	now := s.current.Load()
	if !time.Now().Before(now.stale) {
		return nil, s.failed(cmp.Or(f.err, errStale), noKeys)
	}
	if keys := now.find(kid); len(keys) > 0 {
		return keys, nil
	}
	return nil, ErrUnknownKey
}

var errStale = errors.New("the cached keys are older than MaxStale")

// fetchReason is why keys are fetched. Each reason has its own rate limit.
type fetchReason int

const (
	noKeys fetchReason = iota
	unknownID
	oldKeys
)

// endedFetch is returned by begin when a fetch ended after the caller looked at
// the keys and before it locked mu. The caller must look again.
var endedFetch = func() *fetchCall {
	f := &fetchCall{done: make(chan struct{}), awaited: true}
	close(f.done)
	return f
}()

// begin joins the current fetch or starts one. If the keys have changed since the
// caller loaded them, it returns endedFetch. If the rate limit forbids a fetch, err
// is what the caller should return.
func (s *RemoteKeySet) begin(ctx context.Context, why fetchReason, loaded *snapshot) (f *fetchCall, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight != nil {
		return s.inflight, true, nil
	}
	if s.current.Load() != loaded {
		return endedFetch, true, nil
	}
	now := time.Now()
	if next := s.next(why); now.Before(next) {
		if err := s.lastError(); err != nil {
			return nil, false, unavailable(err, next.Sub(now))
		}
		return nil, false, ErrUnknownKey
	}
	if why == unknownID {
		if s.unknownBudget.Before(now) {
			s.unknownBudget = now
		}
		s.unknownBudget = s.unknownBudget.Add(s.interval())
	}
	s.inflight = &fetchCall{
		done:       make(chan struct{}),
		awaited:    now.Sub(s.lastEnd)/2 >= s.age(),
		background: why == oldKeys,
	}
	s.lastTry = now
	// A caller that gives up must not fail the others.
	go s.run(context.WithoutCancel(ctx), s.inflight)
	return s.inflight, false, nil
}

// next returns when a fetch for that reason may begin. The caller has locked mu.
func (s *RemoteKeySet) next(why fetchReason) time.Time {
	failed := s.lastError() != nil
	switch {
	case why == unknownID:
		next := s.unknownBudget
		for range fetchBurst - 1 { // The product of the largest intervals would overflow.
			next = next.Add(-s.interval())
		}
		return next
	case why == noKeys && failed:
		return s.lastTry.Add(min(s.interval(), minIntervalEmpty))
	case why == oldKeys && failed:
		return s.lastTry.Add(s.interval())
	}
	return time.Time{}
}

// failed returns the error for callers that waited for a fetch that failed.
func (s *RemoteKeySet) failed(cause error, why fetchReason) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unavailable(cause, max(0, time.Until(s.next(why))))
}

// lastError returns why the last fetch failed, or nil.
func (s *RemoteKeySet) lastError() error {
	if err := s.lastErr.Load(); err != nil {
		return *err
	}
	return nil
}

// run is the goroutine of a fetch.
func (s *RemoteKeySet) run(ctx context.Context, f *fetchCall) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	snap, err := (*snapshot)(nil), errors.New("the HTTP client did not return")
	defer func() {
		// A panic of the user's transport would end the whole program, because no
		// server recovers in this goroutine.
		if p := recover(); p != nil {
			err = fmt.Errorf("the HTTP client panicked with a %T", p)
		}
		s.mu.Lock()
		if err == nil {
			s.current.Store(snap)
		} else if old := s.current.Load(); old != nil && time.Now().Before(old.stale) {
			// The old keys count as fresh until the next retry is due, so that
			// requests do not lock mu until then.
			later := *old
			if due := s.lastTry.Add(s.interval()); due.After(later.fresh) {
				later.fresh = due
			}
			s.current.Store(&later)
		}
		s.lastErr.Store(&err)
		s.inflight, f.err, s.lastEnd = nil, err, time.Now()
		s.mu.Unlock()
		close(f.done) // before logging, because a Logger may be slow
		if err != nil && f.background && s.Logger != nil {
			s.Logger.WarnContext(ctx, "koreauth: key refresh failed; still using the last good keys", "cause", oneLine(err.Error()))
		}
	}()
	snap, err = s.load(ctx)
}

// load fetches the keys, and before them their URL if it is not known.
func (s *RemoteKeySet) load(ctx context.Context) (*snapshot, error) {
	if faults := s.faults(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if s.URL != "" {
		return s.loadKeys(ctx, s.URL)
	}
	known := s.location
	var failed error
	if known != "" && !s.suspect {
		snap, err := s.loadKeys(ctx, known)
		if err == nil {
			return snap, nil
		}
		// The keys may have moved. If there is no time left to discover their URL,
		// the next fetch begins with that.
		failed, s.suspect = err, true
	}
	location, err := fetch.Discover(ctx, fetch.WithRedirectRules(s.HTTPClient), s.Issuer, s.DangerouslyAllowHTTP)
	switch {
	case err != nil && known != "" && failed == nil:
		location, s.suspect = known, false // The next fetch tries the known URL first again.
	case err != nil:
		return nil, errors.Join(failed, err)
	case location == known && failed != nil:
		return nil, failed
	}
	snap, err := s.loadKeys(ctx, location)
	if err == nil {
		s.location, s.suspect = location, false
	}
	return snap, err
}

// loadKeys fetches the JWK Set from location.
func (s *RemoteKeySet) loadKeys(ctx context.Context, location string) (*snapshot, error) {
	old := s.current.Load()
	var etag string
	if old != nil && old.source == location {
		etag = old.etag
	}
	doc, err := fetch.Get(ctx, fetch.WithRedirectRules(s.HTTPClient), location, etag)
	if err != nil {
		return nil, err
	}
	snap := &snapshot{source: location, etag: etag, lifetime: s.lifetime(doc)}
	if doc.Status == http.StatusNotModified && etag != "" {
		snap.keyIndex, snap.ignored = old.keyIndex, old.ignored
		if len(doc.Header.Values("Cache-Control")) == 0 {
			snap.lifetime = old.lifetime // RFC 9111 §3.2: headers that a 304 lacks stay.
		}
	} else {
		if err := doc.OK(); err != nil {
			return nil, err
		}
		keys, ignored, err := parseKeys(doc.Body)
		if err != nil {
			return nil, err
		}
		snap.keyIndex, snap.ignored = newKeyIndex(keys), ignored
		snap.etag = doc.Header.Get("ETag")
	}
	snap.fetched = time.Now()
	snap.fresh = snap.fetched.Add(snap.lifetime)
	snap.stale = snap.fetched.Add(max(cmp.Or(s.MaxStale, maxStale), s.age()))
	return snap, nil
}

// lifetime returns how long the keys of a document need no refresh.
func (s *RemoteKeySet) lifetime(doc *fetch.Document) time.Duration {
	if age, ok := doc.MaxAge(s.age()); ok {
		return min(max(age, s.interval()), s.age())
	}
	return s.age()
}

func (s *RemoteKeySet) age() time.Duration { return cmp.Or(s.MaxAge, maxAge) }

func (s *RemoteKeySet) interval() time.Duration {
	return min(cmp.Or(s.MinInterval, minInterval), s.age())
}

// status describes the cached keys. It fetches nothing and locks nothing.
func (s *RemoteKeySet) status() KeyStatus {
	status := KeyStatus{Err: s.lastError()}
	if snap := s.current.Load(); snap != nil {
		status.Keys, status.Ignored, status.Reasons = len(snap.all), snap.ignored.count, slices.Clone(snap.ignored.reasons)
		status.Fetched, status.StaleAt = snap.fetched, snap.stale
		if u, err := url.Parse(snap.source); err == nil {
			status.Source = fetch.RedactURL(u)
		}
	}
	return status
}

// faults lists what is wrong with the fields, each with its remedy.
func (s *RemoteKeySet) faults() (faults []error) {
	switch {
	case s.URL != "":
		if fault := fetch.CheckURL(s.URL, s.DangerouslyAllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("the URL of the keys %s", fault))
		}
	case s.Issuer != "":
		if fault := fetch.CheckIssuerURL(s.Issuer, s.DangerouslyAllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("the Issuer %s; or set the URL of its keys", fault))
		}
	default:
		faults = append(faults, errors.New("RemoteKeySet has neither URL nor Issuer: set one"))
	}
	for i, value := range []time.Duration{s.MinInterval, s.MaxAge, s.MaxStale} {
		if value < 0 {
			name := []string{"MinInterval", "MaxAge", "MaxStale"}[i]
			faults = append(faults, fmt.Errorf("RemoteKeySet.%s is negative: set it to zero, for the default, or more", name))
		}
	}
	return faults
}
