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
	withFakeTime(t, "a key at hand is served without a request and without an allocation", func(t *testing.T, net *network) {
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
	withFakeTime(t, "all keys are the answer to an empty kid", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		keys, err := net.keySet().Keys(t.Context(), "", true)
		require.NoError(t, err)
		assert.Equal(t, []koreauth.Key{
			{ID: "a", Algorithm: "EdDSA", Public: edPublic("a")}, {ID: "b", Algorithm: "EdDSA", Public: edPublic("b")},
		}, keys)
	})
	withFakeTime(t, "without fetch the network is not asked", func(t *testing.T, net *network) {
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
		assert.NoError(t, err, "keys at hand are no question of the network")
		assert.Len(t, keys, 1)
		wait(keysMaxStale)
		_, err = set.Keys(t.Context(), "a", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "100 callers wait for one fetch, and one who leaves does not disturb the others", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("a")))
		set := net.keySet()
		errLeft := errors.New("the client hung up")
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if i%10 != 0 {
					wantKey(t, set, "a", time.Second)
					return
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(300*time.Millisecond, func() { cancel(errLeft) })
				keys, err := set.Keys(ctx, "a", true)
				assert.Empty(t, keys)
				assert.ErrorIs(t, err, koreauth.ErrUnavailable)
				assert.ErrorIs(t, err, errLeft)
				assert.Equal(t, 300*time.Millisecond, time.Since(start))
			})
		}
		wg.Wait()
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "the one who began the fetch may leave, and it goes on", func(t *testing.T, net *network) {
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
	withFakeTime(t, "all who wait for a fetch that fails learn why", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, connectionRefused))
		set := net.keySet()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.ErrorIs(t, wantUnavailable(t, set, "a", time.Second, 0), errConnectionRefused) })
		}
		wg.Wait()
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "100 forged kids at once and nothing at hand cost two fetches", func(t *testing.T, net *network) {
		net.respondKeys(delayed(time.Second, keysOf("a")))
		set := net.keySet()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				_, err := set.Keys(t.Context(), fmt.Sprint("forged-", i), true)
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			})
		}
		wg.Wait()
		assert.Equal(t, []time.Duration{0, time.Second}, net.requestTimes(net.recorded()[0].time, 0),
			"those who came after it had begun may not take its answer for the last word")
	})
}

func TestRemoteKeySet_FetchesForUnknownKid(t *testing.T) {
	withFakeTime(t, "a burst of three, then once per MinInterval, to the nanosecond", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		start := time.Now()
		for i := range 10 {
			wantUnknown(t, set, fmt.Sprint("forged-", i), 0)
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
	withFakeTime(t, "a flood of random kids costs the burst and one fetch per interval", func(t *testing.T, net *network) {
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
		for at := keysInterval; at < 10*time.Minute; at += keysInterval {
			want = append(want, at)
		}
		assert.Equal(t, want, net.requestTimes(start, 1))
	})
	withFakeTime(t, "a concurrent flood costs no more", func(t *testing.T, net *network) {
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
			assert.GreaterOrEqual(t, times[i+3]-times[i], keysInterval, "four fetches within one interval at %v", times[i])
		}
	})
	withFakeTime(t, "rest earns a burst of three again, not more", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		for range 5 {
			wantUnknown(t, set, "forged", 0)
		}
		require.Equal(t, 4, net.requestCount())
		wait(10 * time.Minute)
		for range 5 {
			wantUnknown(t, set, "forged", 0)
		}
		assert.Equal(t, 7, net.requestCount())
	})
	withFakeTime(t, "a rotation is accepted on its first token", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(time.Minute)
		net.respondKeys(delayed(30*time.Millisecond, keysOf("a", "b")))
		wantKey(t, set, "b", 30*time.Millisecond)
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "a rotation is accepted on its first token right after a forged kid, and after two", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantUnknown(t, set, "forged", 0)
		net.respondKeys(keysOf("a", "b"))
		wantKey(t, set, "b", 0)
		net.respondKeys(keysOf("a", "b", "c"))
		wantUnknown(t, set, "forged again", 0)
		net.respondKeys(keysOf("b", "c", "d"))
		wantKey(t, set, "d", 0)
	})
	for _, rotated := range []time.Duration{1, time.Second, keysInterval - 1, keysInterval, keysInterval + 1, 33 * time.Second} {
		withFakeTime(t, fmt.Sprint("in a flood a rotation is delayed by one interval at most; rotated after ", rotated), func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			start := time.Now()
			flood := func() {
				for range 5 {
					_, _ = set.Keys(t.Context(), rand.Text(), true)
				}
			}
			for time.Since(start) < rotated {
				flood()
				wait(min(100*time.Millisecond, rotated-time.Since(start)))
			}
			net.respondKeys(keysOf("b"))
			start = time.Now()
			for {
				flood()
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
	withFakeTime(t, "a kid that appears while a fetch is under way is found by a second one", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a"))) // what it answers is settled at its start
		var wg sync.WaitGroup
		wg.Go(func() { wantUnknown(t, set, "forged", time.Second) })
		wait(500 * time.Millisecond)
		net.respondKeys(delayed(time.Second, keysOf("a", "b")))
		for range 50 {
			wg.Go(func() { wantKey(t, set, "b", 1500*time.Millisecond) })
		}
		wg.Wait()
		assert.Equal(t, 3, net.requestCount())
	})
	withFakeTime(t, "a kid that appears while the keys are refreshed is found by a second fetch", func(t *testing.T, net *network) {
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
	withFakeTime(t, "no key for it and the limit reached: ErrUnknownKey at once if the last fetch succeeded", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		for range 4 {
			wantUnknown(t, set, "forged", 0)
		}
		count := net.requestCount()
		net.respondKeys(hanging)
		wantUnknown(t, set, "forged", 0)
		assert.Equal(t, count, net.requestCount())
	})
	withFakeTime(t, "no key for it and the limit reached: ErrUnavailable at once if the last fetch failed", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		wantUnavailable(t, set, "b", 0, 0) // two more are free
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
	withFakeTime(t, "a flood in an outage costs no more than one out of it", func(t *testing.T, net *network) {
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
	withFakeTime(t, "MinInterval is the interval", func(t *testing.T, net *network) {
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
	withFakeTime(t, "MinInterval counts as no more than MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MinInterval, set.MaxAge = time.Hour, time.Minute
		wantKey(t, set, "a", 0)
		start := time.Now()
		for range 4 {
			wantUnknown(t, set, "forged", 0)
		}
		wait(time.Minute - 1)
		wantUnknown(t, set, "forged", 0)
		assert.Equal(t, []time.Duration{0, 0, 0}, net.requestTimes(start, 1))
		wait(1)
		wantUnknown(t, set, "forged", 0)
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute}, net.requestTimes(start, 1))

		net.respondKeys(connectionRefused)
		wait(time.Minute)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(time.Minute)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute, 2 * time.Minute, 3 * time.Minute}, net.requestTimes(start, 1),
			"a failed refresh too is tried again after MaxAge")
	})
}

func TestRemoteKeySet_InvalidTokensDoNotFetch(t *testing.T) {
	for _, c := range []struct {
		sentence string
		token    func(t *testing.T) string
		want     error
		fetches  int
	}{
		{"an unknown kid fetches, if all else may be good", func(t *testing.T) string { return edToken(t, "new", nil) }, koreauth.ErrUnknownKey, 1},
		{"a bad signature never fetches", func(t *testing.T) string {
			token := edToken(t, "a", nil)
			return token[:len(token)-86] + rawURL(make([]byte, 64))
		}, koreauth.ErrSignature, 0},
		{"another issuer never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"iss": edIssuer + "/"}) }, koreauth.ErrUnknownKey, 0},
		{"no issuer never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"iss": nil}) }, koreauth.ErrUnknownKey, 0},
		{"another audience never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"aud": "other"}) }, koreauth.ErrUnknownKey, 0},
		{"an expired token never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"exp": time.Now().Unix()}) }, koreauth.ErrUnknownKey, 0},
		{"a token without exp never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"exp": nil}) }, koreauth.ErrUnknownKey, 0},
		{"an algorithm that is not on the list never fetches", func(t *testing.T) string {
			_, rest, _ := strings.Cut(edToken(t, "new", nil), ".")
			return rawURL([]byte(`{"alg":"RS256","kid":"new"}`)) + "." + rest
		}, koreauth.ErrAlgorithm, 0},
	} {
		withFakeTime(t, c.sentence, func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			v := edValidator(t, net.keySet())
			_, err := v.Validate(t.Context(), edToken(t, "a", nil))
			require.NoError(t, err)
			require.Equal(t, 1, net.requestCount())
			for range 3 {
				_, err = v.Validate(t.Context(), c.token(t))
				assert.ErrorIs(t, err, c.want)
			}
			assert.Equal(t, 3*c.fetches, net.requestCount()-1)
		})
		if c.fetches == 0 && c.want == koreauth.ErrUnknownKey {
			withFakeTime(t, c.sentence+", not even with no keys at hand", func(t *testing.T, net *network) {
				net.respondKeys(keysOf("a"))
				_, err := edValidator(t, net.keySet()).Validate(t.Context(), c.token(t))
				assert.ErrorIs(t, err, c.want)
				assert.Zero(t, net.requestCount())
			})
		}
	}
	withFakeTime(t, "a token of a new key is accepted on its first request", func(t *testing.T, net *network) {
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
	withFakeTime(t, "an outage is ErrUnavailable, with the time of the next try", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, net.keySet())
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrInvalidToken)
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, koreauth.ErrUnavailable, refusal.Class)
		assert.Equal(t, 250*time.Millisecond, refusal.RetryAfter)
	})
}

func TestRemoteKeySet_RetriesWithoutKeys(t *testing.T) {
	withFakeTime(t, "every 250 ms a fetch, and no caller waits meanwhile", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		start := time.Now()
		for time.Since(start) < 2*time.Second {
			retry := 250*time.Millisecond - time.Since(start)%(250*time.Millisecond)
			assert.ErrorIs(t, wantUnavailable(t, set, "a", 0, retry), errConnectionRefused)
			wantUnavailable(t, set, "", 0, retry)
			wait(10 * time.Millisecond)
		}
		var want []time.Duration
		for at := time.Duration(0); at < 2*time.Second; at += 250 * time.Millisecond {
			want = append(want, at)
		}
		assert.Equal(t, want, net.requestTimes(start, 0))
	})
	withFakeTime(t, "to the nanosecond", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		wait(250*time.Millisecond - 1)
		wantUnavailable(t, set, "a", 0, 1)
		assert.Equal(t, 1, net.requestCount())
		wait(1)
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "every MinInterval, where that is less", func(t *testing.T, net *network) {
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
	withFakeTime(t, "an issuer that is back is used within 250 ms, whatever its Retry-After said", func(t *testing.T, net *network) {
		net.respondKeys(reply(503, "", "Retry-After: 86400"))
		set := net.keySet()
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respondKeys(keysOf("a"))
		wait(249 * time.Millisecond)
		wantUnavailable(t, set, "a", 0, time.Millisecond)
		wait(time.Millisecond)
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "a fetch that hangs ends after 5 seconds, and the next begins at once", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		set := net.keySet()
		start := time.Now()
		assert.ErrorIs(t, wantUnavailable(t, set, "a", keysTimeout, 0), context.DeadlineExceeded)
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		assert.Equal(t, []time.Duration{0, keysTimeout}, net.requestTimes(start, 0))
	})
	withFakeTime(t, "the burst for unknown kids is untouched by it", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		set := net.keySet()
		for range 10 {
			wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			wait(250 * time.Millisecond)
		}
		net.respondKeys(keysOf("a"))
		start := time.Now()
		for range 6 {
			wantUnknown(t, set, "forged", 0)
		}
		assert.Equal(t, []time.Duration{0, 0, 0, 0}, net.requestTimes(start, 10))
	})
}

// What is asked of the set at random, seconds or months apart, by many at once,
// never breaks what DESIGN says of it, whatever the issuer does.
func TestRemoteKeySet_RandomOperations(t *testing.T) {
	for seed := range uint64(20) {
		withFakeTime(t, fmt.Sprint("seed ", seed), func(t *testing.T, net *network) { testRandomOperations(t, net, mathrand.New(mathrand.NewPCG(seed, 1))) })
	}
}

func testRandomOperations(t *testing.T, net *network, random *mathrand.Rand) {
	set := net.keySet()
	set.MaxStale = time.Hour
	// What the issuer published at which time; only the test writes it.
	published, up := 1, true
	var current atomic.Int64 // the version of the last document that was answered
	document := func(version int) responder {
		p := keysOf(fmt.Sprint("k", version-1), fmt.Sprint("k", version))
		return func(req *http.Request) (*http.Response, error) {
			current.Store(int64(version))
			return p(req)
		}
	}
	net.respondKeys(document(published))
	lastGood := time.Now().Add(-1000 * time.Hour)
	var fetches []time.Time // that were made although keys were at hand
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
		kid := []string{fmt.Sprint("k", published), fmt.Sprint("k", published-1), fmt.Sprint("k", random.IntN(published+1)), fmt.Sprint("forged-", random.Uint64())}[random.IntN(4)]
		before, asked, atHand := int(current.Load()), net.requestCount(), time.Since(lastGood) < time.Hour
		keys, err := set.Keys(t.Context(), kid, true)
		synctest.Wait()
		fetched := net.requestCount() > asked
		after := int(current.Load())
		if fetched && atHand {
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
			require.True(t, in(before) || in(after), "a key that no document at hand had: %s", kid)
			require.Less(t, time.Since(lastGood), time.Hour, "a key over MaxStale")
		case errors.Is(err, koreauth.ErrUnknownKey):
			require.False(t, in(after), "a key at hand was refused: %s", kid)
			require.True(t, !fetched || !in(published), "a fetch did not find a published key: %s", kid)
		default:
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			require.True(t, !in(after) || time.Since(lastGood) >= time.Hour, "a key at hand was unavailable: %s", kid)
			require.True(t, !fetched || !up, "unavailable, but the issuer answered")
		}
	}
	for i := range len(fetches) - 4 { // a burst of three for unknown kids, and one because the keys are old
		require.GreaterOrEqual(t, fetches[i+4].Sub(fetches[i]), keysInterval, "five fetches within one interval")
	}
}

func TestValidator_Ready(t *testing.T) {
	withFakeTime(t, "fetches keys if there are none", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		assert.Zero(t, net.requestCount(), "before it is asked")
		for range 3 {
			assert.NoError(t, v.Ready(t.Context()))
		}
		assert.Equal(t, 1, net.requestCount())
		net.respondKeys(hanging)
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "tells an outage, and its end", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, net.keySet())
		err := v.Ready(t.Context())
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errConnectionRefused)
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, 250*time.Millisecond, refusal.RetryAfter)
		net.respondKeys(keysOf("a"))
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
		wait(250 * time.Millisecond)
		assert.NoError(t, v.Ready(t.Context()))
	})
	withFakeTime(t, "is ready through an outage while the last good keys serve", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		net.respondKeys(connectionRefused)
		wait(keysMaxStale - 1)
		assert.NoError(t, v.Ready(t.Context()))
		wait(1)
		assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable)
	})
	withFakeTime(t, "is bound by its context", func(t *testing.T, net *network) {
		net.respondKeys(hanging)
		v := edValidator(t, net.keySet())
		errLeft := errors.New("the probe gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLeft)
		defer cancel()
		start := time.Now()
		err := v.Ready(ctx)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errLeft)
		assert.Equal(t, time.Second, time.Since(start))
		wait(keysTimeout)
	})
	t.Run("is ready with a StaticKeySet", func(t *testing.T) {
		assert.NoError(t, edValidator(t, koreauth.StaticKeySet{{ID: "a", Public: edPublic("a")}}).Ready(t.Context()))
	})
	t.Run("is not ready with a KeySet that has none, and says ErrUnavailable", func(t *testing.T) {
		for _, none := range []error{nil, koreauth.ErrUnknownKey} {
			err := edValidator(t, emptyKeySet{none}).Ready(t.Context())
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "Keys gave %v", none)
			assert.NotErrorIs(t, err, koreauth.ErrInvalidToken, "Keys gave %v", none)
		}
	})
}

// noKeys is a KeySet that has none and says so in either of the two ways.
type emptyKeySet struct{ err error }

func (n emptyKeySet) Keys(context.Context, string, bool) ([]koreauth.Key, error) { return nil, n.err }
