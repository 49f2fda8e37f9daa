package devissuer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
	"github.com/koreauth/koreauth/koretest"
)

const base = "http://127.0.0.1:8081"

// signingKey is an RS256 key, which all tests share because making one takes time.
var signingKey = sync.OnceValue(func() *koretest.Key {
	key, err := koretest.NewKey("RS256")
	if err != nil {
		panic(err)
	}
	return key
})

func newIssuer(t *testing.T) *devissuer.Issuer {
	t.Helper()
	issuer, err := devissuer.New(base, []*koretest.Key{signingKey()})
	require.NoError(t, err)
	return issuer
}

// send sends a request to a handler. edit may change it.
func send(h http.Handler, method, path, body string, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, base+path, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answer is what the page gets for a token.
type answer struct {
	Token       string
	Error       string
	Explanation struct {
		Accepted      bool
		Class, Reason string
		Steps         []struct{ Name, Verdict, Hint string }
	}
}

// mint gets a token as the page does.
func mint(t *testing.T, h http.Handler, client, lifetime, fault, requires string) answer {
	t.Helper()
	body, err := json.Marshal(map[string]string{"client": client, "lifetime": lifetime, "fault": fault, "requires": requires})
	require.NoError(t, err)
	return read(t, send(h, "POST", "/page/token", string(body), nil))
}

func read(t *testing.T, w *httptest.ResponseRecorder) (a answer) {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
	return a
}

// options returns the values of a list of the page.
func options(t *testing.T, h http.Handler, id string) (values []string) {
	t.Helper()
	page := send(h, "GET", "/", "", nil).Body.String()
	list := regexp.MustCompile(`(?s)<select id="` + id + `">(.*?)</select>`).FindStringSubmatch(page)
	require.NotNil(t, list, id)
	for _, option := range regexp.MustCompile(`value="([^"]*)"`).FindAllStringSubmatch(list[1], -1) {
		values = append(values, option[1])
	}
	return values
}

// validatorFor returns the validator that an API would have, with the issuer's keys.
func validatorFor(t *testing.T, h http.Handler) *koreauth.Validator {
	t.Helper()
	keys, err := koreauth.ParseKeys(send(h, "GET", "/realms/KORE-CIDP/protocol/openid-connect/certs", "", nil).Body.Bytes())
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: base + "/realms/KORE-CIDP", Audience: []string{"api-gw"}, Keys: koreauth.StaticKeySet(keys),
	})
	require.NoError(t, err)
	return validator
}

// reasons are the reasons for which a token with a fault is rejected.
var reasons = map[string]error{
	"none":          nil,
	"expired":       koreauth.ErrExpired,
	"no-expiry":     koreauth.ErrExpired,
	"not-before":    koreauth.ErrNotYetValid,
	"audience":      koreauth.ErrAudience,
	"issuer":        koreauth.ErrIssuer,
	"issuer-slash":  koreauth.ErrIssuer,
	"id-token":      koreauth.ErrTokenType,
	"refresh-token": koreauth.ErrTokenType,
	"bound":         koreauth.ErrBinding,
	"no-permission": nil, // for a route that requires nothing
	"signature":     koreauth.ErrSignature,
	"unknown-key":   koreauth.ErrUnknownKey,
	"unsigned":      koreauth.ErrAlgorithm,
	"shared-secret": koreauth.ErrAlgorithm,
	"critical":      koreauth.ErrMalformed,
	"cut":           koreauth.ErrMalformed,
	"quoted":        koreauth.ErrMalformed,
}

func TestIssuer_MintsEachFault(t *testing.T) {
	issuer := newIssuer(t)
	validator := validatorFor(t, issuer)
	faults := options(t, issuer, "fault")
	assert.Len(t, faults, len(reasons))
	for _, lifetime := range options(t, issuer, "lifetime") {
		for _, fault := range faults {
			want, known := reasons[fault]
			require.True(t, known, fault)
			a := mint(t, issuer, "kc_demo", lifetime, fault, "none")
			_, err := validator.Validate(t.Context(), a.Token)
			if want == nil {
				assert.NoError(t, err, fault)
				assert.True(t, a.Explanation.Accepted, fault)
				continue
			}
			assert.ErrorIs(t, err, want, fault)
			assert.False(t, a.Explanation.Accepted, fault)
			assert.Equal(t, want.Error(), "koreauth: "+a.Explanation.Class+": "+a.Explanation.Reason, fault)
			failed := 0
			for _, step := range a.Explanation.Steps {
				if step.Verdict == "fail" {
					failed++
					assert.NotEmpty(t, step.Hint, fault)
				}
			}
			assert.Equal(t, 1, failed, "%s: the fault is the only one", fault)
		}
	}
}

func TestIssuer_MintsWhatIsChosen(t *testing.T) {
	issuer := newIssuer(t)
	validator := validatorFor(t, issuer)
	lifetimes := map[string]time.Duration{
		"1m": time.Minute, "1h": koretest.OneHour, "1d": koretest.OneDay, "30d": koretest.ThirtyDays, "24mo": koretest.TwentyFourMonths,
	}
	assert.Len(t, options(t, issuer, "lifetime"), len(lifetimes))
	for _, client := range options(t, issuer, "client") {
		for id, lifetime := range lifetimes {
			claims, err := validator.Validate(t.Context(), mint(t, issuer, client, id, "none", "none").Token)
			require.NoError(t, err)
			assert.Equal(t, client, claims.ClientID)
			assert.InDelta(t, lifetime.Seconds(), claims.Expiry.Sub(claims.IssuedAt).Seconds(), 1)
		}
	}
	for client, meets := range map[string]string{
		"kc_demo":     "read delete product scope none",
		"kc_reader":   "read scope none",
		"kc_standard": "product scope none",
	} {
		for _, requires := range options(t, issuer, "requires") {
			a := mint(t, issuer, client, "1h", "none", requires)
			assert.Equal(t, strings.Contains(meets, requires), a.Explanation.Accepted, "%s %s", client, requires)
			a = mint(t, issuer, client, "1h", "no-permission", requires)
			assert.Equal(t, requires == "none", a.Explanation.Accepted, "%s %s", client, requires)
		}
	}
}

func TestIssuer_AddsAndReplacesClaims(t *testing.T) {
	issuer := newIssuer(t)
	validator := validatorFor(t, issuer)
	with := func(claims string) *httptest.ResponseRecorder {
		body, err := json.Marshal(map[string]string{"client": "kc_demo", "lifetime": "1h", "fault": "none", "requires": "none", "claims": claims})
		require.NoError(t, err)
		return send(issuer, "POST", "/page/token", string(body), nil)
	}
	claims, err := validator.Validate(t.Context(), read(t, with(` {"account-id":"CO42","exp":4102444800,"x":[1,{"y":null}],"n":9007199254740993}`)).Token)
	require.NoError(t, err)
	assert.Equal(t, "CO42", claims.AccountID)
	assert.Equal(t, int64(4102444800), claims.Expiry.Unix())
	var more struct {
		X json.RawMessage
		N int64
	}
	require.NoError(t, claims.Decode(&more))
	assert.JSONEq(t, `[1,{"y":null}]`, string(more.X))
	assert.Equal(t, int64(9007199254740993), more.N)
	assert.Equal(t, "wrong audience", read(t, with(`{"aud":["a","b"]}`)).Explanation.Reason)
	for _, none := range []string{"", " \n", "{}"} {
		assert.True(t, read(t, with(none)).Explanation.Accepted, "%q", none)
	}
	for _, odd := range []string{"null", "[]", "1", `"x"`, "{", `{"a":1} {}`, `{'a':1}`, "a=1"} {
		w := with(odd)
		assert.Equal(t, http.StatusBadRequest, w.Code, odd)
		assert.JSONEq(t, `{"error":"devissuer: the claims must be a JSON object, such as {\"account-id\": \"CO42\"}"}`, w.Body.String(), odd)
	}
}

func TestIssuer_ExplainsATokenOfTheTokenEndpoints(t *testing.T) {
	issuer := newIssuer(t)
	client := issuer.Client()
	assert.Equal(t, "kc_demo", client.ID)
	for path, edit := range map[string]func(*http.Request){
		"/api-services/v1/auth/token": nil,
		"/oauth/v2/token":             func(r *http.Request) { r.SetBasicAuth(client.ID, client.Secret) },
	} {
		body := "grant_type=client_credentials"
		if edit == nil {
			body += "&client_id=" + client.ID + "&client_secret=" + client.Secret
		}
		w := send(issuer, "POST", path, body, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if edit != nil {
				edit(r)
			}
		})
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		var response struct {
			Token string `json:"access_token"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &response))
		a := read(t, send(issuer, "POST", "/page/explain", `{"token":"`+response.Token+`","requires":"delete"}`, nil))
		assert.True(t, a.Explanation.Accepted)
		assert.Equal(t, response.Token, a.Token)
	}
}

func TestIssuer_EndpointsBehaveAsChosen(t *testing.T) {
	const token = "/api-services/v1/auth/token"
	paths := map[string]string{
		"keys": "/realms/KORE-CIDP/protocol/openid-connect/certs /realms/KORE-CIDP/.well-known/openid-configuration", "token": token,
	}
	paths["all"] = paths["keys"] + " " + paths["token"]
	issuer := newIssuer(t)
	assert.ElementsMatch(t, []string{"all", "keys", "token"}, options(t, issuer, "at"))
	for _, at := range options(t, issuer, "at") {
		for _, behavior := range options(t, issuer, "behavior") {
			w := send(issuer, "POST", "/page/endpoints", `{"endpoints":"`+at+`","behavior":"`+behavior+`"}`, nil)
			require.Equal(t, http.StatusOK, w.Code)
			page := send(issuer, "GET", "/", "", nil).Body.String()
			assert.Contains(t, page, `<option value="`+behavior+`" selected>`)
			assert.Contains(t, page, `<option value="`+at+`" selected>`)
			for path := range strings.FieldsSeq(paths["all"]) {
				got := outcome(t, issuer, path)
				if strings.Contains(paths[at], path) && behavior != "normal" {
					assert.Equal(t, behavior, got, "%s of %s", path, at)
				} else {
					assert.Equal(t, "normal", got, "%s of %s", path, at)
				}
			}
			assert.True(t, mint(t, issuer, "kc_demo", "1h", "none", "read").Explanation.Accepted, "the page works")
		}
	}
}

// outcome returns the name of what an endpoint does.
func outcome(t *testing.T, issuer http.Handler, path string) (name string) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		defer func() {
			if v := recover(); v != nil {
				err, ok := v.(error)
				require.True(t, ok && errors.Is(err, http.ErrAbortHandler), v)
				name = "down"
				if time.Since(start) == time.Hour {
					name = "hanging"
				}
			}
		}()
		method := http.MethodGet
		if strings.HasSuffix(path, "/token") {
			method = http.MethodPost
		}
		w := send(issuer, method, path, "", func(r *http.Request) { *r = *r.WithContext(ctx) })
		switch {
		case time.Since(start) > 0:
			name = "slow"
		case w.Code == http.StatusTooManyRequests:
			name = "429"
		case w.Code == http.StatusInternalServerError:
			name = "500"
		case w.Code == http.StatusServiceUnavailable:
			name = "503"
		case w.Body.Len() == 0:
			name = "empty"
		case strings.HasPrefix(w.Body.String(), "<"):
			name = "garbage"
		default:
			name = "normal"
		}
	})
	return name
}

func TestNew_RejectsWhatCannotWork(t *testing.T) {
	for _, row := range []struct {
		name, base string
		keys       []*koretest.Key
		want       string
	}{
		{"no key", base, nil, "devissuer: there is no key: pass at least one"},
		{"a secret as key", base, []*koretest.Key{{Algorithm: "HS256", Private: []byte("secret")}}, "devissuer: the first key cannot be used"},
		{"a URL with a path", base + "/", []*koretest.Key{signingKey()}, "must be http:// or https:// and a host"},
	} {
		_, err := devissuer.New(row.base, row.keys)
		assert.ErrorContains(t, err, row.want, row.name)
	}
}

func TestNew_DerivesSecretsFromTheKey(t *testing.T) {
	first, second := newIssuer(t).Client().Secret, newIssuer(t).Client().Secret
	assert.Equal(t, first, second, "the same key")
	assert.Len(t, first, 32)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other, err := devissuer.New(base, []*koretest.Key{{ID: "1", Algorithm: "ES256", Private: private}, signingKey()})
	require.NoError(t, err)
	assert.NotEqual(t, first, other.Client().Secret, "another key")
	assert.True(t, mint(t, other, "kc_demo", "1h", "none", "read").Explanation.Accepted, "keys of two algorithms")
	assert.Equal(t, "unknown key", mint(t, other, "kc_demo", "1h", "unknown-key", "read").Explanation.Reason)
}
