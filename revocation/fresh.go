package revocation

import (
	"errors"
	"net/http"
	"time"

	"github.com/koreauth/koreauth"
)

// Fresh returns a requirement for a route that insists on a list which is known to be
// complete as of at most within ago. It is for routes where a revocation must never
// come late. Else it returns [koreauth.ErrUnavailable], also if the list was never
// loaded and has StartEmpty. It does not look for rules: the list must be in
// [koreauth.Config].Require too.
//
// A [Store] says that a list is complete every two seconds, so within should be at
// least five seconds. Fresh panics if l is nil, and if within is zero or negative.
func Fresh(l *List, within time.Duration) koreauth.Requirement {
	if l == nil || within <= 0 {
		panic("revocation: Fresh needs a List and a time greater than zero")
	}
	return &fresh{l, within}
}

// fresh is the requirement that Fresh returns.
type fresh struct {
	list   *List
	within time.Duration
}

var errNotFresh = errors.New("revocation: the list is not as current as this route needs: see List.Status for the cause")

func (f *fresh) Check(*http.Request, *koreauth.Claims) error {
	s := f.list.fresh.standing.Load()
	if s != nil && (s.alone || s.stamp != nil && s.stamp.age() <= f.within) {
		return nil
	}
	return unavailable(errNotFresh)
}
