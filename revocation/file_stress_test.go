package revocation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// TestFile_FollowersNeverFail has writers on a disk that fails at random, compaction,
// refills, and followers that come and go.
func TestFile_FollowersNeverFail(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	broken := errors.New("broken")
	faults := revocation.Faults{
		Write: func(f *os.File, text []byte) (int, error) {
			if rand.IntN(5) > 0 {
				return f.Write(text)
			}
			n, _ := f.Write(text[:rand.IntN(len(text)+1)])
			return n, broken
		},
		Truncate: func(f *os.File, size int64) error {
			if rand.IntN(2) > 0 {
				return f.Truncate(size)
			}
			return broken
		},
	}
	fill(t, revocation.File(path), 1)
	var followers []*watcher
	for range 3 {
		followers = append(followers, watch(t, revocation.File(path), 0))
	}
	deadline := time.Now().Add(2 * time.Second)
	if testing.Short() {
		deadline = time.Now().Add(300 * time.Millisecond)
	}
	var mu sync.Mutex
	acknowledged, failed := make(map[string]bool), 0
	var wait sync.WaitGroup
	for g, store := range []revocation.Store{revocation.FileWithFaults(path, &faults), revocation.FileWithFaults(path, &faults), revocation.File(path)} {
		wait.Go(func() {
			for i := 0; time.Now().Before(deadline); i++ {
				rule := fileRule("t-%d-%d", g, i)
				_, err := store.Append(t.Context(), rule)
				mu.Lock()
				if err == nil {
					acknowledged[rule.Token] = true
				} else if failed++; !errors.Is(err, broken) {
					t.Errorf("Append: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wait.Go(func() {
		for time.Now().Before(deadline) {
			assert.NoError(t, addPastRules(t, path, 3000)) // so that the file is compacted now and then
			<-time.After(100 * time.Millisecond)
		}
	})
	wait.Go(func() {
		store := revocation.File(path)
		for from := uint64(0); time.Now().Before(deadline); {
			given, err := load(store, from)
			assert.NoError(t, err)
			if len(given) > 0 {
				from = given[len(given)-1].Seq
			}
		}
	})
	wait.Wait()
	appendRule(t, revocation.File(path), fileRule("last"))
	require.Greater(t, len(acknowledged), 10)
	t.Logf("%d were appended, %d failed", len(acknowledged), failed)
	stored := make(map[string]bool)
	for _, r := range mustLoad(t, revocation.File(path)) {
		stored[r.Rule.Token] = true
	}
	for i, f := range followers {
		f.waitCurrent(t)
		known := make(map[string]bool)
		for _, r := range f.all() {
			known[r.Rule.Token] = true
		}
		for token := range acknowledged {
			require.True(t, known[token], "follower %d was not given %s", i, token)
			require.True(t, stored[token], "the file does not have %s", token)
		}
		f.end()
		assert.EqualError(t, <-f.err, "context canceled", fmt.Sprint("follower ", i))
	}
}
