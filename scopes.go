package koreauth

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// Requirement is a condition that a valid token must meet, such as a scope or a
// grant. Set it for every token in [Config].Require, for every request in
// [Options].Require, for the sender in [Options].Sender, or for a route with
// [Middleware.Require]; or call Check in a handler.
//
// You can implement Requirement yourself. Check returns nil if the token and the
// request meet the condition. An error of one of the classes keeps its class: use
// [ErrRevoked] for a revoked token, [ErrForbidden] if another token would not help,
// and [ErrUnavailable] if a look-up failed. Any other error counts as
// [ErrInsufficientScope]. To tell the client what it lacks, return an [*Error] with
// Required.
type Requirement interface {
	// Check must not change r or c, and must not read the body of r. r is nil if
	// there is no HTTP request, as in [Validator.Validate]. Under a guard c is
	// never nil. Check must be safe for concurrent use by multiple goroutines, and
	// must return when the context of r is done.
	Check(r *http.Request, c *Claims) error
}

// RequirementFunc is a function that implements [Requirement], as
// [http.HandlerFunc] implements [http.Handler].
type RequirementFunc func(r *http.Request, c *Claims) error

// Check calls f.
func (f RequirementFunc) Check(r *http.Request, c *Claims) error { return f(r, c) }

// Scope requires all of the scopes (RFC 6749 §3.3), such as "sims:read", in
// [Claims].Scopes. It panics if there is no scope, or if a scope cannot occur in a
// token: it is empty or has a space, a quote or a backslash.
func Scope(scopes ...string) Requirement {
	scopes = validScopes("Scope", scopes)
	return &claimRule{scopes, func(c *Claims) bool {
		return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(c.Scopes, s) })
	}}
}

// AnyScope requires at least one of the scopes. It panics as [Scope] does.
func AnyScope(scopes ...string) Requirement {
	scopes = validScopes("AnyScope", scopes)
	return &claimRule{scopes, func(c *Claims) bool {
		return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(c.Scopes, s) })
	}}
}

// Grant requires all of the permissions on a KORE resource, such as
// Grant("API Clients", Read), in [Claims].Resources. The name is compared exactly,
// and several entries of that name count together. Grant panics if the resource is
// empty, if there is no permission, or if one is empty.
func Grant(resource string, access ...Access) Requirement {
	if resource == "" || len(access) == 0 || slices.Contains(access, "") {
		panic("koreauth: Grant needs a resource and at least one permission, none of them empty")
	}
	access = slices.Clone(access)
	names := make([]string, len(access))
	for i, a := range access {
		names[i] = resource + ":" + string(a)
	}
	return &claimRule{names, func(c *Claims) bool {
		return !slices.ContainsFunc(access, func(a Access) bool {
			return !slices.ContainsFunc(c.Resources, func(r Resource) bool {
				return r.Name == resource && slices.Contains(r.Access, a)
			})
		})
	}}
}

// Product requires a KORE product, such as "SuperSIM", in [Claims].Products. The
// name is compared exactly. Product panics if it is empty.
func Product(name string) Requirement {
	if name == "" {
		panic("koreauth: Product needs a name")
	}
	return &claimRule{[]string{name}, func(c *Claims) bool { return slices.Contains(c.Products, name) }}
}

// AnyOf requires at least one of the requirements. It returns a pointer, so that
// the result can be compared. It panics if there is no requirement, or if one is
// nil.
func AnyOf(requirements ...Requirement) Requirement {
	return &anyOf{group{nonNil("AnyOf", requirements)}}
}

// AllOf requires all of the requirements, in order. It returns a pointer, so that
// the result can be compared. It panics if there is no requirement, or if one is
// nil.
func AllOf(requirements ...Requirement) Requirement {
	return &allOf{group{nonNil("AllOf", requirements)}}
}

func validScopes(function string, scopes []string) []string {
	if len(scopes) == 0 {
		panic("koreauth: " + function + " needs at least one scope")
	}
	for _, s := range scopes {
		// RFC 6749 §3.3: 1*( %x21 / %x23-5B / %x5D-7E ).
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c < '!' || c > '~' || c == '"' || c == '\\' }) {
			panic("koreauth: " + function + ": a scope must be printable ASCII without space, quote and backslash (RFC 6749 §3.3)")
		}
	}
	return slices.Clone(scopes)
}

func nonNil(function string, requirements []Requirement) []Requirement {
	if len(requirements) == 0 {
		panic("koreauth: " + function + " needs at least one requirement")
	}
	if slices.ContainsFunc(requirements, isNil) {
		panic("koreauth: " + function + ": a requirement is nil")
	}
	return slices.Clone(requirements)
}

// isNil reports whether q is nil or a nil function, which would panic on a request.
func isNil(q Requirement) bool {
	f, ok := q.(RequirementFunc)
	return q == nil || ok && f == nil
}

// builtin is a requirement of this package.
type builtin interface {
	// names lists what the requirement requires.
	names() []string
	// check is Check, where own is the copy of the claims for custom requirements.
	check(r *http.Request, c, own *Claims) error
	// custom reports whether the requirement contains a custom one.
	custom() bool
}

// checkOne checks a requirement. A custom one gets own instead of c.
func checkOne(q Requirement, r *http.Request, c, own *Claims) error {
	if b, ok := q.(builtin); ok {
		return b.check(r, c, own)
	}
	return q.Check(r, own)
}

// claimRule is a requirement that depends on the claims alone.
type claimRule struct {
	required []string
	met      func(*Claims) bool
}

func (q *claimRule) names() []string { return q.required }

func (q *claimRule) custom() bool { return false }

func (q *claimRule) Check(_ *http.Request, c *Claims) error {
	if c != nil && q.met(c) {
		return nil
	}
	return insufficient(nil, q.required)
}

func (q *claimRule) check(r *http.Request, c, _ *Claims) error { return q.Check(r, c) }

// group is what AllOf and AnyOf have in common.
type group struct{ requirements []Requirement }

func (g group) names() []string { return namesOf(g.requirements, -1, nil) }

func (g group) custom() bool {
	return slices.ContainsFunc(g.requirements, func(q Requirement) bool {
		b, ok := q.(builtin)
		return !ok || b.custom()
	})
}

// own returns a copy of the claims if there is a custom requirement, so that one
// that changes them affects nothing else.
func (g group) own(c *Claims) *Claims {
	if g.custom() {
		return c.clone()
	}
	return c
}

type allOf struct{ group }

func (all *allOf) Check(r *http.Request, c *Claims) error { return all.check(r, c, all.own(c)) }

func (all *allOf) check(r *http.Request, c, own *Claims) error {
	for i, q := range all.requirements {
		if err := checkOne(q, r, c, own); err != nil {
			return insufficient(err, namesOf(all.requirements, i, err))
		}
	}
	return nil
}

type anyOf struct{ group }

func (some *anyOf) Check(r *http.Request, c *Claims) error { return some.check(r, c, some.own(c)) }

func (some *anyOf) check(r *http.Request, c, own *Claims) error {
	var names []string
	var causes []error
	var other error // of a class other than ErrInsufficientScope
	for i, q := range some.requirements {
		err := checkOne(q, r, c, own)
		if err == nil {
			return nil
		}
		if class := classOf(err); class == ErrUnavailable || other == nil && class != nil && class != ErrInsufficientScope {
			other = err // ErrUnavailable takes precedence: this requirement may be met.
		}
		names = append(names, namesOf(some.requirements[i:i+1], 0, err)...)
		causes = append(causes, err)
	}
	if other != nil {
		return other
	}
	return &Error{Class: ErrInsufficientScope, Reason: errors.Join(causesOf(causes)...), Required: unique(names)}
}

// namesOf lists what the requirements require, in order. The names of the one that
// failed come from its error, because a custom requirement has no names method.
func namesOf(requirements []Requirement, failed int, err error) []string {
	var names []string
	for i, q := range requirements {
		if refusal, _ := errors.AsType[*Error](err); i == failed && refusal != nil && len(refusal.Required) > 0 {
			names = append(names, refusal.Required...)
		} else if b, ok := q.(builtin); ok {
			names = append(names, b.names()...)
		}
	}
	return names
}

// insufficient returns the error for a requirement that was not met. An error of
// another class is returned unchanged.
func insufficient(err error, names []string) error {
	if class := classOf(err); class != nil && class != ErrInsufficientScope {
		return err
	}
	return &Error{Class: ErrInsufficientScope, Reason: errors.Join(causesOf([]error{err})...), Required: unique(names)}
}

// causesOf returns the causes in the errors of requirements, without the required
// names.
func causesOf(failed []error) []error {
	var causes []error
	for _, err := range failed {
		if refusal, _ := errors.AsType[*Error](err); refusal != nil {
			err = refusal.Reason
		}
		if err != nil {
			causes = append(causes, err)
		}
	}
	return causes
}

// unique returns the names without repetitions, in order.
func unique(names []string) []string {
	var all []string
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
