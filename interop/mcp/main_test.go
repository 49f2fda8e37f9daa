package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth/extauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// sent notes the status of each answer.
type sent struct {
	mu      sync.Mutex
	answers []string
}

func (s *sent) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers = append(s.answers, req.Method+" "+req.URL.Path+" "+res.Status)
	}
	return res, err
}

// TestMCP_OfficialClient lets the client of the official SDK find its way: 401, metadata
// of the server, metadata of Keycloak, token, 200.
func TestMCP_OfficialClient(t *testing.T) {
	port, secret := os.Getenv("KEYCLOAK_PORT"), os.Getenv("KORE_CLIENT_SECRET")
	if port == "" {
		t.Skip("start Keycloak with run.sh")
	}
	issuer := "http://127.0.0.1:" + port + "/realms/KORE-CIDP"
	server := httptest.NewUnstartedServer(nil)
	resource := "http://" + server.Listener.Addr().String() + "/mcp"
	guarded, err := handler(resource, koreauth.Config{Issuer: issuer, Audience: []string{"api-gw"}})
	require.NoError(t, err)
	server.Config.Handler = guarded
	server.Start()
	t.Cleanup(server.Close)

	connect := func(id, secret string) (*mcp.ClientSession, *sent, error) {
		s := &sent{}
		credentials, err := extauth.NewClientCredentialsHandler(&extauth.ClientCredentialsHandlerConfig{
			Credentials: &oauthex.ClientCredentials{ClientID: id, ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: secret}, Issuer: issuer},
			HTTPClient:  &http.Client{Transport: s},
		})
		require.NoError(t, err)
		transport := &mcp.StreamableClientTransport{Endpoint: resource, HTTPClient: &http.Client{Transport: s}, OAuthHandler: credentials}
		session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "v1.0.0"}, nil).Connect(t.Context(), transport, nil)
		return session, s, err
	}
	session, s, err := connect("kc_admin", secret)
	require.NoError(t, err)
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"id": "kc_admin"}, result.StructuredContent)
	require.NoError(t, session.Close())
	require.GreaterOrEqual(t, len(s.answers), 5)
	t.Log(s.answers)
	assert.Equal(t, "POST /mcp 401 Unauthorized", s.answers[0])
	assert.Equal(t, "GET /.well-known/oauth-protected-resource/mcp 200 OK", s.answers[1])
	assert.Contains(t, s.answers, "POST /realms/KORE-CIDP/protocol/openid-connect/token 200 OK")
	assert.Contains(t, s.answers, "POST /mcp 200 OK")

	_, s, err = connect("kc_admin", "wrong")
	require.Error(t, err)
	assert.NotContains(t, s.answers, "POST /mcp 200 OK")
}
