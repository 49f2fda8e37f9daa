package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
)

// introspection asks the issuer about the given token, as the API does.
func (r *run) introspection(ctx context.Context, validator *koreauth.Validator) {
	const check = "introspection"
	config := r.config.Introspection
	config.MaxAge, config.Logger = -1, nil // It is asked once.
	jwt := strings.Count(r.config.Token, ".") == 2
	validatorFor := func(c introspection.Config) (*introspection.Validator, error) {
		if jwt {
			return introspection.Also(validator, c)
		}
		return introspection.New(c)
	}
	asked, err := validatorFor(config)
	if err != nil {
		r.faults(check, err)
		return
	}
	if config.HTTPClient == nil {
		config.HTTPClient = r.config.Config.HTTPClient
		if asked, err = validatorFor(config); err != nil {
			r.faults(check, err)
			return
		}
	}
	if jwt && !r.verified {
		r.add(check, levelWarn, "the issuer was not asked: the token was not verified", "see the findings about the token")
		return
	}
	if r.config.Token == "" {
		r.add(check, levelWarn, "the credentials cannot be checked without a token", "give Config.Token a token")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err = asked.Validate(ctx, r.config.Token)
	switch {
	case err == nil:
		r.add(check, levelOK, "the token is active", "")
	case errors.Is(err, introspection.ErrInactive) && jwt && !slices.Contains(r.audience, config.ClientID):
		r.add(check, levelFail, "the token was verified, and the issuer says that it is not active",
			"if it says so of every token, put the client "+config.ClientID+" into their \"aud\", with an audience mapper: Keycloak 26.6.2 and later answers only about tokens for the client that asks")
	case errors.Is(err, introspection.ErrInactive):
		r.add(check, levelFail, "the issuer says that the token is not active", "it was revoked, or it is not of this issuer: get a new token")
	case errors.Is(err, koreauth.ErrMalformed):
		r.add(check, levelFail, "the issuer was not asked: the text is not a token", "give Config.Token the text after \"Bearer \"")
	case errors.Is(err, koreauth.ErrUnavailable):
		r.add(check, levelFail, "no clear answer: "+cause(err), "check the endpoint, and ClientID, the secret and Style of this API")
	default:
		r.add(check, levelFail, "the answer does not fit: "+cause(err), "compare the answer with the Config of the API")
	}
}

// cause returns the text of an error without the package and the class.
func cause(err error) string {
	text := strings.TrimPrefix(err.Error(), "koreauth: ")
	return strings.TrimPrefix(strings.TrimPrefix(text, "temporarily unavailable: "), "invalid token: ")
}
