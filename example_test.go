package koreauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

// The start: a validator that knows the issuer, a guard, routes. In production
// Issuer is KORE's realm; here it is one that a test starts.
func Example() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
	})
	if err != nil {
		log.Fatal(err)
	}
	guard := koreauth.New(validator, nil)

	api := http.NewServeMux()
	api.Handle("GET /v1/clients", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, _ := koreauth.FromContext(r.Context())
			fmt.Fprintf(w, "the API clients that %s may see", claims.ClientID)
		})))

	for _, token := range []string{issuer.Valid(), issuer.Ungranted(), issuer.Expired(), ""} {
		r := httptest.NewRequest("GET", "/v1/clients", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 the API clients that kc_demo may see
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}
	// 401 {"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}
}

// One guard for every route of a gorilla router. Routes that need more than a
// good token say so themselves; nothing is verified twice.
func ExampleMiddleware_Wrap() {
	validator := koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1", Scopes: []string{"sims:read"}}}
	guard := koreauth.New(validator, nil)

	router := mux.NewRouter()
	router.Use(guard.Wrap)
	router.HandleFunc("/v1/ping", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pong") })
	router.Handle("/v1/sims", guard.Require(koreauth.Scope("sims:write"))(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "written") }),
	)).Methods("POST")

	for _, route := range []string{"GET /v1/ping", "POST /v1/sims"} {
		method, path, _ := strings.Cut(route, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		fmt.Println(route, w.Code)
	}
	// Output:
	// GET /v1/ping 200
	// POST /v1/sims 403
}

// Require authenticates too: a route needs no Wrap beside it.
func ExampleMiddleware_Require() {
	validator := koretest.Validator{Claims: &koreauth.Claims{
		Resources: []koreauth.Resource{{Name: "API Clients", Access: []koreauth.Access{koreauth.Read}}},
	}}
	guard := koreauth.New(validator, nil)
	done := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "done") })

	api := http.NewServeMux()
	api.Handle("GET /v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(done))
	api.Handle("DELETE /v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Delete))(done))

	for _, method := range []string{"GET", "DELETE"} {
		r := httptest.NewRequest(method, "/v1/clients/7", nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(method, w.Code)
		fmt.Println(w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// GET 200
	//
	// DELETE 403
	// Bearer realm="api", error="insufficient_scope", scope="API%20Clients:Delete"
}

// A price list for everybody, with a client's own prices for those who send a
// token. A bad token is refused all the same.
func ExampleMiddleware_WrapOptional() {
	prices := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if claims, ok := koreauth.FromContext(r.Context()); ok {
			fmt.Fprintf(w, "prices for %s", claims.AccountID)
			return
		}
		fmt.Fprint(w, "prices for everybody")
	})

	for _, request := range []struct {
		validator     koretest.Validator
		authorization string
	}{
		{koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, "Bearer good"},
		{koretest.Validator{Err: koreauth.ErrExpired}, "Bearer expired"},
		{koretest.Validator{}, ""},
	} {
		r := httptest.NewRequest("GET", "/prices", nil)
		r.Header.Set("Authorization", request.authorization)
		w := httptest.NewRecorder()
		koreauth.New(request.validator, nil).WrapOptional(prices).ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 prices for CO1
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}
	// 200 prices for everybody
}

// Where a handler cannot be wrapped, such as in a router with handlers of its
// own kind.
func ExampleMiddleware_Authenticate() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil)

	serve := func(w http.ResponseWriter, r *http.Request) {
		claims, err := guard.Authenticate(r)
		if err != nil {
			guard.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, "hello, ", claims.AccountID)
	}

	r := httptest.NewRequest("GET", "/", nil)
	for _, authorization := range []string{"Bearer any", "Basic dTpw"} {
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		serve(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 hello, CO1
	// 401 {"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}
}

// A handler judges what only it can know, and refuses as the guard does.
func ExampleMiddleware_Refuse() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil)

	api := http.NewServeMux()
	api.Handle("GET /v1/accounts/{id}", guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		if claims.AccountID != r.PathValue("id") {
			guard.Refuse(w, r, koreauth.ErrInsufficientScope)
			return
		}
		fmt.Fprint(w, "your account")
	})))

	for _, path := range []string{"/v1/accounts/CO1", "/v1/accounts/CO2"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 your account
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}
}

// In a handler behind Wrap or Require there always are claims.
func ExampleFromContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		claims, ok := koreauth.FromContext(r.Context())
		if !ok {
			http.Error(w, "this route has no guard", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, claims.ClientID, claims.AccountID, claims.Scopes)
	}

	validator := koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1", AccountID: "CO1", Scopes: []string{"email"}}}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	koreauth.New(validator, nil).Wrap(http.HandlerFunc(handler)).ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: kc_1 CO1 [email]
}

// A handler is tested without a guard, an issuer or a token.
func ExampleNewContext() {
	listSIMs := func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		fmt.Fprintf(w, "the SIMs of %s", claims.AccountID)
	}

	claims := &koreauth.Claims{AccountID: "CO1"}
	r := httptest.NewRequest("GET", "/v1/sims", nil)
	r = r.WithContext(koreauth.NewContext(r.Context(), claims))
	w := httptest.NewRecorder()
	listSIMs(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 the SIMs of CO1
}

// A log-in for developers that puts claims in front of a guard opens nothing:
// no guard believes NewContext. Give [koreauth.New] another TokenValidator
// instead, such as koretest's.
func ExampleNewContext_incorrect() {
	guard := koreauth.New(koretest.Validator{Err: koreauth.ErrSignature}, nil)
	guarded := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }))

	devLogin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims := &koreauth.Claims{ClientID: "developer"}
		guarded.ServeHTTP(w, r.WithContext(koreauth.NewContext(r.Context(), claims))) // Wrong.
	})

	w := httptest.NewRecorder()
	devLogin.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code)
	// Output: 401
}

// Behind WrapOptional there may be no claims: whoever does not look at ok
// serves a stranger as if he were somebody.
func ExampleMiddleware_WrapOptional_incorrect() {
	guard := koreauth.New(koretest.Validator{}, nil)
	listSIMs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := "all accounts"
		if claims, ok := koreauth.FromContext(r.Context()); ok {
			account = claims.AccountID
		}
		fmt.Fprintf(w, "the SIMs of %s", account)
	})

	for _, handler := range []http.Handler{
		guard.WrapOptional(listSIMs), // Wrong: who sends no token sees all.
		guard.Wrap(listSIMs),
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/sims", nil))
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 the SIMs of all accounts
	// 401 {"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}
}

// The answers of other KORE APIs, which carry a code of their own. Headers and
// the challenge stay the guard's business.
func ExampleErrorFormat() {
	format := func(_ *http.Request, err error) (status int, contentType string, body []byte) {
		status, contentType, _ = koreauth.KOREErrors(nil, err)
		answer := map[string]any{"status": status, "code": 30000, "message": http.StatusText(status)}
		if errors.Is(err, koreauth.ErrInsufficientScope) {
			answer["code"], answer["message"] = 30010, "Resource access is forbidden"
		}
		body, _ = json.Marshal(answer)
		return status, contentType, body
	}

	validator := koretest.Validator{Claims: &koreauth.Claims{}}
	guard := koreauth.New(validator, &koreauth.Options{Errors: format})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	guard.Require(koreauth.Product("SuperSIM"))(http.NotFoundHandler()).ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	fmt.Println(w.Header().Get("WWW-Authenticate"))
	// Output:
	// 403 {"code":30010,"message":"Resource access is forbidden","status":403}
	// Bearer realm="api", error="insufficient_scope", scope="SuperSIM"
}

func ExampleKOREErrors() {
	for _, err := range []error{koreauth.ErrNoToken, koreauth.ErrExpired, koreauth.ErrUnavailable} {
		status, contentType, body := koreauth.KOREErrors(nil, err)
		fmt.Println(status, contentType, string(body))
	}
	// Output:
	// 401 application/json {"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}
	// 403 application/json {"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}
	// 503 application/json {"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}
}

func ExampleRFC6750Errors() {
	guard := koreauth.New(koretest.Validator{Err: koreauth.ErrExpired}, &koreauth.Options{
		Realm: "SIMs", Errors: koreauth.RFC6750Errors,
	})
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="SIMs", error="invalid_token"
}

func ExampleProblemErrors() {
	status, contentType, body := koreauth.ProblemErrors(nil, koreauth.ErrInsufficientScope)
	fmt.Println(status, contentType, string(body))
	// Output: 403 application/problem+json {"type":"about:blank","title":"Forbidden","status":403,"error":"insufficient_scope"}
}

// The class answers, the reason counts.
func ExampleError() {
	guard := koreauth.New(koretest.Validator{Err: koreauth.ErrExpired}, nil)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer any")
	_, err := guard.Authenticate(r)

	fmt.Println(errors.Is(err, koreauth.ErrInvalidToken), errors.Is(err, koreauth.ErrExpired))
	var refusal *koreauth.Error
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Class)
		fmt.Println(refusal.Reason)
	}
	// Output:
	// true true
	// koreauth: invalid token
	// koreauth: invalid token: expired
}

// Some Kore.ai profiles send the token in a header of another name. Beside the
// Authorization header, which then has to be named too.
func ExampleHeader() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{koreauth.Header("Authorization"), koreauth.Header("X-Access-Token")},
	})

	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Access-Token", "abc")
	_, err := guard.Authenticate(r)
	fmt.Println(err)

	r.Header.Set("Authorization", "Bearer abc")
	_, err = guard.Authenticate(r)
	fmt.Println(err)
	// Output:
	// <nil>
	// koreauth: bad request: more than one token (RFC 6750 §2)
}

func ExampleForm() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Form("access_token")},
	})
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the handler can read the form:", r.FormValue("sim"))
	}))

	r := httptest.NewRequest("POST", "/", strings.NewReader("sim=7&access_token=abc"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: the handler can read the form: 7
}

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

// In gorilla/mux path variables are there once the route is found, so for
// Router.Use as well as for a single route.
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

// Browsers send a cookie with requests that another site made them send, so
// http.CrossOriginProtection stands outside the guard.
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

func ExampleScope() {
	claims := &koreauth.Claims{Scopes: []string{"sims:read", "email"}}
	fmt.Println(koreauth.Scope("sims:read").Check(nil, claims))
	fmt.Println(koreauth.Scope("sims:read", "sims:write").Check(nil, claims))
	// Output:
	// <nil>
	// koreauth: insufficient scope: requires sims:read sims:write
}

func ExampleAnyScope() {
	claims := &koreauth.Claims{Scopes: []string{"sims:read"}}
	fmt.Println(koreauth.AnyScope("sims:read", "sims:write").Check(nil, claims))
	// Output: <nil>
}

// What KORE's clients may do is in the scopes object of their tokens.
func ExampleGrant() {
	var claims koreauth.Claims
	if err := json.Unmarshal([]byte(`{
		"scopes": {"globalResources": [{"resourceName": "API Clients", "access": ["Read", "Write"]}]}
	}`), &claims); err != nil {
		log.Fatal(err)
	}
	fmt.Println(koreauth.Grant("API Clients", koreauth.Read, koreauth.Write).Check(nil, &claims))
	fmt.Println(koreauth.Grant("API Clients", koreauth.Delete).Check(nil, &claims))
	// Output:
	// <nil>
	// koreauth: insufficient scope: requires API Clients:Delete
}

func ExampleProduct() {
	claims := &koreauth.Claims{Products: []string{"SuperSIM"}}
	fmt.Println(koreauth.Product("SuperSIM").Check(nil, claims))
	fmt.Println(koreauth.Product("ProgrammableWireless").Check(nil, claims))
	// Output:
	// <nil>
	// koreauth: insufficient scope: requires ProgrammableWireless
}

// An admin client, or any client that has the product.
func ExampleAnyOf() {
	requirement := koreauth.AnyOf(
		koreauth.Grant("SIMs", koreauth.Read),
		koreauth.Product("SuperSIM"),
	)
	fmt.Println(requirement.Check(nil, &koreauth.Claims{Products: []string{"SuperSIM"}}))
	fmt.Println(requirement.Check(nil, &koreauth.Claims{}))
	// Output:
	// <nil>
	// koreauth: insufficient scope: requires SIMs:Read SuperSIM
}

// A requirement that has a name, to use on many routes.
func ExampleAllOf() {
	manageSIMs := koreauth.AllOf(
		koreauth.Product("SuperSIM"),
		koreauth.AnyOf(koreauth.Scope("sims:write"), koreauth.Grant("SIMs", koreauth.Write)),
	)
	fmt.Println(manageSIMs.Check(nil, &koreauth.Claims{Products: []string{"SuperSIM"}, Scopes: []string{"sims:write"}}))
	fmt.Println(manageSIMs.Check(nil, &koreauth.Claims{Scopes: []string{"sims:write"}}))
	// Output:
	// <nil>
	// koreauth: insufficient scope: requires SuperSIM sims:write SIMs:Write
}

// clientType is a requirement of one's own.
type clientType string

func (want clientType) Check(_ *http.Request, claims *koreauth.Claims) error {
	if claims.ClientType == string(want) {
		return nil
	}
	return &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"client-type:" + string(want)}}
}

// clientType, declared in the test file, compares the client-type claim.
func ExampleRequirement() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientType: "standard"}}, nil)
	handler := guard.Require(clientType("admin"))(http.NotFoundHandler())

	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer any")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 403 Bearer realm="api", error="insufficient_scope", scope="client-type:admin"
}

// Every fault is told at once.
func ExampleNewValidator() {
	_, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     "https://keycloak.example.com/realms/KORE-CIDP",
		Algorithms: []string{"RS256", "HS256"},
		Leeway:     -time.Second,
	})
	fmt.Println(err)
	// Output:
	// koreauth: Config.Audience is empty: set it to the "aud" that tokens for this API have, such as api-gw
	// koreauth: Config.Leeway is negative: set zero for none, or more
	// koreauth: Config.Algorithms has "HS256", which no public key can verify: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA or Ed25519
}

// A readiness probe: the API is ready once it can judge tokens.
func ExampleValidator_Ready() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{"api-gw"}})
	if err != nil {
		log.Fatal(err)
	}

	probes := http.NewServeMux()
	probes.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := validator.Ready(r.Context()); err != nil {
			http.Error(w, "no keys yet", http.StatusServiceUnavailable)
		}
	})
	w := httptest.NewRecorder()
	probes.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	fmt.Println(w.Code)
	// Output: 200
}

// Keys from a file that is deployed with the API: no request is ever made.
func ExampleParseKeys() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	document := issuer.JWKS() // from os.ReadFile, in earnest

	keys, err := koreauth.ParseKeys(document)
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Keys:     koreauth.StaticKeySet(keys),
	})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := validator.Validate(context.Background(), issuer.Valid())
	fmt.Println(claims.ClientID, err)
	// Output: kc_demo <nil>
}

// A public key that is at hand as such.
func ExampleStaticKeySet() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	key := issuer.SigningKey()

	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Keys:     koreauth.StaticKeySet{{ID: key.ID, Algorithm: "RS256", Public: key.Public()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = validator.Validate(context.Background(), issuer.Valid())
	fmt.Println(err)
	// Output: <nil>
}

// A key set of one's own, where its intervals do not suit.
func ExampleRemoteKeySet() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Keys: &koreauth.RemoteKeySet{
			URL:      issuer.KeysURL(),
			MaxAge:   time.Hour,
			MaxStale: 7 * 24 * time.Hour,
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(validator.Ready(context.Background()))
	// Output: <nil>
}

// Claims that have no field.
func ExampleClaims_Decode() {
	var claims koreauth.Claims
	if err := json.Unmarshal([]byte(`{"sub":"s","twilio-sid":"devportalSIDtest","email_verified":false}`), &claims); err != nil {
		log.Fatal(err)
	}

	var more struct {
		TwilioSID     string `json:"twilio-sid"`
		EmailVerified bool   `json:"email_verified"`
	}
	if err := claims.Decode(&more); err != nil {
		log.Fatal(err)
	}
	fmt.Println(more.TwilioSID, more.EmailVerified)
	// Output: devportalSIDtest false
}

// In a log, claims show no secret and no e-mail.
func ExampleClaims_String() {
	claims := &koreauth.Claims{
		Issuer: "https://keycloak.example.com/realms/KORE-CIDP", Subject: "74663e17", ClientID: "kc_1", AccountID: "CO1",
		ClientOwner: "owner@example.com",
	}
	fmt.Println(claims)
	// Output: Claims{Issuer:"https://keycloak.example.com/realms/KORE-CIDP" Subject:"74663e17" ClientID:"kc_1" AccountID:"CO1"}
}
