package koreauth

import (
	"fmt"
	"strings"
	"sync"

	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// maxToken is the maximum size of a token.
const maxToken = 16 << 10

// parsedToken is a token in its parts (RFC 7515 §3.1).
type parsedToken struct {
	encodedHeader, encodedPayload, encodedSignature string

	whole      string
	signed     string // the signing input (RFC 7515 §5.1)
	header     *tokenHeader
	signature  []byte
	buffer     [256]byte      // for a signature of up to 256 bytes
	content    *verifiedToken // do not trust its claims until verified is true
	payloadErr error          // the payload is not one strict JSON object
	verified   bool           // the signature was verified
	digest     jws.Digest     // of whole
}

// verifiedToken is what is remembered of a token: its claims, and the key that
// verified them.
type verifiedToken struct {
	claims  Claims
	payload string // which the claims were decoded from
	header  *tokenHeader
	key     Key
}

// parsedTokens saves an allocation per request.
var parsedTokens = sync.Pool{New: func() any { return new(parsedToken) }}

// release returns t to the pool. Claims and errors taken from it stay valid: none
// of them points into it.
func (t *parsedToken) release() {
	*t = parsedToken{}
	parsedTokens.Put(t)
}

// split finds the three segments.
func (t *parsedToken) split(token string) error {
	if len(token) > maxToken {
		return errTooLarge
	}
	first := strings.IndexByte(token, '.')
	last := first + 1 + strings.IndexByte(token[first+1:], '.')
	if first < 0 || last == first || strings.IndexByte(token[last+1:], '.') >= 0 {
		return errSegments
	}
	t.encodedHeader, t.encodedPayload, t.encodedSignature = token[:first], token[first+1:last], token[last+1:]
	t.whole, t.signed = token, token[:last]
	return nil
}

// decode decodes the segments from base64url. It returns the text of the header,
// or "" if the header is known.
func (t *parsedToken) decode() (headerText string, err error) {
	headerOK := true
	if t.header == nil {
		headerText, headerOK = jws.DecodeText(t.encodedHeader)
	}
	payload, payloadOK := jws.DecodeText(t.encodedPayload)
	signature, signatureOK := jws.DecodeSegment(t.buffer[:], t.encodedSignature)
	if !headerOK || !payloadOK || !signatureOK {
		t.header = nil
		return "", errBase64
	}
	t.signature = signature
	t.content = &verifiedToken{payload: payload}
	return headerText, nil
}

// refusal returns the rejection of the token for that reason.
func (t *parsedToken) refusal(reason error) *Error {
	refusal := newRefusal(reason)
	refusal.verified = t.verified
	if t.header != nil {
		refusal.KeyID = t.header.kid
	}
	if t.content != nil {
		refusal.Issuer, refusal.ClientID = t.content.claims.Issuer, t.content.claims.ClientID
	}
	return refusal
}

// newRefusal returns the rejection for a reason, which is an *Error or one of
// the reasons for ErrInvalidToken.
func newRefusal(reason error) *Error {
	if refusal, ok := reason.(*Error); ok {
		return refusal
	}
	return &Error{Class: ErrInvalidToken, Reason: reason}
}

// annotate fills in issuer, client and key ID from verified claims, unless the
// rejection already has them. It returns the rejection.
func annotate(refusal *Error, c *Claims) *Error {
	if refusal.Issuer == "" && refusal.ClientID == "" {
		refusal.Issuer, refusal.ClientID, refusal.KeyID, refusal.verified = c.Issuer, c.ClientID, c.extra.kid, true
	}
	return refusal
}

// The errors of the first checks. They are allocated once, because an attacker can
// cause many of them.
var (
	errTooLarge = malformed("larger than 16 KiB")
	errSegments = malformed("not three segments")
	errBase64   = malformed("not base64url without padding")
)

func malformed(cause string) error { return fmt.Errorf("%w: %s", ErrMalformed, cause) }

// tokenHeader is the JOSE header (RFC 7515 §4). Embedded and referenced keys
// ("jwk", "jku", "x5c", "x5u") are not read, because an attacker could put them
// there (RFC 8725 §3.5, §3.10).
type tokenHeader struct {
	alg, kid, typ string
	algorithm     jws.Algorithm // of alg; the zero value if alg is unknown
	wrongType     bool          // "kid" or "typ" is not a string
	extended      bool          // it has "crit" or "b64"
	issuer        string        // "iss" of the token that it was remembered with
}

// readHeader parses the text of a header.
func readHeader(text string) (*tokenHeader, error) {
	h := &tokenHeader{typ: "JWT"}
	algOK, kidOK, typOK := true, true, true
	r := strictjson.ReadObject(text)
	for r.More() {
		switch r.Name() {
		case "alg":
			h.alg, algOK = r.String()
		case "kid":
			h.kid, kidOK = r.String()
		case "typ":
			h.typ, typOK = r.String()
		case "crit", "b64":
			h.extended = true
			r.Skip()
		default:
			r.Skip()
		}
	}
	if err := r.End(); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if !algOK {
		return h, malformed(`"alg" is not a string`)
	}
	h.alg, h.kid, h.typ = strings.Clone(h.alg), strings.Clone(h.kid), strings.Clone(h.typ) // without the rest of text
	h.algorithm, _ = jws.Lookup(h.alg)
	h.wrongType = !kidOK || !typOK
	return h, nil
}

// checkSyntax returns an error if the header has a member of the wrong type or an
// extension.
func (h *tokenHeader) checkSyntax() error {
	switch {
	case h.wrongType:
		return malformed(`"kid" or "typ" is not a string`)
	case h.extended:
		return malformed(`"crit" and "b64" are not supported (RFC 7515 §4.1.11, RFC 7797)`)
	}
	return nil
}

// checkAccessToken returns an error unless "typ" is that of an access token (RFC
// 9068 §2.1, RFC 8725 §3.11), and what checkSyntax returns. Media types are
// case-insensitive (RFC 7515 §4.1.9).
func (h *tokenHeader) checkAccessToken() error {
	if !h.wrongType && !strings.EqualFold(h.typ, "JWT") && !strings.EqualFold(h.typ, "at+jwt") && !strings.EqualFold(h.typ, "application/at+jwt") {
		return fmt.Errorf(`%w: header "typ" is not JWT, at+jwt or application/at+jwt`, ErrTokenType)
	}
	return h.checkSyntax()
}

// accepts reports whether the token may have been signed with the key.
func (h *tokenHeader) accepts(key *Key) bool {
	return (h.kid == "" || h.kid == key.ID) && (key.Algorithm == "" || key.Algorithm == h.alg) && h.algorithm.Accepts(key.Public)
}
