package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/proxy"
)

const (
	trustedPeer = "10.1.2.3:4000"
	client      = "203.0.113.9"
)

func mustNew(t testing.TB, header string) *proxy.Proxies {
	t.Helper()
	p, err := proxy.New(header, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48"), netip.MustParsePrefix("fe80::/10"))
	require.NoError(t, err)
	return p
}

// request returns a request from a peer with lines of one header.
func request(peer, header string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = peer
	for _, line := range lines {
		r.Header.Add(header, line)
	}
	return r
}

func TestNew_Faults(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, row := range map[string]struct {
		header  string
		trusted []netip.Prefix
		says    []string // empty: there is no fault
	}{
		"good":                       {"X-Forwarded-For", []netip.Prefix{prefix("10.0.0.0/8"), prefix("::1/128")}, nil},
		"in any case":                {"forwarded", []netip.Prefix{prefix("10.0.0.0/8")}, nil},
		"a header of one's own":      {"CF-Connecting-IP", []netip.Prefix{prefix("10.0.0.0/8")}, nil},
		"IPv4-mapped":                {"Forwarded", []netip.Prefix{prefix("::ffff:10.0.0.0/104")}, nil},
		"no header":                  {"", []netip.Prefix{prefix("10.0.0.0/8")}, []string{`"" is not the name of one header`}},
		"two headers":                {"X-Forwarded-For, Forwarded", []netip.Prefix{prefix("10.0.0.0/8")}, []string{"not the name of one header"}},
		"no prefix":                  {"Forwarded", nil, []string{"no trusted proxy"}},
		"everybody":                  {"Forwarded", []netip.Prefix{prefix("0.0.0.0/0")}, []string{"0.0.0.0/0 trusts every client"}},
		"everybody, IPv6":            {"Forwarded", []netip.Prefix{prefix("::/0")}, []string{"::/0 trusts every client"}},
		"everybody, IPv4-mapped":     {"Forwarded", []netip.Prefix{prefix("::ffff:0.0.0.0/96")}, []string{"trusts every client"}},
		"bits after the length":      {"Forwarded", []netip.Prefix{prefix("10.0.0.1/8")}, []string{"did you mean 10.0.0.0/8 or 10.0.0.1/32?"}},
		"bits after, IPv4-mapped":    {"Forwarded", []netip.Prefix{prefix("::ffff:10.0.0.1/104")}, []string{"did you mean 10.0.0.0/8 or 10.0.0.1/32?"}},
		"more than all IPv4-mapped":  {"Forwarded", []netip.Prefix{prefix("::ffff:0.0.0.0/90")}, []string{"has bits after its length"}},
		"the zero prefix":            {"Forwarded", []netip.Prefix{{}}, []string{"is invalid"}},
		"everything at once":         {"a b", []netip.Prefix{prefix("10.0.0.1/8"), prefix("0.0.0.0/0"), {}}, []string{"not the name", "did you mean", "every client", "is invalid"}},
		"a header that is very long": {strings.Repeat("x y", 1000), nil, []string{"not the name", "no trusted proxy"}},
	} {
		p, err := proxy.New(row.header, row.trusted...)
		if row.says == nil {
			require.NoError(t, err, name)
			assert.NotNil(t, p, name)
			continue
		}
		require.Error(t, err, name)
		assert.Nil(t, p, name)
		for _, text := range row.says {
			assert.Contains(t, err.Error(), text, name)
		}
		assert.Less(t, len(err.Error()), 700, name)
		for line := range strings.Lines(err.Error()) {
			assert.True(t, strings.HasPrefix(line, "proxy: "), line)
		}
	}
}

// rows are headers behind a trusted peer, and the address of the client; "" means none.
var rows = []struct{ name, header, lines, want string }{
	{"the client", "X-Forwarded-For", client, client},
	{"IPv6", "X-Forwarded-For", "2001:db8::1", "2001:db8::1"},
	{"IPv4-mapped", "X-Forwarded-For", "::ffff:203.0.113.9", client},
	{"a port", "X-Forwarded-For", "203.0.113.9:443", client},
	{"IPv6 and a port", "X-Forwarded-For", "[2001:db8::1]:443", "2001:db8::1"},
	{"IPv4-mapped in brackets", "X-Forwarded-For", "[::ffff:203.0.113.9]:443", client},
	{"brackets alone", "X-Forwarded-For", "[2001:db8::1]", "2001:db8::1"},
	{"quotes", "X-Forwarded-For", `"203.0.113.9"`, client},
	{"quotes, brackets and a port", "X-Forwarded-For", `"[2001:db8::1]:443"`, "2001:db8::1"},
	{"space", "X-Forwarded-For", " \t203.0.113.9 \t", client},
	{"two proxies", "X-Forwarded-For", "203.0.113.9, 10.0.0.2", client},
	{"a trusted hop with a port", "X-Forwarded-For", "203.0.113.9, 10.0.0.2:80", client},
	{"a trusted IPv6 hop", "X-Forwarded-For", "203.0.113.9,2001:db8:1::2", client},
	{"a trusted IPv4-mapped hop", "X-Forwarded-For", "203.0.113.9,::ffff:10.0.0.2", client},
	{"a client that names others", "X-Forwarded-For", "198.51.100.7, 10.0.0.1, 203.0.113.9, 10.0.0.2", client},
	{"a client that writes garbage", "X-Forwarded-For", `"x, garbage,,", 203.0.113.9, 10.0.0.2`, client},
	{"two lines", "X-Forwarded-For", "198.51.100.7|203.0.113.9", client},
	{"two lines, of which the second is trusted", "X-Forwarded-For", "198.51.100.7, 203.0.113.9|10.0.0.2", client},
	{"64 hops", "X-Forwarded-For", client + strings.Repeat(",10.0.0.2", 63), client},

	{"no header", "X-Forwarded-For", "", ""},
	{"another header", "X-Real-IP", client, ""},
	{"trusted proxies alone", "X-Forwarded-For", "10.0.0.3, 10.0.0.2", ""},
	{"an empty line", "X-Forwarded-For", "203.0.113.9|", ""},
	{"an empty element", "X-Forwarded-For", "203.0.113.9, ", ""},
	{"an empty element before a trusted hop", "X-Forwarded-For", "203.0.113.9, , 10.0.0.2", ""},
	{"unknown", "X-Forwarded-For", "203.0.113.9, unknown", ""},
	{"an obfuscated node", "X-Forwarded-For", "203.0.113.9, _hidden", ""},
	{"garbage", "X-Forwarded-For", "203.0.113.9, garbage", ""},
	{"a host name", "X-Forwarded-For", "client.example", ""},
	{"a zone", "X-Forwarded-For", "fe80::1%eth0", ""},
	{"a zone in brackets", "X-Forwarded-For", "[fe80::1%eth0]:80", ""},
	{"IPv4 in brackets", "X-Forwarded-For", "[203.0.113.9]", ""},
	{"an open bracket", "X-Forwarded-For", "[2001:db8::1", ""},
	{"text after the bracket", "X-Forwarded-For", "[2001:db8::1]x", ""},
	{"an open quote", "X-Forwarded-For", `"203.0.113.9`, ""},
	{"a quote alone", "X-Forwarded-For", `"`, ""},
	{"an odd port after a bracket", "X-Forwarded-For", "[2001:db8::1]:http", ""},
	{"a name as port", "X-Forwarded-For", "[2001:db8::1]:_x", ""},
	{"an empty port", "X-Forwarded-For", "203.0.113.9:", ""},
	{"an odd port", "X-Forwarded-For", "203.0.113.9:http", ""},
	{"a port of six digits", "X-Forwarded-For", "203.0.113.9:100000", ""},
	{"a leading zero", "X-Forwarded-For", "203.0.113.09", ""},
	{"three numbers", "X-Forwarded-For", "203.0.113", ""},
	{"a prefix", "X-Forwarded-For", "203.0.113.9/32", ""},
	{"spaces inside", "X-Forwarded-For", "203.0.113.9 10.0.0.2", ""},
	{"the form of Forwarded", "X-Forwarded-For", "for=203.0.113.9", ""},
	{"65 hops", "X-Forwarded-For", client + strings.Repeat(",10.0.0.2", 64), ""},
	{"8 KiB", "X-Forwarded-For", client + strings.Repeat(" ", 9<<10) + ",10.0.0.2", ""},
	{"8 KiB in many lines", "X-Forwarded-For", client + strings.Repeat("|"+strings.Repeat(" ", 900)+"10.0.0.2", 10), ""},
	{"more than 8 KiB, which is not read", "X-Forwarded-For", strings.Repeat("x,", 9<<10) + client, client},

	{"a header of one's own", "X-Client", client, client},
	{"a list in a header of one's own", "X-Client", "198.51.100.7, 203.0.113.9", client},

	{"Forwarded", "Forwarded", "for=203.0.113.9", client},
	{"any case", "Forwarded", "For=203.0.113.9;PROTO=https", client},
	{"other parameters", "Forwarded", `proto=https;by=10.0.0.2;for="203.0.113.9:80";host="a:80"`, client},
	{"IPv6, quoted", "Forwarded", `for="[2001:db8::1]"`, "2001:db8::1"},
	{"IPv6 with a port", "Forwarded", `for="[2001:db8::1]:47011"`, "2001:db8::1"},
	{"an obfuscated port", "Forwarded", `for="203.0.113.9:_x-1.y"`, client},
	{"quoted without need", "Forwarded", `for="203.0.113.9"`, client},
	{"escaped without need", "Forwarded", `for="203.0.\113.9"`, client},
	{"a comma and a quote in a string", "Forwarded", `for=198.51.100.7,for=203.0.113.9;x="a\",b\\",for=10.0.0.2`, client},
	{"empty pairs", "Forwarded", ";;for=203.0.113.9;", client},
	{"a final semicolon", "Forwarded", "for=203.0.113.9;;", client},
	{"two proxies", "Forwarded", "for=203.0.113.9, for=10.0.0.2;by=10.1.2.3", client},
	{"an unclosed quote of the client", "Forwarded", `for="198.51.100.7, for=203.0.113.9`, client},
	{"an unclosed quote of the client before a quoted node", "Forwarded", `for="198.51.100.7, for="[2001:db8::1]"`, "2001:db8::1"},
	{"an unclosed quote and a backslash", "Forwarded", `for="\, for=203.0.113.9`, client},
	{"a line of the client", "Forwarded", `for="198.51.100.7|for=203.0.113.9`, client},
	{"unknown", "Forwarded", "for=203.0.113.9, for=unknown", ""},
	{"an obfuscated node", "Forwarded", `for=203.0.113.9, for="_hidden"`, ""},
	{"no for", "Forwarded", "for=203.0.113.9, proto=https", ""},
	{"for twice", "Forwarded", "for=203.0.113.9;For=10.0.0.2", ""},
	{"for twice, with two clients", "Forwarded", "for=203.0.113.9;For=198.51.100.7", ""},
	{"no semicolon", "Forwarded", `for="203.0.113.9"by=10.0.0.2`, ""},
	{"another parameter twice", "Forwarded", "for=203.0.113.9;proto=http;proto=https", ""},
	{"a name as port", "Forwarded", `for="203.0.113.9:http"`, ""},
	{"an empty port", "Forwarded", `for="203.0.113.9:"`, ""},
	{"a port of six digits", "Forwarded", `for="203.0.113.9:100000"`, ""},
	{"a name as port of IPv6", "Forwarded", `for="[2001:db8::1]:http"`, ""},
	{"a parameter without a value", "Forwarded", "for=203.0.113.9;secret", ""},
	{"a port without quotes", "Forwarded", "for=203.0.113.9:80", ""},
	{"IPv6 without quotes", "Forwarded", "for=[2001:db8::1]", ""},
	{"IPv6 without brackets", "Forwarded", `for="2001:db8::1"`, ""},
	{"spaces around a semicolon", "Forwarded", "for=203.0.113.9; proto=https", ""},
	{"spaces around an equals sign", "Forwarded", "for= 203.0.113.9", ""},
	{"a zone", "Forwarded", `for="[fe80::1%eth0]"`, ""},
	{"an empty node", "Forwarded", "for=", ""},
	{"an empty string", "Forwarded", `for=""`, ""},
	{"text after a string", "Forwarded", `for="203.0.113.9"x`, ""},
	{"an unclosed quote", "Forwarded", `for="203.0.113.9`, ""},
	{"a quote that is escaped", "Forwarded", `for="203.0.113.9\"`, ""},
	{"an address alone", "Forwarded", "203.0.113.9", ""},
	{"an empty element", "Forwarded", "for=203.0.113.9, ", ""},
	{"nine parameters", "Forwarded", "a=1;b=1;c=1;d=1;e=1;f=1;g=1;h=1;for=203.0.113.9", ""},
	{"8 KiB", "Forwarded", `for=203.0.113.9, for=10.0.0.2;x="` + strings.Repeat(" ", 9<<10) + `"`, ""},
}

func TestProxies_Client(t *testing.T) {
	for _, row := range rows {
		t.Run(row.header+"/"+row.name, func(t *testing.T) {
			header := row.header
			if row.name == "another header" {
				header = "X-Forwarded-For"
			}
			p := mustNew(t, header)
			var lines []string
			if row.lines != "" {
				lines = strings.Split(row.lines, "|")
			}
			got, ok := p.Client(request(trustedPeer, row.header, lines...))
			if row.want == "" {
				assert.False(t, ok, "%v", got)
				assert.Equal(t, netip.Addr{}, got)
			} else if assert.True(t, ok) {
				assert.Equal(t, netip.MustParseAddr(row.want), got)
			}

			got, ok = p.Client(request("203.0.113.66:4000", row.header, lines...))
			assert.True(t, ok, "a peer that is not trusted is the client, whatever it sends")
			assert.Equal(t, netip.MustParseAddr("203.0.113.66"), got)
		})
	}
}

func TestProxies_Client_NameOfTheHeader(t *testing.T) {
	for _, name := range []string{"x-forwarded-for", "X-FORWARDED-FOR"} {
		p, err := proxy.New(name, netip.MustParsePrefix("10.0.0.0/8"))
		require.NoError(t, err)
		got, ok := p.Client(request(trustedPeer, "X-Forwarded-For", client))
		assert.True(t, ok, name)
		assert.Equal(t, netip.MustParseAddr(client), got, name)
	}
	p, err := proxy.New("FORWARDED", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	_, ok := p.Client(request(trustedPeer, "Forwarded", "for="+client))
	assert.True(t, ok)
}

func TestProxies_Peer(t *testing.T) {
	p := mustNew(t, "X-Forwarded-For")
	for name, row := range map[string]struct {
		peer           string
		client         string // "": none
		direct, trusts bool
	}{
		"trusted":                    {trustedPeer, client, false, true},
		"trusted, IPv6":              {"[2001:db8:1::9]:80", client, false, true},
		"trusted, IPv4-mapped":       {"[::ffff:10.0.0.9]:80", client, false, true},
		"trusted, with a zone":       {"[fe80::1%eth0]:80", client, false, true},
		"not trusted":                {"203.0.113.66:80", "203.0.113.66", true, false},
		"not trusted, IPv6":          {"[2001:db8:2::9]:80", "2001:db8:2::9", true, false},
		"not trusted, IPv4-mapped":   {"[::ffff:203.0.113.66]:80", "203.0.113.66", true, false},
		"a Unix socket":              {"@", "", false, false},
		"a Unix socket with a path":  {"/run/proxy.sock", "", false, false},
		"none":                       {"", "", false, false},
		"an address without a port":  {"10.1.2.3", "", false, false},
		"an IPv6 address without it": {"::1", "", false, false},
		"a name":                     {"localhost:80", "", false, false},
		"garbage":                    {"garbage", "", false, false},
	} {
		r := request(row.peer, "X-Forwarded-For", client)
		got, ok := p.Client(r)
		assert.Equal(t, row.client != "", ok, name)
		if ok {
			assert.Equal(t, netip.MustParseAddr(row.client), got, name)
		}
		assert.Equal(t, row.trusts, p.Trusts(r), name)
		if row.direct {
			got, ok = (*proxy.Proxies)(nil).Client(r)
			assert.True(t, ok, name)
			assert.Equal(t, netip.MustParseAddr(row.client), got, name)
		}
		assert.False(t, (*proxy.Proxies)(nil).Trusts(r), name)
	}
	got, ok := (*proxy.Proxies)(nil).Client(request("[fe80::1%eth0]:80", "X-Forwarded-For", client))
	assert.True(t, ok)
	assert.Equal(t, netip.MustParseAddr("fe80::1"), got, "the address of the connection, without its zone")
}

// rewriting is middleware that believes any client, as RealIP of chi and ProxyHeaders of
// gorilla/handlers do.
func rewriting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pretended := r.Header.Get("X-Real-IP"); pretended != "" {
			r.RemoteAddr = pretended
		}
		next.ServeHTTP(w, r)
	})
}

func TestConnContext_KeepsThePeer(t *testing.T) {
	p, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	answer := rewriting(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address, ok := p.Client(r)
		fmt.Fprint(w, address, " ", ok, " ", p.Trusts(r))
	}))
	get := func(server *http.Server, network, address string) string {
		listener, err := net.Listen(network, address)
		require.NoError(t, err)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server.example/", nil)
		require.NoError(t, err)
		req.Header.Set("X-Real-IP", "10.0.0.9:80")
		req.Header.Set("X-Forwarded-For", client)
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, listener.Addr().String())
		}}
		defer transport.CloseIdleConnections()
		res, err := transport.RoundTrip(req)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(body)
	}
	assert.Equal(t, client+" true true", get(&http.Server{Handler: answer}, "tcp", "127.0.0.1:0"), "without ConnContext the client is believed")
	assert.Equal(t, "127.0.0.1 true false", get(&http.Server{Handler: answer, ConnContext: proxy.ConnContext}, "tcp", "127.0.0.1:0"))
	socket := filepath.Join(t.TempDir(), "s")
	assert.Equal(t, "invalid IP false false", get(&http.Server{Handler: answer, ConnContext: proxy.ConnContext}, "unix", socket), "a Unix socket is never trusted")
}

// conn is a connection of a listener for the PROXY protocol, or a broken one.
type conn struct {
	net.Conn
	address net.Addr
}

func (c conn) RemoteAddr() net.Addr { return c.address }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func TestConnContext_AsksTheConnection(t *testing.T) {
	p := mustNew(t, "X-Forwarded-For")
	for name, row := range map[string]struct {
		address net.Addr
		want    string // "": none
	}{
		"a TCP address":         {&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 80}, client},
		"a TCP address, direct": {&net.TCPAddr{IP: net.ParseIP("203.0.113.66"), Port: 80}, "203.0.113.66"},
		"another type":          {address("10.1.2.3:80"), client},
		"another type, direct":  {address("203.0.113.66:80"), "203.0.113.66"},
		"a Unix address":        {&net.UnixAddr{Name: "@", Net: "unix"}, ""},
		"no address":            {nil, ""},
		"an empty TCP address":  {&net.TCPAddr{}, ""},
		"a TCP address, as nil": {(*net.TCPAddr)(nil), ""},
		"an address of no port": {address("10.1.2.3"), ""},
	} {
		r := request("10.9.9.9:80", "X-Forwarded-For", client)
		r = r.WithContext(proxy.ConnContext(r.Context(), conn{address: row.address}))
		got, ok := p.Client(r)
		assert.Equal(t, row.want != "", ok, name)
		if ok {
			assert.Equal(t, netip.MustParseAddr(row.want), got, name)
		}
	}
}

func TestProxies_Client_AllocatesNothing(t *testing.T) {
	for _, row := range []struct{ header, line string }{
		{"X-Forwarded-For", "198.51.100.7, 203.0.113.9, 10.0.0.2"},
		{"Forwarded", `for=198.51.100.7, for="203.0.113.9:80";proto=https, for=10.0.0.2`},
	} {
		p, r := mustNew(t, row.header), request(trustedPeer, row.header, row.line)
		r = r.WithContext(proxy.ConnContext(r.Context(), conn{address: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3).To4(), Port: 80}}))
		assert.Zero(t, testing.AllocsPerRun(100, func() { p.Client(r) }), row.header)
	}
}

// FuzzProxies_Client checks that nothing before the address of the client changes it,
// and that a peer that is not trusted cannot change anything.
func FuzzProxies_Client(f *testing.F) {
	for _, row := range rows {
		f.Add(row.header == "Forwarded", row.lines, "")
		f.Add(row.header == "Forwarded", "", row.lines)
		f.Add(row.header == "Forwarded", `for="`, row.lines)
	}
	f.Fuzz(func(t *testing.T, forwarded bool, before, lines string) {
		header, own := "X-Forwarded-For", client
		if forwarded {
			header, own = "Forwarded", "for="+client
		}
		p := mustNew(t, header)
		split := strings.Split(lines, "|")
		got, ok := p.Client(request(trustedPeer, header, split...))
		if ok {
			assert.False(t, p.Trusts(request(netip.AddrPortFrom(got, 1).String(), header)), "the address of a trusted proxy")
			assert.Equal(t, got.Unmap(), got)
			assert.Empty(t, got.Zone())
			for _, more := range [][]string{
				append([]string{before}, split...), append([]string{before + "," + split[0]}, split[1:]...), append([]string{before, before}, split...),
			} {
				again, ok := p.Client(request(trustedPeer, header, more...))
				assert.True(t, ok, "%q", more)
				assert.Equal(t, got, again, "%q", more)
			}
		}
		for _, more := range [][]string{{before, own}, {before + "," + own}, {before + ", " + own + "\t"}, {before, own + "," + strings.ReplaceAll(own, client, "10.0.0.2")}} {
			got, ok := p.Client(request(trustedPeer, header, more...))
			assert.True(t, ok, "%q", more)
			assert.Equal(t, netip.MustParseAddr(client), got, "%q", more)
		}
		direct, ok := p.Client(request("203.0.113.66:80", header, split...))
		assert.True(t, ok)
		assert.Equal(t, netip.MustParseAddr("203.0.113.66"), direct)
	})
}
