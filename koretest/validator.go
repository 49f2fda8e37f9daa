package koretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/koreauth/koreauth"
)

// Validator is a fake [koreauth.TokenValidator]: it verifies nothing. If Claims is
// set, it accepts every token. If Tokens is set, it accepts those tokens and
// rejects all others. If Err is set, it rejects every token. With it, handlers
// and requirements can be tested without an issuer:
//
//	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Products: []string{"SuperSIM"}}}, nil)
//
// The request must still carry a token, such as "Authorization: Bearer any", and
// the middleware still checks requirements. Claims whose Expiry has passed are
// accepted.
//
// Do not change a field, or what it points to, while the Validator is in use.
type Validator struct {
	// Claims are returned for every token, if Err and Tokens are nil.
	Claims *koreauth.Claims
	// Tokens maps each accepted token to its claims. If Tokens is not nil, even if
	// it is empty, a token that is not in it is rejected with
	// [koreauth.ErrSignature], and Claims is ignored. If the claims of a token
	// are nil, Validate returns an error that says so.
	Tokens map[string]*koreauth.Claims
	// Err, if not nil, is returned for every token, and the other fields are
	// ignored. An error of koreauth, such as [koreauth.ErrExpired], gets the same
	// response as in production. Any other error counts as
	// [koreauth.ErrUnavailable].
	Err error
}

// Validate returns Err, or a copy of the claims for the token. If no field is
// set, it returns an error that says so.
func (v Validator) Validate(ctx context.Context, token string) (*koreauth.Claims, error) {
	claims, err := v.claims(token)
	if err != nil {
		return nil, err
	}
	// FromContext copies the claims, as TokenValidator requires.
	claims, _ = koreauth.FromContext(koreauth.NewContext(ctx, claims))
	return claims, nil
}

// claims returns the claims for the token without copying them.
func (v Validator) claims(token string) (*koreauth.Claims, error) {
	switch {
	case v.Err != nil:
		return nil, v.Err
	case v.Tokens != nil:
		claims, ok := v.Tokens[token]
		if !ok {
			return nil, koreauth.ErrSignature
		}
		if claims == nil {
			return nil, errors.New("koretest: Validator.Tokens has the token but its claims are nil: set them, or delete the token")
		}
		return claims, nil
	case v.Claims != nil:
		return v.Claims, nil
	}
	return nil, errors.New("koretest: Validator has nothing to return: set Claims, Tokens or Err")
}

// Claims returns the claims of a token with the given payload, for a [Validator]
// or for [koreauth.NewContext]. [koreauth.Claims.Decode] can read them, which it
// cannot for claims made as a struct literal. Names and values are those of the
// token: "exp" is a number of seconds, and "scope" is a string.
//
// Claims panics on programmer error: if JSON cannot encode a value, or if
// [koreauth.Claims.UnmarshalJSON] rejects the payload.
func Claims(payload map[string]any) *koreauth.Claims {
	if payload == nil {
		payload = map[string]any{} // a nil map encodes as null, which UnmarshalJSON ignores
	}
	data, err := json.Marshal(payload)
	if err != nil {
		panic(fmt.Sprintf("koretest: Claims: cannot encode the payload: %v", err))
	}
	claims := new(koreauth.Claims)
	if err := claims.UnmarshalJSON(data); err != nil {
		panic(fmt.Sprintf("koretest: Claims: cannot read the payload: %v", err))
	}
	return claims
}
