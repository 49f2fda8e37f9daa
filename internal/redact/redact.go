// Package redact keeps secrets and control characters out of logs and error texts.
package redact

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/koreauth/koreauth/internal/secret"
)

// The maximum lengths of what is logged.
const (
	maxUnverified = 64   // a value that an attacker may have written
	maxVerified   = 256  // a value of a verified token
	maxText       = 1024 // the text of an error
)

// Unverified returns a value that an attacker may have written, in a form that can
// be logged: cut first, so that the rest costs little, and without control
// characters. It returns "" if the value looks like a secret.
func Unverified(value string) string { return printable(Truncate(value, maxUnverified)) }

// Verified returns a value of a verified token in a form that can be logged, or "" if
// it looks like a secret.
func Verified(value string) string { return printable(Truncate(value, maxVerified)) }

// printable replaces what is not printable, and returns "" for a secret.
func printable(value string) string {
	if secret.Like(value) {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, value)
}

// Text returns the text of an error on one line, cut, and with each word replaced
// that looks like a secret. Our own error texts hold no secrets, but the errors that
// they wrap may. The words in secrets are replaced wherever they occur.
func Text(text string, secrets ...string) string {
	for _, word := range secrets {
		if len(word) < 8 { // A shorter one may be an ordinary word.
			continue
		}
		for _, form := range []string{word, url.QueryEscape(word), url.PathEscape(word)} {
			text = strings.ReplaceAll(text, form, "[redacted]")
		}
	}
	text = Truncate(strings.ReplaceAll(text, "\n", "; "), maxText)
	if secret.Like(text) {
		words := strings.Fields(text)
		for i, word := range words {
			if secret.Like(word) {
				words[i] = "[redacted]"
			}
		}
		text = strings.Join(words, " ")
	}
	return printable(text)
}

// Truncate cuts value to at most limit bytes, without cutting a character.
func Truncate(value string, limit int) string {
	if len(value) <= limit {
		return value
	}
	end := limit
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
