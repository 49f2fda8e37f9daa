package koreauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/koreauth/koreauth/internal/redact"
)

// logRefusal writes one record for a rejected request. token is passed so that it
// can be removed from the cause.
func logRefusal(r *http.Request, logger *slog.Logger, e *Error, token string) {
	ctx, level := r.Context(), levelOf(r, e)
	if logger == nil || !logger.Enabled(ctx, level) {
		return
	}
	attrs := make(redact.Attrs, 0, 16)
	attrs.Add("class", withoutPrefix(e.Class))
	reason := reasonOf(e)
	if reason != nil {
		attrs.Add("reason", withoutClass(reason))
	}
	attrs.Add("method", redact.Unverified(r.Method))
	attrs.Add("pattern", r.Pattern)
	found, prefix := redact.Unverified, "unverified_"
	if e.verified {
		found, prefix = redact.Verified, ""
	}
	attrs.Add(prefix+"issuer", found(e.Issuer))
	attrs.Add(prefix+"client_id", found(e.ClientID))
	attrs.Add(prefix+"key_id", found(e.KeyID))
	if e.about != nil {
		e.about.describe(&attrs, reason, prefix, found)
	}
	attrs.Add("required", redact.Text(scopeParam(e), token))
	if e.Class == ErrNoToken {
		attrs.Add("authorization", redact.Scheme(r.Header["Authorization"]))
	}
	if e.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	attrs.Add("cause", causeOf(e, token))
	logger.LogAttrs(ctx, level, "koreauth: request rejected", attrs...)
}

// levelOf returns Debug for a request without a token, Error if the token could not
// be checked, and else Info. A client that closed the connection is no fault of the
// API or the issuer.
func levelOf(r *http.Request, e *Error) slog.Level {
	switch {
	case e.Class == ErrNoToken:
		return slog.LevelDebug
	case e.Class == ErrUnavailable && !(errors.Is(e.Reason, context.Canceled) && r.Context().Err() != nil):
		return slog.LevelError
	}
	return slog.LevelInfo
}

// withoutPrefix returns the text of an error of this package without its name.
func withoutPrefix(err error) string { return strings.TrimPrefix(err.Error(), "koreauth: ") }

// withoutClass returns the text of a reason without its class.
func withoutClass(reason error) string {
	return strings.TrimPrefix(withoutPrefix(reason), withoutPrefix(ErrInvalidToken)+": ")
}

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
func causeOf(e *Error, token string) string {
	if e.Reason == nil {
		return ""
	}
	cause := e.Reason.Error()
	for _, known := range []error{reasonOf(e), e.Class} {
		if known != nil {
			cause = strings.TrimPrefix(strings.TrimPrefix(cause, known.Error()), ": ")
		}
	}
	return redact.Text(cause, token)
}
