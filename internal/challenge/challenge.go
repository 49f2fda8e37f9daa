// Package challenge reads and edits the headers of responses about authentication: the
// challenges of WWW-Authenticate (RFC 9110 §11.6.1) and Cache-Control.
package challenge

import (
	"net/http"
	"strings"
)

// Without returns the lines of the header without the challenges of a scheme, which
// is compared without regard to case. A line that cannot be parsed stays as it is.
func Without(lines []string, scheme string) []string {
	var kept []string
	for _, line := range lines {
		var challenges []string
		drop := false
		for _, part := range split(line) {
			if name := schemeOf(part); name != "" {
				drop = strings.EqualFold(name, scheme)
			}
			if !drop && part != "" {
				challenges = append(challenges, part)
			}
		}
		if len(challenges) > 0 {
			kept = append(kept, strings.Join(challenges, ", "))
		}
	}
	return kept
}

// split splits a line at the commas that are not in a quoted string.
func split(line string) []string {
	var parts []string
	quoted, escaped, start := false, false, 0
	for i := range len(line) {
		switch c := line[i]; {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			parts = append(parts, strings.TrimSpace(line[start:i]))
			start = i + 1
		}
	}
	return append(parts, strings.TrimSpace(line[start:]))
}

// schemeOf returns the scheme that a part begins with, or "" if it is a further
// parameter of the challenge before it.
func schemeOf(part string) string {
	word, rest, _ := strings.Cut(part, " ")
	if rest = strings.TrimSpace(rest); strings.Contains(word, "=") || strings.HasPrefix(rest, "=") {
		return ""
	}
	return word
}

// KeepPrivate prevents shared caches from storing a response to a request whose
// token was in the URL, a body or a cookie. By themselves they exclude only responses
// to requests with Authorization (RFC 6750 §2.3, RFC 9111 §3.5).
func KeepPrivate(header http.Header) {
	value := strings.Join(header.Values("Cache-Control"), ", ")
	switch has := strings.ToLower(value); {
	case strings.Contains(has, "no-store"), strings.Contains(has, "private"):
	case value == "", strings.Contains(has, "public"), strings.Contains(has, "s-maxage"):
		header.Set("Cache-Control", "private")
	default:
		header.Set("Cache-Control", value+", private")
	}
}
