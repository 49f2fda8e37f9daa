package main

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// What gorilla/mux finds no route for stays outside Use. Who wants it guarded
// guards the router.
func TestUnmatchedRoutes(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
	open := newAPI(guard)
	closed := guard.Wrap(newAPI(guard))
	for _, test := range []struct {
		name, method, path string
		open, closed       int
	}{
		{"an unknown path", "GET", "/v1/nothing", 404, 401},
		{"a known path with another method", "PUT", "/v1/ping", 405, 401},
		{"a route", "GET", "/v1/ping", 401, 401},
		{"a route that is not guarded by itself", "GET", "/health", 200, 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			open.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
			assert.Equal(t, test.open, w.Code)
			w = httptest.NewRecorder()
			closed.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
			assert.Equal(t, test.closed, w.Code)
		})
	}
}

func TestOnlyOnesOwnSIMs(t *testing.T) {
	api := newAPI(koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil))
	for path, status := range map[string]int{"/v1/accounts/CO1/sims": 200, "/v1/accounts/CO2/sims": 403} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, path)
	}
}
