package koreclient_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koreclient"
	"github.com/koreauth/koreauth/koretest"
)

func TestNew_Faults(t *testing.T) {
	valid := koreclient.Config{TokenURL: tokenURL, ClientID: "kc_1", ClientSecret: secret}
	for name, row := range map[string]struct {
		change func(*koreclient.Config)
		says   string // empty: valid
	}{
		"valid":               {func(*koreclient.Config) {}, ""},
		"http on loopback":    {func(c *koreclient.Config) { c.TokenURL = "http://127.0.0.1:8080/token" }, ""},
		"http on localhost":   {func(c *koreclient.Config) { c.TokenURL = "http://localhost/token" }, ""},
		"an issuer":           {func(c *koreclient.Config) { c.TokenURL, c.Issuer = "", "https://issuer.example" }, ""},
		"no URL":              {func(c *koreclient.Config) { c.TokenURL = "" }, "TokenURL and Issuer are empty"},
		"http":                {func(c *koreclient.Config) { c.TokenURL = "http://issuer.example/token" }, "TokenURL is http"},
		"an issuer on http":   {func(c *koreclient.Config) { c.TokenURL, c.Issuer = "", "http://issuer.example" }, "Issuer is http"},
		"an issuer's query":   {func(c *koreclient.Config) { c.TokenURL, c.Issuer = "", "https://issuer.example?x" }, "Issuer has a query"},
		"a path":              {func(c *koreclient.Config) { c.TokenURL = "/token" }, "TokenURL is not an absolute URL"},
		"another scheme":      {func(c *koreclient.Config) { c.TokenURL = "ftp://issuer.example/" }, "TokenURL is not https"},
		"credentials":         {func(c *koreclient.Config) { c.TokenURL = "https://a:b@issuer.example/" }, "has credentials in it"},
		"a fragment":          {func(c *koreclient.Config) { c.TokenURL += "#" }, "has a fragment"},
		"no client":           {func(c *koreclient.Config) { c.ClientID = "" }, "ClientID is empty"},
		"no secret":           {func(c *koreclient.Config) { c.ClientSecret = "" }, "ClientSecret and Secret are empty"},
		"two secrets":         {func(c *koreclient.Config) { c.Secret = func(context.Context) (string, error) { return "", nil } }, "are both set"},
		"an unknown style":    {func(c *koreclient.Config) { c.Style = 7 }, "Style is unknown"},
		"a negative duration": {func(c *koreclient.Config) { c.RefreshAfter = -1 }, "RefreshAfter is negative"},
		"a scope in quotes":   {func(c *koreclient.Config) { c.Scope = `"a"` }, "Scope has a character"},
	} {
		config := valid
		row.change(&config)
		_, err := koreclient.New(config)
		if row.says == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, "koreclient: Config.", name)
			assert.ErrorContains(t, err, row.says, name)
		}
	}
	_, err := koreclient.New(koreclient.Config{})
	assert.Len(t, strings.Split(err.Error(), "\n"), 3, "all faults are reported at once")
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	config := koreclient.Config{TokenURL: tokenURL + "?key=" + "hidden", Issuer: "https://u:hidden@issuer.example", ClientID: "kc_1", ClientSecret: "hidden"}
	client, err := koreclient.New(koreclient.Config{TokenURL: tokenURL, ClientID: "kc_1", ClientSecret: "hidden"})
	require.NoError(t, err)
	token := koreclient.Token{Value: "hidden", Expiry: time.Unix(0, 0), Scope: "a"}
	for _, value := range []any{config, &config, client, token, &token, struct{ T koreclient.Token }{token}, []koreclient.Config{config}} {
		encoded, err := json.Marshal(value)
		require.NoError(t, err)
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", value)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "value", value)
		for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q %d %x", value, value, value, value, value, value, value), string(encoded), log.String()} {
			assert.NotContains(t, text, "hidden", "%T", value)
			assert.NotContains(t, text, fmt.Sprintf("%x", "hidden"), "%T", value)
		}
	}
}

// Both token endpoints of koretest, with a secret that must be encoded.
func TestClient_Koretest(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{ID: "kc:1", Secret: secret, Lifetime: koretest.OneHour}}})
	require.NoError(t, err)
	defer issuer.Close()
	for name, config := range map[string]koreclient.Config{
		"form":      {TokenURL: issuer.TokenURL()},
		"Basic":     {TokenURL: issuer.BasicTokenURL(), Style: koreclient.Basic},
		"discovery": {Issuer: issuer.URL()},
	} {
		config.ClientID, config.ClientSecret = "kc:1", secret
		c, err := koreclient.New(config)
		require.NoError(t, err)
		token, err := c.Token(t.Context())
		require.NoError(t, err, name)
		assert.Greater(t, time.Until(token.Expiry), 59*time.Minute, name)

		config.ClientSecret = "wrong secret"
		c, err = koreclient.New(config)
		require.NoError(t, err)
		_, err = c.Token(t.Context())
		var failed *koreclient.Error
		require.ErrorAs(t, err, &failed, name)
		assert.Equal(t, 401, failed.Status, name)
		assert.NotContains(t, err.Error(), "wrong secret")
	}
}
