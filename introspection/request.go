package introspection

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// timeout is how long asking takes at most, with discovery.
const timeout = 2 * time.Second

// asker asks the issuer about tokens, at its endpoint.
type asker struct{ endpoint }

func newAsker(c *Config) *asker {
	a := &asker{endpoint{config: c, client: authserver.Client(c.HTTPClient)}}
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

// newFailure returns a failure, whose text has neither the token nor the secret.
func newFailure(what string, err error, c *Config, token, secret string) *failure {
	hidden := authserver.Forms(c.ClientID, secret)
	switch own := errors.Is(err, errNotClear); {
	case token == "", own && len(token) < 8: // It may be a word of this package's text.
	case own:
		hidden = append(hidden, token)
	default: // An error of a transport may quote the request.
		hidden = append(hidden, authserver.Forms("", token)...)
	}
	if err != nil {
		what += ": " + err.Error()
	}
	return &failure{text: authserver.Redact(what, hidden...)}
}

// ask asks about a token. An error is a *failure, without secrets.
func (a *asker) ask(ctx context.Context, token string) (*verdict, error) {
	place, err := a.url(ctx)
	if err != nil {
		return nil, err
	}
	secret := a.config.ClientSecret
	fail := func(what string, err error) *failure {
		f := newFailure(what, err, a.config, token, secret)
		f.down = true
		return f
	}
	if a.config.Secret != nil {
		if secret, err = a.config.Secret(ctx); err != nil || secret == "" {
			return nil, fail("Config.Secret returned no secret", err)
		}
	}
	req, err := a.request(ctx, place, token, secret)
	if err != nil {
		return nil, fail("the request cannot be made", err)
	}
	answer, err := authserver.Send(a.client, req)
	if err == nil {
		var v *verdict
		if v, err = read(answer); err == nil {
			return v, nil
		}
	}
	code := ""
	if answer != nil && answer.Status != http.StatusOK {
		if code = errorCode(answer.Body); code != "" {
			err = fmt.Errorf("%w: %s", err, code)
		}
	}
	f := fail("introspection", err)
	f.down = !errors.Is(err, errNotClear) && !errors.Is(err, authserver.ErrTooLarge)
	if answer != nil {
		f.credentials = answer.Status == http.StatusUnauthorized || code == "invalid_client" || code == "unauthorized_client"
		f.down = f.down || f.credentials || answer.Status == http.StatusTooManyRequests || answer.Status >= 500
		f.retryAfter = answer.RetryAfter
	}
	a.doubt(ctx)
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
	if c.Style != PrivateKeyJWT { // whose "jti" must not arrive twice
		// Not sent: net/http repeats the request if an idle connection was just closed.
		req.Header["Idempotency-Key"] = nil
	}
	if c.Style == Basic { // RFC 6749 §2.3.1: both are encoded first.
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(secret))
	}
	return req, nil
}
