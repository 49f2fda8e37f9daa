//lint:file-ignore SA1019 Keys that no issuer should make are made of their coordinates.

package koreauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func TestParseKeysReadsWhatCanVerify(t *testing.T) {
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

func TestOneOddKeyNeverLosesTheSet(t *testing.T) {
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

func TestADocumentWithoutAUsableKeyIsAnError(t *testing.T) {
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

func TestManyOddKeysAreNotAllTold(t *testing.T) {
	odd := strings.Repeat(`{"kty":"AKP"},`, 10_000)
	keys, err := koreauth.ParseKeys([]byte(jwksOf(odd + edJWK("a"))))
	require.NoError(t, err)
	assert.Len(t, keys, 1)
	_, err = koreauth.ParseKeys([]byte(jwksOf(odd + "{}")))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 2000)
}

func TestManyKeysUnderOneKidTakeMemoryInProportion(t *testing.T) {
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

func TestStaticKeySet(t *testing.T) {
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

func TestReady(t *testing.T) {
	bubble(t, "fetches keys if there are none", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		v := edValidator(t, net.set())
		assert.Zero(t, net.count(), "before it is asked")
		for range 3 {
			assert.NoError(t, v.Ready(t.Context()))
		}
		assert.Equal(t, 1, net.count())
		net.keys(hanging)
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "tells an outage, and its end", func(t *testing.T, net *network) {
		net.keys(refusing)
		v := edValidator(t, net.set())
		err := v.Ready(t.Context())
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errNetwork)
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, 250*time.Millisecond, refusal.RetryAfter)
		net.keys(keysOf("a"))
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
		pass(250 * time.Millisecond)
		assert.NoError(t, v.Ready(t.Context()))
	})
	bubble(t, "is ready through an outage while the last good keys serve", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		v := edValidator(t, net.set())
		require.NoError(t, v.Ready(t.Context()))
		net.keys(refusing)
		pass(keysMaxStale - 1)
		assert.NoError(t, v.Ready(t.Context()))
		pass(1)
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
	})
	bubble(t, "is bound by its context", func(t *testing.T, net *network) {
		net.keys(hanging)
		v := edValidator(t, net.set())
		errLeft := errors.New("the probe gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLeft)
		defer cancel()
		start := time.Now()
		err := v.Ready(ctx)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errLeft)
		assert.Equal(t, time.Second, time.Since(start))
		pass(keysTimeout)
	})
	t.Run("is ready with a StaticKeySet", func(t *testing.T) {
		assert.NoError(t, edValidator(t, koreauth.StaticKeySet{{ID: "a", Public: edPublic("a")}}).Ready(t.Context()))
	})
	t.Run("is not ready with a KeySet that has none, and says ErrUnavailable", func(t *testing.T) {
		for _, none := range []error{nil, koreauth.ErrUnknownKey} {
			err := edValidator(t, noKeys{none}).Ready(t.Context())
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "Keys gave %v", none)
			assert.NotErrorIs(t, err, koreauth.ErrInvalidToken, "Keys gave %v", none)
		}
	})
}

// noKeys is a KeySet that has none and says so in either of the two ways.
type noKeys struct{ err error }

func (n noKeys) Keys(context.Context, string, bool) ([]koreauth.Key, error) { return nil, n.err }

func TestADocumentHasOneMiBAtMost(t *testing.T) {
	padded := func(size int) string { return edSet("a") + strings.Repeat(" ", size-len(edSet("a"))) }
	bubble(t, "1 MiB is accepted", func(t *testing.T, net *network) {
		net.keys(reply(200, padded(1<<20)))
		gives(t, net.set(), "a", 0)
	})
	bubble(t, "one byte more is a failure, and replaces nothing", func(t *testing.T, net *network) {
		net.keys(reply(200, padded(1<<20+1)))
		set := net.set()
		unavailable(t, set, "a", 0, 250*time.Millisecond)
		net.keys(keysOf("a"))
		pass(time.Second)
		gives(t, set, "a", 0)
		net.keys(reply(200, padded(1<<20+1)))
		pass(keysMaxAge)
		for range 3 {
			gives(t, set, "a", 0)
			synctest.Wait()
		}
	})
	bubble(t, "an endless body is not read on", func(t *testing.T, net *network) {
		body := &endlessBody{}
		net.keys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: body, ContentLength: -1, Request: req}, nil
		})
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.LessOrEqual(t, body.read, 1<<20+1)
		assert.True(t, body.closed)
	})
	bubble(t, "of the metadata too", func(t *testing.T, net *network) {
		document := fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, edIssuer, keysURL)
		net.at(edIssuer+"/.well-known/openid-configuration", reply(200, document+strings.Repeat(" ", 1<<20)))
		net.keys(keysOf("a"))
		unavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "what a page says beside its 404 is not read", func(t *testing.T, net *network) {
		net.at(edIssuer+"/.well-known/openid-configuration", reply(404, strings.Repeat("<p>not found", 1<<20)))
		net.at("https://issuer.example.com/.well-known/oauth-authorization-server/realms/one", metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		gives(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
	})
	bubble(t, "an error page that drips fails at once", func(t *testing.T, net *network) {
		net.keys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Body: io.NopCloser(drippingBody{req.Context()}), ContentLength: -1, Request: req}, nil
		})
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
	})
	t.Run("after decompression", func(t *testing.T) {
		var member bytes.Buffer
		w := gzip.NewWriter(&member)
		_, err := w.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		bomb := bytes.Repeat(member.Bytes(), 256) // RFC 1952 §2.2
		require.Less(t, len(bomb), 1<<20, "it fits as it is sent")
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		}))
		defer issuer.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = (&koreauth.RemoteKeySet{URL: issuer.URL}).Keys(t.Context(), "a", true)
		runtime.ReadMemStats(&after)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorContains(t, err, "1 MiB")
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
	})
	t.Run("and what is compressed and good is read", func(t *testing.T) {
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			compressed := gzip.NewWriter(w)
			_, _ = io.WriteString(compressed, edSet("a"))
			_ = compressed.Close()
		}))
		defer issuer.Close()
		keys, err := (&koreauth.RemoteKeySet{URL: issuer.URL}).Keys(t.Context(), "a", true)
		require.NoError(t, err)
		assert.Len(t, keys, 1)
	})
}

type endlessBody struct {
	read   int
	closed bool
}

func (b *endlessBody) Read(p []byte) (int, error) {
	b.read += len(p)
	return len(p), nil
}

func (b *endlessBody) Close() error {
	b.closed = true
	return nil
}

func redirect(location string) page { return reply(302, "", "Location: "+location) }

func TestRedirects(t *testing.T) {
	bubble(t, "three are followed", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("https://issuer.example.com/2"))
		net.at("https://issuer.example.com/2", redirect("https://ISSUER.example.com:443/3"))
		net.at("https://ISSUER.example.com:443/3", keysOf("a"))
		gives(t, net.set(), "a", 0)
		assert.Equal(t, 4, net.count())
	})
	bubble(t, "four are not", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("/2"))
		net.at("https://issuer.example.com/2", redirect("/3"))
		net.at("https://issuer.example.com/3", redirect("/4"))
		net.at("https://issuer.example.com/4", keysOf("a"))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.count())
	})
	bubble(t, "a loop ends", func(t *testing.T, net *network) {
		net.keys(redirect(keysURL))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.count())
	})
	for _, c := range []struct{ sentence, from, to string }{
		{"to another host is refused", keysURL, "https://other.example.com/keys"},
		{"to a host below is refused", keysURL, "https://sub.issuer.example.com/keys"},
		{"to another port is refused", keysURL, "https://issuer.example.com:8443/keys"},
		{"to http is refused", keysURL, "http://issuer.example.com/keys"},
		{"to http on port 443 is refused", keysURL, "http://issuer.example.com:443/keys"},
		{"from loopback to another host is refused", "http://localhost:8080/keys", "http://127.0.0.1:8080/keys"},
		{"from http to https is refused", "http://localhost:8080/keys", "https://localhost:8080/keys"},
		{"to another scheme is refused", keysURL, "file:///etc/keys"},
	} {
		bubble(t, c.sentence, func(t *testing.T, net *network) {
			net.at(c.from, redirect(c.to))
			net.at(c.to, keysOf("a"))
			set := net.set()
			set.URL, set.DangerouslyAllowHTTP = c.from, true
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{c.from}, net.urls())
		})
	}
	bubble(t, "by way of the same host to another is refused", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("https://other.example.com/keys"))
		net.at("https://other.example.com/keys", keysOf("a"))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "the metadata too may redirect on the same host, and not to another", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		configuration := edIssuer + "/.well-known/openid-configuration"
		net.at(configuration, redirect("/moved"))
		net.at("https://issuer.example.com/moved", metadata(edIssuer, keysURL))
		gives(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
		net.at(configuration, redirect("https://other.example.com/moved"))
		net.at("https://other.example.com/moved", metadata(edIssuer, keysURL))
		unavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
	})
	bubble(t, "the caller's CheckRedirect is asked as well, and is not changed", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", keysOf("a"))
		set := net.set()
		errNo := errors.New("not by me")
		var asked []string
		answer := error(nil)
		set.HTTPClient.CheckRedirect = func(req *http.Request, via []*http.Request) error {
			asked = append(asked, fmt.Sprint(req.URL, " after ", len(via)))
			return answer
		}
		gives(t, set, "a", 0)
		assert.Equal(t, []string{"https://issuer.example.com/1 after 1"}, asked)
		for _, answer = range []error{errNo, http.ErrUseLastResponse} {
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			if answer == errNo {
				assert.ErrorIs(t, err, errNo)
			}
		}
		asked, answer = nil, nil
		net.keys(redirect("https://other.example.com/"))
		pass(keysInterval)
		_, err := set.Keys(t.Context(), "b", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, asked, "what is refused anyway is no question")
		assert.NoError(t, set.HTTPClient.CheckRedirect(&http.Request{}, nil), "it is still the caller's")
	})
	bubble(t, "the caller's client is not changed", func(t *testing.T, net *network) {
		client := &http.Client{Transport: net, Timeout: time.Minute}
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", keysOf("a"))
		set := net.set()
		set.HTTPClient = client
		gives(t, set, "a", 0)
		assert.Equal(t, &http.Client{Transport: net, Timeout: time.Minute}, client)
	})
}

func TestHTTPIsForLoopbackOnly(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://issuer.example.com":        true,
		"HTTPS://issuer.example.com":        true,
		"https://10.0.0.1:8443/keys":        true,
		"https://[2001:db8::1]/keys":        true,
		"http://127.0.0.1":                  true,
		"http://127.0.0.1:8080/realms/one":  true,
		"http://127.255.255.254:1":          true,
		"http://[::1]":                      true,
		"http://[::1]:8080":                 true,
		"http://localhost":                  true,
		"http://LocalHost:8080":             true,
		"http://issuer.example.com":         false,
		"http://128.0.0.1":                  false,
		"http://126.255.255.255":            false,
		"http://0.0.0.0":                    false,
		"http://[::]":                       false,
		"http://[::2]":                      false,
		"http://10.0.0.1":                   false,
		"http://127.1":                      false,
		"http://0x7f000001":                 false,
		"http://2130706433":                 false,
		"http://127.0.0.1.example.com":      false,
		"http://localhost.example.com":      false,
		"http://127.0.0.1@example.com":      false,
		"http://example.com/127.0.0.1":      false,
		"http://example.com#localhost":      false,
		"ftp://issuer.example.com":          false,
		"file:///etc/keys":                  false,
		"issuer.example.com":                false,
		"//issuer.example.com/keys":         false,
		"/keys":                             false,
		"https:":                            false,
		"https://":                          false,
		"https:///keys":                     false,
		"https://:443/keys":                 false,
		"https:issuer.example.com":          false,
		" https://issuer.example.com":       false,
		"https://issuer.example.com\n/keys": false,
		"https://issuer.example.com:port":   false,
	} {
		bubble(t, url, func(t *testing.T, net *network) {
			net.at(url, keysOf("a"))
			net.at(strings.Replace(url, "HTTPS", "https", 1), keysOf("a"))
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: url, HTTPClient: net.client()})
			assert.Equal(t, ok, err == nil, "NewValidator with JWKSURL: %v", err)
			_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: &koreauth.RemoteKeySet{URL: url}})
			assert.Equal(t, ok, err == nil, "NewValidator with a RemoteKeySet: %v", err)
			if !strings.Contains(url, "#") {
				_, err = koreauth.NewValidator(koreauth.Config{Issuer: url, Audience: []string{"y"}, HTTPClient: net.client()})
				assert.Equal(t, ok, err == nil, "NewValidator with Issuer: %v", err)
			}
			require.Zero(t, net.count(), "a constructor asks nobody")
			set := net.set()
			set.URL = url
			if ok {
				gives(t, set, "a", 0)
				return
			}
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			set = &koreauth.RemoteKeySet{Issuer: url, HTTPClient: net.client()}
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Zero(t, net.count())
		})
	}
	bubble(t, "unless DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		net.at("http://10.0.0.1/keys", keysOf("a"))
		set := net.set()
		set.URL, set.DangerouslyAllowHTTP = "http://10.0.0.1/keys", true
		gives(t, set, "a", 0)
		_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "http://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.NoError(t, err)
		_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "ftp://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.Error(t, err)
	})
	bubble(t, "a key set with faults asks nobody", func(t *testing.T, net *network) {
		for _, set := range []*koreauth.RemoteKeySet{
			{HTTPClient: net.client()},
			{URL: keysURL, HTTPClient: net.client(), MinInterval: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxAge: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxStale: -1},
			{Issuer: edIssuer + "?a=b", HTTPClient: net.client()},
			{Issuer: edIssuer + "#a", HTTPClient: net.client()},
		} {
			unavailableOf(t, set, "a")
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: set})
			assert.Error(t, err)
		}
		assert.Zero(t, net.count())
	})
}

// metadata answers with an issuer's document.
func metadata(issuer, keys string) page {
	return reply(200, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"token_endpoint":"x","scopes_supported":[]}`, issuer, keys))
}

func TestDiscovery(t *testing.T) {
	const (
		host   = "https://issuer.example.com"
		openID = "/.well-known/openid-configuration"
		oauth  = "/.well-known/oauth-authorization-server"
		moved  = "https://keys.example.net/keys"
	)
	discovered := func(net *network, issuer string) *koreauth.RemoteKeySet {
		return &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: net.client()}
	}
	for _, c := range []struct {
		sentence string
		issuer   string
		openID   string
		oauth    string
	}{
		{"an issuer with a path", edIssuer, edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with a final slash, which is dropped", edIssuer + "/", edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with two final slashes, of which one is dropped", edIssuer + "//", edIssuer + "/" + openID, host + oauth + "/realms/one/"},
		{"an issuer without a path", host, host + openID, host + oauth},
		{"an issuer without a path but a slash", host + "/", host + openID, host + oauth},
		{"an issuer with a port", host + ":8443/a", host + ":8443/a" + openID, host + ":8443" + oauth + "/a"},
		{"an issuer with an escaped path", host + "/a%2Fb%20c", host + "/a%2Fb%20c" + openID, host + oauth + "/a%2Fb%20c"},
	} {
		bubble(t, c.sentence+", by OpenID Connect Discovery", func(t *testing.T, net *network) {
			net.at(c.openID, metadata(c.issuer, keysURL))
			net.keys(keysOf("a"))
			set := discovered(net, c.issuer)
			gives(t, set, "a", 0)
			assert.Equal(t, []string{c.openID, keysURL}, net.urls())
		})
		bubble(t, c.sentence+", by RFC 8414 after a 404", func(t *testing.T, net *network) {
			net.at(c.oauth, metadata(c.issuer, keysURL))
			net.keys(keysOf("a"))
			gives(t, discovered(net, c.issuer), "a", 0)
			assert.Equal(t, []string{c.openID, c.oauth, keysURL}, net.urls())
		})
	}
	bubble(t, "by a Config without JWKSURL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, HTTPClient: net.client(),
		})
		require.NoError(t, err)
		assert.Zero(t, net.count())
		_, err = v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
	})
	bubble(t, "not with a URL", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.Issuer = edIssuer
		gives(t, set, "a", 0)
		assert.Equal(t, []string{keysURL}, net.urls())
	})
	for sentence, p := range map[string]page{
		"500": reply(500, ""), "503": reply(503, ""), "401": reply(401, ""), "403": reply(403, ""), "410": reply(410, ""), "204": reply(204, ""),
		"a network that fails":         refusing,
		"a document of another issuer": metadata(edIssuer+"x", keysURL),
		"no document":                  reply(200, "<html>"),
	} {
		bubble(t, sentence+" does not fall through to RFC 8414", func(t *testing.T, net *network) {
			net.at(edIssuer+openID, p)
			net.at(host+oauth+"/realms/one", metadata(edIssuer, keysURL))
			net.keys(keysOf("a"))
			unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.urls())
		})
	}
	bubble(t, "404 at both locations", func(t *testing.T, net *network) {
		unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.Equal(t, []string{edIssuer + openID, host + oauth + "/realms/one"}, net.urls())
	})
	for sentence, document := range map[string]string{
		"another issuer":                        `{"issuer":"https://other.example.com/realms/one","jwks_uri":"` + keysURL + `"}`,
		"the issuer with a slash more":          `{"issuer":"` + edIssuer + `/","jwks_uri":"` + keysURL + `"}`,
		"the issuer in other case":              `{"issuer":"` + strings.ToUpper(edIssuer) + `","jwks_uri":"` + keysURL + `"}`,
		"no issuer":                             `{"jwks_uri":"` + keysURL + `"}`,
		"an issuer that is no string":           `{"issuer":["` + edIssuer + `"],"jwks_uri":"` + keysURL + `"}`,
		"an issuer under a name in other case":  `{"Issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"}`,
		"no jwks_uri":                           `{"issuer":"` + edIssuer + `"}`,
		"an empty jwks_uri":                     `{"issuer":"` + edIssuer + `","jwks_uri":""}`,
		"a jwks_uri that is no string":          `{"issuer":"` + edIssuer + `","jwks_uri":5}`,
		"a jwks_uri under a name in other case": `{"issuer":"` + edIssuer + `","JWKS_URI":"` + keysURL + `"}`,
		"a relative jwks_uri":                   `{"issuer":"` + edIssuer + `","jwks_uri":"/keys"}`,
		"a jwks_uri by http":                    `{"issuer":"` + edIssuer + `","jwks_uri":"http://issuer.example.com/keys"}`,
		"a jwks_uri of a file":                  `{"issuer":"` + edIssuer + `","jwks_uri":"file:///keys"}`,
		"an array":                              `[]`,
		"null":                                  `null`,
		"nothing":                               ``,
		"half a document":                       `{"issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"`,
	} {
		bubble(t, "metadata with "+sentence+" are a failure", func(t *testing.T, net *network) {
			net.at(edIssuer+openID, reply(200, document))
			net.keys(keysOf("a"))
			net.at("http://issuer.example.com/keys", keysOf("a"))
			unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.urls())
		})
	}
	bubble(t, "jwks_uri may be on another host", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a"))
		gives(t, discovered(net, edIssuer), "a", 0)
	})
	bubble(t, "jwks_uri may be http on loopback, and anywhere with DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, "http://localhost/keys"))
		net.at("http://localhost/keys", keysOf("a"))
		gives(t, discovered(net, edIssuer), "a", 0)
		net.at(edIssuer+openID, metadata(edIssuer, "http://issuer.example.com/keys"))
		net.at("http://issuer.example.com/keys", keysOf("a"))
		set := discovered(net, edIssuer)
		set.DangerouslyAllowHTTP = true
		gives(t, set, "a", 0)
	})
	bubble(t, "the metadata are read once while the key URL works", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		for range 5 {
			pass(keysMaxAge)
			gives(t, set, "a", 0)
			synctest.Wait()
		}
		unknown(t, set, "b", 0)
		assert.Equal(t, append([]string{edIssuer + openID}, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL), net.urls())
	})
	for sentence, p := range map[string]page{
		"is gone": reply(410, ""), "is not found": reply(404, ""), "is down": refusing, "has no keys": reply(200, jwksOf()), "redirects elsewhere": redirect(moved),
	} {
		bubble(t, "the metadata are read again in the same fetch when the key URL "+sentence, func(t *testing.T, net *network) {
			net.at(edIssuer+openID, metadata(edIssuer, keysURL))
			net.keys(reply(200, edSet("a"), `ETag: "1"`))
			set := discovered(net, edIssuer)
			gives(t, set, "a", 0)
			net.keys(p)
			net.at(edIssuer+openID, metadata(edIssuer, moved))
			net.at(moved, keysOf("b"))
			gives(t, set, "b", 0)
			assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID, moved}, net.urls())
			assert.Empty(t, net.questions()[4].header.Get("If-None-Match"), "the ETag is of another document")
			gives(t, set, "b", 0)
			unknown(t, set, "a", 0)
		})
	}
	bubble(t, "the metadata are read again when the key URL hangs, by the next fetch at the latest", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(hanging)
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a", "b"))
		pass(keysMaxAge)
		for range 2 {
			gives(t, set, "a", 0)
			pass(keysInterval)
		}
		gives(t, set, "b", 0)
	})
	bubble(t, "one failure of the key URL while the metadata are down does not lose it for good", func(t *testing.T, net *network) {
		for _, down := range []page{reply(403, ""), hanging} {
			net.at(edIssuer+openID, metadata(edIssuer, keysURL))
			net.keys(keysOf("a"))
			set := discovered(net, edIssuer)
			gives(t, set, "a", 0)
			net.keys(refusing)
			net.at(edIssuer+openID, down)
			_, err := set.Keys(t.Context(), "b", true)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			net.keys(keysOf("a", "b"))
			pass(keysInterval)
			_, err = set.Keys(t.Context(), "b", true) // may ask for the metadata first
			if err != nil {
				pass(keysInterval)
				gives(t, set, "b", 0)
			}
		}
	})
	bubble(t, "metadata that did not change are no second try of the same URL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(refusing)
		assert.ErrorIs(t, unavailable(t, set, "b", 0, 0), errNetwork)
		assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID}, net.urls())
		gives(t, set, "a", 0)
	})
	bubble(t, "metadata that are gone when the key URL fails lose neither keys nor URL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(refusing)
		net.at(edIssuer+openID, refusing)
		unavailableOf(t, set, "b")
		gives(t, set, "a", 0)
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("b"))
		gives(t, set, "b", 0)
	})
	bubble(t, "a key URL that fails at the start is discovered anew at the next try", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(refusing)
		set := discovered(net, edIssuer)
		unavailable(t, set, "a", 0, 250*time.Millisecond)
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a"))
		pass(250 * time.Millisecond)
		gives(t, set, "a", 0)
	})
	bubble(t, "discovery and keys are one fetch for the limit", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, reply(500, ""))
		set := discovered(net, edIssuer)
		start := time.Now()
		for time.Since(start) < time.Second {
			unavailableOf(t, set, "a")
			pass(10 * time.Millisecond)
		}
		assert.Equal(t, 4, net.count())
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		gives(t, set, "a", 0)
		for range 10 {
			unknown(t, set, "forged", 0)
		}
		assert.Equal(t, 4+2+3, net.count())
	})
}

func TestNothingIsLeftRunning(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			var down atomic.Bool
			issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, protocol, r.Proto)
				if r.URL.Path != "/keys" {
					http.Redirect(w, r, "/keys", http.StatusFound)
					return
				}
				if down.Load() {
					w.WriteHeader(503)
				}
				_, _ = io.WriteString(w, edSet("a"))
			}))
			issuer.EnableHTTP2 = protocol == "HTTP/2.0"
			issuer.StartTLS()
			defer issuer.Close()
			running := func() int {
				var stacks bytes.Buffer
				require.NoError(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
				count := 0
				for _, in := range []string{"koreauth.(*RemoteKeySet)", "net/http.(*persistConn)", "lientConnReadLoop"} {
					count += strings.Count(stacks.String(), in)
				}
				return count
			}
			before := running()
			for i := range 40 {
				down.Store(i >= 20)
				_, err := (&koreauth.RemoteKeySet{URL: issuer.URL, HTTPClient: issuer.Client()}).Keys(t.Context(), "a", true)
				require.Equal(t, down.Load(), err != nil, "%v", err)
			}
			assert.Eventually(t, func() bool { return running() <= before }, 5*time.Second, 5*time.Millisecond,
				"goroutines are left of fetches that have ended")
		})
	}
}
