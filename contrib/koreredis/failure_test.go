package koreredis_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// within is how long replicas may take until they agree, once they can connect. Two
// seconds are promised; the rest is for a busy machine.
const within = 5 * time.Second

// current reports whether no list has an error.
func current(replicas []*replica) bool {
	for _, r := range replicas {
		if r.list.Status().Err != nil {
			return false
		}
	}
	return true
}

// staysOnce fails unless the store has each rule once soon, and keeps it so.
func staysOnce(t *testing.T, s *server, ids ...string) {
	t.Helper()
	eventually(t, 2*within, "the store has all rules", func() bool { return len(stored(t, s)) == len(ids) })
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 10 {
		require.Empty(t, notOnce(t, s, ids...))
		<-tick.C
	}
}

func TestRevocations_RestartWithAOFLosesNothing(t *testing.T) {
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	replicas := startReplicas(t, 5, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 20)...)
	converge(t, within, replicas, names(1, 20)...)
	for _, end := range []func(){s.kill, s.stop} {
		end()
		eventually(t, 5*time.Second, "the outage is seen", func() bool { return replicas[0].list.Status().Err != nil })
		s.start()
		eventually(t, within, "current again", func() bool { return current(replicas) })
	}
	revoke(t, writer, "t21")
	converge(t, within, replicas, names(1, 21)...)
	assert.Empty(t, notOnce(t, s, names(1, 21)...))
	assert.NotContains(t, replicas[0].log.String(), "may have lost", "nothing was lost")
}

func TestRevocations_EmptyAfterACrashIsRefilled(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 5, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	before := revoke(t, writer, names(1, 20)...)
	converge(t, within, replicas, names(1, 20)...)
	s.kill()
	eventually(t, 5*time.Second, "the outage is seen", func() bool { return replicas[0].list.Status().Err != nil })
	s.start()
	staysOnce(t, s, names(1, 20)...)
	for i, r := range read(t, writer) {
		assert.Equal(t, before[i].At, r.At, "At is kept")
	}
	converge(t, within, startReplicas(t, 1, func() redis.UniversalClient { return s.client() }), names(1, 20)...)
}

// The new history has as many rules as the old one, or more, before a replica connects.
func TestRevocations_NumbersThatStartAgain(t *testing.T) {
	for _, row := range []struct {
		name string
		new  int
	}{{"fewer rules than before", 3}, {"as many rules as before", 10}, {"more rules than before", 15}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			p := startProxy(t, s.addr())
			replicas := startReplicas(t, 3, func() redis.UniversalClient { return clientOf(t, p.addr()) })
			writer := koreredis.Revocations(s.client(), name)
			revoke(t, writer, names(1, 10)...)
			converge(t, within, replicas, names(1, 10)...)
			p.point("")
			p.cut()
			s.kill()
			s.start()
			receipts := revoke(t, writer, names(101, 100+row.new)...)
			require.Equal(t, uint64(1), receipts[0].Seq, "the numbers start again")
			p.point(s.addr())
			all := append(names(1, 10), names(101, 100+row.new)...)
			eventually(t, 8*time.Second, "connected", func() bool { return current(replicas) })
			converge(t, within, replicas, all...)
			staysOnce(t, s, all...)
		})
	}
}

func TestRevocations_FlushedUnderFollowers(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 5, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 10)...)
	converge(t, within, replicas, names(1, 10)...)
	s.do("FLUSHALL")
	revoke(t, writer, names(11, 25)...)
	converge(t, within, replicas, names(1, 25)...)
	staysOnce(t, s, names(1, 25)...)
}

// Each replica was the only one that saw a rule before it was lost.
func TestRevocations_ReplicasThatKnowDifferentRules(t *testing.T) {
	s := startRedis(t)
	var proxies []*proxy
	replicas := startReplicas(t, 5, func() redis.UniversalClient {
		proxies = append(proxies, startProxy(t, s.addr()))
		return clientOf(t, proxies[len(proxies)-1].addr())
	})
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, replicas, names(1, 5)...)
	for i, p := range proxies { // Replica i has seen the rules up to 6+i.
		revoke(t, writer, names(6+i, 6+i)...)
		converge(t, within, replicas[i:], names(6+i, 6+i)...)
		p.point("")
		p.cut()
	}
	s.kill()
	s.start()
	for _, p := range proxies {
		p.point(s.addr())
	}
	eventually(t, 8*time.Second, "connected", func() bool { return current(replicas) })
	converge(t, within, replicas, names(1, 10)...)
	staysOnce(t, s, names(1, 10)...)
}

func TestRevocations_TrimmedLog(t *testing.T) {
	for _, row := range []struct {
		name string
		away bool
		trim func(s *server)
	}{
		{"the head is trimmed", false, func(s *server) { s.do("XTRIM", stream, "MAXLEN", "10") }},
		{"the head is trimmed while replicas are away", true, func(s *server) { s.do("XTRIM", stream, "MAXLEN", "10") }},
		{"everything is trimmed", false, func(s *server) { s.do("XTRIM", stream, "MAXLEN", "0") }},
		{"a rule in the middle is deleted", false, func(s *server) { s.do("XDEL", stream, "50-0") }},
		{"a rule in the middle is deleted while replicas are away", true, func(s *server) { s.do("XDEL", stream, "50-0") }},
		{"the last rule is deleted", false, func(s *server) { s.do("XDEL", stream, "100-0") }},
		{"the log is deleted", false, func(s *server) { s.do("DEL", stream) }},
		{"the head of the log is deleted", false, func(s *server) { s.do("DEL", head) }},
		{"the head of the log is deleted while replicas are away", true, func(s *server) { s.do("DEL", head) }},
		{"the head of the log has no epoch", false, func(s *server) { s.do("HDEL", head, "epoch") }},
		{"the head of the log has no count", false, func(s *server) { s.do("HDEL", head, "count") }},
		{"the head of the log has garbage", false, func(s *server) { s.do("HSET", head, "seq", "x", "at", "y", "count", "z", "sweep", "-5") }},
		{"the head of the log is older", false, func(s *server) { s.do("HSET", head, "seq", "3", "at", "3") }},
		{"all is deleted", false, func(s *server) { s.do("DEL", head, stream) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			p := startProxy(t, s.addr())
			replicas := startReplicas(t, 3, func() redis.UniversalClient { return clientOf(t, p.addr()) })
			writer := koreredis.Revocations(s.client(), name)
			revoke(t, writer, names(1, 100)...)
			converge(t, within, replicas, names(1, 100)...)
			if row.away {
				p.point("")
				p.cut()
				revoke(t, writer, names(101, 105)...)
			}
			row.trim(s)
			if row.away {
				p.point(s.addr())
				eventually(t, 8*time.Second, "connected", func() bool { return current(replicas) })
			}
			revoke(t, writer, "t106")
			converge(t, within, replicas, append(names(1, 100), "t106")...)
			// While all were away, nobody has seen the rules that were deleted.
			eventually(t, within+time.Second, "the store has the rules again", func() bool { return len(stored(t, s)) >= 101 })
			for hash, n := range stored(t, s) {
				assert.Equal(t, 1, n, hash)
			}
			assert.Eventually(t, func() bool { return !lost(replicas[0].store) }, within, 10*time.Millisecond, "the loss is settled")
		})
	}
}

// A new process, which has seen nothing, finds that the log has lost rules.
func TestRevocations_TrimmedLogIsNoticedByANewProcess(t *testing.T) {
	s := startRedis(t)
	revoke(t, koreredis.Revocations(s.client(), name), names(1, 5)...)
	s.do("XTRIM", stream, "MAXLEN", "2")
	store := koreredis.Revocations(s.client(), name)
	require.Len(t, read(t, store), 2)
	assert.True(t, lost(store))
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), nil))
	assert.False(t, lost(store))
	other := koreredis.Revocations(s.client(), name)
	require.Len(t, read(t, other), 2)
	assert.False(t, lost(other), "it was settled")
}

func lost(s revocation.Store) bool { return s.(interface{ Lost() bool }).Lost() }

// watch follows a store in the background, and counts what it gives.
func watch(t *testing.T, s revocation.Store) (given, current *atomic.Int64) {
	given, current = new(atomic.Int64), new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- s.Follow(ctx, 0, func(revocation.Receipt) { given.Add(1) }, func(time.Time) { current.Add(1) })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	eventually(t, within, "current", func() bool { return current.Load() > 0 })
	return given, current
}

// Follow gives everything again if rules were lost, each time.
func TestRevocations_GivesEverythingAgain(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	revoke(t, store, names(1, 10)...)
	given, _ := watch(t, store)
	require.EqualValues(t, 10, given.Load())
	s.do("XDEL", stream, "5-0")
	eventually(t, within, "given again", func() bool { return given.Load() == 10+9 })
	s.do("DEL", head)
	eventually(t, within, "given again", func() bool { return given.Load() == 10+9+9 })
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), nil))
	revoke(t, store, "t11") // a log without a head gets one, and nothing else changes
	eventually(t, within, "followed", func() bool { return given.Load() == 10+9+9+1 })
	s.do("XDEL", stream, "6-0")
	eventually(t, within, "given again", func() bool { return given.Load() == 10+9+9+1+9 })
}

// The loss is settled by a process that knows nothing before a follower has looked.
// Nevertheless the follower must notice it, since it alone may know what was lost.
func TestRevocations_LossThatWasSettledByAnother(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	revoke(t, store, names(1, 10)...)
	_, current := watch(t, store)
	n := current.Load()
	eventually(t, within, "it has looked", func() bool { return current.Load() > n })
	s.do("XTRIM", stream, "MAXLEN", "5")
	require.NoError(t, koreredis.Revocations(s.client(), name).(revocation.Fleet).Refill(t.Context(), nil))
	eventually(t, within, "the loss is noticed", func() bool { return lost(store) })
}

// An older copy of the log is restored under a follower, and has got other rules since.
func TestRevocations_LogThatIsReplaced(t *testing.T) {
	s, other := startPair(t)
	replicas := startReplicas(t, 2, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 10)...)
	converge(t, within, replicas, names(1, 10)...)
	eventually(t, within, "replicated", func() bool { return other.do("XLEN", stream).(int64) == 10 })
	other.do("REPLICAOF", "NO", "ONE")
	revoke(t, writer, names(11, 15)...)
	converge(t, within, replicas, names(1, 15)...)
	revoke(t, koreredis.Revocations(other.client(), name), names(21, 30)...)
	log, first := other.do("DUMP", stream), other.do("DUMP", head)
	_, err := s.client().TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.RestoreReplace(t.Context(), stream, 0, log.(string))
		p.RestoreReplace(t.Context(), head, 0, first.(string))
		return nil
	})
	require.NoError(t, err)
	all := append(names(1, 15), names(21, 30)...)
	converge(t, within, replicas, all...)
	staysOnce(t, s, all...)
}

func TestRevocations_HalfOpenConnection(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*redis.Options)
	}{
		{"with a default client", func(*redis.Options) {}},
		{"with ContextTimeoutEnabled", func(o *redis.Options) { o.ContextTimeoutEnabled = true }},
		{"without ReadTimeout", func(o *redis.Options) {
			o.ReadTimeout, o.WriteTimeout = -1, -1
			// With them, Close waits for a connection that is being opened.
			o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		}},
		{"with RESP2", func(o *redis.Options) { o.Protocol = 2 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t)
			p := startProxy(t, s.addr())
			replicas := startReplicas(t, 3, func() redis.UniversalClient { return clientOf(t, p.addr(), row.change) })
			writer := koreredis.Revocations(s.client(), name)
			revoke(t, writer, "t1")
			converge(t, within, replicas, "t1")
			p.halfOpen()
			revoke(t, writer, "t2")
			t.Log("noticed after", converge(t, within, replicas, "t1", "t2"))
		})
	}
}

func TestRevocations_InterruptedConnections(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 5, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	sleeping := make(chan error, 1)
	for i, interrupt := range []func(){
		func() { s.do("CLIENT", "KILL", "TYPE", "normal") },
		func() { s.do("CLIENT", "PAUSE", "2500", "ALL") },
		func() { s.do("CLIENT", "PAUSE", "2500", "WRITE") },
		func() { s.do("SCRIPT", "FLUSH") },
		func() {
			c := s.client()
			go func() { sleeping <- c.Do(context.Background(), "DEBUG", "SLEEP", "2.5").Err() }()
		},
	} {
		interrupt()
		revoke(t, writer, names(i, i)...)
		converge(t, within, replicas, names(0, i)...)
	}
	require.NoError(t, <-sleeping)
	eventually(t, within, "current", func() bool { return current(replicas) })
	assert.Empty(t, notOnce(t, s, names(0, 4)...))
}

func TestRevocations_Evicted(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 3, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 50)...)
	converge(t, within, replicas, names(1, 50)...)
	s.do("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
	s.do("CONFIG", "SET", "maxmemory", "3mb")
	c := s.client()
	junk := strings.Repeat("x", 10_000)
	for _, key := range []string{stream, head} {
		eventually(t, 20*time.Second, "the key is evicted", func() bool {
			_ = c.Set(t.Context(), "junk:"+names(1, 1)[0]+time.Now().String(), junk, 0).Err()
			n, err := c.Exists(t.Context(), key).Result()
			return err == nil && n == 0
		})
	}
	s.do("CONFIG", "SET", "maxmemory", "0")
	// While keys are evicted, a rule may come back twice.
	eventually(t, within, "the store has all rules", func() bool { return len(stored(t, s)) == 50 })
	revoke(t, writer, "t51")
	converge(t, within, replicas, names(1, 51)...)
}

func TestRevocations_FullMemoryIsAnError(t *testing.T) {
	s := startRedis(t)
	replicas := startReplicas(t, 2, func() redis.UniversalClient { return s.client() })
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, "t1")
	s.do("CONFIG", "SET", "maxmemory", "1")
	_, err := writer.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t2"})
	require.ErrorContains(t, err, "raise it")
	assert.Len(t, read(t, writer), 1)
	s.do("CONFIG", "SET", "maxmemory", "0")
	revoke(t, writer, "t2")
	converge(t, within, replicas, "t1", "t2")
}
