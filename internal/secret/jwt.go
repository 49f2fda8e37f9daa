package secret

import (
	"encoding/base64"
	"strings"
)

// jwtStart is how many characters of a segment show that it is JSON.
const jwtStart = 12

// HasJWT reports whether text has a JWT, or the header or the payload of one. Unlike
// [Like], it is for values that people enter: e-mail addresses, random identifiers
// and long host names are not JWTs.
func HasJWT(text string) bool {
	begins := true // of a segment
	for i := range len(text) {
		end := i
		for end < len(text) && end < i+jwtStart && isBase64URL(text[end]) {
			end++
		}
		// A short one, which is no coincidence if it is a whole segment before another.
		whole := begins && end < len(text) && text[end] == '.'
		if (whole || end == i+jwtStart) && beginsJSON(text[i:end]) {
			return true
		}
		begins = !isBase64URL(text[i])
	}
	return false
}

func isBase64URL(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// beginsJSON reports whether a segment is the base64url of a JSON object that has a
// member.
func beginsJSON(segment string) bool {
	var start [jwtStart]byte
	n, _ := base64.RawURLEncoding.Decode(start[:], []byte(segment)) // n is right after an error too
	object, ok := strings.CutPrefix(string(start[:n]), "{")
	object = strings.TrimLeft(object, " \t\r\n")
	return ok && strings.HasPrefix(object, `"`) && !strings.ContainsFunc(object, func(c rune) bool { return c < ' ' && c != '\t' && c != '\r' && c != '\n' || c >= 0x7f })
}
