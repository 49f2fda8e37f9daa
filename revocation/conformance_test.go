package revocation_test

import (
	"path/filepath"
	"testing"

	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/revocationtest"
)

func TestMemory_Conforms(t *testing.T) {
	t.Parallel() // It mostly waits.
	revocationtest.Conformance(t, func(*testing.T) revocation.Store { return revocation.Memory() })
}

func TestFile_Conforms(t *testing.T) {
	t.Parallel() // It mostly waits.
	revocationtest.Conformance(t, func(t *testing.T) revocation.Store {
		return revocation.File(filepath.Join(t.TempDir(), "revoked.log"))
	})
}
