package koreauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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

func TestRemoteKeySet_RefreshesInBackground(t *testing.T) {
	withFakeTime(t, "at MaxAge, and not one nanosecond before", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.requestCount())
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount())
		wait(keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount())
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 3, net.requestCount())
	})
	withFakeTime(t, "nobody asks, nothing is fetched", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(100 * time.Hour)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "a refresh that hangs makes nobody wait", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		wait(keysMaxAge)
		start := time.Now()
		for time.Since(start) < time.Minute {
			for range 3 {
				requireImmediate(t, set, "a", nil)
			}
			wait(100 * time.Millisecond)
		}
		want := []time.Duration{}
		for at := time.Duration(0); at < time.Minute; at += keysInterval {
			want = append(want, at)
		}
		assert.Equal(t, want, net.requestTimes(start, 1))
		wait(keysTimeout) // the last one ends
	})
	withFakeTime(t, "100 callers at once start one", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a")))
		wait(keysMaxAge)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { wantKey(t, set, "a", 0) })
		}
		wg.Wait()
		wait(time.Second)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "failures are retried once per MinInterval, to the nanosecond", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(503, `{"error":"x"}`, "Retry-After: 3600"))
		wait(keysMaxAge)
		start := time.Now()
		wantKey(t, set, "a", 0)
		synctest.Wait()
		for i := range 3 {
			wait(keysInterval - 1)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			assert.Len(t, net.requestTimes(start, 1), i+1)
			wait(1)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			assert.Len(t, net.requestTimes(start, 1), i+2)
		}
		net.respondKeys(keysOf("a", "b"))
		wait(keysInterval)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wantKey(t, set, "b", 0)
		assert.Len(t, net.requestTimes(start, 1), 5)
	})
	withFakeTime(t, "a removed key is gone at the next refresh", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(keysOf("b"))
		wait(keysMaxAge)
		wantKey(t, set, "a", 0) // and this starts it
		synctest.Wait()
		wantUnknown(t, set, "a", 0)
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a key replaced under its kid is replaced at the next refresh", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(200, strings.Replace(edSet("b"), `"kid":"b"`, `"kid":"a"`, 1)))
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		keys, err := set.Keys(t.Context(), "a", true)
		require.NoError(t, err)
		assert.Equal(t, []koreauth.Key{{ID: "a", Algorithm: "EdDSA", Public: edPublic("b")}}, keys)
	})
	withFakeTime(t, "MaxAge is the age", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge = time.Hour
		wantKey(t, set, "a", 0)
		wait(time.Hour - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.requestCount())
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "the largest durations do not wrap", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=10"))
		set := net.keySet()
		set.MinInterval, set.MaxAge, set.MaxStale = keysInterval, math.MaxInt64, math.MaxInt64
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		wait(time.Hour)
		wantKey(t, set, "a", 0)
		wait(keysTimeout)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "the largest interval does not wrap", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MinInterval, set.MaxAge, set.MaxStale = math.MaxInt64, math.MaxInt64, math.MaxInt64
		wantKey(t, set, "a", 0)
		for range 10 {
			wantUnknown(t, set, "forged", 0)
		}
		assert.Equal(t, 4, net.requestCount())
	})
}

func TestRemoteKeySet_CallerWaitsAfterTwoMaxAge(t *testing.T) {
	withFakeTime(t, "and gets the new keys", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "old"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a", "b")))
		wait(2 * keysMaxAge)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { wantUnknownWithin(t, set, "old", 2*time.Second) })
			wg.Go(func() { wantKey(t, set, "a", time.Second) })
			wg.Go(func() { wantKey(t, set, "b", time.Second) })
		}
		wg.Wait()
	})
	withFakeTime(t, "but not one nanosecond before two MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(2*keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		wait(time.Second)
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a removed key does not serve those who waited", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(3 * keysMaxAge)
		wantUnknown(t, set, "a", time.Second)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "and falls back on the old keys if it fails", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, connectionRefused))
		wait(2 * keysMaxAge)
		wantKey(t, set, "a", time.Second)
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "and falls back on the old keys if it hangs", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		wait(2 * keysMaxAge)
		start := time.Now()
		wantKey(t, set, "a", keysTimeout)
		wantKey(t, set, "a", 0)
		wait(keysInterval - keysTimeout)
		wantKey(t, set, "a", 0)
		wait(keysTimeout)
		assert.Equal(t, []time.Duration{0, keysInterval}, net.requestTimes(start, 1))
	})
	withFakeTime(t, "and one who leaves meanwhile is told so", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a")))
		wait(2 * keysMaxAge)
		errLeft := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errLeft) })
		_, err := set.Keys(ctx, "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errLeft)
		wantKey(t, set, "a", 999*time.Millisecond)
	})
	withFakeTime(t, "a try that failed counts as a try", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(2*keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		wait(time.Second)
		wantKey(t, set, "b", 0)
	})
}

func TestRemoteKeySet_ClampsCacheControl(t *testing.T) {
	for _, c := range []struct {
		sentence string
		lines    []string
		want     time.Duration
	}{
		{"none: MaxAge", nil, keysMaxAge},
		{"between the two: as it says", []string{"max-age=60"}, time.Minute},
		{"zero: MinInterval", []string{"max-age=0"}, keysInterval},
		{"less than MinInterval: MinInterval", []string{"max-age=9"}, keysInterval},
		{"just MinInterval", []string{"max-age=10"}, keysInterval},
		{"just more than MinInterval", []string{"max-age=11"}, 11 * time.Second},
		{"just MaxAge", []string{"max-age=900"}, keysMaxAge},
		{"more than MaxAge: MaxAge", []string{"max-age=901"}, keysMaxAge},
		{"a day: MaxAge", []string{"max-age=86400"}, keysMaxAge},
		{"2^31: MaxAge (RFC 9111 §1.2.2)", []string{"max-age=2147483648"}, keysMaxAge},
		{"more than nanoseconds hold: MaxAge", []string{"max-age=9223372037"}, keysMaxAge},
		{"more than 64 bits hold: MaxAge", []string{"max-age=99999999999999999999999999"}, keysMaxAge},
		{"in any case", []string{"Max-AGE=60"}, time.Minute},
		{"quoted (RFC 9111 §5.2)", []string{`max-age="60"`}, time.Minute},
		{"among others", []string{"public, must-revalidate,max-age=60 , no-transform"}, time.Minute},
		{"on the second line", []string{"public", "max-age=60"}, time.Minute},
		{"s-maxage is not ours", []string{"s-maxage=60"}, keysMaxAge},
		{"s-maxage is not ours, beside ours", []string{"s-maxage=30, max-age=60"}, time.Minute},
		{"no-store beside it does not lose it", []string{"no-store, max-age=60"}, time.Minute},
		{"no-store alone: MaxAge", []string{"no-store"}, keysMaxAge},
		{"negative: not valid", []string{"max-age=-1"}, keysMaxAge},
		{"a fraction: not valid", []string{"max-age=60.5"}, keysMaxAge},
		{"a word: not valid", []string{"max-age=soon"}, keysMaxAge},
		{"empty: not valid", []string{"max-age="}, keysMaxAge},
		{"without a value: not valid", []string{"max-age"}, keysMaxAge},
		{"a sign: not valid", []string{"max-age=+60"}, keysMaxAge},
	} {
		withFakeTime(t, c.sentence, func(t *testing.T, net *network) {
			var lines []string
			for _, line := range c.lines {
				lines = append(lines, "Cache-Control: "+line)
			}
			net.respondKeys(reply(200, edSet("a"), lines...))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			wait(c.want - 1)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			assert.Equal(t, 1, net.requestCount(), "one nanosecond before %v", c.want)
			wait(1)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			assert.Equal(t, 2, net.requestCount(), "at %v", c.want)
		})
	}
	withFakeTime(t, "to the fields as they are set", func(t *testing.T, net *network) {
		set := net.keySet()
		set.MinInterval, set.MaxAge = 2*time.Minute, 3*time.Minute
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=60"))
		wantKey(t, set, "a", 0)
		wait(2*time.Minute - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 1, net.requestCount())
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=600"))
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.requestCount())
		wait(3*time.Minute - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.requestCount())
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 3, net.requestCount())
	})
	withFakeTime(t, "the caller waits after two MaxAge, not after two of the server's", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=10"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(2*keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		wait(time.Second)
		wantKey(t, set, "b", 0)
	})
}

func TestRemoteKeySet_KeepsKeysDuringOutage(t *testing.T) {
	// outlives asks every minute through an outage, and asserts that the
	// keys end then.
	wantKeysUntil := func(t *testing.T, net *network, set *koreauth.RemoteKeySet, end time.Duration) {
		t.Helper()
		wantKey(t, set, "a", 0)
		good := time.Now()
		net.respondKeys(connectionRefused)
		for time.Since(good)+time.Minute < end {
			wait(time.Minute)
			requireImmediate(t, set, "a", nil)
		}
		wait(end - time.Since(good) - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrUnknownKey)
		_, err = set.Keys(t.Context(), "", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		net.respondKeys(keysOf("a"))
		wait(250 * time.Millisecond)
		wantKey(t, set, "a", 0)
	}
	withFakeTime(t, "up to 24 hours, to the nanosecond", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		wantKeysUntil(t, net, net.keySet(), keysMaxStale)
	})
	withFakeTime(t, "up to MaxStale", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Hour
		wantKeysUntil(t, net, set, time.Hour)
	})
	withFakeTime(t, "MaxStale counts as no less than MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Minute
		wantKeysUntil(t, net, set, keysMaxAge)
	})
	withFakeTime(t, "a MaxAge over 24 hours lengthens the MaxStale that was not set", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge = 48 * time.Hour
		set.MinInterval = keysInterval
		wantKeysUntil(t, net, set, 48*time.Hour)
	})
	withFakeTime(t, "from the last good fetch, not from the first", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Hour
		wantKey(t, set, "a", 0)
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		net.respondKeys(connectionRefused)
		wait(time.Hour - 1)
		wantKey(t, set, "a", 0) // waits for a try, which fails at once
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
	withFakeTime(t, "a document without a usable signing key counts as a failed fetch and replaces nothing", func(t *testing.T, net *network) {
		for _, body := range []string{
			"", "{}", "[]", "null", `{"keys":null}`, `{"keys":[]}`, `{"keys":{}}`, "<html>sorry</html>", edSet("a")[:40],
			jwksOf(strings.Replace(edJWK("a"), `"sig"`, `"enc"`, 1)), jwksOf(`{"kty":"AKP","alg":"ML-DSA-44","kid":"a","pub":"AA"}`),
		} {
			net := new(network)
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			net.respondKeys(reply(200, body))
			wait(keysMaxAge)
			for range 3 {
				wantKey(t, set, "a", 0)
				wait(keysInterval)
			}
			assert.Equal(t, 4, net.requestCount(), "retried as a failure: %s", body)
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, body)
			wantKey(t, set, "a", 0)
		}
	})
	withFakeTime(t, "statuses but 200 count as failed fetches and replace nothing", func(t *testing.T, net *network) {
		for _, status := range []int{201, 203, 204, 206, 300, 304, 400, 401, 403, 404, 410, 429, 500, 502, 503} {
			net := new(network)
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			net.respondKeys(reply(status, edSet("b")))
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "status %d", status)
			wantKey(t, set, "a", 0)
		}
	})
}

func TestRemoteKeySet_ConditionalRequests(t *testing.T) {
	match := func(r recordedRequest) string { return r.header.Get("If-None-Match") }
	withFakeTime(t, "an ETag is asked for, and 304 renews the keys as they are", func(t *testing.T, net *network) {
		set := net.keySet()
		set.MaxStale = time.Hour
		net.respondKeys(reply(200, edSet("a"), `ETag: W/"1"`))
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(304, "", "Cache-Control: max-age=60"))
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(time.Minute - 1) // the freshness that the 304 gives
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.requestCount())
		net.respondKeys(reply(304, ""))
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 3, net.requestCount())
		good := time.Now()
		net.respondKeys(connectionRefused)
		wait(time.Hour - 1) // MaxStale from the 304
		wantKey(t, set, "a", 0)
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		requests := net.recorded()
		assert.Equal(t, time.Hour-1, requests[3].time.Sub(good))
		assert.Empty(t, match(requests[0]))
		for _, r := range requests[1:] {
			assert.Equal(t, `W/"1"`, match(r))
		}
	})
	withFakeTime(t, "the ETag is that of the last good document", func(t *testing.T, net *network) {
		set := net.keySet()
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(200, "{}", `ETag: "bad"`))
		wantUnavailableError(t, set, "b")
		net.respondKeys(reply(200, edSet("b"), `ETag: "2"`))
		wantKey(t, set, "b", 0)
		net.respondKeys(keysOf("c"))
		wantKey(t, set, "c", 0)
		wait(keysMaxAge)
		wantKey(t, set, "c", 0)
		synctest.Wait()
		requests := net.recorded()
		require.Len(t, requests, 5)
		assert.Equal(t, []string{"", `"1"`, `"1"`, `"2"`, ""},
			[]string{match(requests[0]), match(requests[1]), match(requests[2]), match(requests[3]), match(requests[4])})
	})
	withFakeTime(t, "a 304 that was not asked for is a failure", func(t *testing.T, net *network) {
		net.respondKeys(reply(304, "", `ETag: "1"`))
		set := net.keySet()
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respondKeys(keysOf("a"))
		wait(time.Second)
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(304, "", `ETag: "1"`))
		wantUnavailable(t, set, "b", 0, 0)
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "after MaxStale too a 304 renews", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(keysMaxStale)
		net.respondKeys(reply(304, ""))
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "an unknown kid and a 304: the kid is unknown", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(304, ""))
		wantUnknown(t, set, "b", 0)
		wantKey(t, set, "a", 0)
	})
}

func TestRemoteKeySet_LogsFailedRefresh(t *testing.T) {
	const secret = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
	withFakeTime(t, "once per try, with its cause and nothing secret", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		net.respondKeys(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("proxy says no to jane@example.com with Bearer " + secret)
		})
		wait(keysMaxAge)
		for i := range 3 {
			for range 10 {
				wantKey(t, set, "a", 0)
				wait(time.Second)
			}
			synctest.Wait()
			assert.Equal(t, i+1, strings.Count(log.String(), "\n"), "records after %d tries", i+1)
		}
		assert.Equal(t, 4, net.requestCount())
		assert.Contains(t, log.String(), "proxy says no")
		assert.NotContains(t, log.String(), "eyJ")
		assert.NotContains(t, log.String(), "jane")

		log.Reset()
		net.respondKeys(keysOf("a"))
		for range 100 {
			wantKey(t, set, "a", 0)
			wait(time.Minute)
		}
		assert.Empty(t, log.String(), "nothing is logged of what went well")
	})
	withFakeTime(t, "also where a caller waited for it", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(503, "the body "+secret))
		wait(2 * keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		assert.Contains(t, log.String(), "503")
		assert.NotContains(t, log.String(), "eyJ")
	})
	withFakeTime(t, "a password or a query of the URL is not told", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.URL = "https://user:hunter2@issuer.example.com/keys?api_key=hunter3"
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respond(set.URL, keysOf("a"))
		wantKey(t, set, "a", 0)
		var errs []error
		for _, p := range []responder{connectionRefused, reply(500, ""), reply(200, strings.Repeat(" ", 2<<20)), reply(302, "", "Location: https://other.example/?api_key=hunter4")} {
			net.respond(set.URL, p)
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			_, err := set.Keys(t.Context(), "b", true)
			errs = append(errs, err)
		}
		assert.Equal(t, 4, strings.Count(log.String(), "\n"))
		assert.NotContains(t, log.String(), "hunter")
		assert.NotContains(t, fmt.Sprint(errs), "hunter")
	})
	withFakeTime(t, "a logger that hangs or is slow keeps no caller", func(t *testing.T, net *network) {
		set := net.keySet()
		set.Logger = slog.New(slowHandler{slog.DiscardHandler})
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, connectionRefused))
		wait(2 * keysMaxAge)
		wantKey(t, set, "a", time.Second)
		wait(time.Minute)
	})
}

// slowHandler takes a minute for a record.
type slowHandler struct{ slog.Handler }

func (slowHandler) Enabled(context.Context, slog.Level) bool { return true }

func (slowHandler) Handle(context.Context, slog.Record) error {
	time.Sleep(time.Minute)
	return nil
}

func TestRemoteKeySet_NoKeysAfterMaxStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge, set.MaxStale = time.Minute, time.Minute
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		time.Sleep(time.Minute)
		var returned atomic.Int64
		for range 200 {
			var callers sync.WaitGroup
			for range 32 {
				callers.Go(func() {
					if keys, err := set.Keys(t.Context(), "a", true); err == nil || len(keys) > 0 {
						returned.Add(1)
					}
				})
			}
			callers.Wait()
			time.Sleep(250 * time.Millisecond)
		}
		assert.Zero(t, returned.Load(), "calls of Keys that returned a key after MaxStale")
	})
}

func TestRemoteKeySet_MaxStaleEndsDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge, set.MaxStale = time.Hour, 3*time.Hour
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		time.Sleep(3*time.Hour - time.Second)
		keys, err := set.Keys(t.Context(), "a", true) // waits until the fetch times out
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, keys)
	})
}

// The fetch takes longer than MaxAge. When it ends, the keys are due again.
func TestRemoteKeySet_SlowRefreshBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge = time.Second
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		for range 60 {
			time.Sleep(500 * time.Millisecond)
			wantKey(t, set, "a", 0)
		}
		time.Sleep(keysTimeout)
	})
}
