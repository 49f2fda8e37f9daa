package koretest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// serve sends a request with the token to handler, behind a guard that requires
// the scope "a".
func serve(validator koretest.Validator, token string, handler http.HandlerFunc) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	koreauth.New(validator, nil).Require(koreauth.Scope("a"))(handler).ServeHTTP(w, req)
	return w
}

// writeClientID responds with the ID of the client.
func writeClientID(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprint(w, claims.ClientID)
}

func TestValidator_ReturnsClaims(t *testing.T) {
	w := serve(koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1", Scopes: []string{"a"}}}, "any", writeClientID)
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "kc_1", w.Body.String())

	w = serve(koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1"}}, "any", writeClientID)
	assert.Equal(t, http.StatusForbidden, w.Code, "requirements are checked")
	assert.Contains(t, w.Body.String(), "Insufficient scope")
}

func TestValidator_ReturnsErr(t *testing.T) {
	claims := &koreauth.Claims{Scopes: []string{"a"}}
	for _, test := range []struct {
		name      string
		validator koretest.Validator
		status    int
	}{
		{"a reason", koretest.Validator{Err: koreauth.ErrExpired}, http.StatusForbidden},
		{"a reason, with Claims set", koretest.Validator{Err: koreauth.ErrExpired, Claims: claims}, http.StatusForbidden},
		{"a reason, with Tokens set", koretest.Validator{
			Err: koreauth.ErrExpired, Tokens: map[string]*koreauth.Claims{"any": claims},
		}, http.StatusForbidden},
		{"a class", koretest.Validator{Err: koreauth.ErrUnavailable}, http.StatusServiceUnavailable},
		{"an error without a class", koretest.Validator{Err: errors.New("failed")}, http.StatusServiceUnavailable},
		{"no field set", koretest.Validator{}, http.StatusServiceUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := serve(test.validator, "any", func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
			assert.Equal(t, test.status, w.Code)
		})
	}
	_, err := koretest.Validator{}.Validate(t.Context(), "any")
	assert.EqualError(t, err, "koretest: Validator has nothing to return: set Claims, Tokens or Err")
}

func TestValidator_LooksUpTokens(t *testing.T) {
	tokens := map[string]*koreauth.Claims{
		"one":    {ClientID: "kc_1", Scopes: []string{"a"}},
		"two":    {ClientID: "kc_2", Scopes: []string{"a"}},
		"narrow": {ClientID: "kc_3"},
		"nil":    nil,
	}
	validators := map[string]koretest.Validator{
		"Tokens alone":      {Tokens: tokens},
		"Tokens and Claims": {Tokens: tokens, Claims: &koreauth.Claims{ClientID: "ignored", Scopes: []string{"a"}}},
	}
	for name, validator := range validators {
		t.Run(name, func(t *testing.T) {
			for token, want := range map[string]string{"one": "kc_1", "two": "kc_2"} {
				w := serve(validator, token, writeClientID)
				assert.Equal(t, http.StatusOK, w.Code, token)
				assert.Equal(t, want, w.Body.String())
			}
			for token, status := range map[string]int{
				"narrow": http.StatusForbidden, "other": http.StatusForbidden, "One": http.StatusForbidden,
				"nil": http.StatusServiceUnavailable,
			} {
				w := serve(validator, token, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
				assert.Equal(t, status, w.Code, token)
			}

			_, err := validator.Validate(t.Context(), "other")
			assert.ErrorIs(t, err, koreauth.ErrSignature)
			claims, err := validator.Validate(t.Context(), "nil")
			assert.Nil(t, claims)
			assert.ErrorContains(t, err, "its claims are nil")
		})
	}
	t.Run("empty, not nil", func(t *testing.T) {
		validator := koretest.Validator{Tokens: map[string]*koreauth.Claims{}, Claims: &koreauth.Claims{}}
		_, err := validator.Validate(t.Context(), "any")
		assert.ErrorIs(t, err, koreauth.ErrSignature)
	})
}

func TestValidator_CopiesClaims(t *testing.T) {
	newClaims := func() *koreauth.Claims {
		return &koreauth.Claims{
			Scopes: []string{"a"}, Resources: []koreauth.Resource{{Name: "R", Access: []koreauth.Access{koreauth.Read}}},
		}
	}
	for name, validator := range map[string]koretest.Validator{
		"Claims": {Claims: newClaims()},
		"Tokens": {Tokens: map[string]*koreauth.Claims{"any": newClaims()}},
	} {
		t.Run(name, func(t *testing.T) {
			claims, err := validator.Validate(t.Context(), "any")
			require.NoError(t, err)
			assert.Equal(t, newClaims(), claims)
			claims.ClientID, claims.Scopes[0], claims.Resources[0].Access[0] = "x", "x", "x"
			again, err := validator.Validate(t.Context(), "any")
			require.NoError(t, err)
			assert.Equal(t, newClaims(), again)
		})
	}
}

func TestClaims_ReadsFieldsAndDecodes(t *testing.T) {
	expiry := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	claims := koretest.Claims(map[string]any{
		"iss": "https://issuer.example", "aud": []string{"api-gw"}, "client_id": "kc_1", "scope": "a b", "exp": expiry.Unix(),
		"scopes": map[string]any{
			"globalResources": []any{map[string]any{"resourceName": "API Clients", "access": []string{"Read"}}},
			"products":        []string{"SuperSIM"},
		},
		"tenant": map[string]int{"id": 7},
	})
	assert.Equal(t, "https://issuer.example", claims.Issuer)
	assert.Equal(t, []string{"api-gw"}, claims.Audience)
	assert.Equal(t, "kc_1", claims.ClientID)
	assert.Equal(t, []string{"a", "b"}, claims.Scopes)
	assert.Equal(t, expiry, claims.Expiry)
	assert.Equal(t, []koreauth.Resource{{Name: "API Clients", Access: []koreauth.Access{koreauth.Read}}}, claims.Resources)
	assert.Equal(t, []string{"SuperSIM"}, claims.Products)

	// Validator's copy can be decoded too.
	decoded, err := koretest.Validator{Claims: claims}.Validate(t.Context(), "any")
	require.NoError(t, err)
	for _, c := range []*koreauth.Claims{claims, decoded} {
		var custom struct{ Tenant struct{ ID int } }
		require.NoError(t, c.Decode(&custom))
		assert.Equal(t, 7, custom.Tenant.ID)
	}
}

func TestClaims_AcceptsEmptyPayload(t *testing.T) {
	for name, payload := range map[string]map[string]any{"nil": nil, "empty": {}} {
		t.Run(name, func(t *testing.T) {
			var members map[string]any
			require.NoError(t, koretest.Claims(payload).Decode(&members))
			assert.Empty(t, members)
		})
	}
}

func TestClaims_PanicsOnProgrammerError(t *testing.T) {
	for name, test := range map[string]struct {
		payload map[string]any
		want    string
	}{
		"a value that JSON cannot encode": {map[string]any{"f": func() {}}, "koretest: Claims: cannot encode the payload: "},
		"a duplicate member":              {map[string]any{"o": json.RawMessage(`{"a":1,"a":2}`)}, "koretest: Claims: cannot read the payload: "},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				text, _ := recover().(string)
				assert.True(t, strings.HasPrefix(text, test.want), "got %q, want a text that begins with %q", text, test.want)
			}()
			koretest.Claims(test.payload)
		})
	}
}
