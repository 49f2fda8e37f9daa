package interop_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/iprange"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/mtls"
	"github.com/koreauth/koreauth/proxy"
)

// proxied is a proxy with the configuration in the folder proxies, and what an API behind
// it sets.
type proxied struct {
	name, version string
	config        string
	args          []string // CONFIG and FOLDER are replaced
	header        string   // with the certificate
	decoder       mtls.Decoder
	address       string                  // the header with the client's address
	forge         func(der []byte) string // the header, as the proxy writes it
}

func escapePEM(der []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func base64Of(der []byte) string { return base64.StdEncoding.EncodeToString(der) }

var proxies = []proxied{
	{"nginx", "-v", "nginx.conf", []string{"-p", "FOLDER", "-c", "CONFIG", "-g", "daemon off; pid nginx.pid; error_log stderr;"}, "X-Client-Cert", mtls.NginxEscaped, "X-Forwarded-For", escapePEM},
	{"haproxy", "-v", "haproxy.cfg", []string{"-db", "-f", "CONFIG"}, "Client-Cert", mtls.RFC9440, "X-Forwarded-For", func(der []byte) string { return ":" + base64Of(der) + ":" }},
	{"envoy", "--version", "envoy.yaml", []string{"-c", "CONFIG", "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"}, "X-Forwarded-Client-Cert", mtls.EnvoyXFCC, "X-Client-Address", func(der []byte) string {
		sum := sha256.Sum256(der)
		return "Hash=" + hex.EncodeToString(sum[:])
	}},
	{"traefik", "version", "traefik.yaml", []string{"--configFile=CONFIG"}, "X-Forwarded-Tls-Client-Cert", mtls.TraefikPEM, "X-Forwarded-For", base64Of},
	{"caddy", "version", "Caddyfile", []string{"run", "--adapter", "caddyfile", "--config", "CONFIG"}, "X-Client-Cert", mtls.Base64DER, "X-Forwarded-For", base64Of},
}

// binary returns the path of a proxy, or skips the test.
func binary(t *testing.T, name string) string {
	t.Helper()
	for _, place := range []string{filepath.Join("proxies", ".cache", "bin", name), "/usr/sbin/" + name} {
		if path, err := filepath.Abs(place); err == nil {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: see proxies/fetch.sh", name)
	}
	return path
}

// newPair returns a certificate for a server or a client on loopback.
func newPair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{`A "quoted", name; x=y`}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// folder writes the certificate of the proxies, and returns its folder.
func folder(t *testing.T) string {
	t.Helper()
	dir, pair := t.TempDir(), newPair(t, "server")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for name, text := range map[string][]byte{"server.pem": certificate, "server.key": private, "both.pem": append(certificate, private...)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// start runs a proxy in front of an address, and returns its own.
func (p proxied) start(t *testing.T, config, upstream string) string {
	t.Helper()
	path, dir := binary(t, p.name), folder(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	own := listener.Addr().String()
	require.NoError(t, listener.Close())
	files := []string{config}
	if p.name == "traefik" {
		files = append(files, "traefik-routes.yaml")
	}
	ownHost, ownPort, _ := net.SplitHostPort(own)
	upstreamHost, upstreamPort, _ := net.SplitHostPort(upstream)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("proxies", file))
		require.NoError(t, err)
		replaced := strings.NewReplacer("/etc/proxy", dir, publicHost+":8443", publicHost+":"+ownPort, "127.0.0.1:8443", own, "127.0.0.1:8080", upstream,
			"address: 127.0.0.1, port_value: 8443", "address: "+ownHost+", port_value: "+ownPort,
			"address: 127.0.0.1, port_value: 8080", "address: "+upstreamHost+", port_value: "+upstreamPort).Replace(string(text))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(replaced), 0o600))
	}
	var args []string
	for _, arg := range p.args {
		args = append(args, strings.NewReplacer("CONFIG", filepath.Join(dir, config), "FOLDER", dir).Replace(arg))
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var log locked.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
	})
	scheme := "https://"
	if config == "haproxy-inner.cfg" {
		scheme = "http://"
	}
	require.Eventually(t, func() bool {
		status, _, err := visitor{from: ownAddress, at: own}.try(t, scheme+publicHost+"/v1/down", "a.b.c")
		return err == nil && status == http.StatusServiceUnavailable
	}, 15*time.Second, 50*time.Millisecond, "%s: %s", p.name, &log)
	return own
}

// publicHost is the name of the API. Its address is that of the proxy.
const publicHost = "api.example.com"

const (
	ownAddress   = "127.0.0.7" // of the client that the token allows
	otherAddress = "127.0.0.8"
)

// visitor is a client with an address, and perhaps a certificate.
type visitor struct {
	from, at     string // its address, and that of the server
	http2        bool
	certificates []tls.Certificate
	header       [][2]string
}

// get sends a request, and returns the status and the body.
func (v visitor) get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	status, body, err := v.try(t, url, token)
	require.NoError(t, err)
	return status, body
}

func (v visitor) try(t *testing.T, url, token string) (int, string, error) {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(v.from)}}).DialContext(ctx, network, v.at)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(v.certificates) == 0 {
				return &tls.Certificate{}, nil
			}
			return &v.certificates[0], nil // although no authority of the server has signed it
		}},
		ForceAttemptHTTP2: v.http2,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	for _, field := range v.header {
		req.Header[field[0]] = append(req.Header[field[0]], field[1]) // in this spelling
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if v.http2 {
		assert.Equal(t, "HTTP/2.0", res.Proto)
	}
	return res.StatusCode, string(body), err
}

// proxiedAPI is an API behind proxies.
type proxiedAPI struct {
	url                    string
	bound, ranged, both    string // tokens: bound to own, allowed from ownAddress, and both
	own, other             tls.Certificate
	ownHeader, otherHeader string
}

func newProxiedAPI(t *testing.T, p proxied) *proxiedAPI {
	t.Helper()
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	behind, err := proxy.New(p.address, netip.MustParsePrefix("127.0.0.1/32"))
	require.NoError(t, err)
	guard := koreauth.New(validator, &koreauth.Options{
		Sender:  &mtls.Sender{Certificate: mtls.FromHeader(behind, p.header, p.decoder)},
		Require: []koreauth.Requirement{iprange.Within(behind)},
	})
	down := koreauth.New(koretest.Validator{Err: koreauth.ErrUnavailable}, nil)
	mux := http.NewServeMux()
	mux.Handle("/v1/ping", guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address, _ := behind.Client(r)
		fmt.Fprint(w, address)
	})))
	mux.Handle("/v1/down", down.Wrap(http.NotFoundHandler()))
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnContext = proxy.ConnContext
	server.Start()
	t.Cleanup(server.Close)
	a := &proxiedAPI{url: server.URL, own: newPair(t, "own"), other: newPair(t, "other")}
	sum := sha256.Sum256(a.own.Certificate[0])
	bound := &koreauth.Confirmation{CertificateSHA256: base64.RawURLEncoding.EncodeToString(sum[:])}
	ranged := map[string]any{"ip-range": []any{ownAddress}}
	for _, token := range []struct {
		to *string
		of koretest.Token
	}{{&a.bound, koretest.Token{Confirmation: bound}}, {&a.ranged, koretest.Token{Claims: ranged}}, {&a.both, koretest.Token{Confirmation: bound, Claims: ranged}}} {
		*token.to, err = issuer.Mint(token.of)
		require.NoError(t, err)
	}
	a.ownHeader, a.otherHeader = p.forge(a.own.Certificate[0]), p.forge(a.other.Certificate[0])
	return a
}

// TestProxies has the matrix of docs/reports/proxies.md.
func TestProxies(t *testing.T) {
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			a := newProxiedAPI(t, p)
			public := p.start(t, p.config, strings.TrimPrefix(a.url, "http://"))
			for _, http2 := range []bool{false, true} {
				t.Run(map[bool]string{false: "HTTP 1.1", true: "HTTP 2"}[http2], func(t *testing.T) { matrix(t, a, p, public, http2) })
			}
		})
	}
}

func matrix(t *testing.T, a *proxiedAPI, p proxied, public string, http2 bool) {
	with := func(from string, certificate *tls.Certificate, header ...[2]string) visitor {
		v := visitor{from: from, at: public, http2: http2, header: header}
		if certificate != nil {
			v.certificates = []tls.Certificate{*certificate}
		}
		return v
	}
	// HTTP/2 forbids Connection, so Go's client does not send it.
	hop := [2]string{"Connection", p.address + ", " + p.header}
	for name, row := range map[string]struct {
		v      visitor
		token  string
		status int
	}{
		"own certificate and address":            {with(ownAddress, &a.own), a.both, 200},
		"own certificate":                        {with(otherAddress, &a.own), a.bound, 200},
		"own address":                            {with(ownAddress, nil), a.ranged, 200},
		"no certificate":                         {with(ownAddress, nil), a.bound, 403},
		"another certificate":                    {with(ownAddress, &a.other), a.bound, 403},
		"another address":                        {with(otherAddress, &a.own), a.both, 403},
		"a forged certificate":                   {with(ownAddress, nil, [2]string{p.header, a.ownHeader}), a.bound, 403},
		"a forged certificate, another beside":   {with(ownAddress, &a.other, [2]string{p.header, a.ownHeader}), a.bound, 403},
		"a forged certificate, doubled":          {with(ownAddress, &a.other, [2]string{p.header, a.ownHeader}, [2]string{p.header, a.ownHeader}), a.bound, 403},
		"a forged certificate in lower case":     {with(ownAddress, nil, [2]string{strings.ToLower(p.header), a.ownHeader}), a.bound, 403},
		"a forged certificate with underscores":  {with(ownAddress, nil, [2]string{strings.ReplaceAll(p.header, "-", "_"), a.ownHeader}), a.bound, 403},
		"own certificate, another one forged":    {with(ownAddress, &a.own, [2]string{p.header, a.otherHeader}), a.bound, 200},
		"a forged address":                       {with(otherAddress, nil, [2]string{p.address, ownAddress}), a.ranged, 403},
		"a forged address, doubled":              {with(otherAddress, nil, [2]string{p.address, ownAddress}, [2]string{p.address, ownAddress}), a.ranged, 403},
		"a forged address, and a trusted one":    {with(otherAddress, nil, [2]string{p.address, ownAddress + ", 127.0.0.1"}), a.ranged, 403},
		"a forged address in other headers":      {with(otherAddress, nil, [2]string{"Forwarded", "for=" + ownAddress}, [2]string{"X-Real-Ip", ownAddress}, [2]string{"X-Forwarded-For", ownAddress}), a.ranged, 403},
		"a forged address with underscores":      {with(otherAddress, nil, [2]string{strings.ReplaceAll(p.address, "-", "_"), ownAddress}), a.ranged, 403},
		"own address, another one forged":        {with(ownAddress, nil, [2]string{p.address, otherAddress}), a.ranged, 200},
		"headers that a hop removes":             {with(otherAddress, nil, hop, [2]string{p.address, ownAddress}, [2]string{p.header, a.ownHeader}), a.both, 403},
		"headers that a hop removes, own client": {with(ownAddress, nil, hop), a.bound, 403},
	} {
		if http2 && len(row.v.header) > 0 && row.v.header[0] == hop {
			continue
		}
		for range 2 { // The second time, the token is remembered.
			status, body := row.v.get(t, "https://"+publicHost+"/v1/ping", row.token)
			if row.status == 403 && status == 400 {
				continue // Some proxies answer some of these requests themselves.
			}
			assert.Equal(t, row.status, status, "%s: %s", name, body)
			if status == 200 {
				assert.Equal(t, row.v.from, body, name)
			}
		}
	}
	direct := visitor{from: ownAddress, at: strings.TrimPrefix(a.url, "http://"), header: [][2]string{{p.header, a.ownHeader}, {p.address, ownAddress}}}
	status, _ := direct.get(t, a.url+"/v1/ping", a.bound)
	assert.Equal(t, 403, status, "the port of the API, reached directly")
	direct.from = otherAddress
	status, _ = direct.get(t, a.url+"/v1/ping", a.ranged)
	assert.Equal(t, 403, status, "the port of the API, reached directly")

	status, body := with(ownAddress, nil).get(t, "https://"+publicHost+"/v1/down", a.bound)
	assert.Equal(t, 503, status, "an outage of the issuer is 503 for the client too")
	assert.Contains(t, body, "message")
}

// TestProxies_TwoInARow has HAProxy behind nginx.
func TestProxies_TwoInARow(t *testing.T) {
	outer, inner := proxies[0], proxies[1]
	binary(t, outer.name)
	a := newProxiedAPI(t, outer)
	between := inner.start(t, "haproxy-inner.cfg", strings.TrimPrefix(a.url, "http://"))
	public := outer.start(t, outer.config, between)
	for _, http2 := range []bool{false, true} {
		matrix(t, a, outer, public, http2)
	}
}
