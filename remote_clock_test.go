package koreauth_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/clock"
)

// clock.Suspend is for the whole program, so these tests must not be parallel.

func TestRemoteKeySet_SuspendedMachine(t *testing.T) {
	withFakeTime(t, "after 12 hours a request waits for a refresh, and a removed key is unknown", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "removed"))
		v := edValidator(t, net.keySet())
		day := map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}
		kept, removed, fresh := edToken(t, "a", day), edToken(t, "removed", day), edTokenSignedBy("removed", "removed", day)
		for range 3 { // They are remembered.
			for _, token := range []string{kept, removed} {
				_, err := v.Validate(t.Context(), token)
				require.NoError(t, err)
			}
		}
		net.respondKeys(delayed(time.Second, keysOf("a")))
		defer clock.Suspend(12 * time.Hour)()
		start := time.Now()
		_, err := v.Validate(t.Context(), removed)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Equal(t, time.Second, time.Since(start), "the request waited")
		_, err = v.Validate(t.Context(), fresh)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		_, err = v.Validate(t.Context(), kept)
		assert.NoError(t, err)
		assert.Equal(t, "https://issuer.example.com/keys", net.requestURLs()[1])
	})
	withFakeTime(t, "after MaxAge, keys are refreshed in the background", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("b")))
		undo := clock.Suspend(keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.requestCount(), "a nanosecond before MaxAge")
		undo()
		defer clock.Suspend(keysMaxAge)()
		wantKey(t, set, "a", 0)
		wait(time.Second)
		assert.Equal(t, 2, net.requestCount(), "at MaxAge")
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "after two MaxAge, a request waits", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(delayed(time.Second, keysOf("a", "b")))
		defer clock.Suspend(2 * keysMaxAge)()
		wantKey(t, set, "a", time.Second)
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "after MaxStale the keys are not used", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		undo := clock.Suspend(keysMaxStale - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		undo()
		defer clock.Suspend(keysMaxStale)()
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		_, err = set.Keys(t.Context(), "a", false)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	})
	withFakeTime(t, "suspended during an outage: the retry is made at once, and the request waits for it", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		wait(keysMaxAge)
		for range 300 { // The time between retries grows.
			wantKey(t, set, "a", 0)
			wait(time.Second)
		}
		net.respondKeys(delayed(time.Second, keysOf("b")))
		defer clock.Suspend(12 * time.Hour)()
		wantUnknown(t, set, "a", time.Second)
	})
	withFakeTime(t, "a max-age of the server is an age too", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, edSet("a"), "Cache-Control: max-age=60"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		defer clock.Suspend(time.Minute)()
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount())
	})
}

func TestRemoteKeySet_WallClockSetBack(t *testing.T) {
	withFakeTime(t, "the monotonic age counts", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.MaxStale = time.Hour
		wantKey(t, set, "a", 0)
		defer clock.Suspend(-10 * 365 * 24 * time.Hour)()
		wait(keysMaxAge - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 1, net.requestCount(), "a nanosecond before MaxAge")
		wait(1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount(), "at MaxAge")
		net.respondKeys(connectionRefused)
		wait(time.Hour - 1)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		wait(1)
		_, err := set.Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, "at MaxStale")
	})
	withFakeTime(t, "keys that were fetched while it was ahead are not kept longer", func(t *testing.T, net *network) {
		undo := clock.Suspend(24 * 365 * time.Hour)
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		wantKey(t, set, "a", 0)
		undo()
		wait(keysMaxAge)
		wantKey(t, set, "a", 0)
		synctest.Wait()
		assert.Equal(t, 2, net.requestCount())
	})
}

// The clock is read after the wait for a key.
func TestValidator_ExpiresDuringWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		net.respondKeys(delayed(2*time.Second, keysOf("a")))
		short := map[string]any{"exp": time.Now().Add(time.Second).Unix()}
		_, err := edValidator(t, net.keySet()).Validate(t.Context(), edToken(t, "a", short))
		assert.ErrorIs(t, err, koreauth.ErrExpired, "a new token")

		var slow time.Duration
		v := edValidator(t, keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
			time.Sleep(slow)
			return []koreauth.Key{keyNamed("a", "a")}, nil
		}))
		token := edToken(t, "a", map[string]any{"exp": time.Now().Add(time.Second).Unix()})
		for range 3 {
			_, err = v.Validate(t.Context(), token)
			require.NoError(t, err)
		}
		slow = time.Second
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrExpired, "a remembered token")
	})
}
