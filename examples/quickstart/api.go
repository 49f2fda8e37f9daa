package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
)

// credentials are those of the API at the issuer, which it asks about opaque tokens.
type credentials struct{ id, secret string }

// newAPI returns the protected API. One guard protects the net/http routes under
// /v1 and the gorilla/mux routes under /v2.
func newAPI(issuer string, own credentials, logger *slog.Logger) (http.Handler, error) {
	opaque, err := introspection.New(introspection.Config{
		Issuer:       issuer,
		Audience:     []string{koretest.Audience},
		ClientID:     own.id,
		ClientSecret: own.secret,
		Shape:        func(token string) bool { return len(token) >= 40 }, // shorter ones are not asked about
		Logger:       logger,
	})
	if err != nil {
		return nil, err
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer,
		Audience: []string{koretest.Audience},
		Opaque:   opaque,
		Logger:   logger,
	})
	if err != nil {
		return nil, err
	}
	guard := koreauth.New(validator, &koreauth.Options{Logger: logger})
	requireRead := guard.Require(koreauth.Grant("API Clients", koreauth.Read))
	requireDelete := guard.Require(koreauth.Grant("API Clients", koreauth.Delete))

	v2 := mux.NewRouter()
	v2.Use(guard.Wrap)
	v2.Handle("/v2/clients/{id}", requireRead(http.HandlerFunc(client))).Methods("GET")
	v2.Handle("/v2/clients/{id}", requireDelete(http.HandlerFunc(client))).Methods("DELETE")

	api := http.NewServeMux()
	api.Handle("GET /v1/me", guard.Wrap(http.HandlerFunc(me)))
	api.Handle("/v2/", v2)
	return api, nil
}

// me responds with the claims of the token.
func me(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	writeJSON(w, struct {
		Issuer     string              `json:"issuer"`
		Client     string              `json:"client"`
		ClientType string              `json:"client_type"`
		Account    string              `json:"account"`
		Audience   []string            `json:"audience"`
		Scopes     []string            `json:"scopes"`
		Resources  []koreauth.Resource `json:"resources"`
		Products   []string            `json:"products"`
		Expires    time.Time           `json:"expires"`
	}{
		claims.Issuer, claims.ClientID, claims.ClientType, claims.AccountID, claims.Audience, claims.Scopes,
		claims.Resources, claims.Products, claims.Expiry,
	})
}

// client responds with one API client.
func client(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	writeJSON(w, struct {
		ID      string `json:"id"`
		Account string `json:"account"`
	}{mux.Vars(r)["id"], claims.AccountID})
}

// writeJSON sends v as the response.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has disconnected
}
