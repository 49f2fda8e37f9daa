package koreauth_test

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// faulty is a user's code, which does as it is told.
type faulty struct{ do atomic.Pointer[func() error] }

func (f *faulty) set(do func() error) { f.do.Store(&do) }

func (f *faulty) err() error { return (*f.do.Load())() }

func (f *faulty) Check(*http.Request, *koreauth.Claims) error { return f.err() }

func (f *faulty) Validate(context.Context, string) (*koreauth.Claims, error) {
	return &koreauth.Claims{ClientID: "c"}, f.err()
}

func (*faulty) Enabled(context.Context, slog.Level) bool { return true }

func (f *faulty) Handle(context.Context, slog.Record) error { return f.err() }

func (f *faulty) WithAttrs([]slog.Attr) slog.Handler { return f }

func (f *faulty) WithGroup(string) slog.Handler { return f }

// enabledFault is a Logger that fails in Enabled.
type enabledFault struct{ *faulty }

func (f enabledFault) Enabled(context.Context, slog.Level) bool { return f.err() == nil }

// userCode is a place where a user's code runs, behind a guard of a real server.
type userCode struct {
	name   string
	guard  func(t *testing.T, f *faulty) *koreauth.Middleware
	token  func(t *testing.T) string
	status int  // of a response without a fault
	mute   bool // an error that it returns has no effect
}

// The fault is in one place of code that a user wrote. The program lives, nothing is
// accepted, and neither a request at the same time nor the next one is affected.
func TestMiddleware_FaultsInUserCode(t *testing.T) {
	options := func(set func(*koreauth.Options, *faulty)) func(*testing.T, *faulty) *koreauth.Middleware {
		return func(t *testing.T, f *faulty) *koreauth.Middleware {
			o := &koreauth.Options{}
			set(o, f)
			return koreauth.New(newTestValidator(t), o)
		}
	}
	config := func(set func(*koreauth.Config, *faulty)) func(*testing.T, *faulty) *koreauth.Middleware {
		return func(t *testing.T, f *faulty) *koreauth.Middleware {
			_, v := newIssuer(t, "RS256", func(c *koreauth.Config) { set(c, f) })
			return koreauth.New(v, nil)
		}
	}
	valid := func(*testing.T) string { return testIssuer().Valid() }
	expired := func(*testing.T) string { return testIssuer().Expired() }
	opaque := func(*testing.T) string { return "opaque" }
	ofConfig := func(t *testing.T) string {
		issuer, _ := newIssuer(t, "RS256", nil)
		return issuer.Valid()
	}
	places := []userCode{
		{"Sender", options(func(o *koreauth.Options, f *faulty) { o.Sender = f }), valid, 200, false},
		{"Options.Require", options(func(o *koreauth.Options, f *faulty) { o.Require = []koreauth.Requirement{f} }), valid, 200, false},
		{"a Requirement in AnyOf", options(func(o *koreauth.Options, f *faulty) {
			o.Require = []koreauth.Requirement{koreauth.AnyOf(koreauth.Scope("none"), f)}
		}), valid, 200, false},
		{"a Source", options(func(o *koreauth.Options, f *faulty) {
			o.Sources = []koreauth.Source{func(*http.Request) ([]string, error) { return nil, f.err() }, koreauth.Header("Authorization")}
		}), valid, 200, false},
		{"Observe, of an accepted request", options(func(o *koreauth.Options, f *faulty) {
			o.Observe = func(*http.Request, koreauth.Outcome) { _ = f.err() }
		}), valid, 200, true},
		{"Observe, of a rejected request", options(func(o *koreauth.Options, f *faulty) {
			o.Observe = func(*http.Request, koreauth.Outcome) { _ = f.err() }
		}), expired, 403, true},
		{"ErrorFormat", options(func(o *koreauth.Options, f *faulty) {
			o.Errors = func(r *http.Request, err error) (int, string, []byte) {
				if f.err() != nil {
					return 200, "", nil // A success would be a lie.
				}
				return koreauth.KOREErrors(r, err)
			}
		}), expired, 403, false},
		{"the Logger", options(func(o *koreauth.Options, f *faulty) { o.Logger = slog.New(f) }), expired, 403, true},
		{"the Logger, in Enabled", options(func(o *koreauth.Options, f *faulty) { o.Logger = slog.New(enabledFault{f}) }), expired, 403, true},
		{"Config.Require", config(func(c *koreauth.Config, f *faulty) { c.Require = []koreauth.Requirement{f} }), ofConfig, 200, false},
		{"Config.Opaque", config(func(c *koreauth.Config, f *faulty) { c.Opaque = f }), opaque, 200, false},
		{"Config.Keys", config(func(c *koreauth.Config, f *faulty) {
			c.HTTPClient = nil
			c.Keys = keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
				key := signingKeys()["RS256"]
				return []koreauth.Key{{ID: key.ID, Public: key.Public()}}, f.err()
			})
		}), ofConfig, 200, false},
		{"a TokenValidator", func(_ *testing.T, f *faulty) *koreauth.Middleware { return koreauth.New(f, nil) }, opaque, 200, false},
		{"a TokenValidator without claims", func(_ *testing.T, f *faulty) *koreauth.Middleware {
			return koreauth.New(validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
				if err := f.err(); err != nil {
					return nil, nil
				}
				return &koreauth.Claims{}, nil
			}), nil)
		}, opaque, 200, false},
	}
	for _, place := range places {
		t.Run(place.name, func(t *testing.T) {
			f := new(faulty)
			f.set(func() error { return nil })
			guard := place.guard(t, f)
			handled := new(atomic.Int32)
			server := httptest.NewUnstartedServer(guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) })))
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // It gets the panics.
			server.Start()
			defer server.Close()
			token := place.token(t)
			// status returns zero for a connection that was aborted.
			status := func() int {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
				require.NoError(t, err)
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := server.Client().Do(r)
				if err != nil {
					return 0
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			works := func(when string) {
				t.Helper()
				handled.Store(0)
				for range 3 { // A new, a second and a remembered token.
					assert.Equal(t, place.status, status(), when)
				}
				assert.Equal(t, place.status == 200, handled.Load() == 3, "%s: calls of the handler: %d", when, handled.Load())
				handled.Store(0)
			}
			works("before")

			for name, do := range map[string]func() error{
				"a panic":           func() error { panic("mine") },
				"a panic with nil":  func() error { panic(nil) }, //nolint:govet // It is the fault.
				"an aborting panic": func() error { panic(http.ErrAbortHandler) },
				"a nil dereference": func() error { return (*(**faulty)(nil)).err() },
				"a typed nil":       func() error { return (*koreauth.Error)(nil) },
				"an outage":         func() error { return koreauth.ErrUnavailable },
			} {
				for range 2 {
					f.set(do)
					got := status()
					returns := name == "a typed nil" || name == "an outage"
					switch {
					case returns && place.mute:
						assert.Equal(t, place.status, got, name)
					case place.name == "ErrorFormat" && returns:
						assert.Equal(t, 500, got, name)
					case returns:
						assert.Equal(t, 503, got, name)
					default:
						assert.Contains(t, []int{0, 503}, got, name)
					}
					if !(returns && place.mute && place.status == 200) {
						assert.Zero(t, handled.Load(), "%s: the handler was called", name)
					}
					f.set(func() error { return nil })
					works("after " + name)
				}
			}

			// While one request waits in the user's code, others are served.
			entered, release := make(chan struct{}, 1), make(chan struct{})
			f.set(func() error {
				entered <- struct{}{}
				<-release
				return nil
			})
			blocked := make(chan int)
			go func() { blocked <- status() }()
			<-entered
			assert.Zero(t, handled.Load(), "the handler was called before the user's code returned")
			f.set(func() error { return nil })
			works("while a request is blocked")
			close(release)
			select {
			case got := <-blocked:
				assert.Equal(t, place.status, got, "the blocked request")
			case <-time.After(20 * time.Second):
				t.Error("the blocked request did not end")
			}
			works("after a block")
		})
	}
}

// A fault in a user's code while a route's requirement is checked does not spoil the
// claims of a remembered token.
func TestMiddleware_PanicLeavesRememberedToken(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	token := issuer.Valid()
	remember(t, v, token)
	guard := koreauth.New(v, nil)
	panicking := guard.Require(koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
		mutate(c)
		panic("mine")
	}))(whoami)
	for range 3 {
		assert.Panics(t, func() { serve(panicking, bearerRequest(token)) })
		status, body := serve(guard.Wrap(whoami), bearerRequest(token))
		assert.Equal(t, 200, status)
		assert.Equal(t, "kc_demo", body)
	}
}
