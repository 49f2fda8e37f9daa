package koreauth

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
)

// parsedToken is a token taken apart (RFC 7515 §3.1). Its payload is read
// before the signature is verified, since nothing is read twice; until then it
// decides only whether a fetch is worth it.
type parsedToken struct {
	encodedHeader, encodedPayload, encodedSignature string

	whole      string
	signed     string // what the signature is of (RFC 7515 §5.1)
	headerText string // unless the header is known
	header     *tokenHeader
	claims     *Claims
	signature  []byte
	buffer     [256]byte   // for the signature, if it is no longer
	fresh      *remembered // what will be, if it is good
	seen       *remembered // what is remembered of it, if anything
	payloadErr error       // the payload is not one JSON object
	key        Key         // that made the signature
	verified   bool        // the signature holds

	digest       digest // of the whole token, for the memory
	digestSigned digest // of what is signed
}

// parsedTokens saves making one for each request.
var parsedTokens = sync.Pool{New: func() any { return new(parsedToken) }}

// release ends the use of t. What came of it stays: nothing points into t.
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

// decode decodes the segments: the header only if it is not known already.
func (t *parsedToken) decode() error {
	headerOK := true
	if t.header == nil {
		t.headerText, headerOK = decodeText(t.encodedHeader)
	}
	payload, payloadOK := decodeText(t.encodedPayload)
	signature, signatureOK := decodeSegment(t.buffer[:], t.encodedSignature)
	if !headerOK || !payloadOK || !signatureOK {
		t.header = nil
		return errBase64
	}
	t.signature = signature
	t.fresh = &remembered{payload: payload}
	return nil
}

// parse reads what has been decoded, as far as no key is needed.
func (v *Validator) parse(t *parsedToken) error {
	if t.header == nil {
		t.header = new(tokenHeader)
		if err := t.header.read(t.headerText); err != nil {
			return err
		}
		var accepted bool
		if t.header.algorithm, accepted = v.algorithms[t.header.alg]; !accepted {
			return ErrAlgorithm
		}
		if t.header.fault != nil {
			return t.header.fault
		}
	}
	t.claims = &t.fresh.claims
	t.payloadErr = t.claims.decode(&t.fresh.payload)
	return nil
}

// strictBase64 refuses trailing bits that are not zero (RFC 4648 §3.5): one
// token has one spelling.
var strictBase64 = base64.RawURLEncoding.Strict()

// decodeSegment decodes into buffer, or a larger one if it must.
func decodeSegment(buffer []byte, segment string) ([]byte, bool) {
	size := strictBase64.DecodedLen(len(segment))
	if size > len(buffer) {
		buffer = make([]byte, size)
	}
	n, err := strictBase64.Decode(buffer[:size], []byte(segment))
	// encoding/base64 passes over line breaks. Then there is less than there
	// should be, or the length is one that no encoding has.
	return buffer[:n], err == nil && n == size && len(segment)%4 != 1
}

// decodeText decodes to a string, piece by piece, so that there is no second
// copy of it.
func decodeText(segment string) (string, bool) {
	const piece = 1024
	var buffer [piece / 4 * 3]byte
	var text strings.Builder
	text.Grow(strictBase64.DecodedLen(len(segment)))
	for {
		head := segment[:min(piece, len(segment))]
		decoded, ok := decodeSegment(buffer[:], head)
		if !ok {
			return "", false
		}
		text.Write(decoded)
		if segment = segment[len(head):]; segment == "" {
			return text.String(), true
		}
	}
}

// The faults of a token that are found most cheaply, made once.
var (
	errTooLarge = malformed("larger than 16 KiB")
	errSegments = malformed("not three segments")
	errBase64   = malformed("not base64url without padding")
)

func malformed(cause string) error { return fmt.Errorf("%w: %s", ErrMalformed, cause) }

// tokenHeader is what counts of a JOSE header (RFC 7515 §4). Keys that it embeds
// or points to ("jwk", "jku", "x5c", "x5u") are not even read: whoever forges a
// token could put them there (RFC 8725 §3.5, §3.10).
type tokenHeader struct {
	alg, kid  string
	algorithm algorithm
	fault     error // what is wrong with it, if alg is not
}

func (h *tokenHeader) read(text string) error {
	algOK, kidOK, typOK, extended, typ := true, true, true, false, "JWT"
	r := readObject(text)
	for r.more() {
		switch r.name {
		case "alg":
			h.alg, algOK = r.str()
		case "kid":
			h.kid, kidOK = r.str()
		case "typ":
			typ, typOK = r.str()
		case "crit", "b64":
			extended = true
			r.skip()
		default:
			r.skip()
		}
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if !algOK {
		return malformed(`"alg" is not a string`)
	}
	switch {
	case !kidOK || !typOK:
		h.fault = malformed(`"kid" or "typ" is not a string`)
	case !isAccessTokenType(typ):
		h.fault = fmt.Errorf(`%w: header "typ" is none of JWT, at+jwt and application/at+jwt`, ErrTokenType)
	case extended:
		h.fault = malformed(`"crit" and "b64" are not understood (RFC 7515 §4.1.11, RFC 7797)`)
	}
	return nil
}

// takes reports whether a key is one that the header asks for.
func (h *tokenHeader) takes(key *Key) bool {
	return (h.kid == "" || h.kid == key.ID) && (key.Algorithm == "" || key.Algorithm == h.alg) && h.algorithm.fits(key.Public)
}

// isAccessTokenType compares a header's "typ" (RFC 9068 §2.1, RFC 8725 §3.11);
// media types have no case (RFC 7515 §4.1.9).
func isAccessTokenType(typ string) bool {
	return strings.EqualFold(typ, "JWT") || strings.EqualFold(typ, "at+jwt") || strings.EqualFold(typ, "application/at+jwt")
}
