package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

const testSecret = "s ecret+%"

// assertNoSecret checks that the output has neither the secret nor a token.
func assertNoSecret(t *testing.T, got result) {
	t.Helper()
	for _, text := range []string{testSecret, url.QueryEscape(testSecret), url.PathEscape(testSecret), "eyJ", "owner@"} {
		assert.NotContains(t, got.out+got.err, text)
	}
}

func TestTest_ShowsWhatIsSent(t *testing.T) {
	issuer := startIssuer(t)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	api := httptest.NewServer(koreauth.New(validator, nil).Require(koreauth.Product("SuperSIM"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization"))) // An API may echo the token.
	})))
	t.Cleanup(api.Close)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	for name, row := range map[string]struct {
		args   []string
		status int
		says   []string
	}{
		"form": {
			[]string{"--token-url", issuer.TokenURL()}, statusOK,
			[]string{"> POST " + issuer.TokenURL(), "> client_id=kc_1&client_secret=[redacted]&grant_type=client_credentials", "< 200 OK (", "first byte", `"access_token":"[redacted]"`, "Auth Test Succeeded"},
		},
		"basic": {
			[]string{"--token-url", issuer.BasicTokenURL(), "--style", "basic"}, statusOK,
			[]string{"> Authorization: Basic [redacted]", "> grant_type=client_credentials", "Auth Test Succeeded"},
		},
		"the token explained": {
			[]string{"--token-url", issuer.TokenURL(), "--issuer", issuer.URL(), "--audience", koretest.Audience}, statusOK,
			[]string{"accepted\n", "pass    signature"},
		},
		"the address": {
			[]string{"--token-url", issuer.TokenURL(), "--issuer", issuer.URL(), "--audience", koretest.Audience, "--client-address", "203.0.113.9"}, statusOK,
			[]string{"accepted\n", "has 203.0.113.9"},
		},
		"a token for another API": {
			[]string{"--token-url", issuer.TokenURL(), "--issuer", issuer.URL(), "--audience", "reports"}, statusRejected,
			[]string{"Auth Test Succeeded", "rejected: invalid token: wrong audience"},
		},
		"the API called": {
			[]string{"--token-url", issuer.TokenURL(), "--api", api.URL + "/v1/sims"}, statusOK,
			[]string{"> GET " + api.URL + "/v1/sims", "> Authorization: Bearer [redacted]", "< 200 OK"},
		},
		"by discovery": {
			[]string{"--issuer", issuer.URL()}, statusOK,
			[]string{"> GET " + issuer.URL() + "/.well-known/openid-configuration", "Auth Test Succeeded"},
		},
	} {
		got := koreauthCommand(t.Context(), "", env, append([]string{"test"}, row.args...)...)
		assert.Equal(t, row.status, got.status, name+got.err)
		for _, text := range row.says {
			assert.Contains(t, got.out, text, name)
		}
		assertNoSecret(t, got)
		assertNarrow(t, got)
	}
}

func TestTest_Failures(t *testing.T) {
	issuer := startIssuer(t)
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "session=abc")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	for name, row := range map[string]struct {
		secret, url string
		more        []string
		status      int
		says        string
	}{
		"a wrong secret":             {"mistyped", issuer.TokenURL(), nil, statusRejected, "KORE's documented error for an unknown client or a wrong secret"},
		"another error":              {testSecret, answer(400, `{"error":"invalid_scope"}`), nil, statusRejected, "the error invalid_scope of RFC 6749 §5.2"},
		"a page":                     {testSecret, answer(404, "<html>"), nil, statusRejected, "no documented answer of a token endpoint"},
		"an outage":                  {testSecret, answer(503, "{}"), nil, statusUnknown, "no documented answer"},
		"an echoed secret":           {testSecret, answer(400, `{"error":"invalid_request","error_description":"`+testSecret+" "+url.QueryEscape(testSecret)+`"}`), nil, statusRejected, "[redacted]"},
		"no answer":                  {testSecret, "http://127.0.0.1:1/", nil, statusUnknown, "check the URL, DNS, the proxy and TLS"},
		"an API that says no":        {testSecret, issuer.TokenURL(), []string{"--api", answer(403, `{"error":"Insufficient scope"}`)}, statusRejected, "< 403 Forbidden"},
		"an API that is down":        {testSecret, issuer.TokenURL(), []string{"--api", answer(502, "")}, statusUnknown, "< 502 Bad Gateway"},
		"no API":                     {testSecret, issuer.TokenURL(), []string{"--api", "http://127.0.0.1:1/"}, statusUnknown, "the API did not answer"},
		"no such route":              {testSecret, issuer.TokenURL(), []string{"--api", answer(404, "")}, statusRejected, "< 404 Not Found"},
		"a bad request":              {testSecret, issuer.TokenURL(), []string{"--api", answer(400, "")}, statusRejected, "< 400 Bad Request"},
		"an API that limits":         {testSecret, issuer.TokenURL(), []string{"--api", answer(429, "")}, statusUnknown, "< 429 Too Many Requests"},
		"a redirect":                 {testSecret, issuer.TokenURL(), []string{"--api", answer(302, "")}, statusUnknown, "< 302 Found"},
		"a bad token, no API":        {testSecret, issuer.TokenURL(), []string{"--api", "http://127.0.0.1:1/", "--issuer", issuer.URL(), "--audience", "reports"}, statusRejected, "the API did not answer"},
		"a bad token, and an outage": {testSecret, issuer.TokenURL(), []string{"--api", answer(503, ""), "--issuer", issuer.URL(), "--audience", "reports"}, statusRejected, "< 503"},
	} {
		env["KORE_CLIENT_SECRET"] = row.secret
		got := koreauthCommand(t.Context(), "", env, append([]string{"test", "--token-url", row.url}, row.more...)...)
		assert.Equal(t, row.status, got.status, "%s: %s %s", name, got.out, got.err)
		assert.Contains(t, got.out, row.says, name)
		assert.Equal(t, row.more == nil, strings.Contains(got.out, "Auth Test Failed: "), name)
		assert.NotContains(t, got.out, "session=abc", name)
		assertNoSecret(t, got)
		assertNarrow(t, got)
	}
	for name, args := range map[string][]string{
		"an API on http":       {"--token-url", issuer.TokenURL(), "--api", "http://api.example/"},
		"a name like loopback": {"--token-url", issuer.TokenURL(), "--api", "http://127.evil.example/"},
		"an API that is none":  {"--token-url", issuer.TokenURL(), "--api", "api"},
		"no endpoint":          {},
		"an argument":          {"--token-url", issuer.TokenURL(), "secret"},
		"an odd requirement":   {"--token-url", issuer.TokenURL(), "--issuer", issuer.URL(), "--audience", "a", "--require", "x"},
		"a rule, no audience":  {"--token-url", issuer.TokenURL(), "--require", "product:x"},
		"an address alone":     {"--token-url", issuer.TokenURL(), "--client-address", "203.0.113.9"},
		"a certificate alone":  {"--token-url", issuer.TokenURL(), "--cert", "cert.pem"},
		"an empty port":        {"--token-url", issuer.TokenURL(), "--api", "https://api.example:/"},
		"credentials":          {"--token-url", issuer.TokenURL(), "--api", "https://u:p@api.example/"},
		"no issuer":            {"--token-url", issuer.TokenURL(), "--audience", "a"},
	} {
		got := koreauthCommand(t.Context(), "", env, append([]string{"test"}, args...)...)
		assert.Equal(t, statusUsage, got.status, name)
		assert.Empty(t, got.out, name)
	}
}

// TestTest_FaultsOfTheIssuer has each fault that an issuer of koretest can have, in both
// styles.
func TestTest_FaultsOfTheIssuer(t *testing.T) {
	issuer := startIssuer(t)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	explained := []string{"--issuer", issuer.URL(), "--audience", koretest.Audience}
	for name, row := range map[string]struct {
		at       koretest.Endpoint
		behavior koretest.Behavior
		more     []string
		status   int
		says     []string
	}{
		"down":               {koretest.TokenEndpoint, koretest.Down, nil, statusUnknown, []string{"Auth Test Failed: ", "There was no answer"}},
		"hanging":            {koretest.TokenEndpoint, koretest.Hanging, nil, statusUnknown, []string{"Auth Test Failed: ", "did not answer in time", "There was no answer"}},
		"garbage":            {koretest.TokenEndpoint, koretest.Garbage, nil, statusUnknown, []string{"< 200 OK", "Auth Test Failed: ", "This is no documented answer of a token endpoint"}},
		"empty":              {koretest.TokenEndpoint, koretest.Empty, nil, statusUnknown, []string{"< 200 OK", "Auth Test Failed: ", "This is no documented answer of a token endpoint"}},
		"slow":               {koretest.TokenEndpoint, koretest.Slow(50 * time.Millisecond), nil, statusOK, []string{"Auth Test Succeeded"}},
		"too many requests":  {koretest.TokenEndpoint, koretest.Status(429), nil, statusUnknown, []string{"< 429 Too Many Requests", "Auth Test Failed: "}},
		"unavailable":        {koretest.TokenEndpoint, koretest.Status(503), nil, statusUnknown, []string{"< 503 Service Unavailable", "Auth Test Failed: "}},
		"forbidden":          {koretest.TokenEndpoint, koretest.Status(403), nil, statusRejected, []string{"< 403 Forbidden", "Auth Test Failed: "}},
		"keys that are down": {koretest.KeysEndpoint, koretest.Down, explained, statusUnknown, []string{"Auth Test Succeeded", "not judged: temporarily unavailable", "hint the token may be valid"}},
		"garbage for keys":   {koretest.KeysEndpoint, koretest.Garbage, explained, statusUnknown, []string{"Auth Test Succeeded", "not judged: temporarily unavailable"}},
		"no discovery":       {koretest.DiscoveryEndpoint, koretest.Status(404), explained, statusUnknown, []string{"Auth Test Succeeded", "not judged: temporarily unavailable"}},
	} {
		issuer.Behave(row.behavior, row.at)
		for _, style := range [][]string{{"--token-url", issuer.TokenURL()}, {"--token-url", issuer.BasicTokenURL(), "--style", "basic"}} {
			ctx, cancel := t.Context(), func() {}
			if name == "hanging" {
				ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
			}
			got := koreauthCommand(ctx, "", env, slices.Concat([]string{"test"}, style, row.more)...)
			cancel()
			assert.Equal(t, row.status, got.status, "%s: %s %s", name, got.out, got.err)
			for _, text := range row.says {
				assert.Contains(t, strings.Join(strings.Fields(got.out), " "), text, name)
			}
			assertNoSecret(t, got)
			assertNarrow(t, got)
		}
		issuer.Behave(nil, row.at)
	}
}
