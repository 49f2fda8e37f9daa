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
	door.Require = func(v *Validator, c *Claims) error { return v.issuerOf(c).checkLast(nil, c, leaveBound) }
	door.Clone = (*Claims).clone
	door.VerifySignature = verifySignature
	door.VerifyJWS = verifyJWS
}

// verifySignature implements door.VerifySignature.
func verifySignature(ctx context.Context, v *Validator, token string) (*Claims, error) {
	t, err := parseJWS(token)
	if err != nil {
		return nil, t.refusal(err)
	}
	claims := &t.content.claims
	t.payloadErr = claims.decode(&t.content.payload)
	i := v.byName[claims.Issuer]
	switch {
	case i == nil:
		err = ErrIssuer
	case !i.algorithms[t.header.Alg]:
		err = ErrAlgorithm
	default:
		now := clock.Now()
		err = i.verify(ctx, t, now, i.checkExpiry(claims, now.Time()))
	}
	if err == nil {
		err = i.checkExpiry(claims, time.Now())
	}
	if err != nil {
		return nil, t.refusal(err)
	}
	return claims, nil
}

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
	if len(text) > maxToken {
		return t, errTooLarge
	}
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
