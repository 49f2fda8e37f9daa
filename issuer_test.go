package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// The two issuers of the tests in this file.
const (
	issuerA = "https://a.example/realms/one"
	issuerB = "https://b.example/realms/two"
)

// edConfig returns the Config of an issuer that signs with Ed25519.
func edConfig(issuer string, keys koreauth.KeySet) koreauth.Config {
	return koreauth.Config{Issuer: issuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, Keys: keys}
}

// edStatic returns a StaticKeySet with these Ed25519 keys.
func edStatic(kids ...string) koreauth.StaticKeySet {
	var keys koreauth.StaticKeySet
	for _, kid := range kids {
		keys = append(keys, koreauth.Key{ID: kid, Public: edPublic(kid)})
	}
	return keys
}

// newValidator returns the validator for the Configs.
func newValidator(t *testing.T, configs ...koreauth.Config) *koreauth.Validator {
	t.Helper()
	v, err := koreauth.NewValidator(configs...)
	require.NoError(t, err)
	return v
}

// edTokenOf returns the token that an issuer signed with edKey("k"). The claims in
// change replace those of a valid token.
func edTokenOf(t *testing.T, issuer string, change map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": issuer}
	maps.Copy(all, change)
	return edToken(t, "k", all)
}

// countingKeySet counts the calls of its Keys.
type countingKeySet struct {
	koreauth.KeySet
	calls atomic.Int64
}

func (s *countingKeySet) Keys(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
	s.calls.Add(1)
	return s.KeySet.Keys(ctx, kid, fetch)
}

// mustNotBeAsked is a KeySet that fails the test if it is used.
func mustNotBeAsked(t *testing.T) koreauth.KeySet {
	return keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
		t.Error("the KeySet of another issuer was asked")
		return nil, koreauth.ErrUnknownKey
	})
}

// isRemembered reports whether v accepts the token from its memory. It fails the
// test if the token is rejected.
func isRemembered(t *testing.T, v *koreauth.Validator, token string) bool {
	t.Helper()
	remembered := false
	guard := koreauth.New(v, &koreauth.Options{Observe: func(_ *http.Request, o koreauth.Outcome) { remembered = o.Remembered }})
	status, _ := serve(guard.Wrap(whoami), bearerRequest(token))
	require.Equal(t, http.StatusOK, status)
	return remembered
}

func TestIssuer_SelectedByIss(t *testing.T) {
	const (
		none = iota
		first
		second
	)
	payload := func(member string) string { return `{` + member + `"aud":"api-gw","exp":99999999999}` }
	for _, row := range []struct {
		name    string
		payload string
		asked   int // whose keys are used
		want    error
	}{
		{"the first issuer", payload(`"iss":"` + issuerA + `",`), first, nil},
		{"the second issuer", payload(`"iss":"` + issuerB + `",`), second, nil},
		{"JSON escapes are decoded before the comparison", payload(`"iss":"\u0068ttps:\/\/b.example\/realms\/two",`), second, nil},
		{"another issuer", payload(`"iss":"https://c.example",`), none, koreauth.ErrIssuer},
		{"no iss", payload(``), none, koreauth.ErrIssuer},
		{"an empty iss", payload(`"iss":"",`), none, koreauth.ErrIssuer},
		{"iss is null", payload(`"iss":null,`), none, koreauth.ErrIssuer},
		{"iss is a number", payload(`"iss":1,`), none, koreauth.ErrIssuer},
		{"iss is an array", payload(`"iss":["` + issuerA + `"],`), none, koreauth.ErrIssuer},
		{"iss is an object", payload(`"iss":{"iss":"` + issuerA + `"},`), none, koreauth.ErrIssuer},
		{"the name of iss in another case", payload(`"Iss":"` + issuerA + `",`), none, koreauth.ErrIssuer},
		{"a trailing slash", payload(`"iss":"` + issuerA + `/",`), none, koreauth.ErrIssuer},
		{"the host in another case", payload(`"iss":"https://A.example/realms/one",`), none, koreauth.ErrIssuer},
		{"the path in another case", payload(`"iss":"https://a.example/realms/One",`), none, koreauth.ErrIssuer},
		{"the default port", payload(`"iss":"https://a.example:443/realms/one",`), none, koreauth.ErrIssuer},
		{"a percent escape", payload(`"iss":"https://a.example/realms/%6fne",`), none, koreauth.ErrIssuer},
		{"a space after iss", payload(`"iss":"` + issuerA + ` ",`), none, koreauth.ErrIssuer},
		{"a prefix of an issuer", payload(`"iss":"https://a.example/realms/on",`), none, koreauth.ErrIssuer},
		{"both issuers in one string", payload(`"iss":"` + issuerA + ` ` + issuerB + `",`), none, koreauth.ErrIssuer},
		{"both issuers in two members", payload(`"iss":"` + issuerA + `","iss":"` + issuerB + `",`), none, koreauth.ErrMalformed},
		{"the same issuer in two members", payload(`"iss":"` + issuerA + `","iss":"` + issuerA + `",`), none, koreauth.ErrMalformed},
		{"a payload that is not JSON", `x`, none, koreauth.ErrMalformed},
		{"an empty payload", ``, none, koreauth.ErrMalformed},
		{"a payload that is an array", `["` + issuerA + `"]`, none, koreauth.ErrMalformed},
		{"bytes after the payload", payload(`"iss":"`+issuerA+`",`) + `x`, none, koreauth.ErrMalformed},
		{"a payload that ends after iss", `{"iss":"` + issuerA + `"`, none, koreauth.ErrMalformed},
	} {
		for _, forged := range []bool{false, true} {
			a, b := &countingKeySet{KeySet: edStatic("k")}, &countingKeySet{KeySet: edStatic("k")}
			v := newValidator(t, edConfig(issuerA, a), edConfig(issuerB, b))
			token, want := signToken(ed25519Header, row.payload), row.want
			if forged {
				token = token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 86)
				if want == nil {
					want = koreauth.ErrSignature
				}
			}
			claims, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, want, "%s, forged: %t", row.name, forged)
			assert.Equal(t, want == nil, claims != nil, "%s, forged: %t", row.name, forged)
			asked := []int64{a.calls.Load(), b.calls.Load()}
			assert.Equal(t, [][]int64{none: {0, 0}, first: {1, 0}, second: {0, 1}}[row.asked], asked, "%s, forged: %t: calls of the two KeySets", row.name, forged)
		}
	}
}

func TestIssuer_UnknownIssMakesNoFetch(t *testing.T) {
	withFakeTime(t, "neither without keys nor with keys", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("k"))
		v := newValidator(t, edConfig(issuerA, net.keySet()), edConfig(issuerB, net.keySet()))
		reject := func() {
			for _, iss := range []any{"https://c.example", issuerA + "/", nil, 1, strings.ToUpper(issuerA)} {
				_, err := v.Validate(t.Context(), edToken(t, "unknown", map[string]any{"iss": iss}))
				assert.ErrorIs(t, err, koreauth.ErrIssuer, "%v", iss)
			}
		}
		reject()
		assert.Zero(t, net.requestCount())
		require.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		reject()
		assert.Equal(t, 2, net.requestCount())
	})
}

func TestIssuer_ErrIssuerIsUnverified(t *testing.T) {
	v := newValidator(t, edConfig(issuerA, mustNotBeAsked(t)), edConfig(issuerB, mustNotBeAsked(t)))
	var log strings.Builder
	guard := koreauth.New(v, &koreauth.Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	status, _ := serve(guard.Wrap(whoami), bearerRequest(edTokenOf(t, "https://c.example", map[string]any{"client_id": "kc_1"})))
	assert.Equal(t, http.StatusForbidden, status)
	for _, want := range []string{`"reason":"wrong issuer"`, `"unverified_issuer":"https://c.example"`, `"unverified_client_id":"kc_1"`} {
		assert.Contains(t, log.String(), want)
	}
}

func TestIssuer_Algorithms(t *testing.T) {
	newKoretest := func(url, alg string) *koretest.Issuer {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: url, Keys: []*koretest.Key{signingKeys()[alg]}})
		require.NoError(t, err)
		return issuer
	}
	a, b := newKoretest("https://a.example", "ES256"), newKoretest("https://b.example", "RS256")
	// Both key sets have both keys, so only Config.Algorithms tells them apart.
	var keys koreauth.StaticKeySet
	for _, alg := range []string{"ES256", "RS256"} {
		keys = append(keys, koreauth.Key{ID: signingKeys()[alg].ID, Public: signingKeys()[alg].Public()})
	}
	audience := []string{koretest.Audience}
	ofA, ofB := &countingKeySet{KeySet: keys}, &countingKeySet{KeySet: keys}
	v := newValidator(t,
		koreauth.Config{Issuer: a.URL(), Audience: audience, Algorithms: []string{"ES256"}, Keys: ofA},
		koreauth.Config{Issuer: b.URL(), Audience: audience, Keys: ofB}, // RS256
	)
	validate := func(token string) error {
		_, err := v.Validate(t.Context(), token)
		return err
	}
	es256OfB := mintToken(t, a, koretest.Token{Claims: map[string]any{"iss": b.URL()}}) // with the header of the tokens of A
	rs256OfA := mintToken(t, b, koretest.Token{Claims: map[string]any{"iss": a.URL()}})

	assert.ErrorIs(t, validate(es256OfB), koreauth.ErrAlgorithm, "ES256 of B, with a header that is not remembered")
	assert.ErrorIs(t, validate(rs256OfA), koreauth.ErrAlgorithm, "RS256 of A, with a header that is not remembered")
	assert.ErrorIs(t, validate(mintToken(t, a, koretest.Token{Header: map[string]any{"alg": "ES384"}})), koreauth.ErrAlgorithm, "an algorithm that no issuer accepts")
	assert.Zero(t, ofA.calls.Load()+ofB.calls.Load(), "calls of the KeySets")
	for range 2 { // The header is remembered with the first token, and the token too.
		require.NoError(t, validate(a.Valid()))
		require.NoError(t, validate(b.Valid()))
	}
	before := ofA.calls.Load() + ofB.calls.Load()
	assert.ErrorIs(t, validate(es256OfB), koreauth.ErrAlgorithm, "ES256 of B, with a header that is remembered from A")
	assert.ErrorIs(t, validate(rs256OfA), koreauth.ErrAlgorithm, "RS256 of A, with a header that is remembered from B")
	assert.Equal(t, before, ofA.calls.Load()+ofB.calls.Load(), "calls of the KeySets")
}

func TestIssuer_RulesDoNotApplyToAnother(t *testing.T) {
	now := int64(946684800) // the time at which a synctest bubble starts
	errRule := errors.New("not allowed")
	for _, row := range []struct {
		name   string
		edit   func(*koreauth.Config)
		claims map[string]any
		edited error // with the issuer that has the edited Config
		other  error // with the other issuer
	}{
		{"Audience", func(c *koreauth.Config) { c.Audience = []string{"reports"} }, map[string]any{"aud": "reports"}, nil, koreauth.ErrAudience},
		{"Audience of the other", func(c *koreauth.Config) { c.Audience = []string{"reports"} }, map[string]any{"aud": "api-gw"}, koreauth.ErrAudience, nil},
		{"ClientIDs", func(c *koreauth.Config) { c.ClientIDs = []string{"x"} }, map[string]any{"client_id": "y"}, koreauth.ErrClient, nil},
		{"Leeway", func(c *koreauth.Config) { c.Leeway = time.Minute }, map[string]any{"exp": now - 1}, nil, koreauth.ErrExpired},
		{"Leeway of nbf", func(c *koreauth.Config) { c.Leeway = time.Minute }, map[string]any{"nbf": now + 1}, nil, koreauth.ErrNotYetValid},
		{"MaxAge", withMaxAge, map[string]any{"iat": now - 60}, koreauth.ErrTooOld, nil},
		{"MaxAge, without iat", withMaxAge, nil, koreauth.ErrTooOld, nil},
		{"Require", func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return errRule })}
		}, nil, koreauth.ErrInsufficientScope, nil},
		{"Keys", func(c *koreauth.Config) { c.Keys = edStatic("other") }, nil, koreauth.ErrUnknownKey, nil},
	} {
		for _, editFirst := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				configs := []koreauth.Config{edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k"))}
				edited, other := issuerA, issuerB
				if !editFirst {
					edited, other = issuerB, issuerA
				}
				for n := range configs {
					if configs[n].Issuer == edited {
						row.edit(&configs[n])
					}
				}
				v := newValidator(t, configs...)
				for _, kind := range []string{"new", "remembered"} {
					_, err := v.Validate(t.Context(), edTokenOf(t, edited, row.claims))
					assert.ErrorIs(t, err, row.edited, "%s: a %s token of the issuer with the edited Config", row.name, kind)
					_, err = v.Validate(t.Context(), edTokenOf(t, other, row.claims))
					assert.ErrorIs(t, err, row.other, "%s: a %s token of the other issuer", row.name, kind)
				}
			})
		}
	}
}

func TestIssuer_SameKidDifferentKeys(t *testing.T) {
	key := func(public ed25519.PublicKey) koreauth.StaticKeySet {
		return koreauth.StaticKeySet{{ID: "k", Public: public}}
	}
	v := newValidator(t, edConfig(issuerA, key(edPublic("k"))), edConfig(issuerB, key(edPublic("other"))))
	for range 2 {
		_, err := v.Validate(t.Context(), edTokenOf(t, issuerA, nil))
		assert.NoError(t, err)
		_, err = v.Validate(t.Context(), edTokenOf(t, issuerB, nil))
		assert.ErrorIs(t, err, koreauth.ErrSignature, `"iss" of B, signed by A`)
	}
}

func TestIssuer_RememberedTokens(t *testing.T) {
	t.Run("a token ends with the key of its issuer, and those of the other stay", func(t *testing.T) {
		for _, row := range []struct {
			name string
			keys []koreauth.Key
			want error
		}{
			{"the key is removed", nil, koreauth.ErrUnknownKey},
			{"another key has its ID", []koreauth.Key{{ID: "k", Public: edPublic("other")}}, koreauth.ErrSignature},
		} {
			ofA, ofB := &mutableKeySet{edStatic("k")}, &mutableKeySet{edStatic("k")}
			v := newValidator(t, edConfig(issuerA, ofA), edConfig(issuerB, ofB))
			a, b := edTokenOf(t, issuerA, nil), edTokenOf(t, issuerB, nil)
			for _, token := range []string{a, b} {
				assert.False(t, isRemembered(t, v, token), row.name)
				assert.False(t, isRemembered(t, v, token), "%s: it is remembered at its second sight", row.name)
				assert.True(t, isRemembered(t, v, token), row.name)
			}
			ofA.keys = row.keys
			for range 2 {
				_, err := v.Validate(t.Context(), a)
				assert.ErrorIs(t, err, row.want, row.name)
				assert.True(t, isRemembered(t, v, b), row.name)
			}
			ofA.keys = edStatic("k")
			assert.False(t, isRemembered(t, v, a), "%s: the key is back", row.name)
		}
	})
	t.Run("the times of each issuer are checked each time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			lenient := edConfig(issuerA, edStatic("k"))
			lenient.Leeway = time.Minute
			v := newValidator(t, lenient, edConfig(issuerB, edStatic("k")))
			exp := map[string]any{"exp": time.Now().Add(time.Minute).Unix()}
			a, b := edTokenOf(t, issuerA, exp), edTokenOf(t, issuerB, exp)
			for _, token := range []string{a, b, a, b} {
				_, err := v.Validate(t.Context(), token)
				require.NoError(t, err)
			}
			time.Sleep(time.Minute)
			_, err := v.Validate(t.Context(), b)
			assert.ErrorIs(t, err, koreauth.ErrExpired)
			assert.True(t, isRemembered(t, v, a))
			time.Sleep(time.Minute)
			_, err = v.Validate(t.Context(), a)
			assert.ErrorIs(t, err, koreauth.ErrExpired)
		})
	})
	t.Run("an issuer with a negative CacheSize has no token remembered", func(t *testing.T) {
		for _, row := range []struct {
			sizes      [2]int
			remembered [2]bool
		}{
			{[2]int{0, 0}, [2]bool{true, true}},
			{[2]int{10, 1}, [2]bool{true, true}},
			{[2]int{-1, 0}, [2]bool{false, true}},
			{[2]int{5, -1000}, [2]bool{true, false}},
			{[2]int{-1, -1}, [2]bool{false, false}},
		} {
			a, b := edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k"))
			a.CacheSize, b.CacheSize = row.sizes[0], row.sizes[1]
			v := newValidator(t, a, b)
			tokens := [2]string{edTokenOf(t, issuerA, nil), edTokenOf(t, issuerB, nil)}
			for range 3 {
				for n, token := range tokens {
					isRemembered(t, v, token)
					isRemembered(t, v, token)
					assert.Equal(t, row.remembered[n], isRemembered(t, v, token), "CacheSize %v, issuer %d", row.sizes, n)
				}
			}
		}
	})
	t.Run("the memory has the sum of the sizes", func(t *testing.T) {
		for _, row := range []struct {
			sizes             [2]int
			atLeast, notAbove int
		}{
			{[2]int{100, 200}, 240, 250}, // A full bucket of fingerprints may lose a few.
			{[2]int{100, -200}, 0, 100},
			{[2]int{100, -1}, 0, 100},
		} {
			a, b := edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k"))
			a.CacheSize, b.CacheSize = row.sizes[0], row.sizes[1]
			v := newValidator(t, a, b)
			var tokens []string
			for n := range 250 {
				tokens = append(tokens, edTokenOf(t, issuerA, map[string]any{"jti": strconv.Itoa(n)}))
				require.False(t, isRemembered(t, v, tokens[n]))
				require.False(t, isRemembered(t, v, tokens[n]))
			}
			remembered := 0
			for _, token := range tokens {
				if isRemembered(t, v, token) {
					remembered++
				}
			}
			assert.GreaterOrEqual(t, remembered, row.atLeast, "tokens remembered with the sizes %v", row.sizes)
			assert.LessOrEqual(t, remembered, row.notAbove, "tokens remembered with the sizes %v", row.sizes)
		}
	})
	t.Run("tokens of 1,000 issuers are remembered", func(t *testing.T) {
		var configs []koreauth.Config
		var tokens []string
		for n := range 1000 {
			issuer, kid := fmt.Sprintf("https://issuer-%d.example", n), fmt.Sprint("k", n)
			configs = append(configs, edConfig(issuer, edStatic(kid, "next "+kid)))
			tokens = append(tokens, edToken(t, kid, map[string]any{"iss": issuer}))
			if n >= 990 { // These sign with two keys, and so with two headers.
				tokens = append(tokens, edToken(t, "next "+kid, map[string]any{"iss": issuer}))
			}
		}
		v := newValidator(t, configs...)
		for _, want := range []bool{false, false, true, true} {
			for n, token := range tokens {
				require.Equal(t, want, isRemembered(t, v, token), "token %d", n)
			}
		}
	})
	t.Run("an issuer that varies its headers does not displace those of another", func(t *testing.T) {
		v := newValidator(t, edConfig(issuerA, edStatic("k")), edConfig(issuerB, edStatic("k")))
		b := edTokenOf(t, issuerB, nil)
		isRemembered(t, v, b)
		isRemembered(t, v, b)
		payload := `{"iss":"` + issuerA + `","aud":"api-gw","exp":99999999999}`
		for n := range 500 {
			_, err := v.Validate(t.Context(), signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":%d}`, n), payload))
			require.NoError(t, err)
			require.True(t, isRemembered(t, v, b), "after %d headers", n+1)
		}
	})
}

func TestIssuer_OutageStaysWithIt(t *testing.T) {
	for _, first := range []string{"new", "cached", "old"} {
		withFakeTime(t, "A hangs: no request of B waits, with "+first+" keys of B", func(t *testing.T, netA *network) {
			netB := new(network)
			netA.respondKeys(hanging)
			netB.respondKeys(keysOf("k"))
			v := newValidator(t, edConfig(issuerA, netA.keySet()), edConfig(issuerB, netB.keySet()))
			b := edTokenOf(t, issuerB, map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()})
			if first != "new" {
				_, err := v.Validate(t.Context(), b)
				require.NoError(t, err)
			}
			if first == "old" {
				wait(keysMaxAge)
			}
			began := time.Now()
			for range 100 {
				go func() {
					_, err := v.Validate(context.Background(), edTokenOf(t, issuerA, nil))
					assert.ErrorIs(t, err, koreauth.ErrUnavailable)
					assert.Equal(t, keysTimeout, time.Since(began))
				}()
			}
			synctest.Wait()
			for n := range 50 {
				_, err := v.Validate(t.Context(), b)
				assert.NoError(t, err)
				_, err = v.Validate(t.Context(), edTokenOf(t, issuerB, map[string]any{"jti": strconv.Itoa(n)}))
				assert.NoError(t, err)
			}
			_, err := v.Validate(t.Context(), edToken(t, "unknown", map[string]any{"iss": issuerB}))
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			assert.Zero(t, time.Since(began), "time that requests of B waited")
			wait(keysTimeout)
			assert.Equal(t, 1, netA.requestCount())
		})
	}
	withFakeTime(t, "A is down: only its tokens get ErrUnavailable", func(t *testing.T, netA *network) {
		netB := new(network)
		netA.respondKeys(connectionRefused)
		netB.respondKeys(keysOf("k"))
		v := newValidator(t, edConfig(issuerA, netA.keySet()), edConfig(issuerB, netB.keySet()))
		for range 3 {
			_, err := v.Validate(t.Context(), edTokenOf(t, issuerA, nil))
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			_, err = v.Validate(t.Context(), edTokenOf(t, issuerB, nil))
			assert.NoError(t, err)
		}
		assert.Equal(t, 1, netB.requestCount())
	})
	withFakeTime(t, "unknown kids of A do not use up the fetches of B", func(t *testing.T, netA *network) {
		netB := new(network)
		netA.respondKeys(keysOf("k"))
		netB.respondKeys(keysOf("k"))
		v := newValidator(t, edConfig(issuerA, netA.keySet()), edConfig(issuerB, netB.keySet()))
		require.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		flood := func(issuer string) {
			for n := range 100 {
				_, err := v.Validate(t.Context(), edToken(t, fmt.Sprint("unknown-", n), map[string]any{"iss": issuer}))
				require.ErrorIs(t, err, koreauth.ErrUnknownKey)
			}
		}
		flood(issuerA)
		assert.Equal(t, 1+3, netA.requestCount(), "requests to A")
		assert.Equal(t, 1, netB.requestCount(), "requests to B after the flood of A")
		netB.respondKeys(keysOf("k", "new"))
		_, err := v.Validate(t.Context(), edToken(t, "new", map[string]any{"iss": issuerB}))
		assert.NoError(t, err, "a rotation of B is found during the flood of A")
		flood(issuerB)
		assert.Equal(t, 1+3, netB.requestCount(), "requests to B")
		assert.Equal(t, 1+3, netA.requestCount(), "requests to A after the flood of B")
	})
	withFakeTime(t, "a token of A signed with a new key of B fetches only the keys of A", func(t *testing.T, netA *network) {
		netB := new(network)
		netA.respondKeys(keysOf("k"))
		netB.respondKeys(keysOf("k", "new"))
		v := newValidator(t, edConfig(issuerA, netA.keySet()), edConfig(issuerB, netB.keySet()))
		_, err := v.Validate(t.Context(), edToken(t, "new", map[string]any{"iss": issuerA}))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Positive(t, netA.requestCount())
		assert.Zero(t, netB.requestCount())
	})
}

// opaqueConfig returns the Config of issuerA with Opaque.
func opaqueConfig(opaque koreauth.TokenValidator) koreauth.Config {
	c := edConfig(issuerA, edStatic("k"))
	c.Opaque = opaque
	return c
}

// opaqueClaims returns a TokenValidator that accepts every token with these claims.
func opaqueClaims(c koreauth.Claims) koreauth.TokenValidator {
	return validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
		own := c
		return &own, nil
	})
}

func TestOpaque_Selection(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	for _, row := range []struct {
		name  string
		token string
		asked bool
		want  error // of Validate
		guard error // of a guard, if it is another one
	}{
		{"one segment", "2YotnFZFEjr1zCsicMWpAA", true, nil, nil},
		{"one character", "x", true, nil, nil},
		{"two segments", "a.b", true, nil, nil},
		{"four segments", "a.b.c.d", true, nil, nil},
		{"five segments, as an encrypted token has", "a.b.c.d.e", true, nil, nil},
		{"dots only", "....", true, nil, nil},
		{"every character of a b64token", b64tokenChars, true, nil, nil},
		{"padding", "YWJj==", true, nil, nil},
		{"16 KiB", long, true, nil, nil},
		{"three segments", "a.b.c", false, koreauth.ErrMalformed, nil},
		{"three empty segments", "..", false, koreauth.ErrMalformed, nil},
		{"three segments that are not base64url", "~.~.~", false, koreauth.ErrMalformed, nil},
		{"over 16 KiB", long + "x", false, koreauth.ErrMalformed, nil},
		{"an empty token", "", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"padding alone", "==", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"padding inside", "a=b", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a space inside", "a b", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a line break inside", "a\nb", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a NUL", "a\x00", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a quote", `a"b`, false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a letter beyond ASCII", "é", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
		{"a comma, as of two tokens", "a,b", false, koreauth.ErrMalformed, koreauth.ErrBadRequest},
	} {
		for _, several := range []bool{false, true} {
			table := newTokenTable()
			table.claims[row.token] = &koreauth.Claims{ClientID: "opaque"}
			configs := []koreauth.Config{opaqueConfig(table)}
			if several {
				configs = []koreauth.Config{edConfig(issuerB, mustNotBeAsked(t)), configs[0]}
			}
			v := newValidator(t, configs...)
			claims, err := v.Validate(t.Context(), row.token)
			assert.ErrorIs(t, err, row.want, row.name)
			if row.want == nil && assert.NotNil(t, claims, row.name) {
				assert.Equal(t, "opaque", claims.ClientID, row.name)
			}
			guard := koreauth.New(v, &koreauth.Options{Sources: []koreauth.Source{func(*http.Request) ([]string, error) { return []string{row.token}, nil }}})
			if row.token != "" { // An empty string from a Source means that there is no token.
				_, err = guard.Authenticate(bearerRequest(""))
				want := row.want
				if row.guard != nil {
					want = row.guard
				}
				assert.ErrorIs(t, err, want, "%s, with a guard", row.name)
			}
			var asked []string
			if row.asked {
				asked = []string{row.token, row.token}
			}
			assert.Equal(t, asked, table.validated, "%s: tokens that Opaque was asked for", row.name)
		}
	}
}

func TestOpaque_AbsentRejectsOtherTokens(t *testing.T) {
	for _, configs := range [][]koreauth.Config{
		{edConfig(issuerA, mustNotBeAsked(t))},
		{edConfig(issuerA, mustNotBeAsked(t)), edConfig(issuerB, mustNotBeAsked(t))},
	} {
		v := newValidator(t, configs...)
		for _, token := range []string{"x", "a.b", "a.b.c.d", "a.b.c.d.e"} {
			_, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrMalformed, "%s, %d issuers", token, len(configs))
		}
	}
}

func TestOpaque_SignedTokensAreNotForIt(t *testing.T) {
	v := newValidator(t, opaqueConfig(validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
		t.Error("Opaque was asked for a token with three segments")
		return &koreauth.Claims{}, nil
	})))
	for _, token := range []string{
		edTokenOf(t, issuerA, nil), edTokenOf(t, issuerB, nil), edToken(t, "unknown", map[string]any{"iss": issuerA}),
		edTokenOf(t, issuerA, nil) + "x", strings.Replace(edTokenOf(t, issuerA, nil), ".", ".x", 1),
	} {
		_, err := v.Validate(t.Context(), token)
		if err != nil {
			assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
		}
	}
}

func TestOpaque_Errors(t *testing.T) {
	cause := errors.New("connection refused")
	retry := &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: cause, RetryAfter: 7 * time.Second}
	for _, row := range []struct {
		name string
		err  error
		want []error
	}{
		{"a class", koreauth.ErrInvalidToken, []error{koreauth.ErrInvalidToken}},
		{"a reason", koreauth.ErrRevoked, []error{koreauth.ErrRevoked, koreauth.ErrInvalidToken}},
		{"a wrapped reason", fmt.Errorf("inactive: %w", koreauth.ErrExpired), []error{koreauth.ErrExpired, koreauth.ErrInvalidToken}},
		{"ErrForbidden", koreauth.ErrForbidden, []error{koreauth.ErrForbidden}},
		{"ErrInsufficientScope", koreauth.ErrInsufficientScope, []error{koreauth.ErrInsufficientScope}},
		{"ErrBadRequest", koreauth.ErrBadRequest, []error{koreauth.ErrBadRequest}},
		{"ErrUnavailable with RetryAfter", retry, []error{koreauth.ErrUnavailable, cause}},
		{"no class", cause, []error{koreauth.ErrUnavailable, cause}},
		{"a canceled context", context.Canceled, []error{koreauth.ErrUnavailable, context.Canceled}},
		{"a nil *Error", (*koreauth.Error)(nil), []error{koreauth.ErrUnavailable}},
		{"an *Error without a class", &koreauth.Error{Reason: cause}, []error{koreauth.ErrUnavailable}},
		{"neither claims nor an error", nil, []error{koreauth.ErrUnavailable}},
	} {
		v := newValidator(t, opaqueConfig(validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return nil, row.err })))
		for _, validate := range []func() (*koreauth.Claims, error){
			func() (*koreauth.Claims, error) { return v.Validate(t.Context(), "opaque") },
			func() (*koreauth.Claims, error) { return koreauth.New(v, nil).Authenticate(bearerRequest("opaque")) },
		} {
			claims, err := validate()
			assert.Nil(t, claims, row.name)
			for _, want := range row.want {
				assert.ErrorIs(t, err, want, row.name)
			}
			var refusal *koreauth.Error
			if assert.ErrorAs(t, err, &refusal, row.name) {
				assert.Equal(t, row.err == retry, refusal.RetryAfter == 7*time.Second, "%s: RetryAfter is %v", row.name, refusal.RetryAfter)
				assert.Contains(t, row.want, refusal.Class, row.name)
			}
		}
	}
	t.Run("claims beside an error are not used", func(t *testing.T) {
		v := newValidator(t, opaqueConfig(validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
			return &koreauth.Claims{}, koreauth.ErrRevoked
		})))
		claims, err := v.Validate(t.Context(), "opaque")
		assert.Nil(t, claims)
		assert.ErrorIs(t, err, koreauth.ErrRevoked)
	})
	t.Run("ErrNoToken does not open an optional route", func(t *testing.T) {
		v := newValidator(t, opaqueConfig(validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return nil, koreauth.ErrNoToken })))
		status, _ := serve(koreauth.New(v, nil).WrapOptional(whoami), bearerRequest("opaque"))
		assert.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestOpaque_BoundTokens(t *testing.T) {
	confirm := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })
	deny := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return koreauth.ErrBinding })
	key := &koreauth.Confirmation{KeySHA256: "k"}
	for _, row := range []struct {
		name   string
		bound  *koreauth.Confirmation
		sender koreauth.RequirementFunc
		asked  int
		want   error
	}{
		{"not bound", nil, nil, 0, nil},
		{"not bound, with a Sender", nil, confirm, 1, nil},
		{"bound, without a Sender", key, nil, 0, koreauth.ErrBinding},
		{"bound, and confirmed", key, confirm, 1, nil},
		{"bound, and not confirmed", key, deny, 1, koreauth.ErrBinding},
		{"bound in an unknown way", &koreauth.Confirmation{}, confirm, 0, koreauth.ErrBinding},
	} {
		v := newValidator(t, opaqueConfig(opaqueClaims(koreauth.Claims{ClientID: "opaque", Confirmation: row.bound})), edConfig(issuerB, edStatic("k")))
		asked := 0
		var options koreauth.Options
		if row.sender != nil {
			options.Sender = koreauth.RequirementFunc(func(r *http.Request, c *koreauth.Claims) error {
				asked++
				return row.sender(r, c)
			})
		}
		_, err := koreauth.New(v, &options).Authenticate(bearerRequest("opaque"))
		assert.ErrorIs(t, err, row.want, row.name)
		assert.Equal(t, row.asked, asked, "%s: times that Sender was asked", row.name)
		_, err = v.Validate(t.Context(), "opaque")
		assert.Equal(t, row.bound != nil, errors.Is(err, koreauth.ErrBinding), "%s: Validate returned %v", row.name, err)
	}
}

func TestOpaque_Require(t *testing.T) {
	asked := map[string]int{}
	sawRequest := false
	config := func(issuer string, opaque koreauth.TokenValidator) koreauth.Config {
		c := edConfig(issuer, edStatic("k"))
		c.Opaque = opaque
		c.Require = []koreauth.Requirement{koreauth.RequirementFunc(func(r *http.Request, c *koreauth.Claims) error {
			asked[issuer]++
			sawRequest = r != nil
			if c.ClientID == "revoked" {
				return koreauth.ErrRevoked
			}
			return nil
		})}
		return c
	}
	opaque := koretest.Validator{Tokens: map[string]*koreauth.Claims{
		"valid": {ClientID: "c", Issuer: issuerA}, "revoked": {ClientID: "revoked", Issuer: issuerA},
	}}
	v := newValidator(t, config(issuerA, nil), config(issuerB, opaque))
	remembered := true
	guard := koreauth.New(v, &koreauth.Options{Observe: func(_ *http.Request, o koreauth.Outcome) { remembered = o.Remembered }}).Wrap(whoami)
	for range 3 { // An opaque token is never remembered.
		_, err := v.Validate(t.Context(), "valid")
		assert.NoError(t, err)
		assert.False(t, sawRequest, "Validate has no request")
		status, body := serve(guard, bearerRequest("valid"))
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, "c", body)
		assert.True(t, sawRequest, "a guard has a request")
		assert.False(t, remembered)
	}
	assert.Equal(t, map[string]int{issuerB: 6}, asked, "the requirements of the Config that has Opaque are checked, whatever the issuer in the claims")
	_, err := v.Validate(t.Context(), "revoked")
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	var refusal *koreauth.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "revoked", refusal.ClientID)
}

func TestOpaque_GetsTheContext(t *testing.T) {
	type key struct{}
	var got any
	v := newValidator(t, opaqueConfig(validateFunc(func(ctx context.Context, _ string) (*koreauth.Claims, error) {
		got = ctx.Value(key{})
		return &koreauth.Claims{}, nil
	})))
	_, err := v.Validate(context.WithValue(t.Context(), key{}, "value"), "opaque")
	require.NoError(t, err)
	assert.Equal(t, "value", got)
}

func TestOpaque_MayBeAnotherValidator(t *testing.T) {
	inner := newValidator(t, edConfig(issuerB, edStatic("k")))
	v := newValidator(t, opaqueConfig(inner))
	for range 2 {
		_, err := v.Validate(t.Context(), "opaque")
		assert.ErrorIs(t, err, koreauth.ErrMalformed)
		_, err = v.Validate(t.Context(), edTokenOf(t, issuerB, nil))
		assert.ErrorIs(t, err, koreauth.ErrIssuer, "a token with three segments is not for Opaque")
	}
}
