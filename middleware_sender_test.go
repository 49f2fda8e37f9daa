package koreauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// confirmations are values of cnf. A value without a want cannot be
// confirmed.
var confirmations = []struct {
	name  string
	value any
	want  koreauth.Confirmation
}{
	{"a certificate", map[string]any{"x5t#S256": "cert"}, koreauth.Confirmation{CertificateSHA256: "cert"}},
	{"a DPoP key", map[string]any{"jkt": "key"}, koreauth.Confirmation{KeySHA256: "key"}},
	{"both", map[string]any{"jkt": "key", "x5t#S256": "cert"}, koreauth.Confirmation{CertificateSHA256: "cert", KeySHA256: "key"}},

	{"null", nil, koreauth.Confirmation{}},
	{"an empty object", map[string]any{}, koreauth.Confirmation{}},
	{"a string", "cert", koreauth.Confirmation{}},
	{"an empty string", "", koreauth.Confirmation{}},
	{"a number", 7, koreauth.Confirmation{}},
	{"true", true, koreauth.Confirmation{}},
	{"false", false, koreauth.Confirmation{}},
	{"an empty array", []any{}, koreauth.Confirmation{}},
	{"an array with an object", []any{map[string]any{"jkt": "key"}}, koreauth.Confirmation{}},
	{"a member that is an empty string", map[string]any{"jkt": ""}, koreauth.Confirmation{}},
	{"a member that is null", map[string]any{"x5t#S256": nil}, koreauth.Confirmation{}},
	{"a member that is a number", map[string]any{"jkt": 7}, koreauth.Confirmation{}},
	{"a member that is an array", map[string]any{"jkt": []any{"key"}}, koreauth.Confirmation{}},
	{"a member that is an object", map[string]any{"x5t#S256": map[string]any{"x5t#S256": "cert"}}, koreauth.Confirmation{}},
	{"both, one an empty string", map[string]any{"jkt": "", "x5t#S256": "cert"}, koreauth.Confirmation{}},
	{"both, one null", map[string]any{"jkt": "key", "x5t#S256": nil}, koreauth.Confirmation{}},
	{"both, one a number", map[string]any{"jkt": 7, "x5t#S256": "cert"}, koreauth.Confirmation{}},
	{"an unknown member", map[string]any{"kid": "key"}, koreauth.Confirmation{}},
	{"an unknown member that is null", map[string]any{"jwk": nil}, koreauth.Confirmation{}},
	{"an unknown member after a known one", map[string]any{"jkt": "key", "jwk": map[string]any{}}, koreauth.Confirmation{}},
	{"an unknown member before a known one", map[string]any{"jku": "https://x.example", "x5t#S256": "cert"}, koreauth.Confirmation{}},
	{"a member in another case", map[string]any{"JKT": "key"}, koreauth.Confirmation{}},
	{"x5t#S256 in another case", map[string]any{"x5t#s256": "cert"}, koreauth.Confirmation{}},
}

// boundSituations returns the validators for a token with that cnf, and whether
// it is new or remembered. drop leaves the claim out.
func boundSituations(t *testing.T, value any, drop bool) map[string]func() (koreauth.TokenValidator, string) {
	t.Helper()
	recipe := koretest.Token{Claims: map[string]any{"cnf": value}}
	payload := map[string]any{"client_id": "kc_demo", "cnf": value}
	if drop {
		recipe.Claims = nil
		delete(payload, "cnf")
	}
	issued := func() (koreauth.TokenValidator, string) {
		issuer, v := newIssuer(t, "RS256", nil)
		return v, mintToken(t, issuer, recipe)
	}
	return map[string]func() (koreauth.TokenValidator, string){
		"new": issued,
		"remembered": func() (koreauth.TokenValidator, string) {
			v, token := issued()
			confirmed := koreauth.New(v, &koreauth.Options{Sender: new(probe)})
			_, _ = confirmed.Authenticate(bearerRequest(token))
			return v, token
		},
		"opaque": func() (koreauth.TokenValidator, string) {
			_, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Opaque = koretest.Validator{Claims: koretest.Claims(payload)} })
			return v, "opaque"
		},
		"of a custom TokenValidator": func() (koreauth.TokenValidator, string) {
			return koretest.Validator{Claims: koretest.Claims(payload)}, "any"
		},
	}
}

// A bound token is rejected with ErrBinding unless a Sender confirms it. A Sender
// is never checked for a binding that nothing can confirm.
func TestSender_BoundTokens(t *testing.T) {
	for _, row := range confirmations {
		for situation, setUp := range boundSituations(t, row.value, false) {
			t.Run(row.name+"/"+situation, func(t *testing.T) {
				v, token := setUp()
				if _, ok := v.(*koreauth.Validator); ok {
					_, err := v.Validate(t.Context(), token)
					assert.ErrorIs(t, err, koreauth.ErrBinding, "Validate cannot see the sender")
				}
				without, asked := koreauth.New(v, nil), new(probe)
				every := koreauth.New(v, &koreauth.Options{Require: []koreauth.Requirement{asked}})
				with := koreauth.New(v, &koreauth.Options{Sender: asked})
				for _, guard := range []*koreauth.Middleware{without, every} {
					_, err := guard.Authenticate(bearerRequest(token))
					assert.ErrorIs(t, err, koreauth.ErrBinding)
					for _, wrap := range []func(http.Handler) http.Handler{guard.Wrap, guard.WrapOptional, guard.Require(asked)} {
						status, body := serve(wrap(whoami), bearerRequest(token))
						assert.Equal(t, http.StatusForbidden, status)
						assert.Equal(t, bodyB, body)
					}
				}
				assert.Zero(t, asked.calls(), "a requirement does not confirm the sender")

				claims, err := with.Authenticate(bearerRequest(token))
				if row.want == (koreauth.Confirmation{}) {
					assert.ErrorIs(t, err, koreauth.ErrBinding)
					assert.ErrorContains(t, err, `"cnf" must have`)
					status, _ := serve(with.WrapOptional(whoami), bearerRequest(token))
					assert.Equal(t, http.StatusForbidden, status)
					assert.Zero(t, asked.calls(), "calls of Sender")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, &row.want, claims.Confirmation)
				require.Equal(t, 1, asked.calls(), "calls of Sender")
				assert.Equal(t, &row.want, asked.claims[0].Confirmation, "Sender gets both members")

				asked.err = errors.New("another certificate")
				_, err = with.Authenticate(bearerRequest(token))
				assert.ErrorIs(t, err, asked.err)
			})
		}
	}
}

func TestSender_UnboundTokens(t *testing.T) {
	for situation, setUp := range boundSituations(t, nil, true) {
		t.Run(situation, func(t *testing.T) {
			v, token := setUp()
			insists := &probe{err: koreauth.ErrBinding}
			for _, guard := range []*koreauth.Middleware{koreauth.New(v, nil), koreauth.New(v, &koreauth.Options{Sender: new(probe)})} {
				_, err := guard.Authenticate(bearerRequest(token))
				assert.NoError(t, err)
			}
			guard := koreauth.New(v, &koreauth.Options{Sender: insists})
			_, err := guard.Authenticate(bearerRequest(token))
			assert.ErrorIs(t, err, koreauth.ErrBinding, "a Sender can insist on a binding")
			assert.Nil(t, insists.claims[0].Confirmation)
		})
	}
}

// The same applies to the claims that a custom TokenValidator returns.
func TestSender_BindingOfCustomValidator(t *testing.T) {
	claims := &koreauth.Claims{ClientID: "c", Confirmation: &koreauth.Confirmation{}}
	validator := validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return claims, nil })
	asked := new(probe)
	without, with := koreauth.New(validator, nil), koreauth.New(validator, &koreauth.Options{Sender: asked})
	for _, guard := range []*koreauth.Middleware{without, with} {
		_, err := guard.Authenticate(bearerRequest("a"))
		assert.ErrorIs(t, err, koreauth.ErrBinding)
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, "c", refusal.ClientID)
	}
	assert.Zero(t, asked.calls())
	claims.Confirmation.KeySHA256 = "key"
	_, err := with.Authenticate(bearerRequest("a"))
	assert.NoError(t, err)
	_, err = without.Authenticate(bearerRequest("a"))
	assert.ErrorIs(t, err, koreauth.ErrBinding)
}

// valueSender is a Sender of a type whose values are equal if their fields are.
type valueSender struct {
	id    string
	asked *probe
}

func (s valueSender) Check(r *http.Request, c *koreauth.Claims) error { return s.asked.Check(r, c) }

// sliceSender is a Sender of a type that cannot be compared.
type sliceSender []*probe

func (s sliceSender) Check(r *http.Request, c *koreauth.Claims) error { return s[0].Check(r, c) }

// interfaceSender is a Sender of a type that can be compared, unless its field
// holds a value that cannot.
type interfaceSender struct{ inner any }

func (s interfaceSender) Check(r *http.Request, c *koreauth.Claims) error {
	return s.inner.(koreauth.Requirement).Check(r, c)
}

// TestSender_NestedGuards checks which guards check the Sender of a request whose
// token is bound. The count is of all Senders together.
func TestSender_NestedGuards(t *testing.T) {
	type middleware = func(http.Handler) http.Handler
	bound := &koreauth.Claims{ClientID: "bound", Confirmation: &koreauth.Confirmation{KeySHA256: "key"}}
	unbound := &koreauth.Claims{ClientID: "unbound"}
	for _, row := range []struct {
		name   string
		nested func(guard func(sender koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware
		status int
		calls  int
	}{
		{"the same Middleware", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			g := guard(asked)
			return []middleware{g.Wrap, g.WrapOptional, g.Require(new(probe)), g.Wrap}
		}, 200, 1},
		{"the same Middleware with a function", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			g := guard(koreauth.RequirementFunc(asked.Check))
			return []middleware{g.Wrap, g.Require(new(probe))}
		}, 200, 1},
		{"the same Sender, a pointer", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, guard(asked).WrapOptional, guard(asked).Require(new(probe))}
		}, 200, 1},
		{"equal Senders", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(valueSender{"a", asked}).Wrap, guard(valueSender{"a", asked}).Wrap}
		}, 200, 1},
		{"a value and a pointer to it", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(valueSender{"a", asked}).Wrap, guard(&valueSender{"a", asked}).Wrap}
		}, 200, 2},
		{"different values", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(valueSender{"a", asked}).Wrap, guard(valueSender{"b", asked}).Wrap}
		}, 200, 2},
		{"different pointers to equal values", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(&valueSender{"a", asked}).Wrap, guard(&valueSender{"a", asked}).Wrap}
		}, 200, 2},
		{"one function", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			f := koreauth.RequirementFunc(asked.Check)
			return []middleware{guard(f).Wrap, guard(f).Wrap}
		}, 200, 2},
		{"one value that cannot be compared", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			s := sliceSender{asked}
			return []middleware{guard(s).Wrap, guard(s).Wrap}
		}, 200, 2},
		{"one value with a function in a field", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			s := interfaceSender{koreauth.RequirementFunc(asked.Check)}
			return []middleware{guard(s).Wrap, guard(s).Wrap}
		}, 200, 2},
		{"one value with a pointer in a field", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(interfaceSender{asked}).Wrap, guard(interfaceSender{asked}).Wrap}
		}, 200, 1},
		{"one AnyOf, even of functions", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			s := koreauth.AnyOf(koreauth.RequirementFunc(asked.Check))
			return []middleware{guard(s).Wrap, guard(s).Wrap}
		}, 200, 1},
		{"one AllOf", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			s := koreauth.AllOf(koreauth.RequirementFunc(asked.Check))
			return []middleware{guard(s).Wrap, guard(s).Wrap}
		}, 200, 1},
		{"two AnyOf of the same requirement", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(koreauth.AnyOf(asked)).Wrap, guard(koreauth.AnyOf(asked)).Wrap}
		}, 200, 2},
		{"another Sender between two that are equal", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, guard(valueSender{"a", asked}).Wrap, guard(asked).Wrap}
		}, 200, 2},
		{"claims of NewContext between two guards", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, injectClaims, guard(asked).Wrap}
		}, 200, 1},
		{"claims of NewContext confirm nothing", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r.WithContext(koreauth.NewContext(r.Context(), bound)))
				})
			}, guard(asked).Wrap}
		}, 200, 1},
		{"another token", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, replaceToken("second"), guard(asked).Wrap}
		}, 200, 2},
		{"another token, with the same Middleware", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			g := guard(asked)
			return []middleware{g.Wrap, replaceToken("second"), g.Wrap, replaceToken("token"), g.Wrap}
		}, 200, 2},
		{"an inner guard without a Sender rejects", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, guard(nil).Wrap}
		}, 403, 1},
		{"an inner WrapOptional without a Sender rejects", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(asked).Wrap, guard(nil).WrapOptional}
		}, 403, 1},
		{"an outer guard without a Sender rejects", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{guard(nil).Wrap, guard(asked).Wrap}
		}, 403, 0},
		{"an outer WrapOptional of a request without a token confirms nothing", func(guard func(koreauth.Requirement) *koreauth.Middleware, asked *probe) []middleware {
			return []middleware{replaceToken(""), guard(asked).WrapOptional, replaceToken("token"), guard(asked).Wrap}
		}, 200, 1},
	} {
		for kind, claims := range map[string]*koreauth.Claims{"bound": bound, "unbound": unbound} {
			t.Run(row.name+"/"+kind, func(t *testing.T) {
				asked, order := new(probe), []string(nil)
				handled := false
				guard := func(sender koreauth.Requirement) *koreauth.Middleware {
					own := &probe{name: "Options.Require", order: &order}
					return koreauth.New(koretest.Validator{Tokens: map[string]*koreauth.Claims{"token": claims, "second": claims}},
						&koreauth.Options{Sender: sender, Require: []koreauth.Requirement{own}})
				}
				handler := chain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled = true }), row.nested(guard, asked)...)
				status, calls := row.status, row.calls
				if kind == "unbound" { // A guard without a Sender accepts it.
					status = http.StatusOK
					if row.name == "an outer guard without a Sender rejects" {
						calls = 1
					}
				}
				got, _ := serve(handler, bearerRequest("token"))
				assert.Equal(t, status, got)
				assert.Equal(t, status == http.StatusOK, handled)
				assert.Equal(t, calls, asked.calls(), "calls of Sender")
			})
		}
	}
}

// Two validators may disagree about the binding of a token. An inner guard uses
// the confirmation of an outer one only for the same keys.
func TestSender_NestedGuardsOfDifferentConfirmation(t *testing.T) {
	confirmation := func(certificate, key string) *koreauth.Confirmation {
		return &koreauth.Confirmation{CertificateSHA256: certificate, KeySHA256: key}
	}
	for _, row := range []struct {
		name         string
		outer, inner *koreauth.Confirmation
		calls        int
	}{
		{"equal", confirmation("cert", "key"), confirmation("cert", "key"), 1},
		{"both unbound", nil, nil, 1},
		{"the outer one unbound", nil, confirmation("", "key"), 2},
		{"the inner one unbound", confirmation("", "key"), nil, 2},
		{"another key", confirmation("", "key"), confirmation("", "other"), 2},
		{"another certificate", confirmation("cert", "key"), confirmation("other", "key"), 2},
		{"one member more", confirmation("cert", ""), confirmation("cert", "key"), 2},
		{"one member less", confirmation("cert", "key"), confirmation("cert", ""), 2},
		{"the other member", confirmation("x", ""), confirmation("", "x"), 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := new(probe)
			guard := func(c *koreauth.Confirmation) *koreauth.Middleware {
				return koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Confirmation: c}}, &koreauth.Options{Sender: asked})
			}
			status, _ := serve(guard(row.outer).Wrap(guard(row.inner).Wrap(whoami)), bearerRequest("a"))
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, row.calls, asked.calls(), "calls of Sender")
			assert.Equal(t, row.inner, asked.claims[row.calls-1].Confirmation)
		})
	}
}

// An inner guard does not use the confirmation of a guard that rejected the
// request for another reason, because such a request never reaches it.
func TestSender_RejectedRequestStops(t *testing.T) {
	asked := new(probe)
	validator := koretest.Validator{Claims: &koreauth.Claims{}}
	outer := koreauth.New(validator, &koreauth.Options{Sender: asked, Require: []koreauth.Requirement{&probe{err: koreauth.ErrForbidden}}})
	inner := koreauth.New(validator, &koreauth.Options{Sender: asked})
	status, body := serve(outer.Wrap(inner.Wrap(whoami)), bearerRequest("a"))
	assert.Equal(t, http.StatusForbidden, status)
	assert.Equal(t, bodyDenied, body)
	assert.Equal(t, 1, asked.calls())
}

// Authenticate in a handler does not check the Sender again, so that a proof which
// may be used only once is not used twice.
func TestSender_AuthenticateInGuard(t *testing.T) {
	asked, every := new(probe), new(probe)
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{Sender: asked, Require: []koreauth.Requirement{every}})
	status, _ := serve(guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := guard.Authenticate(r)
		assert.NoError(t, err)
	})), bearerRequest("a"))
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, 1, asked.calls())
	assert.Equal(t, 1, every.calls())
}

// The challenge lists what the error of a Sender requires.
func TestSender_Required(t *testing.T) {
	for _, class := range []error{nil, koreauth.ErrInsufficientScope} {
		sender := &probe{err: &koreauth.Error{Class: class, Required: []string{"a-certificate"}}}
		guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{Sender: sender})
		w := httptest.NewRecorder()
		guard.Wrap(whoami).ServeHTTP(w, bearerRequest("a"))
		assert.Equal(t, `Bearer realm="api", error="insufficient_scope", scope="a-certificate"`, w.Header().Get("WWW-Authenticate"), "class %v", class)
	}
}
