package revocation

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"
)

const (
	// compactFrom is the size of a file from which lines are dropped.
	compactFrom = 1 << 20
	// afterUntil is how long a rule is kept after Until, for clocks that differ.
	afterUntil = 5 * time.Minute
)

// compaction decides when lines of a file are dropped. To find out which are not needed
// takes a while, so that it is not done at each Append.
type compaction struct {
	size int64         // of the file, when it was looked at last; 0: it never was
	at   time.Time     // when that was
	took time.Duration // what it took
}

// due reports whether it is time to look at a file of that size.
func (c *compaction) due(size int64) bool {
	if size <= compactFrom {
		return false
	}
	grown := size < c.size || size-c.size > c.size/8
	return c.size == 0 || grown || time.Since(c.at) > max(time.Second, 100*c.took)
}

// summary is what decides whether a line is needed.
type summary struct {
	key           hash
	at            int64 // as the others, nanoseconds since 1970
	before, until int64
	place         int // in the file
	kind          kind
	lift          bool
}

// nanoseconds returns a moment in nanoseconds since 1970. One that is out of range is
// the nearest that is in range.
func nanoseconds(at time.Time) int64 {
	switch {
	case at.Year() < 1678:
		return math.MinInt64
	case at.Year() > 2261:
		return math.MaxInt64
	}
	return at.UnixNano()
}

// summarize reads the lines of a file up to end.
func (w *writer) summarize(ctx context.Context) ([]summary, error) {
	var lines []summary
	var at position
	_, err := at.read(ctx, w.f, w.end.offset, func(l *line) error {
		r, err := l.receipt()
		if err != nil {
			return err
		}
		lines = append(lines, summarizeReceipt(r, len(lines)))
		return nil
	})
	return lines, err
}

func summarizeReceipt(r Receipt, place int) summary {
	k, key, _ := keyOf(r.Rule) // A file has no rule that Complete rejects.
	until := r.Rule.Until
	if longest := lifetime(r.At); r.Rule.Lift && longest.After(until) {
		until = longest // A list that comes back late may still know what was lifted.
	}
	return summary{key, nanoseconds(r.At), nanoseconds(r.Rule.IssuedBefore), nanoseconds(until), place, k, r.Rule.Lift}
}

// compact drops the lines that are not needed, if it is due and if they are more than
// half. The rules that stay keep Seq and At.
func (w *writer) compact(ctx context.Context) error {
	if !w.compaction.due(w.end.offset) {
		return nil
	}
	began := time.Now()
	lines, err := w.summarize(ctx)
	if err == nil {
		if keep, dropped := needed(lines, nanoseconds(began)); 2*dropped > len(lines) {
			err = w.rewrite(ctx, func(l *line) bool { return keep[l.number-2] }, nil)
		}
	}
	w.compaction = compaction{w.end.offset, time.Now(), time.Since(began)}
	return err
}

// needed reports for each line whether a list that reads the file later needs it, and
// how many are not needed. These are:
//   - a rule past Until;
//   - a rule, if a later one of the same key revokes all that it does, for as long;
//   - a rule or lift, if a later lift of the same key is kept for as long;
//   - a lift past Until and 24 months old, if no rule before it is needed.
//
// The last line is always needed, since its Seq is where followers continue, and so is
// the latest At, after which the next rule must be.
func needed(lines []summary, now int64) (keep []bool, dropped int) {
	keep = make([]bool, len(lines))
	sorted := slices.Clone(lines)
	slices.SortFunc(sorted, func(a, b summary) int {
		return cmp.Or(slices.Compare(a.key[:], b.key[:]), cmp.Compare(a.kind, b.kind), cmp.Compare(a.at, b.at), cmp.Compare(a.place, b.place))
	})
	for i := 0; i < len(sorted); {
		end := i + 1
		for end < len(sorted) && sorted[end].key == sorted[i].key && sorted[end].kind == sorted[i].kind {
			end++
		}
		neededOfKey(sorted[i:end], now, keep)
		i = end
	}
	latest := 0
	for i, l := range lines {
		if l.at == math.MaxInt64 || l.at == math.MinInt64 {
			return nil, 0 // The order is not known.
		}
		if l.at >= lines[latest].at {
			latest = i
		}
	}
	if len(lines) > 0 {
		keep[latest], keep[len(lines)-1] = true, true
	}
	for _, k := range keep {
		if !k {
			dropped++
		}
	}
	return keep, dropped
}

// neededOfKey is needed for the lines of one key, earliest first.
func neededOfKey(lines []summary, now int64, keep []bool) {
	past := func(l summary) bool { return l.until < now-int64(afterUntil) }
	lifted := int64(math.MinInt64) // the latest Until of the lifts so far
	var later []summary            // some of the rules so far
	for _, l := range slices.Backward(lines) {
		covered := l.until != math.MaxInt64 && l.until <= lifted
		if !l.lift {
			covered = covered || past(l) || slices.ContainsFunc(later, func(r summary) bool {
				inRange := l.before != math.MaxInt64 && l.until != math.MaxInt64
				return inRange && r.before >= l.before && r.until >= l.until
			})
		}
		switch {
		case covered:
			continue
		case l.lift:
			lifted = max(lifted, l.until)
		case len(later) < 16: // A limit, so that many rules of one key take no long time.
			later = append(later, l)
		}
		keep[l.place] = true
	}
	rules := false
	for _, l := range lines {
		if l.lift && past(l) && !rules {
			keep[l.place] = false
		}
		rules = rules || !l.lift && keep[l.place]
	}
}
