// Package redact keeps secrets and control characters out of logs and error texts.
package redact

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The maximum lengths of what is logged.
const (
	maxUnverified = 64   // a value that an attacker may have written
	maxVerified   = 256  // a value of a verified token
	maxText       = 1024 // the text of an error
)

// secretLike matches e-mail addresses and JWTs, also truncated ones. It
// recognises base64 of `{"` and of the other ways to begin a JSON object, and
// three long segments.
var secretLike = regexp.MustCompile(`@|%40|eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}|[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}`)

// mayBeSecret reports quickly that secretLike cannot match, which is most often so.
func mayBeSecret(text string) bool {
	return strings.ContainsAny(text, "@%.") || strings.Contains(text, "ey") || strings.Contains(text, "ew")
}

func isSecret(text string) bool { return mayBeSecret(text) && secretLike.MatchString(text) }

// Unverified returns a value that an attacker may have written, in a form that can
// be logged: cut first, so that the rest costs little, and without control
// characters. It returns "" if the value looks like a secret.
func Unverified(value string) string { return printable(Truncate(value, maxUnverified)) }

// Verified returns a value of a verified token in a form that can be logged, or "" if
// it looks like a secret.
func Verified(value string) string { return printable(Truncate(value, maxVerified)) }

// printable replaces what is not printable, and returns "" for a secret.
func printable(value string) string {
	if isSecret(value) {
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
	for _, secret := range secrets {
		if len(secret) < 8 { // A shorter one may be an ordinary word.
			continue
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			text = strings.ReplaceAll(text, form, "[redacted]")
		}
	}
	text = Truncate(strings.ReplaceAll(text, "\n", "; "), maxText)
	if isSecret(text) {
		words := strings.Fields(text)
		for i, word := range words {
			if isSecret(word) {
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
