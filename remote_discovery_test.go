package koreauth_test

import (
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
	discovered := func(net *network, issuer string) *koreauth.RemoteKeySet {
		return &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: net.client()}
	}
	for _, c := range []struct {
		sentence string
		issuer   string
		openID   string
		oauth    string
	}{
		{"an issuer with a path", edIssuer, edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with a final slash, which is dropped", edIssuer + "/", edIssuer + openID, host + oauth + "/realms/one"},
		{"an issuer with two final slashes, of which one is dropped", edIssuer + "//", edIssuer + "/" + openID, host + oauth + "/realms/one/"},
		{"an issuer without a path", host, host + openID, host + oauth},
		{"an issuer without a path but a slash", host + "/", host + openID, host + oauth},
		{"an issuer with a port", host + ":8443/a", host + ":8443/a" + openID, host + ":8443" + oauth + "/a"},
		{"an issuer with an escaped path", host + "/a%2Fb%20c", host + "/a%2Fb%20c" + openID, host + oauth + "/a%2Fb%20c"},
	} {
		withFakeTime(t, c.sentence+", by OpenID Connect Discovery", func(t *testing.T, net *network) {
			net.respond(c.openID, metadata(c.issuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := discovered(net, c.issuer)
			wantKey(t, set, "a", 0)
			assert.Equal(t, []string{c.openID, keysURL}, net.requestURLs())
		})
		withFakeTime(t, c.sentence+", by RFC 8414 after a 404", func(t *testing.T, net *network) {
			net.respond(c.oauth, metadata(c.issuer, keysURL))
			net.respondKeys(keysOf("a"))
			wantKey(t, discovered(net, c.issuer), "a", 0)
			assert.Equal(t, []string{c.openID, c.oauth, keysURL}, net.requestURLs())
		})
	}
	withFakeTime(t, "by a Config without JWKSURL", func(t *testing.T, net *network) {
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
	withFakeTime(t, "not with a URL", func(t *testing.T, net *network) {
		net.respondKeys(keysOf("a"))
		set := net.keySet()
		set.Issuer = edIssuer
		wantKey(t, set, "a", 0)
		assert.Equal(t, []string{keysURL}, net.requestURLs())
	})
	for sentence, p := range map[string]responder{
		"500": reply(500, ""), "503": reply(503, ""), "401": reply(401, ""), "403": reply(403, ""), "410": reply(410, ""), "204": reply(204, ""),
		"a network that fails":         connectionRefused,
		"a document of another issuer": metadata(edIssuer+"x", keysURL),
		"no document":                  reply(200, "<html>"),
	} {
		withFakeTime(t, sentence+" does not fall through to RFC 8414", func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, p)
			net.respond(host+oauth+"/realms/one", metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			wantUnavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.requestURLs())
		})
	}
	withFakeTime(t, "404 at both locations", func(t *testing.T, net *network) {
		wantUnavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.Equal(t, []string{edIssuer + openID, host + oauth + "/realms/one"}, net.requestURLs())
	})
	for sentence, document := range map[string]string{
		"another issuer":                        `{"issuer":"https://other.example.com/realms/one","jwks_uri":"` + keysURL + `"}`,
		"the issuer with a slash more":          `{"issuer":"` + edIssuer + `/","jwks_uri":"` + keysURL + `"}`,
		"the issuer in other case":              `{"issuer":"` + strings.ToUpper(edIssuer) + `","jwks_uri":"` + keysURL + `"}`,
		"no issuer":                             `{"jwks_uri":"` + keysURL + `"}`,
		"an issuer that is no string":           `{"issuer":["` + edIssuer + `"],"jwks_uri":"` + keysURL + `"}`,
		"an issuer under a name in other case":  `{"Issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"}`,
		"no jwks_uri":                           `{"issuer":"` + edIssuer + `"}`,
		"an empty jwks_uri":                     `{"issuer":"` + edIssuer + `","jwks_uri":""}`,
		"a jwks_uri that is no string":          `{"issuer":"` + edIssuer + `","jwks_uri":5}`,
		"a jwks_uri under a name in other case": `{"issuer":"` + edIssuer + `","JWKS_URI":"` + keysURL + `"}`,
		"a relative jwks_uri":                   `{"issuer":"` + edIssuer + `","jwks_uri":"/keys"}`,
		"a jwks_uri by http":                    `{"issuer":"` + edIssuer + `","jwks_uri":"http://issuer.example.com/keys"}`,
		"a jwks_uri of a file":                  `{"issuer":"` + edIssuer + `","jwks_uri":"file:///keys"}`,
		"an array":                              `[]`,
		"null":                                  `null`,
		"nothing":                               ``,
		"half a document":                       `{"issuer":"` + edIssuer + `","jwks_uri":"` + keysURL + `"`,
	} {
		withFakeTime(t, "metadata with "+sentence+" are a failure", func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, reply(200, document))
			net.respondKeys(keysOf("a"))
			net.respond("http://issuer.example.com/keys", keysOf("a"))
			wantUnavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.requestURLs())
		})
	}
	withFakeTime(t, "jwks_uri may be on another host", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, moved))
		net.respond(moved, keysOf("a"))
		wantKey(t, discovered(net, edIssuer), "a", 0)
	})
	withFakeTime(t, "jwks_uri may be http on loopback, and anywhere with DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, "http://localhost/keys"))
		net.respond("http://localhost/keys", keysOf("a"))
		wantKey(t, discovered(net, edIssuer), "a", 0)
		net.respond(edIssuer+openID, metadata(edIssuer, "http://issuer.example.com/keys"))
		net.respond("http://issuer.example.com/keys", keysOf("a"))
		set := discovered(net, edIssuer)
		set.DangerouslyAllowHTTP = true
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "the metadata are read once while the key URL works", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discovered(net, edIssuer)
		wantKey(t, set, "a", 0)
		for range 5 {
			wait(keysMaxAge)
			wantKey(t, set, "a", 0)
			synctest.Wait()
		}
		wantUnknown(t, set, "b", 0)
		assert.Equal(t, append([]string{edIssuer + openID}, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL), net.requestURLs())
	})
	for sentence, p := range map[string]responder{
		"is gone": reply(410, ""), "is not found": reply(404, ""), "is down": connectionRefused, "has no keys": reply(200, jwksOf()), "redirects elsewhere": redirect(moved),
	} {
		withFakeTime(t, "the metadata are read again in the same fetch when the key URL "+sentence, func(t *testing.T, net *network) {
			net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
			net.respondKeys(reply(200, edSet("a"), `ETag: "1"`))
			set := discovered(net, edIssuer)
			wantKey(t, set, "a", 0)
			net.respondKeys(p)
			net.respond(edIssuer+openID, metadata(edIssuer, moved))
			net.respond(moved, keysOf("b"))
			wantKey(t, set, "b", 0)
			assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID, moved}, net.requestURLs())
			assert.Empty(t, net.recorded()[4].header.Get("If-None-Match"), "the ETag is of another document")
			wantKey(t, set, "b", 0)
			wantUnknown(t, set, "a", 0)
		})
	}
	withFakeTime(t, "the metadata are read again when the key URL hangs, by the next fetch at the latest", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discovered(net, edIssuer)
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
	withFakeTime(t, "one failure of the key URL while the metadata are down does not lose it for good", func(t *testing.T, net *network) {
		for _, down := range []responder{reply(403, ""), hanging} {
			net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
			net.respondKeys(keysOf("a"))
			set := discovered(net, edIssuer)
			wantKey(t, set, "a", 0)
			net.respondKeys(connectionRefused)
			net.respond(edIssuer+openID, down)
			_, err := set.Keys(t.Context(), "b", true)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			net.respondKeys(keysOf("a", "b"))
			wait(keysInterval)
			_, err = set.Keys(t.Context(), "b", true) // may ask for the metadata first
			if err != nil {
				wait(keysInterval)
				wantKey(t, set, "b", 0)
			}
		}
	})
	withFakeTime(t, "metadata that did not change are no second try of the same URL", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discovered(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		assert.ErrorIs(t, wantUnavailable(t, set, "b", 0, 0), errConnectionRefused)
		assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID}, net.requestURLs())
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "metadata that are gone when the key URL fails lose neither keys nor URL", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		set := discovered(net, edIssuer)
		wantKey(t, set, "a", 0)
		net.respondKeys(connectionRefused)
		net.respond(edIssuer+openID, connectionRefused)
		wantUnavailableError(t, set, "b")
		wantKey(t, set, "a", 0)
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("b"))
		wantKey(t, set, "b", 0)
	})
	withFakeTime(t, "a key URL that fails at the start is discovered anew at the next try", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(connectionRefused)
		set := discovered(net, edIssuer)
		wantUnavailable(t, set, "a", 0, 250*time.Millisecond)
		net.respond(edIssuer+openID, metadata(edIssuer, moved))
		net.respond(moved, keysOf("a"))
		wait(250 * time.Millisecond)
		wantKey(t, set, "a", 0)
	})
	withFakeTime(t, "discovery and keys are one fetch for the limit", func(t *testing.T, net *network) {
		net.respond(edIssuer+openID, reply(500, ""))
		set := discovered(net, edIssuer)
		start := time.Now()
		for time.Since(start) < time.Second {
			wantUnavailableError(t, set, "a")
			wait(10 * time.Millisecond)
		}
		assert.Equal(t, 4, net.requestCount())
		net.respond(edIssuer+openID, metadata(edIssuer, keysURL))
		net.respondKeys(keysOf("a"))
		wantKey(t, set, "a", 0)
		for range 10 {
			wantUnknown(t, set, "forged", 0)
		}
		assert.Equal(t, 4+2+3, net.requestCount())
	})
}
