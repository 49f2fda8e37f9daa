package koreclient_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/koreclient"
)

func TestClient_RefreshesInBackground(t *testing.T) {
	for _, row := range []struct {
		expiresIn     string
		before, after time.Duration // between them the token is replaced
	}{
		{"3600", 3600*time.Second - 330*time.Second - time.Minute, 3600*time.Second - 270*time.Second},
		{"600", 530 * time.Second, 550 * time.Second},
		{"60", 26 * time.Second, 35 * time.Second},
		{"10", 4 * time.Second, 6 * time.Second},
		{"63072000", 729*24*time.Hour + 23*time.Hour, 730*24*time.Hour - 4*time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: tokens(row.expiresIn)}
			c := newClient(t, s)
			assert.Equal(t, "token-1", get(t, c))
			pass(row.before)
			assert.Equal(t, "token-1", get(t, c))
			synctest.Wait()
			require.Equal(t, 1, s.count(), row.expiresIn)
			pass(row.after - row.before)
			assert.Equal(t, "token-1", get(t, c), "no caller waits")
			synctest.Wait()
			assert.Equal(t, 2, s.count(), row.expiresIn)
			assert.Equal(t, "token-2", get(t, c))
		})
	}
}

func TestClient_RefreshAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: tokens("63072000")}
		c := newClient(t, s, func(c *koreclient.Config) { c.RefreshAfter = time.Hour })
		get(t, c)
		pass(59 * time.Minute)
		get(t, c)
		synctest.Wait()
		assert.Equal(t, 1, s.count())
		pass(time.Minute)
		get(t, c)
		synctest.Wait()
		assert.Equal(t, 2, s.count())
	})
}

// A new token that does not say when it expires does not replace one that is still good,
// unless an API rejected that.
func TestClient_RefreshWithoutExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: tokens("3600")}
		c := newClient(t, s)
		get(t, c)
		s.set(tokens(""))
		pass(58 * time.Minute)
		for range 60 {
			assert.Equal(t, "token-1", get(t, c))
			pass(time.Second)
		}
		assert.LessOrEqual(t, s.count(), 14, "fetches in a minute")
		assert.Equal(t, "token-1", get(t, c))
		a := newAPI(reply(403, koreInvalid), only("token-1"))
		s.set(reply(200, `{"access_token":"other"}`))
		pass(10 * time.Second)
		client := &http.Client{Transport: c.Transport(a, "api.example")}
		for range 3 {
			status, body := call(t, client, request(t, nil))
			assert.Equal(t, 200, status)
			assert.Equal(t, "other", body)
		}
	})
}

func TestClient_BackOff(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, &server{answer: reply(500, "")})
			for n, least := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 20 * time.Second, 20 * time.Second} {
				_, err := c.Token(t.Context())
				var failed *koreclient.Error
				require.ErrorAs(t, err, &failed)
				assert.GreaterOrEqual(t, failed.RetryAfter, least, n)
				assert.LessOrEqual(t, failed.RetryAfter, least*3/2, n)
				pass(failed.RetryAfter)
			}
		})
	}
}

// The endpoint is down for a while.
func TestClient_Outage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{answer: tokens("3600")}
		c := newClient(t, s, func(c *koreclient.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		get(t, c)
		s.set(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused, " + secret) })
		for range 3600 / 5 {
			pass(5 * time.Second)
			_, _ = c.Token(t.Context())
		}
		synctest.Wait()
		assert.LessOrEqual(t, s.count(), 40, "requests in the last five minutes")
		assert.Contains(t, log.String(), "the old one is still used")
		assert.NotContains(t, log.String(), secret)
		_, err := c.Token(t.Context())
		var failed *koreclient.Error
		require.ErrorAs(t, err, &failed, "the token has expired")
		assert.Zero(t, failed.Status)
		assert.Positive(t, failed.RetryAfter)
		assert.NotContains(t, err.Error(), secret)

		before := s.count()
		for range 3600 {
			pass(time.Second)
			_, _ = c.Token(t.Context())
		}
		assert.Less(t, s.count()-before, 3600/15+1, "requests in an hour")
		s.set(tokens("3600"))
		pass(30 * time.Second)
		assert.Equal(t, "token-1", get(t, c))
	})
}

func TestClient_ObeysRetryAfter(t *testing.T) {
	for _, row := range []struct {
		status int
		header string
		wait   time.Duration
	}{
		{429, "120", 2 * time.Minute}, {503, "60", time.Minute}, {503, "86400", 5 * time.Minute}, {429, "Sat, 01 Jan 2000 00:02:00 GMT", 2 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: reply(row.status, "{}", "Retry-After", row.header)}
			c := newClient(t, s)
			_, err := c.Token(t.Context())
			var failed *koreclient.Error
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, row.status, failed.Status)
			assert.Equal(t, row.wait, failed.RetryAfter)
			pass(row.wait - time.Second)
			_, err = c.Token(t.Context())
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, time.Second, failed.RetryAfter)
			assert.Equal(t, 1, s.count())
			pass(time.Second)
			_, _ = c.Token(t.Context())
			assert.Equal(t, 2, s.count())
		})
	}
}

func TestClient_WrongSecretOnceAMinute(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"KORE":     reply(401, `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`),
		"RFC 6749": reply(400, `{"error":"invalid_client"}`),
		"in a 200": reply(200, `{"error":"invalid_client"}`),
		"HTML":     reply(401, "<html>", "Content-Type", "text/html"),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: answer}
			c := newClient(t, s)
			for range 600 {
				_, err := c.Token(t.Context())
				require.Error(t, err, name)
				pass(time.Second)
			}
			assert.Equal(t, 10, s.count(), name)
		})
	}
}

func TestClient_SharesAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(req *http.Request) (*http.Response, error) {
			time.Sleep(5 * time.Second)
			return tokens("3600")(req)
		}}
		c := newClient(t, s)
		errImpatient := errors.New("impatient")
		impatient, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errImpatient)
		defer cancel()
		start := time.Now()
		_, err := c.Token(impatient)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, err, errImpatient)
		assert.Equal(t, 100*time.Millisecond, time.Since(start), "each caller has its own context")
		var group sync.WaitGroup
		for range 10_000 {
			group.Go(func() {
				token, err := c.Token(t.Context())
				if err != nil || token.Value != "token-1" {
					t.Error(token, err)
				}
			})
		}
		group.Wait()
		assert.Equal(t, 5*time.Second, time.Since(start), "the fetch went on")
		assert.Equal(t, 1, s.count())
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = newClient(t, s).Token(done)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 1, s.count(), "nothing is fetched for a context that is done")
	})
}

// A fetch ends after ten seconds, whatever the transport does.
func TestClient_FaultsInUserCode(t *testing.T) {
	hang := make(chan struct{})
	for name, change := range map[string]func(*koreclient.Config){
		"a transport that hangs": func(c *koreclient.Config) {
			c.HTTPClient = &http.Client{Transport: &server{answer: func(*http.Request) (*http.Response, error) { <-hang; return nil, errors.New("x") }}}
		},
		"a transport that panics": func(c *koreclient.Config) {
			c.HTTPClient = &http.Client{Transport: &server{answer: func(*http.Request) (*http.Response, error) { panic(secret) }}}
		},
		"a Secret that hangs": func(c *koreclient.Config) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { <-hang; return "", nil }
		},
		"a Secret that panics": func(c *koreclient.Config) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { panic(secret) }
		},
		"a Secret that fails": func(c *koreclient.Config) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { return "", errors.New("the vault is sealed") }
		},
		"an empty Secret": func(c *koreclient.Config) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { return "", nil }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			hang = make(chan struct{})
			defer close(hang)
			c := newClient(t, &server{answer: tokens("3600")}, change)
			start := time.Now()
			_, err := c.Token(t.Context())
			var failed *koreclient.Error
			require.ErrorAs(t, err, &failed, name)
			assert.LessOrEqual(t, time.Since(start), 10*time.Second, name)
			assert.NotContains(t, err.Error(), secret, name)
			assert.Positive(t, failed.RetryAfter, name)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: tokens("60")}
		c := newClient(t, s, func(c *koreclient.Config) { c.Logger = slog.New(panicking{}) })
		get(t, c)
		s.set(reply(500, ""))
		pass(40 * time.Second)
		assert.Equal(t, "token-1", get(t, c), "a Logger that panics ends nothing")
		synctest.Wait()
		s.set(tokens("60"))
		pass(25 * time.Second)
		assert.Equal(t, "token-1", get(t, c))
	})
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { return true }

func (panicking) Handle(context.Context, slog.Record) error { panic("logger") }

// Secret is called for each fetch, so that a new secret is used.
func TestClient_SecretIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		current := "one"
		s := &server{answer: tokens("60")}
		c := newClient(t, s, func(c *koreclient.Config) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { return current, nil }
		})
		get(t, c)
		current = "two"
		pass(time.Minute)
		get(t, c)
		assert.Contains(t, s.bodies[0], "client_secret=one")
		assert.Contains(t, s.bodies[1], "client_secret=two")
	})
}

// A token that does not say when it expires is used for one call (seed 003).
func TestClient_TokenWithoutExpiry(t *testing.T) {
	for _, expiresIn := range []string{"", "0", "-1", `"soon"`, "null", "true", "[]", "{}", `"inf"`, `""`, "0.0000000001"} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: tokens(expiresIn)}
			c := newClient(t, s)
			token, err := c.Token(t.Context())
			require.NoError(t, err, expiresIn)
			assert.Zero(t, token.Expiry, expiresIn)
			assert.Equal(t, "token-2", get(t, c), expiresIn)
		})
	}
	for _, expiresIn := range []string{"60", `"60"`, "60.0", "6e1", `" 60 "`} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			token, err := newClient(t, &server{answer: tokens(expiresIn)}).Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, start.Add(time.Minute), token.Expiry, expiresIn)
		})
	}
}

func TestClient_Invalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: tokens("3600")}
		c := newClient(t, s)
		first, err := c.Token(t.Context())
		require.NoError(t, err)
		c.Invalidate(koreclient.Token{Value: "another"})
		assert.Equal(t, "token-1", get(t, c))
		for range 1000 {
			c.Invalidate(first)
			assert.Equal(t, "token-2", get(t, c), "a token that was replaced is not invalidated again")
		}
		assert.Equal(t, 2, s.count())
		pass(time.Minute)
		assert.Equal(t, "token-2", get(t, c))
	})
}

func TestClient_CachedTokenCostsNothing(t *testing.T) {
	c := newClient(t, &server{answer: tokens("3600")})
	get(t, c)
	get(t, c)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Token(t.Context()) }))
}

func BenchmarkClient_Token(b *testing.B) {
	c := newClient(b, &server{answer: tokens("3600")})
	get(b, c)
	ctx := b.Context()
	for b.Loop() {
		if _, err := c.Token(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
