package koreauth

import (
	"errors"
	"slices"
	"strings"
)

// Requirement is what a request needs of a token beyond its being good. Give
// them to [Middleware.Require], or call Check in a handler.
//
// Users may implement it. Check returns nil if the claims meet it. An error of
// one of the classes is answered as that class, such as [ErrUnavailable] where
// a look-up did not work; any other error as [ErrInsufficientScope]. The names
// that the client needs are those of an [*Error]'s Required. Under a guard the
// claims are never nil. Check is called by many requests at once.
type Requirement interface {
	Check(*Claims) error
}

// Access is what a KORE client may do with a resource, compared exactly.
type Access string

// The accesses that KORE's documentation names.
const (
	Read   Access = "Read"
	Write  Access = "Write"
	Modify Access = "Modify"
	Delete Access = "Delete"
)

// Scope requires every one of the scopes (RFC 6749 §3.3), such as "sims:read",
// to be among [Claims].Scopes. It panics without a scope, and for one that no
// token can carry: empty, or with a space, a quote or a backslash.
func Scope(scopes ...string) Requirement {
	scopes = checkScopes("Scope", scopes)
	return rule{scopes, func(c *Claims) bool {
		return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(c.Scopes, s) })
	}}
}

// AnyScope requires one of the scopes. It panics as Scope does.
func AnyScope(scopes ...string) Requirement {
	scopes = checkScopes("AnyScope", scopes)
	return rule{scopes, func(c *Claims) bool {
		return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(c.Scopes, s) })
	}}
}

// Grant requires every one of the accesses to the KORE resource of that exact
// name, such as Grant("API Clients", Read), in [Claims].Resources; several
// entries of the name count together. It panics without a resource or an
// access, and for an empty one.
func Grant(resource string, access ...Access) Requirement {
	if resource == "" || len(access) == 0 || slices.Contains(access, "") {
		panic("koreauth: Grant needs a resource and at least one access, none of them empty")
	}
	access = slices.Clone(access)
	names := make([]string, len(access))
	for i, a := range access {
		names[i] = resource + ":" + string(a)
	}
	return rule{names, func(c *Claims) bool {
		return !slices.ContainsFunc(access, func(a Access) bool {
			return !slices.ContainsFunc(c.Resources, func(r Resource) bool {
				return r.Name == resource && slices.Contains(r.Access, a)
			})
		})
	}}
}

// Product requires the KORE product of that exact name, such as "SuperSIM", in
// [Claims].Products. It panics for an empty name.
func Product(name string) Requirement {
	if name == "" {
		panic("koreauth: Product needs a name")
	}
	return rule{[]string{name}, func(c *Claims) bool { return slices.Contains(c.Products, name) }}
}

// AnyOf requires one of the requirements. It panics without one, and for a nil
// one.
func AnyOf(requirements ...Requirement) Requirement {
	return anyOf(checkRequirements("AnyOf", requirements))
}

// AllOf requires every one of the requirements. It panics without one, and for
// a nil one.
func AllOf(requirements ...Requirement) Requirement {
	return allOf(checkRequirements("AllOf", requirements))
}

func checkScopes(maker string, scopes []string) []string {
	if len(scopes) == 0 {
		panic("koreauth: " + maker + " needs at least one scope")
	}
	for _, s := range scopes {
		// RFC 6749 §3.3: 1*( %x21 / %x23-5B / %x5D-7E ).
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c < '!' || c > '~' || c == '"' || c == '\\' }) {
			panic("koreauth: " + maker + ": a scope is one or more printable ASCII characters without space, quote or backslash (RFC 6749 §3.3)")
		}
	}
	return slices.Clone(scopes)
}

func checkRequirements(maker string, requirements []Requirement) []Requirement {
	if len(requirements) == 0 {
		panic("koreauth: " + maker + " needs at least one requirement")
	}
	if slices.Contains(requirements, nil) {
		panic("koreauth: " + maker + ": a requirement is nil")
	}
	return slices.Clone(requirements)
}

// rule is a requirement that the claims alone decide.
type rule struct {
	asked []string
	holds func(*Claims) bool
}

func (q rule) names() []string { return q.asked }

func (q rule) Check(c *Claims) error {
	if c != nil && q.holds(c) {
		return nil
	}
	return insufficient(nil, q.asked)
}

type allOf []Requirement

func (all allOf) names() []string { return namesOf(all, -1, nil) }

func (all allOf) Check(c *Claims) error {
	for i, q := range all {
		if err := check(q, c); err != nil {
			return insufficient(err, namesOf(all, i, err))
		}
	}
	return nil
}

type anyOf []Requirement

func (some anyOf) names() []string { return namesOf(some, -1, nil) }

func (some anyOf) Check(c *Claims) error {
	var names []string
	var causes []error
	for i, q := range some {
		err := check(q, c)
		if err == nil {
			return nil
		}
		names = append(names, namesOf(some[i:i+1], 0, err)...)
		causes = append(causes, err)
	}
	for _, err := range causes {
		if class := classOf(err); class != nil && class != ErrInsufficientScope {
			return err // It could not be said whether this one is met.
		}
	}
	return &Error{Class: ErrInsufficientScope, Reason: errors.Join(reasonsOf(causes)...), Required: once(names)}
}

// named is a requirement of this package, which knows what it asks for and
// leaves the claims as they are.
type named interface{ names() []string }

// check lets a user's own requirement see a copy: what it might change reaches
// no other request that sends the same token.
func check(q Requirement, c *Claims) error {
	if _, ours := q.(named); !ours {
		c = c.clone()
	}
	return q.Check(c)
}

// namesOf lists what the requirements ask for, in order. What the failed one
// asked for is in its error; what a user's own asks for is known only from that.
func namesOf(requirements []Requirement, failed int, err error) []string {
	var names []string
	for i, q := range requirements {
		var refusal *Error
		if i == failed && errors.As(err, &refusal) && refusal != nil && len(refusal.Required) > 0 {
			names = append(names, refusal.Required...)
		} else if ours, ok := q.(named); ok {
			names = append(names, ours.names()...)
		}
	}
	return names
}

// insufficient is the refusal for a requirement that was not met. An error of
// another class stays what it is.
func insufficient(err error, names []string) error {
	if class := classOf(err); class != nil && class != ErrInsufficientScope {
		return err
	}
	return &Error{Class: ErrInsufficientScope, Reason: errors.Join(reasonsOf([]error{err})...), Required: once(names)}
}

// reasonsOf returns what requirements say beyond the names that they ask for.
func reasonsOf(failed []error) []error {
	var reasons []error
	for _, err := range failed {
		var refusal *Error
		if errors.As(err, &refusal) && refusal != nil {
			err = refusal.Reason
		}
		if err != nil {
			reasons = append(reasons, err)
		}
	}
	return reasons
}

// once returns the names without repetitions, in order.
func once(names []string) []string {
	var unique []string
	for _, name := range names {
		if !slices.Contains(unique, name) {
			unique = append(unique, name)
		}
	}
	return unique
}
