package iprange_test

import (
	"net/http/httptest"
	"testing"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/iprange"
)

func BenchmarkRange_Check(b *testing.B) {
	r := httptest.NewRequest("GET", "/", nil) // from 192.0.2.1
	for name, entries := range map[string][]string{
		"none":          nil,
		"one prefix":    {"192.0.2.0/24"},
		"four prefixes": {"10.0.0.0/8", "172.16.0.0/12", "198.51.100.0/24", "192.0.2.0/24"},
		"four ranges":   {"10.0.0.1-10.0.0.9", "172.16.0.1-172.16.0.9", "198.51.100.1-198.51.100.9", "192.0.2.1-192.0.2.9"},
		"four of IPv6":  {"2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::1", "192.0.2.1"},
	} {
		b.Run(name, func(b *testing.B) {
			within, claims := iprange.Within(nil), &koreauth.Claims{IPRanges: entries}
			b.ReportAllocs()
			for b.Loop() {
				if err := within.Check(r, claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
