package interop_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koreclient"
	"github.com/koreauth/koreauth/koretest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// credentialsOf are what a client needs to get a token and to call the API.
type credentialsOf struct {
	issuer, tokenURL, basicURL string
	id, secret                 string
	apiURL                     string
}

// clients each get a token and call the API. They return the status and the body
// as "200 body".
var clients = []struct {
	name string
	call func(t *testing.T, c credentialsOf) string
}{
	{"koreclient, secret in the form", func(t *testing.T, c credentialsOf) string {
		return withKoreclient(t, c, koreclient.Config{TokenURL: c.tokenURL})
	}},
	{"koreclient, HTTP Basic", func(t *testing.T, c credentialsOf) string {
		return withKoreclient(t, c, koreclient.Config{TokenURL: c.basicURL, Style: koreclient.Basic})
	}},
	{"koreclient, by discovery", func(t *testing.T, c credentialsOf) string {
		return withKoreclient(t, c, koreclient.Config{Issuer: c.issuer})
	}},
	{"x/oauth2, secret in the form", func(t *testing.T, c credentialsOf) string {
		return withOAuth2(t, c, c.tokenURL, oauth2.AuthStyleInParams)
	}},
	{"x/oauth2, HTTP Basic", func(t *testing.T, c credentialsOf) string {
		return withOAuth2(t, c, c.basicURL, oauth2.AuthStyleInHeader)
	}},
	{"x/oauth2, auto-detected", func(t *testing.T, c credentialsOf) string {
		return withOAuth2(t, c, c.tokenURL, oauth2.AuthStyleAutoDetect)
	}},
	{"openid-client", func(t *testing.T, c credentialsOf) string {
		return run(t, c, nil, "node", "clients/openid-client.mjs")
	}},
	{"curl, secret in the form", func(t *testing.T, c credentialsOf) string {
		return run(t, c, []string{"TOKEN_URL=" + c.tokenURL}, "clients/curl.sh")
	}},
	{"curl, HTTP Basic", func(t *testing.T, c credentialsOf) string {
		return run(t, c, []string{"TOKEN_URL=" + c.basicURL, "AUTH=basic"}, "clients/curl.sh")
	}},
}

func TestClients_GetATokenAndCallTheAPI(t *testing.T) {
	// These characters must survive form encoding, and RFC 6749 §2.3.1.
	odd := koretest.Client{ID: "kc odd:id+%", Secret: `p ss+%&=:/?#"'ü€`, Resources: map[string][]string{"API Clients": {"Read"}}}
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{odd}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)

	for _, from := range []struct {
		name        string
		config      koreauth.Config
		credentials credentialsOf
	}{
		{"koretest",
			koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}},
			credentialsOf{issuer.URL(), issuer.TokenURL(), issuer.BasicTokenURL(), odd.ID, odd.Secret, ""}},
		{"Keycloak",
			keycloakConfig(t),
			credentialsOf{realm(t, "KORE-CIDP"), tokenEndpoint(t, "KORE-CIDP"), tokenEndpoint(t, "KORE-CIDP"), "kc_admin", env(t, "KORE_CLIENT_SECRET"), ""}},
	} {
		a := newAPI(t, from.config)
		from.credentials.apiURL = a.url + "/v1/ping"
		for _, client := range clients {
			t.Run(from.name+"/"+client.name, func(t *testing.T) {
				assert.Equal(t, "200 "+from.credentials.id, client.call(t, from.credentials))
			})
		}
	}
}

func withKoreclient(t *testing.T, c credentialsOf, config koreclient.Config) string {
	config.ClientID, config.ClientSecret = c.id, c.secret
	client, err := koreclient.New(config)
	require.NoError(t, err)
	resp, err := client.HTTPClient("127.0.0.1", "localhost").Get(c.apiURL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strconv.Itoa(resp.StatusCode) + " " + string(body)
}

func withOAuth2(t *testing.T, c credentialsOf, tokenURL string, style oauth2.AuthStyle) string {
	config := clientcredentials.Config{ClientID: c.id, ClientSecret: c.secret, TokenURL: tokenURL, AuthStyle: style}
	resp, err := config.Client(t.Context()).Get(c.apiURL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strconv.Itoa(resp.StatusCode) + " " + string(body)
}

func run(t *testing.T, c credentialsOf, more []string, name string, args ...string) string {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "ISSUER="+c.issuer, "CLIENT_ID="+c.id, "CLIENT_SECRET="+c.secret, "API_URL="+c.apiURL)
	cmd.Env = append(cmd.Env, more...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return strings.TrimSpace(string(out))
}
