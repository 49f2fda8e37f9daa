package main_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/jwks"
	"github.com/auth0/go-jwt-middleware/v2/validator"
)

// scopeClaims are custom claims as the README of go-jwt-middleware has them.
type scopeClaims struct {
	Scope string `json:"scope"`
}

func (c *scopeClaims) Validate(context.Context) error { return nil }

// beforeV2 is the code before a migration; docs/migrating-from-auth0.md shows it.
func beforeV2(issuer string, audience []string, listSIMs http.Handler) http.Handler {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		log.Fatal(err)
	}
	provider := jwks.NewCachingProvider(issuerURL, 5*time.Minute)
	jwtValidator, err := validator.New(
		provider.KeyFunc, validator.RS256, issuer, audience,
		validator.WithCustomClaims(func() validator.CustomClaims { return &scopeClaims{} }),
		validator.WithAllowedClockSkew(30*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	middleware := jwtmiddleware.New(jwtValidator.ValidateToken, jwtmiddleware.WithErrorHandler(
		func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, jwtmiddleware.ErrJWTMissing) {
				http.Error(w, "no token", http.StatusUnauthorized)
				return
			}
			jwtmiddleware.DefaultErrorHandler(w, r, err)
		}))
	mux := http.NewServeMux()
	mux.Handle("GET /v1/sims", middleware.CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Context().Value(jwtmiddleware.ContextKey{}).(*validator.ValidatedClaims)
		scope := token.CustomClaims.(*scopeClaims).Scope
		if !strings.Contains(" "+scope+" ", " sims:read ") {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		listSIMs.ServeHTTP(w, r)
	})))
	return mux
}
