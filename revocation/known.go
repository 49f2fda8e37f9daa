package revocation

import (
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
)

// maxKnown is how many tokens are known.
const maxKnown = 10_000

// known has the last tokens that Check has seen. It saves work for them: the hash of
// the ID need not be computed again, and a token that was not revoked is not looked up
// as long as no rule has changed. It also tells what a rule would stop.
//
// A token is identified by 128 bits of a keyed hash, and nothing of it is kept alive.
// A look-up of a known token takes no lock, and one of a new token allocates only if
// its client is new.
type known struct {
	table atomic.Pointer[knownTable]

	// added counts the tokens that were new. It is the clock by which tokens are old.
	added atomic.Uint64

	mu     sync.Mutex // guards the fields below, and changes of table and added
	used   int        // slots
	oldest uint64     // no token was seen earlier, by the clock
	// bySight has the slots by the time at which their tokens were seen, or had been
	// when the slot was put there: of each list the number of its first slot and one.
	// It is nil until a slot must be used again.
	bySight *[sights]uint32
	parties map[uint64]*partyRef // by partyHash, or the next number that is free
}

// sights is greater than maxKnown: when so many tokens are new, each that was not seen
// since has lost its slot.
const sights = 1 << 14

// party is who a token belongs to. All tokens of a client have the same.
type party struct{ issuer, client, account, subject string }

// partyRef is shared by the tokens of a party.
type partyRef struct {
	party
	place  uint64 // in parties
	tokens int
}

// knownTable finds the slot of a token. It is replaced when it must grow.
type knownTable struct {
	index []atomic.Uint32 // the number of a slot and one; zero: none. The length is a power of two
	slots []slot
}

// slot is a known token. Readers take no lock, so they compare version before and
// after.
type slot struct {
	version      atomic.Uint32 // odd while the slot is written
	next         uint32        // in a list of bySight; guarded by known.mu
	seen         atomic.Uint64 // when the token was seen last, by known.added
	key1, key2   atomic.Uint64
	hash1, hash2 atomic.Uint64 // of the ID, as in a table
	// clean is key1 XOR the generation at which the token was not revoked. A late
	// write for the token that had the slot before has another key1.
	clean atomic.Uint64

	// Guarded by known.mu.
	party    *partyRef
	issuedAt int64 // in nanoseconds; earlier than any moment if absent
	expiry   int64 // later than any moment if absent
}

// tokenRef is what Check needs to know of a token.
type tokenRef struct {
	issuer uint64 // maphash of the issuer
	key1   uint64
	hash   hash // of the ID
	slot   *slot
}

func hashOfIssuer(issuer string) uint64 { return maphash.String(seeds[1], issuer) }

// look returns a token's slot, which it adds if the token is new. clean reports that
// the token was not revoked at that generation.
func (k *known) look(c *koreauth.Claims, generation uint64) (ref tokenRef, clean bool) {
	ref.issuer = hashOfIssuer(c.Issuer)
	who := partyHash(c, ref.issuer)
	key1, key2 := keysOf(c, who)
	ref.key1 = key1
	if t := k.table.Load(); t != nil {
		if s := t.find(key1, key2); s != nil {
			version := s.version.Load()
			hash1, hash2, mark := s.hash1.Load(), s.hash2.Load(), s.clean.Load()
			if s.key1.Load() == key1 && s.key2.Load() == key2 && version&1 == 0 && s.version.Load() == version {
				if now := k.added.Load(); s.seen.Load() != now {
					s.seen.Store(now)
				}
				ref.hash, ref.slot = hashFrom(hash1, hash2), s
				return ref, mark == key1^generation
			}
		}
	}
	if len(c.ID) <= maxValue && len(c.Issuer) <= maxValue {
		ref.hash = hashOf(kindToken, c.Issuer, c.ID)
	}
	ref.slot = k.add(c, who, key1, key2, ref.hash)
	return ref, false
}

// keysOf returns what identifies a token. It depends on all that a rule can select, and
// on the expiry, in case that the issuer gives one ID to several tokens, or none.
func keysOf(c *koreauth.Claims, who uint64) (key1, key2 uint64) {
	rest := who + uint64(c.IssuedAt.Unix())<<32 + uint64(c.IssuedAt.Nanosecond()) + 13*uint64(c.Expiry.Unix())
	return maphash.String(seeds[0], c.ID) + rest, maphash.String(seeds[1], c.ID) ^ rest
}

// partyHash returns a number for the party of a token.
func partyHash(c *koreauth.Claims, issuer uint64) uint64 {
	return 3*issuer + 5*maphash.String(seeds[0], c.ClientID) + 7*maphash.String(seeds[0], c.AccountID) + 11*maphash.String(seeds[0], c.Subject)
}

// isClean notes that the token was not revoked at a generation.
func (r *tokenRef) isClean(generation uint64) { r.slot.clean.Store(r.key1 ^ generation) }

// find returns the slot of a token, or nil. The caller must compare the keys and the
// version.
func (t *knownTable) find(key1, key2 uint64) *slot {
	mask := uint64(len(t.index) - 1)
	for i := key1; ; i++ {
		n := t.index[i&mask].Load()
		if n == 0 {
			return nil
		}
		if s := &t.slots[n-1]; s.key1.Load() == key1 && s.key2.Load() == key2 {
			return s
		}
	}
}

// add returns the slot of a token, which may be new.
func (k *known) add(c *koreauth.Claims, who, key1, key2 uint64, id hash) *slot {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.table.Load()
	if t != nil {
		if s := t.find(key1, key2); s != nil {
			return s
		}
	}
	if t == nil || k.used == len(t.slots) && k.used < maxKnown {
		t = k.grow(t)
	}
	n := k.used
	if n < len(t.slots) {
		k.used++
	} else {
		n = k.evict(t)
	}
	s := &t.slots[n]
	s.version.Add(1)
	s.key1.Store(key1)
	s.key2.Store(key2)
	first, second := id.words()
	s.hash1.Store(first)
	s.hash2.Store(second)
	s.clean.Store(^key1) // a generation that is never reached
	s.version.Add(1)
	s.seen.Store(k.added.Add(1))
	if k.bySight != nil {
		k.enlist(t, n)
	}
	s.party = k.partyOf(c, who)
	s.issuedAt, s.expiry = nearest(c.IssuedAt), nearest(c.Expiry)
	if c.Expiry.IsZero() {
		s.expiry = math.MaxInt64
	}
	t.put(n)
	return s
}

func (t *knownTable) put(n int) {
	mask := uint64(len(t.index) - 1)
	i := t.slots[n].key1.Load()
	for t.index[i&mask].Load() != 0 {
		i++
	}
	t.index[i&mask].Store(uint32(n) + 1)
}

// grow makes a larger table with the same tokens.
func (k *known) grow(old *knownTable) *knownTable {
	slots := 64
	if old != nil {
		slots = min(4*len(old.slots), maxKnown)
	}
	size := 128
	for size < 2*slots {
		size *= 2
	}
	t := &knownTable{index: make([]atomic.Uint32, size), slots: make([]slot, slots)}
	for n := range k.used {
		from, to := &old.slots[n], &t.slots[n]
		to.key1.Store(from.key1.Load())
		to.key2.Store(from.key2.Load())
		to.hash1.Store(from.hash1.Load())
		to.hash2.Store(from.hash2.Load())
		to.clean.Store(from.clean.Load())
		to.seen.Store(from.seen.Load())
		to.party, to.issuedAt, to.expiry = from.party, from.issuedAt, from.expiry
		t.put(n)
	}
	k.table.Store(t)
	return t
}

// enlist puts a slot into bySight.
func (k *known) enlist(t *knownTable, n int) {
	first := &k.bySight[max(t.slots[n].seen.Load(), k.oldest)%sights]
	t.slots[n].next, *first = *first, uint32(n)+1
}

// leastRecent returns the slot of the token that was not seen for the longest time, and
// takes it out of bySight.
func (k *known) leastRecent(t *knownTable) int {
	if k.bySight == nil {
		k.bySight = new([sights]uint32)
		for n := range t.slots {
			k.enlist(t, n)
		}
	}
	for ; ; k.oldest++ {
		first := &k.bySight[k.oldest%sights]
		for *first != 0 {
			n := int(*first) - 1
			*first = t.slots[n].next
			if t.slots[n].seen.Load() <= k.oldest {
				return n
			}
			k.enlist(t, n) // It was seen since, so it goes to another list.
		}
	}
}

// evict returns the slot of the token that was not seen for the longest time, after it
// has removed the token.
func (k *known) evict(t *knownTable) int {
	n := k.leastRecent(t)
	p := t.slots[n].party
	if p.tokens--; p.tokens == 0 {
		delete(k.parties, p.place)
	}
	mask := uint64(len(t.index) - 1)
	hole := t.slots[n].key1.Load() & mask
	for t.index[hole].Load() != uint32(n)+1 {
		hole = (hole + 1) & mask
	}
	// Move back the entries behind the hole that a search would no longer reach. A
	// reader that misses one meanwhile takes the lock, and finds it in add.
	for i := (hole + 1) & mask; ; i = (i + 1) & mask {
		entry := t.index[i].Load()
		if entry == 0 {
			break
		}
		if home := t.slots[entry-1].key1.Load() & mask; (i-home)&mask >= (i-hole)&mask {
			t.index[hole].Store(entry)
			hole = i
		}
	}
	t.index[hole].Store(0)
	return n
}

// partyOf returns the party of a token. A value that no rule matches is left out.
func (k *known) partyOf(c *koreauth.Claims, who uint64) *partyRef {
	p := party{c.Issuer, c.ClientID, c.AccountID, c.Subject}
	for _, value := range []*string{&p.issuer, &p.client, &p.account, &p.subject} {
		if len(*value) > maxValue {
			*value = ""
		}
	}
	ref := k.parties[who]
	for ref != nil && ref.party != p {
		who++
		ref = k.parties[who]
	}
	if ref == nil {
		if k.parties == nil {
			k.parties = make(map[uint64]*partyRef)
		}
		// The claims are parts of a payload, which must not be kept alive.
		p = party{strings.Clone(p.issuer), strings.Clone(p.client), strings.Clone(p.account), strings.Clone(p.subject)}
		ref = &partyRef{party: p, place: who}
		k.parties[who] = ref
	}
	ref.tokens++
	return ref
}

// stoppedBy returns how many known tokens that have not expired a complete rule
// selects, and their clients in order.
func (k *known) stoppedBy(r *Rule, now time.Time) (tokens int, clients []string) {
	id, before, at := keyOfRule(r), nearest(r.IssuedBefore), nearest(now)
	found := make(map[string]bool)
	k.mu.Lock()
	defer k.mu.Unlock()
	selected := make(map[*partyRef]bool, len(k.parties))
	for _, p := range k.parties {
		selected[p] = id.kind != kindToken && p.has(&id)
	}
	for n := range k.used {
		s := &k.table.Load().slots[n]
		switch {
		case s.expiry <= at:
			continue
		case id.kind == kindToken:
			if hashFrom(s.hash1.Load(), s.hash2.Load()) != id.hash {
				continue
			}
		case !selected[s.party] || s.issuedAt > before:
			continue
		}
		tokens++
		if s.party.client != "" {
			found[s.party.client] = true
		}
	}
	return tokens, slices.Sorted(maps.Keys(found))
}

// has reports whether the key, which is not that of a token, is one of the party.
func (p *party) has(id *key) bool {
	value := [kinds]string{kindClient: p.client, kindAccount: p.account, kindSubject: p.subject}[id.kind]
	switch {
	case p.issuer == "", value == "" && id.kind != kindIssuer:
		return false
	case id.clear:
		return p.issuer == id.issuer && value == id.value
	}
	return hashOf(id.kind, p.issuer, value) == id.hash
}
