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
	DiscoveryEndpoint Endpoint = iota // the OpenID Connect discovery document
	KeysEndpoint                      // the key set
	TokenEndpoint                     // both token endpoints
)

const endpoints = TokenEndpoint + 1 // how many

// Behavior is what stands between a request and the issuer's answer, for
// [Issuer.Behave]. It is a plain net/http middleware: one of a test's own may
// do anything, and calls next for the issuer's proper answer. One that waits
// must end with the request's context.
type Behavior func(next http.Handler) http.Handler

// Down is a [Behavior]: the connection is closed without an answer.
func Down(http.Handler) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	})
}

// Hanging is a [Behavior]: there is no answer until the client gives up or the
// issuer is closed.
func Hanging(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

// Garbage is a [Behavior]: 200 with a page of HTML that is called JSON.
func Garbage(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Welcome</title>")
	})
}

// Empty is a [Behavior]: 200 with a body of no bytes, called JSON.
func Empty(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
	})
}

// Slow returns a [Behavior]: the proper answer, after d.
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

// Status returns a [Behavior]: an answer of that status, 200 or more, with a
// line of text that is neither a document nor a key set.
func Status(status int) Behavior {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, http.StatusText(status), status)
		})
	}
}
