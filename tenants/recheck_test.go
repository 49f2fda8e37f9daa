package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/tenants"
)

// A tenant that is resolved again keeps its keys, however its Config is made, so that it
// outlives an outage of its issuer.
func TestSet_KeepsKeysInAnOutage(t *testing.T) {
	for name, change := range map[string]func(*koreauth.Config){
		"the same Config": func(*koreauth.Config) {},
		"a new requirement": func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{koreauth.AnyScope("sims:read", "openid", "profile", "email")}
		},
		"a function": func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })}
		},
		"another leeway": func(c *koreauth.Config) { c.Leeway = time.Duration(time.Now().UnixNano() % int64(time.Second)) },
		"a new RemoteKeySet": func(c *koreauth.Config) {
			c.Keys, c.HTTPClient = &koreauth.RemoteKeySet{Issuer: "https://one.id.example.com/realms/KORE-CIDP", HTTPClient: c.HTTPClient}, nil
		},
		"another RemoteKeySet": func(c *koreauth.Config) {
			c.Keys, c.HTTPClient = &koreauth.RemoteKeySet{Issuer: "https://one.id.example.com/realms/KORE-CIDP", HTTPClient: c.HTTPClient, MaxAge: time.Duration(time.Now().UnixNano())}, nil
		},
		"a new place": func(c *koreauth.Config) { c.JWKSURL = fmt.Sprint("https://one.id.example.com/", time.Now().UnixNano()) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "one")
			one := w.issuer("one")
			s := w.set(func(s *tenants.Set) {
				s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
					c, err := w.resolve(ctx, issuer)
					if change(&c); name == "a new place" && w.asked.Load() == 1 {
						c.JWKSURL = ""
					}
					return c, err
				}
			})
			token := mint(t, one, "exp", time.Now().Add(24*time.Hour).Unix())
			_, err := s.Validate(t.Context(), token)
			require.NoError(t, err, name)
			one.Behave(koretest.Down)
			for range 3 {
				time.Sleep(5 * time.Minute)
				_, err = s.Validate(t.Context(), token)
				assert.NoError(t, err, name)
				synctest.Wait()
			}
			assert.EqualValues(t, 4, w.asked.Load(), name)
		})
	}
}

// A Config that was changed in place counts, and objects in use are not looked into.
func TestSet_ConfigChangedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		audience := []string{koretest.Audience}
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				c, err := w.resolve(ctx, issuer)
				c.Audience, c.Keys, c.HTTPClient = audience, &lockedKeys{base: &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: c.HTTPClient}, seen: map[string]int{}}, nil
				return c, err
			}
		})
		token := mint(t, w.issuer("one"), "exp", time.Now().Add(24*time.Hour).Unix())
		for range 20 {
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() { _, err := s.Validate(t.Context(), token); assert.NoError(t, err) })
			}
			time.Sleep(5 * time.Minute)
			group.Wait()
		}
		synctest.Wait()
		audience[0] = "other"
		_, err := s.Validate(t.Context(), token)
		require.NoError(t, err, "it is resolved in the background")
		synctest.Wait()
		_, err = s.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrAudience)
	})
}

// lockedKeys is a KeySet that changes while it is used.
type lockedKeys struct {
	mu   sync.Mutex
	seen map[string]int
	base koreauth.KeySet
}

func (k *lockedKeys) Keys(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
	k.mu.Lock()
	for n := range 100 {
		k.seen[fmt.Sprint(kid, n)]++
	}
	k.mu.Unlock()
	return k.base.Keys(ctx, kid, fetch)
}

// The addresses are checked for the key set of a Config too.
func TestSet_ChecksAddressesOfKeySets(t *testing.T) {
	var asked atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	place := "http://localhost:" + u.Port() + "/realms/"
	for name, keys := range map[string]*koreauth.RemoteKeySet{
		"Issuer": {Issuer: place + "a", MaxAge: time.Minute}, "URL": {URL: place + "a/keys"}, "none": nil,
	} {
		s := &tenants.Set{Match: place + "{tenant}", Resolve: func(context.Context, string) (koreauth.Config, error) {
			c := koreauth.Config{Audience: []string{koretest.Audience}, Algorithms: []string{"ES256"}}
			if keys != nil {
				c.Keys = keys
			}
			return c, nil
		}}
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://any.example", Keys: []*koretest.Key{key()}})
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), mint(t, issuer, "iss", place+"a"))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
		assert.ErrorContains(t, err, "not a public address", name)
		assert.False(t, asked.Load(), name)
	}
}

// After a quiet time a tenant that is gone is not accepted once more, unless the answer is
// late.
func TestSet_GoneAfterAQuietTime(t *testing.T) {
	for name, row := range map[string]struct {
		quiet   time.Duration
		suspend bool
		slow    time.Duration
		fails   bool
		want    error
	}{
		"at once":              {55 * time.Minute, false, 0, false, koreauth.ErrIssuer},
		"a suspended machine":  {0, true, 0, false, koreauth.ErrIssuer},
		"a slow answer":        {55 * time.Minute, false, 900 * time.Millisecond, false, koreauth.ErrIssuer},
		"a late answer":        {55 * time.Minute, false, 4 * time.Second, false, nil},
		"Resolve is down":      {55 * time.Minute, false, 0, true, nil},
		"after Idle":           {60*time.Minute + time.Second, false, 0, false, koreauth.ErrIssuer},
		"after Idle, and slow": {60*time.Minute + time.Second, false, 4 * time.Second, false, koreauth.ErrIssuer},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "one")
			one := w.issuer("one")
			s := w.set(func(s *tenants.Set) {
				s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
					if w.asked.Load() > 0 {
						time.Sleep(row.slow)
					}
					if w.asked.Load() > 0 && row.fails {
						return koreauth.Config{}, errors.New("down")
					}
					return w.resolve(ctx, issuer)
				}
			})
			token := mint(t, one, "exp", time.Now().Add(24*time.Hour).Unix())
			_, err := s.Validate(t.Context(), token)
			require.NoError(t, err, name)
			w.gone.Store(one.URL(), true)
			time.Sleep(row.quiet)
			if row.suspend {
				defer clock.Suspend(30 * time.Minute)()
			}
			start := time.Now()
			_, err = s.Validate(t.Context(), token)
			assert.ErrorIs(t, err, row.want, name)
			if row.quiet < time.Hour {
				assert.LessOrEqual(t, time.Since(start), time.Second, name)
			}
			time.Sleep(10 * time.Second)
		})
	}
}

// A Resolve that hangs for some issuers does not keep out others.
func TestSet_HangingResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one", "two", "three")
		hang := make(chan struct{})
		var hanging atomic.Int64
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				if strings.Contains(issuer, "hangs") {
					hanging.Add(1)
					<-hang
				}
				return w.resolve(ctx, issuer)
			}
		})
		bad := mint(t, w.issuer("one"), "iss", "https://hangs.id.example.com/realms/KORE-CIDP")
		for range 100 {
			_, err := s.Validate(t.Context(), bad)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.ErrorContains(t, err, "Set.Resolve")
			time.Sleep(time.Second)
		}
		assert.EqualValues(t, 1, hanging.Load())
		_, err := s.Validate(t.Context(), w.issuer("one").Valid())
		assert.NoError(t, err)
		close(hang)
		synctest.Wait()
	})
}

// One issuer that cannot be resolved, or many, do not keep out others.
func TestSet_FailingIssuersDoNotKeepOutOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				if strings.Contains(issuer, "faulty") {
					return koreauth.Config{}, nil // It has no audience.
				}
				return w.resolve(ctx, issuer)
			}
		})
		bad := mint(t, w.issuer("one"), "iss", "https://faulty.id.example.com/realms/KORE-CIDP")
		for n := range 600 {
			_, err := s.Validate(t.Context(), bad)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			time.Sleep(10 * time.Millisecond)
			if n == 500 {
				_, err := s.Validate(t.Context(), w.issuer("one").Valid())
				assert.NoError(t, err)
			}
		}
	})
}

// A tenant that was forgotten is resolved again, however many issuers are invented.
func TestSet_ForgottenTenantComesBackInAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one", "two")
		s := w.set(func(s *tenants.Set) { s.Max = 1 })
		for _, name := range []string{"one", "two"} {
			_, err := s.Validate(t.Context(), w.issuer(name).Valid())
			require.NoError(t, err)
		}
		for n := range 200 {
			_, _ = s.Validate(t.Context(), invented(n))
		}
		_, err := s.Validate(t.Context(), w.issuer("one").Valid())
		assert.NoError(t, err)
	})
}

func TestSet_TemplatesWithFaults(t *testing.T) {
	for _, match := range []string{
		"https://{tenant}.com./a", "https://{tenant}..com", "https://{tenant}.127.0.1", "https://{tenant}.com", "https://{tenant}.", "https://{tenant}",
		"https://id.example.com/realms/x.{tenant}", "https://id.example.com/realms/{tenant}.json", "https://id.example.com/realms/.{tenant}", "https://id.example.com/realms/x{tenant}",
		"HTTPS://id.example.com/{tenant}", "https://ID.example.com/{tenant}", "https://id.example.com:99999/{tenant}", "https://id.example.com:/{tenant}",
		"https://id.example.com:443/{tenant}", "https://id.example.com:0/{tenant}", "https://id.example.com/a/../{tenant}", "https://id。example.com/{tenant}",
		"https://id.example.com/./{tenant}", "https://id.example.com/{tenant}/{tenant}",
	} {
		assert.Error(t, (&tenants.Set{Match: match, Resolve: newWorld(t).resolve}).Faults(), match)
	}
	for _, match := range []string{
		"https://id.example.com/realms/{tenant}", "https://{tenant}.id.example.com/realms/KORE-CIDP", "https://a.{tenant}.example.com", "https://id.example.com:8443/{tenant}/x",
		"http://localhost:8080/realms/{tenant}", "http://127.0.0.1/{tenant}", "https://[2606:4700::1]/{tenant}",
	} {
		assert.NoError(t, (&tenants.Set{Match: match, Resolve: newWorld(t).resolve}).Faults(), match)
	}
}

// A Config that has faults at a recheck is not used, and the log says so once a minute.
func TestSet_LogsWhatCannotBeResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := newWorld(t, "one"), &locked.Buffer{}
		faulty := false
		s := w.set(func(s *tenants.Set) {
			s.Logger = slog.New(slog.NewTextHandler(log, nil))
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				c, err := w.resolve(ctx, issuer)
				if faulty {
					c.Audience = nil
				}
				return c, err
			}
		})
		token := mint(t, w.issuer("one"), "exp", time.Now().Add(24*time.Hour).Unix())
		use := func() {
			_, err := s.Validate(t.Context(), token)
			require.NoError(t, err)
			synctest.Wait()
		}
		use()
		_, err := s.Validate(t.Context(), invented(1))
		require.ErrorIs(t, err, koreauth.ErrIssuer)
		assert.Empty(t, log.String())
		faulty = true
		for range 5 {
			time.Sleep(5 * time.Minute)
			use()
			use()
		}
		assert.Equal(t, 5, strings.Count(log.String(), "an issuer could not be resolved"), log.String())
		assert.Contains(t, log.String(), "Config.Audience is empty")
		assert.Contains(t, log.String(), "known=true")
	})
}

// A Config that judges tokens otherwise is used in an outage too, with the keys that are
// known; keys of another place replace them.
func TestSet_NewRulesAndNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one")
		one := w.issuer("one")
		var change func(*koreauth.Config)
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				c, err := w.resolve(ctx, issuer)
				c.Keys, c.HTTPClient = &koreauth.RemoteKeySet{Issuer: issuer, HTTPClient: c.HTTPClient}, nil
				if change != nil {
					change(&c)
				}
				return c, err
			}
		})
		token := mint(t, one, "exp", time.Now().Add(24*time.Hour).Unix())
		use := func() error {
			_, err := s.Validate(t.Context(), token)
			synctest.Wait()
			return err
		}
		require.NoError(t, use())
		one.Behave(koretest.Down)
		change = func(c *koreauth.Config) { c.Audience = []string{"other"} }
		time.Sleep(5 * time.Minute)
		require.NoError(t, use(), "it is resolved in the background")
		assert.ErrorIs(t, use(), koreauth.ErrAudience)

		other, err := koretest.NewKey("ES256")
		require.NoError(t, err)
		change = func(c *koreauth.Config) {
			c.Keys, c.HTTPClient = koreauth.StaticKeySet{{ID: "other", Algorithm: "ES256", Public: other.Public()}}, nil
		}
		time.Sleep(5 * time.Minute)
		assert.ErrorIs(t, use(), koreauth.ErrAudience)
		assert.ErrorIs(t, use(), koreauth.ErrUnknownKey)
	})
}

// A tenant that was idle is a new one, also if others were looked through shortly before.
func TestSet_IdleBetweenSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one", "two")
		s := w.set()
		token := mint(t, w.issuer("one"), "exp", time.Now().Add(24*time.Hour).Unix())
		_, err := s.Validate(t.Context(), token)
		require.NoError(t, err)
		w.gone.Store(w.issuer("one").URL(), true)
		time.Sleep(59 * time.Minute)
		_, err = s.Validate(t.Context(), w.issuer("two").Valid())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		_, err = s.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrIssuer)
		asked := w.asked.Load()
		assert.EqualValues(t, 3, asked)
	})
}

// A list that Resolve changes in place counts although everything else stays.
func TestSet_ListChangedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, audience := newWorld(t, "one"), []string{koretest.Audience}
		s := w.set(func(s *tenants.Set) {
			s.Resolve = func(ctx context.Context, issuer string) (koreauth.Config, error) {
				c, err := w.resolve(ctx, issuer)
				c.Audience = audience
				return c, err
			}
		})
		token := mint(t, w.issuer("one"), "exp", time.Now().Add(24*time.Hour).Unix())
		use := func() error {
			_, err := s.Validate(t.Context(), token)
			synctest.Wait()
			return err
		}
		require.NoError(t, use())
		audience[0] = "other"
		time.Sleep(5 * time.Minute)
		require.NoError(t, use())
		assert.ErrorIs(t, use(), koreauth.ErrAudience)
	})
}
