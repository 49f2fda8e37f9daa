package koretest_test

import (
	"crypto"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestKey_SignsWithEveryAlgorithm(t *testing.T) {
	issuer := newIssuer(t)
	for _, algorithm := range []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
	} {
		t.Run(algorithm, func(t *testing.T) {
			var key *koretest.Key
			if strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS") {
				key = &koretest.Key{ID: "rsa", Algorithm: algorithm, Private: signingKey().Private}
			} else {
				var err error
				key, err = koretest.NewKey(algorithm)
				require.NoError(t, err)
			}
			token := mint(t, issuer, koretest.Token{Key: key})
			assert.Equal(t, algorithm, headerOf(t, token)["alg"])
			assert.Equal(t, key.ID, headerOf(t, token)["kid"])
			public := key.Public()
			if secret, ok := key.Private.([]byte); ok {
				assert.Nil(t, public)
				verify(t, token, secret)
				return
			}
			verify(t, token, public)
			bad := mint(t, issuer, koretest.Token{Key: key, BadSignature: true})
			_, err := jws.Verify([]byte(bad), jws.WithKey(jwa.SignatureAlgorithm(algorithm), public))
			assert.Error(t, err)
		})
	}
	_, err := koretest.NewKey("none")
	assert.ErrorContains(t, err, `"none"`)
}

// Forms that RFC 7518 requires and that some verifiers do not check.
func TestKey_SignsInStandardForms(t *testing.T) {
	issuer := newIssuer(t)
	token := mint(t, issuer, koretest.Token{Algorithm: "PS384"})
	_, _, signature := parts(t, token)
	digest := crypto.SHA384.New()
	digest.Write([]byte(token[:strings.LastIndex(token, ".")]))
	err := rsa.VerifyPSS(issuer.SigningKey().Public().(*rsa.PublicKey), crypto.SHA384, digest.Sum(nil), signature,
		&rsa.PSSOptions{SaltLength: 48})
	assert.NoError(t, err, "the salt must be as long as the hash")

	for algorithm, size := range map[string]int{"ES256": 64, "ES384": 96, "ES512": 132} {
		key, err := koretest.NewKey(algorithm)
		require.NoError(t, err)
		_, _, signature := parts(t, mint(t, issuer, koretest.Token{Key: key}))
		assert.Len(t, signature, size, algorithm)
	}
}

func TestKey_WorksWithKoreauth(t *testing.T) {
	issuer := newIssuer(t)
	all := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	var keys []*koretest.Key
	for _, algorithm := range all {
		key := &koretest.Key{ID: algorithm, Algorithm: algorithm, Private: signingKey().Private}
		if algorithm[0] == 'E' {
			var err error
			key, err = koretest.NewKey(algorithm)
			require.NoError(t, err)
		}
		require.NoError(t, issuer.AddKey(key))
		keys = append(keys, key)
	}
	validator := newValidator(t, issuer, issuer.HTTPClient(), all...)
	for _, key := range keys {
		_, err := validator.Validate(t.Context(), mint(t, issuer, koretest.Token{Key: key}))
		assert.NoError(t, err, key.Algorithm)
	}
	assert.Equal(t, 1, issuer.Requests(koretest.KeysEndpoint))
	for _, key := range keys {
		_, err := validator.Validate(t.Context(), mint(t, issuer, koretest.Token{Key: key, BadSignature: true}))
		assert.ErrorIs(t, err, koreauth.ErrSignature, key.Algorithm)
	}
	assert.Equal(t, 1+3, issuer.Requests(koretest.KeysEndpoint), "a bad signature causes a fetch, within the limit")
}
