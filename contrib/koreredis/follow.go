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
	// maxEnds is how many ends of Follow are kept.
	maxEnds = 64
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
	defer s.remember(r)
	for {
		err := r.follow(ctx, apply, current)
		if err != nil {
			return s.end(ctx, "follow the rules", err)
		}
	}
}

// follow gives what is new, and then waits for more.
func (r *reader) follow(ctx context.Context, apply func(revocation.Receipt), current func(at time.Time)) error {
	if err := r.catchUp(ctx, apply, current); err != nil {
		return err
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
	news := messagesOf(streams)
	r.advance(news)
	give(news, apply)
	return nil
}

// catchUp gives all that the log has. A page is given while the next one is fetched.
func (r *reader) catchUp(ctx context.Context, apply func(revocation.Receipt), current func(at time.Time)) error {
	ahead, restarts := r.lookAhead(ctx), 0
	for {
		l := <-ahead
		if l.err != nil {
			return l.err
		}
		if !r.continues(l.view) {
			if restarts++; restarts > maxRestarts {
				return errRestless
			}
			r.restart(l.view)
			ahead = r.lookAhead(ctx)
			continue
		}
		r.advance(l.news)
		r.checked = r.pos
		if l.full {
			ahead = r.lookAhead(ctx)
		}
		give(l.news, apply)
		if !l.full {
			current(l.began)
			return nil
		}
	}
}

// looked is the result of a look in the background.
type looked struct {
	view
	began time.Time
	err   error
}

// lookAhead looks at the log in the background. The reader must not change meanwhile.
func (r *reader) lookAhead(ctx context.Context) <-chan looked {
	c := make(chan looked, 1)
	go func() {
		l := looked{began: time.Now()}
		l.view, l.err = r.look(ctx)
		c <- l
	}()
	return c
}

// give calls apply with the entries.
func give(entries []redis.XMessage, apply func(revocation.Receipt)) {
	for _, m := range entries {
		receipt, _ := readEntry(m.ID, m.Values)
		apply(receipt)
	}
}

// reader returns a reader of the rules after from. It begins where an earlier Follow
// ended with that rule, so that it notices if the log is another one.
func (s *store) reader(ctx context.Context, from uint64) (*reader, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	r := &reader{store: s, conn: c}
	r.pos = position{last: strconv.FormatUint(from, 10) + "-0", seq: from}
	r.checked = r.pos
	if e, ok := s.recall(from); ok {
		r.checked, r.pos, r.asked = e.checked, e.pos, true
	}
	return r, nil
}

// ended says where a Follow ended.
type ended struct {
	checked, pos position
	at           time.Time
}

// recall returns where a Follow ended with that rule. If several did, in different
// logs, no log matches what is returned: one of them must begin anew.
func (s *store) recall(seq uint64) (found ended, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range slices.Backward(s.ends) {
		switch {
		case e.pos.seq != seq:
		case !ok:
			found, ok = e, true
		case e.pos.proof != found.pos.proof && time.Since(e.at) < memory:
			found.checked.proof = "none"
		}
	}
	return found, ok
}

// remember keeps where a Follow ended.
func (s *store) remember(r *reader) {
	if r.pos.proof == "" {
		return // It gave nothing.
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := ended{r.checked, r.pos, time.Now()}
	s.ends = slices.DeleteFunc(s.ends, func(old ended) bool { return old.checked == e.checked && old.pos == e.pos })
	if s.ends = append(s.ends, e); len(s.ends) > maxEnds {
		s.ends = s.ends[1:]
	}
}
