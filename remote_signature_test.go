package koreauth_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// jwkNamed returns the JWK of edKey(name) with another kid, or without one.
func jwkNamed(kid, name string) string {
	if kid == "" {
		return strings.Replace(edJWK(name), fmt.Sprintf(`"kid":%q,`, name), "", 1)
	}
	return strings.Replace(edJWK(name), fmt.Sprintf(`"kid":%q,`, name), fmt.Sprintf(`"kid":%q,`, kid), 1)
}

func keysNamed(jwks ...string) responder { return reply(200, jwksOf(jwks...)) }

const (
	headerK     = `{"alg":"EdDSA","kid":"k"}`
	headerNoKid = `{"alg":"EdDSA"}`
)

func TestRemoteKeySet_FetchesForBadSignature(t *testing.T) {
	for _, row := range []struct {
		name          string
		header        string
		before, after responder
	}{
		{"a key that was replaced under its kid", headerK, keysNamed(jwkNamed("k", "old")), keysNamed(jwkNamed("k", "new"))},
		{"a key that was added under a kid", headerK, keysNamed(jwkNamed("k", "old")), keysNamed(jwkNamed("k", "old"), jwkNamed("k", "new"))},
		{"a key that was replaced and has no kid", headerK, keysNamed(jwkNamed("", "old")), keysNamed(jwkNamed("", "new"))},
		{"a key that got its kid, beside keys without one", headerK, keysNamed(jwkNamed("", "old")), keysNamed(jwkNamed("", "old"), jwkNamed("k", "new"))},
		{"a key that lost its kid", headerK, keysNamed(jwkNamed("k", "old")), keysNamed(jwkNamed("", "new"))},
		{"a token without kid, of a key with one", headerNoKid, keysNamed(jwkNamed("a", "old")), keysNamed(jwkNamed("a", "old"), jwkNamed("b", "new"))},
		{"a token without kid, of a key without one", headerNoKid, keysNamed(jwkNamed("", "old")), keysNamed(jwkNamed("", "new"))},
		{"a key that replaced one of another type", headerK, keysNamed(ecJWKNamed("k"), jwkNamed("x", "x")), keysNamed(jwkNamed("k", "new"))},
		{"a token without kid, of a type that no key had", headerNoKid, keysNamed(ecJWKNamed("x")), keysNamed(jwkNamed("b", "new"))},
	} {
		withFakeTime(t, row.name+", is found by the first token", func(t *testing.T, net *network) {
			net.respondKeys(row.before)
			v := edValidator(t, net.keySet())
			require.NoError(t, v.Ready(t.Context()))
			net.respondKeys(delayed(time.Second, row.after))
			start := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					_, err := v.Validate(t.Context(), kidToken(t, row.header, "new"))
					assert.NoError(t, err)
				})
			}
			wg.Wait()
			assert.Equal(t, time.Second, time.Since(start))
			assert.Equal(t, 2, net.requestCount())
			_, err := v.Validate(t.Context(), kidToken(t, row.header, "new"))
			assert.NoError(t, err)
			assert.Equal(t, 2, net.requestCount())
		})
	}
	withFakeTime(t, "a token that any of five keys may have signed causes no fetch", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a", "b", "c", "d", "e"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		_, err := v.Validate(t.Context(), kidToken(t, headerNoKid, "a"))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "a remembered token of the replaced key ends", func(t *testing.T, net *network) {
		net.respondKeys(keysNamed(jwkNamed("k", "old")))
		v := edValidator(t, net.keySet())
		old := kidToken(t, headerK, "old")
		for range 3 {
			_, err := v.Validate(t.Context(), old)
			require.NoError(t, err)
		}
		net.respondKeys(keysNamed(jwkNamed("k", "new")))
		_, err := v.Validate(t.Context(), kidToken(t, headerK, "new"))
		require.NoError(t, err)
		for range 2 {
			_, err = v.Validate(t.Context(), old)
			assert.ErrorIs(t, err, koreauth.ErrSignature)
		}
	})
	withFakeTime(t, "bad signatures and invented kids share a burst of three, then one fetch per MinInterval", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("k"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		start := time.Now()
		forged := []func() (string, error){
			func() (string, error) { return kidToken(t, headerK, "forger"), koreauth.ErrSignature },
			func() (string, error) { return kidToken(t, headerNoKid, "forger"), koreauth.ErrSignature },
			func() (string, error) { return edTokenSignedBy(rand.Text(), "forger", nil), koreauth.ErrUnknownKey },
		}
		for i := 0; time.Since(start) < 5*time.Minute; i++ {
			token, want := forged[i%len(forged)]()
			begun := time.Now()
			_, err := v.Validate(t.Context(), token)
			require.ErrorIs(t, err, want)
			require.Zero(t, time.Since(begun))
			wait(500 * time.Millisecond)
		}
		want := []time.Duration{0, 500 * time.Millisecond, time.Second}
		for due := keysInterval; due < 5*time.Minute; due += keysInterval {
			want = append(want, due)
		}
		assert.Equal(t, want, net.requestTimes(start, 1))
		_, err := v.Validate(t.Context(), edToken(t, "k", nil))
		assert.NoError(t, err)
	})
	withFakeTime(t, "at the limit, a bad signature is ErrSignature and an unknown kid says that the limit is reached", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("k"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		for range 5 {
			_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
			assert.ErrorIs(t, err, koreauth.ErrSignature)
		}
		_, err := v.Validate(t.Context(), edTokenSignedBy("new", "new", nil))
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		assert.ErrorContains(t, err, "not fetched: the limit")
		assert.Equal(t, 1+3, net.requestCount())
	})
	withFakeTime(t, "while the fetch fails, a bad signature stays a bad signature", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("k"))
		v := edValidator(t, net.keySet())
		require.NoError(t, v.Ready(t.Context()))
		net.respondKeys(connectionRefused)
		for range 5 {
			_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
			assert.ErrorIs(t, err, koreauth.ErrSignature)
			assert.NotErrorIs(t, err, koreauth.ErrUnavailable)
		}
		assert.Equal(t, 1+3, net.requestCount())
	})
	withFakeTime(t, "a fetch for the first token is not followed by one for its bad signature", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("k"))
		v := edValidator(t, net.keySet())
		_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
		assert.ErrorIs(t, err, koreauth.ErrSignature)
		assert.Equal(t, 1, net.requestCount())
	})
	withFakeTime(t, "two issuers have a limit each", func(t *testing.T, net *network) {
		const second = "https://second.example"
		net.respond(second, keysOf("k"))
		net.respondKeys(keysOf("k"))
		config := koreauth.Config{Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, JWKSURL: keysURL, HTTPClient: net.client()}
		other := config
		other.Issuer, other.JWKSURL = second, second
		v, err := koreauth.NewValidator(config, other)
		require.NoError(t, err)
		for range 9 {
			_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
			assert.ErrorIs(t, err, koreauth.ErrSignature)
		}
		assert.Equal(t, 4, net.requestCount())
		for range 9 {
			_, err := v.Validate(t.Context(), edTokenSignedBy("k", "forger", map[string]any{"iss": second}))
			assert.ErrorIs(t, err, koreauth.ErrSignature)
		}
		assert.Equal(t, 8, net.requestCount())
	})
}

// ecJWKNamed returns a key for ES256.
func ecJWKNamed(kid string) string {
	return strings.Replace(ecJWK("P-256", ecKey(elliptic.P256()), ""), `"kid":"k"`, fmt.Sprintf(`"kid":%q`, kid), 1)
}

func TestRemoteKeySet_RequestHeaders(t *testing.T) {
	const no = "no-cache"
	cacheControl := func(net *network) (values []string) {
		for _, r := range net.recorded() {
			values = append(values, r.header.Get("Cache-Control"))
		}
		return values
	}
	withFakeTime(t, "a fetch for an unknown key bypasses caches, and no other does", func(t *testing.T, net *network) {
		configuration := edIssuer + "/.well-known/openid-configuration"
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(reply(200, edSet("k"), `ETag: "1"`))
		v := edValidator(t, &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()})
		require.NoError(t, v.Ready(t.Context()))
		_, err := v.Validate(t.Context(), kidToken(t, headerK, "forger"))
		require.ErrorIs(t, err, koreauth.ErrSignature)
		_, err = v.Validate(t.Context(), edToken(t, "unknown", nil))
		require.ErrorIs(t, err, koreauth.ErrUnknownKey)
		wait(keysMaxAge)
		_, err = v.Validate(t.Context(), edToken(t, "k", nil))
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, []string{configuration, keysURL, keysURL, keysURL, keysURL}, net.requestURLs())
		assert.Equal(t, []string{"", "", no, no, ""}, cacheControl(net))
		assert.Equal(t, `"1"`, net.recorded()[2].header.Get("If-None-Match"))
		for _, r := range net.recorded() {
			assert.Equal(t, "application/jwk-set+json, application/json", r.header.Get("Accept"))
		}
	})
}

func TestRemoteKeySet_MovedKeys(t *testing.T) {
	const (
		configuration = edIssuer + "/.well-known/openid-configuration"
		second        = "https://issuer.example.com/.well-known/oauth-authorization-server/realms/one"
		moved         = "https://keys.example.net/keys"
	)
	type start struct {
		name  string
		place string // of the metadata
		etag  []string
	}
	for _, s := range []start{{"", configuration, nil}, {", with an ETag", configuration, []string{`ETag: "1"`}}, {", with metadata at the second place", second, nil}} {
		withFakeTime(t, "the old URL still answers"+s.name, func(t *testing.T, net *network) {
			net.respond(s.place, metadata(edIssuer, keysURL))
			net.respondKeys(reply(200, edSet("a"), s.etag...))
			set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
			wantKey(t, set, "a", 0)
			net.respond(s.place, metadata(edIssuer, moved))
			net.respond(moved, keysOf("b"))
			if s.etag != nil {
				net.respondKeys(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("If-None-Match") == `"1"` {
						return reply(304, "")(req)
					}
					return reply(200, edSet("a"), s.etag...)(req)
				})
			}
			wait(keysMaxAge - 1)
			wantUnknown(t, set, "b", 0) // The URL was read less than MaxAge ago.
			wait(1)
			_, err := set.Keys(t.Context(), "b", true)
			if s.place == second { // Only three requests fit into one fetch.
				assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
				_, err = set.Keys(t.Context(), "b", true)
			}
			assert.NoError(t, err)
			wantUnknown(t, set, "a", 0)
			urls := net.requestURLs()
			assert.Contains(t, urls, moved)
			assert.NotContains(t, urls[len(urls)-1:], keysURL, "the last request")
			wait(keysMaxAge)
			wantKey(t, set, "b", 0)
			synctest.Wait()
			urls = net.requestURLs()
			assert.Equal(t, moved, urls[len(urls)-1])
		})
	}
	withFakeTime(t, "without an unknown key, the metadata are not read again", func(t *testing.T, net *network) {
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		for range 20 {
			wantKey(t, set, "a", 0)
			synctest.Wait()
			wait(keysMaxAge)
		}
		assert.Equal(t, 1, strings.Count(strings.Join(net.requestURLs(), " "), configuration))
	})
	withFakeTime(t, "if the metadata are not changed, they are read once per MaxAge at most", func(t *testing.T, net *network) {
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantKey(t, set, "a", 0)
		for range 8 * 15 {
			wantUnknown(t, set, rand.Text(), 0)
			wait(time.Minute)
		}
		assert.LessOrEqual(t, strings.Count(strings.Join(net.requestURLs(), " "), configuration), 1+8)
	})
	for name, respond := range map[string]responder{
		"fail": connectionRefused, "are those of another issuer": metadata(edIssuer+"/x", moved), "name an http URL": metadata(edIssuer, "http://keys.example.net/keys"),
	} {
		withFakeTime(t, "if the metadata "+name+", the keys of the old URL are used", func(t *testing.T, net *network) {
			net.respond(configuration, metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
			wantKey(t, set, "a", 0)
			wait(keysMaxAge)
			net.respond(configuration, respond)
			wantUnknown(t, set, "b", 0)
			wantKey(t, set, "a", 0)
			assert.Equal(t, []string{configuration, keysURL, keysURL, configuration}, net.requestURLs())
		})
	}
	withFakeTime(t, "if the new URL fails, the keys of the old URL are used", func(t *testing.T, net *network) {
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantKey(t, set, "a", 0)
		wait(keysMaxAge)
		net.respond(configuration, metadata(edIssuer, moved))
		net.respond(moved, reply(200, "{}"))
		wantUnknown(t, set, "b", 0)
		wantKey(t, set, "a", 0)
		net.respond(moved, keysOf("b"))
		wantKey(t, set, "b", 0)
	})
}

// In random sequences of failures, moves and pauses, a fetch makes at most three
// requests, beside redirects.
func TestRemoteKeySet_AtMostThreeRequestsPerFetch(t *testing.T) {
	const (
		configuration = edIssuer + "/.well-known/openid-configuration"
		second        = "https://issuer.example.com/.well-known/oauth-authorization-server/realms/one"
	)
	most := 0
	for seed := range uint64(5) {
		withFakeTime(t, fmt.Sprint("seed ", seed), func(t *testing.T, net *network) {
			random := mathrand.New(mathrand.NewPCG(seed, 2))
			set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
			places := []string{"https://issuer.example.com/1", "https://issuer.example.com/2", "https://issuer.example.com/3"}
			for range 150 {
				for _, place := range []string{configuration, second} {
					net.respond(place, []responder{
						metadata(edIssuer, places[random.IntN(3)]), metadata(edIssuer, places[random.IntN(3)]), reply(404, ""), reply(403, ""), reply(500, ""), connectionRefused, reply(200, "{}"),
					}[random.IntN(7)])
				}
				for _, place := range places {
					net.respond(place, []responder{
						keysOf("a", "b"), keysOf("b"), keysOf("a"), reply(404, ""), reply(500, ""), connectionRefused, reply(200, "{}"),
					}[random.IntN(7)])
				}
				count := net.requestCount()
				_, _ = set.Keys(t.Context(), []string{"a", "b", rand.Text()}[random.IntN(3)], true)
				synctest.Wait()
				requests := net.requestCount() - count
				most = max(most, requests)
				require.LessOrEqual(t, requests, 3, "%v", net.requestURLs()[count:])
				wait([]time.Duration{0, time.Second, keysInterval, 8 * keysInterval, keysMaxAge, 2 * keysMaxAge, keysMaxStale}[random.IntN(7)])
			}
		})
	}
	assert.Equal(t, 3, most, "the most requests of a fetch")
}

// The metadata fail at first, and are then not at their first place.
func TestRemoteKeySet_AtMostThreeRequestsIfMetadataChange(t *testing.T) {
	withFakeTime(t, "", func(t *testing.T, net *network) {
		const configuration = edIssuer + "/.well-known/openid-configuration"
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantKey(t, set, "a", 0)
		net.respond(configuration, connectionRefused)
		net.respondKeys(connectionRefused)
		wantUnavailableError(t, set, "b") // The next fetch begins with the metadata.
		wait(keysMaxAge)
		net.respondKeys(keysOf("a"))
		asked := 0
		net.respond(configuration, func(req *http.Request) (*http.Response, error) {
			if asked++; asked == 1 {
				return connectionRefused(req)
			}
			return reply(404, "")(req)
		})
		count := net.requestCount()
		wantUnknown(t, set, "b", 0)
		assert.Equal(t, []string{configuration, keysURL, configuration}, net.requestURLs()[count:])
	})
}
