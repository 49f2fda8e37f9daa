package koreredis_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/stretchr/testify/require"
	"runtime/pprof"
)

func TestLoad(t *testing.T) {
	if os.Getenv("LOAD") == "" {
		t.Skip()
	}
	s := startRedis(t)
	st := koreredis.Revocations(s.client(), "x")
	ctx := t.Context()
	n := 1_000_000
	rs := make([]revocation.Receipt, n)
	now := time.Now().Truncate(time.Microsecond)
	for i := range rs {
		at := now.Add(time.Duration(i) * time.Microsecond)
		r, err := revocation.Rule{Issuer: "https://keycloak.example.com/realms/KORE-CIDP", Token: fmt.Sprintf("trrtcc:%08d-1234-5678-9abc-def012345678", i)}.Complete(at)
		require.NoError(t, err)
		rs[i] = revocation.Receipt{At: at, Rule: r}
	}
	b := time.Now()
	f, _ := os.Create("/tmp/refill.prof")
	pprof.StartCPUProfile(f)
	require.NoError(t, st.(revocation.Fleet).Refill(ctx, rs))
	pprof.StopCPUProfile()
	t.Log("refill", time.Since(b))
	t.Log(s.do("INFO", "memory"))
	t.Log(s.do("INFO", "commandstats"))
	for range 3 {
		b = time.Now()
		c2, cancel := context.WithCancel(ctx)
		k := 0
		f, _ = os.Create("/tmp/load.prof")
		pprof.StartCPUProfile(f)
		st.Follow(c2, 0, func(revocation.Receipt) { k++ }, func(time.Time) { cancel() })
		pprof.StopCPUProfile()
		t.Log("load", k, time.Since(b))
	}
}
