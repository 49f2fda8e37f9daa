// Package explain describes the checks of a token for people: what was expected,
// what was found, and what to do. It judges nothing.
package explain

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// Step is koreauth.Step.
type Step struct {
	Name     string `json:"name"`
	Rule     string `json:"rule"`
	Want     string `json:"want"`
	Found    string `json:"found"`
	Verdict  string `json:"verdict"`
	Verified bool   `json:"verified"`
	Hint     string `json:"hint"`
}

// The verdicts of a Step.
const (
	Pass    = "pass"
	Fail    = "fail"
	Skipped = "skipped"
	Unknown = "unknown"
)

// Check is one of the checks that every token gets.
type Check int

// The checks in their order.
const (
	Form Check = iota
	Header
	Algorithm
	Key
	Signature
	Payload
	Issuer
	Audience
	Expiry
	NotBefore
	Age
	Type
	Client
	Binding
	NumChecks
)

var checks = [NumChecks]struct{ name, rule string }{
	Form:      {"form", "RFC 7515 §7.1"},
	Header:    {"header", "RFC 7515 §4, RFC 8725 §3.11"},
	Algorithm: {"algorithm", "RFC 8725 §3.1"},
	Key:       {"key", "RFC 7515 §4.1.4"},
	Signature: {"signature", "RFC 7515 §5.2"},
	Payload:   {"payload", "RFC 7519 §7.2"},
	Issuer:    {"issuer", "RFC 7519 §4.1.1"},
	Audience:  {"audience", "RFC 7519 §4.1.3"},
	Expiry:    {"expiry", "RFC 7519 §4.1.4"},
	NotBefore: {"not-before", "RFC 7519 §4.1.5"},
	Age:       {"age", "RFC 7519 §4.1.6"},
	Type:      {"type", "RFC 8725 §3.11"},
	Client:    {"client", "RFC 9068 §2.2"},
	Binding:   {"binding", "RFC 7800 §3"},
}

// Result is how a check ended.
type Result struct {
	Verdict string // empty: it was skipped
	Err     error  // why it failed or is unknown
}

// Token is a token and what its checks found.
type Token struct {
	Text      string
	Header    *jws.Header // nil: not read
	Signature []byte
	Payload   string // empty: not read
	Claims    Claims
	Verified  bool // the signature was verified
	Want      *Want
	Keys      Keys
	Now       time.Time
	Results   [NumChecks]Result
}

// Claims are the claims that are shown.
type Claims struct {
	Issuer, Type, ClientID, Account string
	Audience                        []string
	IssuedAt, NotBefore, Expiry     time.Time
	HasType, Bound                  bool
	CertificateSHA256, KeySHA256    string
	Scopes, Grants, Products        []string
}

// Want is what a Config expects.
type Want struct {
	Issuers, Audience, Algorithms, Clients []string
	Leeway, MaxAge                         time.Duration
}

// Keys are the keys that an issuer has.
type Keys struct {
	Listed bool     // false: a custom key set cannot be listed
	IDs    []string // of the keys
	Of     string   // another issuer that has a key with the token's ID; empty: none
}

// Steps describes the checks in their order.
func (t *Token) Steps() []Step {
	steps := make([]Step, NumChecks)
	for check := range NumChecks {
		steps[check] = t.step(check)
	}
	return steps
}

// step describes one check.
func (t *Token) step(check Check) Step {
	result := t.Results[check]
	s := Step{Name: checks[check].name, Rule: checks[check].rule, Verdict: result.Verdict, Verified: t.Verified}
	if s.Verdict == "" {
		s.Verdict = Skipped
	}
	switch {
	case check <= Header:
		t.form(check, &s)
	case check <= Payload:
		t.signing(check, &s)
	default:
		t.claim(check, &s)
	}
	if s.Verdict == Unknown {
		s.Hint = tryAgain
	}
	if result.Err != nil && s.Verdict != Pass {
		s.Found = join(s.Found, cause(result.Err, t.Text))
	}
	return s
}

// form describes the checks of the text of the token.
func (t *Token) form(check Check, s *Step) {
	if check == Form {
		s.Want = "three segments of base64url, at most 16 KiB"
		s.Found = fmt.Sprintf("%s, %s", count(strings.Count(t.Text, ".")+1, "segment"), count(len(t.Text), "byte"))
		s.Verified = false
		if s.Verdict == Fail {
			s.Hint = formHint(t.Text)
		}
		return
	}
	s.Want = `"typ" of an access token, no extensions`
	if t.Header != nil {
		s.Found = fmt.Sprintf("typ %s, kid %s", t.show(t.Header.Typ), t.show(t.Header.Kid))
		if s.Verdict == Fail {
			s.Hint = headerHint(t.Header.Typ)
		}
	}
}

// signing describes the checks up to the payload.
func (t *Token) signing(check Check, s *Step) {
	switch check {
	case Algorithm:
		s.Want = strings.Join(t.Want.Algorithms, " ")
		if t.Header != nil {
			s.Found = t.show(t.Header.Alg)
			if s.Verdict == Fail {
				s.Hint = algorithmHint(t.Header)
			}
		}
	case Key:
		s.Want = t.wantKey()
		if t.Header != nil {
			s.Found = "kid " + t.show(t.Header.Kid)
		}
		if s.Verdict == Fail {
			s.Hint = t.keyHint()
		}
	case Signature:
		s.Want = "made with a key of the issuer"
		switch {
		case t.Signature != nil && t.Verified:
			s.Found = count(len(t.Signature), "byte") + ", verified"
		case t.Signature != nil:
			s.Found = count(len(t.Signature), "byte")
		}
		if s.Verdict == Fail {
			s.Hint = t.signatureHint()
		}
	case Payload:
		s.Want = "one JSON object without duplicate members"
		s.Found = t.claimNames()
		if s.Verdict == Fail {
			s.Hint = "get a new token; if it is odd too, look at the claim mappers of the issuer"
		}
	}
}

// wantKey tells which keys the issuer has.
func (t *Token) wantKey() string {
	switch ids := t.Keys.IDs; {
	case !t.Keys.Listed:
		return "a key of the issuer"
	case len(ids) == 0:
		return "a key of the issuer, which has none"
	default:
		shown := make([]string, len(ids))
		for i, id := range ids {
			if shown[i] = strconv.Quote(redact.Verified(id)); id == "" {
				shown[i] = "(no ID)"
			}
		}
		return fmt.Sprintf("one of %s: %s", count(len(ids), "key"), redact.List(shown, nil))
	}
}

// claim describes the checks of claims.
func (t *Token) claim(check Check, s *Step) {
	s.Want = t.wanted(check)
	if t.Payload == "" {
		s.Verified = false
		return
	}
	c := &t.Claims
	switch check {
	case Issuer:
		s.Found = t.show(c.Issuer)
	case Audience:
		s.Found = t.showAll(c.Audience)
	case Expiry:
		s.Found = t.moment(c.Expiry)
	case NotBefore:
		s.Found = t.moment(c.NotBefore)
	case Age:
		s.Found = t.moment(c.IssuedAt)
	case Type:
		s.Found = "absent"
		if c.HasType {
			s.Found = t.show(c.Type)
		}
	case Client:
		s.Found = t.show(c.ClientID)
		if c.Account != "" {
			s.Found += ", account " + t.show(c.Account)
		}
	case Binding:
		s.Found = t.binding()
	}
	switch {
	case s.Verdict == Fail:
		s.Hint = t.claimHint(check)
	case s.Verdict == Pass:
		s.Hint = t.timeHint(check)
	}
}

// wanted tells what the Config expects of a claim.
func (t *Token) wanted(check Check) string {
	w := t.Want
	switch check {
	case Issuer:
		return quoted(w.Issuers)
	case Audience:
		return quoted(w.Audience)
	case Expiry:
		return "later than " + t.now() + leeway(w.Leeway)
	case NotBefore:
		return "absent, or not later than " + t.now() + leeway(w.Leeway)
	case Age:
		if w.MaxAge > 0 {
			return "at most " + w.MaxAge.String() + " ago" + leeway(w.Leeway)
		}
		return "anything, because MaxAge is not set"
	case Type:
		return `absent or "Bearer"; "DPoP" if bound to a key`
	case Client:
		if len(w.Clients) > 0 {
			return quoted(w.Clients)
		}
		return "any client"
	case Binding:
		return "not bound, or confirmed by Options.Sender"
	}
	return ""
}

// binding tells what the token is bound to.
func (t *Token) binding() string {
	c := &t.Claims
	switch {
	case !c.Bound:
		return "not bound"
	case c.CertificateSHA256 == "" && c.KeySHA256 == "":
		return `bound in an unknown way ("cnf")`
	}
	var to []string
	if c.CertificateSHA256 != "" {
		to = append(to, "the certificate with SHA-256 "+t.thumbprint(c.CertificateSHA256))
	}
	if c.KeySHA256 != "" {
		to = append(to, "the DPoP key with SHA-256 "+t.thumbprint(c.KeySHA256))
	}
	return "bound to " + strings.Join(to, " and ")
}

// thumbprint shows a SHA-256 in base64url, and nothing else.
func (t *Token) thumbprint(text string) string {
	if raw, err := base64.RawURLEncoding.DecodeString(text); err != nil || len(raw) != sha256.Size {
		return "that is no SHA-256 in base64url"
	}
	return text
}

const (
	requirement = "requirement" // the name of such a step
	tryAgain    = "the token may be valid: try again when the cause is gone"
)

// Requirement describes a condition beside the checks. names are what it requires,
// or the name of its type.
func (t *Token) Requirement(names []string, kind string, result Result) Step {
	s := Step{Name: requirement, Rule: "RFC 6750 §3.1", Want: kind, Verdict: result.Verdict, Verified: t.Verified}
	if len(names) > 0 {
		s.Want = redact.Text(strings.Join(names, ", "))
		s.Found = t.granted()
	}
	switch s.Verdict {
	case "":
		s.Verdict, s.Found = Skipped, "not asked, because the signature was not verified"
	case Unknown:
		s.Hint = tryAgain
	case Fail:
		if len(names) > 0 {
			s.Hint = "grant it to the client at the issuer; if that was done since the token was issued, a new token is needed"
		}
	}
	if result.Err != nil {
		s.Found = join(s.Found, cause(result.Err, t.Text))
	}
	return s
}

// granted lists what the token grants.
func (t *Token) granted() string {
	var parts []string
	for _, kind := range []struct {
		name   string
		values []string
	}{{"scopes", t.Claims.Scopes}, {"grants", t.Claims.Grants}, {"products", t.Claims.Products}} {
		if len(kind.values) > 0 {
			parts = append(parts, kind.name+" "+t.showAll(kind.values))
		}
	}
	if len(parts) == 0 {
		return "no scopes, grants or products"
	}
	return strings.Join(parts, "; ")
}

// Opaque describes a token that is not a JWT, and what validated it.
func Opaque(text string, result Result) []Step {
	form := Step{
		Name: checks[Form].name, Rule: "RFC 6750 §2.1", Verdict: Pass,
		Want:  "three segments, or an opaque token for Config.Opaque",
		Found: "an opaque token, " + count(len(text), "byte"),
	}
	asked := Step{Name: "opaque", Rule: "RFC 7662 §2.2", Want: "accepted by Config.Opaque", Found: "accepted", Verdict: result.Verdict}
	switch asked.Verdict {
	case "":
		form.Verdict, asked.Verdict, asked.Found = Fail, Skipped, "not asked"
		form.Hint = "remove what is not part of the token: it has a character that no bearer token has"
	case Pass:
		asked.Verified = true
	case Unknown:
		asked.Found, asked.Hint = "no answer", tryAgain
	case Fail:
		asked.Found, asked.Hint = "rejected", "get a new token"
	}
	if result.Err != nil && asked.Verdict != Pass {
		asked.Found = join(asked.Found, cause(result.Err, text))
	}
	return []Step{form, asked}
}

// show returns a value of the token in quotes, or a word for why it is not shown.
func (t *Token) show(value string) string {
	if value == "" {
		return "absent"
	}
	form := redact.Unverified
	if t.Verified {
		form = redact.Verified
	}
	if value = form(value); value == "" {
		return "[redacted]"
	}
	return strconv.Quote(value)
}

func (t *Token) showAll(values []string) string {
	if len(values) == 0 {
		return "absent"
	}
	return redact.List(values, t.show)
}

// moment returns a time and how far it is from now.
func (t *Token) moment(at time.Time) string {
	if at.IsZero() {
		return "absent"
	}
	return at.UTC().Format(time.RFC3339) + ", " + t.relative(at)
}

func (t *Token) relative(at time.Time) string {
	switch d := t.Now.Sub(at).Round(time.Second); {
	case t.farOff(at) && d > 0:
		return "more than 290 years ago"
	case t.farOff(at):
		return "in more than 290 years"
	case d > 0:
		return span(d) + " ago"
	case d < 0:
		return "in " + span(-d)
	}
	return "now"
}

func (t *Token) now() string { return t.Now.UTC().Format(time.RFC3339) }

// span returns a duration in days, if it has some.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return count(int(d/day), "day")
	}
	return d.String()
}

func leeway(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return ", Leeway " + d.String()
}

// claimNames lists the names of the claims, without their values.
func (t *Token) claimNames() string {
	if t.Payload == "" {
		return ""
	}
	var names []string
	r := strictjson.ReadObject(t.Payload)
	for r.More() {
		if name := redact.Unverified(r.Name()); name != "" && len(names) < 40 {
			names = append(names, name)
		}
		r.Skip()
	}
	if r.End() != nil {
		return count(len(t.Payload), "byte")
	}
	return redact.Truncate(strings.Join(names, " "), 400)
}

// cause returns the text of an error without the token and the names of class and package.
func cause(err error, token string) string {
	text := err.Error()
	for _, prefix := range []string{"koreauth: ", "invalid token: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return redact.Text(text, token)
}

func join(found, cause string) string {
	if found == "" {
		return cause
	}
	return found + ": " + cause
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func quoted(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return redact.List(values, strconv.Quote)
}
