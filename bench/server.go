package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"time"

	"github.com/koreauth/koreauth/bench/subjects"
)

// connections is the number of concurrent clients. Each keeps its own connection.
const connections = 4

// A loopback is a real server and its clients. The clients send prepared requests and read responses of a known length,
// so that most of the processor time is the server's.
type loopback struct {
	server  *httptest.Server
	clients []*client
}

type client struct {
	conn     net.Conn
	reader   *bufio.Reader
	requests [][]byte
	turn     int
	answer   []byte
}

// newLoopback starts a server for h and prepares a request for each token. If tokens is nil, requests have no token.
func newLoopback(h http.Handler, tokens []subjects.Token) (*loopback, error) {
	if tokens == nil {
		tokens = make([]subjects.Token, 1)
	}
	requests := make([][]byte, len(tokens))
	for k, t := range tokens {
		var b bytes.Buffer
		b.WriteString("GET /v1/clients HTTP/1.1\r\nHost: api.example.com\r\nAccept: application/json\r\n")
		for _, value := range t.Header {
			fmt.Fprintf(&b, "Authorization: %s\r\n", value)
		}
		b.WriteString("\r\n")
		requests[k] = b.Bytes()
	}
	l := &loopback{server: httptest.NewServer(h)}
	for k := range connections {
		conn, err := net.Dial("tcp", l.server.Listener.Addr().String())
		if err != nil {
			l.close()
			return nil, err
		}
		c := &client{conn: conn, reader: bufio.NewReader(conn), requests: requests, turn: k * len(requests) / connections}
		l.clients = append(l.clients, c)
		if err := c.first(); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *loopback) close() {
	for _, c := range l.clients {
		c.conn.Close()
	}
	l.server.Close()
}

// slice sends count requests on each connection and returns the nanoseconds per request.
func (l *loopback) slice(count int) (float64, error) {
	runtime.GC()
	errs := make([]error, len(l.clients))
	var workers sync.WaitGroup
	start := time.Now()
	for k, c := range l.clients {
		workers.Go(func() {
			for range count {
				if errs[k] = c.exchange(); errs[k] != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	elapsed := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(elapsed) / float64(count*len(l.clients)), nil
}

// first sends a request and records the length of the response.
func (c *client) first() error {
	if _, err := c.conn.Write(c.requests[c.turn]); err != nil {
		return err
	}
	var seen bytes.Buffer
	response, err := http.ReadResponse(bufio.NewReaderSize(io.TeeReader(c.conn, &seen), 1), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	c.answer = make([]byte, seen.Len())
	return nil
}

func (c *client) exchange() error {
	c.turn = (c.turn + 1) % len(c.requests)
	if _, err := c.conn.Write(c.requests[c.turn]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.reader, c.answer); err != nil {
		return err
	}
	if !bytes.HasPrefix(c.answer, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the server responded with %q", c.answer[:min(len(c.answer), 32)])
	}
	return nil
}

// throughput measures two servers in turn. It returns the requests per second of each, and the ratio of s to base.
func (c clock) throughput(base, s *loopback) (ofBase, of, ratio spread, err error) {
	probe, err := base.slice(200)
	if err != nil {
		return spread{}, spread{}, spread{}, err
	}
	count := max(1, int(float64(c.slice)/probe/connections))
	var bases, sides, ratios []float64
	for round := range c.rounds {
		first, second := base, s
		if round%2 == 1 {
			first, second = s, base
		}
		a, err := first.slice(count)
		if err != nil {
			return spread{}, spread{}, spread{}, err
		}
		b, err := second.slice(count)
		if err != nil {
			return spread{}, spread{}, spread{}, err
		}
		if round%2 == 1 {
			a, b = b, a
		}
		bases, sides, ratios = append(bases, 1e9/a), append(sides, 1e9/b), append(ratios, a/b)
	}
	return spreadOf(bases), spreadOf(sides), spreadOf(ratios), nil
}
