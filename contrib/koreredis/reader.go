package koreredis

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

const (
	// page is how many entries are read at once.
	page = 1000
	// maxRestarts is how often in a row the log may turn out to be another one.
	maxRestarts = 10
)

var errRestless = errors.New("the log is replaced again and again: check that no other program writes to its keys")

// position is a place in the log, and what shows that the log still has it.
type position struct {
	epoch   string // of the log
	last    string // id of the last entry read
	seq     uint64 // of the last rule read
	proof   string // nonce of that rule; empty: it was not read
	missing int64  // how many entries the log had lost
}

// reader reads the log from a position on.
type reader struct {
	*store
	conn    *conn
	pos     position // reached
	checked position // the last that the log was seen to have
	asked   bool     // checked.epoch was seen
	noRole  bool     // the user may not ask for the role
}

// view is what one look at the log has found.
type view struct {
	epoch   string
	seq     uint64
	proof   string // nonce of the rule at the base
	missing int64  // how many entries the log has lost; unknownLoss if its head is gone
	steady  bool   // nothing was appended meanwhile
	news    []redis.XMessage
	full    bool // there may be more
}

// unknownLoss stands for a log without its head.
const unknownLoss = math.MaxInt64

// look reads the head of the log, the rule at the checked position, and what comes
// after the reached position, in one round trip. The head is read twice: if it did
// not change, the rest fits it.
func (r *reader) look(ctx context.Context) (v view, err error) {
	var role *redis.Cmd
	var length *redis.IntCmd
	var proof *redis.XMessageSliceCmd
	var next *redis.XStreamSliceCmd
	var before, after *redis.SliceCmd
	err = r.conn.do(ctx, func(ctx context.Context) error {
		p := r.conn.Pipeline()
		if r.conn.ownLine && !r.noRole {
			role = p.Do(ctx, "ROLE")
		}
		before = p.HMGet(ctx, r.head, "epoch", "seq", "count")
		length = p.XLen(ctx, r.log)
		if base := r.base(); base.proof != "" {
			id := strconv.FormatUint(base.seq, 10) + "-0"
			proof = p.XRange(ctx, r.log, id, id)
		}
		next = p.XRead(ctx, &redis.XReadArgs{Streams: []string{r.log, r.pos.last}, Count: page, Block: -1})
		after = p.HMGet(ctx, r.head, "epoch", "seq", "count")
		cmds, err := p.Exec(ctx)
		for _, c := range cmds {
			if c.Err() != nil && isReply(err) {
				return nil // See below.
			}
		}
		return err
	})
	if err != nil {
		return view{}, err
	}
	if role != nil {
		if err := r.checkRole(role); err != nil {
			return view{}, err
		}
	}
	if err := errors.Join(before.Err(), length.Err(), after.Err()); err != nil {
		return view{}, err
	}
	streams, err := next.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return view{}, err
	}
	v.news = messagesOf(streams)
	v.full = len(v.news) >= page
	if proof != nil {
		found, err := proof.Result()
		if err != nil {
			return view{}, err
		}
		for _, m := range found {
			v.proof, _ = m.Values["nonce"].(string)
		}
	}
	return v, v.readHead(before.Val(), after.Val(), length.Val())
}

// isReply reports whether an error is a reply of Redis, so that the connection works.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// readHead sets the fields that come from the head.
func (v *view) readHead(before, after []any, length int64) error {
	if len(before) != 3 || len(after) != 3 {
		return errOdd
	}
	v.steady = before[0] == after[0] && before[1] == after[1] && before[2] == after[2]
	epoch, _ := after[0].(string)
	seq, _ := after[1].(string)
	count, _ := after[2].(string)
	var faults [2]error
	var expected int64
	v.seq, faults[0] = strconv.ParseUint(seq, 10, 64)
	expected, faults[1] = strconv.ParseInt(count, 10, 64)
	switch {
	case epoch != "" && faults[0] == nil && faults[1] == nil:
		v.epoch, v.missing = epoch, max(0, expected-length)
	case length > 0:
		v.missing = unknownLoss
	}
	return nil
}

// checkRole returns an error if the server is a replica: it may lack the last rules
// without knowing it. A user who may not ask is trusted to know.
func (r *reader) checkRole(role *redis.Cmd) error {
	reply, err := role.Slice()
	if isReply(err) && (redis.IsPermissionError(err) || strings.Contains(err.Error(), "unknown command")) {
		r.noRole = true
		return nil
	}
	if err != nil {
		return err
	}
	if len(reply) > 0 && reply[0] == "slave" {
		return errReplica
	}
	return nil
}

var errReplica = errors.New("this server is a replica, which may lack the last rules: connect to the master")

// messagesOf returns the entries of a reply to XREAD for one log.
func messagesOf(streams []redis.XStream) []redis.XMessage {
	if len(streams) != 1 {
		return nil
	}
	return streams[0].Messages
}

// advance sets the reached position behind the entries.
func (r *reader) advance(entries []redis.XMessage) {
	for _, m := range entries {
		r.pos.last = m.ID
		if seq, nonce, ok := mark(m.ID, m.Values); ok {
			r.pos.seq, r.pos.proof = seq, nonce
		}
	}
}

// base returns the position at which the log must have the rule that was read there.
func (r *reader) base() position {
	if r.checked.proof == "" {
		return r.pos // The log was empty.
	}
	return r.checked
}

// continues reports whether the log is the one that was read before: it has the same
// epoch and the rule at the base, and has lost nothing since. If not, it counts the
// loss, and the log must be read from its beginning.
func (r *reader) continues(v view) bool {
	if !r.asked {
		r.checked.epoch, r.asked = v.epoch, true
	}
	base, was := r.base(), r.checked
	kept := v.proof == base.proof
	if base.proof == "" { // It follows from a rule that it has not read.
		kept = v.seq >= base.seq || v.missing == unknownLoss
	}
	same := kept && (v.epoch == was.epoch || was.epoch == "") // a log without a head gets one
	lost := !kept || v.epoch != was.epoch && was.epoch != ""
	if v.steady {
		same = same && v.missing <= was.missing
		lost = r.note(v.epoch, v.missing) || lost
	}
	if lost {
		r.lose()
	}
	r.pos.epoch = v.epoch
	if v.steady {
		r.pos.missing = v.missing
	}
	return same
}

// loss is how many entries a log has lost.
type loss struct {
	epoch   string
	missing int64
}

// note notes how many entries the log has lost, and reports whether that is news.
func (s *store) note(epoch string, missing int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
	if s.noted.epoch != epoch {
		s.noted = loss{epoch: epoch}
	}
	news := missing > s.noted.missing
	s.noted.missing = missing
	return news
}

// restart goes back to the beginning of the log.
func (r *reader) restart(v view) {
	r.pos = position{epoch: v.epoch, last: "0"}
	if v.steady {
		r.pos.missing = v.missing
	}
	r.checked = r.pos
}
