package koretest

import (
	"io"
	"net/http"
	"time"
)

// Endpoint names a part of the issuer, for [Issuer.Behave] and
// [Issuer.Requests].
type Endpoint int

// The endpoints of an issuer.
const (
	DiscoveryEndpoint     Endpoint = iota // the OpenID Connect discovery document
	KeysEndpoint                          // the key set
	TokenEndpoint                         // both token endpoints
	IntrospectionEndpoint                 // RFC 7662
)

// endpointCount is the number of endpoints.
const endpointCount = IntrospectionEndpoint + 1

// Behavior wraps the handler of an endpoint, for [Issuer.Behave]. It is ordinary
// net/http middleware, so a test can write its own: calling next sends the
// normal response. A Behavior that waits must return when the request's context
// is done.
type Behavior func(next http.Handler) http.Handler

// Down is a [Behavior] that closes the connection without a response.
func Down(http.Handler) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	})
}

// Hanging is a [Behavior] that sends no response until the client gives up or
// the issuer is closed.
func Hanging(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

// Garbage is a [Behavior] that responds 200 with a page of HTML whose
// Content-Type is application/json.
func Garbage(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Welcome</title>")
	})
}

// Empty is a [Behavior] that responds 200 with an empty body whose Content-Type
// is application/json.
func Empty(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
	})
}

// Slow returns a [Behavior] that waits for d before it sends the normal
// response.
func Slow(d time.Duration) Behavior {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(d):
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// Status returns a [Behavior] that responds with the given status, which must
// be 200 or more, and a line of plain text.
func Status(status int) Behavior {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, http.StatusText(status), status)
		})
	}
}
