package koreauth_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func TestRemoteKeySet_SharesOneFetch(t *testing.T) {
	withFakeTime(t, "a cached key costs no request and no allocation", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		for range 1000 {
			requireImmediate(t, set, "b", nil)
		}
		assert.Equal(t, 1, net.requestCount())
		ctx := t.Context()
		assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = set.Keys(ctx, "a", true) }))
	})
	withFakeTime(t, "an empty kid returns all keys", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		keys, err := net.keySet().Keys(t.Context(), "", true)
		require.NoError(t, err)
		assert.Equal(t, []koreauth.Key{
			{ID: "a", Algorithm: "EdDSA", Public: edPublic("a")}, {ID: "b", Algorithm: "EdDSA", Public: edPublic("b")},
		}, keys)
	})
	withFakeTime(t, "without fetch, Keys makes no request", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		for range 2 {
			for _, kid := range []string{"", "a", "b"} {
				_, err := set.Keys(t.Context(), kid, false)
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey, kid)
			}
		}
		assert.Zero(t, net.requestCount())
		wantKey(t, set, "a", 0)
		_, err := set.Keys(t.Context(), "b", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		wait(3 * keysMaxAge)
		keys, err := set.Keys(t.Context(), "a", false)
		assert.NoError(t, err, "a cached key is returned without a fetch")
		assert.Len(t, keys, 1)
		wait(keysMaxStale)
		_, err = set.Keys(t.Context(), "a", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "100 callers share one fetch, and a caller that gives up does not affect the others", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("a")))
		set := net.keySet()
		errCanceled := errors.New("the client disconnected")
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if i%10 != 0 {
					wantKey(t, set, "a", time.Second)
					return
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(300*time.Millisecond, func() { cancel(errCanceled) })
				keys, err := set.Keys(ctx, "a", true)
				assert.Empty(t, keys)
				assert.ErrorIs(t, err, koreauth.ErrUnavailable)
				assert.ErrorIs(t, err, errCanceled)
				assert.Equal(t, 300*time.Millisecond, time.Since(start))
			})
		}
		wg.Wait()
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "the fetch continues if the caller that started it gives up", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("a")))
		set := net.keySet()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := set.Keys(ctx, "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		wantKey(t, set, "a", 999*time.Millisecond)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "if a fetch fails, every waiting caller gets the cause", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, connectionRefused))
		set := net.keySet()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.ErrorIs(t, wantUnavailable(t, set, "a", time.Second, 0), errConnectionRefused) })
		}
		wg.Wait()
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "without cached keys, 100 concurrent unknown kids cause two fetches", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("a")))
		set := net.keySet()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				_, err := set.Keys(t.Context(), fmt.Sprint("unknown-", i), true)
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			})
		}
		wg.Wait()
		assert.Equal(t, []time.Duration{0, time.Second}, net.requestTimes(net.recorded()[0].time, 0),
			"callers that joined the first fetch need a second one: the first may be older than their key")
		for range 5 {
			_, err := set.Keys(t.Context(), "unknown", true)
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		}
		assert.Equal(t, 2+2, net.requestCount(), "the second fetch is the first of a burst of three")
	})
}

func TestRemoteKeySet_FetchesForUnknownKid(t *testing.T) {
	withFakeTime(t, "three fetches in a row, then exactly one per MinInterval", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		start := time.Now()
		for i := range 10 {
			wantUnknown(t, set, fmt.Sprint("unknown-", i), 0)
		}
		assert.Equal(t, []time.Duration{0, 0, 0}, net.requestTimes(start, 1))
		for i := 1; i <= 3; i++ {
			wait(keysInterval - 1)
			wantUnknown(t, set, "early", 0)
			assert.Equal(t, 1+3+i-1, net.requestCount())
			wait(1)
			wantUnknown(t, set, "in time", 0)
			wantUnknown(t, set, "one more", 0)
			assert.Equal(t, 1+3+i, net.requestCount())
		}
	})
	withFakeTime(t, "many random kids cause three fetches, then one per MinInterval", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			for range 4 {
				requireImmediate(t, set, rand.Text(), koreauth.ErrUnknownKey)
			}
			requireImmediate(t, set, "a", nil)
			wait(500 * time.Millisecond)
		}
		want := []time.Duration{0, 0, 0}
		for due := keysInterval; due < 10*time.Minute; due += keysInterval {
			want = append(want, due)
		}
		assert.Equal(t, want, net.requestTimes(start, 1))
	})
	withFakeTime(t, "concurrent requests with random kids cause no more fetches", func(t *testing.T, net *network) {
		net.respondKeys(delayed(200*time.Millisecond, keysOf("a")))
		set := net.keySet()
		wantKey(t, set, "a", 200*time.Millisecond)
		start := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for time.Since(start) < time.Minute {
					_, err := set.Keys(t.Context(), rand.Text(), true)
					if !errors.Is(err, koreauth.ErrUnknownKey) {
						t.Errorf("got %v, want ErrUnknownKey", err)
					}
					requireImmediate(t, set, "a", nil)
					time.Sleep(470 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		times := net.requestTimes(start, 1)
		assert.LessOrEqual(t, len(times), 3+6)
		for i := range len(times) - 3 {
			assert.GreaterOrEqual(t, times[i+3]-times[i], keysInterval, "got four fetches within one MinInterval, the first at %v", times[i])
		}
	})
	withFakeTime(t, "after a pause, three fetches in a row are allowed again, not more", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		for range 5 {
			wantUnknown(t, set, "unknown", 0)
		}
		require.Equal(t, 4, net.requestCount())
		wait(10 * time.Minute)
		for range 5 {
			wantUnknown(t, set, "unknown", 0)
		}
		assert.Equal(t, 7, net.requestCount())
	})
	withFakeTime(t, "the first token of a new key is accepted", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(time.Minute)
		net.respondKeys(delayed(30*time.Millisecond, keysOf("a", "b")))
		wantKey(t, set, "b", 30*time.Millisecond)
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "the first token of a new key is accepted after one or two unknown kids", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantUnknown(t, set, "unknown", 0)
		net.respondKeys(keysOf("a", "b"))
		wantKey(t, set, "b", 0)
		net.respondKeys(keysOf("a", "b", "c"))
		wantUnknown(t, set, "another unknown", 0)
		net.respondKeys(keysOf("b", "c", "d"))
		wantKey(t, set, "d", 0)
	})
	for _, rotated := range []time.Duration{1, time.Second, keysInterval - 1, keysInterval, keysInterval + 1, 33 * time.Second} {
		withFakeTime(t, fmt.Sprint("many unknown kids delay a new key by at most one MinInterval, if it is published after ", rotated), func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			start := time.Now()
			sendUnknownKids := func() {
				for range 5 {
					_, _ = set.Keys(t.Context(), rand.Text(), true)
				}
			}
			for time.Since(start) < rotated {
				sendUnknownKids()
				wait(min(100*time.Millisecond, rotated-time.Since(start)))
			}
			net.respondKeys(keysOf("b"))
			start = time.Now()
			for {
				sendUnknownKids()
				_, err := set.Keys(t.Context(), "b", true)
				if err == nil {
					break
				}
				require.ErrorIs(t, err, koreauth.ErrUnknownKey)
				require.Less(t, time.Since(start), keysInterval)
				wait(100 * time.Millisecond)
			}
			assert.LessOrEqual(t, time.Since(start), keysInterval)
			wantUnknown(t, set, "a", 0)
		})
	}
	withFakeTime(t, "a key published during a fetch is found by a second fetch", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a"))) // the response is fixed when the request is made
		var wg sync.WaitGroup
		wg.Go(func() { wantUnknown(t, set, "unknown", time.Second) })
		wait(500 * time.Millisecond)
		net.respondKeys(delayed(time.Second, keysOf("a", "b")))
		for range 50 {
			wg.Go(func() { wantKey(t, set, "b", 1500*time.Millisecond) })
		}
		wg.Wait()
		assert.Equal(t, 3, net.requestCount())
	})
	withFakeTime(t, "a key published during a background refresh is found by a second fetch", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(keysMaxAge)
		net.respondKeys(delayed(time.Second, keysOf("a")))
		wantKey(t, set, "a", 0)
		synctest.Wait()
		net.respondKeys(delayed(time.Second, keysOf("a", "b")))
		wantKey(t, set, "b", 2*time.Second)
		assert.Equal(t, 3, net.requestCount())
	})
	withFakeTime(t, "at the rate limit, an unknown kid gets ErrUnknownKey at once if the last fetch succeeded", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		for range 4 {
			wantUnknown(t, set, "unknown", 0)
		}
		count := net.requestCount()
		net.respondKeys(hanging)
		wantUnknown(t, set, "unknown", 0)
		assert.Equal(t, count, net.requestCount())
	})
	withFakeTime(t, "at the rate limit, an unknown kid gets ErrUnavailable at once if the last fetch failed", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		wantUnavailable(t, set, "b", 0, 0) // the rate limit allows two more
		wantUnavailable(t, set, "b", 0, 0)
		wantUnavailable(t, set, "b", 0, keysInterval)
		wait(4 * time.Second)
		assert.ErrorIs(t, wantUnavailable(t, set, "b", 0, 6*time.Second), errConnectionRefused)
		wantKey(t, set, "a", 0)
		assert.Equal(t, 4, net.requestCount())
		wait(6*time.Second - 1)
		wantUnavailable(t, set, "b", 0, 1)
		assert.Equal(t, 4, net.requestCount())
		wait(1)
		net.respondKeys(keysOf("b"))
		wantKey(t, set, "b", 0)
		wait(0)
		wantUnknown(t, set, "c", 0)
		assert.Equal(t, 5, net.requestCount())
	})
	withFakeTime(t, "during an outage, many unknown kids cause no more fetches", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			requireImmediate(t, set, rand.Text(), koreauth.ErrUnavailable)
			requireImmediate(t, set, "a", nil)
			wait(500 * time.Millisecond)
		}
		assert.Len(t, net.requestTimes(start, 1), 3+59)
	})
	withFakeTime(t, "MinInterval sets the time between fetches", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MinInterval = time.Minute
		wantKey(t, set, "a", 0)
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			for range 4 {
				requireImmediate(t, set, rand.Text(), koreauth.ErrUnknownKey)
			}
			wait(time.Second)
		}
		assert.Equal(t, []time.Duration{0, 0, 0, 1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute}, net.requestTimes(start, 1))
	})
	withFakeTime(t, "a MinInterval greater than MaxAge counts as MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MinInterval, set.MaxAge = time.Hour, time.Minute
		wantKey(t, set, "a", 0)
		start := time.Now()
		for range 4 {
			wantUnknown(t, set, "unknown", 0)
		}
		wait(time.Minute - 1)
		wantUnknown(t, set, "unknown", 0)
		assert.Equal(t, []time.Duration{0, 0, 0}, net.requestTimes(start, 1))
		wait(1)
		wantUnknown(t, set, "unknown", 0)
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute}, net.requestTimes(start, 1))

		net.respondKeys(connectionRefused)
		wait(time.Minute)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(time.Minute)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute, 2 * time.Minute, 3 * time.Minute}, net.requestTimes(start, 1),
			"a failed refresh is also retried after MaxAge")
	})
}

func TestRemoteKeySet_TokensThatFetch(t *testing.T) {
	forged := func(token string) string { return token[:len(token)-86] + rawURL(make([]byte, 64)) }
	payload := func(header, payload string) string {
		return rawURL([]byte(header)) + "." + rawURL([]byte(payload)) + "." + rawURL(make([]byte, 64))
	}
	claims := func(name string, value any) func(t *testing.T, kid string) string {
		return func(t *testing.T, kid string) string { return edToken(t, kid, map[string]any{name: value}) }
	}
	for _, c := range []struct {
		name    string
		token   func(t *testing.T, kid string) string
		known   error  // with the kid of a cached key
		unknown error  // with another kid
		cause   string // of ErrUnknownKey, for another kid; empty: it is fetched for
		empty   error  // the first token of all, with the kid of the issuer's key
	}{
		{"an otherwise valid token", func(t *testing.T, kid string) string { return edToken(t, kid, nil) }, nil, koreauth.ErrUnknownKey, "", nil},
		{"a forged token", func(t *testing.T, kid string) string { return forged(edToken(t, kid, nil)) }, koreauth.ErrSignature, koreauth.ErrUnknownKey, "", koreauth.ErrSignature},
		{"a token that is not valid yet", claims("nbf", time.Now().Add(time.Hour).Unix()), koreauth.ErrNotYetValid, koreauth.ErrUnknownKey, "", koreauth.ErrNotYetValid},
		{"a token of another type", claims("typ", "ID"), koreauth.ErrTokenType, koreauth.ErrUnknownKey, "", koreauth.ErrTokenType},
		{"another issuer", claims("iss", edIssuer+"/"), koreauth.ErrIssuer, koreauth.ErrUnknownKey, "issuer", koreauth.ErrIssuer},
		{"a missing issuer", claims("iss", nil), koreauth.ErrIssuer, koreauth.ErrUnknownKey, "issuer", koreauth.ErrIssuer},
		{"another audience", claims("aud", "account"), koreauth.ErrAudience, koreauth.ErrUnknownKey, "audience", koreauth.ErrAudience},
		{"no audience", claims("aud", nil), koreauth.ErrAudience, koreauth.ErrUnknownKey, "audience", koreauth.ErrAudience},
		{"an expired token", claims("exp", 1), koreauth.ErrExpired, koreauth.ErrUnknownKey, "expired", koreauth.ErrExpired},
		{"a token without exp", claims("exp", nil), koreauth.ErrExpired, koreauth.ErrUnknownKey, "exp", koreauth.ErrExpired},
		{"a sub that is a number", claims("sub", 1), koreauth.ErrMalformed, koreauth.ErrUnknownKey, `"sub" is neither a string nor null`, koreauth.ErrMalformed},
		{"a client_id that is an array", claims("client_id", []string{"x"}), koreauth.ErrMalformed, koreauth.ErrUnknownKey, `"client_id" is neither a string nor null`, koreauth.ErrMalformed},
		{"an expired and forged token", func(t *testing.T, kid string) string { return forged(edToken(t, kid, map[string]any{"exp": 1})) },
			koreauth.ErrSignature, koreauth.ErrUnknownKey, "expired", koreauth.ErrSignature},
	} {
		withFakeTime(t, c.name, func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			v := edValidator(t, net.keySet())
			_, err := v.Validate(t.Context(), c.token(t, "a"))
			assert.ErrorIs(t, err, c.empty, "the first token of a new validator")
			assert.Equal(t, 1, net.requestCount(), "requests for the first token")

			count := net.requestCount()
			_, err = v.Validate(t.Context(), c.token(t, "a"))
			assert.ErrorIs(t, err, c.known, "the kid of a cached key")
			fetches := 0
			if c.known == koreauth.ErrSignature && c.cause == "" {
				fetches = 1
			}
			assert.Equal(t, fetches, net.requestCount()-count, "requests for the kid of a cached key")

			count = net.requestCount()
			_, err = v.Validate(t.Context(), c.token(t, "new"))
			assert.ErrorIs(t, err, c.unknown, "an unknown kid")
			if c.cause == "" {
				assert.Equal(t, 1, net.requestCount()-count, "requests for an unknown kid")
				return
			}
			assert.Equal(t, count, net.requestCount(), "requests for an unknown kid")
			assert.ErrorContains(t, err, "not fetched: ")
			assert.ErrorContains(t, err, c.cause)
			assert.NotErrorIs(t, err, koreauth.ErrIssuer)
			assert.NotErrorIs(t, err, koreauth.ErrAudience)
			assert.NotErrorIs(t, err, koreauth.ErrExpired)
		})
	}
	for name, row := range map[string]struct {
		token string
		want  error
	}{
		"an algorithm that is not accepted":               {payload(`{"alg":"RS256","kid":"new"}`, `{}`), koreauth.ErrAlgorithm},
		"another type in the header":                      {payload(`{"alg":"EdDSA","kid":"new","typ":"dpop+jwt"}`, `{}`), koreauth.ErrTokenType},
		"a malformed payload":                             {payload(`{"alg":"EdDSA","kid":"new"}`, `{"iss":"`+edIssuer+`"`), koreauth.ErrUnknownKey},
		"a payload with good claims, then a syntax error": {payload(`{"alg":"EdDSA","kid":"new"}`, `{"iss":"`+edIssuer+`","aud":"api-gw","exp":99999999999,"x":}`), koreauth.ErrUnknownKey},
		"a duplicate in the payload":                      {payload(`{"alg":"EdDSA","kid":"new"}`, `{"exp":1,"exp":1}`), koreauth.ErrUnknownKey},
		"not base64url":                                   {"e30.e30.*", koreauth.ErrMalformed},
		"two segments":                                    {"e30.e30", koreauth.ErrMalformed},
		"an empty header":                                 {"e30.e30.", koreauth.ErrAlgorithm},
		"a crit header":                                   {payload(`{"alg":"EdDSA","kid":"new","crit":[]}`, `{}`), koreauth.ErrMalformed},
		"a kid that is spelled in two cases":              {payload(`{"alg":"EdDSA","Kid":"a"}`, `{}`), koreauth.ErrUnknownKey},
	} {
		withFakeTime(t, name+" causes no fetch", func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			v := edValidator(t, net.keySet())
			_, err := v.Validate(t.Context(), row.token)
			if name != "a kid that is spelled in two cases" { // It is well-formed, and the first.
				assert.ErrorIs(t, err, row.want, "without cached keys")
				assert.Zero(t, net.requestCount(), "requests without cached keys")
			}
			_, err = v.Validate(t.Context(), edToken(t, "a", nil))
			require.NoError(t, err)
			for range 3 {
				_, err = v.Validate(t.Context(), row.token)
				assert.ErrorIs(t, err, row.want)
				if strings.Contains(name, "payload") {
					assert.ErrorContains(t, err, "not fetched: ")
				}
			}
			assert.Equal(t, 1, net.requestCount())
		})
	}
	withFakeTime(t, "in an outage at start, tokens that cannot be valid cause one fetch per retry interval", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, net.keySet())
		start := time.Now()
		for time.Since(start) < 40*time.Second {
			for _, change := range []map[string]any{{"aud": "account"}, {"exp": 1}, {"iss": nil}} {
				_, err := v.Validate(t.Context(), edToken(t, rand.Text(), change))
				require.ErrorIs(t, err, koreauth.ErrUnavailable)
			}
			wait(125 * time.Millisecond)
		}
		want := []time.Duration{0}
		for interval := 250 * time.Millisecond; want[len(want)-1]+interval < 40*time.Second; interval = min(2*interval, keysInterval) {
			want = append(want, want[len(want)-1]+interval)
		}
		assert.Equal(t, want, net.requestTimes(start, 0))
	})
	withFakeTime(t, "Validate accepts the first token of a new key", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		require.NoError(t, err)
		net.respondKeys(keysOf("b"))
		_, err = v.Validate(t.Context(), edToken(t, "b", nil))
		assert.NoError(t, err)
		_, err = v.Validate(t.Context(), edToken(t, "a", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	})
	withFakeTime(t, "an outage is ErrUnavailable, and RetryAfter says when the next fetch is allowed", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, net.keySet())
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrInvalidToken)
		var rejection *koreauth.Error
		require.ErrorAs(t, err, &rejection)
		assert.Equal(t, koreauth.ErrUnavailable, rejection.Class)
		assert.Equal(t, 250*time.Millisecond, rejection.RetryAfter)
	})
}

func TestRemoteKeySet_RetriesWithoutKeys(t *testing.T) {
	ms := func(values ...int) []time.Duration {
		var durations []time.Duration
		for _, value := range values {
			durations = append(durations, time.Duration(value)*time.Millisecond)
		}
		return durations
	}
	withFakeTime(t, "the time between fetches grows from 250 ms to MinInterval, and between fetches no caller waits", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		start := time.Now()
		due := ms(0, 250, 750, 1750, 3750, 7750, 15750, 25750, 35750)
		for time.Since(start) < 36*time.Second {
			retry := time.Duration(0)
			for _, at := range append(due, 45750*time.Millisecond) {
				if at > time.Since(start) {
					retry = at - time.Since(start)
					break
				}
			}
			assert.ErrorIs(t, wantUnavailable(t, set, "a", 0, retry), errConnectionRefused)
			wantUnavailable(t, set, "", 0, retry)
			wait(50 * time.Millisecond)
		}
		assert.Equal(t, due, net.requestTimes(start, 0))
	})
	withFakeTime(t, "a fetch is allowed exactly at the end of that time, and a success begins it anew", func(t *testing.T, net *network) {
		set := net.keySet()
		for range 2 {
			net.respondKeys(connectionRefused)
			count := net.requestCount()
			wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			for i, interval := range ms(250, 500, 1000, 2000, 4000, 8000, 10000, 10000) {
				wait(interval - 1)
				wantUnavailable(t, set, "a", 0, 1)
				assert.Equal(t, i+1, net.requestCount()-count)
				wait(1)
				wantUnavailable(t, set, "a", 0, min(2*interval, keysInterval))
				assert.Equal(t, i+2, net.requestCount()-count)
			}
			net.respondKeys(keysOf("a"))
			wait(keysInterval)
			wantKey(t, set, "a", 0)
			wait(keysMaxStale) // The keys may no longer be used.
		}
	})
	withFakeTime(t, "keys are fetched every MinInterval if it is less than 250 ms", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		set.MinInterval = 100 * time.Millisecond
		wantUnavailable(t, set, "a", 0, 100*time.Millisecond)
		wait(100*time.Millisecond - 1)
		wantUnavailable(t, set, "a", 0, 1)
		wait(1)
		wantUnavailable(t, set, "a", 0, 100*time.Millisecond)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "a fetch that hangs ends after 5 seconds, and the next one starts at once", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		set := net.keySet()
		start := time.Now()
		assert.ErrorIs(t, wantUnavailable(t, set, "a", keysTimeout, 0), context.DeadlineExceeded)
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		assert.Equal(t, []time.Duration{0, keysTimeout}, net.requestTimes(start, 0))
	})
	withFakeTime(t, "fetches without keys do not count against the limit for unknown kids", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		for i := range 10 {
			retry := min(250*time.Millisecond<<i, keysInterval)
			wantUnavailable(t, set, "a", 0, retry)
			wait(retry)
		}
		net.respondKeys(keysOf("a"))
		start := time.Now()
		for range 6 {
			wantUnknown(t, set, "unknown", 0)
		}
		assert.Equal(t, []time.Duration{0, 0, 0, 0}, net.requestTimes(start, 10))
	})
}

// In random sequences of rotations, outages, pauses and calls of Keys, each
// result must agree with the documentation of RemoteKeySet.
func TestRemoteKeySet_RandomOperations(t *testing.T) {
	for seed := range uint64(20) {
		withFakeTime(t, fmt.Sprint("seed ", seed), func(t *testing.T, net *network) {
			testRandomOperations(t, net, mathrand.New(mathrand.NewPCG(seed, 1)))
		})
	}
}

func testRandomOperations(t *testing.T, net *network, random *mathrand.Rand) {
	set := net.keySet()
	set.MaxStale = time.Hour
	// The version of the issuer's document, and whether the issuer is up.
	published, up := 1, true
	var current atomic.Int64 // the version in the last response
	document := func(version int) responder {
		respond := keysOf(fmt.Sprint("k", version-1), fmt.Sprint("k", version))
		return func(req *http.Request) (*http.Response, error) {
			current.Store(int64(version))
			return respond(req)
		}
	}
	net.respondKeys(document(published))
	lastGood := time.Now().Add(-1000 * time.Hour)
	var fetches []time.Time // made while cached keys were usable
	for range 200 {
		switch random.IntN(8) {
		case 0:
			published++
		case 1:
			up = !up
		case 2:
			wait(time.Duration(random.Int64N(int64(2 * keysMaxAge))))
		case 3:
			wait(time.Duration(random.Int64N(int64(keysInterval))))
		}
		if up {
			net.respondKeys(document(published))
		} else {
			net.respondKeys([]responder{connectionRefused, reply(500, ""), reply(200, "{}")}[random.IntN(3)])
		}
		kid := []string{
			fmt.Sprint("k", published), fmt.Sprint("k", published-1), fmt.Sprint("k", random.IntN(published+1)),
			fmt.Sprint("unknown-", random.Uint64()),
		}[random.IntN(4)]
		before, requestsBefore, usable := int(current.Load()), net.requestCount(), time.Since(lastGood) < time.Hour
		keys, err := set.Keys(t.Context(), kid, true)
		synctest.Wait()
		fetched := net.requestCount() > requestsBefore
		after := int(current.Load())
		if fetched && usable {
			fetches = append(fetches, time.Now())
		}
		if fetched && up {
			lastGood = time.Now()
		}
		in := func(version int) bool {
			return version > 0 && (kid == fmt.Sprint("k", version) || kid == fmt.Sprint("k", version-1))
		}
		switch {
		case err == nil:
			require.Len(t, keys, 1)
			require.Equal(t, edPublic(kid), keys[0].Public)
			require.True(t, in(before) || in(after), "got a key that neither document contains: %s", kid)
			require.Less(t, time.Since(lastGood), time.Hour, "got a key after MaxStale")
		case errors.Is(err, koreauth.ErrUnknownKey):
			require.False(t, in(after), "got ErrUnknownKey for a cached key: %s", kid)
			require.True(t, !fetched || !in(published), "got ErrUnknownKey after a fetch of a document with the key: %s", kid)
		default:
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			require.True(t, !in(after) || time.Since(lastGood) >= time.Hour, "got ErrUnavailable for a cached key: %s", kid)
			require.True(t, !fetched || !up, "got ErrUnavailable although the issuer responded")
		}
	}
	for i := range len(fetches) - 4 { // three for unknown kids and one refresh
		require.GreaterOrEqual(t, fetches[i+4].Sub(fetches[i]), keysInterval, "got five fetches within one MinInterval")
	}
}

func TestValidator_Ready(t *testing.T) {
	withFakeTime(t, "Ready fetches the keys if none are cached", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		assert.Zero(t, net.requestCount(), "requests before Ready")
		for range 3 {
			assert.NoError(t, v.Ready(t.Context()))
		}
		assert.Equal(t, 1, net.requestCount())
		net.respondKeys(hanging)
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "Ready reports an outage, and succeeds after it", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, net.keySet())
		err := v.Ready(t.Context())
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errConnectionRefused)
		var rejection *koreauth.Error
		require.ErrorAs(t, err, &rejection)
		assert.Equal(t, 250*time.Millisecond, rejection.RetryAfter)
		net.respondKeys(keysOf("a"))
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
		wait(250 * time.Millisecond)
		assert.NoError(t, v.Ready(t.Context()))
	})
	withFakeTime(t, "Ready succeeds during an outage until MaxStale", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		net.respondKeys(connectionRefused)
		wait(keysMaxStale - 1)
		assert.NoError(t, v.Ready(t.Context()))
		wait(1)
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
	})
	withFakeTime(t, "Ready returns when its context is done", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		v := edValidator(t, net.keySet())
		errCanceled := errors.New("the probe timed out")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errCanceled)
		defer cancel()
		start := time.Now()
		err := v.Ready(ctx)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errCanceled)
		assert.Equal(t, time.Second, time.Since(start))
		wait(keysTimeout)
	})
	t.Run("Ready succeeds with a StaticKeySet", func(t *testing.T) {
		assert.NoError(t, edValidator(t, koreauth.StaticKeySet{{ID: "a", Public: edPublic("a")}}).Ready(t.Context()))
	})
	t.Run("Ready returns ErrUnavailable if the KeySet has no keys", func(t *testing.T) {
		for _, none := range []error{nil, koreauth.ErrUnknownKey} {
			err := edValidator(t, emptyKeySet{none}).Ready(t.Context())
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "Keys returned the error %v", none)
			assert.NotErrorIs(t, err, koreauth.ErrInvalidToken, "Keys returned the error %v", none)
		}
	})
}

// emptyKeySet has no keys. Its Keys returns err, which may be nil.
type emptyKeySet struct{ err error }

func (n emptyKeySet) Keys(context.Context, string, bool) ([]koreauth.Key, error) { return nil, n.err }
