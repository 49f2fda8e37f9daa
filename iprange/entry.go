package iprange

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/koreauth/koreauth/internal/unmap"
)

var (
	errForm  = errors.New("want an address, a prefix such as 10.0.0.0/8, or two addresses such as 10.0.0.1-10.0.0.9")
	errZone  = errors.New("an address with a zone")
	errOrder = errors.New("the two addresses are of different families, or the first is above the second")
)

// parse reads an entry, and returns its first and last address.
func parse(entry string) (from, to netip.Addr, err error) {
	entry = strings.Trim(entry, " \t")
	if strings.Contains(entry, "/") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			return from, to, errForm
		}
		prefix = unmap.Prefix(prefix).Masked()
		return prefix.Addr(), last(prefix), nil
	}
	first, second, isRange := strings.Cut(entry, "-")
	if from, err = parseAddress(strings.TrimRight(first, " \t")); err != nil || !isRange {
		return from, from, err
	}
	if to, err = parseAddress(strings.TrimLeft(second, " \t")); err != nil {
		return from, to, err
	}
	if from.BitLen() != to.BitLen() || to.Less(from) {
		return from, to, errOrder
	}
	return from, to, nil
}

func parseAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return a, errForm
	case a.Zone() != "":
		return a, errZone
	}
	return a.Unmap(), nil
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		bytes := p.Addr().As4()
		fill(bytes[:], p.Bits())
		return netip.AddrFrom4(bytes)
	}
	bytes := p.Addr().As16()
	fill(bytes[:], p.Bits())
	return netip.AddrFrom16(bytes)
}

// fill sets all bits after the first ones.
func fill(bytes []byte, bits int) {
	for i := range bytes {
		bytes[i] |= byte(0xff >> min(8, max(0, bits-8*i)))
	}
}
