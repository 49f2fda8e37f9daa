package koreauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestOptions_RequireNestedGuards(t *testing.T) {
	type middleware = func(http.Handler) http.Handler
	type guard = *koreauth.Middleware
	for _, row := range []struct {
		name    string
		nested  func(a, b guard) []middleware // two Middlewares that share one requirement
		a, b    int                           // calls of their own requirements
		between int                           // calls of the one that they share
	}{
		{"one guard", func(a, _ guard) []middleware { return []middleware{a.Wrap} }, 1, 0, 1},
		{"three guards of one Middleware", func(a, _ guard) []middleware {
			return []middleware{a.Wrap, a.WrapOptional, a.Require(new(probe))}
		}, 1, 0, 1},
		{"guards of two Middlewares", func(a, b guard) []middleware { return []middleware{a.Wrap, b.Wrap} }, 1, 1, 2},
		{"guards of two Middlewares, in turn", func(a, b guard) []middleware {
			return []middleware{a.Wrap, b.Wrap, a.Wrap, b.Require(new(probe))}
		}, 1, 1, 2},
		{"another token", func(a, _ guard) []middleware {
			return []middleware{a.Wrap, replaceToken("b"), a.Wrap}
		}, 2, 0, 2},
		{"another token, and the first again", func(a, _ guard) []middleware {
			return []middleware{a.Wrap, replaceToken("b"), a.Wrap, replaceToken("a"), a.Wrap}
		}, 2, 0, 2},
		{"no token in WrapOptional", func(a, _ guard) []middleware {
			return []middleware{replaceToken(""), a.WrapOptional}
		}, 0, 0, 0},
		{"no token outside, a token inside", func(a, _ guard) []middleware {
			return []middleware{replaceToken(""), a.WrapOptional, replaceToken("a"), a.Wrap}
		}, 1, 0, 1},
		{"claims of NewContext", func(a, _ guard) []middleware {
			return []middleware{injectClaims, a.Wrap, injectClaims, a.Wrap}
		}, 1, 0, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			ownA, ownB, both := new(probe), new(probe), new(probe)
			validator := newTokenTable()
			a := koreauth.New(validator, &koreauth.Options{Require: []koreauth.Requirement{ownA, both}})
			b := koreauth.New(validator, &koreauth.Options{Require: []koreauth.Requirement{ownB, both}})
			status, body := serve(chain(whoami, row.nested(a, b)...), bearerRequest("a"))
			assert.Equal(t, http.StatusOK, status, body)
			assert.Equal(t, []int{row.a, row.b, row.between}, []int{ownA.calls(), ownB.calls(), both.calls()})
		})
	}

	t.Run("the requirement of an inner Middleware can reject", func(t *testing.T) {
		validator := newTokenTable()
		outer := koreauth.New(validator, nil)
		inner := koreauth.New(validator, &koreauth.Options{Require: []koreauth.Requirement{&probe{err: koreauth.ErrForbidden}}})
		status, body := serve(outer.Wrap(inner.WrapOptional(whoami)), bearerRequest("a"))
		assert.Equal(t, http.StatusForbidden, status)
		assert.Equal(t, bodyDenied, body)
	})
	t.Run("each request is checked", func(t *testing.T) {
		every := new(probe)
		handler := koreauth.New(newTokenTable(), &koreauth.Options{Require: []koreauth.Requirement{every}}).Wrap(whoami)
		for range 3 {
			serve(handler, bearerRequest("a"))
		}
		assert.Equal(t, 3, every.calls())
	})
}

func TestOptions_RequireListsNames(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{
		Require: []koreauth.Requirement{koreauth.Scope("a"), koreauth.Product("p")},
	})
	w := httptest.NewRecorder()
	guard.Require(koreauth.Scope("route"))(whoami).ServeHTTP(w, bearerRequest("a"))
	assert.Equal(t, `Bearer realm="api", error="insufficient_scope", scope="a p"`, w.Header().Get("WWW-Authenticate"))
}

func TestOptions_RequireIsCopied(t *testing.T) {
	rules := []koreauth.Requirement{koreauth.Scope("scope-b")}
	guard := koreauth.New(newTokenTable(), &koreauth.Options{Require: rules})
	rules[0] = koreauth.Scope("scope-a")
	_, err := guard.Authenticate(bearerRequest("a"))
	assert.ErrorIs(t, err, koreauth.ErrInsufficientScope)
	runMisuse(t, []misuse{{"New with a nil Requirement", func() {
		koreauth.New(newTokenTable(), &koreauth.Options{Require: []koreauth.Requirement{koreauth.Scope("a"), nil}})
	}}})
}

// handlerAllocs returns the allocations of one request.
func handlerAllocs(handler http.Handler, token string) float64 {
	r, w := bearerRequest(token), httptest.NewRecorder()
	return testing.AllocsPerRun(200, func() { handler.ServeHTTP(w, r) })
}

// custom returns a custom requirement that every token meets.
func custom() koreauth.Requirement {
	return koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })
}

// TestOptions_RequireAllocations counts the allocations of requirements for a
// remembered token. Those of Config and Options need none. The custom requirements
// of a route need one copy of the claims, however many there are.
func TestOptions_RequireAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	issuer, plain := newIssuer(t, "RS256", nil)
	token := issuer.Valid()
	_, strict := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{custom(), koreauth.AnyOf(koreauth.AllOf(custom()))}
	})
	config := func(issuerURL string) koreauth.Config {
		return koreauth.Config{Issuer: issuerURL, Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient(),
			Require: []koreauth.Requirement{custom(), custom()}}
	}
	two, err := koreauth.NewValidator(config("https://other.example"), config(issuer.URL()))
	require.NoError(t, err)
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	copying := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { koreauth.FromContext(r.Context()) })
	options := &koreauth.Options{
		Sender:  koreauth.AllOf(custom(), custom()),
		Require: []koreauth.Requirement{custom(), koreauth.AnyOf(koreauth.AllOf(custom()))},
	}
	observed := *options
	observed.Observe = func(*http.Request, koreauth.Outcome) {}

	const base = 2 // the request and its context
	guard := koreauth.New(plain, nil)
	oneCopy := handlerAllocs(guard.Wrap(copying), token) - base
	require.Greater(t, oneCopy, 0.0)
	for _, row := range []struct {
		name    string
		handler http.Handler
		want    float64
	}{
		{"one issuer", guard.Wrap(handler), base},
		{"one issuer, with requirements in Config", koreauth.New(strict, nil).Wrap(handler), base},
		{"one issuer, with requirements in Config and Options", koreauth.New(strict, options).Wrap(handler), base},
		{"two issuers, with requirements in Config and Options", koreauth.New(two, options).Wrap(handler), base},
		{"an observer", koreauth.New(plain, &koreauth.Options{Observe: observed.Observe}).Wrap(handler), base},
		{"two issuers, with requirements and an observer", koreauth.New(two, &observed).Wrap(handler), base},
		{"WrapOptional", koreauth.New(two, &observed).WrapOptional(handler), base},
		{"requirements of the package on the route", guard.Require(
			koreauth.Scope("email"), koreauth.AnyOf(koreauth.AllOf(koreauth.Product("SuperSIM")), koreauth.Grant("API Clients", koreauth.Read)))(handler), base},
		{"two guards of one Middleware", guard.Wrap(guard.Require(koreauth.Scope("email"))(handler)), base},

		{"one custom requirement on the route", guard.Require(custom())(handler), base + oneCopy},
		{"two custom requirements", guard.Require(custom(), custom())(handler), base + oneCopy},
		{"two custom requirements in an AllOf", guard.Require(koreauth.AllOf(custom(), custom()))(handler), base + oneCopy},
		{"five custom requirements, nested", guard.Require(
			custom(), koreauth.AnyOf(custom()), koreauth.AllOf(custom(), koreauth.AnyOf(koreauth.AllOf(custom(), custom()))))(handler), base + oneCopy},
		{"one custom requirement beside others", guard.Require(koreauth.Scope("email"), custom(), koreauth.Product("SuperSIM"))(handler), base + oneCopy},
		{"custom requirements everywhere", koreauth.New(two, &observed).Require(custom(), custom())(handler), base + oneCopy},
	} {
		for range 3 { // A token is remembered by then, and so is its header.
			row.handler.ServeHTTP(httptest.NewRecorder(), bearerRequest(token))
		}
		assert.Equal(t, row.want, handlerAllocs(row.handler, token), row.name)
	}
}

// A custom requirement of a route gets one copy of the claims for all of them,
// and what it changes affects nothing else.
func TestMiddleware_RequireCopiesOnce(t *testing.T) {
	first, second, third := new(probe), &probe{err: errors.New("no")}, new(probe)
	every := new(probe)
	guard := koreauth.New(koretest.Validator{Claims: fullClaims()}, &koreauth.Options{Require: []koreauth.Requirement{every}})
	handler := guard.Require(first, koreauth.AnyOf(second, koreauth.AllOf(third)))(whoami)
	status, _ := serve(handler, bearerRequest("a"))
	assert.Equal(t, http.StatusOK, status)
	assert.Same(t, first.claims[0], second.claims[0])
	assert.Same(t, first.claims[0], third.claims[0])
	assert.NotSame(t, every.claims[0], first.claims[0])
}
