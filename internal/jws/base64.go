package jws

import (
	"encoding/base64"
	"strings"
)

// strictBase64 rejects trailing bits that are not zero (RFC 4648 §3.5), so that
// data has only one encoding.
var strictBase64 = base64.RawURLEncoding.Strict()

// DecodeSegment decodes a segment into buffer or, if that is too small, into a new slice.
func DecodeSegment(buffer []byte, segment string) ([]byte, bool) {
	size := strictBase64.DecodedLen(len(segment))
	if size > len(buffer) {
		buffer = make([]byte, size)
	}
	n, err := strictBase64.Decode(buffer[:size], []byte(segment))
	// encoding/base64 ignores line breaks. With one, the result is too short, or
	// the length of the segment is one that no encoding has.
	return buffer[:n], err == nil && n == size && len(segment)%4 != 1
}

// DecodeText decodes a segment to a string in pieces, which saves a copy of the whole.
func DecodeText(segment string) (string, bool) {
	const piece = 1024
	var buffer [piece / 4 * 3]byte
	var text strings.Builder
	text.Grow(strictBase64.DecodedLen(len(segment)))
	for {
		head := segment[:min(piece, len(segment))]
		decoded, ok := DecodeSegment(buffer[:], head)
		if !ok {
			return "", false
		}
		text.Write(decoded)
		if segment = segment[len(head):]; segment == "" {
			return text.String(), true
		}
	}
}
