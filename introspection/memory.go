package introspection

import (
	"math"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/limit"
)

// The limits of what is remembered.
const (
	maxGood    = 10_000  // good answers of up to goodBytes; a larger one counts as several
	goodBytes  = 4 << 10 // so that they take at most 40 MB
	maxBad     = 4096    // tokens that were rejected
	badFor     = 10 * time.Second
	defaultAge = 10 * time.Second // of Config.MaxAge
)

// digest is the SHA-256 of a token. Tokens themselves are not kept.
type digest = jws.Digest

// goodAnswer is the answer for a token that was accepted.
type goodAnswer struct {
	*verdict
	at clock.Instant // before it was asked
}

// memory remembers answers. Those for rejected tokens have a place of their own, so that
// invented tokens displace nothing.
type memory struct {
	good *otter.Cache[digest, goodAnswer]

	mu  sync.Mutex                  // guards bad
	bad limit.Recent[digest, error] // why tokens were rejected
}

func newMemory() *memory {
	return &memory{
		good: otter.Must(&otter.Options[digest, goodAnswer]{
			MaximumWeight: maxGood,
			Weigher: func(_ digest, a goodAnswer) uint32 {
				return uint32(min((a.bytes+goodBytes-1)/goodBytes, math.MaxInt32))
			},
			Executor: func(maintain func()) { maintain() }, // There is no goroutine to close.
		}),
		bad: limit.Recent[digest, error]{Max: maxBad},
	}
}

// rejected returns why a token was rejected a short time ago, or nil.
func (m *memory) rejected(d digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err, _ := m.bad.Find(d)
	return err
}

// accept remembers a good answer.
func (m *memory) accept(d digest, a goodAnswer) {
	m.good.Set(d, a)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bad.Forget(d)
}

// reject remembers why a token was rejected, for that time.
func (m *memory) reject(d digest, err error, keep time.Duration) {
	m.good.Invalidate(d)
	if keep <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bad.Add(d, err, keep)
}
