package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/loopback"
)

const (
	maxDocument = 1 << 20 // bytes
	daysLeft    = 21      // of a certificate, below which a finding warns
	slow        = time.Second
	fetchLimit  = 5 * time.Second  // after which koreauth gives up a fetch
	minInterval = 10 * time.Second // between two fetches of koreauth
	maxAge      = 15 * time.Minute // after which koreauth refreshes keys
)

// document is an answer of the issuer.
type document struct {
	url      string
	status   int
	header   http.Header
	body     []byte
	sent     time.Time
	received time.Time
	last     string // the URL after redirects
	tls      *tls.ConnectionState
}

// issuer checks the issuer and its keys.
func (r *run) issuer(ctx context.Context, validator *koreauth.Validator) {
	c := r.config.Config
	if c.Keys == nil {
		place := c.JWKSURL
		if place == "" {
			place = r.discovery(ctx)
		}
		if place != "" {
			r.keyDocument(ctx, place, c.JWKSURL != "")
		}
	}
	r.keys(ctx, validator)
}

// discovery checks the metadata, and returns the URL of the keys, or "".
func (r *run) discovery(ctx context.Context) string {
	issuer := r.config.Config.Issuer
	base := strings.TrimSuffix(issuer, "/")
	d := r.get(ctx, "discovery", base+"/.well-known/openid-configuration")
	if d == nil {
		return ""
	}
	r.connection(d)
	if u, err := url.Parse(base); err == nil && d.status >= 400 && d.status <= 499 {
		// RFC 8414 §3.1: between the host and the path of the issuer.
		second := r.get(ctx, "discovery", u.Scheme+"://"+u.Host+"/.well-known/oauth-authorization-server"+u.EscapedPath())
		if second != nil && second.status == http.StatusOK {
			d = second
		}
	}
	if d.status != http.StatusOK {
		r.add("discovery", levelFail, fmt.Sprintf("%s answered %d", d.url, d.status), "check Config.Issuer, including its path and /auth, or set Config.JWKSURL")
		return ""
	}
	var metadata struct {
		Issuer     string   `json:"issuer"`
		JWKS       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := json.Unmarshal(d.body, &metadata); err != nil {
		r.add("discovery", levelFail, fmt.Sprintf("%s is not JSON, but %s of %d bytes", d.url, orNone(d.header.Get("Content-Type")), len(d.body)), "look for a proxy or a login page in between, and check Config.Issuer")
		return ""
	}
	r.add("discovery", levelOK, fmt.Sprintf("%s has %d bytes of %s", d.url, len(d.body), orNone(d.header.Get("Content-Type"))), "")
	if metadata.Issuer == issuer {
		r.add("issuer", levelOK, metadata.Issuer, "")
	} else {
		r.add("issuer", levelFail, fmt.Sprintf("the metadata say %q, and Config.Issuer is %q", metadata.Issuer, issuer), "set Config.Issuer to what the metadata say, character by character, or set the hostname at the issuer")
	}
	r.algorithms(metadata.Algorithms)
	if metadata.JWKS == "" {
		r.add("discovery", levelFail, "the metadata have no jwks_uri", "set Config.JWKSURL")
	}
	return metadata.JWKS
}

// algorithms compares what the issuer offers with what is accepted.
func (r *run) algorithms(offered []string) {
	accepted := r.config.Config.Algorithms
	if len(accepted) == 0 {
		accepted = []string{"RS256"}
	}
	if len(offered) == 0 {
		return
	}
	if slices.ContainsFunc(accepted, func(a string) bool { return slices.Contains(offered, a) }) {
		r.add("algorithms", levelOK, "accepted: "+strings.Join(accepted, " ")+"; offered: "+strings.Join(offered, " "), "")
		return
	}
	r.add("algorithms", levelWarn, "accepted: "+strings.Join(accepted, " ")+"; offered: "+strings.Join(offered, " "), "set Config.Algorithms to what the issuer signs access tokens with")
}

// keyDocument checks how the keys are served.
func (r *run) keyDocument(ctx context.Context, place string, first bool) {
	d := r.get(ctx, "keys", place)
	if d == nil {
		return
	}
	if first {
		r.connection(d)
	} else if d.readable() {
		r.add("TLS", levelWarn, "not used for the keys: "+d.last, useHTTPS)
	}
	if d.status != http.StatusOK {
		r.add("keys", levelFail, fmt.Sprintf("%s answered %d", d.url, d.status), "check the URL of the keys")
		return
	}
	r.caching(d)
}

// caching compares Cache-Control with the limits of koreauth.
func (r *run) caching(d *document) {
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(d.header.Values("Cache-Control"), ",")), ",") {
		text, ok := strings.CutPrefix(strings.TrimSpace(directive), "max-age=")
		if !ok {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 31)
		age := time.Duration(seconds) * time.Second
		switch {
		case err != nil:
			r.add("caching", levelWarn, "Cache-Control has a max-age that is not a number", "correct it at the issuer; koreauth uses "+maxAge.String())
		case age < minInterval:
			r.add("caching", levelWarn, fmt.Sprintf("the keys may be cached for %v only", age), "koreauth refreshes them every "+minInterval.String()+": let the issuer allow some minutes")
		case age > maxAge:
			r.add("caching", levelOK, fmt.Sprintf("the keys may be cached for %v; koreauth refreshes them every %v", age, maxAge), "")
		default:
			r.add("caching", levelOK, fmt.Sprintf("the keys may be cached for %v", age), "")
		}
		return
	}
	r.add("caching", levelOK, "no max-age; koreauth refreshes the keys every "+maxAge.String(), "")
}

// keys checks the keys themselves.
func (r *run) keys(ctx context.Context, validator *koreauth.Validator) {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	if err := validator.Ready(ctx); err != nil {
		r.add("keys", levelFail, "there are no keys: "+strings.TrimPrefix(err.Error(), "koreauth: "), "without keys the API answers 503: correct what is reported here first")
		return
	}
	for _, status := range validator.Status() {
		for _, reason := range status.Reasons {
			r.add("key", levelOK, "not used: "+reason, "")
		}
		r.add("keys", levelOK, fmt.Sprintf("%d usable, %d not used", status.Keys, status.Ignored), "")
	}
}

// get fetches a document. If that fails it adds a finding and returns nil.
func (r *run) get(ctx context.Context, check, place string) *document {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		r.add(check, levelFail, "the URL cannot be used", "correct it")
		return nil
	}
	shown := req.URL.Redacted()
	d := &document{url: shown, sent: time.Now()}
	res, err := r.client.Do(req)
	if err != nil {
		check, cure := diagnose(err, check)
		r.add(check, levelFail, shown+": "+err.Error(), cure)
		return nil
	}
	defer res.Body.Close()
	d.received, d.status, d.header, d.tls, d.last = time.Now(), res.StatusCode, res.Header, res.TLS, res.Request.URL.Redacted()
	if d.body, err = io.ReadAll(io.LimitReader(res.Body, maxDocument+1)); err != nil {
		r.add(check, levelFail, shown+": reading the answer: "+err.Error(), "look for a proxy that cuts answers")
		return nil
	}
	if len(d.body) > maxDocument {
		r.add(check, levelFail, shown+" has more than 1 MiB", "koreauth reads 1 MiB: check the URL")
		return nil
	}
	if d.last != shown {
		r.add(check, levelOK, shown+" was redirected to "+d.last, "")
	}
	return d
}

// diagnose returns which check an error of a request is about, and what to do.
func diagnose(err error, check string) (about, cure string) {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		return "DNS", "check the host name and the DNS server of this machine"
	case errors.As(err, &unknown):
		return "TLS", "install the authority of the certificate on this machine, or give HTTPClient a transport that trusts it; send the whole chain"
	case errors.As(err, &name):
		return "TLS", "use a host name that the certificate has"
	case errors.As(err, &invalid):
		return "TLS", "renew the certificate, and check the clock of this machine"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "TLS", "the port does not speak TLS: check the scheme and the port"
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "Client.Timeout"):
		return "latency", "koreauth gives up after " + fetchLimit.String() + ": check the network and the issuer"
	}
	return check, "check that the server runs, the port, and firewalls in between"
}

const useHTTPS = "use https: anyone on the network in between can replace the keys"

// readable reports whether a document came over http from another host.
func (d *document) readable() bool {
	u, err := url.Parse(d.last)
	return d.tls == nil && (err != nil || !loopback.Is(u.Hostname()))
}

// connection checks what an answer tells of the connection and the clocks.
func (r *run) connection(d *document) {
	if d.tls != nil && len(d.tls.PeerCertificates) > 0 {
		left := int(time.Until(d.tls.PeerCertificates[0].NotAfter).Hours() / 24)
		found := fmt.Sprintf("%s, the certificate ends in %d days", tls.VersionName(d.tls.Version), left)
		if left < daysLeft {
			r.add("TLS", levelWarn, found, "renew the certificate")
		} else {
			r.add("TLS", levelOK, found, "")
		}
	} else if d.readable() {
		r.add("TLS", levelWarn, "not used: "+d.last, useHTTPS)
	} else {
		r.add("TLS", levelOK, "not used, on loopback: "+d.last, "")
	}
	took := d.received.Sub(d.sent).Round(time.Millisecond)
	switch {
	case took >= fetchLimit:
		r.add("latency", levelFail, took.String(), "koreauth gives up after "+fetchLimit.String()+": check the network and the issuer")
	case took >= slow:
		r.add("latency", levelWarn, took.String(), "koreauth gives up after "+fetchLimit.String()+": check the network and the issuer")
	default:
		r.add("latency", levelOK, took.String(), "")
	}
	r.clock(d)
}

// clock compares the Date of an answer with the clock of this machine. Date has whole
// seconds, and was written at some time between request and answer, so that the
// difference is known as an interval. A cache adds Age, which is not exact.
func (r *run) clock(d *document) {
	date, err := http.ParseTime(d.header.Get("Date"))
	if err != nil {
		r.add("clock", levelWarn, "the issuer sends no Date, so that the clocks cannot be compared", "let the issuer or its proxy send Date (RFC 9110 §6.6.1)")
		return
	}
	least, most := date.Sub(d.received), date.Add(time.Second).Sub(d.sent)
	if age, err := strconv.ParseUint(d.header.Get("Age"), 10, 31); err == nil && age > 0 {
		cached := time.Duration(age) * time.Second
		least, most = least+cached-time.Second, most+cached+time.Second
	}
	found := fmt.Sprintf("the issuer is between %.1f s behind and %.1f s ahead", -least.Seconds(), most.Seconds())
	switch {
	case least >= 0:
		found = fmt.Sprintf("the issuer is %.1f s to %.1f s ahead", least.Seconds(), most.Seconds())
	case most <= 0:
		found = fmt.Sprintf("the issuer is %.1f s to %.1f s behind", -most.Seconds(), -least.Seconds())
	}
	apart := max(least, -most) // at least
	leeway := r.config.Config.Leeway
	switch {
	case apart > leeway+5*time.Second:
		r.add("clock", levelFail, found, "set the clocks with NTP: tokens are rejected or accepted too long")
	case apart > 2*time.Second:
		r.add("clock", levelWarn, found, "set the clocks with NTP, or set Config.Leeway")
	default:
		r.add("clock", levelOK, found, "")
	}
}

func orNone(text string) string {
	if text == "" {
		return "no Content-Type"
	}
	return text
}
