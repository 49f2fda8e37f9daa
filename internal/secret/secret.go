// Package secret recognizes secrets in texts that are to be logged.
package secret

import (
	"regexp"
	"slices"
	"strings"
)

// jsonStart matches the base64 of `{"` and of the other ways to begin a JSON
// object, as in a JWT, also a truncated one. Each match has one of jsonHints.
var (
	jsonStart = regexp.MustCompile(`eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}`)
	jsonHints = []string{"eyJ", "eyAi", "ewo", "ew0K", "ewk"}
)

// Like reports whether text has an e-mail address or a JWT. The expression
// comes last, because it is slow and an attacker may have written the text.
func Like(text string) bool {
	return strings.Contains(text, "@") || strings.Contains(text, "%40") || hasSegments(text) ||
		slices.ContainsFunc(jsonHints, func(hint string) bool { return strings.Contains(text, hint) }) && jsonStart.MatchString(text)
}

// hasSegments reports whether text has three long segments of base64url.
func hasSegments(text string) bool {
	var first, second, third int // their lengths
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.':
			first, second, third = second, third, 0
		case c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z':
			third++
		default:
			first, second, third = 0, 0, 0
		}
		if first >= 10 && second >= 10 && third >= 20 {
			return true
		}
	}
	return false
}
