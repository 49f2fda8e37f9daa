package koreauth

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxUnverified is how much of a value that anybody may have written is logged.
const maxUnverified = 64

// logRefusal writes one record: at Debug where there is no token, at Info what
// is the client's fault, at Error what is ours or the issuer's. The token is for
// leaving it out.
func logRefusal(ctx context.Context, logger *slog.Logger, e *Error, token string) {
	level := slog.LevelInfo
	switch e.Class {
	case ErrNoToken:
		level = slog.LevelDebug
	case ErrUnavailable:
		level = slog.LevelError
	}
	if logger == nil || !logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("class", plain(e.Class))}
	if reason := reasonOf(e); reason != nil {
		attrs = append(attrs, slog.String("reason", strings.TrimPrefix(plain(reason), plain(ErrInvalidToken)+": ")))
	}
	for _, said := range []struct{ name, value string }{
		{"issuer", e.Issuer}, {"client_id", e.ClientID}, {"key_id", e.KeyID},
	} {
		value := printable(said.value)
		if !e.verified {
			said.name, value = "unverified_"+said.name, cut(value)
		}
		if value != "" {
			attrs = append(attrs, slog.String(said.name, value))
		}
	}
	if required := scopeParam(e); required != "" {
		attrs = append(attrs, slog.String("required", required))
	}
	if e.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	if cause := causeOf(e); cause != "" {
		if len(token) >= 8 { // shorter ones are words, and no secret
			cause = strings.ReplaceAll(cause, token, "[redacted]")
		}
		attrs = append(attrs, slog.String("cause", cause))
	}
	logger.LogAttrs(ctx, level, "koreauth: request refused", attrs...)
}

// plain is the text of one of our errors, without the package's name.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "koreauth: ") }

// reasonOf returns which of the reasons it is, or nil.
func reasonOf(e *Error) error {
	for _, reason := range reasons {
		if errors.Is(e.Reason, reason) {
			return reason
		}
	}
	return nil
}

// causeOf returns what the Reason says beyond the class and the reason, on one
// line.
func causeOf(e *Error) string {
	if e.Reason == nil {
		return ""
	}
	cause := e.Reason.Error()
	for _, known := range []error{reasonOf(e), e.Class} {
		if known != nil {
			cause = strings.TrimPrefix(strings.TrimPrefix(cause, known.Error()), ": ")
		}
	}
	return oneLine(cause)
}

// oneLine makes a text of ours, with all that it wraps, fit for a record.
func oneLine(text string) string { return redact(strings.ReplaceAll(text, "\n", "; ")) }

// secretLike is what looks like an e-mail address, or like a JWT or the start of
// one: base64 of `{"` and of the other ways to begin a JSON object, or three long
// segments.
var secretLike = regexp.MustCompile(`@|%40|eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}|[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}`)

// printable returns a value for logs, or nothing if it looks like a secret.
func printable(value string) string {
	if secretLike.MatchString(value) {
		return ""
	}
	return value
}

// redact takes out of a text each word that looks like a secret. The texts are
// ours, but what they wrap need not be.
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

// cut shortens a value, between characters.
func cut(value string) string {
	if len(value) <= maxUnverified {
		return value
	}
	end := maxUnverified
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
