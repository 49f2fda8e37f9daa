package koreredis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/stretchr/testify/require"
)

// BenchmarkRevocations_AppendReaches50Lists measures the time from the return of Append
// until each of 50 lists, with a connection of its own, rejects the token.
func BenchmarkRevocations_AppendReaches50Lists(b *testing.B) {
	s := startRedis(b)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 50)
	var lists []*revocation.List
	for range cap(ended) {
		l := &revocation.List{}
		store := koreredis.Revocations(s.client(), name)
		go func() { ended <- l.Follow(ctx, store) }()
		lists = append(lists, l)
	}
	for _, l := range lists {
		eventually(b, 10*time.Second, "current", func() bool { return !l.Status().Current.IsZero() })
	}
	store := koreredis.Revocations(s.client(), name)
	var took, appended []time.Duration
	for i := 0; b.Loop(); i++ {
		claims := &koreauth.Claims{Issuer: issuer, ID: fmt.Sprint("t", i)}
		asked := time.Now()
		revoke(b, store, claims.ID)
		returned := time.Now()
		appended = append(appended, returned.Sub(asked))
		for _, l := range lists {
			for !errors.Is(l.Check(nil, claims), koreauth.ErrRevoked) {
				require.Less(b, time.Since(returned), 10*time.Second)
			}
		}
		took = append(took, time.Since(returned))
	}
	cancel()
	for range cap(ended) {
		<-ended
	}
	report := func(what string, all []time.Duration) {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2].Seconds()*1000, what+"-p50-ms")
		b.ReportMetric(all[len(all)*99/100].Seconds()*1000, what+"-p99-ms")
		b.ReportMetric(all[len(all)-1].Seconds()*1000, what+"-max-ms")
	}
	report("append", appended)
	report("reach", took)
}

// BenchmarkRevocations_Million measures how long a million rules for tokens take until
// they are refilled, followed, and loaded by a list.
func BenchmarkRevocations_Million(b *testing.B) {
	s := startRedis(b)
	store := koreredis.Revocations(s.client(), name)
	receipts := make([]revocation.Receipt, 1_000_000)
	for i := range receipts {
		at := began.Add(time.Duration(i) * time.Microsecond)
		r, err := revocation.Rule{Issuer: issuer, Token: fmt.Sprintf("trrtcc:%08d-1234-5678-9abc-def012345678", i)}.Complete(at)
		require.NoError(b, err)
		receipts[i] = revocation.Receipt{At: at, Rule: r}
	}
	asked := time.Now()
	require.NoError(b, store.(revocation.Fleet).Refill(context.Background(), receipts))
	refilled := time.Since(asked)
	receipts = nil
	var followed, loaded time.Duration
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background())
		asked = time.Now()
		var n atomic.Int64
		_ = store.Follow(ctx, 0, func(revocation.Receipt) { n.Add(1) }, func(time.Time) { cancel() })
		followed = time.Since(asked)
		require.EqualValues(b, 1_000_000, n.Load())

		ctx, cancel = context.WithCancel(context.Background())
		l := &revocation.List{}
		ended := make(chan error)
		asked = time.Now()
		go func() { ended <- l.Follow(ctx, koreredis.Revocations(s.client(), name)) }()
		eventually(b, time.Minute, "loaded", func() bool { return !l.Status().Current.IsZero() })
		loaded = time.Since(asked)
		require.Equal(b, 1_000_000, l.Status().Entries)
		cancel()
		<-ended
	}
	b.ReportMetric(refilled.Seconds(), "refill-s")
	b.ReportMetric(followed.Seconds(), "follow-s")
	b.ReportMetric(loaded.Seconds(), "list-s")
	memory := s.do("INFO", "memory").(string)
	var used int64
	for line := range strings.Lines(memory) {
		_, _ = fmt.Sscanf(line, "used_memory:%d", &used)
	}
	b.ReportMetric(float64(used)/1e6, "redis-MB")
}

// BenchmarkRevocations_ThousandReplicas measures what a thousand lists ask of a server,
// how long a rule takes to all of them, and what a restart of the server costs.
func BenchmarkRevocations_ThousandReplicas(b *testing.B) {
	const replicas = 1000
	s := startRedis(b, "--appendonly", "yes", "--appendfsync", "always")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, replicas)
	lists := make([]*revocation.List, replicas)
	asked := time.Now()
	for n := range lists {
		l := &revocation.List{}
		store := koreredis.Revocations(s.client(), name)
		go func() { ended <- l.Follow(ctx, store) }()
		lists[n] = l
	}
	current := func(since time.Time) bool {
		return !slices.ContainsFunc(lists, func(l *revocation.List) bool { return !l.Status().Current.After(since) })
	}
	eventually(b, time.Minute, "loaded", func() bool { return current(asked) })
	loaded := time.Since(asked)

	stat := func(name string) (value float64) {
		for line := range strings.Lines(s.do("INFO", "stats").(string)) {
			_, _ = fmt.Sscanf(line, name+":%f", &value)
		}
		return value
	}
	before := stat("total_commands_processed")
	<-time.After(10 * time.Second)
	idle := (stat("total_commands_processed") - before) / 10

	store := koreredis.Revocations(s.client(), name)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		claims := &koreauth.Claims{Issuer: issuer, ID: fmt.Sprint("t", i)}
		revoke(b, store, claims.ID)
		returned := time.Now()
		for _, l := range lists {
			for !errors.Is(l.Check(nil, claims), koreauth.ErrRevoked) {
				require.Less(b, time.Since(returned), 10*time.Second)
			}
		}
		took = append(took, time.Since(returned))
	}
	slices.Sort(took)
	b.ReportMetric(loaded.Seconds(), "load-s")
	b.ReportMetric(idle, "idle-commands/s")
	b.ReportMetric(float64(len(took)), "deliveries")
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "reach-p50-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "reach-max-ms")

	s.stop()
	s.start()
	restarted, most, last := time.Now(), 0.0, 0.0
	for !current(restarted) {
		require.Less(b, time.Since(restarted), time.Minute)
		now := stat("total_connections_received")
		most, last = max(most, now-last), now
		<-time.After(time.Second)
		for _, l := range lists {
			require.ErrorIs(b, l.Check(nil, &koreauth.Claims{Issuer: issuer, ID: "t0"}), koreauth.ErrRevoked)
		}
	}
	b.ReportMetric(time.Since(restarted).Seconds(), "restart-s")
	b.ReportMetric(most, "connections/s")
	cancel()
	for range replicas {
		<-ended
	}
}
