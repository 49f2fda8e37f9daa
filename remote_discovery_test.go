package koreauth_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func TestRemoteKeySet_Discovery(t *testing.T) {
	const (
		host   = "https://issuer.example.com"
		openID = "/.well-known/openid-configuration"
		oauth  = "/.well-known/oauth-authorization-server"
		moved  = "https://keys.example.net/keys"
	)
	discoveredSet := func(net *network, issuer string) *koreauth.RemoteKeySet {
		return &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: net.client()}
	}
	for _, c := range []struct {
		name   string
		issuer string
		openID string
		oauth  string
	}{
		{"an issuer with a path", edIssuer, edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with a trailing slash, which is removed", edIssuer + "/", edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with two trailing slashes, one of which is removed", edIssuer + "//", edIssuer + "/" + openID, host + oauth + "/realms/one/"},
		{"an issuer without a path", host, host + openID, host + oauth},
		{"an issuer with only a slash as its path", host + "/", host + openID, host + oauth},
		{"an issuer with a port", host + ":8443/a", host + ":8443/a" + openID, host + ":8443" + oauth + "/a"},
		{"an issuer with an escaped path", host + "/a%2Fb%20c", host + "/a%2Fb%20c" + openID, host + oauth + "/a%2Fb%20c"},
	} {
		withFakeTime(t, c.name+", by OpenID Connect Discovery", func(t *testing.T, net *network) {
			net.respond(c.openID, metadata(c.issuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := discoveredSet(net, c.issuer)
			wantKey(t, set, "a", 0)
			assert.Equal(t, []string{c.openID, keysURL}, net.requestURLs())
		})
		withFakeTime(t, c.name+", by RFC 8414 after a 404", func(t *testing.T, net *network) {
			net.respond(c.oauth, metadata(c.issuer, keysURL))
			net.respondKeys(keysOf("a"))
			wantKey(t, discoveredSet(net, c.issuer), "a", 0)
			assert.Equal(t, []string{c.openID, c.oauth, keysURL}, net.requestURLs())
		})
	}
	withFakeTime(t, "a Config without JWKSURL uses discovery", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, HTTPClient: net.client(),
		})
		require.NoError(t, err)
		assert.Zero(t, net.requestCount())
		_, err = v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
	})
	withFakeTime(t, "a RemoteKeySet with a URL does not use discovery", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.Issuer = edIssuer
		wantKey(t, set, "a", 0)
		assert.Equal(t, []string{keysURL}, net.requestURLs())
	})
	for name, p := range map[string]responder{
		"500": reply(500, ""), "502": reply(502, ""), "503": reply(503, ""), "599": reply(599, ""), "300": reply(300, ""), "304": reply(304, ""), "204": reply(204, ""),
		"a connection failure":         connectionRefused,
		"a document of another issuer": metadata(edIssuer+"x", keysURL),
		"an HTML page":                 reply(200, "<html>"),
	} {
		withFakeTime(t, name+" from OpenID Connect Discovery does not lead to RFC 8414", func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, p)
			net.respond(host+oauth+"/realms/one", metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.requestURLs())
		})
	}
	for _, status := range []int{400, 401, 403, 404, 405, 406, 410, 418, 429, 451, 499} {
		withFakeTime(t, fmt.Sprint("after a ", status, " from OpenID Connect Discovery, RFC 8414 is used"), func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, reply(status, metadataText(edIssuer, keysURL), "Retry-After: 60"))
			net.respond(host+oauth+"/realms/one", metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			wantKey(t, discoveredSet(net, edIssuer), "a", 0)
			assert.Equal(t, []string{edIssuer + openID, host + oauth + "/realms/one", keysURL}, net.requestURLs())
		})
	}
	withFakeTime(t, "if both locations fail, the error names both", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, reply(403, ""))
		net.respond(host+oauth+"/realms/one", reply(500, ""))
		err := wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.ErrorContains(t, err, edIssuer+openID+": status 403")
		assert.ErrorContains(t, err, host+oauth+"/realms/one: status 500")
	})
	withFakeTime(t, "the issuer that the metadata names is in the error, and it is cut", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer+"/", keysURL))
		err := wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.ErrorContains(t, err, fmt.Sprintf("%q", edIssuer+"/"))
		assert.ErrorContains(t, err, fmt.Sprintf("%q", edIssuer))
		net.respond(edIssuer+openID, metadata(strings.Repeat("x\n", 100_000), keysURL))
		wait(250 * time.Millisecond)
		err = wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.Less(t, len(err.Error()), 1000)
		assert.NotContains(t, err.Error(), "\n")
	})
	for name, start := range map[string]string{"a byte order mark": "\xef\xbb\xbf", "white space": " \n"} {
		withFakeTime(t, name+" before the metadata and before the keys is ignored", func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, reply(200, start+metadataText(edIssuer, keysURL)))
			net.respondKeys(reply(200, start+edSet("a")))
			wantKey(t, discoveredSet(net, edIssuer), "a", 0)
		})
	}
	withFakeTime(t, "two byte order marks are not JSON", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, "\xef\xbb\xbf\xef\xbb\xbf"+edSet("a")))
		wantUnavailable(t, net.keySet(), "a", 0, 250*time.Millisecond)
	})
	withFakeTime(t, "404 at both locations is a failure", func(t *testing.T, net *network) {
		wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.Equal(t, []string{edIssuer + openID, host + oauth + "/realms/one"}, net.requestURLs())
	})
	for name, document := range map[string]string{
		"another issuer":                   `{"issuer":"https://other.example.com/realms/one","jwks_uri":"` + keysURL + `"}`,
		"the issuer with a trailing slash": `{"issuer":"` + edIssuer + `/","jwks_uri":"` + keysURL + `"}`,
		"the issuer in another case":       `{"issuer":"` + strings.ToUpper(edIssuer) + `","jwks_uri":"` + keysURL + `"}`,
		"no issuer":                        `{"jwks_uri":"` + keysURL + `"}`,
		"an issuer that is not a string":   `{"issuer":["` + edIssuer + `"],"jwks_uri":"` + keysURL + `"}`,
		"a member name Issuer":             `{"Issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"}`,
		"no jwks_uri":                      `{"issuer":"` + edIssuer + `"}`,
		"an empty jwks_uri":                `{"issuer":"` + edIssuer + `","jwks_uri":""}`,
		"a jwks_uri that is not a string":  `{"issuer":"` + edIssuer + `","jwks_uri":5}`,
		"a member name JWKS_URI":           `{"issuer":"` + edIssuer + `","JWKS_URI":"` + keysURL + `"}`,
		"a relative jwks_uri":              `{"issuer":"` + edIssuer + `","jwks_uri":"/keys"}`,
		"an http jwks_uri":                 `{"issuer":"` + edIssuer + `","jwks_uri":"http://issuer.example.com/keys"}`,
		"a file jwks_uri":                  `{"issuer":"` + edIssuer + `","jwks_uri":"file:///keys"}`,
		"an array instead of an object":    `[]`,
		"null instead of an object":        `null`,
		"an empty document":                ``,
		"a truncated document":             `{"issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"`,
	} {
		withFakeTime(t, "metadata: "+name+" is a failure", func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, reply(200, document))
			net.respondKeys(keysOf("a"))
			net.respond("http://issuer.example.com/keys", keysOf("a"))
			wantUnavailable(t, discoveredSet(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.requestURLs())
		})
	}
	withFakeTime(t, "jwks_uri may be on another host", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, moved))
		net.respond(moved, keysOf("a"))
		wantKey(t, discoveredSet(net, edIssuer), "a", 0)
	})
	for _, issuer := range []string{"http://localhost:8080", "http://127.0.0.1/realms/one", "http://[::1]:1", "https://localhost", "https://127.1.2.3"} {
		withFakeTime(t, "jwks_uri may be http on loopback if the issuer is "+issuer, func(t *testing.T, net *network) {
			net.respond(issuer+openID, metadata(issuer, "http://localhost/keys"))
			net.respond("http://localhost/keys", keysOf("a"))
			wantKey(t, discoveredSet(net, issuer), "a", 0)
		})
	}
	withFakeTime(t, "jwks_uri must be https on another host, even if the issuer is on loopback", func(t *testing.T, net *network) {
		const issuer, keys = "http://localhost:8080", "http://keys.example.com/keys"
		net.respond(issuer+openID, metadata(issuer, keys))
		net.respond(keys, keysOf("a"))
		_, err := discoveredSet(net, issuer).Keys(t.Context(), "a", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Equal(t, []string{issuer + openID}, net.requestURLs())
	})
	withFakeTime(t, "jwks_uri may be https on loopback", func(t *testing.T, net *network) {
		const keys = "https://localhost/keys"
		net.respond(edIssuer+openID, metadata(edIssuer, keys))
		net.respond(keys, keysOf("a"))
		wantKey(t, discoveredSet(net, edIssuer), "a", 0)
	})
	withFakeTime(t, "if the first keys cannot be fetched, the next fetch discovers first", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(reply(500, ""))
		set := discoveredSet(net, edIssuer)
		_, err := set.Keys(t.Context(), "a", true)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		net.respondKeys(keysOf("a"))
		wait(time.Minute)
		wantKey(t, set, "a", 0)
		assert.Equal(t, []string{edIssuer + openID, keysURL, edIssuer + openID, keysURL}, net.requestURLs())
	})
	withFakeTime(t, "a URL that fails is fetched once if the metadata fail too, and the error has both", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discoveredSet(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respond(edIssuer+openID, reply(503, ""))
		net.respondKeys(reply(500, ""))
		wait(25 * time.Hour)
		_, err := set.Keys(t.Context(), "a", true)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorContains(t, err, keysURL+": status 500")
		assert.ErrorContains(t, err, openID+": status 503")
		assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID}, net.requestURLs())
	})
	for _, keys := range []string{"http://localhost/keys", "http://127.0.0.1:8080/keys", "http://[::1]/keys", "HTTP://LOCALHOST/keys"} {
		for _, issuer := range []string{edIssuer, "https://localhost.example.com", "https://10.0.0.1"} {
			withFakeTime(t, "the metadata of "+issuer+" must not name "+keys, func(t *testing.T, net *network) {
				net.respond(issuer+openID, metadata(issuer, keys))
				net.respond(keys, keysOf("a"))
				net.respond(strings.ToLower(keys), keysOf("a"))
				err := wantUnavailable(t, discoveredSet(net, issuer), "a", 0, 250*time.Millisecond)
				assert.ErrorContains(t, err, "the issuer is not on this machine")
				assert.Equal(t, []string{issuer + openID}, net.requestURLs())
			})
		}
	}
	withFakeTime(t, "jwks_uri may be http anywhere with DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		for _, keys := range []string{"http://issuer.example.com/keys", "http://localhost/keys"} {
			net.respond(edIssuer+openID, metadata(edIssuer, keys))
			net.respond(keys, keysOf("a"))
			set := discoveredSet(net, edIssuer)
			set.DangerouslyAllowHTTP = true
			wantKey(t, set, "a", 0)
		}
	})
	withFakeTime(t, "the metadata is fetched once, as long as the key URL works", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discoveredSet(net, edIssuer)
		wantKey(t, set, "a", 0)
		for range 5 {
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			synctest.Wait()
		}
		assert.Equal(t, append([]string{edIssuer + openID}, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL), net.requestURLs())
	})
	for name, p := range map[string]responder{
		"returns 410": reply(410, ""), "returns 404": reply(404, ""), "is down": connectionRefused, "returns no keys": reply(200, jwksOf()), "redirects to another host": redirect(moved),
	} {
		withFakeTime(t, "the metadata is fetched again at once if the key URL "+name, func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
			net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
			set := discoveredSet(net, edIssuer)
			wantKey(t, set, "a", 0)
			net.respondKeys(p)
			net.respond(edIssuer+openID, metadata(edIssuer, moved))
			net.respond(moved, keysOf("b"))
			wantKey(t, set, "b", 0)
			assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID, moved}, net.requestURLs())
			assert.Empty(t, net.recorded()[4].header.Get("If-None-Match"), "If-None-Match: the ETag belongs to another document")
			wantKey(t, set, "b", 0)
			wantUnknown(t, set, "a", 0)
		})
	}
	withFakeTime(t, "if the key URL hangs, the metadata is fetched again, by the next fetch at the latest", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discoveredSet(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respondKeys(hanging)
		net.respond(edIssuer+openID, metadata(edIssuer, moved))
		net.respond(moved, keysOf("a", "b"))
		wait(keysMaxAge)
		for range 2 {
			wantKey(t, set, "a", 0)
			wait(keysInterval)
		}
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a failure of the key URL while the metadata is unavailable is not permanent", func(t *testing.T, net *network) {
		for _, down := range []responder{reply(403, ""), hanging} {
			net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := discoveredSet(net, edIssuer)
			wantKey(t, set, "a", 0)
			net.respondKeys(connectionRefused)
			net.respond(edIssuer+openID, down)
			_, err := set.Keys(t.Context(), "b", true)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			net.respondKeys(keysOf("a", "b"))
			wait(keysInterval)
			_, err = set.Keys(t.Context(), "b", true) // may fetch the metadata first
			if err != nil {
				wait(keysInterval)
				wantKey(t, set, "b", 0)
			}
		}
	})
	withFakeTime(t, "if the metadata still names the failed key URL, it is not tried again", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discoveredSet(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		assert.ErrorIs(t, wantUnavailable(t, set, "b", 0, 0), errConnectionRefused)
		assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID}, net.requestURLs())
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "if the key URL and the metadata both fail, the keys and the URL are kept", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discoveredSet(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		net.respond(edIssuer+openID, connectionRefused)
		wantUnavailableError(t, set, "b")
		wantKey(t, set, "a", 0)
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("b"))
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "if the first fetch of the key URL fails, the next fetch starts with discovery", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(connectionRefused)
		set := discoveredSet(net, edIssuer)
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respond(edIssuer+openID, metadata(edIssuer, moved))
		net.respond(moved, keysOf("a"))
		wait(250 * time.Millisecond)
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "discovery and keys count as one fetch for the rate limit", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, reply(500, ""))
		set := discoveredSet(net, edIssuer)
		start := time.Now()
		for time.Since(start) < time.Second {
			wantUnavailableError(t, set, "a")
			wait(10 * time.Millisecond)
		}
		assert.Equal(t, []time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond}, net.requestTimes(start, 0))
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		wait(750 * time.Millisecond)
		wantKey(t, set, "a", 0)
		for range 10 {
			wantUnknown(t, set, "unknown", 0)
		}
		assert.Equal(t, 3+2+3, net.requestCount())
	})
}

// A fetch that brought the wanted key does not ask the metadata whether the keys moved.
func TestRemoteKeySet_AsksTheMetadataOnlyIfNothingIsNew(t *testing.T) {
	withFakeTime(t, "", func(t *testing.T, net *network) {
		const configuration = edIssuer + "/.well-known/openid-configuration"
		net.respond(configuration, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := &koreauth.RemoteKeySet{Issuer: edIssuer, HTTPClient: net.client()}
		wantKey(t, set, "a", 0)
		wait(2 * keysMaxAge)
		wantKey(t, set, "a", 0) // It is refreshed, so that only the metadata are old.
		synctest.Wait()
		net.respondKeys(keysOf("a", "b"))
		count := net.requestCount()
		wantKey(t, set, "b", 0)
		synctest.Wait()
		assert.Equal(t, []string{keysURL}, net.requestURLs()[count:])
		count = net.requestCount()
		_, err := set.Keys(t.Context(), "c", true)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		synctest.Wait()
		assert.Equal(t, []string{keysURL, configuration}, net.requestURLs()[count:], "now it does")
		wait(2 * keysMaxAge)
		wantKey(t, set, "b", 0)
		synctest.Wait()
		net.respondKeys(reply(200, jwksOf(strings.Replace(edJWK("other"), `"other"`, `"a"`, 1), edJWK("b"))))
		count = net.requestCount()
		_, err = set.Keys(t.Context(), "c", true)
		assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		synctest.Wait()
		assert.Equal(t, []string{keysURL}, net.requestURLs()[count:], "another key with the ID of an old one is new")
	})
}

func TestRemoteKeySet_NamesTheDocumentThatItCannotRead(t *testing.T) {
	withFakeTime(t, "", func(t *testing.T, net *network) {
		net.respondKeys(reply(200, `{"keys":[]}`))
		_, err := (&koreauth.RemoteKeySet{URL: keysURL, HTTPClient: net.client()}).Keys(t.Context(), "a", true)
		assert.ErrorContains(t, err, keysURL)
	})
}
