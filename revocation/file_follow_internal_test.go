package revocation

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFollower_ReadsAgainWhatWasWritten uses a closed file, which cannot be read, to see
// whether a look at it reads what was read before.
func TestFollower_ReadsAgainWhatWasWritten(t *testing.T) {
	const long = time.Hour
	for name, row := range map[string]struct {
		offset  int64
		written time.Duration // before the last check
		checked time.Duration // before now
		change  func(t *testing.T, path string)
		reads   bool
	}{
		"nothing was written":         {100, long, long, nil, false},
		"it was written at that time": {100, time.Second, long, nil, true},
		"it is larger":                {100, long, long, func(t *testing.T, path string) { resize(t, path, 20) }, true},
		"it is smaller":               {100, long, long, func(t *testing.T, path string) { resize(t, path, 5) }, true},
		"it has another time":         {100, long, long, func(t *testing.T, path string) { setTime(t, path, time.Now()) }, true},
		"it has an earlier time":      {100, long, long, func(t *testing.T, path string) { setTime(t, path, time.Now().Add(-100*long)) }, true},
		"it is another file":          {100, long, long, replace, true},
		"it is large":                 {1 << 30, long, time.Second, replace, false},
		"it is large, after a while":  {1 << 30, long, time.Minute, replace, true},
		"it is written often":         {1 << 20, long, pollInterval / 2, replace, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, make([]byte, 10), 0o600))
			now := time.Now()
			setTime(t, path, now.Add(-row.checked-row.written))
			f := follower{checked: stat(t, path), checkedAt: now.Add(-row.checked), at: position{offset: row.offset}}
			if row.change != nil {
				row.change(t, path)
			}
			closed, err := os.Open(path)
			require.NoError(t, err)
			require.NoError(t, closed.Close())
			err = f.check(t.Context(), closed, stat(t, path))
			if row.reads {
				assert.ErrorIs(t, err, fs.ErrClosed)
			} else {
				assert.NoError(t, err)
			}
		})
	}
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info
}

func setTime(t *testing.T, path string, at time.Time) {
	t.Helper()
	require.NoError(t, os.Chtimes(path, at, at))
}

// resize keeps the time of the file.
func resize(t *testing.T, path string, size int64) {
	at := stat(t, path).ModTime()
	require.NoError(t, os.Truncate(path, size))
	setTime(t, path, at)
}

// replace gives another file the path, the size and the time.
func replace(t *testing.T, path string) {
	info := stat(t, path)
	require.NoError(t, os.WriteFile(path+".new", make([]byte, info.Size()), 0o600))
	setTime(t, path+".new", info.ModTime())
	require.NoError(t, os.Rename(path+".new", path))
}

// TestPosition_ReadsAFileThatBecomesShorter has a file that somebody cuts at each byte
// after its size was read.
func TestPosition_ReadsAFileThatBecomesShorter(t *testing.T) {
	data := newHeader()
	whole := []int{len(data)} // after each line
	for seq := range uint64(2) {
		r, err := Rule{Issuer: "https://issuer.example", Token: "t"}.Complete(time.Now())
		require.NoError(t, err)
		text, _, err := formatLine(Receipt{Seq: seq + 1, At: time.Now(), Rule: r})
		require.NoError(t, err)
		data = append(data, text...)
		whole = append(whole, len(data))
	}
	for n := range len(data) + 1 {
		var p position
		rest, err := p.read(t.Context(), bytes.NewReader(data[:n]), int64(len(data)), func(*line) error { return nil })
		require.NoError(t, err, "%d bytes", n)
		lines := 0
		for _, end := range whole {
			if n >= end {
				lines++
			}
		}
		assert.Equal(t, lines, p.number, "%d bytes", n)
		assert.Equal(t, int64(n), p.offset+rest.length)
		if lines < 2 {
			continue // A bytes.Reader reads nothing at its end differently than a file.
		}
		same, err := p.holds(bytes.NewReader(data[:n]), int64(len(data)))
		require.NoError(t, err)
		assert.True(t, same)
		for cut := range p.offset {
			same, err := p.unchanged(t.Context(), bytes.NewReader(data[:cut]))
			require.NoError(t, err)
			assert.False(t, same)
		}
	}
}
