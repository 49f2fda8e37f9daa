package introspection_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

func TestValidate_MaxAge(t *testing.T) {
	for name, row := range map[string]struct {
		maxAge time.Duration
		want   int // requests in a minute, one token a second
	}{"the default": {0, 6}, "longer": {30 * time.Second, 2}, "a second": {time.Second, 60}, "none": {-1, 60}} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: good}
			v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = row.maxAge })
			for range 60 {
				_, err := v.Validate(t.Context(), "good")
				require.NoError(t, err, name)
				pass(time.Second)
			}
			assert.InDelta(t, row.want, s.count(), 2, name)
		})
	}
}

// A token that is no longer active is rejected after MaxAge, and one that becomes active
// is accepted after ten seconds at most.
func TestValidate_Changes(t *testing.T) {
	for _, maxAge := range []time.Duration{time.Second, 10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: good}
			v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = maxAge })
			_, err := v.Validate(t.Context(), "good")
			require.NoError(t, err)
			s.set(reply(200, `{"active":false}`))
			pass(maxAge * 7 / 10)
			_, err = v.Validate(t.Context(), "good")
			assert.NoError(t, err)
			pass(maxAge * 3 / 10)
			_, err = v.Validate(t.Context(), "good")
			assert.Error(t, err)
			s.set(good)
			pass(min(maxAge, 10*time.Second))
			if maxAge < time.Hour {
				_, err = v.Validate(t.Context(), "good")
				assert.NoError(t, err)
			}
		})
	}
}

// A rejection is used for ten seconds at most, also if MaxAge is longer.
func TestValidate_RejectionsAreUsedBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: reply(200, `{"active":false}`)}
		v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = time.Hour })
		_, err := v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, introspection.ErrInactive)
		s.set(good)
		pass(10*time.Second - 1)
		_, err = v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, introspection.ErrInactive)
		pass(1)
		_, err = v.Validate(t.Context(), "good")
		assert.NoError(t, err)
	})
}

// "exp" and "nbf" are judged at each use, not only when the answer comes.
func TestValidate_JudgedAtEachUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: reply(200, active(map[string]any{"exp": time.Now().Add(5 * time.Second).Unix()}))}
		v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge, c.ServeStale = time.Hour, time.Hour })
		_, err := v.Validate(t.Context(), "good")
		require.NoError(t, err)
		pass(4 * time.Second)
		_, err = v.Validate(t.Context(), "good")
		require.NoError(t, err)
		pass(time.Second)
		_, err = v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrExpired)
		assert.Equal(t, 1, s.count())
		s.set(outage)
		_, err = v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrExpired, "not stale either")
	})
}

func TestValidate_Leeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		expired := &server{answer: reply(200, active(map[string]any{"exp": time.Now().Add(-5 * time.Second).Unix()}))}
		_, err := newValidator(t, expired).Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrExpired)
		_, err = newValidator(t, expired, func(c *introspection.Config) { c.Leeway = 10 * time.Second }).Validate(t.Context(), "good")
		assert.NoError(t, err)
	})
}

func TestValidate_ServeStale(t *testing.T) {
	hang := func(req *http.Request, _ url.Values) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	for name, down := range map[string]func(*http.Request, url.Values) (*http.Response, error){
		"refused": outage, "hanging": hang, "wrong credentials": reply(401, ""), "limited": reply(429, ""), "broken": reply(500, ""),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: good}
			v := newValidator(t, s, func(c *introspection.Config) { c.ServeStale = time.Minute })
			start := time.Now()
			_, err := v.Validate(t.Context(), "good")
			require.NoError(t, err)
			s.set(down)
			waited := 0
			for time.Since(start) < time.Minute-3*time.Second {
				before := time.Now()
				_, err := v.Validate(t.Context(), "good")
				require.NoError(t, err, "%s after %v", name, time.Since(start))
				if time.Since(before) > 0 {
					waited++
				}
				_, err = v.Validate(t.Context(), "good, never seen")
				assert.Error(t, err)
				pass(100 * time.Millisecond)
			}
			assert.LessOrEqual(t, waited, 1, "%s: only the first request waits", name)
			time.Sleep(time.Minute - time.Since(start))
			_, err = v.Validate(t.Context(), "good")
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
			pass(2 * time.Second)
		})
	}
	for name, row := range map[string]struct {
		answer func(*http.Request, url.Values) (*http.Response, error)
		claims map[string]any
		want   error
	}{
		"inactive is no outage":       {reply(200, `{"active":false}`), nil, introspection.ErrInactive},
		"an odd answer is none":       {reply(200, `{}`), nil, koreauth.ErrUnavailable},
		"a bad request is none":       {reply(400, ``), nil, koreauth.ErrUnavailable},
		"without exp nothing is used": {outage, map[string]any{"exp": nil}, koreauth.ErrUnavailable},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: reply(200, active(row.claims))}
			v := newValidator(t, s, func(c *introspection.Config) { c.ServeStale = time.Hour })
			_, err := v.Validate(t.Context(), "good")
			require.NoError(t, err)
			s.set(row.answer)
			pass(10 * time.Second)
			_, err = v.Validate(t.Context(), "good")
			assert.ErrorIs(t, err, row.want, name)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: good}
		v := newValidator(t, s)
		_, err := v.Validate(t.Context(), "good")
		require.NoError(t, err)
		s.set(outage)
		pass(10 * time.Second)
		_, err = v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, "the default is not at all")
	})
}

// Ten thousand requests with one new token make one request to the issuer, and each has
// its own context.
func TestValidate_SharesARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
			time.Sleep(time.Second)
			return good(req, form)
		}}
		v := newValidator(t, s)
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := v.Validate(impatient, "good")
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Millisecond, time.Since(start))
		var group sync.WaitGroup
		for range 10_000 {
			group.Go(func() {
				if claims, err := v.Validate(t.Context(), "good"); err != nil || claims.ID != "good" {
					t.Error(claims, err)
				}
			})
		}
		group.Wait()
		assert.Equal(t, 1, s.count())
		assert.Equal(t, time.Second, time.Since(start))
	})
}

// No request waits for a token that is used regularly.
func TestValidate_RenewsInBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: good}
		v := newValidator(t, s)
		_, err := v.Validate(t.Context(), "good")
		require.NoError(t, err)
		s.set(func(req *http.Request, form url.Values) (*http.Response, error) {
			time.Sleep(time.Second)
			return good(req, form)
		})
		start := time.Now()
		for range 1000 {
			before := time.Now()
			_, err := v.Validate(t.Context(), "good")
			require.NoError(t, err)
			assert.Equal(t, before, time.Now(), "after %v", before.Sub(start))
			pass(100 * time.Millisecond)
		}
		assert.InDelta(t, 12, s.count(), 3)
	})
}

// A flood of invented tokens is limited, and tokens that were good are still accepted.
func TestValidate_Flood(t *testing.T) {
	const flood, steady, seconds = 100_000, 100, 20
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
			time.Sleep(5 * time.Millisecond)
			return good(req, form)
		}}
		v := newValidator(t, s)
		for n := range steady {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err)
		}
		for range 5 { // The burst is available again.
			pass(time.Second)
		}
		start, before := time.Now(), s.count()
		var group sync.WaitGroup
		group.Go(func() {
			for n := range flood {
				group.Go(func() {
					if _, err := v.Validate(t.Context(), fmt.Sprintf("junk%d", n)); err == nil {
						t.Error("accepted")
					}
				})
				if n%(flood/seconds/100) == 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
		var slow atomic.Int64
		for range seconds {
			for n := range steady {
				group.Go(func() {
					at := time.Now()
					if _, err := v.Validate(t.Context(), fmt.Sprint("good", n)); err != nil {
						t.Error(err)
					}
					if time.Since(at) > 5*time.Millisecond {
						slow.Add(1)
					}
				})
			}
			time.Sleep(time.Second)
		}
		group.Wait()
		known := 3 * steady // They are asked about every eight to ten seconds.
		assert.LessOrEqual(t, s.count()-before-known, 400+int(200*time.Since(start).Seconds()), "requests about new tokens")
		assert.Greater(t, s.count()-before, 200*seconds, "the budget is used")
		assert.Zero(t, slow.Load(), "good tokens that waited over 5 ms")
	})
}

// Requests about new tokens that hang are 64 at most, and do not keep good ones waiting.
func TestValidate_InFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hanging, most atomic.Int64
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
			if strings.HasPrefix(form.Get("token"), "junk") {
				most.Store(max(most.Load(), hanging.Add(1)))
				defer hanging.Add(-1)
				time.Sleep(1900 * time.Millisecond)
			}
			return good(req, form)
		}}
		v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = time.Second })
		_, err := v.Validate(t.Context(), "good")
		require.NoError(t, err)
		var group sync.WaitGroup
		for n := range 300 {
			group.Go(func() { _, _ = v.Validate(t.Context(), fmt.Sprint("junk", n)) })
		}
		pass(time.Second)
		assert.EqualValues(t, 64, most.Load())
		start := time.Now()
		_, err = v.Validate(t.Context(), "good")
		assert.NoError(t, err)
		assert.Equal(t, start, time.Now())
		group.Wait()
	})
}

// Many tokens that were good may be asked about at the same time: they wait, and none is
// rejected.
func TestValidate_ManyGoodTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, most atomic.Int64
		s := &server{answer: good}
		v := newValidator(t, s)
		for n := range 390 {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err)
		}
		pass(10 * time.Second)
		s.set(func(req *http.Request, form url.Values) (*http.Response, error) {
			most.Store(max(most.Load(), at.Add(1)))
			defer at.Add(-1)
			time.Sleep(100 * time.Millisecond)
			return good(req, form)
		})
		var group sync.WaitGroup
		for n := range 390 {
			group.Go(func() {
				if _, err := v.Validate(t.Context(), fmt.Sprint("good", n)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		assert.EqualValues(t, 64, most.Load())
	})
}

// Rejected tokens have a place of their own, of 4,096.
func TestValidate_RejectedTokensAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: good}
		v := newValidator(t, s)
		for range 100 {
			_, err := v.Validate(t.Context(), "junk")
			assert.ErrorIs(t, err, introspection.ErrInactive)
		}
		assert.Equal(t, 1, s.count())
		pass(10 * time.Second)
		_, err := v.Validate(t.Context(), "junk")
		assert.ErrorIs(t, err, introspection.ErrInactive)
		assert.Equal(t, 2, s.count())
	})
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: good}
		v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = -1 })
		for range 10 {
			_, err := v.Validate(t.Context(), "junk")
			assert.ErrorIs(t, err, introspection.ErrInactive)
		}
		assert.Equal(t, 10, s.count(), "a negative MaxAge keeps no answer")
	})
}

func TestValidate_Shape(t *testing.T) {
	s := &server{answer: good}
	v := newValidator(t, s, func(c *introspection.Config) {
		c.Shape = func(token string) bool { return strings.HasPrefix(token, "good_") }
	})
	_, err := v.Validate(t.Context(), "good_1")
	assert.NoError(t, err)
	for _, token := range []string{"good1", "", "good_ 1", "good_\n", strings.Repeat("good_", 4000)} {
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrMalformed, "%.20q", token)
	}
	assert.Equal(t, 1, s.count())
}

// The claims belong to the caller.
func TestValidate_ClaimsAreACopy(t *testing.T) {
	v := newValidator(t, &server{answer: reply(200, active(map[string]any{"scope": "a b", "custom": "x"}))})
	first, err := v.Validate(t.Context(), "good")
	require.NoError(t, err)
	first.Scopes[0], first.ClientID = "admin", "changed"
	second, err := v.Validate(t.Context(), "good")
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, second.Scopes)
	assert.Equal(t, "kc_1", second.ClientID)
	var custom struct{ Custom string }
	require.NoError(t, second.Decode(&custom))
	assert.Equal(t, "x", custom.Custom)
}

// A guard does not copy the claims, but its handlers get copies.
func TestValidate_GuardSharesClaims(t *testing.T) {
	issuer, s := startIssuer(t), &server{answer: reply(200, active(map[string]any{"scope": "a b"}))}
	both, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer.URL(), Audience: []string{"api-gw"}, HTTPClient: issuer.HTTPClient(), Opaque: newValidator(t, s),
	})
	require.NoError(t, err)
	ownServer := &server{}
	token := mint(t, issuer, koretest.Token{})
	ownServer.answer = reply(200, answerTo(t, token, map[string]any{"scope": "a b"}))
	for name, row := range map[string]struct {
		validator koreauth.TokenValidator
		token     string
	}{
		"New":    {newValidator(t, s), "good"},
		"Opaque": {both, "good"},
		"Also":   {newAlso(t, issuer, ownServer, nil), token},
	} {
		guard := koreauth.New(row.validator, nil)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+row.token)
		change := guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			claims, _ := koreauth.FromContext(r.Context())
			require.Equal(t, []string{"a", "b"}, claims.Scopes, name)
			claims.Scopes[0] = "admin"
		}))
		for range 4 {
			change.ServeHTTP(httptest.NewRecorder(), r)
			claims, err := guard.Authenticate(r)
			require.NoError(t, err, name)
			require.Equal(t, []string{"a", "b"}, claims.Scopes, name)
			claims.Scopes[0] = "admin"
		}
		nothing, w := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), httptest.NewRecorder()
		allocations := testing.AllocsPerRun(100, func() { nothing.ServeHTTP(w, r) })
		assert.LessOrEqual(t, allocations, 4.0, name)
	}
}

// A rule of package revocation ends a token at once, whatever MaxAge is.
func TestValidate_Revoked(t *testing.T) {
	s := &server{answer: good}
	opaque := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = time.Hour })
	list := &revocation.List{}
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuerURL, Token: "none"}))
	key, err := koreauth.ParseKeys([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuerURL, Audience: []string{"api-gw"}, Keys: koreauth.StaticKeySet(key), Opaque: opaque, Require: []koreauth.Requirement{list},
	})
	require.NoError(t, err)
	guarded := koreauth.New(validator, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	call := func() int {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer good")
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		return w.Code
	}
	assert.Equal(t, 200, call())
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuerURL, Token: "good"}))
	assert.Equal(t, 403, call())
	assert.Equal(t, 1, s.count())
}

// A bound token needs the guard's Sender.
func TestValidate_BoundToken(t *testing.T) {
	for name, row := range map[string]struct {
		cnf    any
		sender koreauth.Requirement
		want   int
	}{
		"no sender":           {map[string]string{"x5t#S256": "abc"}, nil, 403},
		"confirmed":           {map[string]string{"x5t#S256": "abc"}, koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil }), 200},
		"not confirmed":       {map[string]string{"x5t#S256": "abc"}, koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return koreauth.ErrBinding }), 403},
		"bound in an odd way": {map[string]string{"x": "abc"}, koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil }), 403},
		"cnf of another type": {"x", koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil }), 403},
	} {
		v := newValidator(t, &server{answer: reply(200, active(map[string]any{"cnf": row.cnf}))})
		guarded := koreauth.New(v, &koreauth.Options{Sender: row.sender}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer good")
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		assert.Equal(t, row.want, w.Code, name)
	}
}

// Code of a user that hangs or panics is an outage, and leaves 64 goroutines at most.
func TestValidate_FaultsInUserCode(t *testing.T) {
	for name, change := range map[string]func(*introspection.Config, chan struct{}){
		"a transport that hangs": func(c *introspection.Config, hang chan struct{}) {
			c.HTTPClient = &http.Client{Transport: &server{answer: func(*http.Request, url.Values) (*http.Response, error) { <-hang; return nil, errors.New("x") }}}
		},
		"a transport that panics": func(c *introspection.Config, _ chan struct{}) {
			c.HTTPClient = &http.Client{Transport: &server{answer: func(*http.Request, url.Values) (*http.Response, error) { panic(secret) }}}
		},
		"a Secret that hangs": func(c *introspection.Config, hang chan struct{}) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { <-hang; return "", nil }
		},
		"a Secret that panics": func(c *introspection.Config, _ chan struct{}) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { panic(secret) }
		},
		"a Secret that fails": func(c *introspection.Config, _ chan struct{}) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { return "", errors.New("the vault is sealed") }
		},
		"an empty Secret": func(c *introspection.Config, _ chan struct{}) {
			c.ClientSecret, c.Secret = "", func(context.Context) (string, error) { return "", nil }
		},
		"a Logger that panics": func(c *introspection.Config, _ chan struct{}) {
			c.HTTPClient, c.Logger = &http.Client{Transport: &server{answer: outage}}, slog.New(panicking{})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			hang := make(chan struct{})
			defer close(hang)
			v := newValidator(t, &server{answer: good}, func(c *introspection.Config) { change(c, hang) })
			for n := range 100 {
				start := time.Now()
				_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
				require.ErrorIs(t, err, koreauth.ErrUnavailable, name)
				assert.LessOrEqual(t, time.Since(start), 2*time.Second, name)
				assert.NotContains(t, err.Error(), secret, name)
				pass(250 * time.Millisecond)
			}
		})
	}
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { return true }

func (panicking) Handle(context.Context, slog.Record) error { panic("logger") }

func TestValidate_Log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
			return nil, fmt.Errorf("no route for %s and %s", form.Get("token"), secret)
		}}
		v := newValidator(t, s, func(c *introspection.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		for n := range 600 {
			_, err := v.Validate(t.Context(), fmt.Sprintf("good-token-%04d", n))
			assert.NotContains(t, err.Error(), "good-token", "an error that quotes the request")
			assert.NotContains(t, err.Error(), secret)
			pass(time.Second)
		}
		assert.Equal(t, 10, strings.Count(log.String(), "\n"), "one record a minute")
		assert.Contains(t, log.String(), "no clear answer")
		log.Reset()
		s.set(reply(401, `{"error":"invalid_client"}`))
		for range 120 {
			_, _ = v.Validate(t.Context(), "good")
			pass(time.Second)
		}
		assert.Equal(t, 2, strings.Count(log.String(), "level=ERROR"))
		assert.Contains(t, log.String(), "status 401: invalid_client")
		assert.Contains(t, log.String(), "correct ClientID, the secret and Style")
		assert.NotContains(t, log.String(), "good-token")
		assert.NotContains(t, log.String(), secret)
	})
}

// Keycloak answers 400 to a wrong assertion.
func TestValidate_CredentialsRejectedWith400(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{answer: good}
		v := newValidator(t, s, func(c *introspection.Config) {
			c.ServeStale, c.Logger = time.Minute, slog.New(slog.NewTextHandler(&log, nil))
		})
		_, err := v.Validate(t.Context(), "good")
		require.NoError(t, err)
		s.set(reply(400, `{"error":"invalid_client","error_description":"`+secret+`"}`))
		pass(10 * time.Second)
		_, err = v.Validate(t.Context(), "good")
		assert.NoError(t, err, "it counts as an outage")
		assert.Contains(t, log.String(), "level=ERROR")
		assert.Contains(t, log.String(), "status 400: invalid_client")
		for _, body := range []string{`{"error":"<b>"}`, `{"error":7}`, `{"error":"a","error":"b"}`, "invalid_client"} {
			s.set(reply(400, body))
			_, err = newValidator(t, s).Validate(t.Context(), "good")
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.Regexp(t, "status 400$", err.Error())
		}
	})
}

func TestValidator_Zero(t *testing.T) {
	for _, v := range []*introspection.Validator{nil, {}} {
		_, err := v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	}
}

func TestNew_Faults(t *testing.T) {
	_, err := introspection.New(introspection.Config{Style: 9, Leeway: -1, ServeStale: -1, ClientIDs: []string{""}, Audience: []string{""}})
	require.Error(t, err)
	for _, says := range []string{
		"Config.Issuer is empty", "Config.Audience has an empty", "Config.ClientIDs has an empty", "Config.ClientID is empty", "Config.Style is unknown",
		"Config.Leeway is negative", "Config.ServeStale is negative",
	} {
		assert.ErrorContains(t, err, says)
	}
	for name, row := range map[string]struct {
		change func(*introspection.Config)
		says   string // empty: no fault
	}{
		"good":                     {func(*introspection.Config) {}, ""},
		"discovery":                {func(c *introspection.Config) { c.Endpoint = "" }, ""},
		"an issuer that is no URL": {func(c *introspection.Config) { c.Issuer = "kore" }, ""},
		"and no endpoint":          {func(c *introspection.Config) { c.Issuer, c.Endpoint = "kore", "" }, "Issuer is not an absolute URL"},
		"an issuer with a query":   {func(c *introspection.Config) { c.Issuer, c.Endpoint = issuerURL+"?a", "" }, "Issuer has a query"},
		"http":                     {func(c *introspection.Config) { c.Endpoint = "http://issuer.example/" }, "use https"},
		"http on loopback":         {func(c *introspection.Config) { c.Endpoint = "http://127.0.0.1:1/" }, ""},
		"http, allowed":            {func(c *introspection.Config) { c.Endpoint, c.DangerouslyAllowHTTP = "http://issuer.example/", true }, ""},
		"credentials in the URL":   {func(c *introspection.Config) { c.Endpoint = "https://a:b@issuer.example/" }, "has credentials in it"},
		"no audience":              {func(c *introspection.Config) { c.Audience = nil }, "Audience is empty"},
		"no secret":                {func(c *introspection.Config) { c.ClientSecret = "" }, "ClientSecret and Secret are empty"},
		"two secrets":              {func(c *introspection.Config) { c.Secret = func(context.Context) (string, error) { return "", nil } }, "are both set"},
		"no key":                   {func(c *introspection.Config) { c.Style, c.ClientSecret = introspection.PrivateKeyJWT, "" }, "Key is nil"},
		"a secret beside a key":    {func(c *introspection.Config) { c.Style, c.Key = introspection.PrivateKeyJWT, keys(t)["ES256"] }, "Style does not send it"},
		"a key for Basic":          {func(c *introspection.Config) { c.Key = keys(t)["ES256"] }, "Style does not use it"},
		"a small key": {func(c *introspection.Config) {
			c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", keys(t)["small"]
		}, "less than 2048 bits"},
		"a key on another curve": {func(c *introspection.Config) {
			c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", keys(t)["P-224"]
		}, "unknown kind"},
		"a certificate, no client":   {func(c *introspection.Config) { c.Style, c.ClientSecret, c.HTTPClient = introspection.None, "", nil }, "HTTPClient is nil"},
		"a certificate and a client": {func(c *introspection.Config) { c.Style, c.ClientSecret = introspection.None, "" }, ""},
	} {
		_, err := introspection.New(newConfig(&server{}, row.change))
		if row.says == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, row.says, name)
		}
	}
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	config := newConfig(&server{}, func(c *introspection.Config) { c.Endpoint += "?key=hidden" })
	v, err := introspection.New(config)
	require.NoError(t, err)
	text, err := json.Marshal(config)
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", config, "pointer", &config, "validator", v)
	for _, printed := range []string{string(text), log.String(), fmt.Sprint(config), fmt.Sprintf("%+v %#v %s %q %x", config, &config, config, config, config), fmt.Sprintf("%+v %#v", v, v)} {
		assert.NotContains(t, printed, secret)
		assert.NotContains(t, printed, "NdhM")
		assert.NotContains(t, printed, "hidden")
	}
	assert.True(t, slices.Contains([]string{`introspection.Config{Endpoint:"` + endpoint + `" Issuer:"` + issuerURL + `" ClientID:"api"}`}, config.String()))
}

// What the caller does with its slices afterwards does not matter.
func TestNew_CopiesTheConfig(t *testing.T) {
	s := &server{answer: reply(200, active(map[string]any{"aud": "evil", "client_id": "c2"}))}
	audience, clients := []string{"api-gw"}, []string{"kc_1"}
	v := newValidator(t, s, func(c *introspection.Config) { c.Audience, c.ClientIDs = audience, clients })
	audience[0], clients[0] = "evil", "c2"
	_, err := v.Validate(t.Context(), "good")
	assert.ErrorIs(t, err, koreauth.ErrAudience)
}

// Callers that arrive while the request ends cause no other one.
func TestValidate_OneRequestForManyCallers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(32))
	most := 0
	for range 10 {
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) { return good(req, form) }}
		v := newValidator(t, s, func(c *introspection.Config) { c.MaxAge = time.Hour })
		var group sync.WaitGroup
		begin := make(chan struct{})
		for range 10_000 {
			group.Go(func() {
				<-begin
				if _, err := v.Validate(t.Context(), "good"); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		group.Wait()
		most = max(most, s.count())
	}
	assert.Equal(t, 1, most)
}

// A DPoP token without its key is no bearer token.
func TestValidate_DPoPWithoutKey(t *testing.T) {
	v := newValidator(t, &server{answer: reply(200, active(map[string]any{"token_type": "DPoP"}))})
	guarded := koreauth.New(v, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer good")
	w := httptest.NewRecorder()
	guarded.ServeHTTP(w, r)
	assert.Equal(t, 403, w.Code, "token_type DPoP without cnf is accepted as a bearer token")
	v = newValidator(t, &server{answer: reply(200, active(map[string]any{"typ": "DPoP"}))})
	_, err := v.Validate(t.Context(), "good")
	assert.ErrorIs(t, err, koreauth.ErrTokenType, "as typ does")
}

// A token that is not yet valid is accepted as soon as it is.
func TestValidate_NotYetValidForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: reply(200, active(map[string]any{"nbf": time.Now().Add(time.Second).Unix()}))}
		v := newValidator(t, s)
		_, err := v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrNotYetValid)
		pass(1100 * time.Millisecond)
		_, err = v.Validate(t.Context(), "good")
		assert.NoError(t, err, "nbf has passed")
	})
}

// A panic of Shape does not reach the caller.
func TestValidate_ShapePanics(t *testing.T) {
	v := newValidator(t, &server{answer: good}, func(c *introspection.Config) { c.Shape = func(token string) bool { return token[:20] == "x" } })
	assert.NotPanics(t, func() {
		_, err := v.Validate(t.Context(), "good")
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
}

// The error belongs to the caller, too.
func TestValidate_ErrorIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*http.Request, url.Values) (*http.Response, error) {
			time.Sleep(time.Second)
			return nil, errors.New("x")
		}}
		v := newValidator(t, s)
		errs := make(chan error, 2)
		for range 2 {
			go func() { _, err := v.Validate(t.Context(), "good"); errs <- err }()
		}
		a, b := <-errs, <-errs
		assert.NotSame(t, a, b)
	})
}

// A Retry-After of the issuer is passed on up to a minute.
func TestValidate_RetryAfterIsBounded(t *testing.T) {
	v := newValidator(t, &server{answer: reply(503, "", "Retry-After", "99999999999")})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer good")
	koreauth.New(v, nil).Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	assert.Equal(t, "60", w.Header().Get("Retry-After"))
}

// The error of a time-out tells whose it was.
func TestValidate_TimeoutText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(req *http.Request, _ url.Values) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}}
		_, err := newValidator(t, s).Validate(t.Context(), "good")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, own := newValidator(t, s).Validate(ctx, "good")
		assert.NotEqual(t, err.Error(), own.Error())
		pass(3 * time.Second)
	})
}

// The errors of the limits tell which one it was, and a token that is a word of them hides nothing.
func TestValidate_TextsOfTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) { <-hang; return good(req, form) }}
		v := newValidator(t, s)
		for n := range 64 {
			go func() { _, _ = v.Validate(t.Context(), fmt.Sprint("good", n)) }()
		}
		synctest.Wait()
		_, err := v.Validate(t.Context(), "onemore")
		assert.NotContains(t, err.Error(), "at most 200 in a second", "there were 65 only")
		close(hang)
		pass(time.Second)
		s.set(reply(401, ""))
		_, _ = v.Validate(t.Context(), "first")
		_, err = v.Validate(t.Context(), "second")
		assert.NotContains(t, err.Error(), "did not answer", "it did: 401")
		// a token that is a word of the message
		pass(time.Second)
		s.set(reply(500, ""))
		_, err = v.Validate(t.Context(), "500")
		assert.Contains(t, err.Error(), "500", "the status is in the reason")
	})
}

// Ten thousand answers take at most 40 MB, also those with many short scopes.
func TestValidate_MemoryOfAnswers(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // A sync.Pool is empty after two collections.
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	synctest.Test(t, func(t *testing.T) {
		body := active(map[string]any{"scope": strings.Repeat("a ", 1800), "exp": time.Now().Add(24 * time.Hour).Unix()})
		require.Less(t, len(body), 4096)
		v := newValidator(t, &server{}, func(c *introspection.Config) {
			c.MaxAge = 24 * time.Hour
			c.HTTPClient = &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				_, _ = io.Copy(io.Discard, req.Body)
				return reply(200, body)(req, nil)
			})}
		})
		before := heap()
		for n := range 1500 {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err)
			time.Sleep(5 * time.Millisecond)
		}
		assert.Less(t, heap()-before, int64(42<<20))
		runtime.KeepAlive(v)
	})
}
