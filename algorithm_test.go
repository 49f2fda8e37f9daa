package koreauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestAlgorithm_CurveWithoutPoint(t *testing.T) {
	issuer, v := newIssuer(t, "ES256", func(c *koreauth.Config) {
		c.Algorithms, c.HTTPClient = []string{"ES256"}, nil
		c.Keys = koreauth.StaticKeySet{{ID: signingKeys()["ES256"].ID, Public: &ecdsa.PublicKey{Curve: elliptic.P256()}}}
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

func TestAlgorithm_RSAKeyWithoutModulus(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.HTTPClient = nil
		c.Keys = koreauth.StaticKeySet{{ID: signingKeys()["RS256"].ID, Public: &rsa.PublicKey{E: 65537}}}
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

func TestAlgorithm_RSAExponentTooLarge(t *testing.T) {
	public := *signingKeys()["RS256"].Public().(*rsa.PublicKey)
	public.E = math.MaxInt32
	public.E += 2
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.HTTPClient = nil
		c.Keys = keySetFunc(func(_ context.Context, kid string, _ bool) ([]koreauth.Key, error) {
			return []koreauth.Key{{ID: kid, Public: &public}}, nil
		})
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

func TestAlgorithm_Ed25519KeyOfWrongLength(t *testing.T) {
	for _, public := range []ed25519.PublicKey{nil, {1}, append(slices.Clone(edPublic("k")), 0)} {
		v := edValidator(t, keySetFunc(func(_ context.Context, kid string, _ bool) ([]koreauth.Key, error) {
			return []koreauth.Key{{ID: kid, Public: public}}, nil
		}))
		_, err := v.Validate(t.Context(), edToken(t, "k", nil)) // crypto/ed25519 panics on such a key
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "a key of %d bytes", len(public))
	}
}

// EdDSA and Ed25519 (RFC 9864 §2.2) are two names for one algorithm. A token must
// have the name that is configured; the key may be published under either.
func TestAlgorithm_Ed25519Names(t *testing.T) {
	names := []string{"EdDSA", "Ed25519"}
	for _, configured := range [][]string{{"EdDSA"}, {"Ed25519"}, {"EdDSA", "Ed25519"}, {"RS256"}} {
		for _, token := range append(names, "ed25519", "Ed448", "EDDSA") {
			for _, published := range append(names, "") {
				want := koreauth.ErrAlgorithm
				if slices.Contains(configured, token) {
					want = nil
				}
				header := fmt.Sprintf(`{"alg":%q,"kid":"k"}`, token)
				static := koreauth.StaticKeySet{{ID: "k", Algorithm: published, Public: edPublic("k")}}
				jwk := strings.Replace(edJWK("k"), `"alg":"EdDSA",`, fmt.Sprintf(`"alg":%q,`, published), 1)
				parsed, err := koreauth.ParseKeys([]byte(jwksOf(jwk)))
				require.NoError(t, err)
				assert.Equal(t, []koreauth.Key(static), parsed)
				v, err := koreauth.NewValidator(koreauth.Config{Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: configured, Keys: static})
				require.NoError(t, err)
				valid := kidToken(t, header, "k")
				for range 3 { // also when it is remembered
					_, err = v.Validate(t.Context(), valid)
					assert.ErrorIs(t, err, want, "configured %v, token %s, key %q", configured, token, published)
				}
				_, err = v.Validate(t.Context(), kidToken(t, header, "forger"))
				assert.Error(t, err)
			}
		}
	}
	rsa := koreauth.StaticKeySet{{ID: "k", Public: signingKeys()["RS256"].Public()}, {ID: "k", Algorithm: "ES256", Public: edPublic("k")}}
	v, err := koreauth.NewValidator(koreauth.Config{Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: names, Keys: rsa})
	require.NoError(t, err)
	_, err = v.Validate(t.Context(), kidToken(t, `{"alg":"Ed25519","kid":"k"}`, "k"))
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "a key of another type, and one for another algorithm")
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.HTTPClient, c.Keys = nil, koreauth.StaticKeySet{{Algorithm: "EdDSA", Public: signingKeys()["RS256"].Public()}}
	})
	_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{}))
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "an RSA key for EdDSA")
	for _, alg := range []string{"Ed448", "ed25519", "RS256"} {
		_, err := koreauth.ParseKeys([]byte(jwksOf(strings.Replace(edJWK("k"), `"EdDSA"`, fmt.Sprintf("%q", alg), 1))))
		assert.Error(t, err, "an Ed25519 key with alg %s", alg)
	}
}
