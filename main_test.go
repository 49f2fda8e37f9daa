package koreauth_test

import (
	"os"
	"testing"

	"github.com/koreauth/koreauth/internal/fetch"
)

// The tests of this package fetch keys at the latest times, so that the times are known.
// Those of random times say so.
func TestMain(m *testing.M) {
	fetch.Fix(1)
	os.Exit(m.Run())
}
