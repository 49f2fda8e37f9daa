package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

// The unchanged program, with an issuer at the URL that it names.
func TestNewAPI_ProtectsRoutes(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com"})
	require.NoError(t, err)
	network := http.DefaultTransport
	http.DefaultTransport = issuer.HTTPClient().Transport
	defer func() { http.DefaultTransport = network }()
	require.NoError(t, issuer.Register(koretest.Client{ID: "granted", Resources: map[string][]string{"API Clients": {"Read"}}}))
	require.NoError(t, issuer.Register(koretest.Client{ID: "product", Products: []string{"SuperSIM"}}))
	granted, err := issuer.Mint(koretest.Token{ClientID: "granted"})
	require.NoError(t, err)
	product, err := issuer.Mint(koretest.Token{ClientID: "product"})
	require.NoError(t, err)
	api := newAPI()

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
