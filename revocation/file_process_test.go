//go:build unix

package revocation_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// children are what this test does in a process of its own.
var children = map[string]func(path string, args []string){
	"append": childAppends, "follow": childFollows, "limit": childHasALimit, "die": childDies,
}

const childVariable = "KOREAUTH_TEST_CHILD"

// TestChild is run by the other tests, in another process.
func TestChild(t *testing.T) {
	args := strings.Split(os.Getenv(childVariable), "\n")
	if len(args) < 2 {
		t.Skip("other tests run it in another process")
	}
	children[args[0]](args[1], args[2:])
}

// child starts a process. Its lines of output are read from the returned reader.
func child(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(args, "\n"))
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(errors.String())
		}
	})
	return cmd, bufio.NewReader(out)
}

// childAppends appends n rules in several goroutines, and writes a line for each that
// was appended.
func childAppends(path string, args []string) {
	name := args[0]
	goroutines, _ := strconv.Atoi(args[1])
	n, _ := strconv.Atoi(args[2])
	store := revocation.File(path)
	var mu sync.Mutex
	fmt.Println("ready")
	var wait sync.WaitGroup
	for g := range goroutines {
		wait.Go(func() {
			for i := range n {
				rule := fileRule("%s-%d-%d", name, g, i)
				receipt, err := store.Append(context.Background(), rule)
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
				} else {
					fmt.Println("appended", receipt.Seq, rule.Token)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	fmt.Println("done")
}

// childFollows writes a line for each rule, with the time at which it was given.
func childFollows(path string, _ []string) {
	ready := false
	_ = revocation.File(path).Follow(context.Background(), 0, func(r revocation.Receipt) {
		fmt.Println("given", r.Seq, time.Now().UnixNano())
	}, func(time.Time) {
		if !ready {
			fmt.Println("ready")
		}
		ready = true
	})
}

// readLines reads the output of a child, and returns the tokens that it appended. It
// calls each with each line.
func readLines(t *testing.T, out io.Reader, each func(line string)) map[uint64]string {
	appended := make(map[uint64]string)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		words := strings.Split(scanner.Text(), " ")
		if words[0] == "appended" && len(words) == 3 {
			seq, err := strconv.ParseUint(words[1], 10, 64)
			require.NoError(t, err)
			assert.NotContains(t, appended, seq)
			appended[seq] = words[2]
		}
		if words[0] == "error" {
			t.Error(scanner.Text())
		}
		if each != nil {
			each(scanner.Text())
		}
	}
	return appended
}

// TestFile_KilledProcessLosesNothing kills a process at random moments.
func TestFile_KilledProcessLosesNothing(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	acknowledged := make(map[uint64]string)
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		cmd, out := child(t, "append", path, fmt.Sprint("r", round), "2", "1000000")
		line, err := out.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
		time.AfterFunc(rand.N(40*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for seq, token := range readLines(t, out, nil) {
			assert.NotContains(t, acknowledged, seq, "a Seq must not come twice")
			acknowledged[seq] = token
		}
		_ = cmd.Wait()
		added := wantStored(t, path, acknowledged)
		acknowledged[added.Seq] = added.Rule.Token
	}
	t.Logf("%d rules were acknowledged in %d rounds", len(acknowledged), rounds)
}

// wantStored fails unless a file has these rules, and one that is appended then.
func wantStored(t *testing.T, path string, acknowledged map[uint64]string) revocation.Receipt {
	t.Helper()
	added := appendRule(t, revocation.File(path), fileRule("added"))
	assert.NotContains(t, acknowledged, added.Seq)
	have := make(map[uint64]string)
	for _, r := range mustLoad(t, revocation.File(path)) {
		have[r.Seq] = r.Rule.Token
	}
	for seq, token := range acknowledged {
		require.Equal(t, token, have[seq], "an acknowledged rule is lost")
	}
	require.Equal(t, "added", have[added.Seq])
	return added
}

// childDies appends two rules, and ends like a killed process at a given call of the
// disk: before it, or in the middle of a write.
func childDies(path string, args []string) {
	at, _ := strconv.Atoi(args[0])
	calls := 0
	die := func(moment string, half func()) {
		if calls == at && moment == args[1] {
			half()
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	nothing := func() {}
	call := func(f func() error) error {
		calls++
		die("before", nothing)
		return f()
	}
	store := revocation.FileWithFaults(path, &revocation.Faults{
		Write: func(f *os.File, text []byte) (n int, err error) {
			return len(text), call(func() error {
				die("middle", func() { _, _ = f.Write(text[:len(text)/2]) })
				_, err := f.Write(text)
				return err
			})
		},
		Sync:       func(f *os.File) error { return call(f.Sync) },
		Truncate:   func(f *os.File, size int64) error { return call(func() error { return f.Truncate(size) }) },
		Rename:     func(from, to string) error { return call(func() error { return os.Rename(from, to) }) },
		SyncFolder: func(string) error { return call(func() error { return nil }) },
	})
	for i := range 2 {
		receipt, err := store.Append(context.Background(), fileRule("dying-%d", i))
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("appended", receipt.Seq, receipt.Rule.Token)
	}
	fmt.Println("done", calls)
}

// TestFile_ProcessKilledAtEachCallLosesNothing kills a process at each call of the disk,
// while it makes a file, while it appends, repairs a torn line, and replaces the file.
func TestFile_ProcessKilledAtEachCallLosesNothing(t *testing.T) {
	folder := fastFolder(t)
	template := filepath.Join(folder, "template")
	receipts := fill(t, revocation.File(template), 5)
	makeCompactable(t, template)
	large := readFile(t, template)
	second := len(bytes.Join(bytes.SplitAfter(large, []byte("\n"))[:3], nil))
	for _, row := range []struct {
		name string
		data []byte // nil: there is no file
		has  int    // of the receipts
	}{
		{"a new file", nil, 0},
		{"a file that ends within its first line", large[:20], 0},
		{"a file that ends within a line", large[:second+20], 2},
		{"a large file", large, 5},
	} {
		t.Run(row.name, func(t *testing.T) {
			if raceDetector && row.has != 5 {
				t.Skip("starting a process takes long with the race detector")
			}
			calls, leftOver := 0, 0
			for at := 1; calls == 0 && at < 50; at++ {
				for _, moment := range []string{"before", "middle"} {
					path := filepath.Join(folder, fmt.Sprintf("%s %d %s", row.name, at, moment))
					if row.data != nil {
						writeFile(t, path, row.data)
					}
					cmd, out := child(t, "die", path, fmt.Sprint(at), moment)
					acknowledged := readLines(t, out, func(line string) {
						if words := strings.Split(line, " "); words[0] == "done" && words[1] == fmt.Sprint(at-1) {
							calls = at - 1 // It made all calls, so that this is the last round.
						}
					})
					_ = cmd.Wait()
					if _, err := os.Stat(path + ".new"); err == nil {
						leftOver++
					}
					for _, r := range receipts[:row.has] {
						acknowledged[r.Seq] = r.Rule.Token
					}
					wantStored(t, path, acknowledged)
					if row.has == 5 {
						assert.Less(t, len(readFile(t, path)), 10<<10, "it must be replaced in the end")
					}
					assert.NoFileExists(t, path+".new")
				}
			}
			assert.Positive(t, calls)
			t.Logf("%d calls; %d new files were left over", calls, leftOver)
		})
	}
}

// TestFile_IsSharedByProcesses has eight writers in two processes, and readers in a
// third.
func TestFile_IsSharedByProcesses(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	store := revocation.File(path)
	w := watch(t, store, 0)
	const each = 100
	appended := make([]map[uint64]string, 2)
	var wait sync.WaitGroup
	began := time.Now()
	for i := range appended {
		_, out := child(t, "append", path, fmt.Sprint("p", i), "4", fmt.Sprint(each))
		wait.Go(func() {
			appended[i] = readLines(t, out, nil)
			t.Logf("process %d was done after %v", i, time.Since(began))
		})
	}
	wait.Wait()
	all := make(map[uint64]string)
	for _, own := range appended {
		assert.Len(t, own, 4*each)
		for seq, token := range own {
			assert.NotContains(t, all, seq, "two processes gave the same Seq")
			all[seq] = token
		}
	}
	require.Eventually(t, func() bool { return len(w.all()) == len(all) }, 5*time.Second, time.Millisecond)
	at := time.Time{}
	for i, r := range w.all() {
		require.Equal(t, uint64(i+1), r.Seq)
		require.Equal(t, all[r.Seq], r.Rule.Token)
		require.True(t, r.At.After(at))
		at = r.At
	}
	assert.Equal(t, w.all(), mustLoad(t, revocation.File(path)))
}

func TestFile_ReachesOtherProcessesSoon(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := newFile(t)
	_, out := child(t, "follow", path)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	given := make(chan time.Time, 100)
	go readLines(t, out, func(line string) {
		if words := strings.Split(line, " "); words[0] == "given" {
			at, _ := strconv.ParseInt(words[2], 10, 64)
			given <- time.Unix(0, at)
		}
	})
	store := revocation.File(path)
	var delays []time.Duration
	for i := range 10 {
		<-time.After(rand.N(100 * time.Millisecond)) // at any moment between two looks
		appendRule(t, store, fileRule("t-%d", i))
		returned := time.Now()
		select {
		case at := <-given:
			delays = append(delays, at.Sub(returned))
		case <-time.After(10 * time.Second):
			t.Fatal("the rule did not arrive")
		}
	}
	slices.Sort(delays)
	t.Logf("Append returned → given: median %v, maximum %v", delays[len(delays)/2], delays[len(delays)-1])
	assert.Less(t, delays[len(delays)/2], 300*time.Millisecond)
	assert.Less(t, delays[len(delays)-1], time.Second) // 500 ms on a machine that is not busy
}

// childHasALimit appends while files can have a certain size only, as on a full disk.
func childHasALimit(path string, _ []string) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	check := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	check(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	store := revocation.File(path)
	for i := range 200 {
		info, err := os.Stat(path)
		check(err)
		full := limit
		full.Cur = uint64(info.Size()) + uint64(i)
		check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full))
		receipt, err := store.Append(context.Background(), fileRule("limited-%d", i))
		check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
		if after, _ := os.Stat(path); err != nil && after.Size() != info.Size() {
			fmt.Println("error the file has", after.Size(), "bytes after a failed Append, and had", info.Size())
		}
		if err != nil {
			fmt.Println("failed", err)
			receipt, err = store.Append(context.Background(), fileRule("free-%d", i))
		}
		check(err)
		fmt.Println("appended", receipt.Seq, receipt.Rule.Token)
	}
}

func TestFile_FullDiskLosesNothing(t *testing.T) {
	path := newFile(t)
	fill(t, revocation.File(path), 1)
	w := watch(t, revocation.File(path), 0)
	_, out := child(t, "limit", path)
	failed := 0
	appended := readLines(t, out, func(line string) {
		if strings.HasPrefix(line, "failed ") {
			failed++
			assert.Contains(t, line, "revocation: file "+path+": the rule is not stored: write "+path)
		}
	})
	assert.Greater(t, failed, 100)
	require.Len(t, appended, 200)
	w.waitCurrent(t)
	for _, given := range [][]revocation.Receipt{w.all(), mustLoad(t, revocation.File(path))} {
		require.Len(t, given, 201)
		for _, r := range given[1:] {
			require.Equal(t, appended[r.Seq], r.Rule.Token)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 2)
}
