package koreauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

func TestKeysAreRefreshedBehindTheCallersBack(t *testing.T) {
	bubble(t, "at MaxAge, and not one nanosecond before", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		pass(keysMaxAge - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.count())
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.count())
		pass(keysMaxAge - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.count())
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 3, net.count())
	})
	bubble(t, "nobody asks, nothing is fetched", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		pass(100 * time.Hour)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "a refresh that hangs makes nobody wait", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(hanging)
		pass(keysMaxAge)
		start := time.Now()
		for time.Since(start) < time.Minute {
			for range 3 {
				quickly(t, set, "a", nil)
			}
			pass(100 * time.Millisecond)
		}
		want := []time.Duration{}
		for at := time.Duration(0); at < time.Minute; at += keysInterval {
			want = append(want, at)
		}
		assert.Equal(t, want, net.times(start, 1))
		pass(keysTimeout) // the last one ends
	})
	bubble(t, "100 callers at once start one", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("a")))
		pass(keysMaxAge)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { gives(t, set, "a", 0) })
		}
		wg.Wait()
		pass(time.Second)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "failures are retried once per MinInterval, to the nanosecond", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(reply(503, `{"error":"x"}`, "Retry-After: 3600"))
		pass(keysMaxAge)
		start := time.Now()
		gives(t, set, "a", 0)
		synctest.Wait()
		for i := range 3 {
			pass(keysInterval - 1)
			gives(t, set, "a", 0)
			synctest.Wait()
			assert.Len(t, net.times(start, 1), i+1)
			pass(1)
			gives(t, set, "a", 0)
			synctest.Wait()
			assert.Len(t, net.times(start, 1), i+2)
		}
		net.keys(keysOf("a", "b"))
		pass(keysInterval)
		gives(t, set, "a", 0)
		synctest.Wait()
		gives(t, set, "b", 0)
		assert.Len(t, net.times(start, 1), 5)
	})
	bubble(t, "a removed key is gone at the next refresh", func(t *testing.T, net *network) {
		net.keys(keysOf("a", "b"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(keysOf("b"))
		pass(keysMaxAge)
		gives(t, set, "a", 0) // and this starts it
		synctest.Wait()
		unknown(t, set, "a", 0)
		gives(t, set, "b", 0)
	})
	bubble(t, "a key replaced under its kid is replaced at the next refresh", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(reply(200, strings.Replace(edSet("b"), `"kid":"b"`, `"kid":"a"`, 1)))
		pass(keysMaxAge)
		gives(t, set, "a", 0)
		synctest.Wait()
		keys, err := set.Keys(t.Context(), "a", true)
		require.NoError(t, err)
		assert.Equal(t, []koreauth.Key{{ID: "a", Algorithm: "EdDSA", Public: edPublic("b")}}, keys)
	})
	bubble(t, "MaxAge is the age", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MaxAge = time.Hour
		gives(t, set, "a", 0)
		pass(time.Hour - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.count())
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "the largest durations do not wrap", func(t *testing.T, net *network) {
		net.keys(reply(200, edSet("a"), "Cache-Control: max-age=10"))
		set := net.set()
		set.MinInterval, set.MaxAge, set.MaxStale = keysInterval, math.MaxInt64, math.MaxInt64
		gives(t, set, "a", 0)
		net.keys(hanging)
		pass(time.Hour)
		gives(t, set, "a", 0)
		pass(keysTimeout)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "the largest interval does not wrap", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MinInterval, set.MaxAge, set.MaxStale = math.MaxInt64, math.MaxInt64, math.MaxInt64
		gives(t, set, "a", 0)
		for range 10 {
			unknown(t, set, "forged", 0)
		}
		assert.Equal(t, 4, net.count())
	})
}

func TestAfterTwoMaxAgeTheCallerWaits(t *testing.T) {
	bubble(t, "and gets the new keys", func(t *testing.T, net *network) {
		net.keys(keysOf("a", "old"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("a", "b")))
		pass(2 * keysMaxAge)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { unknownAfter(t, set, "old", 2*time.Second) })
			wg.Go(func() { gives(t, set, "a", time.Second) })
			wg.Go(func() { gives(t, set, "b", time.Second) })
		}
		wg.Wait()
	})
	bubble(t, "but not one nanosecond before two MaxAge", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("b")))
		pass(2*keysMaxAge - 1)
		gives(t, set, "a", 0)
		pass(time.Second)
		gives(t, set, "b", 0)
	})
	bubble(t, "a removed key does not serve those who waited", func(t *testing.T, net *network) {
		net.keys(keysOf("a", "b"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("b")))
		pass(3 * keysMaxAge)
		unknown(t, set, "a", time.Second)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "and falls back on the old keys if it fails", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, refusing))
		pass(2 * keysMaxAge)
		gives(t, set, "a", time.Second)
		gives(t, set, "a", 0)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "and falls back on the old keys if it hangs", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(hanging)
		pass(2 * keysMaxAge)
		start := time.Now()
		gives(t, set, "a", keysTimeout)
		gives(t, set, "a", 0)
		pass(keysInterval - keysTimeout)
		gives(t, set, "a", 0)
		pass(keysTimeout)
		assert.Equal(t, []time.Duration{0, keysInterval}, net.times(start, 1))
	})
	bubble(t, "and one who leaves meanwhile is told so", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("a")))
		pass(2 * keysMaxAge)
		errLeft := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errLeft) })
		_, err := set.Keys(ctx, "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, errLeft)
		gives(t, set, "a", 999*time.Millisecond)
	})
	bubble(t, "a try that failed counts as a try", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(refusing)
		pass(keysMaxAge)
		gives(t, set, "a", 0)
		synctest.Wait()
		net.keys(slow(time.Second, keysOf("b")))
		pass(2*keysMaxAge - 1)
		gives(t, set, "a", 0)
		pass(time.Second)
		gives(t, set, "b", 0)
	})
}

func TestTheServersCacheControlIsClampedToMinIntervalAndMaxAge(t *testing.T) {
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
		bubble(t, c.sentence, func(t *testing.T, net *network) {
			var lines []string
			for _, line := range c.lines {
				lines = append(lines, "Cache-Control: "+line)
			}
			net.keys(reply(200, edSet("a"), lines...))
			set := net.set()
			gives(t, set, "a", 0)
			pass(c.want - 1)
			gives(t, set, "a", 0)
			synctest.Wait()
			assert.Equal(t, 1, net.count(), "one nanosecond before %v", c.want)
			pass(1)
			gives(t, set, "a", 0)
			synctest.Wait()
			assert.Equal(t, 2, net.count(), "at %v", c.want)
		})
	}
	bubble(t, "to the fields as they are set", func(t *testing.T, net *network) {
		set := net.set()
		set.MinInterval, set.MaxAge = 2*time.Minute, 3*time.Minute
		net.keys(reply(200, edSet("a"), "Cache-Control: max-age=60"))
		gives(t, set, "a", 0)
		pass(2*time.Minute - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 1, net.count())
		net.keys(reply(200, edSet("a"), "Cache-Control: max-age=600"))
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.count())
		pass(3*time.Minute - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.count())
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 3, net.count())
	})
	bubble(t, "the caller waits after two MaxAge, not after two of the server's", func(t *testing.T, net *network) {
		net.keys(reply(200, edSet("a"), "Cache-Control: max-age=10"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("b")))
		pass(2*keysMaxAge - 1)
		gives(t, set, "a", 0)
		pass(time.Second)
		gives(t, set, "b", 0)
	})
}

func TestTheLastGoodKeysServeThroughAnOutage(t *testing.T) {
	// outlives asks every minute through an outage, and asserts that the
	// keys end then.
	outlives := func(t *testing.T, net *network, set *koreauth.RemoteKeySet, end time.Duration) {
		t.Helper()
		gives(t, set, "a", 0)
		good := time.Now()
		net.keys(refusing)
		for time.Since(good)+time.Minute < end {
			pass(time.Minute)
			quickly(t, set, "a", nil)
		}
		pass(end - time.Since(good) - 1)
		gives(t, set, "a", 0)
		synctest.Wait()
		pass(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrUnknownKey)
		_, err = set.Keys(t.Context(), "", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		net.keys(keysOf("a"))
		pass(250 * time.Millisecond)
		gives(t, set, "a", 0)
	}
	bubble(t, "up to 24 hours, to the nanosecond", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		outlives(t, net, net.set(), keysMaxStale)
	})
	bubble(t, "up to MaxStale", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MaxStale = time.Hour
		outlives(t, net, set, time.Hour)
	})
	bubble(t, "MaxStale counts as no less than MaxAge", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MaxStale = time.Minute
		outlives(t, net, set, keysMaxAge)
	})
	bubble(t, "a MaxAge over 24 hours lengthens the MaxStale that was not set", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MaxAge = 48 * time.Hour
		set.MinInterval = keysInterval
		outlives(t, net, set, 48*time.Hour)
	})
	bubble(t, "from the last good fetch, not from the first", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MaxStale = time.Hour
		gives(t, set, "a", 0)
		pass(keysMaxAge)
		gives(t, set, "a", 0)
		synctest.Wait()
		net.keys(refusing)
		pass(time.Hour - 1)
		gives(t, set, "a", 0) // waits for a try, which fails at once
		pass(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
	bubble(t, "a document without a usable signing key counts as a failed fetch and replaces nothing", func(t *testing.T, net *network) {
		for _, body := range []string{
			"", "{}", "[]", "null", `{"keys":null}`, `{"keys":[]}`, `{"keys":{}}`, "<html>sorry</html>", edSet("a")[:40],
			jwksOf(strings.Replace(edJWK("a"), `"sig"`, `"enc"`, 1)), jwksOf(`{"kty":"AKP","alg":"ML-DSA-44","kid":"a","pub":"AA"}`),
		} {
			net := new(network)
			net.keys(keysOf("a"))
			set := net.set()
			gives(t, set, "a", 0)
			net.keys(reply(200, body))
			pass(keysMaxAge)
			for range 3 {
				gives(t, set, "a", 0)
				pass(keysInterval)
			}
			assert.Equal(t, 4, net.count(), "retried as a failure: %s", body)
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, body)
			gives(t, set, "a", 0)
		}
	})
	bubble(t, "statuses but 200 count as failed fetches and replace nothing", func(t *testing.T, net *network) {
		for _, status := range []int{201, 203, 204, 206, 300, 304, 400, 401, 403, 404, 410, 429, 500, 502, 503} {
			net := new(network)
			net.keys(keysOf("a"))
			set := net.set()
			gives(t, set, "a", 0)
			net.keys(reply(status, edSet("b")))
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "status %d", status)
			gives(t, set, "a", 0)
		}
	})
}

func TestConditionalRequests(t *testing.T) {
	match := func(q question) string { return q.header.Get("If-None-Match") }
	bubble(t, "an ETag is asked for, and 304 renews the keys as they are", func(t *testing.T, net *network) {
		set := net.set()
		set.MaxStale = time.Hour
		net.keys(reply(200, edSet("a"), `ETag: W/"1"`))
		gives(t, set, "a", 0)
		net.keys(reply(304, "", "Cache-Control: max-age=60"))
		pass(keysMaxAge)
		gives(t, set, "a", 0)
		synctest.Wait()
		pass(time.Minute - 1) // the freshness that the 304 gives
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 2, net.count())
		net.keys(reply(304, ""))
		pass(1)
		gives(t, set, "a", 0)
		synctest.Wait()
		require.Equal(t, 3, net.count())
		good := time.Now()
		net.keys(refusing)
		pass(time.Hour - 1) // MaxStale from the 304
		gives(t, set, "a", 0)
		pass(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		questions := net.questions()
		assert.Equal(t, time.Hour-1, questions[3].at.Sub(good))
		assert.Empty(t, match(questions[0]))
		for _, q := range questions[1:] {
			assert.Equal(t, `W/"1"`, match(q))
		}
	})
	bubble(t, "the ETag is that of the last good document", func(t *testing.T, net *network) {
		set := net.set()
		net.keys(reply(200, edSet("a"), `ETag: "1"`))
		gives(t, set, "a", 0)
		net.keys(reply(200, "{}", `ETag: "bad"`))
		unavailableOf(t, set, "b")
		net.keys(reply(200, edSet("b"), `ETag: "2"`))
		gives(t, set, "b", 0)
		net.keys(keysOf("c"))
		gives(t, set, "c", 0)
		pass(keysMaxAge)
		gives(t, set, "c", 0)
		synctest.Wait()
		questions := net.questions()
		require.Len(t, questions, 5)
		assert.Equal(t, []string{"", `"1"`, `"1"`, `"2"`, ""},
			[]string{match(questions[0]), match(questions[1]), match(questions[2]), match(questions[3]), match(questions[4])})
	})
	bubble(t, "a 304 that was not asked for is a failure", func(t *testing.T, net *network) {
		net.keys(reply(304, "", `ETag: "1"`))
		set := net.set()
		unavailable(t, set, "a", 0, 250*time.Millisecond)
		net.keys(keysOf("a"))
		pass(time.Second)
		gives(t, set, "a", 0)
		net.keys(reply(304, "", `ETag: "1"`))
		unavailable(t, set, "b", 0, 0)
		gives(t, set, "a", 0)
	})
	bubble(t, "after MaxStale too a 304 renews", func(t *testing.T, net *network) {
		net.keys(reply(200, edSet("a"), `ETag: "1"`))
		set := net.set()
		gives(t, set, "a", 0)
		pass(keysMaxStale)
		net.keys(reply(304, ""))
		gives(t, set, "a", 0)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "an unknown kid and a 304: the kid is unknown", func(t *testing.T, net *network) {
		net.keys(reply(200, edSet("a"), `ETag: "1"`))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(reply(304, ""))
		unknown(t, set, "b", 0)
		gives(t, set, "a", 0)
	})
}

func TestAFailingBackgroundRefreshIsLogged(t *testing.T) {
	const secret = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
	bubble(t, "once per try, with its cause and nothing secret", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.set()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.keys(keysOf("a"))
		gives(t, set, "a", 0)
		net.keys(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("proxy says no to jane@example.com with Bearer " + secret)
		})
		pass(keysMaxAge)
		for i := range 3 {
			for range 10 {
				gives(t, set, "a", 0)
				pass(time.Second)
			}
			synctest.Wait()
			assert.Equal(t, i+1, strings.Count(log.String(), "\n"), "records after %d tries", i+1)
		}
		assert.Equal(t, 4, net.count())
		assert.Contains(t, log.String(), "proxy says no")
		assert.NotContains(t, log.String(), "eyJ")
		assert.NotContains(t, log.String(), "jane")

		log.Reset()
		net.keys(keysOf("a"))
		for range 100 {
			gives(t, set, "a", 0)
			pass(time.Minute)
		}
		assert.Empty(t, log.String(), "nothing is logged of what went well")
	})
	bubble(t, "also where a caller waited for it", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.set()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.keys(keysOf("a"))
		gives(t, set, "a", 0)
		net.keys(reply(503, "the body "+secret))
		pass(2 * keysMaxAge)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		assert.Contains(t, log.String(), "503")
		assert.NotContains(t, log.String(), "eyJ")
	})
	bubble(t, "a password or a query of the URL is not told", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.set()
		set.URL = "https://user:hunter2@issuer.example.com/keys?api_key=hunter3"
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.at(set.URL, keysOf("a"))
		gives(t, set, "a", 0)
		var errs []error
		for _, p := range []page{refusing, reply(500, ""), reply(200, strings.Repeat(" ", 2<<20)), reply(302, "", "Location: https://other.example/?api_key=hunter4")} {
			net.at(set.URL, p)
			pass(keysMaxAge)
			gives(t, set, "a", 0)
			synctest.Wait()
			_, err := set.Keys(t.Context(), "b", true)
			errs = append(errs, err)
		}
		assert.Equal(t, 4, strings.Count(log.String(), "\n"))
		assert.NotContains(t, log.String(), "hunter")
		assert.NotContains(t, fmt.Sprint(errs), "hunter")
	})
	bubble(t, "a logger that hangs or is slow keeps no caller", func(t *testing.T, net *network) {
		set := net.set()
		set.Logger = slog.New(slowHandler{slog.DiscardHandler})
		net.keys(keysOf("a"))
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, refusing))
		pass(2 * keysMaxAge)
		gives(t, set, "a", time.Second)
		pass(time.Minute)
	})
}

// slowHandler takes a minute for a record.
type slowHandler struct{ slog.Handler }

func (slowHandler) Enabled(context.Context, slog.Level) bool { return true }

func (slowHandler) Handle(context.Context, slog.Record) error {
	time.Sleep(time.Minute)
	return nil
}

// transport is an http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// serving answers with a key document, until it is told to do otherwise.
func serving(document []byte, otherwise *atomic.Pointer[transport]) *http.Client {
	return &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		if other := otherwise.Load(); other != nil {
			return (*other)(r)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(document))), Request: r}, nil
	})}
}

func TestNoCrowdGetsKeysBeyondMaxStale(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Minute, MaxStale: time.Minute, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		down := transport(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })
		otherwise.Store(&down)
		time.Sleep(time.Minute)
		var served atomic.Int64
		for range 200 {
			var crowd sync.WaitGroup
			for range 32 {
				crowd.Go(func() {
					if keys, err := set.Keys(t.Context(), kid, true); err == nil || len(keys) > 0 {
						served.Add(1)
					}
				})
			}
			crowd.Wait()
			time.Sleep(250 * time.Millisecond)
		}
		assert.Zero(t, served.Load(), "times that keys were served after MaxStale")
	})
}

func TestARefreshThatFailsAfterMaxStaleServesNothing(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Hour, MaxStale: 3 * time.Hour, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		hang := transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		otherwise.Store(&hang)
		time.Sleep(3*time.Hour - time.Second)
		keys, err := set.Keys(t.Context(), kid, true) // waits for 5 s
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, keys)
	})
}

func TestATryThatTakesLongerThanMaxAgeMakesNobodyWaitAgain(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Second, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		hang := transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		otherwise.Store(&hang)
		for range 60 {
			time.Sleep(500 * time.Millisecond)
			start := time.Now()
			_, err := set.Keys(t.Context(), kid, true)
			require.NoError(t, err)
			assert.Zero(t, time.Since(start), "waited")
		}
		time.Sleep(5 * time.Second)
	})
}
