package doctor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/loopback"
)

// api checks how the API answers.
func (r *run) api(ctx context.Context) {
	u, err := url.Parse(r.config.API)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		r.add("api", levelFail, "Config.API is not an absolute URL", "use the form https://api.example.com/v1/ping")
		return
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		r.add("api", levelFail, "Config.API is http, so that anyone on the network can read tokens", "use https")
		return
	}
	const garbage = "garbage"
	r.rejects(ctx, "api without a token", http.MethodGet, koreauth.ErrNoToken)
	r.rejects(ctx, "api with garbage", http.MethodGet, koreauth.ErrMalformed, "Bearer "+garbage)
	second := garbage
	if r.config.Token != "" {
		second = r.config.Token
	}
	r.rejects(ctx, "api with two tokens", http.MethodGet, koreauth.ErrBadRequest, "Bearer "+garbage, "Bearer "+second)
	r.rejects(ctx, "api with HEAD", http.MethodHead, koreauth.ErrNoToken)
	switch {
	case r.bound:
		r.rejectsWithoutSender(ctx)
	case r.config.Token != "":
		r.accepts(ctx)
	}
	r.preflight(ctx)
}

// send sends a request to the API. If that fails it adds a finding and returns nil.
func (r *run) send(ctx context.Context, check, method string, header http.Header) (*http.Response, []byte) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.config.API, nil)
	if err != nil {
		r.add(check, levelFail, "Config.API cannot be used", "correct it")
		return nil, nil
	}
	req.Header = header
	client := *r.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // The token is for this host.
	res, err := client.Do(req)
	if err != nil {
		_, cure := diagnose(err, check)
		r.add(check, levelFail, err.Error(), cure)
		return nil, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocument))
	if err != nil {
		r.add(check, levelFail, "reading the answer: "+err.Error(), "look for a proxy that cuts answers")
		return nil, nil
	}
	return res, body
}

// rejects checks that the API rejects a request as the chosen format says.
func (r *run) rejects(ctx context.Context, check, method string, reason error, authorization ...string) {
	header := http.Header{}
	if len(authorization) > 0 {
		header["Authorization"] = authorization
	}
	res, body := r.send(ctx, check, method, header)
	if res == nil {
		return
	}
	class := reason
	if reason == koreauth.ErrMalformed {
		class = koreauth.ErrInvalidToken
	}
	status, contentType, want := r.config.Errors(res.Request, &koreauth.Error{Class: class, Reason: reason})
	if method == http.MethodHead {
		want = nil
	}
	found := fmt.Sprintf("%d, %s, %d bytes", res.StatusCode, orNone(res.Header.Get("Content-Type")), len(body))
	challenge := res.Header.Get("WWW-Authenticate")
	switch {
	case res.StatusCode < 400:
		r.add(check, levelFail, found, "the route is not guarded: wrap its handler with the guard")
	case res.StatusCode != status:
		r.add(check, levelFail, found, fmt.Sprintf("%d was expected: check Config.Errors, and whether a proxy answers in place of the API", status))
	case !strings.HasPrefix(strings.ToLower(challenge), "bearer"):
		r.add(check, levelFail, found+", no challenge", "a proxy removes WWW-Authenticate: let it pass (RFC 6750 §3)")
	case !strings.Contains(res.Header.Get("Cache-Control"), "no-store"):
		r.add(check, levelWarn, found+", may be cached", "a proxy or a handler changes Cache-Control: let no-store pass")
	case res.Header.Get("Content-Type") != contentType || !bytes.Equal(body, want):
		r.add(check, levelFail, found+", another body than expected", "a proxy rewrites error responses, or the API has another format: set Config.Errors")
	default:
		r.add(check, levelOK, found, "")
	}
}

// accepts checks what the API answers to the given token.
func (r *run) accepts(ctx context.Context) {
	const check = "api with the token"
	res, body := r.send(ctx, check, http.MethodGet, http.Header{"Authorization": {"Bearer " + r.config.Token}})
	if res == nil {
		return
	}
	found := fmt.Sprintf("%d, %d bytes", res.StatusCode, len(body))
	rejected := res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden
	switch {
	case res.StatusCode == http.StatusServiceUnavailable:
		r.add(check, levelFail, found, "the API has no keys, or the service behind it is down: see its log")
	case res.StatusCode >= 500:
		r.add(check, levelFail, found, "see the log of the API and of the proxies")
	case rejected && r.accepted:
		r.add(check, levelFail, found+", although this Config accepts it", "compare the Config of the API with this one, and see its log: the route may require a grant")
	case rejected:
		r.add(check, levelOK, found+", as this Config says", "")
	case !r.accepted:
		r.add(check, levelFail, found+", although this Config rejects it", "compare the Config of the API with this one: it accepts more, or the route is not guarded")
	default:
		r.add(check, levelOK, found, "")
	}
}

// rejectsWithoutSender checks that the API rejects a bound token without its certificate.
func (r *run) rejectsWithoutSender(ctx context.Context) {
	const check = "api with the bound token"
	with := r.client
	defer func() { r.client = with }()
	r.client = withoutCertificate(with)
	res, body := r.send(ctx, check, http.MethodGet, http.Header{"Authorization": {"Bearer " + r.config.Token}})
	if res == nil {
		return
	}
	found := fmt.Sprintf("%d, %d bytes, without a certificate", res.StatusCode, len(body))
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		r.add(check, levelOK, found, "")
	case http.StatusServiceUnavailable:
		r.add(check, levelFail, found, "the API has no keys, or the service behind it is down: see its log")
	default:
		r.add(check, levelFail, found, "the API does not check what the token is bound to: set Options.Sender, and look for a proxy that passes the certificate of another")
	}
}

// withoutCertificate returns a client that sends no certificate. A Transport of another
// type is used as it is.
func withoutCertificate(c *http.Client) *http.Client {
	transport, ok := c.Transport.(*http.Transport)
	if !ok || transport.TLSClientConfig == nil {
		return c
	}
	without := *c
	transport = transport.Clone()
	transport.TLSClientConfig.Certificates, transport.TLSClientConfig.GetClientCertificate = nil, nil
	transport.DisableKeepAlives = true // There is one request.
	without.Transport = transport
	return &without
}

// preflight reports what the API answers to a preflight (Fetch §4.8), which has no token.
func (r *run) preflight(ctx context.Context) {
	const check = "api with a preflight"
	res, _ := r.send(ctx, check, http.MethodOptions, http.Header{
		"Origin": {"https://browser.example"}, "Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Headers": {"authorization"},
	})
	if res == nil {
		return
	}
	allowed := res.Header.Get("Access-Control-Allow-Origin")
	if allowed == "" {
		allowed = "no origin"
	}
	r.add(check, levelOK, fmt.Sprintf("%d, allows %s", res.StatusCode, allowed), "")
}
