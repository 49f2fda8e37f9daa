package introspection

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// timeout is how long asking takes at most, with discovery.
const timeout = 2 * time.Second

// asker asks the issuer about tokens.
type asker struct {
	config     *Config
	client     *http.Client
	discovered atomic.Pointer[string] // nil: not yet, or Config.Endpoint is set
}

func newAsker(c *Config) *asker {
	a := &asker{config: c, client: authserver.Client(c.HTTPClient)}
	if transport, ok := http.DefaultTransport.(*http.Transport); ok && c.HTTPClient == nil {
		transport = transport.Clone()
		transport.MaxIdleConnsPerHost = maxInFlight
		a.client.Transport = transport
	}
	return a
}

// failure is why there is no clear answer.
type failure struct {
	text        string
	down        bool // the issuer is down, or rejects this client
	credentials bool // it rejects the credentials of this client
	retryAfter  time.Duration
}

func (f *failure) Error() string { return f.text }

// ask asks about a token. An error is a *failure, without secrets.
func (a *asker) ask(ctx context.Context, token string) (*verdict, error) {
	place, err := a.place(ctx, token)
	if err != nil {
		return nil, err
	}
	secret := a.config.ClientSecret
	if a.config.Secret != nil {
		if secret, err = a.config.Secret(ctx); err != nil || secret == "" {
			return nil, a.failed("Config.Secret returned no secret", err, true, token, secret)
		}
	}
	req, err := a.request(ctx, place, token, secret)
	if err != nil {
		return nil, a.failed("the request cannot be made", err, true, token, secret)
	}
	answer, err := authserver.Send(a.client, req)
	if err != nil {
		return nil, a.failed("no answer", err, true, token, secret)
	}
	v, err := read(answer)
	if err == nil {
		return v, nil
	}
	status, code := answer.Status, ""
	if status != http.StatusOK {
		a.discovered.Store(nil) // The endpoint may have moved.
		if code = errorCode(answer.Body); code != "" {
			err = fmt.Errorf("%w: %s", err, code)
		}
	}
	credentials := status == http.StatusUnauthorized || code == "invalid_client" || code == "unauthorized_client"
	f := a.failed("introspection", err, credentials || status == http.StatusTooManyRequests || status >= 500, token, secret)
	f.credentials, f.retryAfter = credentials, answer.RetryAfter
	return nil, f
}

// errorCode returns the "error" of an answer (RFC 6749 §5.2), or "".
func errorCode(body string) string {
	code, err := strictjson.Text(body, "error")
	if err != nil || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return code
}

// failed returns a failure. Neither the token nor the secret is in its text.
func (a *asker) failed(what string, err error, down bool, token, secret string) *failure {
	if err != nil {
		what += ": " + err.Error()
	}
	return &failure{text: authserver.Redact(what, append(authserver.Forms(a.config.ClientID, secret), token)...), down: down}
}

// place returns the URL of the endpoint, which it discovers if necessary.
func (a *asker) place(ctx context.Context, token string) (string, error) {
	if a.config.Endpoint != "" {
		return a.config.Endpoint, nil
	}
	if found := a.discovered.Load(); found != nil {
		return *found, nil
	}
	found, last, err := authserver.Discover(ctx, a.client, a.config.Issuer, "introspection_endpoint", "Endpoint")
	if fault := authserver.Fault(found, a.config.DangerouslyAllowHTTP); err == nil && fault != "" {
		err = fmt.Errorf("the introspection_endpoint in the metadata of the issuer %s", fault)
	}
	if err != nil {
		f := a.failed("discovery", err, true, token, "")
		if last != nil {
			f.retryAfter = last.RetryAfter
		}
		return "", f
	}
	a.discovered.Store(&found)
	return found, nil
}

// request returns the request about a token (RFC 7662 §2.1).
func (a *asker) request(ctx context.Context, place, token, secret string) (*http.Request, error) {
	c := a.config
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if c.Style != Basic {
		form.Set("client_id", c.ClientID)
	}
	switch c.Style {
	case Post:
		form.Set("client_secret", secret)
	case PrivateKeyJWT:
		signed, err := assertion(c.Key, c.ClientID, c.Issuer, time.Now())
		if err != nil {
			return nil, fmt.Errorf("Config.Key: %w", err)
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", signed)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, place, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the endpoint is not a URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if c.Style == Basic { // RFC 6749 §2.3.1: both are encoded first.
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(secret))
	}
	return req, nil
}
