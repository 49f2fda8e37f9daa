package koreredis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// server is a Redis server of its own for a test.
type server struct {
	t      testing.TB
	dir    string
	port   string
	config string // of a Sentinel
	args   []string
	cmd    *exec.Cmd
	done   chan struct{}
}

// startRedis starts a server on a free port of the loopback interface. It is killed
// at the end of the test.
func startRedis(t testing.TB, args ...string) *server {
	t.Helper()
	return start(t, "", args...)
}

// startSentinel starts a Sentinel that alone decides about a failover.
func startSentinel(t testing.TB, master *server) *server {
	t.Helper()
	return start(t, fmt.Sprintf("sentinel monitor main 127.0.0.1 %s 1\nsentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n", master.port), "--sentinel")
}

func start(t testing.TB, config string, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	s := &server{t: t, dir: t.TempDir(), port: freePort(t), config: config, args: args}
	t.Cleanup(s.kill)
	s.start()
	return s
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func (s *server) addr() string { return "127.0.0.1:" + s.port }

// start starts the server, and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(s.t, err)
	defer log.Close()
	args := []string{"--bind", "127.0.0.1", "--port", s.port, "--dir", s.dir, "--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"}
	if s.config != "" {
		file := filepath.Join(s.dir, "redis.conf")
		require.NoError(s.t, os.WriteFile(file, []byte(s.config), 0o600))
		args = []string{file, "--bind", "127.0.0.1", "--port", s.port, "--dir", s.dir}
	}
	s.cmd = exec.Command("redis-server", append(args, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	require.NoError(s.t, s.cmd.Start())
	s.done = make(chan struct{})
	go func() { defer close(s.done); _ = s.cmd.Wait() }()
	c := redis.NewClient(&redis.Options{Addr: s.addr(), MaxRetries: -1, DialerRetries: 1})
	defer c.Close()
	redis.SetLogger(silent{})
	require.Eventually(s.t, func() bool { return c.Ping(context.Background()).Err() == nil }, 10*time.Second, 10*time.Millisecond)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// kill kills the server, as a crash does.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

// stop lets the server end in good order.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	<-s.done
	s.cmd = nil
}

// client returns a client with default options, but for those that change sets.
func (s *server) client(change ...func(*redis.Options)) *redis.Client {
	return clientOf(s.t, s.addr(), change...)
}

func clientOf(t testing.TB, addr string, change ...func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: addr}
	for _, c := range change {
		c(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// do sends a command to the server.
func (s *server) do(args ...any) any {
	s.t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.addr()})
	defer c.Close()
	reply, err := c.Do(context.Background(), args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	require.NoError(s.t, err, "%v", args)
	return reply
}

// proxy forwards connections to a server, until it is told not to.
type proxy struct {
	t      testing.TB
	l      net.Listener
	mu     sync.Mutex
	target string
	mute   chan struct{} // closed when nothing is forwarded any more
	conns  []net.Conn
}

func startProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{t: t, l: l, target: target, mute: make(chan struct{})}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(in)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) serve(in net.Conn) {
	p.mu.Lock()
	target, mute := p.target, p.mute
	p.conns = append(p.conns, in)
	p.mu.Unlock()
	if target == "" {
		_ = in.Close()
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		_ = in.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, out)
	p.mu.Unlock()
	go forward(out, in, mute)
	forward(in, out, mute)
}

// forward copies from one connection to the other. When it is mute, it neither
// forwards nor closes anything, as if a cable had been pulled.
func forward(from, to net.Conn, mute chan struct{}) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		select {
		case <-mute:
			return
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			_ = from.Close()
			return
		}
	}
}

// halfOpen stops forwarding on all connections. Only new ones are forwarded again.
func (p *proxy) halfOpen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.mute)
	p.mute = make(chan struct{})
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// point sends new connections elsewhere; empty: nowhere.
func (p *proxy) point(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}
