package koreclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/strictjson"
	"github.com/koreauth/koreauth/internal/token68"
)

const (
	maxToken       = 64 << 10
	maxDescription = 256
	maxRetryAfter  = 5 * time.Minute
)

// endpoint is the token endpoint.
type endpoint struct {
	config     *Config
	client     *http.Client
	discovered atomic.Pointer[string] // nil: not yet, or Config.TokenURL is set
}

func newEndpoint(c *Config) *endpoint {
	return &endpoint{config: c, client: authserver.Client(c.HTTPClient)}
}

// fetch gets a new token. An error is an *Error.
func (e *endpoint) fetch(ctx context.Context) (Token, error) {
	place, err := e.place(ctx)
	if err != nil {
		return Token{}, err
	}
	secret := e.config.ClientSecret
	if e.config.Secret != nil {
		if secret, err = e.config.Secret(ctx); err != nil {
			return Token{}, &Error{Description: e.clean("Config.Secret failed: "+err.Error(), secret), cause: err}
		}
		if secret == "" {
			return Token{}, &Error{Description: "Config.Secret returned an empty secret"}
		}
	}
	req, err := e.request(ctx, place, secret)
	if err != nil {
		return Token{}, &Error{Description: e.clean(err.Error(), secret), cause: err}
	}
	start := time.Now()
	answer, err := e.send(req, secret)
	if err == nil {
		var token Token
		if token, err = e.read(answer, secret, start); err == nil {
			return token, nil
		}
	}
	if !err.(*Error).badCredentials() {
		e.discovered.Store(nil) // The endpoint may have moved.
	}
	return Token{}, err
}

// place returns the URL of the token endpoint, which it discovers if necessary.
func (e *endpoint) place(ctx context.Context) (string, error) {
	if e.config.TokenURL != "" {
		return e.config.TokenURL, nil
	}
	if found := e.discovered.Load(); found != nil {
		return *found, nil
	}
	found, err := e.discover(ctx)
	if err == nil {
		e.discovered.Store(&found)
	}
	return found, err
}

// request returns the request for a token (RFC 6749 §4.4.2).
func (e *endpoint) request(ctx context.Context, place, secret string) (*http.Request, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if e.config.Scope != "" {
		form.Set("scope", e.config.Scope)
	}
	if e.config.Resource != "" {
		form.Set("resource", e.config.Resource)
	}
	if e.config.Style == Form {
		form.Set("client_id", e.config.ClientID)
		form.Set("client_secret", secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, place, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if e.config.Style == Basic { // RFC 6749 §2.3.1: both are encoded first.
		req.SetBasicAuth(url.QueryEscape(e.config.ClientID), url.QueryEscape(secret))
	}
	return req, nil
}

// send sends a request. An error is an *Error.
func (e *endpoint) send(req *http.Request, secret string) (*authserver.Answer, error) {
	a, err := authserver.Send(e.client, req)
	if err != nil {
		return nil, e.failed(a, err, secret)
	}
	return a, nil
}

// failed returns the *Error of a request, after the answer or without one.
func (e *endpoint) failed(a *authserver.Answer, err error, secret string) *Error {
	failed := &Error{Description: e.clean(err.Error(), secret), cause: authserver.ContextError(err)}
	if a != nil {
		failed.Status, failed.RetryAfter = a.Status, min(a.RetryAfter, maxRetryAfter)
	}
	return failed
}

// read reads the answer of the token endpoint (RFC 6749 §5). An error is an *Error.
func (e *endpoint) read(a *authserver.Answer, secret string, start time.Time) (Token, error) {
	retryAfter := min(a.RetryAfter, maxRetryAfter)
	failed := func(text string) error {
		return &Error{Status: a.Status, Description: text, RetryAfter: retryAfter}
	}
	var token, kind, code, description string
	var expires time.Duration
	t := Token{}
	r := strictjson.ReadObject(a.Body)
	for r.More() {
		switch r.Name() {
		case "access_token":
			token, _ = r.String()
		case "token_type":
			kind, _ = r.String()
		case "expires_in":
			expires = seconds(r)
		case "scope":
			t.Scope, _ = r.String()
		case "error":
			code, _ = r.String()
		case "error_description":
			description, _ = r.String()
		default:
			r.Skip()
		}
	}
	switch err := r.End(); {
	case err != nil:
		return t, failed(e.clean(fmt.Sprintf("the answer is not one JSON object (%s): %v", orNone(a.Type), err), secret))
	case code != "" || a.Status != http.StatusOK:
		return t, &Error{Status: a.Status, Code: cut(e.clean(code, secret), 64), Description: e.clean(description, secret), RetryAfter: retryAfter}
	case token == "":
		return t, failed("the answer has no access_token")
	case len(token) > maxToken || !token68.Valid(token):
		return t, failed("the access_token has characters that no bearer token has (RFC 6750 §2.1), or is over 64 KiB")
	case kind != "" && !strings.EqualFold(kind, "Bearer"):
		return t, failed(e.clean(fmt.Sprintf("the token is of type %q, not Bearer", cut(kind, 32)), secret))
	}
	t.Value = token
	if life, ok := lifetime(token, start); ok && (expires == 0 || life < expires) {
		expires = life
	}
	if expires > 0 {
		t.Expiry = start.Add(expires)
	}
	return t, nil
}

// seconds reads expires_in, a number or a number in quotes. It returns zero for
// anything else, and if it is not positive.
func seconds(r *strictjson.Reader) time.Duration {
	var text string
	if r.Peek() == '"' {
		text, _ = r.String()
	} else {
		text = r.Raw()
	}
	const most = 100 * 365 * 24 * time.Hour
	if text = strings.TrimSpace(text); strings.Trim(text, "0123456789.eE+-") != "" {
		return 0 // Not a number, or "inf".
	}
	n, _ := strconv.ParseFloat(text, 64) // If it is too large, n is infinite.
	if n >= most.Seconds() {
		return most
	}
	return max(0, time.Duration(n*float64(time.Second)))
}

// discover returns the URL of the token endpoint from the metadata of the issuer. An
// error is an *Error.
func (e *endpoint) discover(ctx context.Context) (string, error) {
	found, last, err := authserver.Discover(ctx, e.client, e.config.Issuer, "token_endpoint", "TokenURL")
	if fault := authserver.Fault(found, false); err == nil && fault != "" {
		err = errors.New("the token_endpoint in the metadata of the issuer " + fault)
	}
	if err != nil {
		return "", e.failed(last, err, "")
	}
	return found, nil
}

// clean returns a text for people, in at most 256 bytes, without the secret and
// without whatever looks like a token. The text is cut last, so that no part of the
// secret is left.
func (e *endpoint) clean(text, secret string) string {
	return cut(authserver.Redact(text, authserver.Forms(e.config.ClientID, secret)...), maxDescription)
}

func cut(text string, limit int) string { return redact.Truncate(text, limit) }

func orNone(text string) string {
	if text == "" {
		return "no Content-Type"
	}
	return text
}
