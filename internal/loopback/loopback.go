// Package loopback recognizes the hosts of this machine.
package loopback

import (
	"net/netip"
	"strings"
)

// Is reports whether a host, without a port, is localhost or a loopback address. Other
// names are not, whatever they resolve to.
func Is(host string) bool {
	if strings.EqualFold(host, "localhost") { // RFC 6761 §6.3
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
