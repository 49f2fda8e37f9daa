package koretest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// through sends a request with some token through a guard that asks validator.
func through(validator koretest.Validator, required koreauth.Requirement, serve http.HandlerFunc) *httptest.ResponseRecorder {
	handler := koreauth.New(validator, nil).Require(required)(serve)
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	return w
}

func TestValidatorAnswersWithClaims(t *testing.T) {
	validator := koretest.Validator{Claims: &koreauth.Claims{
		ClientID: "kc_1", Scopes: []string{"sims:read"},
		Resources: []koreauth.Resource{{Name: "API Clients", Access: []koreauth.Access{koreauth.Read}}},
	}}
	serve := func(w http.ResponseWriter, r *http.Request) {
		claims, ok := koreauth.FromContext(r.Context())
		assert.True(t, ok)
		fmt.Fprint(w, claims.ClientID)
	}
	for _, met := range []koreauth.Requirement{koreauth.Scope("sims:read"), koreauth.Grant("API Clients", koreauth.Read)} {
		w := through(validator, met, serve)
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, "kc_1", w.Body.String())
	}
	w := through(validator, koreauth.Scope("sims:write"), serve)
	assert.Equal(t, http.StatusForbidden, w.Code, "requirements are checked")
	assert.Contains(t, w.Body.String(), "Insufficient scope")
}

func TestValidatorAnswersWithErr(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { t.Error("the handler is reached") }
	claims := &koreauth.Claims{Scopes: []string{"a"}}
	for _, test := range []struct {
		what      string
		validator koretest.Validator
		status    int
	}{
		{"a reason", koretest.Validator{Err: koreauth.ErrExpired}, http.StatusForbidden},
		{"a reason, whatever the claims", koretest.Validator{Err: koreauth.ErrExpired, Claims: claims}, http.StatusForbidden},
		{"a class", koretest.Validator{Err: koreauth.ErrUnavailable}, http.StatusServiceUnavailable},
		{"an error of no class", koretest.Validator{Err: errors.New("lost")}, http.StatusServiceUnavailable},
		{"nothing", koretest.Validator{}, http.StatusServiceUnavailable},
	} {
		t.Run(test.what, func(t *testing.T) {
			assert.Equal(t, test.status, through(test.validator, koreauth.Scope("a"), never).Code)
		})
	}
	_, err := koretest.Validator{}.Validate(t.Context(), "any")
	assert.EqualError(t, err, "koretest: this Validator has neither Claims nor Err to answer with")
}

func TestValidatorsClaimsAreTheCallersOwn(t *testing.T) {
	validator := koretest.Validator{Claims: &koreauth.Claims{
		Scopes: []string{"a"}, Resources: []koreauth.Resource{{Name: "R", Access: []koreauth.Access{koreauth.Read}}},
	}}
	claims, err := validator.Validate(t.Context(), "any")
	require.NoError(t, err)
	assert.Equal(t, validator.Claims, claims)
	claims.ClientID, claims.Scopes[0], claims.Resources[0].Access[0] = "x", "x", "x"
	again, err := validator.Validate(t.Context(), "any")
	require.NoError(t, err)
	assert.Equal(t, &koreauth.Claims{
		Scopes: []string{"a"}, Resources: []koreauth.Resource{{Name: "R", Access: []koreauth.Access{koreauth.Read}}},
	}, again)
}
