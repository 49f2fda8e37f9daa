package bounded_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/bounded"
)

func TestCall(t *testing.T) {
	failed := errors.New("failed")
	for _, row := range []struct {
		name string
		f    func(context.Context) (int, error)
		want int
		err  string
	}{
		{"a result", func(context.Context) (int, error) { return 7, nil }, 7, ""},
		{"an error", func(context.Context) (int, error) { return 7, failed }, 7, "failed"},
		{"a panic", func(context.Context) (int, error) { panic("odd") }, 0, "it panicked with a string"},
		{"a goroutine that ends", func(context.Context) (int, error) { runtime.Goexit(); return 7, nil }, 0, "it did not return"},
		{"a function that obeys its context", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }, 0, "context deadline exceeded"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				got, err := bounded.Call(ctx, row.f)
				assert.Equal(t, row.want, got)
				if row.err == "" {
					assert.NoError(t, err)
				} else {
					assert.EqualError(t, err, row.err)
				}
			})
		})
	}
	t.Run("a function that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			release := make(chan struct{})
			start := time.Now()
			_, err := bounded.Call(ctx, func(context.Context) (int, error) { <-release; return 7, nil })
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, time.Second, time.Since(start))
			close(release) // synctest fails if the goroutine does not end now
		})
	})
}

func TestFirst(t *testing.T) {
	failed := errors.New("failed")
	type calls = []func(context.Context) error
	call := func(f func(context.Context) error, ctx context.Context) error { return f(ctx) }
	fail := func(context.Context) error { return failed }
	slowFail := func(context.Context) error { time.Sleep(time.Second); return errors.New("late") }
	slow := func(context.Context) error { time.Sleep(time.Second); return nil }
	ok := func(context.Context) error { return nil }
	never := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, row := range []struct {
		name  string
		calls calls
		want  []string // empty: no error
		after time.Duration
	}{
		{"one of several", calls{fail, ok, slow}, nil, 0},
		{"the last", calls{fail, slowFail, slow}, nil, time.Second},
		{"it waits for none of the others", calls{never, ok, never}, nil, 0},
		{"none, in the order of the values", calls{slowFail, fail}, []string{"late", "failed"}, time.Second},
		{"all at once", calls{slowFail, slowFail, slowFail}, []string{"late", "late", "late"}, time.Second},
		{"the limit", calls{never, fail}, []string{"context deadline exceeded", "failed"}, time.Minute},
		{"a panic", calls{func(context.Context) error { panic(1) }}, []string{"it panicked with a int"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				errs := bounded.First(t.Context(), time.Minute, row.calls, call)
				assert.Equal(t, row.after, time.Since(start))
				var texts []string
				for _, err := range errs {
					texts = append(texts, err.Error())
				}
				assert.Equal(t, row.want, texts)
				time.Sleep(time.Minute)
				synctest.Wait() // synctest fails if a goroutine goes on now
			})
		})
	}
}
