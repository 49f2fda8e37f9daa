package subjects

import (
	"context"
	"net/http"

	"github.com/coreos/go-oidc/v3/oidc"
)

// goOIDC follows go-oidc's README: discovery, a verifier, and claims decoded from the verified token. The audience is set
// as the client ID, because the verifier compares `aud` with it.
var goOIDC = Subject{
	Name:    "go-oidc",
	Modules: []string{"github.com/coreos/go-oidc/v3"},
	Guard: func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		provider, err := oidc.NewProvider(ctx, s.Issuer)
		if err != nil {
			return nil, err
		}
		verifier := provider.Verifier(&oidc.Config{ClientID: s.Audience, SupportedSigningAlgs: []string{s.Algorithm}})
		return minimal(func(ctx context.Context, token string) (any, error) {
			verified, err := verifier.Verify(ctx, token)
			if err != nil {
				return nil, err
			}
			var claims koreClaims
			if err := verified.Claims(&claims); err != nil {
				return nil, err
			}
			return &claims, nil
		}), nil
	},
}
