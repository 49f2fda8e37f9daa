package revocation_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

// Only operators may revoke: mount the handler behind a guard that requires a grant.
func ExampleHandler() {
	store, revoked := revocation.Memory(), new(revocation.List)
	validator := koretest.Validator{Claims: &koreauth.Claims{
		ClientID: "kc_operator", Resources: []koreauth.Resource{{Name: "Revocations", Access: []koreauth.Access{koreauth.Write}}},
	}}
	operators := koreauth.New(validator, nil).Require(koreauth.Grant("Revocations", koreauth.Write))

	mux := http.NewServeMux()
	mux.Handle("/v1/revocations", operators(revocation.Handler(store, revoked)))

	r := httptest.NewRequest("POST", "/v1/revocations", strings.NewReader(
		`{"issuer":"https://keycloak.example.com/realms/KORE-CIDP","token":"trrtcc:7f0c2b51","reason":"leaked"}`))
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)

	var receipt revocation.Receipt
	if err := json.Unmarshal(w.Body.Bytes(), &receipt); err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Code, receipt.Seq, receipt.Rule.Token, receipt.Rule.By)
	// Output: 201 1 trrtcc:7f0c2b51 kc_operator
}

// Without a guard, nobody can use the handler.
func ExampleHandler_incorrect() {
	handler := revocation.Handler(revocation.Memory(), new(revocation.List))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code)
	// Output: 403
}
