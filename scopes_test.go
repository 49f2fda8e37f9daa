package koreauth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

func TestRequirement_Check(t *testing.T) {
	const (
		scoped  = `{"scope":"sims:read sims:write email"}`
		granted = `{"scopes":{"globalResources":[
			{"resourceName":"API Clients","access":["Read","Write"]},
			{"resourceName":"SIMs","access":["Read"]},
			{"resourceName":"API Clients","access":["Delete"]}],
			"products":["SuperSIM",{"resourceName":"ProgrammableWireless","access":["Read"]}]}}`
	)
	custom := func(met bool) koreauth.RequirementFunc {
		return func(*http.Request, *koreauth.Claims) error {
			if met {
				return nil
			}
			return errors.New("no")
		}
	}
	for _, test := range []struct {
		name    string
		q       koreauth.Requirement
		payload string
		met     bool
	}{
		{"Scope: present", koreauth.Scope("sims:read"), scoped, true},
		{"Scope: all present, in any order", koreauth.Scope("email", "sims:write", "sims:read"), scoped, true},
		{"Scope: one of several missing", koreauth.Scope("sims:read", "sims:delete"), scoped, false},
		{"Scope: only a prefix of one that is present", koreauth.Scope("sims"), scoped, false},
		{"Scope: only a prefix of it is present", koreauth.Scope("sims:read:all"), scoped, false},
		{"Scope: case-sensitive", koreauth.Scope("Sims:Read"), scoped, false},
		{"Scope: no scopes", koreauth.Scope("a"), `{}`, false},
		{"Scope: an access is not a scope", koreauth.Scope("Read"), granted, false},
		{"AnyScope: one of several present", koreauth.AnyScope("x", "sims:read"), scoped, true},
		{"AnyScope: none of several present", koreauth.AnyScope("x", "y"), scoped, false},
		{"Grant: the access is granted", koreauth.Grant("API Clients", koreauth.Read), granted, true},
		{"Grant: every access is granted", koreauth.Grant("API Clients", koreauth.Read, koreauth.Write), granted, true},
		{"Grant: entries with the same name are combined", koreauth.Grant("API Clients", koreauth.Read, koreauth.Delete), granted, true},
		{"Grant: one access is not granted", koreauth.Grant("API Clients", koreauth.Read, koreauth.Modify), granted, false},
		{"Grant: another resource's access is not used", koreauth.Grant("SIMs", koreauth.Read, koreauth.Write), granted, false},
		{"Grant: the resource is case-sensitive", koreauth.Grant("api clients", koreauth.Read), granted, false},
		{"Grant: the access is case-sensitive", koreauth.Grant("API Clients", "read"), granted, false},
		{"Grant: a custom access", koreauth.Grant("X", "Fly"), `{"scopes":{"globalResources":[{"resourceName":"X","access":["Fly"]}]}}`, true},
		{"Grant: a star is no wildcard", koreauth.Grant("X", koreauth.Read), `{"scopes":{"globalResources":[{"resourceName":"X","access":["*"]}]}}`, false},
		{"Grant: a product is not a resource", koreauth.Grant("ProgrammableWireless", koreauth.Read), granted, false},
		{"Product: a plain string", koreauth.Product("SuperSIM"), granted, true},
		{"Product: an object's resourceName", koreauth.Product("ProgrammableWireless"), granted, true},
		{"Product: case-sensitive", koreauth.Product("supersim"), granted, false},
		{"Product: a resource is not a product", koreauth.Product("SIMs"), granted, false},
		{"AnyOf: the first", koreauth.AnyOf(koreauth.Product("SuperSIM"), koreauth.Scope("x")), granted, true},
		{"AnyOf: the last", koreauth.AnyOf(koreauth.Scope("x"), koreauth.Product("SuperSIM")), granted, true},
		{"AnyOf: neither", koreauth.AnyOf(koreauth.Scope("x"), koreauth.Product("y")), granted, false},
		{"AllOf: both", koreauth.AllOf(koreauth.Grant("SIMs", koreauth.Read), koreauth.Product("SuperSIM")), granted, true},
		{"AllOf: the second is not met", koreauth.AllOf(koreauth.Grant("SIMs", koreauth.Read), koreauth.Product("x")), granted, false},
		{"nested: AnyOf of two AllOf, each met in part",
			koreauth.AnyOf(koreauth.AllOf(koreauth.Product("SuperSIM"), koreauth.Scope("x")), koreauth.AllOf(koreauth.Scope("y"), koreauth.Product("SuperSIM"))), granted, false},
		{"nested: AllOf with an AnyOf", koreauth.AllOf(koreauth.AnyOf(koreauth.Scope("x"), koreauth.Product("SuperSIM")), koreauth.Grant("SIMs", koreauth.Read)), granted, true},
		{"custom: met", koreauth.AllOf(custom(true), koreauth.Product("SuperSIM")), granted, true},
		{"custom: not met", koreauth.AllOf(koreauth.Product("SuperSIM"), custom(false)), granted, false},
		{"custom: one of two met", koreauth.AnyOf(custom(false), custom(true)), granted, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims := parseClaims(t, test.payload)
			err := test.q.Check(nil, claims)
			assert.Equal(t, test.met, err == nil, "%v", err)
			if err != nil {
				assert.ErrorIs(t, err, koreauth.ErrInsufficientScope)
			}
			guard := koreauth.New(koretest.Validator{Claims: claims}, nil)
			status, _ := serve(guard.Require(test.q)(whoami), bearerRequest("a"))
			assert.Equal(t, map[bool]int{true: 200, false: 403}[test.met], status)
		})
	}
	t.Run("nil and empty claims meet no requirement", func(t *testing.T) {
		for _, q := range []koreauth.Requirement{
			koreauth.Scope("a"), koreauth.AnyScope("a"), koreauth.Grant("R", koreauth.Read), koreauth.Product("p"),
			koreauth.AnyOf(koreauth.Scope("a")), koreauth.AllOf(koreauth.Scope("a")),
		} {
			assert.ErrorIs(t, q.Check(nil, nil), koreauth.ErrInsufficientScope)
			assert.ErrorIs(t, q.Check(nil, &koreauth.Claims{}), koreauth.ErrInsufficientScope)
		}
	})
}

// A member of the wrong shape or name grants nothing, does not make the token
// invalid, and does not affect other members.
func TestRequirement_WrongShapesGrantNothing(t *testing.T) {
	every := koreauth.AnyOf(
		koreauth.Scope("s"), koreauth.Scope("a,s"), koreauth.Product("p"), koreauth.Grant("R", koreauth.Read), koreauth.Scope("true"), koreauth.Scope("1"),
	)
	for _, payload := range []string{
		`{}`,
		`{"scope":null}`, `{"scope":1}`, `{"scope":true}`, `{"scope":{"s":true}}`, `{"scope":[["s"]]}`, `{"scope":[{"scope":"s"}]}`, `{"scope":["s",1]}`,
		`{"scope":"s\tx"}`, `{"scope":"x\ns"}`, `{"scope":"x\u00a0s"}`, `{"scope":"s,x"}`, `{"scope":["x s"]}`, `{"scope":["s "]}`,
		`{"scope":null,"scp":"s"}`, `{"scope":"","scp":"s"}`, `{"scope":1,"scp":["s"]}`, `{"scp":["s"],"scope":{}}`, `{"scp":{"s":1}}`,
		`{"Scope":"s"}`, `{"SCOPE":"s"}`, `{"\u017fcope":"s"}`, `{"SCP":["s"]}`, `{"scope ":"s"}`, `{"x":{"scope":"s"}}`,
		`{"scopes":"s"}`, `{"scopes":["s","p"]}`, `{"scopes":null}`, `{"scopes":{"scope":"s"}}`,
		`{"scopes":[{"globalResources":[{"resourceName":"R","access":["Read"]}]}]}`,
		`{"scopes":{"GlobalResources":[{"resourceName":"R","access":["Read"]}]}}`,
		`{"scopes":{"globalresources":[{"resourceName":"R","access":["Read"]}]}}`,
		`{"Scopes":{"globalResources":[{"resourceName":"R","access":["Read"]}],"products":["p"]}}`,
		`{"globalResources":[{"resourceName":"R","access":["Read"]}],"products":["p"]}`,
		`{"scopes":{"globalResources":{"resourceName":"R","access":["Read"]}}}`,
		`{"scopes":{"globalResources":"R:Read"}}`, `{"scopes":{"globalResources":["R"]}}`, `{"scopes":{"globalResources":[["R","Read"]]}}`,
		`{"scopes":{"globalResources":[{"resourcename":"R","access":["Read"]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":["R"],"access":["Read"]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","Access":["Read"]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","access":"Read"}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","access":{"Read":true}}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","access":[["Read"]]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","access":["Read",1]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R","access":["READ","read","Read "]}]}}`,
		`{"scopes":{"globalResources":[{"resourceName":"R "},{"access":["Read"]}]}}`,
		`{"scopes":{"products":"p"}}`, `{"scopes":{"products":{"p":1}}}`, `{"scopes":{"Products":["p"]}}`, `{"scopes":{"products":[["p"],1,null]}}`,
		`{"scopes":{"products":[{"name":"p"},{"resourceName":1}]}}`,
	} {
		t.Run(payload, func(t *testing.T) {
			claims := parseClaims(t, payload)
			assert.ErrorIs(t, every.Check(nil, claims), koreauth.ErrInsufficientScope, "%v %v %v", claims.Scopes, claims.Products, claims.Resources)

			token, err := testIssuer().Mint(koretest.Token{Drop: []string{"scope", "scp", "scopes"}, Claims: parseObject(t, payload)})
			require.NoError(t, err)
			claims, err = newTestValidator(t).Validate(t.Context(), token)
			require.NoError(t, err, "the token is valid")
			assert.ErrorIs(t, every.Check(nil, claims), koreauth.ErrInsufficientScope)
		})
	}

	t.Run("valid entries beside invalid ones count", func(t *testing.T) {
		claims := parseClaims(t, `{"scope":1,"scopes":{"globalResources":[1,"x",{"resourceName":1},{"resourceName":"R","access":["Read"]},{"access":7}],
			"products":[7,"p",null]}}`)
		assert.NoError(t, koreauth.AllOf(koreauth.Grant("R", koreauth.Read), koreauth.Product("p")).Check(nil, claims))
	})
	t.Run("valid shapes", func(t *testing.T) {
		for _, payload := range []string{
			`{"scope":"s"}`, `{"scope":"  x   s "}`, `{"scope":["x","s"]}`, `{"scp":"x s"}`, `{"scp":["s"]}`, `{"scp":["no"],"scope":"s"}`, `{"scope":"s","scp":["no"]}`,
		} {
			assert.NoError(t, koreauth.Scope("s").Check(nil, parseClaims(t, payload)), payload)
		}
	})
}

// parseObject returns the members of a JSON object.
func parseObject(t *testing.T, payload string) map[string]any {
	t.Helper()
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(payload), &members))
	return members
}

// missing returns a custom requirement that is never met and requires names.
func missing(names ...string) koreauth.Requirement {
	return koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error {
		return &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: names}
	})
}

// The challenge lists every required name once, in order.
func TestRequirement_ListsRequiredNames(t *testing.T) {
	claims := &koreauth.Claims{Scopes: []string{"have"}}
	for _, test := range []struct {
		name string
		q    []koreauth.Requirement
		want []string
		text string
	}{
		{"one scope", []koreauth.Requirement{koreauth.Scope("a")}, []string{"a"}, "a"},
		{"every scope, even one that is present", []koreauth.Requirement{koreauth.Scope("b", "have", "a")}, []string{"b", "have", "a"}, "b have a"},
		{"any scope", []koreauth.Requirement{koreauth.AnyScope("b", "a")}, []string{"b", "a"}, "b a"},
		{"a grant", []koreauth.Requirement{koreauth.Grant("API Clients", koreauth.Read)}, []string{"API Clients:Read"}, "API%20Clients:Read"},
		{"a grant of several accesses", []koreauth.Requirement{koreauth.Grant("R", koreauth.Write, koreauth.Read)}, []string{"R:Write", "R:Read"}, "R:Write R:Read"},
		{"a product", []koreauth.Requirement{koreauth.Product("Super SIM")}, []string{"Super SIM"}, "Super%20SIM"},
		{"several requirements, the first not met", []koreauth.Requirement{koreauth.Scope("a"), koreauth.Product("p")}, []string{"a", "p"}, "a p"},
		{"several requirements, the last not met", []koreauth.Requirement{koreauth.Scope("have"), koreauth.Product("p")}, []string{"have", "p"}, "have p"},
		{"a name that is required twice", []koreauth.Requirement{koreauth.Scope("a", "b", "a"), koreauth.Scope("b", "c")}, []string{"a", "b", "c"}, "a b c"},
		{"nested requirements",
			[]koreauth.Requirement{koreauth.AllOf(koreauth.AnyOf(koreauth.Scope("a"), koreauth.Product("p")), koreauth.Scope("b")), koreauth.Scope("a", "z")},
			[]string{"a", "p", "b", "z"}, "a p b z"},
		{"an AnyOf that is not met", []koreauth.Requirement{koreauth.AnyOf(koreauth.AllOf(koreauth.Scope("have"), koreauth.Scope("a")), koreauth.Product("p"))},
			[]string{"have", "a", "p"}, "have a p"},
		{"names of a custom requirement", []koreauth.Requirement{missing("mine", "too")}, []string{"mine", "too"}, "mine too"},
		{"names of a custom requirement between others", []koreauth.Requirement{koreauth.Scope("have"), missing("mine"), koreauth.Scope("z")}, []string{"have", "mine", "z"}, "have mine z"},
		{"names of a custom requirement in an AnyOf", []koreauth.Requirement{koreauth.AnyOf(missing("mine"), koreauth.Scope("a"), missing("yours"))},
			[]string{"mine", "a", "yours"}, "mine a yours"},
		{"a custom requirement without names", []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return io.EOF })}, nil, ""},
		{"a custom requirement without names, and a scope", []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return io.EOF }), koreauth.Scope("z")},
			[]string{"z"}, "z"},
		{"characters that a header must not contain are escaped", []koreauth.Requirement{missing("a\"b\\c\r\nX: y", "é", "%", "a+b&c=d:e@f$g")},
			[]string{"a\"b\\c\r\nX: y", "é", "%", "a+b&c=d:e@f$g"}, "a%22b%5Cc%0D%0AX:%20y %C3%A9 %25 a+b&c=d:e@f$g"},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := koreauth.New(koretest.Validator{Claims: claims}, &koreauth.Options{Errors: koreauth.RFC6750Errors})
			w := httptest.NewRecorder()
			guard.Require(test.q...)(whoami).ServeHTTP(w, bearerRequest("a"))
			assert.Equal(t, http.StatusForbidden, w.Code)
			want := `Bearer realm="api", error="insufficient_scope"`
			if test.text != "" {
				want += `, scope="` + test.text + `"`
			}
			assert.Equal(t, want, w.Header().Get("WWW-Authenticate"))
			var body struct{ Scope string }
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			assert.Equal(t, test.text, body.Scope)

			err := koreauth.AllOf(test.q...).Check(nil, claims)
			var refusal *koreauth.Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, test.want, refusal.Required)
		})
	}
}

// The class of a custom requirement's error decides the response.
func TestRequirement_Custom(t *testing.T) {
	lookup := errors.New("look-up failed")
	for _, test := range []struct {
		name   string
		err    error
		class  error
		status int
	}{
		{"an error without a class is insufficient scope", lookup, koreauth.ErrInsufficientScope, 403},
		{"an Error without a class is insufficient scope", &koreauth.Error{Reason: lookup}, koreauth.ErrInsufficientScope, 403},
		{"a failed look-up is unavailable", fmt.Errorf("%w: %w", koreauth.ErrUnavailable, lookup), koreauth.ErrUnavailable, 503},
		{"an Error with the class unavailable", &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: lookup}, koreauth.ErrUnavailable, 503},
		{"a reason means an invalid token", fmt.Errorf("%w: %w", koreauth.ErrTooOld, lookup), koreauth.ErrInvalidToken, 403},
		{"a revoked token is invalid", fmt.Errorf("%w: %w", koreauth.ErrRevoked, lookup), koreauth.ErrInvalidToken, 403},
		{"a forbidden request", fmt.Errorf("%w: %w", koreauth.ErrForbidden, lookup), koreauth.ErrForbidden, 403},
		{"an Error with the class forbidden", &koreauth.Error{Class: koreauth.ErrForbidden, Reason: lookup}, koreauth.ErrForbidden, 403},
	} {
		fails := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return test.err })
		passes := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })
		for how, q := range map[string]koreauth.Requirement{
			"alone": fails, "in AllOf": koreauth.AllOf(koreauth.Scope("have"), fails), "in AnyOf": koreauth.AnyOf(koreauth.Scope("x"), fails),
			"in AnyOf, before one that is not met": koreauth.AnyOf(fails, koreauth.Scope("x")),
			"nested":                               koreauth.AllOf(koreauth.AnyOf(fails)),
		} {
			t.Run(test.name+", "+how, func(t *testing.T) {
				validator := koretest.Validator{Claims: &koreauth.Claims{Scopes: []string{"have"}}}
				var got error
				guard := koreauth.New(validator, &koreauth.Options{Errors: func(_ *http.Request, err error) (int, string, []byte) {
					got = err
					return koreauth.KOREErrors(nil, err)
				}})
				status, _ := serve(guard.Require(q)(whoami), bearerRequest("a"))
				assert.Equal(t, test.status, status)
				assert.ErrorIs(t, got, test.class)
				if how != "in AnyOf, before one that is not met" && errors.Is(test.err, lookup) {
					assert.True(t, errors.Is(got, lookup), "the cause is missing: %v", got)
				}
				var refusal *koreauth.Error
				require.ErrorAs(t, got, &refusal)
				assert.Equal(t, test.class, refusal.Class)
			})
		}
		t.Run(test.name+", with another in AnyOf that is met", func(t *testing.T) {
			assert.NoError(t, koreauth.AnyOf(fails, passes).Check(nil, &koreauth.Claims{}))
		})
	}

	t.Run("its RetryAfter is sent", func(t *testing.T) {
		guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
		w := httptest.NewRecorder()
		guard.Require(koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error {
			return &koreauth.Error{Class: koreauth.ErrUnavailable, RetryAfter: 7e9}
		}))(whoami).ServeHTTP(w, bearerRequest("a"))
		assert.Equal(t, "7", w.Header().Get("Retry-After"))
	})
	t.Run("it gets a copy of the claims, which all custom requirements share", func(t *testing.T) {
		want := fullClaims()
		changing := koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
			assert.Equal(t, want, c)
			mutate(c)
			want = c
			return io.EOF
		})
		claims := fullClaims()
		met := koreauth.AllOf(koreauth.Scope("s"), koreauth.Grant("API Clients", koreauth.Read))
		assert.NoError(t, koreauth.AllOf(koreauth.AnyOf(changing, met), koreauth.AnyOf(koreauth.AllOf(changing), koreauth.AnyOf(changing), met), met).Check(nil, claims))
		assert.Equal(t, fullClaims(), claims)
	})
	t.Run("it gets a copy even if it embeds a Requirement", func(t *testing.T) {
		q := struct{ koreauth.Requirement }{koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error { mutate(c); return nil })}
		claims := fullClaims()
		assert.NoError(t, koreauth.AllOf(q).Check(nil, claims))
		assert.Equal(t, fullClaims(), claims)
	})
	t.Run("its panic is not recovered", func(t *testing.T) {
		guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
		handler := guard.Require(koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { panic("mine") }))(whoami)
		assert.PanicsWithValue(t, "mine", func() { handler.ServeHTTP(httptest.NewRecorder(), bearerRequest("a")) })
	})
	t.Run("a requirement of a type that cannot be compared", func(t *testing.T) {
		assert.NotPanics(t, func() { koreauth.AllOf(listRequirement{"a"}, koreauth.Scope("b")) })
		assert.NoError(t, koreauth.AnyOf(listRequirement{"a"}).Check(nil, &koreauth.Claims{Scopes: []string{"a"}}))
	})
}

// listRequirement is a Requirement of a type that is not comparable.
type listRequirement []string

func (l listRequirement) Check(_ *http.Request, c *koreauth.Claims) error {
	if slices.Equal(l, c.Scopes) {
		return nil
	}
	return errors.New("no")
}

// A handler may call Check for a requirement that depends on the request.
func TestRequirement_CheckInHandler(t *testing.T) {
	guard := koreauth.New(newTokenTable(), nil)
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := koreauth.FromContext(r.Context())
		if err := koreauth.Scope("scope-"+r.URL.Query().Get("of")).Check(nil, claims); err != nil {
			guard.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, "yes")
	}))
	for target, want := range map[string]int{"/?of=a": 200, "/?of=b": 403} {
		status, _ := serve(handler, get(target, "Authorization", "Bearer a"))
		assert.Equal(t, want, status)
	}
}

func TestRequirement_AnyOfKeepsCauses(t *testing.T) {
	first, second := errors.New("the first cause"), errors.New("the second cause")
	says := func(err error) koreauth.Requirement {
		return koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return err })
	}
	err := koreauth.AnyOf(says(first), koreauth.Scope("a"), says(second)).Check(nil, &koreauth.Claims{})
	require.ErrorIs(t, err, koreauth.ErrInsufficientScope)
	require.ErrorIs(t, err, first)
	require.ErrorIs(t, err, second)
}

// A requirement that could not be checked may be met, so AnyOf is then unavailable,
// whatever the other requirements say.
func TestRequirement_AnyOfOutage(t *testing.T) {
	says := func(err error) koreauth.Requirement { return &probe{err: err} }
	outage := fmt.Errorf("%w: look-up failed", koreauth.ErrUnavailable)
	for _, other := range []error{io.EOF, koreauth.ErrForbidden, koreauth.ErrRevoked, koreauth.ErrInsufficientScope, koreauth.ErrBadRequest} {
		for _, order := range [][]koreauth.Requirement{{says(other), says(outage)}, {says(outage), says(other)}, {says(other), says(outage), says(other)}} {
			err := koreauth.AnyOf(order...).Check(nil, &koreauth.Claims{})
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, "beside %v", other)
			assert.NotErrorIs(t, err, other)
		}
		assert.NoError(t, koreauth.AnyOf(says(outage), says(other), says(nil)).Check(nil, &koreauth.Claims{}))
	}
	err := koreauth.AnyOf(says(io.EOF), says(koreauth.ErrForbidden), says(koreauth.ErrRevoked)).Check(nil, &koreauth.Claims{})
	assert.ErrorIs(t, err, koreauth.ErrForbidden, "without an outage, the first error of another class decides")
}

// AllOf stops at the first requirement that is not met, and AnyOf at the first
// that is.
func TestRequirement_StopsEarly(t *testing.T) {
	met, fails, last := &probe{}, &probe{err: io.EOF}, &probe{}
	require.Error(t, koreauth.AllOf(met, fails, last).Check(nil, &koreauth.Claims{}))
	require.NoError(t, koreauth.AnyOf(fails, met, last).Check(nil, &koreauth.Claims{}))
	assert.Equal(t, []int{2, 2, 0}, []int{met.calls(), fails.calls(), last.calls()})
}

// Every requirement gets the request that Check was called with, at any depth.
func TestRequirement_GetsRequest(t *testing.T) {
	r := bearerRequest("a")
	fails := &probe{err: io.EOF}
	met := &probe{}
	q := koreauth.AllOf(met, koreauth.AnyOf(fails, koreauth.AllOf(met, koreauth.AnyOf(koreauth.Scope("x"), met))))
	for _, given := range []*http.Request{r, nil} {
		fails.requests, met.requests = nil, nil
		require.NoError(t, q.Check(given, &koreauth.Claims{}))
		assert.Equal(t, []*http.Request{given}, fails.requests)
		assert.Equal(t, []*http.Request{given, given, given}, met.requests)
	}
	var got *http.Request
	f := koreauth.RequirementFunc(func(r *http.Request, _ *koreauth.Claims) error { got = r; return io.EOF })
	assert.Equal(t, io.EOF, f.Check(r, nil), "RequirementFunc.Check calls the function")
	assert.Same(t, r, got)
}

// Each result of a constructor is equal only to itself. It can be compared even if
// it contains functions, so it can be a Sender and the key of a map.
func TestRequirement_CanBeCompared(t *testing.T) {
	f := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })
	for name, q := range map[string]func() koreauth.Requirement{
		"AnyOf":    func() koreauth.Requirement { return koreauth.AnyOf(f, listRequirement{"a"}) },
		"AllOf":    func() koreauth.Requirement { return koreauth.AllOf(f, listRequirement{"a"}) },
		"Scope":    func() koreauth.Requirement { return koreauth.Scope("a") },
		"AnyScope": func() koreauth.Requirement { return koreauth.AnyScope("a") },
		"Grant":    func() koreauth.Requirement { return koreauth.Grant("R", koreauth.Read) },
		"Product":  func() koreauth.Requirement { return koreauth.Product("p") },
	} {
		one, other := q(), q()
		assert.Equal(t, reflect.Pointer, reflect.TypeOf(one).Kind(), name)
		assert.NotPanics(t, func() {
			same := one
			assert.True(t, one == same, name)
			assert.False(t, one == other, name)
			assert.Len(t, map[koreauth.Requirement]bool{one: true, other: true}, 2, name)
		})
	}
}

func TestRequirement_PanicsOnMisuse(t *testing.T) {
	runMisuse(t, []misuse{
		{"Scope()", func() { koreauth.Scope() }},
		{"an empty scope", func() { koreauth.Scope("a", "") }},
		{"a scope with a space", func() { koreauth.Scope("a b") }},
		{"a scope with a quote", func() { koreauth.Scope(`a"b`) }},
		{"a scope with a backslash", func() { koreauth.Scope(`a\b`) }},
		{"a scope with a control character", func() { koreauth.Scope("a\n") }},
		{"a scope with DEL", func() { koreauth.Scope("a\x7f") }},
		{"a scope with a letter outside ASCII", func() { koreauth.Scope("ä") }},
		{"AnyScope()", func() { koreauth.AnyScope() }},
		{"AnyScope with an empty scope", func() { koreauth.AnyScope("") }},
		{"Grant without a resource", func() { koreauth.Grant("", koreauth.Read) }},
		{"Grant without an access", func() { koreauth.Grant("API Clients") }},
		{"Grant with an empty access", func() { koreauth.Grant("API Clients", koreauth.Read, "") }},
		{"Product without a name", func() { koreauth.Product("") }},
		{"AnyOf()", func() { koreauth.AnyOf() }},
		{"AnyOf(nil)", func() { koreauth.AnyOf(nil) }},
		{"AllOf()", func() { koreauth.AllOf() }},
		{"AllOf with a nil among others", func() { koreauth.AllOf(koreauth.Product("a"), nil) }},
	})
}

// A nil function would panic on the first request.
func TestRequirement_NilFunction(t *testing.T) {
	none := koreauth.RequirementFunc(nil)
	runMisuse(t, []misuse{
		{"AnyOf", func() { koreauth.AnyOf(none) }},
		{"AllOf", func() { koreauth.AllOf(koreauth.Product("a"), none) }},
		{"Require", func() { koreauth.New(newTokenTable(), nil).Require(none) }},
		{"Options.Require", func() { koreauth.New(newTokenTable(), &koreauth.Options{Require: []koreauth.Requirement{none}}) }},
		{"Options.Sender", func() { koreauth.New(newTokenTable(), &koreauth.Options{Sender: none}) }},
	})
	_, err := koreauth.NewValidator(koreauth.Config{Require: []koreauth.Requirement{none}})
	assert.ErrorContains(t, err, "Config.Require has a nil Requirement")
}
