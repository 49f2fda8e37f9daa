package koreauth

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
)

// authenticated is a request that a guard accepted, and the context that carries
// this result to inner guards and to the handler.
type authenticated struct {
	context.Context
	by     *identity // nil: NewContext, whose claims no guard trusts
	token  string
	claims *Claims // shared, so they are copied for the handler; nil: no token
	outer  *authenticated
}

// identity identifies a Middleware by its address.
type identity struct{ sender Requirement }

type contextKey struct{}

func (a *authenticated) Value(key any) any {
	if key == (contextKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// Format prevents printing the token together with the context.
func (a *authenticated) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%v.WithValue(koreauth)", a.Context)
}

// authenticatedBy returns the result of the innermost guard, or nil.
func authenticatedBy(ctx context.Context) *authenticated {
	a, _ := ctx.Value(contextKey{}).(*authenticated)
	return a
}

// find returns the innermost result with claims that matches, or nil.
func (a *authenticated) find(matches func(*authenticated) bool) *authenticated {
	for ; a != nil; a = a.outer {
		if a.claims != nil && matches(a) {
			return a
		}
	}
	return nil
}

// attach returns the request with a in its context.
func (a *authenticated) attach(r *http.Request) *http.Request {
	outer := authenticatedBy(r.Context())
	if a == outer || a.claims == nil && outer == nil {
		return r
	}
	a.Context = r.Context()
	return r.WithContext(a)
}

// sameSender reports whether two Senders are equal. Values that cannot be compared
// are never equal.
func sameSender(a, b Requirement) bool {
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

func sameConfirmation(a, b *Claims) bool {
	if a.Confirmation == nil || b.Confirmation == nil {
		return a.Confirmation == b.Confirmation
	}
	return *a.Confirmation == *b.Confirmation
}

// FromContext returns the claims of the token that the innermost guard accepted. It
// returns false if there are none. The claims are a copy, which belongs to the
// caller.
func FromContext(ctx context.Context) (*Claims, bool) {
	a := authenticatedBy(ctx)
	if a == nil || a.claims == nil {
		return nil, false
	}
	return a.claims.clone(), true
}

// NewContext returns a copy of ctx that carries claims for [FromContext], to test
// handlers without a guard. Guards ignore them. Nil claims mean that there are
// none.
func NewContext(ctx context.Context, claims *Claims) context.Context {
	return &authenticated{Context: ctx, claims: claims.clone(), outer: authenticatedBy(ctx)}
}
