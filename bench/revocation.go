package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/bench/subjects"
	"github.com/koreauth/koreauth/revocation"
)

const (
	revokedTokens = 1_000_000
	otherRules    = 10_000
	replicas      = 50
	deliveries    = 200
)

// revocation measures what a List of a million revoked tokens costs, how long it takes to load, and how long a rule
// takes to reach every replica.
func (b *bench) revocation(ctx context.Context) error {
	receipts := b.receipts()
	if err := b.checks(receipts); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "koreauth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := b.cacheFile(ctx, receipts, filepath.Join(folder, "cache")); err != nil {
		return fmt.Errorf("cache file: %w", err)
	}
	if err := b.file(ctx, receipts, filepath.Join(folder, "rules")); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return b.redis(ctx)
}

// file measures a store in a file.
func (b *bench) file(ctx context.Context, receipts []revocation.Receipt, path string) error {
	store := revocation.File(path)
	all, err := deliver(ctx, store)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("revocation, file: from `Append` until all of %d replicas reject", replicas)
	b.report.told(what+", median: ms", exactly(all[len(all)/2]), "%.1f")
	b.report.atMost(what+", p99: ms", exactly(all[len(all)*99/100]), 500, "%.1f")
	b.report.atMost(what+", longest: ms", exactly(all[len(all)-1]), 500, "%.1f")
	if err := store.(revocation.Fleet).Refill(ctx, receipts); err != nil {
		return err
	}
	seconds, err := timeLoad(ctx, new(revocation.List), store)
	b.report.atMost(fmt.Sprintf("revocation, file: %d rules are loaded, s", len(receipts)), exactly(seconds), 5, "%.2f")
	return err
}

// redis runs the benchmarks of the module contrib/koreredis, which no package imports.
func (b *bench) redis(ctx context.Context) error {
	if _, err := exec.LookPath("redis-server"); err != nil {
		b.report.told("revocation, Redis: not measured, because redis-server is not installed", exactly(0), "%.0f")
		return nil
	}
	metrics := map[string]float64{}
	for _, run := range [][]string{
		{"-bench", "AppendReaches50Lists", "-benchtime", fmt.Sprint(deliveries, "x")}, {"-bench", "Million", "-benchtime", "1x"},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-run", "^$"}, run...)...)
		cmd.Dir = filepath.Join("..", "contrib", "koreredis")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go test %v: %w\n%s", run, err, out)
		}
		fields := strings.Fields(string(out))
		for i := 1; i < len(fields); i++ {
			if value, err := strconv.ParseFloat(fields[i-1], 64); err == nil {
				metrics[fields[i]] = value
			}
		}
	}
	what := "revocation, Redis: from `Append` until all of 50 replicas reject"
	for _, row := range []struct {
		what, metric string
		limit        float64
	}{
		{what + ", median: ms", "reach-p50-ms", 50},
		{what + ", p99: ms", "reach-p99-ms", 50},
		{what + ", longest: ms", "reach-max-ms", 1000},
		{"revocation, Redis: 1000000 rules are loaded, s", "list-s", 5},
	} {
		value, ok := metrics[row.metric]
		if !ok {
			return fmt.Errorf("the benchmark of contrib/koreredis has no %s", row.metric)
		}
		b.report.atMost(row.what, exactly(value), row.limit, "%.1f")
	}
	return nil
}

// receipts returns rules for a million tokens and 10,000 other rules.
func (b *bench) receipts() []revocation.Receipt {
	all := make([]revocation.Receipt, 0, revokedTokens+otherRules)
	now := time.Now().Truncate(time.Microsecond)
	for n := range revokedTokens + otherRules {
		at := now.Add(time.Duration(n) * time.Microsecond)
		rule := revocation.Rule{Issuer: b.issuer.URL, Token: fmt.Sprintf("trrtcc:%08x-5a2b-4c3d-8e4f-%012x", uint32(n)*2654435761, n)}
		if n >= revokedTokens {
			name := fmt.Sprintf("kc_%032x", n)
			rule = []revocation.Rule{{Client: name}, {Account: name}, {Subject: name}}[n%3]
			rule.Issuer = b.issuer.URL
		}
		complete, err := rule.Complete(at)
		if err != nil {
			panic(err)
		}
		all = append(all, revocation.Receipt{Seq: uint64(n) + 1, At: at, Rule: complete})
	}
	return all
}

// checks measures remembered tokens with a full list, against a guard without one, and what the list takes.
func (b *bench) checks(receipts []revocation.Receipt) error {
	list := new(revocation.List)
	before := liveHeap()
	for rules := range slices.Chunk(receipts, 10_000) {
		batch := make([]revocation.Rule, len(rules))
		for i := range rules {
			batch[i] = rules[i].Rule
		}
		if err := list.Apply(batch...); err != nil {
			return err
		}
	}
	heap := float64(liveHeap()-before) / (1 << 20)
	b.report.atMost(fmt.Sprintf("revocation: heap of a list of %d tokens and %d other rules, MB", revokedTokens, otherRules), exactly(heap), 48, "%.1f")

	tokens := b.tokens[subjects.RS256]
	revoking := b.guard(subjects.RS256, koreauth.Config{Require: []koreauth.Requirement{list}})
	without := b.guard(subjects.RS256, koreauth.Config{})
	for _, row := range []struct {
		name  string
		token func(int) []string
		warm  int
	}{{"a remembered token", same(tokens[0]), 2}, {fmt.Sprintf("%d remembered tokens in turn", len(tokens)), cycle(tokens), 2 * len(tokens)}} {
		base := requests("without a list", without(trivial), served, row.token)
		with := requests("with a list", revoking(trivial), served, row.token)
		base.worker()(row.warm)
		with.worker()(row.warm)
		of, each := b.against(base, with)
		more := each[0].more(of)
		b.report.atMost(fmt.Sprintf("revocation, %s: ns more than without a list (%.0f)", row.name, of.ns.median), more, 500, "%.0f")
		b.report.atMost(fmt.Sprintf("revocation, %s: allocations more than without a list", row.name), exactly(each[0].allocations-of.allocations), 0, "%.0f")
	}
	runtime.KeepAlive(list)
	return nil
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // A sync.Pool is empty after two collections.
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// cacheFile measures loading a CacheFile while the store does not answer.
func (b *bench) cacheFile(ctx context.Context, receipts []revocation.Receipt, path string) error {
	store := revocation.Memory()
	if err := store.(revocation.Fleet).Refill(ctx, receipts); err != nil {
		return err
	}
	if _, err := timeLoad(ctx, &revocation.List{CacheFile: path}, store); err != nil { // which writes the file
		return err
	}
	seconds, err := timeLoad(ctx, &revocation.List{CacheFile: path}, silent{})
	b.report.atMost(fmt.Sprintf("revocation, `CacheFile`: %d rules are loaded, s", len(receipts)), exactly(seconds), 1, "%.2f")
	return err
}

// silent is a store that never answers.
type silent struct{}

func (silent) Append(context.Context, revocation.Rule) (revocation.Receipt, error) {
	return revocation.Receipt{}, errors.New("not supported")
}

func (silent) Follow(ctx context.Context, _ uint64, _ func(revocation.Receipt), _ func(time.Time)) error {
	<-ctx.Done()
	return ctx.Err()
}

// timeLoad returns how many seconds a list takes until it can be used. It ends following the store.
func timeLoad(ctx context.Context, list *revocation.List, store revocation.Store) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	ended := make(chan struct{})
	runtime.GC()
	start := time.Now()
	go func() { _ = list.Follow(ctx, store); close(ended) }()
	defer func() { cancel(); <-ended }()
	claims := &koreauth.Claims{Issuer: "https://issuer.example", ID: "none"}
	for list.Check(nil, claims) != nil {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("%w: %+v", ctx.Err(), list.Status())
		}
		time.Sleep(time.Millisecond)
	}
	seconds := time.Since(start).Seconds()
	if n := list.Status().Entries; n < revokedTokens+otherRules {
		return 0, fmt.Errorf("the list has %d entries only", n)
	}
	return seconds, nil
}

// deliver appends rules while many lists follow the store. It returns, in order, how many milliseconds after each
// Append the last list rejected the token.
func deliver(ctx context.Context, store revocation.Store) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	lists := make([]*revocation.List, replicas)
	ended := make(chan struct{}, replicas)
	for i := range lists {
		lists[i] = new(revocation.List)
		go func() { _ = lists[i].Follow(ctx, store); ended <- struct{}{} }()
	}
	defer func() {
		cancel()
		for range lists {
			<-ended
		}
	}()
	claims := &koreauth.Claims{Issuer: "https://issuer.example", ID: "none"}
	until := func(all func(*revocation.List) bool) error {
		for _, list := range lists {
			for !all(list) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		return nil
	}
	if err := until(func(l *revocation.List) bool { return l.Check(nil, claims) == nil }); err != nil {
		return nil, err
	}
	var took []float64
	for n := range deliveries {
		claims := &koreauth.Claims{Issuer: "https://issuer.example", ID: fmt.Sprint(n)}
		if _, err := store.Append(ctx, revocation.Rule{Issuer: claims.Issuer, Token: claims.ID}); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := until(func(l *revocation.List) bool { return errors.Is(l.Check(nil, claims), koreauth.ErrRevoked) }); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	slices.Sort(took)
	return took, nil
}
