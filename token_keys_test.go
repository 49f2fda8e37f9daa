package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// kidToken returns a valid token of edValidator with that header, signed with
// edKey(signer).
func kidToken(t *testing.T, header, signer string) string {
	t.Helper()
	return signedToken(header, signer, map[string]any{"iss": edIssuer, "aud": "api-gw", "exp": time.Now().Add(time.Hour).Unix()})
}

func signedToken(header, signer string, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	signed := rawURL([]byte(header)) + "." + rawURL(payload)
	return signed + "." + rawURL(ed25519.Sign(edKey(signer), []byte(signed)))
}

// keyNamed returns edKey(name) with an ID.
func keyNamed(id, name string) koreauth.Key { return koreauth.Key{ID: id, Public: edPublic(name)} }

func TestValidator_KeysThatAreTried(t *testing.T) {
	const (
		withKid    = `{"alg":"EdDSA","kid":"k"}`
		withoutKid = `{"alg":"EdDSA"}`
		emptyKid   = `{"alg":"EdDSA","kid":""}`
	)
	distinct := func(id string, count int) (keys []koreauth.Key) {
		for i := range count {
			keys = append(keys, keyNamed(id, fmt.Sprint("other-", i)))
		}
		return keys
	}
	equal := func(count int, k koreauth.Key) (keys []koreauth.Key) {
		for range count {
			keys = append(keys, k)
		}
		return keys
	}
	join := func(parts ...[]koreauth.Key) (keys []koreauth.Key) {
		for _, part := range parts {
			keys = append(keys, part...)
		}
		return keys
	}
	good := []koreauth.Key{keyNamed("k", "signer")}
	bare := []koreauth.Key{keyNamed("", "signer")}
	other := []koreauth.Key{keyNamed("x", "signer")}
	rsa := []koreauth.Key{{ID: "k", Public: signingKeys()["RS256"].Public()}}
	for _, row := range []struct {
		name   string
		header string
		keys   []koreauth.Key
		want   error
	}{
		{"the key with the kid", withKid, good, nil},
		{"the key with the kid, beside keys with other IDs and without", withKid, join(distinct("x", 9), distinct("", 9), good), nil},
		{"the fourth key with the kid", withKid, join(distinct("k", 3), good), nil},
		{"the fifth key with the kid", withKid, join(distinct("k", 4), good), koreauth.ErrUnknownKey},
		{"the first of five keys with the kid", withKid, join(good, distinct("k", 4)), koreauth.ErrUnknownKey},
		{"a key without an ID, if none has the kid", withKid, join(distinct("x", 9), bare), nil},
		{"a key without an ID, if one has the kid", withKid, join(distinct("k", 1), bare), koreauth.ErrSignature},
		{"a key without an ID, if one of another type has the kid", withKid, join(rsa, bare), koreauth.ErrUnknownKey},
		{"a key without an ID, if one has the kid in another case", `{"alg":"EdDSA","kid":"K"}`, join(distinct("k", 1), bare), nil},
		{"the fourth key without an ID", withKid, join(distinct("", 3), bare), nil},
		{"the fifth key without an ID", withKid, join(distinct("", 4), bare), koreauth.ErrUnknownKey},
		{"a key with another ID", withKid, other, koreauth.ErrUnknownKey},
		{"without kid: a key with an ID", withoutKid, other, nil},
		{"without kid: a key without an ID", withoutKid, bare, nil},
		{"without kid: the fourth key", withoutKid, join(distinct("a", 1), distinct("", 2)[1:], distinct("b", 3)[2:], other), nil},
		{"without kid: the fifth key", withoutKid, join(distinct("a", 1), distinct("", 2)[1:], distinct("b", 4)[2:], other), koreauth.ErrUnknownKey},
		{"with an empty kid: the fourth key", emptyKid, join(distinct("a", 3), other), nil},
		{"with an empty kid: the fifth key", emptyKid, join(distinct("a", 4), other), koreauth.ErrUnknownKey},
		{"keys of other types do not count", withoutKid, join(rsa, rsa, rsa, rsa, distinct("a", 3), other), nil},
		{"keys for other algorithms do not count", withoutKid, join(equal(9, koreauth.Key{Algorithm: "RS256", Public: edPublic("x")}), distinct("a", 3), other), nil},
		{"equal keys count once", withKid, join(equal(1000, good[0]), distinct("k", 3)), nil},
		{"equal keys with different IDs count once", withoutKid, join(equal(9, keyNamed("a", "x")), equal(9, keyNamed("b", "x")), equal(9, keyNamed("", "x")), distinct("c", 2), other), nil},
		{"equal keys with different algorithms count once", withoutKid,
			join(equal(3, koreauth.Key{ID: "a", Algorithm: "EdDSA", Public: edPublic("x")}), equal(3, koreauth.Key{ID: "a", Algorithm: "Ed25519", Public: edPublic("x")}), distinct("c", 2), other), nil},
		{"kid in another case names a key", `{"alg":"EdDSA","Kid":"k"}`, good, koreauth.ErrUnknownKey},
		{"kid in another case names a key, whatever follows it", `{"alg":"EdDSA","Kid":"k","x":1}`, good, koreauth.ErrUnknownKey},
		{"kid in another case beside kid", `{"alg":"EdDSA","Kid":"x","kid":"k"}`, good, nil},
	} {
		for set, keys := range map[string]koreauth.KeySet{
			"StaticKeySet": koreauth.StaticKeySet(row.keys),
			"custom, returns what was asked for": keySetFunc(func(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
				if found, err := koreauth.StaticKeySet(row.keys).Keys(ctx, kid, fetch); err == nil {
					return found, nil
				}
				return koreauth.StaticKeySet(row.keys).Keys(ctx, "", fetch)
			}),
			"custom, returns all": keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return row.keys, nil }),
		} {
			_, err := edValidator(t, keys).Validate(t.Context(), kidToken(t, row.header, "signer"))
			assert.ErrorIs(t, err, row.want, "%s, %s", row.name, set)
			if strings.Contains(row.name, "fifth") {
				assert.ErrorContains(t, err, "more than four keys", "%s, %s", row.name, set)
				assert.ErrorContains(t, err, `"kid"`, "%s, %s", row.name, set)
			}
		}
		if jwks := edJWKs(row.keys); jwks != "" {
			withFakeTime(t, row.name+", RemoteKeySet", func(t *testing.T, net *network) {
				net.respondKeys(reply(200, jwks))
				_, err := edValidator(t, net.keySet()).Validate(t.Context(), kidToken(t, row.header, "signer"))
				assert.ErrorIs(t, err, row.want)
			})
		}
	}
}

// edJWKs returns a JWK Set of Ed25519 keys, or "" if one has another type.
func edJWKs(keys []koreauth.Key) string {
	var jwks []string
	for _, key := range keys {
		public, ok := key.Public.(ed25519.PublicKey)
		if !ok || key.Algorithm == "RS256" { // ParseKeys would ignore it.
			return ""
		}
		jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": rawURL(public)}
		if key.ID != "" {
			jwk["kid"] = key.ID
		}
		if key.Algorithm != "" {
			jwk["alg"] = key.Algorithm
		}
		text, err := json.Marshal(jwk)
		if err != nil {
			panic(err)
		}
		jwks = append(jwks, string(text))
	}
	return jwksOf(jwks...)
}

// Verifying an Ed25519 signature copies the signed text, so the bytes that are
// allocated for a token of 8 KB tell how many keys were tried.
func TestValidator_TriesAtMostFourKeys(t *testing.T) {
	token := signedToken(`{"alg":"EdDSA"}`, "forger", map[string]any{
		"iss": edIssuer, "aud": "api-gw", "exp": time.Now().Add(time.Hour).Unix(), "fill": strings.Repeat("x", 8<<10),
	})
	signed := strings.LastIndexByte(token, '.')
	allocated := func(keys []koreauth.Key) float64 {
		v := edValidator(t, keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return keys, nil }))
		const runs = 20
		var before, after runtime.MemStats
		_, err := v.Validate(t.Context(), token)
		require.ErrorIs(t, err, koreauth.ErrInvalidToken)
		runtime.ReadMemStats(&before)
		for range runs {
			_, _ = v.Validate(t.Context(), token)
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / runs
	}
	none := allocated([]koreauth.Key{{Public: signingKeys()["RS256"].Public()}})
	tried := func(keys []koreauth.Key) float64 { return (allocated(keys) - none) / float64(signed) }
	distinct := make([]koreauth.Key, 10_000)
	for i := range distinct {
		distinct[i] = keyNamed("", fmt.Sprint("key-", i))
	}
	if tried(distinct[:1]) < 0.1 {
		t.Skip("on this platform, verifying a signature does not copy the text")
	}
	for count := 1; count <= 4; count++ {
		assert.InDelta(t, count, tried(distinct[:count]), 0.7, "%d keys", count)
	}
	for _, count := range []int{5, 100, len(distinct)} {
		assert.Less(t, tried(distinct[:count]), 0.7, "%d keys are too many, so none is tried", count)
	}
	repeated := make([]koreauth.Key, 10_000)
	for i := range repeated {
		repeated[i] = keyNamed(fmt.Sprint(i), fmt.Sprint("key-", i%4))
	}
	assert.InDelta(t, 4, tried(repeated), 0.7, "10,000 keys, of which four are different")
}

func TestValidator_AsksCustomKeySetOnce(t *testing.T) {
	good := keyNamed("k", "signer")
	type call struct {
		kid   string
		fetch bool
	}
	for name, row := range map[string]struct {
		keys  []koreauth.Key
		token string
		want  error
		fetch bool
	}{
		"a valid token":     {[]koreauth.Key{good}, edTokenSignedBy("k", "signer", nil), nil, true},
		"a bad signature":   {[]koreauth.Key{good}, edTokenSignedBy("k", "forger", nil), koreauth.ErrSignature, true},
		"an unknown key":    {nil, edTokenSignedBy("k", "signer", nil), koreauth.ErrUnknownKey, true},
		"too many keys":     {[]koreauth.Key{keyNamed("", "1"), keyNamed("", "2"), keyNamed("", "3"), keyNamed("", "4"), keyNamed("", "5")}, edTokenSignedBy("k", "signer", nil), koreauth.ErrUnknownKey, true},
		"without an ID":     {[]koreauth.Key{keyNamed("", "other")}, edTokenSignedBy("k", "signer", nil), koreauth.ErrSignature, true},
		"another audience":  {[]koreauth.Key{good}, edTokenSignedBy("k", "signer", map[string]any{"aud": "x"}), koreauth.ErrAudience, false},
		"an odd identity":   {[]koreauth.Key{good}, edTokenSignedBy("k", "signer", map[string]any{"sub": 1}), koreauth.ErrMalformed, false},
		"expired, no key":   {nil, edTokenSignedBy("k", "signer", map[string]any{"exp": 1}), koreauth.ErrUnknownKey, false},
		"expired and known": {[]koreauth.Key{good}, edTokenSignedBy("k", "signer", map[string]any{"exp": 1}), koreauth.ErrExpired, false},
	} {
		var calls []call
		v := edValidator(t, keySetFunc(func(_ context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
			calls = append(calls, call{kid, fetch})
			return row.keys, nil
		}))
		_, err := v.Validate(t.Context(), row.token)
		assert.ErrorIs(t, err, row.want, name)
		assert.Equal(t, []call{{"k", row.fetch}}, calls, name)
	}
}

// edTokenOf returns a token with that kid, signed with edKey(signer). change
// replaces claims of a valid token.
func edTokenSignedBy(kid, signer string, change map[string]any) string {
	claims := map[string]any{"iss": edIssuer, "aud": "api-gw", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, change)
	return signedToken(fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid), signer, claims)
}
