package koreredis

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

const (
	// maxGiven is how many ends of Follow are kept.
	maxGiven = 64
	// memory is how long an end of Follow matters beside a later one. A list that was
	// disconnected follows again within seconds.
	memory = 10 * time.Minute
)

// Follow implements [revocation.Store]. An entry of the log that is not a rule is
// given as a receipt that has only Seq.
func (s *store) Follow(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(at time.Time)) error {
	r, err := s.reader(ctx, from)
	if err != nil {
		return s.end(ctx, "follow the rules", err)
	}
	defer r.conn.close()
	defer func() { s.remember(r.checked) }()
	for {
		err := r.follow(ctx, apply, current)
		if err != nil {
			return s.end(ctx, "follow the rules", err)
		}
	}
}

// follow gives what is new, and then waits for more.
func (r *reader) follow(ctx context.Context, apply func(revocation.Receipt), current func(at time.Time)) error {
	for {
		began := time.Now()
		v, err := r.look(ctx)
		if err != nil {
			return err
		}
		if !r.continues(v) {
			r.restart(v)
			continue
		}
		r.give(v.entries, apply)
		r.checked = r.pos
		if v.steady && !v.full {
			current(began)
			break
		}
	}
	// What comes is given at once. The next look shows whether it is the same log.
	var streams []redis.XStream
	err := r.conn.do(ctx, func(ctx context.Context) (err error) {
		streams, err = r.conn.XRead(ctx, &redis.XReadArgs{Streams: []string{r.log, r.pos.last}, Count: page, Block: block}).Result()
		return err
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	r.give(entriesOf(streams), apply)
	return nil
}

// give calls apply with the entries.
func (r *reader) give(entries []entry, apply func(revocation.Receipt)) {
	for _, e := range entries {
		apply(e.receipt)
	}
	r.advance(entries)
}

// reader returns a reader of the rules after from. It begins where an earlier Follow
// ended there, so that it notices if the log is another one.
func (s *store) reader(ctx context.Context, from uint64) (*reader, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	r := &reader{store: s, conn: c}
	r.pos = position{last: strconv.FormatUint(from, 10) + "-0", seq: from}
	if p, ok := s.recall(from); ok {
		r.pos, r.asked = p, true
	}
	r.checked = r.pos
	return r, nil
}

// ended is a position at which a Follow ended.
type ended struct {
	position
	at time.Time
}

// recall returns the position at which a Follow ended with that rule. If several did,
// in different logs, no log matches what is returned: one of them must begin anew.
func (s *store) recall(seq uint64) (p position, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.given) - 1; i >= 0; i-- {
		g := s.given[i]
		switch {
		case g.seq != seq:
		case !ok:
			p, ok = g.position, true
		case g.proof != p.proof && time.Since(g.at) < memory:
			p.proof = "none"
		}
	}
	return p, ok
}

// remember keeps the position at which a Follow ended.
func (s *store) remember(p position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = slices.DeleteFunc(s.given, func(g ended) bool { return g.position == p })
	if s.given = append(s.given, ended{p, time.Now()}); len(s.given) > maxGiven {
		s.given = s.given[1:]
	}
}

