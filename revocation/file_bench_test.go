package revocation_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// millionRules fills a new file with rules, and returns its path.
func manyRules(tb testing.TB, n int) string {
	path := filepath.Join(tb.TempDir(), "revoked.log")
	at := time.Now().Add(-time.Hour).UTC()
	receipts := make([]revocation.Receipt, n)
	for i := range receipts {
		at = at.Add(time.Microsecond)
		rule, err := revocation.Rule{
			Issuer: "https://keycloak.example.com/realms/KORE-CIDP", Token: fmt.Sprintf("trrtcc:%08x-1c2d-4f5a-9c7b-1234567890ab", i), Reason: "leaked key", By: "kc_ops",
		}.Complete(at)
		require.NoError(tb, err)
		receipts[i] = revocation.Receipt{At: at, Rule: rule}
	}
	require.NoError(tb, revocation.File(path).(revocation.Fleet).Refill(tb.Context(), receipts))
	return path
}

// BenchmarkFile_Load loads a million rules.
func BenchmarkFile_Load(b *testing.B) {
	path := manyRules(b, 1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		n := 0
		err := revocation.File(path).Follow(ctx, 0, func(revocation.Receipt) { n++ }, func(time.Time) { cancel() })
		require.ErrorIs(b, err, context.Canceled)
		require.Equal(b, 1_000_000, n)
	}
}

// BenchmarkFile_AppendToMany appends to a file with a million rules.
func BenchmarkFile_AppendToMany(b *testing.B) {
	path := manyRules(b, 1_000_000)
	store := revocation.File(path)
	for b.Loop() {
		_, err := store.Append(b.Context(), revocation.Rule{Issuer: "https://keycloak.example.com", Token: "t"})
		require.NoError(b, err)
	}
}

// BenchmarkFile_Append appends to a small file.
func BenchmarkFile_Append(b *testing.B) {
	store := revocation.File(filepath.Join(b.TempDir(), "revoked.log"))
	for b.Loop() {
		_, err := store.Append(b.Context(), revocation.Rule{Issuer: "https://keycloak.example.com", Token: "t"})
		require.NoError(b, err)
	}
}
