package introspection_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"crypto/elliptic"
	"crypto/rand"
	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/introspection"
)

var makeKeys = sync.OnceValues(func() (map[string]crypto.Signer, error) {
	all := map[string]crypto.Signer{}
	var failed error
	add := func(name string, key crypto.Signer, err error) {
		all[name] = key
		if err != nil {
			failed = err
		}
	}
	for name, bits := range map[string]int{"RS256": 2048, "small": 1024} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		add(name, key, err)
	}
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521(), "P-224": elliptic.P224()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(name, key, err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	add("EdDSA", key, err)
	return all, failed
})

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // for the key that is too small
	all, err := makeKeys()
	require.NoError(t, err)
	return all
}

func TestRequest_Styles(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*introspection.Config)
		form   url.Values
	}{
		"Basic": {func(*introspection.Config) {}, url.Values{}},
		"Post":  {func(c *introspection.Config) { c.Style = introspection.Post }, url.Values{"client_id": {"api"}, "client_secret": {secret}}},
		"None":  {func(c *introspection.Config) { c.Style, c.ClientSecret = introspection.None, "" }, url.Values{"client_id": {"api"}}},
		"Secret": {func(c *introspection.Config) {
			c.Style, c.ClientSecret, c.Secret = introspection.Post, "", func(context.Context) (string, error) { return secret, nil }
		}, url.Values{"client_id": {"api"}, "client_secret": {secret}}},
	} {
		s := &server{answer: good}
		_, err := newValidator(t, s, row.change).Validate(t.Context(), "good+/=")
		require.NoError(t, err, name)
		row.form.Set("token", "good+/=")
		row.form.Set("token_type_hint", "access_token")
		assert.Equal(t, row.form, s.forms[0], name)
		req := s.requests[0]
		assert.Equal(t, "POST "+endpoint, req.Method+" "+req.URL.String(), name)
		assert.Equal(t, "application/x-www-form-urlencoded", req.Header.Get("Content-Type"), name)
		assert.Equal(t, "application/json", req.Header.Get("Accept"), name)
		id, password, ok := req.BasicAuth()
		if assert.Equal(t, name == "Basic", ok, name); ok {
			assert.Equal(t, "api", id)
			assert.Equal(t, url.QueryEscape(secret), password, "RFC 6749 §2.3.1")
		}
	}
}

// An assertion is a JWT that any verifier accepts, for a minute and once.
func TestRequest_PrivateKeyJWT(t *testing.T) {
	verify := door.VerifyJWS.(func(context.Context, koreauth.KeySet, []string, string) (string, string, error))
	for _, name := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		key := keys(t)[name]
		s := &server{answer: good}
		v := newValidator(t, s, func(c *introspection.Config) { c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", key })
		seen := map[string]bool{}
		for n := range 20 { // A number of an ECDSA signature may be short.
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.NoError(t, err, name)
			form := s.forms[n]
			assert.Equal(t, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", form.Get("client_assertion_type"))
			assert.Equal(t, "api", form.Get("client_id"))
			assert.Empty(t, form.Get("client_secret"))
			set := koreauth.StaticKeySet{{Algorithm: name, Public: key.Public()}}
			_, payload, err := verify(t.Context(), set, []string{name}, form.Get("client_assertion"))
			require.NoError(t, err, name)
			var claims struct {
				Issuer   string `json:"iss"`
				Subject  string `json:"sub"`
				Audience string `json:"aud"`
				ID       string `json:"jti"`
				IssuedAt int64  `json:"iat"`
				Expiry   int64  `json:"exp"`
			}
			require.NoError(t, json.Unmarshal([]byte(payload), &claims))
			assert.Equal(t, "api", claims.Issuer)
			assert.Equal(t, "api", claims.Subject)
			assert.Equal(t, issuerURL, claims.Audience)
			assert.EqualValues(t, 60, claims.Expiry-claims.IssuedAt)
			assert.InDelta(t, time.Now().Unix(), claims.IssuedAt, 5)
			assert.False(t, seen[claims.ID], "a jti is used once")
			seen[claims.ID] = true
			header, err := base64.RawURLEncoding.DecodeString(strings.Split(form.Get("client_assertion"), ".")[0])
			require.NoError(t, err)
			assert.JSONEq(t, `{"alg":"`+name+`","typ":"JWT"}`, string(header))
		}
	}
	odd := newValidator(t, &server{answer: good}, func(c *introspection.Config) {
		c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", oddSigner{keys(t)["ES256"]}
	})
	_, err := odd.Validate(t.Context(), "good")
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
}

// oddSigner returns no ECDSA signature.
type oddSigner struct{ crypto.Signer }

func (oddSigner) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return []byte("x"), nil
}

func TestRequest_Discovery(t *testing.T) {
	const first, second = issuerURL + "/.well-known/openid-configuration", "https://issuer.example/.well-known/oauth-authorization-server/realms/one"
	for name, row := range map[string]struct {
		answers map[string]string
		says    string // empty: it is found
	}{
		"the first place":     {map[string]string{first: metadata(issuerURL, endpoint)}, ""},
		"the second place":    {map[string]string{second: metadata(issuerURL, endpoint)}, ""},
		"no place":            {nil, "set Config.Endpoint"},
		"another issuer":      {map[string]string{first: metadata(issuerURL+"/", endpoint)}, "set Config.Issuer"},
		"no endpoint":         {map[string]string{first: metadata(issuerURL, "")}, "no introspection_endpoint"},
		"an endpoint on http": {map[string]string{first: metadata(issuerURL, "http://issuer.example/")}, "use https"},
		"no JSON":             {map[string]string{first: "<html>"}, "not one JSON object"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{}
			s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
				if answer, ok := row.answers[req.URL.String()]; ok {
					return reply(200, answer)(req, form)
				} else if req.URL.String() == endpoint {
					return good(req, form)
				}
				return reply(404, "")(req, form)
			}
			v := newValidator(t, s, func(c *introspection.Config) { c.Endpoint = "" })
			_, err := v.Validate(t.Context(), "good")
			if row.says != "" {
				assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
				assert.ErrorContains(t, err, row.says, name)
				for _, form := range s.forms {
					assert.Empty(t, form, "%s: no token is sent", name)
				}
				return
			}
			require.NoError(t, err, name)
			before := s.count()
			_, err = v.Validate(t.Context(), "good2")
			require.NoError(t, err, name)
			assert.Equal(t, before+1, s.count(), "%s: it is discovered once", name)
		})
	}
}

// Errors of a transport that quote the request show neither the token nor the secret.
func TestRequest_ErrorsThatQuoteTheRequest(t *testing.T) {
	const odd = "pass\"word\\1\n"
	for name, quote := range map[string]func(form url.Values, body string) string{
		"%q of the secret": func(form url.Values, _ string) string { return fmt.Sprintf("%q", form.Get("client_secret")) },
		"the form":         func(_ url.Values, body string) string { return body },
		"PathEscape":       func(form url.Values, _ string) string { return url.PathEscape(form.Get("client_secret")) },
		"the form, quoted": func(_ url.Values, body string) string { return fmt.Sprintf("%q", body) },
		"base64 of secret": func(form url.Values, _ string) string { return fmt.Sprintf("%q", []byte(form.Get("client_secret"))) },
	} {
		var log bytes.Buffer
		v := newValidator(t, &server{}, func(c *introspection.Config) {
			c.Style, c.ClientSecret = introspection.Post, odd
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			c.HTTPClient = &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				body, _ := io.ReadAll(req.Body)
				form, _ := url.ParseQuery(string(body))
				return nil, errors.New(quote(form, string(body)))
			})}
		})
		_, err := v.Validate(t.Context(), "a+b/c=")
		text := err.Error() + log.String()
		assert.NotContains(t, text, "word", name)
		assert.NotContains(t, text, "a%2Bb%2Fc%3D", name)
	}
}

// The status of the metadata is told.
func TestRequest_DiscoveryThatFails(t *testing.T) {
	v := newValidator(t, &server{answer: reply(503, "")}, func(c *introspection.Config) { c.Endpoint = "" })
	_, err := v.Validate(t.Context(), "good")
	require.Error(t, err)
	assert.Contains(t, err.Error(), "503")
}

// roundTrip is a transport that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// nilPublic is a key that has no public key.
type nilPublic struct{ crypto.Signer }

func (nilPublic) Public() crypto.PublicKey { return (*rsa.PublicKey)(nil) }

// Keys that are empty inside are faults.
func TestNew_EmptyKeys(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		"nil RSA": (*rsa.PrivateKey)(nil), "empty RSA": &rsa.PrivateKey{}, "nil ECDSA": (*ecdsa.PrivateKey)(nil), "empty ECDSA": &ecdsa.PrivateKey{},
		"nil Ed25519": ed25519.PrivateKey(nil), "short Ed25519": ed25519.PrivateKey(make([]byte, 40)), "nil public": nilPublic{},
	} {
		func() {
			defer func() { assert.Nil(t, recover(), name) }()
			_, err := introspection.New(newConfig(&server{}, func(c *introspection.Config) {
				c.Style, c.ClientSecret, c.Key = introspection.PrivateKeyJWT, "", key
			}))
			assert.Error(t, err, name)
		}()
	}
}

// A request whose idle connection was just closed is sent again.
func TestRequest_ClosedConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			if r, err := http.ReadRequest(in); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				body := active(nil)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				_, _ = http.ReadRequest(in) // It gets no answer.
			}
			_ = c.Close()
		}
	}()
	client := &http.Client{Transport: &http.Transport{}}
	v, err := introspection.New(introspection.Config{Endpoint: "http://" + l.Addr().String(), Issuer: issuerURL, Audience: []string{"api-gw"}, ClientID: "api", ClientSecret: secret, HTTPClient: client})
	require.NoError(t, err)
	_, err = v.Validate(t.Context(), "good1")
	require.NoError(t, err)
	_, err = v.Validate(t.Context(), "good2")
	assert.NoError(t, err)
	client.CloseIdleConnections()
}
