package koreauth_test

import (
	"errors"
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
)

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
	document, kid := keyDocument(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
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
	document, kid := keyDocument(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
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

// deafBody heeds Close, and nothing else.
type deafBody chan struct{}

func (b deafBody) Read([]byte) (int, error) { <-b; return 0, io.ErrClosedPipe }

func (b deafBody) Close() error {
	select {
	case <-b:
	default:
		close(b)
	}
	return nil
}

func TestABodyThatDoesNotHeedTheContextEndsIn5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: make(deafBody), Request: r}, nil
		})}}
		start := time.Now()
		_, err := set.Keys(t.Context(), "", true)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestATryThatTakesLongerThanMaxAgeMakesNobodyWaitAgain(t *testing.T) {
	document, kid := keyDocument(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
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

func TestNoConnectionIsKeptBetweenFetches(t *testing.T) {
	closing := []bool{}
	set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		closing = append(closing, r.Close)
		if r.URL.Path == "/keys" {
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"/moved"}}, Body: http.NoBody, Request: r}, nil
		}
		return nil, errors.New("down")
	})}}
	_, err := set.Keys(t.Context(), "", true)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, []bool{true, true}, closing, "the request, and the redirected one")
}

func TestNoConnectionIsKeptWhereNothingRedirects(t *testing.T) {
	closed := make(chan struct{}, 1)
	issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, edSet("a"))
	}))
	issuer.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	issuer.Start()
	defer issuer.Close()
	_, err := (&koreauth.RemoteKeySet{URL: issuer.URL, HTTPClient: issuer.Client()}).Keys(t.Context(), "a", true)
	require.NoError(t, err)
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("the connection is kept")
	}
}
