package subjects

import (
	"context"
	"net/http"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

type golangJWTClaims struct {
	jwt.RegisteredClaims
	koreClaims
}

// golangJWT follows the README of keyfunc, which provides keys for golang-jwt, and golang-jwt's examples of custom claims
// and of the parser options that require issuer, audience, expiry and algorithm.
var golangJWT = Subject{
	Name:    "golang-jwt + keyfunc",
	Modules: []string{"github.com/golang-jwt/jwt/v5", "github.com/MicahParks/keyfunc/v3"},
	Guard: func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		k, err := keyfunc.NewDefaultCtx(ctx, []string{s.JWKSURL})
		if err != nil {
			return nil, err
		}
		parser := jwt.NewParser(
			jwt.WithValidMethods([]string{s.Algorithm}),
			jwt.WithIssuer(s.Issuer),
			jwt.WithAudience(s.Audience),
			jwt.WithExpirationRequired(),
		)
		return minimal(func(ctx context.Context, token string) (any, error) {
			var claims golangJWTClaims
			if _, err := parser.ParseWithClaims(token, &claims, k.KeyfuncCtx(ctx)); err != nil {
				return nil, err
			}
			return &claims, nil
		}), nil
	},
}
