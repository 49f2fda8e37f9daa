// Package introspection validates tokens by asking their issuer about them (RFC 7662):
// opaque tokens, and JWTs whose claims only the issuer tells.
//
//	opaque, err := introspection.New(introspection.Config{
//		Issuer: "https://keycloak.example.com/realms/KORE-CIDP", Audience: []string{"api-gw"},
//		ClientID: "api-gw", ClientSecret: secret,
//	})
//	validator, err := koreauth.NewValidator(koreauth.Config{…, Opaque: opaque})
//
// An answer is used for [Config].MaxAge, so that few requests wait for the issuer. A
// token that was revoked at the issuer is accepted for so long; a list of package
// revocation in koreauth.Config.Require is asked for each request. An outage of the
// issuer is 503, never 401 or 403.
package introspection
