// Package revocationtest tests implementations of [revocation.Store].
package revocationtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

const (
	issuer = "https://issuer.example/realms/test"

	// idle is how often Follow must call current, and how soon it must give a new
	// rule.
	idle = 2 * time.Second
	// slack is allowed for a busy machine, and for clocks that differ.
	slack = 250 * time.Millisecond
)

// patience is how long a test waits for anything else before it fails.
var patience = 10 * time.Second

// Conformance tests that a store does what [revocation.Store] promises, and, if it
// has their methods, what [revocation.Fleet] promises. It takes about ten seconds and
// a few thousand rules.
//
// Conformance calls open at the start of each subtest. open returns a store that is
// empty and that nothing else uses, and registers with t.Cleanup what closes it. A
// subtest uses that one value alone, from several goroutines at once.
func Conformance(t *testing.T, open func(*testing.T) revocation.Store) {
	run := func(name string, test func(*testing.T, revocation.Store)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("Append completes the rule", appendCompletes)
	run("Append grows Seq and At", appendGrows)
	run("Append rejects a faulty rule", appendRejects)
	run("Append is safe for concurrent use", appendConcurrently)
	run("Append fails if the context is done", appendDone)
	run("Append loses nothing if the context ends", appendInterrupted)

	run("Follow gives each field of a rule", followFields)
	run("Follow gives rules in order", followOrder)
	run("Follow gives the rules after a position", followFrom)
	run("Follow gives everything if the position is beyond the end", followBeyond)
	run("Follow continues where it ended", followAgain)
	run("Follow loses nothing while rules are appended", followWhileAppending)
	run("Follow calls current after all rules", followCurrent)
	run("Follow calls current for an empty store", followEmpty)
	run("Follow calls current while idle", followIdle)
	run("Follow gives a new rule soon", followSoon)
	run("Follow serves several followers", followSeveral)
	run("Follow returns if the context is done", followDone)
	run("Follow calls nothing after it returned", followQuiet)

	t.Run("Fleet", func(t *testing.T) {
		if _, ok := open(t).(revocation.Fleet); !ok {
			t.Skip("the store is no revocation.Fleet")
		}
		fleet := func(name string, test func(*testing.T, store)) {
			run := func(t *testing.T) {
				s := open(t)
				test(t, store{s, s.(revocation.Fleet)})
			}
			t.Run(name, run)
		}
		fleet("Refill fills an empty store and keeps At", refillEmpty)
		fleet("Refill appends what the store lacks", refillLacking)
		fleet("Refill knows a rule by its hash", refillHashed)
		fleet("Refill keeps rules apart that differ", refillDifferent)
		fleet("Refill appends once if several ask", refillConcurrently)
		fleet("Refill loses nothing while rules are appended", refillWhileAppending)
		fleet("Refill is followed by later rules", refillThenAppend)
		fleet("Refill fails if the context is done", refillDone)
		fleet("Replicas counts those that report", replicas)
	})
}

// store is a store with both interfaces.
type store struct {
	revocation.Store
	revocation.Fleet
}

// tokenRule returns a rule for one token.
func tokenRule(format string, args ...any) revocation.Rule {
	return revocation.Rule{Issuer: issuer, Token: fmt.Sprintf(format, args...)}
}

// limited returns a context that ends before the test does.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// mustAppend appends a valid rule.
func mustAppend(t *testing.T, s revocation.Store, r revocation.Rule) revocation.Receipt {
	t.Helper()
	receipt, err := s.Append(limited(t), r)
	if err != nil {
		t.Fatalf("Append of a valid rule: %v", err)
	}
	return receipt
}

// appendTokens appends n rules for tokens.
func appendTokens(t *testing.T, s revocation.Store, name string, n int) []revocation.Receipt {
	t.Helper()
	var receipts []revocation.Receipt
	for i := range n {
		receipts = append(receipts, mustAppend(t, s, tokenRule("%s-%d", name, i)))
	}
	return receipts
}

// describe returns the fields of a rule, with moments in UTC.
func describe(r revocation.Rule) string {
	moment := func(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
	return fmt.Sprintf("issuer %q token %q client %q account %q subject %q everything %t issued before %s until %s lift %t hash %q reason %q by %q",
		r.Issuer, r.Token, r.Client, r.Account, r.Subject, r.Everything, moment(r.IssuedBefore), moment(r.Until), r.Lift, r.Hash, r.Reason, r.By)
}

// content describes a receipt without its Seq.
func content(r revocation.Receipt) string {
	return "at " + r.At.UTC().Format(time.RFC3339Nano) + " " + describe(r.Rule)
}

func describeReceipt(r revocation.Receipt) string { return fmt.Sprintf("seq %d %s", r.Seq, content(r)) }

// identity describes what makes two receipts the same rule: At, and the rule without
// its Reason and By, whether or not it is hashed.
func identity(r revocation.Receipt) string {
	return content(revocation.Receipt{At: r.At, Rule: r.Rule.Hashed()})
}

// wantReceipts fails unless got has these receipts, in this order.
func wantReceipts(t *testing.T, got, want []revocation.Receipt) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("Follow gave %d rules, want %d: the first that lacks is %s", len(got), len(want), describeReceipt(want[i]))
		case i >= len(want):
			t.Fatalf("Follow gave %d rules, want %d: the first that is too many is %s", len(got), len(want), describeReceipt(got[i]))
		case describeReceipt(got[i]) != describeReceipt(want[i]):
			t.Fatalf("Follow gave as number %d\n     %s\nwant %s", i, describeReceipt(got[i]), describeReceipt(want[i]))
		}
	}
}

// wantAscending fails unless Seq grows from each receipt to the next.
func wantAscending(t *testing.T, receipts []revocation.Receipt) {
	t.Helper()
	for i := 1; i < len(receipts); i++ {
		if receipts[i].Seq <= receipts[i-1].Seq {
			t.Fatalf("Follow gave Seq %d after %d, want rules in the order of Seq", receipts[i].Seq, receipts[i-1].Seq)
		}
	}
}

// wantOnce fails unless got has each of the wanted rules once, and no other, in any
// order. by says what makes two rules the same.
func wantOnce(t *testing.T, got, want []revocation.Receipt, by func(revocation.Receipt) string) {
	t.Helper()
	wantAscending(t, got)
	count := make(map[string]int)
	for _, r := range got {
		count[by(r)]++
	}
	for _, r := range want {
		if n := count[by(r)]; n != 1 {
			t.Errorf("the store has a rule %d times, want 1: %s", n, by(r))
		}
		delete(count, by(r))
	}
	for r := range count {
		t.Errorf("the store has a rule that nobody appended: %s", r)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// sorted returns receipts in the order of Seq.
func sorted(receipts []revocation.Receipt) []revocation.Receipt {
	receipts = slices.Clone(receipts)
	slices.SortFunc(receipts, func(a, b revocation.Receipt) int {
		return int(min(max(int64(a.Seq)-int64(b.Seq), -1), 1))
	})
	return receipts
}
