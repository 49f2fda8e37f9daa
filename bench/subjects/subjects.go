// Package subjects contains what the benchmark compares: koreauth, similar libraries, and lower bounds. It also contains
// the issuer of the tokens.
package subjects

import (
	"context"
	"net/http"
	"strings"
)

// Setup is what a resource server knows about its issuer.
type Setup struct {
	Issuer    string // the required `iss`, below which the discovery document is served
	JWKSURL   string
	Audience  string
	Algorithm string // the only accepted one: RS256, ES256 or EdDSA
}

// Subject is one way to guard an API.
type Subject struct {
	Name    string   // as in the tables
	Modules []string // for the list of versions

	// Guard returns the middleware, configured as the subject's documentation recommends. All that it starts ends
	// with ctx.
	Guard func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error)
}

// Peers are the libraries with which koreauth is compared.
var Peers = []Subject{golangJWT, goOIDC, auth0V2, auth0V3, jwxV2, jwxV3, hashicorpCap}

type claimsKey struct{}

// koreClaims are the claims that a handler needs. Libraries that can decode into a struct use it, because that is faster
// than a map.
type koreClaims struct {
	AccountID  string `json:"account-id"`
	ClientID   string `json:"client_id"`
	ClientType string `json:"client-type"`
	Scopes     struct {
		GlobalResources []struct {
			ResourceName string   `json:"resourceName"`
			Access       []string `json:"access"`
		} `json:"globalResources"`
	} `json:"scopes"`
}

// minimal is the middleware that a user writes for a library that has none: it reads the bearer token, verifies it and
// puts the claims into the context, or responds with 401.
func minimal(verify func(ctx context.Context, token string) (claims any, err error)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok {
				http.Error(w, "Unauthorized", http.StatusUnauthorized)
				return
			}
			claims, err := verify(r.Context(), token)
			if err != nil {
				http.Error(w, "Unauthorized", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), claimsKey{}, claims)))
		})
	}
}
