package koreauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestAlgorithm_OnlyIfConfigured(t *testing.T) {
	for alg := range maps.Keys(signingKeys()) {
		t.Run(alg, func(t *testing.T) {
			issuer, v := newIssuer(t, alg, func(c *koreauth.Config) { c.Algorithms = []string{alg} })
			claims, err := v.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err)
			assert.Equal(t, issuer.URL(), claims.Issuer)

			_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{BadSignature: true}))
			require.ErrorIs(t, err, koreauth.ErrSignature)

			_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Sign: func([]byte) ([]byte, error) { return nil, nil }}))
			require.ErrorIs(t, err, koreauth.ErrSignature, "an empty signature")

			issuer, v = newIssuer(t, alg, nil)
			_, err = v.Validate(t.Context(), issuer.Valid())
			if alg == "RS256" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, koreauth.ErrAlgorithm)
			}
		})
	}
}

func TestAlgorithm_KeyVerifiesOnlyItsOwn(t *testing.T) {
	all := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	for _, keyAlg := range all {
		issuer, v := newIssuer(t, keyAlg, func(c *koreauth.Config) { c.Algorithms = all })
		for _, headerAlg := range all {
			if headerAlg == keyAlg {
				continue
			}
			token := mintToken(t, issuer, koretest.Token{Header: map[string]any{"alg": headerAlg}})
			_, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "key for %s, header alg %s", keyAlg, headerAlg)
		}
	}
}

func TestAlgorithm_KeyWithoutAlgorithm(t *testing.T) {
	key := signingKeys()["RS256"]
	keys := koreauth.StaticKeySet{{ID: key.ID, Public: key.Public()}}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Keys, c.HTTPClient = keys, nil
		c.Algorithms = []string{"RS256", "RS512", "PS384", "ES256", "EdDSA"}
	})
	for _, alg := range []string{"RS256", "RS512", "PS384"} {
		_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Key: &koretest.Key{ID: key.ID, Algorithm: alg, Private: key.Private}}))
		assert.NoError(t, err, alg)
	}
	_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Header: map[string]any{"alg": "ES256"}}))
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

func TestAlgorithm_StrictSignatures(t *testing.T) {
	rsaKey := signingKeys()["PS256"].Private.(*rsa.PrivateKey)
	ecKey := signingKeys()["ES256"].Private.(*ecdsa.PrivateKey)
	pss := func(salt int) func([]byte) ([]byte, error) {
		return func(input []byte) ([]byte, error) {
			digest := sha256.Sum256(input)
			return rsa.SignPSS(rand.Reader, rsaKey, 5, digest[:], &rsa.PSSOptions{SaltLength: salt})
		}
	}
	ec := func(shape func(r, s *big.Int) []byte) func([]byte) ([]byte, error) {
		return func(input []byte) ([]byte, error) {
			digest := sha256.Sum256(input)
			r, s, err := ecdsa.Sign(rand.Reader, ecKey, digest[:])
			if err != nil {
				return nil, err
			}
			return shape(r, s), nil
		}
	}
	raw := func(size int) func(r, s *big.Int) []byte {
		return func(r, s *big.Int) []byte {
			return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	}
	for _, row := range []struct {
		name, alg string
		sign      func([]byte) ([]byte, error)
		want      error
	}{
		{"a PSS salt as long as the hash is valid (RFC 7518 §3.5)", "PS256", pss(32), nil},
		{"a PSS salt of another length is invalid", "PS256", pss(20), koreauth.ErrSignature},
		{"an empty PSS salt is invalid", "PS256", pss(0), koreauth.ErrSignature},
		{"R and S of 32 bytes each are valid (RFC 7518 §3.4)", "ES256", ec(raw(32)), nil},
		{"R and S with leading zero bytes are invalid", "ES256", ec(raw(33)), koreauth.ErrSignature},
		{"DER is invalid", "ES256", ec(func(r, s *big.Int) []byte {
			der, _ := asn1.Marshal(struct{ R, S *big.Int }{r, s})
			return der
		}), koreauth.ErrSignature},
		{"zeros are invalid (CVE-2022-21449)", "ES256", ec(func(_, _ *big.Int) []byte { return make([]byte, 64) }), koreauth.ErrSignature},
		{"R equal to the order of the curve is invalid", "ES256", ec(func(_, s *big.Int) []byte {
			return append(elliptic.P256().Params().N.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}), koreauth.ErrSignature},
	} {
		t.Run(row.name, func(t *testing.T) {
			issuer, v := newIssuer(t, row.alg, func(c *koreauth.Config) { c.Algorithms = []string{row.alg} })
			_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Sign: row.sign}))
			assert.ErrorIs(t, err, row.want)
		})
	}
}

// 300 signatures include some whose R or S has a leading zero byte, and some
// whose R or S has its highest bit set.
func TestAlgorithm_AcceptsEveryECDSASignature(t *testing.T) {
	number := 300
	if raceDetector || testing.Short() { // The race detector makes each signature much slower.
		number = 50
	}
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		issuer, v := newIssuer(t, alg, func(c *koreauth.Config) { c.Algorithms = []string{alg} })
		for range number {
			_, err := v.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err, alg)
		}
	}
}

func TestValidator_TokenWithoutKid(t *testing.T) {
	first, second := signingKeys()["RS256"], &koretest.Key{ID: "second", Algorithm: "RS256", Private: signingKeys()["PS256"].Private}
	for _, row := range []struct {
		name string
		keys koreauth.StaticKeySet
		want error
	}{
		{"one key", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}}, nil},
		{"one key that may have signed it, one of another type", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}, {ID: "b", Public: signingKeys()["ES256"].Public()}}, nil},
		{"one key that may have signed it, one for another algorithm", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}, {ID: "b", Algorithm: "PS256", Public: second.Public()}}, nil},
		{"two keys that may have signed it", koreauth.StaticKeySet{{ID: "b", Public: second.Public()}, {ID: "a", Public: first.Public()}}, nil},
		{"no key that may have signed it", koreauth.StaticKeySet{{ID: "b", Public: signingKeys()["ES256"].Public()}}, koreauth.ErrUnknownKey},
		{"another key", koreauth.StaticKeySet{{ID: "b", Public: second.Public()}}, koreauth.ErrSignature},
		{"keys with and without an ID", koreauth.StaticKeySet{{Public: second.Public()}, {ID: "a", Public: first.Public()}}, nil},
	} {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Keys, c.HTTPClient = row.keys, nil })
		_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{DropHeader: []string{"kid"}}))
		assert.ErrorIs(t, err, row.want, row.name)
	}
}

func TestValidator_SeveralKeysWithOneKid(t *testing.T) {
	key, other := signingKeys()["RS256"], signingKeys()["PS256"]
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.HTTPClient = nil
		c.Keys = koreauth.StaticKeySet{
			{ID: key.ID, Public: signingKeys()["ES256"].Public()},
			{ID: key.ID, Public: other.Public()},
			{ID: key.ID, Public: key.Public()},
		}
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.NoError(t, err)
	_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{BadSignature: true}))
	require.ErrorIs(t, err, koreauth.ErrSignature)
}

func TestValidator_IgnoresKeysWithOtherIDs(t *testing.T) {
	key := signingKeys()["RS256"]
	for _, id := range []string{" ", strings.ToLower(key.ID), key.ID + "x", key.ID[:8]} {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
				return []koreauth.Key{{ID: id, Public: key.Public()}}, nil
			})
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "key ID %q, token kid %q", id, key.ID)
	}
}

func TestValidator_IgnoresWeakKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	strong := signingKeys()["RS256"].Private.(*rsa.PrivateKey)
	for name, public := range map[string]any{
		"1024 bits":           &weak.PublicKey,
		"exponent 1":          &rsa.PublicKey{N: strong.N, E: 1},
		"an even exponent":    &rsa.PublicKey{N: strong.N, E: 4},
		"an RSA key by value": strong.PublicKey,
		"a private key":       strong,
		"a nil key":           (*rsa.PublicKey)(nil),
		"an empty EC key":     &ecdsa.PublicKey{},
		"a short Ed25519 key": []byte{1},
		"an HMAC secret":      []byte("secret"),
	} {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient, c.Keys = nil, koreauth.StaticKeySet{{ID: signingKeys()["RS256"].ID, Public: public}}
			c.Algorithms = []string{"RS256", "ES256", "EdDSA"}
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey, name)
	}
}
