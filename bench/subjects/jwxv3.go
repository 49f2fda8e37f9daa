package subjects

import (
	"context"
	"net/http"
	"time"

	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// jwxV3 follows jwx's documentation of jwk.Cache, jwk.CachedSet and jwt.ParseRequest. The algorithm is restricted by the
// `alg` of the keys, as jwt.WithKeySet does.
var jwxV3 = Subject{
	Name:    "jwx v3",
	Modules: []string{"github.com/lestrrat-go/jwx/v3"},
	Guard: func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		cache, err := jwk.NewCache(ctx, httprc.NewClient())
		if err != nil {
			return nil, err
		}
		if err := cache.Register(ctx, s.JWKSURL, jwk.WithMinInterval(15*time.Minute)); err != nil {
			return nil, err
		}
		keys, err := cache.CachedSet(s.JWKSURL)
		if err != nil {
			return nil, err
		}
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token, err := jwt.ParseRequest(r,
					jwt.WithKeySet(keys),
					jwt.WithIssuer(s.Issuer),
					jwt.WithAudience(s.Audience),
					jwt.WithRequiredClaim(jwt.ExpirationKey),
				)
				if err != nil {
					http.Error(w, "Unauthorized", http.StatusUnauthorized)
					return
				}
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), claimsKey{}, token)))
			})
		}, nil
	},
}
