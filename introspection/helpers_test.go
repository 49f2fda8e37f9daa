package introspection_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/introspection"
)

const (
	issuerURL = "https://issuer.example/realms/one"
	endpoint  = issuerURL + "/introspect"
	secret    = "#NdhM:?!R+7_8{ ü%"
)

type answerFunc = func(*http.Request, url.Values) (*http.Response, error)

// metadata returns the metadata of an issuer.
func metadata(issuer, endpoint string) string {
	return fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q}`, issuer, endpoint)
}

// server is an introspection endpoint in memory, so that time can be simulated.
type server struct {
	mu       sync.Mutex
	answer   answerFunc
	requests []*http.Request
	forms    []url.Values
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	form := url.Values{}
	if req.Body != nil {
		body, _ := io.ReadAll(req.Body)
		_ = req.Body.Close()
		form, _ = url.ParseQuery(string(body))
	}
	s.mu.Lock()
	answer := s.answer
	s.requests, s.forms = append(s.requests, req), append(s.forms, form)
	s.mu.Unlock()
	return answer(req, form)
}

func (s *server) set(answer answerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// reply answers each request in one way.
func reply(status int, body string, header ...string) answerFunc {
	return func(req *http.Request, _ url.Values) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
}

// active returns an answer for an active token with these claims beside those that are
// required; nil removes one.
func active(claims map[string]any) string {
	all := map[string]any{"active": true, "iss": issuerURL, "aud": "api-gw", "client_id": "kc_1", "exp": time.Now().Add(time.Hour).Unix(), "token_type": "Bearer"}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// good accepts tokens that begin with "good", and no other.
func good(req *http.Request, form url.Values) (*http.Response, error) {
	if strings.HasPrefix(form.Get("token"), "good") {
		return reply(200, active(map[string]any{"jti": form.Get("token")}))(req, form)
	}
	return reply(200, `{"active":false}`)(req, form)
}

func outage(*http.Request, url.Values) (*http.Response, error) {
	return nil, fmt.Errorf("connection refused")
}

// newConfig returns a Config whose endpoint is the server.
func newConfig(s *server, change ...func(*introspection.Config)) introspection.Config {
	config := introspection.Config{
		Endpoint: endpoint, Issuer: issuerURL, Audience: []string{"api-gw"}, ClientID: "api", ClientSecret: secret, HTTPClient: &http.Client{Transport: s},
	}
	for _, c := range change {
		c(&config)
	}
	return config
}

func newValidator(t testing.TB, s *server, change ...func(*introspection.Config)) *introspection.Validator {
	t.Helper()
	v, err := introspection.New(newConfig(s, change...))
	require.NoError(t, err)
	return v
}

// pass lets simulated time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func decodeSegment(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }
