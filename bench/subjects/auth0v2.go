package subjects

import (
	"context"
	"net/http"
	"net/url"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/jwks"
	"github.com/auth0/go-jwt-middleware/v2/validator"
)

// auth0V2 follows the README of go-jwt-middleware v2 and its JWKS example, with a caching provider of 5 minutes.
var auth0V2 = Subject{
	Name:    "auth0 v2",
	Modules: []string{"github.com/auth0/go-jwt-middleware/v2"},
	Guard: func(_ context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		issuer, err := url.Parse(s.Issuer)
		if err != nil {
			return nil, err
		}
		provider := jwks.NewCachingProvider(issuer, 5*time.Minute)
		v, err := validator.New(
			provider.KeyFunc,
			validator.SignatureAlgorithm(s.Algorithm),
			s.Issuer,
			[]string{s.Audience},
		)
		if err != nil {
			return nil, err
		}
		return jwtmiddleware.New(v.ValidateToken).CheckJWT, nil
	},
}
