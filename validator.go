package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/explain"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/memory"
)

// TokenValidator validates a token. [Validator] implements it. Implement it
// yourself to accept tokens of another kind, or as a fake in tests.
type TokenValidator interface {
	// Validate returns the claims of a valid token, which then belong to the
	// caller, or an error of one of the classes. An error of no class, and a result
	// with neither claims nor an error, count as ErrUnavailable. A token whose
	// claims have a Confirmation is rejected unless [Options].Sender confirms it.
	Validate(ctx context.Context, token string) (*Claims, error)
}

// sharedValidate returns a function that validates as v does, but whose claims may be
// shared, so that they must not be changed. It returns nil if v is nil or a nil pointer.
func sharedValidate(v TokenValidator) func(context.Context, string) (*Claims, error) {
	if p := reflect.ValueOf(v); v == nil || p.Kind() == reflect.Pointer && p.IsNil() {
		return nil
	}
	if validate, ok := door.Shared(v).(func(context.Context, string) (*Claims, error)); ok {
		return validate
	}
	return v.Validate
}

// Config says which tokens of one issuer are valid. Issuer and Audience are
// required. The zero value of each other field selects the default, which is the
// strict choice.
type Config struct {
	// Issuer is the exact value of "iss". Unless JWKSURL or Keys is set, it must be
	// an https URL, from which the keys are discovered.
	Issuer string
	// Audience lists the accepted "aud" values. A token must have at least one of
	// them. Use a name of your API, not of a client: ID tokens often have the
	// client as their audience, and may have no other claim that distinguishes them
	// from access tokens.
	Audience []string
	// JWKSURL is the URL of the issuer's keys. If JWKSURL is empty, it is discovered
	// from Issuer (OpenID Connect Discovery 1.0 §4, else RFC 8414 §3).
	JWKSURL string
	// Keys are the issuer's keys. Leave JWKSURL and HTTPClient empty if Keys is
	// set. Use a [RemoteKeySet] to change how keys are fetched. If Keys is nil, the
	// keys are fetched.
	Keys KeySet
	// Algorithms lists the accepted "alg" values (RFC 7518 §3.1, RFC 8037 §3.1, RFC
	// 9864 §2.2): RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512,
	// EdDSA and Ed25519. If Algorithms is empty, only RS256 is accepted.
	Algorithms []string
	// ClientIDs lists the clients whose tokens are accepted. If ClientIDs is empty,
	// the tokens of all clients are accepted.
	ClientIDs []string
	// Leeway is the allowed clock skew. Zero means none.
	Leeway time.Duration
	// MaxAge is the maximum age of a token, counted from "iat", even if "exp" is
	// later. A token without "iat" is then rejected. Zero means no limit.
	MaxAge time.Duration
	// Require lists requirements for every token, for example that it was not
	// revoked. They are checked last, in Validate too, for new and for remembered
	// tokens. The requirements get the shared claims, and must not change them.
	Require []Requirement
	// Opaque validates tokens that do not have three segments. Config.Require
	// applies to them too. If Opaque is nil, they are rejected with ErrMalformed.
	// Only one of several Configs may have it.
	Opaque TokenValidator
	// CacheSize is how many valid tokens are remembered, by their SHA-256, so that
	// their signatures are not verified again. A token is remembered when it arrives
	// for the second time. All other checks are made each time.
	// An entry has up to 4 KiB; a larger token counts as several. Zero means 10,000,
	// which takes at most 40 MB. If CacheSize is negative, no token is remembered.
	// Several Configs share one memory, which has the sum of their sizes.
	CacheSize int
	// KeyFile is where the fetched keys are kept on disk, for a start during an outage: see
	// [RemoteKeySet].File. If KeyFile is empty, they are not kept.
	KeyFile string
	// HTTPClient fetches the keys. If HTTPClient is nil, a client on
	// http.DefaultTransport is used.
	HTTPClient *http.Client
	// DangerouslyAllowHTTP allows fetching keys over http from any host. Anyone on
	// the network path can then forge tokens. It is not used if Keys is set: a
	// [RemoteKeySet] has its own.
	DangerouslyAllowHTTP bool
	// Logger gets a warning for each background refresh of the keys that fails. If
	// Logger is nil, nothing is logged. It is not used if Keys is set: a
	// [RemoteKeySet] has its own. [Options].Logger gets the rejected requests.
	Logger *slog.Logger
}

// Validator validates the tokens of one or more issuers. Create one with
// [NewValidator]. The zero Validator accepts no token. A Validator is safe for
// concurrent use by multiple goroutines.
type Validator struct {
	issuers    []*issuer
	only       *issuer                        // the one issuer, or nil if there are several
	byName     map[string]*issuer             // by "iss"
	opaque     *issuer                        // the one with Config.Opaque, or nil
	algorithms map[string]bool                // those that any issuer accepts
	expected   *explain.Want                  // by the issuers together
	tokens     *memory.Tokens[*verifiedToken] // nil: none are remembered
	headers    memory.Headers[*jws.Header]
}

const (
	cacheSize  = 10_000 // the default of Config.CacheSize
	maxHeaders = 64     // headers to remember of an issuer, which uses one for each key
)

// NewValidator returns a validator for the tokens that the Configs describe. Each
// Config is one issuer, selected by the exact "iss" of a token; issuers share only
// the memory of verified tokens. A token of another issuer is rejected with
// [ErrIssuer], without a fetch.
//
// The error lists all faults of the Configs, joined. NewValidator makes no request:
// keys are fetched for the first token, or by [Validator.Ready].
func NewValidator(configs ...Config) (*Validator, error) {
	v := &Validator{byName: make(map[string]*issuer), algorithms: make(map[string]bool)}
	var faults []error
	if len(configs) == 0 {
		faults = append(faults, errors.New("koreauth: NewValidator needs a Config: give it one for each issuer"))
	}
	size := uint64(0)
	for n := range configs {
		c := &configs[n]
		i, wrong := c.issuer()
		if v.byName[i.name] != nil && i.name != "" {
			wrong = append(wrong, errors.New("Config.Issuer is that of another Config: merge the two"))
		}
		if slices.ContainsFunc(v.issuers, func(other *issuer) bool { return sharesFile(i.keys, other.keys) }) {
			wrong = append(wrong, errors.New("Config.KeyFile is that of another Config: use a file for each issuer"))
		}
		if i.opaque != nil && v.opaque != nil {
			wrong = append(wrong, errors.New("Config.Opaque is set in another Config too: set it in one"))
		}
		for _, err := range wrong {
			if len(configs) > 1 {
				err = fmt.Errorf("Config %d of %d: %w", n+1, len(configs), err)
			}
			faults = append(faults, fmt.Errorf("koreauth: %w", err))
		}
		v.issuers = append(v.issuers, i)
		v.byName[i.name] = i
		if i.opaque != nil {
			v.opaque = i
		}
		for name := range i.algorithms {
			v.algorithms[name] = true
		}
		if i.remembers {
			size += min(uint64(cmp.Or(c.CacheSize, cacheSize)), math.MaxUint64-size) // without overflow
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	v.expected = v.issuers[0].expected
	if len(v.issuers) == 1 {
		v.only = v.issuers[0]
	} else {
		v.expected = &explain.Want{Algorithms: slices.Sorted(maps.Keys(v.algorithms))}
		for _, i := range v.issuers {
			v.expected.Issuers = append(v.expected.Issuers, i.name)
		}
	}
	v.tokens = memory.NewTokens(size, (*verifiedToken).bytes)
	v.headers.Max = maxHeaders * len(v.issuers)
	return v, nil
}

// issuer returns the issuer that the Config describes, and the faults of the
// Config.
func (c *Config) issuer() (*issuer, []error) {
	i := &issuer{
		name:       c.Issuer,
		audience:   slices.Clone(c.Audience),
		algorithms: make(map[string]bool),
		clients:    slices.Clone(c.ClientIDs),
		leeway:     c.Leeway,
		maxAge:     c.MaxAge,
		remembers:  c.CacheSize >= 0,
	}
	var faults faultList
	faults.add(c.Issuer == "", `Config.Issuer is empty: set it to the "iss" of your tokens, such as https://keycloak.example.com/realms/KORE-CIDP`)
	faults.add(len(c.Audience) == 0, `Config.Audience is empty: set it to the "aud" that tokens for this API have, such as api-gw`)
	faults.add(slices.Contains(c.Audience, ""), "Config.Audience has an empty name: remove it")
	faults.add(slices.Contains(c.ClientIDs, ""), "Config.ClientIDs has an empty name: remove it; leave ClientIDs empty to accept any client")
	faults.add(c.Leeway < 0, "Config.Leeway is negative: set it to zero or more")
	faults.add(c.MaxAge < 0, "Config.MaxAge is negative: set it to zero, for no limit, or more")
	faults.add(slices.ContainsFunc(c.Require, isNil), "Config.Require has a nil Requirement: remove it")
	i.opaque = sharedValidate(c.Opaque)
	faults.add(c.Opaque != nil && i.opaque == nil, "Config.Opaque is a nil *Validator, or another nil pointer: leave it empty to reject opaque tokens")
	names := c.Algorithms
	if len(names) == 0 {
		names = []string{"RS256"}
	}
	for _, name := range names {
		_, known := jws.Lookup(name)
		faults.add(!known, "Config.Algorithms has %q, which no public key can verify: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA or Ed25519", name)
		i.algorithms[name] = true
	}
	i.expected = &explain.Want{Issuers: []string{i.name}, Audience: i.audience, Algorithms: slices.Sorted(maps.Keys(i.algorithms)), Clients: i.clients, Leeway: i.leeway, MaxAge: i.maxAge}
	if len(c.Require) > 0 {
		i.require = &allOf{group{slices.Clone(c.Require)}}
	}
	i.keys = c.keySet(&faults)
	return i, faults
}

// faultList collects the faults of a Config.
type faultList []error

func (f *faultList) add(found bool, format string, args ...any) {
	if found {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

// keySet returns the KeySet that the Config describes, and adds its faults.
func (c *Config) keySet(faults *faultList) KeySet {
	faults.add(c.Keys != nil && c.JWKSURL != "", "Config has Keys and JWKSURL: set one of them")
	faults.add(c.Keys != nil && c.HTTPClient != nil, "Config has Keys and HTTPClient: give the client to the key set (RemoteKeySet.HTTPClient)")
	faults.add(c.Keys != nil && c.KeyFile != "", "Config has Keys and KeyFile: give the file to the key set (RemoteKeySet.File)")
	switch keys := c.Keys.(type) {
	case nil:
		if c.Issuer == "" && c.JWKSURL == "" {
			return nil // The missing Issuer has been reported.
		}
		remote := &RemoteKeySet{
			URL: c.JWKSURL, Issuer: c.Issuer, HTTPClient: c.HTTPClient, File: c.KeyFile,
			DangerouslyAllowHTTP: c.DangerouslyAllowHTTP, Logger: c.Logger,
		}
		*faults = append(*faults, remote.faults()...)
		return remote
	case *RemoteKeySet:
		if keys == nil {
			faults.add(true, "Config.Keys is a nil *RemoteKeySet: make one with &RemoteKeySet{URL: …}")
			return nil
		}
		*faults = append(*faults, keys.faults()...)
		return keys
	case StaticKeySet:
		faults.add(len(keys) == 0, "Config.Keys is an empty StaticKeySet: give it the issuer's keys, for example from ParseKeys")
		for i, key := range keys {
			faults.add(key.Public == nil, "Config.Keys: key %d has no Public", i)
		}
		index := newKeyIndex(keys)
		return &index
	default:
		return keys
	}
}

// Ready returns nil if at least one issuer has keys. It fetches the keys of all
// issuers that have none, at the same time. Call it at start-up to fetch the keys before the
// first request, and as a readiness probe: in an outage it returns nil as long as
// cached keys are used. The error is ErrUnavailable.
func (v *Validator) Ready(ctx context.Context) error {
	switch {
	case len(v.issuers) == 0:
		return unavailable(errZeroValidator, 0)
	case v.only != nil:
		return v.only.ready(ctx)
	}
	failed := bounded.First(ctx, 30*time.Second, v.issuers, (*issuer).ready)
	if failed == nil {
		return nil
	}
	retryAfter := time.Duration(0)
	for n, err := range failed {
		failed[n] = fmt.Errorf("%s: %w", v.issuers[n].name, err)
		if refusal, ok := errors.AsType[*Error](err); ok && refusal.RetryAfter > 0 && (retryAfter == 0 || refusal.RetryAfter < retryAfter) {
			retryAfter = refusal.RetryAfter
		}
	}
	return unavailable(errors.Join(failed...), retryAfter)
}

var errZeroValidator = errors.New("the Validator was not created with NewValidator")

// Status describes the keys of each issuer, in the order of the Configs. It fetches
// nothing and takes no lock.
func (v *Validator) Status() []KeyStatus {
	all := make([]KeyStatus, len(v.issuers))
	for n, i := range v.issuers {
		all[n] = i.status()
	}
	return all
}

// Validate returns the claims of a valid token, which belong to the caller. The
// error is an [*Error]: of class [ErrInvalidToken] with one of the reasons, of class
// [ErrUnavailable], or of the class that a requirement of [Config].Require
// returned. Validate rejects every token that is bound to a key of its sender
// ([ErrBinding]), because it cannot see the sender.
func (v *Validator) Validate(ctx context.Context, token string) (*Claims, error) {
	claims, _, refusal := v.validate(ctx, nil, token, rejectBound)
	if refusal != nil {
		return nil, refusal
	}
	return claims.clone(), nil
}

// validate is Validate without the copy: its claims are shared and must not be
// changed. It also reports whether the token was remembered.
func (v *Validator) validate(ctx context.Context, r *http.Request, token string, policy binding) (claims *Claims, remembered bool, refusal *Error) {
	if len(v.issuers) == 0 {
		return nil, false, unavailable(errZeroValidator, 0)
	}
	if cached, ok := v.tokens.Find(token); ok {
		err := v.validateRemembered(ctx, r, cached, policy)
		if err == nil {
			return &cached.claims, true, nil
		}
		if errors.Is(err, ErrExpired) || errors.Is(err, ErrUnknownKey) || err == errKeyGone {
			v.tokens.Forget(token)
		}
		if err != errKeyGone {
			return nil, false, annotate(newRefusal(err), &cached.claims, v.issuerOf(&cached.claims).expected)
		}
	}
	t := parsedTokens.Get().(*parsedToken)
	defer t.release()
	if err := t.split(token); err != nil {
		if err == errSegments && v.opaque != nil {
			claims, refusal := v.opaque.validateOpaque(ctx, r, token, policy)
			return claims, false, refusal
		}
		return nil, false, t.refusal(err)
	}
	if ctx.Err() != nil {
		return nil, false, unavailable(context.Cause(ctx), 0)
	}
	if err := v.validateNew(ctx, r, t, policy); err != nil {
		return nil, false, t.refusal(err)
	}
	return &t.content.claims, false, nil
}

// validateRemembered checks a token whose signature was verified before. It returns
// errKeyGone if the issuer no longer has the key.
func (v *Validator) validateRemembered(ctx context.Context, r *http.Request, t *verifiedToken, policy binding) error {
	if ctx.Err() != nil {
		return unavailable(context.Cause(ctx), 0)
	}
	i, now := v.issuerOf(&t.claims), clock.Now()
	if !i.cachesKey(t, now) {
		if err := i.stillHasKey(ctx, t, now); err != nil {
			return err
		}
		now = clock.Now() // Fetching the keys may have taken time.
	}
	return i.check(r, &t.claims, policy, now.Time())
}

// validateNew checks a token that is not remembered, and remembers it if it is
// valid. Claims become trusted here and in verifySignature alone.
func (v *Validator) validateNew(ctx context.Context, r *http.Request, t *parsedToken, policy binding) error {
	i, err := v.verify(ctx, t, keyChecks)
	if err != nil {
		return err
	}
	if err := i.check(r, &t.content.claims, policy, time.Now()); err != nil {
		return err
	}
	v.remember(t, i)
	return nil
}

// verify verifies the signature of a token with the keys of its issuer, which it returns.
// If one of the checks fails, no key is fetched.
func (v *Validator) verify(ctx context.Context, t *parsedToken, checks []claimCheck) (*issuer, error) {
	header, known := v.headers.Find(t.encodedHeader)
	t.header, t.expected = header, v.expected
	headerText, err := t.decode()
	if err != nil {
		return nil, err
	}
	if !known {
		if err := v.parseHeader(t, headerText); err != nil {
			return nil, err
		}
	}
	claims := &t.content.claims
	t.payloadErr = claims.decode(&t.content.payload)
	claims.extra.kid = t.header.Kid
	i := v.issuerOf(claims)
	if v.only == nil { // With one issuer, "iss" is checked after the signature.
		switch {
		case t.payloadErr != nil:
			return nil, fmt.Errorf("%w: payload: %w", ErrMalformed, t.payloadErr)
		case i == nil:
			return nil, ErrIssuer
		case !i.algorithms[t.header.Alg]:
			t.expected = i.expected
			return nil, ErrAlgorithm
		}
	}
	t.expected = i.expected
	now := clock.Now()
	return i, i.verify(ctx, t, now, i.fault(checks, claims, now.Time()))
}

// remember remembers a token whose signature was verified, and its header.
func (v *Validator) remember(t *parsedToken, i *issuer) {
	v.headers.Add(t.encodedHeader, t.header)
	if i.remembers {
		t.content.header = t.header
		v.tokens.Add(t.whole, t.content)
	}
}

// parseHeader reads the header, and checks what does not depend on the issuer.
func (v *Validator) parseHeader(t *parsedToken, text string) (err error) {
	if t.header, err = jws.ReadHeader(text); err != nil {
		return malformed(err)
	}
	if !v.algorithms[t.header.Alg] {
		return ErrAlgorithm
	}
	return checkHeader(t.header)
}

// issuerOf returns the issuer whose keys and rules apply to the claims, or nil.
func (v *Validator) issuerOf(c *Claims) *issuer {
	if v.only != nil {
		return v.only
	}
	return v.byName[c.Issuer]
}
