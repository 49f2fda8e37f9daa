package interop_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/koreauth/koreauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wycheproofFile is as much of a file as counts here
// (json_web_signature_schema_v1.json, json_web_key_schema_v1.json).
type wycheproofFile struct {
	NumberOfTests int
	TestGroups    []wycheproofGroup
}

type wycheproofGroup struct {
	Comment         string // the kind of group
	Public, Private json.RawMessage
	Tests           []wycheproofCase
}

type wycheproofCase struct {
	ID      int `json:"tcId"`
	Comment string
	JWS     string
	Result  string // valid, invalid or acceptable
}

// wycheproofExceptions are the cases in which koreauth does not do what
// Wycheproof expects: all others must agree, and these must not.
var wycheproofExceptions = []struct {
	file, why string
	cases     []int
}{
	{
		"json_web_signature_test.json",
		"valid, refused: HS256, whose key is a secret; koreauth takes public keys alone",
		[]int{1, 348, 352, 357, 358, 359, 376, 377},
	},
	{
		"json_web_signature_test.json",
		"valid, refused: HS256 again, and base64url with a question mark in it (RFC 7515 §5.2 step 2)",
		[]int{372, 373},
	},
	{
		"json_web_signature_test.json",
		`valid, refused: the key says "alg" PS256, the token PS384 (RFC 7517 §4.4, RFC 8725 §3.1)`,
		[]int{346, 350},
	},
	{
		"json_web_signature_test.json",
		`valid, refused: the key says "alg" ES521, which is no algorithm (RFC 7518 §3.1 has ES512); case 19 of the key file wants a P-256 key that says so refused`,
		[]int{347, 351},
	},
	{
		"json_web_key_test.json",
		"valid, refused: HS256, HS384, HS512",
		[]int{2, 13, 14, 15},
	},
	{
		"json_web_key_test.json",
		"invalid, accepted: the issuer's RSA key is one that ROCA can factor (CVE-2017-15361); koreauth trusts the issuer to have good keys",
		[]int{7},
	},
}

// TestWycheproof judges the tokens of Wycheproof with the keys that it has for
// them. Their payloads are no claims, so that all are refused: what counts is
// whether that was because of the signature, or after it held.
func TestWycheproof(t *testing.T) {
	stranger := newStranger(t)
	for _, name := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		t.Run(name, func(t *testing.T) {
			text, err := fs.ReadFile(wycheproof.TestVectors, name)
			require.NoError(t, err)
			var file wycheproofFile
			require.NoError(t, json.Unmarshal(text, &file))

			exceptions := make(map[int]string)
			for _, e := range wycheproofExceptions {
				for _, id := range e.cases {
					if e.file == name {
						exceptions[id] = e.why
					}
				}
			}
			var total wycheproofCount
			kinds := make(map[string]wycheproofCount)
			for _, group := range file.TestGroups {
				count := judgeGroup(t, group, stranger, exceptions)
				total = total.plus(count)
				kinds[group.Comment] = kinds[group.Comment].plus(count)
			}
			for _, kind := range slices.Sorted(maps.Keys(kinds)) {
				t.Logf("%-24s %v", kind, kinds[kind])
			}
			t.Logf("%-24s %v", "all", total)
			assert.Equal(t, file.NumberOfTests, total.cases, "cases")
			assert.Empty(t, exceptions, "exceptions for cases that are not there")
		})
	}
}

// wycheproofCount counts cases: all, those for which koreauth takes a key of the
// group, and those whose signature it accepts.
type wycheproofCount struct{ cases, withKey, accepted int }

func (c wycheproofCount) plus(more wycheproofCount) wycheproofCount {
	return wycheproofCount{c.cases + more.cases, c.withKey + more.withKey, c.accepted + more.accepted}
}

func (c wycheproofCount) String() string {
	return fmt.Sprintf("%3d cases, %3d with a key that koreauth takes, %2d signatures accepted", c.cases, c.withKey, c.accepted)
}

// judgeGroup judges the tokens of a group, and takes those that it has seen out
// of the exceptions.
func judgeGroup(t *testing.T, group wycheproofGroup, stranger strangers, exceptions map[int]string) wycheproofCount {
	count := wycheproofCount{cases: len(group.Tests)}
	document := group.Public
	if document == nil {
		document = group.Private // a secret, for HS256; or a set with one in it
	}
	keys, err := parseJWK(document)
	if err == nil {
		count.withKey = count.cases
	} else {
		keys = stranger.all() // as if the issuer had other keys
	}
	issuers, others := wycheproofValidator(t, keys), wycheproofValidator(t, stranger.like(keys))
	for _, c := range group.Tests {
		_, err := issuers.Validate(t.Context(), c.JWS)
		good := signatureAccepted(c.JWS, err)
		if good {
			count.accepted++
			// It was the key that made the difference: one of the same ID,
			// algorithm and kind does not verify it.
			_, err := others.Validate(t.Context(), c.JWS)
			assert.ErrorIs(t, err, koreauth.ErrSignature, "case %d, %s: with a stranger's key", c.ID, c.Comment)
		}
		why, excepted := exceptions[c.ID]
		delete(exceptions, c.ID)
		want := c.Result != "invalid"
		if excepted {
			assert.NotEqual(t, want, good, "case %d, %s: is an exception no longer (%s)", c.ID, c.Comment, why)
		} else {
			assert.Equal(t, want, good, "case %d, %s (%s): is the signature accepted? koreauth says: %v", c.ID, c.Comment, c.Result, err)
		}
	}
	return count
}

// signatureAccepted tells from outside whether the signature held. Three reasons
// say that it did not, or was not looked at. ErrMalformed may be of what stands
// before the signature, if that is malformed; all else comes after it. Where in
// doubt it says yes, so that no forged token passes as refused.
func signatureAccepted(token string, err error) bool {
	for _, reason := range []error{koreauth.ErrAlgorithm, koreauth.ErrUnknownKey, koreauth.ErrSignature} {
		if errors.Is(err, reason) {
			return false
		}
	}
	return !errors.Is(err, koreauth.ErrMalformed) || isCompactJWS(token)
}

// isCompactJWS reports whether all but the payload's text is as RFC 7515 §5.2
// wants it. It does not use koreauth.
func isCompactJWS(token string) bool {
	segments := strings.Split(token, ".")
	if len(segments) != 3 || strings.ContainsAny(token, "\r\n") {
		return false // encoding/base64 passes over line breaks.
	}
	var header []byte
	for i, segment := range segments {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(segment)
		if err != nil {
			return false
		}
		if i == 0 {
			header = decoded
		}
	}
	var members map[string]any
	return json.Unmarshal(header, &members) == nil && members != nil
}

// parseJWK reads a JWK or a JWK Set.
func parseJWK(document json.RawMessage) ([]koreauth.Key, error) {
	var set struct{ Keys json.RawMessage }
	if json.Unmarshal(document, &set) == nil && set.Keys == nil {
		document = []byte(`{"keys":[` + string(document) + `]}`)
	}
	return koreauth.ParseKeys(document)
}

func wycheproofValidator(t *testing.T, keys []koreauth.Key) *koreauth.Validator {
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer:   "https://issuer.example",
		Audience: []string{"api-gw"},
		Keys:     koreauth.StaticKeySet(keys),
		Algorithms: []string{
			"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
		},
	})
	require.NoError(t, err)
	return v
}

// strangers are keys that signed nothing.
type strangers struct {
	rsa     *rsa.PublicKey
	ecdsa   map[elliptic.Curve]*ecdsa.PublicKey
	ed25519 ed25519.PublicKey
}

func newStranger(t *testing.T) strangers {
	s := strangers{ecdsa: make(map[elliptic.Curve]*ecdsa.PublicKey)}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s.rsa = &rsaKey.PublicKey
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		s.ecdsa[curve] = &key.PublicKey
	}
	s.ed25519, _, err = ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return s
}

// all returns the keys, without IDs.
func (s strangers) all() []koreauth.Key {
	keys := []koreauth.Key{{Public: s.rsa}, {Public: s.ed25519}}
	for _, key := range s.ecdsa {
		keys = append(keys, koreauth.Key{Public: key})
	}
	return keys
}

// like returns keys of the same IDs, algorithms and kinds.
func (s strangers) like(keys []koreauth.Key) []koreauth.Key {
	alike := make([]koreauth.Key, len(keys))
	for i, key := range keys {
		alike[i] = key
		switch public := key.Public.(type) {
		case *rsa.PublicKey:
			alike[i].Public = s.rsa
		case *ecdsa.PublicKey:
			alike[i].Public = s.ecdsa[public.Curve]
		case ed25519.PublicKey:
			alike[i].Public = s.ed25519
		}
	}
	return alike
}
