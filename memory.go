package koreauth

import (
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/koreauth/koreauth/internal/jws"
)

const (
	cacheSize  = 10_000  // the default of Config.CacheSize
	entryBytes = 4 << 10 // a larger entry counts as several
	maxHeaders = 64      // distinct headers to keep of an issuer, which uses one per key
)

// memory remembers verified tokens. Tokens that arrive once cannot displace those
// that arrive often (W-TinyLFU), and readers share no lock. There is nothing to
// close: a writer does the maintenance.
type memory struct {
	tokens  *otter.Cache[jws.Digest, *verifiedToken] // nil: none are remembered
	headers headerMemory
}

// newMemory returns a memory for size entries of at most entryBytes each, which
// limits their number and their bytes. With size zero, no token is remembered.
func newMemory(size uint64) *memory {
	m := new(memory)
	m.headers.known.Store(&map[string]*tokenHeader{})
	if size > 0 {
		m.tokens = otter.Must(&otter.Options[jws.Digest, *verifiedToken]{
			MaximumWeight: size,
			Weigher:       func(_ jws.Digest, t *verifiedToken) uint32 { return weight(t) },
			Executor:      func(maintain func()) { maintain() },
		})
	}
	return m
}

// find returns what is remembered of a token, or nil.
func (m *memory) find(d jws.Digest) *verifiedToken {
	t, _ := m.tokens.GetIfPresent(d)
	return t
}

// remember is called for tokens that were found valid.
func (m *memory) remember(d jws.Digest, t *verifiedToken) { m.tokens.Set(d, t) }

// forget removes a token that has expired or whose key is gone.
func (m *memory) forget(d jws.Digest) { m.tokens.Invalidate(d) }

// weight counts a token in steps of entryBytes: its payload, and what decoding
// adds.
func weight(t *verifiedToken) uint32 {
	c := &t.claims
	size := 640 + len(t.header.kid) + len(t.payload) + 40*cap(c.Resources)
	size += 16 * (cap(c.Audience) + cap(c.Scopes) + cap(c.IPRanges) + cap(c.Products))
	for _, r := range c.Resources {
		size += 16 * cap(r.Access)
	}
	if strings.Contains(t.payload, `\`) { // Decoding copies a string that has an escape.
		size += len(t.payload)
	}
	return uint32(min(int64(size+entryBytes-1)/entryBytes, math.MaxUint32))
}

// headerMemory remembers the headers of valid tokens by their encoded bytes, since
// an issuer sends the same few again and again.
type headerMemory struct {
	known atomic.Pointer[map[string]*tokenHeader] // immutable; replaced to change it
	mu    sync.Mutex                              // guards replacing it
}

func (m *headerMemory) find(encoded string) *tokenHeader { return (*m.known.Load())[encoded] }

// remember takes the "iss" of the token too: an issuer with many headers must not
// displace those of another.
func (m *headerMemory) remember(encoded string, header *tokenHeader, issuer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.find(encoded) != nil {
		return
	}
	grown, own := maps.Clone(*m.known.Load()), 0
	for _, h := range grown {
		if h.issuer == issuer {
			own++
		}
	}
	if own >= maxHeaders { // Start again: a header that was dropped is decoded once more.
		maps.DeleteFunc(grown, func(_ string, h *tokenHeader) bool { return h.issuer == issuer })
	}
	header.issuer = issuer
	grown[strings.Clone(encoded)] = header
	m.known.Store(&grown)
}
