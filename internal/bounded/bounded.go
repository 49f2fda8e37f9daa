// Package bounded calls code of users that may hang or panic.
package bounded

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errEnded is the error of a function that ended its goroutine.
var errEnded = errors.New("it did not return")

// Call calls f in a new goroutine and returns its result. If ctx is done first, Call
// returns the error of ctx at once, and the goroutine ends when f returns. A panic of
// f is an error.
func Call[T any](ctx context.Context, f func(ctx context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1) // buffered: the goroutine never waits for its reader
	go func() {
		got := result{err: errEnded} // of runtime.Goexit
		defer func() {
			if p := recover(); p != nil {
				got = result{err: fmt.Errorf("it panicked with a %T", p)}
			}
			results <- got
		}()
		got.value, got.err = f(ctx)
	}()
	select {
	case got := <-results:
		return got.value, got.err
	case <-ctx.Done():
	}
	select {
	case got := <-results: // It has returned as well: its result says more.
		return got.value, got.err
	default:
		var none T
		return none, context.Cause(ctx)
	}
}

// First calls f for each value at the same time, with a context that ends after limit,
// and returns nil as soon as one call has no error. If all have one, First returns them in
// the order of the values. The other calls go on.
func First[T any](ctx context.Context, limit time.Duration, values []T, f func(T, context.Context) error) []error {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, len(values)) // buffered: no goroutine waits for its reader
	for n, value := range values {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			_, err := Call(ctx, func(ctx context.Context) (any, error) { return nil, f(value, ctx) })
			results <- result{n, err}
		}()
	}
	errs := make([]error, len(values))
	for range values {
		got := <-results
		if got.err == nil {
			return nil
		}
		errs[got.n] = got.err
	}
	return errs
}
