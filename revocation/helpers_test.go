package revocation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
)

// records collects what a Logger writes.
type records struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// all returns the records whose message contains part.
func (r *records) all(t testing.TB, part string) []map[string]any {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(r.text.String()) {
		var record map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &record))
		if strings.Contains(record["msg"].(string), part) {
			found = append(found, record)
		}
	}
	return found
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// fakeStore is a store whose Follow is a function.
type fakeStore struct {
	follow func(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error
}

func (f *fakeStore) Append(context.Context, revocation.Rule) (revocation.Receipt, error) {
	panic("not used")
}

func (f *fakeStore) Follow(ctx context.Context, from uint64, apply func(revocation.Receipt), current func(time.Time)) error {
	return f.follow(ctx, from, apply, current)
}

// fakeFleet is a fakeStore that replicas share.
type fakeFleet struct {
	fakeStore
	mu      sync.Mutex
	refills [][]revocation.Receipt
	reports []uint64
	names   []string
	err     error // of Refill and Report
}

func (f *fakeFleet) Refill(_ context.Context, receipts []revocation.Receipt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refills = append(f.refills, receipts)
	return f.err
}

func (f *fakeFleet) Report(_ context.Context, replica string, seq uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports, f.names = append(f.reports, seq), append(f.names, replica)
	return f.err
}

func (f *fakeFleet) Replicas(context.Context) (known, current int, err error) { return 1, 1, nil }

// giving returns a Follow that gives receipts once, is current, and waits.
func giving(receipts ...revocation.Receipt) func(context.Context, uint64, func(revocation.Receipt), func(time.Time)) error {
	return func(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
		for _, r := range receipts {
			apply(r)
		}
		return idle(ctx, current)
	}
}

// idle says every second that the store is current.
func idle(ctx context.Context, current func(time.Time)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		current(time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// receipt returns a receipt of a rule that was appended at a moment.
func receipt(t testing.TB, seq uint64, at time.Time, r revocation.Rule) revocation.Receipt {
	t.Helper()
	r, err := r.Complete(at)
	require.NoError(t, err)
	return revocation.Receipt{Seq: seq, At: at, Rule: r}
}

// follow follows the store until the test or stop ends it.
func follow(t testing.TB, list *revocation.List, s revocation.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- list.Follow(ctx, s) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	t.Cleanup(stop)
	return stop
}

// token returns the claims of a token.
func token(id string) *koreauth.Claims {
	return &koreauth.Claims{
		Issuer: issuer, ID: id, ClientID: "kc_1", AccountID: "AC1", Subject: "subject-1",
		IssuedAt: time.Now(), Expiry: time.Now().Add(time.Hour),
	}
}

func isRevoked(t testing.TB, list *revocation.List, c *koreauth.Claims) bool {
	t.Helper()
	err := list.Check(nil, c)
	if err != nil {
		require.ErrorIs(t, err, koreauth.ErrRevoked)
	}
	return err != nil
}

// pass lets time pass in a bubble, and waits until all that is due then has happened.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
