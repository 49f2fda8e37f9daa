package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/bench/subjects"
)

// poolSize is the number of tokens that are sent in turn. Where tokens must be new, the cache is off or is replaced, so
// that none of them is found in it.
const poolSize = 1024

var trivial = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// bench is a run of the benchmark.
type bench struct {
	clock
	issuer *subjects.Issuer
	keys   *koreauth.RemoteKeySet      // the issuer's keys, shared by validators
	tokens map[string][]subjects.Token // by algorithm
	report *report
}

func newBench(ctx context.Context, c clock) (*bench, error) {
	issuer, err := subjects.NewIssuer()
	if err != nil {
		return nil, err
	}
	b := &bench{clock: c, issuer: issuer, tokens: map[string][]subjects.Token{}, report: &report{}}
	b.keys = &koreauth.RemoteKeySet{Issuer: issuer.URL}
	if _, err := b.keys.Keys(ctx, subjects.KeyID(subjects.RS256), true); err != nil {
		return nil, err
	}
	for _, algorithm := range []string{subjects.RS256, subjects.ES256, subjects.EdDSA} {
		b.tokens[algorithm], err = issuer.SignMany(poolSize, algorithm, func(int) subjects.Spec { return subjects.Spec{} })
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// guard returns koreauth's middleware. It panics if the config is wrong.
func (b *bench) guard(algorithm string, config koreauth.Config) func(http.Handler) http.Handler {
	guard, err := subjects.GuardWith(b.issuer.Setup(algorithm), config)
	if err != nil {
		panic(err)
	}
	return guard
}

// bare is the lower bound for a new token.
func (b *bench) bare(algorithm string, tokens []subjects.Token, valid bool) side {
	key := b.issuer.Public(algorithm)
	return side{name: "bare verification", worker: func() func(int) {
		k := next()
		return func(n int) {
			for range n {
				if subjects.Verify(key, &tokens[k%len(tokens)]) != valid {
					panic("the result of the bare verification is wrong")
				}
				k++
			}
		}
	}}
}

// newTokens measures new tokens of one algorithm with every subject.
func (b *bench) newTokens(ctx context.Context, algorithm string, atMost float64) error {
	tokens := b.tokens[algorithm]
	sides := []side{
		requests("koreauth", b.guard(algorithm, koreauth.Config{CacheSize: -1})(trivial), served, cycle(tokens)),
		b.cacheFilling(algorithm),
	}
	if algorithm == subjects.RS256 {
		full, err := b.cacheFull()
		if err != nil {
			return err
		}
		sides = append(sides, full)
	}
	for _, s := range subjects.Peers {
		guard, err := s.Guard(ctx, b.issuer.Setup(algorithm))
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		sides = append(sides, requests(s.Name, guard(trivial), served, cycle(tokens)))
	}
	base, each := b.against(b.bare(algorithm, tokens, true), sides...)

	ours := each[0]
	b.report.atMost(fmt.Sprintf("new token, %s: × bare", algorithm), ours.ratio, atMost, "%.3f")
	b.report.atMost(fmt.Sprintf("new token, %s, default cache: × bare", algorithm), each[1].ratio, atMost, "%.3f")
	if algorithm == subjects.RS256 {
		b.report.atMost("new token, RS256: allocations", exactly(ours.allocations), 20, "%.0f")
		b.report.atMost("new token, RS256: bytes", exactly(ours.octets), 4096, "%.0f")
	}
	slices.SortFunc(each, byRatio)
	b.report.newTokens = append(b.report.newTokens, comparison{algorithm, append([]measurement{base}, each...)})
	return nil
}

// cacheFilling has the default cache, which is empty at first. No token is sent twice.
func (b *bench) cacheFilling(algorithm string) side {
	return b.replacing("koreauth, default cache, filling", algorithm, func() http.Handler {
		return b.guard(algorithm, koreauth.Config{Keys: b.keys})(trivial)
	})
}

// cacheFull has a cache that is full of other tokens at first. Those have another algorithm, which signs faster.
func (b *bench) cacheFull() (side, error) {
	const size = 1024
	others, err := b.issuer.SignMany(2*size, subjects.EdDSA, func(int) subjects.Spec { return subjects.Spec{} })
	if err != nil {
		return side{}, err
	}
	config := koreauth.Config{Keys: b.keys, CacheSize: size, Algorithms: []string{subjects.RS256, subjects.EdDSA}}
	return b.replacing("koreauth, full cache", subjects.RS256, func() http.Handler {
		h := b.guard(subjects.RS256, config)(trivial)
		requests("koreauth, to fill the cache", h, served, cycle(others)).worker()(len(others))
		return h
	}), nil
}

// replacing sends the tokens to handlers that newHandler makes before each slice. No handler gets a token twice.
func (b *bench) replacing(name, algorithm string, newHandler func() http.Handler) side {
	var handlers [3]http.Handler
	sent := 0
	s := requests(name, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := handlers[sent/poolSize]
		sent++
		h.ServeHTTP(w, r)
	}), served, cycle(b.tokens[algorithm]))
	s.limit = len(handlers)*poolSize - 1 // the function memory sends one more
	s.prepare = func() {
		sent = 0
		for k := range handlers {
			handlers[k] = newHandler()
		}
	}
	return s
}

// cachedTokens measures a token that is sent again and again.
func (b *bench) cachedTokens() {
	token := b.tokens[subjects.RS256][0]
	base := b.lookup(b.tokens[subjects.RS256])
	guard := b.guard(subjects.RS256, koreauth.Config{})
	reading := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := koreauth.FromContext(r.Context())
		if !ok || claims.AccountID == "" || claims.ClientID == "" || len(claims.Resources) != 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	of, each := b.against(base,
		requests("koreauth", guard(trivial), served, same(token)),
		requests("koreauth, the handler reads the claims", guard(reading), served, same(token)),
	)

	cached, read := each[0], each[1]
	b.report.atMost("cached token: × SHA-256 and a map lookup", cached.ratio, 1.6, "%.3f")
	b.report.atMost("cached token: allocations", exactly(cached.allocations), 4, "%.0f")
	b.report.atMost("cached token, claims read with `FromContext`: µs", read.ns.times(1e-3), 2, "%.2f")
	b.report.cachedTokens = append([]measurement{of}, each...)
}

// lookup is the lower bound for a cached token.
func (b *bench) lookup(tokens []subjects.Token) side {
	cached := subjects.Cached{}
	for _, t := range tokens {
		cached.Add(&t)
	}
	return side{name: "SHA-256 and a map lookup", worker: func() func(int) {
		return func(n int) {
			for range n {
				if !cached.Has(&tokens[0]) {
					panic("the cached token is gone")
				}
			}
		}
	}}
}

// twoCores measures what a second core gains.
func (b *bench) twoCores() {
	tokens := b.tokens[subjects.RS256]
	bare := b.bare(subjects.RS256, tokens, true)
	fresh := requests("new", b.guard(subjects.RS256, koreauth.Config{CacheSize: -1})(trivial), served, cycle(tokens))
	cached := requests("cached", b.guard(subjects.RS256, koreauth.Config{})(trivial), served, same(tokens[0]))
	for _, s := range []side{fresh, cached} {
		of, ofBare, ratio := b.scaling(bare, s)
		what := fmt.Sprintf("two cores, %s token (%.2f × one core; bare %.2f ×): ratio of the gains", s.name, of.median, ofBare.median)
		b.report.atLeast(what, ratio, 0.95, "%.3f")
	}
}

// rejections measures requests that are rejected without verifying a signature, and counts requests to the issuer.
func (b *bench) rejections(ctx context.Context) error {
	garbage := strings.TrimRight(strings.Repeat(rand.Text(), 8192/26+1)[:8192], "=")
	forged := make([]subjects.Token, poolSize)
	for k := range forged {
		forged[k] = b.tokens[subjects.RS256][k].Forge(subjects.RS256)
	}
	header := func(value ...string) func(int) []string { return func(int) []string { return value } }
	kinds := []struct {
		what          string
		atMost        float64 // µs
		authorization func(int) []string
	}{
		{"no token", 0.4, header()},
		{"8 KB of garbage", 1.5, header("Bearer " + garbage)},
		{"8 KB of dots", 1.5, header("Bearer " + strings.Repeat(".", 8192))},
		{"unknown `kid`", 4, cycle(forged)},
	}
	for _, s := range append([]subjects.Subject{subjects.Koreauth}, subjects.Peers...) {
		guard, err := s.Guard(ctx, b.issuer.Setup(subjects.RS256))
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		guarded := guard(trivial)
		row := rejections{name: s.Name}
		// Fetch the keys first, as a server does that has run for a while.
		requests(s.Name, guarded, served, same(b.tokens[subjects.RS256][0])).worker()(1)
		for _, kind := range kinds {
			sent := 0
			counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sent++; guarded.ServeHTTP(w, r) })
			start, fetched := time.Now(), b.issuer.Fetches.Load()
			m := b.alone(requests(s.Name, counting, rejected, kind.authorization))
			fetches := int(b.issuer.Fetches.Load() - fetched)
			row.each = append(row.each, rejection{m, sent, fetches})
			if s.Name != subjects.Koreauth.Name {
				continue
			}
			b.report.atMost(kind.what+": µs", m.ns.times(1e-3), kind.atMost, "%.2f")
			// Three immediately, then one for each MinInterval, which is 10 s.
			allowed := 0.0
			if strings.Contains(kind.what, "kid") {
				allowed = 3 + float64(int(time.Since(start)/(10*time.Second)))
			}
			b.report.atMost(fmt.Sprintf("%s: fetches in %d requests", kind.what, sent), exactly(float64(fetches)), allowed, "%.0f")
		}
		b.report.rejections = append(b.report.rejections, row)
	}
	return nil
}

// badSignatures measures tokens with the ID of a known key that did not sign them.
func (b *bench) badSignatures(ctx context.Context) error {
	tokens, err := b.issuer.SignMany(poolSize/4, subjects.RS256, func(int) subjects.Spec { return subjects.Spec{Tamper: true} })
	if err != nil {
		return err
	}
	var sides []side
	fetches := map[string]int{}
	for _, s := range append([]subjects.Subject{subjects.Koreauth}, subjects.Peers...) {
		guard, err := s.Guard(ctx, b.issuer.Setup(subjects.RS256))
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		guarded := guard(trivial)
		requests(s.Name, guarded, served, same(b.tokens[subjects.RS256][0])).worker()(1)
		side := requests(s.Name, guarded, rejected, cycle(tokens))
		before := b.issuer.Fetches.Load()
		side.worker()(100)
		fetches[s.Name] = int(b.issuer.Fetches.Load() - before)
		sides = append(sides, side)
	}
	base, each := b.against(b.bare(subjects.RS256, tokens, false), sides...)

	b.report.atMost("bad signature, known key: × bare", each[0].ratio, 1.12, "%.3f")
	b.report.atMost("bad signature, known key: fetches in 100 requests", exactly(float64(fetches["koreauth"])), 3, "%.0f") // as for an unknown kid
	slices.SortFunc(each, byRatio)
	b.report.badSignatures, b.report.badSignatureFetches = append([]measurement{base}, each...), fetches
	return nil
}

// sizes measures whether many keys, cached tokens or routes make a request slower.
func (b *bench) sizes() error {
	const within = 1.10
	tokens := b.tokens[subjects.RS256]

	one := koreauth.StaticKeySet{{ID: subjects.KeyID(subjects.RS256), Algorithm: subjects.RS256, Public: b.issuer.Public(subjects.RS256)}}
	many := append(otherKeys(9_999), one...)
	for _, row := range []struct {
		what      string
		cacheSize int
		token     func(int) []string
	}{{"new", -1, cycle(tokens)}, {"cached", 0, same(tokens[0])}} {
		few := requests("1 key", b.guard(subjects.RS256, koreauth.Config{Keys: one, CacheSize: row.cacheSize})(trivial), served, row.token)
		all := requests("10,000 keys", b.guard(subjects.RS256, koreauth.Config{Keys: many, CacheSize: row.cacheSize})(trivial), served, row.token)
		_, each := b.against(few, all)
		b.report.atMost(fmt.Sprintf("10,000 keys in a `StaticKeySet`, %s token: × 1 key", row.what), each[0].ratio, within, "%.3f")
	}

	others, err := b.issuer.SignMany(9_999, subjects.EdDSA, func(int) subjects.Spec { return subjects.Spec{} })
	if err != nil {
		return err
	}
	config := koreauth.Config{Keys: b.keys, CacheSize: 20_000, Algorithms: []string{subjects.RS256, subjects.EdDSA}}
	alone, crowded := b.guard(subjects.RS256, config)(trivial), b.guard(subjects.RS256, config)(trivial)
	requests("others", crowded, served, cycle(others)).worker()(len(others))
	_, each := b.against(requests("alone", alone, served, same(tokens[0])), requests("crowded", crowded, served, same(tokens[0])))
	b.report.atMost("10,000 cached tokens, one in use: × 1 cached token", each[0].ratio, within, "%.3f")

	guard := b.guard(subjects.RS256, koreauth.Config{})
	_, each = b.against(routes(1, guard, tokens[0]), routes(1000, guard, tokens[0]))
	b.report.atMost("1,000 guarded routes, all in use: × 1 route", each[0].ratio, within, "%.3f")
	return nil
}

// otherKeys returns n keys that sign nothing. Their moduli are random numbers, because looking up a key needs no primes.
func otherKeys(n int) koreauth.StaticKeySet {
	keys := make(koreauth.StaticKeySet, n)
	for k := range keys {
		modulus := make([]byte, 256)
		rand.Read(modulus)
		modulus[0] |= 0x80
		modulus[255] |= 1
		keys[k] = koreauth.Key{
			ID:        subjects.KeyID(fmt.Sprint("other ", k)),
			Algorithm: subjects.RS256,
			Public:    &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537},
		}
	}
	return keys
}

// routes sends a cached token to n routes, one after the other.
func routes(n int, guard func(http.Handler) http.Handler, token subjects.Token) side {
	mux := http.NewServeMux()
	paths := make([]string, n)
	for k := range paths {
		paths[k] = fmt.Sprintf("/v1/things%04d", k)
		mux.Handle("GET "+paths[k], guard(trivial))
	}
	return side{name: fmt.Sprint(n, " routes"), worker: func() func(int) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = token.Header
		w := &discard{header: http.Header{}}
		k := next()
		return func(count int) {
			for range count {
				r.URL.Path = paths[k%n]
				k++
				w.reset()
				mux.ServeHTTP(w, r)
				if !served(w.status) {
					panic(fmt.Sprintf("%s responded with %d", r.URL.Path, w.status))
				}
			}
		}
	}}
}

// servers measures real servers on loopback.
func (b *bench) servers() error {
	tokens := b.tokens[subjects.RS256]
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	for _, row := range []struct {
		what       string
		atLeast    float64
		base, ours http.Handler
		tokens     []subjects.Token
	}{
		{"server, new tokens (%.0f/s; server that only verifies: %.0f/s): ratio", 0.93,
			subjects.OnlyVerifies(b.issuer.Public(subjects.RS256).(*rsa.PublicKey))(hello),
			b.guard(subjects.RS256, koreauth.Config{CacheSize: -1})(hello), tokens},
		{"server, cached token (%.0f/s; server without a guard: %.0f/s): ratio", 0.95,
			hello, b.guard(subjects.RS256, koreauth.Config{})(hello), tokens[:1]},
	} {
		base, err := newLoopback(row.base, row.tokens)
		if err != nil {
			return err
		}
		ours, err := newLoopback(row.ours, row.tokens)
		if err != nil {
			base.close()
			return err
		}
		ofBase, of, ratio, err := b.throughput(base, ours)
		base.close()
		ours.close()
		if err != nil {
			return err
		}
		b.report.atLeast(fmt.Sprintf(row.what, of.median, ofBase.median), ratio, row.atLeast, "%.3f")
	}
	return nil
}

// same returns the header of one token.
func same(t subjects.Token) func(int) []string { return func(int) []string { return t.Header } }
