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
	fmt.Fprintf(&b, "- **Wrong answers: %d.** A valid token got something else than 200, or a forged one 200.\n", r.wrongs)
	fmt.Fprintf(&b, "- Keys that signed at once, in the flood: %d; unknown for %v at most, with a MinInterval of %v; meanwhile %d of their tokens got 403.\n",
		len(r.abrupt), slices.Max(append(r.abrupt, 0)).Round(time.Millisecond), cycleOf(r.duration).minInterval(), r.refusals)
	fmt.Fprintf(&b, "- Left after everything was closed: %d goroutines, %d KB of heap.\n", r.goroutinesLeft, r.heapLeft>>10)
	fmt.Fprintf(&b, "- **p99 of valid requests under load: %.2f × that in calm** (target: %.1f).\n\n", r.ratio(), maxRatio)
	b.WriteString("| valid requests | how many | p50 | p99 | slowest | processors in use |\n|---|---|---|---|---|---|\n")
	for _, p := range []phase{alone, calm, load} {
		w := r.waits[p]
		fmt.Fprintf(&b, "| %s | %d | %v | %v | %v | %.0f %% |\n", p, w.count, round(w.p50), round(w.p99), round(w.slowest), 100*r.busy[p])
	}
	b.WriteString("\n| sent | answers |\n|---|---|\n")
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

A guarded API, its issuer and all clients run in one process on loopback, and share its processors. ` + "`make soak`" + ` makes this page.

**What goes on.** Eight *steady* clients send valid requests on a fixed beat, three of four with a token sent before and one with a new
one. Eight more make up the *crowd*. The time goes in cycles of half a minute: *alone*, the crowd is silent; *calm*, the crowd sends valid requests of
its own; *load*, it sends as many hostile ones at the same rate: tokens of invented key IDs that are otherwise in order, tokens with a
changed signature, of a removed key, garbage, and none. Meanwhile, under load, the issuer fails twice in one of six ways, publishes a key
and after a while signs with it, publishes one and signs with it at once, and removes an old one. So calm and load differ in what the guard has to bear,
not in how many requests the machine has to carry, and since the phases take turns, a noisy machine disturbs both alike. The beat leaves
the processors time to spare: a machine that is saturated would show how its scheduler queues.

**What is measured.** The time of a request counts from the moment when it was due, so that a stall counts for every request that it
delays. RemoteKeySet's intervals are shortened (MinInterval to a 60th of a cycle, MaxAge to a 20th), to have hundreds of refreshes. A
token of a key that signs at once, while the flood has used up the fetches, may get 403 (503 if the last fetch failed) until the next fetch
that MinInterval allows; this is counted apart, and is a wrong answer if it takes longer. What is left over is told in comparison with a first, short run.
`

// writePage puts the section in its place in the page, which it makes if there
// is none.
func writePage(name, heading, text string) error {
	old, _ := os.ReadFile(name) // None is an empty one.
	parts := strings.Split(string(old), "\n## ")
	sections := []string{heading + "\n\n" + text}
	for _, part := range parts[1:] {
		section := "## " + strings.TrimSpace(part) + "\n"
		if !strings.HasPrefix(section, heading+"\n") {
			sections = append(sections, section)
		}
	}
	slices.SortFunc(sections, func(a, b string) int { return -cmp.Compare(a, b) }) // Without, then with.
	return os.WriteFile(name, []byte(intro+"\n"+strings.Join(sections, "\n")), 0o644)
}
