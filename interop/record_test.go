package interop_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var record = flag.Bool("record", false, "replace ../testdata/interop")

const recordings = "../testdata/interop"

// recording is what an issuer sent. The root package's tests validate its tokens
// without a server.
type recording struct {
	documents map[string][]byte // JSON by file name, as it was served
	tokens    []recordedToken
}

// recordedToken is a line of tokens.json.
type recordedToken struct {
	What string `json:"what"`
	// Want is "accepted" or the reason of the rejection.
	Want string `json:"want"`
	// Audience lists what the API accepts in addition to api-gw.
	Audience []string `json:"audience,omitempty"`
	// Rotated means that the key which signed it is only in the later documents.
	Rotated bool   `json:"rotated,omitempty"`
	Token   string `json:"token"`
}

func recordKeycloak(t *testing.T) recording {
	issuer := realm(t, "KORE-CIDP")
	keys := issuer + "/protocol/openid-connect/certs"
	person := signIn(t, "openid")
	r := recording{documents: map[string][]byte{
		"discovery.json": fetch(t, issuer+"/.well-known/openid-configuration"),
		"keys.json":      fetch(t, keys),
	}}
	for _, client := range []string{
		"kc_admin", "kc_admin_1d", "kc_admin_30d", "kc_admin_24mo", "kc_standard", "kc_rs384", "kc_rs512", "kc_ps256", "kc_ps384", "kc_ps512",
		"kc_es256", "kc_es384", "kc_es512", "kc_eddsa", "kc_rfc9068", "kc_audiences",
	} {
		r.tokens = append(r.tokens, recordedToken{What: "client credentials, " + client, Want: "accepted", Token: credentials(t, client)})
	}
	r.tokens = append(r.tokens,
		recordedToken{What: "a person's access token", Want: "accepted", Token: person.Access},
		recordedToken{What: "ID token", Want: "ErrAudience", Token: person.ID},
		recordedToken{What: "ID token, its client an audience", Want: "ErrTokenType", Audience: []string{"kc_portal"}, Token: person.ID},
		recordedToken{What: "refresh token", Want: "ErrAlgorithm", Audience: []string{issuer}, Token: person.Refresh},
		recordedToken{What: "offline token", Want: "ErrAlgorithm", Audience: []string{issuer}, Token: signIn(t, "openid offline_access").Refresh},
		recordedToken{What: "logout token", Want: "ErrTokenType", Audience: []string{"kc_portal"}, Token: logoutToken(t)},
		recordedToken{What: "another realm's token", Want: "ErrUnknownKey", Token: grant(t, tokenEndpoint(t, "OTHER"), "kc_admin", url.Values{"grant_type": {"client_credentials"}}).Access},
		recordedToken{What: "for another API", Want: "ErrAudience", Token: credentials(t, "kc_elsewhere")},
		recordedToken{What: "bound to its sender (DPoP)", Want: "ErrTokenType", Token: boundToken(t)},
	)
	old := addRS256Key(t)
	r.tokens = append(r.tokens, recordedToken{What: "after the rotation", Want: "accepted", Rotated: true, Token: credentials(t, "kc_admin_24mo")})
	for _, key := range old {
		setKey(t, key, "active", false)
	}
	r.documents["keys-rotated.json"] = fetch(t, keys)
	for _, key := range old {
		setKey(t, key, "enabled", false)
	}
	r.documents["keys-removed.json"] = fetch(t, keys)
	return r
}

func recordOIDCProvider(t *testing.T) recording {
	issuer := oidcProvider(t)
	person := codeFlow(t)
	r := recording{documents: map[string][]byte{
		"discovery.json": fetch(t, issuer+"/.well-known/openid-configuration"),
		"keys.json":      fetch(t, issuer+"/jwks"),
	}}
	for _, resource := range []string{"rs256", "ps256", "es256", "eddsa"} {
		r.tokens = append(r.tokens, recordedToken{What: "client credentials, " + resource, Want: "accepted", Token: forResource(t, resource)})
	}
	r.tokens = append(r.tokens,
		recordedToken{What: "a person's access token", Want: "accepted", Token: person.Access},
		recordedToken{What: "ID token", Want: "ErrAudience", Token: person.ID},
		recordedToken{What: "refresh token", Want: "ErrMalformed", Token: person.Refresh},
		recordedToken{What: "opaque access token", Want: "ErrMalformed", Token: forResource(t, "opaque")},
		recordedToken{What: "encrypted access token", Want: "ErrMalformed", Token: forResource(t, "jwe")},
		recordedToken{What: "signed with a secret", Want: "ErrAlgorithm", Token: forResource(t, "hs256")},
		recordedToken{What: "for another API", Want: "ErrAudience", Token: forResource(t, "billing")},
		recordedToken{What: "bound to its sender (DPoP)", Want: "ErrBinding", Token: forResource(t, "rs256", "DPoP", dpopProof(t, issuer+"/token"))},
	)
	control(t, "rotate")
	r.tokens = append(r.tokens, recordedToken{What: "after the rotation", Want: "accepted", Rotated: true, Token: forResource(t, "rs256")})
	r.documents["keys-rotated.json"] = fetch(t, issuer+"/jwks")
	control(t, "drop")
	r.documents["keys-removed.json"] = fetch(t, issuer+"/jwks")
	return r
}

// TestRecordings_MatchTheIssuers compares the recordings with what the issuers send
// now: the members and their types must be the same.
func TestRecordings_MatchTheIssuers(t *testing.T) {
	for _, issuer := range []struct {
		name   string
		record func(*testing.T) recording
	}{
		{"keycloak", recordKeycloak},
		{"oidc-provider", recordOIDCProvider},
	} {
		t.Run(issuer.name, func(t *testing.T) {
			now := issuer.record(t)
			dir := filepath.Join(recordings, issuer.name)
			if *record {
				write(t, dir, now)
			}
			then := read(t, dir)
			assert.Equal(t, now.shapes(t), then.shapes(t), "run ./run.sh -record, and check what has changed")
		})
	}
	if *record {
		versions(t)
	}
}

func write(t *testing.T, dir string, r recording) {
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, text := range r.documents {
		var pretty bytes.Buffer
		require.NoError(t, json.Indent(&pretty, text, "", "  "))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), append(pretty.Bytes(), '\n'), 0o644))
	}
	text, err := json.MarshalIndent(r.tokens, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokens.json"), append(text, '\n'), 0o644))
}

func read(t *testing.T, dir string) recording {
	r := recording{documents: map[string][]byte{}}
	for _, name := range []string{"discovery.json", "keys.json", "keys-rotated.json", "keys-removed.json"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		r.documents[name] = text
	}
	text, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &r.tokens))
	return r
}

// shapes returns the members of each document and token, and their types.
func (r recording) shapes(t *testing.T) map[string]string {
	shapes := map[string]string{}
	for name, text := range r.documents {
		var members map[string]any
		require.NoError(t, json.Unmarshal(text, &members), name)
		shapes[name] = shape(members)
	}
	for _, token := range r.tokens {
		if strings.Count(token.Token, ".") != 2 {
			shapes[token.What] = fmt.Sprint(strings.Count(token.Token, ".")+1, " segments")
			continue
		}
		header, payload := decode(t, token.Token)
		shapes[token.What] = fmt.Sprint(token.Want, " ", header["alg"], " ", header["typ"], " ", shape(header), " ", shape(payload))
	}
	return shapes
}

// shape returns a JSON value without its strings, numbers and order.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var members []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			members = append(members, name+":"+shape(v[name]))
		}
		return "{" + strings.Join(members, " ") + "}"
	case []any:
		var elements []string
		for _, element := range v {
			elements = append(elements, shape(element))
		}
		slices.Sort(elements)
		return "[" + strings.Join(elements, " ") + "]"
	}
	return fmt.Sprintf("%T", v)
}

// versions writes the versions of the programs that were recorded.
func versions(t *testing.T) {
	var text strings.Builder
	for _, line := range []struct {
		what    string
		command []string
	}{
		{"Keycloak", []string{"cat", ".cache/keycloak/version.txt"}},
		{"Java", []string{"sh", "-c", "java -version 2>&1 | head -1"}},
		{"oidc-provider", []string{"node", "-p", `JSON.parse(fs.readFileSync("oidc-provider/node_modules/oidc-provider/package.json")).version`}},
		{"Node", []string{"node", "--version"}},
		{"recorded", []string{"date", "-u", "+%Y-%m-%d"}},
	} {
		out, err := exec.CommandContext(t.Context(), line.command[0], line.command[1:]...).Output()
		require.NoError(t, err)
		fmt.Fprintf(&text, "%s: %s\n", line.what, bytes.TrimSpace(out))
	}
	require.NoError(t, os.WriteFile(filepath.Join(recordings, "VERSIONS"), []byte(text.String()), 0o644))
}
