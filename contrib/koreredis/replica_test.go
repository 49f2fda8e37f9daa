package koreredis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	name   = "test"
	issuer = "https://keycloak.example.com/realms/KORE-CIDP"
	stream = "{koreauth:test}:log"
	head   = "{koreauth:test}:head"
)

// replica is a process with a list, as an API has it.
type replica struct {
	t     testing.TB
	list  *revocation.List
	store revocation.Store
	log   *locked.Buffer
	known sync.Map     // ids of tokens that the list has rejected
	wrong atomic.Int64 // decisions that must not be made
	end   func()
}

// startReplica starts a replica. Until the end of the test it must reject what it has
// rejected once, and accept a valid token.
func startReplica(t testing.TB, client redis.UniversalClient) *replica {
	r := &replica{t: t, store: koreredis.Revocations(client, name), log: &locked.Buffer{}}
	r.list = &revocation.List{StartEmpty: true, Logger: slog.New(slog.NewTextHandler(r.log, nil))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = r.list.Follow(ctx, r.store); done <- struct{}{} }()
	go func() { r.judge(ctx); done <- struct{}{} }()
	r.end = sync.OnceFunc(func() {
		cancel()
		<-done
		<-done
		assert.Zero(t, r.wrong.Load(), "decisions that must not be made")
		if t.Failed() {
			t.Log(r.warnings())
		}
	})
	t.Cleanup(r.end)
	return r
}

// judge asks the list about tokens all the time.
func (r *replica) judge(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		if r.check("valid") != nil {
			r.wrong.Add(1)
		}
		r.known.Range(func(id, _ any) bool {
			if !errors.Is(r.check(id.(string)), koreauth.ErrRevoked) {
				r.wrong.Add(1)
			}
			return true
		})
	}
}

// warnings returns the log without the rules that were applied.
func (r *replica) warnings() string {
	lines := strings.SplitAfter(r.log.String(), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "rule applied") }), "")
}

func (r *replica) check(id string) error {
	return r.list.Check(nil, &koreauth.Claims{Issuer: issuer, ID: id, ClientID: "client of " + id, IssuedAt: time.Now().Add(-time.Minute)})
}

// rejects reports whether all tokens are rejected.
func (r *replica) rejects(ids ...string) bool {
	for _, id := range ids {
		if !errors.Is(r.check(id), koreauth.ErrRevoked) {
			return false
		}
	}
	for _, id := range ids {
		r.known.Store(id, true)
	}
	return true
}

// startReplicas starts replicas that are current.
func startReplicas(t testing.TB, n int, client func() redis.UniversalClient) []*replica {
	var all []*replica
	for range n {
		all = append(all, startReplica(t, client()))
	}
	for _, r := range all {
		require.Eventually(t, func() bool { return !r.list.Status().Current.IsZero() }, 5*time.Second, time.Millisecond)
	}
	return all
}

// converge waits until all replicas reject all tokens, and returns how long it took.
func converge(t testing.TB, within time.Duration, replicas []*replica, ids ...string) time.Duration {
	t.Helper()
	began := time.Now()
	for i, r := range replicas {
		left := max(within-time.Since(began), time.Millisecond)
		if !assert.Eventually(t, func() bool { return r.rejects(ids...) }, left, 2*time.Millisecond) {
			missing := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return r.rejects(id) })
			require.Fail(t, "not all replicas reject all tokens", "replica %d accepts %v; status %+v\n%s", i, missing, r.list.Status(), r.warnings())
		}
	}
	return time.Since(began)
}

// revoke appends rules for tokens.
func revoke(t testing.TB, s revocation.Store, ids ...string) (receipts []revocation.Receipt) {
	t.Helper()
	for _, id := range ids {
		r, err := s.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: id})
		require.NoError(t, err)
		receipts = append(receipts, r)
	}
	return receipts
}

// names returns "t1", "t2" and so on.
func names(from, to int) (ids []string) {
	for i := from; i <= to; i++ {
		ids = append(ids, fmt.Sprintf("t%d", i))
	}
	return ids
}

// stored returns how often the store has each rule, by the hash of what it selects.
func stored(t testing.TB, s *server) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for _, r := range read(t, koreredis.Revocations(s.client(), name)) {
		counts[r.Rule.Hashed().Hash]++
	}
	return counts
}

// notOnce describes a rule that the store does not have exactly once, or another one
// that it has. It is empty if there is none.
func notOnce(t testing.TB, s *server, ids ...string) string {
	t.Helper()
	has := stored(t, s)
	for _, id := range ids {
		hash := revocation.Rule{Issuer: issuer, Token: id}.Hashed().Hash
		if n := has[hash]; n != 1 {
			return fmt.Sprintf("the store has %s %d times", id, n)
		}
		delete(has, hash)
	}
	for hash := range has {
		return "the store also has " + hash
	}
	return ""
}

// read returns all receipts that a store has.
func read(t testing.TB, s revocation.Store) (receipts []revocation.Receipt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	complete := false
	err := s.Follow(ctx, 0, func(r revocation.Receipt) { receipts = append(receipts, r) }, func(time.Time) {
		complete = true
		cancel()
	})
	require.True(t, complete, "%v", err)
	return receipts
}

// eventually waits until the condition holds, and returns how long it took.
func eventually(t testing.TB, within time.Duration, what string, condition func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		require.Less(t, time.Since(began), within, what)
		<-tick.C
	}
	return time.Since(began)
}
