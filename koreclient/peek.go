package koreclient

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/bounded"
)

const (
	maxPeek  = 4 << 10     // bytes of an answer that are read to find out why
	peekTime = time.Second // how long they are waited for: the answer may be a stream
)

// peeked is the body of an answer whose start is read in the background.
type peeked struct {
	rest  io.ReadCloser
	start []byte        // what was read and not yet returned
	err   error         // of reading the start
	done  chan struct{} // closed when start and err are set
}

// peek starts to read the body of an answer, which can still be read whole.
func peek(res *http.Response) *peeked {
	p := &peeked{rest: res.Body, done: make(chan struct{})}
	res.Body = p
	go func() {
		defer close(p.done)
		p.start, p.err = bounded.Call(context.Background(), func(context.Context) ([]byte, error) {
			return io.ReadAll(io.LimitReader(p.rest, maxPeek))
		})
	}()
	return p
}

// whole returns the body if it is short and arrives soon.
func (p *peeked) whole(ctx context.Context) (body string, ok bool) {
	timer := time.NewTimer(peekTime)
	defer timer.Stop()
	select {
	case <-p.done:
		return string(p.start), p.err == nil && len(p.start) < maxPeek
	case <-timer.C:
	case <-ctx.Done():
	}
	return "", false
}

// Read implements io.Reader.
func (p *peeked) Read(b []byte) (int, error) {
	<-p.done
	switch {
	case len(p.start) > 0:
		n := copy(b, p.start)
		p.start = p.start[n:]
		return n, nil
	case p.err != nil:
		return 0, p.err
	}
	return p.rest.Read(b)
}

// Close implements io.Closer. It ends what is being read.
func (p *peeked) Close() error { return p.rest.Close() }

// mayBeJSON reports whether the body of an answer may be a short JSON object.
func mayBeJSON(res *http.Response) bool {
	if res.ContentLength >= maxPeek {
		return false
	}
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return err != nil || strings.HasSuffix(kind, "json") // Without a type it may be anything.
}
