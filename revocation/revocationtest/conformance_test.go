package revocationtest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/revocationtest"
)

// faulty is a store that breaks a promise. Each function replaces one method of the
// inner store, if it is set.
type faulty struct {
	revocation.Store
	revocation.Fleet
	append func(ctx context.Context, r revocation.Rule) (revocation.Receipt, error)
	follow func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error
	refill func(ctx context.Context, receipts []revocation.Receipt) error
	report func(ctx context.Context, replica string, seq uint64) error
	counts func(ctx context.Context) (known, current int, err error)
	lost   func() bool

	again  sync.Mutex // for refillAlways
	copies map[int64]time.Time
}

func (f *faulty) Append(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
	if f.append != nil {
		return f.append(ctx, r)
	}
	return f.Store.Append(ctx, r)
}

func (f *faulty) Follow(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
	if f.follow != nil {
		return f.follow(ctx, from, apply, current)
	}
	return f.Store.Follow(ctx, from, apply, current)
}

func (f *faulty) Refill(ctx context.Context, receipts []revocation.Receipt) error {
	if f.refill != nil {
		return f.refill(ctx, receipts)
	}
	return f.Fleet.Refill(ctx, receipts)
}

func (f *faulty) Report(ctx context.Context, replica string, seq uint64) error {
	if f.report != nil {
		return f.report(ctx, replica, seq)
	}
	return f.Fleet.Report(ctx, replica, seq)
}

func (f *faulty) Replicas(ctx context.Context) (known, current int, err error) {
	if f.counts != nil {
		return f.counts(ctx)
	}
	return f.Fleet.Replicas(ctx)
}

func (f *faulty) Lost() bool { return f.lost != nil && f.lost() }

// change applies a function to each receipt that the store returns or gives.
func (f *faulty) change(change func(*revocation.Receipt)) {
	f.append = func(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
		receipt, err := f.Store.Append(ctx, r)
		if err == nil {
			change(&receipt)
		}
		return receipt, err
	}
	f.changeGiven(change)
}

// changeGiven applies a function to each receipt that Follow gives.
func (f *faulty) changeGiven(change func(*revocation.Receipt)) {
	f.follow = func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
		return f.Store.Follow(ctx, from, func(r revocation.Receipt) { change(&r); apply(r) }, current)
	}
}

// changeRule applies a function to each rule before it is stored.
func (f *faulty) changeRule(change func(*revocation.Rule)) {
	f.append = func(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
		change(&r)
		return f.Store.Append(ctx, r)
	}
}

const variable = "KOREAUTH_TEST_FAULTY_STORE"

// TestConformance_OfFaultyStore is run by TestConformance_FindsFaults, in a process of
// its own, since it must fail.
func TestConformance_OfFaultyStore(t *testing.T) {
	name := os.Getenv(variable)
	if name == "" {
		t.Skip("it must fail: TestConformance_FindsFaults runs it")
	}
	revocationtest.LosePatience()
	for _, row := range faults {
		if row.promise == name {
			revocationtest.Conformance(t, func(*testing.T) revocation.Store { return openFaulty(row.make) })
		}
	}
}

func openFaulty(spoil func(*faulty)) revocation.Store {
	s := revocation.Memory()
	f := &faulty{Store: s, Fleet: s.(revocation.Fleet)}
	spoil(f)
	return f
}

func TestConformance_PassesGoodStores(t *testing.T) {
	t.Run("a fleet", func(t *testing.T) {
		t.Parallel() // It mostly waits.
		revocationtest.Conformance(t, func(*testing.T) revocation.Store { return openFaulty(func(*faulty) {}) })
	})
	t.Run("a store that is no fleet", func(t *testing.T) {
		t.Parallel()
		revocationtest.Conformance(t, func(*testing.T) revocation.Store {
			return struct{ revocation.Store }{revocation.Memory()}
		})
	})
}

func TestConformance_FindsFaults(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts a process for each fault")
	}
	slots := make(chan struct{}, 6)
	var wait sync.WaitGroup
	for _, row := range faults {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			path := strings.Split(row.test, "/")
			var run strings.Builder
			run.WriteString("^TestConformance_OfFaultyStore$")
			for _, name := range path {
				run.WriteString("/^" + strings.ReplaceAll(name, " ", "_") + "$")
			}
			cmd := exec.Command(os.Args[0], "-test.run", run.String(), "-test.timeout=60s")
			cmd.Env = append(os.Environ(), variable+"="+row.promise)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if assert.ErrorAs(t, err, &exit, "%s: %q found no fault", row.promise, row.test) {
				assert.Contains(t, string(out), row.says, row.promise)
				assert.NotContains(t, string(out), "panic:", row.promise)
				assert.NotContains(t, string(out), "DATA RACE", row.promise)
			}
		})
	}
	wait.Wait()
	names := make(map[string]bool)
	for _, row := range faults {
		require.False(t, names[row.promise], row.promise)
		names[row.promise] = true
	}
}
