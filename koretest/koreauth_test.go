package koretest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func newValidator(t *testing.T, issuer *koretest.Issuer, client *http.Client, algorithms ...string) *koreauth.Validator {
	t.Helper()
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		HTTPClient: client,
		Algorithms: algorithms,
	})
	require.NoError(t, err)
	return validator
}

func TestKoreauthAgreesWithTheIssuer(t *testing.T) {
	issuer := listening(t)
	for what, client := range map[string]*http.Client{"on the network": nil, "in process": issuer.HTTPClient()} {
		t.Run(what, func(t *testing.T) {
			validator := newValidator(t, issuer, client)
			claims, err := validator.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err)
			assert.Equal(t, issuer.URL(), claims.Issuer)
			assert.Equal(t, issuer.Client().ID, claims.ClientID)
			assert.Equal(t, issuer.Client().AccountID, claims.AccountID)
			assert.Equal(t, issuer.Client().Products, claims.Products)
			assert.NoError(t, koreauth.Grant("API Clients", koreauth.Read, koreauth.Write, koreauth.Modify, koreauth.Delete).Check(claims))

			_, err = validator.Validate(t.Context(), issuer.Expired())
			assert.ErrorIs(t, err, koreauth.ErrExpired)
			_, err = validator.Validate(t.Context(), issuer.Forged())
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			claims, err = validator.Validate(t.Context(), issuer.Ungranted())
			require.NoError(t, err)
			assert.ErrorIs(t, koreauth.Grant("API Clients", koreauth.Read).Check(claims), koreauth.ErrInsufficientScope)

			issuer.Rotate()
			_, err = validator.Validate(t.Context(), issuer.Valid())
			assert.NoError(t, err, "a rotation is noticed")
		})
	}
}

func TestKoreauthAcceptsEveryAlgorithm(t *testing.T) {
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
		_, err = validator.Validate(t.Context(), mint(t, issuer, koretest.Token{Key: key, BadSignature: true}))
		assert.ErrorIs(t, err, koreauth.ErrSignature, key.Algorithm)
	}
	assert.Equal(t, 1, issuer.Requests(koretest.KeysEndpoint))
}

func TestKoreauthOnSimulatedTime(t *testing.T) {
	signingKey() // made on real time
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t)
		validator := newValidator(t, issuer, issuer.HTTPClient())
		token := issuer.Valid()
		issuer.Behave(koretest.Hanging)
		_, err := validator.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)

		issuer.Behave(nil)
		time.Sleep(time.Second)
		_, err = validator.Validate(t.Context(), token)
		require.NoError(t, err)

		time.Sleep(koretest.OneHour)
		synctest.Wait()
		_, err = validator.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrExpired)
	})
}
