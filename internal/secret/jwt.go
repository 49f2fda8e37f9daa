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
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c != '.' && !isBase64URL(c) }) {
		for more := true; more; {
			var segment string
			segment, word, more = strings.Cut(word, ".")
			if beginsJSON(segment) && (more || len(segment) >= jwtStart) {
				return true
			}
			for i := 1; i+jwtStart <= len(segment); i++ { // after a text such as id_
				if beginsJSON(segment[i:]) {
					return true
				}
			}
		}
	}
	return false
}

func isBase64URL(c rune) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// beginsJSON reports whether a segment is the base64url of a JSON object that has a
// member.
func beginsJSON(segment string) bool {
	if segment == "" || segment[0] != 'e' { // the first six bits of "{"
		return false
	}
	segment = segment[:min(len(segment), jwtStart)]
	var start [jwtStart]byte
	n, _ := base64.RawURLEncoding.Decode(start[:], []byte(segment)) // n is right after an error too
	object, ok := strings.CutPrefix(string(start[:n]), "{")
	object = strings.TrimLeft(object, " \t\r\n")
	return ok && strings.HasPrefix(object, `"`) && !strings.ContainsFunc(object, func(c rune) bool { return c < ' ' && c != '\t' && c != '\r' && c != '\n' || c >= 0x7f })
}
