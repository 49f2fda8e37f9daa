package revocation_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
)

// someRules are receipts of all kinds.
func someRules(t testing.TB) []revocation.Receipt {
	at := time.Now().Add(-time.Hour)
	return []revocation.Receipt{
		receipt(t, 1, at, revocation.Rule{Issuer: issuer, Token: "t"}),
		receipt(t, 2, at.Add(1), revocation.Rule{Issuer: issuer, Client: "kc_bad", IssuedBefore: at.Add(2 * time.Hour)}),
		receipt(t, 3, at.Add(2), revocation.Rule{Issuer: issuer, Account: "bad", IssuedBefore: at.Add(2 * time.Hour), Until: at.AddDate(500, 0, 0)}),
		receipt(t, 4, at.Add(3), revocation.Rule{Issuer: issuer, Subject: "lifted", IssuedBefore: at.Add(2 * time.Hour)}),
		receipt(t, 5, at.Add(4), revocation.Rule{Issuer: issuer, Subject: "lifted", Lift: true}),
		receipt(t, 6, at.Add(5), revocation.Rule{Issuer: issuer, Token: "far", Until: at.AddDate(500, 0, 0)}),
		receipt(t, 7, at.Add(6), revocation.Rule{Issuer: issuer, Token: "lifted"}),
		receipt(t, 8, at.Add(7), revocation.Rule{Issuer: issuer, Token: "lifted", Lift: true}),
	}
}

// hasSomeRules reports whether a list has someRules. It is none or all.
func hasSomeRules(t testing.TB, list *revocation.List) bool {
	t.Helper()
	has := isRevoked(t, list, token("t"))
	for _, change := range []func(*koreauth.Claims){
		func(c *koreauth.Claims) { c.ClientID = "kc_bad" }, func(c *koreauth.Claims) { c.AccountID = "bad" }, func(c *koreauth.Claims) { c.ID = "far" },
	} {
		c := token("x")
		change(c)
		require.Equal(t, has, isRevoked(t, list, c))
	}
	lifted := token("lifted")
	lifted.Subject = "lifted"
	require.False(t, isRevoked(t, list, lifted))
	return has
}

// writeCache makes a cache file of someRules, and returns when they were complete.
func writeCache(t testing.TB, path string, rules ...revocation.Receipt) time.Time {
	t.Helper()
	if rules == nil {
		rules = someRules(t)
	}
	list := &revocation.List{CacheFile: path}
	stop := follow(t, list, &fakeStore{giving(rules...)})
	require.Eventually(t, func() bool { return !list.Status().Current.IsZero() }, 10*time.Second, time.Millisecond)
	stop()
	return list.Status().Current
}

// content returns the content of a regular file.
func content(t testing.TB, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Sprint(info, err)
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// loadCache follows a store that cannot be reached, and returns when the cache file was read.
func loadCache(t testing.TB, list *revocation.List) (stop func()) {
	t.Helper()
	reached := make(chan struct{})
	once := sync.OnceFunc(func() { close(reached) })
	stop = follow(t, list, &fakeStore{func(context.Context, uint64, func(revocation.Receipt), func(time.Time)) error {
		once()
		return errDown
	}})
	<-reached
	return stop
}

func TestList_CacheFile_OutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		written := writeCache(t, path)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode())
		for _, value := range []string{"kc_bad", issuer, "lifted"} {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.NotContains(t, string(text), value, "only hashes")
		}
		pass(59*time.Minute - time.Since(written))
		list := &revocation.List{CacheFile: path}
		loadCache(t, list)
		assert.True(t, hasSomeRules(t, list))
		status := list.Status()
		assert.Equal(t, 4, status.Entries)
		assert.True(t, written.Equal(status.Current))
		pass(time.Minute)
		assert.NoError(t, list.Check(nil, token("x")))
		assert.ErrorIs(t, list.Status().Err, errDown)
		assert.ErrorIs(t, revocation.Fresh(list, time.Minute).Check(nil, token("x")), koreauth.ErrUnavailable)
		pass(time.Nanosecond)
		assert.ErrorIs(t, list.Check(nil, token("x")), koreauth.ErrUnavailable, "MaxStale counts from the moment in the file")
	})
}

func TestList_CacheFile_IsWrittenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		store := revocation.Memory()
		list := &revocation.List{CacheFile: path}
		follow(t, list, store)
		for n := range 100 {
			pass(700 * time.Millisecond)
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: fmt.Sprint(n)})
			require.NoError(t, err)
		}
		pass(5 * time.Second)
		synctest.Wait()
		other := &revocation.List{CacheFile: path}
		stop := loadCache(t, other)
		assert.Equal(t, 100, other.Status().Entries)
		stop()
		// Nothing changes, so the file is rarely written, and still does not get old.
		before, err := os.Stat(path)
		require.NoError(t, err)
		pass(time.Minute)
		after, err := os.Stat(path)
		require.NoError(t, err)
		assert.True(t, os.SameFile(before, after))
		pass(24 * time.Hour)
		synctest.Wait()
		other = &revocation.List{CacheFile: path}
		loadCache(t, other)
		assert.NoError(t, other.Check(nil, token("x")))
		assert.Less(t, time.Since(other.Status().Current), 7*time.Minute)
	})
}

func TestList_CacheFile_RefillsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		rules := someRules(t)
		writeCache(t, path, rules...)
		for _, row := range []struct {
			name string
			has  []revocation.Receipt
			want int
		}{{"a store that is empty", nil, 1}, {"a store that lost one", rules[1:], 1}, {"a store that lost a lift", rules[:7], 1}, {"a store that has all", rules, 0}} {
			store := &losingFleet{}
			store.follow = giving(row.has...)
			list := &revocation.List{CacheFile: path}
			require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "local"}))
			stop := follow(t, list, store)
			pass(time.Minute)
			require.Len(t, store.refilled(), row.want, row.name)
			if row.want > 0 {
				lift := rules[4]
				lift.Rule.Until = rules[3].Rule.Until // A lift is kept as long as what it lifts.
				kept := []revocation.Receipt{rules[0], rules[1], rules[2], lift, rules[5], rules[7]}
				assert.Equal(t, rulesOf(kept), rulesOf(store.refilled()[0]))
			}
			stop()
			assert.True(t, hasSomeRules(t, list))
		}
	})
}

func TestList_CacheFile_HasNoRulesOfApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		list := &revocation.List{CacheFile: path}
		require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "local"}, revocation.Rule{Issuer: issuer, Client: "local"}))
		stop := follow(t, list, &fakeStore{giving(someRules(t)...)})
		synctest.Wait()
		require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "t", Lift: true}, revocation.Rule{Issuer: issuer, Client: "kc_bad", Lift: true}))
		assert.False(t, isRevoked(t, list, token("t")))
		stop()
		other := &revocation.List{CacheFile: path}
		loadCache(t, other)
		assert.True(t, hasSomeRules(t, other))
		assert.False(t, isRevoked(t, other, token("local")))
	})
}

// faultyFile is a row of the faults of a cache file.
type faultyFile struct {
	name   string
	spoil  func(t *testing.T, path string)
	cause  string
	isKept bool // the file is not replaced
	isRead bool
}

func TestList_CacheFile_SurvivesFaults(t *testing.T) {
	rewrite := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, change(text), 0o600))
		}
	}
	rows := []faultyFile{
		{name: "no fault", spoil: func(*testing.T, string) {}, isRead: true},
		{name: "no file", spoil: func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }},
		{name: "an empty file", spoil: rewrite(func([]byte) []byte { return nil }), cause: "is damaged"},
		{name: "a foreign file", spoil: rewrite(func([]byte) []byte { return []byte("my diary") }), cause: "was not written by this version of this package", isKept: true},
		{name: "a foreign file of one byte", spoil: rewrite(func([]byte) []byte { return []byte("x") }), cause: "was not written by this version", isKept: true},
		{name: "another version", spoil: rewrite(func(b []byte) []byte { return []byte(strings.Replace(string(b), "cache 1", "cache 2", 1)) }), cause: "was not written by this version", isKept: true},
		{name: "text behind the end", spoil: rewrite(func(b []byte) []byte { return append(b, 0) }), cause: "is damaged"},
		{name: "a folder", spoil: func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, cause: "is not a regular file", isKept: true},
		{name: "a link", spoil: func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+"2"))
			require.NoError(t, os.Symlink(path+"2", path))
		}, cause: "is not a regular file", isKept: true},
	}
	for _, row := range append(rows, platformFaults...) {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path, log := filepath.Join(t.TempDir(), "list"), &records{}
				writeCache(t, path)
				row.spoil(t, path)
				before := content(t, path)
				list := &revocation.List{CacheFile: path, Logger: log.logger()}
				stop := loadCache(t, list)
				if row.isRead {
					assert.True(t, hasSomeRules(t, list))
				} else {
					assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
				}
				warnings := log.all(t, "the cache file cannot be used")
				if row.cause == "" {
					assert.Empty(t, warnings)
				} else {
					require.Len(t, warnings, 1)
					assert.Contains(t, warnings[0]["cause"], row.cause)
					assert.Equal(t, path, warnings[0]["file"])
				}
				stop()
				stop = follow(t, list, &fakeStore{giving(someRules(t)...)})
				pass(10 * time.Second)
				assert.True(t, hasSomeRules(t, list), "the store helps")
				assert.NoError(t, list.Status().Err)
				stop()
				after := content(t, path)
				if row.isKept {
					assert.Equal(t, before, after)
				} else {
					other := &revocation.List{CacheFile: path}
					loadCache(t, other)
					assert.True(t, hasSomeRules(t, other), "the file was replaced")
				}
				names, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
				require.NoError(t, err)
				assert.Empty(t, names, "no temporary file is left")
			})
		})
	}
}

func TestList_CacheFile_CannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &records{}
		list := &revocation.List{CacheFile: filepath.Join(t.TempDir(), "missing", "list"), Logger: log.logger()}
		follow(t, list, &fakeStore{giving(someRules(t)...)})
		pass(58 * time.Second)
		assert.True(t, hasSomeRules(t, list))
		warnings := log.all(t, "the cache file cannot be used")
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0]["cause"], "cannot be written")
	})
}

// TestList_CacheFile_IsWholeOrNotUsed cuts the file at every byte, and changes every
// bit.
func TestList_CacheFile_IsWholeOrNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		writeCache(t, path)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		try := func(text []byte) (read bool) {
			require.NoError(t, os.WriteFile(path, text, 0o600))
			list := &revocation.List{CacheFile: path}
			defer loadCache(t, list)()
			if list.Status().Current.IsZero() {
				require.Zero(t, list.Status().Entries)
				return false
			}
			return hasSomeRules(t, list)
		}
		require.True(t, try(whole))
		for n := range whole {
			require.False(t, try(whole[:n]), "cut at byte %d", n)
		}
		for n := range whole {
			for bit := range 8 {
				text := append([]byte(nil), whole...)
				text[n] ^= 1 << bit
				require.False(t, try(text), "bit %d of byte %d", bit, n)
			}
		}
	})
}

func TestList_CacheFile_FromAClockThatWasAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	synctest.Test(t, func(t *testing.T) {
		pass(20 * 24 * time.Hour)
		writeCache(t, path)
	})
	synctest.Test(t, func(t *testing.T) {
		list := &revocation.List{CacheFile: path}
		stop := loadCache(t, list)
		assert.ErrorIs(t, list.Check(nil, token("x")), koreauth.ErrUnavailable, "nobody knows how old the file is")
		assert.NotZero(t, list.Status().Entries, "the rules are still rules")
		stop()
		stop = follow(t, list, revocation.Memory())
		pass(10 * time.Second)
		stop()
		other := &revocation.List{CacheFile: path}
		loadCache(t, other)
		assert.NoError(t, other.Check(nil, token("x")), "the file was replaced")
	})
}

func TestList_CacheFile_OfSeveralProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "list")
		store := revocation.Memory()
		behind := &revocation.List{CacheFile: path}
		stopped := make(chan struct{})
		stopBehind := follow(t, behind, &fakeStore{func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
			select {
			case <-stopped:
				return errDown
			default:
			}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-stopped:
					cancel()
				case <-ctx.Done():
				}
			}()
			return store.Follow(ctx, from, apply, current)
		}})
		for range 8 {
			follow(t, &revocation.List{CacheFile: path}, store)
		}
		for n := range 50 {
			if n == 25 {
				close(stopped)
			}
			_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: fmt.Sprint(n)})
			require.NoError(t, err)
			pass(time.Second)
			other := &revocation.List{CacheFile: path}
			stop := loadCache(t, other)
			require.NoError(t, other.Check(nil, token("x")))
			require.GreaterOrEqual(t, other.Status().Entries, n-4)
			stop()
		}
		pass(5 * time.Second)
		require.NoError(t, behind.Check(nil, token("x")))
		stopBehind()
		other := &revocation.List{CacheFile: path}
		loadCache(t, other)
		assert.Equal(t, 50, other.Status().Entries, "a process that is behind does not replace the file")
	})
}

func TestList_CacheFile_RemovesWhatKilledProcessesLeft(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "list")
	for name, age := range map[string]time.Duration{".list.koreauth-1": 2 * time.Hour, ".list.koreauth-2": time.Minute, ".other.koreauth-1": 2 * time.Hour} {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), nil, 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(folder, name), time.Time{}, time.Now().Add(-age)))
	}
	defer loadCache(t, &revocation.List{CacheFile: path})()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	assert.Equal(t, ".list.koreauth-2", entries[0].Name())
	assert.Equal(t, ".other.koreauth-1", entries[1].Name())
}

func TestList_CacheFile_LoadsAMillionRules(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes long")
	}
	path := filepath.Join(t.TempDir(), "list")
	list := &revocation.List{CacheFile: path}
	stop := follow(t, list, &fakeStore{func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
		start := time.Now()
		for n := range 1_000_000 {
			apply(receipt(t, uint64(n)+1, start.Add(time.Duration(n)), revocation.Rule{Issuer: issuer, Token: id(n)}))
		}
		t.Logf("given by a store in %v", time.Since(start))
		return idle(ctx, current)
	}})
	require.Eventually(t, func() bool { return list.Status().Seq == 1_000_000 }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return !list.Status().Current.IsZero() }, time.Minute, 10*time.Millisecond)
	start := time.Now()
	stop()
	t.Logf("written in %v", time.Since(start))
	var other *revocation.List
	took := time.Hour
	for range 5 { // The machine may be busy.
		other = &revocation.List{CacheFile: path}
		start = time.Now()
		stop := loadCache(t, other)
		took = min(took, time.Since(start))
		stop()
	}
	t.Logf("loaded in %v", took)
	assert.Equal(t, 1_000_000, other.Status().Entries)
	assert.True(t, isRevoked(t, other, token(id(999_999))))
}
