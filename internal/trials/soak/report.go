package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

func (r *report) heading() string {
	if raceDetector {
		return "## With the race detector"
	}
	return "## Without the race detector"
}

func (r *report) text() string {
	var b strings.Builder
	race := ""
	if raceDetector {
		race = "-race "
	}
	fmt.Fprintf(&b, "`go run %s./internal/trials/soak -for %v -write` on %s, %s %s/%s, %d processors:\n%d cycles, %d outages, %d rotations, %d key fetches.\n\n",
		race, r.duration, time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0),
		r.cycles, r.outages, 2*r.cycles, r.fetches)
	fmt.Fprintf(&b, "- **Wrong responses: %d.** These are valid tokens without a 200, and forged tokens with one.\n", r.wrongs)
	fmt.Fprintf(&b, "- Keys that signed immediately, during a flood: %d. They were unknown for at most %v, with a MinInterval of %v;\n  %d of their tokens got 403 in that time.\n",
		len(r.abrupt), slices.Max(append(r.abrupt, 0)).Round(time.Millisecond), cycleOf(r.duration).minInterval(), r.rejected)
	fmt.Fprintf(&b, "- Left after everything was closed: %d goroutines, %d KB of heap.\n", r.goroutinesLeft, r.heapLeft>>10)
	fmt.Fprintf(&b, "- **p99 of valid requests in phase *load*: %.2f × that in phase *calm*** (target: %.1f).\n\n", r.ratio(), maxRatio)
	b.WriteString("| phase (processors in use) | valid requests | p50 | p99 | slowest |\n|---|---|---|---|---|\n")
	for _, p := range []phase{alone, calm, load} {
		w := r.waits[p]
		fmt.Fprintf(&b, "| %s (%.0f %%) | %d | %v | %v | %v |\n", p, 100*r.busy[p], w.count, round(w.p50), round(w.p99), round(w.slowest))
	}
	b.WriteString("\n| sent | responses |\n|---|---|\n")
	for _, what := range slices.Sorted(maps.Keys(r.answers)) {
		var counts []string
		for _, status := range slices.Sorted(maps.Keys(r.answers[what])) {
			counts = append(counts, fmt.Sprintf("%d × %d", r.answers[what][status], status))
		}
		fmt.Fprintf(&b, "| %s | %s |\n", what, strings.Join(counts, ", "))
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

const intro = `# Under load

A guarded API, its issuer and all clients run in one process, on loopback, and share its processors.
` + "`make soak`" + ` writes this page.

## How it is measured

- **Clients.** Eight *steady* clients send valid requests at a fixed rate. Three of four requests have a token that was sent
  before, the fourth a new one. Eight more clients are the *crowd*. Another one gets its tokens with koreclient, also while the
  token endpoint fails and after the key of its token was removed.
- **Phases** take turns in cycles of half a minute. *alone*: the crowd is silent. *calm*: the crowd sends valid
  requests. *load*: the crowd sends hostile requests at the same rate.
- **Hostile requests** have an invented key ID, a changed signature, the signature of a removed key, garbage, or no token.
- **The issuer**, in phase *load*, fails twice, in one of six ways. It publishes a key and signs with it later, publishes
  another and signs with it immediately, and removes an old one.
- **Comparison.** Both phases have the same number of requests, so that they differ only in what the guard must
  do. They alternate, so that noise on the machine affects both. The rate leaves the processors time to spare.
- **Time** is counted from the moment when a request was due. So a stall counts for every request that it delays.
- **Intervals** of RemoteKeySet are shortened, for hundreds of refreshes: MinInterval is 1/60 of a cycle, MaxAge 1/20.
- **A key that signs immediately** is unknown until the next fetch that MinInterval allows, if the flood has used up the
  fetches. Until then its tokens may get 403, or 503 if the last fetch failed. If it takes longer, the response is wrong.
- **Goroutines and heap** that are left are compared with those after a short first run.
`

// writePage writes one section of the page and keeps the other.
func writePage(name, heading, text string) error {
	old, _ := os.ReadFile(name) // If it does not exist, there are no other sections.
	parts := strings.Split(string(old), "\n## ")
	sections := []string{heading + "\n\n" + text}
	for _, part := range parts[1:] {
		section := "## " + strings.TrimSpace(part) + "\n"
		if strings.HasPrefix(section, "## With") && !strings.HasPrefix(section, heading+"\n") {
			sections = append(sections, section)
		}
	}
	slices.SortFunc(sections, func(a, b string) int { return -cmp.Compare(a, b) }) // "Without" comes before "With".
	return os.WriteFile(name, []byte(intro+"\n"+strings.Join(sections, "\n")), 0o644)
}
