// Package mtls confirms tokens that are bound to the certificate of a client
// (RFC 8705 §3): they are accepted only from a client that has the key of the
// certificate.
//
//	guard := koreauth.New(validator, &koreauth.Options{
//		Sender: &mtls.Sender{Certificate: mtls.FromConnection},
//	})
//
// If a proxy terminates TLS, it must pass the certificate on in a header:
//
//	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
//	sender := &mtls.Sender{Certificate: mtls.FromHeader(behind, "Client-Cert", mtls.RFC9440)}
//
// Choose one of the two. A server that takes the certificate from the header and, if that
// is absent, from the connection, takes the proxy's own.
//
// Whether a certificate is expired, revoked, or of a trusted authority is not checked
// here: a token names one certificate, and the TLS handshake has proved that the client
// has its key. After a renewal the client needs a new token.
package mtls

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/seldom"
	"github.com/koreauth/koreauth/internal/token68"
	"github.com/koreauth/koreauth/proxy"
)

// Certificate finds the certificate of the client, and returns the SHA-256 of its DER
// encoding. It reports false if the client has none, and an error if it cannot be
// read. Use [FromConnection] or the result of [FromHeader].
type Certificate func(r *http.Request) (sha256 [32]byte, ok bool, err error)

// Sender is a [koreauth.Requirement] for [koreauth.Options].Sender. It accepts a token
// that is bound to a certificate if the client has that certificate, and rejects any
// other bound token with [koreauth.ErrBinding]: one that is bound to a key as well, or in
// a way that is not known. The error says whether there was no certificate, another one,
// or one that cannot be read or believed. Do not change or copy a Sender that is in use.
type Sender struct {
	// Certificate finds the certificate of the client. It is required: without it all
	// bound tokens are rejected.
	Certificate Certificate
	// Required rejects tokens that are not bound.
	Required bool
	// Logger gets a warning, once a minute, about a certificate in a header that comes
	// from a peer that is not a trusted proxy: that is an attack, or a proxy is missing in
	// proxy.New. If Logger is nil, nothing is logged.
	Logger *slog.Logger

	untrusted seldom.Limit
}

// logInterval is the time between two warnings.
const logInterval = time.Minute

// Check implements [koreauth.Requirement].
func (s *Sender) Check(r *http.Request, c *koreauth.Claims) error {
	bound := c.Confirmation
	if bound == nil && !s.Required && s.Logger == nil {
		return nil
	}
	sum, ok, err := s.find(r)
	s.warn(r, err)
	switch {
	case bound == nil && s.Required:
		return reject("the token is not bound to a certificate, which is required")
	case bound == nil:
		return nil
	case bound.KeySHA256 != "":
		return reject("the token is bound to a key as well, which is not supported here")
	case bound.CertificateSHA256 == "":
		return reject("the token is bound in a way that is not supported")
	case errors.Is(err, koreauth.ErrUnavailable):
		return err
	case err != nil:
		return reject(redact.Text(err.Error()))
	case !ok:
		return reject("the client has no certificate")
	}
	want, ok := decodeThumbprint(bound.CertificateSHA256)
	switch {
	case !ok:
		return reject(`the "x5t#S256" of the token is not the SHA-256 of a certificate`)
	case subtle.ConstantTimeCompare(sum[:], want[:]) != 1:
		return reject("the client has another certificate than the one that the token is bound to")
	}
	return nil
}

func reject(cause string) error { return fmt.Errorf("%w: %s", koreauth.ErrBinding, cause) }

func (s *Sender) find(r *http.Request) (sum [32]byte, ok bool, err error) {
	switch {
	case s.Certificate == nil:
		return sum, false, errors.New("mtls: Sender.Certificate is nil: set it to FromConnection or to the result of FromHeader")
	case r == nil:
		return sum, false, errors.New("there is no request, and so no certificate")
	}
	return s.Certificate(r)
}

func (s *Sender) warn(r *http.Request, err error) {
	if s.Logger == nil || err == nil {
		return
	}
	var untrusted *untrustedError
	if errors.As(err, &untrusted) && s.untrusted.Allow(logInterval) {
		s.Logger.LogAttrs(r.Context(), slog.LevelWarn, "koreauth: a peer that is not a trusted proxy sent a certificate in a header, which is ignored; "+
			"if it is one of your proxies, list its address in proxy.New", slog.String("header", untrusted.header), slog.String("peer", untrusted.peerText()))
	}
}

// decodeThumbprint decodes an "x5t#S256" (RFC 8705 §3.1).
func decodeThumbprint(text string) (sum [32]byte, ok bool) {
	if len(text) != base64.RawURLEncoding.EncodedLen(len(sum)) {
		return sum, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(sum[:], []byte(text))
	return sum, err == nil && n == len(sum)
}

// FromConnection is a [Certificate] that takes the client's certificate from the TLS
// connection. Let the server ask for one with tls.RequestClientCert or a stricter
// tls.ClientAuthType. Behind a proxy that uses TLS to this server, it is the proxy's.
func FromConnection(r *http.Request) (sha256 [32]byte, ok bool, err error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return sha256, false, nil
	}
	return seen.sum(r.TLS.PeerCertificates[0]), true, nil
}

// seen keeps the hashes of some certificates of connections, whose requests have the same
// *x509.Certificate.
var seen hashes

type hashes [64]atomic.Pointer[hash]

type hash struct {
	certificate *x509.Certificate
	sum         [32]byte
}

var seed = maphash.MakeSeed()

func (h *hashes) sum(c *x509.Certificate) [32]byte {
	slot := &h[maphash.Comparable(seed, c)%uint64(len(h))]
	known := slot.Load()
	if known == nil || known.certificate != c {
		known = &hash{c, sha256.Sum256(c.Raw)}
		slot.Store(known)
	}
	return known.sum
}

// maxHeader is the maximum length of a header with a certificate.
const maxHeader = 32 << 10

// FromHeader returns a [Certificate] that takes the client's certificate from a header of
// a trusted proxy. The header of any other peer counts as absent. The proxy must remove or
// replace the header that a client sends, for each path. A header that occurs twice, that
// is empty or over 32 KiB, or that d cannot read is an error, so that bound tokens are
// rejected. Nothing is remembered between requests, because proxies send the requests of
// many clients over one connection.
//
// FromHeader panics if p or d is nil, or if header is no name of a header.
func FromHeader(p *proxy.Proxies, header string, d Decoder) Certificate {
	switch {
	case p == nil:
		panic("mtls: FromHeader: the *proxy.Proxies is nil, so that every client could send the certificate of another: use proxy.New")
	case d == nil:
		panic("mtls: FromHeader: the Decoder is nil: use the one of your proxy, such as RFC9440")
	case !token68.IsName(header):
		panic(fmt.Sprintf("mtls: FromHeader: %.64q is not the name of a header", header))
	}
	header = http.CanonicalHeaderKey(header)
	return func(r *http.Request) (sum [32]byte, ok bool, err error) {
		lines := r.Header[header]
		switch {
		case len(lines) == 0:
			return sum, false, nil
		case !p.Trusts(r):
			peer, known := (*proxy.Proxies)(nil).Client(r)
			return sum, false, &untrustedError{header, peer, known}
		case len(lines) > 1:
			return sum, false, fmt.Errorf("the request has the header %s %d times", header, len(lines))
		case lines[0] == "":
			return sum, false, fmt.Errorf("the header %s is empty: the proxy saw no certificate", header)
		case len(lines[0]) > maxHeader:
			return sum, false, fmt.Errorf("the header %s has more than 32 KiB", header)
		}
		if sum, err = d(lines[0]); err != nil {
			return [32]byte{}, false, fmt.Errorf("the certificate in the header %s cannot be read: %w", header, err)
		}
		return sum, true, nil
	}
}

// untrustedError says that a header was ignored.
type untrustedError struct {
	header string
	peer   netip.Addr
	known  bool
}

func (e *untrustedError) peerText() string {
	if !e.known {
		return "none"
	}
	return e.peer.String()
}

func (e *untrustedError) Error() string {
	return fmt.Sprintf("the header %s comes from the peer %s, which is not a trusted proxy", e.header, e.peerText())
}
