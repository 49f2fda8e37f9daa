// Package fetch gets the documents of an issuer over HTTP, within limits.
package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/loopback"
)

// The limits of a fetch.
const (
	maxDocument  = 1 << 20
	maxDrain     = 64 << 10 // of a response that is not used
	maxDrainTime = 500 * time.Millisecond
	maxRedirects = 3
	maxHanging   = 8 // requests that a transport has not returned from
)

// Document is the response to a request for metadata or keys.
type Document struct {
	URL    string // redacted, for error texts
	Source string // the whole URL
	Status int
	Header http.Header
	Body   []byte // only of a 200
}

// OK returns an error unless the status is 200.
func (d *Document) OK() error {
	if d.Status != http.StatusOK {
		return &StatusError{d.URL, d.Status, RetryAfter(d.Header)}
	}
	return nil
}

// StatusError reports a response with a status other than 200.
type StatusError struct {
	URL        string // redacted
	Status     int
	RetryAfter time.Duration // as the header says; zero if it does not
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s: status %d", e.URL, e.Status) }

// RetryAfter returns the value of Retry-After (RFC 9110 §10.2.3), or zero.
func RetryAfter(header http.Header) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	seconds, err := strconv.ParseUint(value, 10, 31)
	switch {
	case err == nil:
		return time.Duration(seconds) * time.Second
	case errors.Is(err, strconv.ErrRange):
		return time.Duration(1<<31) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// MaxAge returns the max-age of Cache-Control (RFC 9111 §5.2.2.1), if there is
// one. A value that is too large counts as longest.
func (d *Document) MaxAge(longest time.Duration) (age time.Duration, ok bool) {
	for directive := range strings.SplitSeq(strings.Join(d.Header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
		if errors.Is(err, strconv.ErrRange) { // RFC 9111 §1.2.2
			return longest, true
		}
		if err == nil {
			return time.Duration(seconds) * time.Second, true
		}
	}
	return 0, false
}

// getter sends GET requests with the HTTP client of a user, whose transport may
// misbehave in any way.
type getter struct {
	own     *http.Client // of the user; nil: one on http.DefaultTransport
	timeout time.Duration

	client  *http.Client    // of the current fetch
	shared  *http.Transport // its connections; nil: each request has one
	hanging atomic.Int32    // requests that have not returned, although their time is over
}

// open begins a fetch, whose requests share connections if the transport is that of
// net/http. It is a copy, because other fetches may end at another time.
func (g *getter) open() {
	client := &http.Client{}
	if g.own != nil {
		*client = *g.own
	}
	base := client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	if transport, ok := base.(*http.Transport); ok {
		g.shared = transport.Clone()
		client.Transport = g.shared
	}
	g.client = withRedirectRules(client)
}

// close closes the connections of a fetch, also those that are still in use when their
// request ends.
func (g *getter) close() {
	if g.shared != nil {
		g.shared.CloseIdleConnections()
	}
	g.client, g.shared = nil, nil
}

// conditions are the request headers that depend on what is cached.
type conditions struct {
	etag    string // "": an unconditional request
	noCache bool   // caches on the way must not answer (RFC 9111 §5.2.1.4)
}

// get returns when the request has ended or its timeout has passed, even if the
// transport ignores the context.
func (g *getter) get(ctx context.Context, location string, with conditions) (*Document, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, errors.New("the URL cannot be parsed")
	}
	from := redactURL(req.URL)
	if g.hanging.Load() >= maxHanging {
		return nil, outage{fmt.Errorf("%s: the HTTP client has not returned from %d earlier requests", from, maxHanging)}
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if with.etag != "" {
		req.Header.Set("If-None-Match", with.etag)
	}
	if with.noCache {
		req.Header.Set("Cache-Control", "no-cache")
	}
	req.Close = g.shared == nil // No idle connection, and so no goroutine, outlives the fetch.
	client := g.client
	type result struct {
		doc *Document
		err error
	}
	done := make(chan result, 1)
	g.hanging.Add(1)
	go func() {
		r := result{err: errors.New("the HTTP client did not return")} // as after runtime.Goexit
		defer func() {
			g.hanging.Add(-1)
			done <- r
		}()
		r.doc, r.err = send(ctx, client, req)
	}()
	select {
	case r := <-done:
		if r.err != nil {
			err := fmt.Errorf("%s: %w", from, r.err)
			if errors.As(r.err, new(refusal)) {
				return nil, err
			}
			return nil, outage{err}
		}
		r.doc.URL, r.doc.Source = from, location
		return r.doc, nil
	case <-ctx.Done():
		return nil, outage{fmt.Errorf("%s: %w", from, context.Cause(ctx))}
	}
}

// refusal is an error about an answer that arrived, and is not used.
type refusal struct{ error }

func (e refusal) Unwrap() error { return e.error }

// send sends one request and reads the document. It turns a panic of the transport
// into an error, because no server recovers in its goroutine.
func send(ctx context.Context, client *http.Client, req *http.Request) (doc *Document, err error) {
	defer func() {
		if p := recover(); p != nil {
			doc, err = nil, fmt.Errorf("the HTTP client panicked with a %T", p)
		}
	}()
	res, err := client.Do(req)
	if err != nil {
		var withURL *url.Error // Its text has the whole URL.
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, err
	}
	defer res.Body.Close()
	// The body of a custom transport may ignore the context.
	defer context.AfterFunc(ctx, func() {
		defer func() { _ = recover() }()
		res.Body.Close()
	})()
	doc = &Document{Status: res.StatusCode, Header: res.Header}
	if res.StatusCode != http.StatusOK {
		if !req.Close {
			drain(ctx, res.Body)
		}
		return doc, nil // The body of an error response is not used.
	}
	doc.Body, err = io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(doc.Body) > maxDocument {
		return nil, refusal{errors.New("the document is larger than 1 MiB")}
	}
	doc.Body = bytes.TrimPrefix(doc.Body, []byte("\xef\xbb\xbf")) // RFC 8259 §8.1
	return doc, nil
}

// drain reads the rest of a body that is not used, so that the next request of the fetch
// can use its connection. If it is long or slow, a new connection costs less.
func drain(ctx context.Context, body io.ReadCloser) {
	wait := maxDrainTime
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	defer time.AfterFunc(wait, func() {
		defer func() { _ = recover() }()
		body.Close()
	}).Stop()
	_, _ = io.CopyN(io.Discard, body, maxDrain+1) // One more, to find the end.
}

// withRedirectRules returns a copy of client that follows at
// most three redirects, and only within one scheme, host and port, or from http to
// https on the same host.
func withRedirectRules(client *http.Client) *http.Client {
	restricted := *client
	userCheck := restricted.CheckRedirect
	restricted.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		last := via[len(via)-1].URL
		if len(via) > maxRedirects {
			return refusal{fmt.Errorf("more than three redirects, the last to %s", redactURL(req.URL))}
		}
		upgraded := last.Scheme == "http" && req.URL.Scheme == "https" && strings.EqualFold(last.Hostname(), req.URL.Hostname())
		if origin(req.URL) != origin(last) && !upgraded {
			return refusal{fmt.Errorf("redirect to %s, which has another scheme, host or port", redactURL(req.URL))}
		}
		req.Close = via[0].Close
		if userCheck == nil {
			return nil
		}
		err := userCheck(req, via)
		if err == nil || err == http.ErrUseLastResponse {
			return err
		}
		return refusal{err}
	}
	return &restricted
}

// origin is the scheme, host and port of a URL (RFC 6454 §4).
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// redactURL returns a URL without user, password, query and fragment.
func redactURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// CheckURL says what is wrong with a URL that keys may be fetched from; "" means
// nothing.
func CheckURL(text string, allowHTTP bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an absolute https URL, such as https://keycloak.example.com/realms/KORE-CIDP"
	case u.Scheme == "http" && !allowHTTP && !loopback.Is(u.Hostname()):
		return "is http, so that anyone on the network path can forge keys: use https (or set DangerouslyAllowHTTP)"
	}
	return ""
}

// CheckIssuerURL says what is wrong with an issuer URL that metadata is fetched from;
// "" means nothing.
func CheckIssuerURL(text string, allowHTTP bool) string {
	if fault := CheckURL(text, allowHTTP); fault != "" {
		return fault
	}
	if strings.ContainsAny(text, "?#") {
		return "has a query or a fragment, which an issuer URL must not have (RFC 8414 §2)"
	}
	return ""
}
