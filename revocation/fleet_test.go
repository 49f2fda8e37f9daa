package revocation_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// losingFleet is a fakeFleet that knows whether it lost rules.
type losingFleet struct {
	fakeFleet
	lost bool
}

func (f *losingFleet) Lost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

func (f *losingFleet) Refill(ctx context.Context, receipts []revocation.Receipt) error {
	err := f.fakeFleet.Refill(ctx, receipts)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = f.lost && err != nil
	return err
}

func (f *fakeFleet) refilled() [][]revocation.Receipt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.refills)
}

func TestList_Follow_ReportsToItsFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeFleet{}
		more := make(chan revocation.Receipt)
		up := make(chan struct{})
		store.follow = func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			<-up
			for {
				current(time.Now())
				select {
				case r := <-more:
					apply(r)
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		stop := follow(t, &revocation.List{}, store)
		pass(time.Minute)
		assert.Empty(t, store.reports, "nothing was loaded")
		close(up)
		synctest.Wait()
		assert.Equal(t, []uint64{0}, store.reports)
		more <- receipt(t, 7, time.Now(), revocation.Rule{Issuer: issuer, Token: "t"})
		pass(time.Minute)
		assert.InDelta(t, 13, len(store.reports), 1)
		assert.EqualValues(t, 7, store.reports[len(store.reports)-1])
		assert.Len(t, slices.Compact(slices.Clone(store.names)), 1)
		assert.GreaterOrEqual(t, len(store.names[0]), 16)
		other := &fakeFleet{}
		other.follow = giving()
		stopOther := follow(t, &revocation.List{}, other)
		synctest.Wait()
		assert.NotEqual(t, store.names[0], other.names[0])
		stopOther()
		stop()
		n := len(store.reports)
		pass(time.Minute)
		assert.Len(t, store.reports, n)
	})
}

// rulesOf returns the rules of receipts as hashes, sorted.
func rulesOf(receipts []revocation.Receipt) (rules []string) {
	for _, r := range receipts {
		text := r.Rule.Hashed().Hash + " " + r.At.UTC().Format(time.RFC3339Nano) + " " + r.Rule.Until.UTC().Format(time.RFC3339Nano)
		if r.Rule.Lift {
			text += " lift"
		}
		rules = append(rules, text+" "+r.Rule.IssuedBefore.UTC().Format(time.RFC3339Nano))
	}
	slices.Sort(rules)
	return rules
}

func TestList_Follow_RefillsAStoreThatLostRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(-time.Hour)
		rules := []revocation.Receipt{
			receipt(t, 1, at, revocation.Rule{Issuer: issuer, Token: "t", Reason: "r", By: "b"}),
			receipt(t, 2, at.Add(1), revocation.Rule{Issuer: issuer, Client: "c", Until: time.Now().AddDate(30, 0, 0)}),
			receipt(t, 3, at.Add(2), revocation.Rule{Issuer: issuer, Subject: "s", Lift: true}),
			receipt(t, 4, at.Add(3), revocation.Rule{Issuer: issuer, Everything: true, IssuedBefore: at.Add(-time.Hour)}),
			receipt(t, 5, at.Add(4), revocation.Rule{Issuer: issuer, Token: "u", Until: time.Now().AddDate(30, 0, 0)}),
			receipt(t, 6, at.Add(5), revocation.Rule{Issuer: issuer, Token: "over", Until: at.Add(time.Minute)}),
			receipt(t, 7, at.Add(6), revocation.Rule{Issuer: issuer, Client: "lifted"}),
			receipt(t, 8, at.Add(7), revocation.Rule{Issuer: issuer, Client: "lifted", Lift: true}),
		}
		inForce := slices.Concat(rules[:5], rules[7:])
		broken := make(chan struct{})
		store := &losingFleet{}
		store.follow = func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-broken:
					cancel()
				case <-ctx.Done():
				}
			}()
			if from == 0 {
				return giving(rules...)(ctx, from, apply, current)
			}
			return giving()(ctx, from, apply, current)
		}
		list := &revocation.List{}
		require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "local"}, revocation.Rule{Issuer: issuer, Token: "t", Lift: true},
			revocation.Rule{Issuer: issuer, Client: "c", Lift: true}, revocation.Rule{Issuer: issuer, Token: "u"}))
		follow(t, list, store)
		pass(time.Minute)
		assert.Empty(t, store.refilled(), "the store lacks nothing")
		broken <- struct{}{}
		pass(time.Minute)
		assert.Empty(t, store.refilled(), "the connection was lost, and no rule")
		store.mu.Lock()
		store.lost = true
		store.mu.Unlock()
		pass(time.Second)
		synctest.Wait()
		require.Len(t, store.refilled(), 1)
		got := store.refilled()[0]
		assert.Equal(t, rulesOf(inForce), rulesOf(got), "what Apply brought is not shared")
		assert.True(t, slices.IsSortedFunc(got, func(a, b revocation.Receipt) int { return a.At.Compare(b.At) }))
		for _, r := range got {
			complete, err := r.Rule.Complete(r.At)
			require.NoError(t, err)
			assert.Equal(t, r.Rule, complete)
		}
		pass(time.Hour)
		assert.Len(t, store.refilled(), 1)
	})
}

func TestList_Follow_RefillsWhenAStoreCannotSay(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	first := []revocation.Receipt{receipt(t, 1, at, revocation.Rule{Issuer: issuer, Token: "t"}), receipt(t, 2, at.Add(1), revocation.Rule{Issuer: issuer, Token: "u"})}
	for _, row := range []struct {
		name   string
		second []revocation.Receipt
		says   bool // the store has Lost
		want   int
	}{
		{"connected again, and it has no Lost", nil, false, 1},
		{"connected again, and it says that it lost nothing", nil, true, 0},
		{"a seq comes again", first[:1], true, 1},
		{"another rule has a seq that was given", []revocation.Receipt{receipt(t, 2, at.Add(time.Minute), revocation.Rule{Issuer: issuer, Token: "v"})}, true, 1},
		{"a new rule", []revocation.Receipt{receipt(t, 3, at.Add(time.Minute), revocation.Rule{Issuer: issuer, Token: "v"})}, true, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := &losingFleet{}
				calls := 0
				fleet.follow = func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
					if calls++; calls == 1 {
						for _, r := range first {
							apply(r)
						}
						current(time.Now())
						time.Sleep(time.Second)
						return errDown
					}
					return giving(row.second...)(ctx, from, apply, current)
				}
				var store revocation.Store = &fleet.fakeFleet
				if row.says {
					store = fleet
				}
				list := &revocation.List{}
				follow(t, list, store)
				pass(time.Second / 2)
				assert.Empty(t, fleet.refilled())
				pass(time.Second)
				synctest.Wait()
				require.Len(t, fleet.refilled(), row.want)
				if row.want > 0 {
					assert.Len(t, fleet.refilled()[0], list.Status().Entries)
				}
				pass(time.Minute)
				assert.Len(t, fleet.refilled(), row.want)
			})
		})
	}
}

func TestList_Follow_TriesToRefillAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		store := &losingFleet{fakeFleet: fakeFleet{err: errDown}, lost: true}
		store.follow = giving(receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Token: "t"}))
		list := &revocation.List{Logger: log.logger()}
		follow(t, list, store)
		pass(55 * time.Second)
		synctest.Wait()
		assert.Len(t, store.refilled(), 6, "after 0, 1, 3, 7, 15 and 31 seconds")
		assert.NoError(t, list.Status().Err, "the list is current")
		warnings := log.all(t, "could not be given back; allow this process to write")
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0]["cause"], "connection refused")
		assert.Len(t, log.all(t, "could not report"), 1)
		store.mu.Lock()
		store.err = nil
		store.mu.Unlock()
		pass(10 * time.Second)
		n := len(store.refilled())
		pass(time.Minute)
		assert.Len(t, store.refilled(), n)
		assert.Equal(t, 7, n)
	})
}

// panickingFleet panics in all methods but Follow.
type panickingFleet struct{ fakeStore }

func (panickingFleet) Refill(context.Context, []revocation.Receipt) error       { panic("refill") }
func (panickingFleet) Report(context.Context, string, uint64) error             { panic("report") }
func (panickingFleet) Replicas(context.Context) (known, current int, err error) { panic("replicas") }
func (panickingFleet) Lost() bool                                               { panic("lost") }

func TestList_Follow_SurvivesAFleetThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		list := &revocation.List{Logger: log.logger()}
		follow(t, list, &panickingFleet{fakeStore{giving(receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Token: "t"}))}})
		pass(time.Minute)
		assert.True(t, isRevoked(t, list, token("t")))
		assert.NotEmpty(t, log.all(t, "could not report"))
		assert.NotEmpty(t, log.all(t, "could not be given back"))
	})
}

func TestList_Follow_GivesEachStoreWhatTheOtherHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &losingFleet{}, &losingFleet{}
		at := time.Now().Add(-time.Hour)
		both := receipt(t, 1, at, revocation.Rule{Issuer: issuer, Token: "both"})
		onlyA := receipt(t, 2, at.Add(1), revocation.Rule{Issuer: issuer, Token: "a"})
		onlyB := receipt(t, 2, at.Add(2), revocation.Rule{Issuer: issuer, Client: "b"})
		later := receipt(t, 3, at.Add(3), revocation.Rule{Issuer: issuer, Client: "later", Reason: "kept"})
		more := make(chan revocation.Receipt)
		a.follow = func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			apply(both)
			apply(onlyA)
			for {
				current(time.Now())
				select {
				case r := <-more:
					apply(r)
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		b.follow = giving(both, onlyB)
		list := &revocation.List{}
		follow(t, list, a)
		synctest.Wait()
		follow(t, list, b)
		pass(10 * time.Second)
		require.Len(t, a.refilled(), 1)
		assert.Equal(t, rulesOf([]revocation.Receipt{onlyB}), rulesOf(a.refilled()[0]))
		require.Len(t, b.refilled(), 1)
		assert.Equal(t, rulesOf([]revocation.Receipt{both, onlyA, onlyB}), rulesOf(b.refilled()[0]))
		more <- later
		pass(10 * time.Second)
		require.Len(t, b.refilled(), 2)
		assert.Equal(t, []revocation.Receipt{later}, b.refilled()[1], "with its reason")
		assert.Len(t, a.refilled(), 1)
	})
}
