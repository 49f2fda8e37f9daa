// Package tenants validates the tokens of issuers that are not known when the program
// starts, such as one realm for each customer.
//
//	set := &tenants.Set{
//		Match: "https://id.example.com/realms/{tenant}",
//		Resolve: func(ctx context.Context, issuer string) (koreauth.Config, error) {
//			if !isCustomer(ctx, issuer) {
//				return koreauth.Config{}, koreauth.ErrIssuer
//			}
//			return koreauth.Config{Audience: []string{"api-gw"}}, nil
//		},
//	}
//	if err := set.Faults(); err != nil {
//		log.Fatal(err)
//	}
//	guard := koreauth.New(set, nil)
//
// For issuers that are known, pass a Config for each to koreauth.NewValidator.
package tenants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/limit"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/safelog"
	"github.com/koreauth/koreauth/internal/seldom"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// The limits of a Set.
const (
	defaultMax     = 1000
	defaultIdle    = time.Hour
	resolveTimeout = 5 * time.Second
	resolveEvery   = 100 * time.Millisecond // a new tenant, after a burst
	resolveBurst   = 20
	checkEvery     = 5 * time.Minute // whether a tenant is still there
	badFor         = time.Minute     // an issuer that is no tenant is remembered
	maxBad         = 1024
	allTokens      = 10_000 // remembered, of all tenants
	leastTokens    = 16     // of one tenant
	maxToken       = 16 << 10
	logInterval    = time.Minute
	maxRunning     = 64                 // calls of Resolve for new issuers at a time
	maxRechecks    = 16                 // calls of Resolve for tenants at a time
	patience       = time.Second        // for a resolution after a quiet time
	knownFor       = 7 * 24 * time.Hour // it is remembered that an issuer was a tenant
	maxKnown       = 10_000
)

// Set is a koreauth.TokenValidator for the issuers that a template describes. Set its
// fields before its first use and do not change them afterwards. It is safe for concurrent
// use by multiple goroutines, and there is nothing to close. The keys of a tenant are
// fetched for its first token. Opaque tokens are rejected with koreauth.ErrMalformed.
//
// New issuers are resolved at most 10 times a second after a burst of 20, because anyone
// can invent issuers. More get koreauth.ErrUnavailable, also after a restart, when every
// tenant is new. Tenants that are kept are not affected. Forgotten ones have a rate of their
// own, of the same size; new and forgotten ones share 64 calls of Resolve.
type Set struct {
	// Match is the template of the accepted issuers, such as
	// "https://id.example.com/realms/{tenant}". {tenant} stands for one label of the host or
	// one segment of the path, of up to 63 lower-case letters, digits and hyphens. All else
	// is compared exactly. The domain after a label of the host must be yours: suffixes under
	// which anybody can have a domain, such as co.uk, are not recognized.
	Match string
	// Resolve returns the Config of an issuer that Match accepts and whose token was not
	// verified yet: the issuer is what somebody sent. An error under
	// koreauth.ErrInvalidToken, such as koreauth.ErrIssuer, means that there is no such
	// tenant, which is remembered for a minute. Any other error is ErrUnavailable. A call
	// has five seconds. Resolve is called again, in the background, for the first token after
	// five minutes; after more than ten, that token waits up to a second. An error
	// under ErrInvalidToken then removes the tenant, and a Config that differs replaces the
	// old one. After any other error the old Config stays in use, without a time limit. A new
	// Config each time is fine: the keys are kept if they come from the same place, by a
	// client with the same Transport.
	//
	// Require of the Config is called without the *http.Request, which is nil: give a
	// requirement that needs it, such as an iprange.Range, to the guard. Opaque is not used.
	// Issuer may be left empty. If CacheSize is zero, the tenants share 10,000 tokens. If
	// HTTPClient is nil (for a koreauth.RemoteKeySet in Keys, its own), connections are made
	// only to the issuer's host and port, at a public address, without a proxy, and redirects
	// are not followed. An HTTPClient that you set, and any other KeySet, has no such check.
	Resolve func(ctx context.Context, issuer string) (koreauth.Config, error)
	// Max is how many tenants are kept. For another one, the one that was used least
	// recently is forgotten. Zero means 1,000.
	Max int
	// Idle is after how long without a token a tenant is forgotten. Zero means an hour.
	Idle time.Duration
	// Logger gets a warning, at most once a minute, if an issuer could not be resolved or its
	// Config has faults: its tokens get ErrUnavailable or, if it is a tenant already, are
	// judged by its old Config. If Logger is nil, nothing is logged.
	Logger *slog.Logger

	once   sync.Once
	match  *template
	faults error

	told    seldom.Limit // of the log
	logging safelog.Warner

	mu      sync.RWMutex // guards the fields below
	tenants map[string]*tenant
	calls   map[string]*call
	bad     limit.Recent[string, struct{}] // issuers that are no tenants
	failed  limit.Recent[string, struct{}] // issuers that could not be resolved
	known   limit.Recent[string, struct{}] // issuers that were tenants, and were forgotten
	open    map[string]bool                // issuers for which a call of Resolve has not returned
	running int                            // of these calls, how many are for new issuers
	checks  int                            // and how many for tenants
	rate    limit.Rate                     // of resolutions of new issuers
	again   limit.Rate                     // of those of forgotten tenants
	retries limit.Rate                     // of those of issuers that could not be resolved
	swept   time.Time                      // when idle tenants were looked for
}

// tenant is one issuer.
type tenant struct {
	config    koreauth.Config // as Resolve returned it
	keys      koreauth.KeySet
	validator *koreauth.Validator
	used      atomic.Int64  // when it was used last, in nanoseconds since 1970
	checked   clock.Instant // when it was resolved; guarded by Set.mu
}

// call is a resolution that callers wait for.
type call struct {
	done   chan struct{} // closed at its end; then the fields below are set
	tenant *tenant
	err    error
}

var (
	validate = door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
	clone    = door.Clone.(func(*koreauth.Claims) *koreauth.Claims)
)

// Faults returns an error that names all fields with a fault and the cure, or nil. Call it
// when the program starts: a Set with a fault answers every token with ErrUnavailable.
func (s *Set) Faults() error {
	if s == nil {
		return errNil
	}
	s.once.Do(func() {
		var faults []error
		var err error
		if s.match, err = parseTemplate(s.Match); err != nil {
			faults = append(faults, fmt.Errorf("tenants: Set.Match %w", err))
		}
		if s.Resolve == nil {
			faults = append(faults, errors.New("tenants: Set.Resolve is nil: set it to a function that returns the Config of an issuer"))
		}
		if s.Max < 0 {
			faults = append(faults, errors.New("tenants: Set.Max is negative: set it to zero, for 1,000, or more"))
		}
		if s.Idle < 0 {
			faults = append(faults, errors.New("tenants: Set.Idle is negative: set it to zero, for an hour, or more"))
		}
		s.faults = errors.Join(faults...)
		s.tenants, s.calls, s.open = make(map[string]*tenant), make(map[string]*call), make(map[string]bool)
		s.bad.Max, s.failed.Max, s.known.Max = maxBad, maxBad, maxKnown
		s.rate = limit.Rate{Interval: resolveEvery, Burst: resolveBurst}
		s.again, s.retries = s.rate, s.rate
	})
	return s.faults
}

var errNil = errors.New("tenants: the *Set is nil: use &tenants.Set{…}")

// Validate returns the claims of a valid token of a tenant, which belong to the caller. The
// error is that of the tenant's koreauth.Validator; koreauth.ErrIssuer if Match or Resolve
// does not know the issuer; or koreauth.ErrUnavailable if it could not be resolved, or the
// Set has Faults. The claims of a bound token have a Confirmation, which the guard's
// Options.Sender must confirm.
func (s *Set) Validate(ctx context.Context, token string) (*koreauth.Claims, error) {
	claims, err := s.shared(ctx, token)
	if err != nil {
		return nil, err
	}
	return clone(claims), nil
}

func init() { door.AddShared(func(s *Set) any { return s.shared }) }

// shared is Validate without the copy: its claims must not be changed.
func (s *Set) shared(ctx context.Context, token string) (*koreauth.Claims, error) {
	if err := s.Faults(); err != nil {
		return nil, unavailable(err, 0)
	}
	issuer, err := issuerOf(token)
	if err != nil {
		return nil, err
	}
	if !s.match.matches(issuer) {
		return nil, koreauth.ErrIssuer
	}
	t, err := s.find(ctx, issuer)
	if err != nil {
		return nil, err
	}
	return validate(ctx, t.validator, nil, token)
}

// issuerOf returns the "iss" of a token, which is not verified.
func issuerOf(token string) (string, error) {
	malformed := func(cause string) error { return fmt.Errorf("%w: %s", koreauth.ErrMalformed, cause) }
	if len(token) > maxToken {
		return "", malformed("larger than 16 KiB")
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found || strings.Contains(signature, ".") {
		return "", malformed("not three segments")
	}
	text, ok := jws.DecodeText(payload)
	if !ok {
		return "", malformed("not base64url without padding")
	}
	issuer, err := strictjson.Text(text, "iss")
	if err != nil {
		return "", fmt.Errorf("%w: payload: %w", koreauth.ErrMalformed, err)
	}
	return strings.Clone(issuer), nil
}

// find returns the tenant of an issuer, which it resolves if necessary.
func (s *Set) find(ctx context.Context, issuer string) (*tenant, error) {
	now := time.Now()
	s.mu.RLock()
	t := s.tenants[issuer]
	due := t == nil || s.isIdle(t, now) || t.checked.Age() >= checkEvery || now.Sub(s.swept) >= s.idle()/2
	s.mu.RUnlock()
	if !due {
		t.used.Store(now.UnixNano())
		return t, nil
	}
	s.mu.Lock()
	s.sweep(now)
	if t = s.tenants[issuer]; t != nil && s.isIdle(t, now) {
		s.forget(issuer)
		t = nil
	}
	if t == nil {
		c, err := s.join(issuer)
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		return c.wait(ctx)
	}
	t.used.Store(now.UnixNano())
	var c *call
	age := t.checked.Age()
	if age >= checkEvery && (s.calls[issuer] != nil || !s.open[issuer] && s.checks < maxRechecks) {
		c = s.begin(issuer, t)
	}
	s.mu.Unlock()
	if c == nil || age < 2*checkEvery {
		return t, nil // The resolution ends in the background.
	}
	return c.waitShortly(ctx, t)
}

// wait returns the result of a resolution.
func (c *call) wait(ctx context.Context) (*tenant, error) {
	select {
	case <-c.done:
		return c.tenant, c.err
	case <-ctx.Done():
		return nil, unavailable(context.Cause(ctx), 0)
	}
}

// waitShortly returns the result of a resolution after a quiet time, or the old tenant if
// there is none: an outage of what Resolve asks does not reject the tokens of tenants.
func (c *call) waitShortly(ctx context.Context, old *tenant) (*tenant, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if t, err := c.wait(ctx); t != nil || errors.Is(err, koreauth.ErrInvalidToken) {
		return t, err
	}
	return old, nil
}

var (
	errBusy = errors.New("too many new issuers: at most 10 are resolved in a second")
	errOpen = errors.New("too many calls of Set.Resolve have not returned")
)

// join returns the current resolution of an issuer, or begins one.
func (s *Set) join(issuer string) (*call, error) {
	if _, bad := s.bad.Find(issuer); bad {
		return nil, koreauth.ErrIssuer
	}
	if c := s.calls[issuer]; c != nil {
		return c, nil
	}
	rate := &s.rate
	if _, failed := s.failed.Find(issuer); failed {
		rate = &s.retries
	} else if _, was := s.known.Find(issuer); was {
		rate = &s.again
	}
	switch {
	case s.open[issuer] || s.running >= maxRunning:
		return nil, unavailable(errOpen, time.Second)
	case !rate.Take():
		return nil, unavailable(errBusy, time.Second)
	}
	return s.begin(issuer, nil), nil
}

// begin resolves an issuer in a goroutine of its own. old is its tenant, or nil.
func (s *Set) begin(issuer string, old *tenant) *call {
	if c := s.calls[issuer]; c != nil {
		return c
	}
	c, count := &call{done: make(chan struct{})}, &s.checks
	if old == nil {
		count = &s.running
	}
	s.calls[issuer] = c
	s.open[issuer] = true
	*count++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
		defer cancel()
		config, err := bounded.Call(ctx, func(ctx context.Context) (koreauth.Config, error) {
			defer s.returned(issuer, count) // also if that is later than ctx
			return s.Resolve(ctx, issuer)
		})
		if err != nil {
			err = fmt.Errorf("tenants: Set.Resolve: %w", err)
		} else {
			c.tenant, err = s.build(ctx, issuer, config, old)
		}
		s.end(issuer, c, err)
		if err != nil && !errors.Is(err, koreauth.ErrInvalidToken) && s.Logger != nil && s.told.Allow(logInterval) {
			s.logging.Warn(context.Background(), s.Logger, "tenants: an issuer could not be resolved",
				slog.String("unverified_issuer", redact.Unverified(issuer)), slog.Bool("known", old != nil), slog.String("cause", redact.Text(err.Error())))
		}
	}()
	return c
}

// returned notes that a call of Resolve has returned. count is the one that it is part of.
func (s *Set) returned(issuer string, count *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, issuer)
	*count--
}

// build returns the tenant with that Config: the old one if it has the same.
func (s *Set) build(ctx context.Context, issuer string, config koreauth.Config, old *tenant) (*tenant, error) {
	if config.Issuer = cmp.Or(config.Issuer, issuer); config.Issuer != issuer {
		return nil, fmt.Errorf("tenants: Set.Resolve returned the Config of %.128q for the issuer %q", config.Issuer, issuer)
	}
	config = copied(config)
	t := &tenant{config: config}
	if old != nil && sameRules(&config, &old.config) && samePlace(&config, &old.config) {
		return old, nil
	}
	if _, err := koreauth.NewValidator(config); err != nil {
		return nil, err
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	var kept bool
	t.keys, kept = keysOf(&t.config, u, old)
	config.Keys, config.JWKSURL, config.HTTPClient, config.KeyFile, config.DangerouslyAllowHTTP = t.keys, "", nil, "", false
	if config.CacheSize == 0 {
		config.CacheSize = max(leastTokens, allTokens/s.most())
	}
	if t.validator, err = koreauth.NewValidator(config); err != nil {
		return nil, err
	}
	if old == nil || kept {
		return t, nil
	}
	return t, t.validator.Ready(ctx) // The old keys are used until there are new ones.
}

// end keeps the result of a resolution, and lets its callers go on.
func (s *Set) end(issuer string, c *call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.done)
	delete(s.calls, issuer)
	known := s.tenants[issuer]
	switch {
	case err == nil:
		if known == nil && len(s.tenants) >= s.most() {
			s.forgetOldest()
		}
		c.tenant.checked = clock.Now()
		if c.tenant != known {
			c.tenant.used.Store(time.Now().UnixNano())
			s.tenants[issuer] = c.tenant
		}
	case errors.Is(err, koreauth.ErrInvalidToken):
		delete(s.tenants, issuer)
		s.known.Forget(issuer)
		s.bad.Add(issuer, struct{}{}, badFor)
		c.tenant, c.err = nil, koreauth.ErrIssuer
	default:
		retryAfter := time.Duration(0)
		if found, ok := errors.AsType[*koreauth.Error](err); ok && found != nil {
			retryAfter = found.RetryAfter
		}
		c.tenant, c.err = nil, unavailable(err, retryAfter)
		if known != nil {
			known.checked = clock.Now() // It is kept, and looked at again in five minutes.
			break
		}
		s.failed.Add(issuer, struct{}{}, badFor)
	}
}

func (s *Set) isIdle(t *tenant, now time.Time) bool {
	return now.UnixNano()-t.used.Load() >= int64(s.idle())
}

// forget forgets a tenant, but not that it was one.
func (s *Set) forget(issuer string) {
	delete(s.tenants, issuer)
	s.known.Add(issuer, struct{}{}, knownFor)
}

// sweep forgets the tenants that were not used for Idle.
func (s *Set) sweep(now time.Time) {
	if now.Sub(s.swept) < s.idle()/2 {
		return
	}
	s.swept = now
	for issuer, t := range s.tenants {
		if s.isIdle(t, now) {
			s.forget(issuer)
		}
	}
}

// forgetOldest forgets the tenant that was used least recently.
func (s *Set) forgetOldest() {
	oldest := ""
	for issuer, t := range s.tenants {
		if oldest == "" || t.used.Load() < s.tenants[oldest].used.Load() {
			oldest = issuer
		}
	}
	s.forget(oldest)
}

func (s *Set) most() int { return cmp.Or(s.Max, defaultMax) }

func (s *Set) idle() time.Duration { return cmp.Or(s.Idle, defaultIdle) }

func unavailable(cause error, retryAfter time.Duration) *koreauth.Error {
	return &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: fmt.Errorf("%w: %w", koreauth.ErrUnavailable, cause), RetryAfter: retryAfter}
}
