package explain

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/jws"
)

// formHint says what was probably pasted wrongly.
func formHint(text string) string {
	segments := strings.Count(text, ".") + 1
	start, _, _ := strings.Cut(strings.TrimLeft(text[:min(len(text), 64)], " \t\r\n\"'"), " ")
	switch {
	case text == "":
		return "the token is empty: pass the text after Bearer"
	case strings.EqualFold(strings.TrimSuffix(start, ":"), "Authorization"), strings.EqualFold(start, "Bearer"):
		return "pass only the token: remove what stands before it, such as Bearer"
	case strings.HasPrefix(text, "{"):
		return "this is JSON: pass only the value of access_token"
	case strings.ContainsAny(text[:1], "\"'") || strings.ContainsAny(text[len(text)-1:], "\"',;"):
		return "remove the quotes and other characters around the token"
	case strings.ContainsAny(text, " \t\r\n"):
		return "remove the spaces and line breaks: they are not part of the token"
	case strings.Contains(text, "%2E") || strings.Contains(text, "%2e"):
		return "the token is percent-encoded: decode it first"
	case strings.ContainsAny(text, "+/="):
		return "use base64url without padding (RFC 4648 §5): somebody encoded the token again"
	case segments == 5:
		return "this is an encrypted token (RFC 7516), which is not supported: let the issuer sign only"
	case len(text) > 16<<10:
		return "let the issuer put less into the token: remove mappers that this API does not need"
	case segments < 3 && strings.HasPrefix(text, "eyJ"):
		return "the token was cut: copy the whole token, with all three segments"
	case segments < 3:
		return "this looks like an opaque token: to accept them, set Config.Opaque"
	case segments > 3:
		return "more than one token was pasted, or a dot too many"
	}
	return "the token was cut or changed: copy it again"
}

func headerHint(typ string) string {
	switch name := strings.TrimPrefix(strings.ToLower(typ), "application/"); name {
	case "dpop+jwt":
		return "this is a DPoP proof: send the access token"
	case "logout+jwt", "secevent+jwt", "oauth-authz-req+jwt", "token-introspection+jwt", "client-authentication+jwt":
		return fmt.Sprintf("a token of type %s is not an access token: send the access token", name)
	}
	if strings.EqualFold(typ, "JWT") || strings.HasSuffix(strings.ToLower(typ), "at+jwt") {
		return "the token was changed, or it uses an extension of JWS that is not supported"
	}
	return "send an access token: those of another type are not accepted"
}

func algorithmHint(h *jws.Header) string {
	_, known := jws.Lookup(h.Alg)
	switch {
	case known:
		return fmt.Sprintf("if the issuer signs with %s, add it to Config.Algorithms", h.Alg)
	case strings.EqualFold(h.Alg, "none"):
		return "the token is not signed: anybody could have made it"
	case strings.HasPrefix(h.Alg, "HS"):
		return "tokens signed with a shared secret are not supported: let the issuer use RS256 or ES256"
	}
	return "let the issuer sign with an algorithm of RFC 7518 §3.1 that has a public key, such as RS256"
}

func (t *Token) keyHint() string {
	switch {
	case t.Keys.Of != "":
		return "this is a key of the issuer " + t.Keys.Of + ": the token was made there"
	case t.Header != nil && t.Header.Kid == "" && t.Header.FoldedKid:
		return `the header must spell it "kid"`
	case t.Header != nil && slices.Contains(t.Keys.IDs, t.Header.Kid):
		return "the issuer has this key for another algorithm"
	}
	return "the token is from another issuer or realm, or its key was removed: get a new token"
}

// signatureLengths are those of algorithms whose signatures have one length.
var signatureLengths = map[string]int{"ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64, "Ed25519": 64}

func (t *Token) signatureHint() string {
	want, fixed := signatureLengths[t.Header.Alg]
	if !fixed && len(t.Signature) < 256 {
		want = 256 // RSA, with the smallest key that is accepted.
	}
	if len(t.Signature) < want {
		return fmt.Sprintf("the token was cut: its signature has %d bytes, and %s has at least %d", len(t.Signature), t.Header.Alg, want)
	}
	return "the token was changed after it was signed, or is from an issuer whose key has the same ID"
}

func (t *Token) claimHint(check Check) string {
	switch check {
	case Issuer:
		return issuerHint(t.Claims.Issuer, t.Want.Issuers)
	case Audience:
		return t.audienceHint()
	case Expiry:
		return t.expiryHint()
	case NotBefore:
		return t.notBeforeHint()
	case Age:
		return t.ageHint()
	case Type:
		return typeHint(t.Claims.Type)
	case Client:
		return "add the client to Config.ClientIDs if it may use this API" + near(t.Claims.ClientID, t.Want.Clients)
	case Binding:
		return t.bindingHint()
	}
	return ""
}

// issuerHint says how the issuer differs from one that is expected.
func issuerHint(found string, wanted []string) string {
	if found == "" {
		return `the token has no "iss": it is not an access token of this issuer`
	}
	for _, want := range wanted {
		if difference := differs(found, want); difference != "" {
			return "it differs from Config.Issuer " + difference + ": both must be equal, character by character"
		}
	}
	return `if the token is from the right issuer, set Config.Issuer to its "iss"; else get a token from the expected issuer`
}

// differs says in what two URLs differ, if it is a usual mistake.
func differs(found, want string) string {
	if strings.TrimSpace(found) == strings.TrimSpace(want) {
		return "in a space"
	}
	if strings.TrimRight(found, "/") == strings.TrimRight(want, "/") {
		return "in the slash at the end"
	}
	if strings.EqualFold(found, want) {
		return "in upper and lower case"
	}
	f, err := url.Parse(found)
	w, err2 := url.Parse(want)
	if err != nil || err2 != nil || f.Host == "" || w.Host == "" {
		return ""
	}
	path := func(u *url.URL) string { return strings.TrimRight(u.Path, "/") }
	sameHost := strings.EqualFold(f.Hostname(), w.Hostname())
	switch {
	case sameHost && path(f) == path(w) && f.Scheme != w.Scheme:
		return "in the scheme, http or https"
	case sameHost && path(f) == path(w):
		return "in the port"
	case sameHost && strings.TrimPrefix(path(f), "/auth") == strings.TrimPrefix(path(w), "/auth"):
		return "in /auth, which Keycloak had in its URLs before version 17"
	case sameHost && strings.EqualFold(path(f), path(w)):
		return "in upper and lower case"
	case sameHost:
		return "in the path, for example another realm"
	case path(f) == path(w) && path(w) != "":
		return "in the host, for example an internal name (set hostname at Keycloak)"
	}
	return ""
}

func (t *Token) audienceHint() string {
	found := t.Claims.Audience
	switch {
	case len(found) == 0:
		return `the token has no "aud": add an audience mapper to the client at the issuer`
	case len(found) == 1 && found[0] == "account":
		return `"account" is what Keycloak sets by default: add an audience mapper for this API to the client`
	case slices.Contains(found, t.Claims.ClientID) && len(found) == 1:
		return "the audience is the client itself, as in an ID token: send the access token"
	}
	for _, one := range found {
		if hint := near(one, t.Want.Audience); hint != "" {
			return "names of audiences must be equal" + hint
		}
	}
	return "get a token for this API, or add an audience mapper for it to the client at the issuer"
}

// near says that a value is one of those that are wanted but for case, spaces or a
// slash. It returns "" if there is none.
func near(found string, wanted []string) string {
	normal := func(text string) string { return strings.ToLower(strings.TrimRight(strings.TrimSpace(text), "/")) }
	for _, want := range wanted {
		if found != want && normal(found) == normal(want) {
			return ": this one differs only in case, a space or a slash"
		}
	}
	return ""
}

// skew is up to which difference a clock that is a little wrong is a likely cause, and
// day up to which one a wrong clock is.
const (
	skew = 5 * time.Minute
	day  = 24 * time.Hour
)

// farOff reports whether a time is too far from now for a Duration.
func (t *Token) farOff(at time.Time) bool {
	d := t.Now.Sub(at)
	return d == math.MaxInt64 || d == math.MinInt64
}

const notSeconds = "it is not in seconds, but perhaps in milliseconds (RFC 7519 §2): look at the claim mappers of the issuer"

func (t *Token) expiryHint() string {
	late := t.Now.Sub(t.Claims.Expiry)
	switch {
	case t.Claims.Expiry.IsZero():
		return `the token has no "exp" that is a number, so it would never expire: let the issuer set it`
	case t.farOff(t.Claims.Expiry):
		return notSeconds
	case late < skew:
		return fmt.Sprintf("get a new token; if it is new, the clock of this machine is ahead by %s or more: set the clock, or Config.Leeway", round(late))
	}
	return "get a new token"
}

func (t *Token) notBeforeHint() string {
	early := t.Claims.NotBefore.Sub(t.Now)
	switch {
	case t.Claims.NotBefore.IsZero():
		return `"nbf" must be a number: look at the claim mappers of the issuer`
	case t.farOff(t.Claims.NotBefore):
		return notSeconds
	case early < skew:
		return ahead(early)
	}
	return "wait until then, or get a token that is valid now"
}

func (t *Token) ageHint() string {
	switch early := t.Claims.IssuedAt.Sub(t.Now); {
	case t.Claims.IssuedAt.IsZero():
		return `the token has no "iat" that is a number, which Config.MaxAge needs: let the issuer set it`
	case t.farOff(t.Claims.IssuedAt):
		return notSeconds
	case early > 0:
		return ahead(early)
	}
	return "get a new token: Config.MaxAge is shorter than the life of this one"
}

// timeHint tells of a time that is wrong although nothing is rejected for it.
func (t *Token) timeHint(check Check) string {
	at := map[Check]time.Time{Expiry: t.Claims.Expiry, NotBefore: t.Claims.NotBefore, Age: t.Claims.IssuedAt}[check]
	switch early := at.Sub(t.Now); {
	case at.IsZero():
	case t.farOff(at):
		return notSeconds
	case check == Age && early > time.Second:
		return ahead(early)
	}
	return ""
}

// ahead says what to do about a time that should not be in the future.
func ahead(by time.Duration) string {
	switch {
	case by < skew:
		return fmt.Sprintf("the clock of the issuer is ahead of this machine's by %s or more: set the clocks, or Config.Leeway", round(by))
	case by < day:
		return fmt.Sprintf("the clock of the issuer is ahead of this machine's by %s or more: set the clocks", round(by))
	}
	return "the time is wrong: look at the clock of the issuer and at its claim mappers"
}

// round returns a duration in whole seconds, at least one.
func round(d time.Duration) time.Duration { return max(time.Second, d.Round(time.Second)) }

func typeHint(typ string) string {
	switch typ {
	case "Refresh", "Offline":
		return "this is a refresh token: send the access token"
	case "ID":
		return "this is an ID token: send the access token"
	case "DPoP":
		return `the token says that it is bound to a DPoP key, but "cnf" has no "jkt": look at the mappers of the issuer`
	}
	return "send the access token; the issuer uses this type for other tokens"
}

func (t *Token) bindingHint() string {
	c := &t.Claims
	switch {
	case c.CertificateSHA256 == "" && c.KeySHA256 == "":
		return `let the issuer use "x5t#S256" or "jkt" in "cnf", and nothing else`
	case c.KeySHA256 == "":
		return "set Options.Sender, so that the guard compares the client certificate; without a request it cannot be compared"
	}
	return "set Options.Sender, so that the guard checks the proof of possession; without a request it cannot be checked"
}
