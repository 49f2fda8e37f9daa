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
	"append": childAppends, "follow": childFollows, "limit": childHasALimit,
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
				if len(args) > 3 && i%2 == 1 {
					rule = clientRule(i)
				}
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

// TestFile_KilledProcessLosesNothing kills a process while it appends, and, in the
// second half, while it replaces the file.
func TestFile_KilledProcessLosesNothing(t *testing.T) {
	path := newFile(t)
	acknowledged := make(map[uint64]string)
	torn, interrupted := 0, 0
	rounds := 40
	if testing.Short() {
		rounds = 6
	}
	for round := range rounds {
		args := []string{"append", path, fmt.Sprint("r", round), "2", "1000000"}
		wait := rand.N(40 * time.Millisecond)
		if round >= rounds/2 {
			args = append(args, "with clients")
			makeCompactable(t, path)
			wait = rand.N(25 * time.Millisecond)
		}
		cmd, out := child(t, args...)
		line, err := out.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
		time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		for seq, token := range readLines(t, out, nil) {
			assert.NotContains(t, acknowledged, seq, "a Seq must not come twice")
			acknowledged[seq] = token
		}
		_ = cmd.Wait()
		if data := readFile(t, path); data[len(data)-1] != '\n' {
			torn++
		}
		if _, err := os.Stat(path + ".new"); err == nil {
			interrupted++
		}

		have := make(map[uint64]string)
		for _, r := range mustLoad(t, revocation.File(path)) {
			have[r.Seq] = r.Rule.Token
		}
		for seq, token := range acknowledged {
			if token != "" { // Rules for clients may have been dropped.
				require.Equal(t, token, have[seq], "round %d lost an acknowledged rule", round)
			}
		}
		added := appendRule(t, revocation.File(path), fileRule("after-%d", round))
		assert.NotContains(t, acknowledged, added.Seq)
		acknowledged[added.Seq] = added.Rule.Token
	}
	t.Logf("%d rules were acknowledged in %d rounds; %d kills left an incomplete line, %d an incomplete new file", len(acknowledged), rounds, torn, interrupted)
	assert.Greater(t, len(acknowledged), 2*rounds)
}

// makeCompactable makes a file larger than 1 MiB, so that the next Append replaces it.
func makeCompactable(t *testing.T, path string) {
	t.Helper()
	at := time.Now().UTC().Add(-48 * time.Hour)
	var receipts []revocation.Receipt
	for i := range 5000 {
		rule := fileRule("past-%d", i)
		rule.Until, rule.Reason = at.Add(time.Hour), padding[:300]
		receipts = append(receipts, revocation.Receipt{At: at.Add(time.Duration(i)), Rule: rule})
	}
	require.NoError(t, revocation.File(path).(revocation.Fleet).Refill(t.Context(), receipts))
}

// TestFile_IsSharedByProcesses has eight writers in two processes, and readers in a
// third.
func TestFile_IsSharedByProcesses(t *testing.T) {
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
	for i := range 20 {
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
