package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestClientsNeedGrant(t *testing.T) {
	api := newAPI(koretest.Validator{Claims: &koreauth.Claims{Products: []string{"SuperSIM"}}})
	r := httptest.NewRequest("GET", "/v1/clients", nil)
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	assert.Equal(t, 403, w.Code)
}

func TestNewAPI_ProtectsRoutes(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	require.NoError(t, issuer.Register(koretest.Client{ID: "granted", Resources: map[string][]string{"API Clients": {"Read"}}}))
	require.NoError(t, issuer.Register(koretest.Client{ID: "product", Products: []string{"SuperSIM"}}))
	granted, err := issuer.Mint(koretest.Token{ClientID: "granted"})
	require.NoError(t, err)
	product, err := issuer.Mint(koretest.Token{ClientID: "product"})
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	api := newAPI(validator)

	for _, test := range []struct {
		name, path, token string
		status            int
	}{
		{"ping with a valid token", "/v1/ping", issuer.Ungranted(), 200},
		{"ping with an expired token", "/v1/ping", issuer.Expired(), 403},
		{"ping without a token", "/v1/ping", "", 401},
		{"clients with the grant", "/v1/clients", granted, 200},
		{"clients with only the product", "/v1/clients", product, 403},
		{"SIMs with the product", "/v1/sims", product, 200},
		{"SIMs with only the grant", "/v1/sims", granted, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, test.path, nil)
			if test.token != "" {
				r.Header.Set("Authorization", "Bearer "+test.token)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			assert.Equal(t, test.status, w.Code, w.Body)
		})
	}
}
