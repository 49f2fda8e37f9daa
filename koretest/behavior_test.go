package koretest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koretest"
)

func TestBehavior_ReplacesResponse(t *testing.T) {
	for _, test := range []struct {
		name     string
		behavior koretest.Behavior
		status   int
		body     string
	}{
		{"garbage is not JSON", koretest.Garbage, http.StatusOK, "<!DOCTYPE html><title>Welcome</title>"},
		{"empty is empty", koretest.Empty, http.StatusOK, ""},
		{"a status has a line of text", koretest.Status(http.StatusBadGateway), http.StatusBadGateway, "Bad Gateway\n"},
		{"a custom behavior", func(http.Handler) http.Handler { return http.NotFoundHandler() }, http.StatusNotFound, "404 page not found\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuer := newListeningIssuer(t)
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

func TestIssuer_BehavesPerEndpoint(t *testing.T) {
	issuer := newIssuer(t)
	issuer.Behave(koretest.Empty, koretest.KeysEndpoint)
	_, body := get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.Empty(t, body)
	_, body = get(t, issuer.HTTPClient(), discoveryURL(issuer))
	assert.NotEmpty(t, body, "the other endpoints are not affected")

	issuer.Behave(nil)
	_, body = get(t, issuer.HTTPClient(), issuer.KeysURL())
	assert.NotEmpty(t, body, "nil restores the normal behavior")
	assert.Equal(t, 2, issuer.Requests(koretest.KeysEndpoint))
	assert.Equal(t, 1, issuer.Requests(koretest.DiscoveryEndpoint))
	assert.Equal(t, 0, issuer.Requests(koretest.TokenEndpoint))
}

func TestBehavior_DownClosesConnection(t *testing.T) {
	issuer := newListeningIssuer(t)
	issuer.Behave(koretest.Down)
	for _, client := range []*http.Client{http.DefaultClient, issuer.HTTPClient()} {
		before := issuer.Requests(koretest.KeysEndpoint)
		_, err := client.Get(issuer.KeysURL())
		assert.ErrorIs(t, err, io.EOF)
		assert.Greater(t, issuer.Requests(koretest.KeysEndpoint), before, "requests without a response are counted")
	}
	issuer.Behave(nil)
	res, _ := get(t, http.DefaultClient, issuer.KeysURL())
	assert.Equal(t, http.StatusOK, res.StatusCode)
}

func TestBehavior_StopsWaitingWhenIssuerCloses(t *testing.T) {
	for name, behavior := range map[string]koretest.Behavior{
		"hanging": koretest.Hanging, "slow": koretest.Slow(time.Hour),
	} {
		for endpoint, body := range map[koretest.Endpoint]io.Reader{
			koretest.KeysEndpoint: nil, koretest.TokenEndpoint: strings.NewReader("a=b"),
		} {
			t.Run(fmt.Sprintf("%s, endpoint %d", name, endpoint), func(t *testing.T) {
				issuer := newListeningIssuer(t)
				started := make(chan struct{})
				returned := make(chan struct{})
				issuer.Behave(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						close(started)
						defer close(returned)
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
				<-started
				issuer.Close()
				assert.Error(t, <-failed)
				<-returned // the handler does not leak
			})
		}
	}
}

func TestBehavior_HangingBlocksNothingElse(t *testing.T) {
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
