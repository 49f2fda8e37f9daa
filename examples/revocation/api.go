package main

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

// api is a replica of the API. All replicas have the same store.
type api struct {
	store   revocation.Store
	revoked *revocation.List // the caller must make it follow the store
	handler http.Handler
}

// newAPI returns an API whose rules are in a file.
func newAPI(issuer, file string, logger *slog.Logger) (*api, error) {
	a := &api{store: revocation.File(file), revoked: &revocation.List{Logger: logger}}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer,
		Audience: []string{koretest.Audience},
		Require:  []koreauth.Requirement{a.revoked},
		Logger:   logger,
	})
	if err != nil {
		return nil, err
	}
	guard := koreauth.New(validator, nil)
	operators := guard.Require(koreauth.Grant("Revocations", koreauth.Write))

	mux := http.NewServeMux()
	mux.Handle("GET /v1/me", guard.Wrap(http.HandlerFunc(me)))
	mux.Handle("/v1/revocations", operators(revocation.Handler(a.store, a.revoked)))
	a.handler = mux
	return a, nil
}

func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintln(w, "hello,", claims.ClientID)
}
