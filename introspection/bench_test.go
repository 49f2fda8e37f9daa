package introspection_test

import (
	"testing"

	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
)

// What a token costs whose answer is remembered.
func BenchmarkValidate(b *testing.B) {
	v := newValidator(b, &server{answer: good})
	ctx := b.Context()
	if _, err := v.Validate(ctx, "good"); err != nil {
		b.Fatal(err)
	}
	b.Run("opaque", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Validate(ctx, "good"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rejected", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Validate(ctx, "junk"); err != introspection.ErrInactive {
				b.Fatal(err)
			}
		}
	})
	issuer, s := startIssuer(b), &server{}
	token := mint(b, issuer, koretest.Token{})
	s.answer = reply(200, answerTo(b, token, nil))
	also := newAlso(b, issuer, s, nil)
	b.Run("a JWT, which is verified", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := also.Validate(ctx, token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
