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
	"github.com/koreauth/koreauth/source"
)

func TestMiddleware_Guards(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	requireScope := func(scope string) func(http.Handler) http.Handler { return guard.Require(koreauth.Scope(scope)) }
	for _, test := range []struct {
		name   string
		guard  func(http.Handler) http.Handler
		token  string
		status int
		body   string
	}{
		{"Wrap accepts a valid token", guard.Wrap, "a", 200, "client-a"},
		{"Wrap rejects a request without a token", guard.Wrap, "", 401, bodyA},
		{"Wrap rejects an invalid token", guard.Wrap, "forged", 403, bodyB},
		{"WrapOptional accepts a valid token", guard.WrapOptional, "a", 200, "client-a"},
		{"WrapOptional accepts a request without a token", guard.WrapOptional, "", 200, "nobody"},
		{"WrapOptional rejects an invalid token", guard.WrapOptional, "forged", 403, bodyB},
		{"Require accepts a token that meets the requirement", requireScope("scope-a"), "a", 200, "client-a"},
		{"Require rejects a token that does not meet it", requireScope("scope-a"), "b", 403, bodyScope},
		{"Require rejects a request without a token", requireScope("scope-a"), "", 401, bodyA},
		{"Require rejects an invalid token", requireScope("scope-a"), "forged", 403, bodyB},
		{"all of several requirements must be met", guard.Require(koreauth.Scope("scope-a"), koreauth.Scope("scope-b")), "a", 403, bodyScope},
		{"several requirements are met", guard.Require(koreauth.Scope("scope-a"), koreauth.AnyScope("x", "scope-a")), "a", 200, "client-a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := serve(test.guard(whoami), bearerRequest(test.token))
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.body, body)
		})
	}

	t.Run("WrapOptional rejects a bad request", func(t *testing.T) {
		r := bearerRequest("a")
		r.Header.Add("Authorization", "Bearer a")
		status, body := serve(guard.WrapOptional(whoami), r)
		assert.Equal(t, 401, status)
		assert.Equal(t, bodyA, body)
	})
	t.Run("with a Validator", func(t *testing.T) {
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

// WrapOptional accepts a request without a token, but never one with an invalid
// token, even if the validator or the context reports ErrNoToken.
func TestMiddleware_OptionalRejectsInvalid(t *testing.T) {
	done, cancel := context.WithCancelCause(t.Context())
	cancel(koreauth.ErrNoToken)
	for _, test := range []struct {
		name      string
		validator koreauth.TokenValidator
		r         *http.Request
	}{
		{"the validator returns ErrNoToken", koretest.Validator{Err: koreauth.ErrNoToken}, bearerRequest("a")},
		{"the validator's error wraps ErrNoToken",
			koretest.Validator{Err: fmt.Errorf("introspection: %w: %w", koreauth.ErrUnavailable, koreauth.ErrNoToken)}, bearerRequest("a")},
		{"the context is canceled with ErrNoToken as cause", newTestValidator(t), bearerRequest(testIssuer().Expired()).WithContext(done)},
		{"the validator's error has no class", koretest.Validator{Err: io.EOF}, bearerRequest("a")},
		{"the validator returns neither claims nor an error", emptyValidator{}, bearerRequest("a")},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := serve(koreauth.New(test.validator, nil).WrapOptional(whoami), test.r)
			assert.NotEqual(t, http.StatusOK, status, "the handler responded %q", body)
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
		validated []string // by both Middlewares
	}{
		{"several guards verify the same token once",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, guard.WrapOptional, guard.Require(koreauth.Scope("scope-a")), guard.Wrap}
			}, "a", 200, "client-a", []string{"a"}},
		{"the requirements of an inner guard are checked",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"another token is verified",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("b"), guard.Wrap}
			},
			"a", 200, "client-b", []string{"a", "b"}},
		{"requirements are checked against the other token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Require(koreauth.Scope("scope-a")), replaceToken("b"), guard.Require(koreauth.Scope("scope-a"))}
			}, "a", 403, bodyScope, []string{"a", "b"}},
		{"another token that is invalid is rejected",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("forged"), guard.Wrap}
			}, "a", 403, bodyB, []string{"a", "forged"}},
		{"a request whose token was removed is rejected",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.Wrap}
			},
			"a", 401, bodyA, []string{"a"}},
		{"a token that is set again is not verified again",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken("b"), guard.Wrap, replaceToken("a"), guard.Wrap}
			}, "a", 200, "client-a", []string{"a", "b"}},
		{"another Middleware verifies the token itself",
			func(guard, other *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, other.Wrap} },
			"a", 200, "client-a", []string{"a", "a"}},
		{"a guard of another Middleware between two guards",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, other.Wrap, guard.Wrap}
			}, "a", 200, "client-a", []string{"a", "a"}},
		{"claims from another Middleware do not satisfy a guard",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{other.Wrap, replaceToken(""), guard.Wrap}
			},
			"a", 401, bodyA, []string{"a"}},
		{"claims from NewContext do not satisfy a guard",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{injectClaims, guard.Wrap} },
			"", 401, bodyA, nil},
		{"claims from NewContext do not meet a requirement",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{injectClaims, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"claims from NewContext between guards do not satisfy the inner guard",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, replaceToken(""), guard.Wrap}
			}, "a", 401, bodyA, []string{"a"}},
		{"claims from NewContext between guards do not meet a requirement",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, guard.Require(koreauth.Scope("scope-b"))}
			}, "a", 403, bodyScope, []string{"a"}},
		{"the claims of an inner guard replace those from NewContext",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, injectClaims, guard.Wrap}
			},
			"a", 200, "client-a", []string{"a"}},
		{"a handler gets the claims from NewContext if no guard is between",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, injectClaims} },
			"a", 200, "injected", []string{"a"}},
		{"Require inside WrapOptional rejects a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.WrapOptional, guard.Require(koreauth.Scope("scope-a"))}
			}, "", 401, bodyA, nil},
		{"Wrap inside WrapOptional rejects a request without a token",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.WrapOptional, guard.Wrap} },
			"", 401, bodyA, nil},
		{"WrapOptional inside Wrap has the claims",
			func(guard, _ *koreauth.Middleware) []middleware { return []middleware{guard.Wrap, guard.WrapOptional} },
			"a", 200, "client-a", []string{"a"}},
		{"WrapOptional hides an outer guard's claims if the token was removed",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.WrapOptional}
			}, "a", 200, "nobody", []string{"a"}},
		{"WrapOptional hides claims from another Middleware",
			func(guard, other *koreauth.Middleware) []middleware {
				return []middleware{other.Wrap, replaceToken(""), guard.WrapOptional}
			}, "a", 200, "nobody", []string{"a"}},
		{"WrapOptional hides claims from NewContext",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{injectClaims, guard.WrapOptional}
			},
			"", 200, "nobody", nil},
		{"an inner guard finds hidden claims again if the token is set again",
			func(guard, _ *koreauth.Middleware) []middleware {
				return []middleware{guard.Wrap, replaceToken(""), guard.WrapOptional, replaceToken("a"), guard.Wrap}
			}, "a", 200, "client-a", []string{"a"}},
		{"hidden claims do not meet a requirement",
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
			assert.Equal(t, test.validated, validator.validated, "validated tokens")
		})
	}

	t.Run("a token that cannot be verified is 503, with WrapOptional too", func(t *testing.T) {
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

// Changing claims must not affect other requests, handlers or requirements.
func TestMiddleware_ClaimsAreCopied(t *testing.T) {
	met := []koreauth.Requirement{
		koreauth.Scope("s", "t"), koreauth.Product("SuperSIM"), koreauth.Grant("API Clients", koreauth.Read, koreauth.Write),
	}

	t.Run("with a validator that returns the same pointer each time", func(t *testing.T) {
		validator := &tokenTable{claims: map[string]*koreauth.Claims{"a": fullClaims()}}
		guard := koreauth.New(validator, nil)
		calls := 0
		handler := chain(
			http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for range 2 { // Two calls return separate copies.
					claims, ok := koreauth.FromContext(r.Context())
					assert.True(t, ok)
					assert.Equal(t, fullClaims(), claims)
					mutate(claims)
					calls++
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
			guard.Require(koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error { mutate(c); return nil })),
			guard.Require(koreauth.AnyOf(koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error { mutate(c); return io.EOF }), koreauth.Scope("s"))),
			guard.Require(met...),
		)
		for range 2 {
			status, body := serve(handler, bearerRequest("a"))
			assert.Equal(t, http.StatusOK, status, body)
		}
		assert.Equal(t, 4, calls)

		claims, err := guard.Authenticate(bearerRequest("a"))
		require.NoError(t, err)
		mutate(claims)
		assert.Equal(t, fullClaims(), validator.claims["a"])
	})
	t.Run("with a Validator", func(t *testing.T) {
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
	t.Run("with NewContext and FromContext", func(t *testing.T) {
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
	assert.False(t, ok, "nil claims mean no claims")
	assert.Nil(t, claims)

	outer := koreauth.NewContext(t.Context(), &koreauth.Claims{ClientID: "outer"})
	claims, ok = koreauth.FromContext(koreauth.NewContext(outer, &koreauth.Claims{ClientID: "inner"}))
	assert.True(t, ok)
	assert.Equal(t, "inner", claims.ClientID)
	_, ok = koreauth.FromContext(koreauth.NewContext(outer, nil))
	assert.False(t, ok, "nil claims hide the claims of the outer context")
}

func TestMiddleware_AuthenticateAndRefuse(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := guard.Authenticate(r)
		assert.Equal(t, err == nil, claims != nil, "either claims or an error")
		if err == nil {
			err = koreauth.Scope("scope-a").Check(nil, claims)
		}
		if err != nil {
			guard.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, claims.ClientID)
	})
	wrapped := guard.Require(koreauth.Scope("scope-a"))(whoami)
	for _, token := range []string{"a", "b", "", "forged", "not a token"} {
		t.Run("same response as Require for token "+token, func(t *testing.T) {
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
		{"an error without a class is 503", koretest.Validator{Err: io.ErrUnexpectedEOF}, koreauth.ErrUnavailable, 503},
		{"neither claims nor an error is 503", emptyValidator{}, koreauth.ErrUnavailable, 503},
		{"a wrapped reason keeps its class", koretest.Validator{Err: fmt.Errorf("wrapped: %w", koreauth.ErrTooOld)}, koreauth.ErrTooOld, 403},
		{"claims returned with an error are ignored",
			koretest.Validator{Claims: &koreauth.Claims{}, Err: koreauth.ErrIssuer}, koreauth.ErrIssuer, 403},
		{"claims returned with an error without a class are ignored", bothValidator{}, koreauth.ErrUnavailable, 503},
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
	t.Run("the cause is in the error of Authenticate", func(t *testing.T) {
		_, err := koreauth.New(koretest.Validator{Err: io.ErrUnexpectedEOF}, nil).Authenticate(bearerRequest("a"))
		assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Contains(t, err.Error(), "unexpected EOF")
	})
	t.Run("the validator gets the request's context", func(t *testing.T) {
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

// revokingValidator rejects every token that its embedded Validator accepts.
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

// If the issuer is down, clients get 503, never 401 or 403.
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

	t.Run("a canceled request", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(io.ErrClosedPipe)
		_, err := koreauth.New(newTestValidator(t), nil).Authenticate(bearerRequest(testIssuer().Valid()).WithContext(ctx))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

func TestMiddleware_HandlerPanic(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	for _, value := range []any{http.ErrAbortHandler, errors.New("mine"), 42} {
		handler := guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(value) }))
		w := httptest.NewRecorder()
		assert.PanicsWithValue(t, value, func() { handler.ServeHTTP(w, bearerRequest("a")) })
		assert.Empty(t, w.Header(), "no header is written")
	}
}

func TestMiddleware_PassesWriterAndRequest(t *testing.T) {
	w, r := httptest.NewRecorder(), bearerRequest("a")
	koreauth.New(newTokenTable(), nil).Wrap(http.HandlerFunc(func(gotW http.ResponseWriter, gotR *http.Request) {
		assert.Same(t, w, gotW, "the handler gets the original ResponseWriter")
		assert.Equal(t, r.Header, gotR.Header)
		assert.Same(t, r.URL, gotR.URL)
	})).ServeHTTP(w, r)

	r = bearerRequest("")
	koreauth.New(newTokenTable(), nil).WrapOptional(http.HandlerFunc(func(_ http.ResponseWriter, gotR *http.Request) {
		assert.Same(t, r, gotR, "the request is passed on unchanged")
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
		{"on the router, without a token", "GET", "/ping", "", 401, bodyA},
		{"on a subrouter", "GET", "/v1/sims/7", "a", 200, "7"},
		{"on a subrouter, without the scope", "GET", "/v1/sims/7", "b", 403, bodyScope},
		{"on a subrouter, without a token", "GET", "/v1/sims/7", "", 401, bodyA},
		{"on a route", "DELETE", "/b", "b", 200, "client-b"},
		{"on a route, without the scope", "DELETE", "/b", "a", 403, bodyScope},
		{"on a route, without a token", "DELETE", "/b", "", 401, bodyA},
		{"a path without a route is not guarded", "GET", "/nowhere", "", 404, "404 page not found\n"},
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
			assert.LessOrEqual(t, len(validator.validated), 1, "number of verifications with two guards")
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
		{"HEAD is guarded like GET", "HEAD", "/v1/ping", "", 401, ""},
		{"the handler gets the path values", "GET", "/v1/sims/7", "a", 200, "7"},
		{"each pattern has its own requirements", "GET", "/v1/sims/7", "b", 403, bodyScope},
		{"a prefix", "GET", "/open/x", "", 200, "nobody"},
		{"another method is rejected by the mux", "POST", "/v1/ping", "", 405, "Method Not Allowed\n"},
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
			koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{source.Query("t"), nil}})
		}},
		{"a realm with a line break", withRealm("a\r\nX-Evil: b")},
		{"a realm with a control character", withRealm("a\x00")},
		{"a realm with a tab", withRealm("a\tb")},
		{"a realm with a letter outside ASCII", withRealm("Straße")},
		{"a realm that is not UTF-8", withRealm("\xff")},
		{"a realm with DEL", withRealm("\x7f")},
		{"Wrap(nil)", func() { guard.Wrap(nil) }},
		{"WrapOptional(nil)", func() { guard.WrapOptional(nil) }},
		{"Require(…)(nil)", func() { guard.Require(koreauth.Scope("a"))(nil) }},
		{"Wrap of a nil HandlerFunc, as ServeMux does", func() { guard.Wrap(http.HandlerFunc(nil)) }},
		{"Require()", func() { guard.Require() }},
		{"Require(nil)", func() { guard.Require(nil) }},
		{"Require with a nil among others", func() { guard.Require(koreauth.Scope("a"), nil) }},
		{"Wrap of the zero Middleware", func() { new(koreauth.Middleware).Wrap(whoami) }},
	})
}

// The zero Middleware rejects every request as unavailable and does not panic on
// a request.
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

// Changes to the arguments of New and Require after the call have no effect.
func TestMiddleware_CopiesOptions(t *testing.T) {
	options := &koreauth.Options{Realm: "first", Sources: []koreauth.Source{source.Query("t")}}
	guard := koreauth.New(newTokenTable(), options)
	options.Realm, options.Errors = "second", koreauth.ProblemErrors
	options.Sources[0] = source.Query("other")
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
	assert.Error(t, grant.Check(nil, &koreauth.Claims{Resources: []koreauth.Resource{{Name: "R", Access: access}}}))
}

func TestMiddleware_QuotesRealm(t *testing.T) {
	for _, test := range []struct{ name, realm, want string }{
		{"the default is api", "", `Bearer realm="api"`},
		{"spaces are kept", "KORE API", `Bearer realm="KORE API"`},
		{"a quote is escaped", `a "b" c`, `Bearer realm="a \"b\" c"`},
		{"a backslash is escaped", `a\`, `Bearer realm="a\\"`},
		{"a realm cannot add a parameter to the challenge", `x", error="`, `Bearer realm="x\", error=\""`},
		{"a comma is kept", "a,b", `Bearer realm="a,b"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			koreauth.New(newTokenTable(), &koreauth.Options{Realm: test.realm}).Wrap(whoami).ServeHTTP(w, bearerRequest(""))
			assert.Equal(t, test.want, w.Header().Get("WWW-Authenticate"))
		})
	}
	t.Run("the challenge of every class has the realm", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Realm: "r"})
		for _, err := range []error{koreauth.ErrNoToken, koreauth.ErrBadRequest, koreauth.ErrInvalidToken, koreauth.ErrInsufficientScope} {
			w := httptest.NewRecorder()
			guard.Refuse(w, bearerRequest(""), err)
			assert.True(t, strings.HasPrefix(w.Header().Get("WWW-Authenticate"), `Bearer realm="r"`), w.Header().Get("WWW-Authenticate"))
		}
	})
}

// A shared cache must not store the response to a token in a URL (RFC 6750
// §2.3), nor to one in a body or a cookie.
func TestMiddleware_CacheControlPrivate(t *testing.T) {
	sources := []koreauth.Source{koreauth.Header("Authorization"), source.Query("t"), koreauth.Header("X-Token")}
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
		{"a token in Authorization", guard.Wrap, bearerRequest("a"), nil, nil},
		{"a token in the query", guard.Wrap, query(), nil, []string{"private"}},
		{"a token in a custom header", guard.Wrap, header, nil, []string{"private"}},
		{"with WrapOptional", guard.WrapOptional, query(), nil, []string{"private"}},
		{"with Require", guard.Require(koreauth.Scope("scope-a")), query(), nil, []string{"private"}},
		{"no token, with WrapOptional", guard.WrapOptional, bearerRequest(""), nil, nil},
		{"with nested guards", func(next http.Handler) http.Handler { return guard.Wrap(guard.Wrap(next)) }, query(), nil, []string{"private"}},
		{"public is replaced", guard.Wrap, query(), []string{"public, max-age=60"}, []string{"private"}},
		{"no-store is kept", guard.Wrap, query(), []string{"no-store"}, []string{"no-store"}},
		{"directives are case-insensitive (RFC 9111 §5.2)", guard.Wrap, query(), []string{"No-Store"}, []string{"No-Store"}},
		{"no-store on a second line is kept", guard.Wrap, query(), []string{"max-age=0", "no-store"}, []string{"max-age=0", "no-store"}},
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
	t.Run("a rejected request gets no-store", func(t *testing.T) {
		w := httptest.NewRecorder()
		guard.Wrap(whoami).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?t=forged", nil))
		assert.Equal(t, []string{"no-store"}, w.Header()["Cache-Control"])
	})
	t.Run("by default the query is not read", func(t *testing.T) {
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
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{Sources: []koreauth.Source{source.Query("t")}})
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
		assert.Equal(t, want, w.Header().Get("Cache-Control"), "Cache-Control before: %q", before)
	}
}

func TestMiddleware_ContextPrintsNoToken(t *testing.T) {
	const token = "a-token-that-must-not-be-printed"
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

// A token that is not a b64token makes the request a bad one, unless it was not looked at.
func TestMiddleware_TokenThatIsNoToken68(t *testing.T) {
	own := validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return nil, koreauth.ErrSignature })
	_, v := newIssuer(t, "RS256", nil)
	for name, row := range map[string]struct {
		validator koreauth.TokenValidator
		status    int
	}{
		"a TokenValidator of a user": {own, http.StatusUnauthorized},
		"a Validator":                {v, http.StatusUnauthorized},
		"a zero Validator":           {new(koreauth.Validator), http.StatusServiceUnavailable},
	} {
		status, _ := serve(koreauth.New(row.validator, nil).Wrap(whoami), bearerRequest("a,b"))
		assert.Equal(t, row.status, status, name)
	}
}
