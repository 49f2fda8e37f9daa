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
		once:   newPrints(min(entries, 8<<10)),
		stored: newPrints(4 * min(entries, 1<<20)),
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

// prints is a table of fingerprints, in which newer ones displace older ones. A lost
// or an equal fingerprint costs time and changes no result.
type prints []atomic.Uint32 // a power of two of buckets, each of bucketSize slots

const bucketSize = 8 // with two fingerprints per bucket, one of 4,000 buckets overflows

func newPrints(slots uint64) prints {
	return make(prints, bucketSize<<bits.Len64(slots/bucketSize))
}

var seed = maphash.MakeSeed()

// printOf returns a hash of the end of the signature, which differs between tokens
// and which nobody can choose for a valid one.
func printOf(token string) uint64 { return maphash.String(seed, token[max(0, len(token)-32):]) }

// find returns the bucket of a fingerprint, and what stands for it there, which is not
// zero.
func (p prints) find(print uint64) (bucket []atomic.Uint32, tag uint32) {
	at := int(print>>32) & (len(p)/bucketSize - 1) * bucketSize
	return p[at : at+bucketSize], uint32(print) | 1
}

func (p prints) has(print uint64) bool {
	bucket, tag := p.find(print)
	for i := range bucket {
		if bucket[i].Load() == tag {
			return true
		}
	}
	return false
}

// add puts a fingerprint first in its bucket, and moves the others back.
func (p prints) add(print uint64) {
	bucket, tag := p.find(print)
	for i, next := 0, tag; i < len(bucket); i++ {
		last := bucket[i].Swap(next)
		if last == tag || last == 0 {
			return
		}
		next = last
	}
}
