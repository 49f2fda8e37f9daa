package revocation_test

import (
	"testing"

	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/revocationtest"
)

func TestMemory_Conforms(t *testing.T) {
	revocationtest.Conformance(t, func(*testing.T) revocation.Store { return revocation.Memory() })
}
