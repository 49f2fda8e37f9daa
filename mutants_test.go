package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// Tests without which a mutant of internal/mutants would survive.

func TestAConfigIsCopied(t *testing.T) {
	audience, clients := []string{koretest.Audience}, []string{"other"}
	issuer, v := judge(t, "RS256", func(c *koreauth.Config) { c.Audience = audience })
	audience[0] = "other"
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.NoError(t, err, "the audience is what it was")

	issuer, v = judge(t, "RS256", func(c *koreauth.Config) { c.ClientIDs = clients })
	clients[0] = issuer.Client().ID
	_, err = v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrClient, "the clients are what they were")
}

func TestATokenInJSONIsAString(t *testing.T) {
	for _, value := range []string{`null`, `["a"]`, `{"t":"a"}`, `7`, `true`} {
		_, err := found(post(jsonType, `{"t":`+value+`}`), koreauth.JSON("t"))
		assert.Equal(t, http.StatusBadRequest, statusOf(err), value)
	}
}

func statusOf(err error) int {
	status, _, _ := koreauth.RFC6750Errors(err)
	return status
}

func TestAPayloadThatIsNoJSONMakesNoFetch(t *testing.T) {
	var fetches []bool
	v := edValidator(t, keysFunc(func(_ context.Context, _ string, fetch bool) ([]koreauth.Key, error) {
		fetches = append(fetches, fetch)
		return nil, nil
	}))
	good := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999`
	for _, payload := range []string{good + `}`, good + `,`, good + `,"exp":99999999999}`, good + `}x`} {
		_, err := v.Validate(t.Context(), fuzzSigned(fuzzHeader, payload))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey)
	}
	assert.Equal(t, []bool{true, false, false, false}, fetches)
}

func TestTheMemoryIsBoundedInBytes(t *testing.T) {
	validator := func(size int) *koreauth.Validator {
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, CacheSize: size,
			Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
		})
		require.NoError(t, err)
		return v
	}
	long := strings.Repeat("x", 8<<10)
	for _, row := range []struct {
		name  string
		size  int
		token func(n int) string
		limit uint64
	}{
		{"large payloads count as several entries", 100, func(n int) string {
			return fuzzSigned(fuzzHeader, fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":99999999999,"jti":"%d","x":%q}`, edIssuer, n, long))
		}, 100 * 4 << 10},
		{"many small values count as well", 100, func(n int) string {
			return fuzzSigned(fuzzHeader, fmt.Sprintf(`{"iss":%q,"aud":["api-gw"%s],"exp":99999999999,"jti":"%d"}`, edIssuer, strings.Repeat(`,""`, 2<<10), n))
		}, 100 * 4 << 10},
		{"headers are few", 1, func(n int) string {
			return fuzzSigned(fmt.Sprintf(`{"alg":"EdDSA","kid":"k","n":"%d","x":%q}`, n, long), `{"iss":"`+edIssuer+`","aud":"api-gw","exp":99999999999}`)
		}, 64 * 12 << 10},
	} {
		v := validator(row.size)
		before := heapInUse()
		for n := range 500 {
			_, err := v.Validate(t.Context(), row.token(n))
			require.NoError(t, err)
		}
		grown := int64(heapInUse()) - int64(before)
		assert.Less(t, grown, int64(row.limit)*3/2, row.name)
		runtime.KeepAlive(v)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // What a sync.Pool held is gone after two.
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestAKeyThatNobodyAskedForIsNotUsed(t *testing.T) {
	key := signingKeys()["RS256"]
	for _, id := range []string{"", strings.ToLower(key.ID), key.ID + "x", key.ID[:8]} {
		issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
			c.HTTPClient = nil
			c.Keys = keysFunc(func(context.Context, string, bool) ([]koreauth.Key, error) {
				return []koreauth.Key{{ID: id, Public: key.Public()}}, nil
			})
		})
		_, err := v.Validate(t.Context(), issuer.Valid())
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "%q for %q", id, key.ID)
	}
}

func TestOnlyInsufficientScopeNamesWhatIsRequired(t *testing.T) {
	for _, class := range []error{koreauth.ErrNoToken, koreauth.ErrBadRequest, koreauth.ErrInvalidToken, koreauth.ErrUnavailable} {
		w := httptest.NewRecorder()
		koreauth.New(koretest.Validator{}, &koreauth.Options{Errors: koreauth.RFC6750Errors}).
			Refuse(w, get("/"), &koreauth.Error{Class: class, Required: []string{"sims:read"}})
		assert.NotContains(t, w.Body.String()+w.Header().Get("WWW-Authenticate"), "sims:read", "%v", class)
	}
}

func TestJSONThatIsAlmostRight(t *testing.T) {
	for name, text := range map[string]string{
		"a name without its first quote":              `{a":1}`,
		"a member without a comma":                    `{"a":1"b":2}`,
		"a member after a quote in place of a comma":  `{"a":1""b":2}`,
		"true, but for the last letter":               `{"a":trux}`,
		"false, but for the last letter":              `{"a":falsy}`,
		"null, in another case":                       `{"a":nuLL}`,
		"a control character after an escape":         "{\"a\":\"\\n\t\"}",
		"the first name again, after many others":     `{` + manyMembers(40) + `"m0":1}`,
		"the name that made them many, again":         `{` + manyMembers(40) + `"m32":1}`,
		"a name again, after an object with the same": `{"x":{` + manyMembers(20) + `"y":1},` + manyMembers(20) + `"m3":1}`,
	} {
		var claims koreauth.Claims
		assert.Error(t, claims.UnmarshalJSON([]byte(text)), name)
	}
	var claims koreauth.Claims
	again := `{"x":{` + manyMembers(30) + `"y":1},` + manyMembers(30) + `"y":1}`
	assert.NoError(t, claims.UnmarshalJSON([]byte(again)), "names of an inner object are not those of the outer")
}

func TestAnRSAExponentThatCannotBeWorkedWithFitsNothing(t *testing.T) {
	public := *signingKeys()["RS256"].Public().(*rsa.PublicKey)
	public.E = math.MaxInt32
	public.E += 2
	issuer, v := judge(t, "RS256", func(c *koreauth.Config) {
		c.HTTPClient = nil
		c.Keys = keysFunc(func(_ context.Context, kid string, _ bool) ([]koreauth.Key, error) {
			return []koreauth.Key{{ID: kid, Public: &public}}, nil
		})
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	require.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

func TestNoConnectionIsKeptWhereNothingRedirects(t *testing.T) {
	closed := make(chan struct{}, 1)
	issuer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, edSet("a"))
	}))
	issuer.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	issuer.Start()
	defer issuer.Close()
	_, err := (&koreauth.RemoteKeySet{URL: issuer.URL, HTTPClient: issuer.Client()}).Keys(t.Context(), "a", true)
	require.NoError(t, err)
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("the connection is kept")
	}
}

func TestARememberedTokenEndsWithItsKeyOfEveryKind(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		key := signingKeys()[alg]
		set := &changing{[]koreauth.Key{{ID: key.ID, Public: key.Public()}}}
		validator := func(size int) (*koretest.Issuer, *koreauth.Validator) {
			return judge(t, alg, func(c *koreauth.Config) {
				c.HTTPClient, c.Keys, c.Algorithms, c.CacheSize = nil, set, []string{alg}, size
			})
		}
		issuer, v := validator(0)
		_, without := validator(-1)
		token := issuer.Valid()
		// Each refresh brings the same key in another place of the memory.
		parsed, err := koreauth.ParseKeys(documentOf(t, key))
		require.NoError(t, err)
		refreshing := func(v *koreauth.Validator) float64 {
			return testing.AllocsPerRun(20, func() {
				set.keys[0].Public, parsed[0].Public = parsed[0].Public, set.keys[0].Public
				if _, err := v.Validate(context.Background(), token); err != nil {
					t.Fatal(err)
				}
			})
		}
		assert.Less(t, refreshing(v)+5, refreshing(without), "%s: a refresh that brings the same key costs no signature", alg)

		other, err := koretest.NewKey(alg)
		require.NoError(t, err)
		set.keys[0].Public = other.Public()
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrSignature, "%s: another key has the ID", alg)
	}
}

func TestAContextThatIsPrintedDoesNotShowTheToken(t *testing.T) {
	issuer, v := judge(t, "RS256", nil)
	token := issuer.Valid()
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		below := context.WithValue(r.Context(), http.ServerContextKey, 1)
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			for _, ctx := range []context.Context{r.Context(), below} {
				assert.NotContains(t, fmt.Sprintf(format, ctx), token[:40], format)
			}
		}
	})
	r := get("/", "Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	koreauth.New(v, nil).Wrap(handler).ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code)
}

func TestAnEd25519KeyOfAnotherLengthFitsNothing(t *testing.T) {
	for _, public := range []ed25519.PublicKey{nil, {1}, append(slices.Clone(edPublic("k")), 0)} {
		v := edValidator(t, keysFunc(func(_ context.Context, kid string, _ bool) ([]koreauth.Key, error) {
			return []koreauth.Key{{ID: kid, Public: public}}, nil
		}))
		_, err := v.Validate(t.Context(), edToken(t, "k", nil)) // crypto/ed25519 would panic.
		require.ErrorIs(t, err, koreauth.ErrUnknownKey, "%d bytes", len(public))
	}
}
