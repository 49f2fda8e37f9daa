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

func TestAFetchHasOneTimeout(t *testing.T) {
	drip := func(req *http.Request) (*http.Response, error) {
		resp, err := reply(200, "")(req)
		resp.Body, resp.ContentLength = io.NopCloser(drippingBody{req.Context()}), -1
		return resp, err
	}
	for _, c := range []struct {
		sentence string
		timeout  time.Duration // of the client
		page     page
		want     time.Duration
	}{
		{"5 seconds for a server that never answers", 0, hanging, keysTimeout},
		{"5 seconds for a body that drips", 0, drip, keysTimeout},
		{"5 seconds for a client that has more", time.Minute, hanging, keysTimeout},
		{"the client's, where that is less", time.Second, hanging, time.Second},
		{"the client's for the body too", time.Second, drip, time.Second},
	} {
		bubble(t, c.sentence, func(t *testing.T, net *network) {
			net.keys(c.page)
			set := net.set()
			set.HTTPClient.Timeout = c.timeout
			unavailable(t, set, "a", c.want, 0)
			assert.Equal(t, c.timeout, set.HTTPClient.Timeout)
		})
	}
	bubble(t, "just under 5 seconds is in time", func(t *testing.T, net *network) {
		net.keys(slow(keysTimeout-1, keysOf("a")))
		gives(t, net.set(), "a", keysTimeout-1)
	})
	bubble(t, "discovery and the keys are one fetch for it", func(t *testing.T, net *network) {
		net.at(edIssuer+"/.well-known/openid-configuration", slow(3*time.Second, metadata(edIssuer, keysURL)))
		net.keys(slow(1999*time.Millisecond, keysOf("a")))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		gives(t, set, "a", 4999*time.Millisecond)

		net.keys(slow(2*time.Second+1, keysOf("a")))
		set = &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		unavailable(t, set, "a", keysTimeout, 0)
	})
	bubble(t, "discovery by both locations and the keys are one fetch for it", func(t *testing.T, net *network) {
		net.at(edIssuer+"/.well-known/openid-configuration", slow(2*time.Second, reply(404, "")))
		net.at("https://issuer.example.com/.well-known/oauth-authorization-server/realms/one", slow(2*time.Second, metadata(edIssuer, keysURL)))
		net.keys(slow(2*time.Second, keysOf("a")))
		unavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", keysTimeout, 0)
		assert.Equal(t, 3, net.count())
	})
}

// drippingBody gives one byte each second until the request is done.
type drippingBody struct{ ctx context.Context }

func (b drippingBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func TestATransportThatMisbehaves(t *testing.T) {
	for _, c := range []struct {
		sentence string
		page     page
	}{
		{"panics", func(*http.Request) (*http.Response, error) { panic("boom eyJhbGciOiJub25lIn0") }},
		{"panics with nil", func(*http.Request) (*http.Response, error) { panic(nil) }},
		{"panics in the body", func(req *http.Request) (*http.Response, error) {
			resp, err := reply(200, "")(req)
			resp.Body = panickingBody{}
			return resp, err
		}},
		{"leaves its goroutine", func(*http.Request) (*http.Response, error) { runtime.Goexit(); return nil, nil }},
		{"gives neither response nor error", func(*http.Request) (*http.Response, error) { return nil, nil }},
		{"gives no body", func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req}, nil
		}},
		{"resets the connection in the body", func(req *http.Request) (*http.Response, error) {
			resp, err := reply(200, "")(req)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(edSet("a")), failingReader{}))
			return resp, err
		}},
	} {
		bubble(t, c.sentence+", and the keys are unavailable, then as before", func(t *testing.T, net *network) {
			net.keys(c.page)
			set := net.set()
			err := unavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.NotContains(t, fmt.Sprint(err), "eyJ")
			net.keys(keysOf("a"))
			pass(time.Second)
			gives(t, set, "a", 0)
			net.keys(c.page)
			pass(keysMaxAge)
			gives(t, set, "a", 0)
			synctest.Wait()
			gives(t, set, "a", 0)
			net.keys(keysOf("b"))
			pass(keysInterval)
			gives(t, set, "b", 0)
		})
	}
}

type panickingBody struct{}

func (panickingBody) Read([]byte) (int, error) { panic("boom") }
func (panickingBody) Close() error             { return nil }

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errNetwork }

func TestADocumentHasOneMiBAtMost(t *testing.T) {
	padded := func(size int) string { return edSet("a") + strings.Repeat(" ", size-len(edSet("a"))) }
	bubble(t, "1 MiB is accepted", func(t *testing.T, net *network) {
		net.keys(reply(200, padded(1<<20)))
		gives(t, net.set(), "a", 0)
	})
	bubble(t, "one byte more is a failure, and replaces nothing", func(t *testing.T, net *network) {
		net.keys(reply(200, padded(1<<20+1)))
		set := net.set()
		unavailable(t, set, "a", 0, 250*time.Millisecond)
		net.keys(keysOf("a"))
		pass(time.Second)
		gives(t, set, "a", 0)
		net.keys(reply(200, padded(1<<20+1)))
		pass(keysMaxAge)
		for range 3 {
			gives(t, set, "a", 0)
			synctest.Wait()
		}
	})
	bubble(t, "an endless body is not read on", func(t *testing.T, net *network) {
		body := &endlessBody{}
		net.keys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: body, ContentLength: -1, Request: req}, nil
		})
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.LessOrEqual(t, body.read, 1<<20+1)
		assert.True(t, body.closed)
	})
	bubble(t, "of the metadata too", func(t *testing.T, net *network) {
		document := fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, edIssuer, keysURL)
		net.at(edIssuer+"/.well-known/openid-configuration", reply(200, document+strings.Repeat(" ", 1<<20)))
		net.keys(keysOf("a"))
		unavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "what a page says beside its 404 is not read", func(t *testing.T, net *network) {
		net.at(edIssuer+"/.well-known/openid-configuration", reply(404, strings.Repeat("<p>not found", 1<<20)))
		net.at("https://issuer.example.com/.well-known/oauth-authorization-server/realms/one", metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		gives(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
	})
	bubble(t, "an error page that drips fails at once", func(t *testing.T, net *network) {
		net.keys(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Body: io.NopCloser(drippingBody{req.Context()}), ContentLength: -1, Request: req}, nil
		})
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
	})
	t.Run("after decompression", func(t *testing.T) {
		var member bytes.Buffer
		w := gzip.NewWriter(&member)
		_, err := w.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		bomb := bytes.Repeat(member.Bytes(), 256) // RFC 1952 §2.2
		require.Less(t, len(bomb), 1<<20, "it fits as it is sent")
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
	t.Run("and what is compressed and good is read", func(t *testing.T) {
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

func TestRedirects(t *testing.T) {
	bubble(t, "three are followed", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("https://issuer.example.com/2"))
		net.at("https://issuer.example.com/2", redirect("https://ISSUER.example.com:443/3"))
		net.at("https://ISSUER.example.com:443/3", keysOf("a"))
		gives(t, net.set(), "a", 0)
		assert.Equal(t, 4, net.count())
	})
	bubble(t, "four are not", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("/2"))
		net.at("https://issuer.example.com/2", redirect("/3"))
		net.at("https://issuer.example.com/3", redirect("/4"))
		net.at("https://issuer.example.com/4", keysOf("a"))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.count())
	})
	bubble(t, "a loop ends", func(t *testing.T, net *network) {
		net.keys(redirect(keysURL))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 4, net.count())
	})
	for _, c := range []struct{ sentence, from, to string }{
		{"to another host is refused", keysURL, "https://other.example.com/keys"},
		{"to a host below is refused", keysURL, "https://sub.issuer.example.com/keys"},
		{"to another port is refused", keysURL, "https://issuer.example.com:8443/keys"},
		{"to http is refused", keysURL, "http://issuer.example.com/keys"},
		{"to http on port 443 is refused", keysURL, "http://issuer.example.com:443/keys"},
		{"from loopback to another host is refused", "http://localhost:8080/keys", "http://127.0.0.1:8080/keys"},
		{"from http to https is refused", "http://localhost:8080/keys", "https://localhost:8080/keys"},
		{"to another scheme is refused", keysURL, "file:///etc/keys"},
	} {
		bubble(t, c.sentence, func(t *testing.T, net *network) {
			net.at(c.from, redirect(c.to))
			net.at(c.to, keysOf("a"))
			set := net.set()
			set.URL, set.DangerouslyAllowHTTP = c.from, true
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{c.from}, net.urls())
		})
	}
	bubble(t, "by way of the same host to another is refused", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", redirect("https://other.example.com/keys"))
		net.at("https://other.example.com/keys", keysOf("a"))
		unavailable(t, net.set(), "a", 0, 250*time.Millisecond)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "the metadata too may redirect on the same host, and not to another", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		configuration := edIssuer + "/.well-known/openid-configuration"
		net.at(configuration, redirect("/moved"))
		net.at("https://issuer.example.com/moved", metadata(edIssuer, keysURL))
		gives(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0)
		net.at(configuration, redirect("https://other.example.com/moved"))
		net.at("https://other.example.com/moved", metadata(edIssuer, keysURL))
		unavailable(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}, "a", 0, 250*time.Millisecond)
	})
	bubble(t, "the caller's CheckRedirect is asked as well, and is not changed", func(t *testing.T, net *network) {
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", keysOf("a"))
		set := net.set()
		errNo := errors.New("not by me")
		var asked []string
		answer := error(nil)
		set.HTTPClient.CheckRedirect = func(req *http.Request, via []*http.Request) error {
			asked = append(asked, fmt.Sprint(req.URL, " after ", len(via)))
			return answer
		}
		gives(t, set, "a", 0)
		assert.Equal(t, []string{"https://issuer.example.com/1 after 1"}, asked)
		for _, answer = range []error{errNo, http.ErrUseLastResponse} {
			_, err := set.Keys(t.Context(), "b", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			if answer == errNo {
				assert.ErrorIs(t, err, errNo)
			}
		}
		asked, answer = nil, nil
		net.keys(redirect("https://other.example.com/"))
		pass(keysInterval)
		_, err := set.Keys(t.Context(), "b", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, asked, "what is refused anyway is no question")
		assert.NoError(t, set.HTTPClient.CheckRedirect(&http.Request{}, nil), "it is still the caller's")
	})
	bubble(t, "the caller's client is not changed", func(t *testing.T, net *network) {
		client := &http.Client{Transport: net, Timeout: time.Minute}
		net.keys(redirect("/1"))
		net.at("https://issuer.example.com/1", keysOf("a"))
		set := net.set()
		set.HTTPClient = client
		gives(t, set, "a", 0)
		assert.Equal(t, &http.Client{Transport: net, Timeout: time.Minute}, client)
	})
}

func TestHTTPIsForLoopbackOnly(t *testing.T) {
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
		bubble(t, url, func(t *testing.T, net *network) {
			net.at(url, keysOf("a"))
			net.at(strings.Replace(url, "HTTPS", "https", 1), keysOf("a"))
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: url, HTTPClient: net.client()})
			assert.Equal(t, ok, err == nil, "NewValidator with JWKSURL: %v", err)
			_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: &koreauth.RemoteKeySet{URL: url}})
			assert.Equal(t, ok, err == nil, "NewValidator with a RemoteKeySet: %v", err)
			if !strings.Contains(url, "#") {
				_, err = koreauth.NewValidator(koreauth.Config{Issuer: url, Audience: []string{"y"}, HTTPClient: net.client()})
				assert.Equal(t, ok, err == nil, "NewValidator with Issuer: %v", err)
			}
			require.Zero(t, net.count(), "a constructor asks nobody")
			set := net.set()
			set.URL = url
			if ok {
				gives(t, set, "a", 0)
				return
			}
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			set = &koreauth.RemoteKeySet{Issuer: url, HTTPClient: net.client()}
			unavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.Zero(t, net.count())
		})
	}
	bubble(t, "unless DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		net.at("http://10.0.0.1/keys", keysOf("a"))
		set := net.set()
		set.URL, set.DangerouslyAllowHTTP = "http://10.0.0.1/keys", true
		gives(t, set, "a", 0)
		_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "http://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.NoError(t, err)
		_, err = koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, JWKSURL: "ftp://10.0.0.1/keys", DangerouslyAllowHTTP: true})
		assert.Error(t, err)
	})
	bubble(t, "a key set with faults asks nobody", func(t *testing.T, net *network) {
		for _, set := range []*koreauth.RemoteKeySet{
			{HTTPClient: net.client()},
			{URL: keysURL, HTTPClient: net.client(), MinInterval: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxAge: -1},
			{URL: keysURL, HTTPClient: net.client(), MaxStale: -1},
			{Issuer: edIssuer + "?a=b", HTTPClient: net.client()},
			{Issuer: edIssuer + "#a", HTTPClient: net.client()},
		} {
			unavailableOf(t, set, "a")
			_, err := koreauth.NewValidator(koreauth.Config{Issuer: "x", Audience: []string{"y"}, Keys: set})
			assert.Error(t, err)
		}
		assert.Zero(t, net.count())
	})
}

func TestNothingIsLeftRunning(t *testing.T) {
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
				"goroutines are left of fetches that have ended")
		})
	}
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
