package koreredis

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// block is how long a read waits for new rules.
	block = 750 * time.Millisecond
	// silence is how long a connection may say nothing before it is given up.
	silence = 1500 * time.Millisecond
	// dialing is how long it may take to open a connection.
	dialing = 3 * time.Second
)

// conn has the commands of one connection, or of a client of an unknown type.
type conn struct {
	redis.UniversalClient
	ownLine bool
	close   func()
}

// do calls f, which sends commands to the server.
func (c *conn) do(ctx context.Context, f func(context.Context) error) error {
	if c.ownLine {
		ctx, cancel := context.WithTimeout(ctx, dialing) // the context counts until the connection is open
		defer cancel()
		return f(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	return wait(ctx, func() error { return f(ctx) })
}

// connect opens a connection of its own to the master that has the log. The
// connection is closed when ctx is done or its close is called, so that no command
// waits longer than that. A connection that is silent for too long is given up: the
// client itself would wait ten seconds longer than the server, and look at no context
// unless ContextTimeoutEnabled is set.
func (s *store) connect(ctx context.Context) (*conn, error) {
	var options *redis.Options
	var err error
	switch client := s.client.(type) {
	case *redis.Client:
		options = client.Options()
	case *redis.ClusterClient:
		if o := client.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return nil, errors.New("the client reads from replicas, which may not have the last rules: use one without ReadOnly, RouteByLatency and RouteRandomly")
		}
		options, err = s.node(ctx, func(ctx context.Context) (*redis.Client, error) { return client.MasterForKey(ctx, s.log) })
	case *redis.Ring:
		options, err = s.node(ctx, func(context.Context) (*redis.Client, error) { return client.GetShardClientForKey(s.log) })
	default:
		return &conn{UniversalClient: client, close: func() {}}, nil
	}
	if err != nil {
		return nil, err
	}
	l := &line{}
	client := redis.NewClient(l.options(options))
	stop := context.AfterFunc(ctx, l.close)
	return &conn{UniversalClient: client, ownLine: true, close: func() {
		stop()
		l.close()
		_ = client.Close()
	}}, nil
}

// node returns the options of the client of one server.
func (s *store) node(ctx context.Context, find func(context.Context) (*redis.Client, error)) (*redis.Options, error) {
	ctx, cancel := context.WithTimeout(ctx, dialing)
	defer cancel()
	var found *redis.Client
	err := wait(ctx, func() (err error) {
		found, err = find(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found.Options(), nil
}

// line is one network connection at a time.
type line struct {
	mu     sync.Mutex
	raw    net.Conn
	closed bool
}

// options returns the options of a client that uses the line.
func (l *line) options(of *redis.Options) *redis.Options {
	o := *of
	o.Dialer = l.dialer(of.Dialer)
	o.DialerRetries = 1
	if o.DialTimeout <= 0 || o.DialTimeout > dialing {
		o.DialTimeout = dialing
	}
	o.MaxRetries = -1 // whoever follows must know that the connection was lost
	o.ReadTimeout, o.WriteTimeout = time.Hour, time.Hour
	o.PoolSize, o.PipelinePoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 1, -1, 0, 0, 0
	o.PoolTimeout, o.ConnMaxIdleTime, o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = dialing, -1, 0, 0
	o.Limiter = nil // a read that finds nothing new is not a failure
	o.Protocol = 2  // without pushes of the server
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.PushNotificationProcessor, o.ClientSideCache, o.ClientSideCacheConfig = nil, nil, nil
	return &o
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

func (l *line) dialer(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			_ = raw.Close()
			return nil, net.ErrClosed
		}
		l.raw = raw
		return &impatient{Conn: raw}, nil
	}
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.raw != nil {
		_ = l.raw.Close()
	}
}

// impatient is a connection on which each read and write must succeed within
// silence, whatever the deadline of the whole command is.
type impatient struct {
	net.Conn
	mu          sync.Mutex
	read, write time.Time
}

func (c *impatient) Read(b []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(c.earlier(&c.read)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *impatient) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(c.earlier(&c.write)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *impatient) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.write = t, t
	return nil
}

func (c *impatient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return nil
}

func (c *impatient) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return nil
}

// earlier returns the deadline of the command, or the end of the silence.
func (c *impatient) earlier(deadline *time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := time.Now().Add(silence)
	if !deadline.IsZero() && deadline.Before(end) {
		return *deadline
	}
	return end
}
