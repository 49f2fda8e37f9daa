package koreauth

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
)

// logRefusal writes one record for a rejected request: at Debug if it has no
// token, at Error if the token could not be checked, else at Info. token is passed
// so that it can be removed from the cause.
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
	attrs := []slog.Attr{slog.String("class", withoutPrefix(e.Class))}
	if reason := reasonOf(e); reason != nil {
		attrs = append(attrs, slog.String("reason", strings.TrimPrefix(withoutPrefix(reason), withoutPrefix(ErrInvalidToken)+": ")))
	}
	for _, a := range []struct{ name, value string }{
		{"issuer", e.Issuer}, {"client_id", e.ClientID}, {"key_id", e.KeyID},
	} {
		if !e.verified { // Cut it first: an attacker chose its length.
			a.name, a.value = "unverified_"+a.name, truncate(a.value, maxSearched)
		}
		value := printable(a.value)
		if !e.verified {
			value = truncate(value, maxUnverified)
		}
		if value != "" {
			attrs = append(attrs, slog.String(a.name, value))
		}
	}
	if required := scopeParam(e); required != "" {
		attrs = append(attrs, slog.String("required", withoutToken(redact(required), token)))
	}
	if e.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	if cause := causeOf(e); cause != "" {
		attrs = append(attrs, slog.String("cause", withoutToken(cause, token)))
	}
	logger.LogAttrs(ctx, level, "koreauth: request rejected", attrs...)
}

// withoutToken removes the token from text, also where it is escaped for a URL.
func withoutToken(text, token string) string {
	for _, form := range []string{token, url.QueryEscape(token), url.PathEscape(token)} {
		if len(form) >= 8 { // A shorter token may be an ordinary word.
			text = strings.ReplaceAll(text, form, "[redacted]")
		}
	}
	return text
}

// withoutPrefix returns the text of an error of this package without its name.
func withoutPrefix(err error) string { return strings.TrimPrefix(err.Error(), "koreauth: ") }

// reasonOf returns the reason that e wraps, or nil.
func reasonOf(e *Error) error {
	for _, reason := range reasons {
		if errors.Is(e.Reason, reason) {
			return reason
		}
	}
	return nil
}

// causeOf returns what Reason says in addition to the class and the reason, on
// one line.
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
