package revocation_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// setBack changes a file that has five rules, of which copy has the first two.
var setBack = map[string]func(path string, copied []byte) error{
	"put back in place": func(path string, copied []byte) error { return os.WriteFile(path, copied, 0o600) },
	"put back by a rename": func(path string, copied []byte) error {
		if err := os.WriteFile(path+".copy", copied, 0o600); err != nil {
			return err
		}
		return os.Rename(path+".copy", path)
	},
	"emptied":               func(path string, _ []byte) error { return os.Truncate(path, 0) },
	"removed":               func(path string, _ []byte) error { return os.Remove(path) },
	"cut in the first line": func(path string, _ []byte) error { return os.Truncate(path, 30) },
	"replaced by another": func(path string, _ []byte) error {
		other := filepath.Join(filepath.Dir(path), "other.log")
		if _, err := revocation.File(other).Append(context.Background(), fileRule("other")); err != nil {
			return err
		}
		return os.Rename(other, path)
	},
}

// TestFile_NoticesAnOlderFile has followers in this process, and appends through another
// store, as another process does.
func TestFile_NoticesAnOlderFile(t *testing.T) {
	for name, change := range setBack {
		for _, followed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, followed %t", name, followed), func(t *testing.T) {
				t.Parallel() // It mostly waits.
				path := newFile(t)
				writer := revocation.File(path)
				old := fill(t, writer, 2)
				copied := readFile(t, path)
				old = append(old, fill(t, writer, 3)...)
				store := revocation.File(path)
				w := watch(t, store, 0)
				w.waitCurrent(t)
				require.Equal(t, old, w.all())
				assert.False(t, store.(interface{ Lost() bool }).Lost())
				if !followed {
					w.end()
					<-w.err
				}
				require.NoError(t, change(path, copied))
				if !followed {
					w = watch(t, store, old[4].Seq)
				}
				w.waitCurrent(t)
				w.waitCurrent(t)
				assert.True(t, store.(interface{ Lost() bool }).Lost(), "the store must notice")
				kept := mustLoad(t, revocation.File(path))
				if !followed {
					assert.Equal(t, kept, w.all())
				} else {
					assert.Equal(t, append(old[:5:5], kept...), w.all(), "it must give everything again")
				}

				n := len(w.all())
				added := []revocation.Receipt{appendRule(t, writer, fileRule("a")), appendRule(t, revocation.File(path), fileRule("b")), appendRule(t, store, fileRule("c"))}
				require.Eventually(t, func() bool { return len(w.all()) >= n+3 }, 5*time.Second, time.Millisecond)
				assert.Equal(t, added, w.all()[n:])
				assert.True(t, added[0].At.After(old[4].At), "a new rule is later than those that lists know")
				assert.True(t, writer.(interface{ Lost() bool }).Lost(), "the writer must notice")

				require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), old))
				assert.False(t, store.(interface{ Lost() bool }).Lost())
				have := make(map[string]int)
				for _, r := range mustLoad(t, revocation.File(path)) {
					have[r.Rule.Token+r.At.String()]++
				}
				for _, r := range append(old, added...) {
					assert.Equal(t, 1, have[r.Rule.Token+r.At.String()])
				}
			})
		}
	}
}

// TestFile_NoticesAnOlderFileThatGrew has a file that is put back and is larger than
// before when the follower looks again.
func TestFile_NoticesAnOlderFileThatGrew(t *testing.T) {
	t.Parallel() // It mostly waits.
	for _, name := range []string{"put back in place", "put back by a rename", "emptied", "removed", "replaced by another"} {
		for _, more := range []int{2, 3, 4, 10} {
			t.Run(fmt.Sprintf("%s, %d more", name, more), func(t *testing.T) {
				path := newFile(t)
				writer := revocation.File(path)
				old := fill(t, writer, 2)
				copied := readFile(t, path)
				old = append(old, fill(t, writer, 3)...)
				store := revocation.File(path)
				given, err := load(store, 0)
				require.NoError(t, err)
				require.Equal(t, old, given)

				require.NoError(t, setBack[name](path, copied))
				fill(t, revocation.File(path), more)
				appendRule(t, writer, fileRule("more"))
				assert.True(t, writer.(interface{ Lost() bool }).Lost(), "the writer must notice")
				all := mustLoad(t, revocation.File(path))
				given, err = load(store, old[4].Seq)
				require.NoError(t, err)
				assert.Equal(t, all, given, "it must give everything again")
				assert.True(t, store.(interface{ Lost() bool }).Lost())

				// From here on it continues, unless a rule of the old file had the same Seq.
				last := all[len(all)-1].Seq
				given, err = load(store, last)
				require.NoError(t, err)
				assert.True(t, len(given) == 0 || last == old[4].Seq)
			})
		}
	}
}

// TestFile_NoticesAnOlderFileThatWasCompacted has a file that is put back, grows, and is
// compacted, so that the line with the Seq of the follower is gone.
func TestFile_NoticesAnOlderFileThatWasCompacted(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	writer := revocation.File(path)
	fill(t, writer, 2)
	copied := readFile(t, path)
	old := fill(t, writer, 8)
	store := revocation.File(path)
	given, err := load(store, 0)
	require.NoError(t, err)
	require.Len(t, given, 10)

	require.NoError(t, setBack["put back by a rename"](path, copied))
	writer = revocation.File(path)
	added := fill(t, writer, 3)
	past := fileRule("past")
	past.Until = time.Now().Add(-time.Hour)
	for range 4 {
		appendRule(t, writer, past)
	}
	require.Equal(t, old[7].Seq, appendRule(t, writer, past).Seq, "up to where the follower is")
	makeCompactable(t, path)
	last := appendRule(t, writer, fileRule("last"))
	all := mustLoad(t, revocation.File(path))
	require.Less(t, len(all), 10, "it was compacted")

	given, err = load(store, old[7].Seq)
	require.NoError(t, err)
	assert.Equal(t, all, given, "it must give everything again")
	assert.Subset(t, given, append(added, last))
}

// TestFile_KnowsItsFollowersApart has followers of one store, of which one has seen the
// new file already when another one comes back.
func TestFile_KnowsItsFollowersApart(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	writer := revocation.File(path)
	fill(t, writer, 2)
	copied := readFile(t, path)
	fill(t, writer, 8)
	store := revocation.File(path)
	late, err := load(store, 0)
	require.NoError(t, err)
	require.Len(t, late, 10)
	require.NoError(t, setBack["put back by a rename"](path, copied))
	fill(t, revocation.File(path), 20)
	early, err := load(store, 0)
	require.NoError(t, err)
	require.Len(t, early, 22)

	given, err := load(store, late[9].Seq)
	require.NoError(t, err)
	assert.Equal(t, early, given, "the late one has seen other rules")
	given, err = load(store, early[21].Seq)
	require.NoError(t, err)
	assert.Empty(t, given, "the early one has seen these")
	given, err = load(store, early[14].Seq)
	require.NoError(t, err)
	assert.Equal(t, early[15:], given)
}

// TestFile_NoticesRefilledLines has a file that is put back and then refilled, so that
// its new lines have an At of long ago.
func TestFile_NoticesRefilledLines(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	writer := revocation.File(path)
	fill(t, writer, 2)
	copied := readFile(t, path)
	fill(t, writer, 8)
	store := revocation.File(path)
	given, err := load(store, 0)
	require.NoError(t, err)
	require.Len(t, given, 10)
	require.NoError(t, setBack["put back by a rename"](path, copied))
	var receipts []revocation.Receipt
	for i := range 12 {
		receipts = append(receipts, revocation.Receipt{At: time.Now().Add(-time.Hour), Rule: fileRule("refilled-%d", i)})
	}
	require.NoError(t, revocation.File(path).(revocation.Fleet).Refill(t.Context(), receipts))
	given, err = load(store, 10)
	require.NoError(t, err)
	assert.Len(t, given, 14, "it must give everything again")

	// The same rules in a new file are another file, too.
	all := mustLoad(t, revocation.File(path))
	require.NoError(t, os.Remove(path))
	require.NoError(t, revocation.File(path).(revocation.Fleet).Refill(t.Context(), all))
	require.Equal(t, all, mustLoad(t, revocation.File(path)))
	given, err = load(store, 14)
	require.NoError(t, err)
	assert.Equal(t, all, given)
}

// TestFile_NewRulesAreLaterThanThoseThatWereLost has a rule of a clock that was ahead,
// which a lift must end even if the file has lost it.
func TestFile_NewRulesAreLaterThanThoseThatWereLost(t *testing.T) {
	path := newFile(t)
	writer := revocation.File(path)
	fill(t, writer, 2)
	copied := readFile(t, path)
	ahead := time.Now().Add(time.Hour)
	require.NoError(t, writer.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{{At: ahead, Rule: fileRule("ahead")}}))
	require.NoError(t, setBack["put back by a rename"](path, copied))
	assert.True(t, appendRule(t, writer, fileRule("a")).At.After(ahead))
	require.NoError(t, setBack["removed"](path, nil))
	assert.True(t, appendRule(t, writer, fileRule("b")).At.After(ahead))
}

func TestFile_ADamagedLastLineMayBeALoss(t *testing.T) {
	t.Parallel() // It mostly waits.
	for name, row := range map[string]struct {
		change func([]byte) []byte
		lost   bool
	}{
		"the newline lacks":     {func(data []byte) []byte { return data[:len(data)-1] }, false},
		"a part lacks":          {func(data []byte) []byte { return data[:len(data)-20] }, false},
		"a byte differs":        {func(data []byte) []byte { data[len(data)-20] ^= 1; return data }, true},
		"the newline differs":   {func(data []byte) []byte { data[len(data)-1] ^= 1; return data }, true},
		"a block has zeros":     {func(data []byte) []byte { return append(data[:len(data)-40], make([]byte, 40)...) }, false},
		"zeros before its end":  {func(data []byte) []byte { copy(data[len(data)-90:], make([]byte, 50)); return data }, true},
		"zeros follow the file": {func(data []byte) []byte { return append(data, make([]byte, 4096)...) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			receipts := fill(t, revocation.File(path), 3)
			changed := row.change(readFile(t, path))
			writeFile(t, path, changed)
			store := revocation.File(path)
			given := mustLoad(t, store)
			assert.Equal(t, receipts[:len(given)], given)
			assert.GreaterOrEqual(t, len(given), 2)
			added := appendRule(t, store, fileRule("added"))
			assert.Equal(t, row.lost, store.(interface{ Lost() bool }).Lost())
			assert.Equal(t, append(given, added), mustLoad(t, revocation.File(path)))
		})
	}
}

func TestFile_GivesARuleOnceIfTheFileIsTheSame(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	store := revocation.File(path)
	receipts := fill(t, store, 5)
	w := watch(t, store, 0)
	w.waitCurrent(t)
	data := readFile(t, path)
	for range 3 { // A copy of the same content, as a backup that was made last.
		require.NoError(t, setBack["put back by a rename"](path, data))
		w.waitCurrent(t)
		receipts = append(receipts, fill(t, store, 1)...)
		data = readFile(t, path)
	}
	require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)))
	w.waitCurrent(t)
	w.waitCurrent(t)
	assert.Equal(t, receipts, w.all())
	assert.False(t, store.(interface{ Lost() bool }).Lost())
}

func TestFile_ListKeepsWhatItKnows(t *testing.T) {
	t.Parallel() // It mostly waits.
	for name, change := range setBack {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			store := revocation.File(path)
			fill(t, store, 2)
			copied := readFile(t, path)
			fill(t, store, 5)
			list := &revocation.List{}
			go func() { _ = list.Follow(t.Context(), revocation.File(path)) }()
			require.Eventually(t, func() bool { return list.Status().Entries >= 5 }, 5*time.Second, time.Millisecond)
			require.NoError(t, change(path, copied))
			added := appendRule(t, revocation.File(path), fileRule("added"))
			require.Eventually(t, func() bool { return list.Status().Seq == added.Seq && list.Status().Entries > 5 }, 5*time.Second, time.Millisecond)
		})
	}
}

// TestFile_NoticesOtherLines has a file that was put back to an older copy and has
// grown again, all between two looks of a follower. It may be as large as before.
func TestFile_NoticesOtherLines(t *testing.T) {
	for _, change := range []string{"put back in place", "put back by a rename"} {
		for grown := range 5 { // 3: the file is as large as before
			for _, from := range []uint64{0, 2, 4, 5} { // where a call of Follow begins later; 0: it goes on
				t.Run(fmt.Sprintf("%s, %d lines more, from %d", change, grown, from), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(time.Nanosecond) // so that all times have nine digits
						path := newFile(t)
						writer := revocation.File(path)
						fill(t, writer, 2)
						copied := readFile(t, path)
						old := append(mustLoad(t, writer), fill(t, writer, 3)...)
						size := len(readFile(t, path))
						store := revocation.File(path)
						w := watch(t, store, 0)
						time.Sleep(1100 * time.Millisecond) // between two looks
						require.Equal(t, old, w.all())
						if from > 0 {
							w.end()
							<-w.err
						}
						for range 2 { // what was appended the first time is lost as well
							require.NoError(t, setBack[change](path, copied))
							for i := range grown {
								appendRule(t, revocation.File(path), fileRule("x-%d", i))
							}
						}
						require.Equal(t, grown == 3, len(readFile(t, path)) == size)
						all := mustLoad(t, revocation.File(path))
						if from > 0 {
							w = watch(t, store, from)
						}
						time.Sleep(time.Second)
						given := w.all()
						require.GreaterOrEqual(t, len(given), len(all))
						assert.Equal(t, all, given[len(given)-len(all):], "it must give everything again")
						assert.True(t, store.(interface{ Lost() bool }).Lost())
						w.end()
						<-w.err
					})
				})
			}
		}
	}
}
