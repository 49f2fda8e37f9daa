package koreauth

import (
	"log/slog"
	"strings"
	"time"
)

// expected is what a Config expects of a token, for the log.
type expected struct {
	issuers, audience, algorithms, clients []string
	maxAge                                 time.Duration
}

// subject is a rejected token, for the log.
type subject struct {
	claims   *Claims
	alg, typ string    // of the header; empty: not parsed
	expected *expected // nil: unknown
}

// attrs implements described.
func (s *subject) attrs(reason error, prefix string, found func(string) string) []slog.Attr {
	var attrs []slog.Attr
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	want, c, now := s.expected, s.claims, time.Now()
	if want == nil {
		want = &expected{}
	}
	switch reason {
	case ErrIssuer:
		add("expected_issuer", list(want.issuers, nil))
	case ErrAudience:
		add(prefix+"audience", list(c.Audience, found))
		add("expected_audience", list(want.audience, nil))
	case ErrAlgorithm:
		add(prefix+"algorithm", found(s.alg))
		add("expected_algorithm", list(want.algorithms, nil))
	case ErrTokenType:
		add(prefix+"header_type", found(s.typ))
		add(prefix+"type", found(c.extra.typ))
	case ErrExpired:
		if !c.Expiry.IsZero() {
			attrs = append(attrs, slog.Duration(prefix+"expired_for", now.Sub(c.Expiry).Round(time.Second)))
		}
	case ErrNotYetValid:
		if !c.NotBefore.IsZero() {
			attrs = append(attrs, slog.Duration(prefix+"valid_in", c.NotBefore.Sub(now).Round(time.Second)))
		}
	case ErrTooOld:
		if !c.IssuedAt.IsZero() {
			attrs = append(attrs, slog.Duration(prefix+"age", now.Sub(c.IssuedAt).Round(time.Second)))
		}
		attrs = append(attrs, slog.Duration("max_age", want.maxAge))
	case ErrClient:
		add("expected_client_id", list(want.clients, nil))
	}
	if prefix == "" { // the signature was verified
		add("account_id", found(c.AccountID))
		add("token_id", found(c.ID))
	}
	return attrs
}

// list joins up to four values, each in a form for the log; nil: as it is.
func list(values []string, form func(string) string) string {
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
