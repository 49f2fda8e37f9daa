//lint:file-ignore SA1019 Invalid EC keys can only be built from coordinates.

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

// rsaJWK returns an RSA public key with a modulus of the given size. It has no
// private key.
func rsaJWK(bits int, e *big.Int, members string) string {
	return fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q%s}`, rawURL(modulus(bits).Bytes()), rawURL(e.Bytes()), members)
}

func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.Add(n, big.NewInt(12345))
}

var f4 = big.NewInt(65537) // the usual RSA exponent

// ecKey returns a public key on the curve. It is the same in every run.
func ecKey(curve elliptic.Curve) *ecdsa.PublicKey {
	d := sha256.Sum256([]byte(curve.Params().Name))
	d[0] = 0 // less than the order of each curve
	x, y := curve.ScalarBaseMult(d[:])
	return &ecdsa.PublicKey{Curve: curve, X: x, Y: y}
}

func ecJWK(crv string, key *ecdsa.PublicKey, members string) string {
	size := (key.Curve.Params().BitSize + 7) / 8
	x, y := key.X.FillBytes(make([]byte, size)), key.Y.FillBytes(make([]byte, size))
	return fmt.Sprintf(`{"kty":"EC","kid":"k","crv":%q,"x":%q,"y":%q%s}`, crv, rawURL(x), rawURL(y), members)
}

func TestParseKeys_UsableKeys(t *testing.T) {
	rsaKey := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: modulus(2048), E: e} }
	p256 := ecKey(elliptic.P256())
	for _, c := range []struct {
		name string
		jwk  string
		want koreauth.Key
	}{
		{"RSA of 2048 bits", rsaJWK(2048, f4, ""), koreauth.Key{ID: "k", Public: rsaKey(65537)}},
		{"RSA of 4096 bits", rsaJWK(4096, f4, ""), koreauth.Key{ID: "k", Public: &rsa.PublicKey{N: modulus(4096), E: 65537}}},
		{"RSA with exponent 3", rsaJWK(2048, big.NewInt(3), ""), koreauth.Key{ID: "k", Public: rsaKey(3)}},
		{"RSA for RS256", rsaJWK(2048, f4, `,"alg":"RS256"`), koreauth.Key{ID: "k", Algorithm: "RS256", Public: rsaKey(65537)}},
		{"RSA for PS512", rsaJWK(2048, f4, `,"alg":"PS512"`), koreauth.Key{ID: "k", Algorithm: "PS512", Public: rsaKey(65537)}},
		{"P-256", ecJWK("P-256", p256, ""), koreauth.Key{ID: "k", Public: p256}},
		{"P-256 for ES256", ecJWK("P-256", p256, `,"alg":"ES256"`), koreauth.Key{ID: "k", Algorithm: "ES256", Public: p256}},
		{"P-384", ecJWK("P-384", ecKey(elliptic.P384()), `,"alg":"ES384"`), koreauth.Key{ID: "k", Algorithm: "ES384", Public: ecKey(elliptic.P384())}},
		{"P-521", ecJWK("P-521", ecKey(elliptic.P521()), `,"alg":"ES512"`), koreauth.Key{ID: "k", Algorithm: "ES512", Public: ecKey(elliptic.P521())}},
		{"Ed25519", edJWK("k"), koreauth.Key{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
		{"a key without kid", strings.Replace(edJWK("k"), `"kid":"k",`, "", 1), koreauth.Key{Algorithm: "EdDSA", Public: edPublic("k")}},
		{"a key with an empty kid", strings.Replace(edJWK("k"), `"kid":"k",`, `"kid":"",`, 1), koreauth.Key{Algorithm: "EdDSA", Public: edPublic("k")}},
		{"a key without use", strings.Replace(edJWK("k"), `"use":"sig",`, "", 1), koreauth.Key{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
		{"key_ops null", ecJWK("P-256", p256, `,"key_ops":null`), koreauth.Key{ID: "k", Public: p256}},
		{"key_ops that include verify", ecJWK("P-256", p256, `,"key_ops":["sign","verify"]`), koreauth.Key{ID: "k", Public: p256}},
		{"invalid members that are not part of the key", ecJWK("P-256", p256, `,"x5c":5,"x5t":[],"x5u":{},"exp":"never","nbf":{"a":[1,2]},"x5t#S256":1,"k":null,"oth":[]`), koreauth.Key{ID: "k", Public: p256}},
		{"members whose names differ only in case", ecJWK("P-256", p256, `,"Use":"enc","ALG":"none","KID":5,"D":"AA","Kty":"RSA","Key_Ops":[]`), koreauth.Key{ID: "k", Public: p256}},
		{"white space", "\n\t" + ecJWK("P-256", p256, "") + " \r\n", koreauth.Key{ID: "k", Public: p256}},
	} {
		t.Run(c.name, func(t *testing.T) {
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
	edit := func(old, new string) string { return strings.Replace(edJWK("k"), old, new, 1) }
	for name, jwk := range map[string]string{
		"a number instead of an object":         "5",
		"a string instead of an object":         `"key"`,
		"null instead of an object":             "null",
		"an array instead of an object":         "[]",
		"an empty object":                       "{}",
		"no kty":                                edit(`"kty":"OKP",`, ""),
		"kty in another case":                   edit(`"kty"`, `"KTY"`),
		"kty a number":                          edit(`"OKP"`, "5"),
		"an unknown kty":                        `{"kty":"LMS","kid":"k","alg":"HSS-LMS","pub":"AAAA"}`,
		"ML-DSA (RFC 9964)":                     `{"kty":"AKP","kid":"k","alg":"ML-DSA-44","pub":"` + rawURL(make([]byte, 1312)) + `"}`,
		"kid a number":                          edit(`"k"`, "5"),
		"kid an object":                         edit(`"k"`, "{}"),
		"alg a number":                          edit(`"EdDSA"`, "5"),
		"alg unknown":                           edit(`"EdDSA"`, `"EdDSB"`),
		"alg none":                              edit(`"EdDSA"`, `"none"`),
		"alg HS256":                             edit(`"EdDSA"`, `"HS256"`),
		"alg in another case":                   edit(`"EdDSA"`, `"EDDSA"`),
		"alg of another key type":               edit(`"EdDSA"`, `"RS256"`),
		"alg of another curve":                  ecJWK("P-256", p256, `,"alg":"ES384"`),
		"alg for encryption":                    rsaJWK(2048, f4, `,"alg":"RSA-OAEP"`),
		"use enc":                               edit(`"sig"`, `"enc"`),
		"use unknown":                           edit(`"sig"`, `"tls"`),
		"use in another case":                   edit(`"sig"`, `"SIG"`),
		"use an array":                          edit(`"sig"`, `["sig"]`),
		"key_ops without verify":                ecJWK("P-256", p256, `,"key_ops":["sign","encrypt"]`),
		"key_ops empty":                         ecJWK("P-256", p256, `,"key_ops":[]`),
		"key_ops a string":                      ecJWK("P-256", p256, `,"key_ops":"verify"`),
		"a private RSA key":                     rsaJWK(2048, f4, `,"d":"c2VjcmV0"`),
		"a private EC key":                      ecJWK("P-256", p256, `,"d":"c2VjcmV0"`),
		"a private Ed25519 key":                 edit(`"kty"`, `"d":"c2VjcmV0","kty"`),
		"a private key whose d is null":         edit(`"kty"`, `"d":null,"kty"`),
		"a symmetric key":                       `{"kty":"oct","kid":"k","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		"RSA of 1024 bits":                      rsaJWK(1024, f4, ""),
		"RSA of 2047 bits":                      rsaJWK(2047, f4, ""),
		"RSA with leading zeros to look longer": fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":"AQAB"}`, rawURL(append(make([]byte, 128), modulus(1024).Bytes()...))),
		"RSA with exponent 0":                   rsaJWK(2048, big.NewInt(0), ""),
		"RSA with exponent 1":                   rsaJWK(2048, big.NewInt(1), ""),
		"RSA with exponent 2":                   rsaJWK(2048, big.NewInt(2), ""),
		"RSA with an even exponent":             rsaJWK(2048, big.NewInt(65536), ""),
		"RSA with an exponent over 32 bits":     rsaJWK(2048, big.NewInt(1<<33+1), ""),
		"RSA with an exponent over 64 bits":     rsaJWK(2048, huge, ""),
		"RSA with an even modulus":              fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":"AQAB"}`, rawURL(new(big.Int).Add(modulus(2048), big.NewInt(1)).Bytes())),
		"RSA without n":                         `{"kty":"RSA","kid":"k","e":"AQAB"}`,
		"RSA without e":                         strings.Replace(rsaJWK(2048, f4, ""), `"e":"AQAB"`, `"f":"AQAB"`, 1),
		"RSA whose n is not base64url":          `{"kty":"RSA","kid":"k","n":"!!` + strings.Repeat("A", 400) + `","e":"AQAB"}`,
		"RSA whose n is a number":               `{"kty":"RSA","kid":"k","n":12345,"e":"AQAB"}`,
		"RSA whose n is empty":                  `{"kty":"RSA","kid":"k","n":"","e":"AQAB"}`,
		"EC off the curve":                      ecJWK("P-256", off, ""),
		"EC at (0,0)":                           ecJWK("P-256", &ecdsa.PublicKey{Curve: p256.Curve, X: new(big.Int), Y: new(big.Int)}, ""),
		"EC with the name of another curve":     ecJWK("P-384", p256, ""),
		"EC on P-224":                           ecJWK("P-224", ecKey(elliptic.P224()), ""),
		"EC on secp256k1":                       ecJWK("secp256k1", p256, ""),
		"EC without y":                          strings.Replace(ecJWK("P-256", p256, ""), `"y"`, `"z"`, 1),
		"EC whose x is not base64url":           strings.Replace(ecJWK("P-256", p256, ""), `"x":"`, `"x":"*`, 1),
		"EC without crv":                        strings.Replace(ecJWK("P-256", p256, ""), `"crv"`, `"curve"`, 1),
		"Ed25519 of 31 bytes":                   edit(rawURL(edPublic("k")), rawURL(edPublic("k")[:31])),
		"Ed25519 of 33 bytes":                   edit(rawURL(edPublic("k")), rawURL(append(edPublic("k"), 0))),
		"Ed25519 of 31 bytes and no alg":        fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}`, rawURL(edPublic("k")[:31])),
		"Ed25519 without x":                     edit(`"x"`, `"z"`),
		"Ed25519 whose x is not base64url":      edit(`"x":"`, `"x":"*`),
		"Ed448":                                 `{"kty":"OKP","crv":"Ed448","kid":"k","x":"` + rawURL(make([]byte, 57)) + `"}`,
		"X25519":                                `{"kty":"OKP","crv":"X25519","kid":"k","x":"` + rawURL(make([]byte, 32)) + `"}`,
		"a JWK Set within the set":              edSet("k"),
		"deep nesting":                          strings.Repeat(`{"kty":`, 100) + "5" + strings.Repeat("}", 100),
	} {
		t.Run(name, func(t *testing.T) {
			want := []koreauth.Key{{ID: "a", Algorithm: "EdDSA", Public: edPublic("a")}, {ID: "b", Algorithm: "EdDSA", Public: edPublic("b")}}
			keys, err := koreauth.ParseKeys([]byte(jwksOf(edJWK("a"), jwk, edJWK("b"))))
			assert.NoError(t, err)
			assert.Equal(t, want, keys)
			keys, err = koreauth.ParseKeys([]byte(jwksOf(jwk)))
			assert.Error(t, err, "a set of this key alone")
			assert.Empty(t, keys)
			assert.NotContains(t, fmt.Sprint(err), "c2VjcmV0", "the error must not contain the private key")
		})
	}
}

func TestParseKeys_NoUsableKey(t *testing.T) {
	for _, document := range []string{
		"", " ", "null", "5", `"keys"`, "[]", "{}", "[" + edJWK("a") + "]", edJWK("a"), `{"keys":null}`, `{"keys":[]}`, `{"keys":{}}`,
		`{"keys":"none"}`, `{"keys":` + edJWK("a") + `}`, `{"keys":{"a":` + edJWK("a") + `}}`, `{"Keys":[` + edJWK("a") + `]}`, edSet("a") + edSet("b"), edSet("a") + "x",
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
	unusable := strings.Repeat(`{"kty":"AKP"},`, 10_000)
	keys, err := koreauth.ParseKeys([]byte(jwksOf(unusable + edJWK("a"))))
	require.NoError(t, err)
	assert.Len(t, keys, 1)
	_, err = koreauth.ParseKeys([]byte(jwksOf(unusable + "{}")))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 2000)

	long := strings.Repeat("k", 64)
	_, err = koreauth.ParseKeys([]byte(jwksOf(`{"kty":"AKP","kid":"` + long + `xx"}`)))
	require.ErrorContains(t, err, `key "`+long+`": `)
}

func TestParseKeys_MemberNamesAreCaseSensitive(t *testing.T) {
	document := string(keyDocument(t, signingKeys()["ES256"]))
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
		name string
		kid  string
		want []koreauth.Key
		err  error
	}{
		{"the key with this ID", "a", []koreauth.Key{a}, nil},
		{"every key with this ID", "b", []koreauth.Key{b, b2}, nil},
		{"all keys for an empty ID", "", []koreauth.Key{a, b, b2, bare}, nil},
		{"ErrUnknownKey for another ID", "A", nil, koreauth.ErrUnknownKey},
	} {
		for _, fetch := range []bool{false, true} {
			keys, err := set.Keys(t.Context(), c.kid, fetch)
			assert.ErrorIs(t, err, c.err, c.name)
			assert.Equal(t, c.want, keys, c.name)
		}
	}
	keys, err := koreauth.StaticKeySet(nil).Keys(t.Context(), "a", true)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.Empty(t, keys)

	t.Run("appending to the returned keys does not change the set", func(t *testing.T) {
		big := append(make(koreauth.StaticKeySet, 0, 10), a)
		keys, err := big.Keys(t.Context(), "", true)
		require.NoError(t, err)
		_ = append(keys, b)
		assert.Zero(t, big[:2][1])
	})
	t.Run("a validator tries each key with the kid", func(t *testing.T) {
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
	t.Run("a key without an ID verifies a token whose kid no key has", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			set := koreauth.StaticKeySet{{Public: edPublic("a")}}
			_, err := edValidator(t, set).Validate(t.Context(), edToken(t, "a", nil))
			assert.NoError(t, err)
			_, err = edValidator(t, set).Validate(t.Context(), edToken(t, "b", nil))
			assert.ErrorIs(t, err, koreauth.ErrSignature)

			set = append(set, koreauth.Key{ID: "a", Public: edPublic("b")})
			_, err = edValidator(t, set).Validate(t.Context(), edToken(t, "a", nil))
			assert.ErrorIs(t, err, koreauth.ErrSignature, "the key with the kid takes precedence")
		})
	})
}

func TestParseKeys_AtMostAThousand(t *testing.T) {
	repeat := func(jwk string, count int) string { return strings.Repeat(jwk+",", count) }
	good := edJWK("good")
	for _, row := range []struct {
		name   string
		before string // members before the good key
		usable int    // keys that are returned
		found  bool   // the good key is one of them
	}{
		{"999 usable keys before it", repeat(edJWK("a"), 999), 1000, true},
		{"1,000 usable keys before it", repeat(edJWK("a"), 1000), 1000, false},
		{"5,000 usable keys before it", repeat(edJWK("a"), 5000), 1000, false},
		{"999 keys for encryption before it", repeat(strings.Replace(edJWK("a"), `"sig"`, `"enc"`, 1), 999), 1, true},
		{"1,000 keys for encryption before it", repeat(strings.Replace(edJWK("a"), `"sig"`, `"enc"`, 1), 1000), 0, false},
		{"1,000 invalid keys before it", repeat(`{"kty":"RSA"}`, 1000), 0, false},
		{"20,000 empty objects before it", repeat(`{}`, 20_000), 1, true},
		{"20,000 keys of an unknown type before it", repeat(`{"kty":"AKP","kid":"pq"}`, 20_000), 1, true},
		{"numbers, strings, arrays and null before it", repeat(`1,"x",[1],null,true`, 1000), 1, true},
	} {
		keys, err := koreauth.ParseKeys([]byte(jwksOf(row.before + good)))
		assert.Equal(t, row.usable == 0, err != nil, "%s: %v", row.name, err)
		assert.Len(t, keys, row.usable, row.name)
		found := false
		for _, key := range keys {
			found = found || key.ID == "good"
		}
		assert.Equal(t, row.found, found, row.name)
	}
	withFakeTime(t, "the cause of ErrUnknownKey names the limit", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, jwksOf(repeat(edJWK("a"), 1000)+good)))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		status := v.Status()[0]
		assert.Equal(t, 1000, status.Keys)
		assert.Equal(t, 1, status.Ignored)
		assert.Contains(t, fmt.Sprint(status.Reasons), "more than 1000 keys")
	})
}

// The work for a document is bounded. The allocations tell it, because they do not
// depend on the machine.
func TestParseKeys_CostIsBounded(t *testing.T) {
	for _, row := range []struct {
		member      string
		allocations float64
		megabytes   float64
	}{
		{`{}`, 4e6, 128},
		{`1`, 4e6, 128},
		{`{"kty":"AKP"}`, 2e6, 128},
		{`{"kty":"RSA"}`, 150e3, 16},
		{`{"kty":"EC","crv":"P-256"}`, 150e3, 16},
		{`{"kty":"OKP","crv":"Ed25519"}`, 150e3, 16},
		{`{"kty":"OKP","crv":"x"}`, 150e3, 16},
		{`{"kty":"RSA","n":"AQ","e":"AQAB"}`, 300e3, 32},
		{`{"kid":1}`, 150e3, 16},
		{edJWK("a"), 300e3, 32},
		{rsaJWK(2048, f4, ""), 300e3, 32},
	} {
		document := []byte(jwksOf(strings.Repeat(row.member+",", (1<<20-1000)/(len(row.member)+1)) + edJWK("a")))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = koreauth.ParseKeys(document)
		runtime.ReadMemStats(&after)
		assert.Less(t, float64(after.Mallocs-before.Mallocs), row.allocations, "allocations for 1 MiB of %.40s", row.member)
		assert.Less(t, float64(after.TotalAlloc-before.TotalAlloc)/(1<<20), row.megabytes, "MiB for 1 MiB of %.40s", row.member)
	}
}
