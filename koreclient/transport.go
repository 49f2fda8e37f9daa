package koreclient

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/koreauth/koreauth/internal/challenge"
	"github.com/koreauth/koreauth/internal/loopback"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// Transport returns a [http.RoundTripper] that sends the token to these hosts, and to
// no other host, whatever redirects say. A request to another host, or with an
// Authorization header of its own, is sent as it is. If base is nil,
// http.DefaultTransport is used. Transport panics if there is no host, or if one is not
// of the form "host" or "host:port". Without a port, the default port of the scheme is
// meant, and any port on loopback. Hosts are compared without regard to case.
//
// The token is sent over https only, or over http to loopback; another request to one of
// the hosts is an error.
//
// If the API rejects the token as invalid (RFC 6750 §3.1 "invalid_token", or KORE's
// documented 403), the request is sent once more with a new token, if there is one
// and the body can be sent again (see [http.Request].GetBody). If the API answers
// "insufficient_scope", the scopes of the client may have been changed since: a new token is
// fetched in the background for later requests, at most once in ten minutes. The body of
// a rejection is looked at for at most a second.
func (c *Client) Transport(base http.RoundTripper, hosts ...string) http.RoundTripper {
	if len(hosts) == 0 {
		panic("koreclient: Transport needs at least one host, such as api.example.com: the token is sent to no other")
	}
	t := &transport{client: c, base: base}
	if base == nil {
		t.base = http.DefaultTransport
	}
	for _, host := range hosts {
		u, err := url.Parse("https://" + host)
		if err != nil || u.Hostname() == "" || u.Host != host || strings.ContainsAny(host, "*@ ") || strings.HasSuffix(host, ":") {
			panic("koreclient: Transport: a host must be of the form host or host:port, without a scheme and a path")
		}
		t.hosts = append(t.hosts, u)
	}
	return t
}

// HTTPClient returns a client that sends the token to these hosts, as
// [Client.Transport] does. It has no timeout: set one, or use contexts.
func (c *Client) HTTPClient(hosts ...string) *http.Client {
	return &http.Client{Transport: c.Transport(nil, hosts...)}
}

type transport struct {
	client *Client
	base   http.RoundTripper
	hosts  []*url.URL
}

var errNotHTTPS = errors.New("koreclient: the token is not sent over http, because anyone on the network could read it: use https")

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.has(req.URL) || len(req.Header["Authorization"]) > 0 {
		return t.base.RoundTrip(req)
	}
	if req.URL.Scheme != "https" && !loopback.Is(req.URL.Hostname()) {
		closeBody(req)
		return nil, errNotHTTPS
	}
	token, err := t.client.Token(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	res, err := t.base.RoundTrip(withToken(req, token))
	if err != nil || res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
		return res, err
	}
	why, body := reasonOf(req.Context(), res)
	if why == notRejected {
		return res, nil
	}
	if again := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil; why == insufficientScope || !again {
		t.client.replaceLater(token.Value, why)
		return res, nil
	}
	replaced, ok := t.client.replace(req.Context(), token.Value, why)
	if !ok {
		return res, nil
	}
	second := withToken(req, replaced)
	if req.GetBody != nil {
		if second.Body, err = req.GetBody(); err != nil {
			return res, nil
		}
	}
	if body == nil {
		body = peek(res)
	}
	body.whole(req.Context()) // so that the connection can be used again
	_ = res.Body.Close()
	return t.base.RoundTrip(second)
}

// has reports whether the token may be sent to the host of a URL.
func (t *transport) has(u *url.URL) bool {
	return slices.ContainsFunc(t.hosts, func(host *url.URL) bool {
		switch {
		case !strings.EqualFold(u.Hostname(), host.Hostname()):
			return false
		case host.Port() != "":
			return hostPort(u) == hostPort(host)
		}
		return loopback.Is(host.Hostname()) || hostPort(u) == hostPort(&url.URL{Scheme: u.Scheme, Host: host.Host})
	})
}

// withToken returns a copy of the request with the token. A RoundTripper must not change
// the request.
func withToken(req *http.Request, token Token) *http.Request {
	with := req.Clone(req.Context())
	if with.Header == nil {
		with.Header = http.Header{}
	}
	with.Header.Set("Authorization", "Bearer "+token.Value)
	return with
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// reasonOf returns why an API rejected the token. If it looked at the body, it returns that
// too; the body can still be read from its start.
func reasonOf(ctx context.Context, res *http.Response) (reason, *peeked) {
	if code := challenge.Param(res.Header.Values("WWW-Authenticate"), "Bearer", "error"); code != "" {
		return reasons[code], nil
	}
	if !mayBeJSON(res) {
		return notRejected, nil
	}
	body := peek(res)
	text, ok := body.whole(ctx)
	if !ok {
		return notRejected, body
	}
	code, err := strictjson.Text(text, "error")
	if err != nil {
		return notRejected, body
	}
	return reasons[code], body
}

// reasons are the codes of RFC 6750 §3.1 and those of KORE's documented 403.
var reasons = map[string]reason{
	"invalid_token": invalidToken, "Invalid or expired token": invalidToken,
	"insufficient_scope": insufficientScope, "Insufficient scope": insufficientScope,
}
