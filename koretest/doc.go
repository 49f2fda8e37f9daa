// Package koretest provides an issuer of KORE access tokens for tests and
// demos, and a fake validator for tests without tokens.
//
// [NewIssuer] starts an issuer on loopback. Like KORE's, it is a Keycloak realm
// with a discovery document and a key set, and it has two token endpoints for
// the client credentials grant. NewIssuer takes no testing.TB, so programs can
// use it as well as tests.
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
// [Issuer.Valid], [Issuer.Expired], [Issuer.Ungranted] and [Issuer.Forged]
// return the tokens that most tests need. [Issuer.Mint] makes any other token,
// valid or invalid. [Issuer.Rotate], [Issuer.AddKey] and [Issuer.RemoveKey]
// change the keys. [Issuer.Behave] makes the issuer fail, and
// [Issuer.Requests] counts the requests that it received.
//
// # Simulated time
//
// A goroutine that waits for the network stops the clock of a testing/synctest
// bubble. If [Options].URL is set and Addr is not, the issuer does not listen, and
// [Issuer.HTTPClient] handles requests in the goroutine of the caller:
//
//	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
//	config := koreauth.Config{
//		Issuer:     issuer.URL(),
//		Audience:   []string{koretest.Audience},
//		HTTPClient: issuer.HTTPClient(),
//	}
//
// Create the validator in the bubble too. Bubbles that share a validator can
// block each other.
//
// # Tests without tokens
//
// A protected handler can be tested without an issuer. [Validator] returns the
// claims or the error that the test sets, and [Claims] makes claims that
// [koreauth.Claims.Decode] can read. To test a handler without a guard, use
// [koreauth.NewContext].
//
// # Limits
//
// The issuer signs with the standard library and does not use the code of
// koreauth, so that koreauth is not tested against itself. It is not an
// authorization server: anyone who has the *Issuer can mint any token.
package koretest
