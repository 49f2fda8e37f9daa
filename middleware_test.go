package koreauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestMiddleware_Guards(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	wants := func(scope string) func(http.Handler) http.Handler { return guard.Require(koreauth.Scope(scope)) }
	for _, test := range []struct {
		name   string
		guard  func(http.Handler) http.Handler
		token  string
		status int
		body   string
	}{
		{"Wrap serves a good token", guard.Wrap, "a", 200, "client-a"},
		{"Wrap refuses none", guard.Wrap, "", 401, bodyA},
		{"Wrap refuses a bad one", guard.Wrap, "forged", 403, bodyB},
		{"WrapOptional serves a good token", guard.WrapOptional, "a", 200, "client-a"},
		{"WrapOptional serves none", guard.WrapOptional, "", 200, "nobody"},
		{"WrapOptional refuses a bad one", guard.WrapOptional, "forged", 403, bodyB},
		{"Require serves what it requires", wants("scope-a"), "a", 200, "client-a"},
		{"Require refuses a token without it", wants("scope-a"), "b", 403, bodyScope},
		{"Require authenticates: it refuses none", wants("scope-a"), "", 401, bodyA},
		{"Require authenticates: it refuses a bad one", wants("scope-a"), "forged", 403, bodyB},
		{"several requirements are all needed", guard.Require(koreauth.Scope("scope-a"), koreauth.Scope("scope-b")), "a", 403, bodyScope},
		{"several requirements are enough", guard.Require(koreauth.Scope("scope-a"), koreauth.AnyScope("x", "scope-a")), "a", 200, "client-a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := serve(test.guard(whoami), bearerRequest(test.token))
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.body, body)
		})
	}

	t.Run("WrapOptional refuses a bad request", func(t *testing.T) {
		r := bearerRequest("a")
		r.Header.Add("Authorization", "Bearer a")
		status, body := serve(guard.WrapOptional(whoami), r)
		assert.Equal(t, 401, status)
		assert.Equal(t, bodyA, body)
	})
	t.Run("a real token, a real validator", func(t *testing.T) {
		guard := koreauth.New(newTestValidator(t), nil)
		handler := guard.Require(koreauth.Grant("API Clients", koreauth.Read), koreauth.Product("SuperSIM"))(whoami)
		for token, want := range map[string]int{
			testIssuer().Valid(): 200, testIssuer().Expired(): 403, testIssuer().Forged(): 403, testIssuer().Ungranted(): 403, "garbage": 403,
		} {
			status, body := serve(handler, bearerRequest(token))
			assert.Equal(t, want, status, body)
		}
	})
}

// A token that was sent must be good, under WrapOptional as well: whatever the
// validator, or the context, says about there being no token.
func TestMiddleware_OptionalRejectsInvalid(t *testing.T) {
	done, cancel := context.WithCancelCause(t.Context())
	cancel(koreauth.ErrNoToken)
	for _, test := range []struct {
		name      string
		validator koreauth.TokenValidator
		r         *http.Request
	}{
		{"the validator answers ErrNoToken", koretest.Validator{Err: koreauth.ErrNoToken}, bearerRequest("a")},
		{"the validator's error wraps ErrNoToken",
			koretest.Validator{Err: fmt.Errorf("introspection: %w: %w", koreauth.ErrUnavailable, koreauth.ErrNoToken)}, bearerRequest("a")},
		{"the context is done because of ErrNoToken", newTestValidator(t), bearerRequest(testIssuer().Expired()).WithContext(done)},
		{"the validator has no class", koretest.Validator{Err: io.EOF}, bearerRequest("a")},
		{"the validator has neither claims nor an error", emptyValidator{}, bearerRequest("a")},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := serve(koreauth.New(test.validator, nil).WrapOptional(whoami), test.r)
			assert.NotEqual(t, http.StatusOK, status, "the handler answered %q", body)
		})
	}
}

// emptyValidator returns neither claims nor an error.
type emptyValidator struct{}

func (emptyValidator) Validate(context.Context, string) (*koreauth.Claims, error) { return nil, nil }

func TestMiddleware_NestedGuards(t *testing.T) {
	type middleware = func(http.Handler) http.Handler
	for _, test := range []struct {
		name      string
		nested    func(guard, other *koreauth.Middleware) []middleware
		token     string
		status    int
		body      string
		validated []string // of both Middlewares
	}{
		{"the same token is verified once, however often it is guarded",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, guard.WrapOptional, guard.Require(koreauth.Scope("scope-a")), guard.Wrap}
			}, "a", 200, "client-a", []string{"a"}},
		{"and its requirements are judged all the same",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"another token is judged anew",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("b"), guard.Wrap}
			},
			"a", 200, "client-b", []string{"a", "b"}},
		{"another token is judged by what it grants itself",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Require(koreauth.Scope("scope-a")), replaceToken("b"), guard.Require(koreauth.Scope("scope-a"))}
			}, "a", 403, bodyScope, []string{"a", "b"}},
		{"another token that is bad is refused",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("forged"), guard.Wrap}
			}, "a", 403, bodyB, []string{"a", "forged"}},
		{"a token that is gone is refused",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.Wrap}
			},
			"a", 401, bodyA, []string{"a"}},
		{"a token that comes back is not verified again",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("b"), guard.Wrap, replaceToken("a"), guard.Wrap}
			}, "a", 200, "client-a", []string{"a", "b"}},
		{"another Middleware verifies for itself",
			func(guard, other *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, other.Wrap} },
			"a", 200, "client-a", []string{"a", "a"}},
		{"another Middleware between does not make the same token be verified again",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, other.Wrap, guard.Wrap}
			}, "a", 200, "client-a", []string{"a", "a"}},
		{"another Middleware's claims satisfy no guard",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{other.Wrap, replaceToken(""), guard.Wrap}
			},
			"a", 401, bodyA, []string{"a"}},
		{"NewContext's claims satisfy no guard",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{injectClaims, guard.Wrap} },
			"", 401, bodyA, nil},
		{"NewContext's claims meet no requirement",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{injectClaims, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"NewContext's claims in a guard satisfy no inner guard",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, replaceToken(""), guard.Wrap}
			}, "a", 401, bodyA, []string{"a"}},
		{"NewContext's claims in a guard meet no inner requirement",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"an inner guard's claims take the place of NewContext's",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, guard.Wrap}
			},
			"a", 200, "client-a", []string{"a"}},
		{"NewContext's claims are those of a handler without a guard",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, injectClaims} },
			"a", 200, "injected", []string{"a"}},
		{"Require under WrapOptional refuses a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.WrapOptional, guard.Require(koreauth.Scope("scope-a"))}
			}, "", 401, bodyA, nil},
		{"Wrap under WrapOptional refuses a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.WrapOptional, guard.Wrap} },
			"", 401, bodyA, nil},
		{"WrapOptional under Wrap has the claims",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, guard.WrapOptional} },
			"a", 200, "client-a", []string{"a"}},
		{"WrapOptional hides an outer guard's claims from a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.WrapOptional}
			}, "a", 200, "nobody", []string{"a"}},
		{"WrapOptional hides another Middleware's claims",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{other.Wrap, replaceToken(""), guard.WrapOptional}
			}, "a", 200, "nobody", []string{"a"}},
		{"WrapOptional hides NewContext's claims",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{injectClaims, guard.WrapOptional}
			},
			"", 200, "nobody", nil},
		{"what WrapOptional hid an inner guard may find again, for the same token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.WrapOptional, replaceToken("a"), guard.Wrap}
			}, "a", 200, "client-a", []string{"a"}},
		{"what WrapOptional hid meets nothing for a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.WrapOptional, guard.Require(koreauth.Scope("scope-a"))}
			}, "a", 401, bodyA, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			validator := newTokenTable()
			guard, other := koreauth.New(validator, nil), koreauth.New(validator, nil)
			status, body := serve(chain(whoami, test.nested(guard, other)...), bearerRequest(test.token))
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.body, body)
			assert.Equal(t, test.validated, validator.validated, "tokens that were verified")
		})
	}

	t.Run("a token that cannot be judged is 503, under WrapOptional as well", func(t *testing.T) {
		guard := koreauth.New(koretest.Validator{Err: koreauth.ErrUnavailable}, nil)
		for _, wrap := range []func(http.Handler) http.Handler{guard.Wrap, guard.WrapOptional, guard.Require(koreauth.Scope("a"))} {
			status, body := serve(wrap(whoami), bearerRequest("a"))
			assert.Equal(t, http.StatusServiceUnavailable, status)
			assert.Equal(t, bodyDown, body)
		}
	})
	t.Run("two requests share nothing", func(t *testing.T) {
		validator := newTokenTable()
		handler := koreauth.New(validator, nil).Wrap(whoami)
		serve(handler, bearerRequest("a"))
		serve(handler, bearerRequest("a"))
		assert.Equal(t, []string{"a", "a"}, validator.validated)
	})
	t.Run("Authenticate in a guard does not verify again", func(t *testing.T) {
		validator := newTokenTable()
		guard := koreauth.New(validator, nil)
		serve(guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			claims, err := guard.Authenticate(r)
			if assert.NoError(t, err) {
				assert.Equal(t, "client-a", claims.ClientID)
			}
		})), bearerRequest("a"))
		assert.Equal(t, []string{"a"}, validator.validated)
	})
}

// What one who has claims does to them reaches nobody else.
func TestMiddleware_ClaimsAreCopied(t *testing.T) {
	met := []koreauth.Requirement{
		koreauth.Scope("s", "t"), koreauth.Product("SuperSIM"), koreauth.Grant("API Clients", koreauth.Read, koreauth.Write),
	}

	t.Run("with a validator that has one pointer for all", func(t *testing.T) {
		validator := &tokenTable{claims: map[string]*koreauth.Claims{"a": fullClaims()}}
		guard := koreauth.New(validator, nil)
		seen := 0
		handler := chain(
			http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for range 2 { // twice in one request, and in the next
					claims, ok := koreauth.FromContext(r.Context())
					assert.True(t, ok)
					assert.Equal(t, fullClaims(), claims)
					mutate(claims)
					seen++
				}
			}),
			guard.Wrap,
			func(next http.Handler) http.Handler { // between two guards
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					claims, _ := koreauth.FromContext(r.Context())
					mutate(claims)
					next.ServeHTTP(w, r)
				})
			},
			guard.Require(requirementFunc(func(c *koreauth.Claims) error { mutate(c); return nil })),
			guard.Require(koreauth.AnyOf(requirementFunc(func(c *koreauth.Claims) error { mutate(c); return io.EOF }), koreauth.Scope("s"))),
			guard.Require(met...),
		)
		for range 2 {
			status, body := serve(handler, bearerRequest("a"))
			assert.Equal(t, http.StatusOK, status, body)
		}
		assert.Equal(t, 4, seen)

		claims, err := guard.Authenticate(bearerRequest("a"))
		require.NoError(t, err)
		mutate(claims)
		assert.Equal(t, fullClaims(), validator.claims["a"])
	})
	t.Run("with a real validator", func(t *testing.T) {
		validator := newTestValidator(t)
		guard := koreauth.New(validator, nil)
		token := testIssuer().Valid()
		want, err := validator.Validate(t.Context(), token)
		require.NoError(t, err)
		for range 3 {
			claims, err := validator.Validate(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, want, claims)
			mutate(claims)
			claims, err = guard.Authenticate(bearerRequest(token))
			require.NoError(t, err)
			assert.Equal(t, want, claims)
			mutate(claims)
		}
	})
	t.Run("with NewContext, both ways", func(t *testing.T) {
		given := fullClaims()
		ctx := koreauth.NewContext(t.Context(), given)
		mutate(given)
		claims, ok := koreauth.FromContext(ctx)
		assert.True(t, ok)
		assert.Equal(t, fullClaims(), claims)
		mutate(claims)
		claims, _ = koreauth.FromContext(ctx)
		assert.Equal(t, fullClaims(), claims)
	})
	t.Run("with many requests at once", func(t *testing.T) {
		validator := &tokenTable{claims: map[string]*koreauth.Claims{"a": fullClaims()}}
		handler := koreauth.New(validator, nil).Require(met...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			claims, _ := koreauth.FromContext(r.Context())
			mutate(claims)
		}))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					status, _ := serve(handler, bearerRequest("a"))
					assert.Equal(t, http.StatusOK, status)
				}
			})
		}
		wg.Wait()
	})
}

func TestMiddleware_FromContext(t *testing.T) {
	claims, ok := koreauth.FromContext(t.Context())
	assert.False(t, ok)
	assert.Nil(t, claims)

	claims, ok = koreauth.FromContext(koreauth.NewContext(t.Context(), nil))
	assert.False(t, ok, "nil claims are none")
	assert.Nil(t, claims)

	outer := koreauth.NewContext(t.Context(), &koreauth.Claims{ClientID: "outer"})
	claims, ok = koreauth.FromContext(koreauth.NewContext(outer, &koreauth.Claims{ClientID: "inner"}))
	assert.True(t, ok)
	assert.Equal(t, "inner", claims.ClientID)
	_, ok = koreauth.FromContext(koreauth.NewContext(outer, nil))
	assert.False(t, ok, "nil claims hide those outside")
}

func TestMiddleware_AuthenticateAndRefuse(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := guard.Authenticate(r)
		assert.Equal(t, err == nil, claims != nil, "claims and an error, or neither")
		if err == nil {
			err = koreauth.Scope("scope-a").Check(claims)
		}
		if err != nil {
			guard.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, claims.ClientID)
	})
	wrapped := guard.Require(koreauth.Scope("scope-a"))(whoami)
	for _, token := range []string{"a", "b", "", "forged", "not a token"} {
		t.Run("as Require answers to "+token, func(t *testing.T) {
			got, want := httptest.NewRecorder(), httptest.NewRecorder()
			handler.ServeHTTP(got, bearerRequest(token))
			wrapped.ServeHTTP(want, bearerRequest(token))
			assert.Equal(t, want.Result(), got.Result())
			if want.Code == http.StatusOK {
				return
			}
			_, err := guard.Authenticate(bearerRequest(token))
			if err == nil {
				return
			}
			var refusal *koreauth.Error
			assert.ErrorAs(t, err, &refusal)
		})
	}
}

func TestMiddleware_CustomValidator(t *testing.T) {
	for _, test := range []struct {
		name      string
		validator koreauth.TokenValidator
		want      error
		status    int
	}{
		{"an error of no class could not be judged", koretest.Validator{Err: io.ErrUnexpectedEOF}, koreauth.ErrUnavailable, 503},
		{"neither claims nor an error could not be judged", emptyValidator{}, koreauth.ErrUnavailable, 503},
		{"a reason stays what it is", koretest.Validator{Err: fmt.Errorf("wrapped: %w", koreauth.ErrTooOld)}, koreauth.ErrTooOld, 403},
		{"claims beside an error are not looked at",
			koretest.Validator{Claims: &koreauth.Claims{}, Err: koreauth.ErrIssuer}, koreauth.ErrIssuer, 403},
		{"claims beside an error of no class are not looked at", bothValidator{}, koreauth.ErrUnavailable, 503},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := koreauth.New(test.validator, nil)
			claims, err := guard.Authenticate(bearerRequest("a"))
			assert.Nil(t, claims)
			assert.ErrorIs(t, err, test.want)
			for _, wrap := range []func(http.Handler) http.Handler{guard.Wrap, guard.WrapOptional} {
				status, body := serve(wrap(whoami), bearerRequest("a"))
				assert.Equal(t, test.status, status, body)
			}
		})
	}
	t.Run("the error's own text reaches the log's side, not the client", func(t *testing.T) {
		_, err := koreauth.New(koretest.Validator{Err: io.ErrUnexpectedEOF}, nil).Authenticate(bearerRequest("a"))
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Contains(t, err.Error(), "unexpected EOF")
	})
	t.Run("it gets the request's context", func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "here")
		_, err := koreauth.New(validateFunc(func(ctx context.Context, _ string) (*koreauth.Claims, error) {
			assert.Equal(t, "here", ctx.Value(key{}))
			return &koreauth.Claims{}, nil
		}), nil).Authenticate(bearerRequest("a").WithContext(ctx))
		assert.NoError(t, err)
	})
}

// bothValidator returns claims and an error.
type bothValidator struct{}

func (bothValidator) Validate(context.Context, string) (*koreauth.Claims, error) {
	return &koreauth.Claims{ClientID: "x"}, io.EOF
}

// revokingValidator refuses tokens that the Validator it embeds would take.
type revokingValidator struct{ *koreauth.Validator }

func (v revokingValidator) Validate(ctx context.Context, token string) (*koreauth.Claims, error) {
	if _, err := v.Validator.Validate(ctx, token); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: revoked", koreauth.ErrInvalidToken)
}

func TestMiddleware_EmbeddedValidator(t *testing.T) {
	v := revokingValidator{newTestValidator(t)}
	for _, validator := range []koreauth.TokenValidator{v, &v} {
		status, body := serve(koreauth.New(validator, nil).Wrap(whoami), bearerRequest(testIssuer().Valid()))
		assert.Equal(t, http.StatusForbidden, status)
		assert.Equal(t, bodyB, body)
	}
	status, _ := serve(koreauth.New(v.Validator, nil).Wrap(whoami), bearerRequest(testIssuer().Valid()))
	assert.Equal(t, http.StatusOK, status)
}

// An outage of the key endpoint says nothing against a token.
func TestMiddleware_OutageIs503(t *testing.T) {
	for name, behavior := range map[string]koretest.Behavior{
		"down": koretest.Down, "404": koretest.Status(404), "500": koretest.Status(500), "401": koretest.Status(401),
		"garbage": koretest.Garbage, "empty": koretest.Empty,
	} {
		t.Run(name, func(t *testing.T) {
			issuer, err := koretest.NewIssuer(&koretest.Options{
				URL: "https://issuer.example", Keys: []*koretest.Key{testIssuer().SigningKey()},
			})
			require.NoError(t, err)
			validator, err := koreauth.NewValidator(koreauth.Config{
				Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient(),
			})
			require.NoError(t, err)
			guard := koreauth.New(validator, nil)
			issuer.Behave(behavior)
			for _, wrap := range []func(http.Handler) http.Handler{
				guard.Wrap, guard.WrapOptional, guard.Require(koreauth.Grant("API Clients", koreauth.Read)),
			} {
				w := httptest.NewRecorder()
				wrap(whoami).ServeHTTP(w, bearerRequest(issuer.Valid()))
				assert.Equal(t, http.StatusServiceUnavailable, w.Code)
				assert.Equal(t, bodyDown, w.Body.String())
				assert.Equal(t, "1", w.Header().Get("Retry-After"))
				assert.Empty(t, w.Header().Values("WWW-Authenticate"))
			}
		})
	}

	t.Run("a request whose context is done", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(io.ErrClosedPipe)
		_, err := koreauth.New(newTestValidator(t), nil).Authenticate(bearerRequest(testIssuer().Valid()).WithContext(ctx))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

func TestMiddleware_HandlerPanic(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	for _, thrown := range []any{http.ErrAbortHandler, errors.New("mine"), 42} {
		handler := guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(thrown) }))
		w := httptest.NewRecorder()
		assert.PanicsWithValue(t, thrown, func() { handler.ServeHTTP(w, bearerRequest("a")) })
		assert.Empty(t, w.Header(), "nothing is written")
	}
}

func TestMiddleware_PassesWriterAndRequest(t *testing.T) {
	w, r := httptest.NewRecorder(), bearerRequest("a")
	koreauth.New(newTokenTable(), nil).Wrap(http.HandlerFunc(func(gotW http.ResponseWriter, gotR *http.Request) {
		assert.Same(t, w, gotW, "so that Flusher and Hijacker are still there")
		assert.Equal(t, r.Header, gotR.Header)
		assert.Same(t, r.URL, gotR.URL)
	})).ServeHTTP(w, r)

	r = bearerRequest("")
	koreauth.New(newTokenTable(), nil).WrapOptional(http.HandlerFunc(func(_ http.ResponseWriter, gotR *http.Request) {
		assert.Same(t, r, gotR, "nothing is to be said of it")
	})).ServeHTTP(w, r)
}

func TestMiddleware_GorillaMux(t *testing.T) {
	validator := newTokenTable()
	guard := koreauth.New(validator, nil)
	router := mux.NewRouter()
	router.Use(guard.Wrap)
	router.Handle("/ping", whoami)
	sub := router.PathPrefix("/v1").Subrouter()
	sub.Use(guard.Require(koreauth.Scope("scope-a")))
	sub.Handle("/sims/{id}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, mux.Vars(r)["id"])
	}))
	router.Handle("/b", guard.Require(koreauth.Scope("scope-b"))(whoami)).Methods("DELETE")

	for _, test := range []struct {
		name, method, path, token string
		status                    int
		body                      string
	}{
		{"on the router", "GET", "/ping", "b", 200, "client-b"},
		{"on the router, none", "GET", "/ping", "", 401, bodyA},
		{"on a subrouter", "GET", "/v1/sims/7", "a", 200, "7"},
		{"on a subrouter, without the scope", "GET", "/v1/sims/7", "b", 403, bodyScope},
		{"on a subrouter, none", "GET", "/v1/sims/7", "", 401, bodyA},
		{"on a route", "DELETE", "/b", "b", 200, "client-b"},
		{"on a route, without the scope", "DELETE", "/b", "a", 403, bodyScope},
		{"on a route, none", "DELETE", "/b", "", 401, bodyA},
		{"what matches no route is outside Use", "GET", "/nowhere", "", 404, "404 page not found\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			validator.validated = nil
			r := httptest.NewRequest(test.method, test.path, nil)
			if test.token != "" {
				r.Header.Set("Authorization", "Bearer "+test.token)
			}
			status, body := serve(router, r)
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.body, body)
			assert.LessOrEqual(t, len(validator.validated), 1, "verified once, under two guards")
		})
	}
}

func TestMiddleware_ServeMux(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	router := http.NewServeMux()
	router.Handle("GET /v1/ping", guard.Wrap(whoami))
	router.Handle("GET /v1/sims/{id}", guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("id")) })))
	router.Handle("/open/", http.StripPrefix("/open", guard.WrapOptional(whoami)))

	for _, test := range []struct {
		name, method, path, token string
		status                    int
		body                      string
	}{
		{"a guarded pattern", "GET", "/v1/ping", "b", 200, "client-b"},
		{"HEAD comes with GET", "HEAD", "/v1/ping", "", 401, ""},
		{"the handler has its wildcards", "GET", "/v1/sims/7", "a", 200, "7"},
		{"each pattern has its own requirements", "GET", "/v1/sims/7", "b", 403, bodyScope},
		{"a prefix", "GET", "/open/x", "", 200, "nobody"},
		{"another method is the mux's to refuse", "POST", "/v1/ping", "", 405, "Method Not Allowed\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.path, nil)
			if test.token != "" {
				r.Header.Set("Authorization", "Bearer "+test.token)
			}
			status, body := serve(router, r)
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.body, body)
		})
	}
}

func TestMiddleware_PanicsOnMisuse(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	withRealm := func(realm string) func() {
		return func() { koreauth.New(newTokenTable(), &koreauth.Options{Realm: realm}) }
	}
	runMisuse(t, []misuse{
		{"New without a validator", func() { koreauth.New(nil, nil) }},
		{"New with a nil *Validator", func() { koreauth.New((*koreauth.Validator)(nil), nil) }},
		{"New with a nil Source", func() {
			koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Query("t"), nil}})
		}},
		{"a realm with a line break", withRealm("a\r\nX-Evil: b")},
		{"a realm with a control character", withRealm("a\x00")},
		{"a realm with a tab", withRealm("a\tb")},
		{"a realm beyond ASCII", withRealm("Straße")},
		{"a realm of bad UTF-8", withRealm("\xff")},
		{"a realm with DEL", withRealm("\x7f")},
		{"Wrap(nil)", func() { guard.Wrap(nil) }},
		{"WrapOptional(nil)", func() { guard.WrapOptional(nil) }},
		{"Require(…)(nil)", func() { guard.Require(koreauth.Scope("a"))(nil) }},
		{"Wrap of a nil HandlerFunc, as ServeMux does", func() { guard.Wrap(http.HandlerFunc(nil)) }},
		{"Require()", func() { guard.Require() }},
		{"Require(nil)", func() { guard.Require(nil) }},
		{"Require with a nil among others", func() { guard.Require(koreauth.Scope("a"), nil) }},
		{"a Middleware that New did not make", func() { new(koreauth.Middleware).Wrap(whoami) }},
	})
}

// What New did not make cannot judge; it says so, and no request makes it
// panic.
func TestMiddleware_ZeroValue(t *testing.T) {
	var guard koreauth.Middleware
	_, err := guard.Authenticate(bearerRequest("a"))
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.NotPanics(t, func() {
		w := httptest.NewRecorder()
		guard.Refuse(w, bearerRequest("a"), err)
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	})
}

// What a caller changes after New or Require is his own.
func TestMiddleware_CopiesOptions(t *testing.T) {
	options := &koreauth.Options{Realm: "first", Sources: []koreauth.Source{koreauth.Query("t")}}
	guard := koreauth.New(newTokenTable(), options)
	options.Realm, options.Errors = "second", koreauth.ProblemErrors
	options.Sources[0] = koreauth.Query("other")
	_, err := guard.Authenticate(httptest.NewRequest(http.MethodGet, "/?t=a", nil))
	assert.NoError(t, err)
	w := httptest.NewRecorder()
	guard.Refuse(w, bearerRequest(""), koreauth.ErrNoToken)
	assert.Equal(t, `Bearer realm="first"`, w.Header().Get("WWW-Authenticate"))
	assert.Equal(t, bodyA, w.Body.String())

	requirements := []koreauth.Requirement{koreauth.Scope("scope-b")}
	scopes := []string{"scope-b"}
	handlers := []http.Handler{
		koreauth.New(newTokenTable(), nil).Require(requirements...)(whoami),
		koreauth.New(newTokenTable(), nil).Require(koreauth.Scope(scopes...))(whoami),
		koreauth.New(newTokenTable(), nil).Require(koreauth.AllOf(requirements...))(whoami),
	}
	requirements[0], scopes[0] = koreauth.Scope("scope-a"), "scope-a"
	for _, handler := range handlers {
		status, body := serve(handler, bearerRequest("a"))
		assert.Equal(t, http.StatusForbidden, status, body)
	}

	access := []koreauth.Access{koreauth.Read}
	grant := koreauth.Grant("R", access...)
	access[0] = koreauth.Write
	assert.Error(t, grant.Check(&koreauth.Claims{Resources: []koreauth.Resource{{Name: "R", Access: access}}}))
}

func TestMiddleware_QuotesRealm(t *testing.T) {
	for _, test := range []struct{ name, realm, want string }{
		{"none is api", "", `Bearer realm="api"`},
		{"spaces may be", "KORE API", `Bearer realm="KORE API"`},
		{"a quote is escaped", `a "b" c`, `Bearer realm="a \"b\" c"`},
		{"a backslash is escaped", `a\`, `Bearer realm="a\\"`},
		{"nothing can be added to the challenge", `x", error="`, `Bearer realm="x\", error=\""`},
		{"a comma stays", "a,b", `Bearer realm="a,b"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			koreauth.New(newTokenTable(), &koreauth.Options{Realm: test.realm}).Wrap(whoami).ServeHTTP(w, bearerRequest(""))
			assert.Equal(t, test.want, w.Header().Get("WWW-Authenticate"))
		})
	}
	t.Run("the challenge has the realm in every class that has one", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Realm: "r"})
		for _, err := range []error{koreauth.ErrNoToken, koreauth.ErrBadRequest, koreauth.ErrInvalidToken, koreauth.ErrInsufficientScope} {
			w := httptest.NewRecorder()
			guard.Refuse(w, bearerRequest(""), err)
			assert.True(t, strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Bearer realm="r"`), w.Header().Get("WWW-Authenticate"))
		}
	})
}

// RFC 6750 §2.3: what a token in the URL, a body or a cookie has opened is for
// no shared cache.
func TestMiddleware_CacheControlPrivate(t *testing.T) {
	sources := []koreauth.Source{koreauth.Header("Authorization"), koreauth.Query("t"), koreauth.Header("X-Token")}
	guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: sources})
	query := func() *http.Request { return httptest.NewRequest(http.MethodGet, "/?t=a", nil) }
	header := httptest.NewRequest(http.MethodGet, "/", nil)
	header.Header.Set("X-Token", "a")
	for _, test := range []struct {
		name   string
		guard  func(http.Handler) http.Handler
		r      *http.Request
		before []string
		want   []string
	}{
		{"a token in Authorization needs nothing", guard.Wrap, bearerRequest("a"), nil, nil},
		{"a token in the query", guard.Wrap, query(), nil, []string{"private"}},
		{"a token in a header of one's own", guard.Wrap, header, nil, []string{"private"}},
		{"under WrapOptional", guard.WrapOptional, query(), nil, []string{"private"}},
		{"under Require", guard.Require(koreauth.Scope("scope-a")), query(), nil, []string{"private"}},
		{"none, under WrapOptional", guard.WrapOptional, bearerRequest(""), nil, nil},
		{"in a guard in a guard", func(next http.Handler) http.Handler { return guard.Wrap(guard.Wrap(next)) }, query(), nil, []string{"private"}},
		{"what was public is not", guard.Wrap, query(), []string{"public, max-age=60"}, []string{"private"}},
		{"no-store is stronger, and stays", guard.Wrap, query(), []string{"no-store"}, []string{"no-store"}},
		{"directives have no case (RFC 9111 §5.2)", guard.Wrap, query(), []string{"No-Store"}, []string{"No-Store"}},
		{"no-store on a second line stays", guard.Wrap, query(), []string{"max-age=0", "no-store"}, []string{"max-age=0", "no-store"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if test.before != nil {
				w.Header()["Cache-Control"] = test.before
			}
			test.guard(whoami).ServeHTTP(w, test.r)
			assert.Equal(t, http.StatusOK, w.Code, w.Body)
			assert.Equal(t, test.want, w.Header()["Cache-Control"])
		})
	}
	t.Run("a refusal is stored nowhere", func(t *testing.T) {
		w := httptest.NewRecorder()
		guard.Wrap(whoami).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?t=forged", nil))
		assert.Equal(t, []string{"no-store"}, w.Header()["Cache-Control"])
	})
	t.Run("the default has no other place", func(t *testing.T) {
		status, _ := serve(koreauth.New(newTokenTable(), nil).Wrap(whoami), query())
		assert.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestMiddleware_LimitsTokenSize(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
	for size, want := range map[int]error{16 << 10: nil, 16<<10 + 1: koreauth.ErrMalformed} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+strings.Repeat("a", size))
		_, err := guard.Authenticate(r)
		assert.ErrorIs(t, err, want, "%d bytes", size)
	}
}

func TestMiddleware_CacheControlStaysStrict(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Query("t")}})
	for before, want := range map[string]string{
		"":                          "private",
		"no-cache, must-revalidate": "no-cache, must-revalidate, private",
		"max-age=0":                 "max-age=0, private",
		"public, max-age=60":        "private",
		"s-maxage=60":               "private",
		"No-Store":                  "No-Store",
		"private, max-age=60":       "private, max-age=60",
	} {
		w := httptest.NewRecorder()
		if before != "" {
			w.Header().Set("Cache-Control", before)
		}
		guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?t=a", nil))
		assert.Equal(t, want, w.Header().Get("Cache-Control"), "before: %q", before)
	}
}

func TestMiddleware_ContextPrintsNoToken(t *testing.T) {
	const token = "a-token-that-nobody-should-read"
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientOwner: "owner@example.com"}}, nil)
	printed := ""
	handler := guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		type key struct{}
		ctx := context.WithValue(r.Context(), key{}, 1)
		printed = fmt.Sprintf("%v %+v %#v %s %d %v", r.Context(), r.Context(), r.Context(), r.Context(), r.Context(), ctx)
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	handler.ServeHTTP(httptest.NewRecorder(), r)
	assert.NotEmpty(t, printed)
	assert.NotContains(t, printed, token)
	assert.NotContains(t, printed, "owner@")
}
