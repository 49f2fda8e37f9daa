package introspection

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/authserver"
)

// Config says whom to ask about tokens, and which tokens are valid. Issuer, Audience,
// ClientID and credentials are required. fmt, log/slog and encoding/json print no secret,
// unless the Config is in an unexported field of a struct: fmt prints its members then.
type Config struct {
	// Endpoint is the https URL of the introspection endpoint. If it is empty, it is
	// discovered from the metadata of Issuer: its introspection_endpoint (OpenID Connect
	// Discovery 1.0 §4, RFC 8414 §3).
	Endpoint string
	// Issuer is the exact "iss" of an answer. An answer without "iss" is rejected.
	Issuer string
	// Audience lists the audiences that this API accepts: "aud" of an answer must have
	// one of them.
	Audience []string
	// ClientID and ClientSecret are the credentials of this API at the issuer.
	ClientID     string
	ClientSecret string
	// Secret returns the secret in place of ClientSecret. It is called once for each
	// request, and the result is not kept, so that a secret can be rotated.
	Secret func(context.Context) (string, error)
	// Style is how the credentials are sent. The zero value is Basic.
	Style Style
	// Key signs the assertions of PrivateKeyJWT: an RSA key of at least 2048 bits (RS256),
	// an ECDSA key on P-256, P-384 or P-521 (ES256, ES384, ES512), or an Ed25519 key (EdDSA).
	Key crypto.Signer
	// MaxAge is how long an answer is used. A token that arrives after 70 to 90 % of it is
	// asked about in the background. Zero means 10 seconds. If MaxAge is negative, each
	// token is asked about each time, but requests that wait at the same time share an
	// answer. Answers that a token is not active are used for at most 10 seconds.
	MaxAge time.Duration
	// ServeStale is how long after a good answer its token is still accepted if the issuer
	// does not answer, answers with 429 or 5xx, or rejects the credentials of this API. It has
	// an effect only if it is longer than MaxAge. It does not apply to other unclear answers,
	// or to answers without "exp". A token is never accepted after its "exp" and Leeway.
	// Zero means not at all: 503.
	ServeStale time.Duration
	// ClientIDs lists the accepted clients: "client_id" of an answer or, without it, "azp".
	// If it is empty, all are accepted.
	ClientIDs []string
	// Leeway is the allowed clock skew for "exp" and "nbf". Zero means none.
	Leeway time.Duration
	// Shape reports whether a text may be a token of the issuer, for example by its length
	// and first characters. Others are rejected with koreauth.ErrMalformed, and not asked
	// about. If Shape is nil, every bearer token (RFC 6750 §2.1) may be one.
	Shape func(token string) bool
	// HTTPClient sends the requests. If HTTPClient is nil, a client of its own is used. It is
	// copied, and follows no redirects.
	HTTPClient *http.Client
	// DangerouslyAllowHTTP allows http URLs with any host. Anyone on the network path can
	// then read the secret and the tokens, and forge answers.
	DangerouslyAllowHTTP bool
	// Logger gets a record of each kind of failure at most once a minute. If Logger is nil,
	// nothing is logged.
	Logger *slog.Logger
}

// Style is how a client authenticates at the endpoint.
type Style int

// The styles.
const (
	Basic         Style = iota // HTTP Basic, with both parts form-encoded first (RFC 6749 §2.3.1)
	Post                       // client_id and client_secret in the form (RFC 6749 §2.3.1)
	PrivateKeyJWT              // an assertion signed with Key (RFC 7523 §2.2)
	None                       // client_id alone: HTTPClient has a client certificate (RFC 8705 §2)
)

// faults lists what is wrong, each with its remedy.
func (c *Config) faults() error {
	var faults []error
	add := func(found bool, format string, args ...any) {
		if found {
			faults = append(faults, fmt.Errorf("introspection: Config."+format, args...))
		}
	}
	add(c.Issuer == "", "Issuer is empty: set it to the exact \"iss\" of the tokens")
	if fault := authserver.IssuerFault(c.Issuer, c.DangerouslyAllowHTTP); c.Endpoint == "" && c.Issuer != "" {
		add(fault != "", "Issuer %s", fault)
	}
	if fault := authserver.Fault(c.Endpoint, c.DangerouslyAllowHTTP); c.Endpoint != "" {
		add(fault != "", "Endpoint %s", fault)
	}
	add(len(c.Audience) == 0, "Audience is empty: set it to the audience of this API")
	add(slices.Contains(c.Audience, ""), "Audience has an empty string: remove it")
	add(slices.Contains(c.ClientIDs, ""), "ClientIDs has an empty string: remove it")
	add(c.ClientID == "", "ClientID is empty: set it to the client that this API is at the issuer")
	secrets := c.Style == Basic || c.Style == Post
	add(secrets && c.ClientSecret == "" && c.Secret == nil, "ClientSecret and Secret are empty: set one of them")
	add(c.ClientSecret != "" && c.Secret != nil, "ClientSecret and Secret are both set: remove one of them")
	add(c.Style < Basic || c.Style > None, "Style is unknown: use Basic, Post, PrivateKeyJWT or None")
	add(c.Style == PrivateKeyJWT && c.Key == nil, "Key is nil: set it to the private key of this client")
	add(c.Style == None && c.HTTPClient == nil, "HTTPClient is nil: Style None needs one with a client certificate")
	add(!secrets && (c.ClientSecret != "" || c.Secret != nil), "ClientSecret or Secret is set, and Style does not send it: remove it, or set Style to Basic or Post")
	add(c.Style != PrivateKeyJWT && c.Key != nil, "Key is set, and Style does not use it: remove it, or set Style to PrivateKeyJWT")
	if _, err := algorithmOf(c.Key); c.Key != nil && err != nil {
		add(true, "Key %w", err)
	}
	add(c.ServeStale < 0, "ServeStale is negative: set it to zero, for not at all, or more")
	add(c.Leeway < 0, "Leeway is negative: set it to zero or more")
	return errors.Join(faults...)
}

// String returns the Config without secrets.
func (c Config) String() string {
	return fmt.Sprintf("introspection.Config{Endpoint:%q Issuer:%q ClientID:%q}", authserver.WithoutQuery(c.Endpoint), authserver.WithoutQuery(c.Issuer), c.ClientID)
}

// Format writes what String returns, whatever the verb is.
func (c Config) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue returns what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText writes what String returns.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
