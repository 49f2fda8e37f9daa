package koreauth

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// KeySet is where a [Validator] finds the issuer's keys.
type KeySet interface {
	// Keys returns the keys whose ID is kid, or all keys if kid is empty.
	// Where there is none, it returns none or ErrUnknownKey; any other error
	// counts as ErrUnavailable. It may ask the network only if fetch is set,
	// and is then bound by ctx. It is called for every token and by many
	// requests at once; nobody changes what it returns.
	Keys(ctx context.Context, kid string, fetch bool) ([]Key, error)
}

// Key is a public key of an issuer.
type Key struct {
	// ID is the "kid" (RFC 7517 §4.5); empty if the key has none, and then it
	// serves only tokens without a "kid".
	ID string
	// Algorithm is the one "alg" that the key is for (RFC 7517 §4.4); empty
	// means any that its type can do.
	Algorithm string
	// Public is an *rsa.PublicKey of 2048 bits or more, an *ecdsa.PublicKey on
	// P-256, P-384 or P-521, or an ed25519.PublicKey.
	Public crypto.PublicKey
}

// StaticKeySet is a [KeySet] of keys that never change.
type StaticKeySet []Key

// Keys returns the keys of that ID, or all of them for an empty ID. Where none has
// the ID the error is ErrUnknownKey. It searches; a [Validator] that is given a
// StaticKeySet keeps an index of it.
func (s StaticKeySet) Keys(_ context.Context, kid string, _ bool) ([]Key, error) {
	if kid == "" {
		return slices.Clip(s), nil
	}
	var found []Key
	for _, key := range s {
		if key.ID == kid {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		return nil, ErrUnknownKey
	}
	return found, nil
}

// keyIndex holds keys by their ID.
type keyIndex struct {
	all  []Key
	byID map[string][]Key
}

func newKeyIndex(keys []Key) keyIndex {
	x := keyIndex{slices.Clip(slices.Clone(keys)), make(map[string][]Key, len(keys))}
	for _, key := range x.all {
		x.byID[key.ID] = append(x.byID[key.ID], key)
	}
	for id, same := range x.byID {
		x.byID[id] = slices.Clip(same) // Whoever appends to an answer has a copy.
	}
	return x
}

func (x *keyIndex) find(kid string) []Key {
	if kid == "" {
		return x.all
	}
	return x.byID[kid]
}

// Keys makes an index of a StaticKeySet a KeySet.
func (x *keyIndex) Keys(_ context.Context, kid string, _ bool) ([]Key, error) {
	return x.find(kid), nil
}

// ParseKeys returns the keys of a JWK Set document (RFC 7517 §5) that can verify
// signatures. It leaves out what cannot, each key for itself: other types and
// curves, keys for encryption ("use", "key_ops", "alg"), RSA keys under 2048
// bits, points off the curve, and private keys, which whoever published them
// has given to everybody. A document without one usable key is an error, which
// tells why.
func ParseKeys(jwks []byte) ([]Key, error) {
	var document map[string]json.RawMessage // exact names, unlike a struct
	if err := json.Unmarshal(jwks, &document); err != nil {
		return nil, errors.New("koreauth: the key set is not a JSON object")
	}
	var members []json.RawMessage
	if err := json.Unmarshal(document["keys"], &members); err != nil {
		return nil, errors.New(`koreauth: the key set has no array "keys"`)
	}
	var keys []Key
	var faults []error
	for i, member := range members {
		key, err := parseKey(member)
		if err == nil {
			keys = append(keys, key)
		} else if len(faults) < 10 { // to read, not to store
			faults = append(faults, fmt.Errorf("key %d: %w", i, err))
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("koreauth: the key set has no usable signing key: %w", cmp.Or(errors.Join(faults...), errors.New("it is empty")))
	}
	return keys, nil
}

// parseKey reads one JWK. What the members say of the key is read here, what
// the key is by jwx: so that no odd member beside it loses the key.
func parseKey(member []byte) (key Key, err error) {
	var jwkMembers map[string]json.RawMessage
	if err := json.Unmarshal(member, &jwkMembers); err != nil {
		return key, errors.New("not a JSON object")
	}
	var use string
	operations := []string{"verify"}
	for name, to := range map[string]any{"kid": &key.ID, "alg": &key.Algorithm, "use": &use, "key_ops": &operations} {
		if value, ok := jwkMembers[name]; ok && string(value) != "null" && json.Unmarshal(value, to) != nil {
			return key, fmt.Errorf("%q is of the wrong type", name)
		}
	}
	if _, private := jwkMembers["d"]; private {
		return key, errors.New("a private key")
	}
	if use != "" && use != "sig" || !slices.Contains(operations, "verify") {
		return key, errors.New("not for signatures")
	}
	material := make(map[string]json.RawMessage)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if value, ok := jwkMembers[name]; ok {
			material[name] = value
		}
	}
	document, err := json.Marshal(material)
	if err != nil {
		return key, err
	}
	parsed, err := jwk.ParseKey(document)
	if err != nil {
		return key, errors.New("not a key of a known type")
	}
	if public, ok := parsed.(jwk.RSAPublicKey); ok && new(big.Int).SetBytes(public.E()).Cmp(big.NewInt(maxExponent)) > 0 {
		return key, errors.New("an RSA exponent over 2^31-1") // which Raw would cut short
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return key, errors.New("not a key of a known type")
	}
	key.Public = raw
	if err := usable(raw); err != nil {
		return key, err
	}
	if key.Algorithm != "" && !algorithms[key.Algorithm].fits(raw) {
		return key, errors.New(`"alg" is no signature algorithm of this key`)
	}
	return key, nil
}

// usable says why a key can verify nothing.
func usable(public crypto.PublicKey) error {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return usableRSA(public)
	case *ecdsa.PublicKey:
		if !hasPoint(public) {
			return errors.New("an empty EC key")
		}
		if _, err := public.ECDH(); err != nil {
			return errors.New("not a point on P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return errors.New("an Ed25519 key has 32 bytes")
		}
	default:
		return fmt.Errorf("a %T is no public key: give an *rsa.PublicKey, an *ecdsa.PublicKey or an ed25519.PublicKey", public)
	}
	return nil
}

// hasPoint reports whether there is anything in the key: without, crypto/ecdsa
// panics.
func hasPoint(public *ecdsa.PublicKey) bool {
	//lint:ignore SA1019 Nothing else tells whether they are nil.
	return public != nil && public.Curve != nil && public.X != nil && public.Y != nil
}

func usableRSA(public *rsa.PublicKey) error {
	if public == nil || public.N == nil || public.N.BitLen() < 2048 {
		return errors.New("an RSA key must have 2048 bits or more (RFC 7518 §3.3)")
	}
	if public.N.Bit(0) == 0 || public.E < 3 || public.E%2 == 0 || public.E > maxExponent {
		return errors.New("an RSA modulus must be odd, and its exponent odd, from 3 to 2^31-1")
	}
	return nil
}

// maxExponent is the largest RSA exponent that crypto/rsa works with.
const maxExponent = 1<<31 - 1

// What RemoteKeySet's zero fields mean, and its limits.
const (
	minInterval      = 10 * time.Second
	minIntervalEmpty = 250 * time.Millisecond // between fetches while there are no keys
	maxAge           = 15 * time.Minute
	maxStale         = 24 * time.Hour
	fetchTimeout     = 5 * time.Second
	fetchBurst       = 3
	maxDocument      = 1 << 20
	maxRedirects     = 3
)

// RemoteKeySet is a [KeySet] that fetches an issuer's keys and keeps them. It
// needs no Close, and starts no goroutine but the one that fetches, which ends
// within 5 seconds. Its fields must not be changed once it is in use.
//
// A request whose key is at hand never waits. Keys older than MaxAge are
// fetched anew behind its back; if nobody has asked for two MaxAge it waits,
// and uses the old ones only if the fetch fails. An unknown key ID is a reason
// to fetch too: three times in a row, then once per MinInterval, however many
// tokens with invented IDs there are. Through an outage of the issuer the last
// good keys serve up to MaxStale.
//
// A fetch is bound to 5 seconds (which the HTTP client's transport must heed),
// to 1 MiB, to three redirects to the same scheme, host and port, and to https
// unless the host is 127.0.0.0/8, ::1 or localhost.
type RemoteKeySet struct {
	// URL is where the JWK Set is. Empty: discovered from Issuer.
	URL string
	// Issuer is the issuer's URL, at which its metadata are found: OpenID
	// Connect Discovery 1.0 §4, and where that is a 404, RFC 8414 §3. Unused
	// if URL is set.
	Issuer string
	// HTTPClient sends the requests; nil means one on http.DefaultTransport. It
	// is copied. Its Timeout counts as well as the 5 seconds, and its
	// CheckRedirect as well as the rules above.
	HTTPClient *http.Client
	// MinInterval is the least time between fetches for unknown key IDs, and
	// after a failed fetch. Zero means 10 seconds; it counts as no more than
	// MaxAge.
	MinInterval time.Duration
	// MaxAge is the age at which keys are fetched anew; a max-age of the
	// server's Cache-Control counts instead where it is less, down to
	// MinInterval. Zero means 15 minutes.
	MaxAge time.Duration
	// MaxStale is how long keys serve that could not be fetched anew, from the
	// last good fetch. Zero means 24 hours; it counts as no less than MaxAge.
	MaxStale time.Duration
	// DangerouslyAllowHTTP allows http URLs to any host: whoever is on the
	// network between can then give you keys, and forge any token.
	DangerouslyAllowHTTP bool
	// Logger is told of refreshes that failed behind a request's back. Nil
	// means silence.
	Logger *slog.Logger

	current atomic.Pointer[snapshot]

	mu      sync.Mutex // guards what follows; never held while waiting
	flight  *flight    // the fetch under way, or nil
	lastTry time.Time  // when the last fetch began
	lastEnd time.Time  // when it ended
	lastErr error      // and how
	paidOff time.Time  // when the fetches for unknown IDs are, at one per MinInterval

	// Used by the fetch under way alone.
	location string // the discovered URL
	doubted  bool   // it failed, and may be another now
}

// snapshot is the keys of one good fetch. It does not change.
type snapshot struct {
	keyIndex
	source   string // the URL it came from
	etag     string
	lifetime time.Duration // how long it needed no refresh when it came
	fresh    time.Time     // until when it needs none
	stale    time.Time     // from when on it serves no more
}

// flight is a fetch that many may wait for.
type flight struct {
	done    chan struct{} // closed when it has ended
	err     error         // set by then
	awaited bool          // those who have keys, but very old ones, wait for it too
	silent  bool          // nobody's answer tells of its failure
}

// Keys returns the keys of that ID, or all for an empty one, fetching them as
// the type's comment says. Where there is none, the error is ErrUnknownKey; it
// is ErrUnavailable if the issuer could not be asked, or ctx is done.
func (s *RemoteKeySet) Keys(ctx context.Context, kid string, fetch bool) ([]Key, error) {
	now := time.Now()
	snap := s.current.Load()
	if snap == nil || !now.Before(snap.stale) {
		if !fetch {
			return nil, ErrUnknownKey
		}
		return s.fetched(ctx, kid, becauseEmpty, snap)
	}
	keys := snap.find(kid)
	switch {
	case len(keys) == 0 && !fetch:
		return nil, ErrUnknownKey
	case len(keys) == 0:
		return s.fetched(ctx, kid, becauseUnknown, snap)
	case fetch && !now.Before(snap.fresh):
		return s.refreshed(ctx, kid, snap)
	}
	return keys, nil
}

// fetched returns keys that are not at hand. A fetch that was under way before
// may have been answered before the key was there, so a second one may follow.
func (s *RemoteKeySet) fetched(ctx context.Context, kid string, why because, seen *snapshot) ([]Key, error) {
	for again := true; ; again = false {
		f, joined, err := s.begin(ctx, why, seen)
		if err != nil {
			return nil, err
		}
		if err := f.wait(ctx); err != nil {
			return nil, err
		}
		if f.err != nil {
			return nil, s.failed(f.err, why)
		}
		seen = s.current.Load()
		if !time.Now().Before(seen.stale) {
			return nil, s.failed(errStale, why)
		}
		if keys := seen.find(kid); len(keys) > 0 {
			return keys, nil
		}
		if !joined || !again {
			return nil, ErrUnknownKey
		}
		why = becauseUnknown
	}
}

// refreshed returns keys that are at hand but old.
func (s *RemoteKeySet) refreshed(ctx context.Context, kid string, old *snapshot) ([]Key, error) {
	f, _, err := s.begin(ctx, becauseOld, old)
	if err != nil || !f.awaited {
		return old.find(kid), nil // It is too early for another try, or one is under way.
	}
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	now := s.current.Load()
	if !time.Now().Before(now.stale) {
		return nil, s.failed(cmp.Or(f.err, errStale), becauseEmpty)
	}
	if keys := now.find(kid); len(keys) > 0 {
		return keys, nil
	}
	return nil, ErrUnknownKey
}

var errStale = errors.New("the last good keys are too old")

// because is why a fetch is wanted; each has a limit of its own.
type because int

const (
	becauseEmpty   because = iota // there are no keys
	becauseUnknown                // none has the ID
	becauseOld                    // they may have changed
)

// landed stands for a fetch that ended, well or not, while the caller came: what
// it left is looked at once more.
var landed = func() *flight {
	f := &flight{done: make(chan struct{}), awaited: true}
	close(f.done)
	return f
}()

// begin returns the fetch under way, or begins one, unless the keys are no
// longer those that the caller has seen. Where the limit forbids it, the error
// is the answer.
func (s *RemoteKeySet) begin(ctx context.Context, why because, seen *snapshot) (f *flight, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight, true, nil
	}
	if s.current.Load() != seen {
		return landed, true, nil
	}
	now := time.Now()
	if next := s.next(why); now.Before(next) {
		if s.lastErr == nil {
			return nil, false, ErrUnknownKey
		}
		return nil, false, unavailable(s.lastErr, next.Sub(now))
	}
	if why == becauseUnknown {
		if s.paidOff.Before(now) {
			s.paidOff = now
		}
		s.paidOff = s.paidOff.Add(s.interval())
	}
	s.flight = &flight{
		done:    make(chan struct{}),
		awaited: now.Sub(s.lastEnd)/2 >= s.age(),
		silent:  why == becauseOld,
	}
	s.lastTry = now
	// One caller's hang-up must not fail the others.
	go s.run(context.WithoutCancel(ctx), s.flight)
	return s.flight, false, nil
}

// next is when a fetch may begin, for that reason; mu is held.
func (s *RemoteKeySet) next(why because) time.Time {
	switch {
	case why == becauseUnknown:
		next := s.paidOff
		for range fetchBurst - 1 { // A product of the largest intervals would wrap.
			next = next.Add(-s.interval())
		}
		return next
	case why == becauseEmpty && s.lastErr != nil:
		return s.lastTry.Add(min(s.interval(), minIntervalEmpty))
	case why == becauseOld && s.lastErr != nil:
		return s.lastTry.Add(s.interval())
	}
	return time.Time{}
}

// failed is the answer to those who waited for a fetch that failed.
func (s *RemoteKeySet) failed(cause error, why because) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unavailable(cause, max(0, time.Until(s.next(why))))
}

// wait returns when the fetch has ended, or with an error when ctx is done.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return unavailable(context.Cause(ctx), 0)
	}
}

// run does the fetch.
func (s *RemoteKeySet) run(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	snap, err := (*snapshot)(nil), errors.New("the HTTP client did not return")
	defer func() {
		// A panic of the caller's transport would end the whole program, since
		// no server's handler is above it to recover.
		if p := recover(); p != nil {
			err = fmt.Errorf("the HTTP client panicked with a %T", p)
		}
		s.mu.Lock()
		if err == nil {
			s.current.Store(snap)
		} else if old := s.current.Load(); old != nil && time.Now().Before(old.stale) {
			// The old keys count as fresh until the next try is due, so that
			// until then nobody takes the lock to ask.
			later := *old
			if due := s.lastTry.Add(s.interval()); due.After(later.fresh) {
				later.fresh = due
			}
			s.current.Store(&later)
		}
		s.flight, s.lastErr, f.err, s.lastEnd = nil, err, err, time.Now()
		s.mu.Unlock()
		close(f.done) // first, for a Logger may be slow
		if err != nil && f.silent && s.Logger != nil {
			s.Logger.WarnContext(ctx, "koreauth: key refresh failed; the last good keys serve on", "cause", oneLine(err.Error()))
		}
	}()
	snap, err = s.load(ctx)
}

// load fetches the keys, and before them where they are.
func (s *RemoteKeySet) load(ctx context.Context) (*snapshot, error) {
	if faults := s.faults(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if s.URL != "" {
		return s.loadKeys(ctx, s.URL)
	}
	known := s.location
	var failed error
	if known != "" && !s.doubted {
		snap, err := s.loadKeys(ctx, known)
		if err == nil {
			return snap, nil
		}
		// The keys may have moved. If they cannot be asked for in the time that
		// is left, the next fetch begins with that.
		failed, s.doubted = err, true
	}
	location, err := s.discover(ctx)
	switch {
	case err != nil && known != "" && failed == nil:
		location, s.doubted = known, false // Next time the other way round again.
	case err != nil:
		return nil, errors.Join(failed, err)
	case location == known && failed != nil:
		return nil, failed
	}
	snap, err := s.loadKeys(ctx, location)
	if err == nil {
		s.location, s.doubted = location, false
	}
	return snap, err
}

func (s *RemoteKeySet) loadKeys(ctx context.Context, location string) (*snapshot, error) {
	old := s.current.Load()
	var etag string
	if old != nil && old.source == location {
		etag = old.etag
	}
	resp, err := s.get(ctx, location, etag)
	if err != nil {
		return nil, err
	}
	snap := &snapshot{source: location, etag: etag, lifetime: s.freshness(resp.header)}
	if resp.status == http.StatusNotModified && etag != "" {
		snap.keyIndex = old.keyIndex
		if len(resp.header.Values("Cache-Control")) == 0 {
			snap.lifetime = old.lifetime // RFC 9111 §3.2: what it does not say stays.
		}
	} else {
		if err := resp.ok(); err != nil {
			return nil, err
		}
		keys, err := ParseKeys(resp.body)
		if err != nil {
			return nil, err
		}
		snap.keyIndex = newKeyIndex(keys)
		snap.etag = resp.header.Get("ETag")
	}
	now := time.Now()
	snap.fresh = now.Add(snap.lifetime)
	snap.stale = now.Add(max(cmp.Or(s.MaxStale, maxStale), s.age()))
	return snap, nil
}

func (s *RemoteKeySet) age() time.Duration { return cmp.Or(s.MaxAge, maxAge) }

func (s *RemoteKeySet) interval() time.Duration {
	return min(cmp.Or(s.MinInterval, minInterval), s.age())
}

// faults says what is wrong with the fields, each with its mend.
func (s *RemoteKeySet) faults() []error {
	var faults []error
	switch {
	case s.URL != "":
		if fault := checkURL(s.URL, s.DangerouslyAllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("koreauth: the URL of the keys %s", fault))
		}
	case s.Issuer != "":
		if fault := checkIssuerURL(s.Issuer, s.DangerouslyAllowHTTP); fault != "" {
			faults = append(faults, fmt.Errorf("koreauth: Issuer %s; or set the URL of its keys", fault))
		}
	default:
		faults = append(faults, errors.New("koreauth: RemoteKeySet has neither URL nor Issuer: set one"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"MinInterval", s.MinInterval}, {"MaxAge", s.MaxAge}, {"MaxStale", s.MaxStale}} {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("koreauth: RemoteKeySet.%s is negative: set zero for its default, or more", d.name))
		}
	}
	return faults
}
