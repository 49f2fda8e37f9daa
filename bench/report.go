package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth/bench/subjects"
)

// report collects what was measured.
type report struct {
	targets []target

	newTokens           []comparison
	seenTokens          []measurement
	refusals            []refusals
	badSignatures       []measurement
	badSignatureFetches map[string]int
}

type comparison struct {
	algorithm string
	each      []measurement
}

// refusals is what one subject took to refuse each kind of request.
type refusals struct {
	name string
	each []refusal
}

type refusal struct {
	measurement
	sent, fetches int
}

// target is a row of the table of targets.
type target struct {
	what, measured, wanted string
	met                    bool
}

func (r *report) atMost(what string, value spread, limit float64, format string) {
	r.targets = append(r.targets, target{what, value.format(format), "≤ " + number(limit), value.median <= limit})
}

func (r *report) atLeast(what string, value spread, limit float64, format string) {
	r.targets = append(r.targets, target{what, value.format(format), "≥ " + number(limit), value.median >= limit})
}

// told adds a row without a target.
func (r *report) told(what string, value spread, format string) {
	r.targets = append(r.targets, target{what, value.format(format), "", true})
}

func exactly(v float64) spread { return spread{v, v, v} }

func (s spread) times(f float64) spread { return spread{s.q1 * f, s.median * f, s.q3 * f} }

// format shows the median and, where they differ from it, the quartiles.
func (s spread) format(format string) string {
	low, median, high := fmt.Sprintf(format, s.q1), fmt.Sprintf(format, s.median), fmt.Sprintf(format, s.q3)
	if low == median && high == median {
		return median
	}
	return fmt.Sprintf("%s (%s to %s)", median, low, high)
}

func number(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// markdown writes the whole of RESULTS.md.
func (r *report) markdown(command string, c clock, took time.Duration) []byte {
	var b bytes.Buffer
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }

	p("# Results\n")
	p("Written by `%s`; [README.md](README.md) says how it is measured. Do not edit.\n", command)
	p("%s, %d cores, %s, %s/%s. %d rounds of %v; the whole run took %v.",
		cpu(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, c.rounds, c.slice, took.Round(time.Second))
	p("Medians, with the quartiles of the rounds in brackets. The verdict is the median's.\n")

	p("## Targets\n")
	p("| what | measured | target | |\n|---|---|---|---|")
	for _, t := range r.targets {
		verdict := "met"
		if !t.met {
			verdict = "**not met**"
		}
		if t.wanted == "" {
			verdict = ""
		}
		p("| %s | %s | %s | %s |", t.what, t.measured, t.wanted, verdict)
	}

	if len(r.newTokens) > 0 {
		p("\n## A token never seen, the whole middleware\n")
		p("`koreauth` has its cache off (`CacheSize: -1`). With the cache on, it also pays for remembering each token: into a default")
		p("cache that starts empty, and into one of 1,024 entries that is full of others.")
	}
	for _, n := range r.newTokens {
		p("\n### %s\n", n.algorithm)
		p("| | × bare | µs | allocations | bytes |\n|---|---|---|---|---|")
		for _, m := range n.each {
			p("| %s | %s | %.1f | %.0f | %.0f |", m.name, m.ratio.format("%.2f"), m.ns.median/1000, m.allocations, m.octets)
		}
	}

	if len(r.seenTokens) > 0 {
		p("\n## A token seen before\n")
		p("The peers remember none: for them it costs what a new one does.\n")
		p("| | × the limit | µs | allocations | bytes |\n|---|---|---|---|---|")
	}
	for _, m := range r.seenTokens {
		p("| %s | %s | %.2f | %.0f | %.0f |", m.name, m.ratio.format("%.2f"), m.ns.median/1000, m.allocations, m.octets)
	}

	if len(r.refusals) > 0 {
		p("\n## Saying no without a signature\n")
		p("Microseconds to the end of the handler, the answer thrown away; in brackets how often the issuer was asked for its keys,")
		p("for each 1,000 requests.\n")
		p("| | no token | 8 KB of garbage | 8 KB of dots | unknown `kid` |\n|---|---|---|---|---|")
	}
	for _, row := range r.refusals {
		cells := []string{row.name}
		for _, m := range row.each {
			cells = append(cells, fmt.Sprintf("%.2f (%s)", m.ns.median/1000, number(1000*float64(m.fetches)/float64(m.sent))))
		}
		p("| %s |", strings.Join(cells, " | "))
	}

	if len(r.badSignatures) > 0 {
		p("\n## A bad signature on a known key\n")
		p("| | × bare | µs | fetches in 100 requests |\n|---|---|---|---|")
	}
	for _, m := range r.badSignatures {
		fetches := "-"
		if n, ok := r.badSignatureFetches[m.name]; ok {
			fetches = fmt.Sprint(n)
		}
		p("| %s | %s | %.1f | %s |", m.name, m.ratio.format("%.2f"), m.ns.median/1000, fetches)
	}

	p("\n## Versions\n")
	p("| | module | version |\n|---|---|---|")
	versions := moduleVersions()
	for _, s := range append([]subjects.Subject{subjects.Koreauth}, subjects.Peers...) {
		for _, module := range s.Modules {
			p("| %s | %s | %s |", s.Name, module, versions[module])
		}
	}
	return b.Bytes()
}

// allMet tells whether every target was.
func (r *report) allMet() bool {
	return !slices.ContainsFunc(r.targets, func(t target) bool { return !t.met })
}

func moduleVersions() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, m := range info.Deps {
		versions[m.Path] = m.Version
		if m.Replace != nil {
			versions[m.Path] = "this tree"
		}
	}
	return versions
}

// cpu returns the processor's name where Linux tells it.
func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "processor unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "processor unknown"
}
