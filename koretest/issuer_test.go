package koretest_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// signingKey returns a key that the tests share, because making an RSA key is
// slow.
var signingKey = sync.OnceValue(func() *koretest.Key {
	key, err := koretest.NewKey("RS256")
	if err != nil {
		panic(err)
	}
	return key
})

// newIssuer returns an issuer that does not listen.
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

// newListeningIssuer returns an issuer on loopback.
func newListeningIssuer(t *testing.T) *koretest.Issuer {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{Keys: []*koretest.Key{signingKey()}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

// get returns the response and its body.
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

func TestNewIssuer_RejectsInvalidOptions(t *testing.T) {
	hmacKey, err := koretest.NewKey("HS256")
	require.NoError(t, err)
	noAlgorithm := &koretest.Key{Private: signingKey().Private}
	for _, test := range []struct {
		name    string
		options koretest.Options
		want    string
	}{
		{"a URL with a path", koretest.Options{URL: "https://issuer.example/auth"}, "without a path"},
		{"a URL with a final slash", koretest.Options{URL: "https://issuer.example/"}, "without a path"},
		{"a URL of another scheme", koretest.Options{URL: "ftp://issuer.example"}, "without a path"},
		{"a URL without a host", koretest.Options{URL: "https://"}, "without a path"},
		{"a malformed URL", koretest.Options{URL: "https://%"}, "koretest: Options.URL: "},
		{"an invalid address", koretest.Options{Addr: "127.0.0.1:port"}, "koretest: listen"},
		{"a secret as the signing key", koretest.Options{Keys: []*koretest.Key{hmacKey}}, "no public half"},
		{"a signing key without an algorithm", koretest.Options{Keys: []*koretest.Key{noAlgorithm}}, "cannot sign"},
		{"a client without an ID", koretest.Options{Clients: []koretest.Client{{Secret: "s"}}}, "Client.ID is required"},
		{"a negative lifetime", koretest.Options{Clients: []koretest.Client{{ID: "c", Lifetime: -1}}}, "is negative"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if len(test.options.Keys) == 0 {
				test.options.Keys = []*koretest.Key{signingKey()}
			}
			issuer, err := koretest.NewIssuer(&test.options)
			assert.Nil(t, issuer)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestNewIssuer_UsesDefaultsForNilOptions(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	assert.Equal(t, "RS256", issuer.SigningKey().Algorithm)
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/realms/KORE-CIDP$`, issuer.URL())
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestIssuer_ServesDiscoveryDocument(t *testing.T) {
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

func TestIssuer_ServesDocumentsWithETags(t *testing.T) {
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
	assert.NotEqual(t, before.Header.Get("ETag"), after.Header.Get("ETag"), "the ETag changes with the keys")
}

func TestIssuer_ServesKeySet(t *testing.T) {
	issuer := newIssuer(t)
	for _, algorithm := range []string{"ES256", "ES512", "EdDSA"} {
		key, err := koretest.NewKey(algorithm)
		require.NoError(t, err)
		require.NoError(t, issuer.AddKey(key))
	}
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(issuer.JWKS(), &set))
	require.Len(t, set.Keys, 5)

	assert.Equal(t, "enc", set.Keys[0]["use"], "the encryption key comes first, as in Keycloak")
	assert.Equal(t, "RSA-OAEP", set.Keys[0]["alg"])
	var ids []string
	for _, key := range set.Keys[1:] {
		ids = append(ids, key["kid"])
		assert.Equal(t, "sig", key["use"])
		assert.NotContains(t, key, "d", "a private key must not be published")
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

func TestIssuer_RotatesAddsAndRemovesKeys(t *testing.T) {
	key, err := koretest.NewKey("ES256")
	require.NoError(t, err)
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example", Keys: []*koretest.Key{key}})
	require.NoError(t, err)

	second := issuer.Rotate()
	assert.Equal(t, second, issuer.SigningKey().ID)
	assert.Equal(t, "ES256", issuer.SigningKey().Algorithm, "a rotation keeps the algorithm")
	assert.Equal(t, []string{key.ID, second}, issuer.KeyIDs(), "the old key stays published")
	verify(t, issuer.Valid(), issuer.SigningKey().Public())

	issuer.RemoveKey(key.ID)
	assert.Equal(t, []string{second}, issuer.KeyIDs())
	issuer.RemoveKey(second)
	assert.Empty(t, issuer.KeyIDs())
	assert.Equal(t, second, issuer.SigningKey().ID, "a key that is not published still signs")
	issuer.RemoveKey("unknown")

	require.NoError(t, issuer.AddKey(key))
	assert.Equal(t, []string{key.ID}, issuer.KeyIDs())
	assert.Equal(t, second, issuer.SigningKey().ID, "an added key does not sign")
	assert.Error(t, issuer.AddKey(&koretest.Key{ID: "x", Private: []byte("secret")}))
}

func TestIssuer_UsesSimulatedTime(t *testing.T) {
	signingKey() // outside the bubble, because tests share it
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t)
		client := issuer.HTTPClient()
		start := time.Now()

		issuer.Behave(koretest.Slow(30 * time.Second))
		res, body := get(t, client, issuer.KeysURL())
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.Equal(t, string(issuer.JWKS()), body)
		assert.Equal(t, 30*time.Second, time.Since(start))

		for name, behavior := range map[string]koretest.Behavior{
			"slow": koretest.Slow(time.Hour), "hanging": koretest.Hanging,
		} {
			issuer.Behave(behavior)
			start = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer.KeysURL(), nil)
			require.NoError(t, err)
			_, err = client.Do(req)
			assert.ErrorIs(t, err, context.DeadlineExceeded, name)
			assert.Equal(t, 5*time.Second, time.Since(start), name)
			cancel()

			start = time.Now()
			impatient := issuer.HTTPClient()
			impatient.Timeout = 7 * time.Second
			_, err = impatient.Get(issuer.KeysURL())
			var timeout net.Error
			require.ErrorAs(t, err, &timeout, name)
			assert.True(t, timeout.Timeout(), name)
			assert.Equal(t, 7*time.Second, time.Since(start), name)
		}
		assert.Equal(t, 5, issuer.Requests(koretest.KeysEndpoint))

		issuer.Behave(nil)
		assert.EqualValues(t, time.Now().Add(time.Hour).Unix(), claimsOf(t, issuer.Valid())["exp"], "tokens use simulated time")
	})
}

func TestIssuer_HTTPClientServesOneHost(t *testing.T) {
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
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("custom") })
	})
	assert.PanicsWithValue(t, "custom", func() { _, _ = issuer.HTTPClient().Get(issuer.KeysURL()) })
}

func TestIssuer_ServesHTTP(t *testing.T) {
	issuer := newIssuer(t)
	server := httptest.NewTLSServer(issuer)
	defer server.Close()
	_, body := get(t, server.Client(), server.URL+"/realms/KORE-CIDP/protocol/openid-connect/certs")
	assert.Equal(t, string(issuer.JWKS()), body)
	res, _ := get(t, server.Client(), server.URL+"/other")
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
}

func TestNewIssuer_PrefersURLToAddr(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{
		Addr: "127.0.0.1:0", URL: "https://issuer.example", Keys: []*koretest.Key{signingKey()},
	})
	require.NoError(t, err)
	assert.Equal(t, "https://issuer.example/realms/KORE-CIDP", issuer.URL(), "URL takes precedence over the listen address")
	issuer.Close()
	issuer.Close()
}

func TestNewIssuer_NamesLoopbackForUnspecifiedAddress(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Addr: ":0", Keys: []*koretest.Key{signingKey()}})
	require.NoError(t, err)
	defer issuer.Close()
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/`, issuer.URL())
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestIssuer_CloseStopsListeningOnly(t *testing.T) {
	issuer := newListeningIssuer(t)
	issuer.Close()
	u, err := url.Parse(issuer.URL())
	require.NoError(t, err)
	_, err = net.Dial("tcp", u.Host)
	require.Error(t, err)
	res, _ := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.NotEmpty(t, issuer.Valid())
}

func TestIssuer_IsSafeForConcurrentUse(t *testing.T) {
	key, err := koretest.NewKey("EdDSA")
	require.NoError(t, err)
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example", Keys: []*koretest.Key{key}})
	require.NoError(t, err)
	var workers sync.WaitGroup
	for n := range 8 {
		workers.Go(func() {
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
	workers.Wait()
	assert.Equal(t, 100, issuer.Requests(koretest.KeysEndpoint))
}

func newValidator(t *testing.T, issuer *koretest.Issuer, client *http.Client, algorithms ...string) *koreauth.Validator {
	t.Helper()
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer.URL(),
		Audience:   []string{koretest.Audience},
		HTTPClient: client,
		Algorithms: algorithms,
	})
	require.NoError(t, err)
	return validator
}

func TestIssuer_WorksWithKoreauth(t *testing.T) {
	issuer := newListeningIssuer(t)
	for name, client := range map[string]*http.Client{"over the network": nil, "in process": issuer.HTTPClient()} {
		t.Run(name, func(t *testing.T) {
			validator := newValidator(t, issuer, client)
			claims, err := validator.Validate(t.Context(), issuer.Valid())
			require.NoError(t, err)
			assert.Equal(t, issuer.URL(), claims.Issuer)
			assert.Equal(t, issuer.Client().ID, claims.ClientID)
			assert.Equal(t, issuer.Client().AccountID, claims.AccountID)
			assert.Equal(t, issuer.Client().Products, claims.Products)
			assert.Equal(t, []koreauth.Resource{{
				Name:   "API Clients",
				Access: []koreauth.Access{koreauth.Read, koreauth.Write, koreauth.Modify, koreauth.Delete},
			}}, claims.Resources)

			_, err = validator.Validate(t.Context(), issuer.Expired())
			assert.ErrorIs(t, err, koreauth.ErrExpired)
			_, err = validator.Validate(t.Context(), issuer.Forged())
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			claims, err = validator.Validate(t.Context(), issuer.Ungranted())
			require.NoError(t, err)
			assert.Empty(t, claims.Resources)
			assert.Empty(t, claims.Products)
			assert.Empty(t, claims.Scopes)

			issuer.Rotate()
			_, err = validator.Validate(t.Context(), issuer.Valid())
			assert.NoError(t, err, "the validator fetches the new key")
		})
	}
}

func TestIssuer_WorksWithKoreauthOnSimulatedTime(t *testing.T) {
	signingKey() // outside the bubble, because tests share it
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t)
		validator := newValidator(t, issuer, issuer.HTTPClient())
		token := issuer.Valid()
		issuer.Behave(koretest.Hanging)
		_, err := validator.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)

		issuer.Behave(nil)
		time.Sleep(time.Second)
		_, err = validator.Validate(t.Context(), token)
		require.NoError(t, err)

		time.Sleep(koretest.OneHour)
		synctest.Wait()
		_, err = validator.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrExpired)
	})
}
