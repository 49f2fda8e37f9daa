package koreredis_test

import (
	"context"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	s := startRedis(t)
	st := koreredis.Revocations(s.client(), "x")
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 3 {
		r, err := st.Append(ctx, revocation.Rule{Issuer: "https://i", Client: "c"})
		require.NoError(t, err)
		t.Log(i, r)
	}
	done := make(chan error)
	go func() {
		done <- st.Follow(ctx, 1, func(r revocation.Receipt) { t.Log("apply", r.Seq) }, func(at time.Time) { t.Log("current", time.Since(at)) })
	}()
	time.Sleep(2500 * time.Millisecond)
	cancel()
	b := time.Now()
	t.Log(<-done, time.Since(b))
	t.Log(s.do("HGETALL", "{koreauth:x}:head"))
}
