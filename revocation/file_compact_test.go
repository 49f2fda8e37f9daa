package revocation_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/revocation"
)

// inForce is what the rules of one key revoke.
type inForce struct{ before, until time.Time }

// fold is the meaning of rules at a time, straight from the words: a lift ends the
// earlier rules of its key, and of the others the latest moments count.
func fold(receipts []revocation.Receipt, now time.Time) map[string]inForce {
	receipts = slices.Clone(receipts)
	slices.SortFunc(receipts, func(a, b revocation.Receipt) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Seq, b.Seq))
	})
	force := make(map[string]inForce)
	for _, r := range receipts {
		key := r.Rule.Hashed().Hash
		switch {
		case r.Rule.Lift:
			delete(force, key)
		case now.After(r.Rule.Until.Add(5 * time.Minute)):
		default:
			f := force[key]
			if r.Rule.IssuedBefore.After(f.before) {
				f.before = r.Rule.IssuedBefore
			}
			if r.Rule.Until.After(f.until) {
				f.until = r.Rule.Until
			}
			force[key] = f
		}
	}
	return force
}

// TestCompaction_ChangesNoVerdict has random rules, lists that know some of them
// already, and rules that arrive later, of which some are refilled and so are older.
func TestCompaction_ChangesNoVerdict(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hours := func(from, n int) time.Time { return now.Add(time.Duration(from+random.IntN(n)) * time.Hour) }
	rule := func() revocation.Rule {
		r := revocation.Rule{Issuer: fileIssuer, IssuedBefore: hours(-8, 12), Until: hours(-4, 10)}
		switch random.IntN(4) {
		case 0:
			r.Token, r.IssuedBefore = "t", time.Time{}
		case 1:
			r.Subject = "s"
		default:
			r.Client = "c"
		}
		if random.IntN(3) == 0 {
			r.Lift = true
		}
		if random.IntN(3) == 0 {
			r = r.Hashed()
		}
		return r
	}
	dropped := 0
	for range 2_000 {
		var stored, known, later []revocation.Receipt
		old := random.IntN(12) // so many are as old as the oldest token
		for i := range 1 + random.IntN(12) {
			at := now.Add(time.Duration(i-20) * time.Hour)
			if i < old {
				at = now.AddDate(0, -24, -1).Add(time.Duration(i-6) * time.Hour)
			}
			if random.IntN(4) == 0 {
				at = hours(-20, 20) // It was refilled.
			}
			stored = append(stored, revocation.Receipt{Seq: uint64(i + 1), At: at, Rule: rule()})
			if random.IntN(4) == 0 {
				known = append(known, stored[i])
			}
		}
		for i := range random.IntN(4) {
			r := revocation.Receipt{Seq: uint64(100 + i), At: hours(-20, 22), Rule: rule()}
			if random.IntN(4) == 0 {
				r.At = now.AddDate(0, -24, -1).Add(time.Duration(random.IntN(12)-6) * time.Hour)
			}
			// A rule that the file never had may be longer than a lift of its key that is
			// past and forgotten.
			if !slices.ContainsFunc(stored, func(l revocation.Receipt) bool {
				return l.Rule.Lift && l.Rule.Hashed().Hash == r.Rule.Hashed().Hash && !l.At.Before(r.At) &&
					l.Rule.Until.Before(r.Rule.Until) && l.At.AddDate(0, 24, 1).Before(r.Rule.Until)
			}) {
				later = append(later, r)
			}
		}
		kept := revocation.Needed(stored, now)
		dropped += len(stored) - len(kept)
		for after := range 8 {
			at := now.Add(time.Duration(after) * time.Hour)
			want := fold(slices.Concat(stored, later), at)
			got := fold(slices.Concat(kept, known, later), at)
			if !assert.Equal(t, want, got, "%d hours after:\n%v\nkept\n%v\nknown\n%v\nlater\n%v", after, lines(stored), lines(kept), lines(known), lines(later)) {
				return
			}
		}
		assert.Equal(t, stored[len(stored)-1], kept[len(kept)-1], "the last Seq must stay")
		assert.True(t, latestAt(kept).Equal(latestAt(stored)), "the latest At must stay")
	}
	assert.Greater(t, dropped, 2_000)
}

func latestAt(receipts []revocation.Receipt) time.Time {
	return slices.MaxFunc(receipts, func(a, b revocation.Receipt) int { return a.At.Compare(b.At) }).At
}

func lines(receipts []revocation.Receipt) string {
	var text strings.Builder
	for _, r := range receipts {
		fmt.Fprintf(&text, "seq %d at %s lift %t %s before %s until %s\n", r.Seq, r.At.Format(time.DateTime), r.Rule.Lift, r.Rule.Hashed().Hash[:10], r.Rule.IssuedBefore.Format(time.DateTime), r.Rule.Until.Format(time.DateTime))
	}
	return text.String()
}

func TestCompaction_DropsWhatIsNotNeeded(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	seq := uint64(0)
	next := func(r revocation.Rule) revocation.Receipt {
		seq++
		return revocation.Receipt{Seq: seq, At: now.Add(time.Duration(seq) * time.Second), Rule: r}
	}
	past, soon, far := now.Add(-6*time.Minute), now.Add(-4*time.Minute), now.Add(time.Hour)
	token := func(name string, until time.Time, lift bool) revocation.Receipt {
		return next(revocation.Rule{Issuer: fileIssuer, Token: name, Until: until, Lift: lift})
	}
	client := func(before, until time.Time) revocation.Receipt {
		return next(revocation.Rule{Issuer: fileIssuer, Client: "c", IssuedBefore: before, Until: until})
	}
	old := func(r revocation.Receipt) revocation.Receipt {
		r.At = r.At.AddDate(0, -25, 0)
		return r
	}
	years := now.AddDate(3, 0, 0)
	ever := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name  string
		rules []revocation.Receipt
		kept  string // the places of those that stay
	}{
		{"a rule past Until", []revocation.Receipt{token("a", past, false)}, ""},
		{"a rule that is kept for clocks that differ", []revocation.Receipt{token("a", soon, false)}, "0"},
		{"a rule twice", []revocation.Receipt{token("a", far, false), token("a", far, false)}, "1"},
		{"a rule that ends earlier", []revocation.Receipt{token("a", soon, false), token("a", far, false)}, "1"},
		{"a rule that ends later", []revocation.Receipt{token("a", far, false), token("a", soon, false)}, "0 1"},
		{"another token", []revocation.Receipt{token("a", far, false), token("b", far, false)}, "0 1"},
		{"a later moment", []revocation.Receipt{client(now, far), client(now.Add(1), far)}, "1"},
		{"an earlier moment", []revocation.Receipt{client(now.Add(1), far), client(now, far)}, "0 1"},
		{"a later moment that ends earlier", []revocation.Receipt{client(now, far), client(now.Add(1), soon)}, "0 1"},
		{"a rule that was lifted", []revocation.Receipt{token("a", far, false), token("a", far, true)}, "1"},
		{"a rule that is longer than its lift", []revocation.Receipt{token("a", far, false), token("a", soon, true)}, "1"},
		{"a rule that is longer than its lift, and than the oldest token", []revocation.Receipt{token("a", years, false), token("a", soon, true)}, "0 1"},
		{"a rule that is longer than an old lift that is past", []revocation.Receipt{old(token("a", far, false)), old(token("a", past, true))}, "0 1"},
		{"a lift that is past, as its rule", []revocation.Receipt{token("a", past, false), token("a", past, true)}, "1"},
		{"an old lift that is past, as its rule", []revocation.Receipt{old(token("a", past, false)), old(token("a", past, true))}, ""},
		{"an old lift that is not past", []revocation.Receipt{old(token("a", soon, true))}, "0"},
		{"a lift before a rule", []revocation.Receipt{token("a", far, true), token("a", far, false)}, "0 1"},
		{"an old lift that is past before a rule", []revocation.Receipt{old(token("a", past, true)), token("a", far, false)}, "1"},
		{"a lift twice", []revocation.Receipt{token("a", far, true), token("a", far, true)}, "1"},
		{"a lifted rule, made again", []revocation.Receipt{token("a", far, false), token("a", far, true), token("a", far, false)}, "1 2"},
		{"a moment out of range", []revocation.Receipt{client(ever, ever), client(ever.AddDate(0, 1, 0), ever)}, "0 1"},
		{"rules of an odd time", []revocation.Receipt{{Seq: 1, At: ever, Rule: token("a", past, false).Rule}, token("a", past, false)}, "0 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			// The last line always stays.
			all := append(row.rules, token("last", far, false))
			var kept []string
			for _, r := range revocation.Needed(all, now) {
				if i := slices.IndexFunc(row.rules, func(x revocation.Receipt) bool { return x == r }); i >= 0 {
					kept = append(kept, fmt.Sprint(i))
				}
			}
			assert.Equal(t, row.kept, strings.Join(kept, " "))
		})
	}
}

// padding makes files reach the size from which they are compacted.
var padding = strings.Repeat("because it leaked. ", 100)

// clientRule is a rule that a later one of the same client replaces.
func clientRule(i int) revocation.Rule {
	return revocation.Rule{Issuer: fileIssuer, Client: fmt.Sprint("c-", i%100), Reason: padding}
}

// makeCompactable makes a file larger than 1 MiB, so that the next Append replaces it.
func makeCompactable(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, addPastRules(t, path, 5000))
}

// addPastRules adds n rules that nobody needs.
func addPastRules(t *testing.T, path string, n int) error {
	at := time.Now().UTC().Add(-48 * time.Hour)
	var receipts []revocation.Receipt
	for i := range n {
		rule := fileRule("past-%d", i)
		rule.Until, rule.Reason = at.Add(time.Hour), padding[:300]
		receipts = append(receipts, revocation.Receipt{At: at.Add(time.Duration(i)), Rule: rule})
	}
	return revocation.File(path).(revocation.Fleet).Refill(t.Context(), receipts)
}

func TestFile_RemovesLinesThatAreNotNeeded(t *testing.T) {
	path := newFile(t)
	store, other := revocation.File(path), revocation.File(path)
	follower, late := revocation.File(path), revocation.File(path)
	w := watch(t, follower, 0)
	w.waitCurrent(t)
	require.NoError(t, os.Chmod(path, 0o640))
	var all []revocation.Receipt
	largest := int64(0)
	for i := range 1500 {
		all = append(all, appendRule(t, []revocation.Store{store, other}[i%2], clientRule(i)))
		info, err := os.Stat(path)
		require.NoError(t, err)
		largest = max(largest, info.Size())
		if i == 300 {
			given, err := load(late, 0)
			require.NoError(t, err)
			require.Equal(t, all, given)
		}
	}
	assert.Greater(t, largest, int64(1<<20-5<<10), "a file of 1 MiB must not be touched")
	assert.Less(t, largest, int64(12<<20)/10, "it must be compacted soon")
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		assert.Equal(t, os.FileMode(0o640), info.Mode(), "its mode is kept")
	}
	assert.NoFileExists(t, path+".new")

	// The one that follows was given each rule once, or not at all if it was dropped
	// before it looked.
	require.Eventually(t, func() bool { given := w.all(); return len(given) > 0 && given[len(given)-1].Seq == 1500 }, 5*time.Second, time.Millisecond)
	given := w.all()
	last := uint64(0)
	for _, r := range given {
		require.Greater(t, r.Seq, last)
		require.Equal(t, all[r.Seq-1], r)
		last = r.Seq
	}
	assert.Equal(t, fold(all, time.Now()), fold(given, time.Now()))
	assert.Greater(t, len(given), 100)

	// One that comes back continues where it ended.
	given, err = load(late, 301)
	require.NoError(t, err)
	assert.Greater(t, given[0].Seq, uint64(301))
	assert.Equal(t, fold(all, time.Now()), fold(append(all[:301:301], given...), time.Now()))
	// One that is new is given what is needed.
	kept := mustLoad(t, revocation.File(path))
	assert.Less(t, len(kept), 700)
	assert.Equal(t, fold(all, time.Now()), fold(kept, time.Now()))
	for _, s := range []revocation.Store{store, other, follower, late} {
		assert.False(t, s.(interface{ Lost() bool }).Lost())
	}
	// A refill of what is there appends nothing.
	before := readFile(t, path)
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), kept))
	assert.Equal(t, before, readFile(t, path))
}

// TestFile_RemovesExpiredLines shows that lines leave without a new rule for their key.
func TestFile_RemovesExpiredLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newFile(t)
		store := revocation.File(path)
		for i := range 700 {
			rule := fileRule("short-%d", i)
			rule.Until, rule.Reason = time.Now().Add(time.Hour), padding
			appendRule(t, store, rule)
		}
		for i := range 300 {
			appendRule(t, store, fileRule("long-%d", i))
		}
		time.Sleep(time.Hour + 5*time.Minute - time.Second)
		w := watch(t, store, 0)
		appendRule(t, store, fileRule("before"))
		assert.Equal(t, 1002, bytes.Count(readFile(t, path), []byte("\n")), "they are kept for five minutes more")
		time.Sleep(3 * time.Second)
		last := appendRule(t, store, fileRule("after"))
		assert.Equal(t, 303, bytes.Count(readFile(t, path), []byte("\n")))
		time.Sleep(time.Second)
		assert.Len(t, w.all(), 1002)
		assert.Equal(t, last, w.all()[1001])
		added := appendRule(t, store, fileRule("more"))
		time.Sleep(time.Second)
		assert.Equal(t, added, w.all()[1002])
		w.end()
		<-w.err
	})
}

func TestFile_KeepsLinesThatAreNeeded(t *testing.T) {
	path := newFile(t)
	store := revocation.File(path)
	for i := range 700 {
		rule := fileRule("t-%d", i%351) // just under half of them are not needed
		rule.Reason = padding
		appendRule(t, store, rule)
	}
	assert.Len(t, mustLoad(t, store), 700)
}

// TestFile_FailedCompactionLosesNothing has a disk that fails while the file is replaced.
func TestFile_FailedCompactionLosesNothing(t *testing.T) {
	t.Parallel() // It mostly waits.
	broken, large := errors.New("broken"), false
	for name, faults := range map[string]revocation.Faults{
		"the new file cannot be written": {Write: func(f *os.File, text []byte) (int, error) {
			if strings.HasSuffix(f.Name(), ".new") {
				n, _ := f.Write(text[:len(text)/2])
				return n, broken
			}
			return f.Write(text)
		}},
		"the new file cannot be synced": {Sync: func(f *os.File) error {
			if strings.HasSuffix(f.Name(), ".new") {
				return broken
			}
			return f.Sync()
		}},
		"the new file cannot be renamed": {Rename: func(string, string) error { return broken }},
		"the folder cannot be synced": {SyncFolder: func(path string) error {
			info, err := os.Stat(path)
			if err == nil && info.Size() < 100<<10 && large {
				return broken // It has been replaced.
			}
			large = large || err == nil && info.Size() > 100<<10
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			var log locked.Buffer
			list := &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			store := revocation.FileWithFaults(path, &faults)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = list.Follow(ctx, store) }()
			require.Eventually(t, func() bool { return !list.Status().Current.IsZero() }, 5*time.Second, time.Millisecond)
			makeCompactable(t, path)
			all := mustLoad(t, revocation.File(path))
			failed := 0
			for i := range 10 {
				r, err := store.Append(t.Context(), clientRule(i))
				if err != nil {
					require.ErrorIs(t, err, broken)
					failed++
					continue
				}
				all = append(all, r)
			}
			if !strings.Contains(name, "folder") {
				assert.Zero(t, failed, "Append must not fail because of it")
				assert.Equal(t, all, mustLoad(t, revocation.File(path)))
			}
			assert.Equal(t, fold(all, time.Now()), fold(mustLoad(t, revocation.File(path)), time.Now()))
			assert.NoFileExists(t, path+".new")
			assert.Contains(t, log.String(), "could not remove lines that are not needed")
			assert.Less(t, strings.Count(log.String(), "could not remove"), 5, "it must not try each time")
		})
	}
}

// TestFile_LeavesAForeignNewFileAlone has a file of somebody else where the new file is
// made.
func TestFile_LeavesAForeignNewFileAlone(t *testing.T) {
	path := newFile(t)
	writeFile(t, path+".new", []byte("hello"))
	store := revocation.File(path)
	var all []revocation.Receipt
	for i := range 700 {
		all = append(all, appendRule(t, store, clientRule(i)))
	}
	assert.Equal(t, all, mustLoad(t, store), "lines that are not needed stay")
	assert.Equal(t, "hello", string(readFile(t, path+".new")))
	many := make([]revocation.Receipt, 100)
	for i := range many {
		many[i] = revocation.Receipt{At: time.Now(), Rule: fileRule("t-%d", i)}
	}
	assert.ErrorContains(t, store.(revocation.Fleet).Refill(t.Context(), many), path+".new: it is not a file of revocations")
	require.NoError(t, os.Remove(path+".new"))
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), many))
}
