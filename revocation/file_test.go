package revocation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/revocation"
)

const fileIssuer = "https://keycloak.example.com/realms/KORE-CIDP"

func fileRule(format string, args ...any) revocation.Rule {
	return revocation.Rule{Issuer: fileIssuer, Token: fmt.Sprintf(format, args...)}
}

// newFile returns a path in a new folder.
func newFile(t testing.TB) string { return filepath.Join(t.TempDir(), "revoked.log") }

func appendRule(t testing.TB, s revocation.Store, r revocation.Rule) revocation.Receipt {
	t.Helper()
	receipt, err := s.Append(context.Background(), r)
	require.NoError(t, err)
	return receipt
}

// fill appends n rules for tokens.
func fill(t testing.TB, s revocation.Store, n int) []revocation.Receipt {
	t.Helper()
	var all []revocation.Receipt
	for i := range n {
		all = append(all, appendRule(t, s, fileRule("t-%d", i)))
	}
	return all
}

// load returns what a store has, and the error of Follow, or nil if it is current.
func load(s revocation.Store, from uint64) ([]revocation.Receipt, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var given []revocation.Receipt
	err := s.Follow(ctx, from, func(r revocation.Receipt) { given = append(given, r) }, func(time.Time) { cancel() })
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return given, err
}

func mustLoad(t testing.TB, s revocation.Store) []revocation.Receipt {
	t.Helper()
	given, err := load(s, 0)
	require.NoError(t, err)
	return given
}

// watcher follows a store in the background.
type watcher struct {
	mu      sync.Mutex
	given   []revocation.Receipt
	current time.Time
	end     context.CancelFunc
	err     chan error
}

func watch(t testing.TB, s revocation.Store, from uint64) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{end: cancel, err: make(chan error, 1)}
	go func() {
		w.err <- s.Follow(ctx, from, func(r revocation.Receipt) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.given = append(w.given, r)
		}, func(at time.Time) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.current = at
		})
	}()
	t.Cleanup(cancel)
	return w
}

func (w *watcher) all() []revocation.Receipt {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]revocation.Receipt(nil), w.given...)
}

// waitCurrent waits until the watcher has looked at the file after now.
func (w *watcher) waitCurrent(t testing.TB) {
	t.Helper()
	now := time.Now()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.current.After(now)
	}, 10*time.Second, time.Millisecond)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestFile_IsTextWithALinePerRule(t *testing.T) {
	path := newFile(t)
	receipts := fill(t, revocation.File(path), 3)
	lines := strings.Split(string(readFile(t, path)), "\n")
	require.Len(t, lines, 5)
	assert.Regexp(t, `^koreauth revocations 1 [0-9a-f]{32}$`, lines[0])
	for i, r := range receipts {
		sum, text, ok := strings.Cut(lines[i+1], " ")
		require.True(t, ok)
		assert.Equal(t, fmt.Sprintf("%08x", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli))), sum)
		var read revocation.Receipt
		require.NoError(t, json.Unmarshal([]byte(text), &read))
		assert.Equal(t, r, read)
	}
	assert.Empty(t, lines[4])
	if runtime.GOOS != "windows" {
		for _, name := range []string{path, path + ".lock"} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode(), name)
		}
	}
}

func TestFile_IsMadeByAFollower(t *testing.T) {
	path := newFile(t)
	assert.Empty(t, mustLoad(t, revocation.File(path)))
	assert.FileExists(t, path)
	_, err := load(revocation.File(filepath.Join(t.TempDir(), "none", "revoked.log")), 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "make its folder")
	_, err = load(revocation.File(""), 0)
	assert.ErrorContains(t, err, "revocation: File has no path")
	_, err = revocation.File("").Append(t.Context(), fileRule("t"))
	assert.ErrorContains(t, err, "revocation: File has no path")
}

func TestFile_FaultyRuleMakesNoFile(t *testing.T) {
	path := newFile(t)
	for name, rule := range map[string]revocation.Rule{
		"no selection":                                    {Issuer: fileIssuer},
		"a value that is not UTF-8":                       {Issuer: fileIssuer, Token: "a\xff"},
		"an issuer that is not UTF-8":                     {Issuer: "\xff", Token: "t"},
		"a year that JSON cannot have":                    {Issuer: fileIssuer, Token: "t", Until: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a moment whose default Until is in no such year": {Issuer: fileIssuer, Client: "c", IssuedBefore: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a huge Reason":                                   {Issuer: fileIssuer, Token: "t", Reason: strings.Repeat("x", 200<<10)},
	} {
		_, err := revocation.File(path).Append(t.Context(), rule)
		if assert.ErrorContains(t, err, "revocation: Rule", name) {
			assert.NotContains(t, err.Error(), "file", name)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, entries)

	store := revocation.File(path)
	receipt := appendRule(t, store, revocation.Rule{Issuer: fileIssuer, Token: "t", Reason: strings.Repeat("\xff", 60<<10), By: strings.Repeat("\x01", 60<<10)})
	assert.Equal(t, strings.Repeat("\uFFFD", 60<<10), receipt.Rule.Reason, "a reason must be stored")
	assert.Equal(t, []revocation.Receipt{receipt}, mustLoad(t, store))
}

// TestFile_SurvivesTruncation cuts a file at each byte, as a crash may.
func TestFile_SurvivesTruncation(t *testing.T) {
	path := newFile(t)
	receipts := fill(t, revocation.File(path), 3)
	data := readFile(t, path)
	folder := fastFolder(t)
	for size := range len(data) {
		cut := filepath.Join(folder, fmt.Sprint(size))
		writeFile(t, cut, data[:size])
		complete := receipts[:max(bytes.Count(data[:size], []byte("\n")), 1)-1]

		if size > bytes.IndexByte(data, '\n') {
			assert.Equal(t, complete, emptyToNil(mustLoad(t, revocation.File(cut))), "size %d", size)
			assert.Equal(t, data[:size], readFile(t, cut), "a follower changed the file, size %d", size)
		}
		store := revocation.File(cut)
		added := appendRule(t, store, fileRule("added"))
		assert.Equal(t, uint64(len(complete)+1), added.Seq, "size %d", size)
		added2 := appendRule(t, store, fileRule("added later"))
		want := append(append([]revocation.Receipt(nil), complete...), added, added2)
		for _, s := range []revocation.Store{store, revocation.File(cut)} {
			require.Equal(t, want, mustLoad(t, s), "size %d", size)
		}
		assert.Equal(t, 1+len(want), bytes.Count(readFile(t, cut), []byte("\n")), "size %d", size)
	}
}

// emptyToNil makes results comparable.
func emptyToNil(r []revocation.Receipt) []revocation.Receipt {
	if r == nil {
		return []revocation.Receipt{}
	}
	return r
}

// fastFolder returns a folder in memory, where that is possible.
func fastFolder(t testing.TB) string {
	if folder, err := os.MkdirTemp("/dev/shm", "revocation"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		return folder
	}
	return t.TempDir()
}

// TestFile_NeverReadsADamagedRule changes each byte of a file.
func TestFile_NeverReadsADamagedRule(t *testing.T) { synctest.Test(t, testDamage) }

func testDamage(t *testing.T) {
	path := newFile(t)
	receipts := fill(t, revocation.File(path), 3)
	data := readFile(t, path)
	header, last := bytes.IndexByte(data, '\n')+1, bytes.LastIndexByte(data[:len(data)-1], '\n')+1
	damaged := filepath.Join(fastFolder(t), "revoked.log")
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 1 << (i % 7)
		writeFile(t, damaged, changed)
		_ = os.Remove(damaged + ".lock")
		given, err := load(revocation.File(damaged), 0)
		_, appendErr := revocation.File(damaged).Append(t.Context(), fileRule("added"))
		switch {
		case i >= last && i < len(data)-1 || i == len(data)-1: // The last line is ignored.
			require.NoError(t, err, "byte %d", i)
			require.NoError(t, appendErr, "byte %d", i)
			assert.Equal(t, receipts[:2], given, "byte %d", i)
			assert.Len(t, mustLoad(t, revocation.File(damaged)), 3)
		case i >= header:
			line := 1 + bytes.Count(data[:i], []byte("\n"))
			for _, err := range []error{err, appendErr} {
				assert.ErrorContains(t, err, fmt.Sprintf("line %d is damaged", line), "byte %d", i)
				assert.ErrorContains(t, err, "revocation: file "+damaged, "byte %d", i)
				assert.ErrorContains(t, err, "delete that line", "byte %d", i)
			}
			assert.Equal(t, receipts[:line-2], emptyToNil(given), "byte %d", i)
			assert.Equal(t, changed, readFile(t, damaged), "byte %d", i)
		case i >= header-33 && i < header-1 && bytes.IndexByte([]byte("0123456789abcdef"), changed[i]) >= 0: // another epoch
			assert.NoError(t, err, "byte %d", i)
		default:
			assert.Error(t, err, "byte %d", i)
			assert.Error(t, appendErr, "byte %d", i)
			assert.Empty(t, given, "byte %d", i)
			assert.Equal(t, changed, readFile(t, damaged), "byte %d", i)
			assert.NoFileExists(t, damaged+".lock", "byte %d", i)
		}
	}
}

func TestFile_DamagedLineCanBeDeleted(t *testing.T) {
	path := newFile(t)
	store := revocation.File(path)
	receipts := fill(t, store, 3)
	lines := strings.SplitAfter(string(readFile(t, path)), "\n")
	damaged := strings.Join([]string{lines[0], lines[1], strings.Replace(lines[2], "t-1", "t-2", 1), lines[3]}, "")
	writeFile(t, path, []byte(damaged))

	w := watch(t, store, 0)
	assert.ErrorContains(t, <-w.err, "line 3 is damaged")
	assert.Equal(t, receipts[:1], w.all())
	assert.True(t, w.current.IsZero(), "a list that has not seen all rules is not current")
	assert.True(t, store.(interface{ Lost() bool }).Lost(), "lists must append the rule again")
	_, err := revocation.File(path).Append(t.Context(), fileRule("new"))
	assert.ErrorContains(t, err, "line 3 is damaged")
	assert.ErrorContains(t, store.(revocation.Fleet).Refill(t.Context(), receipts), "line 3 is damaged")
	assert.Equal(t, damaged, string(readFile(t, path)), "nothing must be lost")

	writeFile(t, path, []byte(lines[0]+lines[1]+lines[3]))
	given, err := load(store, receipts[0].Seq) // as a list does that was given the first rule
	require.NoError(t, err)
	assert.Equal(t, receipts[2:], given)
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), receipts))
	assert.False(t, store.(interface{ Lost() bool }).Lost())
	want := receipts[1]
	want.Seq = 4
	assert.Equal(t, []revocation.Receipt{receipts[0], receipts[2], want}, mustLoad(t, store))
}

// TestFile_RejectsLinesOfAnotherVersion has undamaged lines that this version would
// understand wrongly.
func TestFile_RejectsLinesOfAnotherVersion(t *testing.T) {
	for _, text := range []string{
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","scope":"s"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"t","client":"c"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","everything":true,"client":"c"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"token":"t"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"hash":"token:00"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"t","lift":1}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"` + strings.Repeat("x", 257) + `"}}`,
		`{"seq":2,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"t"},"node":"a"}`,
	} {
		path := newFile(t)
		first := fill(t, revocation.File(path), 1)
		whole := fmt.Appendf(readFile(t, path), "%08x %s\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)), text)
		writeFile(t, path, whole)
		given, err := load(revocation.File(path), 0)
		assert.ErrorContains(t, err, "line 3: a newer version of koreauth wrote it: update this program", text)
		assert.Equal(t, first, given, text)
		assert.ErrorContains(t, revocation.File(path).(revocation.Fleet).Refill(t.Context(), first), "line 3", text)
		assert.Equal(t, whole, readFile(t, path), text)
	}
}

func TestFile_LeavesForeignFilesAlone(t *testing.T) {
	for name, content := range map[string]string{
		"a text":                  "hello\n",
		"a letter":                "h",
		"a long line":             strings.Repeat("x", 1<<20),
		"JSON":                    `{"koreauth":"revocations"}`,
		"a newline":               "\n",
		"zeros":                   strings.Repeat("\x00", 4096),
		"a newer format":          "koreauth revocations 2 0123456789abcdef0123456789abcdef\n",
		"a newer format, two":     "koreauth revocations 10 0123456789abcdef0123456789abcdef\n",
		"a short epoch":           "koreauth revocations 1 0123456789abcdef\n00000000 {}\n",
		"an epoch in capitals":    "koreauth revocations 1 0123456789ABCDEF0123456789abcdef\n",
		"a first line with CR":    "koreauth revocations 1 0123456789abcdef0123456789abcdef\r\n",
		"a byte order mark first": "\ufeffkoreauth revocations 1 0123456789abcdef0123456789abcdef\n",
		"a cache of a List":       "koreauth revocation cache\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			writeFile(t, path, []byte(content))
			store := revocation.File(path)
			given, err := load(store, 0)
			_, appendErr := store.Append(t.Context(), fileRule("t"))
			refillErr := store.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{{At: time.Now(), Rule: fileRule("t")}})
			for _, err := range []error{err, appendErr, refillErr} {
				require.ErrorContains(t, err, "revocation: file "+path+": ")
				assert.Regexp(t, "it is not a file of revocations.*give another path|update this program|line 1 is damaged: put back a copy", err.Error())
			}
			assert.Empty(t, given)
			assert.Equal(t, content, string(readFile(t, path)))
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			assert.Len(t, entries, 1, "no other file may be made")
		})
	}
	t.Run("a file that is replaced by a foreign one", func(t *testing.T) {
		path := newFile(t)
		store := revocation.File(path)
		receipts := fill(t, store, 2)
		w := watch(t, store, 0)
		w.waitCurrent(t)
		writeFile(t, path, []byte("hello\n"))
		assert.ErrorContains(t, <-w.err, "not a file of revocations")
		_, err := store.Append(t.Context(), fileRule("t"))
		assert.ErrorContains(t, err, "not a file of revocations")
		assert.ErrorContains(t, store.(revocation.Fleet).Refill(t.Context(), receipts), "not a file of revocations")
		assert.Equal(t, "hello\n", string(readFile(t, path)))
	})
}

func TestFile_ReportsATornLastLine(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	receipts := fill(t, revocation.File(path), 3)
	data := readFile(t, path)
	require.NoError(t, os.Truncate(path, int64(len(data)-5)))

	var log locked.Buffer
	list := &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	store := revocation.File(path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- list.Follow(ctx, store) }()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "is ignored") }, 10*time.Second, 5*time.Millisecond)
	assert.Equal(t, 2, list.Status().Entries)
	assert.False(t, list.Status().Current.IsZero(), "a torn line was never a rule, so that the list is current")
	w := watch(t, store, 0)
	w.waitCurrent(t)
	w.waitCurrent(t)
	w.waitCurrent(t)

	added := appendRule(t, store, fileRule("added"))
	assert.Equal(t, uint64(3), added.Seq)
	require.Eventually(t, func() bool { return len(w.all()) == 3 }, 10*time.Second, time.Millisecond)
	assert.Equal(t, append(receipts[:2:2], added), w.all())
	w.waitCurrent(t)
	cancel()
	assert.ErrorIs(t, <-done, context.Canceled)
	assert.False(t, store.(interface{ Lost() bool }).Lost(), "nothing that was stored is gone")

	text := log.String()
	assert.Equal(t, 1, strings.Count(text, "level=WARN msg=\"koreauth: the last line of the store is incomplete or damaged and is ignored"), text)
	assert.Contains(t, text, "line=4")
	assert.Equal(t, 1, strings.Count(text, "the store repaired"), "Append reports what it removed: %s", text)
	assert.NotContains(t, text, "t-2")
}

// TestFile_DoesNotReportALineThatIsBeingWritten has a follower that looks while a line is
// written.
func TestFile_DoesNotReportALineThatIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newFile(t)
		var log locked.Buffer
		faults := revocation.Faults{Write: func(f *os.File, text []byte) (int, error) {
			_, _ = f.Write(text[:30])
			time.Sleep(250 * time.Millisecond)
			n, err := f.Write(text[30:])
			return n + 30, err
		}}
		store := revocation.FileWithFaults(path, &faults)
		list := &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- list.Follow(ctx, store) }()
		time.Sleep(time.Second)
		fill(t, store, 5)
		time.Sleep(time.Second)
		assert.Equal(t, 5, list.Status().Entries)
		assert.NotContains(t, log.String(), "WARN")
		cancel()
		<-done
	})
}
