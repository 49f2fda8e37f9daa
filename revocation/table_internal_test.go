package revocation

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hashOfNumber returns a hash that is as random as a real one.
func hashOfNumber(n int) hash { return hashOf(kindToken, "issuer", fmt.Sprint(n)) }

func TestTable_IsLikeAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, keys := range []int{3, 100, 5000} {
		table, want := &table{}, map[hash]tokenRule{}
		for step := range 10 * keys {
			r := tokenRule{
				hash: hashOfNumber(random.IntN(keys)), at: 1 + random.Int64N(maxAt-1), seq: random.Uint64N(maxSeq), foreign: random.IntN(2) == 0,
			}
			r.until = r.at + random.Int64N(maxSpan)
			require.True(t, r.fits())
			held, ok := want[r.hash]
			switch action := random.IntN(8); {
			case !ok && action < 6:
				table.insert(r)
				want[r.hash] = r
			case !ok:
				require.False(t, table.remove(r.hash, r.at))
			case action == 0:
				require.True(t, table.remove(r.hash, held.at))
				delete(want, r.hash)
			case action == 1:
				held.seq, held.foreign = r.seq, r.foreign
				table.update(held)
				want[r.hash] = held
			case action == 2:
				table.insert(r) // and then remove the old one, as ruleSet does
				require.True(t, table.remove(r.hash, held.at))
				want[r.hash] = r
			}
			if step%(keys/2+1) == 0 {
				ended := random.Int64N(maxAt)
				removed := map[hash]tokenRule{}
				for i := range table.shards {
					table.sweep(i, ended, func(r tokenRule) { removed[r.hash] = r })
				}
				for h, r := range want {
					_, gone := removed[h]
					require.Equal(t, r.until <= ended, gone)
					if gone {
						require.Equal(t, r, removed[h])
						delete(want, h)
					}
				}
				table.trim()
				table.reserve(random.IntN(2) * 10_000)
			}
			require.Equal(t, len(want), table.live)
		}
		require.NotEmpty(t, want)
		for n := range keys {
			got, ok := table.find(hashOfNumber(n))
			wanted, has := want[hashOfNumber(n)]
			require.Equal(t, has, ok)
			require.Equal(t, wanted, got)
		}
	}
}

func TestTable_FitsTheRangeThatItStores(t *testing.T) {
	good := tokenRule{at: maxAt - 1, until: maxAt - 1 + maxSpan - 1, seq: maxSeq - 1, foreign: true, hash: hashOfNumber(1)}
	require.True(t, good.fits())
	table := &table{}
	table.insert(good)
	got, _ := table.find(good.hash)
	assert.Equal(t, good, got)
	for name, change := range map[string]func(*tokenRule){
		"at": func(r *tokenRule) { r.at++ }, "span": func(r *tokenRule) { r.until++ }, "seq": func(r *tokenRule) { r.seq++ },
		"zero": func(r *tokenRule) { r.at = 0 }, "until": func(r *tokenRule) { r.until = r.at - 1 },
	} {
		r := good
		change(&r)
		assert.False(t, r.fits(), name)
	}
}

// TestTable_IsNeverEmptyForAReader replaces rules, so that readers must always find
// one.
func TestTable_IsNeverEmptyForAReader(t *testing.T) {
	table := &table{}
	const keys = 50
	for n := range keys {
		table.insert(tokenRule{hash: hashOfNumber(n), at: 1, until: 2})
	}
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if _, ok := table.find(hashOfNumber(n % keys)); !ok {
					t.Errorf("rule %d was not found", n%keys)
					return
				}
			}
		})
	}
	for at := range int64(200) {
		for n := range keys {
			table.insert(tokenRule{hash: hashOfNumber(n), at: at + 2, until: at + 3})
			table.remove(hashOfNumber(n), at+1)
		}
		if at%10 == 0 {
			table.trim()
		}
	}
	close(done)
	readers.Wait()
}
