package koreauth

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The limits for a value that an attacker may have written: how much of it is
// searched for secrets, and how much of it is logged.
const (
	maxSearched   = 256
	maxUnverified = 64
)

// jsonStart matches the base64 of `{"` and of the other ways to begin a JSON
// object, as in a JWT, also a truncated one. Each match has one of jsonHints.
var (
	jsonStart = regexp.MustCompile(`eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}`)
	jsonHints = []string{"eyJ", "eyAi", "ewo", "ew0K", "ewk"}
)

// secretLike reports whether text has an e-mail address or a JWT. The expression
// comes last, because it is slow and an attacker may have written the text.
func secretLike(text string) bool {
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

// printable returns value, or "" if it looks like a secret.
func printable(value string) string {
	if secretLike(value) {
		return ""
	}
	return value
}

// redact replaces each word of text that looks like a secret. Our own error
// texts hold no secrets, but the errors that they wrap may.
func redact(text string) string {
	if !secretLike(text) {
		return text
	}
	words := strings.Fields(text)
	for i, word := range words {
		if secretLike(word) {
			words[i] = "[redacted]"
		}
	}
	return strings.Join(words, " ")
}

// oneLine redacts the text of an error and joins its lines.
func oneLine(text string) string { return redact(strings.ReplaceAll(text, "\n", "; ")) }

// truncate shortens value to size bytes, without cutting a character.
func truncate(value string, size int) string {
	if len(value) <= size {
		return value
	}
	end := size
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
