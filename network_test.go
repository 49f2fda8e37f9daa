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

// What DESIGN says that zero fields of a RemoteKeySet mean.
const (
	keysURL      = "https://issuer.example.com/keys"
	keysInterval = 10 * time.Second
	keysMaxAge   = 15 * time.Minute
	keysMaxStale = 24 * time.Hour
	keysTimeout  = 5 * time.Second
)

// page answers one request.
type page func(*http.Request) (*http.Response, error)

// network is a scripted http.RoundTripper: it answers by URL, 404 where there
// is no page, and remembers what it was asked for and when.
type network struct {
	mu    sync.Mutex // guards what follows; never held while answering
	pages map[string]page
	asked []question
}

type question struct {
	at     time.Time
	url    string
	header http.Header
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err // as http.Transport
	}
	n.mu.Lock()
	n.asked = append(n.asked, question{time.Now(), req.URL.String(), req.Header.Clone()})
	answer := n.pages[req.URL.String()]
	n.mu.Unlock()
	if answer == nil {
		answer = reply(404, "no such page")
	}
	return answer(req)
}

// at lets a URL answer with that page from now on.
func (n *network) at(url string, p page) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pages == nil {
		n.pages = make(map[string]page)
	}
	n.pages[url] = p
}

// keys lets keysURL answer with that page from now on.
func (n *network) keys(p page) { n.at(keysURL, p) }

func (n *network) questions() []question {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func (n *network) count() int { return len(n.questions()) }

// urls are those that were asked for, in order.
func (n *network) urls() []string {
	var urls []string
	for _, q := range n.questions() {
		urls = append(urls, q.url)
	}
	return urls
}

// times are when the requests after the first skip ones came.
func (n *network) times(since time.Time, skip int) []time.Duration {
	times := []time.Duration{}
	for _, q := range n.questions()[skip:] {
		times = append(times, q.at.Sub(since))
	}
	return times
}

func (n *network) client() *http.Client { return &http.Client{Transport: n} }

func (n *network) set() *koreauth.RemoteKeySet {
	return &koreauth.RemoteKeySet{URL: keysURL, HTTPClient: n.client()}
}

// reply answers with that status, body and header lines.
func reply(status int, body string, lines ...string) page {
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

// slow answers what p says now, but after d.
func slow(d time.Duration, p page) page {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := p(req)
		select {
		case <-time.After(d):
			return resp, err
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// hanging never answers.
func hanging(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

var errNetwork = errors.New("connection refused")

func refusing(*http.Request) (*http.Response, error) { return nil, errNetwork }

// edKey is the key of that name: the same in every run.
func edKey(kid string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(kid))
	return ed25519.NewKeyFromSeed(seed[:])
}

func edPublic(kid string) ed25519.PublicKey { return edKey(kid).Public().(ed25519.PublicKey) }

func rawURL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// edJWK is the JWK of the key of that name.
func edJWK(kid string) string {
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"alg":"EdDSA","use":"sig","x":%q}`, kid, rawURL(edPublic(kid)))
}

func jwksOf(members ...string) string { return `{"keys":[` + strings.Join(members, ",") + `]}` }

// keysOf answers with a set of the keys of those names.
func keysOf(kids ...string) page { return reply(200, edSet(kids...)) }

func edSet(kids ...string) string {
	members := make([]string, len(kids))
	for i, kid := range kids {
		members[i] = edJWK(kid)
	}
	return jwksOf(members...)
}

const edIssuer = "https://issuer.example.com/realms/one"

// edToken is a token signed by the key of that name, its payload changed.
func edToken(t *testing.T, kid string, change map[string]any) string {
	t.Helper()
	payload := map[string]any{"iss": edIssuer, "aud": "api-gw", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(payload, change)
	body, err := json.Marshal(payload)
	require.NoError(t, err)
	signed := rawURL(fmt.Appendf(nil, `{"alg":"EdDSA","kid":%q}`, kid)) + "." + rawURL(body)
	return signed + "." + rawURL(ed25519.Sign(edKey(kid), []byte(signed)))
}

// edValidator accepts such tokens, with the keys of that set.
func edValidator(t *testing.T, set koreauth.KeySet) *koreauth.Validator {
	t.Helper()
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, Keys: set,
	})
	require.NoError(t, err)
	return v
}

// bubble runs a test on simulated time.
func bubble(t *testing.T, sentence string, test func(t *testing.T, net *network)) {
	t.Helper()
	t.Run(sentence, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, new(network)) })
	})
}

// gives asserts that the set has the key of that name, after a wait of took.
func gives(t *testing.T, set koreauth.KeySet, kid string, took time.Duration) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.NoError(t, err)
	if assert.Len(t, keys, 1) {
		assert.Equal(t, kid, keys[0].ID)
		assert.Equal(t, edPublic(kid), keys[0].Public)
	}
	assert.Equal(t, took, time.Since(start), "waited")
}

// quickly asserts, for loops that ask often, that the answer has that class, nil
// for the key of that name, and comes at once.
func quickly(t *testing.T, set koreauth.KeySet, kid string, want error) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	if !errors.Is(err, want) || (err == nil) != (len(keys) == 1 && keys[0].ID == kid) || time.Since(start) != 0 {
		require.Failf(t, "not as it should be", "kid %s: %d keys, error %v, want %v, after %v", kid, len(keys), err, want, time.Since(start))
	}
}

// unknown asserts that the answer, after a wait of took, is that no key has that
// name.
func unknown(t *testing.T, set koreauth.KeySet, kid string, took time.Duration) {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.Empty(t, keys)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.NotErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, took, time.Since(start), "waited")
}

// unavailable asserts that the answer, after a wait of took, is that nothing can
// be said, and when it can again.
func unavailable(t *testing.T, set koreauth.KeySet, kid string, took, retryAfter time.Duration) error {
	t.Helper()
	start := time.Now()
	keys, err := set.Keys(t.Context(), kid, true)
	assert.Empty(t, keys)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.NotErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.Equal(t, took, time.Since(start), "waited")
	var refusal *koreauth.Error
	if assert.ErrorAs(t, err, &refusal) {
		assert.Equal(t, retryAfter, refusal.RetryAfter, "RetryAfter")
	}
	return err
}

// pass lets d pass, and all that happens then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// unknownAfter is unknown for a wait of at most took.
func unknownAfter(t *testing.T, set koreauth.KeySet, kid string, took time.Duration) {
	t.Helper()
	start := time.Now()
	_, err := set.Keys(t.Context(), kid, true)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	assert.LessOrEqual(t, time.Since(start), took, "waited")
}

func unavailableOf(t *testing.T, set koreauth.KeySet, kid string) {
	t.Helper()
	_, err := set.Keys(t.Context(), kid, true)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
}

func redirect(location string) page { return reply(302, "", "Location: "+location) }

// metadata answers with an issuer's document.
func metadata(issuer, keys string) page {
	return reply(200, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"token_endpoint":"x","scopes_supported":[]}`, issuer, keys))
}
