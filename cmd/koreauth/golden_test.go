package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

// varying is what differs between runs, and its replacement.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"eyJ[^"]*"`), `"TOKEN"`},
	{regexp.MustCompile(`[A-Za-z0-9_-]{43}`), "KEY"}, // It may begin with "-", and have what looks like a time.
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "http://127.0.0.1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b(\d+h)?(\d+m)?\d+(\.\d+)?(ms|µs|s)\b`), "DURATION"},
	{regexp.MustCompile(`DURATION ago|TIME, now`), "AGE"}, {regexp.MustCompile(`TIME, AGE`), "AGE"},
	{regexp.MustCompile(`\b\d+ bytes`), "N bytes"},
	{regexp.MustCompile(`the issuer is .* (ahead|behind)`), "the issuer is DURATION to DURATION ahead"},
}

// TestJSON_Golden holds what --json prints to the files in testdata, which docs/command.md
// describes. Programs read it: a member that changes or disappears breaks them.
func TestJSON_Golden(t *testing.T) {
	issuer := startIssuer(t)
	file := filepath.Join(t.TempDir(), "revoked.log")
	for _, args := range [][]string{
		{"revoke", "--client", "kc_1", "--reason", "leaked key"}, {"revoke", "--jti", "an-id"}, {"lift", "--client", "kc_1"},
	} {
		got := koreauthCommand(t.Context(), "", nil, append(args, "--file", file, "--issuer", issuer.URL())...)
		require.Equal(t, statusOK, got.status, got.err)
	}
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	explain := []string{"explain", "--issuer", issuer.URL(), "--audience", koretest.Audience, "--json"}
	for _, row := range []struct {
		golden, in string
		status     int
		args       []string
	}{
		{"explain-accepted", issuer.Valid(), statusOK, append(explain, "--require", "grant:API Clients:Read")},
		{"explain-rejected", issuer.Expired(), statusRejected, append(explain, "--require", "scope:admin")},
		{"explain-malformed", "x", statusRejected, explain},
		{"doctor", "", statusOK, []string{"doctor", "--issuer", issuer.URL(), "--audience", koretest.Audience, "--json"}},
		{"token", "", statusOK, []string{"token", "--token-url", issuer.TokenURL(), "--format", "json"}},
		{"list", "", statusOK, []string{"list", "--file", file, "--json"}},
		{"revoke", "", statusOK, []string{"revoke", "--file", file, "--issuer", issuer.URL(), "--account", "CO1", "--json"}},
	} {
		got := koreauthCommand(t.Context(), row.in, env, row.args...)
		assert.Equal(t, row.status, got.status, "%s: %s", row.golden, got.err)
		text := got.out
		for _, v := range varying {
			text = v.pattern.ReplaceAllString(text, v.with)
		}
		path := filepath.Join("testdata", row.golden+".json")
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err, "run go test ./cmd/koreauth -run Golden -update")
		wanted, printed := strings.Split(string(want), "\n"), strings.Split(text, "\n")
		assert.Len(t, printed, len(wanted), row.golden)
		for n := range min(len(wanted), len(printed)) {
			assert.Equal(t, wanted[n], printed[n], "%s, line %d", row.golden, n+1)
		}
	}
}
