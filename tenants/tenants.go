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
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/limit"
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
	maxRunning     = 64 // calls of Resolve
)

// Set is a koreauth.TokenValidator for the issuers that a template describes. Set its
// fields before its first use and do not change them afterwards. It is safe for concurrent
// use by multiple goroutines, and there is nothing to close.
//
// A new issuer is resolved at most 10 times a second after a burst of 20, whatever arrives:
// anyone can invent issuers. Tenants that are known are not affected.
type Set struct {
	// Match is the template of the accepted issuers, such as
	// "https://id.example.com/realms/{tenant}". {tenant} stands for one label of the host or
	// one segment of the path, of up to 63 lower-case letters, digits and hyphens. All else
	// is compared exactly.
	Match string
	// Resolve returns the Config of an issuer that Match accepts and whose token was not
	// verified yet: the issuer is what somebody sent. An error under
	// koreauth.ErrInvalidToken, such as koreauth.ErrIssuer, means that there is no such
	// tenant, which is remembered for a minute. Any other error is ErrUnavailable. It has
	// five seconds. It is called again every five minutes for a tenant in use: one that is
	// gone then is forgotten, and a Config that differs replaces the old one.
	//
	// Issuer may be left empty. If CacheSize is zero, the tenants share 10,000 tokens. If
	// HTTPClient is nil, connections are made to public addresses of the issuer's host only,
	// checked when they are made, and redirects are not followed.
	Resolve func(ctx context.Context, issuer string) (koreauth.Config, error)
	// Max is how many tenants are kept. For another one, the one that was used least
	// recently is forgotten. Zero means 1,000.
	Max int
	// Idle is after how long without a token a tenant is forgotten. Zero means an hour.
	Idle time.Duration

	once   sync.Once
	match  *template
	faults error

	mu      sync.RWMutex // guards the fields below
	tenants map[string]*tenant
	calls   map[string]*call
	bad     limit.Recent[string, struct{}] // issuers that are no tenants
	running int                            // calls of Resolve that have not returned
	rate    limit.Rate                     // of resolutions of new issuers
	swept   time.Time                      // when idle tenants were looked for
}

// tenant is one issuer.
type tenant struct {
	config    koreauth.Config
	validator *koreauth.Validator
	used      atomic.Int64 // when it was used last, in nanoseconds since 1970
	checked   time.Time    // when it was resolved; guarded by Set.mu
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
		s.tenants, s.calls = make(map[string]*tenant), make(map[string]*call)
		s.bad.Max, s.rate = maxBad, limit.Rate{Interval: resolveEvery, Burst: resolveBurst}
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

func init() {
	door.AddShared(func(validator any) any {
		if s, ok := validator.(*Set); ok {
			return s.shared
		}
		return nil
	})
}

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
	text, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil || strings.ContainsAny(payload, "\r\n") {
		return "", malformed("not base64url without padding")
	}
	issuer, err := strictjson.Text(string(text), "iss")
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
	due := t != nil && now.Sub(t.checked) >= checkEvery || now.Sub(s.swept) >= s.idle()/2
	s.mu.RUnlock()
	if t != nil && !due {
		t.used.Store(now.UnixNano())
		return t, nil
	}
	s.mu.Lock()
	s.sweep(now)
	if t = s.tenants[issuer]; t != nil {
		t.used.Store(now.UnixNano())
		if now.Sub(t.checked) >= checkEvery {
			s.begin(issuer, t) // It ends in the background.
		}
		s.mu.Unlock()
		return t, nil
	}
	c, err := s.join(issuer)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.tenant, c.err
	case <-ctx.Done():
		return nil, unavailable(context.Cause(ctx), 0)
	}
}

var errBusy = errors.New("too many new issuers: at most 10 are resolved in a second")

// join returns the current resolution of an issuer, or begins one.
func (s *Set) join(issuer string) (*call, error) {
	if _, bad := s.bad.Find(issuer); bad {
		return nil, koreauth.ErrIssuer
	}
	if c := s.calls[issuer]; c != nil {
		return c, nil
	}
	if s.running >= maxRunning || !s.rate.Take() {
		return nil, unavailable(errBusy, time.Second)
	}
	return s.begin(issuer, nil), nil
}

// begin resolves an issuer in a goroutine of its own. old is its tenant, or nil.
func (s *Set) begin(issuer string, old *tenant) *call {
	if c := s.calls[issuer]; c != nil {
		return c
	}
	c := &call{done: make(chan struct{})}
	s.calls[issuer] = c
	s.running++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
		defer cancel()
		config, err := bounded.Call(ctx, func(ctx context.Context) (koreauth.Config, error) {
			defer s.returned() // also if that is later than ctx
			return s.Resolve(ctx, issuer)
		})
		if err == nil {
			c.tenant, err = s.build(issuer, config, old)
		}
		s.end(issuer, c, err)
	}()
	return c
}

func (s *Set) returned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// build returns the tenant with that Config: the old one if it has the same.
func (s *Set) build(issuer string, config koreauth.Config, old *tenant) (*tenant, error) {
	if old != nil && reflect.DeepEqual(config, old.config) {
		return old, nil
	}
	t := &tenant{config: config}
	if config.Issuer = cmp.Or(config.Issuer, issuer); config.Issuer != issuer {
		return nil, fmt.Errorf("tenants: Set.Resolve returned the Config of %.128q for the issuer %q", config.Issuer, issuer)
	}
	if config.CacheSize == 0 {
		config.CacheSize = max(leastTokens, allTokens/s.most())
	}
	if config.HTTPClient == nil && config.Keys == nil {
		u, err := url.Parse(issuer)
		if err != nil {
			return nil, err
		}
		config.HTTPClient = newClient(u.Host)
	}
	var err error
	t.validator, err = koreauth.NewValidator(config)
	return t, err
}

// end keeps the result of a resolution, and lets its callers go on.
func (s *Set) end(issuer string, c *call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.done)
	delete(s.calls, issuer)
	now := time.Now()
	known := s.tenants[issuer]
	switch {
	case err == nil:
		if known == nil && len(s.tenants) >= s.most() {
			s.forgetOldest()
		}
		c.tenant.checked = now
		if c.tenant != known {
			c.tenant.used.Store(now.UnixNano())
			s.tenants[issuer] = c.tenant
		}
	case errors.Is(err, koreauth.ErrInvalidToken):
		delete(s.tenants, issuer)
		s.bad.Add(issuer, struct{}{}, badFor)
		c.tenant, c.err = nil, koreauth.ErrIssuer
	default:
		if known != nil {
			known.checked = now // It is kept, and looked at again in five minutes.
		}
		c.tenant, c.err = nil, unavailable(err, 0)
	}
}

// sweep forgets the tenants that were not used for Idle.
func (s *Set) sweep(now time.Time) {
	if now.Sub(s.swept) < s.idle()/2 {
		return
	}
	s.swept = now
	for issuer, t := range s.tenants {
		if now.UnixNano()-t.used.Load() >= int64(s.idle()) {
			delete(s.tenants, issuer)
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
	delete(s.tenants, oldest)
}

func (s *Set) most() int { return cmp.Or(s.Max, defaultMax) }

func (s *Set) idle() time.Duration { return cmp.Or(s.Idle, defaultIdle) }

func unavailable(cause error, retryAfter time.Duration) *koreauth.Error {
	return &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: fmt.Errorf("%w: %w", koreauth.ErrUnavailable, cause), RetryAfter: retryAfter}
}
