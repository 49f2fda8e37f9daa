package koreredis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

// Revocations returns a store of revocation rules in Redis. All processes that use
// the same server, database and name share the rules. The store also implements
// [revocation.Fleet]. Revocations itself sends nothing.
//
// The client must send its commands to a master. Follow and Refill open connections
// of their own, with the options of the client; hooks of the client do not see them.
//
// Revocations panics if client is nil or name is empty.
func Revocations(client redis.UniversalClient, name string) revocation.Store {
	if client == nil {
		panic("koreredis: Revocations needs a client")
	}
	if name == "" {
		panic("koreredis: Revocations needs a name, by which replicas share their rules")
	}
	prefix := "{koreauth:" + name + "}:" // keys with equal braces are on one node of a cluster
	return &store{
		client: client, log: prefix + "log", head: prefix + "head", lease: prefix + "lease",
		replicas: prefix + "replicas", applied: prefix + "applied",
	}
}

// store is the store of Revocations.
//
// The log is a stream with an entry for each rule. The id of an entry begins with
// the number of the rule. The head is a hash that is written together with the log:
// it has the epoch, which names this history of the log, the last number and time,
// and how many entries the log must have.
type store struct {
	client                              redis.UniversalClient
	log, head, lease, replicas, applied string // keys

	mu     sync.Mutex
	epoch  string  // the last one seen
	ends   []ended // of Follow, the newest last
	losses int     // how often the store was found to have lost rules
	healed int     // losses at the start of the last Refill that returned nil
	noted  loss    // the last one that was counted
}

// Append implements [revocation.Store].
func (s *store) Append(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
	if ctx.Err() != nil {
		return revocation.Receipt{}, ctx.Err()
	}
	now := time.Now()
	if _, err := r.Complete(now); err != nil {
		return revocation.Receipt{}, err
	}
	rule, err := newRule(r)
	if err != nil {
		return revocation.Receipt{}, err
	}
	var reply []any
	err = wait(ctx, func() (err error) {
		reply, err = s.append(ctx, s.client, call{now: now}, rule)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return revocation.Receipt{}, fmt.Errorf("koreredis: Redis has not answered, so the rule may be revoked or not; append it again: %w", ctx.Err())
	}
	if err != nil {
		return revocation.Receipt{}, s.explain(ctx, "append a rule", err)
	}
	if reply[0] == "late" {
		return revocation.Receipt{}, errors.New("koreredis: Rule.Until is in the past by the clock of Redis: set a later Until, or correct the clock")
	}
	id, _ := reply[1].(string)
	fields, _ := reply[2].([]any)
	receipt, ok := readEntry(id, fieldsOf(fields))
	if !ok {
		return revocation.Receipt{}, s.explain(ctx, "append a rule", errOdd)
	}
	return receipt, nil
}

// errOdd is the error for a reply that no Redis gives.
var errOdd = errors.New("the reply is not one of Redis: check the address of the client")

// Lost reports whether the store has lost rules, or began anew, since Refill last
// returned nil.
func (s *store) Lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.losses > s.healed
}

// lose notes that the store has lost rules.
func (s *store) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.losses++
}

// random returns a text that was never used before.
func random() string { return rand.Text()[:16] }

// wait calls f, and returns when f has returned or ctx is done. A client waits for
// the network without looking at its context, unless it was told to.
func wait(ctx context.Context, f func() error) error {
	if ctx.Done() == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
