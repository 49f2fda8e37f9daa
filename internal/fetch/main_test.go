package fetch_test

import (
	"os"
	"testing"

	"github.com/koreauth/koreauth/internal/fetch"
)

// The tests use the latest times, so that the times are known. Those of random times say
// so.
func TestMain(m *testing.M) {
	fetch.Fix(1)
	os.Exit(m.Run())
}
