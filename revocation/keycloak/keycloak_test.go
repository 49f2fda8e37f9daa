package keycloak_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
	"github.com/koreauth/koreauth/revocation/keycloak"
)

// client is the client whose admin URL is that of the handler.
const client = "api-gw"

// realm is an issuer that pushes like Keycloak.
type realm struct {
	*koretest.Issuer
	t *testing.T
}

func newRealm(t *testing.T) realm {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com", Keys: []*koretest.Key{signingKey(t)}})
	require.NoError(t, err)
	return realm{issuer, t}
}

var signingKey = func() func(*testing.T) *koretest.Key {
	key, err := koretest.NewKey("RS256")
	return func(t *testing.T) *koretest.Key { require.NoError(t, err); return key }
}()

// keys returns the keys of the realm, which are fetched without a connection.
func (r realm) keys() *koreauth.RemoteKeySet {
	return &koreauth.RemoteKeySet{Issuer: r.URL(), HTTPClient: r.HTTPClient()}
}

func (r realm) handler(s revocation.Store, logger *slog.Logger) http.Handler {
	return keycloak.PushNotBefore(s, keycloak.Config{Issuer: r.URL(), Keys: r.keys(), ClientID: client, Logger: logger})
}

// payload returns what Keycloak pushes, with other members in place of its own. A nil
// value removes a member.
func payload(notBefore int64, other map[string]any) []byte {
	members := map[string]any{
		"id": "5cb3fb0d-8d2c-4bb0-a4e1-18a3f1a1f5d5", "expiration": time.Now().Unix() + 30, "resource": client,
		"action": "PUSH_NOT_BEFORE", "notBefore": notBefore,
	}
	for name, value := range other {
		if members[name] = value; value == nil {
			delete(members, name)
		}
	}
	text, _ := json.Marshal(members)
	return text
}

func (r realm) mint(recipe koretest.Token) string {
	r.t.Helper()
	token, err := r.Mint(recipe)
	require.NoError(r.t, err)
	return token
}

// push returns a push as Keycloak signs it.
func (r realm) push(notBefore int64) string {
	return r.mint(koretest.Token{RawPayload: payload(notBefore, nil)})
}

func post(handler http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("POST", "/k_push_not_before", strings.NewReader(body)))
	return w
}

// stored returns the rules of a store.
func stored(t *testing.T, s revocation.Store) (rules []revocation.Receipt) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_ = s.Follow(ctx, 0, func(r revocation.Receipt) { rules = append(rules, r) }, func(time.Time) { stop() })
	return rules
}

func TestPushNotBefore_RevokesOlderTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t)
		store, list := revocation.Memory(), new(revocation.List)
		handler := r.handler(store, nil)
		validator, err := koreauth.NewValidator(koreauth.Config{
			Issuer: r.URL(), Audience: []string{koretest.Audience}, HTTPClient: r.HTTPClient(), Require: []koreauth.Requirement{list},
		})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = list.Follow(ctx, store) }()

		time.Sleep(10 * time.Second)
		notBefore := time.Now().Unix()
		older, same, later := r.mint(koretest.Token{Age: time.Second}), r.Valid(), r.mint(koretest.Token{Age: -time.Second})
		w := post(handler, r.push(notBefore))
		assert.Equal(t, 204, w.Code, w.Body)
		assert.Empty(t, w.Body.String())
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))

		rules := stored(t, store)
		require.Len(t, rules, 1)
		assert.Equal(t, revocation.Rule{
			Issuer: r.URL(), Everything: true, IssuedBefore: time.Unix(notBefore-1, 0).UTC(), Until: rules[0].Rule.Until,
			Reason: "not-before policy of Keycloak", By: "keycloak",
		}, rules[0].Rule)

		synctest.Wait()
		_, err = validator.Validate(t.Context(), older)
		assert.ErrorIs(t, err, koreauth.ErrRevoked)
		for _, token := range []string{same, later} { // Keycloak accepts them too
			_, err = validator.Validate(t.Context(), token)
			assert.NoError(t, err)
		}
		stop()
	})
}

func TestPushNotBefore_Answers(t *testing.T) {
	other := koretest.Key{}
	key, err := koretest.NewKey("RS256")
	require.NoError(t, err)
	other = *key
	raw := func(text string) koretest.Token { return koretest.Token{RawPayload: []byte(text)} }
	with := func(name string, value any) func(realm) string {
		return func(r realm) string {
			return r.mint(koretest.Token{RawPayload: payload(5, map[string]any{name: value})})
		}
	}
	signed := func(recipe koretest.Token) func(realm) string {
		return func(r realm) string {
			if recipe.RawPayload == nil {
				recipe.RawPayload = payload(5, nil)
			}
			return r.mint(recipe)
		}
	}
	access := func(claims map[string]any) func(realm) string {
		return func(r realm) string { return r.mint(koretest.Token{Claims: claims}) }
	}
	for _, row := range []struct {
		name   string
		body   func(realm) string
		status int
		answer string // of the description
		rules  int
	}{
		{"a push", func(r realm) string { return r.push(5) }, 204, "", 1},
		{"a push with a member more", with("sessionId", "x"), 204, "", 1},
		{"a push without an id", with("id", nil), 204, "", 1},
		{"a push in the future", with("notBefore", int64(4102444800)), 204, "", 1},
		{"no policy", with("notBefore", 0), 204, "", 0},
		{"an end in 60 seconds", with("expiration", 946684860), 204, "", 1},
		{"an end now", with("expiration", 946684800), 204, "", 1},

		{"an end in 61 seconds", with("expiration", 946684861), 400, "The expiration is too far ahead: check both clocks", 0},
		{"an end in milliseconds", with("expiration", int64(946684830000)), 400, "The expiration is too far ahead: check both clocks", 0},
		{"an end that overflows", with("expiration", json.Number("9223372036854775807")), 400, "The expiration is too far ahead: check both clocks", 0},
		{"an end that has passed", with("expiration", 946684799), 400, "The push has expired, or has no expiration: check both clocks, and push again", 0},
		{"no end", with("expiration", nil), 400, "The push has expired, or has no expiration: check both clocks, and push again", 0},
		{"an end that is a string", with("expiration", "946684830"), 400, "The push has expired, or has no expiration: check both clocks, and push again", 0},
		{"another action", with("action", "LOGOUT"), 400, "The action is not PUSH_NOT_BEFORE", 0},
		{"the action in another case", with("action", "push_not_before"), 400, "The action is not PUSH_NOT_BEFORE", 0},
		{"no action", with("action", nil), 400, "The action is not PUSH_NOT_BEFORE", 0},
		{"another client", with("resource", "kc_1"), 400, "The resource is not the client of this handler", 0},
		{"several clients", with("resource", []string{client}), 400, "The resource is not the client of this handler", 0},
		{"no client", with("resource", nil), 400, "The resource is not the client of this handler", 0},
		{"no notBefore", with("notBefore", nil), 400, "The notBefore is not a number of seconds", 0},
		{"a negative notBefore", with("notBefore", -1), 400, "The notBefore is not a number of seconds", 0},
		{"a fraction", with("notBefore", 1.5), 400, "The notBefore is not a number of seconds", 0},
		{"a notBefore that is a string", with("notBefore", "5"), 400, "The notBefore is not a number of seconds", 0},
		{"a notBefore without a date", with("notBefore", int64(253402300800)), 400, "The notBefore is not a number of seconds", 0},
		{"a notBefore whose rule has no end", with("notBefore", int64(253402300799)), 400, "The notBefore is out of range", 0},
		{"a token that has the members of a push", access(map[string]any{
			"action": "PUSH_NOT_BEFORE", "resource": client, "expiration": 946684830, "notBefore": 5,
		}), 400, "The body is a token, not a push", 0},
		{"an access token", access(nil), 400, "The body is a token, not a push", 0},
		{"a payload that is not an object", signed(raw(`["PUSH_NOT_BEFORE"]`)), 400, "The payload is not a valid JSON object", 0},
		{"a payload with a duplicate member", signed(raw(`{"action":"LOGOUT","action":"PUSH_NOT_BEFORE"}`)), 400, "The payload is not a valid JSON object", 0},
		{"another type", signed(koretest.Token{Header: map[string]any{"typ": "logout+jwt"}}), 400, "The body is a JWT of another kind", 0},
		{"no body", func(realm) string { return "" }, 400, "The body is not a signed JWT", 0},
		{"JSON", func(realm) string { return `{"action":"PUSH_NOT_BEFORE"}` }, 400, "The body is not a signed JWT", 0},
		{"a body of 16 KiB and more", func(r realm) string { return r.push(5) + strings.Repeat("A", 16<<10) }, 400, "The body is not a signed JWT", 0},
		{"no signature", signed(koretest.Token{Algorithm: "none"}), 400, "The body is not a signed JWT", 0},
		{"a shared secret", signed(koretest.Token{Key: &koretest.Key{ID: "k", Algorithm: "HS256", Private: []byte("secret")}}), 400, "The body is not a signed JWT", 0},

		{"a bad signature", signed(koretest.Token{BadSignature: true}), 401, "The realm did not sign the body", 0},
		{"the key of another realm", signed(koretest.Token{Key: &other}), 401, "The realm did not sign the body", 0},
		{"the key of another realm, with the kid of this one", func(r realm) string {
			forged := other
			forged.ID = r.SigningKey().ID
			return r.mint(koretest.Token{Key: &forged, RawPayload: payload(5, nil)})
		}, 401, "The realm did not sign the body", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				r := newRealm(t)
				store := revocation.Memory()
				body := row.body(r)
				w := post(r.handler(store, slog.New(slog.NewTextHandler(&log, nil))), body)
				assert.Equal(t, row.status, w.Code)
				assert.Len(t, stored(t, store), row.rules)
				if row.answer == "" {
					assert.Empty(t, w.Body.String())
					assert.Empty(t, log.String())
					return
				}
				code := map[int]string{400: "invalid_request", 401: "invalid_signature"}[row.status]
				assert.Equal(t, fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, row.answer), w.Body.String())
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
				assert.Contains(t, log.String(), fmt.Sprintf(`level=INFO msg="koreauth: Keycloak's push rejected" status=%d reason=%q`, row.status, row.answer))
				for segment := range strings.SplitSeq(body, ".") {
					if len(segment) > 12 {
						assert.NotContains(t, log.String()+w.Body.String(), segment)
					}
				}
			})
		})
	}
	t.Run("other methods", func(t *testing.T) {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
			w := httptest.NewRecorder()
			newRealm(t).handler(revocation.Memory(), nil).ServeHTTP(w, httptest.NewRequest(method, "/", nil))
			assert.Equal(t, 405, w.Code)
			assert.Equal(t, "POST", w.Header().Get("Allow"))
		}
	})
	t.Run("a body that ends too early", func(t *testing.T) {
		r := newRealm(t)
		request := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(r.push(5)), failingReader{}))
		w := httptest.NewRecorder()
		r.handler(revocation.Memory(), nil).ServeHTTP(w, request)
		assert.Equal(t, 400, w.Code)
		request.Body = nil
		w = httptest.NewRecorder()
		r.handler(revocation.Memory(), nil).ServeHTTP(w, request)
		assert.Equal(t, 400, w.Code)
	})
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A captured push must not revoke the tokens again after an operator has lifted the
// rule.
func TestPushNotBefore_ReplayHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t)
		store := revocation.Memory()
		handler := r.handler(store, nil)
		first := r.push(5)
		for range 3 {
			assert.Equal(t, 204, post(handler, first).Code)
		}
		require.Len(t, stored(t, store), 1)
		time.Sleep(30 * time.Second)
		assert.Equal(t, 204, post(handler, r.push(6)).Code)
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: r.URL(), Everything: true, Lift: true})
		require.NoError(t, err)
		assert.Equal(t, 204, post(handler, first).Code)
		assert.Len(t, stored(t, store), 3)
		assert.Equal(t, 204, post(handler, r.push(5)).Code, "an administrator pushes again")
		assert.Len(t, stored(t, store), 4)
		time.Sleep(time.Second)
		assert.Equal(t, 400, post(handler, first).Code, "it has expired")
		assert.Len(t, stored(t, store), 4)
	})
	t.Run("a thousand pushes are remembered, until they have expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			key, err := koretest.NewKey("EdDSA")
			require.NoError(t, err)
			issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com", Keys: []*koretest.Key{key}})
			require.NoError(t, err)
			r, store := realm{issuer, t}, revocation.Memory()
			handler := r.handler(store, nil)
			replay := func(body string) (appended int) {
				before := len(stored(t, store))
				assert.Equal(t, 204, post(handler, body).Code)
				return len(stored(t, store)) - before
			}
			var bodies []string
			for i := range int64(1001) {
				bodies = append(bodies, r.push(5+i))
				require.Equal(t, 204, post(handler, bodies[i]).Code)
			}
			assert.Equal(t, 0, replay(bodies[999]))
			assert.Equal(t, 1, replay(bodies[1000]))
			time.Sleep(40 * time.Second)
			last := r.push(1)
			assert.Equal(t, 1, replay(last))
			assert.Equal(t, 0, replay(last), "there is room again")
		})
	})
}

func TestPushNotBefore_IsNoAccessToken(t *testing.T) {
	r := newRealm(t)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: r.URL(), Audience: []string{client}, HTTPClient: r.HTTPClient()})
	require.NoError(t, err)
	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set("Authorization", "Bearer "+r.push(5))
	w := httptest.NewRecorder()
	koreauth.New(validator, nil).Wrap(http.NotFoundHandler()).ServeHTTP(w, request)
	assert.Equal(t, 403, w.Code)
	_, err = validator.Validate(t.Context(), r.push(5))
	assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
}

// broken is a store whose Append does something else.
type broken struct {
	revocation.Store
	append func(context.Context) error
}

func (b broken) Append(ctx context.Context, _ revocation.Rule) (revocation.Receipt, error) {
	return revocation.Receipt{}, b.append(ctx)
}

func TestPushNotBefore_Outages(t *testing.T) {
	const answer = `{"error":"temporarily_unavailable","error_description":"The store of the rules did not answer: push again"}`
	for _, row := range []struct {
		name  string
		do    func(context.Context) error
		wait  time.Duration
		cause string
	}{
		{"an error", func(context.Context) error { return errors.New("secret cause") }, 0, "secret cause"},
		{"a panic", func(context.Context) error { panic("secret cause") }, 0, "it panicked with a string"},
		{"it hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 5 * time.Second, "deadline exceeded"},
		{"it ignores its context", func(context.Context) error { time.Sleep(time.Minute); return nil }, 5 * time.Second, "deadline exceeded"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				r := newRealm(t)
				var fails atomic.Bool
				fails.Store(true)
				store := revocation.Memory()
				handler := r.handler(broken{store, func(ctx context.Context) error {
					if fails.Load() {
						return row.do(ctx)
					}
					_, err := store.Append(ctx, revocation.Rule{Issuer: "i", Everything: true})
					return err
				}}, slog.New(slog.NewTextHandler(&log, nil)))
				start, body := time.Now(), r.push(5)
				w := post(handler, body)
				assert.Equal(t, row.wait, time.Since(start))
				assert.Equal(t, 503, w.Code)
				assert.Equal(t, answer, w.Body.String())
				assert.Contains(t, log.String(), "level=ERROR")
				assert.Contains(t, log.String(), row.cause)

				fails.Store(false)
				assert.Equal(t, 204, post(handler, body).Code)
				assert.Len(t, stored(t, store), 1, "it was not remembered as stored")
				time.Sleep(time.Hour) // until the store returns
			})
		})
	}
	t.Run("the keys cannot be fetched", func(t *testing.T) {
		r := newRealm(t)
		r.Behave(koretest.Down)
		w := post(r.handler(revocation.Memory(), nil), r.push(5))
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, `{"error":"temporarily_unavailable","error_description":"The keys of the realm could not be fetched: push again"}`, w.Body.String())
		assert.Equal(t, "1", w.Header().Get("Retry-After"))
	})
	t.Run("a Logger that panics", func(t *testing.T) {
		r := newRealm(t)
		w := post(r.handler(revocation.Memory(), slog.New(panicking{slog.DiscardHandler})), "x")
		assert.Equal(t, 400, w.Code)
	})
}

// panicking is a log handler that panics.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("log") }

func TestPushNotBefore_Keys(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Keys: []*koretest.Key{signingKey(t)}})
	require.NoError(t, err)
	defer issuer.Close()
	r := realm{issuer, t}
	static, err := koreauth.ParseKeys(issuer.JWKS())
	require.NoError(t, err)
	unnamed := koreauth.StaticKeySet{static[0]}
	unnamed[0].ID = ""
	for name, keys := range map[string]koreauth.KeySet{
		"discovered": nil, "static": koreauth.StaticKeySet(static), "without an ID": unnamed,
	} {
		t.Run(name, func(t *testing.T) {
			store := revocation.Memory()
			handler := keycloak.PushNotBefore(store, keycloak.Config{Issuer: issuer.URL(), Keys: keys, ClientID: client})
			assert.Equal(t, 204, post(handler, r.push(5)).Code)
			assert.Equal(t, 401, post(handler, r.mint(koretest.Token{RawPayload: payload(5, nil), BadSignature: true})).Code)
			assert.Equal(t, issuer.URL(), stored(t, store)[0].Rule.Issuer)
		})
	}
	t.Run("every algorithm of a realm", func(t *testing.T) {
		for _, algorithm := range []string{"RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
			key, err := koretest.NewKey(algorithm)
			require.NoError(t, err)
			require.NoError(t, issuer.AddKey(key))
			handler := keycloak.PushNotBefore(revocation.Memory(), keycloak.Config{Issuer: issuer.URL(), ClientID: client})
			assert.Equal(t, 204, post(handler, r.mint(koretest.Token{RawPayload: payload(5, nil), Key: key})).Code, algorithm)
		}
	})
}

func TestPushNotBefore_PanicsOnFaults(t *testing.T) {
	message := func(s revocation.Store, c keycloak.Config) (text string) {
		defer func() { text, _ = recover().(string) }()
		keycloak.PushNotBefore(s, c)
		return ""
	}
	all := message(nil, keycloak.Config{})
	assert.True(t, strings.HasPrefix(all, "keycloak: PushNotBefore: "), all)
	for _, fault := range []string{"the Store is nil", "Config.ClientID is empty", "Config.Issuer is empty"} {
		assert.Contains(t, all, fault)
	}
	valid := keycloak.Config{Issuer: "https://keycloak.example.com/realms/x", ClientID: client}
	assert.Empty(t, message(revocation.Memory(), valid))
	for name, row := range map[string]struct {
		change func(*keycloak.Config)
		want   string
	}{
		"http without keys":              {func(c *keycloak.Config) { c.Issuer = "http://keycloak.example.com/realms/x" }, "the Issuer"},
		"an empty static key set":        {func(c *keycloak.Config) { c.Keys = koreauth.StaticKeySet{} }, "empty StaticKeySet"},
		"a nil remote key set":           {func(c *keycloak.Config) { c.Keys = (*koreauth.RemoteKeySet)(nil) }, "nil *RemoteKeySet"},
		"a remote key set without a URL": {func(c *keycloak.Config) { c.Keys = &koreauth.RemoteKeySet{} }, "neither URL nor Issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid
			row.change(&c)
			assert.Contains(t, message(revocation.Memory(), c), row.want)
		})
	}
}

// No body causes a panic, a rule or a status 5xx.
func FuzzPushNotBefore(f *testing.F) {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com"})
	require.NoError(f, err)
	f.Add(`{"action":"PUSH_NOT_BEFORE","resource":"api-gw","expiration":1,"notBefore":5}`, false)
	f.Add(`{"action":"PUSH_NOT_BEFORE","resource":"api-gw","expiration":9999999999999999999,"notBefore":1e400}`, false)
	f.Add(issuer.Valid(), true)
	f.Fuzz(func(t *testing.T, text string, whole bool) {
		store := revocation.Memory()
		handler := keycloak.PushNotBefore(store, keycloak.Config{
			Issuer: issuer.URL(), Keys: &koreauth.RemoteKeySet{Issuer: issuer.URL(), HTTPClient: issuer.HTTPClient()}, ClientID: client,
		})
		body := text
		if !whole {
			body, err = issuer.Mint(koretest.Token{RawPayload: []byte(text)})
			require.NoError(t, err)
		}
		w := post(handler, body)
		assert.Less(t, w.Code, 500)
		if w.Code != 204 {
			assert.True(t, json.Valid(w.Body.Bytes()))
			assert.Empty(t, stored(t, store))
		}
	})
}
