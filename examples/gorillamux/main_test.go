package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// gorilla/mux does not call middleware added with Use if no route matches. To
// protect these requests as well, wrap the router.
func TestNewAPI_UnmatchedRoutes(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
	api := newAPI(guard)
	wrapped := guard.Wrap(api)
	for _, test := range []struct {
		name, method, path string
		api, wrapped       int
	}{
		{"an unmatched path", "GET", "/v1/nothing", 404, 401},
		{"an unmatched method", "PUT", "/v1/ping", 405, 401},
		{"a protected route", "GET", "/v1/ping", 401, 401},
		{"a public route", "GET", "/health", 200, 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
			assert.Equal(t, test.api, w.Code)
			w = httptest.NewRecorder()
			wrapped.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
			assert.Equal(t, test.wrapped, w.Code)
		})
	}
}

func TestListSIMs_RejectsOtherAccounts(t *testing.T) {
	api := newAPI(koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil))
	for path, status := range map[string]int{"/v1/accounts/CO1/sims": 200, "/v1/accounts/CO2/sims": 403} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, path)
	}
}
