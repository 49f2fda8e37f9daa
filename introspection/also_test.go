package introspection_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/revocation"
	"maps"
)

// lightweight are the members that Keycloak leaves in a lightweight token.
var lightweight = []string{"aud", "client_id", "account-id", "client-type", "client-owner", "scopes", "products", "api-key", "ip-range", "scope"}

// answerTo returns the answer for a JWT: its claims, and what the issuer tells alone.
func answerTo(t testing.TB, token string, change map[string]any) string {
	t.Helper()
	claims := map[string]any{}
	payload, err := koretestPayload(token)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(payload, &claims))
	all := map[string]any{"active": true, "aud": "api-gw", "client_id": claims["azp"], "scope": "sims:read", "account-id": "CO1"}
	maps.Copy(all, claims)
	for name, value := range change {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	require.NoError(t, err)
	return string(text)
}

func koretestPayload(token string) ([]byte, error) {
	return decodeSegment(strings.Split(token, ".")[1])
}

// newAlso returns a Validator for lightweight tokens of an issuer.
func newAlso(t testing.TB, issuer *koretest.Issuer, s *server, jwt func(*koreauth.Config), change ...func(*introspection.Config)) *introspection.Validator {
	t.Helper()
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{"nobody"}, HTTPClient: issuer.HTTPClient()}
	if jwt != nil {
		jwt(&config)
	}
	validator, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	v, err := introspection.Also(validator, newConfig(s, append(change, func(c *introspection.Config) { c.Issuer = issuer.URL() })...))
	require.NoError(t, err)
	return v
}

func startIssuer(t testing.TB) *koretest.Issuer {
	t.Helper()
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

func mint(t testing.TB, issuer *koretest.Issuer, token koretest.Token) string {
	t.Helper()
	token.Drop = append(token.Drop, lightweight...)
	text, err := issuer.Mint(token)
	require.NoError(t, err)
	return text
}

// A lightweight token has the claims of the answer.
func TestAlso_LightweightToken(t *testing.T) {
	issuer, s := startIssuer(t), &server{}
	token := mint(t, issuer, koretest.Token{})
	s.answer = reply(200, answerTo(t, token, nil))
	v := newAlso(t, issuer, s, nil)
	for range 3 {
		claims, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, []string{"sims:read"}, claims.Scopes)
		assert.Equal(t, "CO1", claims.AccountID)
		assert.Equal(t, issuer.URL(), claims.Issuer)
		assert.NotEmpty(t, claims.ID)
	}
	assert.Equal(t, 1, s.count())
}

// What is not verified is not asked about.
func TestAlso_VerifiesFirst(t *testing.T) {
	issuer, s := startIssuer(t), &server{answer: reply(200, active(nil))}
	v := newAlso(t, issuer, s, nil)
	elsewhere := startIssuer(t)
	for name, row := range map[string]struct {
		token string
		want  error
	}{
		"forged":         {issuer.Forged(), koreauth.ErrUnknownKey},
		"changed":        {issuer.Valid()[:200] + "A" + issuer.Valid()[201:], koreauth.ErrInvalidToken},
		"expired":        {issuer.Expired(), koreauth.ErrExpired},
		"another issuer": {elsewhere.Valid(), koreauth.ErrUnknownKey},
		"two segments":   {"a.b", koreauth.ErrMalformed},
		"opaque":         {"good", koreauth.ErrMalformed},
		"empty":          {"", koreauth.ErrMalformed},
	} {
		_, err := v.Validate(t.Context(), row.token)
		assert.ErrorIs(t, err, row.want, name)
	}
	assert.Zero(t, s.count())
}

// The token and the answer must agree.
func TestAlso_AnswerThatDiffers(t *testing.T) {
	issuer := startIssuer(t)
	const thumbprint = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for name, row := range map[string]struct {
		change map[string]any
		bound  bool
		want   error // nil: accepted
	}{
		"the same":         {nil, false, nil},
		"another subject":  {map[string]any{"sub": "other"}, false, koreauth.ErrUnavailable},
		"no subject":       {map[string]any{"sub": nil}, false, nil},
		"another ID":       {map[string]any{"jti": "other"}, false, koreauth.ErrUnavailable},
		"no ID":            {map[string]any{"jti": nil}, false, nil},
		"another client":   {map[string]any{"client_id": "other"}, false, koreauth.ErrUnavailable},
		"no client":        {map[string]any{"client_id": nil, "azp": nil}, false, nil},
		"another expiry":   {map[string]any{"exp": time.Now().Add(48 * time.Hour).Unix()}, false, koreauth.ErrUnavailable},
		"no expiry":        {map[string]any{"exp": nil}, false, nil},
		"another issuer":   {map[string]any{"iss": "https://other.example"}, false, koreauth.ErrUnavailable},
		"no issuer":        {map[string]any{"iss": nil}, false, koreauth.ErrUnavailable},
		"another audience": {map[string]any{"aud": "other"}, false, koreauth.ErrAudience},
		"no audience":      {map[string]any{"aud": nil}, false, koreauth.ErrAudience},
		"a refresh token":  {map[string]any{"typ": "Refresh"}, false, koreauth.ErrTokenType},
		"bound":            {nil, true, nil},
		"bound, no cnf":    {map[string]any{"cnf": nil}, true, nil},
		"bound otherwise":  {map[string]any{"cnf": map[string]string{"jkt": thumbprint}}, true, koreauth.ErrUnavailable},
		"inactive":         {map[string]any{"active": false}, false, introspection.ErrInactive},
	} {
		minted := koretest.Token{}
		if row.bound {
			minted.Confirmation = &koreauth.Confirmation{CertificateSHA256: thumbprint}
		}
		token := mint(t, issuer, minted)
		v := newAlso(t, issuer, &server{answer: reply(200, answerTo(t, token, row.change))}, nil)
		claims, err := v.Validate(t.Context(), token)
		if row.want != nil {
			assert.ErrorIs(t, err, row.want, name)
			continue
		}
		require.NoError(t, err, name)
		own, err := koretestPayload(token)
		require.NoError(t, err)
		var read koreauth.Claims
		require.NoError(t, read.UnmarshalJSON(own))
		assert.Equal(t, []string{read.Subject, read.ID, read.ClientID, read.Expiry.String()}, []string{claims.Subject, claims.ID, claims.ClientID, claims.Expiry.String()}, name)
		assert.Equal(t, row.bound, claims.Confirmation != nil, name)
	}
}

// The signature is verified each time: a key that the issuer removed ends the token.
func TestAlso_VerifiesEachTime(t *testing.T) {
	issuer, s := startIssuer(t), &server{}
	token := mint(t, issuer, koretest.Token{})
	s.answer = reply(200, answerTo(t, token, nil))
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{"nobody"}}
	keys := &koreauth.RemoteKeySet{Issuer: issuer.URL(), MinInterval: time.Millisecond, MaxAge: time.Millisecond}
	config.Keys = keys
	jwt, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	v, err := introspection.Also(jwt, newConfig(s, func(c *introspection.Config) { c.Issuer, c.MaxAge = issuer.URL(), time.Hour }))
	require.NoError(t, err)
	_, err = v.Validate(t.Context(), token)
	require.NoError(t, err)
	old := issuer.SigningKey().ID
	issuer.Rotate()
	issuer.RemoveKey(old)
	require.Eventually(t, func() bool {
		_, err := v.Validate(t.Context(), token)
		return err != nil
	}, 10*time.Second, 5*time.Millisecond)
	assert.Equal(t, 1, s.count())
}

// One guard takes JWTs, lightweight and opaque tokens, and those of several issuers.
func TestAlso_OneGuardForAll(t *testing.T) {
	issuer, second, s := startIssuer(t), startIssuer(t), &server{}
	token := mint(t, issuer, koretest.Token{})
	s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
		if form.Get("token") == token {
			return reply(200, answerTo(t, token, nil))(req, form)
		}
		return reply(200, `{"active":false}`)(req, form)
	}
	opaque := newValidator(t, &server{answer: func(req *http.Request, form url.Values) (*http.Response, error) {
		return reply(200, active(map[string]any{"iss": issuer.URL()}))(req, form)
	}}, func(c *introspection.Config) { c.Issuer = issuer.URL() })
	asked := 0
	jwt, err := koreauth.NewValidator(
		koreauth.Config{Issuer: issuer.URL(), Audience: []string{"api-gw"}, Opaque: opaque, Require: []koreauth.Requirement{
			koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
				if asked++; c.AccountID == "" && c.ID != "" {
					return fmt.Errorf("%w: these are not the claims of the answer", koreauth.ErrForbidden)
				}
				return nil
			}),
		}},
		koreauth.Config{Issuer: second.URL(), Audience: []string{koretest.Audience}},
	)
	require.NoError(t, err)
	v, err := introspection.Also(jwt, newConfig(s, func(c *introspection.Config) { c.Issuer = issuer.URL() }))
	require.NoError(t, err)
	guarded := koreauth.New(v, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, row := range map[string]struct {
		token string
		want  int
	}{
		"lightweight":        {token, 200},
		"opaque":             {"opaque-token", 200},
		"of the second":      {second.Valid(), 200},
		"forged":             {issuer.Forged(), 403},
		"inactive":           {mint(t, issuer, koretest.Token{}), 403},
		"not a bearer token": {"a{b}", 401},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+row.token)
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		assert.Equal(t, row.want, w.Code, name)
	}
	assert.Equal(t, 2, asked, "Config.Require is asked about the lightweight and the opaque token")
}

// With Keycloak 26.6.2 and later, a client gets answers about tokens for it alone.
func TestAlso_AudienceTrap(t *testing.T) {
	issuer, s := startIssuer(t), &server{answer: reply(200, `{"active":false}`)}
	var log bytes.Buffer
	v := newAlso(t, issuer, s, nil, func(c *introspection.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 3 {
		_, err := v.Validate(t.Context(), mint(t, issuer, koretest.Token{}))
		assert.ErrorIs(t, err, introspection.ErrInactive)
	}
	assert.Equal(t, 1, strings.Count(log.String(), "put this client into"), log.String())
	assert.Contains(t, log.String(), "client_id=api")
	assert.NotContains(t, log.String(), "eyJ")

	log.Reset()
	v = newAlso(t, issuer, s, nil, func(c *introspection.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	token := mint(t, issuer, koretest.Token{})
	s.set(reply(200, answerTo(t, token, nil)))
	_, err := v.Validate(t.Context(), token)
	require.NoError(t, err)
	s.set(reply(200, `{"active":false}`))
	_, err = v.Validate(t.Context(), mint(t, issuer, koretest.Token{}))
	assert.ErrorIs(t, err, introspection.ErrInactive)
	assert.Empty(t, log.String(), "the client has got answers, so the token is not active")
}

func TestAlso_Faults(t *testing.T) {
	_, err := introspection.Also(nil, introspection.Config{})
	assert.ErrorContains(t, err, "Also needs a Validator")
	assert.ErrorContains(t, err, "Config.Issuer is empty")
	jwt, err := koreauth.NewValidator(koreauth.Config{Issuer: "https://other.example", Audience: []string{"a"}})
	require.NoError(t, err)
	_, err = introspection.Also(jwt, newConfig(&server{}))
	assert.ErrorContains(t, err, "is not an issuer of the Validator")
	_, err = introspection.Also(jwt, introspection.Config{Issuer: issuerURL, Style: 7})
	assert.ErrorContains(t, err, "is not an issuer of the Validator")
	assert.ErrorContains(t, err, "Style is unknown")
}

// What restricts the token, or says whose it is, holds although the answer leaves it out.
func TestAlso_KeepsTheRestrictionsOfTheToken(t *testing.T) {
	issuer := startIssuer(t)
	for name, row := range map[string]struct {
		claims map[string]any // of the token
		change map[string]any // of the answer
		check  func(*koreauth.Claims, error) bool
	}{
		"azp differs beside an equal client_id":     {nil, map[string]any{"azp": "other"}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"an ID token, and the answer is silent":     {map[string]any{"typ": "ID"}, map[string]any{"typ": nil, "token_type": nil}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"a refresh token, and the answer is silent": {map[string]any{"typ": "Refresh"}, map[string]any{"typ": nil}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"an odd nbf":               {map[string]any{"nbf": "soon"}, map[string]any{"nbf": nil}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"a later nbf in the token": {map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}, map[string]any{"nbf": 1}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"ip-range": {map[string]any{"ip-range": []string{"10.0.0.0/8"}}, map[string]any{"ip-range": nil}, func(c *koreauth.Claims, err error) bool {
			return err == nil && len(c.IPRanges) == 1
		}},
		"another ip-range":   {map[string]any{"ip-range": []string{"10.0.0.0/8"}}, map[string]any{"ip-range": []string{"0.0.0.0/0"}}, func(_ *koreauth.Claims, err error) bool { return err != nil }},
		"account-id":         {map[string]any{"account-id": "CO9"}, map[string]any{"account-id": nil}, func(c *koreauth.Claims, err error) bool { return err == nil && c.AccountID == "CO9" }},
		"another account-id": {map[string]any{"account-id": "CO9"}, map[string]any{"account-id": "CO1"}, func(c *koreauth.Claims, err error) bool { return err != nil }},
	} {
		drop := []string{"aud", "client_id", "scopes", "products", "api-key", "scope"}
		for _, extra := range []string{"ip-range", "account-id"} {
			if _, ok := row.claims[extra]; !ok {
				drop = append(drop, extra)
			}
		}
		token, err := issuer.Mint(koretest.Token{Claims: row.claims, Drop: drop})
		require.NoError(t, err)
		v := newAlso(t, issuer, &server{answer: reply(200, answerTo(t, token, row.change))}, nil)
		c, err := v.Validate(t.Context(), token)
		assert.True(t, row.check(c, err), "%s: %v %v", name, c, err)
	}
}

// MaxAge and ClientIDs of the Config of jwt apply.
func TestAlso_RulesOfTheJWT(t *testing.T) {
	issuer, s := startIssuer(t), &server{}
	token := mint(t, issuer, koretest.Token{})
	s.answer = reply(200, answerTo(t, token, nil))
	v := newAlso(t, issuer, s, func(c *koreauth.Config) { c.ClientIDs = []string{"somebody-else"} })
	_, err := v.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrClient, "ClientIDs of jwt")
	old := mint(t, issuer, koretest.Token{Claims: map[string]any{"iat": time.Now().Add(-time.Hour).Unix(), "exp": time.Now().Add(time.Hour).Unix()}})
	s.set(reply(200, answerTo(t, old, nil)))
	v = newAlso(t, issuer, s, func(c *koreauth.Config) { c.MaxAge = time.Minute })
	_, err = v.Validate(t.Context(), old)
	assert.ErrorIs(t, err, koreauth.ErrTooOld, "MaxAge of jwt")
}

// An answer without "exp" is never used in an outage, although the token has one.
func TestAlso_AnswerWithoutExpIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
		require.NoError(t, err)
		s, token := &server{}, mint(t, issuer, koretest.Token{})
		s.set(reply(200, answerTo(t, token, map[string]any{"exp": nil})))
		v := newAlso(t, issuer, s, nil, func(c *introspection.Config) { c.ServeStale = time.Hour })
		_, err = v.Validate(t.Context(), token)
		require.NoError(t, err)
		s.set(outage)
		pass(10*time.Second - 1)
		_, err = v.Validate(t.Context(), token)
		require.NoError(t, err)
		pass(1)
		_, err = v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
}

// A rule for the account of the token ends it, although the answer has no account.
func TestAlso_RevokedAccount(t *testing.T) {
	issuer, s := startIssuer(t), &server{}
	token, err := issuer.Mint(koretest.Token{Drop: []string{"aud"}})
	require.NoError(t, err)
	list := &revocation.List{}
	var own koreauth.Claims
	payload, _ := koretestPayload(token)
	require.NoError(t, own.UnmarshalJSON(payload))
	require.NotEmpty(t, own.AccountID)
	require.NoError(t, list.Apply(revocation.Rule{Issuer: issuer.URL(), Account: own.AccountID, IssuedBefore: time.Now().Add(time.Minute)}))
	s.set(reply(200, answerTo(t, token, map[string]any{"account-id": nil})))
	v := newAlso(t, issuer, s, func(c *koreauth.Config) { c.Require = []koreauth.Requirement{list} })
	_, err = v.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	s.set(reply(200, answerTo(t, token, map[string]any{"iat": time.Now().Add(time.Hour).Unix()})))
	v = newAlso(t, issuer, s, func(c *koreauth.Config) { c.Require = []koreauth.Requirement{list} })
	_, err = v.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrRevoked, "iat of the answer differs from that of the token")
}
