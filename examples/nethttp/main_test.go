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

// Test one handler, with claims in the context.
func TestHandler(t *testing.T) {
	r := httptest.NewRequest("GET", "/v1/ping", nil)
	r = r.WithContext(koreauth.NewContext(r.Context(), &koreauth.Claims{ClientID: "kc_1", AccountID: "CO1"}))
	w := httptest.NewRecorder()
	hello.ServeHTTP(w, r)
	assert.Equal(t, "hello, client kc_1 of account CO1\n", w.Body.String())
}

// Test routes and their requirements, without an issuer.
func TestRoutes(t *testing.T) {
	api := newAPI(koretest.Validator{Claims: &koreauth.Claims{Products: []string{"SuperSIM"}}})
	for path, status := range map[string]int{"/v1/sims": 200, "/v1/invoices": 403} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, path)
	}
}

// Test with signed tokens, validated as in production.
func TestWithAnIssuer(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	api := newAPI(validator)
	for token, status := range map[string]int{issuer.Valid(): 200, issuer.Expired(): 403, issuer.Forged(): 403} {
		r := httptest.NewRequest("GET", "/v1/ping", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code)
	}
}

func TestAllowOrigin_AnswersPreflightWithoutToken(t *testing.T) {
	r := httptest.NewRequest("OPTIONS", "/v1/ping", nil)
	r.Header.Set("Origin", "https://portal.example.com")
	r.Header.Set("Access-Control-Request-Method", "GET")
	r.Header.Set("Access-Control-Request-Headers", "authorization")
	w := httptest.NewRecorder()
	newAPI(koretest.Validator{Err: koreauth.ErrExpired}).ServeHTTP(w, r)
	assert.Equal(t, http.StatusNoContent, w.Code)
	assert.Equal(t, "Authorization", w.Header().Get("Access-Control-Allow-Headers"))
}

func TestAllowOrigin_ExposesErrorResponses(t *testing.T) {
	api := newAPI(koretest.Validator{Err: koreauth.ErrExpired})
	for origin, allowed := range map[string]string{
		"https://portal.example.com": "https://portal.example.com",
		"https://other.example":      "",
	} {
		r := httptest.NewRequest("GET", "/v1/ping", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, http.StatusForbidden, w.Code)
		assert.Equal(t, allowed, w.Header().Get("Access-Control-Allow-Origin"), origin)
	}
}
