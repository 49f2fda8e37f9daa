package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/tenants"
)

const match = "https://{tenant}.id.example.com/realms/KORE-CIDP"

// world has the issuers of some tenants.
type world struct {
	issuers map[string]*koretest.Issuer // by URL
	asked   atomic.Int64
	gone    sync.Map // URLs of tenants that are gone
}

func newWorld(t testing.TB, names ...string) *world {
	t.Helper()
	w := &world{issuers: map[string]*koretest.Issuer{}}
	for _, name := range names {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://" + name + ".id.example.com", Keys: []*koretest.Key{key()}})
		require.NoError(t, err)
		w.issuers[issuer.URL()] = issuer
	}
	return w
}

// key is one for all, to save time.
var key = sync.OnceValue(func() *koretest.Key {
	k, err := koretest.NewKey("ES256")
	if err != nil {
		panic(err)
	}
	return k
})

func (w *world) issuer(name string) *koretest.Issuer {
	return w.issuers["https://"+name+".id.example.com/realms/KORE-CIDP"]
}

func (w *world) resolve(_ context.Context, issuer string) (koreauth.Config, error) {
	w.asked.Add(1)
	known := w.issuers[issuer]
	if _, gone := w.gone.Load(issuer); known == nil || gone {
		return koreauth.Config{}, koreauth.ErrIssuer
	}
	return koreauth.Config{Audience: []string{koretest.Audience}, Algorithms: []string{"ES256"}, HTTPClient: known.HTTPClient()}, nil
}

func (w *world) set(change ...func(*tenants.Set)) *tenants.Set {
	s := &tenants.Set{Match: match, Resolve: w.resolve}
	for _, c := range change {
		c(s)
	}
	return s
}

func TestSet_ManyTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one", "two", "three-3")
		s := w.set()
		require.NoError(t, s.Faults())
		for range 3 {
			for url, issuer := range w.issuers {
				claims, err := s.Validate(t.Context(), issuer.Valid())
				require.NoError(t, err)
				assert.Equal(t, url, claims.Issuer)
			}
		}
		assert.EqualValues(t, 3, w.asked.Load())
		for name, row := range map[string]struct {
			token string
			want  error
		}{
			"forged":             {w.issuer("one").Forged(), koreauth.ErrUnknownKey},
			"expired":            {w.issuer("one").Expired(), koreauth.ErrExpired},
			"another audience":   {mint(t, w.issuer("one"), "aud", "other"), koreauth.ErrAudience},
			"an unknown tenant":  {mint(t, w.issuer("one"), "iss", "https://four.id.example.com/realms/KORE-CIDP"), koreauth.ErrIssuer},
			"iss of another":     {mint(t, w.issuer("one"), "iss", w.issuer("two").URL()), nil}, // They share their key here.
			"outside of Match":   {mint(t, w.issuer("one"), "iss", "https://evil.example/realms/KORE-CIDP"), koreauth.ErrIssuer},
			"iss that is no URL": {mint(t, w.issuer("one"), "iss", 7), koreauth.ErrIssuer},
			"no iss":             {mint(t, w.issuer("one"), "iss", nil), koreauth.ErrIssuer},
			"opaque":             {"opaque", koreauth.ErrMalformed},
			"empty":              {"", koreauth.ErrMalformed},
			"four segments":      {w.issuer("one").Valid() + ".a", koreauth.ErrMalformed},
			"a line break":       {strings.Replace(w.issuer("one").Valid(), ".", ".\n", 1), koreauth.ErrMalformed},
			"large":              {strings.Repeat("a", 20_000), koreauth.ErrMalformed},
			"no JSON":            {"e30.e.e", koreauth.ErrMalformed},
			"two members iss":    {"e30.eyJpc3MiOiJhIiwiaXNzIjoiYiJ9.e", koreauth.ErrMalformed},
		} {
			_, err := s.Validate(t.Context(), row.token)
			assert.ErrorIs(t, err, row.want, name)
		}
	})
}

func mint(t testing.TB, issuer *koretest.Issuer, claim string, value any) string {
	t.Helper()
	token, err := issuer.Mint(koretest.Token{Claims: map[string]any{claim: value}})
	require.NoError(t, err)
	return token
}

func TestSet_Match(t *testing.T) {
	asked := ""
	for _, row := range []struct {
		match, issuer string
		ok            bool
	}{
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a", true},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a-1", true},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/" + strings.Repeat("a", 63), true},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/" + strings.Repeat("a", 64), false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a/", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a/b", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/A", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/..", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/%2e%2e", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a?b", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a#b", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/a\n", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/ä", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com.evil.example/realms/a", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com@evil.example/realms/a", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com:8443/realms/a", false},
		{"https://id.example.com/realms/{tenant}", "https://ID.example.com/realms/a", false},
		{"https://id.example.com/realms/{tenant}", "http://id.example.com/realms/a", false},
		{"https://id.example.com/realms/{tenant}", "https://id.example.com/realms/{tenant}", false},
		{"https://id.example.com/realms/{tenant}", "a", false},
		{"https://{tenant}.id.example.com", "https://a", false},
		{"https://id.example.com/realms/{tenant}/x", "https://id.example.com/realms/a/x", true},
		{"https://id.example.com/realms/{tenant}/x", "https://id.example.com/realms/a/y", false},
		{"https://{tenant}.id.example.com", "https://a.id.example.com", true},
		{"https://{tenant}.id.example.com/", "https://a.id.example.com/", true},
		{"https://{tenant}.id.example.com", "https://a.id.example.com/", false},
		{"https://{tenant}.id.example.com", "https://a.b.id.example.com", false},
		{"https://{tenant}.id.example.com", "https://evil.example/.id.example.com", false},
		{"https://{tenant}.id.example.com", "https://evil.example#.id.example.com", false},
		{"https://{tenant}.id.example.com", "https://a@evil.id.example.com", false},
		{"https://x.{tenant}.id.example.com/a", "https://x.a.id.example.com/a", true},
		{"http://localhost:8080/realms/{tenant}", "http://localhost:8080/realms/a", true},
	} {
		asked = ""
		s := &tenants.Set{Match: row.match, Resolve: func(_ context.Context, issuer string) (koreauth.Config, error) {
			asked = issuer
			return koreauth.Config{}, koreauth.ErrIssuer
		}}
		require.NoError(t, s.Faults(), row.match)
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://any.example", Keys: []*koretest.Key{key()}})
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), mint(t, issuer, "iss", row.issuer))
		assert.ErrorIs(t, err, koreauth.ErrIssuer)
		assert.Equal(t, row.ok, asked == row.issuer, "%s %s", row.match, row.issuer)
	}
}

func TestSet_Faults(t *testing.T) {
	resolve := func(context.Context, string) (koreauth.Config, error) { return koreauth.Config{}, nil }
	for name, row := range map[string]struct{ match, says string }{
		"empty":                   {"", "is empty"},
		"no placeholder":          {"https://id.example.com/realms/a", "has no {tenant}"},
		"another placeholder":     {"https://id.example.com/realms/{name}", "has no {tenant}"},
		"two placeholders":        {"https://id.example.com/{tenant}/{tenant}", "more than one placeholder"},
		"a wildcard":              {"https://id.example.com/{tenant}/{*}", "more than one placeholder"},
		"http":                    {"http://id.example.com/realms/{tenant}", "use https"},
		"no URL":                  {"id.example.com/realms/{tenant}", "is not an absolute https URL"},
		"another scheme":          {"ftp://id.example.com/realms/{tenant}", "is not an absolute https URL"},
		"a user":                  {"https://u@id.example.com/realms/{tenant}", "is not an absolute https URL"},
		"a query":                 {"https://id.example.com/realms?a={tenant}", "has a query"},
		"a fragment":              {"https://id.example.com/#/{tenant}", "has a query, a fragment"},
		"a part of a segment":     {"https://id.example.com/realms/x-{tenant}", "a part of a name"},
		"a part of a segment, 2":  {"https://id.example.com/realms/{tenant}-x", "a part of a name"},
		"a part of a label":       {"https://x{tenant}.id.example.com", "a part of a name"},
		"every host":              {"https://{tenant}", "not followed by a domain"},
		"every domain":            {"https://{tenant}.com/realms/a", "not followed by a domain"},
		"every domain, its end":   {"https://id.{tenant}", "not followed by a domain"},
		"a port is a placeholder": {"https://id.example.com:{tenant}/", "is not an absolute https URL"},
	} {
		s := &tenants.Set{Match: row.match, Resolve: resolve}
		assert.ErrorContains(t, s.Faults(), "tenants: Set.Match ", name)
		assert.ErrorContains(t, s.Faults(), row.says, name)
		_, err := s.Validate(t.Context(), "a.b.c")
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
	}
	err := (&tenants.Set{Max: -1, Idle: -1}).Faults()
	for _, says := range []string{"Set.Match is empty", "Set.Resolve is nil", "Set.Max is negative", "Set.Idle is negative"} {
		assert.ErrorContains(t, err, says)
	}
	_, err = new(tenants.Set).Validate(t.Context(), "a.b.c")
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.ErrorContains(t, err, "Set.Resolve is nil")
}

// A million invented issuers cost few resolutions and no memory, and tenants that are
// known are not affected.
func TestSet_Flood(t *testing.T) {
	flood := 1_000_000
	if testing.Short() || raceDetector {
		flood = 50_000
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		s := w.set()
		live := w.issuer("one").Valid()
		_, err := s.Validate(t.Context(), live)
		require.NoError(t, err)
		before := heap()
		start := time.Now()
		for n := range flood {
			token := invented(n)
			if _, err := s.Validate(t.Context(), token); err == nil {
				t.Fatal("accepted")
			}
			if n%(flood/1000) == 0 {
				time.Sleep(10 * time.Millisecond)
				_, err := s.Validate(t.Context(), live)
				require.NoError(t, err)
			}
		}
		assert.LessOrEqual(t, float64(w.asked.Load()), 1+20+10*time.Since(start).Seconds())
		assert.Greater(t, float64(w.asked.Load()), 10*time.Since(start).Seconds())
		assert.Less(t, heap()-before, int64(2<<20), "bytes")
		runtime.KeepAlive(s)
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// invented returns a token that nobody has signed.
func invented(n int) string {
	encode := base64URL
	return encode(`{"alg":"ES256"}`) + "." + encode(fmt.Sprintf(`{"iss":"https://t%d.id.example.com/realms/KORE-CIDP"}`, n)) + ".AAAA"
}

// An issuer that is no tenant is remembered for a minute; an outage is not.
func TestSet_ErrorsOfResolve(t *testing.T) {
	for name, row := range map[string]struct {
		err   error
		want  error
		asked int64 // in a minute, one token a second
	}{
		"no tenant":            {koreauth.ErrIssuer, koreauth.ErrIssuer, 1},
		"no tenant, wrapped":   {fmt.Errorf("no such customer: %w", koreauth.ErrInvalidToken), koreauth.ErrIssuer, 1},
		"an outage":            {errors.New("database is down"), koreauth.ErrUnavailable, 60},
		"unavailable":          {koreauth.ErrUnavailable, koreauth.ErrUnavailable, 60},
		"a Config of another":  {nil, koreauth.ErrUnavailable, 60},
		"a Config with faults": {nil, koreauth.ErrUnavailable, 60},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "one")
			s := w.set(func(s *tenants.Set) {
				s.Resolve = func(context.Context, string) (koreauth.Config, error) {
					w.asked.Add(1)
					if name == "a Config of another" {
						return koreauth.Config{Issuer: "https://two.id.example.com/realms/KORE-CIDP", Audience: []string{"a"}}, nil
					}
					return koreauth.Config{}, row.err
				}
			})
			for range 60 {
				_, err := s.Validate(t.Context(), w.issuer("one").Valid())
				require.ErrorIs(t, err, row.want, name)
				time.Sleep(time.Second)
			}
			assert.Equal(t, row.asked, w.asked.Load(), name)
		})
	}
}

// Resolve is called once for callers that wait at the same time; each has its own context.
func TestSet_SharesAResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				time.Sleep(time.Second)
				return w.resolve(ctx, issuer)
			}
		})
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := s.Validate(impatient, w.issuer("one").Valid())
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		var group sync.WaitGroup
		for range 1000 {
			group.Go(func() {
				if _, err := s.Validate(t.Context(), w.issuer("one").Valid()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		assert.EqualValues(t, 1, w.asked.Load())
	})
}

// Resolve that hangs or panics is an outage of new tenants.
func TestSet_FaultsInUserCode(t *testing.T) {
	for name, resolve := range map[string]func(chan struct{}) (koreauth.Config, error){
		"hangs":  func(hang chan struct{}) (koreauth.Config, error) { <-hang; return koreauth.Config{}, nil },
		"panics": func(chan struct{}) (koreauth.Config, error) { panic("resolve") },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, hang := newWorld(t, "one"), make(chan struct{})
			defer close(hang)
			s := w.set(func(s *tenants.Set) {
				s.Resolve = func(context.Context, string) (koreauth.Config, error) {
					w.asked.Add(1)
					return resolve(hang)
				}
			})
			for n := range 200 {
				start := time.Now()
				_, err := s.Validate(t.Context(), invented(n))
				require.ErrorIs(t, err, koreauth.ErrUnavailable, name)
				assert.LessOrEqual(t, time.Since(start), 5*time.Second, name)
				time.Sleep(100 * time.Millisecond)
			}
			if name == "hangs" {
				assert.EqualValues(t, 64, w.asked.Load(), "calls that have not returned")
			}
		})
	}
}

// A tenant that is gone is forgotten within five minutes, and a new Config is used.
func TestSet_LooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		one := w.issuer("one")
		audience := koretest.Audience
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				config, err := w.resolve(ctx, issuer)
				config.Audience = []string{audience}
				return config, err
			}
		})
		use := func() error {
			_, err := s.Validate(t.Context(), one.Valid())
			synctest.Wait()
			return err
		}
		require.NoError(t, use())
		fetched := one.Requests(koretest.KeysEndpoint)
		time.Sleep(5 * time.Minute)
		require.NoError(t, use())
		require.NoError(t, use())
		assert.EqualValues(t, 2, w.asked.Load())
		assert.Equal(t, fetched, one.Requests(koretest.KeysEndpoint), "the same Config keeps the keys")
		audience = "other"
		time.Sleep(5 * time.Minute)
		require.NoError(t, use())
		assert.ErrorIs(t, use(), koreauth.ErrAudience)
		w.gone.Store(one.URL(), true)
		time.Sleep(5 * time.Minute)
		_ = use()
		assert.ErrorIs(t, use(), koreauth.ErrIssuer)
		w.gone.Delete(one.URL())
		audience = koretest.Audience
		time.Sleep(time.Minute)
		assert.NoError(t, use())
	})
}

// The claims belong to the caller, also those of a remembered token.
func TestSet_ClaimsAreACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		s, token := w.set(), w.issuer("one").Valid()
		for range 4 {
			claims, err := s.Validate(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, []string{koretest.Audience}, claims.Audience)
			claims.Audience[0] = "changed"
		}
		guard := koreauth.New(s, nil)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		change := guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			claims, _ := koreauth.FromContext(r.Context())
			require.Equal(t, []string{koretest.Audience}, claims.Audience)
			claims.Audience[0] = "changed"
		}))
		for range 2 {
			change.ServeHTTP(httptest.NewRecorder(), r)
		}
		nothing, w2 := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), httptest.NewRecorder()
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { nothing.ServeHTTP(w2, r) }), 6.0, "the guard does not copy the claims")
	})
}

func TestSet_Nil(t *testing.T) {
	var s *tenants.Set
	assert.ErrorContains(t, s.Faults(), "nil")
	_, err := s.Validate(t.Context(), "a.b.c")
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
}

func TestSet_LargeToken(t *testing.T) {
	w := newWorld(t, "one")
	_, err := w.set().Validate(t.Context(), w.issuer("one").Valid()+strings.Repeat("A", 16<<10))
	assert.ErrorIs(t, err, koreauth.ErrMalformed)
	_, err = w.set().Validate(t.Context(), w.issuer("one").Valid()+".a")
	assert.ErrorIs(t, err, koreauth.ErrMalformed)
	assert.Zero(t, w.asked.Load())
}

// After a quiet time, 20 new issuers are resolved at once, and no more.
func TestSet_BurstAfterAQuietTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.set()
		_, err := s.Validate(t.Context(), invented(0))
		require.ErrorIs(t, err, koreauth.ErrIssuer)
		time.Sleep(time.Hour)
		before := w.asked.Load()
		for n := range 1000 {
			_, _ = s.Validate(t.Context(), invented(n+1))
		}
		assert.EqualValues(t, 20, w.asked.Load()-before)
	})
}

// At most Max tenants are kept, and none for longer than Idle without a token.
func TestSet_MaxAndIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		s := w.set(func(s *tenants.Set) { s.Max, s.Idle = 2, 10*time.Minute })
		use := func(name string) int64 {
			before := w.asked.Load()
			_, err := s.Validate(t.Context(), w.issuer(name).Valid())
			require.NoError(t, err)
			time.Sleep(time.Second)
			return w.asked.Load() - before
		}
		assert.EqualValues(t, 1, use("a"))
		assert.EqualValues(t, 1, use("b"))
		assert.Zero(t, use("a"))
		assert.EqualValues(t, 1, use("c"))
		assert.Zero(t, use("a"), "b was used least recently")
		assert.EqualValues(t, 1, use("b"))
		time.Sleep(4 * time.Minute)
		assert.Zero(t, use("b"))
		time.Sleep(11 * time.Minute)
		assert.EqualValues(t, 1, use("b"), "it was not used for ten minutes")
	})
}

// A bound token is left to the guard's Sender.
func TestSet_BoundToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		token, err := w.issuer("one").Mint(koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: strings.Repeat("A", 43)}})
		require.NoError(t, err)
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		for want, options := range map[int]*koreauth.Options{
			403: nil, 200: {Sender: koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })},
		} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			recorder := httptest.NewRecorder()
			koreauth.New(w.set(), options).Wrap(handler).ServeHTTP(recorder, r)
			assert.Equal(t, want, recorder.Code)
		}
	})
}

// Without an HTTPClient, an issuer that is not at a public address is not asked.
func TestSet_PublicAddressesOnly(t *testing.T) {
	asked := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(server.Close)
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://any.example", Keys: []*koretest.Key{key()}})
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	s := &tenants.Set{Match: "https://localhost:" + port + "/realms/{tenant}", Resolve: func(context.Context, string) (koreauth.Config, error) {
		return koreauth.Config{Audience: []string{koretest.Audience}, Algorithms: []string{"ES256"}}, nil
	}}
	_, err = s.Validate(t.Context(), mint(t, issuer, "iss", "https://localhost:"+port+"/realms/a"))
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.ErrorContains(t, err, "which is not a public address")
	assert.False(t, asked)
}
