package iprange_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/iprange"
	"github.com/koreauth/koreauth/koretest"
)

func ExampleWithin() {
	validator := koretest.Validator{Claims: &koreauth.Claims{IPRanges: []string{"203.0.113.0/24", "10.0.0.1-10.0.0.9"}}}
	guard := koreauth.New(validator, &koreauth.Options{Require: []koreauth.Requirement{iprange.Within(nil)}})
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "welcome") }))
	for _, address := range []string{"203.0.113.9:4000", "198.51.100.7:4000"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer a.b.c")
		r.RemoteAddr = address
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 welcome
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}
}

func ExampleRange() {
	strict := &iprange.Range{Required: true}
	fmt.Println(strict.Check(httptest.NewRequest(http.MethodGet, "/", nil), &koreauth.Claims{}))
	// Output: koreauth: forbidden: the token has no "ip-range", which is required
}
