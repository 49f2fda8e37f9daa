// Command start is the smallest program that protects an API, as shown in the
// README. Replace Issuer with the URL of your realm: the issuer named here does not
// exist, so every request with a token gets the response 503.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/koreauth/koreauth"
)

func main() {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   "https://keycloak.example.com/realms/KORE-CIDP", // "iss" of your tokens
		Audience: []string{"api-gw"},                              // "aud" of your tokens
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := validator.Ready(context.Background()); err != nil {
		log.Print(err) // Start anyway: requests get 503 until the issuer's keys can be fetched.
	}
	log.Print("listening on http://127.0.0.1:8080")
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", newAPI(validator)))
}

func newAPI(validator koreauth.TokenValidator) http.Handler {
	guard := koreauth.New(validator, nil)
	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", guard.Wrap(http.HandlerFunc(hello))) // any valid token
	mux.Handle("GET /v1/clients", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(http.HandlerFunc(hello)))
	mux.Handle("GET /v1/sims", guard.Require(koreauth.Product("SuperSIM"))(http.HandlerFunc(hello)))
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintln(w, "hello, client", claims.ClientID, "of account", claims.AccountID)
}
