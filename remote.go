package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/fetch"
	"github.com/koreauth/koreauth/internal/jwk"
	"github.com/koreauth/koreauth/internal/keyfile"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/safelog"
)

// RemoteKeySet is a [KeySet] that fetches the keys of an issuer and caches them.
// Set its fields before its first use and do not change them afterwards. It is
// safe for concurrent use by multiple goroutines, and it needs no Close: its only
// goroutines are those of a fetch.
//
// Keys are fetched when they are first needed. A request whose key is cached does
// not wait: keys are refreshed in the background at a random 80 to 100 % of MaxAge. A request
// waits for the refresh only if the last fetch ended at least two MaxAge ago. If the
// refresh fails, it uses the old keys. Ages are measured by the wall clock and by
// the monotonic clock, whichever says older.
//
// An unknown key ID, or a signature that no key made, causes a fetch too. Such
// fetches are limited to a burst of three, then one per MinInterval, however many
// forged tokens arrive. If the issuer is down, the cached keys are used for up to
// MaxStale. The time between retries is a random 50 to 100 % of one that doubles up to
// eight MinInterval or, while there are no keys, from 250 ms to MinInterval.
// Retry-After, up to a minute, is the earliest moment of the next fetch.
//
// A fetch makes at most three requests. Each ends after Timeout, whatever the
// transport does, reads at most 1 MiB, and follows at most three redirects, within
// one scheme, host and port or from http to https on one host. It uses https unless
// the host is 127.0.0.0/8, ::1 or localhost. At most 1,000 keys are read.
type RemoteKeySet struct {
	// URL is where the JWK Set is. If URL is empty, it is discovered from Issuer.
	URL string
	// Issuer is the URL of the issuer, whose metadata names the URL of the keys:
	// OpenID Connect Discovery 1.0 §4 or, if that has a status 4xx, RFC 8414 §3.
	// Issuer is not used if URL is set.
	Issuer string
	// HTTPClient sends the requests. If HTTPClient is nil, a client on
	// http.DefaultTransport is used. The client is copied; its Timeout and its
	// CheckRedirect apply in addition to the rules above.
	HTTPClient *http.Client
	// Timeout is the maximum time of one request. Zero means 5 seconds.
	Timeout time.Duration
	// MinInterval is the minimum time between fetches for unknown keys, after the
	// burst, and before the first retry of a failed refresh. Zero means 10 seconds.
	// A value over MaxAge counts as MaxAge.
	MinInterval time.Duration
	// MaxAge is the age by which keys are refreshed. A shorter max-age in the
	// Cache-Control of the server is used instead, but not below MinInterval. Zero means
	// 15 minutes. It is not Config.MaxAge, the maximum age of a token.
	MaxAge time.Duration
	// MaxStale is how long keys are used after they were last fetched, while every
	// refresh fails. Zero means 24 hours. A value under MaxAge counts as MaxAge.
	MaxStale time.Duration
	// File is where the keys are kept on disk, for a program that starts while the issuer
	// cannot be reached. It is read only then, and if there are no keys; MaxStale counts from
	// when they were fetched. Whoever can write it can forge tokens: a file or folder that
	// group or others can write is not read. Empty means that none is kept.
	File string
	// DangerouslyAllowHTTP allows http URLs with any host. Anyone on the network
	// path can then replace the keys and forge tokens.
	DangerouslyAllowHTTP bool
	// Logger gets a warning for each background refresh that fails, and for each
	// fetch that brings keys which cannot be used. If Logger is nil, nothing is
	// logged.
	Logger *slog.Logger

	current atomic.Pointer[snapshot]
	lastErr atomic.Pointer[error] // how the last fetch ended; written with mu locked
	logging safelog.Warner

	mu       sync.Mutex  // guards the fields below; never locked while waiting
	inflight *fetch.Call // the current fetch, or nil
	pace     fetch.Pace

	source *fetch.Keys   // used only by the current fetch
	file   *keyfile.File // of File
}

// KeyStatus describes the keys of one issuer, for a status page or a metric.
type KeyStatus struct {
	Issuer  string    // as in Config.Issuer
	Keys    int       // the usable keys; zero for a custom KeySet
	Ignored int       // the published keys that are not used
	Reasons []string  // for each ignored key, its "kid" and why; at most 1,000
	Fetched time.Time // when the keys were last fetched; zero if never
	Source  string    // the URL of the keys, or the file; empty for a static or custom KeySet
	Err     error     // why the last fetch failed; nil if it did not
	StaleAt time.Time // until when the keys are used if no refresh succeeds
}

// snapshot is the result of a successful fetch. It is immutable.
type snapshot struct {
	keyIndex
	id       uint64 // of these keys
	ignored  jwk.Ignored
	source   string // the URL of the keys
	redacted string // the same, for people; or the file
	document []byte // for File, or nil
	etag     string
	fetched  clock.Instant
	lifetime time.Duration // when to refresh, after fetched
	fresh    time.Duration // the same, or later because a refresh failed
	stale    time.Duration // when to stop using the keys, after fetched
}

var snapshots atomic.Uint64 // how many there were

// usable returns the age of the keys at a moment, and whether they may be used. A nil snapshot
// has none.
func (s *snapshot) usable(now clock.Instant) (age time.Duration, ok bool) {
	if s == nil {
		return 0, false
	}
	age = s.fetched.AgeAt(now)
	return age, age < s.stale
}

// addsNothing reports whether each key is one of the old keys.
func (s *snapshot) addsNothing(old *snapshot) bool {
	for i := range s.all {
		if !slices.ContainsFunc(old.byID[s.all[i].ID], func(k Key) bool { return k.equal(&s.all[i]) }) {
			return false
		}
	}
	return true
}

// Keys returns the keys whose ID is kid, or all keys if kid is empty. It fetches
// them if necessary, as the comment of RemoteKeySet describes. The error is
// ErrUnknownKey if there is no such key, and ErrUnavailable if the fetch failed or
// ctx is done.
func (s *RemoteKeySet) Keys(ctx context.Context, kid string, fetch bool) ([]Key, error) {
	need := cachedOnly
	if fetch {
		need = fetchUnknown
	}
	snap, _, err := s.lookup(ctx, clock.Now(), need, func(snap *snapshot) bool { return len(snap.find(kid)) > 0 })
	if err != nil {
		return nil, err
	}
	return snap.find(kid), nil
}

// fetchNeed says what may be fetched for a look-up.
type fetchNeed int

const (
	cachedOnly   fetchNeed = iota
	fetchFirst             // keys may be fetched if there are none at all
	fetchUnknown           // also if none has the ID, and if they are old
)

// lookup returns a snapshot that has the wanted keys. fetched reports that it is the
// result of a fetch for which the caller waited.
func (s *RemoteKeySet) lookup(ctx context.Context, now clock.Instant, need fetchNeed, hasKeys func(*snapshot) bool) (snap *snapshot, fetched bool, err error) {
	snap = s.current.Load()
	switch age, usable := snap.usable(now); {
	case !usable && need == cachedOnly:
		return nil, false, ErrUnknownKey
	case !usable:
		snap, err = s.fetchUntil(ctx, fetch.NoKeys, snap, hasKeys)
		return snap, true, err
	case hasKeys(snap):
		if need == fetchUnknown && age >= snap.fresh {
			snap, err = s.refreshed(ctx, snap)
			if err == nil && !hasKeys(snap) {
				err = ErrUnknownKey
			}
		}
		return snap, false, err
	case need != fetchUnknown:
		return snap, false, ErrUnknownKey
	}
	snap, err = s.fetchUntil(ctx, fetch.UnknownKey, snap, hasKeys)
	return snap, true, err
}

// fresh returns the cached keys if they need no refresh at that moment, or nil.
func (s *RemoteKeySet) fresh(now clock.Instant) *snapshot {
	snap := s.current.Load()
	if snap == nil || snap.fetched.AgeAt(now) >= min(snap.fresh, snap.stale) {
		return nil
	}
	return snap
}

// fetchUntil fetches keys that are not in the loaded snapshot, and returns the first
// snapshot with enough. A fetch that the caller joined may have read the document
// before the key was published, so it is followed by one more. If there is still not
// enough, the error is ErrUnknownKey.
func (s *RemoteKeySet) fetchUntil(ctx context.Context, why fetch.Reason, loaded *snapshot, enough func(*snapshot) bool) (*snapshot, error) {
	for again := true; ; again = false {
		f, joined, err := s.begin(ctx, why, loaded)
		if err != nil {
			return loaded, err
		}
		if err := f.Wait(ctx); err != nil {
			return loaded, unavailable(err, 0)
		}
		loaded = s.current.Load()
		switch _, ok := loaded.usable(clock.Now()); {
		case ok && enough(loaded):
			return loaded, nil // They are of the file if the fetch failed.
		case f.Err != nil || !ok:
			return loaded, s.failed(cmp.Or(f.Err, errStale), why)
		case !joined || !again:
			return loaded, ErrUnknownKey
		}
		why = fetch.UnknownKey
	}
}

// refreshed returns keys that are cached and due for a refresh.
func (s *RemoteKeySet) refreshed(ctx context.Context, old *snapshot) (*snapshot, error) {
	f, _, err := s.begin(ctx, fetch.OldKeys, old)
	if err != nil || !f.Awaited {
		return old, nil // A refresh is not yet due again, or is running.
	}
	if err := f.Wait(ctx); err != nil {
		return old, unavailable(err, 0)
	}
	now := s.current.Load()
	if _, ok := now.usable(clock.Now()); !ok {
		return now, s.failed(cmp.Or(f.Err, errStale), fetch.NoKeys)
	}
	return now, nil
}

var (
	errStale = errors.New("the cached keys are older than MaxStale")
	errLimit = fmt.Errorf("%w: not fetched: the limit of fetches for unknown keys is reached", ErrUnknownKey)
)

// begin joins the current fetch or starts one. If the keys have changed since the
// caller loaded them, it returns fetch.Ended. If the rate limit forbids a fetch, err
// is what the caller should return.
func (s *RemoteKeySet) begin(ctx context.Context, why fetch.Reason, loaded *snapshot) (f *fetch.Call, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight != nil {
		return s.inflight, true, nil
	}
	if s.current.Load() != loaded {
		return fetch.Ended, true, nil
	}
	now, next := time.Now(), s.pace.Next(why, s.limits().Interval())
	if now.Before(next) {
		if err := s.lastError(); err != nil {
			return nil, false, unavailable(err, next.Sub(now))
		}
		return nil, false, errLimit
	}
	// Retries that are rare in an outage do not make callers wait.
	s.inflight = fetch.NewCall(why, s.pace.Idle()/2 >= s.limits().Age() && now.Sub(next) >= s.limits().Age())
	s.pace.Begin(why, now, s.limits().Interval())
	// A caller that gives up must not fail the others.
	go s.run(context.WithoutCancel(ctx), s.inflight)
	return s.inflight, false, nil
}

// failed returns the error for callers that waited for a fetch that failed.
func (s *RemoteKeySet) failed(cause error, why fetch.Reason) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unavailable(cause, max(0, time.Until(s.pace.Next(why, s.limits().Interval()))))
}

// lastError returns why the last fetch failed, or nil.
func (s *RemoteKeySet) lastError() error {
	if err := s.lastErr.Load(); err != nil {
		return *err
	}
	return nil
}

// run is the goroutine of a fetch.
func (s *RemoteKeySet) run(ctx context.Context, f *fetch.Call) {
	snap, err := bounded.Call(ctx, func(ctx context.Context) (*snapshot, error) { return s.load(ctx, f.Why) })
	old := s.current.Load()
	if old == nil && s.file != nil && fetch.Outage(err) {
		old = s.fromFile(ctx, err)
	}
	s.mu.Lock()
	s.pace.End(err)
	if err == nil {
		s.current.Store(snap)
	} else if age, ok := old.usable(clock.Now()); ok {
		// The old keys count as fresh until the next retry is due, so that requests
		// do not lock mu until then.
		later := *old
		later.fresh = max(old.fresh, age+time.Until(s.pace.Next(fetch.OldKeys, s.limits().Interval())))
		s.current.Store(&later)
	}
	s.lastErr.Store(&err)
	s.inflight = nil
	s.mu.Unlock()
	f.End(err) // before logging, because a Logger may be slow
	if err == nil && s.file != nil {
		if err := s.file.Save(snap.source, snap.fetched.Wall(), snap.document); err != nil {
			s.logging.Warn(ctx, s.Logger, "koreauth: the keys are not kept on disk", slog.String("cause", redact.Text(err.Error())))
		}
	}
	switch {
	case err != nil && f.Why == fetch.OldKeys:
		s.logging.Warn(ctx, s.Logger, "koreauth: key refresh failed; still using the last good keys", slog.String("cause", redact.Text(err.Error())))
	case err == nil && len(snap.ignored.Signing) > 0:
		s.logging.Warn(ctx, s.Logger, "koreauth: the issuer publishes keys that cannot be used", slog.String("issuer", s.Issuer), slog.String("url", snap.redacted),
			slog.String("keys", redact.Text(strings.Join(snap.ignored.Signing, "; "))))
	}
}

// load fetches the keys. For an unknown key it also asks the metadata whether the
// keys have moved, if that has not been asked for MaxAge.
func (s *RemoteKeySet) load(ctx context.Context, why fetch.Reason) (snap *snapshot, err error) {
	if faults := s.faults(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if s.file == nil && s.File != "" {
		s.file = &keyfile.File{Path: s.File, Issuer: s.Issuer, URL: s.URL, MaxStale: s.limits().Stale()}
	}
	if s.source == nil {
		s.source = fetch.New(fetch.Config{
			URL: s.URL, Issuer: s.Issuer, Client: s.HTTPClient,
			Timeout: s.limits().Request(), AllowHTTP: s.DangerouslyAllowHTTP,
		})
	}
	old := s.current.Load()
	request := fetch.Request{
		ETag: func(location string) string {
			if old != nil && old.source == location {
				return old.etag
			}
			return ""
		},
		NoCache: why == fetch.UnknownKey,
		Read: func(doc *fetch.Document) error {
			read, err := s.snapshot(doc, old)
			if err == nil {
				snap = read
			}
			return err
		},
	}
	defer s.source.Close()
	if err := s.source.Fetch(ctx, request); err != nil {
		return nil, err
	}
	if why == fetch.UnknownKey && old != nil && snap.addsNothing(old) {
		_ = s.source.FetchMoved(ctx, s.limits().Age(), request) // If it fails, the keys at the old URL are good.
	}
	return snap, nil
}

// fromFile returns the keys that are kept on disk, or nil. cause is why the fetch failed.
func (s *RemoteKeySet) fromFile(ctx context.Context, cause error) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, s.limits().Request())
	defer cancel()
	record, err := s.file.Load(ctx)
	keys, ignored, faulty := parseKeys(record.Document)
	if err = cmp.Or(err, faulty); err != nil {
		if !errors.Is(err, fs.ErrNotExist) && s.file.News(err) {
			s.logging.Warn(ctx, s.Logger, "koreauth: the keys on disk are not used", slog.String("cause", redact.Text(err.Error())))
		}
		return nil
	}
	age := time.Since(record.Fetched)
	s.logging.Warn(ctx, s.Logger, "koreauth: the keys could not be fetched; using the keys on disk",
		slog.String("file", s.File), slog.Duration("age", age.Round(time.Second)), slog.String("cause", redact.Text(cause.Error())))
	return &snapshot{keyIndex: newKeyIndex(keys), id: snapshots.Add(1), ignored: ignored, source: record.Source, redacted: s.File, fetched: clock.Ago(age), stale: s.limits().Stale()}
}

// sharesFile reports whether two key sets are kept in one file.
func sharesFile(a, b KeySet) bool {
	one, ok := a.(*RemoteKeySet)
	two, also := b.(*RemoteKeySet)
	return ok && also && one != two && keyfile.Same(one.File, two.File)
}

// snapshot reads a document. old is what a 304 refers to.
func (s *RemoteKeySet) snapshot(doc *fetch.Document, old *snapshot) (*snapshot, error) {
	snap := &snapshot{id: snapshots.Add(1), source: doc.Source, redacted: doc.URL, fetched: clock.Now(), lifetime: s.limits().Lifetime(doc)}
	if doc.Status == http.StatusNotModified {
		snap.keyIndex, snap.ignored, snap.etag, snap.document = old.keyIndex, old.ignored, old.etag, old.document
		if len(doc.Header.Values("Cache-Control")) == 0 {
			snap.lifetime = old.lifetime // RFC 9111 §3.2: headers that a 304 lacks stay.
		}
	} else {
		keys, ignored, err := parseKeys(doc.Body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doc.URL, err)
		}
		snap.keyIndex, snap.ignored, snap.etag = newKeyIndex(keys), ignored, doc.Header.Get("ETag")
		if s.file != nil {
			snap.document = doc.Body
		}
	}
	snap.fresh, snap.stale = fetch.Spread(snap.lifetime), s.limits().Stale()
	return snap, nil
}

func (s *RemoteKeySet) limits() fetch.Limits {
	return fetch.Limits{Timeout: s.Timeout, MinInterval: s.MinInterval, MaxAge: s.MaxAge, MaxStale: s.MaxStale}
}

// status describes the cached keys. It fetches nothing and locks nothing.
func (s *RemoteKeySet) status() KeyStatus {
	status := KeyStatus{Err: s.lastError()}
	if snap := s.current.Load(); snap != nil {
		status.Keys, status.Ignored, status.Reasons = len(snap.all), snap.ignored.Count, slices.Clone(snap.ignored.Reasons)
		status.Fetched, status.StaleAt, status.Source = snap.fetched.Wall(), snap.fetched.Wall().Add(snap.stale), snap.redacted
	}
	return status
}

// faults lists what is wrong with the fields, each with its remedy.
func (s *RemoteKeySet) faults() []error {
	return append(fetch.Config{URL: s.URL, Issuer: s.Issuer, AllowHTTP: s.DangerouslyAllowHTTP}.Faults(), s.limits().Faults()...)
}
