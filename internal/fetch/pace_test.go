package fetch_test

import (
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/fetch"
)

const interval = 10 * time.Second

// until returns how long a fetch for that reason must wait.
func until(p *fetch.Pace, why fetch.Reason, interval time.Duration) time.Duration {
	return max(0, time.Until(p.Next(why, interval)))
}

func TestPace_ZeroAllowsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p fetch.Pace
		for _, why := range []fetch.Reason{fetch.NoKeys, fetch.UnknownKey, fetch.OldKeys} {
			assert.Zero(t, until(&p, why, interval))
		}
		assert.Greater(t, p.Idle(), 200*365*24*time.Hour)
	})
}

func TestPace_Backoff(t *testing.T) {
	for _, row := range []struct {
		why      fetch.Reason
		interval time.Duration
		want     []time.Duration // after each failure
	}{
		{fetch.OldKeys, interval, []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 80 * time.Second}},
		{fetch.OldKeys, time.Minute, []time.Duration{1 * time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 8 * time.Minute}},
		{fetch.OldKeys, 1, []time.Duration{1, 2, 4, 8, 8}},
		{fetch.OldKeys, math.MaxInt64 / 2, []time.Duration{math.MaxInt64 / 2, math.MaxInt64 - 1, math.MaxInt64 - 1}},
		{fetch.NoKeys, interval, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, interval, interval}},
		{fetch.NoKeys, 100 * time.Millisecond, []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}},
		{fetch.NoKeys, 300 * time.Millisecond, []time.Duration{250 * time.Millisecond, 300 * time.Millisecond, 300 * time.Millisecond}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p fetch.Pace
			for range 2 { // A success begins it anew.
				for i, want := range row.want {
					p.Begin(row.why, time.Now(), row.interval)
					p.End(errors.New("down"))
					assert.InDelta(t, want, until(&p, row.why, row.interval), 1, "interval %v, after failure %d", row.interval, i+1)
				}
				p.Begin(row.why, time.Now(), row.interval)
				p.End(nil)
				assert.Zero(t, until(&p, row.why, row.interval), "after a success")
			}
		})
	}
}

// The time between retries counts from the beginning of a fetch, and by both clocks.
func TestPace_RetriesCountFromTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p fetch.Pace
		p.Begin(fetch.OldKeys, time.Now(), interval)
		time.Sleep(4 * time.Second)
		p.End(errors.New("down"))
		assert.Equal(t, 6*time.Second, until(&p, fetch.OldKeys, interval))
		assert.Zero(t, p.Idle())
		defer clock.Suspend(6 * time.Second)()
		assert.Zero(t, until(&p, fetch.OldKeys, interval), "after the machine was suspended")
		assert.Equal(t, 6*time.Second, p.Idle())
	})
}

func TestPace_UnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p fetch.Pace
		fetches := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(time.Second) {
			for until(&p, fetch.UnknownKey, interval) == 0 {
				p.Begin(fetch.UnknownKey, time.Now(), interval)
				p.End(nil)
				fetches++
			}
			assert.Zero(t, until(&p, fetch.OldKeys, interval), "a refresh is not limited by them")
		}
		assert.Equal(t, 3+59, fetches)
	})
}

func TestPace_RetryAfter(t *testing.T) {
	status := func(seconds int) error {
		return &fetch.StatusError{URL: "x", Status: 503, RetryAfter: time.Duration(seconds) * time.Second}
	}
	for _, row := range []struct {
		name string
		err  error
		want time.Duration
	}{
		{"none", status(0), 0},
		{"30 s", status(30), 30 * time.Second},
		{"over a minute", status(61), time.Minute},
		{"the first of two requests", errors.Join(status(30), status(0)), 30 * time.Second},
		{"the second of two requests", errors.Join(status(0), status(30)), 30 * time.Second},
		{"the longer one", errors.Join(status(20), errors.New("x"), errors.Join(status(30), status(10))), 30 * time.Second},
		{"another error", errors.New("down"), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, why := range []fetch.Reason{fetch.NoKeys, fetch.UnknownKey, fetch.OldKeys} {
				var p fetch.Pace
				p.Begin(why, time.Now(), 1)
				p.End(row.err)
				assert.InDelta(t, row.want, until(&p, why, 1), 1, row.name)
				p.Begin(why, time.Now(), 1)
				p.End(nil)
				assert.LessOrEqual(t, until(&p, why, 1), time.Duration(1), "%s, after a success", row.name)
			}
		})
	}
}

// A Retry-After is the earliest moment. A random time is added, which depends on it.
func TestPace_RetryAfterIsSpread(t *testing.T) {
	defer fetch.Random()()
	for wait, most := range map[time.Duration]time.Duration{
		time.Second:      21 * time.Second,
		15 * time.Second: 45 * time.Second,
		30 * time.Second: 90 * time.Second,
		time.Hour:        2 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			first, last := time.Hour, time.Duration(0)
			for range 2000 {
				var p fetch.Pace
				p.Begin(fetch.NoKeys, time.Now(), interval)
				p.End(&fetch.StatusError{URL: "x", Status: 503, RetryAfter: wait})
				got := until(&p, fetch.NoKeys, interval)
				first, last = min(first, got), max(last, got)
			}
			least := min(wait, time.Minute)
			assert.GreaterOrEqual(t, first, least, wait)
			assert.Less(t, first, least+(most-least)/20, wait)
			assert.LessOrEqual(t, last, most, wait)
			assert.Greater(t, last, most-(most-least)/20, wait)
		})
	}
}

func TestDocument_OK(t *testing.T) {
	for status, want := range map[int]bool{200: true, 0: false, 201: false, 204: false, 206: false, 301: false, 304: false, 404: false, 500: false} {
		doc := &fetch.Document{URL: "https://issuer.example/keys", Status: status, Header: http.Header{"Retry-After": {"5"}}}
		err := doc.OK()
		assert.Equal(t, want, err == nil, "status %d", status)
		var statusError *fetch.StatusError
		if assert.Equal(t, !want, errors.As(err, &statusError)) && !want {
			assert.Equal(t, 5*time.Second, statusError.RetryAfter)
			assert.Contains(t, err.Error(), "https://issuer.example/keys: status ")
		}
	}
}
