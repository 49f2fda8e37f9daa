package koreauth_test

import (
	"context"
	"crypto/rsa"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// validateAllocs returns the allocations of one call of Validate. Verifying a
// signature needs nine or more, so the number shows whether one was verified.
func validateAllocs(t *testing.T, v *koreauth.Validator, token string) float64 {
	t.Helper()
	return testing.AllocsPerRun(20, func() {
		if _, err := v.Validate(context.Background(), token); err != nil {
			t.Fatal(err)
		}
	})
}

// remember validates a token twice: it is remembered at its second sight.
func remember(t *testing.T, v *koreauth.Validator, token string) {
	t.Helper()
	for range 2 {
		_, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
	}
}

func TestMemory_SkipsSignature(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	_, uncached := newIssuer(t, "RS256", func(c *koreauth.Config) { c.CacheSize = -1 })
	token := issuer.Valid()
	cached, verified := validateAllocs(t, v, token), validateAllocs(t, uncached, token)
	assert.Less(t, cached, 10.0)
	assert.Greater(t, verified, cached+9, "no memory with a negative CacheSize")
}

// mutableKeySet is a KeySet whose keys a test can change.
type mutableKeySet struct{ keys []koreauth.Key }

func (c *mutableKeySet) Keys(context.Context, string, bool) ([]koreauth.Key, error) {
	return c.keys, nil
}

// newIssuerWithKeySet returns an issuer, a validator, its key set and the key that
// signs.
func newIssuerWithKeySet(t *testing.T) (*koretest.Issuer, *koreauth.Validator, *mutableKeySet, koreauth.Key) {
	t.Helper()
	key := signingKeys()["RS256"]
	signingKey := koreauth.Key{ID: key.ID, Algorithm: "RS256", Public: key.Public()}
	set := &mutableKeySet{[]koreauth.Key{signingKey}}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.HTTPClient, c.Keys = nil, set })
	return issuer, v, set, signingKey
}

func TestMemory_EntryEndsWithItsKey(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(signingKey koreauth.Key) []koreauth.Key
		want   error
	}{
		{"the key is gone", func(koreauth.Key) []koreauth.Key { return nil }, koreauth.ErrUnknownKey},
		{"another key has its ID", func(k koreauth.Key) []koreauth.Key {
			k.Public = signingKeys()["PS256"].Public()
			return []koreauth.Key{k}
		}, koreauth.ErrSignature},
		{"the key is now for another algorithm", func(k koreauth.Key) []koreauth.Key {
			k.Algorithm = "RS512"
			return []koreauth.Key{k}
		}, koreauth.ErrUnknownKey},
		{"the key now has no algorithm, so the signature is verified again", func(k koreauth.Key) []koreauth.Key {
			k.Algorithm = ""
			return []koreauth.Key{k}
		}, nil},
		{"a refresh returned the same key", func(k koreauth.Key) []koreauth.Key {
			parsed, err := koreauth.ParseKeys(keyDocument(t, signingKeys()["RS256"]))
			require.NoError(t, err)
			return parsed
		}, nil},
		{"another key with the ID is now before it", func(k koreauth.Key) []koreauth.Key {
			other := k
			other.Public = signingKeys()["PS256"].Public()
			return []koreauth.Key{other, k}
		}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			issuer, v, set, signingKey := newIssuerWithKeySet(t)
			token := issuer.Valid()
			remember(t, v, token)
			require.True(t, rememberedBy(t, v, token))
			set.keys = row.change(signingKey)
			_, err := v.Validate(t.Context(), token)
			require.ErrorIs(t, err, row.want)
			set.keys = []koreauth.Key{signingKey}
			_, err = v.Validate(t.Context(), token)
			require.NoError(t, err, "the key is back")
		})
	}
}

func TestMemory_EntrySurvivesRefresh(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		var parsed [2][]koreauth.Key // the same key, parsed twice
		for i := range parsed {
			keys, err := koreauth.ParseKeys(keyDocument(t, signingKeys()[alg]))
			require.NoError(t, err)
			parsed[i] = keys
		}
		calls := 0
		issuer, v := newIssuer(t, alg, func(c *koreauth.Config) {
			c.Algorithms, c.HTTPClient = []string{alg}, nil
			c.Keys = keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
				calls++
				return parsed[calls%2], nil
			})
		})
		_, uncached := newIssuer(t, alg, func(c *koreauth.Config) { c.Algorithms, c.CacheSize = []string{alg}, -1 })
		token := issuer.Valid()
		assert.Less(t, validateAllocs(t, v, token)+2, validateAllocs(t, uncached, token), "%s: allocations with no signature verified", alg)
	}
}

func TestMemory_RejectsReplacedKey(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		key := signingKeys()[alg]
		other, err := koretest.NewKey(alg)
		require.NoError(t, err)
		set := &mutableKeySet{[]koreauth.Key{{ID: key.ID, Algorithm: alg, Public: key.Public()}}}
		issuer, v := newIssuer(t, alg, func(c *koreauth.Config) { c.Algorithms, c.HTTPClient, c.Keys = []string{alg}, nil, set })
		token := issuer.Valid()
		remember(t, v, token)
		set.keys = []koreauth.Key{{ID: key.ID, Algorithm: alg, Public: other.Public()}}
		_, err = v.Validate(t.Context(), token)
		require.ErrorIs(t, err, koreauth.ErrSignature, alg)
	}
}

func TestMemory_TokenWithoutKid(t *testing.T) {
	issuer, v, set, signingKey := newIssuerWithKeySet(t)
	token := mintToken(t, issuer, koretest.Token{DropHeader: []string{"kid"}})
	remember(t, v, token)
	for i := range 4 {
		set.keys = append(set.keys, koreauth.Key{ID: "more", Public: &rsa.PublicKey{N: modulus(2048 + 8*i), E: 65537}})
		_, err := v.Validate(t.Context(), token)
		if i < 3 {
			require.NoError(t, err, "four keys could have signed the token")
		} else {
			require.ErrorIs(t, err, koreauth.ErrUnknownKey, "a new token would be rejected too")
		}
	}
	set.keys = []koreauth.Key{signingKey}
	_, err := v.Validate(t.Context(), token)
	require.NoError(t, err)
}

func TestMemory_ChecksTimesEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.MaxAge = 50 * time.Minute })
		short := mintToken(t, issuer, koretest.Token{Claims: map[string]any{"exp": time.Now().Add(time.Minute).Unix()}})
		long := issuer.Valid()
		for _, token := range []string{short, long} {
			remember(t, v, token)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		_, err := v.Validate(t.Context(), short)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = v.Validate(t.Context(), short)
		require.ErrorIs(t, err, koreauth.ErrExpired)
		_, err = v.Validate(t.Context(), long)
		require.NoError(t, err)
		time.Sleep(49 * time.Minute)
		_, err = v.Validate(t.Context(), long)
		require.ErrorIs(t, err, koreauth.ErrTooOld)
	})
}

// A remembered token that has expired would be rejected with any key.
func TestMemory_ExpiredTokenMakesNoFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetches []bool
		v := edValidator(t, keySetFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
			fetches = append(fetches, fetch)
			return edStatic("k"), nil
		}))
		token := edToken(t, "k", nil)
		for range 2 {
			_, err := v.Validate(t.Context(), token)
			require.NoError(t, err)
		}
		time.Sleep(24 * time.Hour)
		_, err := v.Validate(t.Context(), token)
		require.ErrorIs(t, err, koreauth.ErrExpired)
		assert.Equal(t, []bool{true, true, false}, fetches)
	})
}

func TestMemory_FollowsKeyRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, v := newIssuer(t, "RS256", nil)
		require.NoError(t, issuer.Register(koretest.Client{ID: "long", Lifetime: koretest.TwentyFourMonths}))
		token := mintToken(t, issuer, koretest.Token{ClientID: "long"})
		remember(t, v, token)

		issuer.Rotate()
		issuer.RemoveKey(signingKeys()["RS256"].ID)
		time.Sleep(14 * time.Minute)
		_, err := v.Validate(t.Context(), token)
		require.NoError(t, err, "the keys are not older than MaxAge")
		time.Sleep(time.Minute)
		_, err = v.Validate(t.Context(), token)
		require.NoError(t, err, "this starts a refresh in the background")
		synctest.Wait()
		_, err = v.Validate(t.Context(), token)
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "a remembered token is rejected after the refresh")

		issuer, v = newIssuer(t, "RS256", nil)
		require.NoError(t, issuer.Register(koretest.Client{ID: "long", Lifetime: koretest.TwentyFourMonths}))
		token = mintToken(t, issuer, koretest.Token{ClientID: "long"})
		remember(t, v, token)
		issuer.Behave(koretest.Status(500))
		time.Sleep(24*time.Hour - time.Second)
		_, err = v.Validate(t.Context(), token)
		require.NoError(t, err, "an outage of less than MaxStale")
		time.Sleep(time.Second)
		_, err = v.Validate(t.Context(), token)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
}

func TestMemory_KeysOfRemoteKeySet(t *testing.T) {
	withFakeTime(t, "an outage does not bring a removed key back", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		v := edValidator(t, net.keySet())
		token := edToken(t, "a", nil)
		remember(t, v, token)
		require.True(t, rememberedBy(t, v, token))
		net.respondKeys(keysOf("b"))
		wait(keysMaxAge)
		require.True(t, rememberedBy(t, v, token), "this starts a refresh in the background")
		synctest.Wait()
		net.respondKeys(connectionRefused)
		for range 3 {
			_, err := v.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "it is not known whether the key is back")
		}
		net.respondKeys(keysOf("b"))
		wait(keysInterval)
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	})
	withFakeTime(t, "after MaxStale the keys are not used, even if no retry is due", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=60"))
		set := net.keySet()
		set.MaxStale = keysMaxAge
		v := edValidator(t, set)
		token := edToken(t, "a", nil)
		remember(t, v, token)
		net.respondKeys(connectionRefused)
		start := time.Now()
		for time.Since(start) < keysMaxAge-time.Second {
			wait(time.Second)
			require.True(t, rememberedBy(t, v, token))
		}
		last := net.requestTimes(start, 0)[net.requestCount()-1]
		require.Greater(t, last+8*keysInterval, keysMaxAge+time.Second, "the next retry is due after MaxStale")
		wait(time.Second - 1)
		require.True(t, rememberedBy(t, v, token))
		wait(1)
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
	withFakeTime(t, "a new key under the old ID ends the token", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		token := edToken(t, "a", nil)
		remember(t, v, token)
		require.True(t, rememberedBy(t, v, token))
		net.respondKeys(reply(200, strings.Replace(edSet("b"), `"kid":"b"`, `"kid":"a"`, 1)))
		wait(keysMaxAge)
		require.True(t, rememberedBy(t, v, token), "this starts a refresh in the background")
		synctest.Wait()
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrSignature)
	})
	withFakeTime(t, "keys that did not change keep the token", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
		v := edValidator(t, net.keySet())
		token := edToken(t, "a", map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()})
		remember(t, v, token)
		for _, respond := range []responder{reply(304, ""), keysOf("a"), connectionRefused, keysOf("a", "b")} {
			net.respondKeys(respond)
			wait(keysMaxAge)
			require.True(t, rememberedBy(t, v, token), "this starts a refresh in the background")
			synctest.Wait()
			require.True(t, rememberedBy(t, v, token))
		}
		assert.Equal(t, 5, net.requestCount())
	})
}

func TestMemory_OmitsRejectedTokens(t *testing.T) {
	issuer, v, set, signingKey := newIssuerWithKeySet(t)
	for name, recipe := range map[string]koretest.Token{
		"a bad signature":  {BadSignature: true},
		"another audience": {Claims: map[string]any{"aud": "x"}},
		"expired":          {Age: 2 * time.Hour},
		"an ID token":      {Claims: map[string]any{"typ": "ID"}},
	} {
		token := mintToken(t, issuer, recipe)
		rejectedAllocs := func() float64 {
			return testing.AllocsPerRun(5, func() {
				if _, err := v.Validate(context.Background(), token); err == nil {
					t.Fatal(name)
				}
			})
		}
		assert.Greater(t, rejectedAllocs(), 15.0, "%s: allocations with the signature verified each time", name)
	}
	token := issuer.Valid()
	set.keys = nil
	_, err := v.Validate(t.Context(), token)
	require.ErrorIs(t, err, koreauth.ErrUnknownKey)
	set.keys = []koreauth.Key{signingKey}
	_, err = v.Validate(t.Context(), token)
	require.NoError(t, err)
}

func TestMemory_NotSharedByValidators(t *testing.T) {
	issuer, first := newIssuer(t, "RS256", nil)
	_, second := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Audience = []string{"other"} })
	token := issuer.Valid()
	remember(t, first, token)
	require.NoError(t, second.Ready(t.Context()))
	_, err := second.Validate(t.Context(), token)
	require.ErrorIs(t, err, koreauth.ErrAudience)
	_, err = first.Validate(t.Context(), token)
	require.NoError(t, err)
}

func TestMemory_ChecksRequirementsEachTime(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	guard := koreauth.New(v, nil)
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	allowed, denied := guard.Require(koreauth.Scope("email"))(ok), guard.Require(koreauth.Scope("other"))(ok)
	token := issuer.Valid()
	status := func(handler http.Handler) int {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	for range 3 {
		assert.Equal(t, 403, status(denied))
		assert.Equal(t, 204, status(allowed))
	}
	assert.Less(t, validateAllocs(t, v, token), 10.0, "allocations of a remembered token")
}

func TestMemory_ChecksBindingEachTime(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	token := mintToken(t, issuer, koretest.Token{Claims: map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}})
	guard := koreauth.New(v, &koreauth.Options{Sender: koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })})
	for range 3 {
		_, err := guard.Authenticate(bearerRequest(token))
		require.NoError(t, err)
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrBinding)
		_, err = koreauth.New(v, nil).Authenticate(bearerRequest(token))
		assert.ErrorIs(t, err, koreauth.ErrBinding)
	}
}

func TestMemory_ClaimsAreCopied(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	token := issuer.Valid()
	for range 3 {
		claims, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, koreauth.Read, claims.Resources[0].Access[0])
		require.Equal(t, "SuperSIM", claims.Products[0])
		claims.Resources[0].Access[0], claims.Products[0], claims.Scopes[0], claims.Audience[0] = "x", "x", "x", "x"
		claims.Resources[0].Name = "x"
	}
}

func TestMemory_FloodKeepsFrequentToken(t *testing.T) {
	issuer, v := newIssuer(t, "ES256", func(c *koreauth.Config) {
		c.Algorithms, c.CacheSize = []string{"ES256"}, 100
	})
	frequent := issuer.Valid()
	validate := func(token string) { remember(t, v, token) } // each displaces others
	forgotten := 0
	for i := range 2000 {
		validate(mintToken(t, issuer, koretest.Token{Claims: map[string]any{"jti": strconv.Itoa(i)}}))
		if validateAllocs(t, v, frequent) > 15 { // The first of 20 calls decides.
			forgotten++
		}
	}
	assert.LessOrEqual(t, forgotten, 20, "times forgotten, of 2000")
}

func TestMemory_StaysFlat(t *testing.T) {
	issuer, v := newIssuer(t, "ES256", func(c *koreauth.Config) {
		c.Algorithms, c.CacheSize = []string{"ES256"}, 50
	})
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	claims := make(map[string]any)
	flood := func(n int) {
		for i := range n {
			claims["jti"] = strconv.Itoa(i) + time.Now().String()
			remember(t, v, mintToken(t, issuer, koretest.Token{Claims: claims}))
		}
	}
	flood(200)
	before := heap()
	flood(2000)
	assert.Less(t, int64(heap())-int64(before), int64(50*4<<10), "growth in bytes after ten times as many tokens")
	runtime.KeepAlive(v)
}

// TestMemory_Allocations limits the allocations of a request. Benchmarks measure
// the times.
func TestMemory_Allocations(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	_, uncached := newIssuer(t, "RS256", func(c *koreauth.Config) { c.CacheSize = -1 })
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	reading := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { koreauth.FromContext(r.Context()) })
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Authorization", "Bearer "+issuer.Valid())
	w := httptest.NewRecorder()
	for _, row := range []struct {
		name    string
		handler http.Handler
		limit   float64
	}{
		{"a new token", koreauth.New(uncached, nil).Wrap(handler), 20},
		{"a remembered token", koreauth.New(v, nil).Wrap(handler), 4},
		{"a remembered token, with FromContext", koreauth.New(v, nil).Wrap(reading), 12},
	} {
		got := testing.AllocsPerRun(200, func() { row.handler.ServeHTTP(w, request) })
		if !raceDetector { // The race detector allocates too.
			assert.LessOrEqual(t, got, row.limit, row.name)
		}
	}
}

func TestMemory_BoundedInBytes(t *testing.T) {
	validator := func(size int) *koreauth.Validator {
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: size,
			Keys: keySetFunc(func(_ context.Context, kid string, _ bool) ([]koreauth.Key, error) {
				return []koreauth.Key{{ID: kid, Algorithm: "EdDSA", Public: edPublic("k")}}, nil
			}),
		})
		require.NoError(t, err)
		return v
	}
	long := strings.Repeat("x", 8<<10)
	for _, row := range []struct {
		name  string
		size  int
		token func(n int) string
		limit uint64
	}{
		{"large payloads count as several entries", 100, func(n int) string {
			return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d","x":%q}`, edIssuer, n, long))
		}, 100 * 4 << 10},
		{"many small values count too", 100, func(n int) string {
			return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":["api-gw"%s],"exp":99999999999,"jti":"%d"}`, edIssuer, strings.Repeat(`,""`, 2<<10), n))
		}, 100 * 4 << 10},
		{"copies of strings with an escape count too", 150, func(n int) string {
			return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d","sub":"\n%s"}`, edIssuer, n, long[:3200]))
		}, 150 * 3 << 10},
		{"spare capacity counts too", 150, func(n int) string {
			return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d","scopes":{"globalResources":[%s]}}`, edIssuer, n, strings.Repeat(`{"resourceName":"","access":[""]},`, 34)+`{}`))
		}, 150 * 3 << 10},
		{"a large kid counts too", 150, func(n int) string {
			return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"%d%s"}`, n, long), fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999}`, edIssuer))
		}, 150*4<<10 + 64*12<<10},
		{"a header is not kept with its token", 150, func(n int) string {
			return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":"%d","x":%q}`, n, long), fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d"}`, edIssuer, n))
		}, 64*12<<10 + 150<<10},
		{"few headers are kept", 1, func(n int) string {
			return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":"%d","x":%q}`, n, long), `{"iss":"`+edIssuer+`","aud":"api-gw","exp":99999999999}`)
		}, 64 * 12 << 10},
	} {
		v := validator(row.size)
		before := heapInUse()
		for n := range 150 {
			remember(t, v, row.token(n))
		}
		grown := int64(heapInUse()) - int64(before)
		assert.Less(t, grown, int64(row.limit)*3/2, row.name)
		runtime.KeepAlive(v)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // A sync.Pool is empty after two collections.
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestMemory_KeyChangeByAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		key := signingKeys()[alg]
		set := &mutableKeySet{[]koreauth.Key{{ID: key.ID, Public: key.Public()}}}
		validator := func(size int) (*koretest.Issuer, *koreauth.Validator) {
			return newIssuer(t, alg, func(c *koreauth.Config) {
				c.HTTPClient, c.Keys, c.Algorithms, c.CacheSize = nil, set, []string{alg}, size
			})
		}
		issuer, v := validator(0)
		_, uncached := validator(-1)
		token := issuer.Valid()
		// Each refresh returns the same key at another address.
		parsed, err := koreauth.ParseKeys(keyDocument(t, key))
		require.NoError(t, err)
		refreshAllocs := func(v *koreauth.Validator) float64 {
			return testing.AllocsPerRun(20, func() {
				set.keys[0].Public, parsed[0].Public = parsed[0].Public, set.keys[0].Public
				if _, err := v.Validate(context.Background(), token); err != nil {
					t.Fatal(err)
				}
			})
		}
		assert.Less(t, refreshAllocs(v)+5, refreshAllocs(uncached), "%s: allocations after a refresh that returns the same key", alg)

		other, err := koretest.NewKey(alg)
		require.NoError(t, err)
		set.keys[0].Public = other.Public()
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrSignature, "%s: another key has the ID", alg)
	}
}

// configsFor returns Configs of n issuers, and a function that mints their tokens.
func configsFor(n int) (configs []koreauth.Config, mint func(issuer, header int) string) {
	name := func(i int) string { return fmt.Sprintf("https://issuer-%d.example", i) }
	for i := range n {
		kid := fmt.Sprintf("k%d", i)
		configs = append(configs, koreauth.Config{
			Issuer: name(i), Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"},
			Keys: koreauth.StaticKeySet{{ID: kid, Public: edPublic("k")}},
		})
	}
	return configs, func(i, header int) string {
		return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"k%d","x":%d}`, i, header), `{"iss":"`+name(i)+`","aud":"api-gw","exp":99999999999}`)
	}
}

// remembers returns a function that validates a token and reports whether it was
// remembered.
func remembers(t *testing.T, v *koreauth.Validator) func(token string) bool {
	var last koreauth.Outcome
	guard := koreauth.New(v, &koreauth.Options{Observe: func(_ *http.Request, o koreauth.Outcome) { last = o }}).Wrap(whoami)
	return func(token string) bool {
		guard.ServeHTTP(httptest.NewRecorder(), bearerRequest(token))
		require.Nil(t, last.Refusal)
		return last.Remembered
	}
}

func TestMemory_ManyIssuers(t *testing.T) {
	for _, n := range []int{1, 2, 65, 300} {
		configs, mint := configsFor(n)
		v, err := koreauth.NewValidator(configs...)
		require.NoError(t, err)
		remembered := remembers(t, v)
		for round := range 3 { // A token is remembered at its second sight.
			for i := range n {
				assert.Equal(t, round > 1, remembered(mint(i, 0)), "issuer %d of %d, round %d", i+1, n, round+1)
			}
		}
	}
}

// 64 headers are remembered for each issuer, so that they are parsed once.
func TestMemory_RemembersHeaders(t *testing.T) {
	for _, issuers := range []int{1, 2} {
		configs, mint := configsFor(issuers)
		for i := range configs {
			configs[i].CacheSize = -1
		}
		v, err := koreauth.NewValidator(configs...)
		require.NoError(t, err)
		var tokens []string
		for header := range 64 * issuers {
			tokens = append(tokens, mint(0, header))
		}
		validateAll := func() (allocations uint64) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for _, token := range tokens {
				if _, err := v.Validate(context.Background(), token); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			return (after.Mallocs - before.Mallocs) / uint64(len(tokens))
		}
		once := validateAllocs(t, v, tokens[0]) // Its header is known at the second of 20 calls.
		assert.Greater(t, float64(validateAll()), once+3, "allocations for a new header, %d issuers", issuers)
		assert.LessOrEqual(t, float64(validateAll()), once+1, "allocations for a known header, %d issuers", issuers)
	}
}

// Nothing that one issuer signs may take the headers of another out of the memory.
func TestMemory_HeadersOfOneIssuer(t *testing.T) {
	configs, mint := configsFor(2)
	v, err := koreauth.NewValidator(configs...)
	require.NoError(t, err)
	remembered := remembers(t, v)
	other := mint(1, 0)
	remembered(other)
	remembered(other)
	for header := range 200 {
		remembered(mint(0, header))
		assert.True(t, remembered(other), "after %d headers of another issuer", header+1)
	}
}

func TestMemory_HugeSizes(t *testing.T) {
	for _, sizes := range [][]int{{math.MaxInt}, {math.MaxInt, math.MaxInt}, {math.MaxInt, math.MaxInt, 2}, {2, math.MaxInt}} {
		configs, mint := configsFor(len(sizes))
		for i, size := range sizes {
			configs[i].CacheSize = size
		}
		v, err := koreauth.NewValidator(configs...)
		require.NoError(t, err)
		remembered := remembers(t, v)
		remembered(mint(0, 0))
		remembered(mint(0, 0))
		assert.True(t, remembered(mint(0, 0)), "the sizes are %d", sizes)
	}
}
