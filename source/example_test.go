package source_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gorilla/mux"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

// The body is restored, so the handler can read the form.
func ExampleForm() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Form("access_token")},
	})
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the handler reads the form:", r.FormValue("sim"))
	}))

	r := httptest.NewRequest("POST", "/", strings.NewReader("sim=7&access_token=abc"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: the handler reads the form: 7
}

// The body is restored, so the handler can decode it.
func ExampleJSON() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.JSON("token")},
	})
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ SIM string }
		fmt.Fprintln(w, json.NewDecoder(r.Body).Decode(&call), call.SIM)
	}))

	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"sim":"7","token":"abc"}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: <nil> 7
}

// URLs are logged and cached. The response says that shared caches must not store
// it.
func ExampleQuery() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Query("access_token")},
	})
	w := httptest.NewRecorder()
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})).
		ServeHTTP(w, httptest.NewRequest("GET", "/?access_token=abc", nil))
	fmt.Println(w.Code, w.Header().Get("Cache-Control"))
	// Output: 200 private
}

// A webhook whose URL contains the token.
func ExamplePath() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Path("token")},
	})
	api := http.NewServeMux()
	api.Handle("GET /hooks/{token}/sims", guard.Wrap(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })))

	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest("GET", "/hooks/abc/sims", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 served
}

// In gorilla/mux, path variables are set once the route is found. PathVars works
// with Router.Use and with a guard on a single route.
func ExamplePathVars() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.PathVars(mux.Vars, "token")},
	})
	router := mux.NewRouter()
	router.Use(guard.Wrap)
	router.HandleFunc("/hooks/{token}/sims", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })

	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequest("GET", "/hooks/abc/sims", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 served
}

// A browser sends cookies with requests that another site caused. Wrap the guard in
// http.CrossOriginProtection, which rejects such requests.
func ExampleCookie() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Cookie("access_token")},
	})
	handler := http.NewCrossOriginProtection().Handler(guard.Wrap(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})))

	r := httptest.NewRequest("POST", "/", nil)
	r.AddCookie(&http.Cookie{Name: "access_token", Value: "abc"})
	for _, site := range []string{"same-origin", "cross-site"} {
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(site, w.Code)
	}
	// Output:
	// same-origin 200
	// cross-site 403
}
