package interop_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The response bodies that KORE documents.
const (
	noToken      = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	invalidToken = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
)

var everyAlgorithm = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// env returns an environment variable that run.sh sets.
func env(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	require.NotEmpty(t, value, "%s is not set: run these tests with interop/run.sh, which starts the servers", name)
	return value
}

// api is a guarded API on loopback.
type api struct {
	*koreauth.Validator
	url string
}

func newAPI(t testing.TB, config koreauth.Config) *api {
	t.Helper()
	validator, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	guard := koreauth.New(validator, nil)
	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", guard.Wrap(http.HandlerFunc(ping)))
	mux.Handle("DELETE /v1/clients/{id}", guard.Require(koreauth.Grant("API Clients", koreauth.Delete))(http.HandlerFunc(ping)))
	mux.Handle("GET /v1/supersims", guard.Require(koreauth.Product("SuperSIM"))(http.HandlerFunc(ping)))
	mux.Handle("GET /v1/sims", guard.Require(koreauth.Scope("sims:read"))(http.HandlerFunc(ping)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &api{validator, server.URL}
}

// ping responds with the caller's client ID.
func ping(w http.ResponseWriter, r *http.Request) {
	claims, ok := koreauth.FromContext(r.Context())
	if !ok {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, claims.ClientID)
}

// call sends a request and returns the response.
func (a *api) call(t testing.TB, method, path, authorization string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.url+path, nil)
	require.NoError(t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return do(t, http.DefaultClient, req)
}

// accepts asserts that the API accepts the token, and returns its claims.
func (a *api) accepts(t testing.TB, token string) *koreauth.Claims {
	t.Helper()
	claims, err := a.Validate(t.Context(), token)
	require.NoError(t, err)
	resp, body := a.call(t, "GET", "/v1/ping", "Bearer "+token)
	assert.Equal(t, http.StatusOK, resp.StatusCode, body)
	assert.Equal(t, claims.ClientID, body)
	return claims
}

// rejects asserts that the API rejects the token for a reason, with the response
// that KORE documents.
func (a *api) rejects(t testing.TB, token string, reason error) {
	t.Helper()
	_, err := a.Validate(t.Context(), token)
	assert.ErrorIs(t, err, reason)
	assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
	resp, body := a.call(t, "GET", "/v1/ping", "Bearer "+token)
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)
	assert.Equal(t, invalidToken, body)
	assert.Equal(t, `Bearer realm="api", error="invalid_token"`, resp.Header.Get("WWW-Authenticate"))
}

func do(t testing.TB, client *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// fetch returns the body at a URL.
func fetch(t testing.TB, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	resp, body := do(t, http.DefaultClient, req)
	require.Equal(t, http.StatusOK, resp.StatusCode, url)
	return []byte(body)
}

// tokens is the response of a token endpoint.
type tokens struct {
	Access  string `json:"access_token"`
	ID      string `json:"id_token"`
	Refresh string `json:"refresh_token"`
	Type    string `json:"token_type"`
}

// grant gets tokens from a token endpoint, with the client's credentials in the
// form.
func grant(t testing.TB, endpoint, client string, form url.Values, headers ...string) tokens {
	t.Helper()
	form.Set("client_id", client)
	form.Set("client_secret", env(t, "KORE_CLIENT_SECRET"))
	req, err := http.NewRequest("POST", endpoint, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, body := do(t, http.DefaultClient, req)
	require.Equal(t, http.StatusOK, resp.StatusCode, body)
	var got tokens
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	return got
}

// counter is a transport that counts requests, and those that failed.
type counter struct{ sent, failed atomic.Int64 }

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.sent.Add(1)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		c.failed.Add(1)
	}
	return resp, err
}

// eventually waits for something that a server does in its own time.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, 30*time.Second, 50*time.Millisecond, what)
}

// traffic calls the API repeatedly, from two clients, until stop is called. stop
// returns the number of calls, and the responses other than 200.
func (a *api) traffic(t testing.TB, token string) (stop func() (calls int, wrong []string)) {
	ctx, cancel := context.WithCancel(t.Context())
	type tally struct {
		calls int
		wrong []string
	}
	results := make(chan tally)
	const clients = 2
	for range clients {
		go func() {
			var sum tally
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					results <- sum
					return
				case <-tick.C:
				}
				sum.calls++
				if answer := a.once(token); answer != "200" {
					sum.wrong = append(sum.wrong, answer)
				}
			}
		}()
	}
	return func() (calls int, wrong []string) {
		cancel()
		for range clients {
			sum := <-results
			calls, wrong = calls+sum.calls, append(wrong, sum.wrong...)
		}
		return calls, wrong
	}
}

// once calls the API. The end of the test does not cancel the call.
func (a *api) once(token string) string {
	req, err := http.NewRequest("GET", a.url+"/v1/ping", nil)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return resp.Status + " " + string(body)
	}
	return "200"
}
