package koreauth

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

// discover asks the issuer where its keys are.
func (s *RemoteKeySet) discover(ctx context.Context) (string, error) {
	issuer := strings.TrimSuffix(s.Issuer, "/")
	resp, err := s.get(ctx, issuer+"/.well-known/openid-configuration", "")
	if err == nil && resp.status == http.StatusNotFound {
		u, parseErr := url.Parse(issuer)
		if parseErr != nil {
			return "", parseErr
		}
		// RFC 8414 §3.1: between the host and the issuer's path.
		resp, err = s.get(ctx, u.Scheme+"://"+u.Host+"/.well-known/oauth-authorization-server"+u.EscapedPath(), "")
	}
	if err != nil {
		return "", err
	}
	if err := resp.ok(); err != nil {
		return "", err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(resp.body, &members); err != nil {
		return "", fmt.Errorf("%s: the metadata are not a JSON object", resp.place)
	}
	var named, location string
	_ = json.Unmarshal(members["issuer"], &named) // What is no string is not the issuer.
	if named != s.Issuer {
		return "", fmt.Errorf(`%s: the metadata are of another issuer: "issuer" must equal the configured one (RFC 8414 §3.3)`, resp.place)
	}
	_ = json.Unmarshal(members["jwks_uri"], &location) // What is no string is no URL.
	if fault := checkURL(location, s.DangerouslyAllowHTTP); fault != "" {
		return "", fmt.Errorf("%s: jwks_uri %s", resp.place, fault)
	}
	return location, nil
}

// response is a document as it came.
type response struct {
	place  string
	status int
	header http.Header
	body   []byte
}

func (r *response) ok() error {
	if r.status != http.StatusOK {
		return fmt.Errorf("%s: status %d", r.place, r.status)
	}
	return nil
}

// get fetches one document.
func (s *RemoteKeySet) get(ctx context.Context, location, etag string) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	req.Close = true // Nothing is left running between fetches.
	at := place(req.URL)
	res, err := s.client().Do(req)
	if err != nil {
		var told *url.Error // with the whole URL
		if errors.As(err, &told) {
			err = told.Err
		}
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	defer res.Body.Close()
	// A body that a wrapper gives may not heed the context by itself.
	defer context.AfterFunc(ctx, func() { res.Body.Close() })()
	answer := &response{at, res.StatusCode, res.Header, nil}
	if res.StatusCode != http.StatusOK {
		return answer, nil // What it says is for people.
	}
	answer.body, err = io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if len(answer.body) > maxDocument {
		return nil, fmt.Errorf("%s: the document is larger than 1 MiB", at)
	}
	return answer, nil
}

// place is a URL without what may be secret in it.
func place(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// client copies the caller's client, to bind its redirects.
func (s *RemoteKeySet) client() *http.Client {
	var client http.Client
	if s.HTTPClient != nil {
		client = *s.HTTPClient
	}
	callersCheck := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("more than three redirects")
		}
		if origin(req.URL) != origin(via[0].URL) {
			return errors.New("redirect to another scheme, host or port")
		}
		req.Close = true
		if callersCheck != nil {
			return callersCheck(req, via)
		}
		return nil
	}
	return &client
}

// origin is the scheme, host and port of a URL (RFC 6454 §4).
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// freshness is how long keys need no refresh.
func (s *RemoteKeySet) freshness(header http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		// RFC 9111 §1.2.2: what is too large for us is very long.
		seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
		if errors.Is(err, strconv.ErrRange) {
			return s.age()
		}
		if err == nil {
			return min(max(time.Duration(seconds)*time.Second, s.interval()), s.age())
		}
	}
	return s.age()
}

// checkURL says what is wrong with a URL that keys may come from.
func checkURL(text string, allowHTTP bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an absolute https URL, such as https://keycloak.example.com/realms/KORE-CIDP"
	case u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		return "is http, over which anybody between can forge keys: use https (or DangerouslyAllowHTTP)"
	}
	return ""
}

// checkIssuerURL says what is wrong with an issuer whose metadata are wanted.
func checkIssuerURL(text string, allowHTTP bool) string {
	if fault := checkURL(text, allowHTTP); fault != "" {
		return fault
	}
	if strings.ContainsAny(text, "?#") {
		return "has a query or a fragment, which an issuer URL must not (RFC 8414 §2)"
	}
	return ""
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
