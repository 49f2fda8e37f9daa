package koreauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/jws"
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
	require    *allOf                                                   // nil: nothing
	opaque     func(ctx context.Context, token string) (*Claims, error) // Validate of Config.Opaque, or nil
	remembers  bool                                                     // the tokens of the issuer are remembered
}

// binding says what to do with a token that is bound to a key of its sender.
type binding int

const (
	rejectBound binding = iota
	leaveBound          // leave them to a Sender that confirms the key
)

// verify verifies the signature of a token with the keys of the issuer, which may
// be fetched if fetch is set. It sets t.verified and the key of t.content.
func (i *issuer) verify(ctx context.Context, t *parsedToken, fetch bool) error {
	keys, err := i.keys.Keys(ctx, t.header.kid, fetch && t.payloadErr == nil)
	if err != nil {
		return keysError(err)
	}
	matching := 0
	for k := range keys { // One "kid" may name several keys (RFC 7517 §4.5).
		if !t.header.accepts(&keys[k]) {
			continue
		}
		if matching++; !t.verified && t.header.algorithm.Verify(keys[k].Public, t.signed, t.signature) {
			t.verified, t.content.key = true, keys[k]
		}
	}
	switch {
	case matching > 1 && t.header.kid == "":
		t.verified = false
		return errSeveralKeys
	case matching == 0:
		return ErrUnknownKey
	case !t.verified:
		return ErrSignature
	}
	if t.payloadErr != nil {
		return fmt.Errorf("%w: payload: %w", ErrMalformed, t.payloadErr)
	}
	return nil
}

// stillHasKey returns nil if the key that verified a remembered token is still one
// of the issuer's, and errKeyGone if it is not.
func (i *issuer) stillHasKey(ctx context.Context, t *verifiedToken) error {
	keys, err := i.keys.Keys(ctx, t.header.kid, i.worthFetching(&t.claims))
	if err != nil {
		return keysError(err)
	}
	matching, found := 0, false
	for k := range keys {
		if t.header.accepts(&keys[k]) {
			matching++
			found = found || t.key.equal(&keys[k])
		}
	}
	switch {
	case matching > 1 && t.header.kid == "":
		return errSeveralKeys
	case !found:
		return errKeyGone
	}
	return nil
}

var (
	errSeveralKeys = fmt.Errorf(`%w: no "kid", and more than one key matches`, ErrUnknownKey)
	errKeyGone     = errors.New("koreauth: the key that verified a remembered token is gone")
)

// keysError returns the rejection for an error of a KeySet.
func keysError(err error) *Error {
	if errors.Is(err, ErrUnknownKey) {
		return &Error{Class: ErrInvalidToken, Reason: err}
	}
	var found *Error
	if errors.As(err, &found) && found != nil && errors.Is(found, ErrUnavailable) {
		return &Error{Class: ErrUnavailable, Reason: err, RetryAfter: found.RetryAfter}
	}
	return unavailable(err, 0)
}

// worthFetching reports whether a token would be valid if its key were known. Only
// then may it cause a fetch.
func (i *issuer) worthFetching(c *Claims) bool {
	return i.checkIssuer(c) == nil && i.checkExpiry(c, time.Now()) == nil
}

// check checks the claims of a token whose signature was verified. New and
// remembered tokens get the same checks.
func (i *issuer) check(r *http.Request, c *Claims, policy binding) error {
	now := time.Now() // not earlier: fetching the keys may have taken time
	if err := i.checkIssuer(c); err != nil {
		return err
	}
	if err := i.checkExpiry(c, now); err != nil {
		return err
	}
	switch {
	case c.extra.oddNotBefore || now.Before(c.NotBefore.Add(-i.leeway)):
		return ErrNotYetValid
	case i.maxAge > 0 && (c.IssuedAt.IsZero() || now.Add(i.leeway).Before(c.IssuedAt) || !now.Before(c.IssuedAt.Add(i.maxAge).Add(i.leeway))):
		return ErrTooOld
	// Keycloak signs ID and refresh tokens with the same keys as access tokens.
	case c.extra.hasType && c.extra.typ != "Bearer":
		return fmt.Errorf(`%w: payload "typ" is not Bearer`, ErrTokenType)
	case len(i.clients) > 0 && !slices.Contains(i.clients, c.ClientID):
		return ErrClient
	}
	return i.checkLast(r, c, policy)
}

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
func (i *issuer) validateOpaque(ctx context.Context, r *http.Request, token string, policy binding) (*Claims, error) {
	if !isToken68(token) {
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
		return nil, annotate(newRefusal(err), claims)
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

func (i *issuer) checkIssuer(c *Claims) error {
	if c.Issuer != i.name {
		return ErrIssuer
	}
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
			if status.Ignored++; status.Ignored <= maxReasons {
				status.Reasons = append(status.Reasons, fmt.Sprintf("%s: %v", nameOf(key, n), err))
			}
		}
		status.Keys = len(keys.all) - status.Ignored
	}
	status.Issuer = i.name
	return status
}

// ready returns nil if the issuer has keys. It fetches them if there are none.
func (i *issuer) ready(ctx context.Context) error {
	keys, err := i.keys.Keys(ctx, "", true)
	switch {
	case err == nil && len(keys) == 0, errors.Is(err, ErrUnknownKey):
		return unavailable(errNoKeys, 0)
	case err != nil:
		return keysError(err)
	}
	return nil
}

var errNoKeys = errors.New("the key set has no keys")
