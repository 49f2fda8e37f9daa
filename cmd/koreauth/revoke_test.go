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
		"a URL that is none":    {[]string{"list", "--url", "api.example"}, "--url is not an absolute URL"},
		"no credentials":        {[]string{"list", "--url", "https://api.example/"}, "KORE_TOKEN_FILE"},
	} {
		got := koreauthCommand(t.Context(), "", nil, row.args...)
		assert.Equal(t, statusUsage, got.status, name)
		assert.Contains(t, got.err, row.says, name)
	}
	for _, url := range []string{"http://api.example/", "http://127.evil.example/", "http://127.0.0.1.evil.example/", "http://localhost.evil.example/"} {
		got := koreauthCommand(t.Context(), "", map[string]string{"KORE_TOKEN_FILE": empty}, "list", "--url", url)
		assert.Equal(t, statusUsage, got.status, url)
		assert.Contains(t, got.err, "use https", url)
	}
	assert.NoFileExists(t, file)
}
