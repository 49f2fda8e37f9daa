package koreauth_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestToken_RejectsMalformed(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	valid := issuer.Valid()
	header, rest, _ := strings.Cut(valid, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for name, token := range map[string]string{
		"empty":                                        "",
		"two dots":                                     "..",
		"two segments":                                 header + "." + payload,
		"four segments":                                valid + ".",
		"five segments, as in a JWE":                   valid + "..",
		"padding":                                      valid + "=",
		"a line break in the signature":                valid[:len(valid)-4] + "\n" + valid[len(valid)-4:],
		"a line break in the payload":                  header + "." + payload[:4] + "\r\n" + payload[4:] + "." + signature,
		"a line break at the end":                      valid + "\n",
		"the standard base64 alphabet":                 header + "." + payload + "." + strings.Repeat("+/", len(signature)/2),
		"a leading space":                              " " + valid,
		"the JSON serialization":                       `{"payload":"` + payload + `","protected":"` + header + `","signature":"` + signature + `"}`,
		"trailing bits that are not zero":              valid[:len(valid)-1] + string(valid[len(valid)-1]+1),
		"extra characters in the signature":            valid + "AAA",
		"an empty header":                              "." + payload + "." + signature,
		"larger than 16 KiB":                           valid + strings.Repeat("A", 16<<10),
		"8 KB of dots":                                 strings.Repeat(".", 8<<10),
		"a payload with a character outside base64url": header + ".pay$load." + signature,
	} {
		claims, err := v.Validate(t.Context(), token)
		assert.Nil(t, claims, name)
		assert.ErrorIs(t, err, koreauth.ErrMalformed, name)
	}
	_, err := v.Validate(t.Context(), valid)
	require.NoError(t, err, "the unchanged token")
}

func TestToken_LimitedTo16KiB(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	fill := func(n int) string {
		return mintToken(t, issuer, koretest.Token{Claims: map[string]any{"fill": strings.Repeat("x", n)}})
	}
	n := (16<<10-len(fill(0)))*3/4 - 4
	for len(fill(n)) < 16<<10 {
		n++
	}
	token := fill(n)
	for len(token) > 16<<10 {
		n--
		token = fill(n)
	}
	_, err := v.Validate(t.Context(), token)
	require.NoError(t, err, "%d bytes", len(token))
	_, err = v.Validate(t.Context(), fill(n+3))
	require.ErrorIs(t, err, koreauth.ErrMalformed)
}

func TestToken_RejectsOneByteChange(t *testing.T) {
	issuer, v := newIssuer(t, "ES256", func(c *koreauth.Config) { c.Algorithms = []string{"ES256"} })
	token := issuer.Valid()
	for i := range token {
		for _, b := range []byte{token[i] ^ 1, token[i] ^ 0x20, 'A', '.', '\n'} {
			if b == token[i] {
				continue
			}
			changed := token[:i] + string(rune(b)) + token[i+1:]
			claims, err := v.Validate(t.Context(), changed)
			require.Nil(t, claims, "byte %d as %q", i, b)
			require.Error(t, err, "byte %d as %q", i, b)
		}
	}
}
