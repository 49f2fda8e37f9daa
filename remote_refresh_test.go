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
	withFakeTime(t, "at MaxAge, and not a nanosecond earlier", func(t *testing.T, net *network) {
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
	withFakeTime(t, "without a call of Keys, nothing is fetched", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(100 * time.Hour)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "no caller waits for a refresh that hangs", func(t *testing.T, net *network) {
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
		assert.Equal(t, []time.Duration{0, keysInterval, 3 * keysInterval}, net.requestTimes(start, 1))
		wait(keysTimeout) // the last refresh times out
	})
	withFakeTime(t, "100 concurrent callers start one refresh", func(t *testing.T, net *network) {
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
	withFakeTime(t, "a failed refresh is retried after MinInterval, then after twice the time each, up to eight", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		for range 2 { // A success begins it anew.
			net.respondKeys(reply(503, `{"error":"x"}`))
			wait(keysMaxAge)
			count := net.requestCount()
			requireImmediate(t, set, "a", nil)
			synctest.Wait()
			for i, interval := range []time.Duration{keysInterval, 2 * keysInterval, 4 * keysInterval, 8 * keysInterval, 8 * keysInterval, 8 * keysInterval} {
				wait(interval - 1)
				requireImmediate(t, set, "a", nil)
				synctest.Wait()
				assert.Equal(t, i+1, net.requestCount()-count, "a nanosecond before retry %d", i+1)
				wait(1)
				requireImmediate(t, set, "a", nil)
				synctest.Wait()
				assert.Equal(t, i+2, net.requestCount()-count, "at retry %d", i+1)
			}
			net.respondKeys(keysOf("a", "b"))
			wait(8 * keysInterval)
			requireImmediate(t, set, "a", nil)
			synctest.Wait()
			requireImmediate(t, set, "b", nil)
		}
	})
	withFakeTime(t, "a fetch for an unknown key that fails brings no refresh forward", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(time.Minute)
		net.respondKeys(connectionRefused)
		wantUnavailableError(t, set, "b")
		net.respondKeys(keysOf("a"))
		wait(keysMaxAge - time.Minute - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount(), "a nanosecond before MaxAge")
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 3, net.requestCount(), "at MaxAge")
	})
	withFakeTime(t, "a removed key is unknown after the next refresh", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(keysOf("b"))
		wait(keysMaxAge)
		wantKey(t, set, "a", 0) // starts the refresh
		synctest.Wait()
		wantUnknown(t, set, "a", 0)
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a new key with an old kid is used after the next refresh", func(t *testing.T, net *network) {
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
	withFakeTime(t, "MaxAge sets the age at which keys are refreshed", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the largest MaxAge and MaxStale do not overflow", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the largest MinInterval does not overflow", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MinInterval, set.MaxAge, set.MaxStale = math.MaxInt64, math.MaxInt64, math.MaxInt64
		wantKey(t, set, "a", 0)
		for range 10 {
			wantUnknown(t, set, "unknown", 0)
		}
		assert.Equal(t, 4, net.requestCount())
	})
}

func TestRemoteKeySet_CallerWaitsAfterTwoMaxAge(t *testing.T) {
	withFakeTime(t, "the caller waits and gets the new keys", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the caller does not wait a nanosecond before two MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(2*keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		wait(time.Second)
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a removed key is unknown to the callers that waited", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		wait(3 * keysMaxAge)
		wantUnknown(t, set, "a", time.Second)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "the caller gets the old keys if the fetch fails", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, connectionRefused))
		wait(2 * keysMaxAge)
		wantKey(t, set, "a", time.Second)
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "the caller gets the old keys if the fetch hangs", func(t *testing.T, net *network) {
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
	withFakeTime(t, "a caller whose context is canceled gets its cause", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a")))
		wait(2 * keysMaxAge)
		errCanceled := errors.New("the client disconnected")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errCanceled) })
		_, err := set.Keys(ctx, "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errCanceled)
		wantKey(t, set, "a", 999*time.Millisecond)
	})
	withFakeTime(t, "a failed refresh starts the two MaxAge again", func(t *testing.T, net *network) {
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
		name  string
		lines []string
		want  time.Duration
	}{
		{"no Cache-Control: MaxAge", nil, keysMaxAge},
		{"between MinInterval and MaxAge: as given", []string{"max-age=60"}, time.Minute},
		{"zero: MinInterval", []string{"max-age=0"}, keysInterval},
		{"less than MinInterval: MinInterval", []string{"max-age=9"}, keysInterval},
		{"MinInterval", []string{"max-age=10"}, keysInterval},
		{"slightly more than MinInterval", []string{"max-age=11"}, 11 * time.Second},
		{"MaxAge", []string{"max-age=900"}, keysMaxAge},
		{"more than MaxAge: MaxAge", []string{"max-age=901"}, keysMaxAge},
		{"a day: MaxAge", []string{"max-age=86400"}, keysMaxAge},
		{"2^31: MaxAge (RFC 9111 §1.2.2)", []string{"max-age=2147483648"}, keysMaxAge},
		{"more than a time.Duration holds: MaxAge", []string{"max-age=9223372037"}, keysMaxAge},
		{"more than 64 bits: MaxAge", []string{"max-age=99999999999999999999999999"}, keysMaxAge},
		{"the directive in another case", []string{"Max-AGE=60"}, time.Minute},
		{"quoted (RFC 9111 §5.2)", []string{`max-age="60"`}, time.Minute},
		{"among other directives", []string{"public, must-revalidate,max-age=60 , no-transform"}, time.Minute},
		{"in a second header line", []string{"public", "max-age=60"}, time.Minute},
		{"s-maxage: ignored", []string{"s-maxage=60"}, keysMaxAge},
		{"s-maxage beside max-age: ignored", []string{"s-maxage=30, max-age=60"}, time.Minute},
		{"no-store beside max-age: ignored", []string{"no-store, max-age=60"}, time.Minute},
		{"no-store alone: MaxAge", []string{"no-store"}, keysMaxAge},
		{"negative: invalid", []string{"max-age=-1"}, keysMaxAge},
		{"a fraction: invalid", []string{"max-age=60.5"}, keysMaxAge},
		{"a word: invalid", []string{"max-age=soon"}, keysMaxAge},
		{"empty: invalid", []string{"max-age="}, keysMaxAge},
		{"without a value: invalid", []string{"max-age"}, keysMaxAge},
		{"a plus sign: invalid", []string{"max-age=+60"}, keysMaxAge},
	} {
		withFakeTime(t, c.name, func(t *testing.T, net *network) {
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
			assert.Equal(t, 1, net.requestCount(), "requests one nanosecond before %v", c.want)
			wait(1)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			assert.Equal(t, 2, net.requestCount(), "requests at %v", c.want)
		})
	}
	withFakeTime(t, "max-age is clamped to the MinInterval and MaxAge that are set", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the caller waits after two MaxAge, not after twice the server's max-age", func(t *testing.T, net *network) {
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
	// wantKeysUntil calls Keys every minute during an outage. It asserts that
	// the keys are returned until end, measured from the last good fetch.
	wantKeysUntil := func(t *testing.T, net *network, set *koreauth.RemoteKeySet, end time.Duration) {
		t.Helper()
		wantKey(t, set, "a", 0)
		fetched := time.Now()
		net.respondKeys(connectionRefused)
		for time.Since(fetched)+time.Minute < end {
			wait(time.Minute)
			requireImmediate(t, set, "a", nil)
		}
		wait(end - time.Since(fetched) - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrUnknownKey)
		_, err = set.Keys(t.Context(), "", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		net.respondKeys(keysOf("a"))
		wait(keysInterval)
		wantKey(t, set, "a", 0)
	}
	withFakeTime(t, "keys are used for exactly 24 hours", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		wantKeysUntil(t, net, net.keySet(), keysMaxStale)
	})
	withFakeTime(t, "keys are used for MaxStale", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Hour
		wantKeysUntil(t, net, set, time.Hour)
	})
	withFakeTime(t, "a MaxStale less than MaxAge counts as MaxAge", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Minute
		wantKeysUntil(t, net, set, keysMaxAge)
	})
	withFakeTime(t, "a MaxAge over 24 hours is also the default MaxStale", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxAge = 48 * time.Hour
		set.MinInterval = keysInterval
		wantKeysUntil(t, net, set, 48*time.Hour)
	})
	withFakeTime(t, "MaxStale counts from the last successful fetch, not from the first", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Hour
		wantKey(t, set, "a", 0)
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		net.respondKeys(connectionRefused)
		wait(time.Hour - 1)
		wantKey(t, set, "a", 0) // waits for a fetch, which fails at once
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
	withFakeTime(t, "a document without a usable signing key counts as a failed fetch, and the old keys are kept", func(t *testing.T, net *network) {
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
			for range 4 {
				wantKey(t, set, "a", 0)
				wait(keysInterval)
			}
			assert.Equal(t, 4, net.requestCount(), "requests, if this document is a failure: %s", body)
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, body)
			wantKey(t, set, "a", 0)
		}
	})
	withFakeTime(t, "a status other than 200 counts as a failed fetch, and the old keys are kept", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the ETag is sent back, and a 304 renews the keys", func(t *testing.T, net *network) {
		set := net.keySet()
		set.MaxStale = time.Hour
		net.respondKeys(reply(200, edSet("a"), `ETag: W/"1"`))
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(304, "", "Cache-Control: max-age=60"))
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(time.Minute - 1) // the max-age of the 304
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.requestCount())
		net.respondKeys(reply(304, ""))
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 3, net.requestCount())
		fetched := time.Now()
		net.respondKeys(connectionRefused)
		wait(time.Hour - 1) // MaxStale after the 304
		wantKey(t, set, "a", 0)
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		requests := net.recorded()
		assert.Equal(t, time.Hour-1, requests[3].time.Sub(fetched))
		assert.Empty(t, match(requests[0]))
		for _, r := range requests[1:] {
			assert.Equal(t, `W/"1"`, match(r))
		}
	})
	withFakeTime(t, "a 304 without Cache-Control keeps the max-age", func(t *testing.T, net *network) {
		set := net.keySet()
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`, "Cache-Control: max-age=60"))
		wantKey(t, set, "a", 0)
		start := time.Now()
		net.respondKeys(reply(304, ""))
		for range 3 {
			wait(time.Minute)
			wantKey(t, set, "a", 0)
			synctest.Wait()
		}
		assert.Equal(t, []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}, net.requestTimes(start, 1))
	})
	withFakeTime(t, "the ETag of the last valid document is sent", func(t *testing.T, net *network) {
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
	withFakeTime(t, "a 304 to a request without If-None-Match is a failure", func(t *testing.T, net *network) {
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
	withFakeTime(t, "a 304 renews the keys after MaxStale too", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		wait(keysMaxStale)
		net.respondKeys(reply(304, ""))
		wantKey(t, set, "a", 0)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "after a 304, an unknown kid is still unknown", func(t *testing.T, net *network) {
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
	withFakeTime(t, "each failed refresh is logged once, with its cause and without secrets", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		net.respondKeys(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("proxy rejected jane@example.com with Bearer " + secret)
		})
		wait(keysMaxAge)
		for i, seconds := range []int{10, 20, 40} {
			for range seconds {
				wantKey(t, set, "a", 0)
				wait(time.Second)
			}
			synctest.Wait()
			assert.Equal(t, i+1, strings.Count(log.String(), "\n"), "log records after %d failed refreshes", i+1)
		}
		assert.Equal(t, 4, net.requestCount())
		assert.Contains(t, log.String(), "proxy rejected")
		assert.NotContains(t, log.String(), "eyJ")
		assert.NotContains(t, log.String(), "jane")

		log.Reset()
		net.respondKeys(keysOf("a"))
		for range 100 {
			wantKey(t, set, "a", 0)
			wait(time.Minute)
		}
		assert.Empty(t, log.String(), "a successful refresh logs nothing")
	})
	withFakeTime(t, "a failed refresh is logged even if a caller waited for it", func(t *testing.T, net *network) {
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
	withFakeTime(t, "the password and the query of the URL are not logged", func(t *testing.T, net *network) {
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
	withFakeTime(t, "no caller waits for a slow logger", func(t *testing.T, net *network) {
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

// slowHandler takes a minute to handle a record.
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

// The fetch has read the keys, and then waits for the metadata. When it ends, the keys
// are older than MaxStale.
func TestRemoteKeySet_MaxStaleEndsDuringFetch(t *testing.T) {
	withFakeTime(t, "the keys are not used", func(t *testing.T, net *network) {
		const metadataURL = edIssuer + "/.well-known/openid-configuration"
		net.respond(metadataURL, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client(), MaxAge: time.Second, MaxStale: time.Second}
		wantKey(t, set, "a", 0)
		wait(900 * time.Millisecond)
		wantUnknown(t, set, "b", 0) // Its fetch brings the keys anew.
		wait(300 * time.Millisecond)
		net.respond(metadataURL, hanging)
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.ErrorContains(t, err, "older than MaxStale")
		})
		wait(2 * time.Second)
		callers.Go(func() {
			keys, err := set.Keys(t.Context(), "a", true) // joins the fetch
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.Empty(t, keys)
		})
		callers.Wait()
		assert.Equal(t, []string{metadataURL, keysURL, keysURL, keysURL, metadataURL}, net.requestURLs())
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
