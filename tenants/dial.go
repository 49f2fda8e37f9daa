package tenants

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// unicast are the IPv6 addresses that are assigned.
var unicast = netip.MustParsePrefix("2000::/3")

// forbidden are the networks that no tenant's issuer may be in, in addition to those that
// netip.Addr tells: an issuer there would let a tenant reach what only this machine can.
// They are those of the special-purpose address registries (RFC 6890), and of clouds.
var forbidden = prefixes(
	"0.0.0.0/8",         // this network (RFC 791)
	"100.64.0.0/10",     // shared by carriers (RFC 6598)
	"168.63.129.16/32",  // the host of a machine in Azure
	"192.0.0.0/24",      // protocol assignments (RFC 6890)
	"192.0.2.0/24",      // documentation (RFC 5737)
	"192.31.196.0/24",   // AS112 (RFC 7535)
	"192.52.193.0/24",   // AMT (RFC 7450)
	"192.88.99.0/24",    // relays of 6to4 (RFC 7526)
	"192.175.48.0/24",   // AS112 (RFC 7534)
	"198.18.0.0/15",     // benchmarks (RFC 2544)
	"198.51.100.0/24",   // documentation (RFC 5737)
	"203.0.113.0/24",    // the same
	"240.0.0.0/4",       // reserved, and broadcast (RFC 1112)
	"2001::/23",         // protocol assignments, Teredo (RFC 2928, RFC 4380)
	"2001:db8::/32",     // documentation (RFC 3849)
	"2002::/16",         // 6to4 (RFC 3056)
	"2620:4f:8000::/48", // AS112 (RFC 7534)
	"3fff::/20",         // documentation (RFC 9637)
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// isForbidden reports whether no connection may be made to an address.
func isForbidden(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() { // Loopback, link-local, multicast and others are not.
		return true
	}
	if a.Is6() && (!unicast.Contains(a) || isISATAP(a)) {
		return true
	}
	return slices.ContainsFunc(forbidden, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isISATAP reports whether an address has an IPv4 address in its interface identifier (RFC
// 5214 §6.1).
func isISATAP(a netip.Addr) bool {
	b := a.As16()
	return b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
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
// addresses of the issuer's own host and port only, follows no redirect and uses no proxy.
func newClient(issuer *url.URL) *http.Client {
	port := issuer.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[issuer.Scheme]
	}
	own := net.JoinHostPort(issuer.Hostname(), port)
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: control}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if !strings.EqualFold(address, own) {
				return nil, fmt.Errorf("tenants: the keys are at %s, which is not the host of the issuer: set HTTPClient in the Config if this is right", address)
			}
			return dialer.DialContext(ctx, network, address)
		},
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return fmt.Errorf("tenants: redirect to %s, which is not followed for an issuer that was not known at start", r.URL.Host)
	}}
}
