package main

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/koreauth/koreauth/bench/subjects"
)

// A side is one operation to measure.
type side struct {
	name string

	// worker returns a function that does the operation n times. Each goroutine calls worker once and uses its own
	// function.
	worker func() func(n int)

	prepare func() // runs before each slice and is not measured; may be nil
	limit   int    // the most operations in a slice; zero: no limit
}

// measurement is the result for a side. Its ratio is the time of the side, divided by that of its base.
type measurement struct {
	name                string
	ns, ratio           spread
	allocations, octets float64 // per operation
}

// more returns how many nanoseconds it took more than its base, which has the noise of the ratio alone.
func (m measurement) more(base measurement) spread {
	return spread{m.ratio.q1 - 1, m.ratio.median - 1, m.ratio.q3 - 1}.times(base.ns.median)
}

// spread is the median and the quartiles of the rounds.
type spread struct{ q1, median, q3 float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	at := func(p float64) float64 {
		low := int(p * float64(len(v)-1))
		high := min(low+1, len(v)-1)
		return v[low] + (p*float64(len(v)-1)-float64(low))*(v[high]-v[low])
	}
	return spread{at(0.25), at(0.5), at(0.75)}
}

// clock says for how long and how many times to measure.
type clock struct {
	rounds int
	slice  time.Duration
}

// against compares sides with base, on one core. In each round base runs before, between and after the sides, so that
// noise which lasts longer than a slice affects both parts of a ratio. The order changes every round.
func (c clock) against(base side, sides ...side) (of measurement, each []measurement) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	baseCount := c.calibrate(base)
	counts := make([]int, len(sides))
	for k, s := range sides {
		counts[k] = c.calibrate(s)
	}

	var baseTimes []float64
	times, ratios := make([][]float64, len(sides)), make([][]float64, len(sides))
	for round := range c.rounds {
		before := timeSlice(base, baseCount, 1, processorTime)
		baseTimes = append(baseTimes, before)
		for n := range sides {
			k := (n + round) % len(sides)
			t := timeSlice(sides[k], counts[k], 1, processorTime)
			after := timeSlice(base, baseCount, 1, processorTime)
			times[k] = append(times[k], t)
			ratios[k] = append(ratios[k], t/((before+after)/2))
			before = after
			baseTimes = append(baseTimes, before)
		}
	}

	of = measurement{name: base.name, ns: spreadOf(baseTimes), ratio: spread{1, 1, 1}}
	of.allocations, of.octets = memory(base)
	for k, s := range sides {
		m := measurement{name: s.name, ns: spreadOf(times[k]), ratio: spreadOf(ratios[k])}
		m.allocations, m.octets = memory(s)
		each = append(each, m)
	}
	return of, each
}

// alone measures a side on one core.
func (c clock) alone(s side) measurement {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	count := c.calibrate(s)
	var times []float64
	for range c.rounds {
		times = append(times, timeSlice(s, count, 1, processorTime))
	}
	m := measurement{name: s.name, ns: spreadOf(times)}
	m.allocations, m.octets = memory(s)
	return m
}

// scaling compares what a side and base gain from a second core. The ratio of the gains is 1 if they gain the same.
func (c clock) scaling(base, s side) (of, ofBase, ratio spread) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	baseCount, count := c.calibrate(base), c.calibrate(s)
	var gains, baseGains, ratios []float64
	for range c.rounds {
		one, baseOne := timeSlice(s, count, 1, wallTime), timeSlice(base, baseCount, 1, wallTime)
		baseTwo, two := timeSlice(base, baseCount, 2, wallTime), timeSlice(s, count, 2, wallTime)
		gains = append(gains, one/two)
		baseGains = append(baseGains, baseOne/baseTwo)
		ratios = append(ratios, (one/two)/(baseOne/baseTwo))
	}
	return spreadOf(gains), spreadOf(baseGains), spreadOf(ratios)
}

var epoch = time.Now()

// wallTime returns the time since the program started.
func wallTime() time.Duration { return time.Since(epoch) }

// timeSlice runs count operations on each of procs cores and returns the nanoseconds for one, measured with now. It
// collects earlier garbage first. Garbage of the slice itself is collected during the slice, when the runtime decides to.
func timeSlice(s side, count, procs int, now func() time.Duration) float64 {
	if s.prepare != nil {
		s.prepare()
	}
	runtime.GOMAXPROCS(procs)
	runtime.GC()
	work := make([]func(int), procs)
	for k := range work {
		work[k] = s.worker()
	}
	var others sync.WaitGroup
	start := now()
	for _, w := range work[1:] {
		others.Go(func() { w(count) })
	}
	work[0](count)
	others.Wait()
	return float64(now()-start) / float64(count*procs)
}

// calibrate returns the number of operations in a slice.
func (c clock) calibrate(s side) int {
	for count := 1; ; count *= 2 {
		if s.limit > 0 && count >= s.limit {
			return s.limit
		}
		ns := timeSlice(s, count, 1, wallTime)
		if ns*float64(count) >= float64(c.slice)/4 {
			full := max(1, int(math.Round(float64(c.slice)/ns)))
			if s.limit > 0 {
				return min(full, s.limit)
			}
			return full
		}
	}
}

// memory returns the allocations and bytes of one operation.
func memory(s side) (allocations, octets float64) {
	count := 1000
	if s.limit > 0 {
		count = min(count, s.limit)
	}
	if s.prepare != nil {
		s.prepare()
	}
	work := s.worker()
	work(1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	work(count)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(count), float64(after.TotalAlloc-before.TotalAlloc) / float64(count)
}

// requests is a side that sends requests to a handler, with one header after the other. It panics if a response is wrong,
// because the time of a wrong response is meaningless.
func requests(name string, h http.Handler, wanted func(status int) bool, authorization func(k int) []string) side {
	return side{name: name, worker: func() func(int) {
		r := httptest.NewRequest(http.MethodGet, "/v1/clients", nil)
		w := &discard{header: http.Header{}}
		k := next()
		return func(n int) {
			for range n {
				r.Header["Authorization"] = authorization(k)
				k++
				w.reset()
				h.ServeHTTP(w, r)
				if !wanted(w.status) {
					panic(fmt.Sprintf("%s answered %d", name, w.status))
				}
			}
		}
	}}
}

// turns makes each worker start at another token, so that two workers do not use the same tokens at the same time.
var turns int

func next() int {
	turns += 509
	return turns
}

// cycle returns the headers of the tokens, one after the other.
func cycle(tokens []subjects.Token) func(k int) []string {
	return func(k int) []string { return tokens[k%len(tokens)].Header }
}

func served(status int) bool { return status == http.StatusOK }

func rejected(status int) bool { return status >= 400 && status < 500 }

// discard is a ResponseWriter that keeps only the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) reset() {
	clear(d.header)
	d.status = http.StatusOK
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func byRatio(a, b measurement) int { return cmp.Compare(a.ratio.median, b.ratio.median) }
