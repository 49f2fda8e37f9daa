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

// wycheproofFile has the members of a file that are used here
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

// wycheproofExceptions are the cases in which koreauth does not do what Wycheproof
// expects. All other cases must agree with it, and these must not.
var wycheproofExceptions = []struct {
	file, why string
	cases     []int
}{
	{
		"json_web_signature_test.json",
		"valid, rejected: HS256, whose key is a secret; koreauth supports only public keys",
		[]int{1, 348, 352, 357, 358, 359, 376, 377},
	},
	{
		"json_web_signature_test.json",
		"valid, rejected: HS256, and a question mark in base64url (RFC 7515 §5.2 step 2)",
		[]int{372, 373},
	},
	{
		"json_web_signature_test.json",
		`valid, rejected: "alg" is PS256 in the key and PS384 in the token (RFC 7517 §4.4, RFC 8725 §3.1)`,
		[]int{346, 350},
	},
	{
		"json_web_signature_test.json",
		`valid, rejected: "alg" of the key is ES521, which does not exist (RFC 7518 §3.1 has ES512); case 19 of the key file expects a P-256 key with it to be rejected`,
		[]int{347, 351},
	},
	{
		"json_web_key_test.json",
		"valid, rejected: HS256, HS384, HS512",
		[]int{2, 13, 14, 15},
	},
	{
		"json_web_key_test.json",
		"invalid, accepted: the RSA key has the ROCA weakness (CVE-2017-15361); koreauth trusts the issuer to have strong keys",
		[]int{7},
	},
}

// TestWycheproof_Signatures validates the tokens of Wycheproof with its keys. Their
// payloads are not claims, so all of them are rejected. The test checks whether the
// signature was the reason, or was verified before.
func TestWycheproof_Signatures(t *testing.T) {
	others := newOtherKeys(t)
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
				count := checkGroup(t, group, others, exceptions)
				total = total.plus(count)
				kinds[group.Comment] = kinds[group.Comment].plus(count)
			}
			for _, kind := range slices.Sorted(maps.Keys(kinds)) {
				t.Logf("%-24s %v", kind, kinds[kind])
			}
			t.Logf("%-24s %v", "all", total)
			assert.Equal(t, file.NumberOfTests, total.cases, "cases")
			assert.Empty(t, exceptions, "exceptions for cases that do not exist")
		})
	}
}

// wycheproofCount counts all cases, those for which koreauth accepts a key of the
// group, and those whose signature it accepts.
type wycheproofCount struct{ cases, withKey, accepted int }

func (c wycheproofCount) plus(more wycheproofCount) wycheproofCount {
	return wycheproofCount{c.cases + more.cases, c.withKey + more.withKey, c.accepted + more.accepted}
}

func (c wycheproofCount) String() string {
	return fmt.Sprintf("%3d cases, %3d with a key that koreauth accepts, %2d signatures accepted", c.cases, c.withKey, c.accepted)
}

// checkGroup validates the tokens of a group and removes its cases from the
// exceptions.
func checkGroup(t *testing.T, group wycheproofGroup, others otherKeys, exceptions map[int]string) wycheproofCount {
	count := wycheproofCount{cases: len(group.Tests)}
	document := group.Public
	if document == nil {
		document = group.Private // a secret for HS256, or a set with one
	}
	keys, err := parseJWK(document)
	if err == nil {
		count.withKey = count.cases
	} else {
		keys = others.all() // as if the issuer had other keys
	}
	withKeys, withOthers := wycheproofValidator(t, keys), wycheproofValidator(t, others.like(keys))
	for _, c := range group.Tests {
		_, err := withKeys.Validate(t.Context(), c.JWS)
		valid := signatureAccepted(c.JWS, err)
		if valid {
			count.accepted++
			// Another key with the same ID, algorithm and type does not verify it.
			_, err := withOthers.Validate(t.Context(), c.JWS)
			assert.ErrorIs(t, err, koreauth.ErrSignature, "case %d, %s: with another key", c.ID, c.Comment)
		}
		why, excepted := exceptions[c.ID]
		delete(exceptions, c.ID)
		want := c.Result != "invalid"
		if excepted {
			assert.NotEqual(t, want, valid, "case %d, %s: no longer an exception (%s)", c.ID, c.Comment, why)
		} else {
			assert.Equal(t, want, valid, "case %d, %s (%s): is the signature accepted? koreauth returns: %v", c.ID, c.Comment, c.Result, err)
		}
	}
	return count
}

// signatureAccepted reports, from the error, whether the signature was accepted.
// Three reasons mean that it was not, or was not verified. ErrMalformed may come
// before the signature is verified, if the token is not a JWS; all other reasons
// come later. If in doubt it returns true, so that no accepted forgery is missed.
func signatureAccepted(token string, err error) bool {
	for _, reason := range []error{koreauth.ErrAlgorithm, koreauth.ErrUnknownKey, koreauth.ErrSignature} {
		if errors.Is(err, reason) {
			return false
		}
	}
	return !errors.Is(err, koreauth.ErrMalformed) || isCompactJWS(token)
}

// isCompactJWS reports whether a token, except for its payload, has the form of
// RFC 7515 §5.2. It does not use koreauth.
func isCompactJWS(token string) bool {
	segments := strings.Split(token, ".")
	if len(segments) != 3 || strings.ContainsAny(token, "\r\n") {
		return false // encoding/base64 ignores line breaks.
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

// otherKeys are keys that signed nothing.
type otherKeys struct {
	rsa     *rsa.PublicKey
	ecdsa   map[elliptic.Curve]*ecdsa.PublicKey
	ed25519 ed25519.PublicKey
}

func newOtherKeys(t *testing.T) otherKeys {
	s := otherKeys{ecdsa: make(map[elliptic.Curve]*ecdsa.PublicKey)}
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
func (s otherKeys) all() []koreauth.Key {
	keys := []koreauth.Key{{Public: s.rsa}, {Public: s.ed25519}}
	for _, key := range s.ecdsa {
		keys = append(keys, koreauth.Key{Public: key})
	}
	return keys
}

// like returns other keys with the same IDs, algorithms and types.
func (s otherKeys) like(keys []koreauth.Key) []koreauth.Key {
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
