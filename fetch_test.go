package koreauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func TestFetch_Timeout(t *testing.T) {
	respondSlowly := func(req *http.Request) (*http.Response, error) {
		resp, err := reply(200, "")(req)
		resp.Body, resp.ContentLength = io.NopCloser(slowBody{req.Context()}), -1
		return resp, err
	}
	for _, c := range []struct {
		name    string
		timeout time.Duration // of the HTTP client
		respond responder
		want    time.Duration
	}{
		{"5 seconds for a server that never responds", 0, hanging, keysTimeout},
		{"5 seconds for a slow body", 0, respondSlowly, keysTimeout},
		{"5 seconds for a client with a longer timeout", time.Minute, hanging, keysTimeout},
		{"the client's timeout, if it is shorter", time.Second, hanging, time.Second},
		{"the client's timeout for a slow body", time.Second, respondSlowly, time.Second},
	} {
		withFakeTime(t, c.name, func(t *testing.T, net *network) {
			net.respondKeys(c.respond)
			set := net.keySet()
			set.HTTPClient.Timeout = c.timeout
			wantUnavailable(t, set, "a", c.want, 0)
			assert.Equal(t, c.timeout, set.HTTPClient.Timeout)
		})
	}
	withFakeTime(t, "a response after slightly less than 5 seconds is accepted", func(t *testing.T, net *network) {
		net.respondKeys(delayed(keysTimeout-1, keysOf("a")))
		wantKey(t, net.keySet(), "a", keysTimeout-1)
	})
	withFakeTime(t, "discovery and keys share one timeout", func(t *testing.T, net *network) {
		net.respond(edIssuer+"/.well-known/openid-configuration", delayed(3*time.Second, metadata(edIssuer, keysURL)))
		net.respondKeys(delayed(1999*time.Millisecond, keysOf("a")))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantKey(t, set, "a", 4999*time.Millisecond)

		net.respondKeys(delayed(2*time.Second+1, keysOf("a")))
		set = &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantUnavailable(t, set, "a", keysTimeout, 0)
	})
	withFakeTime(t, "discovery at both locations and keys share one timeout", func(t *testing.T, net *network) {
		net.respond(edIssuer+"/.well-known/openid-configuration", delayed(2*time.Second, reply(404, "")))
		net.respond("https://issuer.example.com/.well-known/oauth-authorization-server/realms/one", delayed(2*time.Second, metadata(edIssuer, keysURL)))
		net.respondKeys(delayed(2*time.Second, keysOf("a")))
		wantUnavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", keysTimeout, 0)
		assert.Equal(t, 3, net.requestCount())
	})
}

// slowBody returns one byte per second until the request is canceled.
type slowBody struct{ ctx context.Context }

func (b slowBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func TestFetch_MisbehavingTransport(t *testing.T) {
	for _, c := range []struct {
		name    string
		respond responder
	}{
		{"panics", func(*http.Request) (*http.Response, error) { panic("boom eyJhbGciOiJub25lIn0") }},
		{"panics with nil", func(*http.Request) (*http.Response, error) { panic(nil) }},
		{"panics while reading the body", func(req *http.Request) (*http.Response, error) {
			resp, err := reply(200, "")(req)
			resp.Body = panickingBody{}
			return resp, err
		}},
		{"exits its goroutine", func(*http.Request) (*http.Response, error) { runtime.Goexit(); return nil, nil }},
		{"returns neither response nor error", func(*http.Request) (*http.Response, error) { return nil, nil }},
		{"returns no body", func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req}, nil
		}},
		{"fails while reading the body", func(req *http.Request) (*http.Response, error) {
			resp, err := reply(200, "")(req)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(edSet("a")), failingReader{}))
			return resp, err
		}},
	} {
		withFakeTime(t, c.name+": the keys are unavailable until it works again", func(t *testing.T, net *network) {
			net.respondKeys(c.respond)
			set := net.keySet()
			err := wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.NotContains(t, fmt.Sprint(err), "eyJ")
			net.respondKeys(keysOf("a"))
			wait(time.Second)
			wantKey(t, set, "a", 0)
			net.respondKeys(c.respond)
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			synctest.Wait()
			wantKey(t, set, "a", 0)
			net.respondKeys(keysOf("b"))
			wait(keysInterval)
			wantKey(t, set, "b", 0)
		})
	}
}

type panickingBody struct{}

func (panickingBody) Read([]byte) (int, error) { panic("boom") }
func (panickingBody) Close() error             { return nil }

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errConnectionRefused }

func TestFetch_SizeLimit(t *testing.T) {
	padded := func(size int) string { return edSet("a") + strings.Repeat(" ", size-len(edSet("a"))) }
	withFakeTime(t, "1 MiB is accepted", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, padded(1<<20)))
		wantKey(t, net.keySet(), "a", 0)
	})
	withFakeTime(t, "one byte more is a failure, and the old keys are kept", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, padded(1<<20+1)))
		set := net.keySet()
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respondKeys(keysOf("a"))
		wait(time.Second)
		wantKey(t, set, "a", 0)
		net.respondKeys(reply(200, padded(1<<20+1)))
		wait(keysMaxAge)
		for range 3 {
			wantKey(t, set, "a", 0)
			synctest.Wait()
		}
	})
	withFakeTime(t, "an endless body is closed after 1 MiB", func(t *testing.T, net *network) {
		body := &endlessBody{}
		net.respondKeys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: body, ContentLength: -1, Request: req}, nil
		})
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
		assert.LessOrEqual(t, body.read, 1<<20+1)
		assert.True(t, body.closed)
	})
	withFakeTime(t, "the limit also applies to the metadata", func(t *testing.T, net *network) {
		document := fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, edIssuer, keysURL)
		net.respond(edIssuer+"/.well-known/openid-configuration", reply(200, document+strings.Repeat(" ", 1<<20)))
		net.respondKeys(keysOf("a"))
		wantUnavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "the body of a 404 response is not read", func(t *testing.T, net *network) {
		net.respond(edIssuer+"/.well-known/openid-configuration", reply(404, strings.Repeat("<p>not found", 1<<20)))
		net.respond("https://issuer.example.com/.well-known/oauth-authorization-server/realms/one", metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		wantKey(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
	})
	withFakeTime(t, "the slow body of an error response is not read", func(t *testing.T, net *network) {
		net.respondKeys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Body: io.NopCloser(slowBody{req.Context()}), ContentLength: -1, Request: req}, nil
		})
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
	})
	t.Run("the limit applies after decompression", func(t *testing.T) {
		var member bytes.Buffer
		w := gzip.NewWriter(&member)
		_, err := w.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		bomb := bytes.Repeat(member.Bytes(), 256) // RFC 1952 §2.2
		require.Less(t, len(bomb), 1<<20, "compressed size")
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		}))
		defer issuer.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = (&koreauth.RemoteKeySet{URL: issuer.URL}).Keys(t.Context(), "a", true)
		runtime.ReadMemStats(&after)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorContains(t, err, "1 MiB")
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
	})
	t.Run("a valid compressed document is accepted", func(t *testing.T) {
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			compressed := gzip.NewWriter(w)
			_, _ = io.WriteString(compressed, edSet("a"))
			_ = compressed.Close()
		}))
		defer issuer.Close()
		keys, err := (&koreauth.RemoteKeySet{URL: issuer.URL}).Keys(t.Context(), "a", true)
		require.NoError(t, err)
		assert.Len(t, keys, 1)
	})
}

type endlessBody struct {
	read   int
	closed bool
}

func (b *endlessBody) Read(p []byte) (int, error) {
	b.read += len(p)
	return len(p), nil
}

func (b *endlessBody) Close() error {
	b.closed = true
	return nil
}

func TestFetch_Redirects(t *testing.T) {
	withFakeTime(t, "three redirects are followed", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/1"))
		net.respond("https://issuer.example.com/1", redirect("https://issuer.example.com/2"))
		net.respond("https://issuer.example.com/2", redirect("https://ISSUER.example.com:443/3"))
		net.respond("https://ISSUER.example.com:443/3", keysOf("a"))
		wantKey(t, net.keySet(), "a", 0)
		assert.Equal(t, 4, net.requestCount())
	})
	withFakeTime(t, "the fourth redirect is not followed", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/1"))
		net.respond("https://issuer.example.com/1", redirect("/2"))
		net.respond("https://issuer.example.com/2", redirect("/3"))
		net.respond("https://issuer.example.com/3", redirect("/4"))
		net.respond("https://issuer.example.com/4", keysOf("a"))
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.requestCount())
	})
	withFakeTime(t, "a redirect loop ends", func(t *testing.T, net *network) {
		net.respondKeys(redirect(keysURL))
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.requestCount())
	})
	for _, c := range []struct{ name, from, to string }{
		{"to another host is rejected", keysURL, "https://other.example.com/keys"},
		{"to a subdomain is rejected", keysURL, "https://sub.issuer.example.com/keys"},
		{"to another port is rejected", keysURL, "https://issuer.example.com:8443/keys"},
		{"to http is rejected", keysURL, "http://issuer.example.com/keys"},
		{"to http on port 443 is rejected", keysURL, "http://issuer.example.com:443/keys"},
		{"from loopback to another host is rejected", "http://localhost:8080/keys", "http://127.0.0.1:8080/keys"},
		{"from http to https is rejected", "http://localhost:8080/keys", "https://localhost:8080/keys"},
		{"to another scheme is rejected", keysURL, "file:///etc/keys"},
	} {
		withFakeTime(t, c.name, func(t *testing.T, net *network) {
			net.respond(c.from, redirect(c.to))
			net.respond(c.to, keysOf("a"))
			set := net.keySet()
			set.URL, set.DangerouslyAllowHTTP = c.from, true
			wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{c.from}, net.requestURLs())
		})
	}
	withFakeTime(t, "first to the same host, then to another is rejected", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/1"))
		net.respond("https://issuer.example.com/1", redirect("https://other.example.com/keys"))
		net.respond("https://other.example.com/keys", keysOf("a"))
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 2, net.requestCount())
	})
	withFakeTime(t, "metadata may redirect to the same host, but not to another", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		configuration := edIssuer + "/.well-known/openid-configuration"
		net.respond(configuration, redirect("/moved"))
		net.respond("https://issuer.example.com/moved", metadata(edIssuer, keysURL))
		wantKey(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
		net.respond(configuration, redirect("https://other.example.com/moved"))
		net.respond("https://other.example.com/moved", metadata(edIssuer, keysURL))
		wantUnavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
	})
	withFakeTime(t, "the client's CheckRedirect is also called, and is not changed", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/1"))
		net.respond("https://issuer.example.com/1", keysOf("a"))
		set := net.keySet()
		errRejected := errors.New("redirect rejected")
		var checked []string
		result := error(nil)
		set.HTTPClient.CheckRedirect = func(req *http.Request, via []*http.Request) error {
			checked = append(checked, fmt.Sprint(req.URL, " after ", len(via)))
			return result
		}
		wantKey(t, set, "a", 0)
		assert.Equal(t, []string{"https://issuer.example.com/1 after 1"}, checked)
		for _, result = range []error{errRejected, http.ErrUseLastResponse} {
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			if result == errRejected {
				assert.ErrorIs(t, err, errRejected)
			}
		}
		checked, result = nil, nil
		net.respondKeys(redirect("https://other.example.com/"))
		wait(keysInterval)
		_, err := set.Keys(t.Context(), "b", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, checked, "calls of CheckRedirect for a redirect that is rejected anyway")
		assert.NoError(t, set.HTTPClient.CheckRedirect(&http.Request{}, nil), "CheckRedirect of the client after the fetches")
	})
	withFakeTime(t, "the HTTP client is not changed", func(t *testing.T, net *network) {
		client := &http.Client{Transport: net, Timeout: time.Minute}
		net.respondKeys(redirect("/1"))
		net.respond("https://issuer.example.com/1", keysOf("a"))
		set := net.keySet()
		set.HTTPClient = client
		wantKey(t, set, "a", 0)
		assert.Equal(t, &http.Client{Transport: net, Timeout: time.Minute}, client)
	})
}

func TestFetch_HTTPOnlyForLoopback(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://issuer.example.com":        true,
		"HTTPS://issuer.example.com":        true,
		"https://10.0.0.1:8443/keys":        true,
		"https://[2001:db8::1]/keys":        true,
		"http://127.0.0.1":                  true,
		"http://127.0.0.1:8080/realms/one":  true,
		"http://127.255.255.254:1":          true,
		"http://[::1]":                      true,
		"http://[::1]:8080":                 true,
		"http://localhost":                  true,
		"http://LocalHost:8080":             true,
		"http://issuer.example.com":         false,
		"http://128.0.0.1":                  false,
		"http://126.255.255.255":            false,
		"http://0.0.0.0":                    false,
		"http://[::]":                       false,
		"http://[::2]":                      false,
		"http://10.0.0.1":                   false,
		"http://127.1":                      false,
		"http://0x7f000001":                 false,
		"http://2130706433":                 false,
		"http://127.0.0.1.example.com":      false,
		"http://localhost.example.com":      false,
		"http://127.0.0.1@example.com":      false,
		"http://example.com/127.0.0.1":      false,
		"http://example.com#localhost":      false,
		"ftp://issuer.example.com":          false,
		"file:///etc/keys":                  false,
		"issuer.example.com":                false,
		"//issuer.example.com/keys":         false,
		"/keys":                             false,
		"https:":                            false,
		"https://":                          false,
		"https:///keys":                     false,
		"https://:443/keys":                 false,
		"https:issuer.example.com":          false,
		" https://issuer.example.com":       false,
		"https://issuer.example.com\n/keys": false,
		"https://issuer.example.com:port":   false,
	} {
		withFakeTime(t, url, func(t *testing.T, net *network) {
			net.respond(url, keysOf("a"))
			net.respond(strings.Replace(url, "HTTPS", "https", 1), keysOf("a"))
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: url, HTTPClient: net.client()})
			assert.Equal(t, ok, err == nil, "NewValidator with JWKSURL: %v", err)
			_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: &koreauth.RemoteKeySet{URL: url}})
			assert.Equal(t, ok, err == nil, "NewValidator with a RemoteKeySet: %v", err)
			if !strings.Contains(url, "#") {
				_, err = koreauth.NewValidator(koreauth.Config{Issuer: url, Audience: []string{"y"}, HTTPClient: net.client()})
				assert.Equal(t, ok, err == nil, "NewValidator with Issuer: %v", err)
			}
			require.Zero(t, net.requestCount(), "requests made by NewValidator")
			set := net.keySet()
			set.URL = url
			if ok {
				wantKey(t, set, "a", 0)
				return
			}
			wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			set = &koreauth.RemoteKeySet{Issuer: url, HTTPClient: net.client()}
			wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Zero(t, net.requestCount())
		})
	}
	withFakeTime(t, "DangerouslyAllowHTTP allows http to any host", func(t *testing.T, net *network) {
		net.respond("http://10.0.0.1/keys", keysOf("a"))
		set := net.keySet()
		set.URL, set.DangerouslyAllowHTTP = "http://10.0.0.1/keys", true
		wantKey(t, set, "a", 0)
		_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "http://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.NoError(t, err)
		_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "ftp://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.Error(t, err)
	})
	withFakeTime(t, "a RemoteKeySet with invalid fields makes no request", func(t *testing.T, net *network) {
		for _, set := range []*koreauth.RemoteKeySet{
			{HTTPClient: net.client()},
			{URL: keysURL, HTTPClient: net.client(), MinInterval: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxAge: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxStale: -1},
			{Issuer: edIssuer + "?a=b", HTTPClient: net.client()},
			{Issuer: edIssuer + "#a", HTTPClient: net.client()},
		} {
			wantUnavailableError(t, set, "a")
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: set})
			assert.Error(t, err)
		}
		assert.Zero(t, net.requestCount())
	})
}

func TestFetch_LeavesNothingRunning(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			var down atomic.Bool
			issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, protocol, r.Proto)
				if r.URL.Path != "/keys" {
					http.Redirect(w, r, "/keys", http.StatusFound)
					return
				}
				if down.Load() {
					w.WriteHeader(503)
				}
				_, _ = io.WriteString(w, edSet("a"))
			}))
			issuer.EnableHTTP2 = protocol == "HTTP/2.0"
			issuer.StartTLS()
			defer issuer.Close()
			running := func() int {
				var stacks bytes.Buffer
				require.NoError(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
				count := 0
				for _, in := range []string{"koreauth.(*RemoteKeySet)", "net/http.(*persistConn)", "lientConnReadLoop"} {
					count += strings.Count(stacks.String(), in)
				}
				return count
			}
			before := running()
			for i := range 40 {
				down.Store(i >= 20)
				_, err := (&koreauth.RemoteKeySet{URL: issuer.URL, HTTPClient: issuer.Client()}).Keys(t.Context(), "a", true)
				require.Equal(t, down.Load(), err != nil, "%v", err)
			}
			assert.Eventually(t, func() bool { return running() <= before }, 5*time.Second, 5*time.Millisecond,
				"goroutines of finished fetches are still running")
		})
	}
}

// blockingBody blocks each Read until Close, whatever the context.
type blockingBody chan struct{}

func (b blockingBody) Read([]byte) (int, error) { <-b; return 0, io.ErrClosedPipe }

func (b blockingBody) Close() error {
	select {
	case <-b:
	default:
		close(b)
	}
	return nil
}

func TestFetch_BodyIgnoresContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		net.respondKeys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: make(blockingBody), Request: req}, nil
		})
		start := time.Now()
		_, err := net.keySet().Keys(t.Context(), "", true)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestFetch_SetsCloseOnEachRequest(t *testing.T) {
	var net network
	closing := []bool{}
	net.respondKeys(func(req *http.Request) (*http.Response, error) {
		closing = append(closing, req.Close)
		return redirect("/moved")(req)
	})
	net.respond("https://issuer.example.com/moved", func(req *http.Request) (*http.Response, error) {
		closing = append(closing, req.Close)
		return connectionRefused(req)
	})
	_, err := net.keySet().Keys(t.Context(), "", true)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, []bool{true, true}, closing, "the first request and the redirected one")
}

func TestFetch_ClosesConnection(t *testing.T) {
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
		t.Fatal("the connection was not closed within 5 seconds")
	}
}
