package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
