// Package memory remembers verified tokens and their headers.
package memory

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/koreauth/koreauth/internal/jws"
)

// entryBytes is the size of an entry that counts as one. A larger one counts as
// several, which limits the number of entries and their bytes.
const entryBytes = 4 << 10

// Tokens remembers values by the SHA-256 of a token. It stores a token when it is
// added for the second time, so that tokens that arrive once cost little and displace
// nothing. Of the stored ones, those that arrive often are kept (W-TinyLFU). Readers
// share no lock. There is nothing to close: the
// goroutine that stores a token also evicts others.
type Tokens[V any] struct {
	values *otter.Cache[jws.Digest, V]
	once   prints // of the tokens that were added once
	stored prints // of the tokens that were stored, so that others need no SHA-256
}

// NewTokens returns a Tokens for that many entries, or nil for zero. bytes returns the
// size of a value.
func NewTokens[V any](entries uint64, bytes func(V) int) *Tokens[V] {
	if entries == 0 {
		return nil
	}
	return &Tokens[V]{
		values: otter.Must(&otter.Options[jws.Digest, V]{
			MaximumWeight: entries,
			Weigher: func(_ jws.Digest, v V) uint32 {
				return uint32(min(int64(bytes(v)+entryBytes-1)/entryBytes, math.MaxUint32))
			},
			Executor: func(maintain func()) { maintain() },
		}),
		once:   newPrints(min(entries, 1<<18)),
		stored: newPrints(min(entries, 1<<18)),
	}
}

// Find returns the value of a token.
func (t *Tokens[V]) Find(token string) (value V, ok bool) {
	if t == nil || !t.stored.has(printOf(token)) {
		return value, false
	}
	return t.values.GetIfPresent(jws.SHA256(token))
}

// Add stores the value of a token if the token was added before.
func (t *Tokens[V]) Add(token string, value V) {
	print := printOf(token)
	if t == nil || !t.once.has(print) && !t.stored.has(print) {
		if t != nil {
			t.once.add(print)
		}
		return
	}
	t.stored.add(print)
	t.values.Set(jws.SHA256(token), value)
}

// Forget removes a token.
func (t *Tokens[V]) Forget(token string) { t.values.Invalidate(jws.SHA256(token)) }

// prints is a small table of fingerprints, in which a newer one may displace an older
// one. A lost or an equal fingerprint costs time and changes no result.
type prints []atomic.Uint32 // a power of two of buckets, each of which has bucketSize slots

const bucketSize = 16 // 64 bytes: one cache line

// newPrints returns a table for that many fingerprints. It has three slots for each:
// tokens that arrive in turn would displace each other for ever in a bucket with too few.
func newPrints(count uint64) prints {
	buckets := max(32, 1<<bits.Len64(3*count/bucketSize))
	return make(prints, buckets*bucketSize)
}

var seed = maphash.MakeSeed()

// printOf returns the fingerprint of a token. It hashes the end of the signature, which
// differs between tokens and which nobody can choose for a valid one. The upper half
// selects the bucket; the lower half is never zero.
func printOf(token string) uint64 {
	return maphash.String(seed, token[max(0, len(token)-32):]) | 1
}

func (p prints) bucket(print uint64) []atomic.Uint32 {
	at := int(print>>33) & (len(p)/bucketSize - 1) * bucketSize
	return p[at : at+bucketSize]
}

func (p prints) has(print uint64) bool {
	bucket := p.bucket(print)
	for i := range bucket {
		if bucket[i].Load() == uint32(print) {
			return true
		}
	}
	return false
}

// add puts a fingerprint first in its bucket, and moves the others back.
func (p prints) add(print uint64) {
	bucket := p.bucket(print)
	moved := uint32(print)
	for i := range bucket {
		next := bucket[i].Swap(moved)
		if next == uint32(print) || next == 0 {
			return
		}
		moved = next
	}
}
