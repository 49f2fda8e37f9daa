package introspection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
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
)

// A request that only waited for its turn says nothing of the issuer.
func TestOutage_QueuedRequestsDoNotEndIt(t *testing.T) {
	hang := func(req *http.Request, _ url.Values) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: good}
		v := newValidator(t, s, func(c *introspection.Config) { c.ServeStale = time.Hour })
		for n := range 200 {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err)
		}
		pass(10 * time.Second)
		s.set(hang)
		slow := 0
		for round := range 5 {
			var group sync.WaitGroup
			var waited atomic.Int64
			for n := range 200 {
				group.Go(func() {
					at := time.Now()
					_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
					if err != nil {
						t.Error(err)
					}
					if time.Since(at) > 0 {
						waited.Add(1)
					}
				})
			}
			group.Wait()
			if round > 0 && waited.Load() > 0 {
				slow++
			}
			pass(300 * time.Millisecond)
		}
		assert.Zero(t, slow, "rounds in which stale tokens wait, after the first")
		pass(5 * time.Second)
	})
}

// A transport that takes all places does not make stale tokens wait each time.
func TestOutage_TransportThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := &server{answer: good}
		v := newValidator(t, s, func(c *introspection.Config) { c.ServeStale = time.Hour })
		for n := range 100 {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err)
		}
		pass(10 * time.Second)
		s.set(func(*http.Request, url.Values) (*http.Response, error) { <-hang; return nil, errors.New("x") })
		for n := range 70 {
			go func() { _, _ = v.Validate(t.Context(), fmt.Sprint("good", n)) }()
		}
		pass(10 * time.Second)
		waited := 0
		for range 20 {
			pass(3 * time.Second) // failing fast is over, and so is the last probe
			at := time.Now()
			_, err := v.Validate(t.Context(), "good99")
			require.NoError(t, err)
			if time.Since(at) > 0 {
				waited++
			}
		}
		assert.LessOrEqual(t, waited, 1)
		close(hang)
		pass(3 * time.Second)
	})
}

// hangingLog never returns.
type hangingLog struct {
	slog.Handler
	hang chan struct{}
}

func (hangingLog) Enabled(context.Context, slog.Level) bool { return true }

func (h hangingLog) Handle(context.Context, slog.Record) error { <-h.hang; return nil }

// exitingLog ends its goroutine.
type exitingLog struct{ slog.Handler }

func (exitingLog) Enabled(context.Context, slog.Level) bool { return true }

func (exitingLog) Handle(context.Context, slog.Record) error { runtime.Goexit(); return nil }

// A Logger that hangs or ends its goroutine does not end the token that it was told about.
func TestOutage_LoggerThatHangs(t *testing.T) {
	for _, name := range []string{"hang", "exit"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				defer close(hang)
				s := &server{answer: good}
				v := newValidator(t, s, func(c *introspection.Config) {
					c.Logger, c.ServeStale = slog.New(hangingLog{hang: hang}), time.Hour
					if name == "exit" {
						c.Logger = slog.New(exitingLog{})
					}
				})
				_, err := v.Validate(t.Context(), "good")
				require.NoError(t, err)
				pass(10 * time.Second)
				s.set(reply(200, `{}`))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				_, err = v.Validate(ctx, "good")
				assert.ErrorIs(t, err, koreauth.ErrUnavailable)
				assert.LessOrEqual(t, time.Since(start), 2*time.Second, name)
				s.set(good)
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err = v.Validate(ctx, "good")
				assert.NoError(t, err, "%s: this token is never asked about again", name)
			})
		})
	}
}

// An endpoint that moves is found again, whatever the old one says.
func TestEndpoint_Moves(t *testing.T) {
	for name, gone := range map[string]answerFunc{
		"connection refused": outage, "parked page": reply(200, "<html>", "Content-Type", "text/html"), "404": reply(404, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var moved atomic.Bool
				s := &server{}
				s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
					place := "https://old.example/introspect"
					if moved.Load() {
						place = "https://new.example/introspect"
					}
					switch {
					case strings.Contains(req.URL.Path, ".well-known"):
						return reply(200, metadata(issuerURL, place))(req, form)
					case req.URL.String() == place:
						return good(req, form)
					}
					return gone(req, form)
				}
				v := newValidator(t, s, func(c *introspection.Config) { c.Endpoint = "" })
				_, err := v.Validate(t.Context(), "good")
				require.NoError(t, err)
				moved.Store(true)
				for range 600 {
					pass(time.Second)
					if _, err = v.Validate(t.Context(), "good2"); err == nil {
						break
					}
				}
				assert.NoError(t, err, "%s: after ten minutes", name)
			})
		})
	}
}

// The endpoint that is known is used while the metadata fail.
func TestEndpoint_IsKeptWhileTheMetadataFail(t *testing.T) {
	for _, status := range []int{400, 403, 413} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				s := &server{}
				s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
					switch {
					case strings.Contains(req.URL.Path, ".well-known"):
						if broken.Load() {
							return reply(503, "")(req, form)
						}
						return reply(200, metadata(issuerURL, endpoint))(req, form)
					case form.Get("token") == "odd":
						return reply(status, "")(req, form)
					}
					return good(req, form)
				}
				v := newValidator(t, s, func(c *introspection.Config) { c.Endpoint = "" })
				_, err := v.Validate(t.Context(), "good")
				require.NoError(t, err)
				broken.Store(true)
				_, err = v.Validate(t.Context(), "good2")
				require.NoError(t, err)
				_, err = v.Validate(t.Context(), "odd")
				require.ErrorIs(t, err, koreauth.ErrUnavailable)
				pass(time.Minute)
				_, err = v.Validate(t.Context(), "good3")
				assert.NoError(t, err, "%d: the endpoint works, and was known", status)
			})
		})
	}
}

// Tokens that the endpoint answers oddly do not cause discovery each time.
func TestEndpoint_Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
			time.Sleep(time.Millisecond)
			switch {
			case strings.HasSuffix(req.URL.Path, "openid-configuration"):
				return reply(404, "")(req, form)
			case strings.Contains(req.URL.Path, ".well-known"):
				return reply(200, metadata(issuerURL, endpoint))(req, form)
			}
			return reply(400, "")(req, form)
		}
		v := newValidator(t, s, func(c *introspection.Config) { c.Endpoint = "" })
		start := time.Now()
		for n := range 10_000 {
			go func() { _, _ = v.Validate(t.Context(), fmt.Sprint("junk", n)) }()
			if n%10 == 9 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		pass(time.Second)
		assert.LessOrEqual(t, s.count(), 400+int(200*time.Since(start).Seconds()), "calls in %v", time.Since(start))
	})
}

// Many tokens at the start cause one discovery.
func TestEndpoint_DiscoveredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		s := &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
			time.Sleep(10 * time.Millisecond)
			if strings.Contains(req.URL.Path, ".well-known") {
				looks.Add(1)
				return reply(200, metadata(issuerURL, endpoint))(req, form)
			}
			return good(req, form)
		}}
		v := newValidator(t, s, func(c *introspection.Config) { c.Endpoint = "" })
		for n := range 64 {
			go func() { _, _ = v.Validate(context.Background(), fmt.Sprint("good", n)) }()
		}
		pass(time.Second)
		assert.EqualValues(t, 1, looks.Load())
	})
}
