package koreauth_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// The documented meaning of a RemoteKeySet's zero fields.
const (
	keysURL      = "https://issuer.example.com/keys"
	keysInterval = 10 * time.Second
	keysMaxAge   = 15 * time.Minute
	keysMaxStale = 24 * time.Hour
	keysTimeout  = 5 * time.Second
)

// A responder answers a request, as an http.RoundTripper does.
type responder func(*http.Request) (*http.Response, error)

// network is an http.RoundTripper without a network. It records each request
// and passes it to the responder of its URL. A URL without one gets 404.
type network struct {
	mu         sync.Mutex // guards the fields below; not held while a responder runs
	responders map[string]responder
	requests   []recordedRequest
}

type recordedRequest struct {
	time   time.Time
	url    string
	header http.Header
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err // like http.Transport
	}
	n.mu.Lock()
	n.requests = append(n.requests, recordedRequest{time.Now(), req.URL.String(), req.Header.Clone()})
	respond := n.responders[req.URL.String()]
	n.mu.Unlock()
	if respond == nil {
		respond = reply(404, "not found")
	}
	return respond(req)
}

// respond sets the responder of a URL.
func (n *network) respond(url string, r responder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.responders == nil {
		n.responders = make(map[string]responder)
	}
	n.responders[url] = r
}

// respondKeys sets the responder of keysURL.
func (n *network) respondKeys(r responder) { n.respond(keysURL, r) }

// recorded returns the requests so far, in order.
func (n *network) recorded() []recordedRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.requests)
}

func (n *network) requestCount() int { return len(n.recorded()) }

// requestURLs returns the URLs of the requests so far, in order.
func (n *network) requestURLs() []string {
	var urls []string
	for _, r := range n.recorded() {
		urls = append(urls, r.url)
	}
	return urls
}

// requestTimes returns the times of the requests after the first skip ones, as
// durations since start.
func (n *network) requestTimes(start time.Time, skip int) []time.Duration {
	times := []time.Duration{}
	for _, r := range n.recorded()[skip:] {
		times = append(times, r.time.Sub(start))
	}
	return times
}

func (n *network) client() *http.Client { return &http.Client{Transport: n} }

// keySet returns a RemoteKeySet that fetches keysURL over n.
func (n *network) keySet() *koreauth.RemoteKeySet {
	return &koreauth.RemoteKeySet{URL: keysURL, HTTPClient: n.client()}
}

// reply responds with a status, a body and header lines.
func reply(status int, body string, lines ...string) responder {
	header := make(http.Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: header.Clone(), Request: req,
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
}

// keysOf responds with a JWK Set of the Ed25519 keys with these IDs.
func keysOf(kids ...string) responder { return reply(200, edSet(kids...)) }

// metadata responds with the metadata of an issuer whose keys are at keysURL.
func metadata(issuer, keysURL string) responder {
	return reply(200, metadataText(issuer, keysURL))
}

func metadataText(issuer, keysURL string) string {
	return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"token_endpoint":"x","scopes_supported":[]}`, issuer, keysURL)
}

func redirect(location string) responder { return reply(302, "", "Location: "+location) }

// delayed calls r at once and returns its response after d.
func delayed(d time.Duration, r responder) responder {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := r(req)
		select {
		case <-time.After(d):
			return resp, err
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// hanging waits until the request is canceled.
func hanging(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

var errConnectionRefused = errors.New("connection refused")

func connectionRefused(*http.Request) (*http.Response, error) { return nil, errConnectionRefused }

var edKeys sync.Map // by key ID, because to make one takes longer than to sign

// edKey returns the Ed25519 key with this ID. It is the same in every run.
func edKey(kid string) ed25519.PrivateKey {
	if key, ok := edKeys.Load(kid); ok {
		return key.(ed25519.PrivateKey)
	}
	seed := sha256.Sum256([]byte(kid))
	key := ed25519.NewKeyFromSeed(seed[:])
	edKeys.Store(kid, key)
	return key
}

func edPublic(kid string) ed25519.PublicKey { return edKey(kid).Public().(ed25519.PublicKey) }

func rawURL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// edJWK returns the public half of edKey(kid) as a JWK.
func edJWK(kid string) string {
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"alg":"EdDSA","use":"sig","x":%q}`, kid, rawURL(edPublic(kid)))
}

// jwksOf returns a JWK Set of these JWKs.
func jwksOf(jwks ...string) string { return `{"keys":[` + strings.Join(jwks, ",") + `]}` }

// edSet returns a JWK Set of the Ed25519 keys with these IDs.
func edSet(kids ...string) string {
	jwks := make([]string, len(kids))
	for i, kid := range kids {
		jwks[i] = edJWK(kid)
	}
	return jwksOf(jwks...)
}

const edIssuer = "https://issuer.example.com/realms/one"

// edToken returns a token signed with edKey(kid). The claims in change replace
// those of a valid token.
func edToken(t *testing.T, kid string, change map[string]any) string {
	t.Helper()
	payload := map[string]any{"iss": edIssuer, "aud": "api-gw", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(payload, change)
	body, err := json.Marshal(payload)
	require.NoError(t, err)
	signed := rawURL(fmt.Appendf(nil, `{"alg":"EdDSA","kid":%q}`, kid)) + "." + rawURL(body)
	return signed + "." + rawURL(ed25519.Sign(edKey(kid), []byte(signed)))
}

// edValidator returns a validator for the tokens of edToken, with the keys of
// set.
func edValidator(t *testing.T, set koreauth.KeySet) *koreauth.Validator {
	t.Helper()
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, Keys: set,
	})
	require.NoError(t, err)
	return v
}

// withFakeTime runs a subtest with a fake clock and a new network.
func withFakeTime(t *testing.T, name string, test func(t *testing.T, net *network)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, new(network)) })
	})
}

// wait advances the fake clock by d and waits for the goroutines to block.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantKey asserts that set returns edKey(kid), after exactly the given wait.
func wantKey(t *testing.T, set koreauth.KeySet, kid string, waited time.Duration) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.NoError(t, err)
	if assert.Len(t, keys, 1) {
		assert.Equal(t, kid, keys[0].ID)
		assert.Equal(t, edPublic(kid), keys[0].Public)
	}
	assert.Equal(t, waited, time.Since(start), "time waited for the key")
}

// requireImmediate requires that set answers without a wait: with the key of
// this ID if wantErr is nil, else with an error that wraps wantErr. It is cheap
// enough for long loops.
func requireImmediate(t *testing.T, set koreauth.KeySet, kid string, wantErr error) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	if !errors.Is(err, wantErr) || (err == nil) != (len(keys) == 1 && keys[0].ID == kid) || time.Since(start) != 0 {
		require.Failf(t, "unexpected result of Keys", "kid %s: got %d keys and error %v after %v, want error %v at once",
			kid, len(keys), err, time.Since(start), wantErr)
	}
}

// wantUnknown asserts that set returns ErrUnknownKey, after exactly the given
// wait.
func wantUnknown(t *testing.T, set koreauth.KeySet, kid string, waited time.Duration) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.Empty(t, keys)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.NotErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, waited, time.Since(start), "time waited for ErrUnknownKey")
}

// wantUnknownWithin asserts that set returns ErrUnknownKey, after at most the
// given wait.
func wantUnknownWithin(t *testing.T, set koreauth.KeySet, kid string, limit time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := set.Keys(t.Context(), kid, true)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.LessOrEqual(t, time.Since(start), limit, "time waited for ErrUnknownKey")
}

// wantUnavailable asserts that set returns ErrUnavailable with this RetryAfter,
// after exactly the given wait. It returns the error.
func wantUnavailable(t *testing.T, set koreauth.KeySet, kid string, waited, retryAfter time.Duration) error {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.Empty(t, keys)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.NotErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.Equal(t, waited, time.Since(start), "time waited for ErrUnavailable")
	var rejection *koreauth.Error
	if assert.ErrorAs(t, err, &rejection) {
		assert.Equal(t, retryAfter, rejection.RetryAfter, "RetryAfter")
	}
	return err
}

// wantUnavailableError is wantUnavailable without the wait and the RetryAfter.
func wantUnavailableError(t *testing.T, set koreauth.KeySet, kid string) {
	t.Helper()
	_, err := set.Keys(t.Context(), kid, true)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
}
