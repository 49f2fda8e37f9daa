package memory_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/memory"
)

func newTokens(entries uint64) *memory.Tokens[int] {
	return memory.NewTokens(entries, func(int) int { return 1 })
}

func TestTokens_StoredAtSecondSight(t *testing.T) {
	tokens := newTokens(10)
	want := func(token string, value int, ok bool) {
		t.Helper()
		got, found := tokens.Find(token)
		assert.Equal(t, ok, found)
		assert.Equal(t, value, got)
	}
	want("a", 0, false)
	tokens.Add("a", 1)
	want("a", 0, false)
	tokens.Add("a", 2)
	want("a", 2, true)
	tokens.Add("a", 3)
	want("a", 3, true)
	tokens.Forget("a")
	want("a", 0, false)
	tokens.Add("a", 4)
	want("a", 4, true) // It was seen before.
	tokens.Forget("b")
	want("a", 4, true)

	for n := range 10_000 { // These displace the fingerprint of its first sight.
		tokens.Add(fmt.Sprintf("%040d", n), n)
	}
	tokens.Forget("a")
	tokens.Add("a", 5)
	want("a", 5, true) // It was stored before.

	none := newTokens(0)
	none.Add("a", 1)
	none.Add("a", 1)
	_, found := none.Find("a")
	assert.False(t, found, "zero entries")
}

func TestTokens_FloodOfOneOffTokens(t *testing.T) {
	const steady, flood = 100, 200_000
	tokens := newTokens(steady)
	name := func(kind string, n int) string { return fmt.Sprintf("%032d-%s", n, kind) }
	for range 2 {
		for n := range steady {
			tokens.Add(name("steady", n), n)
		}
	}
	for n := range flood {
		tokens.Add(name("once", n), n)
	}
	for n := range steady {
		got, found := tokens.Find(name("steady", n))
		assert.True(t, found, "steady token %d", n)
		assert.Equal(t, n, got)
	}
	stored := 0
	for n := range flood {
		if _, found := tokens.Find(name("once", n)); found {
			stored++
		}
	}
	assert.Zero(t, stored, "one-off tokens that were stored")
}

// A working set that fits into the memory stays in it: few fingerprints are lost.
func TestTokens_WorkingSet(t *testing.T) {
	for _, entries := range []int{100, 300, 1000, 10_000} {
		tokens, used := newTokens(uint64(entries)), entries*9/10
		for range 6 { // In the first rounds, some fingerprints of first sights are displaced.
			for n := range used {
				tokens.Add(fmt.Sprintf("%040d", n), n)
			}
		}
		lost := 0
		for n := range used {
			if _, found := tokens.Find(fmt.Sprintf("%040d", n)); !found {
				lost++
			}
		}
		assert.LessOrEqual(t, lost, 1+used/100, "tokens lost of %d", used)
	}
}

// Fingerprints are of the last bytes. Tokens with equal ones, and tokens that displace
// each other in a table of one bucket, never get the value of another.
func TestTokens_FingerprintsCollide(t *testing.T) {
	tail := strings.Repeat("t", 40)
	for _, entries := range []uint64{1, 2, 3, 4, 100} {
		tokens := newTokens(entries)
		for round := range 5 {
			for n := range 50 {
				token := fmt.Sprint(n, tail) // All have one fingerprint.
				if got, found := tokens.Find(token); found {
					assert.Equal(t, n, got, "round %d", round)
				}
				tokens.Add(token, n)
				other := fmt.Sprint(tail, n) // Each has its own, in few buckets.
				if got, found := tokens.Find(other); found {
					assert.Equal(t, -n, got, "round %d", round)
				}
				tokens.Add(other, -n)
				tokens.Forget(fmt.Sprint(n/2, tail))
			}
		}
	}
	tokens := newTokens(1)
	tokens.Add("1"+tail, 1)
	tokens.Add("2"+tail, 2) // Its fingerprint was seen, so it is stored, as itself.
	_, found := tokens.Find("1" + tail)
	assert.False(t, found)
	got, found := tokens.Find("2" + tail)
	assert.True(t, found)
	assert.Equal(t, 2, got)
}

func TestTokens_ShortTokens(t *testing.T) {
	tokens := newTokens(10)
	for _, token := range []string{"", "a", strings.Repeat("a", 31), strings.Repeat("a", 32), strings.Repeat("a", 33)} {
		tokens.Add(token, len(token))
		tokens.Add(token, len(token))
		got, found := tokens.Find(token)
		assert.True(t, found)
		assert.Equal(t, len(token), got)
	}
}

func TestTokens_Concurrent(t *testing.T) {
	tokens := newTokens(50)
	var group sync.WaitGroup
	for g := range 16 {
		group.Go(func() {
			for i := range 2000 {
				n := (i * (g + 1)) % 300
				token := fmt.Sprintf("%040d", n)
				if got, found := tokens.Find(token); found && got != n {
					t.Errorf("token %d has value %d", n, got)
				}
				tokens.Add(token, n)
				if i%7 == 0 {
					tokens.Forget(token)
				}
			}
		})
	}
	group.Wait()
}

// The tables of fingerprints are small, even for the largest numbers of entries.
func TestTokens_TablesAreSmall(t *testing.T) {
	for entries, limit := range map[uint64]int64{1: 64 << 10, 10_000: 512 << 10, 1 << 40: 9 << 20, 1<<64 - 1: 9 << 20} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tokens := newTokens(entries)
		runtime.ReadMemStats(&after)
		assert.LessOrEqual(t, int64(after.TotalAlloc-before.TotalAlloc), limit, "%d entries", entries)
		tokens.Add("a", 1)
		tokens.Add("a", 1)
		_, found := tokens.Find("a")
		assert.True(t, found)
	}
}

func TestHeaders(t *testing.T) {
	headers := memory.Headers[int]{Max: 64}
	name := func(n int) string { return fmt.Sprint("header ", n) }
	_, found := headers.Find(name(0))
	assert.False(t, found)
	for n := range 64 {
		headers.Add(name(n), n)
	}
	known := func(all int) (count int) {
		for n := range all {
			if got, found := headers.Find(name(n)); found {
				assert.Equal(t, n, got)
				count++
			}
		}
		return count
	}
	assert.Equal(t, 64, known(64))
	headers.Add(name(64), 64)
	_, found = headers.Find(name(64))
	assert.True(t, found, "a new header displaces another")
	assert.Equal(t, 64, known(65), "the others stay")
	for n := range 1000 {
		headers.Add(name(n), n)
	}
	assert.Equal(t, 64, known(1000))

	long := strings.Repeat("x", 1<<10)
	headers.Add(long, 1)
	_, found = headers.Find(long)
	assert.True(t, found)
	headers.Add(long+"x", 1)
	_, found = headers.Find(long + "x")
	assert.False(t, found, "a long header is not remembered")

	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for n := range 300 {
				headers.Add(name(n*g), n*g)
				if got, found := headers.Find(name(n)); found && got != n {
					t.Errorf("header %d has value %d", n, got)
				}
			}
		})
	}
	group.Wait()
	assert.LessOrEqual(t, known(2100), 64)
}
