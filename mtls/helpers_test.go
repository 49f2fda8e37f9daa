package mtls_test

import (
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
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newCertificate returns a self-signed certificate for a client.
func newCertificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// forms are the forms of a certificate, and of another one, in headers.
type forms struct {
	der                 []byte
	sum                 [32]byte
	base64, pem, hex    string
	escaped, escapedALB string
}

func formsOf(der []byte) forms {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	escaped := strings.NewReplacer("%", "%25", " ", "%20", "\n", "%0A", "+", "%2B", "/", "%2F", "=", "%3D").Replace(text)
	alb := strings.NewReplacer("%", "%25", " ", "%20", "\n", "%0A").Replace(text) // leaves "+", "/" and "="
	sum := sha256.Sum256(der)
	return forms{der, sum, base64.StdEncoding.EncodeToString(der), text, hex.EncodeToString(sum[:]), escaped, alb}
}

var ownForms = sync.OnceValues(func() (forms, forms) {
	var t testing.T // newCertificate fails only if the machine has no random numbers.
	return formsOf(newCertificate(&t, "own").Certificate[0]), formsOf(newCertificate(&t, "other").Certificate[0])
})

func (f forms) thumbprint() string { return base64.RawURLEncoding.EncodeToString(f.sum[:]) }

// request returns a request from a peer with lines of a header.
func request(peer, header string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = peer
	for _, line := range lines {
		r.Header.Add(header, line)
	}
	return r
}
