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

func TestDiscovery(t *testing.T) {
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
		bubble(t, c.sentence+", by OpenID Connect Discovery", func(t *testing.T, net *network) {
			net.at(c.openID, metadata(c.issuer, keysURL))
			net.keys(keysOf("a"))
			set := discovered(net, c.issuer)
			gives(t, set, "a", 0)
			assert.Equal(t, []string{c.openID, keysURL}, net.urls())
		})
		bubble(t, c.sentence+", by RFC 8414 after a 404", func(t *testing.T, net *network) {
			net.at(c.oauth, metadata(c.issuer, keysURL))
			net.keys(keysOf("a"))
			gives(t, discovered(net, c.issuer), "a", 0)
			assert.Equal(t, []string{c.openID, c.oauth, keysURL}, net.urls())
		})
	}
	bubble(t, "by a Config without JWKSURL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"}, HTTPClient: net.client(),
		})
		require.NoError(t, err)
		assert.Zero(t, net.count())
		_, err = v.Validate(t.Context(), edToken(t, "a", nil))
		assert.NoError(t, err)
	})
	bubble(t, "not with a URL", func(t *testing.T, net *network) {
		net.keys(keysOf("a"))
		set := net.set()
		set.Issuer = edIssuer
		gives(t, set, "a", 0)
		assert.Equal(t, []string{keysURL}, net.urls())
	})
	for sentence, p := range map[string]page{
		"500": reply(500, ""), "503": reply(503, ""), "401": reply(401, ""), "403": reply(403, ""), "410": reply(410, ""), "204": reply(204, ""),
		"a network that fails":         refusing,
		"a document of another issuer": metadata(edIssuer+"x", keysURL),
		"no document":                  reply(200, "<html>"),
	} {
		bubble(t, sentence+" does not fall through to RFC 8414", func(t *testing.T, net *network) {
			net.at(edIssuer+openID, p)
			net.at(host+oauth+"/realms/one", metadata(edIssuer, keysURL))
			net.keys(keysOf("a"))
			unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.urls())
		})
	}
	bubble(t, "404 at both locations", func(t *testing.T, net *network) {
		unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
		assert.Equal(t, []string{edIssuer + openID, host + oauth + "/realms/one"}, net.urls())
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
		bubble(t, "metadata with "+sentence+" are a failure", func(t *testing.T, net *network) {
			net.at(edIssuer+openID, reply(200, document))
			net.keys(keysOf("a"))
			net.at("http://issuer.example.com/keys", keysOf("a"))
			unavailable(t, discovered(net, edIssuer), "a", 0, 250*time.Millisecond)
			assert.Equal(t, []string{edIssuer + openID}, net.urls())
		})
	}
	bubble(t, "jwks_uri may be on another host", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a"))
		gives(t, discovered(net, edIssuer), "a", 0)
	})
	bubble(t, "jwks_uri may be http on loopback, and anywhere with DangerouslyAllowHTTP", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, "http://localhost/keys"))
		net.at("http://localhost/keys", keysOf("a"))
		gives(t, discovered(net, edIssuer), "a", 0)
		net.at(edIssuer+openID, metadata(edIssuer, "http://issuer.example.com/keys"))
		net.at("http://issuer.example.com/keys", keysOf("a"))
		set := discovered(net, edIssuer)
		set.DangerouslyAllowHTTP = true
		gives(t, set, "a", 0)
	})
	bubble(t, "the metadata are read once while the key URL works", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		for range 5 {
			pass(keysMaxAge)
			gives(t, set, "a", 0)
			synctest.Wait()
		}
		unknown(t, set, "b", 0)
		assert.Equal(t, append([]string{edIssuer + openID}, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL, keysURL), net.urls())
	})
	for sentence, p := range map[string]page{
		"is gone": reply(410, ""), "is not found": reply(404, ""), "is down": refusing, "has no keys": reply(200, jwksOf()), "redirects elsewhere": redirect(moved),
	} {
		bubble(t, "the metadata are read again in the same fetch when the key URL "+sentence, func(t *testing.T, net *network) {
			net.at(edIssuer+openID, metadata(edIssuer, keysURL))
			net.keys(reply(200, edSet("a"), `ETag: "1"`))
			set := discovered(net, edIssuer)
			gives(t, set, "a", 0)
			net.keys(p)
			net.at(edIssuer+openID, metadata(edIssuer, moved))
			net.at(moved, keysOf("b"))
			gives(t, set, "b", 0)
			assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID, moved}, net.urls())
			assert.Empty(t, net.questions()[4].header.Get("If-None-Match"), "the ETag is of another document")
			gives(t, set, "b", 0)
			unknown(t, set, "a", 0)
		})
	}
	bubble(t, "the metadata are read again when the key URL hangs, by the next fetch at the latest", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(hanging)
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a", "b"))
		pass(keysMaxAge)
		for range 2 {
			gives(t, set, "a", 0)
			pass(keysInterval)
		}
		gives(t, set, "b", 0)
	})
	bubble(t, "one failure of the key URL while the metadata are down does not lose it for good", func(t *testing.T, net *network) {
		for _, down := range []page{reply(403, ""), hanging} {
			net.at(edIssuer+openID, metadata(edIssuer, keysURL))
			net.keys(keysOf("a"))
			set := discovered(net, edIssuer)
			gives(t, set, "a", 0)
			net.keys(refusing)
			net.at(edIssuer+openID, down)
			_, err := set.Keys(t.Context(), "b", true)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			net.keys(keysOf("a", "b"))
			pass(keysInterval)
			_, err = set.Keys(t.Context(), "b", true) // may ask for the metadata first
			if err != nil {
				pass(keysInterval)
				gives(t, set, "b", 0)
			}
		}
	})
	bubble(t, "metadata that did not change are no second try of the same URL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(refusing)
		assert.ErrorIs(t, unavailable(t, set, "b", 0, 0), errNetwork)
		assert.Equal(t, []string{edIssuer + openID, keysURL, keysURL, edIssuer + openID}, net.urls())
		gives(t, set, "a", 0)
	})
	bubble(t, "metadata that are gone when the key URL fails lose neither keys nor URL", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		set := discovered(net, edIssuer)
		gives(t, set, "a", 0)
		net.keys(refusing)
		net.at(edIssuer+openID, refusing)
		unavailableOf(t, set, "b")
		gives(t, set, "a", 0)
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("b"))
		gives(t, set, "b", 0)
	})
	bubble(t, "a key URL that fails at the start is discovered anew at the next try", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(refusing)
		set := discovered(net, edIssuer)
		unavailable(t, set, "a", 0, 250*time.Millisecond)
		net.at(edIssuer+openID, metadata(edIssuer, moved))
		net.at(moved, keysOf("a"))
		pass(250 * time.Millisecond)
		gives(t, set, "a", 0)
	})
	bubble(t, "discovery and keys are one fetch for the limit", func(t *testing.T, net *network) {
		net.at(edIssuer+openID, reply(500, ""))
		set := discovered(net, edIssuer)
		start := time.Now()
		for time.Since(start) < time.Second {
			unavailableOf(t, set, "a")
			pass(10 * time.Millisecond)
		}
		assert.Equal(t, 4, net.count())
		net.at(edIssuer+openID, metadata(edIssuer, keysURL))
		net.keys(keysOf("a"))
		gives(t, set, "a", 0)
		for range 10 {
			unknown(t, set, "forged", 0)
		}
		assert.Equal(t, 4+2+3, net.count())
	})
}
