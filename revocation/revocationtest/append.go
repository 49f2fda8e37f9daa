package revocationtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

// near reports whether two moments are the same, for clocks that differ a little.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < 10*time.Second }

// lifetime is how long a rule without Until is kept.
func lifetime(from time.Time) time.Time { return from.AddDate(0, 24, 1) }

func appendCompletes(t *testing.T, s revocation.Store) {
	began := time.Now()
	token := mustAppend(t, s, revocation.Rule{Issuer: issuer, Token: "t", IssuedBefore: began})
	client := mustAppend(t, s, revocation.Rule{Issuer: issuer, Client: "c"})
	past := mustAppend(t, s, revocation.Rule{Issuer: issuer, Everything: true, IssuedBefore: began.AddDate(-1, 0, 0)})
	until := mustAppend(t, s, revocation.Rule{Issuer: issuer, Subject: "s", Until: began.Add(time.Hour)})

	for _, r := range []revocation.Receipt{token, client, past, until} {
		if r.Seq == 0 {
			t.Errorf("Seq is 0, want at least 1: Follow from 0 gives the rules with a greater Seq")
		}
		if !near(r.At, began) {
			t.Errorf("At is %v, want about %v", r.At, began)
		}
	}
	if !token.Rule.IssuedBefore.IsZero() {
		t.Errorf("IssuedBefore of a rule with Token is %v, want the zero time", token.Rule.IssuedBefore)
	}
	if want := lifetime(token.At); !near(token.Rule.Until, want) {
		t.Errorf("Until of a rule with Token is %v, want 24 months and a day after At: %v", token.Rule.Until, want)
	}
	if got := client.Rule.IssuedBefore; !near(got, client.At) {
		t.Errorf("IssuedBefore of a rule without it is %v, want At: %v", got, client.At)
	}
	if want := lifetime(client.Rule.IssuedBefore); !client.Rule.Until.Equal(want) {
		t.Errorf("Until of a rule without it is %v, want 24 months and a day after IssuedBefore: %v", client.Rule.Until, want)
	}
	if want := lifetime(began.AddDate(-1, 0, 0)); !past.Rule.Until.Equal(want) {
		t.Errorf("Until of a rule with IssuedBefore is %v, want 24 months and a day after that: %v", past.Rule.Until, want)
	}
	if want := began.Add(time.Hour); !until.Rule.Until.Equal(want) {
		t.Errorf("Until is %v, want it as it was given: %v", until.Rule.Until, want)
	}
	wantReceipts(t, all(t, s, 4), []revocation.Receipt{token, client, past, until})
}

// wantGrowing fails unless Seq and At grow from each receipt to the next.
func wantGrowing(t *testing.T, receipts []revocation.Receipt) {
	t.Helper()
	for i := 1; i < len(receipts); i++ {
		last, r := receipts[i-1], receipts[i]
		if r.Seq <= last.Seq {
			t.Fatalf("Append returned Seq %d after %d, want it to grow", r.Seq, last.Seq)
		}
		if !r.At.After(last.At) {
			t.Fatalf("Append returned At %v after %v, want it to grow", r.At, last.At)
		}
	}
}

func appendGrows(t *testing.T, s revocation.Store) {
	receipts := appendTokens(t, s, "t", 30)
	// The same rule again is another receipt.
	for range 3 {
		receipts = append(receipts, mustAppend(t, s, tokenRule("t-0")))
	}
	wantGrowing(t, receipts)
	wantReceipts(t, all(t, s, len(receipts)), receipts)
}

func appendRejects(t *testing.T, s revocation.Store) {
	now := time.Now()
	long := strings.Repeat("x", 257)
	hash := tokenRule("t").Hashed().Hash
	for name, faulty := range map[string]revocation.Rule{
		"no selection":             {Issuer: issuer},
		"no issuer":                {Token: "t"},
		"nothing":                  {},
		"Token and Client":         {Issuer: issuer, Token: "t", Client: "c"},
		"Account and Subject":      {Issuer: issuer, Account: "a", Subject: "s"},
		"Everything and Token":     {Issuer: issuer, Token: "t", Everything: true},
		"Everything and Client":    {Issuer: issuer, Client: "c", Everything: true},
		"Hash and Token":           {Hash: hash, Token: "t"},
		"Hash and Issuer":          {Hash: hash, Issuer: issuer},
		"a Hash of no List":        {Hash: "token:1"},
		"IssuedBefore after Until": {Issuer: issuer, Client: "c", IssuedBefore: now, Until: now.Add(-1)},
		"Until in the past":        {Issuer: issuer, Client: "c", Until: now.Add(-time.Hour)},
		"a long Issuer":            {Issuer: long, Token: "t"},
		"a long Token":             {Issuer: issuer, Token: long},
		"a long Client":            {Issuer: issuer, Client: long},
		"a long Account":           {Issuer: issuer, Account: long},
		"a long Subject":           {Issuer: issuer, Subject: long},
	} {
		if _, err := s.Append(limited(t), faulty); err == nil {
			t.Errorf("Append of a rule with %s returned no error", name)
		}
	}
	wantReceipts(t, all(t, s, 0), nil)
	good := mustAppend(t, s, tokenRule("t"))
	wantReceipts(t, all(t, s, 1), []revocation.Receipt{good})
}

// appendEach appends n rules in each of eight goroutines, and returns the receipts of
// each.
func appendEach(t *testing.T, s revocation.Store, n int) [8][]revocation.Receipt {
	t.Helper()
	var receipts [8][]revocation.Receipt
	var wait sync.WaitGroup
	for g := range receipts {
		wait.Go(func() {
			for i := range n {
				r, err := s.Append(t.Context(), tokenRule("t-%d-%d", g, i))
				if err != nil {
					t.Errorf("Append while others append: %v", err)
					return
				}
				receipts[g] = append(receipts[g], r)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return receipts
}

// joined returns the receipts of all goroutines, in the order of Seq.
func joined(receipts [8][]revocation.Receipt) []revocation.Receipt {
	return sorted(slices.Concat(receipts[:]...))
}

func appendConcurrently(t *testing.T, s revocation.Store) {
	f := follow(t, s, 0)
	receipts := appendEach(t, s, 25)
	for _, own := range receipts {
		wantGrowing(t, own)
	}
	want := joined(receipts)
	wantGrowing(t, want)
	wantReceipts(t, all(t, s, len(want)), want)
	f.waitCurrent(t, len(want))
	wantReceipts(t, f.settle(), want)
}

func appendDone(t *testing.T, s revocation.Store) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{canceled, expired} {
		if _, err := s.Append(ctx, tokenRule("t")); !errors.Is(err, ctx.Err()) {
			t.Errorf("Append with a context that is done returned %v, want its error: %v", err, ctx.Err())
		}
	}
	wantReceipts(t, all(t, s, 0), nil)
}

// appendInterrupted lets contexts end at random moments of Append. A rule whose Append
// failed may be in the store all the same.
func appendInterrupted(t *testing.T, s revocation.Store) {
	var mu sync.Mutex
	var returned []revocation.Receipt
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 25 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(4*time.Millisecond))))
				r, err := s.Append(ctx, tokenRule("t-%d-%d", g, i))
				late := err != nil && ctx.Err() == nil
				cancel()
				mu.Lock()
				if err == nil {
					returned = append(returned, r)
				} else if late {
					t.Errorf("Append failed before its context was done: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	returned = append(returned, mustAppend(t, s, tokenRule("last")))
	returned = sorted(returned)
	wantGrowing(t, returned)

	got := all(t, s, len(returned))
	wantAscending(t, got)
	has, tokens := make(map[string]bool), make(map[string]bool)
	for _, r := range got {
		has[describeReceipt(r)] = true
		if tokens[r.Rule.Token] {
			t.Fatalf("the store has the rule for %q twice, but it was appended once", r.Rule.Token)
		}
		tokens[r.Rule.Token] = true
	}
	for _, r := range returned {
		if !has[describeReceipt(r)] {
			t.Fatalf("Append returned a receipt that the store does not have: %s", describeReceipt(r))
		}
	}
}
