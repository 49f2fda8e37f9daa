package interop_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oidcProvider returns the URL of the node-oidc-provider that run.sh started. It is
// an issuer without a path.
func oidcProvider(t testing.TB) string { return "http://127.0.0.1:" + env(t, "OIDC_PROVIDER_PORT") }

// forResource gets a token of the kind that oidc-provider/server.mjs issues for a
// resource.
func forResource(t testing.TB, name string, headers ...string) string {
	t.Helper()
	return grant(t, oidcProvider(t)+"/token", "kc_standard", url.Values{
		"grant_type": {"client_credentials"}, "scope": {"sims:read"}, "resource": {"https://api.example.com/" + name},
	}, headers...).Access
}

func oidcProviderConfig(t testing.TB) koreauth.Config {
	return koreauth.Config{Issuer: oidcProvider(t), Audience: []string{"api-gw"}, Algorithms: everyAlgorithm}
}

// codeFlow signs a user in with the authorization code flow.
func codeFlow(t testing.TB) tokens {
	t.Helper()
	const callback = "http://127.0.0.1/callback"
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), callback) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(t.Context(), "GET", oidcProvider(t)+"/auth?"+url.Values{
		"client_id": {"kc_portal"}, "response_type": {"code"}, "scope": {"openid sims:read"},
		"redirect_uri": {callback}, "resource": {"https://api.example.com/rs256"},
	}.Encode(), nil)
	require.NoError(t, err)
	resp, body := do(t, browser, req)
	back, err := resp.Location()
	require.NoError(t, err, body)
	return grant(t, oidcProvider(t)+"/token", "kc_portal", url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback},
	})
}

func TestOIDCProvider_AcceptsAccessTokens(t *testing.T) {
	for _, row := range []struct{ resource, algorithm string }{
		{"rs256", "RS256"},
		{"ps256", "PS256"}, // with the same key, which is published without alg
		{"es256", "ES256"},
		{"eddsa", "EdDSA"},
	} {
		t.Run(row.algorithm, func(t *testing.T) {
			config := oidcProviderConfig(t)
			config.Algorithms = []string{row.algorithm}
			a := newAPI(t, config)
			token := forResource(t, row.resource)
			claims := a.accepts(t, token)

			header, _ := decode(t, token)
			assert.Equal(t, row.algorithm, header["alg"])
			assert.Equal(t, "at+jwt", header["typ"])
			assert.Equal(t, oidcProvider(t), claims.Issuer)
			assert.Equal(t, "kc_standard", claims.Subject)
			assert.Equal(t, "kc_standard", claims.ClientID)
			assert.NotEmpty(t, claims.ID)
			assert.Equal(t, []string{"api-gw"}, claims.Audience)
			assert.Equal(t, []string{"sims:read"}, claims.Scopes)
			assert.Equal(t, 730*day, claims.Expiry.Sub(claims.IssuedAt))
			assert.WithinDuration(t, time.Now(), claims.IssuedAt, time.Minute)
			assert.Equal(t, "CO1686726interop", claims.AccountID)
			assert.Equal(t, "standard", claims.ClientType)
			assert.Equal(t, "owner@example.com", claims.ClientOwner)
			assert.Equal(t, []string{"192.0.2.0/24"}, claims.IPRanges)
			assert.Equal(t, []string{"SuperSIM", "ProgrammableWireless"}, claims.Products)
			assert.Equal(t, []koreauth.Resource{{Name: "API Clients", Access: []koreauth.Access{koreauth.Read, koreauth.Write}}}, claims.Resources)

			resp, _ := a.call(t, "GET", "/v1/sims", "Bearer "+token)
			assert.Equal(t, http.StatusOK, resp.StatusCode, "it has the scope sims:read")
			resp, _ = a.call(t, "DELETE", "/v1/clients/7", "Bearer "+token)
			assert.Equal(t, http.StatusForbidden, resp.StatusCode, "it lacks the grant API Clients:Delete")
		})
	}
	t.Run("a user's access token", func(t *testing.T) {
		claims := newAPI(t, oidcProviderConfig(t)).accepts(t, codeFlow(t).Access)
		assert.Equal(t, "person", claims.Subject)
		assert.Equal(t, "kc_portal", claims.ClientID)
	})
}

func TestOIDCProvider_RejectsOtherTokens(t *testing.T) {
	a := newAPI(t, oidcProviderConfig(t))
	rs256Config := oidcProviderConfig(t)
	rs256Config.Algorithms = nil
	rs256 := newAPI(t, rs256Config)
	for _, each := range []*api{a, rs256} {
		require.NoError(t, each.Ready(t.Context()))
	}

	person := codeFlow(t)
	bound := forResource(t, "rs256", "DPoP", dpopProof(t, oidcProvider(t)+"/token"))
	for _, row := range []struct {
		what   string
		api    *api
		token  string
		reason error
	}{
		{"an ID token", a, person.ID, koreauth.ErrAudience},
		{"a refresh token, which is not a JWT", a, person.Refresh, koreauth.ErrMalformed},
		{"an opaque access token", a, forResource(t, "opaque"), koreauth.ErrMalformed},
		{"an encrypted access token", a, forResource(t, "jwe"), koreauth.ErrMalformed},
		{"an access token signed with a secret", a, forResource(t, "hs256"), koreauth.ErrAlgorithm},
		{"an algorithm that is not enabled, although the key matches it", rs256, forResource(t, "ps256"), koreauth.ErrAlgorithm},
		{"a token for another API", a, forResource(t, "billing"), koreauth.ErrAudience},
		{"a sender-constrained token (DPoP)", a, bound, koreauth.ErrBinding},
		{"Keycloak's token, same client and audience", a, credentials(t, "kc_standard"), koreauth.ErrUnknownKey},
		{"a token with an unknown key ID", a, relabeled(t, forResource(t, "rs256")), koreauth.ErrUnknownKey},
		{"a token whose signature was changed", a, damaged(forResource(t, "es256")), koreauth.ErrSignature},
	} {
		t.Run(row.what, func(t *testing.T) { row.api.rejects(t, row.token, row.reason) })
	}

	t.Run("a token sent to an API that trusts Keycloak", func(t *testing.T) {
		newAPI(t, keycloakConfig(t)).rejects(t, forResource(t, "rs256"), koreauth.ErrUnknownKey)
	})
	t.Run("a sender-constrained token with the scheme DPoP is not a bearer token", func(t *testing.T) {
		resp, body := a.call(t, "GET", "/v1/ping", "DPoP "+bound)
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		assert.Equal(t, noToken, body)
	})
	t.Run("a token after it has expired", func(t *testing.T) {
		token := forResource(t, "brief")
		a.accepts(t, token)
		eventually(t, "it expires", func() bool {
			_, err := a.Validate(t.Context(), token)
			return err != nil
		})
		a.rejects(t, token, koreauth.ErrExpired)
	})
}

// Nothing in an ID token of this issuer says that it is one. Only its audience
// rejects it, so Config.Audience must never contain the ID of a client.
func TestOIDCProvider_IDTokenIsRejectedOnlyByAudience(t *testing.T) {
	config := oidcProviderConfig(t)
	config.Audience = []string{"kc_portal"}
	_, err := newAPI(t, config).Validate(t.Context(), codeFlow(t).ID)
	assert.NoError(t, err)
}

// control tells oidc-provider/server.mjs to change its keys.
func control(t *testing.T, what string) {
	t.Helper()
	resp, err := http.Post(oidcProvider(t)+"/interop/"+what, "", nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
}

func TestOIDCProvider_Rotation(t *testing.T) {
	var requests counter
	config := oidcProviderConfig(t)
	config.Keys = &koreauth.RemoteKeySet{
		Issuer: config.Issuer, MinInterval: 200 * time.Millisecond, MaxAge: time.Second,
		HTTPClient: &http.Client{Transport: &requests},
	}
	a := newAPI(t, config)
	resources := []string{"rs256", "ps256", "es256", "eddsa"}
	old := map[string]string{}
	for _, name := range resources {
		old[name] = forResource(t, name)
		a.accepts(t, old[name])
	}

	control(t, "rotate")
	fresh := forResource(t, "rs256")
	require.NotEqual(t, keyID(t, old["rs256"]), keyID(t, fresh))
	for _, name := range resources {
		a.accepts(t, forResource(t, name))
		a.accepts(t, old[name])
	}
	refreshed(t, a, &requests, fresh)
	a.accepts(t, old["rs256"])

	control(t, "drop")
	eventually(t, "a refresh removes the old keys", func() bool {
		_, err := a.Validate(t.Context(), fresh)
		require.NoError(t, err)
		_, err = a.Validate(t.Context(), old["rs256"])
		return err != nil
	})
	for _, name := range resources {
		a.rejects(t, old[name], koreauth.ErrUnknownKey)
		a.accepts(t, forResource(t, name))
	}
}
