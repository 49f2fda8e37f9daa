package koreauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/koretest"
)

// The types of the functions in internal/door, as its comments document them.
var (
	doorValidate = door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
	doorVerify   = door.VerifySignature.(func(context.Context, *koreauth.Validator, string) (*koreauth.Claims, error))
	doorJWS      = door.VerifyJWS.(func(context.Context, koreauth.KeySet, []string, string) (typ, payload string, err error))
)

// refusalOf returns the *Error of err, which must be one with a class.
func refusalOf(t *testing.T, err error) *koreauth.Error {
	t.Helper()
	var refusal *koreauth.Error
	require.ErrorAs(t, err, &refusal)
	require.NotNil(t, refusal.Class)
	return refusal
}

func TestDoor_Validate(t *testing.T) {
	rule := new(probe)
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{rule}
		c.Opaque = koretest.Validator{Tokens: map[string]*koreauth.Claims{
			"opaque": {ClientID: "o", Confirmation: &koreauth.Confirmation{KeySHA256: "key"}}, "odd": {Confirmation: &koreauth.Confirmation{}},
		}}
	})
	bound := func(certificate, key string) string {
		return mintToken(t, issuer, koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: certificate, KeySHA256: key}})
	}
	for _, row := range []struct {
		name, token string
		want        error
		asked       int // calls of Config.Require
	}{
		{"a valid token", issuer.Valid(), nil, 1},
		{"a token bound to a certificate", bound("cert", ""), nil, 1},
		{"a token bound to a DPoP key", bound("", "key"), nil, 1},
		{"a token bound to both", bound("cert", "key"), nil, 1},
		{"a bound opaque token", "opaque", nil, 1},
		{"a token bound in an unknown way", bound("", ""), koreauth.ErrBinding, 0},
		{"an opaque token bound in an unknown way", "odd", koreauth.ErrBinding, 0},
		{"an unknown opaque token", "forged", koreauth.ErrSignature, 0},
		{"a forged token", issuer.Forged(), koreauth.ErrUnknownKey, 0},
		{"an expired token", issuer.Expired(), koreauth.ErrExpired, 0},
		{"a token for another API", mintToken(t, issuer, koretest.Token{Claims: map[string]any{"aud": "other"}}), koreauth.ErrAudience, 0},
		{"an ID token", mintToken(t, issuer, koretest.Token{Claims: map[string]any{"typ": "ID"}}), koreauth.ErrTokenType, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := bearerRequest(row.token)
			var shared *koreauth.Claims
			for sight, given := range []*http.Request{nil, r, r, nil} {
				rule.requests, rule.claims = nil, nil
				claims, err := doorValidate(t.Context(), v, given, row.token)
				assert.Equal(t, row.asked, rule.calls())
				if row.want != nil {
					assert.ErrorIs(t, err, row.want)
					assert.Nil(t, claims)
					refusalOf(t, err)
					continue
				}
				require.NoError(t, err)
				assert.Equal(t, []*http.Request{given}, rule.requests)
				assert.Same(t, rule.claims[0], claims, "the claims are shared")
				if row.token != "opaque" && sight >= 2 {
					assert.Same(t, shared, claims, "the token is remembered since its second sight")
				} else {
					assert.NotSame(t, shared, claims, "the token is not remembered yet")
				}
				shared = claims
			}
		})
	}
	rule.err = koreauth.ErrRevoked
	_, err := doorValidate(t.Context(), v, nil, issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	_, err = doorValidate(t.Context(), new(koreauth.Validator), nil, issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrUnavailable, "the zero Validator")
}

// VerifySignature verifies the signature, "iss" and "exp", and nothing else.
func TestDoor_VerifySignature(t *testing.T) {
	rule := &probe{err: koreauth.ErrRevoked}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{rule}
	})
	other, err := koretest.NewIssuer(&koretest.Options{URL: "https://other.example", Keys: []*koretest.Key{signingKeys()["ES256"]}})
	require.NoError(t, err)
	both, err := koreauth.NewValidator(
		koreauth.Config{Issuer: issuer.URL(), Audience: []string{"x"}, HTTPClient: issuer.HTTPClient()},
		koreauth.Config{Issuer: other.URL(), Audience: []string{"y"}, HTTPClient: other.HTTPClient(), Algorithms: []string{"ES256"}},
	)
	require.NoError(t, err)

	claims := func(name string, value any) koretest.Token {
		return koretest.Token{Claims: map[string]any{name: value}}
	}
	header := func(name string, value any) koretest.Token {
		return koretest.Token{Header: map[string]any{name: value}}
	}
	raw := func(payload string) koretest.Token { return koretest.Token{RawPayload: []byte(payload)} }
	iss := `"iss":"` + issuer.URL() + `"`
	for _, row := range []struct {
		name   string
		recipe koretest.Token
		want   error
	}{
		{"a valid token", koretest.Token{}, nil},
		{"another audience", claims("aud", "other"), nil},
		{"no audience", koretest.Token{Drop: []string{"aud"}}, nil},
		{"issued in the future", claims("iat", 9e9), nil},
		{"a bound token", koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "key"}}, nil},
		{"an unknown kind of binding", claims("cnf", nil), nil},
		{"no typ", koretest.Token{DropHeader: []string{"typ"}}, nil},
		{"no kid, and one key matches", koretest.Token{DropHeader: []string{"kid"}}, nil},
		{"a header member that is not used", header("jwk", map[string]any{"kty": "oct"}), nil},

		{"a bad signature", koretest.Token{BadSignature: true}, koreauth.ErrSignature},
		{"forged with the kid of the issuer", koretest.Token{Key: &koretest.Key{ID: signingKeys()["RS256"].ID, Algorithm: "PS256", Private: signingKeys()["PS256"].Private}, Header: map[string]any{"alg": "RS256"}}, koreauth.ErrSignature},
		{"an unknown key", header("kid", "other"), koreauth.ErrUnknownKey},
		{"expired", koretest.Token{Age: 2 * time.Hour}, koreauth.ErrExpired},
		{"expired, and a bad signature", koretest.Token{Age: 2 * time.Hour, BadSignature: true}, koreauth.ErrSignature},
		{"no exp", koretest.Token{Drop: []string{"exp"}}, koreauth.ErrExpired},
		{"exp is a string", claims("exp", "9999999999"), koreauth.ErrExpired},
		{"exp is null", claims("exp", nil), koreauth.ErrExpired},
		{"another issuer", claims("iss", "https://evil.example"), koreauth.ErrIssuer},
		{"not yet valid", claims("nbf", 9e9), koreauth.ErrNotYetValid},
		{"nbf is a string", claims("nbf", "x"), koreauth.ErrNotYetValid},
		{"an ID token", claims("typ", "ID"), koreauth.ErrTokenType},
		{"no issuer", koretest.Token{Drop: []string{"iss"}}, koreauth.ErrIssuer},
		{"an issuer that is not a string", claims("iss", []string{issuer.URL()}), koreauth.ErrIssuer},
		{"the issuer in another case", claims("iss", strings.ToUpper(issuer.URL())), koreauth.ErrIssuer},
		{"alg none", koretest.Token{Algorithm: "none"}, koreauth.ErrAlgorithm},
		{"alg HS256", koretest.Token{Key: &koretest.Key{ID: "k", Algorithm: "HS256", Private: []byte("secret")}}, koreauth.ErrAlgorithm},
		{"an algorithm that the issuer does not accept", header("alg", "RS512"), koreauth.ErrAlgorithm},
		{"no alg", koretest.Token{DropHeader: []string{"alg"}}, koreauth.ErrAlgorithm},
		{"alg is not a string", header("alg", 1), koreauth.ErrMalformed},
		{"kid is not a string", header("kid", 1), koreauth.ErrMalformed},
		{"typ of a logout token", header("typ", "logout+jwt"), koreauth.ErrTokenType},
		{"an empty typ", header("typ", ""), koreauth.ErrTokenType},
		{"typ is not a string", header("typ", nil), koreauth.ErrMalformed},
		{"crit", header("crit", []string{"exp"}), koreauth.ErrMalformed},
		{"b64", header("b64", false), koreauth.ErrMalformed},
		{"a header that is not JSON", koretest.Token{RawHeader: []byte("x")}, koreauth.ErrMalformed},
		{"a header with a duplicate member", koretest.Token{RawHeader: []byte(`{"alg":"RS256","alg":"RS256"}`)}, koreauth.ErrMalformed},
		{"a payload with a duplicate member", raw(`{` + iss + `,"exp":9999999999,"exp":9999999999}`), koreauth.ErrMalformed},
		{"a payload with text after it", raw(`{` + iss + `,"exp":9999999999} x`), koreauth.ErrMalformed},
		{"a payload that is not JSON", raw(`x`), koreauth.ErrMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			token := mintToken(t, issuer, row.recipe)
			for _, v := range []*koreauth.Validator{v, both} {
				for range 3 { // The third time, it is remembered.
					got, err := doorVerify(t.Context(), v, token)
					if row.want == nil {
						require.NoError(t, err)
						assert.Equal(t, issuer.URL(), got.Issuer)
						continue
					}
					assert.ErrorIs(t, err, row.want)
					assert.Nil(t, got)
					assert.Equal(t, koreauth.ErrInvalidToken, refusalOf(t, err).Class)
				}
			}
		})
	}
	assert.Zero(t, rule.calls(), "Config.Require is not checked")

	for name, token := range map[string]string{
		"empty": "", "opaque": "opaque", "two segments": "a.b", "four segments": "a.b.c.d", "too large": issuer.Valid() + strings.Repeat("A", 16<<10),
		"padding": issuer.Valid() + "=", "not base64url": strings.Replace(issuer.Valid(), ".", "!.", 1), "an empty header": issuer.Valid()[strings.Index(issuer.Valid(), "."):],
	} {
		_, err := doorVerify(t.Context(), v, token)
		assert.ErrorIs(t, err, koreauth.ErrMalformed, name)
		refusalOf(t, err)
	}

	t.Run("each issuer has its own keys and algorithms", func(t *testing.T) {
		got, err := doorVerify(t.Context(), both, other.Valid())
		require.NoError(t, err)
		assert.Equal(t, other.URL(), got.Issuer)
		_, err = doorVerify(t.Context(), both, mintToken(t, other, koretest.Token{Claims: map[string]any{"iss": issuer.URL()}}))
		assert.ErrorIs(t, err, koreauth.ErrAlgorithm, "iss of one, signed by the other")
		_, err = doorVerify(t.Context(), both, mintToken(t, issuer, koretest.Token{Claims: map[string]any{"iss": other.URL()}}))
		assert.ErrorIs(t, err, koreauth.ErrAlgorithm)
		_, err = doorVerify(t.Context(), v, other.Valid())
		assert.ErrorIs(t, err, koreauth.ErrAlgorithm, "that of another issuer")
		_, err = doorVerify(t.Context(), new(koreauth.Validator), issuer.Valid())
		assert.Error(t, err, "the zero Validator accepts nothing")
	})
	t.Run("a token that it remembers is not valid", func(t *testing.T) {
		for name, row := range map[string]struct {
			recipe koretest.Token
			want   error
		}{
			"for no audience":      {koretest.Token{Drop: []string{"aud"}}, koreauth.ErrAudience},
			"for another audience": {claims("aud", "other"), koreauth.ErrAudience},
			"revoked":              {koretest.Token{}, koreauth.ErrRevoked},
		} {
			token := mintToken(t, issuer, row.recipe)
			for range 4 {
				_, err := doorVerify(t.Context(), v, token)
				require.NoError(t, err, name)
				_, err = v.Validate(t.Context(), token)
				assert.ErrorIs(t, err, row.want, name)
			}
		}
	})
}

// The claims of an answer are judged by the MaxAge, ClientIDs and Require of the Config.
func TestDoor_Require(t *testing.T) {
	require := door.Require.(func(*koreauth.Validator, *koreauth.Claims) error)
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.ClientIDs, c.MaxAge, c.Require = []string{"kc"}, time.Minute, []koreauth.Requirement{koreauth.Scope("a")}
	})
	for name, row := range map[string]struct {
		change func(*koreauth.Claims)
		want   error
	}{
		"all of them":    {func(*koreauth.Claims) {}, nil},
		"no audience":    {func(c *koreauth.Claims) { c.Audience = nil }, nil},
		"another client": {func(c *koreauth.Claims) { c.ClientID = "other" }, koreauth.ErrClient},
		"too old":        {func(c *koreauth.Claims) { c.IssuedAt = time.Now().Add(-time.Minute) }, koreauth.ErrTooOld},
		"no scope":       {func(c *koreauth.Claims) { c.Scopes = nil }, koreauth.ErrInsufficientScope},
		"an odd binding": {func(c *koreauth.Claims) { c.Confirmation = &koreauth.Confirmation{} }, koreauth.ErrBinding},
		"a binding":      {func(c *koreauth.Claims) { c.Confirmation = &koreauth.Confirmation{KeySHA256: "x"} }, nil},
	} {
		claims := &koreauth.Claims{Issuer: issuer.URL(), ClientID: "kc", IssuedAt: time.Now(), Scopes: []string{"a"}}
		row.change(claims)
		assert.ErrorIs(t, require(v, claims), row.want, name)
	}
}

func TestDoor_VerifySignatureReadsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Leeway = time.Minute })
		token := issuer.Valid()
		time.Sleep(issuer.Client().Lifetime + time.Minute - time.Nanosecond)
		var err error
		for range 3 { // The third time, it is remembered.
			_, err = doorVerify(t.Context(), v, token)
			assert.NoError(t, err)
		}
		time.Sleep(time.Nanosecond)
		_, err = doorVerify(t.Context(), v, token)
		assert.ErrorIs(t, err, koreauth.ErrExpired)

		// The token expires while the keys are fetched.
		issuer, v = newIssuer(t, "RS256", nil)
		issuer.Behave(koretest.Slow(2 * time.Second))
		token = mintToken(t, issuer, koretest.Token{Claims: map[string]any{"exp": time.Now().Add(time.Second).Unix()}})
		_, err = doorVerify(t.Context(), v, token)
		assert.ErrorIs(t, err, koreauth.ErrExpired)
	})
}

// A remembered token is verified by the keys that the issuer has now.
func TestDoor_VerifySignatureRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, v := newIssuer(t, "RS256", nil)
		token := mintToken(t, issuer, koretest.Token{Claims: map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}})
		verify := func() error {
			_, err := doorVerify(t.Context(), v, token)
			synctest.Wait()
			return err
		}
		require.NoError(t, verify())
		require.NoError(t, verify())
		remembered := testing.AllocsPerRun(100, func() { require.NoError(t, verify()) })
		assert.LessOrEqual(t, remembered, 1.0)

		time.Sleep(15 * time.Minute)
		require.NoError(t, verify(), "the old keys, while they are refreshed")
		assert.Equal(t, 2, issuer.Requests(koretest.KeysEndpoint))
		require.NoError(t, verify())

		issuer.Rotate()
		issuer.RemoveKey(signingKeys()["RS256"].ID)
		time.Sleep(15 * time.Minute)
		require.NoError(t, verify(), "the old keys, while they are refreshed")
		assert.ErrorIs(t, verify(), koreauth.ErrUnknownKey)
	})
}

// Only a token that would be accepted may cause a fetch, and an outage is not
// reported as an invalid token.
func TestDoor_VerifySignatureFetches(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	require.NoError(t, v.Ready(t.Context()))
	before := issuer.Requests(koretest.KeysEndpoint)
	unknown := &koretest.Key{ID: "unknown", Algorithm: "RS256", Private: signingKeys()["RS256"].Private}
	for name, recipe := range map[string]koretest.Token{
		"expired":        {Key: unknown, Age: 2 * time.Hour},
		"another issuer": {Key: unknown, Claims: map[string]any{"iss": "https://evil.example"}},
		"an unknown alg": {Key: unknown, Algorithm: "RS512"},
		"malformed":      {Key: unknown, RawPayload: []byte(`{"iss":"` + issuer.URL() + `","exp":9999999999,}`)},
	} {
		_, err := doorVerify(t.Context(), v, mintToken(t, issuer, recipe))
		assert.ErrorIs(t, err, koreauth.ErrInvalidToken, name)
		assert.Equal(t, before, issuer.Requests(koretest.KeysEndpoint), "%s: fetches", name)
	}
	_, err := doorVerify(t.Context(), v, mintToken(t, issuer, koretest.Token{Key: unknown, Drop: []string{"aud"}}))
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.Equal(t, before+1, issuer.Requests(koretest.KeysEndpoint))

	issuer, v = newIssuer(t, "RS256", nil)
	issuer.Behave(koretest.Down)
	_, err = doorVerify(t.Context(), v, issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, koreauth.ErrUnavailable, refusalOf(t, err).Class)
}

func TestDoor_VerifyJWS(t *testing.T) {
	keys := koreauth.StaticKeySet{
		{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}, {ID: "rsa", Public: signingKeys()["RS256"].Public()},
	}
	for _, row := range []struct {
		name, header, payload string
		typ                   string
		want                  error
	}{
		{"a payload of JSON", `{"alg":"EdDSA","kid":"k","typ":"token-introspection+jwt"}`, `{"active":true}`, "token-introspection+jwt", nil},
		{"typ as it is written", `{"alg":"EdDSA","kid":"k","typ":"Logout+JWT"}`, `{}`, "Logout+JWT", nil},
		{"an empty typ", `{"alg":"EdDSA","kid":"k","typ":""}`, `{}`, "", nil},
		{"no typ", `{"alg":"EdDSA","kid":"k"}`, `{}`, "JWT", nil},
		{"a payload that is expired", `{"alg":"EdDSA","kid":"k","typ":"JWT"}`, `{"exp":1}`, "JWT", nil},
		{"a payload that is not JSON", `{"alg":"EdDSA","kid":"k","typ":"x"}`, `not JSON`, "x", nil},
		{"an empty payload", `{"alg":"EdDSA","kid":"k","typ":"x"}`, ``, "x", nil},
		{"no kid, and one key matches", `{"alg":"EdDSA"}`, `{}`, "JWT", nil},

		{"an unknown kid", `{"alg":"EdDSA","kid":"other"}`, `{}`, "", koreauth.ErrUnknownKey},
		{"a kid of a key of another type", `{"alg":"EdDSA","kid":"rsa"}`, `{}`, "", koreauth.ErrUnknownKey},
		{"an algorithm that is not listed", `{"alg":"RS256","kid":"rsa"}`, `{}`, "", koreauth.ErrAlgorithm},
		{"alg none", `{"alg":"none","kid":"k"}`, `{}`, "", koreauth.ErrAlgorithm},
		{"alg in another case", `{"alg":"eddsa","kid":"k"}`, `{}`, "", koreauth.ErrAlgorithm},
		{"no alg", `{"kid":"k"}`, `{}`, "", koreauth.ErrAlgorithm},
		{"alg is not a string", `{"alg":["EdDSA"],"kid":"k"}`, `{}`, "", koreauth.ErrMalformed},
		{"typ is not a string", `{"alg":"EdDSA","kid":"k","typ":7}`, `{}`, "", koreauth.ErrMalformed},
		{"kid is null", `{"alg":"EdDSA","kid":null}`, `{}`, "", koreauth.ErrMalformed},
		{"crit", `{"alg":"EdDSA","kid":"k","crit":["x"]}`, `{}`, "", koreauth.ErrMalformed},
		{"b64", `{"alg":"EdDSA","kid":"k","b64":false}`, `{}`, "", koreauth.ErrMalformed},
		{"a duplicate member", `{"alg":"EdDSA","alg":"EdDSA","kid":"k"}`, `{}`, "", koreauth.ErrMalformed},
		{"a header that is an array", `[]`, `{}`, "", koreauth.ErrMalformed},
		{"an empty header", ``, `{}`, "", koreauth.ErrMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			typ, payload, err := doorJWS(t.Context(), keys, []string{"ES256", "EdDSA"}, signToken(row.header, row.payload))
			if row.want != nil {
				assert.ErrorIs(t, err, row.want)
				assert.Empty(t, typ+payload)
				refusalOf(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, row.typ, typ)
			assert.Equal(t, row.payload, payload)
		})
	}

	valid := signToken(ed25519Header, `{}`)
	t.Run("the signature", func(t *testing.T) {
		last := valid[:len(valid)-8] + "AAAAAAAA"
		for name, text := range map[string]string{"changed": last, "missing": valid[:strings.LastIndex(valid, ".")+1], "of another payload": strings.Replace(valid, ".e30.", ".W10.", 1)} {
			_, _, err := doorJWS(t.Context(), keys, []string{"EdDSA"}, text)
			assert.ErrorIs(t, err, koreauth.ErrSignature, name)
		}
		_, _, err := doorJWS(t.Context(), koreauth.StaticKeySet{{ID: "k", Public: edPublic("other")}}, []string{"EdDSA"}, valid)
		assert.ErrorIs(t, err, koreauth.ErrSignature, "another key has the ID")
	})
	t.Run("the syntax", func(t *testing.T) {
		for name, text := range map[string]string{
			"empty": "", "two segments": "a.b", "four segments": valid + ".a", "padding": valid + "=", "a line break": valid + "\n", "too large": strings.Repeat("a", 16<<10+1),
		} {
			_, _, err := doorJWS(t.Context(), keys, []string{"EdDSA"}, text)
			assert.ErrorIs(t, err, koreauth.ErrMalformed, name)
		}
	})
	t.Run("algorithms that no public key can verify", func(t *testing.T) {
		for _, alg := range []string{"none", "HS256", "", "RSA1_5"} {
			_, _, err := doorJWS(t.Context(), keys, []string{alg}, signToken(`{"alg":"`+alg+`","kid":"k"}`, `{}`))
			assert.ErrorIs(t, err, koreauth.ErrInvalidToken, alg)
		}
		_, _, err := doorJWS(t.Context(), keys, nil, valid)
		assert.ErrorIs(t, err, koreauth.ErrAlgorithm, "an empty list accepts none")
	})
	t.Run("the key set", func(t *testing.T) {
		for want, returned := range map[error]error{koreauth.ErrUnavailable: errors.New("no class"), koreauth.ErrUnknownKey: koreauth.ErrUnknownKey} {
			set := keySetFunc(func(_ context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
				assert.Equal(t, "k", kid)
				assert.True(t, fetch)
				return nil, returned
			})
			_, _, err := doorJWS(t.Context(), set, []string{"EdDSA"}, valid)
			assert.ErrorIs(t, err, want)
			refusalOf(t, err)
		}
		_, _, err := doorJWS(t.Context(), koreauth.StaticKeySet{}, []string{"EdDSA"}, valid)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		// Without "kid", up to four keys that fit "alg" are tried.
		for n := range 6 {
			set := koreauth.StaticKeySet{{ID: "rsa", Public: signingKeys()["RS256"].Public()}}
			for i := range n {
				set = append(set, koreauth.Key{ID: fmt.Sprint("other-", i), Public: edPublic(fmt.Sprint("other-", i))})
			}
			signed := signToken(`{"alg":"EdDSA"}`, `{}`)
			_, _, err := doorJWS(t.Context(), set, []string{"EdDSA"}, signed)
			switch {
			case n == 0 || n > 4:
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "%d keys, none of which signed", n)
			default:
				assert.ErrorIs(t, err, koreauth.ErrSignature, "%d keys, none of which signed", n)
			}
			set = append(set, koreauth.Key{ID: "k", Public: edPublic("k")}, koreauth.Key{ID: "again", Public: edPublic("k")})
			_, _, err = doorJWS(t.Context(), set, []string{"EdDSA"}, signed)
			if n <= 3 {
				assert.NoError(t, err, "the last of %d keys, which is published twice, signed", n+1)
			} else {
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "%d keys", n+1)
			}
		}
	})
}

// A JWS has at most 16 KiB.
func TestDoor_VerifyJWSLimit(t *testing.T) {
	keys := koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}}
	sizes := map[int]error{}
	for fill := 12_000; fill < 12_300; fill++ {
		text := signToken(ed25519Header, `{"x":"`+strings.Repeat("x", fill)+`"}`)
		_, _, err := doorJWS(t.Context(), keys, []string{"EdDSA"}, text)
		sizes[len(text)] = err
	}
	within, over := 0, 0
	for size, err := range sizes {
		if size <= 16<<10 {
			within = max(within, size)
			assert.NoError(t, err, size)
		} else {
			over++
			assert.ErrorIs(t, err, koreauth.ErrMalformed, size)
		}
	}
	assert.Equal(t, 16<<10, within)
	assert.Positive(t, over)
}
