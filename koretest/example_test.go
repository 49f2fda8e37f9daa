package koretest_test

import (
	"context"
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

// A client gets a token with its credentials, and calls an API with it.
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
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Scope       string `json:"scope"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Status, answer.ExpiresIn, answer.Scope)

	req, err := http.NewRequest(http.MethodGet, api.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+answer.AccessToken)
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

// A route is tested, requirements included, without an issuer.
func ExampleValidator() {
	listSIMs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		fmt.Fprintf(w, "the SIMs of %s", claims.AccountID)
	})

	for _, validator := range []koretest.Validator{
		{Claims: &koreauth.Claims{AccountID: "CO1", Scopes: []string{"sims:read"}}},
		{Claims: &koreauth.Claims{AccountID: "CO1"}},
		{Err: koreauth.ErrExpired},
	} {
		guard := koreauth.New(validator, nil)
		handler := guard.Require(koreauth.Scope("sims:read"))(listSIMs)

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

// Tokens that a validator must refuse, and one that it must not. The issuer
// listens nowhere.
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
		{koretest.Token{Claims: map[string]any{"aud": "elsewhere"}}, koreauth.ErrAudience},
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

// A validator that has keys outlives the issuer; one that has none cannot judge.
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

// Nobody notices a rotation: a token of the new key makes the validator fetch.
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
