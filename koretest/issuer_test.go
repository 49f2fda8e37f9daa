package koretest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

// signingKey is shared, for RSA keys take their time.
var signingKey = sync.OnceValue(func() *koretest.Key {
	key, err := koretest.NewKey("RS256")
	if err != nil {
		panic(err)
	}
	return key
})

// newIssuer returns an issuer that listens nowhere.
func newIssuer(t *testing.T, clients ...koretest.Client) *koretest.Issuer {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{
		URL:     "https://issuer.example",
		Keys:    []*koretest.Key{signingKey()},
		Clients: clients,
	})
	require.NoError(t, err)
	return issuer
}

// listening returns an issuer on loopback.
func listening(t *testing.T) *koretest.Issuer {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{Keys: []*koretest.Key{signingKey()}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

// get returns status and body.
func get(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func discoveryURL(issuer *koretest.Issuer) string {
	return issuer.URL() + "/.well-known/openid-configuration"
}

func TestNewIssuerRefusesWhatCannotWork(t *testing.T) {
	hmacKey, err := koretest.NewKey("HS256")
	require.NoError(t, err)
	noAlgorithm := &koretest.Key{Private: signingKey().Private}
	for _, test := range []struct {
		what    string
		options koretest.Options
		says    string
	}{
		{"a URL with a path", koretest.Options{URL: "https://issuer.example/auth"}, "host alone"},
		{"a URL with a final slash", koretest.Options{URL: "https://issuer.example/"}, "host alone"},
		{"a URL of another scheme", koretest.Options{URL: "ftp://issuer.example"}, "host alone"},
		{"a URL without a host", koretest.Options{URL: "https://"}, "host alone"},
		{"a URL that is none", koretest.Options{URL: "https://%"}, "URL"},
		{"an address that is none", koretest.Options{Addr: "127.0.0.1:port"}, "koretest: listen"},
		{"a secret as signing key", koretest.Options{Keys: []*koretest.Key{hmacKey}}, "no public half"},
		{"a signing key without an algorithm", koretest.Options{Keys: []*koretest.Key{noAlgorithm}}, "cannot sign"},
		{"a client without an ID", koretest.Options{Clients: []koretest.Client{{Secret: "s"}}}, "needs an ID"},
		{"a lifetime below zero", koretest.Options{Clients: []koretest.Client{{ID: "c", Lifetime: -1}}}, "negative"},
	} {
		t.Run(test.what, func(t *testing.T) {
			if len(test.options.Keys) == 0 {
				test.options.Keys = []*koretest.Key{signingKey()}
			}
			issuer, err := koretest.NewIssuer(&test.options)
			assert.Nil(t, issuer)
			assert.ErrorContains(t, err, test.says)
		})
	}
}

func TestNilOptions(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	assert.Equal(t, "RS256", issuer.SigningKey().Algorithm)
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/realms/KORE-CIDP$`, issuer.URL())
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestDiscoveryDocument(t *testing.T) {
	issuer := newIssuer(t)
	res, body := get(t, issuer.HTTPClient(), discoveryURL(issuer))
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
	var document map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &document))
	assert.Equal(t, "https://issuer.example/realms/KORE-CIDP", document["issuer"])
	assert.Equal(t, issuer.KeysURL(), document["jwks_uri"])
	assert.Equal(t, issuer.TokenURL(), document["token_endpoint"])
}

func TestDocumentsHaveETags(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{
		URL: "https://issuer.example", Keys: []*koretest.Key{signingKey()}, CacheControl: "max-age=60",
	})
	require.NoError(t, err)
	for _, url := range []string{discoveryURL(issuer), issuer.KeysURL()} {
		res, body := get(t, issuer.HTTPClient(), url)
		assert.Equal(t, "max-age=60", res.Header.Get("Cache-Control"))
		assert.Equal(t, int64(len(body)), res.ContentLength)

		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		req.Header.Set("If-None-Match", res.Header.Get("ETag"))
		again, err := issuer.HTTPClient().Do(req)
		require.NoError(t, err)
		assert.Equal(t, http.StatusNotModified, again.StatusCode)
	}
	before, _ := get(t, issuer.HTTPClient(), issuer.KeysURL())
	key, err := koretest.NewKey("EdDSA")
	require.NoError(t, err)
	require.NoError(t, issuer.AddKey(key))
	after, _ := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.NotEqual(t, before.Header.Get("ETag"), after.Header.Get("ETag"), "other keys have another tag")
}

func TestKeySet(t *testing.T) {
	issuer := newIssuer(t)
	for _, algorithm := range []string{"ES256", "ES512", "EdDSA"} {
		key, err := koretest.NewKey(algorithm)
		require.NoError(t, err)
		require.NoError(t, issuer.AddKey(key))
	}
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(issuer.JWKS(), &set))
	require.Len(t, set.Keys, 5)

	assert.Equal(t, "enc", set.Keys[0]["use"], "the encryption key comes first, as in Keycloak's")
	assert.Equal(t, "RSA-OAEP", set.Keys[0]["alg"])
	var ids []string
	for _, key := range set.Keys[1:] {
		ids = append(ids, key["kid"])
		assert.Equal(t, "sig", key["use"])
		assert.NotContains(t, key, "d", "a private half is published")
	}
	assert.Equal(t, issuer.KeyIDs(), ids)
	assert.Equal(t, map[string]string{
		"kid": ids[0], "kty": "RSA", "alg": "RS256", "use": "sig", "n": set.Keys[1]["n"], "e": "AQAB",
	}, set.Keys[1])
	assert.Len(t, set.Keys[1]["n"], 342, "2048 bits")
	assert.Equal(t, "P-256", set.Keys[2]["crv"])
	assert.Len(t, set.Keys[2]["x"]+set.Keys[2]["y"], 2*43, "two numbers of 32 bytes")
	assert.Equal(t, "P-521", set.Keys[3]["crv"])
	assert.Len(t, set.Keys[3]["x"]+set.Keys[3]["y"], 2*88, "two numbers of 66 bytes")
	assert.Equal(t, "OKP", set.Keys[4]["kty"])
	assert.Equal(t, "Ed25519", set.Keys[4]["crv"])

	_, served := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.Equal(t, string(issuer.JWKS()), served)
}

func TestRotateAndRemove(t *testing.T) {
	key, err := koretest.NewKey("ES256")
	require.NoError(t, err)
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example", Keys: []*koretest.Key{key}})
	require.NoError(t, err)

	second := issuer.Rotate()
	assert.Equal(t, second, issuer.SigningKey().ID)
	assert.Equal(t, "ES256", issuer.SigningKey().Algorithm, "a rotation keeps the algorithm")
	assert.Equal(t, []string{key.ID, second}, issuer.KeyIDs(), "the old key stays published")
	verified(t, issuer.Valid(), issuer.SigningKey().Public())

	issuer.RemoveKey(key.ID)
	assert.Equal(t, []string{second}, issuer.KeyIDs())
	issuer.RemoveKey(second)
	assert.Empty(t, issuer.KeyIDs())
	assert.Equal(t, second, issuer.SigningKey().ID, "it signs on, unpublished")
	issuer.RemoveKey("unknown")

	require.NoError(t, issuer.AddKey(key))
	assert.Equal(t, []string{key.ID}, issuer.KeyIDs())
	assert.Equal(t, second, issuer.SigningKey().ID, "an added key does not sign")
	assert.Error(t, issuer.AddKey(&koretest.Key{ID: "x", Private: []byte("secret")}))
}

func TestBehaviors(t *testing.T) {
	for _, test := range []struct {
		what     string
		behavior koretest.Behavior
		status   int
		body     string
	}{
		{"garbage is no JSON", koretest.Garbage, http.StatusOK, "<!DOCTYPE html><title>Welcome</title>"},
		{"empty is empty", koretest.Empty, http.StatusOK, ""},
		{"a status has a body that is no document", koretest.Status(http.StatusBadGateway), http.StatusBadGateway, "Bad Gateway\n"},
		{"one of a test's own", func(http.Handler) http.Handler { return http.NotFoundHandler() }, http.StatusNotFound, "404 page not found\n"},
	} {
		t.Run(test.what, func(t *testing.T) {
			issuer := listening(t)
			issuer.Behave(test.behavior)
			for _, client := range []*http.Client{http.DefaultClient, issuer.HTTPClient()} {
				for _, url := range []string{discoveryURL(issuer), issuer.KeysURL()} {
					res, body := get(t, client, url)
					assert.Equal(t, test.status, res.StatusCode)
					assert.Equal(t, test.body, body)
				}
				res, err := client.PostForm(issuer.TokenURL(), nil)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				assert.Equal(t, test.status, res.StatusCode)
			}
		})
	}
}

func TestBehaveAtOneEndpoint(t *testing.T) {
	issuer := newIssuer(t)
	issuer.Behave(koretest.Empty, koretest.KeysEndpoint)
	_, body := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.Empty(t, body)
	_, body = get(t, issuer.HTTPClient(), discoveryURL(issuer))
	assert.NotEmpty(t, body, "the other endpoints are well")

	issuer.Behave(nil)
	_, body = get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.NotEmpty(t, body, "nil ends it")
	assert.Equal(t, 2, issuer.Requests(koretest.KeysEndpoint))
	assert.Equal(t, 1, issuer.Requests(koretest.DiscoveryEndpoint))
	assert.Equal(t, 0, issuer.Requests(koretest.TokenEndpoint))
}

func TestDown(t *testing.T) {
	issuer := listening(t)
	issuer.Behave(koretest.Down)
	for _, client := range []*http.Client{http.DefaultClient, issuer.HTTPClient()} {
		before := issuer.Requests(koretest.KeysEndpoint)
		_, err := client.Get(issuer.KeysURL())
		assert.ErrorIs(t, err, io.EOF)
		assert.Greater(t, issuer.Requests(koretest.KeysEndpoint), before, "it counts what it does not answer")
	}
	issuer.Behave(nil)
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestWaitingOnTheNetworkEnds(t *testing.T) {
	for what, behavior := range map[string]koretest.Behavior{
		"hanging": koretest.Hanging, "slow": koretest.Slow(time.Hour),
	} {
		for endpoint, body := range map[koretest.Endpoint]io.Reader{
			koretest.KeysEndpoint: nil, koretest.TokenEndpoint: strings.NewReader("a=b"),
		} {
			t.Run(fmt.Sprintf("%s, endpoint %d", what, endpoint), func(t *testing.T) {
				issuer := listening(t)
				arrived := make(chan struct{})
				left := make(chan struct{})
				issuer.Behave(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						close(arrived)
						defer close(left)
						behavior(next).ServeHTTP(w, r)
					})
				})
				method, url := http.MethodGet, issuer.KeysURL()
				if body != nil {
					method, url = http.MethodPost, issuer.TokenURL()
				}
				req, err := http.NewRequestWithContext(t.Context(), method, url, body)
				require.NoError(t, err)
				failed := make(chan error)
				go func() {
					_, err := http.DefaultTransport.RoundTrip(req)
					failed <- err
				}()
				<-arrived
				issuer.Close()
				assert.Error(t, <-failed)
				<-left // the handler, too, is gone
			})
		}
	}
}

func TestSimulatedTime(t *testing.T) {
	signingKey() // made on real time
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t)
		client := issuer.HTTPClient()
		start := time.Now()

		issuer.Behave(koretest.Slow(30 * time.Second))
		res, body := get(t, client, issuer.KeysURL())
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.Equal(t, string(issuer.JWKS()), body)
		assert.Equal(t, 30*time.Second, time.Since(start))

		for what, behavior := range map[string]koretest.Behavior{
			"slow": koretest.Slow(time.Hour), "hanging": koretest.Hanging,
		} {
			issuer.Behave(behavior)
			start = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer.KeysURL(), nil)
			require.NoError(t, err)
			_, err = client.Do(req)
			assert.ErrorIs(t, err, context.DeadlineExceeded, what)
			assert.Equal(t, 5*time.Second, time.Since(start), what)
			cancel()

			start = time.Now()
			impatient := issuer.HTTPClient()
			impatient.Timeout = 7 * time.Second
			_, err = impatient.Get(issuer.KeysURL())
			var timeout net.Error
			require.ErrorAs(t, err, &timeout, what)
			assert.True(t, timeout.Timeout(), what)
			assert.Equal(t, 7*time.Second, time.Since(start), what)
		}
		assert.Equal(t, 5, issuer.Requests(koretest.KeysEndpoint))

		issuer.Behave(nil)
		assert.EqualValues(t, time.Now().Add(time.Hour).Unix(), claimsOf(t, issuer.Valid())["exp"], "tokens are of simulated time")
	})
}

func TestAHangingIssuerHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t)
		issuer.Behave(koretest.Hanging, koretest.KeysEndpoint)
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer.KeysURL(), nil)
		require.NoError(t, err)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			_, err := issuer.HTTPClient().Do(req)
			assert.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		assert.Equal(t, 1, issuer.Requests(koretest.KeysEndpoint))
		assert.NotEmpty(t, issuer.Valid())
		assert.NotEmpty(t, issuer.JWKS())
		issuer.Behave(nil)
		res, _ := get(t, issuer.HTTPClient(), issuer.KeysURL())
		assert.Equal(t, http.StatusOK, res.StatusCode)
		cancel()
		waiting.Wait()
	})
}

func TestHTTPClientIsOfOneHost(t *testing.T) {
	issuer := newIssuer(t)
	for _, url := range []string{"https://issuer.example.org/", "http://issuer.example/", "https://issuer.example:444/"} {
		_, err := issuer.HTTPClient().Get(url)
		assert.ErrorContains(t, err, "is not the issuer", url)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer.KeysURL(), nil)
	require.NoError(t, err)
	_, err = issuer.HTTPClient().Do(req)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, issuer.Requests(koretest.KeysEndpoint))

	res, err := issuer.HTTPClient().Head(issuer.KeysURL())
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Empty(t, body)
	assert.Equal(t, int64(len(issuer.JWKS())), res.ContentLength)

	issuer.Behave(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a test's own") })
	})
	assert.PanicsWithValue(t, "a test's own", func() { _, _ = issuer.HTTPClient().Get(issuer.KeysURL()) })
}

func TestIssuerIsAHandler(t *testing.T) {
	issuer := newIssuer(t)
	server := httptest.NewTLSServer(issuer)
	defer server.Close()
	_, body := get(t, server.Client(), server.URL+"/realms/KORE-CIDP/protocol/openid-connect/certs")
	assert.Equal(t, string(issuer.JWKS()), body)
	res, _ := get(t, server.Client(), server.URL+"/elsewhere")
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
}

func TestAddrAndURLTogether(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{
		Addr: "127.0.0.1:0", URL: "https://issuer.example", Keys: []*koretest.Key{signingKey()},
	})
	require.NoError(t, err)
	assert.Equal(t, "https://issuer.example/realms/KORE-CIDP", issuer.URL(), "a URL is what clients know, whatever is listened on")
	issuer.Close()
	issuer.Close()
}

func TestEveryAddressIsReachedOnLoopback(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Addr: ":0", Keys: []*koretest.Key{signingKey()}})
	require.NoError(t, err)
	defer issuer.Close()
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/`, issuer.URL())
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestCloseEndsListeningOnly(t *testing.T) {
	issuer := listening(t)
	issuer.Close()
	u, err := url.Parse(issuer.URL())
	require.NoError(t, err)
	_, err = net.Dial("tcp", u.Host)
	require.Error(t, err)
	res, _ := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.NotEmpty(t, issuer.Valid())
}

func TestManyAtOnce(t *testing.T) {
	key, err := koretest.NewKey("EdDSA")
	require.NoError(t, err)
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example", Keys: []*koretest.Key{key}})
	require.NoError(t, err)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for range 20 {
				switch n {
				case 0:
					issuer.RemoveKey(issuer.Rotate())
				case 1:
					issuer.Behave(koretest.Slow(time.Microsecond))
					issuer.Behave(nil)
				case 2:
					client := issuer.Client()
					client.Resources["API Clients"][0] = "Other"
					assert.NoError(t, issuer.Register(client))
				default:
					issuer.Valid()
					issuer.Forged()
					get(t, issuer.HTTPClient(), issuer.KeysURL())
				}
			}
		})
	}
	all.Wait()
	assert.Equal(t, 100, issuer.Requests(koretest.KeysEndpoint))
}
