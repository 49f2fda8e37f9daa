package koreauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// probe is a Requirement that records its calls. As a pointer, it is equal only to
// itself.
type probe struct {
	name     string
	err      error     // what Check returns
	order    *[]string // the names of all probes that share it, in the order of their calls
	requests []*http.Request
	claims   []*koreauth.Claims
}

func (p *probe) Check(r *http.Request, c *koreauth.Claims) error {
	p.requests, p.claims = append(p.requests, r), append(p.claims, c)
	if p.order != nil {
		*p.order = append(*p.order, p.name)
	}
	return p.err
}

// calls returns how often p was checked.
func (p *probe) calls() int { return len(p.claims) }

// place is where a requirement is set.
type place int

const (
	inConfig place = iota
	asSender
	inOptions
	onRoute
)

var placeNames = [...]string{inConfig: "Config.Require", asSender: "Options.Sender", inOptions: "Options.Require", onRoute: "Middleware.Require"}

// placeProbes has a probe in each place.
type placeProbes struct {
	at    [4]*probe
	order []string
}

func newPlaceProbes() *placeProbes {
	p := new(placeProbes)
	for i := range p.at {
		p.at[i] = &probe{name: placeNames[i], order: &p.order}
	}
	return p
}

// reset clears the calls.
func (p *placeProbes) reset() {
	p.order = nil
	for _, probe := range p.at {
		probe.requests, probe.claims = nil, nil
	}
}

// tokenSituation is a validator, and a token that it accepts if the requirement
// in config does.
type tokenSituation struct {
	name      string
	first     place // the first place where the validator has a requirement
	validator func(t *testing.T, config koreauth.Requirement) (validator koreauth.TokenValidator, token string)
}

func tokenSituations() []tokenSituation {
	withRequirement := func(t *testing.T, q koreauth.Requirement) (*koretest.Issuer, *koreauth.Validator) {
		return newIssuer(t, "RS256", func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{q}
			c.Opaque = koretest.Validator{Tokens: map[string]*koreauth.Claims{"opaque": fullClaims()}}
		})
	}
	return []tokenSituation{
		{"a new token", inConfig, func(t *testing.T, q koreauth.Requirement) (koreauth.TokenValidator, string) {
			issuer, v := withRequirement(t, q)
			return v, issuer.Valid()
		}},
		{"a remembered token", inConfig, func(t *testing.T, q koreauth.Requirement) (koreauth.TokenValidator, string) {
			issuer, v := withRequirement(t, q)
			token := issuer.Valid()
			_, err := v.Validate(t.Context(), token)
			require.NoError(t, err)
			return v, token
		}},
		{"a new token of one of two issuers", inConfig, func(t *testing.T, q koreauth.Requirement) (koreauth.TokenValidator, string) {
			issuer := testIssuer()
			keys, err := koreauth.ParseKeys(issuer.JWKS())
			require.NoError(t, err)
			config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Keys: koreauth.StaticKeySet(keys)}
			other := config
			config.Require = []koreauth.Requirement{q}
			other.Issuer, other.Require = "https://other.example", []koreauth.Requirement{koreauth.RequirementFunc(
				func(*http.Request, *koreauth.Claims) error {
					return errors.New("a requirement of the other issuer was checked")
				})}
			v, err := koreauth.NewValidator(other, config)
			require.NoError(t, err)
			return v, issuer.Valid()
		}},
		{"an opaque token", inConfig, func(t *testing.T, q koreauth.Requirement) (koreauth.TokenValidator, string) {
			_, v := withRequirement(t, q)
			return v, "opaque"
		}},
		{"a token of a custom TokenValidator", asSender, func(*testing.T, koreauth.Requirement) (koreauth.TokenValidator, string) {
			return koretest.Validator{Claims: fullClaims()}, "any"
		}},
	}
}

// entrance is a way to have a token checked.
type entrance struct {
	name        string
	first, last place // the places whose requirements are checked
	check       func(v koreauth.TokenValidator, guard *koreauth.Middleware, route koreauth.Requirement, w http.ResponseWriter, r *http.Request, token string) error
}

var errNotServed = errors.New("the handler was not called")

func entrances() []entrance {
	// served reports whether the handler was called.
	served := func(wrap func(http.Handler) http.Handler, w http.ResponseWriter, r *http.Request) error {
		err := errNotServed
		wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { err = nil })).ServeHTTP(w, r)
		return err
	}
	type (
		writer  = http.ResponseWriter
		request = *http.Request
		guard   = *koreauth.Middleware
		rule    = koreauth.Requirement
	)
	return []entrance{
		{"Wrap", inConfig, inOptions, func(_ koreauth.TokenValidator, g guard, _ rule, w writer, r request, _ string) error {
			return served(g.Wrap, w, r)
		}},
		{"WrapOptional", inConfig, inOptions, func(_ koreauth.TokenValidator, g guard, _ rule, w writer, r request, _ string) error {
			return served(g.WrapOptional, w, r)
		}},
		{"Require", inConfig, onRoute, func(_ koreauth.TokenValidator, g guard, q rule, w writer, r request, _ string) error {
			return served(g.Require(q), w, r)
		}},
		{"Require in Wrap", inConfig, onRoute, func(_ koreauth.TokenValidator, g guard, q rule, w writer, r request, _ string) error {
			return served(func(next http.Handler) http.Handler { return g.Wrap(g.Require(q)(next)) }, w, r)
		}},
		{"Authenticate", inConfig, inOptions, func(_ koreauth.TokenValidator, g guard, _ rule, w writer, r request, _ string) error {
			_, err := g.Authenticate(r)
			if err != nil {
				g.Refuse(w, r, err)
			}
			return err
		}},
		{"Validate", inConfig, inConfig, func(v koreauth.TokenValidator, _ guard, _ rule, _ writer, _ request, token string) error {
			_, err := v.Validate(context.Background(), token)
			return err
		}},
	}
}

// TestRequirement_Places checks, for every way to check a token, which
// requirements are checked, in which order, with which request and claims, and
// what the error of each of them does.
func TestRequirement_Places(t *testing.T) {
	lookup := errors.New("the reason")
	failures := []struct {
		name   string
		err    error
		class  error
		status int
		body   string
	}{
		{"no class", lookup, koreauth.ErrInsufficientScope, 403, bodyScope},
		{"an Error of no class", &koreauth.Error{Reason: lookup}, koreauth.ErrInsufficientScope, 403, bodyScope},
		{"insufficient scope", fmt.Errorf("%w: %w", koreauth.ErrInsufficientScope, lookup), koreauth.ErrInsufficientScope, 403, bodyScope},
		{"revoked", fmt.Errorf("%w: %w", koreauth.ErrRevoked, lookup), koreauth.ErrInvalidToken, 403, bodyB},
		{"sender not confirmed", fmt.Errorf("%w: %w", koreauth.ErrBinding, lookup), koreauth.ErrInvalidToken, 403, bodyB},
		{"forbidden", fmt.Errorf("%w: %w", koreauth.ErrForbidden, lookup), koreauth.ErrForbidden, 403, bodyDenied},
		{"unavailable", fmt.Errorf("%w: %w", koreauth.ErrUnavailable, lookup), koreauth.ErrUnavailable, 503, bodyDown},
		{"bad request", fmt.Errorf("%w: %w", koreauth.ErrBadRequest, lookup), koreauth.ErrBadRequest, 401, bodyA},
	}
	for _, situation := range tokenSituations() {
		for _, entrance := range entrances() {
			var places []place
			for at := max(situation.first, entrance.first); at <= entrance.last; at++ {
				places = append(places, at)
			}
			// try sends a request and returns its error, the error that the
			// ErrorFormat got, and the response.
			try := func(t *testing.T, probes *placeProbes, v koreauth.TokenValidator, token string) (w *httptest.ResponseRecorder, r *http.Request, formatted, err error) {
				guard := koreauth.New(v, &koreauth.Options{
					Sender: probes.at[asSender], Require: []koreauth.Requirement{probes.at[inOptions]},
					Errors: func(r *http.Request, err error) (int, string, []byte) {
						formatted = err
						return koreauth.KOREErrors(r, err)
					},
				})
				w, r = httptest.NewRecorder(), bearerRequest(token)
				err = entrance.check(v, guard, probes.at[onRoute], w, r, token)
				return w, r, formatted, err
			}
			t.Run(situation.name+"/"+entrance.name, func(t *testing.T) {
				probes := newPlaceProbes()
				v, token := situation.validator(t, probes.at[inConfig])
				probes.reset()
				_, r, _, err := try(t, probes, v, token)
				require.NoError(t, err)
				var want []string
				for _, at := range places {
					want = append(want, placeNames[at])
				}
				require.Equal(t, want, probes.order)
				for _, at := range places {
					probe := probes.at[at]
					switch {
					case entrance.name == "Validate":
						assert.Nil(t, probe.requests[0], "there is no request")
					case entrance.name == "Require in Wrap" && at == onRoute:
						assert.Equal(t, r.URL, probe.requests[0].URL, "the request has another context")
					default:
						assert.Same(t, r, probe.requests[0], "%s gets the request", placeNames[at])
					}
					if at < onRoute {
						assert.Same(t, probes.at[places[0]].claims[0], probe.claims[0], "%s gets the shared claims", placeNames[at])
					} else {
						assert.NotSame(t, probes.at[inOptions].claims[0], probe.claims[0], "a route gets a copy of the claims")
					}
					assert.NotEmpty(t, probe.claims[0].ClientID)
				}

				for i, at := range places {
					for _, failure := range failures {
						name := placeNames[at] + " fails: " + failure.name
						probes := newPlaceProbes()
						v, token := situation.validator(t, probes.at[inConfig])
						probes.reset()
						probes.at[at].err = failure.err
						w, _, formatted, err := try(t, probes, v, token)
						require.Error(t, err, name)
						assert.Equal(t, want[:i+1], probes.order, "%s: the later requirements are not checked", name)
						if entrance.name == "Validate" {
							formatted = err
						} else {
							assert.Equal(t, failure.status, w.Code, name)
							assert.Equal(t, failure.body, w.Body.String(), name)
						}
						var refusal *koreauth.Error
						require.ErrorAs(t, formatted, &refusal, name)
						assert.Equal(t, failure.class, refusal.Class, name)
						assert.ErrorIs(t, formatted, lookup, name)
						assert.NotEmpty(t, refusal.ClientID, "%s: the rejection has the client", name)
					}
				}
			})
		}
	}
}

// No requirement is checked for a token that is not valid, nor for a request
// without a token.
func TestRequirement_OnlyForValidTokens(t *testing.T) {
	probes := newPlaceProbes()
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require, c.ClientIDs = []koreauth.Requirement{probes.at[inConfig]}, []string{"kc_demo"}
	})
	require.NoError(t, issuer.Register(koretest.Client{ID: "other"}))
	guard := koreauth.New(v, &koreauth.Options{Sender: probes.at[asSender], Require: []koreauth.Requirement{probes.at[inOptions]}})
	for name, token := range map[string]string{
		"no token": "", "malformed": "x", "forged": issuer.Forged(), "expired": issuer.Expired(),
		"a bad signature":            mintToken(t, issuer, koretest.Token{BadSignature: true}),
		"another audience":           mintToken(t, issuer, koretest.Token{Claims: map[string]any{"aud": "other"}}),
		"an ID token":                mintToken(t, issuer, koretest.Token{Claims: map[string]any{"typ": "ID"}}),
		"not yet valid":              mintToken(t, issuer, koretest.Token{Claims: map[string]any{"nbf": 9e9}}),
		"another client":             mintToken(t, issuer, koretest.Token{ClientID: "other"}),
		"an unknown kind of binding": mintToken(t, issuer, koretest.Token{Confirmation: &koreauth.Confirmation{}}),
	} {
		for _, wrap := range []func(http.Handler) http.Handler{guard.Wrap, guard.WrapOptional, guard.Require(probes.at[onRoute])} {
			serve(wrap(whoami), bearerRequest(token))
		}
		_, _ = guard.Authenticate(bearerRequest(token))
		_, _ = v.Validate(t.Context(), token)
		assert.Empty(t, probes.order, name)
	}
	status, body := serve(guard.WrapOptional(whoami), bearerRequest(""))
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "nobody", body)
	assert.Empty(t, probes.order)
}

// Every requirement may panic, which the server reports. The next request is not
// affected.
func TestRequirement_PanicsPassThrough(t *testing.T) {
	for _, situation := range tokenSituations() {
		for _, at := range []place{inConfig, asSender, inOptions, onRoute} {
			if at < situation.first {
				continue
			}
			t.Run(situation.name+"/"+placeNames[at], func(t *testing.T) {
				panics := false
				probes := newPlaceProbes()
				requirements := [4]koreauth.Requirement{probes.at[0], probes.at[1], probes.at[2], probes.at[3]}
				requirements[at] = koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error {
					if panics {
						panic("mine")
					}
					return nil
				})
				v, token := situation.validator(t, requirements[inConfig])
				guard := koreauth.New(v, &koreauth.Options{Sender: requirements[asSender], Require: requirements[inOptions : inOptions+1]})
				handler := guard.Require(requirements[onRoute])(whoami)
				panics = true
				w := httptest.NewRecorder()
				assert.PanicsWithValue(t, "mine", func() { handler.ServeHTTP(w, bearerRequest(token)) })
				assert.Empty(t, w.Header())
				panics = false
				status, _ := serve(handler, bearerRequest(token))
				assert.Equal(t, http.StatusOK, status)
			})
		}
	}
}

// Requirements and the observer are called by many requests at once.
func TestRequirement_ConcurrentUse(t *testing.T) {
	var calls [4]atomic.Int64
	var observed atomic.Int64
	count := func(at place) koreauth.Requirement {
		return koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
			calls[at].Add(1)
			if at == onRoute {
				mutate(c) // Its copy is its own.
				return nil
			}
			return koreauth.AllOf(koreauth.Scope("email"), koreauth.Product("SuperSIM")).Check(nil, c)
		})
	}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = []koreauth.Requirement{count(inConfig)} })
	guard := koreauth.New(v, &koreauth.Options{
		Sender: count(asSender), Require: []koreauth.Requirement{count(inOptions)},
		Observe: func(_ *http.Request, o koreauth.Outcome) {
			observed.Add(1)
			assert.Equal(t, "kc_demo", o.Claims.ClientID)
		},
	})
	handler := guard.Wrap(guard.Require(count(onRoute), count(onRoute))(whoami))
	token := issuer.Valid()
	const goroutines, requests = 8, 50
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range requests {
				status, body := serve(handler, bearerRequest(token))
				assert.Equal(t, http.StatusOK, status, body)
			}
		})
	}
	wg.Wait()
	const all = goroutines * requests
	assert.Equal(t, []int64{all, all, all, 2 * all}, []int64{calls[0].Load(), calls[1].Load(), calls[2].Load(), calls[3].Load()})
	assert.Equal(t, int64(2*all), observed.Load())
}
