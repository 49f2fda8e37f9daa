package koreauth

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxUnverified is the maximum length of a logged value that an attacker may
// have written.
const maxUnverified = 64

// secretLike matches e-mail addresses and JWTs, including truncated ones. It
// recognizes base64 of `{"` and of the other ways to begin a JSON object, and
// three long segments.
var secretLike = regexp.MustCompile(`@|%40|eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}|[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}`)

// printable returns value, or "" if it looks like a secret.
func printable(value string) string {
	if secretLike.MatchString(value) {
		return ""
	}
	return value
}

// redact replaces each word of text that looks like a secret. The error texts of
// this package contain no secrets, but the errors that they wrap may.
func redact(text string) string {
	if !secretLike.MatchString(text) {
		return text
	}
	words := strings.Fields(text)
	for i, word := range words {
		if secretLike.MatchString(word) {
			words[i] = "[redacted]"
		}
	}
	return strings.Join(words, " ")
}

// oneLine redacts the text of an error and joins its lines.
func oneLine(text string) string { return redact(strings.ReplaceAll(text, "\n", "; ")) }

// truncate shortens value to maxUnverified bytes, without cutting a character.
func truncate(value string) string {
	if len(value) <= maxUnverified {
		return value
	}
	end := maxUnverified
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
