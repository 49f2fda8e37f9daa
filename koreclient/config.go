package koreclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
)

// Config says where a [Client] gets its tokens. TokenURL or Issuer, ClientID, and
// ClientSecret or Secret are required. fmt, log/slog and encoding/json print no
// secret.
type Config struct {
	// TokenURL is the URL of the token endpoint (RFC 6749 §3.2). It must be https,
	// unless the host is on loopback.
	TokenURL string
	// Issuer is the URL of the issuer, whose metadata name the token endpoint (OpenID
	// Connect Discovery 1.0 §4, else RFC 8414 §3). It is not used if TokenURL is set.
	Issuer string
	// ClientID is the "client_id" (RFC 6749 §2.2).
	ClientID string
	// ClientSecret is the secret of the client (RFC 6749 §2.3.1).
	ClientSecret string
	// Secret is called before each fetch and returns the secret, which is not kept, so
	// that it can be rotated. It must return when the context is done. Set either
	// ClientSecret or Secret.
	Secret func(context.Context) (string, error)
	// Style says how the credentials are sent. The zero value is Form.
	Style Style
	// Scope is the requested scope (RFC 6749 §3.3). If Scope is empty, the issuer
	// chooses.
	Scope string
	// Resource is the "resource" parameter (RFC 8707 §2). If Resource is empty, it is
	// not sent.
	Resource string
	// HTTPClient sends the requests to the token endpoint. It is copied; it follows no
	// redirect. If HTTPClient is nil, a client on http.DefaultTransport is used. A
	// fetch takes at most 10 seconds, whatever the client does.
	HTTPClient *http.Client
	// RefreshAfter is the age at which a token is replaced in the background even if it
	// lives longer, for example because the scopes of the client may have changed. Zero
	// means never.
	RefreshAfter time.Duration
	// Logger gets a warning for each fetch in the background that fails. If Logger is
	// nil, nothing is logged.
	Logger *slog.Logger
}

// Style says how the credentials of the client are sent (RFC 6749 §2.3.1).
type Style int

const (
	// Form sends them in the form, as KORE's endpoint requires.
	Form Style = iota
	// Basic sends them in the Authorization header, by HTTP Basic.
	Basic
)

// New returns a client. It makes no request: the first token is fetched when it is
// needed. The error lists all faults of the Config, joined.
func New(c Config) (*Client, error) {
	if faults := c.faults(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Client{config: c, endpoint: newEndpoint(&c)}, nil
}

// faults lists what is wrong, each with its remedy.
func (c *Config) faults() (faults []error) {
	add := func(found bool, text string) {
		if found {
			faults = append(faults, errors.New("koreclient: Config."+text))
		}
	}
	add(c.TokenURL == "" && c.Issuer == "", "TokenURL and Issuer are empty: set one of them")
	for _, u := range []struct{ name, text string }{{"TokenURL", c.TokenURL}, {"Issuer", c.Issuer}} {
		if u.text == "" {
			continue
		}
		if fault := authserver.Fault(u.text, false); fault != "" {
			add(true, u.name+" "+fault)
		}
	}
	add(strings.Contains(c.Issuer, "?"), "Issuer has a query: remove what begins with ? (RFC 8414 §2)")
	add(c.ClientID == "", "ClientID is empty: set it to the client_id that KORE gave you")
	add(c.ClientSecret == "" && c.Secret == nil, "ClientSecret and Secret are empty: set one of them")
	add(c.ClientSecret != "" && c.Secret != nil, "ClientSecret and Secret are both set: remove one of them")
	add(c.Style != Form && c.Style != Basic, "Style is unknown: use Form or Basic")
	add(c.RefreshAfter < 0, "RefreshAfter is negative: set it to zero, for never, or more")
	add(strings.ContainsFunc(c.Scope, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }),
		"Scope has a character that no scope can have (RFC 6749 §3.3): separate scopes by spaces")
	return faults
}

// String returns the Config without secrets.
func (c Config) String() string {
	return fmt.Sprintf("koreclient.Config{TokenURL:%q Issuer:%q ClientID:%q}", authserver.WithoutQuery(c.TokenURL), authserver.WithoutQuery(c.Issuer), c.ClientID)
}

// Format writes what String returns, whatever the verb is.
func (c Config) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue returns what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON writes what String returns, as a string.
func (c Config) MarshalJSON() ([]byte, error) { return quote(c.String()) }

// hostPort returns the host of a URL in lower case, with its port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
