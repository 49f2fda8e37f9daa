package koreauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// observed is what a test compares of an Outcome.
type observed struct {
	client     string // "" means that Claims is nil
	class      error  // nil means that Refusal is nil
	remembered bool
}

// observer returns an Observe function, and the outcomes that it got.
func observer(t *testing.T) (observe func(*http.Request, koreauth.Outcome), outcomes *[]observed) {
	outcomes = new([]observed)
	return func(r *http.Request, o koreauth.Outcome) {
		got := observed{remembered: o.Remembered}
		if o.Claims != nil {
			got.client = o.Claims.ClientID
		}
		if o.Refusal != nil {
			got.class = o.Refusal.Class
		}
		*outcomes = append(*outcomes, got)
		assert.NotNil(t, r)
		assert.False(t, o.Start.IsZero())
		assert.GreaterOrEqual(t, o.Took, time.Duration(0))
		assert.False(t, o.Claims != nil && o.Refusal != nil, "claims of a rejected request")
	}, outcomes
}

func TestObserve_Outcomes(t *testing.T) {
	type guard = *koreauth.Middleware
	type middleware = func(http.Handler) http.Handler
	wrap := func(g, _ guard) []middleware { return []middleware{g.Wrap} }
	optional := func(g, _ guard) []middleware { return []middleware{g.WrapOptional} }
	fails := func(err error) koreauth.Requirement { return &probe{err: err} }
	require := func(q koreauth.Requirement) func(g, other guard) []middleware {
		return func(g, _ guard) []middleware { return []middleware{g.Require(q)} }
	}
	issuer := testIssuer()
	valid, unbound := issuer.Valid(), koreauth.Options{}
	bound := mintToken(t, issuer, koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "key"}})
	accepted := observed{client: "kc_demo"}
	again := observed{client: "kc_demo", remembered: true}
	rejected := func(class error) []observed { return []observed{{class: class}} }
	for _, row := range []struct {
		name    string
		options koreauth.Options // of both Middlewares
		warm    bool             // the token is remembered
		token   string
		nested  func(g, other guard) []middleware
		want    []observed
	}{
		{"Wrap, a new token", unbound, false, valid, wrap, []observed{accepted}},
		{"Wrap, a remembered token", unbound, true, valid, wrap, []observed{again}},
		{"WrapOptional, a new token", unbound, false, valid, optional, []observed{accepted}},
		{"WrapOptional, a remembered token", unbound, true, valid, optional, []observed{again}},
		{"WrapOptional, no token", unbound, false, "", optional, []observed{{}}},
		{"Require, a new token", unbound, false, valid, require(koreauth.Scope("email")), []observed{accepted}},
		{"Require, a remembered token", unbound, true, valid, require(koreauth.Scope("email")), []observed{again}},
		{"a bound token that Sender confirms", koreauth.Options{Sender: fails(nil)}, false, bound, wrap, []observed{accepted}},
		{"a bound token that is remembered", koreauth.Options{Sender: fails(nil)}, true, bound, wrap, []observed{again}},

		{"no token", unbound, false, "", wrap, rejected(koreauth.ErrNoToken)},
		{"no token, with Require", unbound, false, "", require(koreauth.Scope("email")), rejected(koreauth.ErrNoToken)},
		{"a bad request", unbound, false, "two tokens", wrap, rejected(koreauth.ErrBadRequest)},
		{"a bad request, with WrapOptional", unbound, false, "two tokens", optional, rejected(koreauth.ErrBadRequest)},
		{"an invalid token", unbound, false, issuer.Expired(), wrap, rejected(koreauth.ErrInvalidToken)},
		{"an invalid token, with WrapOptional", unbound, false, issuer.Forged(), optional, rejected(koreauth.ErrInvalidToken)},
		{"a bound token without a Sender", unbound, false, bound, wrap, rejected(koreauth.ErrInvalidToken)},
		{"a remembered token that Sender rejects", koreauth.Options{Sender: fails(koreauth.ErrBinding)}, true, valid, wrap, rejected(koreauth.ErrInvalidToken)},
		{"a remembered token that Options.Require rejects", koreauth.Options{Require: []koreauth.Requirement{fails(koreauth.ErrForbidden)}}, true, valid, wrap,
			rejected(koreauth.ErrForbidden)},
		{"insufficient scope, a new token", unbound, false, valid, require(koreauth.Scope("none")), rejected(koreauth.ErrInsufficientScope)},
		{"insufficient scope, a remembered token", unbound, true, valid, require(koreauth.Scope("none")), rejected(koreauth.ErrInsufficientScope)},
		{"forbidden on the route", unbound, true, valid, require(fails(koreauth.ErrForbidden)), rejected(koreauth.ErrForbidden)},
		{"unavailable", unbound, true, valid, require(fails(koreauth.ErrUnavailable)), rejected(koreauth.ErrUnavailable)},

		{"nested guards", unbound, false, valid, func(g, _ guard) []middleware {
			return []middleware{g.Wrap, g.WrapOptional, g.Require(koreauth.Scope("email"))}
		}, []observed{accepted, again, again}},
		{"a nested guard whose requirement is not met", unbound, false, valid, func(g, _ guard) []middleware {
			return []middleware{g.Wrap, g.Require(koreauth.Scope("none"))}
		}, []observed{accepted, {class: koreauth.ErrInsufficientScope}}},
		{"a nested guard without a token", unbound, false, "", func(g, _ guard) []middleware {
			return []middleware{g.WrapOptional, g.Wrap}
		}, []observed{{}, {class: koreauth.ErrNoToken}}},
		{"an outer guard that rejects", unbound, false, "", func(g, _ guard) []middleware {
			return []middleware{g.Wrap, g.Wrap}
		}, rejected(koreauth.ErrNoToken)},
		{"two Middlewares, of which the inner one finds the token in memory", unbound, false, valid, func(g, other guard) []middleware {
			return []middleware{g.Wrap, other.Wrap}
		}, []observed{accepted, again}},
		{"another token inside", unbound, false, valid, func(g, _ guard) []middleware {
			return []middleware{g.Wrap, replaceToken(issuer.Valid()), g.Wrap, replaceToken(valid), g.Wrap}
		}, []observed{accepted, accepted, again}},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := newTestValidator(t)
			if row.warm {
				_, err := koreauth.New(v, &koreauth.Options{Sender: fails(nil)}).Authenticate(bearerRequest(row.token))
				assert.NoError(t, err)
			}
			observe, outcomes := observer(t)
			options := row.options
			options.Observe = observe
			guard, other := koreauth.New(v, &options), koreauth.New(v, &options)
			r := bearerRequest(row.token)
			if row.token == "two tokens" {
				r = get("/", "Authorization", "Bearer a", "Authorization", "Bearer b")
			}
			serve(chain(whoami, row.nested(guard, other)...), r)
			assert.Equal(t, row.want, *outcomes)
		})
	}

	t.Run("a custom TokenValidator remembers nothing, but an outer guard does", func(t *testing.T) {
		observe, outcomes := observer(t)
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Observe: observe})
		for range 2 {
			serve(guard.Wrap(guard.Wrap(whoami)), bearerRequest("a"))
		}
		first, second := observed{client: "client-a"}, observed{client: "client-a", remembered: true}
		assert.Equal(t, []observed{first, second, first, second}, *outcomes)
	})
	t.Run("each Middleware has its own observer", func(t *testing.T) {
		outerObserve, outer := observer(t)
		innerObserve, inner := observer(t)
		table := newTokenTable()
		handler := koreauth.New(table, &koreauth.Options{Observe: outerObserve}).Wrap(koreauth.New(table, &koreauth.Options{Observe: innerObserve}).Wrap(whoami))
		serve(handler, bearerRequest("a"))
		assert.Equal(t, []observed{{client: "client-a"}}, *outer)
		assert.Equal(t, []observed{{client: "client-a"}}, *inner)
	})
	t.Run("not by Authenticate, Refuse and the Validator", func(t *testing.T) {
		observe, outcomes := observer(t)
		v := newTestValidator(t)
		guard := koreauth.New(v, &koreauth.Options{Observe: observe})
		_, _ = guard.Authenticate(bearerRequest(valid))
		_, err := guard.Authenticate(bearerRequest("x"))
		guard.Refuse(httptest.NewRecorder(), bearerRequest("x"), err)
		_, _ = v.Validate(t.Context(), valid)
		assert.Empty(t, *outcomes)
	})
}

// headerLog is a ResponseWriter that logs when the response is written.
type headerLog struct {
	*httptest.ResponseRecorder
	log *[]string
}

func (w headerLog) WriteHeader(status int) {
	*w.log = append(*w.log, http.StatusText(status))
	w.ResponseRecorder.WriteHeader(status)
}

// Observe is called after the decision, and before the handler or the response.
func TestObserve_Order(t *testing.T) {
	var log []string
	add := func(name string) koreauth.Requirement { return &probe{name: name, order: &log} }
	guard := koreauth.New(newTokenTable(), &koreauth.Options{
		Sender: add("Sender"), Require: []koreauth.Requirement{add("Options.Require")},
		Observe: func(*http.Request, koreauth.Outcome) { log = append(log, "Observe") },
		Errors: func(r *http.Request, err error) (int, string, []byte) {
			log = append(log, "Errors")
			return koreauth.KOREErrors(r, err)
		},
	})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { log = append(log, "handler") })
	route := guard.Require(add("route"), koreauth.Scope("scope-a"))(handler)
	for token, want := range map[string][]string{
		"a": {"Sender", "Options.Require", "route", "Observe", "handler"},
		"b": {"Sender", "Options.Require", "route", "Observe", "Errors", "Forbidden"},
		"":  {"Observe", "Errors", "Unauthorized"},
	} {
		log = nil
		route.ServeHTTP(headerLog{httptest.NewRecorder(), &log}, bearerRequest(token))
		assert.Equal(t, want, log)
	}
}

// Observe gets the request of the guard, and the rejection that the ErrorFormat
// gets.
func TestObserve_GetsRequestAndRefusal(t *testing.T) {
	var seen *http.Request
	var refusal *koreauth.Error
	var formatted error
	guard := koreauth.New(koretest.Validator{Claims: fullClaims()}, &koreauth.Options{
		Observe: func(r *http.Request, o koreauth.Outcome) { seen, refusal = r, o.Refusal },
		Errors: func(_ *http.Request, err error) (int, string, []byte) {
			formatted = err
			return 403, "text/plain", nil
		},
	})
	r := bearerRequest("a")
	serve(guard.Require(koreauth.Scope("none"))(whoami), r)
	assert.Same(t, r, seen)
	require.NotNil(t, refusal)
	assert.Same(t, formatted, refusal)
	assert.Equal(t, []string{"none"}, refusal.Required)
	assert.Equal(t, "c", refusal.ClientID, "a rejection names the client of a verified token")

	cause := errors.New("the cause")
	guard = koreauth.New(koretest.Validator{Err: cause}, &koreauth.Options{
		Observe: func(_ *http.Request, o koreauth.Outcome) { refusal = o.Refusal },
	})
	serve(guard.Wrap(whoami), bearerRequest("a"))
	assert.ErrorIs(t, refusal, cause)
	assert.ErrorIs(t, refusal, koreauth.ErrUnavailable)
}

// Took includes everything that the guard waits for, and not the handler.
func TestObserve_Times(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(d time.Duration, err error) koreauth.Requirement {
			return koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { time.Sleep(d); return err })
		}
		validator := validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
			time.Sleep(time.Second)
			return &koreauth.Claims{}, nil
		})
		var outcomes []koreauth.Outcome
		guard := koreauth.New(validator, &koreauth.Options{
			Sender: slow(10*time.Second, nil), Require: []koreauth.Requirement{slow(100*time.Second, nil)},
			Observe: func(_ *http.Request, o koreauth.Outcome) { outcomes = append(outcomes, o); time.Sleep(time.Hour) },
		})
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) })
		for _, row := range []struct {
			name   string
			nested http.Handler
			token  string
			took   []time.Duration
			start  []time.Duration // since the request
		}{
			{"accepted", guard.Wrap(handler), "a", []time.Duration{111 * time.Second}, []time.Duration{0}},
			{"no token", guard.Wrap(handler), "", []time.Duration{0}, []time.Duration{0}},
			{"no token, with WrapOptional", guard.WrapOptional(handler), "", []time.Duration{0}, []time.Duration{0}},
			{"a requirement of the route", guard.Require(slow(1000*time.Second, nil))(handler), "a", []time.Duration{1111 * time.Second}, []time.Duration{0}},
			{"rejected on the route", guard.Require(slow(1000*time.Second, errors.New("no")))(handler), "a", []time.Duration{1111 * time.Second}, []time.Duration{0}},
			{"nested", guard.Wrap(guard.Require(slow(5*time.Second, nil))(handler)), "a",
				[]time.Duration{111 * time.Second, 5 * time.Second}, []time.Duration{0, 111*time.Second + time.Hour}},
		} {
			outcomes = nil
			start := time.Now()
			serve(row.nested, bearerRequest(row.token))
			require.Len(t, outcomes, len(row.took), row.name)
			for i, outcome := range outcomes {
				assert.Equal(t, row.took[i], outcome.Took, row.name)
				assert.Equal(t, row.start[i], outcome.Start.Sub(start), row.name)
			}
		}
	})
}

func TestObserve_SharesClaims(t *testing.T) {
	claims := fullClaims()
	validator := validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return claims, nil })
	var got *koreauth.Claims
	guard := koreauth.New(validator, &koreauth.Options{Observe: func(_ *http.Request, o koreauth.Outcome) { got = o.Claims }})
	serve(guard.Wrap(whoami), bearerRequest("a"))
	assert.Same(t, claims, got)
}

func TestObserve_PanicsPassThrough(t *testing.T) {
	guard := koreauth.New(newTokenTable(), &koreauth.Options{Observe: func(*http.Request, koreauth.Outcome) { panic("mine") }})
	for _, token := range []string{"a", ""} {
		assert.PanicsWithValue(t, "mine", func() { serve(guard.Wrap(whoami), bearerRequest(token)) })
	}
}
