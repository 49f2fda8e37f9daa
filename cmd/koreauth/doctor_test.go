package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/doctor"
	"github.com/koreauth/koreauth/koretest"
)

func TestDoctor_Status(t *testing.T) {
	issuer := startIssuer(t)
	args := []string{"doctor", "--issuer", issuer.URL(), "--audience", koretest.Audience}
	open := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(open.Close)
	file := filepath.Join(t.TempDir(), "token.txt")
	require.NoError(t, os.WriteFile(file, []byte(issuer.Expired()), 0o600))
	for name, row := range map[string]struct {
		more   []string
		status int
		says   string
	}{
		"a healthy issuer":     {nil, statusOK, "ok    keys: 1 usable"},
		"an expired token":     {[]string{"--token-file", file}, statusRejected, "FAIL  token: expiry"},
		"an API without guard": {[]string{"--api", open.URL}, statusRejected, "not guarded"},
		"no keys":              {[]string{"--jwks-url", issuer.URL() + "/nothing"}, statusRejected, "FAIL  keys"},
		"no API":               {[]string{"--api", "api"}, statusUsage, ""},
		"an odd format":        {[]string{"--format", "xml"}, statusUsage, ""},
		"no token file":        {[]string{"--token-file", "/nothing"}, statusUsage, ""},
		"an argument":          {[]string{"x"}, statusUsage, ""},
	} {
		got := koreauthCommand(t.Context(), "", nil, append(args, row.more...)...)
		assert.Equal(t, row.status, got.status, "%s: %s%s", name, got.out, got.err)
		assert.Contains(t, got.out, row.says, name)
		assert.NotContains(t, got.out, "eyJ", name)
		assertNarrow(t, got)
	}
	got := koreauthCommand(t.Context(), "", nil, append(args, "--json")...)
	var findings []map[string]string
	require.NoError(t, json.Unmarshal([]byte(got.out), &findings))
	for _, f := range findings {
		assert.Len(t, f, 4)
	}
}

// With --introspect the issuer is asked about the token, with the credentials of the API.
func TestDoctor_Introspects(t *testing.T) {
	issuer := startIssuer(t)
	api := issuer.Client()
	opaque, err := issuer.Opaque(koretest.Token{})
	require.NoError(t, err)
	revoked := issuer.Valid()
	issuer.Deactivate(revoked)
	env := map[string]string{"KORE_CLIENT_ID": api.ID, "KORE_CLIENT_SECRET": api.Secret}
	for name, row := range map[string]struct {
		token  string
		env    map[string]string
		more   []string
		status int
		says   string
	}{
		"a JWT":             {issuer.Valid(), env, nil, statusOK, "ok    introspection: the token is active"},
		"an opaque token":   {opaque, env, nil, statusOK, "ok    introspection: the token is active"},
		"in the form":       {opaque, env, []string{"--style", "form"}, statusOK, "the token is active"},
		"a URL":             {opaque, env, []string{"--introspection-url", issuer.IntrospectionURL()}, statusOK, "the token is active"},
		"revoked":           {revoked, env, nil, statusRejected, "FAIL  introspection"},
		"a wrong secret":    {opaque, map[string]string{"KORE_CLIENT_ID": api.ID, "KORE_CLIENT_SECRET": "mistyped"}, nil, statusRejected, "check the endpoint"},
		"no credentials":    {opaque, map[string]string{}, nil, statusUsage, "KORE_CLIENT_ID is empty"},
		"an odd style":      {opaque, env, []string{"--style", "x"}, statusUsage, "use form or basic"},
		"an endpoint of no": {opaque, env, []string{"--introspection-url", "x"}, statusUsage, "--introspection-url is not an absolute URL"},
	} {
		file := filepath.Join(t.TempDir(), "token.txt")
		require.NoError(t, os.WriteFile(file, []byte(row.token), 0o600))
		args := append([]string{"doctor", "--issuer", issuer.URL(), "--audience", koretest.Audience, "--token-file", file, "--introspect"}, row.more...)
		got := koreauthCommand(t.Context(), "", row.env, args...)
		assert.Equal(t, row.status, got.status, "%s: %s%s", name, got.out, got.err)
		assert.Contains(t, strings.Join(strings.Fields(got.out+got.err), " "), strings.Join(strings.Fields(row.says), " "), name)
		for _, hidden := range []string{row.token, api.Secret, "mistyped"} {
			assert.NotContains(t, got.out+got.err, hidden, name)
		}
		assertNarrow(t, got)
	}
}

// With --wait the checks are made until none fails.
func TestDoctor_Waits(t *testing.T) {
	issuer := startIssuer(t)
	var requests atomic.Int64
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) <= 2 {
			w.WriteHeader(503)
			return
		}
		_, _ = w.Write(issuer.JWKS())
	}))
	t.Cleanup(keys.Close)
	args := []string{"doctor", "--issuer", issuer.URL(), "--audience", koretest.Audience, "--jwks-url", keys.URL}
	got := koreauthCommand(t.Context(), "", nil, append(args, "--wait", "30s")...)
	assert.Equal(t, statusOK, got.status, got.out)
}

// An issuer that hangs does not make --wait longer than it says, or than the ten seconds
// after which it is known that it hangs.
func TestDoctor_WaitsNoLonger(t *testing.T) {
	for _, row := range []struct{ wait, most time.Duration }{{3 * time.Second, 10 * time.Second}, {time.Minute, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			hanging := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })}
			config := doctor.Config{Config: koreauth.Config{Issuer: "https://issuer.example", Audience: []string{"a"}, HTTPClient: hanging}, API: "https://api.example/"}
			start := time.Now()
			findings := untilHealthy(t.Context(), config, row.wait)
			assert.LessOrEqual(t, time.Since(start), row.most)
			assert.True(t, failing(findings))
			time.Sleep(time.Minute) // until the last fetch has given up
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
