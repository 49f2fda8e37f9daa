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
	latest   time.Time     // the latest At
	changed  chan struct{} // closed when receipts has grown
}

func (m *memory) Append(ctx context.Context, r Rule) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := nextAt(m.latest)
	r, err := r.Complete(at)
	if err != nil {
		return Receipt{}, err
	}
	return m.add(Receipt{At: at, Rule: r}), nil
}

// add appends a receipt. The caller holds mu.
func (m *memory) add(r Receipt) Receipt {
	r = utc(r)
	r.Seq = uint64(len(m.receipts)) + 1
	if r.At.After(m.latest) {
		m.latest = r.At
	}
	m.receipts = append(m.receipts, r)
	close(m.changed)
	m.changed = make(chan struct{})
	return r
}

func (m *memory) Follow(ctx context.Context, from uint64, apply func(Receipt), current func(at time.Time)) error {
	idle := time.NewTicker(time.Second)
	defer idle.Stop()
	for ctx.Err() == nil {
		m.mu.Lock()
		if from > uint64(len(m.receipts)) {
			from = 0
		}
		news, changed, at := m.receipts[from:], m.changed, time.Now()
		m.mu.Unlock()
		for _, r := range news {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			apply(r)
		}
		from += uint64(len(news))
		current(at)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-idle.C:
		}
	}
	return ctx.Err()
}

func (m *memory) Refill(ctx context.Context, receipts []Receipt) error {
	lacking, fault := findLacking(receipts)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, r := range m.receipts {
		lacking.remove(r)
	}
	for _, r := range lacking.receipts() {
		m.add(r)
	}
	return fault
}

func (m *memory) Lost() bool { return false }

func (m *memory) Report(context.Context, string, uint64) error { return nil }

func (m *memory) Replicas(context.Context) (known, current int, err error) { return 1, 1, nil }
