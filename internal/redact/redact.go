// Package redact keeps secrets and control characters out of logs and error texts.
package redact

import (
	"encoding/hex"
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
func Unverified(value string) string { return cut(value, maxUnverified) }

// Verified returns a value of a verified token in a form that can be logged, or "" if
// it looks like a secret.
func Verified(value string) string { return cut(value, maxVerified) }

// cut cuts a value before it looks at it, and again after it replaced characters.
func cut(value string, limit int) string {
	return Truncate(printable(Truncate(value, limit)), limit)
}

// List joins up to four values, each in a form for the log; nil: as they are.
func List(values []string, form func(string) string) string {
	var shown []string
	for i, value := range values {
		if i == 4 {
			shown = append(shown, "…")
			break
		}
		if form != nil {
			value = form(value)
		}
		shown = append(shown, value)
	}
	return strings.Join(shown, " ")
}

// Scheme describes the Authorization headers of a request without a token. It returns
// the scheme only if credentials follow it, because it may be a token by itself.
func Scheme(lines []string) string {
	if len(lines) == 0 || strings.Trim(lines[0], " ") == "" {
		return "absent"
	}
	scheme, _, found := strings.Cut(Truncate(strings.TrimLeft(lines[0], " "), maxScheme+1), " ")
	if !found || scheme == "" || strings.ContainsFunc(scheme, func(c rune) bool { return c > unicode.MaxASCII || !unicode.IsLetter(c) && c != '-' }) {
		return "without a scheme"
	}
	return scheme
}

const maxScheme = 16 // the length of a scheme that is shown

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
	for _, secret := range secrets {
		if len(secret) < 8 { // A shorter one may be an ordinary word.
			continue
		}
		text = strings.ReplaceAll(text, secret, "[redacted]")
		if holds(text, secret) {
			text = inWords(text, func(word string) bool { return holds(word, secret) })
		}
	}
	text = Truncate(strings.ReplaceAll(text, "\n", "; "), maxText)
	if secret.Like(text) {
		text = inWords(text, secret.Like)
	}
	return printable(text)
}

// inWords replaces the words that are secret.
func inWords(text string, secret func(word string) bool) string {
	words := strings.Fields(text)
	for i, word := range words {
		if secret(word) {
			words[i] = "[redacted]"
		}
	}
	return strings.Join(words, " ")
}

// holds reports whether text has a secret, also one that was percent-encoded (RFC 3986
// §2.1) once or twice.
func holds(text, secret string) bool {
	for range 2 {
		if strings.Contains(text, secret) {
			return true
		}
		text = unescape(text)
	}
	return strings.Contains(text, secret)
}

// unescape decodes each percent-encoded byte, and leaves the rest.
func unescape(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	decoded := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := [1]byte{text[i]}
		if c[0] == '%' && i+2 < len(text) {
			if _, err := hex.Decode(c[:], []byte{text[i+1], text[i+2]}); err == nil {
				i += 2
			} else {
				c[0] = '%'
			}
		}
		decoded = append(decoded, c[0])
	}
	return string(decoded)
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
