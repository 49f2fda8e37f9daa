package koretest_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// A client gets a token with its credentials and calls an API with it.
func Example() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{koretest.Audience},
	})
	if err != nil {
		log.Fatal(err)
	}
	api := httptest.NewServer(koreauth.New(validator, nil).Wrap(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pong") },
	)))
	defer api.Close()

	client := issuer.Client()
	res, err := http.PostForm(issuer.TokenURL(), url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {client.ID},
		"client_secret": {client.Secret},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	var response struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Scope       string `json:"scope"`
	}
	if err := json.NewDecoder(res.Body).Decode(&response); err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Status, response.ExpiresIn, response.Scope)

	req, err := http.NewRequest(http.MethodGet, api.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+response.AccessToken)
	res, err = http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status)
	// Output:
	// 200 OK 3600 email
	// 200 OK
}

// Test a route and its requirements without an issuer.
func ExampleValidator() {
	listSIMs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		fmt.Fprintf(w, "the SIMs of %s", claims.AccountID)
	})

	for _, validator := range []koretest.Validator{
		{Claims: &koreauth.Claims{AccountID: "CO1", Products: []string{"SuperSIM"}}},
		{Claims: &koreauth.Claims{AccountID: "CO1"}},
		{Err: koreauth.ErrExpired},
	} {
		guard := koreauth.New(validator, nil)
		handler := guard.Require(koreauth.Product("SuperSIM"))(listSIMs)

		req := httptest.NewRequest(http.MethodGet, "/v1/sims", nil)
		req.Header.Set("Authorization", "Bearer any")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 the SIMs of CO1
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}
	// 403 {"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}
}

// Two clients with different permissions, and a token that is not known.
func ExampleValidator_tokens() {
	validator := koretest.Validator{Tokens: map[string]*koreauth.Claims{
		"reader": {ClientID: "kc_1", Products: []string{"SuperSIM"}},
		"other":  {ClientID: "kc_2"},
	}}
	handler := koreauth.New(validator, nil).Require(koreauth.Product("SuperSIM"))(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the SIMs") },
	))

	for _, token := range []string{"reader", "other", "unknown"} {
		req := httptest.NewRequest(http.MethodGet, "/v1/sims", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		fmt.Println(token, w.Code)
	}
	_, err := validator.Validate(context.Background(), "unknown")
	fmt.Println(err)
	// Output:
	// reader 200
	// other 403
	// unknown 403
	// koreauth: invalid token: bad signature
}

// A handler reads a claim that has no field in koreauth.Claims.
func ExampleClaims() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		var custom struct {
			Tenant string `json:"tenant"`
		}
		if err := claims.Decode(&custom); err != nil {
			http.Error(w, "unexpected claims", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "client %s of tenant %s", claims.ClientID, custom.Tenant)
	})

	claims := koretest.Claims(map[string]any{"client_id": "kc_1", "tenant": "acme"})
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req = req.WithContext(koreauth.NewContext(req.Context(), claims))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	fmt.Println(w.Body)
	// Output: client kc_1 of tenant acme
}

// Valid and invalid tokens, and the errors that a validator returns for them.
// The issuer does not listen.
func ExampleIssuer_Mint() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		HTTPClient: issuer.HTTPClient(),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, row := range []struct {
		token koretest.Token
		want  error
	}{
		{koretest.Token{}, nil},
		{koretest.Token{Age: 2 * time.Hour}, koreauth.ErrExpired},
		{koretest.Token{Claims: map[string]any{"aud": "other"}}, koreauth.ErrAudience},
		{koretest.Token{Algorithm: "none"}, koreauth.ErrAlgorithm},
		{koretest.Token{BadSignature: true}, koreauth.ErrSignature},
		{koretest.Token{RawPayload: []byte(`{"exp":1,"exp":2}`)}, koreauth.ErrMalformed},
	} {
		token, err := issuer.Mint(row.token)
		if err != nil {
			log.Fatal(err)
		}
		_, err = validator.Validate(context.Background(), token)
		fmt.Println(errors.Is(err, row.want), row.want)
	}
	// Output:
	// true <nil>
	// true koreauth: invalid token: expired
	// true koreauth: invalid token: wrong audience
	// true koreauth: invalid token: algorithm not accepted
	// true koreauth: invalid token: bad signature
	// true koreauth: invalid token: malformed
}

// A bound token is rejected unless its sender is confirmed.
func ExampleIssuer_Mint_bound() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		HTTPClient: issuer.HTTPClient(),
	})
	if err != nil {
		log.Fatal(err)
	}
	certificate := []byte("the client's certificate in DER")
	digest := sha256.Sum256(certificate)
	token, err := issuer.Mint(koretest.Token{Confirmation: &koreauth.Confirmation{
		CertificateSHA256: base64.RawURLEncoding.EncodeToString(digest[:]),
	}})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := validator.Ready(ctx); err != nil { // fetches the keys
		log.Fatal(err)
	}
	_, err = validator.Validate(ctx, token)
	fmt.Println(errors.Is(err, koreauth.ErrBinding))
	// Output: true
}

// A token that expired an hour ago is rejected, even with some leeway.
func ExampleIssuer_Expired() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		Leeway:     5 * time.Minute,
		HTTPClient: issuer.HTTPClient(),
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := validator.Ready(ctx); err != nil { // fetches the keys
		log.Fatal(err)
	}
	_, err = validator.Validate(ctx, issuer.Expired())
	fmt.Println(errors.Is(err, koreauth.ErrExpired))
	// Output: true
}

// During an outage of the issuer, a validator that has fetched the keys still
// works. One that has not reports that it is unavailable.
func ExampleIssuer_Behave() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}}
	early, err := koreauth.NewValidator(config)
	if err != nil {
		log.Fatal(err)
	}
	late, err := koreauth.NewValidator(config)
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	fmt.Println(early.Ready(ctx))
	issuer.Behave(koretest.Down)
	_, err = early.Validate(ctx, issuer.Valid())
	fmt.Println(err)
	_, err = late.Validate(ctx, issuer.Valid())
	fmt.Println(errors.Is(err, koreauth.ErrUnavailable))
	// Output:
	// <nil>
	// <nil>
	// true
}

// After a rotation, the first token with the new key makes the validator fetch the
// keys again. Tokens with the old key stay valid.
func ExampleIssuer_Rotate() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		HTTPClient: issuer.HTTPClient(),
	})
	if err != nil {
		log.Fatal(err)
	}
	before := issuer.Valid()
	_, err = validator.Validate(context.Background(), before)
	fmt.Println(err, issuer.Requests(koretest.KeysEndpoint))

	issuer.Rotate()
	for _, token := range []string{before, issuer.Valid()} {
		_, err = validator.Validate(context.Background(), token)
		fmt.Println(err, issuer.Requests(koretest.KeysEndpoint))
	}
	// Output:
	// <nil> 1
	// <nil> 1
	// <nil> 2
}
