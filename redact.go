package koreauth

import (
	"strings"
	"unicode/utf8"

	"github.com/koreauth/koreauth/internal/secret"
)

// The limits in bytes for a value that an attacker may have written.
const (
	maxSearched   = 256 // is searched for secrets
	maxUnverified = 64  // is logged
)

// printable returns value, or "" if it looks like a secret.
func printable(value string) string {
	if secret.Like(value) {
		return ""
	}
	return value
}

// redact replaces each word of text that looks like a secret. The error texts of
// this package contain no secrets, but the errors that they wrap may.
func redact(text string) string {
	if !secret.Like(text) {
		return text
	}
	words := strings.Fields(text)
	for i, word := range words {
		if secret.Like(word) {
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
