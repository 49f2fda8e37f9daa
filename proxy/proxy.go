// Package proxy tells which client a request comes from if proxies are in between:
//
//	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
//	address, ok := behind.Client(r)
//
// A header says what a proxy or the client itself wrote into it. So it is read only if
// the connection comes from a trusted proxy, only the one header that the proxies are
// known to set is read, and only what trusted proxies wrote into it counts. If they do
// not name the client, there is no address: that of a proxy would be wrong, and it is
// inside most lists of allowed addresses.
//
// Packages iprange and mtls of this module use it. It does not log.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/koreauth/koreauth/internal/token68"
	"github.com/koreauth/koreauth/internal/unmap"
)

// Proxies are the trusted proxies in front of a server, and the header in which they
// name the client. Create one with [New]; a nil *Proxies trusts nobody. It is safe for
// concurrent use by multiple goroutines.
type Proxies struct {
	header  string
	trusted []netip.Prefix
}

// New returns the Proxies with the given addresses, which name the client in one header:
// "X-Forwarded-For", "Forwarded" (RFC 7239), or another one that is written like
// X-Forwarded-For, such as "X-Real-IP". Each proxy must append to the header, or
// replace it.
//
// A client can send any other header that is not listed here, which is why there is no
// list to try. New returns an error that names all faults: a header that is no name, no
// prefix, a prefix of all addresses such as 0.0.0.0/0, and one with bits after its
// length, such as 10.0.0.1/8.
func New(header string, trusted ...netip.Prefix) (*Proxies, error) {
	var faults []error
	if !token68.IsName(header) {
		faults = append(faults, fmt.Errorf("proxy: %.64q is not the name of one header: use X-Forwarded-For, Forwarded, or the one that your proxy sets", header))
	}
	if len(trusted) == 0 {
		faults = append(faults, errors.New("proxy: no trusted proxy: list the addresses from which your proxies connect, or use a nil *Proxies if there are none"))
	}
	p := &Proxies{header: http.CanonicalHeaderKey(header)}
	for _, prefix := range trusted {
		unmapped := unmap.Prefix(prefix)
		switch {
		case !prefix.IsValid():
			faults = append(faults, errors.New("proxy: a trusted prefix is invalid: use netip.MustParsePrefix"))
		case unmapped.Bits() == 0:
			faults = append(faults, fmt.Errorf("proxy: %v trusts every client to name its own address: list the addresses of your proxies", prefix))
		case unmapped != unmapped.Masked():
			faults = append(faults, fmt.Errorf("proxy: %v has bits after its length: did you mean %v or %v?", prefix, unmapped.Masked(), netip.PrefixFrom(unmapped.Addr(), unmapped.Addr().BitLen())))
		}
		p.trusted = append(p.trusted, unmapped)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// Client returns the address of the client: that of the connection or, if the connection
// comes from a trusted proxy, the last one in the header that is not of a trusted proxy.
// It reports false if there is none: a trusted proxy sent no header, named only trusted
// proxies, or wrote what is not an address in its place; the header is longer than 8 KiB
// or 64 addresses up to there; or the connection has no address, as a Unix socket.
//
// The address is an IPv4 address if it was an IPv4-mapped one, and has no zone. A nil
// *Proxies returns the address of the connection.
func (p *Proxies) Client(r *http.Request) (netip.Addr, bool) {
	peer, ok := peerOf(r)
	if !ok || !p.trusts(peer) {
		return peer, ok
	}
	if p.header == "Forwarded" {
		return p.walk(r.Header[p.header], lastForwarded, forwardedFor)
	}
	return p.walk(r.Header[p.header], lastElement, address)
}

// Trusts reports whether the connection comes from a trusted proxy, so that other
// headers that this proxy sets can be believed. A nil *Proxies trusts nobody.
func (p *Proxies) Trusts(r *http.Request) bool {
	peer, ok := peerOf(r)
	return ok && p.trusts(peer)
}

func (p *Proxies) trusts(a netip.Addr) bool {
	return p != nil && slices.ContainsFunc(p.trusted, func(trusted netip.Prefix) bool { return trusted.Contains(a) })
}

// The limits for what is read of a header.
const (
	maxBytes = 8 << 10
	maxHops  = 64
)

// walk reads a list from its end, and returns the first address that is not trusted.
// Several lines are one list (RFC 9110 §5.3). last cuts the last element off.
func (p *Proxies) walk(lines []string, last func(string) (rest, element string, more bool), read func(string) (netip.Addr, bool)) (netip.Addr, bool) {
	size, hops := 0, 0
	for i := len(lines) - 1; i >= 0; i-- {
		rest, element, more := lines[i], "", true
		for more {
			rest = rest[max(0, len(rest)-maxBytes):] // More would be too long in any case.
			rest, element, more = last(rest)
			hops++
			if size += len(element); size > maxBytes || hops > maxHops {
				return netip.Addr{}, false
			}
			a, ok := read(strings.Trim(element, " \t"))
			if !ok {
				return netip.Addr{}, false
			}
			if !p.trusts(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

// ConnContext is for [http.Server].ConnContext. It keeps the connection, so that
// [Proxies.Client] and [Proxies.Trusts] ask it for the address. Without it they believe
// [http.Request].RemoteAddr, which some middleware replaces by what a header says, so
// that a client could pretend to be a proxy. To use another ConnContext as well, call
// one with the result of the other.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// peerOf returns the address from which the connection comes.
func peerOf(r *http.Request) (netip.Addr, bool) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		// A listener for the PROXY protocol reads here. In ConnContext that would block
		// other connections.
		switch a := c.RemoteAddr().(type) {
		case *net.TCPAddr:
			return plain(a.AddrPort().Addr())
		case nil:
			return netip.Addr{}, false
		default:
			return parsePeer(a.String())
		}
	}
	return parsePeer(r.RemoteAddr)
}

func parsePeer(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddrPort(text)
	if err != nil { // a Unix socket, or an address without a port, which no server sets
		return netip.Addr{}, false
	}
	return plain(a.Addr())
}

func plain(a netip.Addr) (netip.Addr, bool) { return a.Unmap().WithZone(""), a.IsValid() }
