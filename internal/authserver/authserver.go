// Package authserver sends requests with credentials to the endpoints of an authorization
// server, and discovers them.
package authserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/fetch"
	"github.com/koreauth/koreauth/internal/loopback"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// maxBody is the number of bytes of an answer that are read.
const maxBody = 1 << 20

// ErrTooLarge is the error for an answer that has more.
var ErrTooLarge = errors.New("the answer is larger than 1 MiB")

// Fault says what is wrong with a URL that a secret is sent to, or "".
func Fault(text string, allowHTTP bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return "is not an absolute URL: use the form https://host/path"
	case u.User != nil:
		return "has credentials in it: use ClientID and ClientSecret"
	case u.Fragment != "" || strings.Contains(text, "#"):
		return "has a fragment: remove what begins with #"
	case u.Scheme == "http" && !allowHTTP && !loopback.Is(u.Hostname()):
		return "is http, so that anyone on the network could read the secret: use https"
	case u.Scheme != "https" && u.Scheme != "http":
		return "is not https: use the form https://host/path"
	}
	return ""
}

// IssuerFault says what is wrong with the URL of an issuer, or "".
func IssuerFault(text string, allowHTTP bool) string {
	if strings.Contains(text, "?") {
		return "has a query: remove what begins with ? (RFC 8414 §2)"
	}
	return Fault(text, allowHTTP)
}

// WithoutQuery returns a URL for people: a query may have a secret.
func WithoutQuery(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if u, err := url.Parse(text); err == nil && u.User != nil {
		u.User = nil
		text = u.String()
	}
	return text
}

// Client returns a copy of a client, which may be nil, that follows no redirect: a
// redirect could take the credentials elsewhere.
func Client(c *http.Client) *http.Client {
	own := &http.Client{}
	if c != nil {
		*own = *c
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return own
}

// Answer is what a server answered.
type Answer struct {
	Status     int
	Type       string // the media type, in lower case
	Body       string // without a byte order mark
	RetryAfter time.Duration
}

// Send sends a request. If reading the answer fails, the error comes with an Answer that
// has the status alone. The text of the error has no query of a URL.
func Send(c *http.Client, req *http.Request) (*Answer, error) {
	res, err := c.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer res.Body.Close()
	a := &Answer{Status: res.StatusCode, RetryAfter: fetch.RetryAfter(res.Header)}
	a.Type, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type")) // If there is none, it is "".
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return a, fmt.Errorf("reading the answer: %w", withoutURL(err))
	case len(body) > maxBody:
		return a, ErrTooLarge
	}
	a.Body = strings.TrimPrefix(string(body), "\ufeff") // RFC 8259 §8.1
	return a, nil
}

// requestError is an error of a request without the query of its URL.
type requestError struct {
	text  string
	cause error // of a context, or nil: other errors may quote the request
}

func (e *requestError) Error() string { return e.text }

func (e *requestError) Unwrap() error { return e.cause }

func withoutURL(err error) error {
	failed := &requestError{text: err.Error()}
	if in, ok := errors.AsType[*url.Error](err); ok {
		failed.text = fmt.Sprintf("%s %q: %v", in.Op, WithoutQuery(in.URL), in.Err)
	}
	failed.cause = ContextError(err)
	return failed
}

// ContextError returns the error of a context that err wraps, or nil. Other errors may
// quote a request, so they are not kept.
func ContextError(err error) error {
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known
		}
	}
	return nil
}

// quoted returns a text as %q writes it, without the quotes.
func quoted(text string) string {
	text = strconv.Quote(text)
	return text[1 : len(text)-1]
}

// Forms returns a client's secret as it may appear in requests and in what quotes them: as it
// is, in a form, and in HTTP Basic (RFC 6749 §2.3.1). It returns nil for "".
func Forms(client, secret string) []string {
	if secret == "" {
		return nil
	}
	encoded := url.QueryEscape(secret)
	return []string{secret, quoted(secret), encoded, url.PathEscape(secret), base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(client) + ":" + encoded))}
}

// Redact returns a text for people without the secrets, however short they are, and
// without whatever looks like a token.
func Redact(text string, secrets ...string) string {
	for _, hidden := range secrets {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "[redacted]")
		}
	}
	return redact.Text(text, secrets...)
}

// Discover returns a URL from the metadata of an issuer (OpenID Connect Discovery 1.0
// §4 or, if that has a status 4xx, RFC 8414 §3). member is its name there. config is the
// name of the field that the error tells to set instead. The error comes with the last
// answer, if there is one.
func Discover(ctx context.Context, c *http.Client, issuer, member, config string) (found string, last *Answer, err error) {
	base := strings.TrimRight(issuer, "/")
	u, err := url.Parse(base)
	if err != nil {
		return "", nil, errors.New("Config.Issuer is not a URL")
	}
	second := *u
	second.Path, second.RawPath = "/.well-known/oauth-authorization-server"+u.Path, ""
	for _, place := range []string{base + "/.well-known/openid-configuration", second.String()} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
		if err != nil {
			return "", nil, errors.New("Config.Issuer is not a URL")
		}
		req.Header.Set("Accept", "application/json")
		if last, err = Send(c, req); err != nil {
			return "", last, err
		}
		if last.Status == http.StatusOK {
			found, err := readMetadata(last.Body, issuer, member, config)
			return found, last, err
		}
		if last.Status < 400 || last.Status > 499 {
			break
		}
	}
	return "", last, fmt.Errorf("the metadata of the issuer were not found (status %d): set Config.%s", last.Status, config)
}

func readMetadata(body, issuer, member, config string) (found string, err error) {
	var name string
	r := strictjson.ReadObject(body)
	for r.More() {
		switch r.Name() {
		case "issuer":
			name, _ = r.String()
		case member:
			found, _ = r.String()
		default:
			r.Skip()
		}
	}
	switch err := r.End(); {
	case err != nil:
		return "", errors.New("the metadata of the issuer are not one JSON object")
	case name != issuer: // RFC 8414 §3.3
		return "", fmt.Errorf("the metadata are those of the issuer %.128q: set Config.Issuer to it if it is the right one", name)
	case found == "":
		return "", fmt.Errorf("the metadata of the issuer have no %s: set Config.%s", member, config)
	}
	return found, nil
}
