package introspection

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// verdict is what an answer says of a token.
type verdict struct {
	active  bool
	claims  *koreauth.Claims // shared; nil unless active
	endless bool             // the answer has no "exp"
	access  bool             // "token_type" is that of an access token, or absent
	bytes   int              // of the answer
}

// errNotClear is an answer that does not say whether the token is active.
var errNotClear = errors.New("the answer is not clear")

func notClear(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errNotClear, fmt.Errorf(format, args...))
}

// read reads an answer (RFC 7662 §2.2). What is not a clear answer is an error.
func read(a *authserver.Answer) (*verdict, error) {
	switch {
	case a.Status != http.StatusOK:
		return nil, notClear("status %d", a.Status)
	case a.Type != "application/json":
		return nil, notClear("the Content-Type is %.64q, not application/json", a.Type)
	}
	v := &verdict{access: true, endless: true, bytes: len(a.Body)}
	active := ""
	var odd error
	r := strictjson.ReadObject(a.Body)
	for r.More() {
		switch r.Name() {
		case "active":
			active = r.Raw()
		case "exp":
			v.endless = false
			if r.Number() == "" {
				odd = notClear(`"exp" is not a number`)
			}
		case "token_type":
			kind := r.Peek()
			text, _ := r.String()
			v.access = strings.EqualFold(text, "Bearer") || strings.EqualFold(text, "DPoP") || kind == 'n'
			if kind != '"' && kind != 'n' {
				odd = notClear(`"token_type" is not a string`)
			}
		default:
			r.Skip()
		}
	}
	switch err := r.End(); {
	case err != nil:
		return nil, notClear("it is not one JSON object: %w", err)
	case active == "false":
		return &verdict{}, nil
	case active != "true":
		return nil, notClear(`"active" is not true or false`)
	case odd != nil:
		return nil, odd
	}
	v.active, v.claims = true, new(koreauth.Claims)
	if err := v.claims.UnmarshalJSON([]byte(a.Body)); err != nil {
		return nil, notClear("%w", err)
	}
	return v, nil
}

// complete adds what the answer leaves out and the verified token says, and returns an
// error if the two differ.
func (v *verdict) complete(token *koreauth.Claims) error {
	c := v.claims
	for _, one := range []struct {
		name          string
		answer, token *string
	}{{"iss", &c.Issuer, &token.Issuer}, {"sub", &c.Subject, &token.Subject}, {"jti", &c.ID, &token.ID}, {"azp", &c.ClientID, &token.ClientID}} {
		switch {
		case *one.token == "":
		case *one.answer == "" && one.name != "iss":
			*one.answer = *one.token
		case *one.answer != *one.token:
			return notClear("%q is not that of the token", one.name)
		}
	}
	switch {
	case v.endless:
		c.Expiry, v.endless = token.Expiry, false
	case !c.Expiry.Equal(token.Expiry):
		return notClear(`"exp" is not that of the token`)
	}
	for _, one := range []struct{ answer, token *time.Time }{{&c.IssuedAt, &token.IssuedAt}, {&c.NotBefore, &token.NotBefore}} {
		if one.answer.IsZero() {
			*one.answer = *one.token
		}
	}
	switch own := token.Confirmation; {
	case own == nil:
	case c.Confirmation == nil:
		c.Confirmation = own
	case *c.Confirmation != *own:
		return notClear(`"cnf" is not that of the token`)
	}
	return nil
}
