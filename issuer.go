package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/explain"
	"github.com/koreauth/koreauth/internal/fetch"
	"github.com/koreauth/koreauth/internal/jwk"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/token68"
)

// issuer has the rules and the keys of one Config.
type issuer struct {
	name       string
	audience   []string
	keys       KeySet
	algorithms map[string]bool
	clients    []string
	leeway     time.Duration
	maxAge     time.Duration
	require    *allOf // nil: nothing
	expected   *explain.Want
	opaque     func(ctx context.Context, token string) (*Claims, error) // Validate of Config.Opaque, or nil
	remembers  bool                                                     // the tokens of the issuer are remembered
}

// binding says what to do with a token that is bound to a key of its sender.
type binding int

const (
	rejectBound binding = iota
	leaveBound          // leave them to a Sender that confirms the key
)

// verify verifies the signature of a token with the keys of the issuer. It sets
// t.verified and the key of t.content. unfit says why the token could not be valid
// even if its key were known, so that no key is fetched for it; nil: it could be.
func (i *issuer) verify(ctx context.Context, t *parsedToken, now clock.Instant, unfit error) error {
	need := fetchUnknown
	switch odd := t.content.claims.extra.oddIdentity; {
	case t.payloadErr != odd: // The payload is not JSON.
		need, unfit = cachedOnly, t.payloadErr
	case unfit != nil || odd != nil:
		need, unfit = fetchFirst, cmp.Or(unfit, odd)
	}
	keys, snap, err := i.lookup(ctx, now, t.header.Kid, need)
	if err == nil {
		err = t.tryKeys(keys)
		// The issuer may have replaced the key and kept its ID.
		if remote, ok := i.keys.(*RemoteKeySet); ok && snap != nil && need == fetchUnknown && (err == ErrSignature || err == ErrUnknownKey) {
			_, fetchErr := remote.fetchUntil(ctx, fetch.UnknownKey, snap, func(newer *snapshot) bool { return t.tryKeys(newer.mayHaveSigned(t.header.Kid)) == nil })
			if fetchErr == nil {
				err = nil
			}
		}
	}
	switch {
	case err == ErrUnknownKey && unfit != nil:
		return fmt.Errorf("%w: not fetched: the token would be rejected anyway: %s", ErrUnknownKey, withoutClass(unfit))
	case err != nil:
		return err
	case t.payloadErr != nil:
		return fmt.Errorf("%w: payload: %w", ErrMalformed, t.payloadErr)
	}
	return nil
}

// lookup returns the keys for a kid. If they are cached keys of a RemoteKeySet, it
// also returns their snapshot: newer ones may be fetched.
func (i *issuer) lookup(ctx context.Context, now clock.Instant, kid string, need fetchNeed) (keys []Key, cached *snapshot, err error) {
	remote, ok := i.keys.(*RemoteKeySet)
	if !ok {
		keys, err = callKeySet(ctx, i.keys, kid, need == fetchUnknown)
		if err != nil {
			err = keysError(err)
		}
		return keys, nil, err
	}
	snap, fetched, err := remote.lookup(ctx, now, need, func(snap *snapshot) bool { return len(snap.mayHaveSigned(kid)) > 0 })
	switch {
	case err == nil && fetched:
		return snap.mayHaveSigned(kid), nil, nil
	case err == nil:
		return snap.mayHaveSigned(kid), snap, nil
	case errors.Is(err, ErrUnknownKey) && snap != nil && snap.ignored.ByID[kid] != "":
		return nil, nil, fmt.Errorf("%w: the issuer publishes this key, but it cannot be used: %s", ErrUnknownKey, snap.ignored.ByID[kid])
	case errors.Is(err, ErrUnknownKey):
		return nil, nil, err
	}
	return nil, nil, keysError(err)
}

// callKeySet calls a custom KeySet, whose panic counts as an outage.
func callKeySet(ctx context.Context, set KeySet, kid string, fetch bool) (keys []Key, err error) {
	defer func() {
		if p := recover(); p != nil {
			keys, err = nil, fmt.Errorf("the KeySet panicked with a %T", p)
		}
	}()
	return set.Keys(ctx, kid, fetch)
}

// stillHasKey returns nil if the key that verified a remembered token is still one
// of the issuer's, and errKeyGone if it is not.
func (i *issuer) stillHasKey(ctx context.Context, t *verifiedToken, now clock.Instant) error {
	need := cachedOnly
	if i.fault(keyChecks, &t.claims, now.Time()) == nil {
		need = fetchUnknown
	}
	keys, _, err := i.lookup(ctx, now, t.header.Kid, need)
	if err != nil {
		return err
	}
	return t.verifiedWith(keys)
}

// cachesKey reports whether the key that verified a remembered token is cached and
// fresh at that moment, so that nothing need be fetched.
func (i *issuer) cachesKey(t *verifiedToken, now clock.Instant) bool {
	switch keys := i.keys.(type) {
	case *keyIndex:
		return true // Its keys never change.
	case *RemoteKeySet:
		snap := keys.fresh(now)
		if snap == nil {
			return false
		}
		if snap.id == t.keyIn.Load() {
			return true
		}
		if t.verifiedWith(snap.mayHaveSigned(t.header.Kid)) == nil {
			t.keyIn.Store(snap.id)
			return true
		}
	}
	return false
}

// keysError returns the rejection for an error of a KeySet.
func keysError(err error) *Error {
	if errors.Is(err, ErrUnknownKey) {
		return &Error{Class: ErrInvalidToken, Reason: err}
	}
	if found, _ := errors.AsType[*Error](err); found != nil && errors.Is(found, ErrUnavailable) {
		return &Error{Class: ErrUnavailable, Reason: err, RetryAfter: found.RetryAfter}
	}
	return unavailable(err, 0)
}

type claimCheck = func(i *issuer, c *Claims, now time.Time) error

// claimChecks are the checks of claims, in their order.
var claimChecks = []claimCheck{
	(*issuer).checkIssuer, (*issuer).checkAudience, (*issuer).checkExpiry, (*issuer).checkNotBefore,
	(*issuer).checkAge, (*issuer).checkType, (*issuer).checkClient,
}

// If one of keyChecks fails, no key is fetched for the token.
var keyChecks = claimChecks[:3]

// check checks the claims of a token whose signature was verified. New and
// remembered tokens get the same checks. now must be read after the keys were fetched.
func (i *issuer) check(r *http.Request, c *Claims, policy binding, now time.Time) error {
	if err := i.fault(claimChecks, c, now); err != nil {
		return err
	}
	return i.checkLast(r, c, policy)
}

// fault returns the error of the first check that fails, or nil.
func (i *issuer) fault(checks []claimCheck, c *Claims, now time.Time) error {
	for _, check := range checks {
		if err := check(i, c, now); err != nil {
			return err
		}
	}
	return nil
}

var (
	errFuture       = fmt.Errorf(`%w: "iat" is in the future: if a clock is wrong, set Config.Leeway`, ErrTooOld)
	errNoIssuedAt   = fmt.Errorf(`%w: "iat" is missing or not a number`, ErrTooOld)
	errOddNotBefore = fmt.Errorf(`%w: "nbf" is not a number`, ErrNotYetValid)
	errTokenType    = fmt.Errorf(`%w: payload "typ" is not Bearer`, ErrTokenType)
)

// checkLast makes the last checks, which opaque tokens get too.
func (i *issuer) checkLast(r *http.Request, c *Claims, policy binding) error {
	if err := checkBinding(c, policy); err != nil {
		return err
	}
	if i.require == nil {
		return nil
	}
	if err := i.require.check(r, c, c); err != nil {
		return asRefusal(err)
	}
	return nil
}

// validateOpaque validates a token that does not have three segments.
func (i *issuer) validateOpaque(ctx context.Context, r *http.Request, token string, policy binding) (*Claims, *Error) {
	if !token68.Valid(token) {
		return nil, newRefusal(errSegments)
	}
	claims, err := i.opaque(ctx, token)
	if err != nil {
		return nil, asRefusal(err)
	}
	if claims == nil {
		return nil, unavailable(errNoClaims, 0)
	}
	if err := i.checkLast(r, claims, policy); err != nil {
		return nil, annotate(newRefusal(err), claims, i.expected)
	}
	return claims, nil
}

var errNoClaims = errors.New("the TokenValidator returned neither claims nor an error")

// checkBinding rejects a token that is bound to a key which nothing can confirm.
func checkBinding(c *Claims, policy binding) error {
	bound := c.Confirmation
	switch {
	case bound == nil:
		return nil
	case bound.CertificateSHA256 == "" && bound.KeySHA256 == "":
		return errUnknownBinding
	case policy == rejectBound:
		return ErrBinding
	}
	return nil
}

var errUnknownBinding = fmt.Errorf(`%w: "cnf" must have "x5t#S256", "jkt" or both, and no other member`, ErrBinding)

func (i *issuer) checkIssuer(c *Claims, _ time.Time) error {
	if c.Issuer != i.name {
		return ErrIssuer
	}
	return nil
}

func (i *issuer) checkAudience(c *Claims, _ time.Time) error {
	if !slices.ContainsFunc(i.audience, func(a string) bool { return slices.Contains(c.Audience, a) }) {
		return ErrAudience
	}
	return nil
}

// checkExpiry rejects an expired token, and a token without "exp", which would
// never expire.
func (i *issuer) checkExpiry(c *Claims, now time.Time) error {
	if c.Expiry.IsZero() {
		return fmt.Errorf(`%w: "exp" is missing or not a number`, ErrExpired)
	}
	if !now.Before(c.Expiry.Add(i.leeway)) {
		return ErrExpired
	}
	return nil
}

func (i *issuer) checkNotBefore(c *Claims, now time.Time) error {
	switch {
	case c.extra.oddNotBefore:
		return errOddNotBefore
	case now.Before(c.NotBefore.Add(-i.leeway)):
		return ErrNotYetValid
	}
	return nil
}

func (i *issuer) checkAge(c *Claims, now time.Time) error {
	switch {
	case i.maxAge <= 0:
		return nil
	case now.Add(i.leeway).Before(c.IssuedAt):
		return errFuture
	case c.IssuedAt.IsZero():
		return errNoIssuedAt
	case !now.Before(c.IssuedAt.Add(i.maxAge).Add(i.leeway)):
		return ErrTooOld
	}
	return nil
}

func (i *issuer) checkType(c *Claims, _ time.Time) error {
	if !c.isAccessToken() {
		return errTokenType
	}
	return nil
}

func (i *issuer) checkClient(c *Claims, _ time.Time) error {
	if len(i.clients) > 0 && !slices.Contains(i.clients, c.ClientID) {
		return ErrClient
	}
	return nil
}

// status describes the keys of the issuer.
func (i *issuer) status() KeyStatus {
	var status KeyStatus
	switch keys := i.keys.(type) {
	case *RemoteKeySet:
		status = keys.status()
	case *keyIndex:
		for n, key := range keys.all {
			err := jws.CheckKey(key.Algorithm, key.Public)
			if err == nil {
				continue
			}
			if status.Ignored++; status.Ignored <= jwk.MaxKeys {
				status.Reasons = append(status.Reasons, fmt.Sprintf("%s: %v", jwk.NameOf(key.ID, n), err))
			}
		}
		status.Keys = len(keys.all) - status.Ignored
	}
	status.Issuer = i.name
	return status
}

// ready returns nil if the issuer has keys. It fetches them if there are none.
func (i *issuer) ready(ctx context.Context) error {
	keys, _, err := i.lookup(ctx, clock.Now(), "", fetchUnknown)
	switch {
	case err == nil && len(keys) == 0, errors.Is(err, ErrUnknownKey):
		return unavailable(errNoKeys, 0)
	case err != nil:
		return keysError(err)
	}
	return nil
}

var errNoKeys = errors.New("the key set has no keys")
