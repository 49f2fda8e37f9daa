package revocation

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// table has the rules of single tokens, of which there may be millions. It is a hash
// table with open addressing and without pointers, so that the garbage collector
// need not scan it. An entry takes 37 bytes, and up to a ninth of the slots are empty.
//
// Any number of goroutines may call find. All other methods need the lock of the
// ruleSet. A slot is written before it is published and never reused. When a shard is
// full, it is replaced by a copy without the entries that were removed.
type table struct {
	shards [tableShards]atomic.Pointer[shard]
	live   int // entries that were not removed
}

// tableShards limits what is copied at once.
const tableShards = 64

// tokenRule is an entry of a table. Moments are in nanoseconds since 1970.
type tokenRule struct {
	hash    hash
	at      int64
	until   int64
	seq     uint64 // zero: from Apply
	foreign bool   // from the cache file, and not yet given by a store
}

// The ranges of what a table stores. Rules outside of them are kept in groups.
const (
	maxAt   = 1 << 62 // the year 2116
	maxSpan = 1 << 59 // from at to until: 18 years
	maxSeq  = 1 << 37

	foreignBit = 1 << 63 // of a word with at
)

// fits reports whether a table can store the rule.
func (r *tokenRule) fits() bool {
	return r.at > 0 && r.at < maxAt && r.until >= r.at && r.until-r.at < maxSpan && r.seq < maxSeq
}

// words returns the hash as two numbers.
func (h hash) words() (first, second uint64) {
	return binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:])
}

func hashFrom(first, second uint64) (h hash) {
	binary.BigEndian.PutUint64(h[:8], first)
	binary.BigEndian.PutUint64(h[8:], second)
	return h
}

func (t *table) shardOf(first uint64) *atomic.Pointer[shard] {
	return &t.shards[first>>58]
}

// find returns the rule of a token.
func (t *table) find(h hash) (rule tokenRule, ok bool) {
	first, second := h.words()
	s := t.shardOf(first).Load()
	if s == nil {
		return tokenRule{}, false
	}
	for {
		slot := s.find(first, second)
		if slot < 0 {
			return tokenRule{}, false
		}
		if rule = s.rule(slot); rule.at != 0 { // else it was removed after find
			return rule, true
		}
	}
}

// insert adds a rule. If there is one of the same token, the caller must remove it
// afterwards, so that a reader finds one of the two.
func (t *table) insert(r tokenRule) {
	first, _ := r.hash.words()
	at := t.shardOf(first)
	s := at.Load()
	if s == nil || !s.hasRoom() {
		s = s.grown()
		at.Store(s)
	}
	s.insert(&r)
	t.live++
}

// remove removes the entry of a token that has this at. It reports whether there is
// one.
func (t *table) remove(h hash, at int64) bool {
	first, second := h.words()
	s := t.shardOf(first).Load()
	if s == nil {
		return false
	}
	for slot := range s.matches(first, second) {
		if s.rule(slot).at == at {
			s.remove(slot)
			t.live--
			return true
		}
	}
	return false
}

// update changes seq and foreign of the entry with the same hash and at.
func (t *table) update(r tokenRule) {
	first, second := r.hash.words()
	s := t.shardOf(first).Load()
	for slot := range s.matches(first, second) {
		if s.rule(slot).at == r.at {
			s.set(slot, &r)
			return
		}
	}
}

// reserve makes room for further entries, so that loading many copies little.
func (t *table) reserve(more int) {
	if more < 100*tableShards || more < t.live/4 {
		return // It would copy more than it saves.
	}
	for i := range t.shards {
		s := t.shards[i].Load()
		// The hashes are spread evenly, but for a few.
		t.shards[i].Store(s.copied(more/tableShards + more/tableShards/64))
	}
}

// trim gives back what shards have grown too much.
func (t *table) trim() {
	for i := range t.shards {
		if s := t.shards[i].Load(); s != nil && s.size > slotsFor(s.live)*17/16 {
			t.shards[i].Store(s.copied(0))
		}
	}
}

// sweep removes the entries of a shard that have ended at the moment, and calls
// removed with each.
func (t *table) sweep(i int, ended int64, removed func(tokenRule)) {
	s := t.shards[i].Load()
	if s == nil || s.due > ended {
		return
	}
	s.due = neverDue
	for slot := range s.size {
		if !s.isLive(slot) {
			continue
		}
		r := s.rule(slot)
		if r.until > ended {
			s.due = min(s.due, r.until)
			continue
		}
		s.remove(slot)
		t.live--
		removed(r)
	}
	if s.live == 0 {
		t.shards[i].Store(nil)
	}
}

const neverDue = math.MaxInt64

// shard is a part of a table. words has the fields of all slots, one field after the
// other: eight control bytes to a word, then hash, at, and until and seq. A control
// byte is zero if the slot is empty, and else a byte of the hash that is not zero.
type shard struct {
	words      []uint64
	size       int   // slots, a multiple of eight
	used, live int   // slots with an entry, and with one that was not removed
	due        int64 // no entry ends earlier
}

// slotsFor returns the slots for that many entries: 89 % will be used, and at least one
// will be empty.
func slotsFor(entries int) int { return (entries*112/100 + 8) &^ 7 }

func newShard(entries int) *shard {
	size := slotsFor(entries)
	return &shard{words: make([]uint64, size/8+4*size+size/2), size: size, due: neverDue}
}

// copied returns a shard with the same live entries and with room for more. s may be
// nil.
func (s *shard) copied(more int) *shard {
	if s == nil {
		return newShard(more)
	}
	c := newShard(s.live + more)
	for slot := range s.size {
		if s.isLive(slot) {
			r := s.rule(slot)
			c.insert(&r)
		}
	}
	return c
}

// grown returns a copy with so much room that loading many entries copies each of them
// only a few times. trim removes what is not used. s may be nil.
func (s *shard) grown() *shard {
	if s == nil {
		return newShard(1)
	}
	return s.copied(1 + s.live/4)
}

// hasRoom reports whether an entry may be inserted. At most 94 % are filled: more
// would make the search for an absent token slow.
func (s *shard) hasRoom() bool { return (s.used+1)*100 <= s.size*94 }

// The offsets of the fields in words.
func (s *shard) firstAt(slot int) *uint64  { return &s.words[s.size/8+slot] }
func (s *shard) secondAt(slot int) *uint64 { return &s.words[s.size/8+s.size+slot] }
func (s *shard) atAt(slot int) *uint64     { return &s.words[s.size/8+2*s.size+slot] }
func (s *shard) seqAt(slot int) *uint64    { return &s.words[s.size/8+3*s.size+slot] }
func (s *shard) spanAt(slot int) *uint64   { return &s.words[s.size/8+4*s.size+slot/2] }

// control returns the control byte for a hash.
func control(first uint64) uint64 { return max(1, first&0xff) }

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// zeroBytes returns a word whose lowest set bit is in the first byte of word that is
// zero, or zero if there is none.
func zeroBytes(word uint64) uint64 { return (word - lowBits) & ^word & highBits }

// start returns the word of control bytes at which the search for a hash starts.
func (s *shard) start(second uint64) int {
	word, _ := bits.Mul64(second, uint64(s.size/8))
	return int(word)
}

// find returns the slot of the live entry with a hash, or -1. An entry may be replaced
// during a scan, which then sees the old one removed and not yet the new one. So it
// scans again, until no other entry was removed since the last scan.
func (s *shard) find(first, second uint64) int {
	for before := 0; ; {
		slot, removed := s.scan(first, second)
		if slot >= 0 || removed == before {
			return slot
		}
		before = removed
	}
}

// scan returns the slot of a live entry with a hash, or -1, and how many removed
// entries with it there are before that.
func (s *shard) scan(first, second uint64) (slot, removed int) {
	pattern, words := control(first)*lowBits, s.size/8
	for word := s.start(second); ; {
		controls := atomic.LoadUint64(&s.words[word])
		for found := zeroBytes(controls ^ pattern); found != 0; found &= found - 1 {
			slot = word*8 + bits.TrailingZeros64(found)/8
			if atomic.LoadUint64(s.firstAt(slot)) != first || atomic.LoadUint64(s.secondAt(slot)) != second {
				continue
			}
			if s.isLive(slot) {
				return slot, removed
			}
			removed++
		}
		if zeroBytes(controls) != 0 {
			return -1, removed // An insert would have used the empty slot.
		}
		if word++; word == words {
			word = 0
		}
	}
}

// matches iterates over the live slots with a hash.
func (s *shard) matches(first, second uint64) func(yield func(slot int) bool) {
	return func(yield func(int) bool) {
		words := s.size / 8
		for word := s.start(second); ; word = (word + 1) % words {
			controls := s.words[word]
			for i := range 8 {
				slot := word*8 + i
				if controls>>(8*i)&0xff == control(first) && *s.firstAt(slot) == first && *s.secondAt(slot) == second && s.isLive(slot) && !yield(slot) {
					return
				}
			}
			if zeroBytes(controls) != 0 {
				return
			}
		}
	}
}

func (s *shard) isLive(slot int) bool { return atomic.LoadUint64(s.atAt(slot)) != 0 }

// rule returns the entry of a slot. Its at is zero if it was removed.
func (s *shard) rule(slot int) tokenRule {
	at, seq := atomic.LoadUint64(s.atAt(slot)), atomic.LoadUint64(s.seqAt(slot))
	span := seq&(1<<27-1)<<32 | atomic.LoadUint64(s.spanAt(slot))>>(32*(slot&1))&(1<<32-1)
	r := tokenRule{at: int64(at &^ foreignBit), seq: seq >> 27, foreign: at&foreignBit != 0}
	r.until = r.at + int64(span)
	r.hash = hashFrom(atomic.LoadUint64(s.firstAt(slot)), atomic.LoadUint64(s.secondAt(slot)))
	return r
}

// set writes the fields of a slot but for the hash.
func (s *shard) set(slot int, r *tokenRule) {
	span := uint64(r.until - r.at)
	half, shift := s.spanAt(slot), 32*(slot&1)
	atomic.StoreUint64(half, *half&^((1<<32-1)<<shift)|span&(1<<32-1)<<shift)
	atomic.StoreUint64(s.seqAt(slot), r.seq<<27|span>>32)
	at := uint64(r.at)
	if r.foreign {
		at |= foreignBit
	}
	atomic.StoreUint64(s.atAt(slot), at)
}

// insert writes an entry to an empty slot. The control byte, which publishes it, is
// written last.
func (s *shard) insert(r *tokenRule) {
	first, second := r.hash.words()
	word := s.start(second)
	empty := zeroBytes(s.words[word])
	for ; empty == 0; empty = zeroBytes(s.words[word]) {
		word = (word + 1) % (s.size / 8)
	}
	i := bits.TrailingZeros64(empty) / 8
	slot := word*8 + i
	atomic.StoreUint64(s.firstAt(slot), first)
	atomic.StoreUint64(s.secondAt(slot), second)
	s.set(slot, r)
	atomic.StoreUint64(&s.words[word], s.words[word]|control(first)<<(8*i))
	s.used++
	s.live++
	s.due = min(s.due, r.until)
}

func (s *shard) remove(slot int) {
	atomic.StoreUint64(s.atAt(slot), 0)
	s.live--
}

// toNanoseconds returns t in nanoseconds since 1970, or false if it cannot be expressed.
func toNanoseconds(t time.Time) (int64, bool) {
	n := t.UnixNano()
	return n, time.Unix(0, n).Equal(t)
}

// nearest returns t in nanoseconds since 1970, or the nearest number.
func nearest(t time.Time) int64 {
	switch n, ok := toNanoseconds(t); {
	case ok:
		return n
	case t.Unix() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}
