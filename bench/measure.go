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

// A side is one thing to time.
type side struct {
	name string

	// worker returns a function that does the thing n times. Each call returns a function of its own, for a goroutine of
	// its own.
	worker func() func(n int)

	prepare func() // before each slice, outside the clock; may be nil
	limit   int    // the most a slice may do; zero: any number
}

// measurement is what a side came to. Ratio is its time over that of the side it was paired with.
type measurement struct {
	name                string
	ns, ratio           spread
	allocations, octets float64 // for each operation
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

// clock says how long and how often to measure.
type clock struct {
	rounds int
	slice  time.Duration
}

// against measures sides on one core against base: in each round base runs before, between and after the sides, so that
// what disturbs the machine for longer than a slice disturbs both parts of a ratio alike. The order changes every round.
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

// scaling tells what a second core is worth to a side, over what it is worth to base: 1 when both gain as much.
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

// wallTime is the time that passes.
func wallTime() time.Duration { return time.Since(epoch) }

// timeSlice runs count operations on each of procs cores and returns the nanoseconds for one, by the given clock. The
// garbage of others is collected before, that of the slice within it, when the runtime finds it due.
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

// calibrate finds how many operations make a slice.
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

// memory returns the allocations and the bytes of one operation.
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

// requests is a side that sends requests to a handler, one for each header in turn, and stops the program at an answer
// other than the wanted one: a subject that answers wrongly has no time.
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

// turns lets each worker start elsewhere, so that two at once do not walk through the tokens side by side.
var turns int

func next() int {
	turns += 509
	return turns
}

// cycle hands out the tokens in turn.
func cycle(tokens []subjects.Token) func(k int) []string {
	return func(k int) []string { return tokens[k%len(tokens)].Header }
}

func served(status int) bool { return status == http.StatusOK }

func refused(status int) bool { return status >= 400 && status < 500 }

// discard is a ResponseWriter that keeps the status alone.
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
