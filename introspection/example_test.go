package introspection_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
)

func ExampleNew() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	api := issuer.Client() // the credentials of this API

	opaque, err := introspection.New(introspection.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, ClientID: api.ID, ClientSecret: api.Secret,
	})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Opaque: opaque})
	if err != nil {
		log.Fatal(err)
	}
	token, err := issuer.Opaque(koretest.Token{Claims: map[string]any{"scope": "sims:read"}})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := validator.Validate(context.Background(), token)
	fmt.Println(claims.Scopes, err)
	_, err = validator.Validate(context.Background(), "invented")
	fmt.Println(err, errors.Is(err, introspection.ErrInactive))
	// Output:
	// [sims:read] <nil>
	// koreauth: invalid token: not active true
}

func ExampleAlso() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	api := issuer.Client()

	jwt, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	if err != nil {
		log.Fatal(err)
	}
	both, err := introspection.Also(jwt, introspection.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, ClientID: api.ID, ClientSecret: api.Secret,
		MaxAge: -1, // asked each time
	})
	if err != nil {
		log.Fatal(err)
	}
	token := issuer.Valid()
	_, err = both.Validate(context.Background(), token)
	fmt.Println(err)
	issuer.Deactivate(token) // for example, its session has ended
	_, err = both.Validate(context.Background(), token)
	fmt.Println(err)
	// Output:
	// <nil>
	// koreauth: invalid token: not active
}
