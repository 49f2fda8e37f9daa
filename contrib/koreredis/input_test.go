package koreredis_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRevocations_PanicsWithoutClientOrName(t *testing.T) {
	assert.PanicsWithValue(t, "koreredis: Revocations needs a client", func() { koreredis.Revocations(nil, name) })
	c := redis.NewClient(&redis.Options{})
	defer c.Close()
	assert.Panics(t, func() { koreredis.Revocations(c, "") })
}

func TestRevocations_NamesAreApart(t *testing.T) {
	s := startRedis(t)
	for _, name := range []string{"a", "b", "a}:log", "{", "}", "ä b*", "\x00"} {
		store := koreredis.Revocations(s.client(), name)
		revoke(t, store, "t")
		assert.Len(t, read(t, store), 1, "%q", name)
	}
}

func TestRevocations_InvalidRules(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	now := time.Now()
	for what, r := range map[string]revocation.Rule{
		"no matcher":       {Issuer: issuer},
		"two matchers":     {Issuer: issuer, Token: "t", Client: "c"},
		"date after Until": {Issuer: issuer, Client: "c", IssuedBefore: now, Until: now.Add(-time.Hour)},
		"invalid UTF-8":    {Issuer: issuer, Token: "\xff"},
		"late year":        {Issuer: issuer, Token: "t", Until: now.AddDate(9000, 0, 0)},
	} {
		_, err := store.Append(t.Context(), r)
		assert.Error(t, err, what)
	}
	assert.Empty(t, read(t, store))
	assert.EqualValues(t, 0, s.do("EXISTS", stream))
}

// By the clock of Redis, the rule ends before it applies.
func TestRevocations_UntilPassesOnTheWay(t *testing.T) {
	s := startRedis(t)
	store := koreredis.Revocations(s.client(), name)
	revoke(t, store, "t1")
	s.do("CLIENT", "PAUSE", "300", "ALL")
	for _, lift := range []bool{false, true} {
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Client: "c", Lift: lift, Until: time.Now().Add(100 * time.Millisecond)})
		if !lift {
			require.ErrorContains(t, err, "by the clock of Redis")
		}
	}
	receipt, err := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t2", Until: time.Now().Add(-time.Minute)})
	require.NoError(t, err, "a rule for a token may be late")
	receipts := read(t, store)
	assert.Equal(t, receipt, receipts[len(receipts)-1])
	for _, r := range receipts {
		assert.False(t, r.At.IsZero(), "all are rules")
	}
}

// A key of the store holds a value of another type.
func TestRevocations_WrongType(t *testing.T) {
	for _, key := range []string{"log", "head", "lease", "replicas", "applied"} {
		t.Run(key, func(t *testing.T) {
			s := startRedis(t)
			key := "{koreauth:test}:" + key
			store := koreredis.Revocations(s.client(), name)
			fleet := store.(revocation.Fleet)
			receipts := revoke(t, store, "t1")
			list := startReplica(t, s.client())
			converge(t, within, []*replica{list}, "t1")
			// In one step, because the replica writes as well.
			s.do("EVAL", `redis.call("DEL", KEYS[1]) return redis.call("LPUSH", KEYS[1], "x")`, 1, key)
			_, appended := store.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t2"})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			followed := store.Follow(ctx, 0, func(revocation.Receipt) {}, func(time.Time) {})
			refilled := fleet.Refill(t.Context(), append(receipts, revocation.Receipt{At: time.Now(), Rule: revocation.Rule{Issuer: issuer, Token: "t3"}}))
			reported := fleet.Report(t.Context(), "r", 1)
			_, _, counted := fleet.Replicas(t.Context())
			want := map[string][]error{
				"{koreauth:test}:log":      {appended, followed, refilled},
				"{koreauth:test}:head":     {appended, followed, refilled, counted},
				"{koreauth:test}:lease":    {refilled},
				"{koreauth:test}:replicas": {reported, counted},
				"{koreauth:test}:applied":  {reported},
			}[key]
			for i, err := range want {
				require.Error(t, err, i)
				assert.Contains(t, err.Error(), fmt.Sprintf("key %q holds a list", key), i)
				assert.Contains(t, err.Error(), "use another name, or rename the key", i)
			}
			assert.Equal(t, "list", s.do("TYPE", key), "it is not touched")
			assert.True(t, list.rejects("t1"))
			if key == stream {
				s.do("RENAME", key, "elsewhere")
				staysOnce(t, s, "t1")
			}
		})
	}
}

// Entries of another program are skipped and reported, and later rules still arrive.
func TestRevocations_EntriesOfOthers(t *testing.T) {
	for _, row := range []struct {
		name string
		add  []any
	}{
		{"of today", []any{"*", "hello", "world"}},
		{"with the next number", []any{"4-0", "hello", "world"}},
		{"between two numbers", []any{"3-7", "rule", "{}", "at", "1", "nonce", "x"}},
		{"with no rule", []any{"4-0", "at", "1795667422262859000", "until", "", "nonce", "x"}},
		{"with a rule that is none", []any{"4-0", "rule", `{"issuer":"i"}`, "at", "1795667422262859000", "until", "", "nonce", "x"}},
		{"with an unknown member", []any{"4-0", "rule", `{"issuer":"i","token":"t","level":1}`, "at", "1795667422262859000", "until", "", "nonce", "x"}},
		{"with no time", []any{"4-0", "rule", `{"issuer":"i","token":"t"}`, "at", "soon", "until", "", "nonce", "x"}},
		{"with a time before 1970", []any{"4-0", "rule", `{"issuer":"i","token":"t"}`, "at", "-5", "until", "", "nonce", "x"}},
		{"binary", []any{"4-0", "\x00\xff", "\xfe"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := startRedis(t)
			replicas := startReplicas(t, 2, func() redis.UniversalClient { return s.client() })
			writer := koreredis.Revocations(s.client(), name)
			revoke(t, writer, names(1, 3)...)
			s.do(append([]any{"XADD", stream}, row.add...)...)
			revoke(t, writer, names(5, 6)...)
			all := append(names(1, 3), names(5, 6)...)
			converge(t, within, replicas, all...)
			converge(t, within, startReplicas(t, 1, func() redis.UniversalClient { return s.client() }), all...)
			assert.Contains(t, replicas[0].warnings(), "invalid rule")
			assert.False(t, lost(writer))
			// The number of the entry that is not ours is reported.
			var skipped int
			for _, r := range read(t, writer) {
				if r.At.IsZero() {
					assert.NotZero(t, r.Seq)
					skipped++
				}
			}
			assert.Equal(t, 1, skipped)
		})
	}
	t.Run("with an id that leaves no room", func(t *testing.T) {
		s := startRedis(t)
		replicas := startReplicas(t, 1, func() redis.UniversalClient { return s.client() })
		writer := koreredis.Revocations(s.client(), name)
		revoke(t, writer, names(1, 3)...)
		converge(t, within, replicas, names(1, 3)...)
		s.do("XADD", stream, "18446744073709551615-18446744073709551615", "a", "b")
		_, err := writer.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t4"})
		require.ErrorContains(t, err, "rename the key")
		s.do("RENAME", stream, "elsewhere")
		revoke(t, writer, "t4")
		converge(t, within, replicas, names(1, 4)...)
		staysOnce(t, s, names(1, 4)...)
	})
}

// A server that is not Redis, or answers garbage.
func TestRevocations_OtherServers(t *testing.T) {
	for what, answer := range map[string]string{
		"HTTP":         "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
		"an odd reply": strings.Repeat("+OK\r\n", 1000),
		"an error":     strings.Repeat("-ERR no\r\n", 1000),
		"null":         strings.Repeat("$-1\r\n", 1000),
		"nothing":      "",
	} {
		t.Run(what, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						b := make([]byte, 4096)
						_, _ = c.Read(b)
						_, _ = c.Write([]byte(answer))
						if answer == "" {
							_ = c.Close()
						}
					}()
				}
			}()
			store := koreredis.Revocations(clientOf(t, l.Addr().String(), func(o *redis.Options) { o.MaxRetries = -1 }), name)
			fleet := store.(revocation.Fleet)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			var calls atomic.Int64
			count := func() { calls.Add(1) }
			err = store.Follow(ctx, 0, func(revocation.Receipt) { count() }, func(time.Time) { count() })
			assert.Error(t, err)
			assert.Zero(t, calls.Load())
			_, err = store.Append(ctx, revocation.Rule{Issuer: issuer, Token: "t"})
			assert.Error(t, err)
			assert.Error(t, fleet.Refill(ctx, []revocation.Receipt{{At: time.Now(), Rule: revocation.Rule{Issuer: issuer, Token: "t"}}}))
			assert.Error(t, fleet.Report(ctx, "r", 1))
			_, _, err = fleet.Replicas(ctx)
			assert.Error(t, err)
		})
	}
}
