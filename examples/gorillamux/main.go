// Command gorillamux protects a gorilla/mux subrouter, a nested subrouter and
// single routes with one guard.
//
//	go run ./examples/gorillamux         # sends some requests, then serves until interrupted
//	go run ./examples/gorillamux -once   # sends the requests and exits
package main

import (
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

// newAPI returns the protected API.
func newAPI(guard *koreauth.Middleware) *mux.Router {
	r := mux.NewRouter()
	r.HandleFunc("/health", health) // public

	v1 := r.PathPrefix("/v1").Subrouter()
	v1.Use(guard.Wrap) // every route under /v1

	admin := v1.PathPrefix("/admin").Subrouter()
	admin.Use(guard.Require(koreauth.Grant("API Clients", koreauth.Read, koreauth.Write))) // every route under /v1/admin
	admin.Handle("/clients", hello).Methods("GET")

	v1.Handle("/accounts/{account}/sims", listSIMs(guard)).Methods("GET")
	v1.Handle("/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Delete))(hello)).Methods("DELETE")
	v1.Handle("/ping", hello).Methods("GET")
	return r
}

// listSIMs returns the SIMs of an account to clients of that account only. Refuse
// sends the response that the guard would send. The check could also be a
// koreauth.Requirement.
func listSIMs(guard *koreauth.Middleware) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		if claims.AccountID != mux.Vars(r)["account"] {
			guard.Refuse(w, r, koreauth.ErrForbidden)
			return
		}
		fmt.Fprintln(w, "the SIMs of", claims.AccountID)
	})
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintf(w, "hello, client %s of account %s\n", claims.ClientID, claims.AccountID)
})

func health(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up") }

// main runs the API with its own issuer and sends the requests in steps.
func main() {
	demo.Main(func(v koreauth.TokenValidator) http.Handler { return newAPI(koreauth.New(v, nil)) }, steps)
}

func steps(issuer *koretest.Issuer) []demo.Step {
	token := issuer.Valid()
	own := "/v1/accounts/" + issuer.Client().AccountID + "/sims"
	return []demo.Step{
		{Title: "A public route", Method: "GET", Path: "/health", Status: 200, Has: []string{"up"}},
		{Title: "A valid token", Method: "GET", Path: "/v1/ping", Token: token, Status: 200, Has: []string{"hello, client kc_demo"}},
		{Title: "No token", Method: "GET", Path: "/v1/ping", Status: 401, Body: demo.Unauthorized},
		{Title: `A grant to delete "API Clients", on a single route`, Method: "DELETE", Path: "/v1/clients/42", Token: token, Status: 200},
		{Title: "Without the grant", Method: "DELETE", Path: "/v1/clients/42", Token: issuer.Ungranted(), Status: 403, Body: demo.NoGrant},
		{Title: "A grant that a subrouter requires", Method: "GET", Path: "/v1/admin/clients", Token: token, Status: 200},
		{Title: "Without the grant, on the subrouter", Method: "GET", Path: "/v1/admin/clients", Token: issuer.Ungranted(), Status: 403, Body: demo.NoGrant},
		{Title: "The SIMs of the client's own account", Method: "GET", Path: own, Token: token, Status: 200},
		{Title: "The SIMs of another account: rejected by the handler", Method: "GET", Path: "/v1/accounts/CO2/sims", Token: token, Status: 403, Body: demo.Denied},
		{Title: "An unmatched path: gorilla/mux responds without calling the guard", Method: "GET", Path: "/v1/nothing", Status: 404},
		{Title: "An unmatched method: the same", Method: "PUT", Path: "/v1/ping", Status: 405},
	}
}
