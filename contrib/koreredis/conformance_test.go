package koreredis_test

import (
	"testing"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/revocationtest"
)

func TestRevocations_Conform(t *testing.T) {
	s := startRedis(t)
	revocationtest.Conformance(t, func(t *testing.T) revocation.Store {
		s.do("FLUSHALL")
		return koreredis.Revocations(s.client(), "test")
	})
}
