package subjects

import (
	"context"
	"net/http"
	"net/url"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
)

// auth0V3 follows the production example in the README of go-jwt-middleware v3.
var auth0V3 = Subject{
	Name:    "auth0 v3",
	Modules: []string{"github.com/auth0/go-jwt-middleware/v3"},
	Guard: func(_ context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		issuer, err := url.Parse(s.Issuer)
		if err != nil {
			return nil, err
		}
		provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuer))
		if err != nil {
			return nil, err
		}
		v, err := validator.New(
			validator.WithKeyFunc(provider.KeyFunc),
			validator.WithAlgorithm(validator.SignatureAlgorithm(s.Algorithm)),
			validator.WithIssuer(s.Issuer),
			validator.WithAudience(s.Audience),
		)
		if err != nil {
			return nil, err
		}
		m, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v))
		if err != nil {
			return nil, err
		}
		return m.CheckJWT, nil
	},
}
