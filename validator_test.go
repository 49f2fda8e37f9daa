package koreauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// signingKeys are one key for each algorithm, made once for all tests.
var signingKeys = sync.OnceValue(func() map[string]*koretest.Key {
	keys := make(map[string]*koretest.Key)
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		key, err := koretest.NewKey(alg)
		if err != nil {
			panic(err)
		}
		keys[alg] = key
	}
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512"} {
		keys[alg] = &koretest.Key{ID: "kid-" + alg, Algorithm: alg, Private: keys["RS256"].Private}
	}
	return keys
})

const judgedIssuer = "https://issuer.example"

// judge makes an issuer without a network and the validator for it. The key of
// alg signs.
func judge(t *testing.T, alg string, edit func(*koreauth.Config)) (*koretest.Issuer, *koreauth.Validator) {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: judgedIssuer, Keys: []*koretest.Key{signingKeys()[alg]}})
	require.NoError(t, err)
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient()}
	if edit != nil {
		edit(&config)
	}
	v, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	return issuer, v
}

func mintToken(t *testing.T, issuer *koretest.Issuer, recipe koretest.Token) string {
	t.Helper()
	token, err := issuer.Mint(recipe)
	require.NoError(t, err)
	return token
}

func TestEveryAlgorithmIsAcceptedWhenAskedForAndOnlyRS256WhenNot(t *testing.T) {
	for alg := range maps.Keys(signingKeys()) {
		t.Run(alg, func(t *testing.T) {
			issuer, v := judge(t, alg, func(c *koreauth.Config) { c.Algorithms = []string{alg} })
			claims, err := v.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err)
			assert.Equal(t, issuer.URL(), claims.Issuer)

			_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{BadSignature: true}))
			require.ErrorIs(t, err, koreauth.ErrSignature)

			_, err = v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Sign: func([]byte) ([]byte, error) { return nil, nil }}))
			require.ErrorIs(t, err, koreauth.ErrSignature, "an empty signature")

			issuer, v = judge(t, alg, nil)
			_, err = v.Validate(t.Context(), issuer.Valid())
			if alg == "RS256" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, koreauth.ErrAlgorithm)
			}
		})
	}
}

func TestAKeyServesOnlyItsOwnAlgorithm(t *testing.T) {
	all := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	for _, keyAlg := range all {
		issuer, v := judge(t, keyAlg, func(c *koreauth.Config) { c.Algorithms = all })
		for _, headerAlg := range all {
			if headerAlg == keyAlg {
				continue
			}
			token := mintToken(t, issuer, koretest.Token{Header: map[string]any{"alg": headerAlg}})
			_, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey, "key of %s, header %s", keyAlg, headerAlg)
		}
	}
}

func TestAKeyWithoutAlgorithmServesEveryOneOfItsType(t *testing.T) {
	key := signingKeys()["RS256"]
	keys := koreauth.StaticKeySet{{ID: key.ID, Public: key.Public()}}
	issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
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

func TestSignaturesAreVerifiedToTheLetter(t *testing.T) {
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
		{"a PSS salt as long as the hash is what RFC 7518 §3.5 says", "PS256", pss(32), nil},
		{"a PSS salt of another length is not", "PS256", pss(20), koreauth.ErrSignature},
		{"no PSS salt is not", "PS256", pss(0), koreauth.ErrSignature},
		{"R and S of 32 bytes each are what RFC 7518 §3.4 says", "ES256", ec(raw(32)), nil},
		{"longer R and S of the same value are not", "ES256", ec(raw(33)), koreauth.ErrSignature},
		{"DER is not", "ES256", ec(func(r, s *big.Int) []byte {
			der, _ := asn1.Marshal(struct{ R, S *big.Int }{r, s})
			return der
		}), koreauth.ErrSignature},
		{"zeros are no signature (CVE-2022-21449)", "ES256", ec(func(_, _ *big.Int) []byte { return make([]byte, 64) }), koreauth.ErrSignature},
		{"the order of the curve is no R", "ES256", ec(func(_, s *big.Int) []byte {
			return append(elliptic.P256().Params().N.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}), koreauth.ErrSignature},
	} {
		t.Run(row.name, func(t *testing.T) {
			issuer, v := judge(t, row.alg, func(c *koreauth.Config) { c.Algorithms = []string{row.alg} })
			_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Sign: row.sign}))
			assert.ErrorIs(t, err, row.want)
		})
	}
}

// TestJudgement has a row for each check, in the order in which they are made.
func TestJudgement(t *testing.T) {
	type token = koretest.Token
	claims := func(pairs ...any) token {
		set := make(map[string]any)
		for i := 0; i < len(pairs); i += 2 {
			set[pairs[i].(string)] = pairs[i+1]
		}
		return token{Claims: set}
	}
	header := func(name string, value any) token { return token{Header: map[string]any{name: value}} }
	now := int64(946684800) // when a bubble begins
	for _, row := range []struct {
		name   string
		token  token
		config func(*koreauth.Config)
		want   error
	}{
		{"as KORE makes it", token{}, nil, nil},

		{"typ at+jwt is RFC 9068's", header("typ", "at+jwt"), nil, nil},
		{"typ has no case", header("typ", "AT+JWT"), nil, nil},
		{"typ may be a whole media type", header("typ", "application/at+jwt"), nil, nil},
		{"typ may be absent", token{DropHeader: []string{"typ"}}, nil, nil},
		{"typ of another kind of token", header("typ", "dpop+jwt"), nil, koreauth.ErrTokenType},
		{"typ of a logout token", header("typ", "logout+jwt"), nil, koreauth.ErrTokenType},
		{"typ empty", header("typ", ""), nil, koreauth.ErrTokenType},
		{"typ no string", header("typ", nil), nil, koreauth.ErrMalformed},
		{"alg none", token{Algorithm: "none"}, nil, koreauth.ErrAlgorithm},
		{"alg nOnE", header("alg", "nOnE"), nil, koreauth.ErrAlgorithm},
		{"alg absent", token{DropHeader: []string{"alg"}}, nil, koreauth.ErrAlgorithm},
		{"alg no string", header("alg", []string{"RS256"}), nil, koreauth.ErrMalformed},
		{"kid no string", header("kid", 1), nil, koreauth.ErrMalformed},
		{"crit with nothing in it", header("crit", []string{}), nil, koreauth.ErrMalformed},
		{"crit null", header("crit", nil), nil, koreauth.ErrMalformed},
		{"b64 true", header("b64", true), nil, koreauth.ErrMalformed},
		{"jwk in the header is not followed", header("jwk", map[string]any{"kty": "oct"}), nil, nil},
		{"jku in the header is not followed", header("jku", "https://evil.example/keys"), nil, nil},
		{"an unknown kid", header("kid", "other"), nil, koreauth.ErrUnknownKey},
		{"no kid, and one key fits", token{DropHeader: []string{"kid"}}, nil, nil},
		{"an empty kid is none", header("kid", ""), nil, nil},

		{"another issuer", claims("iss", "https://evil.example"), nil, koreauth.ErrIssuer},
		{"the issuer with a slash", claims("iss", judgedIssuer+"/realms/KORE-CIDP/"), nil, koreauth.ErrIssuer},
		{"no issuer", token{Drop: []string{"iss"}}, nil, koreauth.ErrIssuer},
		{"an issuer that is no string", claims("iss", []string{judgedIssuer + "/realms/KORE-CIDP"}), nil, koreauth.ErrIssuer},
		{"another audience", claims("aud", "other"), nil, koreauth.ErrAudience},
		{"one of several audiences", claims("aud", []string{"other", "api-gw"}), nil, nil},
		{"an audience that is our second", claims("aud", "second"), func(c *koreauth.Config) { c.Audience = []string{"api-gw", "second"} }, nil},
		{"no audience", token{Drop: []string{"aud"}}, nil, koreauth.ErrAudience},
		{"an empty list of audiences", claims("aud", []string{}), nil, koreauth.ErrAudience},
		{"an audience that is no string", claims("aud", 7), nil, koreauth.ErrAudience},
		{"an audience list with a number in it", claims("aud", []any{"api-gw", 7}), nil, koreauth.ErrAudience},
		{"an audience in another case", claims("aud", "API-GW"), nil, koreauth.ErrAudience},

		{"exp a second away", claims("exp", now+1), nil, nil},
		{"exp now", claims("exp", now), nil, koreauth.ErrExpired},
		{"exp now, under leeway", claims("exp", now), func(c *koreauth.Config) { c.Leeway = time.Second }, nil},
		{"exp a leeway ago", claims("exp", now-1), func(c *koreauth.Config) { c.Leeway = time.Second }, koreauth.ErrExpired},
		{"exp half a second away", claims("exp", float64(now)+0.5), nil, nil},
		{"exp half a second ago", claims("exp", float64(now)-0.5), nil, koreauth.ErrExpired},
		{"no exp", token{Drop: []string{"exp"}}, nil, koreauth.ErrExpired},
		{"exp null", claims("exp", nil), nil, koreauth.ErrExpired},
		{"exp a string", claims("exp", "9999999999"), nil, koreauth.ErrExpired},
		{"exp beyond every calendar", claims("exp", 1e300), nil, nil},
		{"exp beyond int64", claims("exp", 1e19), nil, nil},
		{"exp far below zero", claims("exp", -1e300), nil, koreauth.ErrExpired},
		{"exp zero", claims("exp", 0), nil, koreauth.ErrExpired},

		{"nbf now", claims("nbf", now), nil, nil},
		{"nbf a second away", claims("nbf", now+1), nil, koreauth.ErrNotYetValid},
		{"nbf a second away, under leeway", claims("nbf", now+1), func(c *koreauth.Config) { c.Leeway = time.Second }, nil},
		{"nbf beyond every calendar", claims("nbf", 1e300), nil, koreauth.ErrNotYetValid},
		{"nbf a string", claims("nbf", "0"), nil, koreauth.ErrNotYetValid},

		{"iat in the future is not judged without MaxAge", claims("iat", now+1000), nil, nil},
		{"iat of any type is not judged without MaxAge", claims("iat", "yesterday"), nil, nil},
		{"iat in the future", claims("iat", now+1), maxAge, koreauth.ErrTooOld},
		{"iat in the future, under leeway", claims("iat", now+1), func(c *koreauth.Config) { maxAge(c); c.Leeway = time.Second }, nil},
		{"iat just under MaxAge ago", claims("iat", now-59), maxAge, nil},
		{"iat MaxAge ago", claims("iat", now-60), maxAge, koreauth.ErrTooOld},
		{"iat MaxAge ago, under leeway", claims("iat", now-60), func(c *koreauth.Config) { maxAge(c); c.Leeway = time.Second }, nil},
		{"no iat", token{Drop: []string{"iat"}}, maxAge, koreauth.ErrTooOld},
		{"iat a string", claims("iat", "946684800"), maxAge, koreauth.ErrTooOld},

		{"an ID token", claims("typ", "ID"), nil, koreauth.ErrTokenType},
		{"a refresh token", claims("typ", "Refresh"), nil, koreauth.ErrTokenType},
		{"an offline token", claims("typ", "Offline"), nil, koreauth.ErrTokenType},
		{"typ in another case", claims("typ", "bearer"), nil, koreauth.ErrTokenType},
		{"typ null", claims("typ", nil), nil, koreauth.ErrTokenType},
		{"no typ in the payload", token{Drop: []string{"typ"}}, nil, nil},

		{"a client that is listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x", "kc_demo"} }, nil},
		{"a client that is not listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x"} }, koreauth.ErrClient},
		{"azp stands for an absent client_id", token{Drop: []string{"client_id"}}, func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, nil},
		{"azp does not stand for an odd client_id", claims("client_id", 7), func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, koreauth.ErrClient},
		{"a token bound to its sender", claims("cnf", map[string]any{"x5t#S256": "x"}), nil, koreauth.ErrBinding},
		{"cnf null", claims("cnf", nil), nil, koreauth.ErrBinding},

		{"Exp is not exp", token{Drop: []string{"exp"}, Claims: map[string]any{"Exp": now + 9}}, nil, koreauth.ErrExpired},
		{"EXP beside exp counts for nothing", claims("EXP", 0), nil, nil},
		{"forged and expired is forged", token{Age: 2 * time.Hour, BadSignature: true}, nil, koreauth.ErrSignature},
		{"forged, of another issuer, is forged", token{Claims: map[string]any{"iss": "x"}, BadSignature: true}, nil, koreauth.ErrSignature},
		{"an odd scope spoils nothing", claims("scope", 7, "scopes", "x", "scp", nil), nil, nil},
		{"a payload that is an array", token{RawPayload: []byte(`[]`)}, nil, koreauth.ErrMalformed},
		{"a payload that is nothing", token{RawPayload: []byte{}}, nil, koreauth.ErrMalformed},
		{"a payload that is forged and no JSON is forged", token{RawPayload: []byte(`x`), BadSignature: true}, nil, koreauth.ErrSignature},
		{"a header that is an array", token{RawHeader: []byte(`[]`)}, nil, koreauth.ErrMalformed},
		{"alg is looked at before typ", token{Header: map[string]any{"alg": "none", "typ": "x"}}, nil, koreauth.ErrAlgorithm},
		{"typ is looked at before the key", token{Header: map[string]any{"kid": "x", "typ": "x"}}, nil, koreauth.ErrTokenType},
		{"iss is looked at before aud", claims("iss", "x", "aud", "x"), nil, koreauth.ErrIssuer},
		{"aud is looked at before exp", claims("aud", "x", "exp", 0), nil, koreauth.ErrAudience},
		{"exp is looked at before nbf", claims("exp", 0, "nbf", now+1), nil, koreauth.ErrExpired},
		{"typ is looked at before cnf", claims("typ", "ID", "cnf", 1), nil, koreauth.ErrTokenType},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer, v := judge(t, "RS256", row.config)
				require.NoError(t, v.Ready(t.Context()))
				claims, err := v.Validate(t.Context(), mintToken(t, issuer, row.token))
				if row.want == nil {
					require.NoError(t, err)
					assert.NotNil(t, claims)
					return
				}
				assert.Nil(t, claims)
				require.ErrorIs(t, err, row.want)
				require.ErrorIs(t, err, koreauth.ErrInvalidToken)
				var refusal *koreauth.Error
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, koreauth.ErrInvalidToken, refusal.Class)
			})
		})
	}
}

func maxAge(c *koreauth.Config) { c.MaxAge = time.Minute }

func TestATokenOfTheWrongShapeIsMalformed(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	valid := issuer.Valid()
	header, rest, _ := strings.Cut(valid, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for name, token := range map[string]string{
		"nothing":                           "",
		"two dots":                          "..",
		"two segments":                      header + "." + payload,
		"four segments":                     valid + ".",
		"five segments, as a JWE has":       valid + "..",
		"padding":                           valid + "=",
		"a line break in the signature":     valid[:len(valid)-4] + "\n" + valid[len(valid)-4:],
		"a line break in the payload":       header + "." + payload[:4] + "\r\n" + payload[4:] + "." + signature,
		"a line break at the end":           valid + "\n",
		"standard base64":                   header + "." + payload + "." + strings.Repeat("+/", len(signature)/2),
		"a space":                           " " + valid,
		"JSON serialisation":                `{"payload":"` + payload + `","protected":"` + header + `","signature":"` + signature + `"}`,
		"trailing bits that are not zero":   valid[:len(valid)-1] + string(valid[len(valid)-1]+1),
		"one character too many":            valid + "AAA",
		"a header of no bytes":              "." + payload + "." + signature,
		"larger than 16 KiB":                valid + strings.Repeat("A", 16<<10),
		"8 KB of dots":                      strings.Repeat(".", 8<<10),
		"a payload of the wrong characters": header + ".pay$load." + signature,
	} {
		claims, err := v.Validate(t.Context(), token)
		assert.Nil(t, claims, name)
		assert.ErrorIs(t, err, koreauth.ErrMalformed, name)
	}
	_, err := v.Validate(t.Context(), valid)
	require.NoError(t, err, "the token itself")
}

func TestTheLargestTokenIs16KiB(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	fill := func(n int) string {
		return mintToken(t, issuer, koretest.Token{Claims: map[string]any{"fill": strings.Repeat("x", n)}})
	}
	n := 10 << 10
	for len(fill(n)) < 16<<10 {
		n++
	}
	token := fill(n)
	for len(token) > 16<<10 {
		n--
		token = fill(n)
	}
	_, err := v.Validate(t.Context(), token)
	require.NoError(t, err, "%d bytes", len(token))
	_, err = v.Validate(t.Context(), fill(n+3))
	require.ErrorIs(t, err, koreauth.ErrMalformed)
}

func TestAnyOneByteChangeOfATokenIsRefused(t *testing.T) {
	issuer, v := judge(t, "ES256", func(c *koreauth.Config) { c.Algorithms = []string{"ES256"} })
	token := issuer.Valid()
	for i := range token {
		for _, b := range []byte{token[i] ^ 1, token[i] ^ 0x20, 'A', '.', '\n'} {
			if b == token[i] {
				continue
			}
			changed := token[:i] + string(rune(b)) + token[i+1:]
			claims, err := v.Validate(t.Context(), changed)
			require.Nil(t, claims, "byte %d as %q", i, b)
			require.Error(t, err, "byte %d as %q", i, b)
		}
	}
}

func TestWithoutKidOneFittingKeyIsUsedAndTwoAreNot(t *testing.T) {
	first, second := signingKeys()["RS256"], &koretest.Key{ID: "second", Algorithm: "RS256", Private: signingKeys()["PS256"].Private}
	for _, row := range []struct {
		name string
		keys koreauth.StaticKeySet
		want error
	}{
		{"one key", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}}, nil},
		{"one key that fits, one of another type", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}, {ID: "b", Public: signingKeys()["ES256"].Public()}}, nil},
		{"one key that fits, one of another algorithm", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}, {ID: "b", Algorithm: "PS256", Public: second.Public()}}, nil},
		{"two keys that fit", koreauth.StaticKeySet{{ID: "a", Public: first.Public()}, {ID: "b", Public: second.Public()}}, koreauth.ErrUnknownKey},
		{"no key that fits", koreauth.StaticKeySet{{ID: "b", Public: signingKeys()["ES256"].Public()}}, koreauth.ErrUnknownKey},
		{"another key that fits", koreauth.StaticKeySet{{ID: "b", Public: second.Public()}}, koreauth.ErrSignature},
	} {
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) { c.Keys, c.HTTPClient = row.keys, nil })
		_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{DropHeader: []string{"kid"}}))
		assert.ErrorIs(t, err, row.want, row.name)
	}
}

func TestSeveralKeysUnderOneKid(t *testing.T) {
	key, other := signingKeys()["RS256"], signingKeys()["PS256"]
	issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
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

func TestWeakKeysFitNothing(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	strong := signingKeys()["RS256"].Private.(*rsa.PrivateKey)
	for name, public := range map[string]any{
		"1024 bits":              &weak.PublicKey,
		"exponent 1":             &rsa.PublicKey{N: strong.N, E: 1},
		"an even exponent":       &rsa.PublicKey{N: strong.N, E: 4},
		"an RSA key by value":    strong.PublicKey,
		"a private key":          strong,
		"nothing":                (*rsa.PublicKey)(nil),
		"an empty EC key":        &ecdsa.PublicKey{},
		"a short Ed25519 key":    []byte{1},
		"a secret, as HMAC uses": []byte("secret"),
	} {
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient, c.Keys = nil, koreauth.StaticKeySet{{ID: signingKeys()["RS256"].ID, Public: public}}
			c.Algorithms = []string{"RS256", "ES256", "EdDSA"}
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey, name)
	}
}

func TestADoneContextIsUnavailable(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	cause := errors.New("the caller has hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := v.Validate(ctx, issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, err, cause)
	require.NotErrorIs(t, err, koreauth.ErrInvalidToken)
}

// keysFunc is a user's own KeySet.
type keysFunc func(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error)

func (f keysFunc) Keys(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
	return f(ctx, kid, fetch)
}

func TestClaimsDecideOnlyWhetherAFetchIsWorthIt(t *testing.T) {
	for _, row := range []struct {
		name  string
		token koretest.Token
		fetch bool
	}{
		{"a token that would be good", koretest.Token{}, true},
		{"a token of another type", koretest.Token{Claims: map[string]any{"typ": "ID"}}, true},
		{"expired", koretest.Token{Age: 2 * time.Hour}, false},
		{"of another issuer", koretest.Token{Claims: map[string]any{"iss": "x"}}, false},
		{"for another audience", koretest.Token{Claims: map[string]any{"aud": "x"}}, false},
		{"without exp", koretest.Token{Drop: []string{"exp"}}, false},
		{"no JSON", koretest.Token{RawPayload: []byte("x")}, false},
	} {
		asked := []bool{}
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keysFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
				asked = append(asked, fetch)
				return nil, nil
			})
		})
		_, err := v.Validate(t.Context(), mintToken(t, issuer, row.token))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, row.name)
		assert.Equal(t, []bool{row.fetch}, asked, row.name)
	}
}

func TestWhatAUsersKeySetAnswers(t *testing.T) {
	key := signingKeys()["RS256"]
	good := koreauth.Key{ID: key.ID, Public: key.Public()}
	trouble := errors.New("trouble")
	for _, row := range []struct {
		name string
		keys []koreauth.Key
		err  error
		want error
	}{
		{"the key", []koreauth.Key{good}, nil, nil},
		{"more keys than were asked for", []koreauth.Key{{ID: "x", Public: key.Public()}, good}, nil, nil},
		{"only keys that were not asked for", []koreauth.Key{{ID: "x", Public: key.Public()}}, nil, koreauth.ErrUnknownKey},
		{"none", nil, nil, koreauth.ErrUnknownKey},
		{"that it knows of none", nil, koreauth.ErrUnknownKey, koreauth.ErrUnknownKey},
		{"trouble", nil, trouble, koreauth.ErrUnavailable},
		{"trouble, wrapped", nil, trouble, trouble},
		{"a done context", nil, context.Canceled, koreauth.ErrUnavailable},
	} {
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keysFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return row.keys, row.err })
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		assert.ErrorIs(t, err, row.want, row.name)
	}
}

func TestARefusalNamesWhatTheTokenSays(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	_, err := v.Validate(t.Context(), issuer.Expired())
	var refusal *koreauth.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, issuer.URL(), refusal.Issuer)
	assert.Equal(t, "kc_demo", refusal.ClientID)
	assert.Equal(t, issuer.KeyIDs()[0], refusal.KeyID)
	assert.NotContains(t, err.Error(), "kc_demo", "the text says nothing of what the token says")
}

func TestNewValidatorReportsEveryFaultAtOnce(t *testing.T) {
	_, err := koreauth.NewValidator(koreauth.Config{
		Audience:   []string{"", "x"},
		JWKSURL:    "http://keys.example.com/keys",
		Algorithms: []string{"none", "HS256", "RS257"},
		ClientIDs:  []string{""},
		Leeway:     -1,
		MaxAge:     -1,
	})
	require.Error(t, err)
	for _, want := range []string{
		"Issuer is empty", "Audience has an empty name", "is http", `"none"`, `"HS256"`, `"RS257"`,
		"ClientIDs has an empty name", "Leeway is negative", "MaxAge is negative",
	} {
		assert.ErrorContains(t, err, want)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		assert.True(t, strings.HasPrefix(line, "koreauth: "), line)
	}
}

func TestFaultsOfAConfig(t *testing.T) {
	good := koreauth.Config{Issuer: "https://issuer.example", Audience: []string{"api-gw"}}
	static := koreauth.StaticKeySet{{ID: "k", Public: signingKeys()["RS256"].Public()}}
	for _, row := range []struct {
		name string
		edit func(*koreauth.Config)
		want string // part of the fault; empty: there is none
	}{
		{"the least there can be", func(*koreauth.Config) {}, ""},
		{"no issuer", func(c *koreauth.Config) { c.Issuer = "" }, "Config.Issuer is empty"},
		{"no audience", func(c *koreauth.Config) { c.Audience = nil }, "Config.Audience is empty"},
		{"an issuer that is no URL, to be discovered", func(c *koreauth.Config) { c.Issuer = "kore" }, "is not an absolute https URL"},
		{"an issuer that is no URL, with a key URL", func(c *koreauth.Config) { c.Issuer, c.JWKSURL = "kore", "https://keys.example/" }, ""},
		{"an issuer that is no URL, with keys", func(c *koreauth.Config) { c.Issuer, c.Keys = "kore", static }, ""},
		{"an issuer with a query", func(c *koreauth.Config) { c.Issuer += "/?a=b" }, "query or a fragment"},
		{"an issuer over http", func(c *koreauth.Config) { c.Issuer = "http://issuer.example" }, "is http"},
		{"an issuer over http, dangerously", func(c *koreauth.Config) { c.Issuer, c.DangerouslyAllowHTTP = "http://issuer.example", true }, ""},
		{"an issuer over http on 127.1.2.3", func(c *koreauth.Config) { c.Issuer = "http://127.1.2.3:80/realms/x" }, ""},
		{"an issuer over http on ::1", func(c *koreauth.Config) { c.Issuer = "http://[::1]:8080" }, ""},
		{"an issuer over http on localhost", func(c *koreauth.Config) { c.Issuer = "http://LOCALHOST:8080" }, ""},
		{"an issuer over http on a host that begins so", func(c *koreauth.Config) { c.Issuer = "http://localhost.example.com" }, "is http"},
		{"a key URL of another scheme", func(c *koreauth.Config) { c.JWKSURL = "file:///keys" }, "is not an absolute https URL"},
		{"a key URL that is a path", func(c *koreauth.Config) { c.JWKSURL = "/keys" }, "is not an absolute https URL"},
		{"keys and a key URL", func(c *koreauth.Config) { c.Keys, c.JWKSURL = static, "https://keys.example" }, "Keys and JWKSURL"},
		{"keys and a client", func(c *koreauth.Config) { c.Keys, c.HTTPClient = static, http.DefaultClient }, "Keys and HTTPClient"},
		{"no keys at all", func(c *koreauth.Config) { c.Keys = koreauth.StaticKeySet{} }, "empty StaticKeySet"},
		{"a key of nothing", func(c *koreauth.Config) { c.Keys = koreauth.StaticKeySet{{}} }, "has no Public"},
		{"a nil key set", func(c *koreauth.Config) { c.Keys = (*koreauth.RemoteKeySet)(nil) }, "nil *RemoteKeySet"},
		{"a key set of no place", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{} }, "neither URL nor Issuer"},
		{"a key set of a negative interval", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, MinInterval: -1} }, "MinInterval is negative"},
		{"an HMAC algorithm", func(c *koreauth.Config) { c.Algorithms = []string{"RS256", "HS256"} }, `"HS256"`},
		{"an algorithm in another case", func(c *koreauth.Config) { c.Algorithms = []string{"rs256"} }, `"rs256"`},
	} {
		config := good
		row.edit(&config)
		v, err := koreauth.NewValidator(config)
		if row.want == "" {
			assert.NoError(t, err, row.name)
			assert.NotNil(t, v, row.name)
			continue
		}
		assert.Nil(t, v, row.name)
		if assert.ErrorContains(t, err, row.want, row.name) {
			assert.NotContains(t, err.Error(), "\n", row.name)
		}
	}
}

func TestAZeroValidatorAcceptsNothing(t *testing.T) {
	issuer, _ := judge(t, "RS256", nil)
	var v koreauth.Validator
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
}

func TestValidateGivesClaimsOfTheCallersOwn(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	token := issuer.Valid()
	first, err := v.Validate(t.Context(), token)
	require.NoError(t, err)
	first.Audience[0], first.Resources[0].Access[0], first.Subject = "x", "x", "x"
	second, err := v.Validate(t.Context(), token)
	require.NoError(t, err)
	assert.Equal(t, []string{koretest.Audience}, second.Audience)
	assert.Equal(t, koreauth.Read, second.Resources[0].Access[0])
	assert.NotEqual(t, "x", second.Subject)
}

// Numbers with leading zeros, or with their highest bit set, are encoded in ways
// of their own: there are some among this many.
func TestEverySignatureOfAKeyIsAccepted(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		issuer, v := judge(t, alg, func(c *koreauth.Config) { c.Algorithms = []string{alg} })
		for range 300 {
			_, err := v.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err, alg)
		}
	}
}

func TestAConfigIsCopied(t *testing.T) {
	audience, clients := []string{koretest.Audience}, []string{"other"}
	issuer, v := judge(t, "RS256", func(c *koreauth.Config) { c.Audience = audience })
	audience[0] = "other"
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.NoError(t, err, "the audience is what it was")

	issuer, v = judge(t, "RS256", func(c *koreauth.Config) { c.ClientIDs = clients })
	clients[0] = issuer.Client().ID
	_, err = v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrClient, "the clients are what they were")
}

func TestAPayloadThatIsNoJSONMakesNoFetch(t *testing.T) {
	var fetches []bool
	v := edValidator(t, keysFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
		fetches = append(fetches, fetch)
		return nil, nil
	}))
	good := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999`
	for _, payload := range []string{good + `}`, good + `,`, good + `,"exp":99999999999}`, good + `}x`} {
		_, err := v.Validate(t.Context(), fuzzSigned(fuzzHeader, payload))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey)
	}
	assert.Equal(t, []bool{true, false, false, false}, fetches)
}

func TestAKeyThatNobodyAskedForIsNotUsed(t *testing.T) {
	key := signingKeys()["RS256"]
	for _, id := range []string{"", strings.ToLower(key.ID), key.ID + "x", key.ID[:8]} {
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keysFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
				return []koreauth.Key{{ID: id, Public: key.Public()}}, nil
			})
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "%q for %q", id, key.ID)
	}
}
