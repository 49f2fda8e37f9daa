package koreauth

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/jws"
)

// init sets the functions that the other packages of this module use.
func init() {
	door.Validate = func(ctx context.Context, v *Validator, r *http.Request, token string) (*Claims, error) {
		claims, _, refusal := v.validate(ctx, r, token, leaveBound)
		if refusal != nil {
			return nil, refusal
		}
		return claims, nil
	}
	door.Judge = func(name string, audience, clients []string, leeway time.Duration) func(*Claims, time.Time) error {
		i := &issuer{name: name, audience: audience, clients: clients, leeway: leeway}
		return func(c *Claims, now time.Time) error { return i.fault(claimChecks, c, now) }
	}
	door.Require = func(v *Validator, c *Claims) error {
		i := v.issuerOf(c)
		if err := i.fault(claimChecks[4:], c, time.Now()); err != nil {
			return err
		}
		return i.checkLast(nil, c, leaveBound)
	}
	door.Clone, door.Size = (*Claims).clone, claimBytes
	door.VerifySignature = verifySignature
	door.VerifyJWS = verifyJWS
}

// verifySignature implements door.VerifySignature.
func verifySignature(ctx context.Context, v *Validator, token string) (*Claims, error) {
	if cached, ok := v.tokens.Find(token); ok {
		i, now := v.issuerOf(&cached.claims), clock.Now()
		if i.cachesKey(cached, now) && i.fault(signedChecks, &cached.claims, now.Time()) == nil {
			return &cached.claims, nil
		}
	}
	t := parsedTokens.Get().(*parsedToken)
	defer t.release()
	var i *issuer
	err := t.split(token)
	if err == nil {
		i, err = v.verify(ctx, t, signedChecks)
	}
	if err == nil {
		err = i.fault(signedChecks, &t.content.claims, time.Now())
	}
	if err != nil {
		return nil, t.refusal(err)
	}
	v.remember(t, i)
	return &t.content.claims, nil
}

var signedChecks = []claimCheck{(*issuer).checkIssuer, (*issuer).checkExpiry, (*issuer).checkNotBefore, (*issuer).checkType}

// verifyJWS implements door.VerifyJWS.
func verifyJWS(ctx context.Context, keys KeySet, algorithms []string, text string) (typ, payload string, err error) {
	t, err := parseJWS(text)
	if err == nil && !slices.Contains(algorithms, t.header.Alg) {
		err = ErrAlgorithm
	}
	if err == nil {
		err = (&issuer{keys: keys}).verify(ctx, t, clock.Now(), nil)
	}
	if err != nil {
		return "", "", t.refusal(err)
	}
	return t.header.Typ, t.content.payload, nil
}

// parseJWS splits and decodes a compact JWS and parses its header.
func parseJWS(text string) (*parsedToken, error) {
	t := new(parsedToken)
	if err := t.split(text); err != nil {
		return t, err
	}
	header, err := t.decode()
	if err == nil {
		t.header, err = jws.ReadHeader(header)
		if err = cmp.Or(err, t.header.Check()); err != nil {
			err = malformed(err)
		}
	}
	return t, err
}
