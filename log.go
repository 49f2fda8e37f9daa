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
// is the client's fault, at Error what is ours or the issuer's.
func logRefusal(ctx context.Context, logger *slog.Logger, e *Error) {
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
	attrs := []slog.Attr{slog.String("class", text(e.Class))}
	for _, reason := range reasons {
		if errors.Is(e.Reason, reason) {
			attrs = append(attrs, slog.String("reason", strings.TrimPrefix(text(reason), text(ErrInvalidToken)+": ")))
			break
		}
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
	if len(e.Required) > 0 {
		attrs = append(attrs, slog.Any("required", e.Required))
	}
	if e.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	if e.Reason != nil {
		attrs = append(attrs, slog.String("cause", redact(e.Reason.Error())))
	}
	logger.LogAttrs(ctx, level, "koreauth: request refused", attrs...)
}

// text is the text of one of our errors, without the package's name.
func text(err error) string { return strings.TrimPrefix(err.Error(), "koreauth: ") }

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
