// Command soak puts load on a guarded API. It reports whether any response was
// wrong, how long valid requests took, and which goroutines and memory were left
// afterwards. Everything runs in this process, on loopback.
//
//	go run ./internal/trials/soak -for 10m                # prints the report; exits with status 1 if it misses a target
//	go run -race ./internal/trials/soak -for 10m -write   # also writes it into docs/reports/soak.md
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const page = "docs/reports/soak.md"

func main() {
	duration := flag.Duration("for", 10*time.Minute, "how long to run")
	write := flag.Bool("write", false, "also write the report to "+page+"; run it in the root of the repository")
	flag.Parse()
	if err := run(*duration, *write); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(duration time.Duration, write bool) error {
	report, err := measure(duration)
	if err != nil {
		return err
	}
	fmt.Print(report.text())
	if write {
		if err := writePage(page, report.heading(), report.text()); err != nil {
			return err
		}
	}
	if missed := report.missed(); len(missed) > 0 {
		return fmt.Errorf("targets missed:\n%s", strings.Join(missed, "\n"))
	}
	return nil
}

// measure runs everything twice. The first run is short: it lets Go and its
// libraries allocate what they keep from their first use on, which would
// otherwise look like a leak.
func measure(duration time.Duration) (*report, error) {
	if _, err := soak(min(duration, 2*time.Second)); err != nil {
		return nil, err
	}
	goroutines, heap := remaining(0)
	report, err := soak(duration)
	if err != nil {
		return nil, err
	}
	after, heapAfter := remaining(goroutines)
	report.goroutinesLeft, report.heapLeft = after-goroutines, heapAfter-heap
	return report, nil
}

// report is the result of a run.
type report struct {
	duration time.Duration
	cycles   int

	wrong    []string               // the first wrong responses
	wrongs   int                    // how many there were
	answers  map[string]map[int]int // counts by what was sent, then by status
	waits    map[phase]waits        // of valid requests
	busy     map[phase]float64      // the share of processor time in use
	fetches  int
	outages  int
	abrupt   []time.Duration // how long each key that signed immediately was unknown
	rejected int             // how many of their tokens were rejected during that time

	goroutinesLeft int
	heapLeft       int64
}

const (
	maxRatio    = 1.5     // p99 under load, divided by p99 without hostile requests
	maxHeapLeft = 1 << 20 // bytes
)

func (r *report) ratio() float64 {
	return float64(r.waits[load].p99) / float64(r.waits[calm].p99)
}

// missed returns the wrong responses and the targets that were missed.
func (r *report) missed() []string {
	missed := slices.Clone(r.wrong)
	if r.goroutinesLeft > 0 {
		missed = append(missed, fmt.Sprintf("%d goroutines are left", r.goroutinesLeft))
	}
	if r.heapLeft > maxHeapLeft {
		missed = append(missed, fmt.Sprintf("%d KB of heap are left", r.heapLeft>>10))
	}
	if r.ratio() > maxRatio {
		missed = append(missed, fmt.Sprintf("p99 under load is %.2f × p99 without hostile requests", r.ratio()))
	}
	return missed
}

// waits summarizes how long requests took.
type waits struct {
	count             int
	p50, p99, slowest time.Duration
}

// summary returns the summary of all, which it sorts.
func summary(all []time.Duration) waits {
	if len(all) == 0 {
		return waits{}
	}
	slices.Sort(all)
	return waits{len(all), all[len(all)*50/100], all[len(all)*99/100], all[len(all)-1]}
}
