// Command nethttp protects the routes of a net/http.ServeMux, each with its own
// requirements, and allows a browser application of another origin to call them.
//
//	go run ./examples/nethttp         # sends some requests, then serves until interrupted
//	go run ./examples/nethttp -once   # sends the requests and exits
package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

// newAPI returns the protected API. It takes the validator as a parameter so that
// tests can pass a koretest.Validator.
func newAPI(validator koreauth.TokenValidator) http.Handler {
	guard := koreauth.New(validator, nil)

	// Any valid token.
	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", guard.Wrap(hello))
	// All of the listed permissions on the resource.
	mux.Handle("PUT /v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Read, koreauth.Modify))(hello))
	// Several requirements: all must be met.
	mux.Handle("DELETE /v1/sims/{id}", guard.Require(koreauth.Product("SuperSIM"), koreauth.Scope("sims:delete"))(hello))
	// Several requirements: one must be met.
	mux.Handle("GET /v1/sims", guard.Require(koreauth.AnyOf(koreauth.Product("SuperSIM"), koreauth.Scope("sims:read")))(hello))
	// A custom requirement.
	mux.Handle("GET /v1/invoices", guard.Require(clientType("admin"))(hello))
	// The token is optional. An invalid token is still rejected.
	mux.Handle("GET /v1/coverage", guard.WrapOptional(hello))

	// CORS goes outside the guard: a preflight request carries no token.
	return allowOrigin("https://portal.example.com", mux)
}

// clientType requires the client-type claim to have this value.
type clientType string

// Check implements koreauth.Requirement.
func (t clientType) Check(_ *http.Request, claims *koreauth.Claims) error {
	if claims.ClientType != string(t) {
		return errors.New("wrong client type")
	}
	return nil
}

// hello greets the client named in the token, if there is a token.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, ok := koreauth.FromContext(r.Context())
	if !ok {
		fmt.Fprintln(w, "hello, anonymous caller")
		return
	}
	fmt.Fprintf(w, "hello, client %s of account %s\n", claims.ClientID, claims.AccountID)
})

// allowOrigin allows pages of one origin to call next and to read error responses.
// It responds to preflight requests itself (Fetch Standard, "CORS protocol").
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

// main runs the API with its own issuer and sends the requests in steps.
func main() {
	demo.Main(newAPI, steps)
}

func steps(issuer *koretest.Issuer) []demo.Step {
	token := issuer.Valid()
	return []demo.Step{
		{Title: "A valid token", Method: "GET", Path: "/v1/ping", Token: token, Status: 200, Has: []string{"hello, client kc_demo"}},
		{Title: "No token", Method: "GET", Path: "/v1/ping", Status: 401, Body: demo.Unauthorized},
		{Title: `A grant to read and modify "API Clients"`, Method: "PUT", Path: "/v1/clients/42", Token: token, Status: 200},
		{Title: "No such grant", Method: "PUT", Path: "/v1/clients/42", Token: issuer.Ungranted(), Status: 403, Body: demo.NoGrant},
		{Title: "The product without the scope, where both are required", Method: "DELETE", Path: "/v1/sims/7", Token: token, Status: 403, Body: demo.NoGrant},
		{Title: "The product, where the product or the scope is required", Method: "GET", Path: "/v1/sims", Token: token, Status: 200},
		{Title: "A custom requirement", Method: "GET", Path: "/v1/invoices", Token: token, Status: 200},
		{Title: "No token, where the token is optional", Method: "GET", Path: "/v1/coverage", Status: 200, Has: []string{"anonymous caller"}},
		{Title: "An expired token, where the token is optional", Method: "GET", Path: "/v1/coverage", Token: issuer.Expired(), Status: 403, Body: demo.Forbidden},
	}
}
