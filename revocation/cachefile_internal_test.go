package revocation

import (
	"bytes"
	"hash/crc32"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzReadCache reads any bytes, also with a checksum that fits, which only a program
// that means ill can write.
func FuzzReadCache(f *testing.F) {
	set := &ruleSet{}
	at := time.Now()
	for n, r := range []Rule{
		{Issuer: "i", Token: "t"}, {Issuer: "i", Client: "c"}, {Issuer: "i", Everything: true, Lift: true}, {Issuer: "i", Token: "far", Until: at.AddDate(300, 0, 0)},
	} {
		r, err := r.Complete(at)
		require.NoError(f, err)
		set.add(&Receipt{Seq: uint64(n) + 1, At: at, Rule: r}, keyOfRule(&r), fromStore, at)
	}
	var file bytes.Buffer
	require.NoError(f, writeCache(&file, at, set))
	f.Add(file.Bytes(), false)
	f.Add(file.Bytes(), true)
	f.Add(file.Bytes()[:100], true)
	f.Add([]byte(cacheMagic), true)
	f.Add([]byte(nil), false)
	f.Fuzz(func(t *testing.T, text []byte, fix bool) {
		if fix && len(text) > 4 {
			text = bytes.Clone(text)
			sum := crc32.Checksum(text[:len(text)-4], crc32.MakeTable(crc32.Castagnoli))
			text = append(text[:len(text)-4], byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
		}
		copied := &ruleSet{}
		now := time.Now()
		n, current, err := readCache(bytes.NewReader(text), func(r *sharedRule) {
			receipt := r.receipt()
			copied.add(&receipt, key{kind: r.kind, hash: r.hash}, fromCache, now)
		})
		if err != nil {
			assert.Equal(t, errDamaged, err)
			assert.Zero(t, n)
			return
		}
		assert.LessOrEqual(t, uint64(copied.entries()), n)
		var again bytes.Buffer
		require.NoError(t, writeCache(&again, current, copied))
		m, same, err := readCache(&again, func(*sharedRule) {})
		require.NoError(t, err)
		assert.LessOrEqual(t, m, n)
		assert.Equal(t, current, same)
	})
}
