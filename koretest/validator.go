package koretest

import (
	"context"
	"errors"

	"github.com/koreauth/koreauth"
)

// Validator is a [koreauth.TokenValidator] that looks at no token: it answers
// every one with Claims, or with Err. Handlers, and routes behind
// requirements, are tested with it without an issuer and without crypto:
//
//	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Scopes: []string{"sims:read"}}}, nil)
//
// The middleware still wants a token in the request, any b64token will do, and
// still checks requirements. Claims that are past their Expiry are not refused.
type Validator struct {
	// Claims are the answer where Err is nil. They must not be changed while
	// the Validator is in use.
	Claims *koreauth.Claims
	// Err, if not nil, is the answer, whatever Claims are. Errors such as
	// koreauth.ErrExpired are answered as a real validator's would be; an error
	// of no class counts as koreauth.ErrUnavailable.
	Err error
}

// Validate returns Err or, where that is nil, a copy of Claims. A Validator with
// neither returns an error that says so.
func (v Validator) Validate(ctx context.Context, _ string) (*koreauth.Claims, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	if v.Claims == nil {
		return nil, errors.New("koretest: this Validator has neither Claims nor Err to answer with")
	}
	// The caller's own, slices included, as a TokenValidator promises.
	claims, _ := koreauth.FromContext(koreauth.NewContext(ctx, v.Claims))
	return claims, nil
}
