package revocation_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
)

const bodyB = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`

// api is a guarded handler on a real server.
type api struct {
	issuer    *koretest.Issuer
	list      *revocation.List
	validator *koreauth.Validator
	guard     *koreauth.Middleware
	log       *records
	server    *httptest.Server
}

func newAPI(t *testing.T, list *revocation.List) *api {
	t.Helper()
	a := &api{list: list, log: &records{}}
	var err error
	a.issuer, err = koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(a.issuer.Close)
	a.validator, err = koreauth.NewValidator(koreauth.Config{
		Issuer: a.issuer.URL(), Audience: []string{koretest.Audience}, Require: []koreauth.Requirement{list},
		Opaque: koretest.Validator{Tokens: map[string]*koreauth.Claims{"opaque": {Issuer: "opaque", ID: "o-1", ClientID: "kc_opaque", IssuedAt: time.Now()}}},
	})
	require.NoError(t, err)
	a.guard = koreauth.New(a.validator, &koreauth.Options{Logger: a.log.logger()})
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "served") })
	mux := http.NewServeMux()
	mux.Handle("/wrap", a.guard.Wrap(ok))
	mux.Handle("/optional", a.guard.WrapOptional(ok))
	mux.Handle("/nested", a.guard.Wrap(a.guard.Require(koreauth.Product("SuperSIM"))(a.guard.Wrap(ok))))
	mux.HandleFunc("/authenticate", func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.guard.Authenticate(r); err != nil {
			a.guard.Refuse(w, r, err)
			return
		}
		ok(w, r)
	})
	mux.HandleFunc("/validate", func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.validator.Validate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
			a.guard.Refuse(w, r, err)
			return
		}
		ok(w, r)
	})
	a.server = httptest.NewServer(mux)
	t.Cleanup(a.server.Close)
	return a
}

func (a *api) get(t *testing.T, path, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.server.URL+path, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.server.Client().Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func TestList_RejectsRevokedTokensOnEveryPath(t *testing.T) {
	paths := []string{"/wrap", "/optional", "/nested", "/authenticate", "/validate"}
	for kind, rule := range map[string]func(*koreauth.Claims) revocation.Rule{
		"token":   func(c *koreauth.Claims) revocation.Rule { return revocation.Rule{Token: c.ID} },
		"client":  func(c *koreauth.Claims) revocation.Rule { return revocation.Rule{Client: c.ClientID} },
		"account": func(c *koreauth.Claims) revocation.Rule { return revocation.Rule{Account: c.AccountID} },
		"subject": func(c *koreauth.Claims) revocation.Rule { return revocation.Rule{Subject: c.Subject} },
		"issuer":  func(c *koreauth.Claims) revocation.Rule { return revocation.Rule{Everything: true} },
	} {
		t.Run("a rule for a "+kind, func(t *testing.T) {
			store, list := revocation.Memory(), &revocation.List{}
			a := newAPI(t, list)
			follow(t, list, store)
			require.Eventually(t, func() bool { return !list.Status().Current.IsZero() }, 10*time.Second, time.Millisecond)
			remembered, fresh := a.issuer.Valid(), a.issuer.Valid()
			for _, path := range paths {
				for range 3 {
					status, body := a.get(t, path, remembered)
					require.Equal(t, 200, status, body)
				}
			}
			claims, err := a.validator.Validate(t.Context(), remembered)
			require.NoError(t, err)
			revoke := rule(claims)
			revoke.Issuer = claims.Issuer
			receipt, err := store.Append(t.Context(), revoke)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return list.Status().Seq == receipt.Seq }, 10*time.Second, time.Millisecond)

			tokens := map[string]string{"remembered": remembered}
			if kind != "token" {
				tokens["new"] = fresh
			}
			for name, token := range tokens {
				for _, path := range paths {
					for range 3 {
						status, body := a.get(t, path, token)
						assert.Equal(t, 403, status, "%s token at %s", name, path)
						assert.Equal(t, bodyB, body)
					}
				}
				_, err := a.validator.Validate(t.Context(), token)
				assert.ErrorIs(t, err, koreauth.ErrRevoked)
				assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
				assert.EqualError(t, err, fmt.Sprintf("koreauth: invalid token: revoked: by %s rule %d", kind, receipt.Seq))
			}
			rejected := a.log.all(t, "request rejected")
			require.Len(t, rejected, len(tokens)*len(paths)*3)
			for _, record := range rejected {
				assert.Equal(t, "revoked", record["reason"])
				assert.Equal(t, fmt.Sprintf("by %s rule %d", kind, receipt.Seq), record["cause"])
			}

			revoke.Lift = true
			receipt, err = store.Append(t.Context(), revoke)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return list.Status().Seq == receipt.Seq }, 10*time.Second, time.Millisecond)
			for _, path := range paths {
				status, body := a.get(t, path, remembered)
				assert.Equal(t, 200, status, "lifted: %s", body)
			}
		})
	}
}

func TestList_RejectsOpaqueTokens(t *testing.T) {
	list := &revocation.List{}
	require.NoError(t, list.Apply())
	a := newAPI(t, list)
	for _, path := range []string{"/wrap", "/optional", "/authenticate", "/validate"} {
		status, _ := a.get(t, path, "opaque")
		require.Equal(t, 200, status)
	}
	require.NoError(t, list.Apply(revocation.Rule{Issuer: "opaque", Client: "kc_opaque"}))
	for _, path := range []string{"/wrap", "/optional", "/authenticate", "/validate"} {
		status, body := a.get(t, path, "opaque")
		assert.Equal(t, 403, status, path)
		assert.Equal(t, bodyB, body)
	}
	assert.Equal(t, "by client rule 0 (from List.Apply)", a.log.all(t, "request rejected")[0]["cause"])
}

func TestList_ComparesWhatARuleSelects(t *testing.T) {
	at := time.Now().Truncate(time.Second)
	long := strings.Repeat("x", 256)
	base := koreauth.Claims{Issuer: issuer, ID: "id", ClientID: "client", AccountID: "account", Subject: "subject", IssuedAt: at}
	with := func(change func(*koreauth.Claims)) *koreauth.Claims {
		c := base
		change(&c)
		return &c
	}
	client := revocation.Rule{Issuer: issuer, Client: "client", IssuedBefore: at}
	for _, row := range []struct {
		name string
		rule revocation.Rule
		c    *koreauth.Claims
		want bool
	}{
		{"iat at the moment", client, &base, true},
		{"iat a second before", client, with(func(c *koreauth.Claims) { c.IssuedAt = at.Add(-time.Second) }), true},
		{"iat a second after", client, with(func(c *koreauth.Claims) { c.IssuedAt = at.Add(time.Second) }), false},
		{"iat with a fraction after", client, with(func(c *koreauth.Claims) { c.IssuedAt = at.Add(time.Millisecond) }), false},
		{"iat in another time zone", client, with(func(c *koreauth.Claims) { c.IssuedAt = at.In(time.FixedZone("", 3600)) }), true},
		{"no iat", client, with(func(c *koreauth.Claims) { c.IssuedAt = time.Time{} }), true},
		{"iat of a token after its rule", revocation.Rule{Issuer: issuer, Token: "id", IssuedBefore: at.Add(-time.Hour)}, &base, true},
		{"another client", client, with(func(c *koreauth.Claims) { c.ClientID = "Client" }), false},
		{"no client", client, with(func(c *koreauth.Claims) { c.ClientID = "" }), false},
		{"another issuer", client, with(func(c *koreauth.Claims) { c.Issuer += "/" }), false},
		{"no issuer", client, with(func(c *koreauth.Claims) { c.Issuer = "" }), false},
		{"a client whose name is a token's ID", revocation.Rule{Issuer: issuer, Token: "client", IssuedBefore: at}, &base, false},
		{"a subject whose name is an account", revocation.Rule{Issuer: issuer, Account: "subject", IssuedBefore: at}, &base, false},
		{"an account", revocation.Rule{Issuer: issuer, Account: "account", IssuedBefore: at}, &base, true},
		{"no account", revocation.Rule{Issuer: issuer, Account: "account", IssuedBefore: at}, with(func(c *koreauth.Claims) { c.AccountID = "" }), false},
		{"a subject", revocation.Rule{Issuer: issuer, Subject: "subject", IssuedBefore: at}, &base, true},
		{"everything", revocation.Rule{Issuer: issuer, Everything: true, IssuedBefore: at}, with(func(c *koreauth.Claims) { *c = koreauth.Claims{Issuer: issuer, ID: "2"} }), true},
		{"everything of another issuer", revocation.Rule{Issuer: "other", Everything: true, IssuedBefore: at}, &base, false},
		{"an ID of 256 bytes", revocation.Rule{Issuer: issuer, Token: long}, with(func(c *koreauth.Claims) { c.ID = long }), true},
		{"an ID of 257 bytes that begins alike", revocation.Rule{Issuer: issuer, Token: long}, with(func(c *koreauth.Claims) { c.ID = long + "x" }), false},
		{"a client of 256 bytes", revocation.Rule{Issuer: issuer, Client: long, IssuedBefore: at}, with(func(c *koreauth.Claims) { c.ClientID = long }), true},
		{"a client of 257 bytes that begins alike", revocation.Rule{Issuer: issuer, Client: long, IssuedBefore: at}, with(func(c *koreauth.Claims) { c.ClientID = long + "x" }), false},
		{"an issuer of 256 bytes", revocation.Rule{Issuer: long, Everything: true, IssuedBefore: at}, with(func(c *koreauth.Claims) { c.Issuer = long }), true},
		{"an issuer of 257 bytes that begins alike", revocation.Rule{Issuer: long, Everything: true, IssuedBefore: at}, with(func(c *koreauth.Claims) { c.Issuer = long + "x" }), false},
		{"a hash of zeros, for an ID of 257 bytes", revocation.Rule{Hash: "token:" + strings.Repeat("0", 32)}, with(func(c *koreauth.Claims) { c.ID = long + "x" }), false},
		{"everything, for a token with long values", revocation.Rule{Issuer: issuer, Everything: true, IssuedBefore: at},
			with(func(c *koreauth.Claims) { c.ID, c.ClientID, c.Subject = long+"x", long+"x", long+"x" }), true},
		{"an ID of any characters", revocation.Rule{Issuer: issuer, Token: "a\x00é \n"}, with(func(c *koreauth.Claims) { c.ID = "a\x00é \n" }), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			list := &revocation.List{}
			require.NoError(t, list.Apply())
			require.False(t, isRevoked(t, list, row.c))
			require.NoError(t, list.Apply(row.rule))
			for range 2 {
				assert.Equal(t, row.want, isRevoked(t, list, row.c))
			}
			hashed := &revocation.List{}
			rule, err := row.rule.Complete(at)
			require.NoError(t, err)
			require.NoError(t, hashed.Apply(rule.Hashed()))
			assert.Equal(t, row.want, isRevoked(t, hashed, row.c), "the same rule as a hash")
		})
	}
}

func TestList_MeetsRulesInClearAndAsHashes(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	for _, rule := range []revocation.Rule{
		{Issuer: issuer, Token: "t"}, {Issuer: issuer, Client: "kc_1"}, {Issuer: issuer, Account: "AC1"}, {Issuer: issuer, Subject: "subject-1"}, {Issuer: issuer, Everything: true},
	} {
		rule, err := rule.Complete(at)
		require.NoError(t, err)
		lift := rule
		lift.Lift = true
		c := token("t")
		c.IssuedAt = at
		for name, pair := range map[string][2]revocation.Rule{
			"a hash lifted in clear": {rule.Hashed(), lift}, "a name lifted by hash": {rule, lift.Hashed()}, "hashes": {rule.Hashed(), lift.Hashed()},
		} {
			t.Run(rule.Hashed().Hash[:7]+" "+name, func(t *testing.T) {
				list := &revocation.List{}
				require.NoError(t, list.Apply(pair[0]))
				require.True(t, isRevoked(t, list, c))
				require.Equal(t, 1, list.Status().Entries)
				require.NoError(t, list.Apply(pair[1]))
				assert.False(t, isRevoked(t, list, c))
				assert.Equal(t, 0, list.Status().Entries)
				require.NoError(t, list.Apply(pair[0], rule))
				assert.True(t, isRevoked(t, list, c), "revoked again, after the lift")
				assert.Equal(t, 1, list.Status().Entries)
			})
		}
	}
}

// TestList_RemembersNoVerdictForAnotherToken has tokens of one ID, as an issuer may
// make that does not care.
func TestList_RemembersNoVerdictForAnotherToken(t *testing.T) {
	list := &revocation.List{}
	require.NoError(t, list.Apply(
		revocation.Rule{Issuer: issuer, Client: "bad"}, revocation.Rule{Issuer: issuer, Account: "bad"}, revocation.Rule{Issuer: issuer, Subject: "bad"},
		revocation.Rule{Issuer: "bad", Everything: true}, revocation.Rule{Issuer: issuer, Client: "old"},
	))
	good := *token("same")
	require.False(t, isRevoked(t, list, &good))
	for name, change := range map[string]func(*koreauth.Claims){
		"client": func(c *koreauth.Claims) { c.ClientID = "bad" }, "account": func(c *koreauth.Claims) { c.AccountID = "bad" },
		"subject": func(c *koreauth.Claims) { c.Subject = "bad" }, "issuer": func(c *koreauth.Claims) { c.Issuer = "bad" },
	} {
		c := good
		change(&c)
		c.IssuedAt = c.IssuedAt.Add(-time.Minute)
		assert.True(t, isRevoked(t, list, &c), name)
		assert.False(t, isRevoked(t, list, &good))
	}
	old, young := good, good
	old.ClientID, young.ClientID = "old", "old"
	old.IssuedAt, young.IssuedAt = time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	for range 2 {
		assert.False(t, isRevoked(t, list, &young))
		assert.True(t, isRevoked(t, list, &old))
	}
}

func TestList_RejectsTokensWithoutID(t *testing.T) {
	c := token("")
	list := &revocation.List{}
	require.NoError(t, list.Apply())
	err := list.Check(nil, c)
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	assert.ErrorContains(t, err, `the token has no "jti", so it cannot be revoked by id: set List.AllowNoID`)

	list = &revocation.List{AllowNoID: true}
	require.NoError(t, list.Apply())
	assert.NoError(t, list.Check(nil, c))
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Client: c.ClientID, IssuedBefore: time.Now().Add(time.Minute)}))
	assert.ErrorContains(t, list.Check(nil, c), "by client rule")
}

func TestList_ApplyIsAllOrNothing(t *testing.T) {
	list := &revocation.List{}
	err := list.Apply(revocation.Rule{Issuer: issuer, Token: "t"}, revocation.Rule{}, revocation.Rule{Issuer: issuer, Token: "a", Client: "b"})
	require.Error(t, err)
	assert.ErrorContains(t, err, "rule 2 of 3: revocation: Rule selects no tokens")
	assert.ErrorContains(t, err, "rule 3 of 3: revocation: Rule has Token and Client: set one of them")
	assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable, "the list was not fed")
	assert.Zero(t, list.Status().Entries)
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "t"}))
	assert.True(t, isRevoked(t, list, token("t")))
	assert.False(t, isRevoked(t, list, token("other")))
}

func TestList_AppliesALiftAfterARuleWhoseStoreIsAhead(t *testing.T) {
	list := &revocation.List{}
	stop := follow(t, list, &fakeStore{giving(receipt(t, 1, time.Now().Add(time.Hour), revocation.Rule{Issuer: issuer, Token: "t"}))})
	require.Eventually(t, func() bool { return list.Status().Seq == 1 }, 10*time.Second, time.Millisecond)
	defer stop()
	require.True(t, isRevoked(t, list, token("t")))
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "t", Lift: true}))
	assert.False(t, isRevoked(t, list, token("t")))
}

func TestList_MustBeLoaded(t *testing.T) {
	unavailable := func(t *testing.T, list *revocation.List, cause string) {
		t.Helper()
		err := list.Check(nil, token("t"))
		var e *koreauth.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, koreauth.ErrUnavailable, e.Class)
		assert.Positive(t, e.RetryAfter)
		assert.ErrorContains(t, err, cause)
	}
	t.Run("never fed", func(t *testing.T) {
		unavailable(t, &revocation.List{}, "has not been loaded: call List.Follow or List.Apply")
	})
	t.Run("never fed, with StartEmpty", func(t *testing.T) {
		list := &revocation.List{StartEmpty: true}
		assert.NoError(t, list.Check(nil, token("t")))
		assert.ErrorIs(t, revocation.Fresh(list, time.Hour).Check(nil, token("t")), koreauth.ErrUnavailable)
	})
	t.Run("fed by Apply alone, for a year", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			list := &revocation.List{}
			require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "t"}))
			time.Sleep(365 * 24 * time.Hour)
			assert.True(t, isRevoked(t, list, token("t")))
			assert.False(t, isRevoked(t, list, token("u")))
			assert.NoError(t, revocation.Fresh(list, time.Nanosecond).Check(nil, token("u")))
			assert.Equal(t, time.Now(), list.Status().Current)
		})
	})
	t.Run("a store that does not answer", func(t *testing.T) {
		list := &revocation.List{}
		require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Token: "t"}))
		started := make(chan struct{})
		follow(t, list, &fakeStore{func(ctx context.Context, _ uint64, _ func(revocation.Receipt), _ func(time.Time)) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		}})
		<-started
		unavailable(t, list, "has not been loaded")
	})
	t.Run("a negative MaxStale", func(t *testing.T) {
		log := &records{}
		list := &revocation.List{MaxStale: -1, StartEmpty: true, Logger: log.logger()}
		unavailable(t, list, "List.MaxStale is negative")
		assert.ErrorContains(t, list.Apply(), "List.MaxStale is negative")
		assert.ErrorContains(t, list.Follow(t.Context(), revocation.Memory()), "List.MaxStale is negative")
		assert.Len(t, log.all(t, "MaxStale is negative"), 1)
	})
	t.Run("no list, no claims", func(t *testing.T) {
		unavailable(t, nil, "needs a List and claims")
		assert.ErrorIs(t, (&revocation.List{StartEmpty: true}).Check(nil, nil), koreauth.ErrUnavailable)
	})
}

func TestList_GetsStale(t *testing.T) {
	for _, row := range []struct {
		name     string
		maxStale time.Duration
		want     time.Duration
	}{{"by default after an hour", 0, time.Hour}, {"after MaxStale", time.Minute, time.Minute}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := &revocation.List{MaxStale: row.maxStale}
				store := revocation.Memory()
				stop := follow(t, list, store)
				synctest.Wait()
				last := time.Now()
				assert.Equal(t, last, list.Status().Current)
				stop()
				time.Sleep(row.want)
				assert.NoError(t, list.Check(nil, token("t")))
				time.Sleep(time.Nanosecond)
				assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
				assert.ErrorContains(t, list.Check(nil, token("t")), "older than List.MaxStale")
				assert.Equal(t, last, list.Status().Current)
				follow(t, list, store)
				synctest.Wait()
				assert.NoError(t, list.Check(nil, token("t")))
			})
		})
	}
	t.Run("while the machine was suspended", func(t *testing.T) {
		list := &revocation.List{}
		follow(t, list, &fakeStore{func(ctx context.Context, _ uint64, _ func(revocation.Receipt), current func(time.Time)) error {
			current(time.Now())
			<-ctx.Done()
			return ctx.Err()
		}})
		require.Eventually(t, func() bool { return list.Check(nil, token("t")) == nil }, 10*time.Second, time.Millisecond)
		undo := clock.Suspend(2 * time.Hour)
		assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
		undo()
		assert.NoError(t, list.Check(nil, token("t")))
	})
	t.Run("not later because the wall clock is set back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			list := &revocation.List{}
			stop := follow(t, list, revocation.Memory())
			synctest.Wait()
			stop()
			defer clock.Suspend(-2 * time.Hour)()
			time.Sleep(time.Hour + 1)
			assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
		})
	})
	t.Run("from the moment that the store names", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			list := &revocation.List{MaxStale: time.Minute}
			var at atomic.Pointer[time.Time]
			at.Store(&time.Time{})
			say := func(moment time.Time) { at.Store(&moment) }
			follow(t, list, &fakeStore{func(ctx context.Context, _ uint64, _ func(revocation.Receipt), current func(time.Time)) error {
				for ctx.Err() == nil {
					current(*at.Load())
					time.Sleep(time.Second)
				}
				return ctx.Err()
			}})
			synctest.Wait()
			assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable, "a zero time is ignored")
			assert.ErrorContains(t, list.Status().Err, "zero time")
			say(time.Now().Add(-time.Minute))
			pass(time.Second)
			assert.ErrorIs(t, list.Check(nil, token("t")), koreauth.ErrUnavailable)
			say(time.Now().Add(time.Hour)) // A clock that is wrong does not help the list.
			pass(time.Second)
			synctest.Wait()
			assert.NoError(t, list.Check(nil, token("t")))
			assert.False(t, list.Status().Current.After(time.Now()))
		})
	})
}

func TestFresh_RequiresACurrentList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &revocation.List{}
		fresh := revocation.Fresh(list, 5*time.Second)
		assert.ErrorIs(t, fresh.Check(nil, token("t")), koreauth.ErrUnavailable, "never fed")
		stop := follow(t, list, revocation.Memory())
		synctest.Wait()
		assert.NoError(t, fresh.Check(nil, token("t")))
		stop()
		pass(5 * time.Second)
		assert.NoError(t, fresh.Check(nil, token("t")))
		pass(time.Nanosecond)
		err := fresh.Check(nil, token("t"))
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.ErrorContains(t, err, "not as current as this route needs")
		assert.NoError(t, list.Check(nil, token("t")), "other routes still use the list")
	})
	for name, make := range map[string]func(){
		"a nil list":         func() { revocation.Fresh(nil, time.Second) },
		"a time of zero":     func() { revocation.Fresh(&revocation.List{}, 0) },
		"a time before zero": func() { revocation.Fresh(&revocation.List{}, -1) },
	} {
		t.Run(name+" panics", func(t *testing.T) { assert.Panics(t, make) })
	}
}

func TestList_ForgetsRulesFiveMinutesAfterUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &revocation.List{AllowNoID: true}
		until := time.Now().Add(time.Hour)
		require.NoError(t, list.Apply(
			revocation.Rule{Issuer: issuer, Token: "t", Until: until}, revocation.Rule{Issuer: issuer, Client: "c", Until: until},
			revocation.Rule{Issuer: issuer, Subject: "s", Until: until.Add(time.Hour)}, revocation.Rule{Issuer: issuer, Subject: "s", IssuedBefore: time.Now().Add(-time.Hour), Until: until},
		))
		old := time.Now()
		all := []*koreauth.Claims{{Issuer: issuer, ID: "t", IssuedAt: old}, {Issuer: issuer, ID: "2", ClientID: "c", IssuedAt: old}, {Issuer: issuer, Subject: "s", IssuedAt: old}}
		want := func(entries int, revoked ...bool) {
			t.Helper()
			for n, c := range all {
				assert.Equal(t, revoked[n], isRevoked(t, list, c), "token %d", n)
			}
			assert.Equal(t, entries, list.Status().Entries)
		}
		want(3, true, true, true)
		pass(time.Hour + 5*time.Minute - 1)
		want(3, true, true, true)
		pass(time.Nanosecond)
		want(1, false, false, true)
		pass(time.Hour)
		want(0, false, false, false)
	})
}

func TestList_KeepsALiftOfApplyForYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rule := receipt(t, 1, time.Now(), revocation.Rule{Issuer: issuer, Client: "kc_1", Until: time.Now().AddDate(5, 0, 0)})
		list := &revocation.List{MaxStale: 10 * 365 * 24 * time.Hour}
		old := token("t")
		stop := follow(t, list, &fakeStore{giving(rule)})
		synctest.Wait()
		stop()
		require.True(t, isRevoked(t, list, old))
		require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer, Client: "kc_1", Lift: true}))
		for range 3 {
			assert.False(t, isRevoked(t, list, old))
			assert.Zero(t, list.Status().Entries)
			time.Sleep(2 * 365 * 24 * time.Hour)
		}
	})
}

func TestList_KeepsALiftForYears(t *testing.T) {
	for name, order := range map[string][]int{"rule first": {0, 1}, "lift first": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				both := []revocation.Receipt{
					receipt(t, 1, start, revocation.Rule{Issuer: issuer, Client: "kc_1", Until: start.AddDate(5, 0, 0)}),
					receipt(t, 2, start.Add(time.Minute), revocation.Rule{Issuer: issuer, Client: "kc_1", Until: start.Add(time.Hour), Lift: true}),
				}
				list := &revocation.List{MaxStale: 10 * 365 * 24 * time.Hour}
				old := token("t")
				old.IssuedAt = start
				stop := follow(t, list, &fakeStore{giving(both[order[0]], both[order[1]])})
				synctest.Wait()
				stop()
				for _, later := range []time.Duration{0, 2 * time.Hour, 3 * 365 * 24 * time.Hour} {
					time.Sleep(later)
					stop := follow(t, list, &fakeStore{giving(both[0])}) // A replica that was away brings it back.
					synctest.Wait()
					stop()
					assert.False(t, isRevoked(t, list, old), "after %v", later)
					assert.Zero(t, list.Status().Entries)
				}
			})
		})
	}
}
