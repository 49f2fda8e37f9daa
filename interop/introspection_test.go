package interop_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
)

const adminRealm = "/admin/realms/KORE-CIDP"

// clientOf returns Keycloak's representation of a client.
func clientOf(t testing.TB, id string) map[string]any {
	t.Helper()
	var found []map[string]any
	admin(t, "GET", adminRealm+"/clients?clientId="+id, nil, &found)
	require.Len(t, found, 1)
	return found[0]
}

// change changes a client of Keycloak until the end of the test. Attributes that it adds
// stay, so they must mean nothing without the members.
func change(t testing.TB, id string, members map[string]any, attributes map[string]any) {
	t.Helper()
	before := clientOf(t, id)
	path := adminRealm + "/clients/" + before["id"].(string)
	after := maps.Clone(before)
	maps.Copy(after, members)
	all := maps.Clone(before["attributes"].(map[string]any))
	maps.Copy(all, attributes)
	after["attributes"] = all
	admin(t, "PUT", path, after, nil)
	t.Cleanup(func() {
		before["secret"] = env(t, "KORE_CLIENT_SECRET")
		admin(t, "PUT", path, before, nil)
	})
}

// asking returns the Config of the API at Keycloak.
func asking(t testing.TB, change ...func(*introspection.Config)) introspection.Config {
	t.Helper()
	config := introspection.Config{
		Issuer: realm(t, "KORE-CIDP"), Audience: []string{"api-gw"}, ClientID: "api-gw", ClientSecret: env(t, "KORE_CLIENT_SECRET"), MaxAge: -1,
	}
	for _, c := range change {
		c(&config)
	}
	return config
}

func newAsking(t testing.TB, change ...func(*introspection.Config)) *introspection.Validator {
	t.Helper()
	v, err := introspection.New(asking(t, change...))
	require.NoError(t, err)
	return v
}

// TestKeycloak_IntrospectionStyles authenticates in each way that Keycloak knows.
func TestKeycloak_IntrospectionStyles(t *testing.T) {
	token := credentials(t, "kc_admin")
	accepted := func(t *testing.T, v *introspection.Validator) {
		t.Helper()
		claims, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, "kc_admin", claims.ClientID)
		assert.NotEmpty(t, claims.Resources, "KORE's claims are in the answer")
	}
	t.Run("Basic", func(t *testing.T) { accepted(t, newAsking(t)) })
	t.Run("Post", func(t *testing.T) {
		accepted(t, newAsking(t, func(c *introspection.Config) { c.Style = introspection.Post }))
	})
	t.Run("a secret with special characters", func(t *testing.T) {
		const odd = "#NdhM:?!R+7_8{ ü%&="
		change(t, "api-gw", map[string]any{"secret": odd}, nil)
		for _, style := range []introspection.Style{introspection.Basic, introspection.Post} {
			accepted(t, newAsking(t, func(c *introspection.Config) { c.Style, c.ClientSecret = style, odd }))
		}
	})
	t.Run("PrivateKeyJWT", func(t *testing.T) {
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		largeKey, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		require.NoError(t, err)
		_, edKey, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		for name, key := range map[string]crypto.Signer{"RS256": rsaKey, "ES256": ecKey, "ES512": largeKey, "EdDSA": edKey} {
			t.Run(name, func(t *testing.T) {
				public, err := jwk.FromRaw(key.Public())
				require.NoError(t, err)
				require.NoError(t, public.Set(jwk.KeyUsageKey, "sig"))
				require.NoError(t, public.Set(jwk.AlgorithmKey, name))
				set := jwk.NewSet()
				require.NoError(t, set.AddKey(public))
				text, err := json.Marshal(set)
				require.NoError(t, err)
				change(t, "api-gw", map[string]any{"clientAuthenticatorType": "client-jwt"}, map[string]any{
					"use.jwks.url": "false", "use.jwks.string": "true", "jwks.string": string(text), "token.endpoint.auth.signing.alg": name,
				})
				v := newAsking(t, func(c *introspection.Config) { c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", key })
				accepted(t, v)
			})
		}
	})
	t.Run("a client certificate", func(t *testing.T) {
		file := func(name string) string { return filepath.Join(".cache", "tls", name) }
		own, err := tls.LoadX509KeyPair(file("client.pem"), file("client.key"))
		require.NoError(t, err)
		authority, err := os.ReadFile(file("server.pem"))
		require.NoError(t, err)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(authority))
		block, _ := pem.Decode(func() []byte { text, _ := os.ReadFile(file("client.pem")); return text }())
		require.NotNil(t, block)
		change(t, "api-gw", map[string]any{"clientAuthenticatorType": "client-x509"}, map[string]any{"x509.subjectdn": "CN=client", "x509.allow.regex.pattern.comparison": "false"})
		endpoint := "https://127.0.0.1:" + env(t, "KEYCLOAK_TLS_PORT") + "/realms/KORE-CIDP/protocol/openid-connect/token/introspect"
		with := func(certificates ...tls.Certificate) *introspection.Validator {
			return newAsking(t, func(c *introspection.Config) {
				c.Endpoint, c.Style, c.ClientSecret = endpoint, introspection.None, ""
				c.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates}}}
			})
		}
		accepted(t, with(own))
		_, err = with().Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, "without the certificate")
	})
	t.Run("wrong credentials", func(t *testing.T) {
		var log bytes.Buffer
		v := newAsking(t, func(c *introspection.Config) {
			c.ClientSecret, c.Logger = "mistyped", slog.New(slog.NewTextHandler(&log, nil))
		})
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Contains(t, log.String(), "the issuer rejects the credentials of this API")
		assert.NotContains(t, log.String(), "mistyped")
	})
}

// TestKeycloak_IntrospectionStates has tokens that are no longer active.
func TestKeycloak_IntrospectionStates(t *testing.T) {
	v := newAsking(t)
	inactive := func(t *testing.T, token string) {
		t.Helper()
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, introspection.ErrInactive)
	}
	valid := func(t *testing.T, token string) {
		t.Helper()
		_, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
	}
	t.Run("revoked (RFC 7009)", func(t *testing.T) {
		token := credentials(t, "kc_admin")
		valid(t, token)
		form := url.Values{"token": {token}, "client_id": {"kc_admin"}, "client_secret": {env(t, "KORE_CLIENT_SECRET")}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", strings.TrimSuffix(tokenEndpoint(t, "KORE-CIDP"), "/token")+"/revoke", strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, body := do(t, http.DefaultClient, req)
		require.Equal(t, 200, res.StatusCode, body)
		inactive(t, token)
	})
	t.Run("a disabled client", func(t *testing.T) {
		token := credentials(t, "kc_standard")
		valid(t, token)
		change(t, "kc_standard", map[string]any{"enabled": false}, nil)
		inactive(t, token)
	})
	t.Run("before the not-before policy", func(t *testing.T) {
		token := credentials(t, "kc_admin_1d")
		valid(t, token)
		admin(t, "PUT", adminRealm, map[string]any{"notBefore": time.Now().Add(2 * time.Second).Unix()}, nil)
		t.Cleanup(func() { admin(t, "PUT", adminRealm, map[string]any{"notBefore": 0}, nil) })
		inactive(t, token)
	})
	t.Run("a user who has logged out", func(t *testing.T) {
		signedIn := signIn(t, "openid")
		valid(t, signedIn.Access)
		form := url.Values{"client_id": {"kc_portal"}, "client_secret": {env(t, "KORE_CLIENT_SECRET")}, "refresh_token": {signedIn.Refresh}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", strings.TrimSuffix(tokenEndpoint(t, "KORE-CIDP"), "/token")+"/logout", strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, body := do(t, http.DefaultClient, req)
		require.Less(t, res.StatusCode, 300, body)
		inactive(t, signedIn.Access)
	})
	t.Run("refresh and ID tokens", func(t *testing.T) {
		signedIn := signIn(t, "openid")
		for _, token := range []string{signedIn.Refresh, signedIn.ID} {
			claims, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
			assert.Nil(t, claims)
		}
	})
	t.Run("invented", func(t *testing.T) { inactive(t, "invented") })
}

// TestKeycloak_LightweightTokens has tokens whose claims only Keycloak tells.
func TestKeycloak_LightweightTokens(t *testing.T) {
	light := clientOf(t, "kc_admin")
	delete(light, "id")
	light["clientId"], light["secret"] = "kc_light", env(t, "KORE_CLIENT_SECRET")
	light["attributes"].(map[string]any)["client.use.lightweight.access.token.enabled"] = "true"
	admin(t, "POST", adminRealm+"/clients", light, nil)
	t.Cleanup(func() { admin(t, "DELETE", adminRealm+"/clients/"+clientOf(t, "kc_light")["id"].(string), nil, nil) })
	token := credentials(t, "kc_light")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	require.NotContains(t, string(payload), `"aud"`)
	require.NotContains(t, string(payload), "scopes")

	jwt, err := koreauth.NewValidator(keycloakConfig(t))
	require.NoError(t, err)
	_, err = jwt.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrAudience)
	var log bytes.Buffer
	both, err := introspection.Also(jwt, asking(t, func(c *introspection.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	require.NoError(t, err)
	claims, err := both.Validate(t.Context(), token)
	require.NoError(t, err, log.String())
	assert.Equal(t, "kc_light", claims.ClientID)
	assert.Equal(t, []string{"api-gw"}, claims.Audience)
	assert.NotEmpty(t, claims.Resources)
	assert.NotEmpty(t, claims.AccountID)
	_, err = both.Validate(t.Context(), credentials(t, "kc_standard"))
	assert.NoError(t, err, "an ordinary token too")
}

// TestKeycloak_IntrospectionAudienceTrap asks as a client that is not in "aud".
func TestKeycloak_IntrospectionAudienceTrap(t *testing.T) {
	jwt, err := koreauth.NewValidator(keycloakConfig(t))
	require.NoError(t, err)
	var log bytes.Buffer
	both, err := introspection.Also(jwt, asking(t, func(c *introspection.Config) {
		c.ClientID, c.Logger = "kc_standard", slog.New(slog.NewTextHandler(&log, nil))
	}))
	require.NoError(t, err)
	_, err = both.Validate(t.Context(), credentials(t, "kc_admin"))
	assert.ErrorIs(t, err, introspection.ErrInactive)
	assert.Contains(t, log.String(), `put this client into the \"aud\" of the tokens`)
}

// TestOIDCProvider_Introspection has opaque tokens.
func TestOIDCProvider_Introspection(t *testing.T) {
	issuer := "http://127.0.0.1:" + env(t, "OIDC_PROVIDER_PORT")
	opaque, err := introspection.New(introspection.Config{
		Issuer: issuer, Audience: []string{"api-gw"}, ClientID: "kc_standard", ClientSecret: env(t, "KORE_CLIENT_SECRET"),
	})
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer, Audience: []string{"api-gw"}, Opaque: opaque})
	require.NoError(t, err)
	claims, err := validator.Validate(t.Context(), forResource(t, "opaque"))
	require.NoError(t, err)
	assert.Equal(t, "kc_standard", claims.ClientID)
	_, err = validator.Validate(t.Context(), "invented")
	assert.ErrorIs(t, err, introspection.ErrInactive)
}
