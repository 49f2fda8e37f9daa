package interop_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// command runs the command koreauth, and returns its exit status and its output.
func command(t *testing.T, binary, in string, environment []string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(environment, "HOME="+t.TempDir())
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	require.NoError(t, err)
	return 0, string(out)
}

// TestCommand_Keycloak uses the command with a Keycloak realm.
func TestCommand_Keycloak(t *testing.T) {
	config, secret := keycloakConfig(t), env(t, "KORE_CLIENT_SECRET")
	binary := filepath.Join(t.TempDir(), "koreauth")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/koreauth")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	a := newAPI(t, config)
	credentials := []string{"KORE_CLIENT_ID=kc_admin", "KORE_CLIENT_SECRET=" + secret}
	mistyped := []string{"KORE_CLIENT_ID=kc_admin", "KORE_CLIENT_SECRET=mistyped"}
	token := func(args ...string) string {
		status, out := command(t, binary, "", credentials, append([]string{"token", "--token-url", tokenEndpoint(t, "KORE-CIDP")}, args...)...)
		require.Zero(t, status, out)
		return strings.TrimSuffix(out, "\n")
	}
	form := token()
	for name, row := range map[string]struct {
		in, args    string
		environment []string
		status      int
		says        []string
	}{
		"test, form":            {"", "test --token-url TOKEN --issuer ISSUER --audience api-gw --api API/v1/ping", credentials, 0, []string{"Auth Test Succeeded", "\naccepted\n", "> GET API/v1/ping", "< kc_admin"}},
		"test, Basic":           {"", "test --token-url TOKEN --style basic --issuer ISSUER --audience api-gw", credentials, 0, []string{"> Authorization: Basic [redacted]", "Auth Test Succeeded", "\naccepted\n"}},
		"test, discovery":       {"", "test --issuer ISSUER --audience api-gw", credentials, 0, []string{"/.well-known/openid-configuration", "Auth Test Succeeded"}},
		"a wrong secret":        {"", "test --token-url TOKEN", mistyped, 1, []string{"< 401 Unauthorized", "Auth Test Failed: ", "KORE's documented error for an unknown client or a wrong secret"}},
		"a wrong secret, Basic": {"", "test --token-url TOKEN --style basic", mistyped, 1, []string{"< 401 Unauthorized", "Auth Test Failed: ", "KORE's documented error for an unknown client or a wrong secret"}},
		"an unknown scope":      {"", "test --token-url TOKEN --scope nothing", credentials, 1, []string{"< 400 Bad Request", "Auth Test Failed: ", "the error invalid_scope of RFC 6749"}},
		"another API":           {"", "test --token-url TOKEN --issuer ISSUER --audience reports", credentials, 1, []string{"rejected: invalid token: wrong audience"}},
		"explain":               {form, "explain --issuer ISSUER --audience api-gw", nil, 0, []string{"accepted\n"}},
		"explain, Basic":        {token("--style", "basic"), "explain --issuer ISSUER --audience api-gw", nil, 0, []string{"accepted\n"}},
		"doctor":                {"", "doctor --issuer ISSUER --audience api-gw --api API/v1/ping", nil, 0, []string{"ok    issuer: ISSUER", "clock: the issuer sends no Date"}},
	} {
		t.Run(name, func(t *testing.T) {
			places := strings.NewReplacer("TOKEN", tokenEndpoint(t, "KORE-CIDP"), "ISSUER", realm(t, "KORE-CIDP"), "API", a.url)
			status, out := command(t, binary, row.in, row.environment, strings.Fields(places.Replace(row.args))...)
			assert.Equal(t, row.status, status, out)
			for _, text := range row.says {
				assert.Contains(t, out, places.Replace(text))
			}
			assert.NotContains(t, out, secret)
			assert.NotContains(t, out, "eyJ")
		})
	}
}
