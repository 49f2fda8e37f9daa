// Package fetch gets the documents of an issuer over HTTP, within limits.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The limits of a fetch.
const (
	maxDocument  = 1 << 20
	maxRedirects = 3
)

// Document is the response to a request for metadata or keys.
type Document struct {
	URL    string // redacted, for error texts
	Status int
	Header http.Header
	Body   []byte // only of a 200
}

// OK returns an error unless the status is 200.
func (d *Document) OK() error {
	if d.Status != http.StatusOK {
		return fmt.Errorf("%s: status %d", d.URL, d.Status)
	}
	return nil
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

// Get sends one GET request. With an etag it is a conditional request.
func Get(ctx context.Context, client *http.Client, location, etag string) (*Document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	req.Close = true // No idle connection, and so no goroutine, outlives the fetch.
	from := RedactURL(req.URL)
	res, err := client.Do(req)
	if err != nil {
		var withURL *url.Error // Its text has the whole URL.
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	defer res.Body.Close()
	// The body of a custom transport may ignore the context.
	defer context.AfterFunc(ctx, func() { res.Body.Close() })()
	doc := &Document{from, res.StatusCode, res.Header, nil}
	if res.StatusCode != http.StatusOK {
		return doc, nil // The body of an error response is not read.
	}
	doc.Body, err = io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if len(doc.Body) > maxDocument {
		return nil, fmt.Errorf("%s: the document is larger than 1 MiB", from)
	}
	return doc, nil
}

// Discover returns the URL of the keys from the metadata of the issuer.
func Discover(ctx context.Context, client *http.Client, issuer string, allowHTTP bool) (string, error) {
	base := strings.TrimSuffix(issuer, "/")
	doc, err := Get(ctx, client, base+"/.well-known/openid-configuration", "")
	if err == nil && doc.Status == http.StatusNotFound {
		u, parseErr := url.Parse(base)
		if parseErr != nil {
			return "", parseErr
		}
		// RFC 8414 §3.1: between the host and the path of the issuer.
		doc, err = Get(ctx, client, u.Scheme+"://"+u.Host+"/.well-known/oauth-authorization-server"+u.EscapedPath(), "")
	}
	if err != nil {
		return "", err
	}
	if err := doc.OK(); err != nil {
		return "", err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc.Body, &members); err != nil {
		return "", fmt.Errorf("%s: the metadata is not a JSON object", doc.URL)
	}
	var named, location string
	_ = json.Unmarshal(members["issuer"], &named) // With another type, it stays empty.
	if named != issuer {
		return "", fmt.Errorf(`%s: the metadata is that of another issuer: "issuer" must equal the configured one (RFC 8414 §3.3)`, doc.URL)
	}
	_ = json.Unmarshal(members["jwks_uri"], &location) // With another type, it stays empty.
	if fault := CheckURL(location, allowHTTP); fault != "" {
		return "", fmt.Errorf("%s: jwks_uri %s", doc.URL, fault)
	}
	return location, nil
}

// WithRedirectRules returns a copy of client, which may be nil, that follows at
// most three redirects, and only within one scheme, host and port.
func WithRedirectRules(client *http.Client) *http.Client {
	var restricted http.Client
	if client != nil {
		restricted = *client
	}
	userCheck := restricted.CheckRedirect
	restricted.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("more than three redirects")
		}
		if origin(req.URL) != origin(via[0].URL) {
			return errors.New("redirect to another scheme, host or port")
		}
		req.Close = true
		if userCheck != nil {
			return userCheck(req, via)
		}
		return nil
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

// RedactURL returns a URL without user, password, query and fragment.
func RedactURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// CheckURL says what is wrong with a URL that keys may be fetched from; "" means
// nothing.
func CheckURL(text string, allowHTTP bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an absolute https URL, such as https://keycloak.example.com/realms/KORE-CIDP"
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
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

// isLoopback reports whether host is localhost or a loopback address.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
