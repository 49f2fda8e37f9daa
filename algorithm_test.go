package koreauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
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
