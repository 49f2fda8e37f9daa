package koretest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

func TestIssuer_Introspection(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	client := issuer.Client()
	ask := func(token, secret string, basic bool) (status int, members map[string]any) {
		form := url.Values{"token": {token}}
		if !basic {
			form.Set("client_id", client.ID)
			form.Set("client_secret", secret)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, issuer.IntrospectionURL(), strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if basic {
			req.SetBasicAuth(url.QueryEscape(client.ID), url.QueryEscape(secret))
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
		require.NoError(t, json.NewDecoder(res.Body).Decode(&members))
		return res.StatusCode, members
	}
	opaque, err := issuer.Opaque(koretest.Token{Claims: map[string]any{"scope": "a b"}})
	require.NoError(t, err)
	expired, err := issuer.Opaque(koretest.Token{Claims: map[string]any{"exp": 1}})
	require.NoError(t, err)
	endless, err := issuer.Opaque(koretest.Token{Drop: []string{"exp"}, Claims: map[string]any{"token_type": "refresh_token"}})
	require.NoError(t, err)
	assert.NotContains(t, opaque, ".")
	valid, revoked := issuer.Valid(), issuer.Valid()
	issuer.Deactivate(revoked)
	for name, row := range map[string]struct {
		token  string
		active bool
	}{
		"opaque": {opaque, true}, "without exp": {endless, true}, "expired": {expired, false}, "a JWT": {valid, true}, "a revoked one": {revoked, false}, "a forged one": {issuer.Forged(), false},
		"an expired one": {issuer.Expired(), false}, "unknown": {"unknown", false}, "none": {"", false},
	} {
		for _, basic := range []bool{false, true} {
			status, members := ask(row.token, client.Secret, basic)
			assert.Equal(t, 200, status, name)
			assert.Equal(t, row.active, members["active"], name)
			assert.Equal(t, row.active, members["iss"] == issuer.URL(), name)
			if !row.active {
				assert.Len(t, members, 1, name)
			}
		}
	}
	_, members := ask(opaque, client.Secret, true)
	assert.Equal(t, "a b", members["scope"])
	assert.Equal(t, "Bearer", members["token_type"])
	_, members = ask(endless, client.Secret, true)
	assert.Equal(t, "refresh_token", members["token_type"])
	status, members := ask(opaque, "wrong", true)
	assert.Equal(t, 401, status)
	assert.Equal(t, "invalid_client", members["error"])
	issuer.Deactivate(opaque)
	_, members = ask(opaque, client.Secret, false)
	assert.Equal(t, map[string]any{"active": false}, members)
	assert.Equal(t, 22, issuer.Requests(koretest.IntrospectionEndpoint))

	res, err := http.Get(issuer.URL() + "/.well-known/openid-configuration")
	require.NoError(t, err)
	defer res.Body.Close()
	var metadata struct {
		Endpoint string `json:"introspection_endpoint"`
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&metadata))
	assert.Equal(t, issuer.IntrospectionURL(), metadata.Endpoint)
}
