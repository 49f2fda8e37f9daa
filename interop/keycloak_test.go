package interop_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// keycloak returns the URL of the server that run.sh started.
func keycloak(t testing.TB) string { return "http://127.0.0.1:" + env(t, "KEYCLOAK_PORT") }

func realm(t testing.TB, name string) string { return keycloak(t) + "/realms/" + name }

func tokenEndpoint(t testing.TB, realmName string) string {
	return realm(t, realmName) + "/protocol/openid-connect/token"
}

// credentials gets a token of the realm KORE-CIDP with the client-credentials
// grant.
func credentials(t testing.TB, client string) string {
	t.Helper()
	return grant(t, tokenEndpoint(t, "KORE-CIDP"), client, url.Values{"grant_type": {"client_credentials"}}).Access
}

// signIn gets the tokens of a user who signs in.
func signIn(t testing.TB, scope string) tokens {
	t.Helper()
	return grant(t, tokenEndpoint(t, "KORE-CIDP"), "kc_portal", url.Values{
		"grant_type": {"password"}, "username": {"person"}, "password": {env(t, "KORE_USER_PASSWORD")}, "scope": {scope},
	})
}

// keycloakConfig is a usual Config with all algorithms of the realm.
func keycloakConfig(t testing.TB) koreauth.Config {
	return koreauth.Config{Issuer: realm(t, "KORE-CIDP"), Audience: []string{"api-gw"}, Algorithms: everyAlgorithm}
}

// shortLived is a Config that refreshes keys after a second.
func shortLived(t testing.TB, requests *counter) koreauth.Config {
	config := keycloakConfig(t)
	config.Keys = &koreauth.RemoteKeySet{
		Issuer: config.Issuer, MinInterval: 200 * time.Millisecond, MaxAge: time.Second,
		HTTPClient: &http.Client{Transport: requests},
	}
	return config
}

func TestKeycloak_AcceptsAccessTokens(t *testing.T) {
	everything := []koreauth.Resource{{
		Name: "API Clients", Access: []koreauth.Access{koreauth.Read, koreauth.Write, koreauth.Modify, koreauth.Delete},
	}}
	for _, row := range []struct {
		client, clientType, algorithm, header string
		lifetime                              time.Duration
		resources                             []koreauth.Resource
		ranges, audience                      []string
	}{
		{"kc_admin", "admin", "RS256", "JWT", time.Hour, everything, nil, []string{"api-gw"}},
		{"kc_admin_1d", "admin", "RS256", "JWT", day, everything, nil, []string{"api-gw"}},
		{"kc_admin_30d", "admin", "RS256", "JWT", 30 * day, everything, nil, []string{"api-gw"}},
		{"kc_admin_24mo", "admin", "RS256", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_standard", "standard", "RS256", "JWT", time.Hour, nil, []string{"192.0.2.0/24", "198.51.100.7"}, []string{"api-gw"}},
		{"kc_rs384", "admin", "RS384", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_rs512", "admin", "RS512", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_ps256", "admin", "PS256", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_ps384", "admin", "PS384", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_ps512", "admin", "PS512", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_es256", "admin", "ES256", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_es384", "admin", "ES384", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_es512", "admin", "ES512", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_eddsa", "admin", "EdDSA", "JWT", 730 * day, everything, nil, []string{"api-gw"}},
		{"kc_rfc9068", "standard", "RS256", "at+jwt", 730 * day, nil, []string{"192.0.2.0/24", "198.51.100.7"}, []string{"api-gw"}},
		{"kc_audiences", "admin", "RS256", "JWT", 730 * day, everything, nil, []string{"api-gw", "billing"}},
	} {
		t.Run(row.client, func(t *testing.T) {
			config := keycloakConfig(t)
			config.Algorithms = []string{row.algorithm}
			a := newAPI(t, config)
			token := credentials(t, row.client)
			claims := a.accepts(t, token)

			header, _ := decode(t, token)
			assert.Equal(t, row.algorithm, header["alg"])
			assert.Equal(t, row.header, header["typ"])
			assert.Equal(t, realm(t, "KORE-CIDP"), claims.Issuer)
			assert.NotEmpty(t, claims.Subject)
			assert.NotEmpty(t, claims.ID)
			assert.Equal(t, row.client, claims.ClientID)
			assert.ElementsMatch(t, row.audience, claims.Audience)
			assert.Equal(t, []string{"email"}, claims.Scopes)
			assert.Equal(t, row.lifetime, claims.Expiry.Sub(claims.IssuedAt))
			assert.WithinDuration(t, time.Now(), claims.IssuedAt, time.Minute)
			assert.True(t, claims.NotBefore.IsZero(), "Keycloak's access tokens have no nbf")
			assert.Equal(t, "CO1686726interop", claims.AccountID)
			assert.Equal(t, row.clientType, claims.ClientType)
			assert.Equal(t, "owner@example.com", claims.ClientOwner)
			assert.Equal(t, []string{"SuperSIM", "ProgrammableWireless"}, claims.Products)
			assert.Equal(t, row.resources, claims.Resources)
			assert.ElementsMatch(t, row.ranges, claims.IPRanges)
			var more struct {
				APIKey     string `json:"api-key"`
				TwilioSID  string `json:"twilio-sid"`
				ClientHost string `json:"clientHost"`
				Verified   *bool  `json:"email_verified"`
			}
			require.NoError(t, claims.Decode(&more))
			assert.Equal(t, "not-a-real-key", more.APIKey)
			assert.Equal(t, "interopSID", more.TwilioSID)
			assert.Equal(t, "127.0.0.1", more.ClientHost)
			if assert.NotNil(t, more.Verified) {
				assert.False(t, *more.Verified)
			}

			resp, _ := a.call(t, "GET", "/v1/supersims", "Bearer "+token)
			assert.Equal(t, http.StatusOK, resp.StatusCode, "both client types have the product")
			resp, _ = a.call(t, "DELETE", "/v1/clients/7", "Bearer "+token)
			want := http.StatusOK
			if row.resources == nil {
				want = http.StatusForbidden
			}
			assert.Equal(t, want, resp.StatusCode, "only admin clients have the grant")
		})
	}
	t.Run("a user's access token", func(t *testing.T) {
		claims := newAPI(t, keycloakConfig(t)).accepts(t, signIn(t, "openid").Access)
		assert.Equal(t, "kc_portal", claims.ClientID, "azp, since there is no client_id")
		assert.Equal(t, []string{"openid", "email"}, claims.Scopes)
	})
}

func TestKeycloak_RejectsOtherTokens(t *testing.T) {
	a := newAPI(t, keycloakConfig(t))
	widerConfig := keycloakConfig(t)
	widerConfig.Audience = append(widerConfig.Audience, "kc_portal", realm(t, "KORE-CIDP"))
	wider := newAPI(t, widerConfig)
	rs256Config := keycloakConfig(t)
	rs256Config.Algorithms = nil
	rs256 := newAPI(t, rs256Config)
	oneClientConfig := keycloakConfig(t)
	oneClientConfig.ClientIDs = []string{"kc_standard"}
	oneClient := newAPI(t, oneClientConfig)

	for _, each := range []*api{a, wider, rs256, oneClient} {
		// Without keys, an API does not fetch them for a token of another issuer or
		// audience, and the reason would be a different one.
		require.NoError(t, each.Ready(t.Context()))
	}

	person := signIn(t, "openid")
	offline := signIn(t, "openid offline_access")
	foreign := grant(t, tokenEndpoint(t, "OTHER"), "kc_admin", url.Values{"grant_type": {"client_credentials"}}).Access
	for _, row := range []struct {
		what   string
		api    *api
		token  string
		reason error
	}{
		{"an ID token", a, person.ID, koreauth.ErrAudience},
		{"an ID token whose client is an accepted audience", wider, person.ID, koreauth.ErrTokenType},
		{"a refresh token, which Keycloak signs with a secret", wider, person.Refresh, koreauth.ErrAlgorithm},
		{"an offline token", wider, offline.Refresh, koreauth.ErrAlgorithm},
		{"a logout token", a, logoutToken(t), koreauth.ErrTokenType},
		{"another realm's token, same client and audience", a, foreign, koreauth.ErrUnknownKey},
		{"an administrator's token of the master realm", a, administrator(t), koreauth.ErrUnknownKey},
		{"a token for another API", a, credentials(t, "kc_elsewhere"), koreauth.ErrAudience},
		{"an algorithm that is not enabled", rs256, credentials(t, "kc_es256"), koreauth.ErrAlgorithm},
		{"a client that is not in ClientIDs", oneClient, credentials(t, "kc_admin"), koreauth.ErrClient},
		{"a sender-constrained token, whose typ is DPoP", a, boundToken(t), koreauth.ErrTokenType},
		{"a token whose signature was changed", a, damaged(credentials(t, "kc_admin")), koreauth.ErrSignature},
		{"a token with an unknown key ID", a, relabeled(t, credentials(t, "kc_admin")), koreauth.ErrUnknownKey},
	} {
		t.Run(row.what, func(t *testing.T) { row.api.rejects(t, row.token, row.reason) })
	}

	t.Run("a token after it has expired", func(t *testing.T) {
		token := credentials(t, "kc_brief")
		a.accepts(t, token)
		eventually(t, "it expires", func() bool {
			_, err := a.Validate(t.Context(), token)
			return err != nil
		})
		a.rejects(t, token, koreauth.ErrExpired)
	})
	t.Run("another realm's token costs the issuer no request", func(t *testing.T) {
		var requests counter
		config := keycloakConfig(t)
		config.HTTPClient = &http.Client{Transport: &requests}
		counted := newAPI(t, config)
		require.NoError(t, counted.Ready(t.Context()))
		before := requests.sent.Load()
		for range 20 {
			counted.rejects(t, foreign, koreauth.ErrUnknownKey)
		}
		assert.Equal(t, before, requests.sent.Load())
	})
}

// The realm key is rotated as in the admin console.
func TestKeycloak_Rotation(t *testing.T) {
	usual := newAPI(t, keycloakConfig(t))
	var requests counter
	a := newAPI(t, shortLived(t, &requests))

	old := credentials(t, "kc_admin_24mo")
	usual.accepts(t, old)
	a.accepts(t, old)

	oldKeys := addRS256Key(t)
	fresh := credentials(t, "kc_admin_24mo")
	require.NotEqual(t, keyID(t, old), keyID(t, fresh), "the new key signs")
	usual.accepts(t, fresh) // on its first request, with the default configuration
	usual.accepts(t, old)
	a.accepts(t, fresh)

	for _, key := range oldKeys {
		setKey(t, key, "active", false)
	}
	refreshed(t, a, &requests, fresh)
	a.accepts(t, old)
	a.accepts(t, fresh)

	for _, key := range oldKeys {
		setKey(t, key, "enabled", false)
	}
	eventually(t, "a refresh removes the old key", func() bool {
		_, err := a.Validate(t.Context(), fresh)
		require.NoError(t, err)
		_, err = a.Validate(t.Context(), old)
		return err != nil
	})
	a.rejects(t, old, koreauth.ErrUnknownKey)
	a.accepts(t, fresh)

	// Its keys are a few seconds old and are used until MaxAge. After disabling a
	// key, an operator has to wait for that long.
	usual.accepts(t, old)
}

func TestKeycloak_Outage(t *testing.T) {
	var requests counter
	a := newAPI(t, shortLived(t, &requests))
	token := credentials(t, "kc_admin")
	foreign := grant(t, tokenEndpoint(t, "OTHER"), "kc_admin", url.Values{"grant_type": {"client_credentials"}}).Access
	a.accepts(t, token)
	stop := a.traffic(t, token)

	server(t, "stop")
	// Only refreshes of the keys cause requests here, so each failure is a refresh.
	eventually(t, "several refreshes fail", func() bool { return requests.failed.Load() > 5 })

	// An API that starts during the outage has no keys. It responds with 503 and does
	// not block.
	late := newAPI(t, keycloakConfig(t))
	assert.ErrorIs(t, late.Ready(t.Context()), koreauth.ErrUnavailable)
	resp, body := late.call(t, "GET", "/v1/ping", "Bearer "+token)
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.Equal(t, `{"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}`, body)
	assert.Empty(t, resp.Header.Get("WWW-Authenticate"))
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	assert.NoError(t, err)
	assert.GreaterOrEqual(t, seconds, 1)
	// Tokens that can be rejected without new keys are still rejected.
	a.rejects(t, foreign, koreauth.ErrUnknownKey)
	a.rejects(t, damaged(token), koreauth.ErrSignature)
	// The key might exist by now, so this token cannot be rejected.
	_, err = a.Validate(t.Context(), relabeled(t, token))
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)

	server(t, "start")
	eventually(t, "the new API gets keys", func() bool { return late.Ready(t.Context()) == nil })
	late.accepts(t, token)
	refreshed(t, a, &requests, token)
	a.accepts(t, credentials(t, "kc_admin"))

	calls, wrong := stop()
	assert.Empty(t, wrong)
	t.Logf("%d calls before, during and after the outage, %d of them rejected; %d of %d requests to the issuer failed",
		calls, len(wrong), requests.failed.Load(), requests.sent.Load())
}

// introspect reports whether Keycloak considers a token active. It asks as the
// client of the API.
func introspect(t testing.TB, token string) bool {
	t.Helper()
	form := url.Values{"token": {token}, "client_id": {"api-gw"}, "client_secret": {env(t, "KORE_CLIENT_SECRET")}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", tokenEndpoint(t, "KORE-CIDP")+"/introspect", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, body := do(t, http.DefaultClient, req)
	require.Equal(t, http.StatusOK, resp.StatusCode, body)
	var answer struct{ Active bool }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	return answer.Active
}

// refreshed waits until the API has fetched keys twice, so that the second fetch
// began after the call of refreshed.
func refreshed(t testing.TB, a *api, requests *counter, token string) {
	t.Helper()
	good := func() int64 { return requests.sent.Load() - requests.failed.Load() }
	before := good()
	eventually(t, "the keys are fetched again", func() bool {
		_, err := a.Validate(t.Context(), token)
		require.NoError(t, err)
		return good() >= before+2
	})
}

// server stops or starts Keycloak, which keeps its database.
func server(t testing.TB, verb string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "keycloak/server.sh", verb).CombinedOutput()
	require.NoError(t, err, string(out))
}

// administrator gets a token of the client that server.sh creates when Keycloak
// first starts.
func administrator(t testing.TB) string {
	t.Helper()
	return grant(t, tokenEndpoint(t, "master"), "interop", url.Values{"grant_type": {"client_credentials"}}).Access
}

// admin calls Keycloak's admin API, in a test or in its cleanup.
func admin(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequest(method, keycloak(t)+path, bytes.NewReader(encoded))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+administrator(t))
	req.Header.Set("Content-Type", "application/json")
	resp, text := do(t, http.DefaultClient, req)
	require.Less(t, resp.StatusCode, 300, "%s %s: %s", method, path, text)
	if answer != nil {
		require.NoError(t, json.Unmarshal([]byte(text), answer))
	}
}

// component is the form in which Keycloak stores a provider of realm keys.
type component struct {
	ID           string              `json:"id,omitempty"`
	Name         string              `json:"name"`
	ProviderID   string              `json:"providerId"`
	ProviderType string              `json:"providerType"`
	ParentID     string              `json:"parentId"`
	Config       map[string][]string `json:"config"`
}

const keyProvider = "org.keycloak.keys.KeyProvider"

// addRS256Key adds a key with the highest priority, and returns the older ones.
func addRS256Key(t testing.TB) (old []component) {
	t.Helper()
	var all []component
	admin(t, "GET", "/admin/realms/KORE-CIDP/components?type="+keyProvider, nil, &all)
	priority := 100
	for _, c := range all {
		if c.ProviderID != "rsa-generated" || !slices.Equal(c.Config["algorithm"], []string{"RS256"}) {
			continue
		}
		old = append(old, c)
		p, err := strconv.Atoi(c.Config["priority"][0])
		require.NoError(t, err)
		priority = max(priority, p)
	}
	require.NotEmpty(t, old)
	admin(t, "POST", "/admin/realms/KORE-CIDP/components", component{
		Name: fmt.Sprintf("rs256-%d", priority+100), ProviderID: "rsa-generated", ProviderType: keyProvider, ParentID: old[0].ParentID,
		Config: map[string][]string{
			"algorithm": {"RS256"}, "keySize": {"2048"}, "priority": {strconv.Itoa(priority + 100)}, "enabled": {"true"}, "active": {"true"},
		},
	}, nil)
	return old
}

// setKey makes a key passive ("active" false) or disables it ("enabled" false).
func setKey(t testing.TB, key component, setting string, on bool) {
	t.Helper()
	key.Config[setting] = []string{strconv.FormatBool(on)}
	admin(t, "PUT", "/admin/realms/KORE-CIDP/components/"+key.ID, key, nil)
}

// logoutToken returns what Keycloak sends to a client's server when a session ends
// (OpenID Connect Back-Channel Logout 1.0 §2.4).
func logoutToken(t testing.TB) string {
	t.Helper()
	received := make(chan string, 1)
	client := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		received <- r.PostFormValue("logout_token")
	}))
	t.Cleanup(client.Close)
	var found []map[string]any
	admin(t, "GET", "/admin/realms/KORE-CIDP/clients?clientId=kc_portal", nil, &found)
	require.Len(t, found, 1)
	found[0]["attributes"].(map[string]any)["backchannel.logout.url"] = client.URL
	admin(t, "PUT", "/admin/realms/KORE-CIDP/clients/"+found[0]["id"].(string), found[0], nil)

	session := signIn(t, "openid")
	form := url.Values{"client_id": {"kc_portal"}, "client_secret": {env(t, "KORE_CLIENT_SECRET")}, "refresh_token": {session.Refresh}}
	resp, err := http.PostForm(realm(t, "KORE-CIDP")+"/protocol/openid-connect/logout", form)
	require.NoError(t, err)
	resp.Body.Close()
	require.Less(t, resp.StatusCode, 300)
	select {
	case token := <-received:
		return token
	case <-time.After(20 * time.Second):
		require.Fail(t, "Keycloak sent no logout token")
		return ""
	}
}

// boundToken returns a token that only the holder of a key may use (RFC 9449).
func boundToken(t testing.TB) string {
	t.Helper()
	endpoint := tokenEndpoint(t, "KORE-CIDP")
	return grant(t, endpoint, "kc_dpop", url.Values{"grant_type": {"client_credentials"}}, "DPoP", dpopProof(t, endpoint)).Access
}

func dpopProof(t testing.TB, endpoint string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	input := segment(t, map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": map[string]any{
		"kty": "EC", "crv": "P-256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}) + "." + segment(t, map[string]any{"jti": rand.Text(), "htm": "POST", "htu": endpoint, "iat": time.Now().Unix()})
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	require.NoError(t, err)
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(t testing.TB, members map[string]any) string {
	t.Helper()
	text, err := json.Marshal(members)
	require.NoError(t, err)
	return base64.RawURLEncoding.EncodeToString(text)
}

// decode reads a token without using koreauth.
func decode(t testing.TB, token string) (header, payload map[string]any) {
	t.Helper()
	segments := strings.Split(token, ".")
	require.Len(t, segments, 3)
	for i, members := range []*map[string]any{&header, &payload} {
		text, err := base64.RawURLEncoding.DecodeString(segments[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, members))
	}
	return header, payload
}

func keyID(t testing.TB, token string) any {
	t.Helper()
	header, _ := decode(t, token)
	return header["kid"]
}

// relabeled replaces the key ID of a token with one that no key has.
func relabeled(t testing.TB, token string) string {
	t.Helper()
	header, _ := decode(t, token)
	header["kid"] = rand.Text()
	_, rest, _ := strings.Cut(token, ".")
	return segment(t, header) + "." + rest
}

// damaged changes the first character of a token's signature.
func damaged(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	other := "A"
	if token[at] == 'A' {
		other = "B"
	}
	return token[:at] + other + token[at+1:]
}
