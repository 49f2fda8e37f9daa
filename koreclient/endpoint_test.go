package koreclient_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koreclient"
)

func TestEndpoint_Request(t *testing.T) {
	s := &server{answer: tokens("60")}
	get(t, newClient(t, s, func(c *koreclient.Config) { c.Scope, c.Resource = "a b", "https://api.example/" }))
	get(t, newClient(t, s, func(c *koreclient.Config) { c.Style = koreclient.Basic }))
	form, err := url.ParseQuery(s.bodies[0])
	require.NoError(t, err)
	assert.Equal(t, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"kc_1"}, "client_secret": {secret}, "scope": {"a b"}, "resource": {"https://api.example/"},
	}, form)
	assert.Empty(t, s.requests[0].Header["Authorization"])
	assert.Equal(t, "application/x-www-form-urlencoded", s.requests[0].Header.Get("Content-Type"))
	assert.Equal(t, "application/json", s.requests[0].Header.Get("Accept"))
	assert.Equal(t, "grant_type=client_credentials", s.bodies[1])
	id, password, ok := s.requests[1].BasicAuth()
	assert.True(t, ok)
	assert.Equal(t, "kc_1", id)
	assert.Equal(t, url.QueryEscape(secret), password, "RFC 6749 §2.3.1")
}

func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(claims)) + ".c2lnbmF0dXJl"
}

// The token expires at the earlier of "expires_in" and its own life.
func TestEndpoint_Expiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		skewed := now.Add(-time.Hour).Unix() // the clock of the issuer is an hour behind
		for _, row := range []struct {
			claims, expiresIn string
			want              time.Duration // 0: unknown
		}{
			{fmt.Sprintf(`{"iat":%d,"exp":%d}`, skewed, skewed+600), "", 10 * time.Minute},
			{fmt.Sprintf(`{"iat":%d,"exp":%d}`, skewed, skewed+600), `,"expires_in":300`, 5 * time.Minute},
			{fmt.Sprintf(`{"iat":%d,"exp":%d}`, skewed, skewed+600), `,"expires_in":900`, 10 * time.Minute},
			{fmt.Sprintf(`{"exp":%d}`, now.Add(time.Minute).Unix()), "", time.Minute},
			{`{}`, `,"expires_in":300`, 5 * time.Minute},
			{`{}`, "", 0},
			{`{"exp":"soon"}`, "", 0},
			{`not JSON`, `,"expires_in":300`, 5 * time.Minute},
		} {
			c := newClient(t, &server{answer: reply(200, `{"access_token":"`+jwt(row.claims)+`"`+row.expiresIn+`}`)})
			token, err := c.Token(t.Context())
			require.NoError(t, err)
			want := time.Time{}
			if row.want > 0 {
				want = now.Add(row.want)
			}
			assert.True(t, want.Equal(token.Expiry), "%s %s: %v", row.claims, row.expiresIn, token.Expiry)
		}
	})
}

func TestEndpoint_OddAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		says   string
	}{
		"HTML":                 {reply(200, "<html>", "Content-Type", "text/html; charset=utf-8"), "(text/html)"},
		"nothing":              {reply(200, ""), "not one JSON object"},
		"an array":             {reply(200, "[]"), "not one JSON object"},
		"duplicate members":    {reply(200, `{"access_token":"a","access_token":"b"}`), "duplicate"},
		"no token":             {reply(200, `{"token_type":"Bearer"}`), "no access_token"},
		"a token of odd type":  {reply(200, `{"access_token":7}`), "no access_token"},
		"an empty token":       {reply(200, `{"access_token":""}`), "no access_token"},
		"a line break":         {reply(200, `{"access_token":"a\r\nX: y"}`), "no bearer token has"},
		"a large token":        {reply(200, `{"access_token":"`+strings.Repeat("a", 70_000)+`"}`), "over 64 KiB"},
		"another type":         {reply(200, `{"access_token":"a","token_type":"mac"}`), "not Bearer"},
		"an error in a 200":    {reply(200, `{"access_token":"a","error":"invalid_scope"}`), "invalid_scope: check Scope"},
		"an error":             {reply(400, `{"error":"invalid_scope","error_description":"no such scope"}`), "400 invalid_scope: no such scope: check Scope"},
		"a redirect":           {reply(302, "{}", "Location", "https://evil.example/"), "302"},
		"201":                  {reply(201, `{"access_token":"a"}`), "201"},
		"a huge answer":        {reply(200, `{"a":"`+strings.Repeat("a", 2<<20)+`"}`), "1 MiB"},
		"an echoed secret":     {reply(400, `{"error":"invalid_request","error_description":"bad `+secret+` `+url.QueryEscape(secret)+` owner@example.com `+jwt("{}")+`"}`), "[redacted]"},
		"a secret as the code": {reply(400, `{"error":"`+secret+`"}`), "400"},
		"control characters":   {reply(400, `{"error":"x","error_description":"\u001b[31m\n`+strings.Repeat("y", 5000)+`"}`), "400 x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, &server{answer: row.answer}).Token(t.Context())
			var failed *koreclient.Error
			require.ErrorAs(t, err, &failed)
			assert.Contains(t, err.Error(), row.says)
			assert.LessOrEqual(t, len(failed.Description), 256)
			for _, hidden := range []string{secret, url.QueryEscape(secret), "owner@", "eyJ", "\x1b", "\n"} {
				assert.NotContains(t, err.Error(), hidden)
			}
		})
	}
	byteOrderMark := reply(200, "\ufeff"+`{"access_token":"a","expires_in":60}`)
	assert.Equal(t, "a", get(t, newClient(t, &server{answer: byteOrderMark})))
}

// Neither a part of a long secret nor the query of the URL is in an error.
func TestEndpoint_ErrorsHaveNoSecret(t *testing.T) {
	long := strings.Repeat("Zq", 100)
	for shift := range len(long) {
		text := strings.Repeat("x", shift) + strings.Repeat(long+" ", 30)
		c := newClient(t, &server{answer: reply(400, `{"error":"x","error_description":"`+text+`"}`)}, func(c *koreclient.Config) { c.ClientSecret = long })
		_, err := c.Token(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error(), "Zq", shift)
	}
	short := newClient(t, &server{answer: reply(400, `{"error":"x","error_description":"not p4ss"}`)}, func(c *koreclient.Config) { c.ClientSecret = "p4ss" })
	_, err := short.Token(t.Context())
	assert.EqualError(t, err, "koreclient: no token: the token endpoint answered 400 x: not [redacted]")
	refused := &server{answer: func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }}
	c := newClient(t, refused, func(c *koreclient.Config) { c.TokenURL += "?subscription-key=0123456789" })
	_, err = c.Token(t.Context())
	assert.EqualError(t, err, `koreclient: no token: Post "https://issuer.example/token": connection refused`)
}

func TestEndpoint_Discovery(t *testing.T) {
	const issuer = "https://issuer.example/realms/one"
	const first, second = issuer + "/.well-known/openid-configuration", "https://issuer.example/.well-known/oauth-authorization-server/realms/one"
	metadata := func(issuer, endpoint string) func(*http.Request) (*http.Response, error) {
		return reply(200, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, issuer, endpoint))
	}
	for name, row := range map[string]struct {
		answers map[string]func(*http.Request) (*http.Response, error)
		says    string
	}{
		"the first place":     {map[string]func(*http.Request) (*http.Response, error){first: metadata(issuer, tokenURL)}, ""},
		"the second place":    {map[string]func(*http.Request) (*http.Response, error){second: metadata(issuer, tokenURL)}, ""},
		"no place":            {nil, "set Config.TokenURL"},
		"a fault":             {map[string]func(*http.Request) (*http.Response, error){first: reply(500, ""), second: metadata(issuer, tokenURL)}, "500"},
		"another issuer":      {map[string]func(*http.Request) (*http.Response, error){first: metadata(issuer+"/", tokenURL)}, "set Config.Issuer"},
		"no endpoint":         {map[string]func(*http.Request) (*http.Response, error){first: metadata(issuer, "")}, "no token_endpoint"},
		"an endpoint on http": {map[string]func(*http.Request) (*http.Response, error){first: metadata(issuer, "http://issuer.example/token")}, "use https"},
		"no JSON":             {map[string]func(*http.Request) (*http.Response, error){first: reply(200, "<html>")}, "not one JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{}
			endpoint := tokens("60")
			s.answer = func(req *http.Request) (*http.Response, error) {
				if answer := row.answers[req.URL.String()]; answer != nil {
					return answer(req)
				} else if req.URL.String() == tokenURL {
					return endpoint(req)
				}
				return reply(404, "")(req)
			}
			c := newClient(t, s, func(c *koreclient.Config) { c.TokenURL, c.Issuer = "", issuer })
			token, err := c.Token(t.Context())
			if row.says == "" {
				require.NoError(t, err)
				assert.Equal(t, "token-1", token.Value)
				before := s.count()
				c.Invalidate(token)
				assert.Equal(t, "token-2", get(t, c))
				assert.Equal(t, before+1, s.count(), "the endpoint is discovered once")
				return
			}
			assert.ErrorContains(t, err, row.says)
			for _, body := range s.bodies {
				assert.NotContains(t, body, "client_secret")
			}
		})
	}
}
