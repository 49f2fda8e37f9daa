package main_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// What docs/migrating-from-auth0.md says about the answers before and after.
func TestMigratingFromAuth0(t *testing.T) {
	listSIMs := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{ID: "c", Secret: "s", Scope: "sims:read"}}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Leeway: 30 * time.Second})
	require.NoError(t, err)
	guard := koreauth.New(validator, &koreauth.Options{Errors: koreauth.RFC6750Errors})
	mux := http.NewServeMux()
	mux.Handle("GET /v1/sims", guard.Require(koreauth.Scope("sims:read"))(listSIMs))
	apis := []http.Handler{beforeV2(issuer.URL(), []string{koretest.Audience}, listSIMs), beforeV3(issuer.URL(), koretest.Audience, listSIMs), mux}

	mint := func(recipe koretest.Token) string {
		token, err := issuer.Mint(recipe)
		require.NoError(t, err)
		return "Bearer " + token
	}
	get := func(authorization string) []int {
		var statuses []int
		for _, api := range apis {
			r := httptest.NewRequest("GET", "/v1/sims", nil)
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			statuses = append(statuses, w.Code)
			t.Logf("%d %s", w.Code, w.Body)
		}
		return statuses
	}
	for _, row := range []struct {
		name, authorization string
		want                []int // v2, v3, koreauth
	}{
		{"a valid token", mint(koretest.Token{}), []int{200, 200, 200}},
		{"without the scope", mint(koretest.Token{Drop: []string{"scope"}}), []int{403, 403, 403}},
		{"no token", "", []int{401, 401, 401}},
		{"another scheme", "Basic abc", []int{500, 400, 401}},
		{"not a token", "Bearer a b", []int{500, 400, 400}},
		{"expired", mint(koretest.Token{Age: 3 * 8766 * time.Hour}), []int{401, 401, 401}},
		{"without an expiry", mint(koretest.Token{Drop: []string{"exp"}}), []int{200, 200, 401}},
		{"an ID token of Keycloak", mint(koretest.Token{Claims: map[string]any{"typ": "ID"}}), []int{200, 200, 401}},
		{"bound to a certificate", mint(koretest.Token{Claims: map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}}), []int{200, 200, 401}},
		{"an unknown critical extension", mint(koretest.Token{Header: map[string]any{"crit": []string{"x"}, "x": 1}}), []int{401, 200, 401}},
		{"issued in the future", mint(koretest.Token{Age: -time.Hour}), []int{401, 401, 200}},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.want, get(row.authorization))
		})
	}
	t.Run("the first token after a rotation", func(t *testing.T) {
		issuer.Rotate()
		assert.Equal(t, []int{401, 401, 200}, get(mint(koretest.Token{})))
	})
	t.Run("the issuer is down", func(t *testing.T) {
		down, err := koretest.NewIssuer(nil)
		require.NoError(t, err)
		token := "Bearer " + down.Valid()
		down.Close()
		validator, err := koreauth.NewValidator(koreauth.Config{Issuer: down.URL(), Audience: []string{koretest.Audience}})
		require.NoError(t, err)
		apis = []http.Handler{
			beforeV2(down.URL(), []string{koretest.Audience}, listSIMs), beforeV3(down.URL(), koretest.Audience, listSIMs),
			koreauth.New(validator, nil).Wrap(listSIMs),
		}
		assert.Equal(t, []int{401, 401, 503}, get(token))
	})
}
