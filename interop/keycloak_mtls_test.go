package interop_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koreclient"
	"github.com/koreauth/koreauth/mtls"
)

// TestKeycloak_CertificateBoundTokens has tokens of Keycloak that are bound to the
// certificate with which the client got them.
func TestKeycloak_CertificateBoundTokens(t *testing.T) {
	tokenURL := "https://127.0.0.1:" + env(t, "KEYCLOAK_TLS_PORT") + "/realms/KORE-CIDP/protocol/openid-connect/token"
	file := func(name string) string {
		path, err := filepath.Abs(filepath.Join(".cache", "tls", name))
		require.NoError(t, err)
		return path
	}
	authority, err := os.ReadFile(file("server.pem"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(authority))

	validator, err := koreauth.NewValidator(keycloakConfig(t))
	require.NoError(t, err)
	guard := koreauth.New(validator, &koreauth.Options{Sender: &mtls.Sender{Certificate: mtls.FromConnection, Required: true}})
	server := httptest.NewUnstartedServer(guard.Wrap(http.HandlerFunc(ping)))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	pool.AddCert(server.Certificate())

	client := func(names ...string) *http.Client {
		config := &tls.Config{RootCAs: pool}
		for _, name := range names {
			pair, err := tls.LoadX509KeyPair(file(name+".pem"), file(name+".key"))
			require.NoError(t, err)
			config.Certificates = append(config.Certificates, pair)
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	}
	get := func(c *http.Client, token string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := c.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if res.StatusCode != http.StatusOK {
			return strconv.Itoa(res.StatusCode)
		}
		return strconv.Itoa(res.StatusCode) + " " + string(body)
	}

	owner, err := koreclient.New(koreclient.Config{TokenURL: tokenURL, ClientID: "kc_bound", ClientSecret: env(t, "KORE_CLIENT_SECRET"), HTTPClient: client("client")})
	require.NoError(t, err)
	token, err := owner.Token(t.Context())
	require.NoError(t, err)
	for range 2 { // The second time, the token is remembered.
		assert.Equal(t, "200 kc_bound", get(client("client"), token.Value))
		assert.Equal(t, "403", get(client("other"), token.Value), "another certificate")
		assert.Equal(t, "403", get(client(), token.Value), "no certificate")
	}
	_, err = validator.Validate(t.Context(), token.Value)
	require.ErrorIs(t, err, koreauth.ErrBinding, "without a request nobody confirms it")
	assert.Equal(t, "403", get(client("client"), credentials(t, "kc_admin")), "a token that is not bound, which is required")

	res, err := client().PostForm(tokenURL, url.Values{"grant_type": {"client_credentials"}, "client_id": {"kc_bound"}, "client_secret": {env(t, "KORE_CLIENT_SECRET")}})
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, http.StatusBadRequest, res.StatusCode, "Keycloak issues none without a certificate")

	c := credentialsOf{issuer: realm(t, "KORE-CIDP"), id: "kc_bound", secret: env(t, "KORE_CLIENT_SECRET"), apiURL: server.URL}
	for _, pair := range []struct{ name, want string }{{"client", "200 kc_bound"}, {"other", "200 kc_bound"}} {
		environment := []string{"TOKEN_URL=" + tokenURL, "CA=" + file("server.pem"), "CERT=" + file(pair.name+".pem"), "KEY=" + file(pair.name+".key")}
		assert.Equal(t, pair.want, run(t, c, environment, "clients/curl-mtls.sh"), "curl")
		assert.Equal(t, pair.want, run(t, c, environment, "node", "clients/openid-client-mtls.mjs"), "openid-client")
	}
}
