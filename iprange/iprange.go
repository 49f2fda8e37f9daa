// Package iprange enforces the claim ip-range of KORE's tokens: a token with it is
// accepted only from the addresses that it lists.
//
//	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
//	guard := koreauth.New(validator, &koreauth.Options{
//		Require: []koreauth.Requirement{iprange.Within(behind)},
//	})
//
// Without proxies, use Within(nil), which takes the address of the connection. Behind
// proxies that would be the address of a proxy, and every token with an ip-range would
// be rejected, or accepted from everywhere.
package iprange

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/seldom"
	"github.com/koreauth/koreauth/internal/unmap"
	"github.com/koreauth/koreauth/proxy"
)

// Range is a [koreauth.Requirement]: the address of the client must be in one of the
// entries of ip-range. The zero value takes the address of the connection. Do not change
// or copy a Range that is in use.
//
// An entry is an address, a prefix such as 10.0.0.0/8, or two addresses such as
// 10.0.0.1-10.0.0.9. One entry that cannot be read rejects the token, because nobody
// knows what it restricts. A token without the claim, or with an empty list, is not
// restricted.
//
// Every rejection is [koreauth.ErrForbidden]: the client would get tokens with the same
// entries again and again if it were told that the token is invalid. Range needs the
// request, so that it belongs into [koreauth.Options].Require or
// [koreauth.Middleware.Require], not into [koreauth.Config].Require.
type Range struct {
	// Proxies finds the address of the client. If Proxies is nil, it is that of the
	// connection.
	Proxies *proxy.Proxies
	// Required rejects tokens without an ip-range.
	Required bool
	// Parse reads an entry, for other forms. It replaces the built-in forms, and is called
	// for every entry of every request. If it returns an error, the token is rejected; if
	// it returns no prefix, no address is in the entry. If Parse is nil, the built-in
	// forms are read.
	Parse func(entry string) ([]netip.Prefix, error)
	// Logger gets an error once a minute while requests have no client address, and a
	// warning once a minute about an entry that cannot be read. If Logger is nil, nothing
	// is logged.
	Logger *slog.Logger

	noAddress, unreadable seldom.Limit
	known                 lists
}

// Within returns a Range with these Proxies; nil takes the address of the connection.
func Within(p *proxy.Proxies) *Range { return &Range{Proxies: p} }

// logInterval is the time between two records about the same fault.
const logInterval = time.Minute

// Check implements [koreauth.Requirement]. Without a request it rejects every token that
// is restricted.
func (g *Range) Check(r *http.Request, c *koreauth.Claims) error {
	if len(c.IPRanges) == 0 {
		if g.Required {
			return fmt.Errorf(`%w: the token has no "ip-range", which is required`, koreauth.ErrForbidden)
		}
		return nil
	}
	address, known := netip.Addr{}, false
	if r != nil {
		address, known = g.Proxies.Client(r)
	}
	within, bad, err := g.find(address, c.IPRanges)
	switch {
	case err != nil:
		g.warn(r, bad, c.IPRanges[bad], err)
		return fmt.Errorf(`%w: entry %d of "ip-range" cannot be read: %s`, koreauth.ErrForbidden, bad+1, redact.Text(err.Error()))
	case !known:
		g.report(r)
		return fmt.Errorf("%w: the address of the client is not known", koreauth.ErrForbidden)
	case !within:
		return fmt.Errorf(`%w: the address %v is in none of the %d entries of "ip-range"`, koreauth.ErrForbidden, address, len(c.IPRanges))
	}
	return nil
}

// find reports whether the address is in one of the entries. If an entry cannot be read,
// it returns the number of the entry and an error.
func (g *Range) find(a netip.Addr, entries []string) (within bool, bad int, err error) {
	if g.Parse == nil {
		l := g.known.read(entries)
		return slices.ContainsFunc(l.spans, func(s span) bool { return s.contains(a) }), len(l.spans), l.err
	}
	for n, entry := range entries {
		prefixes, err := g.Parse(entry)
		if err != nil {
			return false, n, err
		}
		within = within || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return unmap.Prefix(p).Contains(a) })
	}
	return within, 0, nil
}

func (g *Range) warn(r *http.Request, n int, entry string, err error) {
	if g.Logger != nil && g.unreadable.Allow(logInterval) {
		g.Logger.LogAttrs(contextOf(r), slog.LevelWarn, `koreauth: an entry of "ip-range" cannot be read, so tokens with it are rejected; correct it at the issuer, or set Range.Parse`,
			slog.Int("entry", n+1), slog.String("text", redact.Unverified(entry)), slog.String("cause", redact.Text(err.Error())))
	}
}

func (g *Range) report(r *http.Request) {
	if g.Logger == nil || !g.noAddress.Allow(logInterval) {
		return
	}
	peer := "none"
	if r != nil {
		if address, ok := (*proxy.Proxies)(nil).Client(r); ok {
			peer = address.String()
		}
	}
	g.Logger.LogAttrs(contextOf(r), slog.LevelError, "koreauth: the address of a client is not known, so its token with an \"ip-range\" is rejected; "+
		"let the trusted proxy name the client in the header that proxy.New was given, and let Range see the request",
		slog.String("peer", peer))
}

func contextOf(r *http.Request) context.Context {
	if r == nil {
		return context.Background()
	}
	return r.Context()
}
