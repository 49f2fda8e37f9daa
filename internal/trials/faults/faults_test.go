package faults_test

import (
	"context"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/internal/fetch"
)

var update = flag.Bool("update", false, "write docs/reports/faults.md")

const page = "../../../docs/reports/faults.md"

func TestKeyEndpoint_Faults(t *testing.T) {
	defer fetch.Fix(1)() // The table has the latest times of what is random.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go watchHeap(ctx)
	rows := table(t)
	cancel()
	for _, r := range rows {
		assert.Empty(t, r.violations(), "%s, %s", r.fault, r.when)
	}
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(render(rows)), 0o644))
	}
	stored, err := os.ReadFile(page)
	require.NoError(t, err)
	now, then := measured(render(rows)), measured(string(stored))
	hint := "if this is intended, run: go test ./internal/trials/faults -update"
	assert.Empty(t, slices.DeleteFunc(slices.Clone(now), func(line string) bool { return slices.Contains(then, line) }), "measured, but not in the report; "+hint)
	assert.Empty(t, slices.DeleteFunc(slices.Clone(then), func(line string) bool { return slices.Contains(now, line) }), "in the report, but not measured; "+hint)
}

func table(t *testing.T) []row {
	var rows []row
	for _, f := range faults() {
		rows = append(rows,
			play(t, f.name, noKeys, f.why, func(w *world) { w.atStart(f) }),
			play(t, f.name, cachedKeys, f.why, func(w *world) { w.withKeys(f) }))
	}
	for _, e := range events() {
		rows = append(rows, play(t, e.name, e.when, e.why, e.script))
	}
	return rows
}

// atStart begins without keys and sends ten valid tokens a second for two seconds.
func (w *world) atStart(f fault) {
	w.misbehave(&f)
	forgeries := w.forgeries(firstKey.ID)
	for range f.rounds(20) {
		w.send(&w.fresh, w.valid(firstKey))
		w.send(&w.fake, forgeries...)
		w.send(&w.fake, w.invented())
		w.sendForged(f)
		time.Sleep(100 * time.Millisecond)
	}
	w.ends(firstKey)
}

func (f *fault) rounds(full int) int {
	if f.brief {
		return full / 5
	}
	return full
}

// withKeys begins when the keys are due for a refresh and the issuer begins to
// sign with a new one. It takes two minutes.
func (w *world) withKeys(f fault) {
	remembered := w.valid(firstKey)
	w.send(&w.known, remembered)
	time.Sleep(15 * time.Minute)
	require.NoError(w.t, w.issuer.AddKey(secondKey))
	w.misbehave(&f)
	w.requests.Store(0)
	forgeries := w.forgeries(firstKey.ID)
	for i := range f.rounds(25) {
		w.send(&w.known, remembered, w.valid(firstKey))
		w.send(&w.fresh, w.valid(secondKey))
		w.send(&w.fake, forgeries...)
		if i%4 == 0 { // A flood of them is an event of its own.
			w.send(&w.fake, w.invented())
		}
		w.sendForged(f)
		time.Sleep(5 * time.Second)
	}
	w.ends(secondKey)
}

func (w *world) sendForged(f fault) {
	if f.forged != nil {
		w.send(&w.fake, f.forged(w)...)
	}
}
