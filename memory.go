package koreauth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"hash"
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

const (
	cacheSize  = 10_000  // what a zero Config.CacheSize means
	entryBytes = 4 << 10 // a larger entry counts as several
	maxHeaders = 64      // an issuer has one for each key
)

// digest is the SHA-256 of a whole token: what is known of it without keeping it.
type digest = [sha256.Size]byte

// remembered is what outlives a request: that this key verified these bytes, and
// the claims that were in them. Whether they are still good is judged each time.
type remembered struct {
	claims  Claims
	payload string // that the claims were decoded from
	key     Key
}

// memory remembers tokens that were good. Tokens that come once cannot push out
// those that come again (W-TinyLFU), readers share no lock, and there is nothing
// to close: what upkeep there is, a writer does in passing.
type memory struct {
	tokens  *otter.Cache[digest, *remembered]
	headers headerMemory
}

// newMemory returns a memory of size entries of at most entryBytes each, which
// bounds entries and bytes at once; zero means cacheSize, and less means none.
func newMemory(size int) *memory {
	if size < 0 {
		return &memory{}
	}
	if size == 0 {
		size = cacheSize
	}
	return &memory{tokens: otter.Must(&otter.Options[digest, *remembered]{
		MaximumWeight: uint64(size),
		Weigher:       func(_ digest, e *remembered) uint32 { return e.weight() },
		Executor:      func(upkeep func()) { upkeep() },
	})}
}

// recall returns what is remembered of a token whose header is known; nil if
// nothing is.
func (m *memory) recall(t *parsedToken) *remembered {
	if m.tokens == nil || t.header == nil {
		return nil // No token with an unknown header can be remembered.
	}
	t.digest = sumOf(t.whole)
	e, _ := m.tokens.GetIfPresent(t.digest)
	return e
}

// remember is for tokens that have been found good.
func (m *memory) remember(t *parsedToken) {
	m.headers.remember(t.encodedHeader, t.header)
	if m.tokens == nil {
		return
	}
	if t.digest == (digest{}) { // Its header was not known yet.
		t.digest = sumOf(t.whole)
	}
	m.tokens.Set(t.digest, t.fresh)
}

// forget ends an entry that can be no good any more.
func (m *memory) forget(t *parsedToken) { m.tokens.Invalidate(t.digest) }

// sumOf returns the digest of s without a copy of it.
func sumOf(s string) (sum digest) {
	h := hashers.Get().(*hasher)
	for s != "" {
		n := copy(h.buffer[:], s)
		h.hash.Write(h.buffer[:n])
		s = s[n:]
	}
	copy(sum[:], h.hash.Sum(h.buffer[:0]))
	h.hash.Reset()
	hashers.Put(h)
	return sum
}

type hasher struct {
	hash   hash.Hash
	buffer [1024]byte
}

var hashers = sync.Pool{New: func() any { return &hasher{hash: sha256.New()} }}

// weight counts an entry in steps of entryBytes, so that however many there are,
// they are bounded in bytes: what is in the payload, and what decoding adds.
func (e *remembered) weight() uint32 {
	c := &e.claims
	size := 512 + len(e.payload) + 16*(len(c.Audience)+len(c.Scopes)+len(c.IPRanges)+len(c.Products)) + 40*len(c.Resources)
	for _, r := range c.Resources {
		size += 16 * len(r.Access)
	}
	return uint32(min((size+entryBytes-1)/entryBytes, math.MaxUint32))
}

// headerMemory remembers what the headers of good tokens say, by their encoded
// bytes: an issuer sends the same few over and over. Its zero value is ready.
type headerMemory struct {
	known atomic.Pointer[map[string]*tokenHeader] // never changed, only replaced
	mu    sync.Mutex                              // guards replacing it
}

func (m *headerMemory) recall(encoded string) *tokenHeader {
	if known := m.known.Load(); known != nil {
		return (*known)[encoded]
	}
	return nil
}

func (m *headerMemory) remember(encoded string, header *tokenHeader) {
	if m.recall(encoded) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	grown := make(map[string]*tokenHeader)
	// When there are too many the old ones go, which costs them one more look.
	if known := m.known.Load(); known != nil && len(*known) < maxHeaders {
		maps.Copy(grown, *known)
	}
	grown[strings.Clone(encoded)] = header
	m.known.Store(&grown)
}

// equal compares keys by value, so that a refresh that brings the same key ends
// nothing.
func (k *Key) equal(other *Key) bool {
	if k.ID != other.ID || k.Algorithm != other.Algorithm {
		return false
	}
	switch public := k.Public.(type) {
	case *rsa.PublicKey:
		o, ok := other.Public.(*rsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case *ecdsa.PublicKey:
		o, ok := other.Public.(*ecdsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case ed25519.PublicKey:
		o, ok := other.Public.(ed25519.PublicKey)
		return ok && bytes.Equal(public, o)
	}
	return false
}
