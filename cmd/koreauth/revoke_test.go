package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

func TestRevoke_File(t *testing.T) {
	issuer := startIssuer(t)
	file := filepath.Join(t.TempDir(), "revoked.log")
	tokenFile := filepath.Join(t.TempDir(), "token.txt")
	require.NoError(t, os.WriteFile(tokenFile, []byte(issuer.Valid()+"\n"), 0o600))
	for _, row := range []struct {
		args []string
		says string
	}{
		{[]string{"revoke", "--client", "kc_1", "--reason", "leaked key"}, "1  revoked  client kc_1\n"},
		{[]string{"revoke", "--token-file", tokenFile}, "2  revoked  token "},
		{[]string{"revoke", "--jti", "an-id"}, "3  revoked  token an-id\n"},
		{[]string{"revoke", "--account", "CO1"}, "4  revoked  account CO1\n"},
		{[]string{"revoke", "--subject", "s"}, "5  revoked  subject s\n"},
		{[]string{"revoke", "--everything"}, "6  revoked  everything\n"},
		{[]string{"lift", "--everything"}, "7  lifted  everything\n"},
	} {
		got := koreauthCommand(t.Context(), "", nil, append(row.args, "--file", file, "--issuer", issuer.URL())...)
		assert.Equal(t, statusOK, got.status, "%v: %s", row.args, got.err)
		assert.Contains(t, got.out, row.says)
	}
	got := koreauthCommand(t.Context(), "", nil, "list", "--file", file)
	assert.Equal(t, statusOK, got.status, got.err)
	assert.Equal(t, 7, strings.Count(got.out, "   issuer "+issuer.URL()))
	assert.Contains(t, got.out, "   reason leaked key\n")
	got = koreauthCommand(t.Context(), "", nil, "list", "--file", file, "--json")
	assert.Equal(t, 7, strings.Count(got.out, "\n"))
	var receipt revocation.Receipt
	line, _, _ := strings.Cut(got.out, "\n")
	require.NoError(t, receipt.UnmarshalJSON([]byte(line)))
	assert.Equal(t, "leaked key", receipt.Rule.Reason)
}

// TestRevoke_Handler has an API with a revocation handler that operators may use.
func TestRevoke_Handler(t *testing.T) {
	issuer := startIssuer(t)
	var log bytes.Buffer
	store, list := revocation.Memory(), &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	done := make(chan struct{})
	go func() { defer close(done); _ = list.Follow(t.Context(), store) }()
	t.Cleanup(func() { <-done })
	require.Eventually(t, func() bool { return !list.Status().Current.IsZero() }, 10*time.Second, time.Millisecond)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Require: []koreauth.Requirement{list}})
	require.NoError(t, err)
	guard := koreauth.New(validator, nil)
	mux := http.NewServeMux()
	mux.Handle("/revocations", guard.Require(koreauth.Grant("API Clients", koreauth.Write))(revocation.Handler(store, list)))
	mux.Handle("/ping", guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)

	leaked, err := issuer.Mint(koretest.Token{Claims: map[string]any{"client_id": "kc_leaked", "azp": "kc_leaked"}})
	require.NoError(t, err)
	ping := func() int {
		req := httptest.NewRequest("GET", api.URL+"/ping", nil)
		req.RequestURI = ""
		req.Header.Set("Authorization", "Bearer "+leaked)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_ = res.Body.Close()
		return res.StatusCode
	}
	assert.Equal(t, 200, ping())

	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s ecret+%"}
	at := []string{"--url", api.URL + "/revocations", "--token-url", issuer.TokenURL()}
	rule := append(at, "--issuer", issuer.URL(), "--client", "kc_leaked")
	command := func(env map[string]string, name string, args ...string) result {
		return koreauthCommand(t.Context(), "", env, append([]string{name}, args...)...)
	}
	got := command(env, "revoke", append(rule, "--dry-run")...)
	assert.Equal(t, statusOK, got.status, got.err)
	assert.Contains(t, got.out, "would stop 1 known tokens, of 1 clients\n  kc_leaked\n")
	assert.Equal(t, 200, ping())

	got = command(env, "revoke", append(rule, "--reason", "found on a laptop", "--wait")...)
	assert.Equal(t, statusOK, got.status, got.err)
	assert.Contains(t, got.out, "1  revoked  client kc_leaked\n")
	assert.Contains(t, got.out, "   by kc_1\n")
	require.Eventually(t, func() bool { return ping() == 403 }, 10*time.Second, 5*time.Millisecond)

	tokenFile := filepath.Join(t.TempDir(), "token.txt")
	require.NoError(t, os.WriteFile(tokenFile, []byte(issuer.Ungranted()), 0o600))
	got = command(map[string]string{"KORE_TOKEN_FILE": tokenFile}, "lift", rule...)
	assert.Equal(t, statusRejected, got.status, "the token in the file has no such grant: %s", got.out)
	assert.Contains(t, got.err, "403 Forbidden: Insufficient scope")
	got = command(env, "lift", rule...)
	assert.Equal(t, statusOK, got.status, got.err)
	require.Eventually(t, func() bool { return ping() == 200 }, 10*time.Second, 5*time.Millisecond)

	got = command(env, "list", at...)
	assert.Equal(t, statusOK, got.status, got.err)
	assert.Contains(t, got.out, "1  revoked  client kc_leaked\n")
	assert.Contains(t, got.out, "2  lifted  client kc_leaked\n")
	assert.NotContains(t, log.String(), "s ecret")

	api.Close()
	got = command(env, "list", at...)
	assert.Equal(t, statusUnknown, got.status)
	got = command(map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "wrong"}, "list", at...)
	assert.Equal(t, statusRejected, got.status)
	assert.Contains(t, got.err, "unauthorized_client")
}

// TestRevoke_HandlerThatEchoes has a handler whose answers have the token and odd characters.
func TestRevoke_HandlerThatEchoes(t *testing.T) {
	const token = "opaque-1234567890-abcdefghij"
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"access_token":"` + token + `","expires_in":60}`))
	}))
	t.Cleanup(tokens.Close)
	handler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("dry-run") {
			_, _ = w.Write([]byte(`{"tokens":2,"clients":["kc_\u001b[31mred","` + strings.Repeat("c", 120) + `"]}`))
			return
		}
		connection, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		body := `{"error":"x","error_description":"\u001b[31m ` + r.Header.Get("Authorization") + ` ` + strings.Repeat("long ", 40) + `"}`
		_, _ = connection.Write([]byte("HTTP/1.1 403 No " + r.Header.Get("Authorization") + "\r\nConnection: close\r\n\r\n" + body))
	}))
	t.Cleanup(handler.Close)
	file := filepath.Join(t.TempDir(), "token.txt")
	require.NoError(t, os.WriteFile(file, []byte(token), 0o600))
	for name, env := range map[string]map[string]string{
		"a token in a file": {"KORE_TOKEN_FILE": file},
		"a client":          {"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "a-secret"},
	} {
		args := []string{"--url", handler.URL, "--token-url", tokens.URL, "--issuer", "i", "--client", "c"}
		for _, command := range []string{"revoke", "lift"} {
			got := koreauthCommand(t.Context(), "", env, append([]string{command}, args...)...)
			assert.Equal(t, statusRejected, got.status, name)
			assert.Contains(t, got.err, "the API answered 403 Forbidden: x: ", name)
			assert.NotContains(t, got.out+got.err, token, name)
			assert.NotContains(t, got.out+got.err, "\x1b", name)
			assertNarrow(t, got)
		}
		got := koreauthCommand(t.Context(), "", env, append([]string{"revoke", "--dry-run"}, args...)...)
		assert.Equal(t, statusOK, got.status, name)
		assert.Contains(t, got.out, "would stop 2 known tokens, of 2 clients\n  kc_\ufffd[31mred\n  ccc", name)
		assertNarrow(t, got)
	}
}

func TestRevoke_Usage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "revoked.log")
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("no token"), 0o600))
	for name, row := range map[string]struct {
		args []string
		says string
	}{
		"no store":              {[]string{"revoke", "--issuer", "i", "--client", "c"}, "--url and --file are empty"},
		"two stores":            {[]string{"list", "--file", file, "--url", "https://api.example"}, "are both set"},
		"an argument":           {[]string{"list", "--file", file, "x"}, "list takes no argument"},
		"no issuer":             {[]string{"revoke", "--file", file, "--client", "c"}, "--issuer"},
		"no matcher":            {[]string{"revoke", "--file", file, "--issuer", "i"}, "--everything"},
		"two matchers":          {[]string{"revoke", "--file", file, "--issuer", "i", "--client", "c", "--jti", "j"}, "use exactly one of"},
		"a file and an ID":      {[]string{"revoke", "--file", file, "--issuer", "i", "--token-file", empty, "--jti", "j"}, "are both set"},
		"a file without a JWT":  {[]string{"revoke", "--file", file, "--issuer", "i", "--token-file", empty}, "has no JWT"},
		"a missing token file":  {[]string{"revoke", "--file", file, "--issuer", "i", "--token-file", "/nothing"}, "--token-file: open"},
		"a dry run with a file": {[]string{"revoke", "--file", file, "--issuer", "i", "--client", "c", "--dry-run"}, "--dry-run needs --url"},
		"waiting with a file":   {[]string{"revoke", "--file", file, "--issuer", "i", "--client", "c", "--wait"}, "--wait needs --url"},
		"a dry run that waits":  {[]string{"revoke", "--url", "https://api.example/", "--issuer", "i", "--client", "c", "--wait", "--dry-run"}, "are both set"},
		"an empty port":         {[]string{"list", "--url", "https://api.example:/"}, "empty port"},
		"no host":               {[]string{"list", "--url", "https://:443/"}, "--url is not an absolute URL"},
		"a host with a star":    {[]string{"list", "--url", "https://*.example/"}, "--url is not an absolute URL"},
		"credentials in a URL":  {[]string{"list", "--url", "https://u:p@api.example/"}, "has credentials in it"},
		"http and credentials":  {[]string{"list", "--url", "http://api.example/", "--token-url", "https://issuer.example/"}, "use https"},
		"a URL that is none":    {[]string{"list", "--url", "api.example"}, "--url is not an absolute URL"},
		"no credentials":        {[]string{"list", "--url", "https://api.example/"}, "KORE_TOKEN_FILE"},
	} {
		got := koreauthCommand(t.Context(), "", nil, row.args...)
		assert.Equal(t, statusUsage, got.status, name)
		assert.Contains(t, oneLine(got.err), row.says, name)
	}
	for _, url := range []string{"http://api.example/", "http://127.evil.example/", "http://127.0.0.1.evil.example/", "http://localhost.evil.example/"} {
		got := koreauthCommand(t.Context(), "", map[string]string{"KORE_TOKEN_FILE": empty}, "list", "--url", url)
		assert.Equal(t, statusUsage, got.status, url)
		assert.Contains(t, oneLine(got.err), "use https", url)
	}
	assert.NoFileExists(t, file)
}
