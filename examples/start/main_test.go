package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

// The program as it stands, with a realm behind the made-up address.
func TestStart(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com"})
	require.NoError(t, err)
	network := http.DefaultTransport
	http.DefaultTransport = issuer.HTTPClient().Transport
	defer func() { http.DefaultTransport = network }()
	reader, err := issuer.Mint(koretest.Token{Claims: map[string]any{"scope": "sims:read"}})
	require.NoError(t, err)
	api := newAPI()

	for _, test := range []struct {
		name, path, token string
		status            int
	}{
		{"a good token may ping", "/v1/ping", issuer.Ungranted(), 200},
		{"nobody else may", "/v1/ping", "", 401},
		{"a grant opens its route", "/v1/clients", issuer.Valid(), 200},
		{"and nothing else does", "/v1/clients", issuer.Ungranted(), 403},
		{"a scope opens its route", "/v1/sims", reader, 200},
		{"and a grant does not", "/v1/sims", issuer.Valid(), 403},
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
