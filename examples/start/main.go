// Command start is the smallest program that protects an API, as shown in the
// README. Replace Issuer with the URL of your realm: the issuer named here does not
// exist, so every request with a token gets the response 503.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/koreauth/koreauth"
)

func main() {
	log.Print("listening on 127.0.0.1:8080")
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", newAPI()))
}

func newAPI() http.Handler {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   "https://keycloak.example.com/realms/KORE-CIDP",
		Audience: []string{"api-gw"},
	})
	if err != nil {
		log.Fatal(err)
	}
	guard := koreauth.New(validator, nil)

	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", guard.Wrap(ping))
	mux.Handle("GET /v1/clients", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(listClients))
	mux.Handle("GET /v1/sims", guard.Require(koreauth.Product("SuperSIM"))(listSIMs))
	return mux
}

var ping = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "pong")
})

var listClients = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintln(w, "the API clients of", claims.AccountID)
})

var listSIMs = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintln(w, "the SIMs of", claims.AccountID)
})
