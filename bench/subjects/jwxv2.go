package subjects

import (
	"context"
	"net/http"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// jwxV2 follows jwx's documentation of jwk.Cache, jwk.CachedSet and jwt.ParseRequest. The algorithm is restricted by the
// `alg` of the keys, as jwt.WithKeySet does.
var jwxV2 = Subject{
	Name:    "jwx v2",
	Modules: []string{"github.com/lestrrat-go/jwx/v2"},
	Guard: func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		cache := jwk.NewCache(ctx)
		if err := cache.Register(s.JWKSURL, jwk.WithMinRefreshInterval(15*time.Minute)); err != nil {
			return nil, err
		}
		if _, err := cache.Refresh(ctx, s.JWKSURL); err != nil {
			return nil, err
		}
		keys := jwk.NewCachedSet(cache, s.JWKSURL)
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
