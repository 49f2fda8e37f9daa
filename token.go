package koreauth

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/koreauth/koreauth/internal/explain"
	"github.com/koreauth/koreauth/internal/jws"
)

// maxToken is the maximum size of a token.
const maxToken = 16 << 10

// parsedToken is a token in its parts (RFC 7515 §3.1).
type parsedToken struct {
	encodedHeader, encodedPayload, encodedSignature string

	whole      string
	signed     string // the signing input (RFC 7515 §5.1)
	header     *jws.Header
	signature  []byte
	buffer     [256]byte      // for a signature of up to 256 bytes
	content    *verifiedToken // do not trust its claims until verified is true
	payloadErr error          // the payload is not one strict JSON object
	verified   bool           // the signature was verified
	expected   *explain.Want  // by the issuer of the token, or nil
}

// verifiedToken is what is remembered of a token: its claims, and the key that
// verified them.
type verifiedToken struct {
	claims  Claims
	payload string // which the claims were decoded from
	header  *jws.Header
	key     Key
	keyIn   atomic.Uint64 // the last snapshot that was found to have the key
}

// bytes returns how much memory a remembered token takes at most.
func (t *verifiedToken) bytes() int {
	return overhead + allocated(len(t.payload)) + allocated(len(t.header.Kid)) + allocated(len(t.header.Typ)) + claimBytes(&t.claims)
}

// claimBytes returns how much memory the strings and lists of claims take at most. Strings
// are counted although most of them are parts of the payload.
func claimBytes(c *Claims) int {
	size := 0
	for _, list := range [][]string{c.Audience, c.Scopes, c.IPRanges, c.Products} {
		size += allocated(16 * cap(list))
		for _, text := range list {
			size += allocated(len(text))
		}
	}
	size += allocated(40 * cap(c.Resources))
	for _, r := range c.Resources {
		size += allocated(len(r.Name)) + allocated(16*cap(r.Access))
		for _, a := range r.Access {
			size += allocated(len(a))
		}
	}
	if bound := c.Confirmation; bound != nil {
		size += allocated(32) + allocated(len(bound.CertificateSHA256)) + allocated(len(bound.KeySHA256))
	}
	for _, text := range []string{c.Issuer, c.Subject, c.ID, c.ClientID, c.AccountID, c.ClientType, c.ClientOwner, c.extra.typ} {
		size += allocated(len(text))
	}
	return size
}

// allocated returns what an allocation of n bytes takes at most, since it is rounded up.
func allocated(n int) int { return n + n/8 + min(n, 15) }

// overhead is the size of a verifiedToken, its header and the entry that refers to it.
var overhead = int(reflect.TypeFor[verifiedToken]().Size()+reflect.TypeFor[jws.Header]().Size()) + 384

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

// tryKeys verifies the signature with the candidates among keys.
func (t *parsedToken) tryKeys(keys []Key) error {
	candidates, err := candidates(t.header, keys)
	if err != nil {
		return err
	}
	for _, key := range candidates {
		if key != nil && t.header.Algorithm.Verify(key.Public, t.signed, t.signature) {
			t.verified, t.content.key = true, *key
			return nil
		}
	}
	return ErrSignature
}

// verifiedWith returns nil if one of the keys verified the token, and errKeyGone or
// another error if not.
func (t *verifiedToken) verifiedWith(keys []Key) error {
	candidates, err := candidates(t.header, keys)
	if err == nil && !slices.ContainsFunc(candidates[:], func(k *Key) bool { return k != nil && t.key.equal(k) }) {
		err = errKeyGone
	}
	return err
}

var errKeyGone = errors.New("koreauth: the key that verified a remembered token is gone")

// refusal returns the rejection of the token for that reason.
func (t *parsedToken) refusal(reason error) *Error {
	refusal := newRefusal(reason)
	refusal.verified = t.verified
	if t.content == nil {
		return refusal
	}
	about := &subject{claims: &t.content.claims, expected: t.expected}
	if t.header != nil {
		refusal.KeyID, about.alg, about.typ = t.header.Kid, t.header.Alg, t.header.Typ
	}
	refusal.Issuer, refusal.ClientID, refusal.about = about.claims.Issuer, about.claims.ClientID, about
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
// rejection already has them. It returns the rejection. want may be nil.
func annotate(refusal *Error, c *Claims, want *explain.Want) *Error {
	if refusal.Issuer == "" && refusal.ClientID == "" {
		refusal.Issuer, refusal.ClientID, refusal.KeyID, refusal.verified = c.Issuer, c.ClientID, c.extra.kid, true
		refusal.about = &subject{claims: c, expected: want}
	}
	return refusal
}

// The errors of the first checks. They are allocated once, because an attacker can
// cause many of them.
var (
	errTooLarge   = malformed(errors.New("larger than 16 KiB"))
	errSegments   = malformed(errors.New("not three segments"))
	errBase64     = malformed(errors.New("not base64url without padding"))
	errHeaderType = fmt.Errorf(`%w: header "typ" is not JWT, at+jwt, application/jwt or application/at+jwt`, ErrTokenType)
)

func malformed(cause error) error { return fmt.Errorf("%w: %w", ErrMalformed, cause) }

// checkHeader returns an error if the header has a member of the wrong type, an
// extension, or a "typ" other than those of access tokens (RFC 9068 §2.1, RFC 8725
// §3.11). Media types are case-insensitive (RFC 7515 §4.1.9).
func checkHeader(h *jws.Header) error {
	if !h.WrongType && !slices.ContainsFunc(headerTypes, func(typ string) bool { return strings.EqualFold(h.Typ, typ) }) {
		return errHeaderType
	}
	if err := h.Check(); err != nil {
		return malformed(err)
	}
	return nil
}

var headerTypes = []string{"JWT", "at+jwt", "application/at+jwt", "application/jwt"}

// maxTried is the maximum number of keys that are tried for a token, which limits
// the work for a forged one.
const maxTried = 4

// candidates returns the keys that may have signed the token: of those whose ID is
// "kid" or, if there is none, those without an ID, the keys that fit "alg". Without
// "kid", any key may have. Equal keys are returned once.
func candidates(h *jws.Header, keys []Key) (found [maxTried]*Key, err error) {
	if h.Kid == "" && h.FoldedKid {
		return found, errFoldedKid // It does name a key, so that not just any key will do.
	}
	named := h.Kid != "" && slices.ContainsFunc(keys, func(k Key) bool { return k.ID == h.Kid })
	n := 0
	for i := range keys {
		key := &keys[i]
		switch {
		case named && key.ID != h.Kid, h.Kid != "" && !named && key.ID != "":
		case !fits(h, key), slices.ContainsFunc(found[:n], func(k *Key) bool { return jws.SameKey(k.Public, key.Public) }):
		case n == maxTried:
			return found, errTooManyKeys
		default:
			found[n] = key
			n++
		}
	}
	if n == 0 {
		return found, ErrUnknownKey
	}
	return found, nil
}

var (
	errTooManyKeys = fmt.Errorf(`%w: more than four keys could have signed the token: publish them with a "kid"`, ErrUnknownKey)
	errFoldedKid   = fmt.Errorf(`%w: "kid" is spelled in another case`, ErrUnknownKey)
)

// fits reports whether the key can be used with "alg". EdDSA with an Ed25519 key is
// also called Ed25519 (RFC 9864 §2.2).
func fits(h *jws.Header, key *Key) bool {
	return (key.Algorithm == "" || jws.SameAlgorithm(key.Algorithm, h.Alg)) && h.Algorithm.Accepts(key.Public)
}
