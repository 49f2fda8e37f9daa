// Package unmap turns IPv4-mapped IPv6 prefixes into IPv4 prefixes, as
// [netip.Addr.Unmap] does with addresses.
package unmap

import "net/netip"

// Prefix returns the IPv4 prefix of an IPv4-mapped IPv6 prefix such as
// ::ffff:10.0.0.0/104, and any other one as it is.
func Prefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
