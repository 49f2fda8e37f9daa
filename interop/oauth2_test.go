package interop_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// golang.org/x/oauth2 gets tokens from koretest's endpoints over the network,
// with the style set and with the style detected.
func TestOAuth2_GetsTokensFromKoretest(t *testing.T) {
	// The characters that a form must escape.
	account := koretest.Client{ID: "id:1 +%&é", Secret: "s:e =+%25&c/ret"}
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{account}})
	require.NoError(t, err)
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	for _, test := range []struct {
		name, url string
		style     oauth2.AuthStyle
	}{
		{"form", issuer.TokenURL(), oauth2.AuthStyleInParams},
		{"HTTP Basic", issuer.BasicTokenURL(), oauth2.AuthStyleInHeader},
		// The package caches the style per URL, hence the question mark.
		{"form, detected", issuer.TokenURL() + "?", oauth2.AuthStyleAutoDetect},
		{"HTTP Basic, detected", issuer.BasicTokenURL() + "?", oauth2.AuthStyleAutoDetect},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := clientcredentials.Config{ClientID: account.ID, ClientSecret: account.Secret, TokenURL: test.url, AuthStyle: test.style}
			token, err := config.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "Bearer", token.TokenType)
			claims, err := validator.Validate(t.Context(), token.AccessToken)
			require.NoError(t, err)
			assert.Equal(t, account.ID, claims.ClientID)

			config.ClientSecret = "wrong"
			_, err = config.Token(t.Context())
			var rejected *oauth2.RetrieveError
			require.ErrorAs(t, err, &rejected)
			assert.Equal(t, "unauthorized_client", rejected.ErrorCode)
		})
	}
}
