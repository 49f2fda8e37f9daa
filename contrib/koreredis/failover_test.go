package koreredis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startPair starts a master and a replica that has the same data.
func startPair(t *testing.T) (master, second *server) {
	master, second = startRedis(t), startRedis(t)
	second.do("REPLICAOF", "127.0.0.1", master.port)
	eventually(t, 10*time.Second, "replicated", func() bool {
		return strings.Contains(second.do("INFO", "replication").(string), "master_link_status:up")
	})
	return master, second
}

// The replica that is promoted lacks the last five rules. Then others may be appended
// to it, so that their numbers are those of the lost ones.
func TestRevocations_FailoverThatLosesTheLastRules(t *testing.T) {
	for _, row := range []struct {
		name   string
		before int // rules appended to the new master before any list connects
	}{
		{"nothing is appended", 0},
		{"fewer rules are appended than were lost", 3},
		{"as many rules are appended as were lost", 5},
		{"more rules are appended than were lost", 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			master, second := startPair(t)
			p := startProxy(t, master.addr())
			replicas := startReplicas(t, 3, func() redis.UniversalClient { return clientOf(t, p.addr()) })
			writer := koreredis.Revocations(clientOf(t, p.addr()), name)
			receipts := revoke(t, writer, names(1, 10)...)
			eventually(t, 5*time.Second, "replicated", func() bool { return second.do("XLEN", stream).(int64) == 10 })
			second.do("REPLICAOF", "NO", "ONE") // as if it had been cut off
			receipts = append(receipts, revoke(t, writer, names(11, 15)...)...)
			converge(t, within, replicas, names(1, 15)...)

			p.point("")
			p.cut()
			master.kill()
			other := koreredis.Revocations(second.client(), name)
			revoke(t, other, names(101, 100+row.before)...)
			p.point(second.addr())
			all := append(names(1, 15), names(101, 100+row.before)...)
			eventually(t, 8*time.Second, "connected", func() bool { return current(replicas) })
			converge(t, within, replicas, all...)
			staysOnce(t, second, all...)
			at := make(map[string]time.Time)
			for _, r := range read(t, other) {
				at[r.Rule.Token+r.Rule.Hash] = r.At
			}
			for _, r := range receipts[:10] {
				assert.Equal(t, r.At, at[r.Rule.Token])
			}
			for _, r := range receipts[10:] {
				assert.Equal(t, r.At, at[r.Rule.Hashed().Hash], "At is kept")
			}
			revoke(t, writer, "last")
			converge(t, within, replicas, "last")
		})
	}
}

// The address of the client stays, and the server behind it becomes a replica.
func TestRevocations_MasterThatBecomesAReplica(t *testing.T) {
	master, second := startPair(t)
	replicas := startReplicas(t, 2, func() redis.UniversalClient { return master.client() })
	writer := koreredis.Revocations(master.client(), name)
	revoke(t, writer, "t1")
	converge(t, within, replicas, "t1")
	second.do("REPLICAOF", "NO", "ONE")
	master.do("REPLICAOF", "127.0.0.1", second.port)
	eventually(t, within, "it is not trusted", func() bool {
		err := replicas[0].list.Status().Err
		return err != nil && strings.Contains(err.Error(), "connect to the master")
	})
	_, err := writer.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t2"})
	require.ErrorContains(t, err, "replica that cannot be written")
	master.do("REPLICAOF", "NO", "ONE")
	eventually(t, 8*time.Second, "connected", func() bool { return current(replicas) })
	revoke(t, writer, "t3")
	converge(t, within, replicas, "t1", "t3")
}

func TestRevocations_Sentinel(t *testing.T) {
	master, _ := startPair(t)
	sentinel := startSentinel(t, master)
	client := func() redis.UniversalClient {
		c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: []string{sentinel.addr()}})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	eventually(t, 15*time.Second, "the Sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.do("INFO", "sentinel").(string), "slaves=1")
	})
	replicas := startReplicas(t, 3, client)
	writer := koreredis.Revocations(client(), name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, replicas, names(1, 5)...)
	master.kill()
	eventually(t, 30*time.Second, "the replica is promoted, and can be written", func() bool {
		_, err := writer.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t6"})
		return err == nil
	})
	converge(t, 8*time.Second, replicas, names(1, 6)...)
}

func TestRevocations_Cluster(t *testing.T) {
	s := startRedis(t, "--cluster-enabled", "yes")
	s.do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	eventually(t, 10*time.Second, "the cluster is ready", func() bool {
		return strings.Contains(s.do("CLUSTER", "INFO").(string), "cluster_state:ok")
	})
	client := func() redis.UniversalClient {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.addr()}})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	replicas := startReplicas(t, 3, client)
	writer := koreredis.Revocations(client(), name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, replicas, names(1, 5)...)
	s.do("FLUSHALL")
	staysOnce(t, s, names(1, 5)...)
	fleetReports(t, writer)

	for _, o := range []redis.ClusterOptions{{ReadOnly: true}, {RouteByLatency: true}, {RouteRandomly: true}} {
		o.Addrs = []string{s.addr()}
		c := redis.NewClusterClient(&o)
		err := koreredis.Revocations(c, name).Follow(t.Context(), 0, nil, nil)
		assert.ErrorContains(t, err, "reads from replicas")
		require.NoError(t, c.Close())
	}
}

func TestRevocations_Ring(t *testing.T) {
	a, b := startRedis(t), startRedis(t)
	client := func() redis.UniversalClient {
		c := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": a.addr(), "b": b.addr()}})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	replicas := startReplicas(t, 3, client)
	writer := koreredis.Revocations(client(), name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, replicas, names(1, 5)...)
	fleetReports(t, writer)
}

// wrapped is a client of a type that this package does not know.
type wrapped struct{ redis.UniversalClient }

func TestRevocations_ClientOfAnUnknownType(t *testing.T) {
	s := startRedis(t)
	p := startProxy(t, s.addr())
	replicas := startReplicas(t, 3, func() redis.UniversalClient { return wrapped{clientOf(t, p.addr())} })
	writer := koreredis.Revocations(wrapped{s.client()}, name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, replicas, names(1, 5)...)
	p.halfOpen()
	revoke(t, writer, "t6")
	// Several connections of the pool are half-open.
	t.Log("half-open connections replaced after", converge(t, 8*time.Second, replicas, names(1, 6)...))
	s.do("FLUSHALL")
	staysOnce(t, s, names(1, 6)...)
}

// fleetReports waits until replicas have reported that they have all rules.
func fleetReports(t *testing.T, s revocation.Store) {
	t.Helper()
	eventually(t, 12*time.Second, "replicas have reported", func() bool {
		known, current, err := s.(revocation.Fleet).Replicas(t.Context())
		return err == nil && known > 0 && known == current
	})
}
