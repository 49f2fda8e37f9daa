package keycloak_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/keycloak"
)

// The admin URL of the client api-gw is https://api.example.com/keycloak.
func ExamplePushNotBefore() {
	store := revocation.Memory() // the one that the List follows

	mux := http.NewServeMux()
	mux.Handle("POST /keycloak/k_push_not_before", keycloak.PushNotBefore(store, keycloak.Config{
		Issuer:   "https://keycloak.example.com/realms/KORE-CIDP",
		ClientID: "api-gw",
	}))

	// Only the realm can push.
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("POST", "/keycloak/k_push_not_before", strings.NewReader("not signed")))
	fmt.Println(w.Code, w.Body)
	// Output: 400 {"error":"invalid_request","error_description":"The body is not a signed JWT"}
}
