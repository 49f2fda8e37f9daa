package koreauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
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

func TestExplain_AcceptedToken(t *testing.T) {
	issuer, v := newIssuer(t, "RS256", nil)
	e := assertExplained(t, v, issuer.Valid(), nil)
	for _, step := range e.Steps {
		assert.Equal(t, "pass", step.Verdict, step.Name)
		assert.Equal(t, step.Name != "form", step.Verified, step.Name)
		assert.NotEmpty(t, step.Want, step.Name)
		assert.NotEmpty(t, step.Found, step.Name)
		assert.NotEmpty(t, step.Rule, step.Name)
	}
	assert.True(t, strings.HasPrefix(e.String(), "accepted\n"), e.String())
	encoded, err := json.Marshal(e)
	require.NoError(t, err)
	assert.Contains(t, string(encoded), `{"accepted":true,"class":"","reason":"","steps":[{"name":"form","rule":"RFC 7515 §7.1",`)
}

func TestExplain_GoesOnAfterAFailure(t *testing.T) {
	v := newValidator(t, edConfig(edIssuer, edStatic("k")))
	now := time.Now()
	token := edToken(t, "k", map[string]any{
		"iss": edIssuer + "/", "aud": "other", "exp": now.Add(-time.Hour).Unix(), "nbf": now.Add(time.Hour).Unix(), "typ": "ID",
		"cnf": map[string]any{"jkt": "x"},
	})
	_, err := v.Validate(t.Context(), token)
	e := assertExplained(t, v, token, err)
	var failed []string
	for _, step := range e.Steps {
		if step.Verdict == "fail" {
			failed = append(failed, step.Name)
			assert.True(t, step.Verified)
			assert.NotEmpty(t, step.Hint)
		}
	}
	assert.Equal(t, []string{"issuer", "audience", "expiry", "not-before", "type", "binding"}, failed)
	assert.ErrorIs(t, e.Err, koreauth.ErrIssuer)

	forged := token[:len(token)-86] + strings.Repeat("A", 86)
	_, err = v.Validate(t.Context(), forged)
	e = assertExplained(t, v, forged, err)
	assert.ErrorIs(t, e.Err, koreauth.ErrSignature)
	assert.Equal(t, "fail", stepOf(t, e, "expiry").Verdict)
	assert.False(t, stepOf(t, e, "expiry").Verified)
	assert.Contains(t, e.String(), "(unverified) ")
}

// A mistake that is easy to make has a hint.
func TestExplain_Hints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		token := edToken(t, "k", nil)
		claim := func(name string, value any) string { return edToken(t, "k", map[string]any{name: value}) }
		header := func(header string) string {
			return signedToken(header, "k", map[string]any{"iss": edIssuer, "aud": "api-gw", "exp": now.Add(time.Hour).Unix()})
		}
		for _, row := range []struct {
			name, token, step, hint string
			reason                  error
		}{
			{"an empty token", "", "form", "the token is empty", koreauth.ErrMalformed},
			{"Bearer", "Bearer " + token, "form", "pass only the token", koreauth.ErrMalformed},
			{"bearer", "bearer " + token, "form", "pass only the token", koreauth.ErrMalformed},
			{"a header", "Authorization: Bearer " + token, "form", "pass only the token", koreauth.ErrMalformed},
			{"double quotes", `"` + token + `"`, "form", "remove the quotes", koreauth.ErrMalformed},
			{"single quotes", `'` + token + `'`, "form", "remove the quotes", koreauth.ErrMalformed},
			{"a comma at the end", token + `,`, "form", "remove the quotes", koreauth.ErrMalformed},
			{"a newline", token + "\n", "form", "remove the spaces", koreauth.ErrMalformed},
			{"a line break inside", token[:50] + "\r\n" + token[50:], "form", "remove the spaces", koreauth.ErrMalformed},
			{"the response", `{"access_token":"` + token + `"}`, "form", "access_token", koreauth.ErrMalformed},
			{"percent-encoding", strings.ReplaceAll(token, ".", "%2E"), "form", "percent-encoded", koreauth.ErrMalformed},
			{"padding", token + "==", "form", "without padding", koreauth.ErrMalformed},
			{"five segments", token + ".AAAA.BBBB", "form", "encrypted", koreauth.ErrMalformed},
			{"four segments", token + ".AAAA", "form", "more than one token", koreauth.ErrMalformed},
			{"a token that was cut before its signature", token[:strings.LastIndex(token, ".")], "form", "was cut", koreauth.ErrMalformed},
			{"a token that was cut early", token[:20], "form", "was cut", koreauth.ErrMalformed},
			{"a token that was cut inside its signature", token[:len(token)-10], "signature", "was cut", koreauth.ErrSignature},
			{"a token that was cut inside a byte", token[:len(token)-1], "form", "was cut", koreauth.ErrMalformed},
			{"an opaque token", "3f2b1c9a-5d9e-4a0c-9a5e-2f1f0f6b7a11", "form", "Config.Opaque", koreauth.ErrMalformed},
			{"a large token", token + strings.Repeat("A", 16<<10), "form", "let the issuer put less", koreauth.ErrMalformed},
			{"a DPoP proof", header(`{"alg":"EdDSA","kid":"k","typ":"dpop+jwt"}`), "header", "DPoP proof", koreauth.ErrTokenType},
			{"a logout token", header(`{"alg":"EdDSA","kid":"k","typ":"logout+jwt"}`), "header", "logout+jwt", koreauth.ErrTokenType},
			{"an algorithm that is not enabled", header(`{"alg":"ES256","kid":"k"}`), "algorithm", "add it to Config.Algorithms", koreauth.ErrAlgorithm},
			{"no signature", header(`{"alg":"none"}`), "algorithm", "not signed", koreauth.ErrAlgorithm},
			{"a shared secret", header(`{"alg":"HS256","kid":"k"}`), "algorithm", "shared secret", koreauth.ErrAlgorithm},
			{"an unknown algorithm", header(`{"alg":"<b>","kid":"k"}`), "algorithm", "RFC 7518", koreauth.ErrAlgorithm},
			{"an unknown key", header(`{"alg":"EdDSA","kid":"other"}`), "key", "another issuer", koreauth.ErrUnknownKey},
			{"kid in another case", header(`{"alg":"EdDSA","Kid":"k"}`), "key", `"kid"`, koreauth.ErrUnknownKey},
			{"a changed token", strings.Replace(token, ".", "IA.", 1), "header", "was changed", koreauth.ErrMalformed},
			{"another type", header(`{"alg":"EdDSA","kid":"k","typ":"vc+sd-jwt"}`), "header", "another type", koreauth.ErrTokenType},
			{"an extension", header(`{"alg":"EdDSA","kid":"k","crit":["b64"],"b64":false}`), "header", "extension", koreauth.ErrMalformed},
			{"another signature", edTokenSignedBy("k", "other", nil), "signature", "changed after it was signed", koreauth.ErrSignature},
			{"a slash at the end", claim("iss", edIssuer+"/"), "issuer", "slash", koreauth.ErrIssuer},
			{"another scheme", claim("iss", strings.Replace(edIssuer, "https", "http", 1)), "issuer", "scheme", koreauth.ErrIssuer},
			{"upper case", claim("iss", strings.ToUpper(edIssuer)), "issuer", "upper and lower case", koreauth.ErrIssuer},
			{"an upper-case host", claim("iss", strings.Replace(edIssuer, "issuer", "Issuer", 1)), "issuer", "upper and lower case", koreauth.ErrIssuer},
			{"/auth", claim("iss", strings.Replace(edIssuer, "/realms", "/auth/realms", 1)), "issuer", "/auth", koreauth.ErrIssuer},
			{"a port", claim("iss", strings.Replace(edIssuer, ".com", ".com:8443", 1)), "issuer", "port", koreauth.ErrIssuer},
			{"another realm", claim("iss", strings.Replace(edIssuer, "/one", "/two", 1)), "issuer", "realm", koreauth.ErrIssuer},
			{"an internal name", claim("iss", "http://keycloak:8080/realms/one"), "issuer", "host", koreauth.ErrIssuer},
			{"a space", claim("iss", edIssuer+" "), "issuer", "space", koreauth.ErrIssuer},
			{"another issuer", claim("iss", "https://elsewhere.example"), "issuer", "set Config.Issuer", koreauth.ErrIssuer},
			{"no issuer", claim("iss", nil), "issuer", `no "iss"`, koreauth.ErrIssuer},
			{"Keycloak's default audience", claim("aud", "account"), "audience", "Keycloak sets by default", koreauth.ErrAudience},
			{"the same as a list", claim("aud", []string{"account"}), "audience", "audience mapper", koreauth.ErrAudience},
			{"no audience", claim("aud", nil), "audience", `no "aud"`, koreauth.ErrAudience},
			{"an audience in another case", claim("aud", "API-GW"), "audience", "case", koreauth.ErrAudience},
			{"an audience with a slash", claim("aud", "api-gw/"), "audience", "slash", koreauth.ErrAudience},
			{"the client as audience", edToken(t, "k", map[string]any{"aud": "kc_1", "azp": "kc_1"}), "audience", "ID token", koreauth.ErrAudience},
			{"another audience", claim("aud", "other"), "audience", "token for this API", koreauth.ErrAudience},
			{"expired", claim("exp", now.Add(-time.Hour).Unix()), "expiry", "get a new token", koreauth.ErrExpired},
			{"just expired", claim("exp", now.Add(-3*time.Second).Unix()), "expiry", "ahead by 3s", koreauth.ErrExpired},
			{"no expiry", claim("exp", nil), "expiry", "never expire", koreauth.ErrExpired},
			{"a clock ahead", claim("nbf", now.Add(7*time.Second).Unix()), "not-before", "clock of the issuer is ahead of this machine's by 7s", koreauth.ErrNotYetValid},
			{"a token for later", claim("nbf", now.Add(24*time.Hour).Unix()), "not-before", "wait until then", koreauth.ErrNotYetValid},
			{"an odd nbf", claim("nbf", "soon"), "not-before", "number", koreauth.ErrNotYetValid},
			{"a clock ahead, by iat", claim("iat", now.Add(9*time.Second).Unix()), "age", "ahead of this machine's by 9s", koreauth.ErrTooOld},
			{"too old", claim("iat", now.Add(-48*time.Hour).Unix()), "age", "Config.MaxAge", koreauth.ErrTooOld},
			{"an hour ahead", claim("iat", now.Add(time.Hour).Unix()), "age", "by 1h0m0s or more: set the clocks", koreauth.ErrTooOld},
			{"days ahead", claim("iat", now.Add(48*time.Hour).Unix()), "age", "claim mappers", koreauth.ErrTooOld},
			{"nbf in milliseconds", claim("nbf", now.UnixMilli()), "not-before", "milliseconds", koreauth.ErrNotYetValid},
			{"iat in milliseconds", claim("iat", now.UnixMilli()), "age", "milliseconds", koreauth.ErrTooOld},
			{"iat in nanoseconds", claim("iat", now.UnixNano()), "age", "milliseconds", koreauth.ErrTooOld},
			{"a time long ago", claim("exp", int64(-99999999999999)), "expiry", "milliseconds", koreauth.ErrExpired},
			{"no iat", claim("iat", nil), "age", `no "iat"`, koreauth.ErrTooOld},
			{"a refresh token", claim("typ", "Refresh"), "type", "refresh token", koreauth.ErrTokenType},
			{"an offline token", claim("typ", "Offline"), "type", "refresh token", koreauth.ErrTokenType},
			{"an ID token", claim("typ", "ID"), "type", "ID token", koreauth.ErrTokenType},
			{"DPoP without a key", claim("typ", "DPoP"), "type", "jkt", koreauth.ErrTokenType},
			{"another client", claim("client_id", "kc_2"), "client", "Config.ClientIDs", koreauth.ErrClient},
			{"a client in another case", claim("client_id", "KC_1"), "client", "case", koreauth.ErrClient},
			{"a certificate", claim("cnf", map[string]string{"x5t#S256": strings.Repeat("A", 43)}), "binding", "certificate", koreauth.ErrBinding},
			{"a DPoP key", claim("cnf", map[string]string{"jkt": strings.Repeat("A", 43)}), "binding", "proof", koreauth.ErrBinding},
			{"an unknown binding", claim("cnf", map[string]string{"x": "y"}), "binding", "x5t#S256", koreauth.ErrBinding},
			{"no JSON", signToken(ed25519Header, "no JSON"), "payload", "get a new token", koreauth.ErrMalformed},
			{"an odd jti", claim("jti", 7), "payload", "get a new token", koreauth.ErrMalformed},
		} {
			config := edConfig(edIssuer, edStatic("k"))
			switch row.step {
			case "age":
				config.MaxAge = 24 * time.Hour
			case "client":
				config.ClientIDs = []string{"kc_1"}
			}
			v := newValidator(t, config)
			_, err := v.Validate(t.Context(), row.token)
			require.ErrorIs(t, err, row.reason, row.name)
			e := assertExplained(t, v, row.token, err)
			step := stepOf(t, e, row.step)
			assert.Equal(t, "fail", step.Verdict, row.name)
			assert.Contains(t, step.Hint, row.hint, row.name)
			if row.name == "a time long ago" {
				assert.Contains(t, step.Found, "0001-01-01T00:00:01Z, more than 290 years ago")
			}
		}
		e := newValidator(t, edConfig(edIssuer, edStatic("k"))).Explain(t.Context(), claim("iat", now.Add(9*time.Second).Unix()))
		assert.NoError(t, e.Err)
		assert.Contains(t, stepOf(t, e, "age").Hint, "ahead of this machine's by 9s", "a clock that differs is told of although the token is accepted")
		e = newValidator(t, edConfig(edIssuer, edStatic("k"))).Explain(t.Context(), edToken(t, "k", map[string]any{"exp": now.Add(time.Hour).UnixMilli(), "iat": now.UnixMilli()}))
		assert.NoError(t, e.Err)
		for _, name := range []string{"expiry", "age"} {
			step := stepOf(t, e, name)
			assert.Contains(t, step.Hint, "milliseconds", "%s: a time that is not in seconds is told of too", name)
			assert.Equal(t, "9999-12-31T23:59:59Z, in more than 290 years", step.Found, name)
		}
	})
}

// The table has at most 80 columns, also if characters take two or none.
func TestExplain_WideCharacters(t *testing.T) {
	v := newValidator(t, edConfig(edIssuer, edStatic("k")))
	for _, text := range []string{"世界", "한국어", "ひらがな", "カタカナ", "ＡＢＣ", "🙂🚀", "e\u0301", "世a"} {
		e := v.Explain(t.Context(), edToken(t, "k", map[string]any{"aud": strings.Repeat(text, 25)}))
		for line := range strings.Lines(e.String()) {
			columns := 0
			for _, r := range strings.TrimSuffix(line, "\n") {
				switch {
				case strings.ContainsRune("世界한국어ひらがなカタカナＡＢＣ🙂🚀", r):
					columns += 2
				case r != 0x301:
					columns++
				}
			}
			assert.LessOrEqual(t, columns, 80, line)
		}
		assert.Contains(t, strings.Join(strings.Fields(e.String()), ""), strings.Repeat(text, 20), "no character is lost")
	}
}

func TestExplain_Requirements(t *testing.T) {
	revoked := koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
		if c.ID == "revoked" {
			return koreauth.ErrRevoked
		}
		return nil
	})
	config := edConfig(edIssuer, edStatic("k"))
	config.Require = []koreauth.Requirement{revoked, koreauth.Product("SuperSIM")}
	v := newValidator(t, config)
	outage := koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error {
		return fmt.Errorf("%w: the database of owner@example.com is down", koreauth.ErrUnavailable)
	})
	token := edToken(t, "k", map[string]any{"jti": "revoked", "scope": "sims:read", "scopes": map[string]any{
		"globalResources": []any{map[string]any{"resourceName": "API Clients", "access": []string{"Read"}}},
	}})
	e := v.Explain(t.Context(), token, koreauth.Grant("API Clients", koreauth.Read, koreauth.Delete), outage, koreauth.Scope("sims:read"))
	steps := e.Steps[len(allSteps):]
	require.Len(t, steps, 5)
	for n, want := range []string{"fail", "fail", "fail", "unknown", "pass"} {
		assert.Equal(t, "requirement", steps[n].Name)
		assert.Equal(t, want, steps[n].Verdict, "%d: %+v", n, steps[n])
	}
	assert.Equal(t, "revoked", steps[0].Found)
	assert.Equal(t, "SuperSIM", steps[1].Want)
	assert.Equal(t, "API Clients:Read, API Clients:Delete", steps[2].Want)
	assert.Contains(t, steps[2].Found, `scopes "sims:read"; grants "API Clients:Read"`)
	assert.Contains(t, steps[2].Hint, "a new token is needed")
	assert.ErrorIs(t, e.Err, koreauth.ErrRevoked)
	assertNoSecrets(t, e, token)

	_, err := v.Validate(t.Context(), token)
	assert.Equal(t, err.Error(), e.Err.Error())

	e = v.Explain(t.Context(), edTokenSignedBy("k", "other", nil), outage)
	for _, step := range e.Steps[len(allSteps):] {
		assert.Equal(t, "skipped", step.Verdict, "the signature was not verified")
	}
	valid := edToken(t, "k", map[string]any{"scopes": map[string]any{"products": []string{"SuperSIM"}}})
	e = v.Explain(t.Context(), valid, koreauth.Scope("sims:read"))
	assert.ErrorIs(t, e.Err, koreauth.ErrInsufficientScope)
	assert.True(t, strings.HasPrefix(e.String(), "rejected: insufficient scope\n"), e.String())
	assert.PanicsWithValue(t, "koreauth: Explain: a requirement is nil", func() { v.Explain(t.Context(), valid, nil) })
}

// A requirement that changes its claims changes nothing else.
func TestExplain_RequirementsGetACopy(t *testing.T) {
	v := newValidator(t, edConfig(edIssuer, edStatic("k")))
	greedy := koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
		c.Scopes = append(c.Scopes, "admin")
		return nil
	})
	e := v.Explain(t.Context(), edToken(t, "k", nil), greedy, koreauth.Scope("admin"))
	assert.ErrorIs(t, e.Err, koreauth.ErrInsufficientScope)
}

func TestExplain_SeveralIssuers(t *testing.T) {
	v := newValidator(t, edConfig(issuerA, edStatic("a")), edConfig(issuerB, edStatic("b")))
	token := edToken(t, "b", map[string]any{"iss": issuerA})
	_, err := v.Validate(t.Context(), token)
	e := assertExplained(t, v, token, err)
	assert.Equal(t, "fail", stepOf(t, e, "key").Verdict)
	assert.Contains(t, stepOf(t, e, "key").Hint, issuerB, "the key is that of another issuer")

	token = edToken(t, "b", map[string]any{"iss": issuerB + "/", "aud": "other"})
	_, err = v.Validate(t.Context(), token)
	e = assertExplained(t, v, token, err)
	assert.ErrorIs(t, e.Err, koreauth.ErrIssuer)
	assert.Equal(t, "skipped", stepOf(t, e, "key").Verdict)
	assert.Contains(t, stepOf(t, e, "issuer").Hint, "slash")
	assert.Contains(t, stepOf(t, e, "issuer").Want, issuerA)

	reports := edConfig(issuerB, edStatic("b"))
	reports.Audience, reports.Algorithms = []string{"reports"}, []string{"ES256"}
	v = newValidator(t, edConfig(issuerA, edStatic("a")), reports)
	token = signedToken(`{"alg":"EdDSA","kid":"b","typ":"dpop+jwt"}`, "b", map[string]any{"iss": issuerB})
	_, err = v.Validate(t.Context(), token)
	e = assertExplained(t, v, token, err)
	assert.Equal(t, `"reports"`, stepOf(t, e, "audience").Want, "what is expected is that of the issuer")
	assert.Equal(t, "ES256", stepOf(t, e, "algorithm").Want)
	assert.Equal(t, "fail", stepOf(t, e, "algorithm").Verdict)
	assert.Equal(t, "skipped", stepOf(t, e, "signature").Verdict, "the algorithm is not accepted")
}

// The claims of a token that would be rejected anyway are shown as verified, if they
// are, and are not shown if they cannot be read.
func TestExplain_VerifiesWhatItCan(t *testing.T) {
	v := newValidator(t, edConfig(edIssuer, edStatic("k")))
	token := signedToken(`{"alg":"EdDSA","kid":"k","typ":"dpop+jwt"}`, "k", map[string]any{"iss": edIssuer})
	_, err := v.Validate(t.Context(), token)
	e := assertExplained(t, v, token, err)
	assert.Equal(t, "pass", stepOf(t, e, "signature").Verdict)
	assert.True(t, stepOf(t, e, "audience").Verified)

	token = signToken(ed25519Header, `{"iss":"`+edIssuer+`","aud":`)
	_, err = v.Validate(t.Context(), token)
	e = assertExplained(t, v, token, err)
	assert.Equal(t, "pass", stepOf(t, e, "signature").Verdict)
	assert.Equal(t, "fail", stepOf(t, e, "payload").Verdict)
	assert.Equal(t, "skipped", stepOf(t, e, "issuer").Verdict)
	assert.Empty(t, stepOf(t, e, "issuer").Found)
}

func TestExplain_Opaque(t *testing.T) {
	inactive := fmt.Errorf("%w: not active", koreauth.ErrInvalidToken) // as of another package
	config := edConfig(edIssuer, edStatic("k"))
	config.Require = []koreauth.Requirement{koreauth.Scope("sims:read")}
	config.Opaque = validateFunc(func(_ context.Context, token string) (*koreauth.Claims, error) {
		switch token {
		case "good":
			return koretest.Claims(map[string]any{"iss": edIssuer, "scope": "sims:read"}), nil
		case "poor":
			return koretest.Claims(map[string]any{"iss": edIssuer}), nil
		case "bound":
			return koretest.Claims(map[string]any{"scope": "sims:read", "cnf": map[string]string{"jkt": strings.Repeat("A", 43)}}), nil
		case "outage":
			return nil, errors.New("no route to host")
		case "nothing":
			return nil, nil
		}
		return nil, inactive
	})
	v := newValidator(t, config)
	for token, row := range map[string]struct {
		verdicts []string // of form, opaque, binding and the requirement
		reason   error
		text     string
	}{
		"good":     {[]string{"pass", "pass", "pass", "pass"}, nil, "accepted"},
		"poor":     {[]string{"pass", "pass", "pass", "fail"}, koreauth.ErrInsufficientScope, "rejected: insufficient scope"},
		"bound":    {[]string{"pass", "pass", "fail", "pass"}, koreauth.ErrBinding, "rejected: invalid token: sender not confirmed"},
		"outage":   {[]string{"pass", "unknown"}, koreauth.ErrUnavailable, "not judged: temporarily unavailable"},
		"nothing":  {[]string{"pass", "unknown"}, koreauth.ErrUnavailable, "not judged: temporarily unavailable"},
		"inactive": {[]string{"pass", "fail"}, inactive, "rejected: invalid token: not active"},
		"{bad}":    {[]string{"fail", "skipped"}, koreauth.ErrMalformed, "rejected: invalid token: malformed"},
	} {
		e := v.Explain(t.Context(), token)
		var verdicts []string
		for _, step := range e.Steps {
			verdicts = append(verdicts, step.Verdict)
		}
		assert.Equal(t, row.verdicts, verdicts, token)
		assert.Contains(t, e.Steps[0].Want, "opaque")
		line, _, _ := strings.Cut(e.String(), "\n")
		assert.Equal(t, row.text, line, token)
		_, err := v.Validate(t.Context(), token)
		if row.reason == nil {
			assert.NoError(t, e.Err)
			assert.NoError(t, err)
			continue
		}
		assert.ErrorIs(t, e.Err, row.reason, token)
		assert.Equal(t, err.Error(), e.Err.Error(), token)
	}
}

// What validates opaque tokens may quote the token in its errors.
func TestExplain_OpaqueTokenInAnError(t *testing.T) {
	const token = "opaque/1234567890-abcdefghij"
	for name, err := range map[string]error{
		"a URL":             fmt.Errorf("Get %q: connection refused", "https://as.example/introspect?token="+token),
		"an encoded one":    fmt.Errorf("Get %q: connection refused", "https://as.example/introspect?token="+url.QueryEscape(token)),
		"a reason":          &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: errors.New("no session for " + token)},
		"a wrapped class":   fmt.Errorf("%w: no session for %s", koreauth.ErrInvalidToken, token),
		"another class":     fmt.Errorf("%w: %s", koreauth.ErrForbidden, token),
		"a wrapped refusal": fmt.Errorf("%s: %w", token, &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: koreauth.ErrRevoked}),
	} {
		config := edConfig(edIssuer, edStatic("k"))
		config.Opaque = validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return nil, err })
		e := newValidator(t, config).Explain(t.Context(), token)
		text, failed := json.Marshal(e)
		require.NoError(t, failed)
		for _, shown := range []string{e.String(), string(text), fmt.Sprint(e.Steps)} {
			assert.NotContains(t, shown, "1234567890-abcdefghij", name)
		}
	}
}

// A caller that checks the sender too, such as koreauth explain --cert, sets Err itself.
func TestExplain_ErrOfTheCaller(t *testing.T) {
	e := edValidator(t, edStatic("k")).Explain(t.Context(), edToken(t, "k", nil))
	require.NoError(t, e.Err)
	e.Err = &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: fmt.Errorf("%w: no certificate", koreauth.ErrInvalidToken)}
	text, err := json.Marshal(e)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"class":"invalid token","reason":"no certificate"`)
}

// The error is that of Validate, with the same fields.
func TestExplain_OpaqueErrorHasTheClient(t *testing.T) {
	config := edConfig(edIssuer, edStatic("k"))
	config.Opaque = validateFunc(func(context.Context, string) (*koreauth.Claims, error) {
		return &koreauth.Claims{Issuer: edIssuer, ClientID: "kc_1", Confirmation: &koreauth.Confirmation{KeySHA256: "x"}}, nil
	})
	v := newValidator(t, config)
	_, err := v.Validate(t.Context(), "opaque")
	var validated, explained *koreauth.Error
	require.ErrorAs(t, err, &validated)
	require.ErrorAs(t, v.Explain(t.Context(), "opaque").Err, &explained)
	assert.Equal(t, "kc_1", explained.ClientID)
	assert.Equal(t, []string{validated.Issuer, validated.ClientID, validated.KeyID}, []string{explained.Issuer, explained.ClientID, explained.KeyID})
}

func TestExplain_Outage(t *testing.T) {
	withFakeTime(t, "", func(t *testing.T, net *network) {
		net.respondKeys(connectionRefused)
		v := edValidator(t, &koreauth.RemoteKeySet{URL: keysURL, HTTPClient: net.client()})
		token := edToken(t, "k", map[string]any{"aud": "other"})
		e := v.Explain(t.Context(), token)
		assert.ErrorIs(t, e.Err, koreauth.ErrUnavailable)
		assert.Equal(t, "unknown", stepOf(t, e, "key").Verdict)
		assert.Equal(t, "skipped", stepOf(t, e, "signature").Verdict)
		assert.Equal(t, "fail", stepOf(t, e, "audience").Verdict)
		assert.True(t, strings.HasPrefix(e.String(), "not judged: temporarily unavailable\n"))

		net.respondKeys(keysOf("k", "spare"))
		wait(time.Minute)
		e = v.Explain(t.Context(), token)
		assert.ErrorIs(t, e.Err, koreauth.ErrAudience)
		assert.Equal(t, `one of 2 keys: "k" "spare"`, stepOf(t, e, "key").Want)
	})
}

func TestExplain_NothingToJudgeWith(t *testing.T) {
	token := edToken(t, "k", nil)
	e := new(koreauth.Validator).Explain(t.Context(), token)
	assert.ErrorIs(t, e.Err, koreauth.ErrUnavailable)
	assertNoSecrets(t, e, token)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e = newValidator(t, edConfig(edIssuer, edStatic("k"))).Explain(ctx, token)
	assert.ErrorIs(t, e.Err, koreauth.ErrUnavailable)
	assert.ErrorIs(t, e.Err, context.Canceled)
	assert.Equal(t, "skipped", stepOf(t, e, "key").Verdict)
	assert.Equal(t, "pass", stepOf(t, e, "audience").Verdict)

	custom := keySetFunc(func(context.Context, string, bool) ([]koreauth.Key, error) { return edStatic("k"), nil })
	e = newValidator(t, edConfig(edIssuer, custom)).Explain(t.Context(), token)
	assert.NoError(t, e.Err)
	assert.Equal(t, "a key of the issuer", stepOf(t, e, "key").Want, "the keys of a custom set cannot be listed")
}

// Explain leaves the memory as it is.
func TestExplain_RemembersNothing(t *testing.T) {
	v := newValidator(t, edConfig(edIssuer, edStatic("k")))
	token := edToken(t, "k", nil)
	for range 3 {
		assert.NoError(t, v.Explain(t.Context(), token).Err)
	}
	assert.False(t, isRemembered(t, v, token))
	assert.False(t, isRemembered(t, v, token), "it is remembered at its second sight")
	assert.True(t, isRemembered(t, v, token))
}

// Text of an attacker is cut, printable, and not longer than a line.
func TestExplain_HostileText(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("x", 5000), "owner@example.com", "a\x1b[31mb\u202e", "line\nbreak", strings.Repeat("ä ", 2000), "<script>", "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.x", strings.Repeat("世", 300),
	} {
		config := edConfig(edIssuer, edStatic("k"))
		config.ClientIDs = []string{"kc_1"}
		v := newValidator(t, config)
		claims := map[string]any{text: text, "iss": text, "aud": []string{text, text}, "typ": text, "client_id": text, "account-id": text, "cnf": map[string]string{"jkt": text}, "scope": text}
		header, err := json.Marshal(map[string]string{"alg": "EdDSA", "kid": "k", "typ": text})
		require.NoError(t, err)
		for _, token := range []string{signedToken(string(header), "k", claims), signedToken(`{"alg":"EdDSA","kid":"k"}`, "k", claims), signedToken(`{"alg":"EdDSA","kid":"k"}`, "x", claims), text, text + "." + text + "." + text} {
			_, err := v.Validate(t.Context(), token)
			e := assertExplained(t, v, token, err)
			encoded, err := json.Marshal(e)
			require.NoError(t, err)
			assert.NotContains(t, e.String()+string(encoded), "\x1b")
			assert.NotContains(t, e.String()+string(encoded), "\u202e")
			assert.Less(t, len(encoded), 8000)
		}
	}
}

func TestError_PrintsNoValues(t *testing.T) {
	e := &koreauth.Error{
		Class: koreauth.ErrForbidden, Reason: fmt.Errorf("%w: owner@example.com", koreauth.ErrForbidden),
		KeyID: "key", Issuer: "https://issuer.example", ClientID: "owner@example.com",
	}
	encoded, err := json.Marshal(e)
	require.NoError(t, err)
	byValue, err := json.Marshal(struct{ E koreauth.Error }{*e})
	require.NoError(t, err)
	for _, text := range []string{string(encoded), string(byValue), fmt.Sprintf("%#v", e), fmt.Sprintf("%#v", *e)} {
		assert.Contains(t, text, "koreauth: forbidden")
		assert.NotContains(t, text, "owner")
		assert.NotContains(t, text, "issuer.example")
	}
}
