//lint:file-ignore SA1019 Keys that no issuer should make are made of their coordinates.

package koreauth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// rsaJWK is an RSA key of that size and exponent. Nobody has its private half.
func rsaJWK(bits int, e *big.Int, members string) string {
	return fmt.Sprintf(`{"kty":"RSA","kid":"odd","n":%q,"e":%q%s}`, rawURL(modulus(bits).Bytes()), rawURL(e.Bytes()), members)
}

func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.Add(n, big.NewInt(12345))
}

var f4 = big.NewInt(65537)

// ecKey is a point on that curve: the same in every run.
func ecKey(curve elliptic.Curve) *ecdsa.PublicKey {
	d := sha256.Sum256([]byte(curve.Params().Name))
	d[0] = 0 // less than every order
	x, y := curve.ScalarBaseMult(d[:])
	return &ecdsa.PublicKey{Curve: curve, X: x, Y: y}
}

func ecJWK(crv string, key *ecdsa.PublicKey, members string) string {
	size := (key.Curve.Params().BitSize + 7) / 8
	x, y := key.X.FillBytes(make([]byte, size)), key.Y.FillBytes(make([]byte, size))
	return fmt.Sprintf(`{"kty":"EC","kid":"odd","crv":%q,"x":%q,"y":%q%s}`, crv, rawURL(x), rawURL(y), members)
}

func TestParseKeys_UsableKeys(t *testing.T) {
	rsaKey := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: modulus(2048), E: e} }
	p256 := ecKey(elliptic.P256())
	for _, c := range []struct {
		sentence string
		jwk      string
		want     koreauth.Key
	}{
		{"RSA of 2048 bits", rsaJWK(2048, f4, ""), koreauth.Key{ID: "odd", Public: rsaKey(65537)}},
		{"RSA of 4096 bits", rsaJWK(4096, f4, ""), koreauth.Key{ID: "odd", Public: &rsa.PublicKey{N: modulus(4096), E: 65537}}},
		{"RSA with exponent 3", rsaJWK(2048, big.NewInt(3), ""), koreauth.Key{ID: "odd", Public: rsaKey(3)}},
		{"RSA for RS256", rsaJWK(2048, f4, `,"alg":"RS256"`), koreauth.Key{ID: "odd", Algorithm: "RS256", Public: rsaKey(65537)}},
		{"RSA for PS512", rsaJWK(2048, f4, `,"alg":"PS512"`), koreauth.Key{ID: "odd", Algorithm: "PS512", Public: rsaKey(65537)}},
		{"P-256", ecJWK("P-256", p256, ""), koreauth.Key{ID: "odd", Public: p256}},
		{"P-256 for ES256", ecJWK("P-256", p256, `,"alg":"ES256"`), koreauth.Key{ID: "odd", Algorithm: "ES256", Public: p256}},
		{"P-384", ecJWK("P-384", ecKey(elliptic.P384()), `,"alg":"ES384"`), koreauth.Key{ID: "odd", Algorithm: "ES384", Public: ecKey(elliptic.P384())}},
		{"P-521", ecJWK("P-521", ecKey(elliptic.P521()), `,"alg":"ES512"`), koreauth.Key{ID: "odd", Algorithm: "ES512", Public: ecKey(elliptic.P521())}},
		{"Ed25519", edJWK("odd"), koreauth.Key{ID: "odd", Algorithm: "EdDSA", Public: edPublic("odd")}},
		{"a key without kid", strings.Replace(edJWK("odd"), `"kid":"odd",`, "", 1), koreauth.Key{Algorithm: "EdDSA", Public: edPublic("odd")}},
		{"a key with an empty kid", strings.Replace(edJWK("odd"), `"kid":"odd",`, `"kid":"",`, 1), koreauth.Key{Algorithm: "EdDSA", Public: edPublic("odd")}},
		{"a key without use", strings.Replace(edJWK("odd"), `"use":"sig",`, "", 1), koreauth.Key{ID: "odd", Algorithm: "EdDSA", Public: edPublic("odd")}},
		{"key_ops that include verify", ecJWK("P-256", p256, `,"key_ops":["sign","verify"]`), koreauth.Key{ID: "odd", Public: p256}},
		{"odd members beside the key", ecJWK("P-256", p256, `,"x5c":5,"x5t":[],"x5u":{},"exp":"never","nbf":{"a":[1,2]},"x5t#S256":1,"k":null,"oth":[]`), koreauth.Key{ID: "odd", Public: p256}},
		{"members that differ in case only", ecJWK("P-256", p256, `,"Use":"enc","ALG":"none","KID":5,"D":"AA","Kty":"RSA","Key_Ops":[]`), koreauth.Key{ID: "odd", Public: p256}},
		{"white space", "\n\t" + ecJWK("P-256", p256, "") + " \r\n", koreauth.Key{ID: "odd", Public: p256}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			keys, err := koreauth.ParseKeys([]byte(jwksOf(c.jwk)))
			require.NoError(t, err)
			assert.Equal(t, []koreauth.Key{c.want}, keys)
		})
	}
}

func TestParseKeys_IgnoresUnusableKeys(t *testing.T) {
	p256 := ecKey(elliptic.P256())
	off := &ecdsa.PublicKey{Curve: p256.Curve, X: p256.X, Y: new(big.Int).Add(p256.Y, big.NewInt(1))}
	huge := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), f4) // 65537 in its last 64 bits
	edit := func(old, new string) string { return strings.Replace(edJWK("odd"), old, new, 1) }
	for sentence, jwk := range map[string]string{
		"no object but a number":                "5",
		"no object but a string":                `"key"`,
		"no object but null":                    "null",
		"no object but an array":                "[]",
		"an empty object":                       "{}",
		"no kty":                                edit(`"kty":"OKP",`, ""),
		"kty in other case":                     edit(`"kty"`, `"KTY"`),
		"kty a number":                          edit(`"OKP"`, "5"),
		"an unknown kty":                        `{"kty":"LMS","kid":"odd","alg":"HSS-LMS","pub":"AAAA"}`,
		"ML-DSA (RFC 9964)":                     `{"kty":"AKP","kid":"odd","alg":"ML-DSA-44","pub":"` + rawURL(make([]byte, 1312)) + `"}`,
		"kid a number":                          edit(`"odd"`, "5"),
		"kid an object":                         edit(`"odd"`, "{}"),
		"alg a number":                          edit(`"EdDSA"`, "5"),
		"alg unknown":                           edit(`"EdDSA"`, `"EdDSB"`),
		"alg none":                              edit(`"EdDSA"`, `"none"`),
		"alg HS256":                             edit(`"EdDSA"`, `"HS256"`),
		"alg in other case":                     edit(`"EdDSA"`, `"EDDSA"`),
		"alg of another type":                   edit(`"EdDSA"`, `"RS256"`),
		"alg of another curve":                  ecJWK("P-256", p256, `,"alg":"ES384"`),
		"alg for encryption":                    rsaJWK(2048, f4, `,"alg":"RSA-OAEP"`),
		"use enc":                               edit(`"sig"`, `"enc"`),
		"use unknown":                           edit(`"sig"`, `"tls"`),
		"use in other case":                     edit(`"sig"`, `"SIG"`),
		"use an array":                          edit(`"sig"`, `["sig"]`),
		"key_ops without verify":                ecJWK("P-256", p256, `,"key_ops":["sign","encrypt"]`),
		"key_ops empty":                         ecJWK("P-256", p256, `,"key_ops":[]`),
		"key_ops a string":                      ecJWK("P-256", p256, `,"key_ops":"verify"`),
		"a private RSA key":                     rsaJWK(2048, f4, `,"d":"c2VjcmV0"`),
		"a private EC key":                      ecJWK("P-256", p256, `,"d":"c2VjcmV0"`),
		"a private Ed25519 key":                 edit(`"kty"`, `"d":"c2VjcmV0","kty"`),
		"a private key whose d is odd":          edit(`"kty"`, `"d":null,"kty"`),
		"a secret":                              `{"kty":"oct","kid":"odd","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		"RSA of 1024 bits":                      rsaJWK(1024, f4, ""),
		"RSA of 2047 bits":                      rsaJWK(2047, f4, ""),
		"RSA with leading zeros to look longer": fmt.Sprintf(`{"kty":"RSA","kid":"odd","n":%q,"e":"AQAB"}`, rawURL(append(make([]byte, 128), modulus(1024).Bytes()...))),
		"RSA with exponent 0":                   rsaJWK(2048, big.NewInt(0), ""),
		"RSA with exponent 1":                   rsaJWK(2048, big.NewInt(1), ""),
		"RSA with exponent 2":                   rsaJWK(2048, big.NewInt(2), ""),
		"RSA with an even exponent":             rsaJWK(2048, big.NewInt(65536), ""),
		"RSA with an exponent over 32 bits":     rsaJWK(2048, big.NewInt(1<<33+1), ""),
		"RSA with an exponent over 64 bits":     rsaJWK(2048, huge, ""),
		"RSA with an even modulus":              fmt.Sprintf(`{"kty":"RSA","kid":"odd","n":%q,"e":"AQAB"}`, rawURL(new(big.Int).Add(modulus(2048), big.NewInt(1)).Bytes())),
		"RSA without n":                         `{"kty":"RSA","kid":"odd","e":"AQAB"}`,
		"RSA without e":                         strings.Replace(rsaJWK(2048, f4, ""), `"e":"AQAB"`, `"f":"AQAB"`, 1),
		"RSA whose n is broken base64":          `{"kty":"RSA","kid":"odd","n":"!!` + strings.Repeat("A", 400) + `","e":"AQAB"}`,
		"RSA whose n is a number":               `{"kty":"RSA","kid":"odd","n":12345,"e":"AQAB"}`,
		"RSA whose n is empty":                  `{"kty":"RSA","kid":"odd","n":"","e":"AQAB"}`,
		"EC off the curve":                      ecJWK("P-256", off, ""),
		"EC at (0,0)":                           ecJWK("P-256", &ecdsa.PublicKey{Curve: p256.Curve, X: new(big.Int), Y: new(big.Int)}, ""),
		"EC under the name of another curve":    ecJWK("P-384", p256, ""),
		"EC on P-224":                           ecJWK("P-224", ecKey(elliptic.P224()), ""),
		"EC on secp256k1":                       ecJWK("secp256k1", p256, ""),
		"EC without y":                          strings.Replace(ecJWK("P-256", p256, ""), `"y"`, `"z"`, 1),
		"EC whose x is broken base64":           strings.Replace(ecJWK("P-256", p256, ""), `"x":"`, `"x":"*`, 1),
		"EC without crv":                        strings.Replace(ecJWK("P-256", p256, ""), `"crv"`, `"curve"`, 1),
		"Ed25519 of 31 bytes":                   edit(rawURL(edPublic("odd")), rawURL(edPublic("odd")[:31])),
		"Ed25519 of 33 bytes":                   edit(rawURL(edPublic("odd")), rawURL(append(edPublic("odd"), 0))),
		"Ed25519 of 31 bytes and no alg":        fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"odd","x":%q}`, rawURL(edPublic("odd")[:31])),
		"Ed25519 without x":                     edit(`"x"`, `"z"`),
		"Ed25519 whose x is broken base64":      edit(`"x":"`, `"x":"*`),
		"Ed448":                                 `{"kty":"OKP","crv":"Ed448","kid":"odd","x":"` + rawURL(make([]byte, 57)) + `"}`,
		"X25519":                                `{"kty":"OKP","crv":"X25519","kid":"odd","x":"` + rawURL(make([]byte, 32)) + `"}`,
		"a JWK Set within the set":              edSet("odd"),
		"depth":                                 strings.Repeat(`{"kty":`, 100) + "5" + strings.Repeat("}", 100),
	} {
		t.Run(sentence, func(t *testing.T) {
			want := []koreauth.Key{{ID: "a", Algorithm: "EdDSA", Public: edPublic("a")}, {ID: "b", Algorithm: "EdDSA", Public: edPublic("b")}}
			keys, err := koreauth.ParseKeys([]byte(jwksOf(edJWK("a"), jwk, edJWK("b"))))
			assert.NoError(t, err)
			assert.Equal(t, want, keys)
			keys, err = koreauth.ParseKeys([]byte(jwksOf(jwk)))
			assert.Error(t, err, "alone")
			assert.Empty(t, keys)
			assert.NotContains(t, fmt.Sprint(err), "c2VjcmV0", "a private key must not be told")
		})
	}
}

func TestParseKeys_NoUsableKey(t *testing.T) {
	for _, document := range []string{
		"", " ", "null", "5", `"keys"`, "[]", "{}", "[" + edJWK("a") + "]", edJWK("a"), `{"keys":null}`, `{"keys":[]}`, `{"keys":{}}`,
		`{"keys":"none"}`, `{"keys":` + edJWK("a") + `}`, `{"Keys":[` + edJWK("a") + `]}`, edSet("a") + edSet("b"), edSet("a") + "x",
		edSet("a")[:len(edSet("a"))-1], "<!doctype html><title>503</title>", `{"error":"temporarily_unavailable"}`,
	} {
		keys, err := koreauth.ParseKeys([]byte(document))
		if assert.Error(t, err, document) {
			assert.True(t, strings.HasPrefix(err.Error(), "koreauth: "), err.Error())
		}
		assert.Empty(t, keys, document)
	}
}

func TestParseKeys_ErrorIsBounded(t *testing.T) {
	odd := strings.Repeat(`{"kty":"AKP"},`, 10_000)
	keys, err := koreauth.ParseKeys([]byte(jwksOf(odd + edJWK("a"))))
	require.NoError(t, err)
	assert.Len(t, keys, 1)
	_, err = koreauth.ParseKeys([]byte(jwksOf(odd + "{}")))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 2000)
}

func TestParseKeys_MemberNamesAreCaseSensitive(t *testing.T) {
	document := string(documentOf(t, signingKeys()["ES256"]))
	_, err := koreauth.ParseKeys([]byte(document))
	require.NoError(t, err)
	for _, member := range []string{"keys", "kty", "crv", "x"} {
		_, err := koreauth.ParseKeys([]byte(strings.ReplaceAll(document, `"`+member+`"`, `"`+strings.ToUpper(member)+`"`)))
		assert.Error(t, err, member)
	}
}

func TestStaticKeySet_ManyKeysWithOneID(t *testing.T) {
	keys := make(koreauth.StaticKeySet, 5000)
	for i := range keys {
		keys[i] = koreauth.Key{ID: "a", Public: edPublic("a")}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	edValidator(t, keys)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
}

func TestStaticKeySet_Keys(t *testing.T) {
	a, b := koreauth.Key{ID: "a", Public: edPublic("a")}, koreauth.Key{ID: "b", Public: edPublic("b")}
	b2, bare := koreauth.Key{ID: "b", Algorithm: "EdDSA", Public: edPublic("b2")}, koreauth.Key{Public: edPublic("bare")}
	set := koreauth.StaticKeySet{a, b, b2, bare}
	for _, c := range []struct {
		sentence string
		kid      string
		want     []koreauth.Key
		err      error
	}{
		{"the key of that ID", "a", []koreauth.Key{a}, nil},
		{"every key of that ID", "b", []koreauth.Key{b, b2}, nil},
		{"all keys for an empty ID", "", []koreauth.Key{a, b, b2, bare}, nil},
		{"ErrUnknownKey for another", "A", nil, koreauth.ErrUnknownKey},
	} {
		for _, fetch := range []bool{false, true} {
			keys, err := set.Keys(t.Context(), c.kid, fetch)
			assert.ErrorIs(t, err, c.err, c.sentence)
			assert.Equal(t, c.want, keys, c.sentence)
		}
	}
	keys, err := koreauth.StaticKeySet(nil).Keys(t.Context(), "a", true)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.Empty(t, keys)

	t.Run("what a caller appends to an answer is not in the set", func(t *testing.T) {
		big := append(make(koreauth.StaticKeySet, 0, 10), a)
		keys, err := big.Keys(t.Context(), "", true)
		require.NoError(t, err)
		_ = append(keys, b)
		assert.Zero(t, big[:2][1])
	})
	t.Run("in a validator, and each key of a kid is tried", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := edValidator(t, koreauth.StaticKeySet{a, {ID: "b", Public: edPublic("not b")}, b})
			for _, kid := range []string{"a", "b"} {
				_, err := v.Validate(t.Context(), edToken(t, kid, nil))
				assert.NoError(t, err, kid)
			}
			_, err := v.Validate(t.Context(), edToken(t, "c", nil))
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		})
	})
	t.Run("a key without ID serves no token with a kid", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := edValidator(t, koreauth.StaticKeySet{{Public: edPublic("a")}})
			_, err := v.Validate(t.Context(), edToken(t, "a", nil))
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		})
	})
}
