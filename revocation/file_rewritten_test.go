package revocation_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// rewritten is a test of a file of five rules whose follower has read them all. The file
// gets other lines after the first two, before the follower looks again.
type rewritten struct {
	old    []revocation.Receipt
	copied []byte // the file with the first two rules
}

// histories change a file with the first two rules, which is not followed.
var histories = map[string]func(t *testing.T, path string, r *rewritten){
	"nothing":  func(*testing.T, string, *rewritten) {},
	"one line": func(t *testing.T, path string, _ *rewritten) { appendOthers(t, path, "x", 1) },
	// It is as large as before.
	"three lines":        func(t *testing.T, path string, _ *rewritten) { appendOthers(t, path, "x", 3) },
	"three longer lines": func(t *testing.T, path string, _ *rewritten) { appendOthers(t, path, "longer", 3) },
	"ten lines":          func(t *testing.T, path string, _ *rewritten) { appendOthers(t, path, "x", 10) },
	"one line, and refill": func(t *testing.T, path string, r *rewritten) {
		appendOthers(t, path, "x", 1)
		r.refill(t, path, r.old[3:])
	},
	"one longer line, and refill": func(t *testing.T, path string, r *rewritten) {
		appendOthers(t, path, "longer", 1)
		r.refill(t, path, r.old[3:])
	},
	"one line, refill, and more": func(t *testing.T, path string, r *rewritten) {
		appendOthers(t, path, "x", 1)
		r.refill(t, path, r.old[3:])
		appendOthers(t, path, "y", 3)
	},
	"refill of other old rules": func(t *testing.T, path string, r *rewritten) {
		other := r.old[2]
		other.Rule.Token += "-other"
		r.refill(t, path, []revocation.Receipt{other, r.old[3], r.old[4]})
	},
	"refill in another order": func(t *testing.T, path string, r *rewritten) {
		r.refill(t, path, []revocation.Receipt{r.old[3], r.old[2], r.old[4]})
	},
}

// appendOthers appends rules as another process does.
func appendOthers(t *testing.T, path, name string, n int) {
	for i := range n {
		appendRule(t, revocation.File(path), fileRule("%s-%d", name, i))
	}
}

func (r *rewritten) refill(t *testing.T, path string, receipts []revocation.Receipt) {
	require.NoError(t, revocation.File(path).(revocation.Fleet).Refill(t.Context(), receipts))
}

// ways give the file at path its new lines.
var ways = map[string]func(t *testing.T, path string, r *rewritten, change func(path string)){
	"moved there": func(t *testing.T, path string, r *rewritten, change func(string)) {
		writeFile(t, path+".copy", r.copied)
		change(path + ".copy")
		require.NoError(t, os.Rename(path+".copy", path))
	},
	"moved there, then changed": func(t *testing.T, path string, r *rewritten, change func(string)) {
		writeFile(t, path+".copy", r.copied)
		require.NoError(t, os.Rename(path+".copy", path))
		change(path)
	},
	"copied into it": func(t *testing.T, path string, r *rewritten, change func(string)) {
		writeFile(t, path+".copy", r.copied)
		change(path + ".copy")
		writeFile(t, path, readFile(t, path+".copy"))
	},
	"copied into it, then changed": func(t *testing.T, path string, r *rewritten, change func(string)) {
		writeFile(t, path, r.copied)
		change(path)
	},
	"cut": func(t *testing.T, path string, r *rewritten, change func(string)) {
		require.NoError(t, os.Truncate(path, int64(len(r.copied))))
		change(path)
	},
	"twice": func(t *testing.T, path string, r *rewritten, change func(string)) {
		writeFile(t, path, r.copied)
		appendOthers(t, path, "z", 3)
		require.NoError(t, os.Remove(path))
		writeFile(t, path, r.copied)
		change(path)
	},
}

func TestFile_NoticesRewrittenLines(t *testing.T) {
	for way, write := range ways {
		for history, change := range histories {
			for _, unread := range []int{0, 2} {
				t.Run(fmt.Sprintf("%s, %s, %d unread", way, history, unread), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						testOtherLines(t, unread, func(t *testing.T, path string, r *rewritten) {
							write(t, path, r, func(path string) { change(t, path, r) })
						})
					})
				})
			}
		}
	}
}

// testOtherLines has a follower that goes on, and one that begins after each Seq.
func testOtherLines(t *testing.T, unread int, change func(t *testing.T, path string, r *rewritten)) {
	time.Sleep(time.Nanosecond) // so that all times have nine digits
	path := newFile(t)
	writer := revocation.File(path)
	fill(t, writer, 2)
	r := &rewritten{copied: readFile(t, path)}
	fill(t, writer, 3)
	r.old = mustLoad(t, writer)
	stores, watchers := make([]revocation.Store, 6), make([]*watcher, 6)
	for from := range stores {
		stores[from] = revocation.File(path)
		watchers[from] = watch(t, stores[from], 0)
	}
	time.Sleep(1100 * time.Millisecond) // The followers wait for their next look.
	for _, w := range watchers {
		require.Equal(t, r.old, w.all())
	}
	for _, w := range watchers[1:] {
		w.stop(t)
	}
	synctest.Wait()
	fill(t, writer, unread)
	change(t, path, r)
	all := mustLoad(t, revocation.File(path))
	for from := 1; from < len(stores); from++ {
		watchers[from] = watch(t, stores[from], uint64(from))
	}
	time.Sleep(time.Second)
	for from, w := range watchers {
		given := w.all()
		require.GreaterOrEqual(t, len(given), len(all), "from %d", from)
		require.Equal(t, all, given[len(given)-len(all):], "from %d", from)
		assert.True(t, stores[from].(interface{ Lost() bool }).Lost(), "from %d: the store must notice", from)
	}

	all = append(all, appendRule(t, revocation.File(path), fileRule("added")))
	time.Sleep(time.Second)
	for from, w := range watchers {
		given := w.all()
		assert.Equal(t, all, given[len(given)-len(all):], "from %d: it must continue", from)
		w.stop(t)
	}
}

// stop ends the follower, which must not have failed.
func (w *watcher) stop(t *testing.T) {
	w.end()
	require.ErrorIs(t, <-w.err, context.Canceled)
}

// TestFile_RewrittenLinesHaveTheSameLength makes sure that the rows above have the case
// that the size and the last line tell nothing.
func TestFile_RewrittenLinesHaveTheSameLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Nanosecond)
		path := newFile(t)
		writer := revocation.File(path)
		fill(t, writer, 2)
		r := &rewritten{copied: readFile(t, path)}
		fill(t, writer, 3)
		r.old = mustLoad(t, writer)
		before := readFile(t, path)
		for _, name := range []string{"three lines", "one line, and refill"} {
			writeFile(t, path, r.copied)
			histories[name](t, path, r)
			after := readFile(t, path)
			assert.Len(t, after, len(before), name)
			assert.NotEqual(t, before, after)
		}
		last := before[bytes.LastIndexByte(before[:len(before)-1], '\n'):]
		assert.True(t, bytes.HasSuffix(readFile(t, path), last))
	})
}
