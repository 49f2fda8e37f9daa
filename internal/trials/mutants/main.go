// Command mutants shows that the tests notice when a check in the source is
// removed or weakened. Each *.txt file next to it lists such changes, called
// mutants, for one source file. Each mutant is tried alone, and a test must
// fail. Run it in the root of the repository:
//
//	go run ./internal/trials/mutants                   # all mutants; writes docs/reports/mutants.md
//	go run ./internal/trials/mutants -only validator   # those of validator.txt; writes nothing
//	go run ./internal/trials/mutants iat               # those with this text in their description
//	go run ./internal/trials/mutants -check            # only reports mutants that do not match the source
//	go run ./internal/trials/mutants -resume FILE      # keeps the verdicts in FILE, and uses those that it has
//
// It exits with status 1 if a mutant survives, does not compile or does not
// match the source, and with status 2 if nothing could be tried. It does not
// change the source: mutants are built with go build -overlay.
//
// Most mutants change only the bodies of functions. They are all compiled into
// one test binary, which an environment variable tells the mutant to use, so
// that trying one takes no compilation. A mutant that does not fit into that
// binary, or that survives in it, is compiled and tried alone.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const page = "docs/reports/mutants.md"

// options are the flags.
type options struct {
	check        bool
	only, words  string // which mutants
	resume, with string
	workers      int
	timeout      time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.check, "check", false, "run no test; report the mutants whose text is not in the source exactly once")
	flag.StringVar(&o.only, "only", "", "try only the mutants of these `files`, separated by commas: validator,claims")
	flag.StringVar(&o.resume, "resume", "", "use the verdicts in this `file` that are of the same source, tests and mutant, and add the others")
	flag.StringVar(&o.with, "exec", "", "run each test binary with this `program`, as go test -exec does")
	flag.IntVar(&o.workers, "workers", runtime.GOMAXPROCS(0), "how many mutants to try at once")
	flag.DurationVar(&o.timeout, "timeout", 2*time.Minute, "after this time a mutant is counted as noticed: the tests hang")
	flag.Parse()
	o.words = strings.Join(flag.Args(), " ")

	failed, err := run(o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	case failed > 0:
		os.Exit(1)
	}
}

// run returns how many mutants do not match the source or were not noticed.
func run(o options) (failed int, err error) {
	all, err := readLists()
	if err != nil {
		return 0, err
	}
	chosen, err := choose(all, o.only, o.words)
	if err != nil {
		return 0, err
	}
	for _, m := range chosen {
		if err := m.apply(); err != nil {
			m.verdict = "**" + err.Error() + "**"
			fmt.Printf("%s.txt:%d: %s: %v\n", m.list, m.line, m.description, err)
			failed++
		}
	}
	if o.check {
		fmt.Printf("%d of %d mutants do not match the source\n", failed, len(chosen))
		return failed, nil
	}

	matching := slices.DeleteFunc(slices.Clone(chosen), func(m *mutant) bool { return m.verdict != "" })
	var past *verdicts
	if o.resume != "" {
		if past, err = openVerdicts(o.resume, all); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	untried := slices.DeleteFunc(slices.Clone(matching), past.find)
	if err := o.try(untried, past); err != nil {
		return 0, err
	}

	survived := 0
	for _, m := range matching {
		if !m.killed {
			survived++
		}
	}
	fmt.Printf("%d mutants: %d noticed, %d not noticed, %d do not match the source; %v\n",
		len(chosen), len(matching)-survived, survived, failed, time.Since(start).Round(time.Second))
	if len(chosen) == len(all) {
		err = os.WriteFile(page, table(all, survived+failed, len(matching)-len(untried)), 0o644)
	}
	return failed + survived, err
}

// try tries the mutants, some at once, and adds their verdicts to past.
func (o options) try(mutants []*mutant, past *verdicts) error {
	if len(mutants) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &trial{dir: dir, with: o.with, timeout: o.timeout, noticedBy: readPage(page)}
	past.noticedBy(t.noticedBy)
	if err := t.prepare(mutants); err != nil {
		return err
	}
	return t.tryAll(mutants, past, o.workers)
}

// choose returns the mutants of the lists named in only, with the words in
// their description.
func choose(all []*mutant, only, words string) ([]*mutant, error) {
	var lists []string
	if only != "" {
		for name := range strings.SplitSeq(only, ",") {
			name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(name), ".go"), ".txt")
			if !slices.ContainsFunc(all, func(m *mutant) bool { return m.list == name }) {
				return nil, fmt.Errorf("there is no list %s.txt", name)
			}
			lists = append(lists, name)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool {
		return lists != nil && !slices.Contains(lists, m.list) || !strings.Contains(m.source+" "+m.description, words)
	}), nil
}

// tryAll tries the mutants after prepare.
func (t *trial) tryAll(mutants []*mutant, past *verdicts, workers int) error {
	next := make(chan *mutant)
	var running sync.WaitGroup
	var failed atomic.Pointer[error] // to keep a verdict
	for i := range max(workers, 1) {
		own := filepath.Join(t.dir, fmt.Sprint("worker", i))
		running.Go(func() {
			for m := range next {
				m.verdict, m.killed = t.try(own, m)
				fmt.Printf("%s: %s: %s\n", m.source, m.description, m.verdict)
				if err := past.add(m); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for _, m := range mutants {
		next <- m
	}
	close(next)
	running.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
