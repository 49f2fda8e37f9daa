package koreauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
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
		{"nbf after the year 9999", claims("nbf", 1e300), nil, koreauth.ErrNotYetValid},
		{"nbf is a string", claims("nbf", "0"), nil, koreauth.ErrNotYetValid},

		{"iat in the future, without MaxAge", claims("iat", now+1000), nil, nil},
		{"iat is a string, without MaxAge", claims("iat", "yesterday"), nil, nil},
		{"iat in the future", claims("iat", now+1), withMaxAge, koreauth.ErrTooOld},
		{"iat in the future, with leeway", claims("iat", now+1), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, nil},
		{"iat less than MaxAge ago", claims("iat", now-59), withMaxAge, nil},
		{"iat MaxAge ago", claims("iat", now-60), withMaxAge, koreauth.ErrTooOld},
		{"iat MaxAge ago, with leeway", claims("iat", now-60), func(c *koreauth.Config) { withMaxAge(c); c.Leeway = time.Second }, nil},
		{"no iat", token{Drop: []string{"iat"}}, withMaxAge, koreauth.ErrTooOld},
		{"iat is a string", claims("iat", "946684800"), withMaxAge, koreauth.ErrTooOld},

		{"an ID token", claims("typ", "ID"), nil, koreauth.ErrTokenType},
		{"a refresh token", claims("typ", "Refresh"), nil, koreauth.ErrTokenType},
		{"an offline token", claims("typ", "Offline"), nil, koreauth.ErrTokenType},
		{"typ of the payload in another case", claims("typ", "bearer"), nil, koreauth.ErrTokenType},
		{"typ of the payload is null", claims("typ", nil), nil, koreauth.ErrTokenType},
		{"no typ in the payload", token{Drop: []string{"typ"}}, nil, nil},

		{"a client that is listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x", "kc_demo"} }, nil},
		{"a client that is not listed", token{}, func(c *koreauth.Config) { c.ClientIDs = []string{"x"} }, koreauth.ErrClient},
		{"azp is used if client_id is absent", token{Drop: []string{"client_id"}}, func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, nil},
		{"azp is not used if client_id has the wrong type", claims("client_id", 7), func(c *koreauth.Config) { c.ClientIDs = []string{"kc_demo"} }, koreauth.ErrClient},
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
	_, err := v.Validate(ctx, issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, err, cause)
	require.NotErrorIs(t, err, koreauth.ErrInvalidToken)
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
