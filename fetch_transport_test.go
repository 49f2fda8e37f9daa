package koreauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// A bubble of synctest does not end while one of its goroutines is blocked, so each
// of these tests also shows that nothing is left running after release.

// body is a response body of functions; a nil one does nothing.
type body struct {
	io.Reader
	read, close func()
}

func (b body) Read(p []byte) (int, error) {
	if b.read != nil {
		b.read()
	}
	return b.Reader.Read(p)
}

func (b body) Close() error {
	if b.close != nil {
		b.close()
	}
	return nil
}

// withBody responds with keys in a body, and says that it has that length.
func withBody(length int64, read, close func()) responder {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Request: req, ContentLength: length,
			Body: body{strings.NewReader(edSet("a")), read, close}}, nil
	}
}

func TestFetch_TransportThatHangs(t *testing.T) {
	for _, row := range []struct {
		name string
		hang func(release chan struct{}) responder
	}{
		{"RoundTrip", func(release chan struct{}) responder {
			return func(*http.Request) (*http.Response, error) { <-release; return nil, errConnectionRefused }
		}},
		{"RoundTrip, and then returns a response", func(release chan struct{}) responder {
			return func(req *http.Request) (*http.Response, error) { <-release; return keysOf("late")(req) }
		}},
		{"RoundTrip, and then panics", func(release chan struct{}) responder {
			return func(*http.Request) (*http.Response, error) { <-release; panic("boom") }
		}},
		{"Read", func(release chan struct{}) responder { return withBody(-1, func() { <-release }, nil) }},
		{"Read, and Close panics", func(release chan struct{}) responder {
			return withBody(-1, func() { <-release }, func() { panic("boom") })
		}},
		{"Read and Close", func(release chan struct{}) responder {
			return withBody(-1, func() { <-release }, func() { <-release })
		}},
		{"Close", func(release chan struct{}) responder { return withBody(-1, nil, func() { <-release }) }},
		{"Close of an error response", func(release chan struct{}) responder {
			return func(req *http.Request) (*http.Response, error) {
				res, err := withBody(-1, nil, func() { <-release })(req)
				res.StatusCode = 500
				return res, err
			}
		}},
	} {
		withFakeTime(t, row.name+" ignores its context: the fetch ends at Timeout, and the next one works", func(t *testing.T, net *network) {
			release := make(chan struct{})
			net.respondKeys(row.hang(release))
			set := net.keySet()
			set.Timeout = 2 * time.Second
			wantUnavailable(t, set, "a", 2*time.Second, 0)
			net.respondKeys(keysOf("a")) // The first request still hangs.
			wantKey(t, set, "a", 0)
			net.respondKeys(row.hang(release))
			wait(keysMaxAge)
			wantKey(t, set, "a", 0) // starts a refresh
			wait(2 * time.Second)
			net.respondKeys(keysOf("b"))
			wait(keysInterval)
			wantKey(t, set, "b", 0)
			close(release)
			synctest.Wait()
			wantUnknown(t, set, "late", 0)
			wantKey(t, set, "b", 0)
		})
		withFakeTime(t, row.name+" ignores its context each time: at most eight requests hang", func(t *testing.T, net *network) {
			release := make(chan struct{})
			var begun atomic.Int64
			hang := row.hang(release)
			net.respondKeys(func(req *http.Request) (*http.Response, error) { begun.Add(1); return hang(req) })
			set := net.keySet()
			set.Timeout = time.Second
			synctest.Wait()
			before := runtime.NumGoroutine()
			var last error
			for range 40 {
				_, last = set.Keys(t.Context(), "a", true)
				require.ErrorIs(t, last, koreauth.ErrUnavailable)
				wait(keysInterval)
			}
			assert.EqualValues(t, 8, begun.Load(), "requests that the transport was given")
			assert.ErrorContains(t, last, "has not returned from 8 earlier requests")
			assert.LessOrEqual(t, runtime.NumGoroutine()-before, 2*8+2, "one goroutine for each request, and one that closes its body")
			close(release)
			synctest.Wait()
			net.respondKeys(keysOf("a"))
			wantKey(t, set, "a", 0)
		})
	}
}

func TestFetch_TransportThatLies(t *testing.T) {
	doc := edSet("a")
	for name, length := range map[string]int64{"zero": 0, "one": 1, "unknown": -1, "less than unknown": -5, "one less": int64(len(doc)) - 1, "one more": int64(len(doc)) + 1, "huge": 1 << 62} {
		withFakeTime(t, "a Content-Length that is "+name+" makes no difference", func(t *testing.T, net *network) {
			net.respondKeys(withBody(length, nil, nil))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			wantKey(t, net.keySet(), "a", 0)
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))
		})
	}
	rows := map[string]responder{
		"Read panics":               withBody(-1, func() { panic("boom eyJhbGciOiJub25lIn0") }, nil),
		"Read exits its goroutine":  withBody(-1, runtime.Goexit, nil),
		"Read and Close panic":      withBody(-1, func() { panic("boom") }, func() { panic("boom") }),
		"Close panics":              withBody(-1, nil, func() { panic("boom") }),
		"Close exits its goroutine": withBody(-1, nil, runtime.Goexit),
		"a nil header": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 500, Body: http.NoBody}, nil
		},
		"an empty response": func(*http.Request) (*http.Response, error) { return &http.Response{}, nil },
		"a negative status": func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: -1, Body: http.NoBody}, nil
		},
		"an error that panics":         func(*http.Request) (*http.Response, error) { return nil, errorThatPanics{} },
		"a url.Error without an error": func(*http.Request) (*http.Response, error) { return nil, &url.Error{} },
		"Read returns more than it was asked for": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(greedyReader{}), Request: req}, nil
		},
		"Read returns nothing for ever": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(idleReader{req}), Request: req}, nil
		},
	}
	for name, respond := range rows {
		withFakeTime(t, name+": the keys are unavailable until it works again", func(t *testing.T, net *network) {
			net.respondKeys(respond)
			set := net.keySet()
			_, err := set.Keys(t.Context(), "a", true)
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.NotContains(t, fmt.Sprint(err), "eyJ")
			net.respondKeys(keysOf("a"))
			wait(time.Second)
			wantKey(t, set, "a", 0)
			net.respondKeys(respond)
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			wait(keysTimeout)
			wantKey(t, set, "a", 0)
			net.respondKeys(keysOf("b"))
			wait(keysInterval)
			wantKey(t, set, "b", 0)
		})
	}
	withFakeTime(t, "CheckRedirect panics: the keys are unavailable until it works again", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/moved"))
		set := net.keySet()
		set.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { panic("boom") }
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respondKeys(keysOf("a"))
		wait(time.Second)
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "a transport that keeps its requests and changes them later harms nothing", func(t *testing.T, net *network) {
		var kept []*http.Request
		net.respondKeys(func(req *http.Request) (*http.Response, error) {
			kept = append(kept, req)
			return keysOf("a")(req)
		})
		set := net.keySet()
		wantKey(t, set, "a", 0)
		kept[0].URL.Host = "evil.example"
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, []string{keysURL, keysURL}, net.requestURLs())
	})
}

type errorThatPanics struct{}

func (errorThatPanics) Error() string { panic("boom") }

type greedyReader struct{}

func (greedyReader) Read(p []byte) (int, error) { return len(p) + 1, nil }

// idleReader returns no bytes and no error until its request is over.
type idleReader struct{ req *http.Request }

func (r idleReader) Read([]byte) (int, error) {
	time.Sleep(time.Millisecond)
	return 0, r.req.Context().Err()
}

func TestFetch_RedirectUpgradesToHTTPS(t *testing.T) {
	for _, row := range []struct {
		from, to string
		ok       bool
	}{
		{"http://issuer.example.com/keys", "https://issuer.example.com/keys", true},
		{"http://issuer.example.com/keys", "https://ISSUER.example.com/other", true},
		{"http://issuer.example.com:8080/keys", "https://issuer.example.com/keys", true},
		{"http://issuer.example.com/keys", "https://issuer.example.com:8443/keys", true},
		{"http://localhost:8080/keys", "https://localhost/keys", true},
		{"http://issuer.example.com/keys", "https://other.example.com/keys", false},
		{"http://issuer.example.com/keys", "https://issuer.example.com.evil.example/keys", false},
		{"http://issuer.example.com/keys", "http://issuer.example.com:8080/keys", false},
		{"https://issuer.example.com/keys", "http://issuer.example.com/keys", false},
		{"https://issuer.example.com/keys", "https://issuer.example.com:8443/keys", false},
	} {
		withFakeTime(t, row.from+" to "+row.to, func(t *testing.T, net *network) {
			target := row.to + "?secret=hunter2#hunter3"
			target = strings.Replace(target, "://", "://user:hunter4@", 1)
			net.respond(row.from, redirect(target))
			for _, url := range []string{row.to, row.to + "?secret=hunter2", strings.Replace(row.to, "://", "://user:hunter4@", 1) + "?secret=hunter2#hunter3"} {
				net.respond(url, keysOf("a"))
			}
			set := net.keySet()
			set.URL, set.DangerouslyAllowHTTP = row.from, true
			if row.ok {
				wantKey(t, set, "a", 0)
				return
			}
			err := wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
			assert.ErrorContains(t, err, "redirect to "+row.to, "the target is named")
			assert.NotContains(t, err.Error(), "hunter")
			assert.Equal(t, 1, net.requestCount())
		})
	}
	withFakeTime(t, "first to https, then to http: rejected", func(t *testing.T, net *network) {
		net.respond("http://localhost/1", redirect("https://localhost/2"))
		net.respond("https://localhost/2", redirect("http://localhost/3"))
		net.respond("http://localhost/3", keysOf("a"))
		set := net.keySet()
		set.URL = "http://localhost/1"
		err := wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		assert.ErrorContains(t, err, "redirect to http://localhost/3")
	})
	withFakeTime(t, "the metadata may be upgraded too", func(t *testing.T, net *network) {
		const issuer = "http://localhost:8080"
		net.respond(issuer+"/.well-known/openid-configuration", redirect("https://localhost/metadata"))
		net.respond("https://localhost/metadata", metadata(issuer, keysURL))
		net.respondKeys(keysOf("a"))
		wantKey(t, &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: net.client()}, "a", 0)
	})
	withFakeTime(t, "the last target of too many redirects is named", func(t *testing.T, net *network) {
		net.respondKeys(redirect("/keys?secret=hunter2"))
		net.respond(keysURL+"?secret=hunter2", redirect("/keys?secret=hunter2"))
		err := wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
		assert.ErrorContains(t, err, "more than three redirects, the last to "+keysURL)
		assert.NotContains(t, err.Error(), "hunter")
	})
}

func TestFetch_CustomKeySetThatMisbehaves(t *testing.T) {
	for name, set := range map[string]keySetFunc{
		"panics":             func(context.Context, string, bool) ([]koreauth.Key, error) { panic("boom") },
		"panics with nil":    func(context.Context, string, bool) ([]koreauth.Key, error) { panic(nil) },
		"returns nil":        func(context.Context, string, bool) ([]koreauth.Key, error) { return nil, nil },
		"returns empty keys": func(context.Context, string, bool) ([]koreauth.Key, error) { return make([]koreauth.Key, 9), nil },
	} {
		v := edValidator(t, set)
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		if strings.HasPrefix(name, "panics") {
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
		} else {
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey, name)
		}
		if name != "returns empty keys" {
			assert.ErrorIs(t, v.Ready(t.Context()), koreauth.ErrUnavailable, name)
		}
	}
}
