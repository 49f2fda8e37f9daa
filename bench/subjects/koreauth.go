package subjects

import (
	"context"
	"net/http"

	"github.com/koreauth/koreauth"
)

// Koreauth follows koreauth's own README.
var Koreauth = Subject{
	Name:    "koreauth",
	Modules: []string{"github.com/koreauth/koreauth", "github.com/lestrrat-go/jwx/v2"},
	Guard: func(_ context.Context, s Setup) (func(http.Handler) http.Handler, error) {
		return GuardWith(s, koreauth.Config{})
	},
}

// GuardWith returns the middleware for a config. Fields that config leaves empty are set from the setup.
func GuardWith(s Setup, config koreauth.Config) (func(http.Handler) http.Handler, error) {
	config.Issuer = s.Issuer
	config.Audience = []string{s.Audience}
	if config.Algorithms == nil {
		config.Algorithms = []string{s.Algorithm}
	}
	validator, err := koreauth.NewValidator(config)
	if err != nil {
		return nil, err
	}
	return koreauth.New(validator, nil).Wrap, nil
}
