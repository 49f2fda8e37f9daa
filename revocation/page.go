package revocation

import (
	"context"
	"sync"
)

// page collects the rules of one page. The store may call it until the store has
// noticed the end of the context, or even longer.
type page struct {
	stop  context.CancelFunc // ends Follow
	limit int

	mu       sync.Mutex // guards the fields below
	last     uint64     // the Seq of the last rule
	rules    []Receipt
	complete bool
	over     bool // complete, or given up
}

// add adds a rule, unless it is not valid. A store gives rules from the beginning if
// those after the last one are asked for.
func (p *page) add(r Receipt) {
	if _, err := r.check(); err != nil {
		return // List.Follow reports it.
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || r.Seq <= p.last {
		return
	}
	p.rules, p.last = append(p.rules, r), r.Seq
	if len(p.rules) == p.limit {
		p.end()
	}
}

// finish is called when the store has no other rules.
func (p *page) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.end()
	}
}

// end completes the page. The caller holds mu.
func (p *page) end() {
	p.complete, p.over = true, true
	p.stop()
}

// result ends the page, and returns its rules if they are complete.
func (p *page) result() ([]Receipt, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return p.rules, p.complete
}
