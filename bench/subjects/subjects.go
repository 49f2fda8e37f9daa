// Package subjects holds what the benchmark compares: koreauth, the libraries that do the same job, the limits that
// none of them can beat, and the issuer whose tokens they all judge.
package subjects

import (
	"context"
	"net/http"
	"strings"
)

// Setup is what a resource server knows of its issuer.
type Setup struct {
	Issuer    string // the `iss` to demand; its discovery document is served below it
	JWKSURL   string
	Audience  string
	Algorithm string // the one to accept: RS256, ES256 or EdDSA
}

// Subject is one way to guard an API.
type Subject struct {
	Name    string   // as the tables show it
	Modules []string // the modules that do the work, for the list of versions

	// Guard returns the middleware, set up as the subject's own documentation says. What it starts ends with ctx.
	Guard func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error)
}

// Peers are the libraries that koreauth is compared with.
var Peers = []Subject{golangJWT, goOIDC, auth0V2, auth0V3, jwxV2, jwxV3, hashicorpCap}

type claimsKey struct{}

// koreClaims is what a handler wants of KORE's token, for the libraries that decode into a struct of the caller's: cheaper
// for them than a map.
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

// minimal is the middleware that a reader of a README writes for a library that brings none: take the bearer token,
// verify it, pass the claims on in the context, or answer 401.
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
