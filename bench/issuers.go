package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/bench/subjects"
)

// issuers measures what several issuers cost: a new and a remembered token with 10 and with 1,000 issuers, against
// one, and what a flood of invented key IDs of one issuer does to the requests of another.
func (b *bench) issuers() error {
	tokens := b.tokens[subjects.RS256]
	for _, row := range []struct {
		what      string
		cacheSize int
		token     func(int) []string
	}{{"new", -1, cycle(tokens)}, {"remembered", 0, same(tokens[0])}} {
		of := func(n int) (side, error) {
			guard, err := b.guardOf(n, row.cacheSize)
			if err != nil {
				return side{}, err
			}
			name := fmt.Sprint(n, " issuers")
			if n == 1 {
				name = "1 issuer, measured twice"
			}
			return requests(name, guard(trivial), served, row.token), nil
		}
		one, err := of(1)
		if err != nil {
			return err
		}
		var several []side
		for _, n := range []int{1, 10, 1000} { // 1 again, to show how much two equal sides differ
			s, err := of(n)
			if err != nil {
				return err
			}
			several = append(several, s)
		}
		base, each := b.against(one, several...)
		for _, m := range each {
			if row.what == "new" {
				b.report.atMost(fmt.Sprintf("%s, a new token: × 1 issuer", m.name), m.ratio, 1.01, "%.3f")
				continue
			}
			more := m.more(base)
			b.report.atMost(fmt.Sprintf("%s, a remembered token: ns more than with 1 issuer (%.0f)", m.name, base.ns.median), more, 100, "%.0f")
			b.report.atMost(fmt.Sprintf("%s, a remembered token: allocations more than with 1 issuer", m.name), exactly(m.allocations-base.allocations), 0, "%.0f")
		}
	}
	if err := b.allInUse(); err != nil {
		return err
	}
	return b.isolation()
}

// guardOf returns a guard for n issuers, of which the last is the benchmark's. The keys are static, so that only the
// choice of the issuer differs.
func (b *bench) guardOf(n, cacheSize int) (func(http.Handler) http.Handler, error) {
	keys := koreauth.StaticKeySet{{ID: subjects.KeyID(subjects.RS256), Algorithm: subjects.RS256, Public: b.issuer.Public(subjects.RS256)}}
	configs := make([]koreauth.Config, n)
	for k := range configs {
		configs[k] = koreauth.Config{Issuer: b.issuerName(k), Audience: []string{subjects.Audience}, Keys: keys, CacheSize: cacheSize}
	}
	configs[n-1].Issuer = b.issuer.URL
	validator, err := koreauth.NewValidator(configs...)
	if err != nil {
		return nil, err
	}
	return koreauth.New(validator, nil).Wrap, nil
}

// allInUse measures remembered tokens of 1,000 issuers, each with its own key ID, that take turns. The base is as many
// tokens of one issuer. It has no target: the data of 1,000 issuers does not fit in the nearer caches of the processor.
func (b *bench) allInUse() error {
	const n = 1000
	public := b.issuer.Public(subjects.RS256)
	var keys koreauth.StaticKeySet
	configs := make([]koreauth.Config, n)
	for k := range configs {
		key := koreauth.Key{ID: subjects.KeyID(fmt.Sprint("key ", k)), Algorithm: subjects.RS256, Public: public}
		keys = append(keys, key)
		configs[k] = koreauth.Config{Issuer: b.issuerName(k), Audience: []string{subjects.Audience}, Keys: koreauth.StaticKeySet{key}}
	}
	// One issuer has the same keys. Its tokens have 50 headers, because 64 of one issuer are remembered.
	base, err := b.turns("1 issuer", []koreauth.Config{{Issuer: b.issuer.URL, Audience: []string{subjects.Audience}, Keys: keys, CacheSize: n * 10_000}},
		n, func(k int) subjects.Spec { return subjects.Spec{KeyID: keys[k%50].ID} })
	if err != nil {
		return err
	}
	several, err := b.turns("1000 issuers", configs, n, func(k int) subjects.Spec {
		return subjects.Spec{Issuer: configs[k].Issuer, KeyID: keys[k].ID}
	})
	if err != nil {
		return err
	}
	of, each := b.against(base, several)
	more := each[0].more(of)
	b.report.told(fmt.Sprintf("1000 issuers, all in use, remembered tokens: ns more than 1000 tokens of 1 issuer (%.0f)", of.ns.median), more, "%.0f")
	return nil
}

// turns is a side that sends n tokens in turn. They are remembered before the clock starts.
func (b *bench) turns(name string, configs []koreauth.Config, n int, spec func(int) subjects.Spec) (side, error) {
	validator, err := koreauth.NewValidator(configs...)
	if err != nil {
		return side{}, err
	}
	tokens, err := b.issuer.SignMany(n, subjects.RS256, spec)
	if err != nil {
		return side{}, err
	}
	s := requests(name, koreauth.New(validator, nil).Wrap(trivial), served, cycle(tokens))
	s.worker()(2 * n)
	return s, nil
}

// issuerName returns the name of another issuer. It has the length and the beginning of the benchmark's own, so that
// comparing the two takes longest.
func (b *bench) issuerName(k int) string {
	return b.issuer.URL[:len(b.issuer.URL)-4] + fmt.Sprintf("%04d", k)
}

// isolation measures the 99th percentile of the times of issuer B while issuer A is flooded with invented key IDs,
// or has no keys and does not answer. For comparison, the same requests go to another validator, because they take as
// much of the processor there.
func (b *bench) isolation() error {
	other := newOtherIssuer()
	defer other.server.Close()
	forged, err := b.issuer.SignMany(1024, subjects.EdDSA, func(int) subjects.Spec { return subjects.Spec{Issuer: other.server.URL} })
	if err != nil {
		return err
	}
	for k := range forged { // The header says RS256 and the key is unknown, so no signature is verified.
		forged[k] = forged[k].Forge(subjects.RS256)
	}
	for _, kind := range []struct {
		name      string
		cacheSize int
	}{{"new", -1}, {"remembered", 0}} {
		for _, hangs := range []bool{false, true} {
			other.hangs.Store(hangs)
			senders, what := 2, "flooded with invented `kid`s"
			if hangs {
				senders, what = 100, "without keys, and does not answer"
			}
			var alone, separate, together []float64
			for range b.rounds {
				configB := koreauth.Config{Issuer: b.issuer.URL, Audience: []string{subjects.Audience}, Keys: b.keys, CacheSize: kind.cacheSize}
				configA := koreauth.Config{Issuer: other.server.URL, Audience: []string{subjects.Audience}, JWKSURL: other.server.URL}
				var validators [3]*koreauth.Validator
				for n, configs := range [][]koreauth.Config{{configA, configB}, {configA}, {configB}} {
					if validators[n], err = koreauth.NewValidator(configs...); err != nil {
						return err
					}
				}
				both, onlyA, onlyB := validators[0], validators[1], validators[2]
				tokens := b.tokens[subjects.RS256]
				alone = append(alone, p99(onlyB, nil, tokens, nil, 0, 4*b.slice))
				separate = append(separate, p99(onlyB, onlyA, tokens, forged, senders, 4*b.slice))
				together = append(together, p99(both, both, tokens, forged, senders, 4*b.slice))
			}
			for _, row := range []struct {
				where  string
				values []float64
			}{{"there is no A", alone}, {"A of another validator is " + what, separate}, {"A of the same validator is " + what, together}} {
				b.report.told(fmt.Sprintf("p99 of %s tokens of B while %s: µs", kind.name, row.where), spreadOf(row.values), "%.1f")
			}
		}
	}
	return nil
}

// otherIssuer serves no key of the tokens that name it, or does not answer.
type otherIssuer struct {
	server *httptest.Server
	hangs  atomic.Bool
}

func newOtherIssuer() *otherIssuer {
	o := &otherIssuer{}
	o.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.hangs.Load() {
			<-r.Context().Done()
			return
		}
		// A key set with one Ed25519 key that signs nothing.
		_, _ = w.Write([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"x","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	}))
	return o
}

// p99 returns the 99th percentile of the time, in microseconds, that v needs for one of the tokens, while the senders
// send forged tokens to the flooded validator, with pauses. A nil validator is sent none.
func p99(v, flooded *koreauth.Validator, tokens, forged []subjects.Token, senders int, long time.Duration) float64 {
	for _, token := range tokens { // so that they are remembered, if v remembers any
		if _, err := v.Validate(context.Background(), token.Raw); err != nil {
			panic(fmt.Sprintf("a valid token was answered with %v", err))
		}
	}
	runtime.GC()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	var others sync.WaitGroup
	for g := range senders {
		others.Go(func() {
			for k := g; ctx.Err() == nil; k++ {
				_, err := flooded.Validate(ctx, forged[k%len(forged)].Raw)
				if !errors.Is(err, koreauth.ErrUnknownKey) && !errors.Is(err, koreauth.ErrUnavailable) {
					panic(fmt.Sprintf("a forged token was answered with %v", err))
				}
				if k%20 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	var times []time.Duration
	for k := 0; ctx.Err() == nil; k++ {
		token := tokens[k%len(tokens)].Raw
		start := time.Now()
		_, err := v.Validate(context.Background(), token)
		times = append(times, time.Since(start))
		if err != nil {
			panic(fmt.Sprintf("a valid token was answered with %v", err))
		}
	}
	others.Wait()
	slices.Sort(times)
	return float64(times[len(times)*99/100]) / 1e3
}
