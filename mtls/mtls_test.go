package mtls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/mtls"
	"github.com/koreauth/koreauth/proxy"
)

const proxyPeer, otherPeer = "10.0.0.1:4000", "203.0.113.66:4000"

func mustNew(t testing.TB) *proxy.Proxies {
	t.Helper()
	p, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	return p
}

func boundTo(thumbprint string) *koreauth.Claims {
	return &koreauth.Claims{Confirmation: &koreauth.Confirmation{CertificateSHA256: thumbprint}}
}

// found returns a Certificate that finds this.
func found(sum [32]byte, ok bool, err error) mtls.Certificate {
	return func(*http.Request) ([32]byte, bool, error) { return sum, ok, err }
}

func TestSender_Check(t *testing.T) {
	own, other := ownForms()
	lookUp := errors.New("broken")
	for name, row := range map[string]struct {
		claims      *koreauth.Claims
		certificate mtls.Certificate
		required    bool
		err         error // nil: accepted
		says        string
	}{
		"the certificate":                        {boundTo(own.thumbprint()), found(own.sum, true, nil), false, nil, ""},
		"the certificate, required":              {boundTo(own.thumbprint()), found(own.sum, true, nil), true, nil, ""},
		"another certificate":                    {boundTo(own.thumbprint()), found(other.sum, true, nil), false, koreauth.ErrBinding, "another certificate"},
		"no certificate":                         {boundTo(own.thumbprint()), found(own.sum, false, nil), false, koreauth.ErrBinding, "has no certificate"},
		"one that cannot be read":                {boundTo(own.thumbprint()), found(own.sum, true, lookUp), false, koreauth.ErrBinding, "broken"},
		"a look-up that failed":                  {boundTo(own.thumbprint()), found(own.sum, true, fmt.Errorf("%w: broken", koreauth.ErrUnavailable)), false, koreauth.ErrUnavailable, "broken"},
		"no Certificate":                         {boundTo(own.thumbprint()), nil, false, koreauth.ErrBinding, "Sender.Certificate is nil"},
		"not bound":                              {&koreauth.Claims{}, found(own.sum, true, nil), false, nil, ""},
		"not bound, no certificate":              {&koreauth.Claims{}, found(own.sum, false, nil), false, nil, ""},
		"not bound, no Certificate":              {&koreauth.Claims{}, nil, false, nil, ""},
		"not bound, an error":                    {&koreauth.Claims{}, found(own.sum, false, lookUp), false, nil, ""},
		"not bound, required":                    {&koreauth.Claims{}, found(own.sum, true, nil), true, koreauth.ErrBinding, "not bound to a certificate, which is required"},
		"bound to a key":                         {&koreauth.Claims{Confirmation: &koreauth.Confirmation{KeySHA256: own.thumbprint()}}, found(own.sum, true, nil), false, koreauth.ErrBinding, "bound to a key"},
		"bound to both":                          {&koreauth.Claims{Confirmation: &koreauth.Confirmation{CertificateSHA256: own.thumbprint(), KeySHA256: "x"}}, found(own.sum, true, nil), false, koreauth.ErrBinding, "bound to a key as well"},
		"bound in an unknown way":                {&koreauth.Claims{Confirmation: &koreauth.Confirmation{}}, found(own.sum, true, nil), false, koreauth.ErrBinding, "not supported"},
		"a thumbprint with padding":              {boundTo(own.thumbprint() + "="), found(own.sum, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
		"a thumbprint that is cut":               {boundTo(own.thumbprint()[:42]), found(own.sum, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
		"a thumbprint in hexadecimal":            {boundTo(own.hex), found(own.sum, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
		"a thumbprint of line breaks":            {boundTo(strings.Repeat("\n", 43)), found([32]byte{}, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
		"a thumbprint in base64, not base64url":  {boundTo(strings.Repeat("/", 43)), found([32]byte{}, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
		"zeros, and a Certificate without a sum": {boundTo(strings.Repeat("A", 43)), found([32]byte{}, false, nil), false, koreauth.ErrBinding, "has no certificate"},
		"a thumbprint with trailing bits":        {boundTo(strings.Repeat("A", 42) + "B"), found([32]byte{}, true, nil), false, koreauth.ErrBinding, "x5t#S256"},
	} {
		for _, logger := range []*slog.Logger{nil, slog.New(slog.DiscardHandler)} {
			sender := &mtls.Sender{Certificate: row.certificate, Required: row.required, Logger: logger}
			err := sender.Check(request(proxyPeer, "X"), row.claims)
			if row.err == nil {
				assert.NoError(t, err, name)
				continue
			}
			require.ErrorIs(t, err, row.err, name)
			assert.Contains(t, err.Error(), row.says, name)
			assert.NotContains(t, err.Error(), own.thumbprint(), name)
			sender.Certificate = mtls.FromConnection
			err = sender.Check(nil, row.claims)
			require.Error(t, err, "%s, without a request", name)
		}
	}
}

func TestFromHeader(t *testing.T) {
	own, other := ownForms()
	certificate := mtls.FromHeader(mustNew(t), "client-cert", mtls.Base64DER)
	for name, row := range map[string]struct {
		r    *http.Request
		ok   bool
		says string // of the error; "": none
	}{
		"the header":            {request(proxyPeer, "Client-Cert", own.base64), true, ""},
		"absent":                {request(proxyPeer, "X"), false, ""},
		"absent, not trusted":   {request(otherPeer, "X"), false, ""},
		"a peer, not trusted":   {request(otherPeer, "Client-Cert", own.base64), false, "the peer 203.0.113.66, which is not a trusted proxy"},
		"a Unix socket":         {request("@", "Client-Cert", own.base64), false, "the peer none, which is not a trusted proxy"},
		"another spelling":      {request(proxyPeer, "Client_Cert", own.base64), false, ""},
		"twice":                 {request(proxyPeer, "Client-Cert", own.base64, own.base64), false, "2 times"},
		"the client's as well":  {request(proxyPeer, "Client-Cert", other.base64, own.base64), false, "2 times"},
		"empty":                 {request(proxyPeer, "Client-Cert", ""), false, "is empty: the proxy saw no certificate"},
		"empty and another":     {request(proxyPeer, "Client-Cert", "", own.base64), false, "2 times"},
		"garbage":               {request(proxyPeer, "Client-Cert", "garbage"), false, "cannot be read"},
		"40 KB":                 {request(proxyPeer, "Client-Cert", strings.Repeat("A", 40<<10)), false, "more than 32 KiB"},
		"a connection with TLS": {withTLS(request(proxyPeer, "X"), own.der), false, ""},
	} {
		sum, ok, err := certificate(row.r)
		assert.Equal(t, row.ok, ok, name)
		if row.ok {
			assert.Equal(t, own.sum, sum, name)
		} else {
			assert.Zero(t, sum, name)
		}
		if row.says == "" {
			assert.NoError(t, err, name)
		} else if assert.Error(t, err, name) {
			assert.Contains(t, err.Error(), row.says, name)
			assert.NotContains(t, err.Error(), own.base64[:20], name)
		}
	}
	for name, misuse := range map[string]func(){
		"no proxies": func() { mtls.FromHeader(nil, "Client-Cert", mtls.RFC9440) },
		"no decoder": func() { mtls.FromHeader(mustNew(t), "Client-Cert", nil) },
		"no header":  func() { mtls.FromHeader(mustNew(t), "", mtls.RFC9440) },
		"no name":    func() { mtls.FromHeader(mustNew(t), "Client Cert", mtls.RFC9440) },
	} {
		assert.Panics(t, misuse, name)
	}
}

func withTLS(r *http.Request, der []byte) *http.Request {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
	return r
}

func TestFromConnection(t *testing.T) {
	own, other := ownForms()
	for range 3 {
		for _, f := range []forms{own, other} {
			sum, ok, err := mtls.FromConnection(withTLS(request(proxyPeer, "X"), f.der))
			require.NoError(t, err)
			assert.True(t, ok)
			assert.Equal(t, f.sum, sum)
		}
	}
	plain := request(proxyPeer, "X")
	_, ok, err := mtls.FromConnection(plain)
	assert.NoError(t, err)
	assert.False(t, ok)
	plain.TLS = &tls.ConnectionState{}
	_, ok, err = mtls.FromConnection(plain)
	assert.NoError(t, err)
	assert.False(t, ok)
}

// Many connections have the right hashes, whatever is remembered.
func TestFromConnection_ManyCertificates(t *testing.T) {
	var all []*http.Request
	var sums [][32]byte
	for n := range 200 {
		f := formsOf(newCertificate(t, fmt.Sprint(n)).Certificate[0])
		all, sums = append(all, withTLS(request(proxyPeer, "X"), f.der)), append(sums, f.sum)
	}
	for range 3 {
		for n, r := range all {
			sum, ok, err := mtls.FromConnection(r)
			require.True(t, ok)
			require.NoError(t, err)
			require.Equal(t, sums[n], sum)
		}
	}
}

func TestSender_WarnsAboutPeers(t *testing.T) {
	own, _ := ownForms()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		sender := &mtls.Sender{Certificate: mtls.FromHeader(mustNew(t), "Client-Cert", mtls.Base64DER), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		forged := request(otherPeer, "Client-Cert", own.base64)
		assert.NoError(t, sender.Check(forged, &koreauth.Claims{}), "a token that is not bound needs no certificate")
		err := sender.Check(forged, boundTo(own.thumbprint()))
		require.ErrorIs(t, err, koreauth.ErrBinding)
		assert.Contains(t, err.Error(), "203.0.113.66, which is not a trusted proxy")
		assert.Error(t, sender.Check(request(proxyPeer, "Client-Cert", "garbage"), boundTo(own.thumbprint())))
		assert.NoError(t, sender.Check(request(proxyPeer, "Client-Cert", own.base64), boundTo(own.thumbprint())))
		assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		assert.Contains(t, log.String(), "level=WARN")
		assert.Contains(t, log.String(), "header=Client-Cert peer=203.0.113.66")
		assert.NotContains(t, log.String(), own.base64[:20])
		time.Sleep(time.Minute)
		assert.NoError(t, sender.Check(forged, &koreauth.Claims{}))
		assert.Equal(t, 2, strings.Count(log.String(), "\n"))
	})
}

// TestSender_Server has a server with TLS and clients with and without certificates, over
// HTTP/1.1 and HTTP/2, with new and remembered tokens.
func TestSender_Server(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	guard := koreauth.New(validator, &koreauth.Options{Sender: &mtls.Sender{Certificate: mtls.FromConnection}})
	own, other := newCertificate(t, "own"), newCertificate(t, "other")
	bound, err := issuer.Mint(koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: formsOf(own.Certificate[0]).thumbprint()}})
	require.NoError(t, err)
	for _, http2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })))
		server.EnableHTTP2 = http2
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		t.Cleanup(server.Close)
		get := func(token string, certificates ...tls.Certificate) (int, string) {
			client := server.Client()
			transport := client.Transport.(*http.Transport).Clone()
			transport.TLSClientConfig.Certificates = certificates
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := (&http.Client{Transport: transport}).Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			return res.StatusCode, string(body)
		}
		for range 3 {
			status, proto := get(bound, own)
			assert.Equal(t, 200, status)
			assert.Equal(t, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2], proto)
			status, _ = get(bound, other)
			assert.Equal(t, 403, status, "another certificate")
			status, _ = get(bound)
			assert.Equal(t, 403, status, "no certificate")
			status, _ = get(issuer.Valid())
			assert.Equal(t, 200, status, "a token that is not bound")
		}
	}
}

func BenchmarkSender_Check(b *testing.B) {
	own, _ := ownForms()
	for name, row := range map[string]struct {
		certificate mtls.Certificate
		r           *http.Request
	}{
		"connection": {mtls.FromConnection, withTLS(request(proxyPeer, "X"), own.der)},
		"base64":     {mtls.FromHeader(mustNew(b), "Client-Cert", mtls.Base64DER), request(proxyPeer, "Client-Cert", own.base64)},
		"nginx":      {mtls.FromHeader(mustNew(b), "Client-Cert", mtls.NginxEscaped), request(proxyPeer, "Client-Cert", own.escaped)},
		"XFCC":       {mtls.FromHeader(mustNew(b), "Client-Cert", mtls.EnvoyXFCC), request(proxyPeer, "Client-Cert", "Hash="+own.hex+`;Subject="CN=own"`)},
	} {
		b.Run(name, func(b *testing.B) {
			sender, claims := &mtls.Sender{Certificate: row.certificate}, boundTo(own.thumbprint())
			b.ReportAllocs()
			for b.Loop() {
				if err := sender.Check(row.r, claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleSender() {
	sender := &mtls.Sender{Certificate: mtls.FromConnection, Required: true}
	fmt.Println(sender.Check(httptest.NewRequest(http.MethodGet, "/", nil), &koreauth.Claims{}))
	// Output: koreauth: invalid token: sender not confirmed: the token is not bound to a certificate, which is required
}

func ExampleFromHeader() {
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	if err != nil {
		fmt.Println(err)
		return
	}
	certificate := mtls.FromHeader(behind, "Client-Cert", mtls.RFC9440)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "203.0.113.66:41000" // not a proxy
	r.Header.Set("Client-Cert", ":MIIB:")
	_, ok, err := certificate(r)
	fmt.Println(ok, err)
	// Output: false the header Client-Cert comes from the peer 203.0.113.66, which is not a trusted proxy
}
