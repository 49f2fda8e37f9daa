package koreauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// TestMemory_BoundHolds fills the memory with the worst shapes of tokens: what is kept
// of a token may be much larger than its text. The heap must not grow by more than
// 4 KiB for each entry of CacheSize.
func TestMemory_BoundHolds(t *testing.T) {
	const size, limit = 100, 100 * 4 << 10
	longKeyID := "k" + strings.Repeat("x", 8000)
	usual := func(n int) string {
		return fmt.Sprintf(`"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d"`, edIssuer, n)
	}
	payload := func(more string) func(n int) string {
		return func(n int) string { return signToken(ed25519Header, "{"+usual(n)+","+more+"}") }
	}
	list := func(item string, bytes int) string {
		return strings.TrimSuffix(strings.Repeat(item+",", bytes/(len(item)+1)), ",")
	}
	header := func(more string) func(n int) string {
		return func(n int) string {
			return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":%d,%s}`, n, more), "{"+usual(n)+"}")
		}
	}
	rows := map[string]func(n int) string{
		"small tokens":           func(n int) string { return signToken(ed25519Header, "{"+usual(n)+"}") },
		"a claim of 11 KB":       payload(`"x":"` + strings.Repeat("x", 11_000) + `"`),
		"a claim of 3,390 bytes": payload(`"x":"` + strings.Repeat("x", 3390) + `"`),
		"scopes of one letter":   payload(`"scope":"` + strings.Repeat("a ", 5500) + `"`),
		"an escaped access":      payload(`"scopes":{"globalResources":[{"resourceName":"a","access":["\u0061` + strings.Repeat("x", 10_000) + `"]}]}`),
		"a list of audiences that has just grown": func(n int) string {
			return signToken(ed25519Header, `{`+strings.Replace(usual(n), `"api-gw"`, `["api-gw"`+strings.Repeat(`,""`, 303)+`]`, 1)+`}`)
		},
		"empty audiences": func(n int) string {
			return signToken(ed25519Header, `{`+strings.Replace(usual(n), `"api-gw"`, `["api-gw",`+list(`""`, 10_000)+`]`, 1)+`}`)
		},
		"empty products":                    payload(`"scopes":{"products":[` + list(`""`, 10_000) + `]}`),
		"empty resources":                   payload(`"scopes":{"globalResources":[` + list(`""`, 10_000) + `]}`),
		"resources with an empty access":    payload(`"scopes":{"globalResources":[` + list(`{"resourceName":"","access":[""]}`, 10_000) + `]}`),
		"many accesses":                     payload(`"scopes":{"globalResources":[{"resourceName":"a","access":[` + list(`""`, 10_000) + `]}]}`),
		"resources of five accesses":        payload(`"scopes":{"globalResources":[` + list(`{"resourceName":"","access":["","","","",""]}`, 10_000) + `]}`),
		"one large ip-range":                payload(`"ip-range":[{"x":"` + strings.Repeat("x", 10_000) + `"}]`),
		"many odd ip-ranges":                payload(`"ip-range":[` + list(`7`, 10_000) + `]`),
		"1,000 members":                     payload(func() string { return members(1000) }()),
		"escaped keys of the sender":        payload(`"cnf":{"x5t#S256":"\u0061` + strings.Repeat("x", 5000) + `","jkt":"\u0061` + strings.Repeat("x", 5000) + `"}`),
		"an escaped scope with many spaces": payload(`"scope":"\u0061` + strings.Repeat(" ", 10_000) + `b"`),
		"an escaped jti": func(n int) string {
			return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"\u0061%d%s"}`, edIssuer, n, strings.Repeat("x", 10_000)))
		},
		"an escaped key ID": func(n int) string {
			return signToken(fmt.Sprintf(`{"alg":"EdDSA","kid":"\u006b%s","n":%d}`, longKeyID[1:], n), "{"+usual(n)+"}")
		},
		"headers of 8 KB":      header(`"x":"` + strings.Repeat("x", 8000) + `"`),
		"headers of 900 bytes": header(`"x":"` + strings.Repeat("x", 600) + `"`),
	}
	for _, name := range []string{"sub", "client_id", "azp", "account-id", "client-type", "client-owner"} {
		rows["an escaped "+name] = payload(fmt.Sprintf(`%q:"\u0061%s"`, name, strings.Repeat("x", 10_000)))
	}
	// Escaped strings are allocations of their own, which are rounded up.
	for _, length := range []int{1, 8, 9, 16, 17, 24, 32, 33, 48, 49, 64, 65, 112, 129, 257, 1025} {
		escaped := `"\u0061` + strings.Repeat("b", length-1) + `"`
		rows[fmt.Sprintf("escaped scopes of %d bytes", length)] = payload(`"scope":[` + list(escaped, 11_000) + `]`)
		rows[fmt.Sprintf("escaped resources of %d bytes", length)] = payload(`"scopes":{"globalResources":[` + list(escaped, 11_000) + `]}`)
		rows[fmt.Sprintf("escaped ip-ranges of %d bytes", length)] = payload(`"ip-range":[` + list(escaped, 11_000) + `]`)
	}
	for name, token := range rows {
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: size,
			Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}, {ID: longKeyID, Algorithm: "EdDSA", Public: edPublic("k")}},
		})
		require.NoError(t, err)
		var remembered bool
		guard := koreauth.New(v, &koreauth.Options{
			Sender:  koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil }),
			Observe: func(_ *http.Request, o koreauth.Outcome) { remembered = o.Remembered },
		}).Wrap(whoami)
		remember := func(token string) {
			for range 2 {
				status, body := serve(guard, bearerRequest(token))
				require.Equal(t, http.StatusOK, status, body)
			}
		}
		first := token(-1)
		require.LessOrEqual(t, len(first), 16<<10, name)
		before := heapInUse()
		remember(first)
		remember(first)
		require.True(t, remembered, name)
		number := size
		if len(first) > 8<<10 {
			number = size / 2 // They count as several, so fewer fill the memory.
		}
		for n := range number {
			remember(token(n))
		}
		grown := int64(heapInUse()) - int64(before)
		assert.LessOrEqual(t, grown, int64(limit), "%s: bytes", name)
		runtime.KeepAlive(v)
	}
}

// members returns n small members of an object.
func members(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`"m%d":%d`, i, i)
	}
	return strings.Join(all, ",")
}

// A flood of tokens that come once stores none of them, and evicts none of those that
// come often.
func TestMemory_OneOffTokensAreNotStored(t *testing.T) {
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: 20,
		Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
	})
	require.NoError(t, err)
	token := func(n int) string {
		return signToken(ed25519Header, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d"}`, edIssuer, n))
	}
	var steady []string
	for n := range 10 {
		steady = append(steady, token(-n-1))
		remember(t, v, steady[n])
	}
	before := heapInUse()
	for n := range 3000 {
		_, err := v.Validate(t.Context(), token(n))
		require.NoError(t, err)
	}
	if !raceDetector { // It allocates, too.
		assert.LessOrEqual(t, int64(heapInUse())-int64(before), int64(16<<10), "bytes that the flood left")
	}
	for _, token := range steady {
		assert.True(t, rememberedBy(t, v, token))
	}
	for n := range 3000 {
		if n%100 == 0 {
			assert.False(t, rememberedBy(t, v, token(n)), "token %d", n)
		}
	}
}

// A token whose end is that of a remembered one has the same fingerprint, and is not
// taken for it.
func TestMemory_EqualFingerprints(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	valid := issuer.Valid()
	remember(t, v, valid)
	require.True(t, rememberedBy(t, v, valid))
	signature := valid[strings.LastIndex(valid, "."):]
	other := issuer.Valid()
	forged := other[:strings.LastIndex(other, ".")] + signature
	for range 3 {
		_, err := v.Validate(t.Context(), forged)
		assert.ErrorIs(t, err, koreauth.ErrSignature, "the signature of another token")
		_, err = v.Validate(t.Context(), valid+"=")
		assert.ErrorIs(t, err, koreauth.ErrMalformed)
		_, err = v.Validate(t.Context(), "x"+valid)
		assert.Error(t, err)
	}
	assert.True(t, rememberedBy(t, v, valid), "the remembered token stays")
	assert.False(t, rememberedBy(t, v, other))
}

// A remembered token that will not be valid again leaves the memory when it is
// rejected.
func TestMemory_ForgetsTokens(t *testing.T) {
	const count, size = 200, 8 << 10
	for name, row := range map[string]struct {
		after time.Duration
		keys  []koreauth.Key
		want  error
	}{
		"it has expired":         {time.Hour, edStatic("k"), koreauth.ErrExpired},
		"its key is gone":        {0, edStatic("other"), koreauth.ErrUnknownKey},
		"its key was replaced":   {0, []koreauth.Key{keyNamed("k", "other")}, koreauth.ErrSignature},
		"the issuer has no keys": {0, nil, koreauth.ErrUnknownKey},
	} {
		synctest.Test(t, func(t *testing.T) {
			keys := edStatic("k")
			v, err := koreauth.NewValidator(koreauth.Config{
				Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"},
				Keys: keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return keys, nil }),
			})
			require.NoError(t, err)
			var tokens []string
			for n := range count {
				tokens = append(tokens, edToken(t, "k", map[string]any{"jti": fmt.Sprint(n), "x": strings.Repeat("x", size)}))
			}
			before := heapInUse()
			for _, token := range tokens {
				remember(t, v, token)
			}
			require.Greater(t, int64(heapInUse())-int64(before), int64(count*size), name)
			time.Sleep(row.after)
			keys = row.keys
			for _, token := range tokens {
				_, err := v.Validate(t.Context(), token)
				require.ErrorIs(t, err, row.want, name)
			}
			assert.Less(t, int64(heapInUse())-int64(before), int64(count*size/10), name)
			runtime.KeepAlive(v)
		})
	}
}

// Many goroutines validate few tokens while the key of half of them comes and goes.
func TestMemory_Concurrent(t *testing.T) {
	var with atomic.Bool
	with.Store(true)
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: 10,
		Keys: keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
			keys := []koreauth.Key{{ID: "k", Public: edPublic("k")}}
			if with.Load() {
				keys = append(keys, koreauth.Key{ID: "sometimes", Public: edPublic("sometimes")})
			}
			return keys, nil
		}),
	})
	require.NoError(t, err)
	guard := koreauth.New(v, nil)
	var tokens []string
	for n := range 30 {
		tokens = append(tokens, edToken(t, []string{"k", "sometimes"}[n%2], map[string]any{"client_id": fmt.Sprint("client-", n)}))
	}
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 300 {
				n := (i*(g+1) + g) % len(tokens)
				if g == 0 && i%50 == 0 {
					with.Store(!with.Load())
				}
				claims, err := guard.Authenticate(bearerRequest(tokens[n]))
				switch {
				case err == nil:
					if want := fmt.Sprint("client-", n); claims.ClientID != want {
						t.Errorf("got the claims of %s, want those of %s", claims.ClientID, want)
					}
				case n%2 == 0 || !errors.Is(err, koreauth.ErrUnknownKey):
					t.Errorf("token %d: %v", n, err)
				}
			}
		})
	}
	group.Wait()
	with.Store(false)
	for n, token := range tokens {
		_, err := v.Validate(t.Context(), token)
		assert.Equal(t, n%2 == 0, err == nil, "token %d: %v", n, err)
	}
}
