package revocation

import (
	"context"
	"sync"
	"time"
)

// Memory returns a store in the memory of this process, for tests and for programs
// with one replica. Its rules are lost when the process ends.
func Memory() Store { return &memory{changed: make(chan struct{})} }

// memory is the store of Memory.
type memory struct {
	mu       sync.Mutex
	receipts []Receipt
	changed  chan struct{} // closed when receipts has grown
}

func (m *memory) Append(ctx context.Context, r Rule) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Now().UTC()
	if n := len(m.receipts); n > 0 && !at.After(m.receipts[n-1].At) {
		at = m.receipts[n-1].At.Add(1)
	}
	r, err := r.Complete(at)
	if err != nil {
		return Receipt{}, err
	}
	return m.add(Receipt{At: at, Rule: r}), nil
}

// add appends a receipt. The caller holds mu.
func (m *memory) add(r Receipt) Receipt {
	r.Seq = uint64(len(m.receipts)) + 1
	m.receipts = append(m.receipts, r)
	close(m.changed)
	m.changed = make(chan struct{})
	return r
}

func (m *memory) Follow(ctx context.Context, from uint64, apply func(Receipt), current func(at time.Time)) error {
	idle := time.NewTicker(time.Second)
	defer idle.Stop()
	for {
		m.mu.Lock()
		if from > uint64(len(m.receipts)) {
			from = 0
		}
		news, changed, at := m.receipts[from:], m.changed, time.Now()
		m.mu.Unlock()
		for _, r := range news {
			apply(r)
		}
		from += uint64(len(news))
		current(at)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-idle.C:
		}
	}
}

func (m *memory) Refill(ctx context.Context, receipts []Receipt) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	type identity struct {
		at   int64
		rule Rule
	}
	has := make(map[identity]bool, len(m.receipts))
	for _, r := range m.receipts {
		has[identity{r.At.UnixNano(), utc(r.Rule.Hashed())}] = true
	}
	for _, r := range receipts {
		if id := (identity{r.At.UnixNano(), utc(r.Rule.Hashed())}); !has[id] {
			has[id] = true
			m.add(r)
		}
	}
	return ctx.Err()
}

// utc makes equal moments equal values.
func utc(r Rule) Rule {
	r.IssuedBefore, r.Until = r.IssuedBefore.UTC(), r.Until.UTC()
	return r
}

func (m *memory) Lost() bool { return false }

func (m *memory) Report(context.Context, string, uint64) error { return nil }

func (m *memory) Replicas(context.Context) (known, current int, err error) { return 1, 1, nil }
