package introspection

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/bounded"
)

// lookEvery is the least time between two looks for another endpoint than the known one.
const lookEvery = 5 * time.Second

// endpoint finds the URL of the introspection endpoint.
type endpoint struct {
	config *Config
	client *http.Client

	mu     sync.Mutex // guards the fields below
	found  string     // by the last look at the metadata that found one, or ""
	look   *look      // the current one, or nil
	looked time.Time  // when doubt began one
}

// look is one look at the metadata of the issuer, for which callers wait.
type look struct {
	done chan struct{} // closed at its end; then the fields below are set
	url  string
	err  *failure
}

// url returns the URL. It looks for it if none was ever found.
func (e *endpoint) url(ctx context.Context) (string, error) {
	if e.config.Endpoint != "" {
		return e.config.Endpoint, nil
	}
	e.mu.Lock()
	if e.found != "" {
		defer e.mu.Unlock()
		return e.found, nil
	}
	l := e.begin()
	e.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
		return "", &failure{text: "discovery: no answer in time", down: true}
	}
	if l.err != nil {
		return "", l.err
	}
	return l.url, nil
}

// doubt looks again, because the endpoint did not answer clearly: it may have moved. The one
// that is known is used until another is found.
func (e *endpoint) doubt(ctx context.Context) {
	e.mu.Lock()
	if e.config.Endpoint != "" || e.found == "" || e.look == nil && time.Since(e.looked) < lookEvery {
		e.mu.Unlock()
		return
	}
	e.looked = time.Now()
	l := e.begin()
	e.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}

// begin returns the current look, or begins one.
func (e *endpoint) begin() *look {
	if e.look != nil {
		return e.look
	}
	l := &look{done: make(chan struct{})}
	e.look = l
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		l.url, l.err = e.discover(ctx)
		e.mu.Lock()
		if e.look = nil; l.err == nil {
			e.found = l.url
		}
		e.mu.Unlock()
		close(l.done)
	}()
	return l
}

// discover asks for the metadata of the issuer.
func (e *endpoint) discover(ctx context.Context) (string, *failure) {
	type metadata struct {
		url        string
		retryAfter time.Duration
	}
	found, err := bounded.Call(ctx, func(ctx context.Context) (m metadata, err error) {
		url, last, err := authserver.Discover(ctx, e.client, e.config.Issuer, "introspection_endpoint", "Endpoint")
		if last != nil {
			m.retryAfter = last.RetryAfter
		}
		m.url = url
		return m, err
	})
	if fault := authserver.Fault(found.url, e.config.DangerouslyAllowHTTP); err == nil && fault != "" {
		err = fmt.Errorf("the introspection_endpoint in the metadata of the issuer %s", fault)
	}
	if err == nil {
		return found.url, nil
	}
	failed := newFailure("discovery", err, e.config, "", "")
	failed.down, failed.retryAfter = true, found.retryAfter
	return "", failed
}
