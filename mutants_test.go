package koreauth_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// Tests without which a mutant of internal/mutants would survive.

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

func TestATokenInJSONIsAString(t *testing.T) {
	for _, value := range []string{`null`, `["a"]`, `{"t":"a"}`, `7`, `true`} {
		_, err := found(post(jsonType, `{"t":`+value+`}`), koreauth.JSON("t"))
		assert.Equal(t, http.StatusBadRequest, statusOf(err), value)
	}
}

func statusOf(err error) int {
	status, _, _ := koreauth.RFC6750Errors(err)
	return status
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

func TestTheMemoryIsBoundedInBytes(t *testing.T) {
	validator := func(size int) *koreauth.Validator {
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: size,
			Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
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
			return fuzzSigned(fuzzHeader, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d","x":%q}`, edIssuer, n, long))
		}, 100 * 4 << 10},
		{"many small values count as well", 100, func(n int) string {
			return fuzzSigned(fuzzHeader, fmt.Sprintf(`{"iss":%q,"aud":["api-gw"%s],"exp":99999999999,"jti":"%d"}`, edIssuer, strings.Repeat(`,""`, 2<<10), n))
		}, 100 * 4 << 10},
		{"headers are few", 1, func(n int) string {
			return fuzzSigned(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":"%d","x":%q}`, n, long), `{"iss":"`+edIssuer+`","aud":"api-gw","exp":99999999999}`)
		}, 64 * 12 << 10},
	} {
		v := validator(row.size)
		before := heapInUse()
		for n := range 500 {
			_, err := v.Validate(t.Context(), row.token(n))
			require.NoError(t, err)
		}
		grown := int64(heapInUse()) - int64(before)
		assert.Less(t, grown, int64(row.limit)*3/2, row.name)
		runtime.KeepAlive(v)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // What a sync.Pool held is gone after two.
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
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
