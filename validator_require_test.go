package koreauth_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// rememberedBy returns whether v remembers the token, which it must accept.
func rememberedBy(t *testing.T, v *koreauth.Validator, token string) bool {
	t.Helper()
	remembered := false
	guard := koreauth.New(v, &koreauth.Options{Observe: func(_ *http.Request, o koreauth.Outcome) { remembered = o.Remembered }})
	status, body := serve(guard.Wrap(whoami), bearerRequest(token))
	require.Equal(t, http.StatusOK, status, body)
	return remembered
}

func TestConfig_RequireAtOnce(t *testing.T) {
	revoked := new(probe)
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = []koreauth.Requirement{revoked} })
	guard := koreauth.New(v, nil)
	token, other := issuer.Valid(), issuer.Valid()
	accepted := func(token string, want bool) {
		t.Helper()
		_, err := v.Validate(t.Context(), token)
		assert.Equal(t, want, err == nil, "Validate: %v", err)
		_, err = guard.Authenticate(bearerRequest(token))
		assert.Equal(t, want, err == nil, "Authenticate: %v", err)
		if !want {
			assert.ErrorIs(t, err, koreauth.ErrRevoked)
			status, body := serve(guard.WrapOptional(whoami), bearerRequest(token))
			assert.Equal(t, http.StatusForbidden, status)
			assert.Equal(t, bodyB, body)
		}
	}
	accepted(token, true)
	accepted(token, true)
	revoked.err = koreauth.ErrRevoked
	accepted(token, false)
	accepted(other, false)
	revoked.err = nil
	calls := revoked.calls()
	assert.True(t, rememberedBy(t, v, token), "it is checked from memory, so that a store of revocations may be wrong for a while")
	assert.False(t, rememberedBy(t, v, other), "a token that was rejected is not remembered")
	assert.True(t, rememberedBy(t, v, other))
	assert.Equal(t, calls+3, revoked.calls(), "checked once for each request")
}

// A token that Config.Require rejects is not remembered, whatever the class of
// the error.
func TestConfig_RequireDecidesWhatIsRemembered(t *testing.T) {
	for _, err := range []error{koreauth.ErrRevoked, koreauth.ErrForbidden, koreauth.ErrUnavailable, errors.New("no class")} {
		rule := new(probe)
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = []koreauth.Requirement{rule} })
		rememberedBy(t, v, issuer.Valid()) // From now on, the header of the issuer's tokens is known.
		token := issuer.Valid()
		rule.err = err
		for range 2 {
			_, err := koreauth.New(v, nil).Authenticate(bearerRequest(token))
			assert.ErrorIs(t, err, rule.err)
		}
		rule.err = nil
		assert.False(t, rememberedBy(t, v, token), "after %v", err)
	}
}

// The order is: the client, the binding, Config.Require.
func TestConfig_RequireIsLast(t *testing.T) {
	rule := &probe{err: koreauth.ErrRevoked}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require, c.ClientIDs = []koreauth.Requirement{rule}, []string{"kc_demo"}
	})
	require.NoError(t, issuer.Register(koretest.Client{ID: "other"}))
	bound := koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "key"}}
	sender := &probe{err: koreauth.ErrBinding}
	confirmed := koreauth.New(v, &koreauth.Options{Sender: sender})
	for _, row := range []struct {
		name   string
		recipe koretest.Token
		guard  *koreauth.Middleware // nil: Validate
		want   error
		calls  int
	}{
		{"another client", koretest.Token{ClientID: "other"}, nil, koreauth.ErrClient, 0},
		{"a bound token in Validate", bound, nil, koreauth.ErrBinding, 0},
		{"a bound token under a guard without a Sender", bound, koreauth.New(v, nil), koreauth.ErrBinding, 0},
		{"a bound token under a guard with a Sender", bound, confirmed, koreauth.ErrRevoked, 1},
		{"an unknown kind of binding", koretest.Token{Confirmation: &koreauth.Confirmation{}}, confirmed, koreauth.ErrBinding, 0},
		{"a token that is otherwise valid", koretest.Token{}, nil, koreauth.ErrRevoked, 1},
	} {
		rule.claims = nil
		token := mintToken(t, issuer, row.recipe)
		var err error
		if row.guard == nil {
			_, err = v.Validate(t.Context(), token)
		} else {
			_, err = row.guard.Authenticate(bearerRequest(token))
		}
		assert.ErrorIs(t, err, row.want, row.name)
		assert.Equal(t, row.calls, rule.calls(), row.name)
		assert.Zero(t, sender.calls(), "%s: Sender is checked after Config.Require", row.name)
	}
}

func TestConfig_RequireChecksAllInOrder(t *testing.T) {
	var order []string
	first, second, third := &probe{name: "first", order: &order}, &probe{name: "second", order: &order}, &probe{name: "third", order: &order}
	rules := []koreauth.Requirement{first, koreauth.AllOf(second), third}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = rules })
	rules[0] = &probe{err: koreauth.ErrForbidden} // Config was copied.
	token := issuer.Valid()
	for range 2 {
		order = nil
		_, err := v.Validate(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, []string{"first", "second", "third"}, order)
	}
	second.err = koreauth.ErrRevoked
	order = nil
	_, err := v.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	assert.Equal(t, []string{"first", "second"}, order)
}

// The requirements of Config and Options get the claims that the Validator
// remembers, at any depth. The caller gets a copy.
func TestConfig_RequireSharesClaims(t *testing.T) {
	probes := newPlaceProbes()
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{koreauth.AnyOf(koreauth.Scope("none"), koreauth.AllOf(probes.at[inConfig]))}
	})
	guard := koreauth.New(v, &koreauth.Options{
		Sender:  koreauth.AllOf(probes.at[asSender]),
		Require: []koreauth.Requirement{koreauth.AnyOf(koreauth.Scope("none"), probes.at[inOptions])},
	})
	token := issuer.Valid()
	for range 3 {
		own, err := guard.Authenticate(bearerRequest(token))
		require.NoError(t, err)
		shared := probes.at[inConfig].claims[0]
		for _, at := range []place{inConfig, asSender, inOptions} {
			for _, claims := range probes.at[at].claims {
				assert.Same(t, shared, claims, placeNames[at])
			}
		}
		assert.NotSame(t, shared, own)
		assert.Equal(t, shared, own)
		mutate(own)
	}
	own, err := v.Validate(t.Context(), token)
	require.NoError(t, err)
	assert.NotSame(t, probes.at[inConfig].claims[0], own)
	assert.Equal(t, "kc_demo", own.ClientID)
}

func TestConfig_RequireOpaque(t *testing.T) {
	rule := new(probe)
	validated := newTokenTable()
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require, c.Opaque = []koreauth.Requirement{rule}, validated })
	guard := koreauth.New(v, nil)

	claims, err := v.Validate(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, "client-a", claims.ClientID)
	r := bearerRequest("a")
	_, err = guard.Authenticate(r)
	require.NoError(t, err)
	assert.Equal(t, []*http.Request{nil, r}, rule.requests)
	assert.False(t, rememberedBy(t, v, "a"), "opaque tokens are not remembered")

	rule.err = koreauth.ErrRevoked
	_, err = v.Validate(t.Context(), "a")
	assert.ErrorIs(t, err, koreauth.ErrRevoked)
	var refusal *koreauth.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "client-a", refusal.ClientID)

	rule.claims, validated.validated = nil, nil
	_, err = v.Validate(t.Context(), "forged")
	assert.ErrorIs(t, err, koreauth.ErrSignature)
	assert.Zero(t, rule.calls())
	_, _ = v.Validate(t.Context(), issuer.Valid())
	assert.Equal(t, []string{"forged"}, validated.validated, "Opaque does not get tokens of three segments")
}

// A requirement that waits for a look-up has the context of the request.
func TestConfig_RequireSeesContext(t *testing.T) {
	type key struct{}
	var got any
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
		c.Require = []koreauth.Requirement{koreauth.RequirementFunc(func(r *http.Request, _ *koreauth.Claims) error {
			got = r.Context().Value(key{})
			return nil
		})}
	})
	r := bearerRequest(issuer.Valid())
	_, err := koreauth.New(v, nil).Authenticate(r.WithContext(context.WithValue(r.Context(), key{}, "trace")))
	require.NoError(t, err)
	assert.Equal(t, "trace", got)
}

// koreauth does not change the error of a requirement.
func TestConfig_RequireKeepsErrors(t *testing.T) {
	own := &koreauth.Error{Class: koreauth.ErrForbidden}
	for _, want := range []koreauth.Error{{Class: koreauth.ErrForbidden}, {Class: koreauth.ErrInsufficientScope, Required: []string{"a"}}, {}} {
		*own = want
		rule := &probe{err: own}
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = []koreauth.Requirement{rule} })
		plain := koretest.Validator{Claims: fullClaims()}
		token := issuer.Valid()
		for _, guard := range []*koreauth.Middleware{
			koreauth.New(v, nil),
			koreauth.New(plain, &koreauth.Options{Sender: rule}),
			koreauth.New(plain, &koreauth.Options{Require: []koreauth.Requirement{rule}}),
		} {
			_, err := guard.Authenticate(bearerRequest(token))
			require.Error(t, err)
			assert.Equal(t, want, *own)
		}
		serve(koreauth.New(plain, nil).Require(rule)(whoami), bearerRequest("a"))
		assert.Equal(t, want, *own)
	}
}

func TestConfig_RequireRejectsNil(t *testing.T) {
	_, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuerURL, Audience: []string{"a"}, Require: []koreauth.Requirement{koreauth.Scope("a"), nil},
	})
	assert.ErrorContains(t, err, "Config.Require has a nil Requirement")
}
