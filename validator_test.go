package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"slices"
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

// TestValidator_Checks has rows for each check, in the order of the checks.
func TestValidator_Checks(t *testing.T) {
	type token = koretest.Token
	claims := func(pairs ...any) token {
		set := make(map[string]any)
		for i := 0; i < len(pairs); i += 2 {
			set[pairs[i].(string)] = pairs[i+1]
		}
		return token{Claims: set}
	}
	header := func(name string, value any) token { return token{Header: map[string]any{name: value}} }
	now := int64(946684800) // the time at which a synctest bubble starts
	for _, row := range []struct {
		name   string
		token  token
		config func(*koreauth.Config)
		want   error
	}{
		{"as KORE issues it", token{}, nil, nil},

		{"typ at+jwt (RFC 9068)", header("typ", "at+jwt"), nil, nil},
		{"typ is case-insensitive", header("typ", "AT+JWT"), nil, nil},
		{"typ may be a full media type", header("typ", "application/at+jwt"), nil, nil},
		{"typ may be absent", token{DropHeader: []string{"typ"}}, nil, nil},
		{"typ application/jwt", header("typ", "application/jwt"), nil, nil},
		{"typ application/jwt in another case", header("typ", "Application/JWT"), nil, nil},
		{"typ jwt in lower case", header("typ", "jwt"), nil, nil},
		{"typ of a longer media type", header("typ", "application/jwt+at"), nil, koreauth.ErrTokenType},
		{"typ with a parameter", header("typ", "application/jwt; a=b"), nil, koreauth.ErrTokenType},
		{"typ of another kind of token", header("typ", "dpop+jwt"), nil, koreauth.ErrTokenType},
		{"typ of a logout token", header("typ", "logout+jwt"), nil, koreauth.ErrTokenType},
		{"an empty typ", header("typ", ""), nil, koreauth.ErrTokenType},
		{"typ is not a string", header("typ", nil), nil, koreauth.ErrMalformed},
		{"alg none", token{Algorithm: "none"}, nil, koreauth.ErrAlgorithm},
		{"alg nOnE", header("alg", "nOnE"), nil, koreauth.ErrAlgorithm},
		{"no alg", token{DropHeader: []string{"alg"}}, nil, koreauth.ErrAlgorithm},
		{"alg is not a string", header("alg", []string{"RS256"}), nil, koreauth.ErrMalformed},
		{"kid is not a string", header("kid", 1), nil, koreauth.ErrMalformed},
		{"an empty crit", header("crit", []string{}), nil, koreauth.ErrMalformed},
		{"crit null", header("crit", nil), nil, koreauth.ErrMalformed},
		{"b64 true", header("b64", true), nil, koreauth.ErrMalformed},
		{"jwk in the header is ignored", header("jwk", map[string]any{"kty": "oct"}), nil, nil},
		{"jku in the header is ignored", header("jku", "https://evil.example/keys"), nil, nil},
		{"an unknown kid", header("kid", "other"), nil, koreauth.ErrUnknownKey},
		{"no kid, and one key matches", token{DropHeader: []string{"kid"}}, nil, nil},
		{"an empty kid is treated as absent", header("kid", ""), nil, nil},

		{"another issuer", claims("iss", "https://evil.example"), nil, koreauth.ErrIssuer},
		{"the issuer with a trailing slash", claims("iss", issuerURL+"/realms/KORE-CIDP/"), nil, koreauth.ErrIssuer},
		{"no issuer", token{Drop: []string{"iss"}}, nil, koreauth.ErrIssuer},
		{"an issuer that is not a string", claims("iss", []string{issuerURL + "/realms/KORE-CIDP"}), nil, koreauth.ErrIssuer},
		{"another audience", claims("aud", "other"), nil, koreauth.ErrAudience},
		{"one of several audiences", claims("aud", []string{"other", "api-gw"}), nil, nil},
		{"the second of the accepted audiences", claims("aud", "second"), func(c *koreauth.Config) { c.Audience = []string{"api-gw", "second"} }, nil},
		{"no audience", token{Drop: []string{"aud"}}, nil, koreauth.ErrAudience},
		{"an empty list of audiences", claims("aud", []string{}), nil, koreauth.ErrAudience},
		{"an audience that is not a string", claims("aud", 7), nil, koreauth.ErrAudience},
		{"an audience list with a number", claims("aud", []any{"api-gw", 7}), nil, koreauth.ErrAudience},
		{"an audience in another case", claims("aud", "API-GW"), nil, koreauth.ErrAudience},

		{"exp in one second", claims("exp", now+1), nil, nil},
		{"exp now", claims("exp", now), nil, koreauth.ErrExpired},
		{"exp now, with leeway", claims("exp", now), func(c *koreauth.Config) { c.Leeway = time.Second }, nil},
		{"exp one leeway ago", claims("exp", now-1), func(c *koreauth.Config) { c.Leeway = time.Second }, koreauth.ErrExpired},
		{"exp in half a second", claims("exp", float64(now)+0.5), nil, nil},
		{"exp half a second ago", claims("exp", float64(now)-0.5), nil, koreauth.ErrExpired},
		{"no exp", token{Drop: []string{"exp"}}, nil, koreauth.ErrExpired},
		{"exp null", claims("exp", nil), nil, koreauth.ErrExpired},
		{"exp is a string", claims("exp", "9999999999"), nil, koreauth.ErrExpired},
		{"exp after the year 9999", claims("exp", 1e300), nil, nil},
		{"exp larger than an int64", claims("exp", 1e19), nil, nil},
		{"exp far below zero", claims("exp", -1e300), nil, koreauth.ErrExpired},
		{"exp is zero", claims("exp", 0), nil, koreauth.ErrExpired},

		{"nbf now", claims("nbf", now), nil, nil},
		{"nbf in one second", claims("nbf", now+1), nil, koreauth.ErrNotYetValid},
		{"nbf in one second, with leeway", claims("nbf", now+1), func(c *koreauth.Config) { c.Leeway = time.Second }, nil},
		{"nbf in two seconds, with a leeway of one", claims("nbf", now+2), func(c *koreauth.Config) { c.Leeway = time.Second }, koreauth.ErrNotYetValid},
		{"nbf after the year 9999", claims("nbf", 1e300), nil, koreauth.ErrNotYetValid},
		{"nbf is a string", claims("nbf", "0"), nil, koreauth.ErrNotYetValid},

		{"iat in the future, without MaxAge", claims("iat", now+1000), nil, nil},
		{"iat is a string, without MaxAge", claims("iat", "yesterday"), nil, nil},
		{"iat in the future", claims("iat", now+1), withMaxAge, koreauth.ErrTooOld},
		{"iat in the future, with leeway", claims("iat", now+1), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, nil},
		{"iat in two seconds, with a leeway of one", claims("iat", now+2), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, koreauth.ErrTooOld},
		{"iat less than MaxAge ago", claims("iat", now-59), withMaxAge, nil},
		{"iat MaxAge ago", claims("iat", now-60), withMaxAge, koreauth.ErrTooOld},
		{"iat MaxAge ago, with leeway", claims("iat", now-60), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, nil},
		{"iat MaxAge and one leeway ago", claims("iat", now-61), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, koreauth.ErrTooOld},
		{"no iat", token{Drop: []string{"iat"}}, withMaxAge, koreauth.ErrTooOld},
		{"iat is a string", claims("iat", "946684800"), withMaxAge, koreauth.ErrTooOld},

		{"an ID token", claims("typ", "ID"), nil, koreauth.ErrTokenType},
		{"a refresh token", claims("typ", "Refresh"), nil, koreauth.ErrTokenType},
		{"an offline token", claims("typ", "Offline"), nil, koreauth.ErrTokenType},
		{"typ of the payload in another case", claims("typ", "bearer"), nil, koreauth.ErrTokenType},
		{"typ of the payload is null", claims("typ", nil), nil, koreauth.ErrTokenType},
		{"no typ in the payload", token{Drop: []string{"typ"}}, nil, nil},
		{"typ DPoP without a key", claims("typ", "DPoP"), nil, koreauth.ErrTokenType},
		{"typ DPoP with the hash of a certificate", claims("typ", "DPoP", "cnf", map[string]any{"x5t#S256": "x"}), nil, koreauth.ErrTokenType},
		{"typ DPoP with an empty jkt", claims("typ", "DPoP", "cnf", map[string]any{"jkt": ""}), nil, koreauth.ErrTokenType},
		{"typ DPoP with a jkt that is a number", claims("typ", "DPoP", "cnf", map[string]any{"jkt": 1}), nil, koreauth.ErrTokenType},
		{"typ DPoP with a jkt and an unknown member", claims("typ", "DPoP", "cnf", map[string]any{"jkt": "x", "x": "y"}), nil, koreauth.ErrTokenType},
		{"typ DPoP with cnf null", claims("typ", "DPoP", "cnf", nil), nil, koreauth.ErrTokenType},
		{"typ DPoP in another case, with a jkt", claims("typ", "dpop", "cnf", map[string]any{"jkt": "x"}), nil, koreauth.ErrTokenType},
		{"typ DPoP with a jkt: Validate cannot see the sender", claims("typ", "DPoP", "cnf", map[string]any{"jkt": "x"}), nil, koreauth.ErrBinding},
		{"typ Bearer with a jkt: Validate cannot see the sender", claims("typ", "Bearer", "cnf", map[string]any{"jkt": "x"}), nil, koreauth.ErrBinding},

		{"a client that is listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x", "kc_demo"} }, nil},
		{"a client that is not listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x"} }, koreauth.ErrClient},
		{"azp is used if client_id is absent", token{Drop: []string{"client_id"}}, func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, nil},
		{"azp is not used if client_id is null", claims("client_id", nil), func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, koreauth.ErrClient},
		{"a token bound to its sender", claims("cnf", map[string]any{"x5t#S256": "x"}), nil, koreauth.ErrBinding},
		{"cnf null", claims("cnf", nil), nil, koreauth.ErrBinding},

		{"Exp is not exp", token{Drop: []string{"exp"}, Claims: map[string]any{"Exp": now + 9}}, nil, koreauth.ErrExpired},
		{"EXP beside exp is ignored", claims("EXP", 0), nil, nil},
		{"forged and expired: ErrSignature", token{Age: 2 * time.Hour, BadSignature: true}, nil, koreauth.ErrSignature},
		{"forged and of another issuer: ErrSignature", token{Claims: map[string]any{"iss": "x"}, BadSignature: true}, nil, koreauth.ErrSignature},
		{"scopes of the wrong type do not make the token invalid", claims("scope", 7, "scopes", "x", "scp", nil), nil, nil},
		{"a payload that is an array", token{RawPayload: []byte(`[]`)}, nil, koreauth.ErrMalformed},
		{"an empty payload", token{RawPayload: []byte{}}, nil, koreauth.ErrMalformed},
		{"forged and not JSON: ErrSignature", token{RawPayload: []byte(`x`), BadSignature: true}, nil, koreauth.ErrSignature},
		{"a header that is an array", token{RawHeader: []byte(`[]`)}, nil, koreauth.ErrMalformed},
		{"alg is checked before typ", token{Header: map[string]any{"alg": "none", "typ": "x"}}, nil, koreauth.ErrAlgorithm},
		{"typ is checked before the key", token{Header: map[string]any{"kid": "x", "typ": "x"}}, nil, koreauth.ErrTokenType},
		{"iss is checked before aud", claims("iss", "x", "aud", "x"), nil, koreauth.ErrIssuer},
		{"aud is checked before exp", claims("aud", "x", "exp", 0), nil, koreauth.ErrAudience},
		{"exp is checked before nbf", claims("exp", 0, "nbf", now+1), nil, koreauth.ErrExpired},
		{"typ is checked before cnf", claims("typ", "ID", "cnf", 1), nil, koreauth.ErrTokenType},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer, v := newIssuer(t, "RS256", row.config)
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

// withMaxAge sets a MaxAge of one minute.
func withMaxAge(c *koreauth.Config) { c.MaxAge = time.Minute }

func TestValidator_CanceledContext(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	cause := errors.New("the client disconnected")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	remembered := issuer.Valid()
	remember(t, v, remembered)
	for name, token := range map[string]string{"a new token": issuer.Valid(), "a remembered token": remembered} {
		_, err := v.Validate(ctx, token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
		assert.ErrorIs(t, err, cause, name)
		assert.NotErrorIs(t, err, koreauth.ErrInvalidToken, name)
	}
	assert.True(t, rememberedBy(t, v, remembered), "it stays remembered")
}

func TestValidator_ClaimsDecideFetch(t *testing.T) {
	for _, row := range []struct {
		name  string
		token koretest.Token
		fetch bool
	}{
		{"a token that would be valid", koretest.Token{}, true},
		{"a token of another type", koretest.Token{Claims: map[string]any{"typ": "ID"}}, true},
		{"expired", koretest.Token{Age: 2 * time.Hour}, false},
		{"of another issuer", koretest.Token{Claims: map[string]any{"iss": "x"}}, false},
		{"for another audience", koretest.Token{Claims: map[string]any{"aud": "x"}}, false},
		{"without exp", koretest.Token{Drop: []string{"exp"}}, false},
		{"not JSON", koretest.Token{RawPayload: []byte("x")}, false},
	} {
		fetches := []bool{}
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keySetFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
				fetches = append(fetches, fetch)
				return nil, nil
			})
		})
		_, err := v.Validate(t.Context(), mintToken(t, issuer, row.token))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, row.name)
		assert.Equal(t, []bool{row.fetch}, fetches, row.name)
	}
}

func TestValidator_CustomKeySet(t *testing.T) {
	key := signingKeys()["RS256"]
	valid := koreauth.Key{ID: key.ID, Public: key.Public()}
	failure := errors.New("key set failed")
	for _, row := range []struct {
		name string
		keys []koreauth.Key
		err  error
		want error
	}{
		{"the key", []koreauth.Key{valid}, nil, nil},
		{"keys beside the requested one", []koreauth.Key{{ID: "x", Public: key.Public()}, valid}, nil, nil},
		{"only keys that were not requested", []koreauth.Key{{ID: "x", Public: key.Public()}}, nil, koreauth.ErrUnknownKey},
		{"a key without an ID", []koreauth.Key{{Public: key.Public()}}, nil, nil},
		{"a key without an ID, beside another with one", []koreauth.Key{{ID: "x", Public: key.Public()}, {Public: key.Public()}}, nil, nil},
		{"a key without an ID, beside another key with this ID", []koreauth.Key{{Public: key.Public()}, {ID: key.ID, Public: signingKeys()["PS256"].Public()}}, nil, koreauth.ErrSignature},
		{"no keys", nil, nil, koreauth.ErrUnknownKey},
		{"ErrUnknownKey", nil, koreauth.ErrUnknownKey, koreauth.ErrUnknownKey},
		{"an error", nil, failure, koreauth.ErrUnavailable},
		{"an error, still in the chain", nil, failure, failure},
		{"a canceled context", nil, context.Canceled, koreauth.ErrUnavailable},
	} {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return row.keys, row.err })
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		assert.ErrorIs(t, err, row.want, row.name)
		var refusal *koreauth.Error
		if errors.As(err, &refusal) {
			class := koreauth.ErrInvalidToken
			if row.err != nil && row.err != koreauth.ErrUnknownKey {
				class = koreauth.ErrUnavailable
			}
			assert.Equal(t, class, refusal.Class, row.name)
		}
	}
}

func TestValidator_ErrorFields(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	_, err := v.Validate(t.Context(), issuer.Expired())
	var refusal *koreauth.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, issuer.URL(), refusal.Issuer)
	assert.Equal(t, "kc_demo", refusal.ClientID)
	assert.Equal(t, issuer.KeyIDs()[0], refusal.KeyID)
	assert.NotContains(t, err.Error(), "kc_demo", "the text must not contain values from the token")

	var rejects error
	issuer, v = newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return rejects })}
	})
	token := issuer.Valid()
	remember(t, v, token)
	require.True(t, rememberedBy(t, v, token))
	rejects = koreauth.ErrRevoked
	_, err = v.Validate(t.Context(), token)
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, []string{issuer.URL(), "kc_demo", issuer.KeyIDs()[0]}, []string{refusal.Issuer, refusal.ClientID, refusal.KeyID}, "a remembered token")

	for name, header := range map[string]string{"a header that ends early": `{"kid":"k","alg":"RS256"`, "an alg that is not a string": `{"kid":"k","alg":1}`} {
		_, err := v.Validate(t.Context(), rawURL([]byte(header))+".e30.e30")
		require.ErrorIs(t, err, koreauth.ErrMalformed, name)
		require.ErrorAs(t, err, &refusal, name)
		assert.Equal(t, "k", refusal.KeyID, "%s: what could be read", name)
	}
}

func TestConfig_ReportsAllFaults(t *testing.T) {
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

func TestConfig_Faults(t *testing.T) {
	base := koreauth.Config{Issuer: "https://issuer.example", Audience: []string{"api-gw"}}
	static := koreauth.StaticKeySet{{ID: "k", Public: signingKeys()["RS256"].Public()}}
	for _, row := range []struct {
		name string
		edit func(*koreauth.Config)
		want string // part of the error; empty means no error
	}{
		{"only the required fields", func(*koreauth.Config) {}, ""},
		{"no issuer", func(c *koreauth.Config) { c.Issuer = "" }, "Config.Issuer is empty"},
		{"no audience", func(c *koreauth.Config) { c.Audience = nil }, "Config.Audience is empty"},
		{"an issuer that is not a URL, with discovery", func(c *koreauth.Config) { c.Issuer = "kore" }, "is not an absolute https URL"},
		{"an issuer that is not a URL, with a key URL", func(c *koreauth.Config) { c.Issuer, c.JWKSURL = "kore", "https://keys.example/" }, ""},
		{"an issuer that is not a URL, with keys", func(c *koreauth.Config) { c.Issuer, c.Keys = "kore", static }, ""},
		{"an issuer with a query", func(c *koreauth.Config) { c.Issuer += "/?a=b" }, "query or a fragment"},
		{"an issuer over http", func(c *koreauth.Config) { c.Issuer = "http://issuer.example" }, "is http"},
		{"an issuer over http, allowed", func(c *koreauth.Config) { c.Issuer, c.DangerouslyAllowHTTP = "http://issuer.example", true }, ""},
		{"an issuer over http on 127.1.2.3", func(c *koreauth.Config) { c.Issuer = "http://127.1.2.3:80/realms/x" }, ""},
		{"an issuer over http on ::1", func(c *koreauth.Config) { c.Issuer = "http://[::1]:8080" }, ""},
		{"an issuer over http on localhost", func(c *koreauth.Config) { c.Issuer = "http://LOCALHOST:8080" }, ""},
		{"an issuer over http on a host that begins with localhost", func(c *koreauth.Config) { c.Issuer = "http://localhost.example.com" }, "is http"},
		{"a key URL with another scheme", func(c *koreauth.Config) { c.JWKSURL = "file:///keys" }, "is not an absolute https URL"},
		{"a key URL that is a path", func(c *koreauth.Config) { c.JWKSURL = "/keys" }, "is not an absolute https URL"},
		{"keys and a key URL", func(c *koreauth.Config) { c.Keys, c.JWKSURL = static, "https://keys.example" }, "Keys and JWKSURL"},
		{"keys and an HTTP client", func(c *koreauth.Config) { c.Keys, c.HTTPClient = static, http.DefaultClient }, "Keys and HTTPClient"},
		{"an empty key set", func(c *koreauth.Config) { c.Keys = koreauth.StaticKeySet{} }, "empty StaticKeySet"},
		{"a key without a public key", func(c *koreauth.Config) { c.Keys = koreauth.StaticKeySet{{}} }, "has no Public"},
		{"a nil key set", func(c *koreauth.Config) { c.Keys = (*koreauth.RemoteKeySet)(nil) }, "nil *RemoteKeySet"},
		{"a key set without a location", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{} }, "neither URL nor Issuer"},
		{"a key set with a negative Timeout", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, Timeout: -1} }, "Timeout is negative"},
		{"a key set with a negative MaxAge", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, MaxAge: -1} }, "RemoteKeySet.MaxAge is negative"},
		{"a key set with a negative MaxStale", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, MaxStale: -1} }, "MaxStale is negative"},
		{"a key set with a negative interval", func(c *koreauth.Config) { c.Keys = &koreauth.RemoteKeySet{Issuer: c.Issuer, MinInterval: -1} }, "MinInterval is negative"},
		{"an HMAC algorithm", func(c *koreauth.Config) { c.Algorithms = []string{"RS256", "HS256"} }, `"HS256"`},
		{"an algorithm in another case", func(c *koreauth.Config) { c.Algorithms = []string{"rs256"} }, `"rs256"`},
	} {
		config := base
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

func TestValidator_ZeroValue(t *testing.T) {
	issuer, _ := newIssuer(t, "RS256", nil)
	var v koreauth.Validator
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
}

func TestValidator_ClaimsAreCopied(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
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

func TestConfig_IsCopied(t *testing.T) {
	audience, clients := []string{koretest.Audience}, []string{"other"}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Audience = audience })
	audience[0] = "other"
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.NoError(t, err, "a change of the audience has no effect")

	issuer, v = newIssuer(t, "RS256", func(c *koreauth.Config) { c.ClientIDs = clients })
	clients[0] = issuer.Client().ID
	_, err = v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrClient, "a change of the clients has no effect")
}

func TestValidator_InvalidJSONMakesNoFetch(t *testing.T) {
	var fetches []bool
	v := edValidator(t, keySetFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
		fetches = append(fetches, fetch)
		return nil, nil
	}))
	valid := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999`
	for _, payload := range []string{valid + `}`, valid + `,`, valid + `,"exp":99999999999}`, valid + `}x`} {
		_, err := v.Validate(t.Context(), signToken(ed25519Header, payload))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey)
	}
	assert.Equal(t, []bool{true, false, false, false}, fetches)
}

func TestNewValidator_FaultsOfSeveralConfigs(t *testing.T) {
	opaque := koretest.Validator{Claims: &koreauth.Claims{}}
	valid := func(issuer string) koreauth.Config { return edConfig(issuer, edStatic("k")) }
	with := func(issuer string, edit func(*koreauth.Config)) koreauth.Config {
		c := valid(issuer)
		edit(&c)
		return c
	}
	for _, row := range []struct {
		name    string
		configs []koreauth.Config
		want    []string // the lines of the error, each without "koreauth: "; none: no error
	}{
		{"one Config", []koreauth.Config{valid(issuerA)}, nil},
		{"two Configs", []koreauth.Config{valid(issuerA), valid(issuerB)}, nil},
		{"issuers that differ in a slash", []koreauth.Config{valid(issuerA), valid(issuerA + "/")}, nil},
		{"one with Opaque", []koreauth.Config{valid(issuerA), with(issuerB, func(c *koreauth.Config) { c.Opaque = opaque })}, nil},
		{"no Config", nil, []string{"NewValidator needs a Config"}},
		{"two of one issuer", []koreauth.Config{valid(issuerA), valid(issuerA)}, []string{"Config 2 of 2: Config.Issuer is that of another Config"}},
		{"three of one issuer", []koreauth.Config{valid(issuerA), valid(issuerB), valid(issuerA), valid(issuerA)},
			[]string{"Config 3 of 4: Config.Issuer is that of another Config", "Config 4 of 4: Config.Issuer is that of another Config"}},
		{"two without an issuer", []koreauth.Config{valid(""), valid("")}, []string{"Config 1 of 2: Config.Issuer is empty", "Config 2 of 2: Config.Issuer is empty"}},
		{"two with Opaque", []koreauth.Config{
			with(issuerA, func(c *koreauth.Config) { c.Opaque = opaque }), with(issuerB, func(c *koreauth.Config) { c.Opaque = opaque }),
		}, []string{"Config 2 of 2: Config.Opaque is set in another Config too"}},
		{"a nil Requirement", []koreauth.Config{valid(issuerA), with(issuerB, func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{koreauth.Product("x"), nil}
		})}, []string{"Config 2 of 2: Config.Require has a nil Requirement"}},
		{"a nil Requirement of one Config", []koreauth.Config{with(issuerA, func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{nil}
		})}, []string{"Config.Require has a nil Requirement"}},
		{"a nil *Validator as Opaque", []koreauth.Config{with(issuerA, func(c *koreauth.Config) {
			c.Opaque = (*koreauth.Validator)(nil)
		})}, []string{"Config.Opaque is a nil *Validator"}},
		{"another nil pointer as Opaque", []koreauth.Config{with(issuerA, func(c *koreauth.Config) {
			c.Opaque = (*koretest.Validator)(nil)
		})}, []string{"Config.Opaque is a nil *Validator, or another nil pointer"}},
		{"all faults of all Configs", []koreauth.Config{
			with(issuerA, func(c *koreauth.Config) { c.Audience, c.Leeway, c.Opaque = nil, -1, opaque }),
			with(issuerA, func(c *koreauth.Config) { c.Algorithms, c.Opaque = []string{"none"}, opaque }),
			with("", func(c *koreauth.Config) {
				c.Keys, c.JWKSURL, c.HTTPClient = nil, "http://keys.example", http.DefaultClient
			}),
			valid(issuerB),
		}, []string{
			"Config 1 of 4: Config.Audience is empty", "Config 1 of 4: Config.Leeway is negative",
			`Config 2 of 4: Config.Algorithms has "none"`, "Config 2 of 4: Config.Issuer is that of another Config", "Config 2 of 4: Config.Opaque is set in another Config too",
			"Config 3 of 4: Config.Issuer is empty", "Config 3 of 4: the URL of the keys is http",
		}},
	} {
		v, err := koreauth.NewValidator(row.configs...)
		if row.want == nil {
			assert.NoError(t, err, row.name)
			assert.NotNil(t, v, row.name)
			continue
		}
		assert.Nil(t, v, row.name)
		if !assert.Error(t, err, row.name) {
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if assert.Len(t, lines, len(row.want), "%s: %v", row.name, err) {
			for n, want := range row.want {
				assert.True(t, strings.HasPrefix(lines[n], "koreauth: "+want), "%s: got %q, want %q", row.name, lines[n], want)
			}
		}
	}
}

func TestNewValidator_ConfigsAreCopied(t *testing.T) {
	configs := []koreauth.Config{edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k"))}
	configs[0].Require = []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })}
	v := newValidator(t, configs...)
	configs[0].Require[0] = koreauth.Product("x")
	configs[0].Algorithms[0], configs[0].Audience[0], configs[1].Issuer = "RS256", "x", "x"
	for _, issuer := range []string{issuerA, issuerB} {
		_, err := v.Validate(t.Context(), edTokenOf(t, issuer, nil))
		assert.NoError(t, err, issuer)
	}
}

func TestNewValidator_LargestCacheSizes(t *testing.T) {
	a, b := edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k"))
	a.CacheSize, b.CacheSize = math.MaxInt, math.MaxInt
	v := newValidator(t, a, b)
	token := edTokenOf(t, issuerA, nil)
	isRemembered(t, v, token)
	isRemembered(t, v, token)
	assert.True(t, isRemembered(t, v, token))
}

func TestValidator_ReadyOfSeveralIssuers(t *testing.T) {
	after := func(d time.Duration, keys []koreauth.Key, err error) koreauth.KeySet {
		return keySetFunc(func(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
			assert.Empty(t, kid)
			assert.True(t, fetch)
			select {
			case <-time.After(d):
				return keys, err
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
	}
	panicking := keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { panic("a secret of the KeySet") })
	retry := func(d time.Duration) error { return &koreauth.Error{Class: koreauth.ErrUnavailable, RetryAfter: d} }
	cause := errors.New("database is down")
	ready := edStatic("k")
	for _, row := range []struct {
		name       string
		sets       []koreauth.KeySet
		want       []string // parts of the error; none: no error
		took       time.Duration
		retryAfter time.Duration
	}{
		{"all have keys", []koreauth.KeySet{ready, ready}, nil, 0, 0},
		{"the first has keys, and the other hangs", []koreauth.KeySet{ready, after(time.Hour, ready, nil)}, nil, 0, 0},
		{"the last has keys, and the others hang", []koreauth.KeySet{after(time.Hour, ready, nil), after(time.Hour, ready, nil), ready}, nil, 0, 0},
		{"the last has keys, and the others fail", []koreauth.KeySet{after(0, nil, cause), emptyKeySet{}, ready}, nil, 0, 0},
		{"the last has keys, and another panics", []koreauth.KeySet{panicking, after(time.Second, ready, nil)}, nil, time.Second, 0},
		{"they are asked at once, and the fastest counts", []koreauth.KeySet{
			after(3*time.Second, ready, nil), after(2*time.Second, nil, cause), after(time.Second, nil, cause),
		}, nil, 3 * time.Second, 0},
		{"they are asked at once, and all fail", []koreauth.KeySet{after(2*time.Second, nil, cause), after(3*time.Second, nil, cause), after(time.Second, nil, cause)},
			[]string{"https://issuer-0.example: ", "https://issuer-1.example: ", "https://issuer-2.example: ", "database is down"}, 3 * time.Second, 0},
		{"each has another error", []koreauth.KeySet{emptyKeySet{}, emptyKeySet{koreauth.ErrUnknownKey}, panicking, after(0, nil, cause), after(0, nil, (*koreauth.Error)(nil))},
			[]string{
				"https://issuer-0.example: koreauth: temporarily unavailable: the key set has no keys",
				"https://issuer-1.example: koreauth: temporarily unavailable: the key set has no keys",
				"https://issuer-2.example: koreauth: temporarily unavailable: the KeySet panicked", "https://issuer-3.example: koreauth: temporarily unavailable: database is down",
				"https://issuer-4.example: koreauth: temporarily unavailable",
			}, 0, 0},
		{"RetryAfter is the smallest, 1", []koreauth.KeySet{after(1, nil, retry(5*time.Second)), after(2, nil, retry(0)), after(3, nil, retry(7*time.Second))}, []string{"issuer-2"}, 3, 5 * time.Second},
		{"RetryAfter is the smallest, 2", []koreauth.KeySet{after(1, nil, retry(7*time.Second)), after(2, nil, retry(5*time.Second)), after(3, nil, retry(0))}, []string{"issuer-2"}, 3, 5 * time.Second},
		{"RetryAfter is the smallest, 3", []koreauth.KeySet{after(1, nil, retry(0)), after(2, nil, retry(7*time.Second)), after(3, nil, retry(5*time.Second))}, []string{"issuer-2"}, 3, 5 * time.Second},
		{"no RetryAfter is known", []koreauth.KeySet{after(1, nil, retry(0)), after(2, nil, retry(0))}, []string{"issuer-1"}, 2, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var configs []koreauth.Config
				for n, set := range row.sets {
					configs = append(configs, edConfig(fmt.Sprintf("https://issuer-%d.example", n), set))
				}
				v := newValidator(t, configs...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // for the sets that hang
				start := time.Now()
				err := v.Ready(ctx)
				assert.Equal(t, row.took, time.Since(start), "time that Ready took")
				if row.want == nil {
					assert.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, koreauth.ErrUnavailable)
				for _, want := range row.want {
					assert.ErrorContains(t, err, want)
				}
				assert.NotContains(t, err.Error(), "secret")
				var refusal *koreauth.Error
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, row.retryAfter, refusal.RetryAfter)
			})
		})
	}
	withFakeTime(t, "the keys of all issuers are fetched, and only once", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("k")))
		v := newValidator(t, edConfig(issuerA, net.keySet()), edConfig(issuerB, net.keySet()))
		start := time.Now()
		for range 3 {
			assert.NoError(t, v.Ready(t.Context()))
		}
		wait(time.Minute)
		assert.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, 0}, net.requestTimes(start, 0))
	})
	withFakeTime(t, "Ready returns when its context is done", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		v := newValidator(t, edConfig(issuerA, net.keySet()), edConfig(issuerB, net.keySet()))
		cause := errors.New("the probe timed out")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		start := time.Now()
		err := v.Ready(ctx)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, cause)
		assert.Equal(t, time.Second, time.Since(start))
		wait(keysTimeout)
	})
	t.Run("a KeySet that ends its goroutine does not block Ready", func(t *testing.T) {
		exiting := keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
			runtime.Goexit()
			return nil, nil
		})
		v := newValidator(t, edConfig(issuerA, exiting), edConfig(issuerB, emptyKeySet{}))
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
	})
}

// assertStatus asserts what Status returns, in the order of the Configs.
func assertStatus(t *testing.T, v *koreauth.Validator, want ...koreauth.KeyStatus) {
	t.Helper()
	assert.Equal(t, want, v.Status())
}

func TestValidator_Status(t *testing.T) {
	withFakeTime(t, "a RemoteKeySet, from its first fetch through an outage", func(t *testing.T, net *network) {
		const source = "https://keys.example:8443/set"
		const secret = "https://user:password@keys.example:8443/set?token=secret#part"
		ignored := []string{
			`{"kty":"oct","kid":"shared","k":"c2VjcmV0"}`,
			strings.Replace(edJWK("enc"), `"use":"sig"`, `"use":"enc"`, 1),
			`{"kty":"RSA","n":"AQ","e":"AQAB"}`,
			strings.Replace(edJWK("private"), `{`, `{"d":"AAAA",`, 1),
			`"not an object"`,
			`{"kty":"x","kid":"owner@example.com"}`,
		}
		document := jwksOf(append([]string{edJWK("a"), edJWK("b")}, ignored...)...)
		set := &koreauth.RemoteKeySet{URL: secret, HTTPClient: net.client(), MaxStale: 2 * time.Hour}
		v := newValidator(t, edConfig(issuerB, edStatic("k")), edConfig(issuerA, set))
		static := koreauth.KeyStatus{Issuer: issuerB, Keys: 1}
		assertStatus(t, v, static, koreauth.KeyStatus{Issuer: issuerA})

		net.respond(secret, connectionRefused)
		_, err := v.Validate(t.Context(), edToken(t, "a", map[string]any{"iss": issuerA}))
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		status := v.Status()[1]
		assert.ErrorIs(t, status.Err, errConnectionRefused, "no keys yet")
		assert.NotContains(t, status.Err.Error(), "secret")
		assert.NotContains(t, status.Err.Error(), "password")
		status.Err = nil
		assert.Equal(t, koreauth.KeyStatus{Issuer: issuerA}, status)

		wait(keysInterval)
		net.respond(secret, reply(200, document))
		fetched := time.Now().Round(0) // without a monotonic reading
		_, err = v.Validate(t.Context(), edToken(t, "a", map[string]any{"iss": issuerA}))
		require.NoError(t, err)
		want := koreauth.KeyStatus{
			Issuer: issuerA, Keys: 2, Ignored: 6, Fetched: fetched, Source: source, StaleAt: fetched.Add(2 * time.Hour),
			Reasons: []string{
				`key "shared": not a key of a known type`,
				`key "enc": not for signatures`,
				`key 4: an RSA key must have 2048 bits or more (RFC 7518 §3.3)`,
				`key "private": a private key`,
				`key 6: not a key of a known type`,
				`key "": not a key of a known type`, // a kid that looks like an e-mail address is not shown
			},
		}
		assertStatus(t, v, static, want)
		v.Status()[1].Reasons[0] = "changed"
		assertStatus(t, v, static, want)

		net.respond(secret, reply(500, "x"))
		wait(keysMaxAge)
		_, err = v.Validate(t.Context(), edToken(t, "a", map[string]any{"iss": issuerA})) // starts a refresh
		require.NoError(t, err)
		synctest.Wait()
		status = v.Status()[1]
		assert.ErrorContains(t, status.Err, "status 500")
		status.Err = nil
		assert.Equal(t, want, status, "the last good keys during an outage")

		net.respond(secret, keysOf("a"))
		wait(keysInterval)
		_, err = v.Validate(t.Context(), edToken(t, "a", map[string]any{"iss": issuerA}))
		require.NoError(t, err)
		synctest.Wait()
		now := time.Now()
		recovered := koreauth.KeyStatus{Issuer: issuerA, Keys: 1, Fetched: now, Source: source, StaleAt: now.Add(2 * time.Hour)}
		assertStatus(t, v, static, recovered)

		requests := net.requestCount()
		wait(3 * time.Hour)
		for range 100 {
			assertStatus(t, v, static, recovered)
		}
		synctest.Wait()
		assert.Equal(t, requests, net.requestCount(), "Status fetches nothing, even if the keys are old")
	})
	withFakeTime(t, "Source is the URL that was discovered", func(t *testing.T, net *network) {
		net.respond(issuerA+"/.well-known/openid-configuration", metadata(issuerA, keysURL+"?version=1"))
		net.respond(keysURL+"?version=1", keysOf("k"))
		c := edConfig(issuerA, nil)
		c.HTTPClient = net.client()
		v := newValidator(t, c)
		require.NoError(t, v.Ready(t.Context()))
		status := v.Status()
		require.Len(t, status, 1)
		assert.Equal(t, keysURL, status[0].Source)
	})
	withFakeTime(t, "the ignored keys stay after a 304", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, jwksOf(edJWK("k"), `{"kid":"x"}`), `ETag: "1"`))
		v := newValidator(t, edConfig(issuerA, net.keySet()))
		require.NoError(t, v.Ready(t.Context()))
		first := v.Status()[0]
		net.respondKeys(reply(304, ""))
		wait(keysMaxAge)
		require.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		first.Fetched, first.StaleAt = first.Fetched.Add(keysMaxAge), first.StaleAt.Add(keysMaxAge)
		assertStatus(t, v, first)
	})
	withFakeTime(t, "at most 1,000 reasons, and a document without a usable key", func(t *testing.T, net *network) {
		many := slices.Repeat([]string{`{"kid":"x"}`}, 1500)
		net.respondKeys(reply(200, jwksOf(append(many, edJWK("k"))...)))
		v := newValidator(t, edConfig(issuerA, net.keySet()))
		require.NoError(t, v.Ready(t.Context()))
		status := v.Status()[0]
		assert.Equal(t, []int{1, 1500, 1000}, []int{status.Keys, status.Ignored, len(status.Reasons)})

		net.respondKeys(reply(200, jwksOf(many...)))
		v = newValidator(t, edConfig(issuerA, net.keySet()))
		require.Error(t, v.Ready(t.Context()))
		assert.ErrorContains(t, v.Status()[0].Err, "no usable signing key")
	})
	t.Run("static and custom key sets", func(t *testing.T) {
		var many koreauth.StaticKeySet
		for range 1500 {
			many = append(many, koreauth.Key{Public: "x"})
		}
		weak := signingKeys()["RS256"].Public()
		v := newValidator(t,
			edConfig("static", append(edStatic("a"),
				koreauth.Key{ID: "short", Public: ed25519.PublicKey("x")},
				koreauth.Key{Public: "text"},
				koreauth.Key{ID: "alg", Algorithm: "ES256", Public: weak},
				koreauth.Key{ID: "hmac", Algorithm: "HS256", Public: weak},
				koreauth.Key{ID: "b", Algorithm: "RS256", Public: weak},
			)),
			edConfig("many", many),
			edConfig("custom", mustNotBeAsked(t)),
			edConfig("custom pointer", &mutableKeySet{}),
		)
		status := v.Status()
		require.Len(t, status, 4)
		assert.Equal(t, koreauth.KeyStatus{Issuer: "static", Keys: 2, Ignored: 4, Reasons: []string{
			`key "short": an Ed25519 key must have 32 bytes`,
			`key 2: a string is not a public key: use an *rsa.PublicKey, an *ecdsa.PublicKey or an ed25519.PublicKey`,
			`key "alg": "alg" is not a signature algorithm for this type of key`,
			`key "hmac": "alg" is not a signature algorithm for this type of key`,
		}}, status[0])
		assert.Equal(t, []int{0, 1500, 1000}, []int{status[1].Keys, status[1].Ignored, len(status[1].Reasons)})
		assert.Equal(t, koreauth.KeyStatus{Issuer: "custom"}, status[2])
		assert.Equal(t, koreauth.KeyStatus{Issuer: "custom pointer"}, status[3])
	})
	t.Run("the zero Validator has no issuer", func(t *testing.T) {
		assert.Empty(t, new(koreauth.Validator).Status())
	})
	withFakeTime(t, "Status does not wait for a fetch that hangs", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		v := newValidator(t, edConfig(issuerA, net.keySet()), edConfig(issuerB, net.keySet()))
		go func() { _ = v.Ready(t.Context()) }()
		synctest.Wait()
		require.Equal(t, 2, net.requestCount())
		start := time.Now()
		assertStatus(t, v, koreauth.KeyStatus{Issuer: issuerA}, koreauth.KeyStatus{Issuer: issuerB})
		assert.Zero(t, time.Since(start))
		assert.Equal(t, 2, net.requestCount())
		wait(keysTimeout)
		assert.ErrorIs(t, v.Status()[0].Err, context.DeadlineExceeded)
	})
	withFakeTime(t, "Status can be called while keys are used and refreshed", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Millisecond, reply(200, jwksOf(edJWK("k"), `{"kid":"x"}`))))
		set := net.keySet()
		set.MaxAge, set.MinInterval = time.Second, time.Second
		v := newValidator(t, edConfig(issuerA, set), edConfig(issuerB, edStatic("k")))
		require.NoError(t, v.Ready(t.Context()))
		token := edTokenOf(t, issuerA, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					_, err := v.Validate(t.Context(), token)
					assert.NoError(t, err)
					status := v.Status()
					assert.Equal(t, []int{1, 1}, []int{status[0].Keys, len(status[0].Reasons)})
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		assert.Greater(t, net.requestCount(), 5)
	})
}

// The claims that identify somebody must be strings or null: if another type were
// read as "", all such tokens would have one identity.
func TestValidator_IdentityOfOddShape(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	for _, claim := range []string{"sub", "jti", "client_id", "azp", "account-id", "client-type"} {
		for _, value := range []any{0, 1, 1.5, true, false, map[string]any{}, map[string]any{"id": "x"}, []string{}, []string{"x"}, []any{nil}} {
			token := mintToken(t, issuer, koretest.Token{Claims: map[string]any{claim: value}})
			_, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrMalformed, "%s: %v", claim, value)
			assert.ErrorContains(t, err, fmt.Sprintf("%q", claim))
			_, err = v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrMalformed, "%s: %v, again", claim, value)
			text, err := json.Marshal(map[string]any{claim: value})
			require.NoError(t, err)
			assert.Error(t, new(koreauth.Claims).UnmarshalJSON(text), "%s: %v, by UnmarshalJSON", claim, value)
		}
		for _, token := range []koretest.Token{
			{Drop: []string{claim}}, {Claims: map[string]any{claim: nil}}, {Claims: map[string]any{claim: ""}}, {Claims: map[string]any{claim: "x"}},
		} {
			_, err := v.Validate(t.Context(), mintToken(t, issuer, token))
			assert.NoError(t, err, "%s: %v", claim, token)
		}
		_, err := v.Validate(t.Context(), mintToken(t, issuer, koretest.Token{Claims: map[string]any{claim: 1}, BadSignature: true}))
		assert.ErrorIs(t, err, koreauth.ErrSignature, "%s: forged", claim)
	}
}

// Keycloak's tokens for DPoP have the payload "typ" DPoP.
func TestValidator_TypDPoPNeedsItsKey(t *testing.T) {
	sender := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })
	issuer, v := newIssuer(t, "RS256", nil)
	guard := koreauth.New(v, &koreauth.Options{Sender: sender})
	jkt, certificate := map[string]any{"jkt": "x"}, map[string]any{"x5t#S256": "x"}
	both := map[string]any{"jkt": "x", "x5t#S256": "x"}
	for _, row := range []struct {
		name   string
		claims map[string]any
		drop   []string
		want   error
	}{
		{"DPoP with jkt", map[string]any{"typ": "DPoP", "cnf": jkt}, nil, nil},
		{"DPoP with jkt and a certificate", map[string]any{"typ": "DPoP", "cnf": both}, nil, nil},
		{"Bearer with jkt", map[string]any{"typ": "Bearer", "cnf": jkt}, nil, nil},
		{"no typ, with jkt", map[string]any{"cnf": jkt}, []string{"typ"}, nil},
		{"Bearer with a certificate", map[string]any{"typ": "Bearer", "cnf": certificate}, nil, nil},
		{"DPoP with a certificate alone", map[string]any{"typ": "DPoP", "cnf": certificate}, nil, koreauth.ErrTokenType},
		{"DPoP without cnf", map[string]any{"typ": "DPoP"}, nil, koreauth.ErrTokenType},
		{"ID with jkt", map[string]any{"typ": "ID", "cnf": jkt}, nil, koreauth.ErrTokenType},
		{"dpop with jkt", map[string]any{"typ": "dpop", "cnf": jkt}, nil, koreauth.ErrTokenType},
	} {
		token := mintToken(t, issuer, koretest.Token{Claims: row.claims, Drop: row.drop})
		for range 3 { // also when it is remembered
			_, err := guard.Authenticate(bearerRequest(token))
			assert.ErrorIs(t, err, row.want, row.name)
		}
	}
}

// Ready returns when one issuer has keys. What it began for the others must end,
// even if the context is never done.
func TestValidator_ReadyLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // It fails if a goroutine is left.
		configs, _ := configsFor(2)
		began := false
		configs[0].Keys = keySetFunc(func(ctx context.Context, _ string, _ bool) ([]koreauth.Key, error) {
			began = true
			<-ctx.Done()
			return nil, ctx.Err()
		})
		v, err := koreauth.NewValidator(configs...)
		require.NoError(t, err)
		assert.NoError(t, v.Ready(context.Background()))
		synctest.Wait()
		assert.True(t, began)
		time.Sleep(time.Minute)
	})
}
