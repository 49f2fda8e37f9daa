package iprange_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/iprange"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/proxy"
)

// from returns a request of a connection from an address.
func from(address string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(address), 4000).String()
	return r
}

func ranges(entries ...string) *koreauth.Claims { return &koreauth.Claims{IPRanges: entries} }

// entries are entries with addresses that are in them and addresses that are not. An entry
// with neither cannot be read.
var entries = []struct{ entry, in, out string }{
	{"192.0.2.1", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.0 192.0.2.2 2001:db8::1 ::192.0.2.1"},
	{"0.0.0.0", "0.0.0.0", "0.0.0.1 ::"},
	{"255.255.255.255", "255.255.255.255", "255.255.255.254"},
	{" 192.0.2.1\t", "192.0.2.1", "192.0.2.2"},
	{"::ffff:192.0.2.1", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.2"},
	{"::ffff:c000:201", "192.0.2.1", "192.0.2.2"},
	{"2001:db8::1", "2001:db8::1", "2001:db8::2 192.0.2.1"},
	{"2001:DB8:0:0:0:0:0:1", "2001:db8::1", "2001:db8::2"},
	{"::1", "::1", "127.0.0.1 ::"},
	{"::192.0.2.1", "::192.0.2.1", "192.0.2.1"},

	{"192.0.2.0/24", "192.0.2.0 192.0.2.1 192.0.2.255 ::ffff:192.0.2.9", "192.0.1.255 192.0.3.0 2001:db8::1"},
	{"192.0.2.9/24", "192.0.2.0 192.0.2.255", "192.0.3.0"},
	{"192.0.2.9/32", "192.0.2.9", "192.0.2.8 192.0.2.10"},
	{"192.0.2.9/31", "192.0.2.8 192.0.2.9", "192.0.2.7 192.0.2.10"},
	{"10.0.0.0/8", "10.0.0.0 10.255.255.255", "9.255.255.255 11.0.0.0"},
	{"128.0.0.0/1", "128.0.0.0 255.255.255.255", "127.255.255.255"},
	{"172.16.0.0/12", "172.16.0.0 172.31.255.255", "172.15.255.255 172.32.0.0"},
	{"0.0.0.0/0", "0.0.0.0 192.0.2.1 255.255.255.255 ::ffff:192.0.2.1", ":: 2001:db8::1"},
	{"::/0", ":: 2001:db8::1 ffff::", "192.0.2.1"},
	{"2001:db8::/32", "2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff:: 2001:db9:: 192.0.2.1"},
	{"2001:db8::1/127", "2001:db8:: 2001:db8::1", "2001:db8::2"},
	{"2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"},
	{"::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"},
	{"::ffff:10.1.2.3/104", "10.9.9.9", "11.0.0.0"},
	{"::ffff:0.0.0.0/96", "192.0.2.1", "2001:db8::1"},
	{" 10.0.0.0/8 ", "10.0.0.1", "11.0.0.0"},

	{"192.0.2.1-192.0.2.9", "192.0.2.1 192.0.2.5 192.0.2.9", "192.0.2.0 192.0.2.10 2001:db8::1"},
	{"192.0.2.1 - 192.0.2.9", "192.0.2.1 192.0.2.9", "192.0.2.0 192.0.2.10"},
	{"\t192.0.2.1\t-\t192.0.2.9 ", "192.0.2.1", "192.0.2.0"},
	{"192.0.2.1-192.0.2.1", "192.0.2.1", "192.0.2.0 192.0.2.2"},
	{"9.0.0.0-100.0.0.0", "9.0.0.0 10.0.0.0 100.0.0.0", "8.255.255.255 100.0.0.1"},
	{"0.0.0.0-255.255.255.255", "192.0.2.1", "2001:db8::1"},
	{"2001:db8::1-2001:db8::ff", "2001:db8::1 2001:db8::ff", "2001:db8:: 2001:db8::100"},
	{"::ffff:192.0.2.1-192.0.2.9", "192.0.2.5", "192.0.2.10"},
	{"192.0.2.1-::ffff:192.0.2.9", "192.0.2.5", "192.0.2.10"},

	{"", "", ""}, {" ", "", ""}, {"-", "", ""}, {"/", "", ""}, {"*", "", ""}, {"any", "", ""}, {"localhost", "", ""}, {"api.example.com", "", ""},
	{"192.0.2", "", ""}, {"192.0.2.", "", ""}, {"192.0.2.1.1", "", ""}, {"192.0.2.256", "", ""}, {"192.0.2.01", "", ""}, {"192.0.2.*", "", ""}, {"192.0.2.1:80", "", ""},
	{"0xc0000201", "", ""}, {"3221225985", "", ""}, {"[2001:db8::1]", "", ""}, {"2001:db8::1::", "", ""}, {"2001:db8:::1", "", ""}, {"fe80::1%eth0", "", ""}, {"2001:db8::g", "", ""},
	{"192.0.2.0/", "", ""}, {"192.0.2.0/33", "", ""}, {"192.0.2.0/-1", "", ""}, {"192.0.2.0/08", "", ""}, {"192.0.2.0/+8", "", ""}, {"192.0.2.0 /24", "", ""}, {"192.0.2.0/ 24", "", ""},
	{"192.0.2.0/255.255.255.0", "", ""}, {"/24", "", ""}, {"192.0.2.0/24/24", "", ""}, {"2001:db8::/129", "", ""}, {"fe80::%eth0/64", "", ""},
	{"192.0.2.9-192.0.2.1", "", ""}, {"192.0.2.1-9", "", ""}, {"192.0.2.1-192.0.2.9-192.0.2.20", "", ""}, {"192.0.2.1-", "", ""}, {"-192.0.2.1", "", ""}, {"192.0.2.1-2001:db8::1", "", ""},
	{"::1-::ffff:192.0.2.1", "", ""}, {"fe80::1%eth0-fe80::9%eth0", "", ""}, {"192.0.2.0/25-192.0.2.128/25", "", ""}, {"192.0.2.1–192.0.2.9", "", ""},
	{"192.0.2.1,192.0.2.2", "", ""}, {"192.0.2.1 192.0.2.2", "", ""}, {"192.0.2.1;192.0.2.2", "", ""}, {"7", "", ""}, {"null", "", ""}, {"true", "", ""}, {`{"from":"192.0.2.1"}`, "", ""}, {`["192.0.2.1"]`, "", ""}, {"192.0.2.1\n", "", ""}, {"192.0.2.1\x00", "", ""},
}

func TestRange_Entries(t *testing.T) {
	assert.GreaterOrEqual(t, len(entries), 80)
	for _, row := range entries {
		within := iprange.Within(nil)
		for range 2 { // The second time, the entry is known.
			if row.in == "" {
				err := within.Check(from("192.0.2.1"), ranges(row.entry))
				require.ErrorIs(t, err, koreauth.ErrForbidden, "%q", row.entry)
				assert.Contains(t, err.Error(), `entry 1 of "ip-range" cannot be read`, "%q", row.entry)
				err = within.Check(from("192.0.2.1"), ranges("192.0.2.1", row.entry))
				require.ErrorIs(t, err, koreauth.ErrForbidden, "a good entry before %q", row.entry)
				assert.Contains(t, err.Error(), `entry 2 of "ip-range" cannot be read`, "%q", row.entry)
				require.ErrorIs(t, within.Check(from("192.0.2.1"), ranges(row.entry, "192.0.2.1")), koreauth.ErrForbidden, "a good entry after %q", row.entry)
				continue
			}
			for address := range strings.FieldsSeq(row.in) {
				assert.NoError(t, within.Check(from(address), ranges(row.entry)), "%q has %s", row.entry, address)
				assert.NoError(t, within.Check(from(address), ranges("198.51.100.0/24", row.entry)), "%q has %s", row.entry, address)
			}
			for address := range strings.FieldsSeq(row.out) {
				err := within.Check(from(address), ranges(row.entry))
				require.ErrorIs(t, err, koreauth.ErrForbidden, "%q has not %s", row.entry, address)
				assert.Contains(t, err.Error(), "the address "+netip.MustParseAddr(address).Unmap().String()+" is in none")
			}
		}
	}
}

func TestRange_AbsentAndEmpty(t *testing.T) {
	for _, list := range [][]string{nil, {}} {
		assert.NoError(t, iprange.Within(nil).Check(from("192.0.2.1"), ranges(list...)))
		assert.NoError(t, iprange.Within(nil).Check(nil, ranges(list...)), "a token that is not restricted needs no address")
		err := (&iprange.Range{Required: true}).Check(from("192.0.2.1"), ranges(list...))
		require.ErrorIs(t, err, koreauth.ErrForbidden)
		assert.Contains(t, err.Error(), "required")
	}
	assert.NoError(t, (&iprange.Range{Required: true}).Check(from("192.0.2.1"), ranges("192.0.2.1")))
}

func TestRange_NoAddress(t *testing.T) {
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	unix := from("192.0.2.1")
	unix.RemoteAddr = "@"
	for name, r := range map[string]*http.Request{"no request": nil, "a Unix socket": unix, "a proxy that names nobody": from("10.0.0.1")} {
		err := iprange.Within(behind).Check(r, ranges("0.0.0.0/0", "::/0", "10.0.0.1"))
		require.ErrorIs(t, err, koreauth.ErrForbidden, name)
		assert.Contains(t, err.Error(), "not known", name)
	}
}

func TestRange_Log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		within := &iprange.Range{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		broken := ranges("10.0.0.0/8", "not\nan address "+strings.Repeat("x", 1000))
		unknown := from("192.0.2.1")
		unknown.RemoteAddr = "@"
		for range 3 {
			assert.Error(t, within.Check(from("10.0.0.1"), broken))
			assert.Error(t, within.Check(unknown, ranges("10.0.0.0/8")))
			assert.Error(t, within.Check(nil, ranges("10.0.0.0/8")))
			assert.Error(t, within.Check(from("192.0.2.1"), ranges("10.0.0.0/8")), "the guard logs this one")
		}
		assert.Equal(t, 2, strings.Count(log.String(), "\n"), log.String())
		assert.Contains(t, log.String(), `level=WARN msg="koreauth: an entry of \"ip-range\" cannot be read`)
		assert.Contains(t, log.String(), "entry=2")
		assert.Contains(t, log.String(), `level=ERROR msg="koreauth: the address of a client is not known`)
		assert.Contains(t, log.String(), "peer=none")
		assert.Less(t, log.Len(), 1200)
		time.Sleep(time.Minute)
		assert.Error(t, within.Check(from("10.0.0.1"), broken))
		assert.Error(t, within.Check(nil, ranges("10.0.0.0/8")))
		assert.Equal(t, 4, strings.Count(log.String(), "\n"), log.String())
	})
}

func TestRange_Parse(t *testing.T) {
	calls := 0
	within := &iprange.Range{Parse: func(entry string) ([]netip.Prefix, error) {
		calls++
		switch entry {
		case "office":
			return []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::ffff:10.0.0.0/104")}, nil
		case "nowhere":
			return nil, nil
		}
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, errors.New("unknown name")
	}}
	assert.NoError(t, within.Check(from("192.0.2.1"), ranges("nowhere", "office")))
	assert.NoError(t, within.Check(from("10.0.0.1"), ranges("office")))
	assert.ErrorIs(t, within.Check(from("198.51.100.1"), ranges("office")), koreauth.ErrForbidden)
	assert.ErrorIs(t, within.Check(from("192.0.2.1"), ranges("nowhere")), koreauth.ErrForbidden)
	assert.ErrorIs(t, within.Check(from("192.0.2.1"), ranges("office", "192.0.2.1")), koreauth.ErrForbidden, "it replaces the built-in forms")
	assert.Equal(t, 7, calls)
	for _, entries := range [][]string{{"elsewhere", "office"}, {"office", "elsewhere"}} {
		assert.ErrorContains(t, within.Check(from("192.0.2.1"), ranges(entries...)), `of "ip-range" cannot be read: unknown name`, "one entry that cannot be read rejects the token")
	}
}

// TestRange_BehindAGuard has tokens of each shape of the claim, new and remembered.
func TestRange_BehindAGuard(t *testing.T) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	var log bytes.Buffer
	guard := koreauth.New(validator, &koreauth.Options{
		Require: []koreauth.Requirement{iprange.Within(behind)}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	handler := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, row := range map[string]struct {
		claim  any
		status int
		says   string
	}{
		"inside":           {[]any{"203.0.113.0/24"}, 200, ""},
		"outside":          {[]any{"198.51.100.0/24"}, 403, "the address 203.0.113.9 is in none of the 1 entries"},
		"one of two":       {[]any{"198.51.100.0/24", "203.0.113.9"}, 200, ""},
		"empty":            {[]any{}, 200, ""},
		"null":             {nil, 200, ""},
		"a string":         {"203.0.113.9", 200, ""},
		"a list in text":   {"203.0.113.9,203.0.113.8", 403, "entry 1"},
		"an odd element":   {[]any{"203.0.113.9", 7}, 403, "entry 2"},
		"a nested list":    {[]any{[]any{"203.0.113.9"}}, 403, "entry 1"},
		"an object":        {map[string]any{"from": "203.0.113.9"}, 403, "entry 1"},
		"a number":         {7, 403, "entry 1"},
		"false":            {false, 403, "entry 1"},
		"an empty string":  {"", 403, "entry 1"},
		"an empty element": {[]any{""}, 403, "entry 1"},
	} {
		token, err := issuer.Mint(koretest.Token{Claims: map[string]any{"ip-range": row.claim}})
		require.NoError(t, err)
		for range 4 { // The token is remembered.
			log.Reset()
			r := from("10.0.0.1")
			r.Header.Set("X-Forwarded-For", "10.0.0.7, 203.0.113.9")
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			assert.Equal(t, row.status, w.Code, name)
			if row.status == 403 {
				assert.Contains(t, w.Body.String(), "Access denied", name)
				assert.Contains(t, log.String(), row.says, name)
				assert.NotContains(t, w.Body.String(), "203.0.113", name)
			}
		}
	}
}

func TestRange_Check_AllocatesNothing(t *testing.T) {
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	within, r := iprange.Within(behind), from("10.0.0.1")
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	claims := ranges("10.0.0.0/8", "198.51.100.1-198.51.100.9", "2001:db8::/32", "203.0.113.0/24")
	assert.Zero(t, testing.AllocsPerRun(100, func() { require.NoError(t, within.Check(r, claims)) }))
}

// More lists than are kept at a time give the same verdicts as few.
func TestRange_ManyLists(t *testing.T) {
	within := iprange.Within(nil)
	addr := func(n int) string { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}).String() }
	for range 2 {
		for n := range 2000 {
			long := make([]string, 1+n%100)
			for i := range long {
				long[i] = addr(n + i)
			}
			require.NoError(t, within.Check(from(addr(n+n%100)), ranges(long...)))
			require.Error(t, within.Check(from(addr(n+n%100+1)), ranges(long...)))
		}
	}
}

func TestRange_ListsThatDifferInTheMiddle(t *testing.T) {
	within := iprange.Within(nil)
	for range 3 {
		for _, address := range []string{"10.0.0.5", "10.0.0.6"} {
			list := ranges("10.0.0.1", address, "10.0.0.9")
			require.NoError(t, within.Check(from(address), list))
			require.Error(t, within.Check(from("10.0.0.7"), list))
		}
	}
}

// FuzzRange_Check compares an entry with a model that calculates with integers.
func FuzzRange_Check(f *testing.F) {
	for _, row := range entries {
		f.Add(row.entry, "192.0.2.1")
	}
	f.Fuzz(func(t *testing.T, entry, address string) {
		a, err := netip.ParseAddr(address)
		if err != nil || a.Zone() != "" {
			return
		}
		err = iprange.Within(nil).Check(from(address), ranges(entry))
		if want := modelContains(entry, a.Unmap()); want != (err == nil) {
			t.Fatalf("%q, %s: want %v, got %v", entry, address, want, err)
		}
	})
}

func modelContains(entry string, a netip.Addr) bool {
	number := func(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
	read := func(text string) (netip.Addr, bool) {
		a, err := netip.ParseAddr(text)
		return a.Unmap(), err == nil && a.Zone() == ""
	}
	entry = strings.Trim(entry, " \t")
	if host, length, ok := strings.Cut(entry, "/"); ok {
		prefix, err := netip.ParsePrefix(host + "/" + length)
		if err != nil {
			return false
		}
		bits, base := prefix.Bits(), prefix.Addr()
		if base.Is4In6() && bits >= 96 {
			bits, base = bits-96, base.Unmap()
		}
		shift := uint(base.BitLen() - bits)
		return base.BitLen() == a.BitLen() && new(big.Int).Rsh(number(base), shift).Cmp(new(big.Int).Rsh(number(a), shift)) == 0
	}
	first, second, isRange := strings.Cut(entry, "-")
	if !isRange {
		second = first
	}
	from, ok := read(strings.TrimRight(first, " \t"))
	to, ok2 := read(strings.TrimLeft(second, " \t"))
	return ok && ok2 && from.BitLen() == a.BitLen() && to.BitLen() == a.BitLen() && number(from).Cmp(number(a)) <= 0 && number(a).Cmp(number(to)) <= 0
}
