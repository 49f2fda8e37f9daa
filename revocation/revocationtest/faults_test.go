package revocationtest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

type (
	ctx     = context.Context
	rule    = revocation.Rule
	receipt = revocation.Receipt
	applier = func(receipt)
	proof   = func(time.Time)
)

// faults has a row for each promise: a store that breaks it, the test that must find
// that, and what the test must say.
var faults = []struct {
	promise, test, says string
	make                func(*faulty)
}{
	// Append
	{"Seq is at least 1", "Append completes the rule", "Seq is 0", func(f *faulty) {
		f.change(func(r *receipt) { r.Seq-- })
	}},
	{"Seq grows", "Append grows Seq and At", "want it to grow", func(f *faulty) {
		f.change(func(r *receipt) { r.Seq = 1 })
	}},
	{"At grows", "Append grows Seq and At", "Append returned At", func(f *faulty) {
		f.change(func(r *receipt) { r.At = r.At.Truncate(time.Hour) })
	}},
	{"At is the time of Append", "Append completes the rule", "At is", func(f *faulty) {
		f.change(func(r *receipt) { r.At = r.At.Add(time.Hour) })
	}},
	{"the moments are filled in", "Append completes the rule", "IssuedBefore of a rule without it", func(f *faulty) {
		f.change(func(r *receipt) {
			if r.Rule.Client != "" {
				r.Rule.IssuedBefore = time.Time{}
			}
		})
	}},
	{"Until is 24 months and a day after IssuedBefore", "Append completes the rule", "Until of a rule with IssuedBefore", func(f *faulty) {
		f.changeRule(func(r *rule) {
			if r.Until.IsZero() {
				r.Until = time.Now().AddDate(0, 24, 1)
			}
		})
	}},
	{"Until is 24 months and a day after At for a token", "Append completes the rule", "Until of a rule with Token", func(f *faulty) {
		f.changeRule(func(r *rule) {
			if r.Token != "" && !r.IssuedBefore.IsZero() {
				r.Until = r.IssuedBefore.AddDate(1, 0, 0)
			}
		})
	}},
	{"a given Until is kept", "Append completes the rule", "want it as it was given", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Until = time.Time{} })
	}},
	{"a rule for a token has no IssuedBefore", "Append completes the rule", "IssuedBefore of a rule with Token", func(f *faulty) {
		f.change(func(r *receipt) { r.Rule.IssuedBefore = r.At })
	}},
	{"a faulty rule is an error", "Append rejects a faulty rule", "with Everything and Token returned no error", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) {
			stored, err := f.Store.Append(ctx, r)
			if err != nil && ctx.Err() == nil {
				return receipt{}, nil
			}
			return stored, err
		}
	}},
	{"a long value is an error", "Append rejects a faulty rule", "a rule with a long Token returned no error", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Token = r.Token[:min(len(r.Token), 256)] })
	}},
	{"a rule without a selection is an error", "Append rejects a faulty rule", "no selection returned no error", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Everything = r.Everything || r.Token+r.Client+r.Account+r.Subject+r.Hash == "" })
	}},
	{"Everything with a selection is an error", "Append rejects a faulty rule", "Everything and Client returned no error", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Everything = r.Everything && r.Client == "" })
	}},
	{"an IssuedBefore after Until is an error", "Append rejects a faulty rule", "IssuedBefore after Until returned no error", func(f *faulty) {
		f.changeRule(func(r *rule) {
			if !r.Until.IsZero() && r.IssuedBefore.After(r.Until) {
				r.Until = r.IssuedBefore
			}
		})
	}},
	{"a faulty rule is not stored", "Append rejects a faulty rule", "too many", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) {
			stored, err := f.Store.Append(ctx, r)
			if err != nil && ctx.Err() == nil {
				_, _ = f.Store.Append(ctx, rule{Issuer: "i", Token: "instead"})
			}
			return stored, err
		}
	}},
	{"a stored rule is given", "Append is safe for concurrent use", "want 200 rules", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if r.Seq%60 != 0 {
					apply(r)
				}
			}, current)
		}
	}},
	{"Append is safe for concurrent use", "Append is safe for concurrent use", "Append returned Seq", func(f *faulty) {
		var busy atomic.Int32
		var last atomic.Pointer[receipt]
		f.append = func(ctx ctx, r rule) (receipt, error) {
			defer busy.Add(-1)
			if busy.Add(1) > 1 && last.Load() != nil {
				return *last.Load(), nil
			}
			stored, err := f.Store.Append(ctx, r)
			last.Store(&stored)
			<-time.After(time.Millisecond) // as a slow store
			return stored, err
		}
	}},
	{"the order of Seq is the order of Append", "Append is safe for concurrent use", "Append returned At", func(f *faulty) {
		f.change(func(r *receipt) {
			if r.Seq%2 == 0 {
				r.At = r.At.Add(-time.Second)
			}
		})
	}},
	{"Append does nothing if the context is done", "Append fails if the context is done", "want its error", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) { return f.Store.Append(context.WithoutCancel(ctx), r) }
	}},
	{"Append returns the error of the context", "Append fails if the context is done", "want its error", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) {
			if ctx.Err() != nil {
				return receipt{}, errors.New("closed")
			}
			return f.Store.Append(ctx, r)
		}
	}},
	{"Append stores nothing if the context is done", "Append fails if the context is done", "too many", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) {
			stored, err := f.Store.Append(context.WithoutCancel(ctx), r)
			return stored, errors.Join(err, ctx.Err())
		}
	}},
	{"an Append that returned is kept if the context ends", "Append loses nothing if the context ends", "and current after them", func(f *faulty) {
		var lost sync.Map
		f.append = func(ctx ctx, r rule) (receipt, error) {
			stored, err := f.Store.Append(ctx, r)
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < time.Millisecond {
				lost.Store(stored.Seq, true)
			}
			return stored, err
		}
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if _, ok := lost.Load(r.Seq); !ok {
					apply(r)
				}
			}, current)
		}
	}},
	{"a rule is stored once if the context ends", "Append loses nothing if the context ends", "twice", func(f *faulty) {
		f.append = func(ctx ctx, r rule) (receipt, error) {
			stored, err := f.Store.Append(ctx, r)
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < time.Millisecond {
				return f.Store.Append(context.WithoutCancel(ctx), r)
			}
			return stored, err
		}
	}},
	{"Append fails only if it must", "Append loses nothing if the context ends", "before its context was done", func(f *faulty) {
		var busy atomic.Int32
		f.append = func(ctx ctx, r rule) (receipt, error) {
			defer busy.Add(-1)
			if busy.Add(1) > 1 {
				return receipt{}, errors.New("locked")
			}
			<-time.After(100 * time.Microsecond) // as a slow store
			return f.Store.Append(ctx, r)
		}
	}},
	{"the receipt has the At that Follow gives", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.At = r.At.Add(1) })
	}},
	{"the receipt has the Seq that Follow gives", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.Seq++ })
	}},

	// Fields
	{"nanoseconds are kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) {
			r.IssuedBefore, r.Until = r.IssuedBefore.Truncate(time.Microsecond), r.Until.Truncate(time.Microsecond)
		})
	}},
	{"nanoseconds are given", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.Rule.Until = r.Rule.Until.Truncate(time.Microsecond) })
	}},
	{"time zones are kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) {
			_, offset := r.IssuedBefore.Zone()
			r.IssuedBefore = r.IssuedBefore.Add(time.Duration(offset) * time.Second)
		})
	}},
	{"distant years are kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) {
			if r.Until.Year() > 2200 {
				r.Until = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
			}
		})
	}},
	{"Reason is kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Reason = "" })
	}},
	{"a long Reason is kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Reason = r.Reason[:min(len(r.Reason), 4096)] })
	}},
	{"By is kept", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.Rule.By = "" })
	}},
	{"Hash is kept", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.Rule.Hash = strings.ToUpper(r.Rule.Hash) })
	}},
	{"Lift is kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Lift = false })
	}},
	{"Everything is kept", "Follow gives each field of a rule", "Follow gave as number", func(f *faulty) {
		f.changeGiven(func(r *receipt) { r.Rule.Everything = false })
	}},
	{"quotes and backslashes are kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Token = strings.ReplaceAll(r.Token, `\`, "") })
	}},
	{"signs of HTML are kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Client = strings.ReplaceAll(r.Client, "&", "&amp;") })
	}},
	{"Unicode is kept", "Follow gives each field of a rule", "another rule", func(f *faulty) {
		f.changeRule(func(r *rule) {
			r.Issuer = strings.Map(func(c rune) rune { return min(c, 0xffff) }, r.Issuer)
		})
	}},
	{"spaces are kept", "Follow gives each field of a rule", "no tokens", func(f *faulty) {
		f.changeRule(func(r *rule) { r.Token = strings.TrimSpace(r.Token) })
	}},

	// Follow
	{"the oldest rule comes first", "Follow gives rules in order", "Follow gave as number 0", func(f *faulty) {
		var collect sync.Mutex
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			var batch []receipt
			return f.Store.Follow(ctx, from, func(r receipt) { collect.Lock(); batch = append(batch, r); collect.Unlock() }, func(at time.Time) {
				slices.Reverse(batch)
				for _, r := range batch {
					apply(r)
				}
				batch = nil
				current(at)
			})
		}
	}},
	{"new rules are given", "Follow gives rules in order", "Follow gave 50 rules", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			loaded := false
			return f.Store.Follow(ctx, from, func(r receipt) {
				if !loaded {
					apply(r)
				}
			}, func(at time.Time) { loaded = true; current(at) })
		}
	}},
	{"only rules after the position are given", "Follow gives the rules after a position", "Follow gave", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, max(from, 1)-1, apply, current)
		}
	}},
	{"the position is used", "Follow gives the rules after a position", "Follow gave", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, 0, apply, current)
		}
	}},
	{"the rule after the position is given", "Follow gives the rules after a position", "Follow gave", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if from == 0 || r.Seq != from+1 {
					apply(r)
				}
			}, current)
		}
	}},
	{"everything is given from beyond the end", "Follow gives everything if the position is beyond the end", "Follow gave 0 rules", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, 0, func(r receipt) {
				if r.Seq > from {
					apply(r)
				}
			}, current)
		}
	}},
	{"Follow continues where it ended", "Follow continues where it ended", "Follow gave as number 3", func(f *faulty) {
		var last atomic.Uint64
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			if from > 0 && from == last.Load() {
				from-- // The last rule is given again.
			}
			return f.Store.Follow(ctx, from, func(r receipt) { last.Store(r.Seq); apply(r) }, current)
		}
	}},
	{"no rule is lost between those that are loaded and new ones", "Follow loses nothing while rules are appended", "Follow gave", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			calls, skip := 0, false
			return f.Store.Follow(ctx, from, func(r receipt) {
				if !skip {
					apply(r)
				}
				skip = false
			}, func(at time.Time) { calls++; skip = calls == 1; current(at) })
		}
	}},
	{"no rule is given twice", "Follow loses nothing while rules are appended", "Follow gave as number", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			calls := 0
			return f.Store.Follow(ctx, from, func(r receipt) {
				if apply(r); calls == 1 {
					apply(r)
				}
			}, func(at time.Time) { calls++; current(at) })
		}
	}},
	{"current is called after all rules", "Follow calls current after all rules", "the store had 50 before", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			current(time.Now())
			return f.Store.Follow(ctx, from, apply, current)
		}
	}},
	{"current is called after the last page", "Follow calls current after all rules", "the store had 50 before", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if apply(r); r.Seq == 32 {
					current(time.Now())
				}
			}, current)
		}
	}},
	{"current names a time at which there was no other rule", "Follow calls current after all rules", "and was not given yet", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if r.Seq > 50 && r.Seq%10 == 1 {
					<-time.After(200 * time.Millisecond) // as a slow store
					current(time.Now())
				}
				apply(r)
			}, current)
		}
	}},
	{"current names no time ahead", "Follow calls current after all rules", "ahead", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, apply, func(at time.Time) { current(at.Add(time.Second)) })
		}
	}},
	{"current is called for an empty store", "Follow calls current for an empty store", "called current 0 times", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			given := 0
			return f.Store.Follow(ctx, from, func(r receipt) { given++; apply(r) }, func(at time.Time) {
				if given > 0 {
					current(at)
				}
			})
		}
	}},
	{"current is called while idle", "Follow calls current while idle", "did not call current for", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			called := false
			return f.Store.Follow(ctx, from, func(r receipt) { called = false; apply(r) }, func(at time.Time) {
				if !called {
					current(at)
				}
				called = true
			})
		}
	}},
	{"current is called every two seconds", "Follow calls current while idle", "did not call current for", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			calls := 0
			return f.Store.Follow(ctx, from, apply, func(at time.Time) {
				if calls++; calls%3 == 1 {
					current(at)
				}
			})
		}
	}},
	{"current names a time", "Follow calls current while idle", "ago", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, apply, func(time.Time) { current(time.Time{}) })
		}
	}},
	{"current names the present", "Follow calls current while idle", "ago", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			began := time.Now()
			return f.Store.Follow(ctx, from, apply, func(time.Time) { current(began) })
		}
	}},
	{"nothing is given again while idle", "Follow calls current while idle", "too many", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			var last *receipt
			calls := 0
			return f.Store.Follow(ctx, from, func(r receipt) { last = &r; apply(r) }, func(at time.Time) {
				if calls++; calls == 3 && last != nil {
					apply(*last)
				}
				current(at)
			})
		}
	}},
	{"a new rule is given soon", "Follow gives a new rule soon", "did not give rule 0", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) { time.Sleep(3 * time.Second); apply(r) }, current)
		}
	}},
	{"each follower is given each rule", "Follow serves several followers", "Follow gave", func(f *faulty) {
		var taken sync.Map
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if _, other := taken.LoadOrStore(r.Seq, true); !other {
					apply(r)
				}
			}, current)
		}
	}},
	{"followers end alone", "Follow serves several followers", "Follow gave", func(f *faulty) {
		shared, cancel := context.WithCancel(context.Background())
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			context.AfterFunc(ctx, cancel)
			err := f.Store.Follow(shared, from, apply, current)
			<-ctx.Done()
			return err
		}
	}},
	{"Follow returns when the context is done", "Follow returns if the context is done", "did not return", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(context.WithoutCancel(ctx), from, apply, func(at time.Time) {
				if ctx.Err() == nil {
					current(at)
				}
			})
		}
	}},
	{"Follow returns an error", "Follow returns if the context is done", "Follow returned <nil>", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			_ = f.Store.Follow(ctx, from, apply, current)
			return nil
		}
	}},
	{"Follow returns the error of the context", "Follow returns if the context is done", "want the error of its context: context deadline exceeded", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			_ = f.Store.Follow(ctx, from, apply, current)
			return context.Canceled
		}
	}},
	{"Follow gives nothing after it returned", "Follow calls nothing after it returned", "too many", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			go func() { _ = f.Store.Follow(context.WithoutCancel(ctx), from, apply, current) }()
			<-ctx.Done()
			return ctx.Err()
		}
	}},
	{"apply and current do not overlap", "Follow gives rules in order", "while another call was running", func(f *faulty) {
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			var wait sync.WaitGroup
			defer wait.Wait()
			return f.Store.Follow(ctx, from, func(r receipt) {
				if r.Seq%10 == 0 {
					wait.Go(func() { current(time.Time{}) })
				}
				apply(r)
			}, current)
		}
	}},

	// Fleet
	{"Refill keeps At", "Fleet/Refill fills an empty store and keeps At", "the store has a rule 0 times", func(f *faulty) {
		f.refill = func(ctx ctx, receipts []receipt) error {
			for _, r := range receipts {
				if _, err := f.Store.Append(ctx, r.Rule); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"Refill appends all of the receipts", "Fleet/Refill fills an empty store and keeps At", "want 3000 rules", func(f *faulty) {
		f.refill = func(ctx ctx, receipts []receipt) error {
			return f.Fleet.Refill(ctx, receipts[:min(len(receipts), 1000)])
		}
	}},
	{"Refill keeps Reason and By", "Fleet/Refill fills an empty store and keeps At", "the store has a rule 0 times", func(f *faulty) {
		f.refill = func(ctx ctx, receipts []receipt) error {
			receipts = slices.Clone(receipts)
			for i := range receipts {
				receipts[i].Rule.Reason = ""
			}
			return f.Fleet.Refill(ctx, receipts)
		}
	}},
	{"Refill gives new numbers", "Fleet/Refill fills an empty store and keeps At", "in the order of Seq", func(f *faulty) {
		f.changeGiven(func(r *receipt) {
			if r.Rule.Reason == "moved" {
				r.Seq = 3000 - r.Seq
			}
		})
	}},
	{"Lost is false after Refill", "Fleet/Refill fills an empty store and keeps At", "Lost reports true", func(f *faulty) {
		f.lost = func() bool { return true }
	}},
	{"Refill appends only what lacks", "Fleet/Refill appends what the store lacks", "the store has a rule 2 times", func(f *faulty) {
		f.hideCopies()
		f.refill = func(ctx ctx, receipts []receipt) error {
			for _, r := range receipts {
				if _, err := f.refillAlways(ctx, r); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"Refill appends to a store with rules", "Fleet/Refill appends what the store lacks", "want 55 rules", func(f *faulty) {
		filled := false
		f.append = func(ctx ctx, r rule) (receipt, error) { filled = true; return f.Store.Append(ctx, r) }
		f.refill = func(ctx ctx, receipts []receipt) error {
			if filled {
				return nil
			}
			return f.Fleet.Refill(ctx, receipts)
		}
	}},
	{"a rule and its hash are the same", "Fleet/Refill knows a rule by its hash", "a rule that nobody appended", func(f *faulty) {
		f.hideCopies()
		f.refill = func(ctx ctx, receipts []receipt) error {
			for _, r := range receipts {
				var err error
				if r.Rule.Hash != "" {
					_, err = f.refillAlways(ctx, r)
				} else {
					err = f.Fleet.Refill(ctx, []receipt{r})
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"rules that differ in one thing are two", "Fleet/Refill keeps rules apart that differ", "want 8 rules", func(f *faulty) {
		keys := make(map[string]bool)
		f.refill = func(ctx ctx, receipts []receipt) error {
			for _, r := range receipts {
				if key := r.Rule.Hashed().Hash; !keys[key] {
					keys[key] = true
					if err := f.Fleet.Refill(ctx, []receipt{r}); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}},
	{"of all that ask one appends", "Fleet/Refill appends once if several ask", "times, want 1", func(f *faulty) {
		f.hideCopies()
		var done sync.Map
		f.refill = func(ctx ctx, receipts []receipt) error {
			for _, r := range receipts {
				id := r.Rule.Hashed().Hash
				_, has := done.Load(id)
				time.Sleep(10 * time.Microsecond)
				if has {
					continue
				}
				if _, err := f.refillAlways(ctx, r); err != nil {
					return err
				}
				done.Store(id, true)
			}
			return nil
		}
	}},
	{"Refill and Append at once lose nothing", "Fleet/Refill loses nothing while rules are appended", "the store has a rule 0 times", func(f *faulty) {
		var refilling atomic.Int32
		var lost sync.Map
		f.refill = func(ctx ctx, receipts []receipt) error {
			refilling.Add(1)
			<-time.After(time.Millisecond) // as a slow store
			defer refilling.Add(-1)
			return f.Fleet.Refill(ctx, receipts)
		}
		f.append = func(ctx ctx, r rule) (receipt, error) {
			during := refilling.Load() > 0
			stored, err := f.Store.Append(ctx, r)
			if during {
				lost.Store(stored.Seq, true)
			}
			<-time.After(time.Millisecond) // as a slow store
			return stored, err
		}
		f.follow = func(ctx ctx, from uint64, apply applier, current proof) error {
			return f.Store.Follow(ctx, from, func(r receipt) {
				if _, ok := lost.Load(r.Seq); ok {
					r.Rule.Token = "lost"
				}
				apply(r)
			}, current)
		}
	}},
	{"a new rule is later than a refilled one", "Fleet/Refill is followed by later rules", "want it after that of a rule that was refilled", func(f *faulty) {
		f.change(func(r *receipt) {
			if r.Rule.Lift && r.At.After(time.Now()) {
				r.At = time.Now()
			}
		})
	}},
	{"Refill heeds the context", "Fleet/Refill fails if the context is done", "returned no error", func(f *faulty) {
		f.refill = func(ctx ctx, receipts []receipt) error {
			return f.Fleet.Refill(context.WithoutCancel(ctx), receipts)
		}
	}},
	{"replicas are counted", "Fleet/Replicas counts those that report", "Replicas returned 3, 3", func(f *faulty) {
		reports := 0
		f.report = func(ctx, string, uint64) error { reports++; return nil }
		f.counts = func(ctx) (known, current int, err error) { return reports, reports, nil }
	}},
	{"replicas that are late are not current", "Fleet/Replicas counts those that report", "Replicas returned 2, 2", func(f *faulty) {
		seen := make(map[string]bool)
		f.report = func(_ ctx, replica string, _ uint64) error { seen[replica] = true; return nil }
		f.counts = func(ctx) (known, current int, err error) { return len(seen), len(seen), nil }
	}},
	{"Report works", "Fleet/Replicas counts those that report", "Report: broken", func(f *faulty) {
		f.report = func(ctx, string, uint64) error { return errors.New("broken") }
	}},
}

// refillAlways appends a receipt even if the inner store has it: at a moment a little
// later, which hideCopies takes back for the followers.
func (f *faulty) refillAlways(ctx ctx, r receipt) (receipt, error) {
	f.again.Lock()
	defer f.again.Unlock()
	original := r.At
	for range 10 { // also past the rules that Append stored
		r.At = r.At.Add(1)
		for f.copies[r.At.UnixNano()] != (time.Time{}) {
			r.At = r.At.Add(1)
		}
	}
	f.copies[r.At.UnixNano()] = original
	return r, f.Fleet.Refill(ctx, []receipt{r})
}

func (f *faulty) hideCopies() {
	f.copies = make(map[int64]time.Time)
	f.changeGiven(func(r *receipt) {
		f.again.Lock()
		defer f.again.Unlock()
		if at, ok := f.copies[r.At.UnixNano()]; ok {
			r.At = at
		}
	})
}
