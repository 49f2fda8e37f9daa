package koreauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

const unusableMessage = "koreauth: the issuer publishes keys that cannot be used"

// records returns the records that a JSON handler wrote.
func records(t *testing.T, log *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var record map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &record))
		all = append(all, record)
	}
	return all
}

func TestRemoteKeySet_WarnsOfUnusableKeys(t *testing.T) {
	unusable := []struct{ kid, jwk, reason string }{
		{"old", strings.Replace(rsaJWK(1024, f4, ""), `"k"`, `"old"`, 1), "2048 bits"},
		{"pq", `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AA"}`, "not a key of a known type"},
		{"private", strings.Replace(edJWK("private"), `"kty"`, `"d":"c2VjcmV0","kty"`, 1), "a private key"},
		{"hmac", `{"kty":"oct","kid":"hmac","k":"c2VjcmV0c2VjcmV0"}`, "not a key of a known type"},
		{"mixed", strings.Replace(rsaJWK(2048, f4, `,"alg":"ES256"`), `"k"`, `"mixed"`, 1), `"alg"`},
		{"huge", strings.Replace(rsaJWK(2048, new(big.Int).Lsh(f4, 40), ""), `"k"`, `"huge"`, 1), "exponent"},
		{"ops", strings.Replace(edJWK("ops"), `"sig"`, `["sig"]`, 1), `"use" has the wrong type`},
	}
	withFakeTime(t, "one warning per fetch names each with its reason", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Issuer, set.Logger = edIssuer, slog.New(slog.NewJSONHandler(&log, nil))
		jwks := []string{edJWK("good")}
		for _, key := range unusable {
			jwks = append(jwks, key.jwk)
		}
		net.respondKeys(reply(200, jwksOf(jwks...), `ETag: "1"`))
		wantKey(t, set, "good", 0)
		synctest.Wait()
		all := records(t, &log)
		require.Len(t, all, 1)
		assert.Equal(t, "WARN", all[0]["level"])
		assert.Equal(t, unusableMessage, all[0]["msg"])
		assert.Equal(t, edIssuer, all[0]["issuer"])
		for _, key := range unusable {
			assert.Contains(t, all[0]["keys"], fmt.Sprintf("key %q: ", key.kid))
			assert.Contains(t, all[0]["keys"], key.reason)
		}
		assert.NotContains(t, all[0]["keys"], "good")
		assert.NotContains(t, log.String(), "c2VjcmV0")
		for range 100 {
			wantKey(t, set, "good", 0)
		}
		net.respondKeys(reply(304, ""))
		wait(keysMaxAge)
		wantKey(t, set, "good", 0)
		synctest.Wait()
		assert.Len(t, records(t, &log), 2, "one for each fetch")
	})
	for _, key := range unusable {
		withFakeTime(t, "the cause of ErrUnknownKey says why "+key.kid+" is not used", func(t *testing.T, net *network) {
			net.respondKeys(keysNamed(key.jwk, edJWK("good")))
			v := edValidator(t, net.keySet())
			for range 5 { // also at the limit
				_, err := v.Validate(t.Context(), edTokenSignedBy(key.kid, "signer", nil))
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
				assert.ErrorContains(t, err, "the issuer publishes this key, but it cannot be used")
				assert.ErrorContains(t, err, key.reason)
			}
			_, err := v.Validate(t.Context(), edTokenSignedBy("other", "signer", nil))
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
			assert.NotContains(t, err.Error(), "publishes")
			status := v.Status()[0]
			assert.Equal(t, 1, status.Keys)
			assert.Equal(t, 1, status.Ignored)
			require.Len(t, status.Reasons, 1)
			assert.Contains(t, status.Reasons[0], key.kid)
		})
	}
	withFakeTime(t, "the cause of ErrUnknownKey is that of the one key, and an outage is none", func(t *testing.T, net *network) {
		net.respondKeys(keysNamed(unusable[0].jwk, unusable[1].jwk, edJWK("good")))
		v := edValidator(t, net.keySet())
		_, err := v.Validate(t.Context(), edTokenSignedBy(unusable[0].kid, "signer", nil))
		assert.ErrorContains(t, err, unusable[0].reason)
		assert.NotContains(t, err.Error(), unusable[1].reason)
		net.respondKeys(connectionRefused)
		_, err = v.Validate(t.Context(), edTokenSignedBy(unusable[0].kid, "signer", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.NotErrorIs(t, err, koreauth.ErrInvalidToken, "the issuer may have replaced the key")
	})
	withFakeTime(t, "keys for encryption cause no warning, and are in the status", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		jwks := []string{edJWK("good"), strings.Replace(edJWK("k"), `"sig"`, `"enc"`, 1)}
		for _, alg := range []string{"RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-512", "RSA1_5"} {
			jwks = append(jwks, rsaJWK(2048, f4, fmt.Sprintf(`,"alg":%q`, alg)), rsaJWK(1024, f4, fmt.Sprintf(`,"alg":%q`, alg)), rsaJWK(2048, f4, fmt.Sprintf(`,"alg":%q,"use":"enc"`, alg)))
		}
		for _, alg := range []string{"ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"} {
			jwks = append(jwks, strings.TrimSuffix(ecJWKNamed("k"), "}")+fmt.Sprintf(`,"alg":%q}`, alg))
		}
		jwks = append(jwks, strings.TrimSuffix(ecJWKNamed("k"), "}")+`,"key_ops":["deriveKey"]}`,
			`{"kty":"OKP","crv":"X25519","kid":"k","use":"enc","x":"`+rawURL(make([]byte, 32))+`"}`,
			`{"kty":"OKP","crv":"X25519","kid":"k","x":"`+rawURL(make([]byte, 32))+`"}`, `{"kty":"OKP","crv":"X448","kid":"k"}`,
			`{"kty":"OKP","crv":"X25519","kid":"k","alg":"ECDH-ES","x":"`+rawURL(make([]byte, 32))+`"}`)
		net.respondKeys(keysNamed(jwks...))
		v := edValidator(t, set)
		require.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		assert.Empty(t, log.String())
		assert.Equal(t, len(jwks)-1, v.Status()[0].Ignored)
		_, err := v.Validate(t.Context(), edTokenSignedBy("k", "signer", nil))
		assert.ErrorContains(t, err, "not for signatures")
	})
	withFakeTime(t, "the text is bounded, on one line, and without control characters and secrets", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewTextHandler(&log, nil))
		jwks := []string{edJWK("good")}
		for _, kid := range []string{
			strings.Repeat("long", 100_000), "line\nbreak\x1b[31m\x00", "jane@example.com", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJqYW5lIn0.c2ln", "\u202eright to left", "two words",
		} {
			jwks = append(jwks, fmt.Sprintf(`{"kty":"AKP","kid":%s}`, mustJSON(kid)))
		}
		jwks = append(jwks, strings.Repeat(`{"kty":"AKP","kid":"many"},`, 4999)+`{}`)
		net.respondKeys(keysNamed(jwks...))
		v := edValidator(t, set)
		require.NoError(t, v.Ready(t.Context()))
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
		assert.Less(t, log.Len(), 2000)
		status := v.Status()[0]
		assert.Equal(t, 5006, status.Ignored)
		assert.Len(t, status.Reasons, 1000)
		for _, text := range append(status.Reasons, log.String()[:log.Len()-1]) {
			assert.False(t, strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }), "%q", text)
			for _, secret := range []string{"jane", "eyJ"} {
				assert.NotContains(t, text, secret)
			}
			assert.Less(t, len(text), 2000)
		}
		_, err := v.Validate(t.Context(), edTokenSignedBy("jane@example.com", "signer", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.NotContains(t, err.Error(), "jane")
	})
	withFakeTime(t, "a key without an ID is named by its position", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respondKeys(keysNamed(edJWK("good"), `{"kty":"AKP"}`))
		wantKey(t, set, "good", 0)
		synctest.Wait()
		assert.Contains(t, log.String(), "key 1: not a key of a known type")
	})
	withFakeTime(t, "usable keys alone cause no warning", func(t *testing.T, net *network) {
		var log bytes.Buffer
		set := net.keySet()
		set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		net.respondKeys(keysOf("a", "b"))
		wantKey(t, set, "a", 0)
		wantUnknown(t, set, "c", 0)
		synctest.Wait()
		assert.Empty(t, log.String())
	})
}

func mustJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// hookHandler calls functions in place of writing records.
type hookHandler struct {
	slog.Handler
	enabled, handle func()
}

func (h hookHandler) Enabled(context.Context, slog.Level) bool { h.enabled(); return true }

func (h hookHandler) Handle(context.Context, slog.Record) error { h.handle(); return nil }

func TestRemoteKeySet_LoggerThatMisbehaves(t *testing.T) {
	nothing := func() {}
	for name, misbehave := range map[string]func(){
		"panics":              func() { panic("boom") },
		"panics with nil":     func() { panic(nil) }, //nolint:govet // The point of the row.
		"exits its goroutine": runtime.Goexit,
	} {
		for _, in := range []string{"Handle", "Enabled"} {
			withFakeTime(t, "a Logger whose "+in+" "+name, func(t *testing.T, net *network) {
				var calls atomic.Int64
				hook := func() { calls.Add(1); misbehave() }
				handler := hookHandler{slog.DiscardHandler, nothing, hook}
				if in == "Enabled" {
					handler = hookHandler{slog.DiscardHandler, hook, nothing}
				}
				set := net.keySet()
				set.Logger = slog.New(handler)
				net.respondKeys(keysNamed(edJWK("a"), "{}"))
				wantKey(t, set, "a", 0)
				synctest.Wait()
				assert.EqualValues(t, 1, calls.Load(), "warnings of unusable keys")
				net.respondKeys(connectionRefused)
				wait(keysMaxAge)
				for _, interval := range []time.Duration{keysInterval, 2 * keysInterval, 4 * keysInterval} {
					wantKey(t, set, "a", 0)
					wait(interval)
				}
				assert.EqualValues(t, 1+3, calls.Load(), "and warnings of failed refreshes")
				net.respondKeys(keysOf("b"))
				wantKey(t, set, "a", 0)
				synctest.Wait()
				wantKey(t, set, "b", 0)
			})
		}
	}
	for _, in := range []string{"Handle", "Enabled"} {
		withFakeTime(t, "a Logger whose "+in+" blocks: one goroutine waits, and refreshes go on", func(t *testing.T, net *network) {
			var calls atomic.Int64
			release := make(chan struct{})
			hook := func() { calls.Add(1); <-release }
			handler := hookHandler{slog.DiscardHandler, nothing, hook}
			if in == "Enabled" {
				handler = hookHandler{slog.DiscardHandler, hook, nothing}
			}
			set := net.keySet()
			set.Logger = slog.New(handler)
			net.respondKeys(keysOf("a"))
			wantKey(t, set, "a", 0)
			synctest.Wait()
			before := runtime.NumGoroutine()
			net.respondKeys(connectionRefused)
			wait(keysMaxAge)
			count := net.requestCount()
			for range 100 {
				wantKey(t, set, "a", 0)
				wait(8 * keysInterval)
			}
			assert.Equal(t, 100, net.requestCount()-count, "refreshes while the Logger blocks")
			assert.EqualValues(t, 1, calls.Load())
			assert.LessOrEqual(t, runtime.NumGoroutine(), before+1+2, "one, and two of the test binary")
			net.respondKeys(keysOf("b"))
			wantKey(t, set, "a", 0)
			synctest.Wait()
			wantKey(t, set, "b", 0)
			close(release)
			synctest.Wait()
			net.respondKeys(func(*http.Request) (*http.Response, error) { return nil, errConnectionRefused })
			wait(keysMaxAge)
			wantKey(t, set, "b", 0)
			synctest.Wait()
			assert.EqualValues(t, 2, calls.Load(), "a Logger that has returned is called again")
		})
	}
}

// The URL in the record has no query, which may be a secret.
func TestRemoteKeySet_WarnsWithoutTheQuery(t *testing.T) {
	withFakeTime(t, "", func(t *testing.T, net *network) {
		var log bytes.Buffer
		const url = keysURL + "?key=hidden"
		net.respond(url, reply(200, jwksOf(edJWK("good"), `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AA"}`)))
		set := &koreauth.RemoteKeySet{URL: url, HTTPClient: net.client(), Logger: slog.New(slog.NewJSONHandler(&log, nil))}
		wantKey(t, set, "good", 0)
		synctest.Wait()
		assert.Contains(t, log.String(), keysURL)
		assert.NotContains(t, log.String(), "hidden")
	})
}
