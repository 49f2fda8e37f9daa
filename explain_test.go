package koreauth_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// allSteps are the names of the steps of a token that has three segments.
var allSteps = []string{"form", "header", "algorithm", "key", "signature", "payload", "issuer", "audience", "expiry", "not-before", "age", "type", "client", "binding"}

// assertExplained checks that Explain judges a token as Validate did, whose error is
// err, and that it shows no secret.
func assertExplained(t testing.TB, v *koreauth.Validator, token string, err error) *koreauth.Explanation {
	t.Helper()
	e := v.Explain(t.Context(), token)
	if err == nil {
		assert.NoError(t, e.Err)
	} else if assert.Error(t, e.Err) {
		assert.Equal(t, err.Error(), e.Err.Error())
		for _, one := range everyReason {
			assert.Equal(t, errors.Is(err, one), errors.Is(e.Err, one), "%v", one)
		}
		var want, got *koreauth.Error
		require.ErrorAs(t, err, &want)
		require.ErrorAs(t, e.Err, &got)
		if want.Issuer != "" { // Explain reads the claims of every token.
			assert.Equal(t, []string{want.KeyID, want.Issuer, want.ClientID}, []string{got.KeyID, got.Issuer, got.ClientID})
		}
	}
	var names []string
	bad := 0
	for _, step := range e.Steps {
		names = append(names, step.Name)
		assert.Contains(t, []string{"pass", "fail", "skipped", "unknown"}, step.Verdict)
		if step.Verdict != "pass" {
			bad++
		}
	}
	assert.Equal(t, allSteps, names[:min(len(names), len(allSteps))])
	assert.Equal(t, err != nil, bad > 0, "a rejected token has a step that did not pass")
	assertNoSecrets(t, e, token)
	return e
}

// assertNoSecrets checks what an explanation shows.
func assertNoSecrets(t testing.TB, e *koreauth.Explanation, token string) {
	t.Helper()
	encoded, err := json.Marshal(e)
	require.NoError(t, err)
	for _, text := range []string{e.String(), string(encoded)} {
		for _, secret := range []string{"owner@example.com", "not-for-any-log"} {
			assert.NotContains(t, text, secret)
		}
		for segment := range strings.SplitSeq(token, ".") {
			if len(segment) >= 43 {
				assert.NotContains(t, text, segment)
			}
		}
	}
	for line := range strings.Lines(e.String()) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
}

// stepOf returns the step of that name.
func stepOf(t testing.TB, e *koreauth.Explanation, name string) koreauth.Step {
	t.Helper()
	n := slices.IndexFunc(e.Steps, func(s koreauth.Step) bool { return s.Name == name })
	require.GreaterOrEqual(t, n, 0, "there is no step %s", name)
	return e.Steps[n]
}

// everyReason lists the classes and the reasons.
var everyReason = []error{
	koreauth.ErrNoToken, koreauth.ErrBadRequest, koreauth.ErrInvalidToken, koreauth.ErrInsufficientScope, koreauth.ErrForbidden, koreauth.ErrUnavailable,
	koreauth.ErrMalformed, koreauth.ErrAlgorithm, koreauth.ErrSignature, koreauth.ErrUnknownKey, koreauth.ErrIssuer, koreauth.ErrAudience, koreauth.ErrExpired,
	koreauth.ErrNotYetValid, koreauth.ErrTooOld, koreauth.ErrTokenType, koreauth.ErrClient, koreauth.ErrBinding, koreauth.ErrRevoked,
}
