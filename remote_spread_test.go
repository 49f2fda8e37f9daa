package koreauth_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/fetch"
)

// randomTimes makes the times of fetches random, as they are in a program.
func randomTimes(t *testing.T) {
	t.Helper()
	undo := fetch.Random()
	t.Cleanup(undo)
}

// A thousand sets that were started in one second do not fetch in the same seconds
// afterwards, nor in an outage.
func TestRemoteKeySet_AThousandSetsSpread(t *testing.T) {
	randomTimes(t)
	const sets = 1000
	hour := time.Hour
	if raceDetector {
		hour = 25 * time.Minute // to save time
	}
	for name, row := range map[string]struct {
		outage bool
		after  time.Duration // of good keys
		most   int           // fetches in one second
	}{
		"refreshes": {false, hour, 20}, "an outage of an hour": {true, hour, 40},
		"an outage before the sets are spread": {true, 10 * time.Minute, 55},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex // guards the fields below
			var inSecond, failing = map[int64]int{}, false
			start := time.Now()
			document := testIssuer().JWKS()
			client := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				inSecond[int64(time.Since(start)/time.Second)]++
				if failing {
					return nil, fmt.Errorf("down")
				}
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(document))), Request: r}, nil
			})}
			var all [sets]*koreauth.RemoteKeySet
			for n := range all {
				all[n] = &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: client}
			}
			kid := testIssuer().SigningKey().ID
			use := func() {
				for _, set := range all {
					if _, err := set.Keys(t.Context(), kid, true); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
			}
			use()
			require.Equal(t, sets, inSecond[0])
			for time.Since(start) < row.after+hour {
				time.Sleep(time.Second)
				mu.Lock()
				failing = row.outage && time.Since(start) > row.after
				mu.Unlock()
				use()
			}
			most, total := 0, 0
			for second, fetches := range inSecond {
				if second > 0 {
					most, total = max(most, fetches), total+fetches
				}
			}
			t.Logf("%s: at most %d fetches in a second, %d in all", name, most, total)
			assert.LessOrEqual(t, most, row.most, name)
			assert.Greater(t, total, 3*sets, name)
		})
	}
}

// A thousand sets that the issuer asks to come back at one moment do not do so, neither
// with keys nor without.
func TestRemoteKeySet_RetryAfterIsSpread(t *testing.T) {
	randomTimes(t)
	length := 25 * time.Minute
	if raceDetector {
		length = 18 * time.Minute // to save time
	}
	for name, row := range map[string]struct {
		header func() string
		most   int // fetches in one second
	}{
		"30 seconds": {func() string { return "30" }, 40},
		"a minute":   {func() string { return "60" }, 40},
		"the next full minute": {func() string {
			return time.Now().UTC().Truncate(time.Minute).Add(time.Minute).Format(http.TimeFormat)
		}, 50},
	} {
		for when, good := range map[string]time.Duration{"with keys": 10 * time.Minute, "without keys": 0} {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards the fields below
				inSecond, start := map[int64]int{}, time.Now()
				document := testIssuer().JWKS()
				client := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					inSecond[int64(time.Since(start)/time.Second)]++
					res := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(document))), Request: r}
					if time.Since(start) >= good {
						res.StatusCode = 503
						res.Header.Set("Retry-After", row.header())
					}
					return res, nil
				})}
				var all [1000]*koreauth.RemoteKeySet
				for n := range all {
					all[n] = &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: client}
				}
				for time.Since(start) < length {
					for _, set := range all {
						_, err := set.Keys(t.Context(), "", true)
						assert.Equal(t, good == 0, err != nil)
					}
					synctest.Wait()
					time.Sleep(time.Second)
				}
				most, total := 0, 0
				for second, fetches := range inSecond {
					if second > 0 { // In the first, all have just started.
						most, total = max(most, fetches), total+fetches
					}
				}
				t.Logf("Retry-After of %s, %s: at most %d fetches in a second, %d in all", name, when, most, total)
				assert.LessOrEqual(t, most, row.most, "%s, %s", name, when)
				assert.Greater(t, total, 3*len(all), "they are retried")
			})
		}
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Keys are refreshed after a random 80 to 100 % of MaxAge, never later.
func TestRemoteKeySet_RefreshesEarly(t *testing.T) {
	randomTimes(t)
	earliest, latest := time.Hour, time.Duration(0)
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			var fetches atomic.Int64
			set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: 100 * time.Second, HTTPClient: &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				fetches.Add(1)
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(testIssuer().JWKS()))), Request: r}, nil
			})}}
			start := time.Now()
			for fetches.Load() < 2 {
				_, err := set.Keys(t.Context(), "", true)
				require.NoError(t, err)
				synctest.Wait()
				if fetches.Load() < 2 {
					time.Sleep(100 * time.Millisecond)
				}
			}
			earliest, latest = min(earliest, time.Since(start)), max(latest, time.Since(start))
		})
	}
	assert.GreaterOrEqual(t, earliest, 80*time.Second)
	assert.Less(t, earliest, 83*time.Second)
	assert.LessOrEqual(t, latest, 100*time.Second)
	assert.Greater(t, latest, 97*time.Second)
}

// A cold start makes one TLS connection, and nothing of it is left, also if many sets
// share one client.
func TestRemoteKeySet_OneConnection(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		var handshakes, open atomic.Int64
		mux := http.NewServeMux()
		server := httptest.NewUnstartedServer(mux)
		server.EnableHTTP2 = http2
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
		server.StartTLS()
		server.TLS.VerifyConnection = func(tls.ConnectionState) error { handshakes.Add(1); return nil }
		mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, server.URL, server.URL+"/keys")
		})
		mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(testIssuer().JWKS()) })
		const sets = 20
		var group sync.WaitGroup
		for range sets {
			group.Go(func() {
				set := &koreauth.RemoteKeySet{Issuer: server.URL, HTTPClient: server.Client()}
				if _, err := set.Keys(context.WithoutCancel(t.Context()), "", true); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		assert.Eventually(t, func() bool { return open.Load() == 0 }, 10*time.Second, time.Millisecond, "%s: connections that stay open", name)
		assert.EqualValues(t, sets, handshakes.Load(), name)
		server.Close()
	}
}

// The metadata can be at the second place, and the response of the first a page: that
// costs no second TLS connection, unless the page is large.
func TestRemoteKeySet_OneConnectionAfter404(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for size, want := range map[int]int64{0: 1, 10: 1, 5000: 1, 64 << 10: 1, 300_000: 2} {
			var handshakes atomic.Int64
			mux := http.NewServeMux()
			server := httptest.NewUnstartedServer(mux)
			server.EnableHTTP2 = http2
			server.StartTLS()
			server.TLS.VerifyConnection = func(tls.ConnectionState) error { handshakes.Add(1); return nil }
			mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, strings.Repeat("x", size))
			})
			mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, server.URL, server.URL+"/keys")
			})
			mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(testIssuer().JWKS()) })
			_, err := (&koreauth.RemoteKeySet{Issuer: server.URL, HTTPClient: server.Client()}).Keys(t.Context(), "", true)
			require.NoError(t, err)
			if http2 {
				want = 1
			}
			assert.Equal(t, want, handshakes.Load(), "%s, a 404 with %d bytes", name, size)
			server.Close()
		}
	}
}

// A page that never ends delays the second place of the metadata by half a second, and is
// not taken for an outage.
func TestRemoteKeySet_404ThatNeverEnds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	start := time.Now()
	_, err := (&koreauth.RemoteKeySet{Issuer: server.URL}).Keys(t.Context(), "", true)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.ErrorContains(t, err, "status 404")
	assert.Less(t, time.Since(start), 4*time.Second)
}
