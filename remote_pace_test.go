package koreauth_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func TestRemoteKeySet_ObeysRetryAfter(t *testing.T) {
	const (
		configuration = edIssuer + "/.well-known/openid-configuration"
		second        = "https://issuer.example.com/.well-known/oauth-authorization-server/realms/one"
	)
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	values := []struct {
		name  string
		value func() string // called in the bubble
		want  time.Duration // zero: as without the header
	}{
		{"30 seconds", func() string { return "30" }, 30 * time.Second},
		{"60 seconds", func() string { return "60" }, time.Minute},
		{"61 seconds: a minute", func() string { return "61" }, time.Minute},
		{"an hour: a minute", func() string { return "3600" }, time.Minute},
		{"more than 31 bits: a minute", func() string { return "2147483648" }, time.Minute},
		{"more than 64 bits: a minute", func() string { return "99999999999999999999999" }, time.Minute},
		{"with white space", func() string { return " 30\t" }, 30 * time.Second},
		{"a date", func() string { return date(30 * time.Second) }, 30 * time.Second},
		{"a date in the form of RFC 850", func() string { return time.Now().Add(30 * time.Second).UTC().Format(time.RFC850) }, 30 * time.Second},
		{"a date in the form of asctime", func() string { return time.Now().Add(30 * time.Second).UTC().Format(time.ANSIC) }, 30 * time.Second},
		{"a date in an hour: a minute", func() string { return date(time.Hour) }, time.Minute},
		{"a date in 500 years: a minute", func() string { return "Fri, 01 Jan 2500 00:00:00 GMT" }, time.Minute},
		{"a date in the past", func() string { return date(-time.Hour) }, 0},
		{"zero", func() string { return "0" }, 0},
		{"negative", func() string { return "-30" }, 0},
		{"a plus sign", func() string { return "+30" }, 0},
		{"a fraction", func() string { return "30.5" }, 0},
		{"a word", func() string { return "soon" }, 0},
		{"two values", func() string { return "30, 40" }, 0},
		{"empty", func() string { return "" }, 0},
	}
	// wantNext asserts that fetch makes its next request exactly after want.
	wantNext := func(t *testing.T, net *network, want time.Duration, fetch func()) {
		t.Helper()
		count := net.requestCount()
		wait(want - 1)
		fetch()
		synctest.Wait()
		assert.Equal(t, count, net.requestCount(), "requests a nanosecond before %v", want)
		wait(1)
		fetch()
		synctest.Wait()
		assert.Greater(t, net.requestCount(), count, "requests after %v", want)
	}
	for _, v := range values {
		withFakeTime(t, v.name, func(t *testing.T, net *network) {
			net.respondKeys(reply(503, "", "Retry-After: "+v.value()))
			set := net.keySet()
			want := max(v.want, 250*time.Millisecond)
			wantUnavailable(t, set, "a", 0, want)
			wantNext(t, net, want, func() { _, _ = set.Keys(t.Context(), "a", true) })
		})
	}
	for _, status := range []int{403, 404, 408, 425, 429, 500, 502, 503, 504} {
		refuse := reply(status, "", "Retry-After: 30")
		discovered := func(net *network) *koreauth.RemoteKeySet {
			return &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		}
		withFakeTime(t, http.StatusText(status)+" of the keys", func(t *testing.T, net *network) {
			net.respondKeys(refuse)
			set := net.keySet()
			wantUnavailable(t, set, "a", 0, 30*time.Second)
			wantNext(t, net, 30*time.Second, func() { _, _ = set.Keys(t.Context(), "a", true) })
		})
		withFakeTime(t, http.StatusText(status)+" of the keys that were discovered", func(t *testing.T, net *network) {
			net.respond(configuration, metadata(edIssuer, keysURL))
			net.respondKeys(refuse)
			wantUnavailable(t, discovered(net), "a", 0, 30*time.Second)
		})
		withFakeTime(t, http.StatusText(status)+" of the metadata", func(t *testing.T, net *network) {
			net.respond(configuration, refuse)
			wantUnavailable(t, discovered(net), "a", 0, 30*time.Second)
		})
		withFakeTime(t, http.StatusText(status)+" of the metadata at the second place", func(t *testing.T, net *network) {
			net.respond(second, refuse)
			wantUnavailable(t, discovered(net), "a", 0, 30*time.Second)
		})
		withFakeTime(t, http.StatusText(status)+" of the metadata, which are read because the keys are gone", func(t *testing.T, net *network) {
			net.respond(configuration, metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := discovered(net)
			wantKey(t, set, "a", 0)
			net.respondKeys(reply(410, ""))
			net.respond(configuration, refuse)
			for range 3 {
				wantUnavailable(t, set, "b", 0, 30*time.Second)
			}
			assert.LessOrEqual(t, net.requestCount(), 2+3)
		})
		withFakeTime(t, http.StatusText(status)+" for an unknown key", func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			net.respondKeys(refuse)
			for range 5 {
				wantUnavailable(t, set, "b", 0, 30*time.Second)
			}
			assert.Equal(t, 2, net.requestCount())
			wantKey(t, set, "a", 0)
			wantNext(t, net, 30*time.Second, func() { _, _ = set.Keys(t.Context(), "b", true) })
		})
		withFakeTime(t, http.StatusText(status)+" for a bad signature", func(t *testing.T, net *network) {
			net.respondKeys(keysOf("k"))
			v := edValidator(t, net.keySet())
			require.NoError(t, v.Ready(t.Context()))
			net.respondKeys(refuse)
			forged := func() {
				_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
				assert.ErrorIs(t, err, koreauth.ErrSignature)
			}
			forged()
			wantNext(t, net, 30*time.Second, forged)
		})
		withFakeTime(t, http.StatusText(status)+" for a refresh", func(t *testing.T, net *network) {
			net.respondKeys(keysOf("a"))
			set := net.keySet()
			wantKey(t, set, "a", 0)
			net.respondKeys(refuse)
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			wantNext(t, net, 30*time.Second, func() { wantKey(t, set, "a", 0) })
		})
	}
	withFakeTime(t, "an answer without Retry-After ends it, and so does a success", func(t *testing.T, net *network) {
		set := net.keySet()
		net.respondKeys(reply(503, "", "Retry-After: 30"))
		wantUnavailable(t, set, "a", 0, 30*time.Second)
		net.respondKeys(reply(503, ""))
		wait(30 * time.Second)
		wantUnavailable(t, set, "a", 0, 500*time.Millisecond)
		net.respondKeys(keysOf("a"))
		wait(500 * time.Millisecond)
		wantKey(t, set, "a", 0)
		wantUnknown(t, set, "b", 0)
		assert.Equal(t, 4, net.requestCount())
	})
	withFakeTime(t, "the backoff goes on if it is longer", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(503, "", "Retry-After: 15"))
		wait(keysMaxAge)
		start := time.Now()
		for time.Since(start) < 3*time.Minute {
			requireImmediate(t, set, "a", nil)
			wait(time.Second)
		}
		assert.Equal(t, []time.Duration{0, 15 * time.Second, 35 * time.Second, 75 * time.Second, 155 * time.Second}, net.requestTimes(start, 1))
	})
	withFakeTime(t, "429 with Retry-After: 60 causes one request a minute", func(t *testing.T, net *network) {
		net.respondKeys(reply(429, "", "Retry-After: 60"))
		v := edValidator(t, net.keySet())
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			_, err := v.Validate(t.Context(), edToken(t, "a", nil))
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			wait(300 * time.Millisecond)
		}
		assert.Equal(t, []time.Duration{0, 1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute}, net.requestTimes(start, 0))
	})
}
