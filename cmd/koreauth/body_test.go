package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// No answer of a token endpoint makes the Test button show a token, whatever member or
// field it is in.
func TestTest_ShowsNoToken(t *testing.T) {
	const token = "LEAKED-1234567890-abcdef"
	for name, row := range map[string]struct{ body, says string }{
		"a refresh token":      {`{"access_token":"` + token + `","refresh_token":"r` + token + `","id_token":"x` + token + `","expires_in":60}`, `"expires_in":60`},
		"spaces":               {"{\n \"access_token\" :\t\"" + token + `", "token_type" : "Bearer" }`, `"token_type" : "Bearer"`},
		"an escaped name":      {`{"access_token":"a","refresh\u005ftoken":"` + token + `"}`, `"access_token":"[redacted]"`},
		"an escaped value":     {`{"access_token":"` + token + `\u0021"}`, `"access_token":"[redacted]"`},
		"a quote in a value":   {`{"scope":"a\":","access_token":"` + token + `"}`, `"access_token":"[redacted]"`},
		"a long token":         {`{"access_token":"` + strings.Repeat(token, 300) + `","scope":"a"}`, `"scope":"a"`},
		"a token of an array":  {`{"tokens":["` + token + `"],"access_token":["` + token + `"]}`, `{"tokens":"[redacted]"`},
		"a token of an object": {`{"access_token":{"value":"` + token + `"},"x":"` + token + `"}`, `"access_token":"[redacted]"`},
		"two of one name":      {`{"access_token":"` + token + `","access_token":"` + token + `"}`, "not one JSON object"},
		"nested":               {`{"data":{"access_token":"` + token + `"}}`, "no access_token"},
		"a form":               {"access_token=" + token + "&scope=a", "access_token=[redacted]&scope=a"},
		"broken JSON":          {`{"access_token":"` + token, "not one JSON object"},
		"XML":                  {"<access_token>" + token + "</access_token>", "<access_token>[redacted]</access_token>"},
		"another secret":       {`{"error":"x","client_secret":"` + token + `"}`, `"client_secret":"[redacted]"`},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.NoError(t, r.ParseForm())
			w.Header().Set("X-Access-Token", token)
			w.Header().Set("X-Echo", r.PostForm.Get("client_secret"))
			_, _ = w.Write([]byte(row.body))
		}))
		env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
		got := koreauthCommand(t.Context(), "", env, "test", "--token-url", server.URL)
		server.Close()
		assert.NotContains(t, got.out+got.err, "LEAKED", name)
		assert.Contains(t, oneLine(got.out), row.says, name)
		assertNoSecret(t, got)
		assertNarrow(t, got)
	}
}

// The reason phrase of an answer may be anything.
func TestTest_ReasonPhrase(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := http.NewResponseController(w).Hijack()
		require.NoError(t, err)
		defer connection.Close()
		_, _ = connection.Write([]byte("HTTP/1.1 401 \x1b[31mwrong " + testSecret + "\r\nContent-Length: 0\r\n\r\n"))
	}))
	t.Cleanup(server.Close)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	got := koreauthCommand(t.Context(), "", env, "test", "--token-url", server.URL)
	assert.Contains(t, got.out, "< 401 \ufffd[31mwrong [redacted] (")
	assertNoSecret(t, got)
}

// Whatever a body is, no value of a token is left, and the rest is as it was.
func FuzzWithoutTokens(f *testing.F) {
	for _, seed := range []string{`{"access_token":"a"}`, `"`, `"\`, `{"a_token"`, `{"a_token":[`, `{"a_token":1}`, "a_token=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		withoutTokens([]byte(body))
		const token = "LEAKED"
		member := `"access_token":"` + token + `"}`
		if strings.Count(body, `"`)%2 == 0 && !strings.Contains(body, `\`) && !strings.Contains(body, token) {
			assert.NotContains(t, withoutTokens([]byte(body+member)), token)
		}
	})
}
