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

// report collects the results.
type report struct {
	targets []target

	newTokens           []comparison
	cachedTokens        []measurement
	rejections          []rejections
	badSignatures       []measurement
	badSignatureFetches map[string]int
}

type comparison struct {
	algorithm string
	each      []measurement
}

// rejections are the results of one subject for each kind of rejected request.
type rejections struct {
	name string
	each []rejection
}

type rejection struct {
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

// format returns the median and, if they differ from it, the quartiles.
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

// markdown returns the text of RESULTS.md.
func (r *report) markdown(command string, c clock, took time.Duration) []byte {
	var b bytes.Buffer
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }

	p("# Results\n")
	p("Written by `%s`. [README.md](README.md) explains how it is measured. Do not edit.\n", command)
	p("%s, %d cores, %s, %s/%s. %d rounds of %v; the run took %v.",
		cpu(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, c.rounds, c.slice, took.Round(time.Second))
	p("Values are medians, with quartiles in parentheses. A target is met if the median meets it.\n")

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
		p("\n## A new token, the whole middleware\n")
		p("`koreauth` runs without its cache (`CacheSize: -1`). With the cache, it also stores each token: in a default cache that")
		p("is empty at first, or in one of 1,024 entries that is full of other tokens.")
	}
	for _, n := range r.newTokens {
		p("\n### %s\n", n.algorithm)
		p("| | × bare | µs | allocations | bytes |\n|---|---|---|---|---|")
		for _, m := range n.each {
			p("| %s | %s | %.1f | %.0f | %.0f |", m.name, m.ratio.format("%.2f"), m.ns.median/1000, m.allocations, m.octets)
		}
	}

	if len(r.cachedTokens) > 0 {
		p("\n## A cached token\n")
		p("The other libraries have no cache: for them each token is a new one.\n")
		p("| | × lower bound | µs | allocations | bytes |\n|---|---|---|---|---|")
	}
	for _, m := range r.cachedTokens {
		p("| %s | %s | %.2f | %.0f | %.0f |", m.name, m.ratio.format("%.2f"), m.ns.median/1000, m.allocations, m.octets)
	}

	if len(r.rejections) > 0 {
		p("\n## Rejected before a signature is verified\n")
		p("Microseconds until the handler returns; in parentheses, the fetches of the issuer's keys per 1,000 requests.\n")
		p("| | no token | 8 KB of garbage | 8 KB of dots | unknown `kid` |\n|---|---|---|---|---|")
	}
	for _, row := range r.rejections {
		cells := []string{row.name}
		for _, m := range row.each {
			cells = append(cells, fmt.Sprintf("%.2f (%s)", m.ns.median/1000, number(1000*float64(m.fetches)/float64(m.sent))))
		}
		p("| %s |", strings.Join(cells, " | "))
	}

	if len(r.badSignatures) > 0 {
		p("\n## A bad signature, known key\n")
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

// allMet reports whether all targets were met.
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

// cpu returns the name of the processor, if Linux reports it.
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
