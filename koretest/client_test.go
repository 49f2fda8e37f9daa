package koretest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

// documented401 is the body that KORE documents for wrong credentials.
const documented401 = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`

const grant = "grant_type=client_credentials"

// specialClient has credentials with characters that a form must escape.
var specialClient = koretest.Client{ID: "id:1 +%&é", Secret: "s:e =+%25&c/ret", Lifetime: koretest.ThirtyDays, Products: []string{"SuperSIM"}}

// post sends a form, with HTTP Basic if basic has a name and a password.
func post(t *testing.T, issuer *koretest.Issuer, url, form string, basic ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(form))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 2 {
		req.SetBasicAuth(basic[0], basic[1])
	}
	res, err := issuer.HTTPClient().Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func credentials(c koretest.Client) string {
	return url.Values{"client_id": {c.ID}, "client_secret": {c.Secret}}.Encode()
}

func TestIssuer_GrantsTokenByForm(t *testing.T) {
	issuer := newIssuer(t, specialClient)
	res, body := post(t, issuer, issuer.TokenURL(), grant+"&"+credentials(specialClient))
	require.Equal(t, http.StatusOK, res.StatusCode, body)
	assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
	assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	var answer map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	token := answer["access_token"].(string)
	assert.Equal(t, map[string]any{
		"access_token": token, "expires_in": 2592000.0, "token_type": "Bearer", "scope": "email",
	}, answer)
	verify(t, token, issuer.SigningKey().Public())
	claims := claimsOf(t, token)
	assert.Equal(t, specialClient.ID, claims["client_id"])
	assert.Equal(t, 2592000.0, claims["exp"].(float64)-claims["iat"].(float64))
	assert.Equal(t, 1, issuer.Requests(koretest.TokenEndpoint))
}

func TestIssuer_GrantsTokenByBasic(t *testing.T) {
	issuer := newIssuer(t, specialClient)
	id, secret := url.QueryEscape(specialClient.ID), url.QueryEscape(specialClient.Secret)
	res, body := post(t, issuer, issuer.BasicTokenURL(), grant, id, secret)
	require.Equal(t, http.StatusOK, res.StatusCode, body)
	assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	var answer map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	assert.Equal(t, map[string]any{
		"access_token": answer["access_token"], "expires_in": 2592000.0, "token_type": "Bearer",
	}, answer)
	assert.Equal(t, specialClient.ID, claimsOf(t, answer["access_token"].(string))["client_id"])

	_, body = post(t, issuer, issuer.BasicTokenURL(), grant+"&scope=more", id, secret)
	assert.Contains(t, body, `"scope":"email"`, "the granted scope is named because it may differ from the requested one")
}

func TestIssuer_RejectsTokenRequests(t *testing.T) {
	issuer := newIssuer(t, specialClient, koretest.Client{ID: "plain", Secret: "secret"}, koretest.Client{ID: "nosecret"})
	kore, basic := issuer.TokenURL(), issuer.BasicTokenURL()
	for _, test := range []struct {
		name   string
		url    string
		form   string
		basic  []string
		status int
		want   string
	}{
		{"a wrong secret", kore, grant + "&client_id=plain&client_secret=wrong", nil, 401, "unauthorized_client"},
		{"a secret with another case", kore, grant + "&client_id=plain&client_secret=Secret", nil, 401, "unauthorized_client"},
		{"an unknown client", kore, grant + "&client_id=nobody&client_secret=secret", nil, 401, "unauthorized_client"},
		{"an unknown client without a secret", kore, grant + "&client_id=nobody", nil, 401, "unauthorized_client"},
		{"no credentials", kore, grant, nil, 401, "unauthorized_client"},
		{"a client that has no secret", kore, grant + "&client_id=nosecret&client_secret=", nil, 401, "unauthorized_client"},
		{"HTTP Basic at the endpoint that takes a form", kore, grant, []string{"plain", "secret"}, 401, "unauthorized_client"},
		{"wrong credentials and another grant type", kore, "grant_type=password&client_id=plain&client_secret=wrong", nil, 401, "unauthorized_client"},
		{"credentials in the query", kore + "?client_id=plain&client_secret=secret", grant, nil, 401, "unauthorized_client"},
		{"HTTP Basic with a wrong secret", basic, grant, []string{"plain", "wrong"}, 401, "unauthorized_client"},
		{"HTTP Basic with credentials that are not form-urlencoded", basic, grant, []string{specialClient.ID, specialClient.Secret}, 401, "unauthorized_client"},
		{"HTTP Basic with a malformed escape", basic, grant, []string{"plain", "%zz"}, 401, "unauthorized_client"},
		{"no HTTP Basic", basic, grant, nil, 401, "unauthorized_client"},
		{"HTTP Basic with an empty secret", basic, grant, []string{"nosecret", ""}, 401, "unauthorized_client"},
		{"a form at the endpoint that takes HTTP Basic", basic, grant + "&client_id=plain&client_secret=secret", nil, 401, "unauthorized_client"},
		{"form and HTTP Basic", kore, grant + "&client_id=plain&client_secret=secret", []string{"plain", "secret"}, 400, "invalid_request"},
		{"form and HTTP Basic, at the other endpoint", basic, grant + "&client_id=plain&client_secret=secret", []string{"plain", "secret"}, 400, "invalid_request"},
		{"no grant type", kore, "client_id=plain&client_secret=secret", nil, 400, "invalid_request"},
		{"an empty grant type", basic, "grant_type=", []string{"plain", "secret"}, 400, "invalid_request"},
		{"another grant type", kore, "grant_type=password&client_id=plain&client_secret=secret", nil, 400, "unsupported_grant_type"},
		{"a parameter twice", kore, grant + "&" + grant + "&client_id=plain&client_secret=secret", nil, 400, "invalid_request"},
		{"a malformed form", kore, "%zz", nil, 400, "invalid_request"},
		{"a form that is too large", kore, grant + "&client_id=plain&client_secret=secret&x=" + strings.Repeat("x", 65<<10), nil, 400, "invalid_request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, body := post(t, issuer, test.url, test.form, test.basic...)
			assert.Equal(t, test.status, res.StatusCode)
			assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
			assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
			var answer map[string]string
			require.NoError(t, json.Unmarshal([]byte(body), &answer))
			assert.Equal(t, test.want, answer["error"])
			if test.status != http.StatusUnauthorized {
				assert.Empty(t, res.Header.Get("WWW-Authenticate"))
				return
			}
			assert.Equal(t, documented401, body)
			challenged := strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ")
			assert.Equal(t, test.url == basic, challenged, "only the endpoint that takes HTTP Basic sends its challenge")
		})
	}
}

func TestIssuer_AcceptsOnlyPostedForms(t *testing.T) {
	issuer := newIssuer(t)
	for _, url := range []string{issuer.TokenURL(), issuer.BasicTokenURL()} {
		res, _ := get(t, issuer.HTTPClient(), url)
		assert.Equal(t, http.StatusMethodNotAllowed, res.StatusCode)
		for _, media := range []string{"application/json", "multipart/form-data; boundary=x", ""} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(grant))
			require.NoError(t, err)
			req.Header.Set("Content-Type", media)
			res, err := issuer.HTTPClient().Do(req)
			require.NoError(t, err)
			assert.Equal(t, http.StatusBadRequest, res.StatusCode, media)
		}
	}
	res, err := issuer.HTTPClient().Post(issuer.TokenURL(), "application/x-www-form-urlencoded", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "an empty form has no credentials")
}
