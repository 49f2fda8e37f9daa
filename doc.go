// Package koreauth protects HTTP APIs that accept KORE access tokens: JWTs of a
// Keycloak realm, which clients get with the OAuth 2.0 client-credentials grant. It
// is middleware for net/http, and for routers that accept such middleware, such as
// gorilla/mux: r.Use(guard.Wrap).
//
//	validator, err := koreauth.NewValidator(koreauth.Config{
//		Issuer:   "https://keycloak.example.com/realms/KORE-CIDP",
//		Audience: []string{"api-gw"},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	guard := koreauth.New(validator, nil)
//
//	mux := http.NewServeMux()
//	mux.Handle("GET /v1/ping", guard.Wrap(ping))
//	mux.Handle("GET /v1/clients", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(listClients))
//	mux.Handle("GET /v1/sims", guard.Require(koreauth.Product("SuperSIM"))(listSIMs))
//
// A [Validator] validates tokens as its [Config] describes. A [Middleware], here
// called a guard, finds the token of a request and validates it with the Validator.
// If the token is valid, the guard calls the handler, where [FromContext] returns
// the [Claims]. Otherwise it rejects the request. A [Requirement] is a further
// condition, such as a scope or a grant.
//
// # What is checked
//
// Checks run from cheap to expensive. The first one that fails is the reason for
// the rejection:
//
//  1. The token has at most 16 KiB and three segments of strict base64url. Its
//     header is one JSON object without duplicate members.
//  2. "alg" is one of [Config].Algorithms, "typ" is absent or that of an access
//     token, and there is neither "crit" nor "b64". Keys that the header embeds or
//     refers to are ignored.
//  3. The issuer has a key for "kid" and "alg".
//  4. The signature is correct.
//  5. The payload is one JSON object without duplicate members.
//  6. "iss", "aud", "exp", "nbf", "iat" (with [Config].MaxAge), "typ" and the client
//     match the Config. A token with "cnf" needs [Options].Sender.
//  7. The requirements are met: those of Config.Require, then Options.Sender,
//     Options.Require and those of the route.
//
// Names are compared exactly, at every depth. Before the signature is verified,
// claims are used only to select one of several issuers, and to decide whether to
// fetch an unknown key.
//
// The signature of a token that was verified before is not verified again, as long
// as the issuer still has the key. All other checks are repeated. See
// [Config].CacheSize.
//
// # Rejected requests
//
// Each rejection is an [*Error]. Its class decides the response: [ErrNoToken],
// [ErrBadRequest], [ErrInvalidToken], [ErrInsufficientScope], [ErrForbidden] or
// [ErrUnavailable]. Its reason, such as [ErrExpired], is for the log, and
// [Validator.Explain] shows each check. The responses are KORE's ([KOREErrors]),
// unless [Options].Errors is set.
//
// If the keys of the issuer cannot be fetched, the response is 503, never 401 or
// 403: the token may be valid, and the client should retry with it.
//
// # Keys
//
// The keys are discovered from the issuer, or fetched from Config.JWKSURL, when the
// first token arrives or when [Validator.Ready] is called. They are refreshed in the
// background, and when a token names an unknown key (rate-limited). If the issuer is
// down, the cached keys are used for up to 24 hours. No goroutine runs between
// fetches, and there is nothing to close. See [RemoteKeySet].
//
// # What is not checked
//
// The package does not ask the issuer about a token: package introspection does, and
// package revocation ends tokens before they expire. It does not compare "ip-range" with
// the address of the client: package iprange does. Encrypted tokens, and those signed with
// a shared secret, are rejected, and opaque ones unless [Config].Opaque is set. Package
// source finds tokens in other places, and package koretest has an issuer for tests.
package koreauth
