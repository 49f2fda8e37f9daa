package koretest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/door"
)

// IntrospectionURL returns the URL of the introspection endpoint (RFC 7662). Registered
// clients may use it, with their credentials in the form or by HTTP Basic.
func (i *Issuer) IntrospectionURL() string { return i.base + introspectPath }

// Opaque makes an opaque token. The introspection endpoint answers with the claims that
// the JWT of t would have; the fields about its header and signature are ignored. It
// returns the errors of [Issuer.Mint].
func (i *Issuer) Opaque(t Token) (string, error) {
	payload, err := i.payload(t)
	if err != nil {
		return "", err
	}
	token := randomText(40)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.opaque[token] = string(payload)
	return token, nil
}

// Deactivate revokes a token: the introspection endpoint answers that it is not active.
// A JWT is still valid for those who do not ask.
func (i *Issuer) Deactivate(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.inactive[token] = struct{}{}
}

// serveIntrospection answers RFC 7662 §2.2 and, to wrong credentials, §2.3.
func (i *Issuer) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	form, failure := readForm(w, r)
	if failure != nil {
		writeJSON(w, failure.status, failure)
		return
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if secret == "" {
		id, secret = basicCredentials(r)
	}
	if _, ok := i.authenticate(id, secret); !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="koretest", charset="UTF-8"`)
		writeJSON(w, http.StatusUnauthorized, &errorResponse{Code: "invalid_client", Description: "Invalid client or Invalid client credentials"})
		return
	}
	writeJSON(w, http.StatusOK, i.introspect(r.Context(), form.Get("token")))
}

// introspect returns the members of an answer.
func (i *Issuer) introspect(ctx context.Context, token string) map[string]any {
	inactive := map[string]any{"active": false}
	i.mu.Lock()
	payload, isOpaque := i.opaque[token]
	_, revoked := i.inactive[token]
	i.mu.Unlock()
	if !isOpaque {
		payload = i.verified(ctx, token)
	}
	var claims koreauth.Claims
	members := map[string]any{}
	if revoked || json.Unmarshal([]byte(payload), &members) != nil || claims.UnmarshalJSON([]byte(payload)) != nil {
		return inactive
	}
	_, expires := members["exp"]
	if now := time.Now(); expires && !now.Before(claims.Expiry) || now.Before(claims.NotBefore) || claims.Issuer != i.URL() {
		return inactive
	}
	members["active"] = true
	if _, ok := members["token_type"]; !ok {
		members["token_type"] = "Bearer"
	}
	return members
}

// verified returns the payload of a JWT that a published key has signed, or "".
func (i *Issuer) verified(ctx context.Context, token string) string {
	keys, err := koreauth.ParseKeys(i.JWKS())
	if err != nil {
		return ""
	}
	verify := door.VerifyJWS.(func(ctx context.Context, keys koreauth.KeySet, algorithms []string, text string) (typ, payload string, err error))
	var algorithms []string
	for _, key := range keys {
		algorithms = append(algorithms, key.Algorithm)
	}
	_, payload, err := verify(ctx, koreauth.StaticKeySet(keys), algorithms, token)
	if err != nil {
		return ""
	}
	return payload
}
