package revocation_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
)

// oracle is the model in its simplest form: all receipts that arrived, each with the
// time at which it did.
type oracle []revocation.Receipt

// revokes says whether the rules that were not over when they arrived, at start,
// revoke a token now.
func (o oracle) revokes(c *koreauth.Claims, start, now time.Time) bool {
	hashes := o.hashes()
	for _, key := range []revocation.Rule{
		{Issuer: c.Issuer, Token: c.ID}, {Issuer: c.Issuer, Client: c.ClientID}, {Issuer: c.Issuer, Account: c.AccountID},
		{Issuer: c.Issuer, Subject: c.Subject}, {Issuer: c.Issuer, Everything: true},
	} {
		var same oracle
		for i, hash := range hashes {
			if hash == key.Hashed().Hash {
				same = append(same, o[i])
			}
		}
		later := func(a, b revocation.Receipt) bool { return a.At.After(b.At) || a.At.Equal(b.At) && a.Seq > b.Seq }
		var before, until time.Time
		any := false
		for _, r := range same {
			lifted := slices.ContainsFunc(same, func(l revocation.Receipt) bool { return l.Rule.Lift && later(l, r) })
			if r.Rule.Lift || lifted || !start.Before(r.Rule.Until.Add(5*time.Minute)) {
				continue
			}
			any = true
			if r.Rule.IssuedBefore.After(before) {
				before = r.Rule.IssuedBefore
			}
			if r.Rule.Until.After(until) {
				until = r.Rule.Until
			}
		}
		if any && now.Before(until.Add(5*time.Minute)) && (key.Token != "" || c.IssuedAt.IsZero() || !c.IssuedAt.After(before)) {
			return true
		}
	}
	return false
}

// hashes returns the hash of the key of each rule.
func (o oracle) hashes() (all []string) {
	for _, r := range o {
		all = append(all, r.Rule.Hashed().Hash)
	}
	return all
}

// entries returns how many keys have rules in force.
func (o oracle) entries(start, now time.Time) (n int) {
	keys := map[string]oracle{}
	for i, hash := range o.hashes() {
		keys[hash] = append(keys[hash], o[i])
	}
	for _, same := range keys {
		var until time.Time
		for _, r := range same {
			lifted := slices.ContainsFunc(same, func(l revocation.Receipt) bool {
				return l.Rule.Lift && (l.At.After(r.At) || l.At.Equal(r.At) && l.Seq > r.Seq)
			})
			if !r.Rule.Lift && !lifted && start.Before(r.Rule.Until.Add(5*time.Minute)) && r.Rule.Until.After(until) {
				until = r.Rule.Until
			}
		}
		if now.Before(until.Add(5 * time.Minute)) {
			n++
		}
	}
	return n
}

// world makes random rules about few tokens, so that they meet.
type world struct{ *rand.Rand }

func (w world) moment(center time.Time, spread time.Duration) time.Time {
	return center.Add(time.Duration(w.Int64N(int64(2*spread))) - spread).Truncate(spread / 4)
}

func (w world) rule() revocation.Rule {
	r := revocation.Rule{Issuer: []string{"a", "b"}[w.IntN(2)]}
	value := fmt.Sprint(w.IntN(2))
	switch w.IntN(6) {
	case 0, 1:
		r.Token = value
	case 2:
		r.Client = value
	case 3:
		r.Account = value
	case 4:
		r.Subject = value
	case 5:
		r.Everything = true
	}
	return r
}

func (w world) receipts(now time.Time) (all []revocation.Receipt) {
	at := now.Add(-30 * time.Minute)
	for seq := range uint64(w.IntN(12)) {
		at = at.Add(time.Duration(w.IntN(3)) * time.Minute) // also equal ones, of another store
		r := w.rule()
		r.Lift = w.IntN(4) == 0
		if w.IntN(2) == 0 {
			r.IssuedBefore = w.moment(now, time.Hour)
		}
		if w.IntN(2) == 0 {
			r.Until = w.moment(now, 20*time.Minute)
			if w.IntN(8) == 0 {
				r.Until = r.Until.AddDate(150, 0, 0) // more than the compact form has room for
			}
		}
		complete, err := r.Complete(at)
		if err != nil {
			continue
		}
		if w.IntN(3) == 0 {
			complete = complete.Hashed()
		}
		all = append(all, revocation.Receipt{Seq: seq + 1, At: at, Rule: complete})
	}
	return all
}

func (w world) claims(now time.Time) *koreauth.Claims {
	c := &koreauth.Claims{Issuer: []string{"a", "b"}[w.IntN(2)], ID: fmt.Sprint(w.IntN(2)), Expiry: now.AddDate(1, 0, 0)}
	for _, value := range []*string{&c.ClientID, &c.AccountID, &c.Subject} {
		if n := w.IntN(3); n < 2 {
			*value = fmt.Sprint(n)
		}
	}
	if w.IntN(4) > 0 {
		c.IssuedAt = w.moment(now, time.Hour)
	}
	return c
}

// arrival returns the receipts in another order, some of them twice, with another seq
// or as a hash, as a store gives them that was refilled.
func (w world) arrival(receipts []revocation.Receipt) []revocation.Receipt {
	all := slices.Clone(receipts)
	for _, r := range receipts {
		if w.IntN(3) == 0 {
			again := r
			if w.IntN(2) == 0 {
				again.Rule = r.Rule.Hashed()
			}
			all = append(all, again)
		}
	}
	w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func show(receipts []revocation.Receipt) string {
	var lines []string
	for _, r := range receipts {
		text, _ := json.Marshal(r)
		lines = append(lines, string(text))
	}
	return strings.Join(lines, "\n")
}

func TestList_GivesTheSameVerdictsInAnyOrder(t *testing.T) {
	sets := 3000
	if testing.Short() || raceDetector {
		sets = 500
	}
	synctest.Test(t, func(t *testing.T) {
		revoked := 0
		check := func(n int) {
			w := world{rand.New(rand.NewPCG(1, uint64(n)))}
			start := time.Now()
			receipts := w.receipts(start)
			var lists []*revocation.List
			for range 3 {
				list := &revocation.List{MaxStale: 24 * time.Hour}
				stop := follow(t, list, &fakeStore{giving(w.arrival(receipts)...)})
				synctest.Wait()
				stop()
				lists = append(lists, list)
			}
			for _, later := range []time.Duration{0, time.Duration(w.IntN(40)) * time.Minute} {
				time.Sleep(later)
				if n%2 == 0 {
					for _, list := range lists {
						if want := oracle(receipts).entries(start, time.Now()); list.Status().Entries != want {
							t.Fatalf("set %d, +%v: %d entries, want %d\n%s", n, later, list.Status().Entries, want, show(receipts))
						}
					}
				}
				for range 10 {
					c := w.claims(start)
					want := oracle(receipts).revokes(c, start, time.Now())
					for _, list := range lists {
						if isRevoked(t, list, c) != want {
							t.Fatalf("set %d, +%v: want revoked %v\n%s\n%v, ID %s, iat %v", n, later, want, show(receipts), c, c.ID, c.IssuedAt)
						}
					}
					if want {
						revoked++
					}
				}
			}
		}
		for n := range sets {
			check(n)
		}
		t.Logf("%d tokens were revoked", revoked)
	})
}

// TestList_GivesBackAllThatStoresGave mixes rules of a store with rules of Apply. What
// a list gives back to a store that lost rules must give other lists the verdicts of
// the store alone.
func TestList_GivesBackAllThatStoresGave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(n int) {
			w := world{rand.New(rand.NewPCG(2, uint64(n)))}
			start := time.Now()
			receipts := w.receipts(start)
			all := slices.Clone(receipts)
			list := &revocation.List{MaxStale: 24 * time.Hour}
			apply := func() {
				for range w.IntN(4) {
					r := w.rule()
					r.Lift = w.IntN(2) == 0
					require.NoError(t, list.Apply(r))
					r, err := r.Complete(time.Now())
					require.NoError(t, err)
					all = append(all, revocation.Receipt{At: start.Add(time.Duration(len(all))), Rule: r})
				}
			}
			if w.IntN(2) == 0 {
				apply()
			}
			store := &losingFleet{lost: true}
			store.follow = giving(w.arrival(receipts)...)
			stop := follow(t, list, store)
			synctest.Wait()
			apply()
			store.mu.Lock()
			store.lost, store.refills = true, nil
			store.mu.Unlock()
			pass(time.Second)
			stop()
			var given []revocation.Receipt
			if len(store.refilled()) > 0 {
				given = store.refilled()[0]
			}
			other := &revocation.List{MaxStale: 24 * time.Hour}
			stop = follow(t, other, &fakeStore{giving(w.arrival(given)...)})
			synctest.Wait()
			stop()
			for range 10 {
				c := w.claims(start)
				if want := oracle(all).revokes(c, start, time.Now()); isRevoked(t, list, c) != want {
					t.Fatalf("set %d, the list: want revoked %v\n%s\n%v, ID %s, iat %v", n, want, show(all), c, c.ID, c.IssuedAt)
				}
				if want := oracle(receipts).revokes(c, start, time.Now()); isRevoked(t, other, c) != want {
					t.Fatalf("set %d, the other: want revoked %v\n%s\n%s\n%v, ID %s, iat %v", n, want, show(all), show(given), c, c.ID, c.IssuedAt)
				}
			}
		}
		for n := range 1000 {
			check(n)
		}
	})
}
