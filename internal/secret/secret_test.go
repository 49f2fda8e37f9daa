package secret_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/secret"
)

// expression is what Like matches, in one expression.
var expression = regexp.MustCompile(`@|%40|eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}|[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}`)

func TestLike(t *testing.T) {
	pieces := []string{
		"eyJ", "eyAi", "ewo", "ew0K", "ewk", "e", ".", ".", ".", "aaaaaaaaaa", "bbbbbbbbb", "0123456789", "ccccccccccccccccccc",
		"-", "_", "@", "%40", "%", "`", "{", "[", "/", " ", "\n", "é", "\xff", "X", "Z",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		var text strings.Builder
		for range random.IntN(9) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		if !assert.Equal(t, expression.MatchString(text.String()), secret.Like(text.String()), "%q", text.String()) {
			return
		}
	}
}

func TestLike_SegmentsAreAdjacent(t *testing.T) {
	first, second, third := strings.Repeat("a", 10), strings.Repeat("b", 10), strings.Repeat("c", 20)
	assert.True(t, secret.Like("x "+first+"."+second+"."+third+" x"))
	for _, text := range []string{
		first + "." + second + ". " + third, first + "." + second + " ." + third, first + ". " + second + "." + third,
		first + " ." + second + "." + third, first + ".." + second + "." + third, first + "." + second + third,
	} {
		assert.False(t, secret.Like(text), text)
	}
}

func TestHasJWT(t *testing.T) {
	const header, payload, signature = "eyJhbGciOiJSUzI1NiIsInR5cCIgOiAiSldUIn0", "eyJleHAiOjE3OTU2NjM2NjUsImp0aSI6IjEifQ", "c2lnbmF0dXJl"
	for name, text := range map[string]string{
		"a JWT":                         header + "." + payload + "." + signature,
		"after a scheme":                "Bearer " + header + "." + payload + "." + signature,
		"in a sentence":                 "the token (" + header + "." + payload + "." + signature + ") leaked",
		"in a URL":                      "https://example.com/?access_token=" + header + "." + payload + "." + signature,
		"in quotes":                     `"` + header + "." + payload + "." + signature + `"`,
		"after an underscore":           "token_" + header + "." + payload,
		"a header after an underscore":  "token_" + header,
		"unsigned":                      header + "." + payload + ".",
		"the header alone":              header,
		"a part of the header":          header[:12],
		"the payload and the signature": payload + "." + signature,
		"the payload alone":             "." + payload,
		"dots are escaped":              header + "%2E" + payload + "%2E" + signature,
		"short segments":                "eyJ9.e30.x",
		"a space after the brace":       "eyAiYWxnIjoiUlMyNTYifQ.e30.x",
		"a line break after the brace":  "ewogImFsZyI6IlJTMjU2In0.e30.x",
		"CR LF after the brace":         "ew0KImFsZyI6IlJTMjU2In0.e30.x",
		"a tab after the brace":         "ewkiYWxnIjoiUlMyNTYifQ.e30.x",
		"encrypted":                     "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..a.b.c",
	} {
		assert.True(t, secret.HasJWT(text), name)
	}
	for name, text := range map[string]string{
		"empty":                       "",
		"dots":                        "...",
		"an identifier of Keycloak":   "trrtcc:7f0c2b51-93c5-41d1-a1f8-b3c7a36cf92b",
		"an issuer":                   "https://keycloak.example.com/realms/KORE-CIDP",
		"an issuer with a long name":  "https://authentication.production-cluster.internal-company-network.example/realms/x",
		"hosts that begin with e":     "e30.example.com node30.example.com eyes.example.com ewok.example.com",
		"an e-mail address":           "owner@example.com",
		"a sentence":                  "leaked in ticket 4711; see https://tickets.example.com/4711?x=eyJ",
		"a short piece":               "eyJhbGciOiJ",
		"a short end of a word":       "key.xeyJhbGciO.example",
		"random, and begins like one": "eyJ" + "_4f0-PlA7uq9aT3mYcKZw",
		"random, and has the start":   "q0eyJ" + "_4f0-PlA7uq9aT3mYcKZw",
		"base64url of other JSON":     "WyJhIiwiYiIsImMiLCJkIl0",
	} {
		assert.False(t, secret.HasJWT(text), name)
	}
}
