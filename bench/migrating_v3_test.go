package main_test

import (
	"context"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
)

type scopeClaimsV3 struct {
	Scope string `json:"scope"`
}

func (c *scopeClaimsV3) Validate(context.Context) error { return nil }

// beforeV3 is the same as beforeV2, with version 3.
func beforeV3(issuer, audience string, listSIMs http.Handler) http.Handler {
	issuerURL, err := url.Parse(issuer)
	if err != nil {
		log.Fatal(err)
	}
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuerURL))
	if err != nil {
		log.Fatal(err)
	}
	jwtValidator, err := validator.New(
		validator.WithKeyFunc(provider.KeyFunc),
		validator.WithAlgorithm(validator.RS256),
		validator.WithIssuer(issuer),
		validator.WithAudience(audience),
		validator.WithCustomClaims(func() *scopeClaimsV3 { return &scopeClaimsV3{} }),
		validator.WithAllowedClockSkew(30*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	middleware, err := jwtmiddleware.New(jwtmiddleware.WithValidator(jwtValidator))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/sims", middleware.CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := jwtmiddleware.MustGetClaims[*validator.ValidatedClaims](r.Context())
		scope := token.CustomClaims.(*scopeClaimsV3).Scope
		if !strings.Contains(" "+scope+" ", " sims:read ") {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		listSIMs.ServeHTTP(w, r)
	})))
	return mux
}
