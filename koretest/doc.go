// Package koretest is an issuer of KORE access tokens for tests and demos, and
// a validator that needs none.
//
// [NewIssuer] starts an issuer on loopback that looks like KORE's: a Keycloak
// realm with a discovery document and a key set, and two token endpoints for
// the client-credentials grant. It takes no testing.TB, so that a program can
// run it as well as a test.
//
//	issuer, err := koretest.NewIssuer(nil)
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer issuer.Close()
//
//	validator, err := koreauth.NewValidator(koreauth.Config{
//		Issuer:   issuer.URL(),
//		Audience: []string{koretest.Audience},
//	})
//
// [Issuer.Valid], [Issuer.Expired], [Issuer.Ungranted] and [Issuer.Forged] make
// the tokens that most tests want. [Issuer.Mint] makes every other, well or
// badly made. [Issuer.Rotate], [Issuer.AddKey] and [Issuer.RemoveKey] change
// the keys, [Issuer.Behave] makes the issuer fail, [Issuer.Requests] counts
// what it was asked.
//
// # Simulated time
//
// A network connection hangs a testing/synctest bubble. With [Options].URL set
// nothing listens, and [Issuer.HTTPClient] brings requests to the issuer in the
// caller's own goroutine:
//
//	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
//	config := koreauth.Config{
//		Issuer:     issuer.URL(),
//		Audience:   []string{koretest.Audience},
//		HTTPClient: issuer.HTTPClient(),
//	}
//
// Make the validator in the bubble too: what two bubbles share can stop both.
//
// # Handlers without crypto
//
// A handler behind a guard can be tested with no token at all: [Validator]
// answers with the claims, or the error, that the test gives it.
//
// The package signs with the standard library alone and takes from koreauth
// only what Validator needs, so that koreauth is never checked with itself. It
// is no authorization server: whoever holds the *Issuer mints any token.
package koretest
