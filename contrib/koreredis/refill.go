package koreredis

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lease.lua
	leaseSource string
	//go:embed release.lua
	releaseSource string

	leaseScript   = redis.NewScript(leaseSource)
	releaseScript = redis.NewScript(releaseSource)
)

const (
	// batch is how many rules one call of the script appends. Other clients wait
	// meanwhile.
	batch = 500
	// pause is the mean time between two tries to get the lease.
	pause = 50 * time.Millisecond
)

// identity tells rules apart: the same rule has the same identity on all replicas.
type identity [16]byte

// identify returns the identity of a rule.
func identify(r revocation.Receipt) (identity, error) {
	if r.At.Year() < 1970 || r.At.Year() > 2200 {
		return identity{}, errors.New("its At is not a time at which a rule was appended")
	}
	h, err := r.Rule.Complete(r.At)
	if err != nil {
		return identity{}, err
	}
	h = h.Hashed()
	b := make([]byte, 0, 256)
	for _, t := range []time.Time{r.At, h.IssuedBefore, h.Until} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
	}
	if h.Lift {
		b = append(b, 1)
	}
	sum := sha256.Sum256(append(b, h.Hash...))
	return identity(sum[:16]), nil
}

// Refill implements [revocation.Fleet]. A receipt that no store has given is left out,
// and the error says so.
func (s *store) Refill(ctx context.Context, receipts []revocation.Receipt) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wanted := make(map[identity]int, len(receipts))
	var fault error
	for i, r := range receipts {
		id, err := identify(r)
		if err == nil {
			wanted[id] = i
		} else if fault == nil {
			fault = fmt.Errorf("koreredis: Refill left out receipt %d of %d: %w", i+1, len(receipts), err)
		}
	}
	r, err := s.reader(ctx, 0)
	if err == nil {
		f := &refill{reader: r, receipts: receipts, wanted: wanted, token: random()}
		err = f.run(ctx)
		r.conn.close()
		if err == nil {
			s.heal(f.losses)
		}
	}
	if err != nil {
		return s.end(ctx, "refill the rules", err)
	}
	return fault
}

// heal notes that these losses were refilled.
func (s *store) heal(losses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = max(s.healed, losses)
}

// refill is one call of Refill.
type refill struct {
	*reader
	receipts []revocation.Receipt
	wanted   map[identity]int // indexes of receipts
	lacking  map[identity]int // those of wanted that were not read
	losses   int              // that were known before the log was read
	token    string           // of the lease
}

// run compares the log with what is wanted, and appends what it lacks while it has
// the lease. Whoever does not get the lease compares again, until nothing is lacking.
func (f *refill) run(ctx context.Context) error {
	f.begin()
	held := false
	for {
		damaged, err := f.compare(ctx)
		if err != nil {
			return err
		}
		switch {
		case len(f.lacking) == 0 && !damaged:
			if held {
				_ = releaseScript.Run(ctx, f.conn, []string{f.lease}, f.token).Err() // or it ends by itself
			}
			return nil
		case held:
			held, err = f.write(ctx, damaged)
		default:
			// After the lease was taken, the log is compared once more.
			held, err = f.lock(ctx)
		}
		if err != nil && len(f.lacking) == 0 && mayNot(err) {
			return nil // somebody else will note what was lost
		}
		if err == nil && !held {
			err = sleep(ctx, pause/2+rand.N(pause))
		}
		if err != nil {
			return err
		}
	}
}

// begin notes that nothing of the log was read yet.
func (f *refill) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.losses, f.lacking = f.store.losses, maps.Clone(f.wanted)
}

// compare reads what is new in the log. It reports whether the log has lost entries.
func (f *refill) compare(ctx context.Context) (damaged bool, err error) {
	for restarts := 0; restarts <= maxRestarts; {
		v, err := f.look(ctx)
		if err != nil {
			return false, err
		}
		if !f.continues(v) {
			restarts++
			f.restart(v)
			f.begin()
			continue
		}
		for _, m := range v.news {
			if receipt, ok := readEntry(m.ID, m.Values); ok {
				id, _ := identify(receipt) // it is complete
				delete(f.lacking, id)
			}
		}
		f.advance(v.news)
		f.checked = f.pos
		if v.steady && !v.full {
			return v.missing > 0, nil
		}
	}
	return false, errRestless
}

// lock takes the lease, and reports whether it was free.
func (f *refill) lock(ctx context.Context) (held bool, err error) {
	n, err := leaseScript.Run(ctx, f.conn, []string{f.lease}, f.token, leaseTime.Milliseconds()).Int()
	return n == 1, err
}

// write appends what is lacking, and then accepts what the log has lost. It reports
// whether the lease is still held.
func (f *refill) write(ctx context.Context, damaged bool) (held bool, err error) {
	lacking := slices.SortedFunc(maps.Values(f.lacking), func(a, b int) int { return f.receipts[a].At.Compare(f.receipts[b].At) })
	for {
		rules := make([]rule, min(batch, len(lacking)))
		for i := range rules {
			if rules[i], err = oldRule(f.receipts[lacking[i]]); err != nil {
				return false, err
			}
		}
		lacking = lacking[len(rules):]
		how := call{now: time.Now(), token: f.token, accept: damaged && len(lacking) == 0}
		reply, err := f.append(ctx, f.conn, how, rules...)
		if err != nil || reply[0] != "ok" {
			return false, err
		}
		if len(lacking) == 0 {
			return true, nil
		}
	}
}

// mayNot reports whether the client has no right to write.
func mayNot(err error) bool { return redis.IsPermissionError(err) || redis.IsReadOnlyError(err) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
