package koreclient_test

import (
	"context"
	"errors"
	"io"
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

	"github.com/koreauth/koreauth/koreclient"
)

const (
	fetchTimeout = 10 * time.Second // of the client

	koreInvalid = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	koreScope   = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
)

// api is an API in memory. It rejects the tokens with rejection, and accepts others.
type api struct {
	server
	rejects   func(token string) bool
	rejection func(*http.Request) (*http.Response, error)
}

func newAPI(rejection func(*http.Request) (*http.Response, error), rejects func(token string) bool) *api {
	a := &api{rejects: rejects, rejection: rejection}
	a.answer = func(req *http.Request) (*http.Response, error) {
		token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		if a.rejects(token) {
			return a.rejection(req)
		}
		return reply(200, token)(req)
	}
	return a
}

func only(token string) func(string) bool { return func(got string) bool { return got == token } }

func call(t testing.TB, client *http.Client, req *http.Request) (status int, body string) {
	t.Helper()
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

func request(t testing.TB, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example/v1/ping", body)
	require.NoError(t, err)
	return req
}

func TestTransport_RetriesOnceWithANewToken(t *testing.T) {
	for name, rejection := range map[string]func(*http.Request) (*http.Response, error){
		"a challenge in a 401":  reply(401, "", "WWW-Authenticate", `Bearer realm="api", error="invalid_token"`),
		"a challenge in a 403":  reply(403, "", "WWW-Authenticate", `Bearer error=invalid_token`),
		"KORE's 403":            reply(403, koreInvalid),
		"RFC 6750's error body": reply(401, `{"error":"invalid_token","error_description":"x"}`),
		"spaces and case":       reply(401, "", "WWW-Authenticate", "bearer  realm=\"x\" ,\tERROR = \"invalid\\_token\""),
		"a second challenge":    reply(401, "", "WWW-Authenticate", `Negotiate YWJj==, Basic realm="error=\"x", Bearer error="invalid_token"`),
		"no type":               reply(401, `{"error":"invalid_token"}`, "Content-Type", ""),
		"a problem":             reply(401, `{"error":"invalid_token"}`, "Content-Type", "application/problem+json"),
	} {
		synctest.Test(t, func(t *testing.T) {
			issuer, a := &server{answer: tokens("3600")}, newAPI(rejection, only("token-1"))
			client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
			req := request(t, strings.NewReader("payload"))
			status, body := call(t, client, req)
			assert.Equal(t, 200, status, name)
			assert.Equal(t, "token-2", body, name)
			assert.Equal(t, []string{"payload", "payload"}, a.bodies, name)
			assert.Empty(t, req.Header["Authorization"], "the request is not changed")
			assert.Equal(t, 2, issuer.count(), name)
		})
	}
	for name, rejection := range map[string]func(*http.Request) (*http.Response, error){
		"another 401":    reply(401, `{"error":"unauthorized_client"}`),
		"another 403":    reply(403, `{"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}`),
		"an outage":      reply(503, koreInvalid),
		"HTML":           reply(403, "<html>"),
		"a large body":   reply(403, `{"error":"invalid_token","x":"`+strings.Repeat("x", 8000)+`"}`),
		"no body":        reply(403, ""),
		"insufficient":   reply(403, koreScope),
		"a realm":        reply(403, "", "WWW-Authenticate", `Bearer realm="a, error=invalid_token"`),
		"a description":  reply(401, "", "WWW-Authenticate", `Bearer error="invalid_request", error_description="see \"error=invalid_token\", error=invalid_token"`),
		"a longer code":  reply(401, "", "WWW-Authenticate", `Bearer error="invalid_token_binding"`),
		"a longer name":  reply(401, "", "WWW-Authenticate", `Bearer my_error="invalid_token"`),
		"another scheme": reply(401, "", "WWW-Authenticate", `Bearer realm="x", DPoP error="invalid_token"`),
		"open quotes":    reply(401, "", "WWW-Authenticate", `Bearer error="invalid_token`),
		"another code":   reply(401, `{"error":"invalid_token"}`, "WWW-Authenticate", `Bearer error="invalid_request"`),
		"another type":   reply(401, `{"error":"invalid_token"}`, "Content-Type", "text/plain"),
	} {
		synctest.Test(t, func(t *testing.T) {
			issuer, a := &server{answer: tokens("3600")}, newAPI(rejection, only("token-1"))
			client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
			status, body := call(t, client, request(t, nil))
			want, err := rejection(nil)
			require.NoError(t, err)
			text, err := io.ReadAll(want.Body)
			require.NoError(t, err)
			assert.Equal(t, want.StatusCode, status, name)
			assert.Equal(t, string(text), body, "%s: the answer is returned whole", name)
			assert.Equal(t, 1, a.count(), name)
		})
	}
}

// An API that rejects every token causes few fetches.
func TestTransport_ManyRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, a := &server{answer: tokens("3600")}, newAPI(reply(403, koreInvalid), only("token-1"))
		client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
		var group sync.WaitGroup
		for range 1000 {
			group.Go(func() {
				if status, _ := call(t, client, request(t, nil)); status != 200 {
					t.Error(status)
				}
			})
		}
		group.Wait()
		assert.Equal(t, 2, issuer.count(), "a thousand rejections make one fetch")
		a.rejects = func(string) bool { return true }
		before := issuer.count()
		for range 60 {
			status, body := call(t, client, request(t, nil))
			assert.Equal(t, 403, status)
			assert.Equal(t, koreInvalid, body)
			pass(time.Second)
		}
		assert.LessOrEqual(t, issuer.count()-before, 13, "fetches in a minute")
	})
}

// A rejection that arrives late finds the token that another request has fetched.
func TestTransport_LateRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &server{answer: tokens("3600")}
		a := newAPI(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/slow" {
				time.Sleep(3 * time.Second)
			}
			return reply(403, koreInvalid)(req)
		}, only("token-1"))
		client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
		var group sync.WaitGroup
		for _, path := range []string{"/slow", "/fast"} {
			group.Go(func() {
				req := request(t, nil)
				req.URL.Path = path
				status, body := call(t, client, req)
				assert.Equal(t, 200, status, path)
				assert.Equal(t, "token-2", body, path)
			})
			synctest.Wait() // The slow request is on its way.
		}
		group.Wait()
		assert.Equal(t, 2, issuer.count())
	})
}

// If there is no new token, the first answer is returned and the old token stays.
func TestTransport_NoNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, a := &server{answer: tokens("3600")}, newAPI(reply(403, koreInvalid), only("token-1"))
		c := newClient(t, issuer)
		client := &http.Client{Transport: c.Transport(a, "api.example")}
		get(t, c)
		issuer.set(reply(500, ""))
		status, body := call(t, client, request(t, nil))
		assert.Equal(t, 403, status)
		assert.Equal(t, koreInvalid, body)
		assert.Equal(t, "token-1", get(t, c))
		issuer.set(reply(200, `{"access_token":"token-1","expires_in":3600}`))
		pass(time.Minute)
		status, _ = call(t, client, request(t, nil))
		assert.Equal(t, 403, status, "the same token again is no new one")
		assert.Equal(t, 2, a.count())
	})
}

// A body that cannot be sent again is not, but later requests have a new token.
func TestTransport_BodyThatCannotBeReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, a := &server{answer: tokens("3600")}, newAPI(reply(403, koreInvalid), only("token-1"))
		client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
		status, body := call(t, client, request(t, io.MultiReader(strings.NewReader("once"))))
		assert.Equal(t, 403, status)
		assert.Equal(t, koreInvalid, body)
		assert.Equal(t, []string{"once"}, a.bodies)
		synctest.Wait()
		status, body = call(t, client, request(t, io.MultiReader(strings.NewReader("once"))))
		assert.Equal(t, 200, status)
		assert.Equal(t, "token-2", body)
	})
}

// The scopes of the client may have been changed (seed 000).
func TestTransport_InsufficientScope(t *testing.T) {
	for name, rejection := range map[string]func(*http.Request) (*http.Response, error){
		"KORE":     reply(403, koreScope),
		"RFC 6750": reply(403, "", "WWW-Authenticate", `Bearer error="insufficient_scope", scope="sims:read"`),
	} {
		synctest.Test(t, func(t *testing.T) {
			issuer, a := &server{answer: tokens("36000")}, newAPI(rejection, func(string) bool { return true })
			client := &http.Client{Transport: newClient(t, issuer).Transport(a, "api.example")}
			for range 599 {
				status, _ := call(t, client, request(t, nil))
				assert.Equal(t, 403, status, name)
				pass(time.Second)
			}
			assert.Equal(t, 2, issuer.count(), name)
			assert.Equal(t, 599, a.count(), "no request is sent twice")
			assert.Equal(t, "Bearer token-2", a.requests[1].Header.Get("Authorization"))
			pass(time.Second)
			call(t, client, request(t, nil))
			synctest.Wait()
			assert.Equal(t, 3, issuer.count(), name)
		})
	}
}

// Neither an answer that does not end nor a token endpoint that hangs delays the answer.
func TestTransport_DoesNotWait(t *testing.T) {
	for name, row := range map[string]struct {
		challenge, start string
		want, most       time.Duration
		status           int
	}{
		"no reason in a stream": {"", "event: x\n", time.Second, time.Second, 403},
		"half a reason":         {"", `{"error":`, time.Second, time.Second, 403},
		"insufficient scope":    {`Bearer error="insufficient_scope"`, "", 0, 0, 403},
		"invalid token":         {`Bearer error="invalid_token"`, "", time.Second, time.Second, 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			read, write := io.Pipe()
			a := newAPI(func(req *http.Request) (*http.Response, error) {
				res, err := reply(403, "", "Www-Authenticate", row.challenge)(req)
				res.Body, res.ContentLength = read, -1
				go func() { _, _ = io.WriteString(write, row.start) }()
				return res, err
			}, only("token-1"))
			issuer := &server{answer: tokens("36000")}
			c := newClient(t, issuer)
			get(t, c)
			if row.status == 403 {
				issuer.set(func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					return nil, req.Context().Err()
				})
			}
			start := time.Now()
			res, err := c.Transport(a, "api.example").RoundTrip(request(t, nil))
			require.NoError(t, err, name)
			assert.Equal(t, row.status, res.StatusCode, name)
			assert.Equal(t, row.want, time.Since(start), name)
			if row.status == 403 {
				_ = write.Close()
				text, err := io.ReadAll(res.Body)
				assert.NoError(t, err, name)
				assert.Equal(t, row.start, string(text), "%s: the answer is returned whole", name)
			}
			assert.NoError(t, res.Body.Close())
			_ = read.Close()
			pass(fetchTimeout)
		})
	}
}

// A body that panics ends neither the program nor the request.
func TestTransport_BodyThatPanics(t *testing.T) {
	a := &server{answer: func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 403, Header: http.Header{}, Body: io.NopCloser(panickingBody{}), Request: req}, nil
	}}
	res, err := newClient(t, &server{answer: tokens("60")}).Transport(a, "api.example").RoundTrip(request(t, nil))
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	assert.ErrorContains(t, err, "panicked")
}

type panickingBody struct{}

func (panickingBody) Read([]byte) (int, error) { panic("body") }

// A request without a map of headers is valid.
func TestTransport_NoHeader(t *testing.T) {
	a := newAPI(nil, func(string) bool { return false })
	req := request(t, nil)
	req.Header = nil
	res, err := newClient(t, &server{answer: tokens("60")}).Transport(a, "api.example").RoundTrip(req)
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, "Bearer token-1", a.requests[0].Header.Get("Authorization"))
	assert.Nil(t, req.Header)
}

// Whatever a challenge is, it is read to its end.
func FuzzTransport_Challenge(f *testing.F) {
	for _, seed := range []string{`Bearer error="invalid_token"`, `a="\`, `=`, `"`, `Bearer error=`, ` , ,Bearer`, `Bearer a b=c,"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		a := newAPI(reply(403, "", "Www-Authenticate", challenge), only("token-1"))
		issuer := &server{answer: tokens("60")}
		res, err := newClient(t, issuer).Transport(a, "api.example").RoundTrip(request(t, nil))
		require.NoError(t, err)
		_ = res.Body.Close()
		if issuer.count() > 1 {
			assert.Regexp(t, `(?i)error`, challenge)
		}
	})
}

func TestTransport_Hosts(t *testing.T) {
	for _, row := range []struct {
		hosts, url string
		sent       bool
	}{
		{"api.example", "https://api.example/", true},
		{"API.example", "https://api.EXAMPLE/", true},
		{"api.example", "https://api.example:443/", true},
		{"api.example:443", "https://api.example/", true},
		{"api.example:8443", "https://api.example:8443/", true},
		{"api.example", "https://api.example:8443/", false},
		{"api.example:8443", "https://api.example/", false},
		{"api.example", "https://other.example/", false},
		{"api.example", "https://api.example.evil.example/", false},
		{"api.example", "https://sub.api.example/", false},
		{"api.example", "https://api.example@evil.example/", false},
		{"other.example,api.example", "https://api.example/", true},
		{"localhost", "http://localhost:1234/", true},
		{"127.0.0.1", "http://127.0.0.1:1234/", true},
		{"[::1]", "http://[::1]:1234/", true},
		{"127.0.0.1:80", "http://127.0.0.1:1234/", false},
		{"localhost", "http://127.0.0.1/", false},
	} {
		a := newAPI(nil, func(string) bool { return false })
		transport := newClient(t, &server{answer: tokens("60")}).Transport(a, strings.Split(row.hosts, ",")...)
		req := httptest.NewRequest("GET", row.url, nil)
		res, err := transport.RoundTrip(req)
		require.NoError(t, err, row)
		_ = res.Body.Close()
		assert.Equal(t, row.sent, a.requests[0].Header.Get("Authorization") != "", row)
	}
	c := newClient(t, &server{answer: tokens("60")})
	for _, hosts := range [][]string{nil, {""}, {"https://api.example"}, {"api.example/v1"}, {"*.example"}, {"a b"}, {"user@api.example"}, {"api.example:"}, {"api.example:x"}} {
		assert.Panics(t, func() { c.Transport(nil, hosts...) }, "%q", hosts)
	}
}

// The token never goes over http, nor to another host after a redirect.
func TestTransport_KeepsTheToken(t *testing.T) {
	closed := &closing{Reader: strings.NewReader("x")}
	c := newClient(t, &server{answer: tokens("60")})
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example/", closed)
	require.NoError(t, err)
	_, err = c.Transport(nil, "api.example").RoundTrip(req)
	assert.ErrorContains(t, err, "use https")
	assert.True(t, closed.closed.Load())

	var elsewhere atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere.Store(r.Header.Get("Authorization")) }))
	defer other.Close()
	host := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "Bearer token-1", r.Header.Get("Authorization"))
		http.Redirect(w, r, host, http.StatusTemporaryRedirect)
	}))
	defer redirecting.Close()
	res, err := c.HTTPClient("127.0.0.1").Get(redirecting.URL)
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Empty(t, elsewhere.Load())

	own := httptest.NewRequest("GET", "https://api.example/", nil)
	own.Header.Set("Authorization", "Basic eDp5")
	a := newAPI(nil, func(string) bool { return false })
	res, err = c.Transport(a, "api.example").RoundTrip(own)
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, "Basic eDp5", a.requests[0].Header.Get("Authorization"))
}

type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Close() error {
	c.closed.Store(true)
	return nil
}

func TestTransport_NoToken(t *testing.T) {
	closed := &closing{Reader: strings.NewReader("x")}
	a := newAPI(nil, func(string) bool { return false })
	client := &http.Client{Transport: newClient(t, &server{answer: reply(401, `{"error":"invalid_client"}`)}).Transport(a, "api.example")}
	_, err := client.Do(request(t, closed))
	var failed *koreclient.Error
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, "invalid_client", failed.Code)
	assert.True(t, closed.closed.Load())
	assert.Zero(t, a.count())

	a.set(func(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded })
	client = &http.Client{Transport: newClient(t, &server{answer: tokens("60")}).Transport(a, "api.example")}
	_, err = client.Do(request(t, nil))
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// A body that ends early is an error to the reader, also if it was looked at.
func TestTransport_BrokenAnswer(t *testing.T) {
	broken := errors.New("broken")
	a := &server{answer: func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 403, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader("part"), failing{broken})), Request: req}, nil
	}}
	client := &http.Client{Transport: newClient(t, &server{answer: tokens("60")}).Transport(a, "api.example")}
	res, err := client.Do(request(t, nil))
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	assert.Equal(t, "part", string(text))
	assert.ErrorIs(t, err, broken)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
