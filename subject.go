package koreauth

import (
	"log/slog"
	"time"

	"github.com/koreauth/koreauth/internal/explain"
	"github.com/koreauth/koreauth/internal/redact"
)

// subject is a rejected token, for the log.
type subject struct {
	claims   *Claims
	alg, typ string        // of the header; empty: not parsed
	expected *explain.Want // nil: unknown
}

// describe implements described.
func (s *subject) describe(attrs *redact.Attrs, reason error, prefix string, found func(string) string) {
	want, c, now := s.expected, s.claims, time.Now()
	if want == nil {
		want = &explain.Want{}
	}
	switch reason {
	case ErrIssuer:
		attrs.Add("expected_issuer", redact.List(want.Issuers, nil))
	case ErrAudience:
		attrs.Add(prefix+"audience", redact.List(c.Audience, found))
		attrs.Add("expected_audience", redact.List(want.Audience, nil))
	case ErrAlgorithm:
		attrs.Add(prefix+"algorithm", found(s.alg))
		attrs.Add("expected_algorithm", redact.List(want.Algorithms, nil))
	case ErrUnknownKey: // Another issuer may have made the token, or for another API.
		attrs.Add(prefix+"algorithm", found(s.alg))
		attrs.Add("expected_issuer", redact.List(want.Issuers, nil))
		attrs.Add(prefix+"audience", redact.List(c.Audience, found))
		attrs.Add("expected_audience", redact.List(want.Audience, nil))
	case ErrTokenType:
		attrs.Add(prefix+"header_type", found(s.typ))
		attrs.Add(prefix+"type", found(c.extra.typ))
	case ErrExpired:
		attrs.Between(prefix+"expired_for", c.Expiry, now)
	case ErrNotYetValid:
		attrs.Between(prefix+"valid_in", now, c.NotBefore)
	case ErrTooOld:
		attrs.Between(prefix+"age", c.IssuedAt, now)
		*attrs = append(*attrs, slog.Duration("max_age", want.MaxAge))
	case ErrClient:
		attrs.Add("expected_client_id", redact.List(want.Clients, nil))
	case ErrBinding:
		if bound := c.Confirmation; bound != nil && bound.CertificateSHA256 != "" {
			attrs.Add("bound_to", "certificate")
		} else if bound != nil && bound.KeySHA256 != "" {
			attrs.Add("bound_to", "DPoP key")
		}
	}
	if prefix == "" { // the signature was verified
		attrs.Add("account_id", found(c.AccountID))
		attrs.Add("token_id", found(c.ID))
	}
}
