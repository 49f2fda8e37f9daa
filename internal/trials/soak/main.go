// Command soak loads a guarded API for a while and says whether any answer was
// wrong, how long valid requests took, and what was left over afterwards. All of
// it happens in this process and on loopback; it stops by itself.
//
//	go run ./internal/trials/soak -for 10m                # prints the report; status 1 if a promise was broken
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
	duration := flag.Duration("for", 10*time.Minute, "how long")
	write := flag.Bool("write", false, "write the report into "+page+", from the root of the repository")
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
	if broken := report.broken(); len(broken) > 0 {
		return fmt.Errorf("promises broken:\n%s", strings.Join(broken, "\n"))
	}
	return nil
}

// measure runs everything once for a moment, so that what Go and its libraries
// make on first use is not taken for a leak, and then in earnest.
func measure(duration time.Duration) (*report, error) {
	if _, err := soak(min(duration, 2*time.Second)); err != nil {
		return nil, err
	}
	goroutines, heap := leftOver(0)
	report, err := soak(duration)
	if err != nil {
		return nil, err
	}
	after, heapAfter := leftOver(goroutines)
	report.goroutinesLeft, report.heapLeft = after-goroutines, heapAfter-heap
	return report, nil
}

// report is what came out.
type report struct {
	duration time.Duration
	cycles   int

	wrong    []string // the first of them
	wrongs   int
	answers  map[string]map[int]int // by what was sent, then by status
	waits    map[phase]waits        // of valid requests
	busy     map[phase]float64      // the share of the processors that was in use
	fetches  int
	outages  int
	abrupt   []time.Duration // how long a key that signed at once was unknown
	refusals int             // of its tokens, meanwhile

	goroutinesLeft int
	heapLeft       int64
}

const (
	maxRatio    = 1.5     // of p99 under load to p99 in calm
	maxHeapLeft = 1 << 20 // bytes
)

func (r *report) ratio() float64 {
	return float64(r.waits[load].p99) / float64(r.waits[calm].p99)
}

// broken says which promises were.
func (r *report) broken() []string {
	broken := slices.Clone(r.wrong)
	if r.goroutinesLeft > 0 {
		broken = append(broken, fmt.Sprintf("%d goroutines are left", r.goroutinesLeft))
	}
	if r.heapLeft > maxHeapLeft {
		broken = append(broken, fmt.Sprintf("%d KB of heap are left", r.heapLeft>>10))
	}
	if r.ratio() > maxRatio {
		broken = append(broken, fmt.Sprintf("p99 under load is %.2f × that in calm", r.ratio()))
	}
	return broken
}

// waits is what is kept of how long requests took.
type waits struct {
	count             int
	p50, p99, slowest time.Duration
}

// summary sorts what it is given.
func summary(all []time.Duration) waits {
	if len(all) == 0 {
		return waits{}
	}
	slices.Sort(all)
	return waits{len(all), all[len(all)*50/100], all[len(all)*99/100], all[len(all)-1]}
}
