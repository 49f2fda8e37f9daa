package examples_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

// The commands for an emergency do what the page says.
func TestGuides_RevocationCommands(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	_, section, found := strings.Cut(readPage(t, "../docs/revocation.md"), "\n## In an emergency\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		commands = append(commands, block[1])
	}
	require.Len(t, commands, 9)

	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com", Clients: []koretest.Client{{ID: "kc_1", AccountID: "CO1686726"}}})
	require.NoError(t, err)
	leaked := issuer.Valid()
	var claims koreauth.Claims
	_, rest, _ := strings.Cut(leaked, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &claims))
	list := new(revocation.List)
	require.NoError(t, list.Apply())
	require.NoError(t, list.Check(nil, &claims)) // the token has been seen
	operators := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientID: "kc_operator"}}, nil)
	server := httptest.NewServer(operators.Wrap(revocation.Handler(revocation.Memory(), list)))
	defer server.Close()

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "leaked.txt"), []byte(leaked+"\n"), 0o600))
	setUp := commands[0] + "API=" + server.URL + " ISSUER=" + issuer.URL() + " TOKEN=any\n"
	for i, want := range []string{
		`^{"seq":1,.*"token":"` + claims.ID + `",.*"reason":"leaked","by":"kc_operator"}}$`,
		`^{"seq":2,.*"client":"kc_1",.*"reason":"leaked secret",`,
		`^{"seq":3,.*"account":"CO1686726",`,
		`^{"seq":4,.*"everything":true,`,
		`^{"tokens":1,"clients":\["kc_1"\]}$`,
		`^{\s*"known": 1,\s*"current": 1\s*}$`,
		`^{"seq":5,.*"client":"kc_1",.*"lift":true,"reason":"it was another client",`,
		`^{"seq":1,.*\n{"seq":2,.*\n{"seq":3,.*\n{"seq":4,.*\n{"seq":5,.*}$`,
	} {
		command := exec.CommandContext(t.Context(), "bash", "-c", setUp+commands[i+1])
		command.Dir = dir
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", commands[i+1], out)
		assert.Regexp(t, want, strings.TrimSpace(string(out)), commands[i+1])
	}
}
