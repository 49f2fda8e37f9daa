package revocation_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
)

const issuer = "https://keycloak.example.com/realms/KORE-CIDP"

// id returns the ID of a token in the form of Keycloak.
func id(n int) string {
	return fmt.Sprintf("trrtcc:%08x-5a2b-4c3d-8e4f-%012x", uint32(n)*2654435761, uint32(n))
}

// fillList fills a list with rules for tokens, and a hundredth as many others.
func fillList(tb testing.TB, list *revocation.List, tokens int) {
	tb.Helper()
	const batch = 10_000
	for start := 0; start < tokens; start += batch {
		rules := make([]revocation.Rule, 0, batch)
		for n := start; n < min(start+batch, tokens); n++ {
			rules = append(rules, revocation.Rule{Issuer: issuer, Token: id(n)})
		}
		require.NoError(tb, list.Apply(rules...))
	}
	var others []revocation.Rule
	for n := range tokens / 100 {
		name := fmt.Sprintf("kc_%032x", n)
		others = append(others, [...]revocation.Rule{
			{Issuer: issuer, Client: name}, {Issuer: issuer, Account: name}, {Issuer: issuer, Subject: name},
		}[n%3])
	}
	require.NoError(tb, list.Apply(others...))
}

// claimsOf returns the claims of a token that no rule of fillList revokes.
func claimsOf(n int) *koreauth.Claims {
	return &koreauth.Claims{
		Issuer: issuer, ID: id(-n - 1), ClientID: fmt.Sprintf("client-%d", n%100), AccountID: fmt.Sprintf("account-%d", n%100),
		Subject: fmt.Sprintf("0b5d2f3e-0000-4000-8000-%012d", n%100), IssuedAt: time.Now(), Expiry: time.Now().Add(time.Hour),
	}
}

func BenchmarkList_Check(b *testing.B) {
	list := &revocation.List{}
	fillList(b, list, 1_000_000)
	for _, row := range []struct {
		name   string
		tokens int
		each   func(int)
	}{
		{"a known token", 1, nil},
		{"10000 known tokens", 10_000, nil},
		{"20000 tokens, none known", 20_000, nil},
		{"10000 known tokens, a rule before each", 10_000, func(n int) {
			_ = list.Apply(revocation.Rule{Issuer: "https://other.example", Client: "kc_1"})
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			tokens := make([]*koreauth.Claims, row.tokens)
			for n := range tokens {
				tokens[n] = claimsOf(n)
				require.NoError(b, list.Check(nil, tokens[n]))
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if row.each != nil {
					b.StopTimer()
					row.each(n)
					b.StartTimer()
				}
				if err := list.Check(nil, tokens[n]); err != nil {
					b.Fatal(err)
				}
				if n++; n == len(tokens) {
					n = 0
				}
			}
		})
	}
}

// heap returns the live heap in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestList_KeepsAMillionRulesInFewBytes(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("measures memory")
	}
	for _, tokens := range []int{10_000, 1_000_000} {
		before := heap()
		list := &revocation.List{}
		fillList(t, list, tokens)
		for n := range 10_000 {
			require.NoError(t, list.Check(nil, claimsOf(n)))
		}
		bytes := int(heap() - before)
		t.Logf("%d rules for tokens and %d others: %d bytes", tokens, tokens/100, bytes)
		assert.LessOrEqual(t, bytes, 48*tokens+2_000_000*(1_000_000/tokens/100))
		assert.Equal(t, tokens+tokens/100, list.Status().Entries)
	}
}

func TestList_Check_AllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("measures allocations")
	}
	list := &revocation.List{}
	follow(t, list, revocation.Memory())
	require.Eventually(t, func() bool { return list.Check(nil, claimsOf(0)) == nil }, 10*time.Second, time.Millisecond)
	fillList(t, list, 10_000)
	tokens := make([]*koreauth.Claims, 11_000)
	for n := range tokens {
		tokens[n] = claimsOf(n)
		require.NoError(t, list.Check(nil, tokens[n]))
	}
	n := 0
	for name, count := range map[string]int{"a known token": 1, "more tokens than are known, of known clients": len(tokens)} {
		assert.Zero(t, testing.AllocsPerRun(3*len(tokens), func() {
			_ = list.Check(nil, tokens[n%count])
			n++
		}), name)
	}
}

// BenchmarkList_Check_UnderUpdates shows how long single checks take while a thousand
// rules a second are applied.
func BenchmarkList_Check_UnderUpdates(b *testing.B) {
	list := &revocation.List{}
	fillList(b, list, 1_000_000)
	tokens := make([]*koreauth.Claims, 1000)
	for n := range tokens {
		tokens[n] = claimsOf(n)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			for i := range 10 {
				_ = list.Apply(revocation.Rule{Issuer: issuer, Token: id(1_000_000 + 10*n + i)})
			}
		}
	}()
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		start := time.Now()
		if err := list.Check(nil, tokens[n%len(tokens)]); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*999/1000]), "p99.9-ns")
}
