package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
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

func TestOneFetchIsSharedByAllWhoWait(t *testing.T) {
	bubble(t, "a key at hand is served without a request and without an allocation", func(t *testing.T, net *network) {
		net.keys(keysOf("a", "b"))
		set := net.set()
		gives(t, set, "a", 0)
		for range 1000 {
			quickly(t, set, "b", nil)
		}
		assert.Equal(t, 1, net.count())
		ctx := t.Context()
		assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = set.Keys(ctx, "a", true) }))
	})
	bubble(t, "all keys are the answer to an empty kid", func(t *testing.T, net *network) {
		net.keys(keysOf("a", "b"))
		keys, err := net.set().Keys(t.Context(), "", true)
		require.NoError(t, err)
		assert.Equal(t, []koreauth.Key{
			{ID: "a", Algorithm: "EdDSA", Public: edPublic("a")}, {ID: "b", Algorithm: "EdDSA", Public: edPublic("b")},
		}, keys)
	})
	bubble(t, "without fetch the network is not asked", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		for range 2 {
			for _, kid := range []string{"", "a", "b"} {
				_, err := set.Keys(t.Context(), kid, false)
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey, kid)
			}
		}
		assert.Zero(t, net.count())
		gives(t, set, "a", 0)
		_, err := set.Keys(t.Context(), "b", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		pass(3 * keysMaxAge)
		keys, err := set.Keys(t.Context(), "a", false)
		assert.NoError(t, err, "keys at hand are no question of the network")
		assert.Len(t, keys, 1)
		pass(keysMaxStale)
		_, err = set.Keys(t.Context(), "a", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "100 callers wait for one fetch, and one who leaves does not disturb the others", func(t *testing.T, net *network) {
		net.keys(slow(time.Second, keysOf("a")))
		set := net.set()
		errLeft := errors.New("the client hung up")
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if i%10 != 0 {
					gives(t, set, "a", time.Second)
					return
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(300*time.Millisecond, func() { cancel(errLeft) })
				keys, err := set.Keys(ctx, "a", true)
				assert.Empty(t, keys)
				assert.ErrorIs(t, err, koreauth.ErrUnavailable)
				assert.ErrorIs(t, err, errLeft)
				assert.Equal(t, 300*time.Millisecond, time.Since(start))
			})
		}
		wg.Wait()
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "the one who began the fetch may leave, and it goes on", func(t *testing.T, net *network) {
		net.keys(slow(time.Second, keysOf("a")))
		set := net.set()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := set.Keys(ctx, "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		gives(t, set, "a", 999*time.Millisecond)
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "all who wait for a fetch that fails learn why", func(t *testing.T, net *network) {
		net.keys(slow(time.Second, refusing))
		set := net.set()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.ErrorIs(t, unavailable(t, set, "a", time.Second, 0), errNetwork) })
		}
		wg.Wait()
		assert.Equal(t, 1, net.count())
	})
	bubble(t, "100 forged kids at once and nothing at hand cost two fetches", func(t *testing.T, net *network) {
		net.keys(slow(time.Second, keysOf("a")))
		set := net.set()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				_, err := set.Keys(t.Context(), fmt.Sprint("forged-", i), true)
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			})
		}
		wg.Wait()
		assert.Equal(t, []time.Duration{0, time.Second}, net.times(net.questions()[0].at, 0),
			"those who came after it had begun may not take its answer for the last word")
	})
}

func TestAnUnknownKidIsAReasonToFetch(t *testing.T) {
	bubble(t, "a burst of three, then once per MinInterval, to the nanosecond", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		start := time.Now()
		for i := range 10 {
			unknown(t, set, fmt.Sprint("forged-", i), 0)
		}
		assert.Equal(t, []time.Duration{0, 0, 0}, net.times(start, 1))
		for i := 1; i <= 3; i++ {
			pass(keysInterval - 1)
			unknown(t, set, "early", 0)
			assert.Equal(t, 1+3+i-1, net.count())
			pass(1)
			unknown(t, set, "in time", 0)
			unknown(t, set, "one more", 0)
			assert.Equal(t, 1+3+i, net.count())
		}
	})
	bubble(t, "a flood of random kids costs the burst and one fetch per interval", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			for range 4 {
				quickly(t, set, rand.Text(), koreauth.ErrUnknownKey)
			}
			quickly(t, set, "a", nil)
			pass(500 * time.Millisecond)
		}
		want := []time.Duration{0, 0, 0}
		for at := keysInterval; at < 10*time.Minute; at += keysInterval {
			want = append(want, at)
		}
		assert.Equal(t, want, net.times(start, 1))
	})
	bubble(t, "a concurrent flood costs no more", func(t *testing.T, net *network) {
		net.keys(slow(200*time.Millisecond, keysOf("a")))
		set := net.set()
		gives(t, set, "a", 200*time.Millisecond)
		start := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for time.Since(start) < time.Minute {
					_, err := set.Keys(t.Context(), rand.Text(), true)
					if !errors.Is(err, koreauth.ErrUnknownKey) {
						t.Errorf("got %v, want ErrUnknownKey", err)
					}
					quickly(t, set, "a", nil)
					time.Sleep(470 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		times := net.times(start, 1)
		assert.LessOrEqual(t, len(times), 3+6)
		for i := range len(times) - 3 {
			assert.GreaterOrEqual(t, times[i+3]-times[i], keysInterval, "four fetches within one interval at %v", times[i])
		}
	})
	bubble(t, "rest earns a burst of three again, not more", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		for range 5 {
			unknown(t, set, "forged", 0)
		}
		require.Equal(t, 4, net.count())
		pass(10 * time.Minute)
		for range 5 {
			unknown(t, set, "forged", 0)
		}
		assert.Equal(t, 7, net.count())
	})
	bubble(t, "a rotation is accepted on its first token", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		pass(time.Minute)
		net.keys(slow(30*time.Millisecond, keysOf("a", "b")))
		gives(t, set, "b", 30*time.Millisecond)
		gives(t, set, "a", 0)
		assert.Equal(t, 2, net.count())
	})
	bubble(t, "a rotation is accepted on its first token right after a forged kid, and after two", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		unknown(t, set, "forged", 0)
		net.keys(keysOf("a", "b"))
		gives(t, set, "b", 0)
		net.keys(keysOf("a", "b", "c"))
		unknown(t, set, "forged again", 0)
		net.keys(keysOf("b", "c", "d"))
		gives(t, set, "d", 0)
	})
	for _, rotated := range []time.Duration{1, time.Second, keysInterval - 1, keysInterval, keysInterval + 1, 33 * time.Second} {
		bubble(t, fmt.Sprint("in a flood a rotation is delayed by one interval at most; rotated after ", rotated), func(t *testing.T, net *network) {
			net.keys(keysOf("a"))
			set := net.set()
			gives(t, set, "a", 0)
			start := time.Now()
			flood := func() {
				for range 5 {
					_, _ = set.Keys(t.Context(), rand.Text(), true)
				}
			}
			for time.Since(start) < rotated {
				flood()
				pass(min(100*time.Millisecond, rotated-time.Since(start)))
			}
			net.keys(keysOf("b"))
			start = time.Now()
			for {
				flood()
				_, err := set.Keys(t.Context(), "b", true)
				if err == nil {
					break
				}
				require.ErrorIs(t, err, koreauth.ErrUnknownKey)
				require.Less(t, time.Since(start), keysInterval)
				pass(100 * time.Millisecond)
			}
			assert.LessOrEqual(t, time.Since(start), keysInterval)
			unknown(t, set, "a", 0)
		})
	}
	bubble(t, "a kid that appears while a fetch is under way is found by a second one", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(slow(time.Second, keysOf("a"))) // what it answers is settled at its start
		var wg sync.WaitGroup
		wg.Go(func() { unknown(t, set, "forged", time.Second) })
		pass(500 * time.Millisecond)
		net.keys(slow(time.Second, keysOf("a", "b")))
		for range 50 {
			wg.Go(func() { gives(t, set, "b", 1500*time.Millisecond) })
		}
		wg.Wait()
		assert.Equal(t, 3, net.count())
	})
	bubble(t, "a kid that appears while the keys are refreshed is found by a second fetch", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		pass(keysMaxAge)
		net.keys(slow(time.Second, keysOf("a")))
		gives(t, set, "a", 0)
		synctest.Wait()
		net.keys(slow(time.Second, keysOf("a", "b")))
		gives(t, set, "b", 2*time.Second)
		assert.Equal(t, 3, net.count())
	})
	bubble(t, "no key for it and the limit reached: ErrUnknownKey at once if the last fetch succeeded", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		for range 4 {
			unknown(t, set, "forged", 0)
		}
		count := net.count()
		net.keys(hanging)
		unknown(t, set, "forged", 0)
		assert.Equal(t, count, net.count())
	})
	bubble(t, "no key for it and the limit reached: ErrUnavailable at once if the last fetch failed", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(refusing)
		unavailable(t, set, "b", 0, 0) // two more are free
		unavailable(t, set, "b", 0, 0)
		unavailable(t, set, "b", 0, keysInterval)
		pass(4 * time.Second)
		assert.ErrorIs(t, unavailable(t, set, "b", 0, 6*time.Second), errNetwork)
		gives(t, set, "a", 0)
		assert.Equal(t, 4, net.count())
		pass(6*time.Second - 1)
		unavailable(t, set, "b", 0, 1)
		assert.Equal(t, 4, net.count())
		pass(1)
		net.keys(keysOf("b"))
		gives(t, set, "b", 0)
		pass(0)
		unknown(t, set, "c", 0)
		assert.Equal(t, 5, net.count())
	})
	bubble(t, "a flood in an outage costs no more than one out of it", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		gives(t, set, "a", 0)
		net.keys(refusing)
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			quickly(t, set, rand.Text(), koreauth.ErrUnavailable)
			quickly(t, set, "a", nil)
			pass(500 * time.Millisecond)
		}
		assert.Len(t, net.times(start, 1), 3+59)
	})
	bubble(t, "MinInterval is the interval", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MinInterval = time.Minute
		gives(t, set, "a", 0)
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			for range 4 {
				quickly(t, set, rand.Text(), koreauth.ErrUnknownKey)
			}
			pass(time.Second)
		}
		assert.Equal(t, []time.Duration{0, 0, 0, 1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute}, net.times(start, 1))
	})
	bubble(t, "MinInterval counts as no more than MaxAge", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.MinInterval, set.MaxAge = time.Hour, time.Minute
		gives(t, set, "a", 0)
		start := time.Now()
		for range 4 {
			unknown(t, set, "forged", 0)
		}
		pass(time.Minute - 1)
		unknown(t, set, "forged", 0)
		assert.Equal(t, []time.Duration{0, 0, 0}, net.times(start, 1))
		pass(1)
		unknown(t, set, "forged", 0)
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute}, net.times(start, 1))

		net.keys(refusing)
		pass(time.Minute)
		gives(t, set, "a", 0)
		synctest.Wait()
		pass(time.Minute)
		gives(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, 0, 0, time.Minute, 2 * time.Minute, 3 * time.Minute}, net.times(start, 1),
			"a failed refresh too is tried again after MaxAge")
	})
}

func TestTokensThatDoNotFetch(t *testing.T) {
	for _, c := range []struct {
		sentence string
		token    func(t *testing.T) string
		want     error
		fetches  int
	}{
		{"an unknown kid fetches, if all else may be good", func(t *testing.T) string { return edToken(t, "new", nil) }, koreauth.ErrUnknownKey, 1},
		{"a bad signature never fetches", func(t *testing.T) string {
			token := edToken(t, "a", nil)
			return token[:len(token)-86] + rawURL(make([]byte, 64))
		}, koreauth.ErrSignature, 0},
		{"another issuer never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"iss": edIssuer + "/"}) }, koreauth.ErrUnknownKey, 0},
		{"no issuer never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"iss": nil}) }, koreauth.ErrUnknownKey, 0},
		{"another audience never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"aud": "other"}) }, koreauth.ErrUnknownKey, 0},
		{"an expired token never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"exp": time.Now().Unix()}) }, koreauth.ErrUnknownKey, 0},
		{"a token without exp never fetches", func(t *testing.T) string { return edToken(t, "new", map[string]any{"exp": nil}) }, koreauth.ErrUnknownKey, 0},
		{"an algorithm that is not on the list never fetches", func(t *testing.T) string {
			_, rest, _ := strings.Cut(edToken(t, "new", nil), ".")
			return rawURL([]byte(`{"alg":"RS256","kid":"new"}`)) + "." + rest
		}, koreauth.ErrAlgorithm, 0},
	} {
		bubble(t, c.sentence, func(t *testing.T, net *network) {
			net.keys(keysOf("a"))
			v := edValidator(t, net.set())
			_, err := v.Validate(t.Context(), edToken(t, "a", nil))
			require.NoError(t, err)
			require.Equal(t, 1, net.count())
			for range 3 {
				_, err = v.Validate(t.Context(), c.token(t))
				assert.ErrorIs(t, err, c.want)
			}
			assert.Equal(t, 3*c.fetches, net.count()-1)
		})
		if c.fetches == 0 && c.want == koreauth.ErrUnknownKey {
			bubble(t, c.sentence+", not even with no keys at hand", func(t *testing.T, net *network) {
				net.keys(keysOf("a"))
				_, err := edValidator(t, net.set()).Validate(t.Context(), c.token(t))
				assert.ErrorIs(t, err, c.want)
				assert.Zero(t, net.count())
			})
		}
	}
	bubble(t, "a token of a new key is accepted on its first request", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		v := edValidator(t, net.set())
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		require.NoError(t, err)
		net.keys(keysOf("b"))
		_, err = v.Validate(t.Context(), edToken(t, "b", nil))
		assert.NoError(t, err)
		_, err = v.Validate(t.Context(), edToken(t, "a", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	})
	bubble(t, "an outage is ErrUnavailable, with the time of the next try", func(t *testing.T, net *network) {
		net.keys(refusing)
		v := edValidator(t, net.set())
		_, err := v.Validate(t.Context(), edToken(t, "a", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrInvalidToken)
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, koreauth.ErrUnavailable, refusal.Class)
		assert.Equal(t, 250*time.Millisecond, refusal.RetryAfter)
	})
}

func TestKeySetsNameTheirMembersExactly(t *testing.T) {
	document := string(keyDocument(t, signingKeys()["ES256"]))
	_, err := koreauth.ParseKeys([]byte(document))
	require.NoError(t, err)
	for _, member := range []string{"keys", "kty", "crv", "x"} {
		_, err := koreauth.ParseKeys([]byte(strings.ReplaceAll(document, `"`+member+`"`, `"`+strings.ToUpper(member)+`"`)))
		assert.Error(t, err, member)
	}
}
