package subjects

import (
	"context"
	"net/http"

	"github.com/hashicorp/cap/jwt"
)

// hashicorpCap follows the example linked from the README of cap's jwt package.
var hashicorpCap = Subject{
	Name:    "hashicorp/cap",
	Modules: []string{"github.com/hashicorp/cap"},
	Guard: func(ctx context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		keys, err := jwt.NewJSONWebKeySet(ctx, s.JWKSURL, "")
		if err != nil {
			return nil, err
		}
		v, err := jwt.NewValidator(keys)
		if err != nil {
			return nil, err
		}
		expected := jwt.Expected{
			Issuer:            s.Issuer,
			Audiences:         []string{s.Audience},
			SigningAlgorithms: []jwt.Alg{jwt.Alg(s.Algorithm)},
		}
		return minimal(func(ctx context.Context, token string) (any, error) {
			return v.Validate(ctx, token, expected)
		}), nil
	},
}
