package koreredis_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// follow follows a store until it is current, and then until ctx is done.
func follow(t testing.TB, ctx context.Context, s revocation.Store) (ended <-chan error) {
	t.Helper()
	done, current := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		done <- s.Follow(ctx, 0, func(revocation.Receipt) {}, func(time.Time) {
			select {
			case current <- struct{}{}:
			default:
			}
		})
	}()
	select {
	case <-current:
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "Follow is not current")
	}
	return done
}

// connections returns how many clients the server has, and how many wait for rules.
func (s *server) connections() (all, blocked int) {
	list := s.do("CLIENT", "LIST").(string)
	return strings.Count(list, "id="), strings.Count(list, "cmd=xread")
}

func TestRevocations_LeavesNothingBehind(t *testing.T) {
	s := startRedis(t)
	client := s.client()
	store := koreredis.Revocations(client, name)
	revoke(t, store, names(1, 3)...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := follow(t, ctx, store)
	cancel()
	<-ended
	before := runtime.NumGoroutine()
	clients, _ := s.connections()
	began := time.Now()
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := follow(t, ctx, store)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	t.Log("1,000 connects and disconnects took", time.Since(began))
	eventually(t, 5*time.Second, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	eventually(t, 5*time.Second, "no connection is left", func() bool { all, _ := s.connections(); return all <= clients })
	assert.LessOrEqual(t, len(stored(t, s)), 3)
}

func TestRevocations_FollowEndsWithItsContext(t *testing.T) {
	s := startRedis(t)
	p := startProxy(t, s.addr())
	for _, row := range []struct {
		name    string
		prepare func()
	}{
		{"while it waits", func() {}},
		{"while the connection is half-open", p.halfOpen},
		{"while the server does not answer", func() { s.do("CLIENT", "PAUSE", "1000", "ALL") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			client := clientOf(t, p.addr())
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			ended := follow(t, ctx, koreredis.Revocations(client, name))
			eventually(t, within, "it waits for rules", func() bool { _, blocked := s.connections(); return blocked == 1 })
			row.prepare()
			began := time.Now()
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			assert.Less(t, time.Since(began), 250*time.Millisecond)
			p.cut()
			eventually(t, 4*time.Second, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

// A half-open connection leaves no goroutine with a client that has default options.
func TestRevocations_HalfOpenConnectionLeavesNothingBehind(t *testing.T) {
	s := startRedis(t)
	p := startProxy(t, s.addr())
	client := clientOf(t, p.addr())
	store := koreredis.Revocations(client, name)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := runtime.NumGoroutine()
	ended := follow(t, ctx, store)
	p.halfOpen()
	began := time.Now()
	require.Error(t, <-ended)
	assert.Less(t, time.Since(began), 2*time.Second)
	p.cut()
	eventually(t, 500*time.Millisecond, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// A server to which no connection can be opened, and one that accepts and is silent.
func TestRevocations_SilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	began := time.Now()
	err = koreredis.Revocations(clientOf(t, l.Addr().String()), name).Follow(t.Context(), 0, nil, nil)
	require.Error(t, err)
	assert.Less(t, time.Since(began), 4*time.Second)

	blocked := func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	began = time.Now()
	err = koreredis.Revocations(clientOf(t, "127.0.0.1:1", blocked), name).Follow(t.Context(), 0, nil, nil)
	require.Error(t, err)
	assert.Less(t, time.Since(began), 4*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began = time.Now()
	err = koreredis.Revocations(clientOf(t, "127.0.0.1:1", blocked), name).Follow(ctx, 0, nil, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), time.Second)
}

// A client with one connection can follow and append at the same time.
func TestRevocations_PoolOfOneConnection(t *testing.T) {
	s := startRedis(t)
	client := s.client(func(o *redis.Options) { o.PoolSize, o.MaxActiveConns = 1, 1 })
	replicas := startReplicas(t, 1, func() redis.UniversalClient { return client })
	began := time.Now()
	revoke(t, koreredis.Revocations(client, name), names(1, 20)...)
	assert.Less(t, time.Since(began), time.Second)
	converge(t, within, replicas, names(1, 20)...)
}

// Append must return when its context is done, and say that the rule may be revoked.
func TestRevocations_AppendEndsWithItsContext(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	s.do("CLIENT", "PAUSE", "1500", "ALL")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := store.Append(ctx, revocation.Rule{Issuer: issuer, Token: "t"})
	assert.Less(t, time.Since(began), time.Second)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "append it again")
}

// The reply to an Append is lost, and the client sends it again.
func TestRevocations_RetriedAppendIsOneRule(t *testing.T) {
	s := startRedis(t)
	var swallow atomic.Bool
	var swallowed atomic.Int64
	client := s.client(func(o *redis.Options) {
		o.ReadTimeout = 200 * time.Millisecond
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, addr)
			return &lossy{Conn: c, swallow: &swallow, swallowed: &swallowed}, err
		}
	})
	store := koreredis.Revocations(client, name)
	revoke(t, store, "t0")
	swallow.Store(true)
	receipt := revoke(t, store, "t1")[0]
	require.EqualValues(t, 1, swallowed.Load(), "a reply was lost")
	assert.EqualValues(t, 2, receipt.Seq)
	assert.Empty(t, notOnce(t, s, "t0", "t1"))
	assert.EqualValues(t, 3, revoke(t, store, "t1")[0].Seq, "the same rule again is another receipt")
}

// lossy is a connection that loses one reply.
type lossy struct {
	net.Conn
	swallow   *atomic.Bool
	swallowed *atomic.Int64
	once      sync.Once
}

func (c *lossy) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && strings.Contains(string(b[:n]), "nonce") && c.swallow.CompareAndSwap(true, false) {
		c.swallowed.Add(1)
		_, err = io.Copy(io.Discard, c.Conn) // until the deadline
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	return n, err
}
