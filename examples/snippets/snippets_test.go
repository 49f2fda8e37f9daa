// Package snippets_test contains code of the README and of the guides that is in no
// other example.
package snippets_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// get returns the response to a request with a token.
func get(handler http.Handler, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestGuides_CustomRequirement(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1", Products: []string{"SuperSIM"}}}, nil)
	listSIMs := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "SIMs") })
	mux := http.NewServeMux()

	ownAccount := koreauth.RequirementFunc(func(r *http.Request, c *koreauth.Claims) error {
		if r.PathValue("account") != c.AccountID {
			return koreauth.ErrForbidden
		}
		return nil
	})
	mux.Handle("GET /v1/accounts/{account}/sims", guard.Require(koreauth.Product("SuperSIM"), ownAccount)(listSIMs))

	assert.Equal(t, "SIMs", get(mux, "/v1/accounts/CO1/sims", "any").Body.String())
	other := get(mux, "/v1/accounts/CO2/sims", "any")
	assert.Equal(t, http.StatusForbidden, other.Code)
	assert.Contains(t, other.Body.String(), `"Access denied"`)

	// Refuse sends the same response.
	w := httptest.NewRecorder()
	guard.Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), koreauth.ErrForbidden)
	assert.Equal(t, other.Code, w.Code)
	assert.Equal(t, other.Header(), w.Header())
	assert.Equal(t, other.Body.String(), w.Body.String())
}

func claimsAs[T any](r *http.Request) (v T, err error) {
	claims, _ := koreauth.FromContext(r.Context())
	err = claims.Decode(&v) // also an error if the request has no claims
	return v, err
}

func TestReadme_ClaimsAs(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	token, err := issuer.Mint(koretest.Token{Claims: map[string]any{"region": "EU"}})
	require.NoError(t, err)

	type extra struct{ Region string }
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := claimsAs[extra](r)
		fmt.Fprint(w, v.Region, err)
	})
	assert.Equal(t, "EU<nil>", get(koreauth.New(validator, nil).Wrap(handler), "/", token).Body.String())
	assert.Contains(t, get(handler, "/", token).Body.String(), "koreauth: ") // no guard, so no claims
}

func TestReadme_GuardAroundMux(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "pong") })

	api := guard.Wrap(mux)

	assert.Equal(t, "pong", get(api, "/v1/ping", "any").Body.String())
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/ping", nil))
	assert.Equal(t, http.StatusUnauthorized, w.Code)
}
