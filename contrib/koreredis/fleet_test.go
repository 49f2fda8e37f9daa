package koreredis_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var began = time.Now().Add(-time.Hour).UTC()

// old returns receipts of rules for tokens that were appended to another store.
func old(t testing.TB, from, to int) (receipts []revocation.Receipt) {
	t.Helper()
	for i := from; i <= to; i++ {
		at := began.Add(time.Duration(i) * time.Microsecond)
		r, err := revocation.Rule{Issuer: issuer, Token: fmt.Sprintf("t%d", i)}.Complete(at)
		require.NoError(t, err)
		receipts = append(receipts, revocation.Receipt{Seq: uint64(i), At: at, Rule: r.Hashed()})
	}
	return receipts
}

// Each of ten stores asks at once, with rules that overlap.
func TestRevocations_RefillAtOnce(t *testing.T) {
	s := startRedis(t)
	var all sync.WaitGroup
	for i := range 10 {
		fleet := koreredis.Revocations(s.client(), name).(revocation.Fleet)
		receipts := old(t, 1+i*500, 3000+i*500)
		all.Go(func() { assert.NoError(t, fleet.Refill(t.Context(), receipts)) })
	}
	all.Wait()
	assert.Empty(t, notOnce(t, s, names(1, 7500)...))
}

// The process that holds the lease dies. Another takes over.
func TestRevocations_RefillAfterTheHolderDied(t *testing.T) {
	s := startRedis(t)
	s.do("SET", "{koreauth:test}:lease", "of another", "PX", "1000")
	asked := time.Now()
	require.NoError(t, koreredis.Revocations(s.client(), name).(revocation.Fleet).Refill(t.Context(), old(t, 1, 10)))
	assert.Less(t, time.Since(asked), 2*time.Second)
	assert.Empty(t, notOnce(t, s, names(1, 10)...))
	assert.EqualValues(t, 0, s.do("EXISTS", "{koreauth:test}:lease"), "the lease is given back")

	s.do("SET", "{koreauth:test}:lease", "without an end")
	require.NoError(t, koreredis.Revocations(s.client(), name).(revocation.Fleet).Refill(t.Context(), old(t, 11, 12)))
	assert.Empty(t, notOnce(t, s, names(1, 12)...))
}

// The lease is renewed with each call, and nothing is written without it.
func TestRevocations_RefillKeepsItsLease(t *testing.T) {
	const lease = "{koreauth:test}:lease"
	s := startRedis(t)
	done := make(chan error)
	fleet := koreredis.Revocations(s.client(), name).(revocation.Fleet)
	receipts := old(t, 1, 40_000)
	go func() { done <- fleet.Refill(t.Context(), receipts) }()
	length := func() int64 { return s.do("XLEN", stream).(int64) }
	eventually(t, 2*within, "it has begun", func() bool { return length() > 0 })
	s.do("PEXPIRE", lease, "300")
	eventually(t, within, "it is renewed", func() bool { return s.do("PTTL", lease).(int64) > 500 })
	s.do("SET", lease, "of another", "PX", "500")
	stopped := length()
	require.Less(t, stopped, int64(40_000))
	eventually(t, within, "the lease of another ends", func() bool {
		now := length()
		if s.do("GET", lease) != "of another" {
			return true
		}
		require.Equal(t, stopped, now, "nothing is written")
		return false
	})
	require.NoError(t, <-done)
	assert.Empty(t, notOnce(t, s, names(1, 40_000)...))
}

// The connection breaks again and again during a refill. Nothing is appended twice.
func TestRevocations_RefillThatIsInterrupted(t *testing.T) {
	s := startRedis(t)
	client := s.client()
	receipts := old(t, 1, 20_000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if koreredis.Revocations(client, name).(revocation.Fleet).Refill(t.Context(), receipts) == nil {
				return
			}
		}
	}()
	tick := time.NewTicker(60 * time.Millisecond)
	defer tick.Stop()
	for range 8 {
		<-tick.C
		s.do("CLIENT", "KILL", "TYPE", "normal")
	}
	<-done
	assert.Empty(t, notOnce(t, s, names(1, 20_000)...))
}

func TestRevocations_RefillNamesWhatItLeavesOut(t *testing.T) {
	s := startRedis(t)
	fleet := koreredis.Revocations(s.client(), name).(revocation.Fleet)
	receipts := old(t, 1, 3)
	receipts[1].At = time.Time{}
	require.ErrorContains(t, fleet.Refill(t.Context(), receipts), "receipt 2 of 3")
	receipts[1] = revocation.Receipt{At: time.Now()}
	require.ErrorContains(t, fleet.Refill(t.Context(), receipts), "receipt 2 of 3")
	assert.Empty(t, notOnce(t, s, "t1", "t3"))
}

// A refilled rule may be dated ahead of the server. Later rules come after it, and
// their moments are those of the server.
func TestRevocations_ClockThatWasSetBack(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	ahead := old(t, 1, 1)[0]
	ahead.At = time.Now().Add(2 * time.Hour).UTC()
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{ahead}))
	for range 2 {
		receipt, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Client: "c"})
		require.NoError(t, err)
		assert.True(t, receipt.At.After(ahead.At), "At grows")
		assert.WithinDuration(t, time.Now(), receipt.Rule.IssuedBefore, time.Minute)
		receipts := read(t, store)
		assert.Equal(t, receipt, receipts[len(receipts)-1])
		assert.Equal(t, ahead.At, receipts[0].At)
		ahead.At = receipts[0].At
	}
}

func TestRevocations_CountsReplicas(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	fleet := store.(revocation.Fleet)
	count := func() [2]int {
		known, current, err := fleet.Replicas(t.Context())
		require.NoError(t, err)
		return [2]int{known, current}
	}
	assert.Equal(t, [2]int{0, 0}, count())
	revoke(t, store, names(1, 3)...)
	for i, replica := range []string{"a", "b", "c"} {
		require.NoError(t, fleet.Report(t.Context(), replica, uint64(i+1)))
	}
	assert.Equal(t, [2]int{3, 1}, count())
	require.NoError(t, fleet.Report(t.Context(), "a", 3))
	assert.Equal(t, [2]int{3, 2}, count())
	revoke(t, store, "t4")
	assert.Equal(t, [2]int{3, 0}, count())
	require.NoError(t, fleet.Report(t.Context(), "a", 4))

	// As if b had reported 29 seconds ago, and c 31.
	now := time.Now().UnixMilli()
	s.do("ZADD", "{koreauth:test}:replicas", now-29_000, "b", now-31_000, "c")
	assert.Equal(t, [2]int{2, 1}, count())
	require.NoError(t, fleet.Report(t.Context(), "a", 4))
	assert.EqualValues(t, 2, s.do("HLEN", "{koreauth:test}:applied"), "c is deleted")
	assert.Positive(t, s.do("PTTL", "{koreauth:test}:applied"))

	// A replica that has read another log has not applied this one.
	read(t, store)
	require.NoError(t, fleet.Report(t.Context(), "d", 4))
	s.do("DEL", stream, head)
	revoke(t, store, "t1")
	require.NoError(t, fleet.Report(t.Context(), "d", 4))
	known, current := count()[0], count()[1]
	assert.Equal(t, 3, known)
	assert.Equal(t, 2, current, "a and b do not say which log they have read")
}

// Rules that have ended leave the log, also from behind one that is in force.
func TestRevocations_EndedRulesAreDeleted(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	past := time.Now().Add(-time.Hour)
	ended := func(i int, ago time.Duration) revocation.Rule {
		return revocation.Rule{Issuer: issuer, Token: fmt.Sprint("ended", i), Until: time.Now().Add(-ago)}
	}
	add := func(r revocation.Rule) {
		t.Helper()
		_, err := store.Append(t.Context(), r)
		require.NoError(t, err)
	}
	add(revocation.Rule{Issuer: issuer, Client: "in force"})
	add(revocation.Rule{Issuer: issuer, Client: "lifted", IssuedBefore: past, Until: past, Lift: true})
	for i := range 3000 {
		add(ended(i, 10*time.Minute))
		if i%1000 == 0 {
			add(ended(10_000+i, 4*time.Minute)) // may still matter to a clock that is late
		}
	}
	s.do("XADD", stream, "*", "not", "ours")
	for i := range 500 {
		add(ended(5000+i, 10*time.Minute))
	}
	length := s.do("XLEN", stream).(int64)
	assert.Less(t, length, int64(250))
	kept := make(map[string]bool)
	for _, r := range read(t, store) {
		kept[r.Rule.Token+r.Rule.Client] = true
	}
	for _, want := range []string{"in force", "lifted", "ended10000", "ended11000", "ended12000", "ended5499", ""} {
		assert.True(t, kept[want], "%q is kept", want)
	}
	assert.False(t, lost(store), "nothing was lost")
}

// A follower is far behind when rules that it has seen are deleted because they ended.
func TestRevocations_EndedRulesDisturbNoFollower(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 2, func() redis.UniversalClient { return s.client() })
	store := koreredis.Revocations(s.client(), name)
	for i := range 1000 {
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: fmt.Sprint("ended", i), Until: time.Now().Add(-10 * time.Minute)})
		require.NoError(t, err)
	}
	revoke(t, store, "t1")
	converge(t, within, replicas, "t1")
	assert.Less(t, s.do("XLEN", stream).(int64), int64(250))
	for _, r := range replicas {
		assert.False(t, lost(r.store))
		assert.NotContains(t, r.warnings(), "may have lost")
	}
}

// What lists give back after each loss does not grow, and decides as before.
func TestRevocations_RulesOfAllKindsComeBack(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 3, func() redis.UniversalClient { return s.client() })
	store := koreredis.Revocations(s.client(), name)
	now := time.Now()
	for _, r := range []revocation.Rule{
		{Issuer: issuer, Client: "twice", IssuedBefore: now.Add(-time.Hour), Until: now.Add(3 * time.Hour)},
		{Issuer: issuer, Client: "twice", IssuedBefore: now.Add(-2 * time.Hour), Until: now.Add(5 * time.Hour)},
		{Issuer: issuer, Account: "lifted", IssuedBefore: now.Add(time.Hour)},
		{Issuer: issuer, Account: "lifted", Lift: true},
		{Issuer: issuer, Subject: "again", IssuedBefore: now.Add(time.Hour)},
		{Issuer: issuer, Subject: "again", Lift: true},
		{Issuer: issuer, Subject: "again", IssuedBefore: now.Add(-time.Hour)},
		{Issuer: issuer, Token: "token", Reason: "leaked", By: "me"},
		{Issuer: issuer, Token: "lifted token"},
		{Issuer: issuer, Token: "lifted token", Lift: true},
		{Issuer: "https://other.example.com", Everything: true},
	} {
		_, err := store.Append(t.Context(), r)
		require.NoError(t, err)
	}
	type row struct {
		claims  koreauth.Claims
		revoked bool
	}
	rows := []row{
		{koreauth.Claims{Issuer: issuer, ID: "1", ClientID: "twice", IssuedAt: now.Add(-90 * time.Minute)}, true},
		{koreauth.Claims{Issuer: issuer, ID: "2", ClientID: "twice", IssuedAt: now.Add(-30 * time.Minute)}, false},
		{koreauth.Claims{Issuer: issuer, ID: "3", AccountID: "lifted", IssuedAt: now}, false},
		{koreauth.Claims{Issuer: issuer, ID: "4", Subject: "again", IssuedAt: now}, false},
		{koreauth.Claims{Issuer: issuer, ID: "5", Subject: "again", IssuedAt: now.Add(-2 * time.Hour)}, true},
		{koreauth.Claims{Issuer: issuer, ID: "token", IssuedAt: now}, true},
		{koreauth.Claims{Issuer: issuer, ID: "lifted token", IssuedAt: now}, false},
		{koreauth.Claims{Issuer: "https://other.example.com", ID: "6", IssuedAt: now.Add(-time.Minute)}, true},
	}
	decides := func(r *replica) bool {
		for _, row := range rows {
			if errors.Is(r.list.Check(nil, &row.claims), koreauth.ErrRevoked) != row.revoked {
				return false
			}
		}
		return true
	}
	var counts []int
	for range 4 {
		for _, r := range append(replicas, startReplicas(t, 1, func() redis.UniversalClient { return s.client() })...) {
			eventually(t, within, "the list decides as before", func() bool { return decides(r) })
		}
		counts = append(counts, len(read(t, store)))
		s.do("FLUSHALL")
		eventually(t, 2*within, "refilled", func() bool { return len(read(t, store)) >= 6 && current(replicas) })
		eventually(t, 2*within, "settled", func() bool { return !lost(replicas[0].store) && !lost(replicas[1].store) && !lost(replicas[2].store) })
	}
	t.Log("rules in the store after each loss:", counts)
	assert.Equal(t, counts[1], counts[2])
	assert.Equal(t, counts[2], counts[3])
	for hash, n := range stored(t, s) {
		assert.LessOrEqual(t, n, 2, hash)
	}
}
