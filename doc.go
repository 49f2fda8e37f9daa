// Package koreauth guards HTTP APIs that accept KORE access tokens: JWTs of a
// Keycloak realm, which clients fetch with the OAuth 2.0 client-credentials
// grant. It is middleware for net/http, and so for gorilla/mux.
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
//	mux.Handle("GET /v1/sims", guard.Require(koreauth.Scope("sims:read"))(listSIMs))
//
// A [Validator] judges tokens, as its [Config] says. A [Middleware] finds the
// token of a request, has it judged, and either serves the request, with the
// [Claims] for the handler to have from [FromContext], or refuses it. A
// [Requirement] is what a route wants of a token beyond its being good.
//
// With gorilla/mux, the same guard goes on a router, a subrouter or a route:
//
//	r := mux.NewRouter()
//	r.Use(guard.Wrap)
//	r.Handle("/v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Delete))(del)).Methods("DELETE")
//
// # What is checked, in which order
//
// What costs nothing comes first and the network last, and the first check that
// fails is the reason of the refusal:
//
//  1. The token has at most 16 KiB, and three segments of strict base64url; its
//     header is one JSON object without duplicate members.
//  2. The header's "alg" is one of [Config].Algorithms, its "typ" that of an
//     access token if there is one, and it has neither "crit" nor "b64". Keys
//     that it embeds or points to are not read.
//  3. The issuer has a key that fits "kid" and "alg".
//  4. The signature holds.
//  5. The payload is one JSON object without duplicate members.
//  6. "iss", "aud", "exp", "nbf", "iat" under [Config].MaxAge, "typ", and the
//     client are as they must be. A token that is bound to a key of its sender
//     ("cnf") is refused.
//  7. The requirements of the route are met.
//
// Names are matched exactly, at every depth. Until the signature holds, what a
// token claims decides only whether its key is worth fetching, so that a token
// which is forged and expired is reported as forged.
//
// A token that was verified before costs no signature again, as long as the key
// that made it is still the issuer's; the rest is checked each time. See
// [Config].CacheSize.
//
// # Refusals
//
// Every refusal is an [*Error] of one of five classes, which alone decides what
// the client is told: [ErrNoToken], [ErrBadRequest], [ErrInvalidToken],
// [ErrInsufficientScope] and [ErrUnavailable]. The reason, such as [ErrExpired],
// is for the log. Answers are KORE's own, [KOREErrors], unless [Options] has
// another [ErrorFormat].
//
// A token that cannot be judged, because the issuer's keys cannot be had, is not
// called a bad one: the answer is 503, and the client may try it again.
//
// # Keys
//
// Keys come from the issuer by discovery, or from Config.JWKSURL, when the first
// token wants them; [Validator.Ready] fetches them before. They are refreshed
// behind the requests' back, and once more when a token names one that is not
// known, within limits; the last good ones serve through an outage. Nothing
// runs between fetches and nothing is to be closed. See [RemoteKeySet].
//
// # What is not checked
//
// A good token is good until it expires, or its key is gone: the package knows
// nothing of revocation, nor of Keycloak's not-before policy, and asks no
// introspection endpoint. It takes no opaque or encrypted tokens, and none that
// are signed with a shared secret. It does not compare "ip-range" with the
// client's address, which behind a proxy only the program knows. It fetches no
// tokens either: that is a client's work.
//
// Package koretest has an issuer for tests and demonstrations, and a validator
// that needs none.
package koreauth
