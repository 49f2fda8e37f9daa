package jws_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/jws"
)

var supported = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}

func TestLookup(t *testing.T) {
	for _, name := range supported {
		_, ok := jws.Lookup(name)
		assert.True(t, ok, name)
	}
	for _, name := range []string{"", "none", "HS256", "HS384", "HS512", "ES256K", "Ed448", "eddsa", "rs256", "RS1", "ML-DSA-44", "ESP256"} {
		a, ok := jws.Lookup(name)
		assert.False(t, ok, name)
		assert.False(t, a.Verify(ed25519.PublicKey(make([]byte, 32)), "x", nil), "%s verifies nothing", name)
	}
}

func TestSameAlgorithm(t *testing.T) {
	for _, a := range supported {
		for _, b := range supported {
			want := a == b || strings.HasPrefix(a, "Ed") && strings.HasPrefix(b, "Ed")
			assert.Equal(t, want, jws.SameAlgorithm(a, b), "%s and %s", a, b)
		}
	}
	assert.False(t, jws.SameAlgorithm("EdDSA", "Ed448"))
	assert.False(t, jws.SameAlgorithm("", "Ed25519"))
}

func TestAlgorithm_AcceptsOnlyItsKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	keys := map[string]any{"RSA": &rsaKey.PublicKey}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		keys[name] = &key.PublicKey
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	keys["Ed25519"] = public
	belongs := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
	for _, name := range supported {
		a, _ := jws.Lookup(name)
		want := belongs[name]
		if want == "" {
			want = "RSA"
		}
		for kind, key := range keys {
			assert.Equal(t, kind == want, a.Accepts(key), "%s with %s", name, kind)
		}
		for _, odd := range []any{
			nil, (*rsa.PublicKey)(nil), (*ecdsa.PublicKey)(nil), &ecdsa.PublicKey{}, &ecdsa.PublicKey{Curve: elliptic.P256()},
			ed25519.PublicKey(nil), public[:31], rsaKey, "x", []byte("secret"), &rsa.PublicKey{N: new(big.Int), E: 3},
		} {
			assert.False(t, a.Accepts(odd), "%s with a %T", name, odd)
		}
	}
}

func TestDecodeSegment_IsStrict(t *testing.T) {
	for size := range 300 {
		data := []byte(strings.Repeat("\xff\x00\x80", size))[:size]
		text := base64.RawURLEncoding.EncodeToString(data)
		for _, buffer := range []int{0, 1, 64, 1024} {
			decoded, ok := jws.DecodeSegment(make([]byte, buffer), text)
			assert.True(t, ok)
			assert.Equal(t, data, append([]byte{}, decoded...))
		}
		decoded, ok := jws.DecodeText(text)
		assert.True(t, ok)
		assert.Equal(t, string(data), decoded)
	}
	long := strings.Repeat("A", 1024)
	for _, bad := range []string{"A", "AA=", "AA==", "AB", "AAB", "A\nAA", "AAAA\n", "\r\nAAAA", "AA AA", "AA+A", "AA/A", "AAAAA", "é", "AA\x00A", long + "A", long + "\n", "\n" + long, long + "AB"} {
		_, ok := jws.DecodeSegment(nil, bad)
		assert.False(t, ok, "DecodeSegment of %q", bad)
		_, ok = jws.DecodeText(bad)
		assert.False(t, ok, "DecodeText of %q", bad)
	}
}

func TestSHA256(t *testing.T) {
	for _, size := range []int{0, 1, 1023, 1024, 1025, 5000} {
		a, b := jws.SHA256(strings.Repeat("a", size)), jws.SHA256(strings.Repeat("a", size)+"b")
		assert.NotEqual(t, a, b)
		assert.Equal(t, a, jws.SHA256(strings.Repeat("a", size)))
	}
}
