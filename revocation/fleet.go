package revocation

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/redact"
)

const (
	reportEvery   = 5 * time.Second
	lostEvery     = time.Second // how often a store is asked whether it lost rules
	reportTimeout = 5 * time.Second
	refillTimeout = 5 * time.Minute
	refillPause   = time.Second // after one that failed; each further failure doubles it
	longestRefill = 5 * time.Minute
)

// member is what a list does for a store that replicas share: it reports how far it
// is, and gives back what the store lacks.
type member struct {
	*following
	fleet Fleet
	// gaveCache: the store was given all rules, also those of the cache file.
	gaveCache bool
}

// replica is the name of a list in reports.
type replica struct {
	once sync.Once
	name string
}

func (r *replica) text() string {
	r.once.Do(func() { r.name = rand.Text() })
	return r.name
}

// run ends when ctx is done.
func (m *member) run(ctx context.Context) {
	tick := time.NewTicker(lostEvery)
	defer tick.Stop()
	var reported, again time.Time
	pause := refillPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.current:
			again = time.Time{} // It was connected to anew.
		case <-tick.C:
		}
		if !m.list.fresh.isCurrent(m.feed) {
			continue
		}
		if !time.Now().Before(again) {
			err := m.refill(ctx)
			if err == nil {
				pause = refillPause
			} else if ctx.Err() == nil {
				again = time.Now().Add(pause)
				pause = min(2*pause, longestRefill)
				m.warn("refill", "revocation: the store lacks rules that this list has, and they could not be given back; allow this process to write to the store", err)
			}
		}
		if time.Since(reported) >= reportEvery {
			reported = time.Now()
			if err := m.report(ctx); err != nil && ctx.Err() == nil {
				m.warn("report", "revocation: this replica could not report how far it is", err)
			}
		}
	}
}

func (m *member) warn(subject, message string, err error) {
	m.list.journal.warn(m.list.Logger, subject, message, slog.String("cause", redact.Text(err.Error())))
}

func (m *member) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	return guarded(func() error { return m.fleet.Report(ctx, m.list.replica.text(), m.list.fresh.from(m.feed)) })
}

// guarded calls a method of a store, whose panic is an error.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("revocation: the store panicked with a %T", p)
		}
	}()
	return call()
}

// refill gives the store what it may lack.
func (m *member) refill(ctx context.Context) error {
	lost := false
	if l, ok := m.fleet.(losing); ok {
		if err := guarded(func() error { lost = l.Lost(); return nil }); err != nil {
			return err
		}
	}
	owed, all := m.list.fresh.take(m.feed)
	fromCache := !m.gaveCache && m.list.rules.hasForeign()
	if all = all || lost || fromCache; !all && len(owed) == 0 {
		return nil
	}
	receipts := owed
	if all {
		receipts = m.list.rules.receipts()
	}
	if len(receipts) == 0 {
		return nil // There is nothing that it could lack.
	}
	ctx, cancel := context.WithTimeout(ctx, refillTimeout)
	defer cancel()
	err := guarded(func() error { return m.fleet.Refill(ctx, receipts) })
	if err != nil {
		m.list.fresh.owe(m.feed) // Try again with all.
		return err
	}
	if all {
		m.gaveCache = true
		m.list.journal.log(m.list.Logger, slog.LevelWarn, "revocation: gave the store the rules of this list, because it may have lost some", slog.Int("rules", len(receipts)))
	}
	return nil
}

// receipts returns all rules that are not from Apply, oldest first.
func (s *ruleSet) receipts() []Receipt {
	var rules []sharedRule
	s.export(func(r *sharedRule) { rules = append(rules, *r) })
	slices.SortFunc(rules, func(a, b sharedRule) int { return a.compare(&b.heldRule) })
	receipts := make([]Receipt, len(rules))
	for i := range rules {
		receipts[i] = rules[i].receipt()
	}
	return receipts
}
