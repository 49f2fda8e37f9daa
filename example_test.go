package koreauth_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

// A validator for one issuer, a guard, and a route. In production, Issuer is the
// URL of KORE's realm. Here koretest starts an issuer.
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

// One guard for all routes of a gorilla/mux router. A route that needs more than a
// valid token adds Require. The token is verified once.
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

// Require also authenticates, so a route with Require does not need Wrap.
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

// The price list is public, and clients that send a token get their own prices. A
// request with an invalid token is rejected.
func ExampleMiddleware_WrapOptional() {
	prices := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if claims, ok := koreauth.FromContext(r.Context()); ok {
			fmt.Fprintf(w, "prices for %s", claims.AccountID)
			return
		}
		fmt.Fprint(w, "public prices")
	})

	for _, request := range []struct {
		validator     koretest.Validator
		authorization string
	}{
		{koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, "Bearer valid"},
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
	// 200 public prices
}

// Use Authenticate if a handler cannot be wrapped, for example in a framework with
// its own handler type.
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

// A public page greets visitors whose cookie has a valid token. WrapOptional would
// reject an expired one; Authenticate lets the page decide.
func ExampleMiddleware_Authenticate_publicPage() {
	guard := koreauth.New(koretest.Validator{Tokens: map[string]*koreauth.Claims{"valid": {ClientID: "kc_1"}}}, &koreauth.Options{
		Sources: []koreauth.Source{source.Cookie("session")},
	})
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private") // Authenticate sets no header.
		claims, err := guard.Authenticate(r)
		switch {
		case err == nil:
			fmt.Fprint(w, "welcome back, ", claims.ClientID)
		case errors.Is(err, koreauth.ErrUnavailable):
			guard.Refuse(w, r, err)
		default: // no cookie, or an expired one
			fmt.Fprint(w, "welcome")
		}
	})

	for _, cookie := range []string{"session=valid", "session=expired", ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 welcome back, kc_1
	// 200 welcome
	// 200 welcome
}

// A handler checks what only it knows, and rejects the request as the guard does.
// Another token of the same client would not help, so the error is ErrForbidden.
func ExampleMiddleware_Refuse() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil)

	api := http.NewServeMux()
	api.Handle("GET /v1/accounts/{id}", guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		if claims.AccountID != r.PathValue("id") {
			guard.Refuse(w, r, koreauth.ErrForbidden)
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
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}
}

// Behind Wrap and Require there are always claims. The check of ok finds a route
// without a guard.
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

// Test a handler without a guard, an issuer or a token.
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

// A guard ignores the claims of NewContext, so they cannot replace a token during
// development. Give [koreauth.New] another TokenValidator instead, such as
// koretest.Validator.
func ExampleNewContext_incorrect() {
	guard := koreauth.New(koretest.Validator{Err: koreauth.ErrSignature}, nil)
	guarded := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "done") }))

	devLogin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims := &koreauth.Claims{ClientID: "developer"}
		guarded.ServeHTTP(w, r.WithContext(koreauth.NewContext(r.Context(), claims))) // Wrong.
	})

	w := httptest.NewRecorder()
	devLogin.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code)
	// Output: 401
}

// Behind WrapOptional there may be no claims. This handler treats an anonymous
// caller as an administrator.
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
		guard.WrapOptional(listSIMs), // Wrong: without a token, all accounts are shown.
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

// Other KORE APIs put a code into the body of an error. This format does so, and
// adds the trace ID of the request. The guard sets the challenge and the other
// headers.
func ExampleErrorFormat() {
	format := func(r *http.Request, err error) (status int, contentType string, body []byte) {
		status, contentType, _ = koreauth.KOREErrors(r, err)
		answer := map[string]any{"status": status, "code": 30000, "message": http.StatusText(status), "trace": r.Header.Get("Traceparent")}
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
	r.Header.Set("Traceparent", "00-7b2a-51c9-01")
	guard.Require(koreauth.Product("SuperSIM"))(http.NotFoundHandler()).ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	fmt.Println(w.Header().Get("WWW-Authenticate"))
	// Output:
	// 403 {"code":30010,"message":"Resource access is forbidden","status":403,"trace":"00-7b2a-51c9-01"}
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

// The class decides the response. The reason is for logs and metrics.
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

// Some Kore.ai profiles send the token in another header. Sources replaces the
// Authorization header, so this example lists both.
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

// Behind a gateway that uses Authorization for itself, clients send the token in another
// header. The scheme Bearer may be there or not.
func ExampleHeader_withScheme() {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1"}}, &koreauth.Options{
		Sources: []koreauth.Source{koreauth.Header("X-Authorization")},
	})

	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Basic Z2F0ZXdheTpzZWNyZXQ=")
	for _, value := range []string{"Bearer abc", "abc", "Bearer"} {
		r.Header.Set("X-Authorization", value)
		claims, err := guard.Authenticate(r)
		fmt.Println(value, "→", claims, err)
	}
	// Output:
	// Bearer abc → Claims{Issuer:"" Subject:"" ClientID:"kc_1" AccountID:""} <nil>
	// abc → Claims{Issuer:"" Subject:"" ClientID:"kc_1" AccountID:""} <nil>
	// Bearer → <nil> koreauth: bad request: X-Authorization is Bearer without a token
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

// KORE's tokens list the permissions of a client in the scopes object.
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

// A client with the grant, or with the product.
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

// A requirement with a name, for use on several routes.
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

// clientType is a custom requirement.
type clientType string

func (want clientType) Check(_ *http.Request, claims *koreauth.Claims) error {
	if claims.ClientType == string(want) {
		return nil
	}
	return &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"client-type:" + string(want)}}
}

// A custom requirement: clientType compares the client-type claim. Required tells
// the client what it lacks.
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

// A requirement may use the request: here the account in the path must be that of
// the client. Another token of the client would not help, so the error is
// ErrForbidden.
func ExampleRequirementFunc() {
	ownAccount := koreauth.RequirementFunc(func(r *http.Request, claims *koreauth.Claims) error {
		if r.PathValue("account") != claims.AccountID {
			return koreauth.ErrForbidden
		}
		return nil
	})

	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{AccountID: "CO1"}}, nil)
	api := http.NewServeMux()
	api.Handle("GET /v1/accounts/{account}/sims", guard.Require(ownAccount)(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "your SIMs") })))

	for _, account := range []string{"CO1", "CO2"} {
		r := httptest.NewRequest("GET", "/v1/accounts/"+account+"/sims", nil)
		r.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 your SIMs
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}
}

// A requirement that returns nil after a failed look-up accepts every token during
// an outage, revoked tokens too. Return ErrUnavailable instead: the client gets 503
// and retries.
func ExampleRequirement_incorrect() {
	isRevoked := func(id string) (bool, error) { return false, errors.New("the database is down") }

	wrong := koreauth.RequirementFunc(func(_ *http.Request, claims *koreauth.Claims) error {
		if revoked, err := isRevoked(claims.ID); err == nil && revoked {
			return koreauth.ErrRevoked
		}
		return nil // Wrong: the look-up may have failed.
	})
	right := koreauth.RequirementFunc(func(_ *http.Request, claims *koreauth.Claims) error {
		switch revoked, err := isRevoked(claims.ID); {
		case err != nil:
			return fmt.Errorf("%w: %w", koreauth.ErrUnavailable, err)
		case revoked:
			return koreauth.ErrRevoked
		}
		return nil
	})

	claims := &koreauth.Claims{ID: "ebf11282"}
	fmt.Println(wrong.Check(nil, claims))
	fmt.Println(right.Check(nil, claims))
	// Output:
	// <nil>
	// koreauth: temporarily unavailable: the database is down
}

// The forbidden class tells the client that another token would not help, so the
// response has no challenge. Compare it with insufficient scope.
func ExampleError_forbidden() {
	guard := koreauth.New(koretest.Validator{}, nil)
	for _, err := range []error{koreauth.ErrInsufficientScope, koreauth.ErrForbidden} {
		w := httptest.NewRecorder()
		guard.Refuse(w, httptest.NewRequest("GET", "/", nil), err)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// 403 "Bearer realm=\"api\", error=\"insufficient_scope\""
	// 403 ""
}

// Reject revoked tokens. The requirement is checked for every request, and also for
// tokens that the Validator remembers.
func ExampleConfig_require() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	var revoked sync.Map // the IDs of revoked tokens
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Require: []koreauth.Requirement{koreauth.RequirementFunc(func(_ *http.Request, claims *koreauth.Claims) error {
			if _, found := revoked.Load(claims.ID); found {
				return koreauth.ErrRevoked
			}
			return nil
		})},
	})
	if err != nil {
		log.Fatal(err)
	}

	token := issuer.Valid()
	claims, err := validator.Validate(context.Background(), token)
	fmt.Println(err)

	revoked.Store(claims.ID, true)
	_, err = validator.Validate(context.Background(), token)
	fmt.Println(err)
	fmt.Println(errors.Is(err, koreauth.ErrRevoked), errors.Is(err, koreauth.ErrInvalidToken))
	// Output:
	// <nil>
	// koreauth: invalid token: revoked
	// true true
}

// Accept opaque tokens beside those that the issuer signs. In production, Opaque
// asks the introspection endpoint of the issuer. Here koretest knows one token.
func ExampleConfig_opaque() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Opaque:   koretest.Validator{Tokens: map[string]*koreauth.Claims{"2YotnFZFEjr1zCsicMWpAA": {ClientID: "kc_opaque"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, token := range []string{issuer.Valid(), "2YotnFZFEjr1zCsicMWpAA"} {
		claims, err := validator.Validate(context.Background(), token)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(claims.ClientID)
	}
	// Output:
	// kc_demo
	// kc_opaque
}

// A Sender for tokens that are bound to a client certificate (RFC 8705 §3.1). It
// rejects tokens that are bound to a DPoP key, because it cannot confirm that key.
func ExampleConfirmation() {
	sender := koreauth.RequirementFunc(func(r *http.Request, claims *koreauth.Claims) error {
		switch bound := claims.Confirmation; {
		case bound == nil:
			return nil // The token is not bound.
		case bound.KeySHA256 != "", r.TLS == nil, len(r.TLS.PeerCertificates) == 0:
			return koreauth.ErrBinding
		default:
			thumbprint := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
			if base64.RawURLEncoding.EncodeToString(thumbprint[:]) != bound.CertificateSHA256 {
				return koreauth.ErrBinding
			}
			return nil
		}
	})

	claims := &koreauth.Claims{Confirmation: &koreauth.Confirmation{CertificateSHA256: "1ccHsMy5uK_ZAuDZAOvRJ0dmTe0Meu-_zbScjiBy_N8"}}
	guard := koreauth.New(koretest.Validator{Claims: claims}, &koreauth.Options{Sender: sender})
	for _, certificate := range []string{"the client's certificate", "another certificate"} {
		r := httptest.NewRequest("GET", "https://api.example.com/", nil)
		r.Header.Set("Authorization", "Bearer any")
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(certificate)}}}
		_, err := guard.Authenticate(r)
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// koreauth: invalid token: sender not confirmed
}

// A Sender is checked for unbound tokens too. This one accepts bound tokens only,
// and leaves the confirmation of the key to another requirement.
func ExampleOptions_sender() {
	bound := koreauth.RequirementFunc(func(_ *http.Request, claims *koreauth.Claims) error {
		if claims.Confirmation == nil {
			return koreauth.ErrBinding
		}
		return nil
	})
	hasKey := koreauth.RequirementFunc(func(r *http.Request, claims *koreauth.Claims) error {
		if r.Header.Get("X-Key") != claims.Confirmation.KeySHA256 { // In production: verify a proof (RFC 9449).
			return koreauth.ErrBinding
		}
		return nil
	})
	guard := koreauth.New(koretest.Validator{Tokens: map[string]*koreauth.Claims{
		"bound":   {Confirmation: &koreauth.Confirmation{KeySHA256: "thumbprint"}},
		"unbound": {},
	}}, &koreauth.Options{Sender: koreauth.AllOf(bound, hasKey)})

	for _, token := range []string{"bound", "unbound"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Key", "thumbprint")
		_, err := guard.Authenticate(r)
		fmt.Println(token, err)
	}
	// Output:
	// bound <nil>
	// unbound koreauth: invalid token: sender not confirmed
}

// A requirement for every request: its address must be in the ip-range claim, if
// the token has one. An entry that is not a range matches no address.
func ExampleOptions_require() {
	inRange := koreauth.RequirementFunc(func(r *http.Request, claims *koreauth.Claims) error {
		if len(claims.IPRanges) == 0 {
			return nil
		}
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return koreauth.ErrForbidden
		}
		for _, entry := range claims.IPRanges {
			if prefix, err := netip.ParsePrefix(entry); err == nil && prefix.Contains(peer.Addr().Unmap()) {
				return nil
			}
		}
		return koreauth.ErrForbidden
	})
	validator := koretest.Validator{Claims: &koreauth.Claims{IPRanges: []string{"10.0.0.0/8"}}}
	guard := koreauth.New(validator, &koreauth.Options{Require: []koreauth.Requirement{inRange}})

	for _, peer := range []string{"10.1.2.3:50000", "192.0.2.1:50000"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer any")
		r.RemoteAddr = peer
		_, err := guard.Authenticate(r)
		fmt.Println(peer, err)
	}
	// Output:
	// 10.1.2.3:50000 <nil>
	// 192.0.2.1:50000 koreauth: forbidden
}

// Clients find the authorization server of the API in its metadata (RFC 9728).
func ExampleOptions_resourceMetadata() {
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{
		ResourceMetadata: "https://api.example.com/.well-known/oauth-protected-resource",
	})
	w := httptest.NewRecorder()
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Header().Get("WWW-Authenticate"))
	// Output: Bearer realm="api", resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"
}

// Options.Logger logs rejected requests only. Observe sees accepted ones too.
func ExampleOptions_observe() {
	validator := koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_1", AccountID: "CO1"}}
	guard := koreauth.New(validator, &koreauth.Options{
		Observe: func(r *http.Request, o koreauth.Outcome) {
			if o.Claims != nil {
				fmt.Println("accepted", r.Method, r.URL.Path, "from", o.Claims.ClientID)
			}
		},
	})
	r := httptest.NewRequest("GET", "/v1/sims", nil)
	r.Header.Set("Authorization", "Bearer any")
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	// Output: accepted GET /v1/sims from kc_1
}

// Count the decisions. In production, the counters are those of a metrics library,
// and Took goes into a histogram.
func ExampleOutcome() {
	counters := make(map[string]int)
	guard := koreauth.New(koretest.Validator{Tokens: map[string]*koreauth.Claims{"valid": {ClientID: "kc_1"}}}, &koreauth.Options{
		Observe: func(_ *http.Request, o koreauth.Outcome) {
			switch {
			case o.Refusal == nil && o.Claims == nil:
				counters["no token, accepted by WrapOptional"]++
			case o.Refusal == nil:
				counters["accepted"]++
			default:
				counters[o.Refusal.Class.Error()]++
			}
		},
	})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, wrap := range []func(http.Handler) http.Handler{guard.Wrap, guard.WrapOptional} {
		for _, authorization := range []string{"Bearer valid", "Bearer forged", ""} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", authorization)
			wrap(handler).ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		fmt.Println(counters[name], name)
	}
	// Output:
	// 2 accepted
	// 2 koreauth: invalid token
	// 1 koreauth: no token
	// 1 no token, accepted by WrapOptional
}

// An access log outside the guard sees every request, also those that are rejected. The
// claims are only in the context of inner handlers, so Observe hands the caller out.
func ExampleOutcome_accessLog() {
	type callerKey struct{}
	guard := koreauth.New(koretest.Validator{Tokens: map[string]*koreauth.Claims{"valid": {ClientID: "kc_1"}}}, &koreauth.Options{
		Observe: func(r *http.Request, o koreauth.Outcome) {
			if caller, ok := r.Context().Value(callerKey{}).(*string); ok && o.Claims != nil {
				*caller = o.Claims.ClientID
			}
		},
	})
	accessLog := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller := "-"
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller))
			next.ServeHTTP(w, r)
			fmt.Println(r.Method, r.URL.Path, r.Pattern, caller)
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sims/{id}", func(http.ResponseWriter, *http.Request) {})
	handler := accessLog(guard.Wrap(mux))

	for _, token := range []string{"valid", "expired"} {
		r := httptest.NewRequest("GET", "/v1/sims/7", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	// Output:
	// GET /v1/sims/7 GET /v1/sims/{id} kc_1
	// GET /v1/sims/7  -
}

// The error lists all faults of the Config.
func ExampleNewValidator() {
	_, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     "https://keycloak.example.com/realms/KORE-CIDP",
		Algorithms: []string{"RS256", "HS256"},
		Leeway:     -time.Second,
	})
	fmt.Println(err)
	// Output:
	// koreauth: Config.Audience is empty: set it to the "aud" that tokens for this API have, such as api-gw
	// koreauth: Config.Leeway is negative: set it to zero or more
	// koreauth: Config.Algorithms has "HS256", which no public key can verify: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA or Ed25519
}

// Each Config is one issuer, selected by the "iss" of the token.
func ExampleNewValidator_severalIssuers() {
	var configs []koreauth.Config
	var tokens []string
	for _, url := range []string{"https://one.example", "https://two.example"} {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: url})
		if err != nil {
			log.Fatal(err)
		}
		configs = append(configs, koreauth.Config{
			Issuer:     issuer.URL(),
			Audience:   []string{"api-gw"},
			HTTPClient: issuer.HTTPClient(), // not needed in production
		})
		tokens = append(tokens, issuer.Valid())
	}

	validator, err := koreauth.NewValidator(configs...)
	if err != nil {
		log.Fatal(err)
	}
	for _, token := range tokens {
		claims, err := validator.Validate(context.Background(), token)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(claims.Issuer)
	}
	// Output:
	// https://one.example/realms/KORE-CIDP
	// https://two.example/realms/KORE-CIDP
}

// A readiness probe: the API is ready once it has keys.
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

// Why is a token rejected? Explain shows each check, and what to do.
func ExampleValidator_Explain() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{"reports"},
		HTTPClient: issuer.HTTPClient(), // not needed in production
	})
	if err != nil {
		log.Fatal(err)
	}

	explanation := validator.Explain(context.Background(), issuer.Valid(), koreauth.Scope("sims:read"))
	fmt.Println(explanation.Err)
	for _, step := range explanation.Steps {
		if step.Verdict != "pass" {
			fmt.Printf("%s: want %s, found %s\n%s\n", step.Name, step.Want, step.Found, step.Hint)
		}
	}
	// Output:
	// koreauth: invalid token: wrong audience
	// audience: want "reports", found "api-gw": wrong audience
	// get a token for this API, or add an audience mapper for it to the client at the issuer
	// requirement: want sims:read, found scopes "email"; grants "API Clients:Read" "API Clients:Write" "API Clients:Modify" "API Clients:Delete"; products "SuperSIM" "ProgrammableWireless": insufficient scope: requires sims:read
	// grant it to the client at the issuer; if that was done since the token was issued, a new token is needed
}

// An Explanation prints as a table, for a terminal.
func ExampleExplanation_String() {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: "https://issuer.example/realms/KORE-CIDP", Audience: []string{"api-gw"},
		JWKSURL: "https://issuer.example/keys",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(validator.Explain(context.Background(), `"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"`))
	// Output:
	// rejected: invalid token: malformed
	//
	// FAIL    form        3 segments, 51 bytes: malformed: not base64url without
	//                     padding
	//            wanted   three segments of base64url, at most 16 KiB
	//            rule     RFC 7515 §7.1
	//            hint     remove the quotes and other characters around the token
	// skipped header, algorithm, key, signature, payload, issuer, audience, expiry,
	//         not-before, age, type, client, binding
}

// A status page. Status fetches nothing.
func ExampleValidator_Status() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{"api-gw"},
		HTTPClient: issuer.HTTPClient(), // not needed in production
	})
	if err != nil {
		log.Fatal(err)
	}

	show := func() {
		for _, status := range validator.Status() {
			fmt.Println(status.Issuer, "keys:", status.Keys, "fetched:", !status.Fetched.IsZero(), "error:", status.Err)
		}
	}
	show()
	if err := validator.Ready(context.Background()); err != nil {
		log.Fatal(err)
	}
	show()
	// Output:
	// https://issuer.example/realms/KORE-CIDP keys: 0 fetched: false error: <nil>
	// https://issuer.example/realms/KORE-CIDP keys: 1 fetched: true error: <nil>
}

// A KeyStatus says which keys of the issuer are not used, and why.
func ExampleKeyStatus() {
	old, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{"api-gw"},
		Keys:     koreauth.StaticKeySet{{ID: "new", Public: issuer.SigningKey().Public()}, {ID: "old", Public: old.Public()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	status := validator.Status()[0]
	fmt.Println("used:", status.Keys, "ignored:", status.Ignored)
	for _, reason := range status.Reasons {
		fmt.Println(reason)
	}
	// Output:
	// used: 1 ignored: 1
	// key "old": an RSA key must have 2048 bits or more (RFC 7518 §3.3)
}

// Keys from a file that is deployed with the API. No key is fetched.
func ExampleParseKeys() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	document := issuer.JWKS() // in production: os.ReadFile

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

// A public key that the program already has.
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

// A RemoteKeySet with other intervals than the defaults.
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

// Decode reads claims that have no field.
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

// Printed claims contain no secret and no e-mail address.
func ExampleClaims_String() {
	claims := &koreauth.Claims{
		Issuer: "https://keycloak.example.com/realms/KORE-CIDP", Subject: "74663e17", ClientID: "kc_1", AccountID: "CO1",
		ClientOwner: "owner@example.com",
	}
	fmt.Println(claims)
	// Output: Claims{Issuer:"https://keycloak.example.com/realms/KORE-CIDP" Subject:"74663e17" ClientID:"kc_1" AccountID:"CO1"}
}
