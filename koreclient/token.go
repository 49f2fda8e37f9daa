package koreclient

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/strictjson"
)

// Token is an access token. fmt, log/slog and encoding/json do not print its value.
type Token struct {
	Value  string    // the token, for the Authorization header
	Expiry time.Time // when it expires, by the clock of this machine; zero: unknown, so it was given out for one use
	Scope  string    // the granted scope; empty: the one that was requested (RFC 6749 §5.1)
}

// String returns the token without its value.
func (t Token) String() string {
	if t.Value == "" {
		return "koreclient.Token{}"
	}
	return fmt.Sprintf("koreclient.Token{Value:[redacted] Expiry:%s Scope:%q}", t.Expiry.Format(time.RFC3339), t.Scope)
}

// Format writes what String returns, whatever the verb is.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue returns what String returns.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON writes what String returns, as a string.
func (t Token) MarshalJSON() ([]byte, error) { return quote(t.String()) }

func quote(text string) ([]byte, error) { return json.Marshal(text) }

// lifetime returns how long a JWT lives: "exp" minus "iat", which does not depend on a
// clock, or else how far "exp" is away. It returns false if the token does not tell.
func lifetime(token string, now time.Time) (time.Duration, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0, false
	}
	var issued, expiry time.Time
	r := strictjson.ReadObject(string(payload))
	for r.More() {
		switch r.Name() {
		case "exp":
			expiry = strictjson.NumericDate(r)
		case "iat":
			issued = strictjson.NumericDate(r)
		default:
			r.Skip()
		}
	}
	if r.End() != nil || expiry.IsZero() {
		return 0, false
	}
	if issued.IsZero() {
		issued = now
	}
	return expiry.Sub(issued), true
}
