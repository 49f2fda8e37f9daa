package tenants

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// forbidden are the networks that no tenant's issuer may be in, in addition to those that
// netip.Addr tells: an issuer there would let a tenant reach what only this machine can.
var forbidden = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network (RFC 791)
	netip.MustParsePrefix("100.64.0.0/10"),  // shared by carriers (RFC 6598)
	netip.MustParsePrefix("192.0.0.0/24"),   // protocol assignments (RFC 6890)
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarks (RFC 2544)
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, and broadcast (RFC 1112)
	netip.MustParsePrefix("::/96"),          // IPv4-compatible (RFC 4291)
	netip.MustParsePrefix("64:ff9b::/96"),   // translated to IPv4 (RFC 6052)
	netip.MustParsePrefix("64:ff9b:1::/48"), // the same (RFC 8215)
	netip.MustParsePrefix("2001::/32"),      // Teredo (RFC 4380)
	netip.MustParsePrefix("2002::/16"),      // 6to4 (RFC 3056)
	netip.MustParsePrefix("fec0::/10"),      // site-local (RFC 3879)
}

// isForbidden reports whether no connection may be made to an address.
func isForbidden(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() { // Loopback, link-local, multicast and others are not.
		return true
	}
	for _, p := range forbidden {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// control refuses a connection to an address that is not public. It sees the address that
// is connected to, whatever the name resolved to before.
func control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || isForbidden(at.Addr()) {
		return fmt.Errorf("tenants: the issuer is at %s, which is not a public address: set HTTPClient in the Config if this is right", address)
	}
	return nil
}

// newClient returns the client for a tenant whose Config has none. It connects to public
// addresses of the issuer's own host only, follows no redirect and uses no proxy.
func newClient(host string) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: control}
	transport := &http.Transport{
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{Transport: &oneHost{host, transport}, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return fmt.Errorf("tenants: redirect to %s, which is not followed for an issuer that was not known at start", r.URL.Host)
	}}
}

// oneHost sends requests to one host.
type oneHost struct {
	host string
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (o *oneHost) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != o.host {
		return nil, fmt.Errorf("tenants: the keys are at %s, which is not the host of the issuer: set HTTPClient in the Config if this is right", r.URL.Host)
	}
	return o.base.RoundTrip(r)
}
