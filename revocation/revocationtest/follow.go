package revocationtest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

func followFields(t *testing.T, s revocation.Store) {
	east, west := time.FixedZone("", 5*3600+1800), time.FixedZone("", -11*3600)
	odd := "a \"quoted\" \\ word, <b>&amp;</b>, Zoë, 日本, 👩‍🚀, \u2028, \u007f, \t"
	var want []revocation.Receipt
	for _, rule := range []revocation.Rule{
		{Issuer: issuer, Token: odd, Reason: "leaked", By: "ops"},
		{Issuer: odd, Client: odd, IssuedBefore: time.Date(2024, 2, 29, 23, 59, 59, 123456789, east)},
		{Issuer: issuer, Account: "4f1c", IssuedBefore: time.Date(2025, 1, 1, 0, 0, 0, 1, west), Until: time.Date(2033, 12, 31, 23, 59, 59, 999999999, east)},
		{Issuer: issuer, Subject: "s", Reason: odd + strings.Repeat(" and so on,\r\n", 500), By: odd},
		{Issuer: issuer, Everything: true, IssuedBefore: time.Date(1969, 12, 31, 23, 59, 59, 5, time.UTC), Until: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)},
		{Issuer: issuer, Client: "blocked", IssuedBefore: time.Now().AddDate(1, 0, 0)},
		{Issuer: issuer, Token: odd, Lift: true, Reason: "found", By: "ops"},
		{Issuer: strings.Repeat("i", 256), Token: strings.Repeat("é", 128)},
		{Issuer: issuer, Token: "0"},
		{Issuer: issuer, Token: " "},
		{Issuer: issuer, Client: "null"},
		{Hash: tokenRule("hashed").Hashed().Hash},
		{Hash: revocation.Rule{Issuer: issuer, Everything: true}.Hashed().Hash, IssuedBefore: time.Now(), Lift: true},
	} {
		receipt := mustAppend(t, s, rule)
		asked, got := rule, receipt.Rule
		asked.Until, got.Until = time.Time{}, time.Time{}
		if rule.IssuedBefore.IsZero() {
			got.IssuedBefore = time.Time{}
		}
		if !rule.Until.IsZero() && !rule.Until.Equal(receipt.Rule.Until) || describe(got) != describe(asked) {
			t.Errorf("Append returned another rule\n     %s\nwant %s", describe(receipt.Rule), describe(rule))
		}
		want = append(want, receipt)
	}
	wantReceipts(t, all(t, s, len(want)), want)
}

func followOrder(t *testing.T, s revocation.Store) {
	want := appendTokens(t, s, "before", 50)
	f := follow(t, s, 0)
	wantReceipts(t, f.waitCurrent(t, len(want)), want)
	for i := range 20 {
		want = append(want, mustAppend(t, s, tokenRule("after-%d", i)))
	}
	f.waitCurrent(t, len(want))
	wantReceipts(t, f.settle(), want)
}

func followFrom(t *testing.T, s revocation.Store) {
	receipts := appendTokens(t, s, "t", 20)
	later := make(map[int]*follower)
	for _, n := range []int{1, 10, 19, 20} {
		later[n] = follow(t, s, receipts[n-1].Seq)
		later[n].waitCurrent(t, 20-n)
		wantReceipts(t, later[n].settle(), receipts[n:])
	}
	receipts = append(receipts, mustAppend(t, s, tokenRule("new")))
	for n, f := range later {
		f.waitCurrent(t, 21-n)
		wantReceipts(t, f.settle(), receipts[n:])
	}
}

func followBeyond(t *testing.T, s revocation.Store) {
	receipts := appendTokens(t, s, "t", 5)
	for _, from := range []uint64{receipts[4].Seq + 1, receipts[4].Seq + 1000, 1 << 62} {
		f := follow(t, s, from)
		f.waitCurrent(t, len(receipts))
		wantReceipts(t, f.settle(), receipts)
		receipts = append(receipts, mustAppend(t, s, tokenRule("after %d", from)))
		f.waitCurrent(t, len(receipts))
		wantReceipts(t, f.settle(), receipts)
		f.stop(t)
	}
}

func followAgain(t *testing.T, s revocation.Store) {
	var want, got []revocation.Receipt
	from := uint64(0)
	for range 5 {
		want = append(want, appendTokens(t, s, "t", 3)...)
		f := follow(t, s, from)
		f.waitCurrent(t, len(want)-len(got))
		got = append(got, f.settle()...)
		f.stop(t)
		wantReceipts(t, got, want)
		from = want[len(want)-1].Seq
	}
}

func followWhileAppending(t *testing.T, s revocation.Store) {
	var receipts [4][]revocation.Receipt
	var wait sync.WaitGroup
	started := make(chan struct{})
	for g := range receipts {
		wait.Go(func() {
			for i := range 100 {
				r, err := s.Append(t.Context(), tokenRule("t-%d-%d", g, i))
				if err != nil {
					t.Errorf("Append while others follow: %v", err)
					return
				}
				receipts[g] = append(receipts[g], r)
				select {
				case <-started:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	var followers []*follower
	for range 20 {
		followers = append(followers, follow(t, s, 0))
		time.Sleep(3 * time.Millisecond)
	}
	close(started)
	wait.Wait()
	want := sorted(slices.Concat(receipts[:]...))
	for _, f := range followers {
		f.waitCurrent(t, len(want))
		wantReceipts(t, f.settle(), want)
		f.stop(t)
	}
}

// followCurrent tests that current is a proof: at the time that it names, the store
// had no rule that was not given.
func followCurrent(t *testing.T, s revocation.Store) {
	receipts := appendTokens(t, s, "before", 50)
	returned := make([]time.Time, len(receipts)) // when Append returned; zero: before Follow was called
	f := follow(t, s, 0)
	if !f.waitFor(patience, func() bool { return len(f.currents) > 0 }) {
		t.Fatalf("Follow did not call current in %v", patience)
	}
	for i := range 30 {
		receipts = append(receipts, mustAppend(t, s, tokenRule("after-%d", i)))
		returned = append(returned, time.Now())
		time.Sleep(10 * time.Millisecond)
	}
	f.waitCurrent(t, len(receipts))
	wantReceipts(t, f.settle(), receipts)
	f.stop(t)
	for i, c := range f.currents {
		if c.at.After(c.called.Add(slack)) {
			t.Fatalf("Follow called current with the time %v, which is %v ahead", c.at, c.at.Sub(c.called))
		}
		for j := c.given; j < len(receipts); j++ {
			if returned[j].IsZero() {
				t.Fatalf("Follow called current after %d rules, but the store had 50 before", c.given)
			}
			if returned[j].Add(slack / 2).Before(c.at) {
				t.Fatalf("call %d of current names %v, but rule %d was appended %v earlier and was not given yet", i, c.at, j, c.at.Sub(returned[j]))
			}
		}
	}
}

func followEmpty(t *testing.T, s revocation.Store) {
	f := follow(t, s, 0)
	wantReceipts(t, f.waitCurrent(t, 0), nil)
	want := []revocation.Receipt{mustAppend(t, s, tokenRule("t"))}
	wantReceipts(t, f.waitCurrent(t, 1), want)
}

func followIdle(t *testing.T, s revocation.Store) {
	began := time.Now()
	receipts := appendTokens(t, s, "t", 3)
	f := follow(t, s, 0)
	f.waitCurrent(t, 3)
	time.Sleep(2*idle + 2*slack)
	wantReceipts(t, f.waitCurrent(t, 3), receipts)
	f.stop(t)
	last := f.currents[0].called
	for _, c := range append(f.currents[1:], proof{called: time.Now()}) {
		if gap := c.called.Sub(last); gap > idle+slack {
			t.Errorf("Follow did not call current for %v, want at least every %v", gap, idle)
		}
		last = c.called
	}
	for _, c := range f.currents {
		if c.at.Before(began.Add(-slack)) || c.called.Sub(c.at) > idle+slack {
			t.Errorf("Follow called current with the time %v, which is %v ago", c.at, c.called.Sub(c.at))
		}
	}
}

func followSoon(t *testing.T, s revocation.Store) {
	f := follow(t, s, 0)
	f.waitCurrent(t, 0)
	for i := range 5 {
		mustAppend(t, s, tokenRule("t-%d", i))
		if !f.waitFor(idle, func() bool { return len(f.given) == i+1 }) {
			t.Fatalf("Follow did not give rule %d in %v", i, idle)
		}
		time.Sleep(time.Duration(i) * 30 * time.Millisecond)
	}
}

func followSeveral(t *testing.T, s revocation.Store) {
	receipts := appendTokens(t, s, "before", 10)
	var followers []*follower
	for range 5 {
		followers = append(followers, follow(t, s, 0))
	}
	half := follow(t, s, receipts[4].Seq)
	for _, f := range followers {
		f.waitCurrent(t, len(receipts))
	}
	followers[0].stop(t) // The others go on.
	receipts = append(receipts, appendTokens(t, s, "after", 10)...)
	for _, f := range followers[1:] {
		f.waitCurrent(t, len(receipts))
		wantReceipts(t, f.settle(), receipts)
	}
	half.waitCurrent(t, len(receipts)-5)
	wantReceipts(t, half.settle(), receipts[5:])
}

func followDone(t *testing.T, s revocation.Store) {
	appendTokens(t, s, "t", 5)
	f := follow(t, s, 0)
	f.waitCurrent(t, 5)
	f.end()
	if !f.waitEnd(idle) {
		t.Errorf("Follow did not return in %v after its context was done", idle)
	}
	for _, limit := range []time.Duration{-time.Second, 100 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		f := &follower{end: cancel, done: make(chan struct{}), changed: make(chan struct{})}
		go func() {
			defer close(f.done)
			f.err = s.Follow(ctx, 0, f.apply, f.current)
		}()
		if !f.waitEnd(idle + max(limit, 0)) {
			t.Errorf("Follow did not return in %v after its context was done", idle)
		}
		f.wait(t, context.DeadlineExceeded)
		cancel()
	}
}

// followQuiet tests that a call of Follow that has returned gives nothing more.
func followQuiet(t *testing.T, s revocation.Store) {
	want := appendTokens(t, s, "t", 3)
	f := follow(t, s, 0)
	f.waitCurrent(t, 3)
	f.stop(t)
	calls := len(f.currents)
	other := follow(t, s, 0)
	appendTokens(t, s, "later", 3)
	other.waitCurrent(t, 6)
	time.Sleep(2 * slack)
	f.mu.Lock()
	defer f.mu.Unlock()
	wantReceipts(t, slices.Clone(f.given), want)
	if len(f.currents) != calls {
		t.Errorf("Follow called current after it returned")
	}
}
