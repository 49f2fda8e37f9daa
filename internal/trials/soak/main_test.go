package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A short run on a shared machine says nothing about latency: make soak checks it.
func TestMeasure_ShortRun(t *testing.T) {
	report, err := measure(3 * time.Second)
	require.NoError(t, err)
	assert.Zero(t, report.wrongs, report.wrong)
	assert.LessOrEqual(t, report.goroutinesLeft, 0)
	assert.LessOrEqual(t, report.heapLeft, int64(maxHeapLeft))
	for _, what := range []string{
		"valid, sent before", "valid, new", "valid, from the crowd", "valid, with koreclient", "forged: invented key ID", "forged: changed signature",
		"forged: removed key", "garbage", "no token",
	} {
		assert.NotEmpty(t, report.answers[what], what)
	}
	assert.Equal(t, 2, report.outages)
	assert.Greater(t, report.fetches, 5)
	assert.Contains(t, report.text(), "**Wrong responses: 0.**")
}

func TestWritePage_KeepsTheOtherRun(t *testing.T) {
	name := filepath.Join(t.TempDir(), "soak.md")
	require.NoError(t, writePage(name, "## With the race detector", "one\n"))
	require.NoError(t, writePage(name, "## Without the race detector", "two\n"))
	require.NoError(t, writePage(name, "## With the race detector", "three\n"))
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, intro+"\n## Without the race detector\n\ntwo\n\n## With the race detector\n\nthree\n", string(text))
}

func TestReport_NamesMissedTargets(t *testing.T) {
	good := report{waits: map[phase]waits{calm: {p99: 2}, load: {p99: 3}}}
	assert.Empty(t, good.missed())
	for name, bad := range map[string]report{
		"slow":       {waits: map[phase]waits{calm: {p99: 2}, load: {p99: 4}}},
		"wrong":      {waits: good.waits, wrong: []string{"a"}},
		"goroutines": {waits: good.waits, goroutinesLeft: 1},
		"heap":       {waits: good.waits, heapLeft: maxHeapLeft + 1},
	} {
		assert.Len(t, bad.missed(), 1, name)
	}
}
