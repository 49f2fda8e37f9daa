package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
)

var errDown = errors.New("connection refused")

func TestList_Follow_ReportsMistakes(t *testing.T) {
	var nilStore *fakeStore
	for name, store := range map[string]revocation.Store{"nil": nil, "a nil pointer": nilStore} {
		log := &records{}
		list := &revocation.List{Logger: log.logger()}
		assert.ErrorContains(t, list.Follow(t.Context(), store), "Follow needs a Store: use Memory or File", name)
		assert.Len(t, log.all(t, "Follow needs a Store"), 1)
	}
	var none *revocation.List
	assert.ErrorContains(t, none.Follow(t.Context(), revocation.Memory()), "Follow needs a List")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errDown)
	assert.Equal(t, context.Canceled, (&revocation.List{}).Follow(ctx, revocation.Memory()))
}

func TestList_Follow_ConnectsAgain(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context) error{
		"a store that fails":                     func(context.Context) error { return errDown },
		"a store that returns without an error":  func(context.Context) error { return nil },
		"a store that panics":                    func(context.Context) error { panic("secret") },
		"a store that ends its goroutine":        func(context.Context) error { runtime.Goexit(); return nil },
		"a store that says that it was canceled": func(context.Context) error { return context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := &revocation.List{}
				var mu sync.Mutex
				var made []time.Time
				attempts := func() []time.Time {
					mu.Lock()
					defer mu.Unlock()
					return slices.Clone(made)
				}
				var up atomic.Bool
				broken := make(chan struct{})
				follow(t, list, &fakeStore{func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
					mu.Lock()
					made = append(made, time.Now())
					mu.Unlock()
					if !up.Load() {
						return fail(ctx)
					}
					ctx, cancel := context.WithCancel(ctx)
					go func() {
						select {
						case <-broken:
						case <-ctx.Done():
						}
						cancel()
					}()
					return giving(receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Token: "t"}))(ctx, from, apply, current)
				}})
				pass(time.Minute)
				synctest.Wait()
				require.Error(t, list.Status().Err)
				assert.NotContains(t, list.Status().Err.Error(), "secret")
				assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
				first := attempts()
				for n := 1; n < len(first); n++ {
					pause := first[n].Sub(first[n-1])
					longest := min(50*time.Millisecond<<(n-1), 5*time.Second)
					assert.GreaterOrEqual(t, pause, longest/2, "pause %d", n)
					assert.Less(t, pause, longest, "pause %d", n)
				}
				assert.Greater(t, len(first), 15)
				up.Store(true)
				pass(5 * time.Second)
				synctest.Wait()
				assert.NoError(t, list.Status().Err)
				assert.True(t, isRevoked(t, list, token("t")))
				up.Store(false)
				pass(time.Minute)
				close(broken)
				synctest.Wait()
				n := len(attempts())
				pass(50 * time.Millisecond)
				synctest.Wait()
				assert.Len(t, attempts(), n+1, "the pauses are short again")
				assert.Error(t, list.Status().Err)
				assert.True(t, isRevoked(t, list, token("t")), "the list is still used")
			})
		})
	}
}

func TestList_Follow_JittersItsPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := map[time.Time]bool{}
		var mu sync.Mutex
		for range 100 {
			follow(t, &revocation.List{}, &fakeStore{func(context.Context, uint64, func(revocation.Receipt), func(time.Time)) error {
				mu.Lock()
				defer mu.Unlock()
				attempts[time.Now()] = true
				return errDown
			}})
		}
		pass(100 * time.Millisecond)
		synctest.Wait()
		assert.Greater(t, len(attempts), 100)
	})
}

func TestList_Follow_NoticesASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, calls := &revocation.List{}, 0
		follow(t, list, &fakeStore{func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			if calls++; calls == 1 {
				current(time.Now())
				<-ctx.Done() // half-open: nothing arrives
				return ctx.Err()
			}
			apply(receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Token: "t"}))
			return idle(ctx, current)
		}})
		pass(9 * time.Second)
		assert.NoError(t, list.Status().Err)
		pass(20 * time.Second)
		assert.ErrorContains(t, list.Status().Err, "has not said for 29s that it gave all rules")
		pass(1100 * time.Millisecond)
		synctest.Wait()
		assert.True(t, isRevoked(t, list, token("t")))
		assert.NoError(t, list.Status().Err)
		pass(10 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 2, calls, "a store that calls current is not silent")
	})
}

func TestList_Follow_EndsThoughTheStoreDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &revocation.List{}
		release, calls := make(chan struct{}), make(chan func(time.Time), 1)
		defer close(release)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- list.Follow(ctx, &fakeStore{func(_ context.Context, _ uint64, _ func(revocation.Receipt), current func(time.Time)) error {
				current(time.Now())
				calls <- current
				<-release
				return nil
			}})
		}()
		synctest.Wait()
		cancel()
		begun := time.Now()
		assert.Equal(t, context.Canceled, <-done)
		assert.LessOrEqual(t, time.Since(begun), 2*time.Second)
		last := list.Status().Current
		pass(time.Minute)
		(<-calls)(time.Now())
		assert.Equal(t, last, list.Status().Current, "what the store says after the end does not count")
	})
}

func TestList_Follow_SkipsWhatIsNotValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		list := &revocation.List{Logger: log.logger()}
		at := time.Now()
		good := receipt(t, 9, at, revocation.Rule{Issuer: issuer, Token: "t"})
		follow(t, list, &fakeStore{giving(
			revocation.Receipt{},
			revocation.Receipt{Seq: 3},
			revocation.Receipt{Seq: 4, At: at},
			revocation.Receipt{Seq: 5, At: at, Rule: revocation.Rule{Issuer: issuer, Token: "a", Client: "b"}},
			revocation.Receipt{Seq: 6, At: at, Rule: revocation.Rule{Hash: "token:zz"}},
			revocation.Receipt{Seq: 0, At: at, Rule: good.Rule},
			revocation.Receipt{Seq: 7, Rule: good.Rule},
			revocation.Receipt{Seq: 8, At: at, Rule: revocation.Rule{Issuer: issuer, Token: strings.Repeat("secret", 100)}},
			good,
		)})
		synctest.Wait()
		assert.True(t, isRevoked(t, list, token("t")))
		assert.Equal(t, 1, list.Status().Entries)
		assert.EqualValues(t, 9, list.Status().Seq)
		assert.ErrorContains(t, list.Status().Err, "invalid rule with seq 8, which was skipped: append it again correctly")
		warnings := log.all(t, "invalid rule")
		require.Len(t, warnings, 8)
		assert.EqualValues(t, 5, warnings[3]["seq"])
		assert.Contains(t, warnings[3]["cause"], "Rule has Token and Client")
		assert.NotContains(t, log.String(), "secret")
		pass(2 * time.Minute)
		assert.NoError(t, list.Status().Err)
	})
}

func TestList_Follow_WarnsWhileStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		list := &revocation.List{Logger: log.logger()}
		follow(t, list, &fakeStore{func(_ context.Context, _ uint64, _ func(revocation.Receipt), current func(time.Time)) error {
			if len(log.all(t, "")) == 0 && list.Status().Current.IsZero() {
				current(time.Now())
			}
			return errDown
		}})
		pass(9 * time.Second)
		synctest.Wait()
		assert.Empty(t, log.all(t, ""))
		pass(2 * time.Second)
		synctest.Wait()
		warnings := log.all(t, "the list is not current")
		require.Len(t, warnings, 1)
		assert.Equal(t, "WARN", warnings[0]["level"])
		assert.Contains(t, warnings[0]["cause"], "connection refused")
		assert.EqualValues(t, 10*time.Second, warnings[0]["age"])
		pass(10 * time.Minute)
		synctest.Wait()
		assert.Len(t, log.all(t, "the list is not current"), 11)
	})
}

func TestList_Follow_KeepsWhatTheStoreLoses(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	rules := []revocation.Receipt{
		receipt(t, 1, at, revocation.Rule{Issuer: issuer, Token: "t"}),
		receipt(t, 2, at.Add(1), revocation.Rule{Issuer: issuer, Client: "kc_old", IssuedBefore: time.Now().Add(time.Hour)}),
		receipt(t, 3, at.Add(2), revocation.Rule{Issuer: issuer, Subject: "s"}),
	}
	lost := receipt(t, 1, at.Add(time.Minute), revocation.Rule{Issuer: issuer, Token: "u"})
	for name, second := range map[string][]revocation.Receipt{
		"comes back empty":        nil,
		"begins anew":             {lost},
		"lost the last rules":     rules[:1],
		"lost all, and has a new": {lost},
	} {
		t.Run("a store that "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list, calls := &revocation.List{}, 0
				follow(t, list, &fakeStore{func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
					if calls++; calls == 1 {
						for _, r := range rules {
							apply(r)
						}
						current(time.Now())
						return errDown
					}
					assert.EqualValues(t, 3, from)
					return giving(second...)(ctx, from, apply, current)
				}})
				time.Sleep(time.Second)
				synctest.Wait()
				assert.Equal(t, 2, calls)
				assert.NoError(t, list.Status().Err)
				assert.True(t, isRevoked(t, list, token("t")))
				client := token("other")
				client.ClientID = "kc_old"
				assert.True(t, isRevoked(t, list, client))
				assert.False(t, isRevoked(t, list, token("good")))
				assert.Equal(t, name == "begins anew" || name == "lost all, and has a new", isRevoked(t, list, token("u")))
			})
		})
	}
}

func TestList_Follow_TwoStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, a := &revocation.List{}, revocation.Memory()
		up := make(chan struct{})
		b := revocation.Memory()
		slow := &fakeStore{func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			select {
			case <-up:
			case <-ctx.Done():
			}
			return b.Follow(ctx, from, apply, current)
		}}
		for store, id := range map[revocation.Store]string{a: "a", b: "b"} {
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: id})
			require.NoError(t, err)
		}
		stopA := follow(t, list, a)
		synctest.Wait()
		assert.NoError(t, list.Check(nil, token("x")))
		stopB := follow(t, list, slow)
		synctest.Wait()
		assert.ErrorIs(t, list.Check(nil, token("x")), koreauth.ErrUnavailable, "the second store was not loaded")
		assert.True(t, list.Status().Current.IsZero())
		close(up)
		synctest.Wait()
		assert.False(t, isRevoked(t, list, token("x")))
		assert.True(t, isRevoked(t, list, token("a")))
		assert.True(t, isRevoked(t, list, token("b")))
		assert.Equal(t, 2, list.Status().Entries)
		last := time.Now()
		pass(time.Minute)
		synctest.Wait()
		assert.Equal(t, last.Add(time.Minute), list.Status().Current)
		stopB() // The list is moved from one store to another: what is not followed does not count.
		pass(2 * time.Hour)
		synctest.Wait()
		assert.NoError(t, list.Check(nil, token("x")))
		last = time.Now()
		stopA()
		pass(time.Hour + 1)
		assert.ErrorIs(t, list.Check(nil, token("x")), koreauth.ErrUnavailable)
		assert.Equal(t, last, list.Status().Current)
	})
}

// TestList_Follow_AnotherValueOfTheStore follows a store that a program makes anew after
// a failure.
func TestList_Follow_AnotherValueOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &revocation.List{}
		stop := follow(t, list, &fakeStore{giving(someRules(t)...)})
		synctest.Wait()
		last := time.Now()
		stop()
		pass(30 * time.Minute)
		follow(t, list, &fakeStore{func(context.Context, uint64, func(revocation.Receipt), func(time.Time)) error { return errDown }})
		pass(time.Minute)
		assert.True(t, hasSomeRules(t, list))
		assert.Equal(t, last, list.Status().Current)
		pass(29*time.Minute + time.Nanosecond)
		assert.ErrorIs(t, list.Check(nil, token("x")), koreauth.ErrUnavailable)
	})
}

func TestList_Follow_AuditsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := &records{}, revocation.Memory()
		list := &revocation.List{Logger: log.logger()}
		follow(t, list, store)
		synctest.Wait()
		for _, r := range []revocation.Rule{
			{Issuer: issuer, Token: "jti-1", Reason: "leaked key", By: "kc_admin"},
			{Issuer: issuer, Client: "kc_1", Reason: "see mail of bob@example.com", By: "alice@example.com"},
			{Issuer: issuer, Subject: "person-1", Lift: true},
		} {
			_, err := store.Append(t.Context(), r)
			require.NoError(t, err)
			synctest.Wait()
		}
		audit := log.all(t, "rule applied")
		require.Len(t, audit, 3)
		for n, want := range []map[string]any{
			{"kind": "token", "seq": 1., "reason": "leaked key", "by": "kc_admin", "level": "INFO", "issuer": issuer},
			{"kind": "client", "seq": 2., "client": "kc_1", "reason": "see mail of [redacted]", "by": "[redacted]"},
			{"kind": "subject", "seq": 3., "lift": true},
		} {
			for name, value := range want {
				assert.Equal(t, value, audit[n][name], name)
			}
		}
		for _, personal := range []string{"jti-1", "person-1", "example.com/mail", "bob@", "alice@"} {
			assert.NotContains(t, log.String(), personal)
		}

		other := &records{} // A list that begins later has all at once.
		for n := range 1000 {
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: id(n)})
			require.NoError(t, err)
		}
		follow(t, &revocation.List{Logger: other.logger()}, store)
		synctest.Wait()
		assert.Len(t, other.all(t, "rule applied"), 100)
		summary := other.all(t, "rules applied")
		require.Len(t, summary, 1)
		assert.EqualValues(t, 1003, summary[0]["rules"])
	})
}

func TestList_Follow_AuditsARuleOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		rule := receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Client: "kc_1"})
		follow(t, &revocation.List{Logger: log.logger()}, &fakeStore{func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			apply(rule)
			current(time.Now())
			time.Sleep(time.Second)
			return errDown
		}})
		pass(time.Minute)
		assert.Len(t, log.all(t, "rule applied"), 1)
	})
}

// handler is a slog.Handler that is a function.
type handler func(slog.Record)

func (h handler) Enabled(context.Context, slog.Level) bool      { return true }
func (h handler) Handle(_ context.Context, r slog.Record) error { h(r); return nil }
func (h handler) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h handler) WithGroup(string) slog.Handler                 { return h }
func (h handler) Format(f fmt.State, _ rune)                    { _, _ = f.Write(nil) }
func lostRecords(r slog.Record) (n int64) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "lost_records" {
			n = a.Value.Int64()
		}
		return true
	})
	return n
}

func TestList_Follow_SurvivesItsLogger(t *testing.T) {
	t.Run("one that panics", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			list, store := &revocation.List{Logger: slog.New(handler(func(slog.Record) { panic("no disk") }))}, revocation.Memory()
			follow(t, list, store)
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t"})
			require.NoError(t, err)
			synctest.Wait()
			assert.True(t, isRevoked(t, list, token("t")))
		})
	})
	t.Run("one that blocks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release, calls, lost := make(chan struct{}), 0, int64(0)
			list := &revocation.List{Logger: slog.New(handler(func(r slog.Record) {
				calls++
				lost += lostRecords(r)
				<-release
			}))}
			store := revocation.Memory()
			follow(t, list, store)
			for n := range 50 {
				_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: id(n)})
				require.NoError(t, err)
			}
			pass(1100 * time.Millisecond)
			synctest.Wait()
			assert.True(t, isRevoked(t, list, token(id(49))), "the Logger delays all rules together by a second at most")
			assert.Equal(t, 1, calls)
			close(release)
			synctest.Wait()
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t"})
			require.NoError(t, err)
			synctest.Wait()
			assert.Equal(t, 2, calls)
			assert.EqualValues(t, 49, lost)
		})
	})
}

func TestList_Follow_LeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, store := &revocation.List{Logger: slog.New(slog.DiscardHandler)}, revocation.Memory()
		for n := range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*time.Millisecond)
			assert.Equal(t, context.DeadlineExceeded, list.Follow(ctx, store))
			cancel()
		}
		ctx, cancel := context.WithCancel(t.Context())
		connects := 0
		done := make(chan error)
		go func() {
			done <- list.Follow(ctx, &fakeStore{func(_ context.Context, _ uint64, _ func(revocation.Receipt), current func(time.Time)) error {
				if connects++; connects == 1000 {
					cancel()
				}
				current(time.Now())
				time.Sleep(10 * time.Second)
				return errDown
			}})
		}()
		assert.Equal(t, context.Canceled, <-done)
		pass(time.Minute)
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		assert.NotContains(t, string(stacks), "koreauth/revocation.", "no goroutine is left")
	})
}

func TestList_Check_WhileRulesChange(t *testing.T) {
	list, store := &revocation.List{}, revocation.Memory()
	follow(t, list, store)
	require.Eventually(t, func() bool { return list.Check(nil, token("x")) == nil }, 10*time.Second, time.Millisecond)
	rules := 1000
	var done atomic.Int64 // the rules below it are known to be applied
	var readers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for reader := range 4 {
		readers.Go(func() {
			for n := reader; ctx.Err() == nil; n++ {
				known := int(done.Load())
				if known > 0 && !isRevoked(t, list, token(id(n%known))) {
					t.Errorf("token %d of %d is not revoked", n%known, known)
					return
				}
				if isRevoked(t, list, token(id(-1-n%500))) {
					t.Errorf("token %d is revoked", -1-n%500)
					return
				}
				if n%64 == 0 {
					_ = list.Status()
				}
			}
		})
	}
	for n := range rules {
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: id(n)})
		require.NoError(t, err)
		last, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Client: fmt.Sprint(n), Lift: n%3 == 0})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return list.Status().Seq >= last.Seq }, 10*time.Second, 10*time.Microsecond)
		done.Store(int64(n) + 1)
	}
	cancel()
	readers.Wait()
}
