// Command nethttp guards the routes of a net/http.ServeMux, each with what it
// requires, and lets a browser application of another origin call them.
//
//	go run ./examples/nethttp         # some requests, then serves until interrupted
//	go run ./examples/nethttp -once   # the requests alone
package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

// newAPI is the guarded API. Which validator it asks is for its caller to say:
// a test has another than the program.
func newAPI(validator koreauth.TokenValidator) http.Handler {
	guard := koreauth.New(validator, nil)

	// Any good token.
	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", guard.Wrap(hello))
	// Every access named, to the resource of that name.
	mux.Handle("PUT /v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Read, koreauth.Modify))(hello))
	// All of several requirements.
	mux.Handle("DELETE /v1/sims/{id}", guard.Require(koreauth.Product("SuperSIM"), koreauth.Scope("sims:delete"))(hello))
	// One of several.
	mux.Handle("GET /v1/sims", guard.Require(koreauth.AnyOf(koreauth.Product("SuperSIM"), koreauth.Scope("sims:read")))(hello))
	// A requirement of one's own.
	mux.Handle("GET /v1/invoices", guard.Require(clientType("admin"))(hello))
	// Without a token too; a bad one is refused all the same.
	mux.Handle("GET /v1/coverage", guard.WrapOptional(hello))

	// CORS goes outside: a browser's preflight carries no token.
	return allowOrigin("https://portal.example.com", mux)
}

// clientType requires the client to be of that KORE type.
type clientType string

// Check implements koreauth.Requirement.
func (t clientType) Check(claims *koreauth.Claims) error {
	if claims.ClientType != string(t) {
		return errors.New("a client of another type")
	}
	return nil
}

// hello tells the caller whom the guard let in.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, ok := koreauth.FromContext(r.Context())
	if !ok {
		fmt.Fprintln(w, "hello, whoever you are")
		return
	}
	fmt.Fprintf(w, "hello, client %s of account %s\n", claims.ClientID, claims.AccountID)
})

// allowOrigin lets the pages of one origin call next, and read why they were
// refused. It answers preflights itself (Fetch Standard, "CORS protocol").
func allowOrigin(origin string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		if r.Header.Get("Origin") == origin {
			header.Set("Access-Control-Allow-Origin", origin)
			header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
		}
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Methods", "GET, PUT, DELETE")
		header.Set("Access-Control-Allow-Headers", "Authorization")
		w.WriteHeader(http.StatusNoContent)
	})
}

// main demonstrates it, with an issuer of its own.
func main() {
	demo.Main(newAPI, steps)
}

func steps(issuer *koretest.Issuer) []demo.Step {
	token := issuer.Valid()
	return []demo.Step{
		{Title: "A good token", Method: "GET", Path: "/v1/ping", Token: token, Status: 200, Has: []string{"hello, client kc_demo"}},
		{Title: "No token", Method: "GET", Path: "/v1/ping", Status: 401, Body: demo.Unauthorized},
		{Title: `A grant to read and modify "API Clients"`, Method: "PUT", Path: "/v1/clients/42", Token: token, Status: 200},
		{Title: "No such grant", Method: "PUT", Path: "/v1/clients/42", Token: issuer.Ungranted(), Status: 403, Body: demo.NoGrant},
		{Title: "The product, but not the scope, where both are required", Method: "DELETE", Path: "/v1/sims/7", Token: token, Status: 403, Body: demo.NoGrant},
		{Title: "The product, where either will do", Method: "GET", Path: "/v1/sims", Token: token, Status: 200},
		{Title: "A requirement of one's own", Method: "GET", Path: "/v1/invoices", Token: token, Status: 200},
		{Title: "No token, where it is optional", Method: "GET", Path: "/v1/coverage", Status: 200, Has: []string{"whoever you are"}},
		{Title: "A bad token, where it is optional", Method: "GET", Path: "/v1/coverage", Token: issuer.Expired(), Status: 403, Body: demo.Forbidden},
	}
}
