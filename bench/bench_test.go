package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/bench/subjects"
)

var algorithms = []string{subjects.RS256, subjects.ES256, subjects.EdDSA}

var all = append([]subjects.Subject{subjects.Koreauth}, subjects.Peers...)

var handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

func newIssuer(tb testing.TB) *subjects.Issuer {
	issuer, err := subjects.NewIssuer()
	require.NoError(tb, err)
	tb.Cleanup(issuer.Close)
	return issuer
}

func answer(h http.Handler, authorization ...string) int {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// A subject with fewer checks than the others would be faster for the wrong reason.
func TestSubjects_MakeTheSameChecks(t *testing.T) {
	issuer := newIssuer(t)
	for _, row := range []struct {
		sentence string
		spec     subjects.Spec
		accepted bool
	}{
		{"a valid token is accepted", subjects.Spec{}, true},
		{"a changed payload is rejected", subjects.Spec{Tamper: true}, false},
		{"another audience is rejected", subjects.Spec{Audience: "api-xx"}, false},
		{"another issuer is rejected", subjects.Spec{Issuer: "https://example.com/realms/KORE-CIDP"}, false},
		{"an expired token is rejected", subjects.Spec{Expiry: time.Now().Add(-time.Hour)}, false},
		{"an unknown key is rejected", subjects.Spec{KeyID: "unknown"}, false},
	} {
		for _, algorithm := range algorithms {
			for _, s := range all {
				t.Run(row.sentence+"/"+algorithm+"/"+s.Name, func(t *testing.T) {
					guard, err := s.Guard(t.Context(), issuer.Setup(algorithm))
					require.NoError(t, err)
					token, err := issuer.Sign(algorithm, row.spec)
					require.NoError(t, err)

					status := answer(guard(handler), token.Header...)

					if row.accepted {
						assert.Equal(t, http.StatusOK, status)
						return
					}
					assert.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, status)
				})
			}
		}
	}
}

func TestSubjects_RejectARequestWithoutAToken(t *testing.T) {
	issuer := newIssuer(t)
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			guard, err := s.Guard(t.Context(), issuer.Setup(subjects.RS256))
			require.NoError(t, err)

			status := answer(guard(handler))

			assert.Contains(t, []int{http.StatusUnauthorized, http.StatusBadRequest}, status)
		})
	}
}

func TestLimits_Verify(t *testing.T) {
	issuer := newIssuer(t)
	for _, algorithm := range algorithms {
		good, err := issuer.Sign(algorithm, subjects.Spec{})
		require.NoError(t, err)
		bad, err := issuer.Sign(algorithm, subjects.Spec{Tamper: true})
		require.NoError(t, err)

		assert.True(t, subjects.Verify(issuer.Public(algorithm), &good), algorithm)
		assert.False(t, subjects.Verify(issuer.Public(algorithm), &bad), algorithm)
	}
}

// KORE's published sample token has a header of 111 characters, a payload of 1,059 and an RSA-2048 signature.
func TestTokens_HaveTheSizeOfKOREs(t *testing.T) {
	token, err := newIssuer(t).Sign(subjects.RS256, subjects.Spec{})
	require.NoError(t, err)

	assert.Len(t, token.Raw, 111+1+1059+1+342)
}

// The benchmarks are for benchstat: `go test -run '^$' -bench NewToken/RS256 -count 10`.

func BenchmarkNewToken(b *testing.B) {
	issuer := newIssuer(b)
	for _, algorithm := range algorithms {
		tokens, err := issuer.SignMany(1024, algorithm, func(int) subjects.Spec { return subjects.Spec{} })
		require.NoError(b, err)
		b.Run(algorithm+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			key := issuer.Public(algorithm)
			for k := 0; b.Loop(); k++ {
				subjects.Verify(key, &tokens[k%len(tokens)])
			}
		})
		guard, err := subjects.GuardWith(issuer.Setup(algorithm), koreauth.Config{CacheSize: -1}) // so that all tokens stay new
		require.NoError(b, err)
		b.Run(algorithm+"/koreauth", func(b *testing.B) { serve(b, guard(handler), tokens) })
		for _, s := range subjects.Peers {
			guard, err := s.Guard(b.Context(), issuer.Setup(algorithm))
			require.NoError(b, err)
			b.Run(algorithm+"/"+s.Name, func(b *testing.B) { serve(b, guard(handler), tokens) })
		}
	}
}

func BenchmarkCachedToken(b *testing.B) {
	issuer := newIssuer(b)
	tokens, err := issuer.SignMany(1, subjects.RS256, func(int) subjects.Spec { return subjects.Spec{} })
	require.NoError(b, err)
	b.Run("limit", func(b *testing.B) {
		b.ReportAllocs()
		cached := subjects.Cached{}
		cached.Add(&tokens[0])
		for b.Loop() {
			cached.Has(&tokens[0])
		}
	})
	guard, err := subjects.Koreauth.Guard(b.Context(), issuer.Setup(subjects.RS256))
	require.NoError(b, err)
	b.Run("koreauth", func(b *testing.B) { serve(b, guard(handler), tokens) })
}

func BenchmarkIssuers(b *testing.B) {
	issuer := newIssuer(b)
	tokens, err := issuer.SignMany(256, subjects.RS256, func(int) subjects.Spec { return subjects.Spec{} })
	require.NoError(b, err)
	keys := koreauth.StaticKeySet{{ID: subjects.KeyID(subjects.RS256), Algorithm: subjects.RS256, Public: issuer.Public(subjects.RS256)}}
	for _, n := range []int{1, 10, 1000} {
		for _, row := range []struct {
			name      string
			cacheSize int
			tokens    []subjects.Token
		}{{"new", -1, tokens}, {"remembered", 0, tokens[:1]}} {
			configs := make([]koreauth.Config, n)
			for k := range configs {
				configs[k] = koreauth.Config{Issuer: fmt.Sprint(issuer.URL, "/", k), Audience: []string{subjects.Audience}, Keys: keys, CacheSize: row.cacheSize}
			}
			configs[n-1].Issuer = issuer.URL
			validator, err := koreauth.NewValidator(configs...)
			require.NoError(b, err)
			guard := koreauth.New(validator, nil).Wrap
			b.Run(fmt.Sprintf("%s/issuers=%d", row.name, n), func(b *testing.B) { serve(b, guard(handler), row.tokens) })
		}
	}
}

func serve(b *testing.B, h http.Handler, tokens []subjects.Token) {
	b.ReportAllocs()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	for k := 0; b.Loop(); k++ {
		r.Header["Authorization"] = tokens[k%len(tokens)].Header
		h.ServeHTTP(w, r)
	}
	require.Equal(b, http.StatusOK, w.Code)
}
