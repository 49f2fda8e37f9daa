package revocationtest

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

// receiptsOf returns n receipts of another store, a minute old or older, with rules of
// all kinds.
func receiptsOf(t *testing.T, name string, n int) []revocation.Receipt {
	t.Helper()
	// A store may keep fewer digits than its own clock has, but it keeps those of At.
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)
	var receipts []revocation.Receipt
	for i := range n {
		value := name + "-" + strconv.Itoa(i)
		rule := revocation.Rule{Issuer: issuer, Reason: "moved", By: "ops"}
		switch i % 5 {
		case 0, 1:
			rule.Token = value
		case 2:
			rule.Client = value
		case 3:
			rule.Account, rule.Lift = value, true
		case 4:
			rule.Subject = value
		}
		at = at.Add(time.Millisecond)
		rule, err := rule.Complete(at)
		if err != nil {
			t.Fatal(err)
		}
		receipts = append(receipts, revocation.Receipt{Seq: uint64(1000 + 3*i), At: at, Rule: rule})
	}
	return receipts
}

// hashed returns the receipts as a List knows them, with moments of another zone.
func hashed(receipts []revocation.Receipt) []revocation.Receipt {
	zone := time.FixedZone("", 3600)
	receipts = slices.Clone(receipts)
	for i, r := range receipts {
		r.Rule = r.Rule.Hashed()
		r.At, r.Rule.Until = r.At.In(zone), r.Rule.Until.In(zone)
		if !r.Rule.IssuedBefore.IsZero() {
			r.Rule.IssuedBefore = r.Rule.IssuedBefore.In(zone)
		}
		receipts[i] = r
	}
	return receipts
}

func mustRefill(t *testing.T, s store, receipts []revocation.Receipt) {
	t.Helper()
	if err := s.Refill(limited(t), receipts); err != nil {
		t.Fatalf("Refill: %v", err)
	}
	if l, ok := s.Store.(interface{ Lost() bool }); ok && l.Lost() {
		t.Errorf("Lost reports true after Refill returned nil")
	}
}

func refillEmpty(t *testing.T, s store) {
	receipts := receiptsOf(t, "t", 3000)
	f := follow(t, s.Store, 0)
	mustRefill(t, s, receipts)
	f.waitCurrent(t, len(receipts))
	wantOnce(t, f.settle(), receipts, content)
	wantOnce(t, all(t, s.Store, len(receipts)), receipts, content)
	wantReceipts(t, all(t, s.Store, len(receipts)), f.given)
}

func refillLacking(t *testing.T, s store) {
	own := appendTokens(t, s.Store, "own", 5)
	others := receiptsOf(t, "t", 100)
	f := follow(t, s.Store, 0)
	mustRefill(t, s, append(others[:50:50], own[1:3]...))
	want := append(others[:50:50], own...)
	wantOnce(t, all(t, s.Store, len(want)), want, content)
	for _, again := range [][]revocation.Receipt{nil, own, others[:50], others[20:], others, append(others[98:], others[98:]...)} {
		mustRefill(t, s, again)
	}
	want = append(others, own...)
	wantOnce(t, all(t, s.Store, len(want)), want, content)
	f.waitCurrent(t, len(want))
	wantOnce(t, f.settle(), want, content)
	wantReceipts(t, f.given[:len(own)], own)
}

func refillHashed(t *testing.T, s store) {
	own := appendTokens(t, s.Store, "own", 5)
	own = append(own, mustAppend(t, s.Store, revocation.Rule{Issuer: issuer, Everything: true, Reason: "all of it"}))
	others := receiptsOf(t, "t", 20)
	mustRefill(t, s, hashed(own))
	mustRefill(t, s, others[:10])
	mustRefill(t, s, hashed(others))
	mustRefill(t, s, others)
	mustRefill(t, s, append(hashed(own), own...))
	want := slices.Concat(own, others[:10], hashed(others[10:]))
	wantOnce(t, all(t, s.Store, len(want)), want, content)
}

// refillDifferent has rules that are alike but for one thing.
func refillDifferent(t *testing.T, s store) {
	first := receiptsOf(t, "t", 3)[2] // a client
	change := func(f func(*revocation.Receipt)) revocation.Receipt {
		r := first
		f(&r)
		return r
	}
	want := []revocation.Receipt{
		first,
		change(func(r *revocation.Receipt) { r.At = r.At.Add(time.Microsecond) }),
		change(func(r *revocation.Receipt) { r.Rule.Lift = true }),
		change(func(r *revocation.Receipt) { r.Rule.IssuedBefore = r.Rule.IssuedBefore.Add(time.Second) }),
		change(func(r *revocation.Receipt) { r.Rule.Until = r.Rule.Until.Add(time.Second) }),
		change(func(r *revocation.Receipt) { r.Rule.Issuer += "2" }),
		change(func(r *revocation.Receipt) { r.Rule.Client, r.Rule.Account = "", r.Rule.Client }),
		change(func(r *revocation.Receipt) { r.Rule.Client, r.Rule.Everything = "", true }),
	}
	for i := range want {
		mustRefill(t, s, want[:i+1])
	}
	mustRefill(t, s, hashed(want))
	mustRefill(t, s, []revocation.Receipt{change(func(r *revocation.Receipt) { r.Seq, r.Rule.Reason, r.Rule.By = 1, "", "" })})
	wantOnce(t, all(t, s.Store, len(want)), want, content)
}

func refillConcurrently(t *testing.T, s store) {
	receipts := receiptsOf(t, "t", 200)
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			part := receipts[10*g : len(receipts)-10*g]
			if g%2 == 1 {
				part = hashed(part)
			}
			if err := s.Refill(t.Context(), part); err != nil {
				t.Errorf("Refill while others refill: %v", err)
			}
		})
	}
	wait.Wait()
	wantOnce(t, all(t, s.Store, len(receipts)), receipts, identity)
}

func refillWhileAppending(t *testing.T, s store) {
	receipts := receiptsOf(t, "r", 200)
	f := follow(t, s.Store, 0)
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			if err := s.Refill(t.Context(), receipts[:20*(i+1)]); err != nil {
				t.Errorf("Refill while others append: %v", err)
			}
		})
	}
	own := appendEach(t, s.Store, 5)
	wait.Wait()
	for _, each := range own {
		wantGrowing(t, each)
	}
	want := append(joined(own), receipts...)
	wantOnce(t, all(t, s.Store, len(want)), want, identity)
	f.waitCurrent(t, len(want))
	wantOnce(t, f.settle(), want, identity)
}

// refillThenAppend tests that a new rule is later than those of other stores, so that
// a lift ends them.
func refillThenAppend(t *testing.T, s store) {
	receipts := receiptsOf(t, "t", 5)
	receipts[2].At = time.Now().UTC().Add(time.Minute).Truncate(time.Microsecond) // of a clock that is ahead
	own := mustAppend(t, s.Store, tokenRule("own"))
	mustRefill(t, s, receipts)
	lift := mustAppend(t, s.Store, revocation.Rule{Issuer: issuer, Client: receipts[2].Rule.Client, Lift: true})
	if !lift.At.After(receipts[2].At) {
		t.Errorf("At of a new rule is %v, want it after that of a rule that was refilled: %v", lift.At, receipts[2].At)
	}
	got := all(t, s.Store, 7)
	wantOnce(t, got, append(receipts, own, lift), content)
	if last := got[len(got)-1]; describeReceipt(last) != describeReceipt(lift) {
		t.Errorf("the last rule is %s, want the one that was appended last", describeReceipt(last))
	}
}

func refillDone(t *testing.T, s store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	receipts := receiptsOf(t, "t", 10)
	if err := s.Refill(ctx, receipts); err == nil {
		t.Errorf("Refill with a context that is done returned no error")
	}
	mustRefill(t, s, receipts)
	wantOnce(t, all(t, s.Store, len(receipts)), receipts, content)
}

// replicas tests the counts, or that they are always 1 of 1, as in a store of one
// machine.
func replicas(t *testing.T, s store) {
	first := mustAppend(t, s.Store, tokenRule("first"))
	report := func(replica string, seq uint64, known, current int) {
		t.Helper()
		if err := s.Report(limited(t), replica, seq); err != nil {
			t.Fatalf("Report: %v", err)
		}
		gotKnown, gotCurrent, err := s.Replicas(limited(t))
		if err != nil {
			t.Fatalf("Replicas: %v", err)
		}
		if (gotKnown != known || gotCurrent != current) && (gotKnown != 1 || gotCurrent != 1) {
			t.Errorf("Replicas returned %d, %d; want %d, %d, or always 1, 1", gotKnown, gotCurrent, known, current)
		}
	}
	report("a", first.Seq, 1, 1)
	report("b", 0, 2, 1)
	report("b", first.Seq, 2, 2)
	second := mustAppend(t, s.Store, tokenRule("second"))
	report("a", second.Seq, 2, 1)
	report("b", second.Seq, 2, 2)
}
