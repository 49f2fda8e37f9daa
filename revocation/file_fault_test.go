package revocation_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// TestFile_FailedAppendLeavesNoHalfRule has a disk that fails in each way, and then a
// process that goes on, or another one that starts.
func TestFile_FailedAppendLeavesNoHalfRule(t *testing.T) {
	broken := errors.New("broken")
	short := func(n func(length int) int) func(*os.File, []byte) (int, error) {
		return func(f *os.File, text []byte) (int, error) {
			written, err := f.Write(text[:n(len(text))])
			return written, errors.Join(broken, err)
		}
	}
	failSync := func(*os.File) error { return broken }
	failTruncate := func(*os.File, int64) error { return broken }
	half := func(n int) int { return n / 2 }
	for _, row := range []struct {
		name      string
		faults    revocation.Faults
		says      string
		mayAppear bool // the rule, as a whole
	}{
		{"nothing is written", revocation.Faults{Write: short(func(int) int { return 0 })}, "the rule is not stored", false},
		{"a part is written", revocation.Faults{Write: short(half)}, "the rule is not stored", false},
		{"all but the newline is written", revocation.Faults{Write: short(func(n int) int { return n - 1 })}, "the rule is not stored", false},
		{"all is written, with an error", revocation.Faults{Write: short(func(n int) int { return n })}, "the rule is not stored", false},
		{"it is not synced", revocation.Faults{Sync: failSync}, "the rule may be stored, or not: append it again", false},
		{"nothing is written and nothing cut", revocation.Faults{Write: short(func(int) int { return 0 }), Truncate: failTruncate}, "the rule may be stored, or not", false},
		{"a part is written and not cut", revocation.Faults{Write: short(half), Truncate: failTruncate}, "the rule may be stored, or not", false},
		{"all but the newline is written and not cut", revocation.Faults{Write: short(func(n int) int { return n - 1 }), Truncate: failTruncate}, "the rule may be stored, or not", false},
		{"all is written and not cut", revocation.Faults{Write: short(func(n int) int { return n }), Truncate: failTruncate}, "the rule may be stored, or not", true},
		{"it is not synced and not cut", revocation.Faults{Sync: failSync, Truncate: failTruncate}, "the rule may be stored, or not", true},
	} {
		for _, another := range []bool{false, true} {
			t.Run(row.name, func(t *testing.T) {
				path := newFile(t)
				var faults revocation.Faults
				store := revocation.FileWithFaults(path, &faults)
				want := fill(t, store, 2)
				faults = row.faults
				_, err := store.Append(t.Context(), fileRule("failed"))
				require.ErrorIs(t, err, broken)
				assert.ErrorContains(t, err, "revocation: file "+path+": "+row.says)
				for range 2 {
					_, err := store.Append(t.Context(), fileRule("failed"))
					require.ErrorIs(t, err, broken)
				}
				given := mustLoad(t, revocation.File(path))
				faults = revocation.Faults{}
				if another {
					store = revocation.File(path)
				}
				added := appendRule(t, store, fileRule("added"))
				for _, all := range [][]revocation.Receipt{given, mustLoad(t, store), mustLoad(t, revocation.File(path))} {
					whole := slices.DeleteFunc(slices.Clone(all), func(r revocation.Receipt) bool { return r.Rule.Token == "failed" })
					if !row.mayAppear {
						assert.Equal(t, whole, all)
					}
					assert.Equal(t, want, whole[:2])
				}
				all := mustLoad(t, revocation.File(path))
				assert.Equal(t, added, all[len(all)-1])
				assert.Equal(t, len(all)+1, bytes.Count(readFile(t, path), []byte("\n")))
			})
		}
	}
}

func TestFile_FailedFirstAppendIsRepaired(t *testing.T) {
	t.Parallel() // It mostly waits.
	broken := errors.New("broken")
	for name, row := range map[string]revocation.Faults{
		"the first line is not written": {Write: func(*os.File, []byte) (int, error) { return 0, broken }},
		"a part of the first line is written": {Write: func(f *os.File, text []byte) (int, error) {
			n, _ := f.Write(text[:20])
			return n, broken
		}, Truncate: func(*os.File, int64) error { return broken }},
		"the first line is not synced": {Sync: func(*os.File) error { return broken }},
		"the folder is not synced":     {SyncFolder: func(string) error { return broken }},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			faults := row
			store := revocation.FileWithFaults(path, &faults)
			for range 2 {
				_, err := store.Append(t.Context(), fileRule("failed"))
				require.ErrorIs(t, err, broken)
				_, err = load(store, 0)
				if err != nil { // A follower may find what is enough for it.
					require.ErrorIs(t, err, broken)
				}
			}
			faults = revocation.Faults{}
			receipts := fill(t, store, 2)
			assert.Equal(t, receipts, mustLoad(t, revocation.File(path)))
		})
	}
	t.Run("the folder is synced before Append returns", func(t *testing.T) {
		path := newFile(t)
		synced := 0
		faults := revocation.Faults{SyncFolder: func(string) error { synced++; return nil }}
		store := revocation.FileWithFaults(path, &faults)
		fill(t, store, 3)
		assert.Equal(t, 1, synced)
		fill(t, revocation.File(path), 1)
		fill(t, store, 1)
		assert.Equal(t, 1, synced)
		require.NoError(t, setBack["put back by a rename"](path, readFile(t, path)))
		fill(t, store, 1)
		assert.Equal(t, 2, synced, "the name of another file may not be stored yet")
		require.NoError(t, os.Remove(path)) // A new file may have the number of the old one.
		fill(t, store, 1)
		assert.Equal(t, 3, synced)
	})
}

// TestFile_SyncsBeforeItGoesOn shows that nothing is acknowledged or replaced before it is
// on the disk. A process that is killed does not show that, but a machine that loses
// power.
func TestFile_SyncsBeforeItGoesOn(t *testing.T) {
	path := newFile(t)
	var calls []string
	note := func(call string, name string) {
		call += " " + strings.TrimPrefix(filepath.Base(name), "revoked.log")
		if len(calls) == 0 || calls[len(calls)-1] != call {
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	store := revocation.FileWithFaults(path, &revocation.Faults{
		Write:      func(f *os.File, text []byte) (int, error) { note("write", f.Name()); return f.Write(text) },
		Sync:       func(f *os.File) error { note("sync", f.Name()); return f.Sync() },
		Truncate:   func(f *os.File, size int64) error { note("truncate", f.Name()); return f.Truncate(size) },
		Rename:     func(from, to string) error { note("rename", from); return os.Rename(from, to) },
		SyncFolder: func(string) error { note("sync folder", "revoked.log"); return nil },
	})
	after := func() string {
		defer func() { calls = nil }()
		return strings.Join(calls, ", ")
	}
	fill(t, store, 1)
	assert.Equal(t, "write, sync, sync folder, write, sync", after())
	fill(t, store, 1)
	assert.Equal(t, "write, sync", after())
	require.NoError(t, os.Truncate(path, int64(len(readFile(t, path))-3)))
	fill(t, store, 1)
	assert.Equal(t, "truncate, sync, write, sync", after())
	makeCompactable(t, path)
	fill(t, store, 1)
	assert.Equal(t, "sync folder, write, sync, write .new, sync .new, rename .new, sync folder", after())
	receipts := mustLoad(t, store)
	for i := range 100 {
		at := time.Now().Add(time.Duration(i)).UTC().Round(0)
		receipts = append(receipts, revocation.Receipt{At: at, Rule: fileRule("refill-%d", i)})
	}
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), receipts))
	assert.Equal(t, "write .new, sync .new, rename .new, sync folder", after())
	fill(t, store, 1)
	assert.Equal(t, "write, sync", after())
}

func TestFile_AppendCostsOneSync(t *testing.T) {
	path := newFile(t)
	syncs := 0
	faults := revocation.Faults{Sync: func(f *os.File) error { syncs++; return f.Sync() }}
	store := revocation.FileWithFaults(path, &faults)
	fill(t, store, 1)
	syncs = 0
	for range 5 {
		fill(t, store, 1)
		fill(t, revocation.File(path), 1)
	}
	assert.Equal(t, 5, syncs)
}

// TestFile_FailedRuleThatWasSeen has a follower that was given a rule whose Append then
// failed, so that another rule has its Seq.
func TestFile_FailedRuleThatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "revoked.log")
		var faults revocation.Faults
		store := revocation.FileWithFaults(path, &faults)
		want := fill(t, store, 2)
		w := watch(t, store, 0)
		time.Sleep(time.Second)
		faults.Sync = func(*os.File) error { time.Sleep(time.Second); return errors.New("broken") }
		_, err := store.Append(t.Context(), fileRule("failed"))
		require.Error(t, err)
		require.Len(t, w.all(), 5, "it was given, then gone, and everything was given again")
		assert.Equal(t, "failed", w.all()[2].Rule.Token)
		faults.Sync = nil
		added := appendRule(t, store, fileRule("added"))
		time.Sleep(time.Second)
		assert.Equal(t, w.all()[2].Seq, added.Seq)
		assert.Equal(t, append(want[:2:2], added), w.all()[3:])

		// The same, but the follower does not look before the Seq is used again.
		faults.Sync = func(*os.File) error {
			time.Sleep(300 * time.Millisecond)
			faults.Sync = nil
			return errors.New("broken")
		}
		_, err = store.Append(t.Context(), fileRule("failed"))
		require.Error(t, err)
		again := appendRule(t, store, fileRule("again"))
		assert.Equal(t, added.Seq+1, again.Seq)
		time.Sleep(time.Second)
		n := len(w.all())
		assert.Equal(t, append(want[:2:2], added, again), w.all()[n-4:])
		assert.Equal(t, "failed", w.all()[n-5].Rule.Token)
		w.end()
		<-w.err
	})
}

func TestFile_HeedsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "revoked.log")
		slow := revocation.Faults{Sync: func(f *os.File) error { time.Sleep(time.Minute); return f.Sync() }}
		store, other := revocation.FileWithFaults(path, &slow), revocation.File(path)
		go func() { _, _ = store.Append(context.Background(), fileRule("slow")) }()
		synctest.Wait()
		for _, s := range []revocation.Store{store, other} { // one waits for the turn, the other for the lock
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			_, err := s.Append(ctx, fileRule("t"))
			assert.Equal(t, context.DeadlineExceeded, err)
			assert.Equal(t, time.Second, time.Since(began).Truncate(10*time.Millisecond))
			assert.ErrorIs(t, s.(revocation.Fleet).Refill(ctx, []revocation.Receipt{{At: time.Now(), Rule: fileRule("t")}}), context.DeadlineExceeded)
			cancel()
		}
		// A follower waits for nobody.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(2 * time.Minute)
		assert.ErrorIs(t, other.Follow(ctx, 0, func(revocation.Receipt) {}, func(time.Time) {}), context.DeadlineExceeded)
		_, err := other.Append(t.Context(), fileRule("later"))
		assert.NoError(t, err)
		assert.Len(t, mustLoad(t, other), 2)
	})
}
