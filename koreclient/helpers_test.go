package koreclient_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koreclient"
)

const (
	tokenURL = "https://issuer.example/token"
	secret   = "s3cret+with/odd=chars"
)

// server answers requests in memory, so that time can be simulated.
type server struct {
	mu       sync.Mutex
	answer   func(*http.Request) (*http.Response, error)
	requests []*http.Request
	bodies   []string
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		_ = req.Body.Close()
	}
	s.mu.Lock()
	answer := s.answer
	s.requests, s.bodies = append(s.requests, req), append(s.bodies, string(body))
	s.mu.Unlock()
	return answer(req)
}

func (s *server) set(answer func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// reply returns an answer with a JSON body, or another one.
func reply(status int, body string, header ...string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
}

// tokens returns an answer with tokens that are numbered from 1.
func tokens(expiresIn string) func(*http.Request) (*http.Response, error) {
	var n atomic.Int64
	return func(req *http.Request) (*http.Response, error) {
		member := ""
		if expiresIn != "" {
			member = `,"expires_in":` + expiresIn
		}
		return reply(200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer"%s}`, n.Add(1), member))(req)
	}
}

// newClient returns a client whose token endpoint is the server.
func newClient(t testing.TB, s *server, change ...func(*koreclient.Config)) *koreclient.Client {
	t.Helper()
	config := koreclient.Config{TokenURL: tokenURL, ClientID: "kc_1", ClientSecret: secret, HTTPClient: &http.Client{Transport: s}}
	for _, c := range change {
		c(&config)
	}
	client, err := koreclient.New(config)
	require.NoError(t, err)
	return client
}

// get returns the token's value.
func get(t testing.TB, c *koreclient.Client) string {
	t.Helper()
	token, err := c.Token(t.Context())
	require.NoError(t, err)
	return token.Value
}

// pass lets simulated time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
