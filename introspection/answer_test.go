package introspection_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/introspection"
)

// with returns the answer for an active token, with more members.
func with(members string) string { return strings.Replace(active(nil), "{", "{"+members+",", 1) }

// unclear are answers that do not say whether a token is active: the token is neither
// accepted nor rejected.
var unclear = map[string]struct {
	status int
	body   string
	header []string
}{
	"nothing":                    {200, "", nil},
	"null":                       {200, "null", nil},
	"true":                       {200, "true", nil},
	"a string":                   {200, `"active"`, nil},
	"an array":                   {200, "[" + `{"active":true}` + "]", nil},
	"an empty object":            {200, "{}", nil},
	"no active":                  {200, `{"iss":"x"}`, nil},
	"active as a string":         {200, with(`"x":1,"active":"true"`), nil},
	"active is a string":         {200, strings.Replace(active(nil), `"active":true`, `"active":"true"`, 1), nil},
	"active is one":              {200, strings.Replace(active(nil), `"active":true`, `"active":1`, 1), nil},
	"active is null":             {200, strings.Replace(active(nil), `"active":true`, `"active":null`, 1), nil},
	"active is an object":        {200, strings.Replace(active(nil), `"active":true`, `"active":{}`, 1), nil},
	"active is an array":         {200, strings.Replace(active(nil), `"active":true`, `"active":[true]`, 1), nil},
	"active is TRUE":             {200, strings.Replace(active(nil), `"active":true`, `"active":TRUE`, 1), nil},
	"active in another case":     {200, strings.Replace(active(nil), `"active"`, `"Active"`, 1), nil},
	"active twice":               {200, with(`"active":true`), nil},
	"active false and true":      {200, with(`"active":false`), nil},
	"active twice, escaped":      {200, with(`"\u0061ctive":false`), nil},
	"active inside":              {200, `{"data":` + active(nil) + `}`, nil},
	"another member twice":       {200, with(`"x":1,"x":2`), nil},
	"aud twice":                  {200, with(`"aud":"other"`), nil},
	"text after it":              {200, active(nil) + "x", nil},
	"two objects":                {200, active(nil) + active(nil), nil},
	"a comma at the end":         {200, strings.Replace(active(nil), "}", ",}", 1), nil},
	"a comment":                  {200, "/**/" + active(nil), nil},
	"cut":                        {200, active(nil)[:40], nil},
	"single quotes":              {200, strings.ReplaceAll(active(nil), `"`, "'"), nil},
	"a NUL":                      {200, active(nil) + "\x00", nil},
	"a NUL inside":               {200, with("\"a\x00\":1"), nil},
	"no UTF-8":                   {200, with("\"a\xff\":1"), nil},
	"a lone surrogate":           {200, with(`"a":"\ud800"`), nil},
	"UTF-16":                     {200, "\xff\xfe{\x00", nil},
	"deep":                       {200, with(`"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100)), nil},
	"large":                      {200, with(`"a":"` + strings.Repeat("x", 1<<20) + `"`), nil},
	"HTML":                       {200, "<html>", []string{"Content-Type", "text/html"}},
	"JSON as HTML":               {200, active(nil), []string{"Content-Type", "text/html"}},
	"JSON as text":               {200, active(nil), []string{"Content-Type", "text/plain"}},
	"no type":                    {200, active(nil), []string{"Content-Type", ""}},
	"an odd type":                {200, active(nil), []string{"Content-Type", "application/json, text/html"}},
	"a JWT":                      {200, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", []string{"Content-Type", "application/token-introspection+jwt"}},
	"JSON as a JWT":              {200, active(nil), []string{"Content-Type", "application/token-introspection+jwt"}},
	"a problem":                  {200, active(nil), []string{"Content-Type", "application/problem+json"}},
	"201":                        {201, active(nil), nil},
	"202":                        {202, active(nil), nil},
	"204":                        {204, "", nil},
	"206":                        {206, active(nil), nil},
	"a redirect":                 {302, active(nil), []string{"Location", "https://evil.example/"}},
	"a redirect that keeps POST": {307, active(nil), []string{"Location", endpoint + "/"}},
	"400":                        {400, active(nil), nil},
	"400, inactive":              {400, `{"active":false}`, nil},
	"401":                        {401, active(nil), nil},
	"401, inactive":              {401, `{"active":false}`, nil},
	"403":                        {403, active(nil), nil},
	"404":                        {404, `{"active":false}`, nil},
	"429":                        {429, active(nil), nil},
	"500":                        {500, active(nil), nil},
	"503":                        {503, `{"active":false}`, nil},
	"an error in a 200":          {200, `{"error":"invalid_request"}`, nil},
	"exp is a string":            {200, active(map[string]any{"exp": "4102444800"}), nil},
	"exp is null":                {200, strings.Replace(active(map[string]any{"exp": 0}), `"exp":0`, `"exp":null`, 1), nil},
	"exp is an object":           {200, active(map[string]any{"exp": map[string]any{}}), nil},
	"token_type is a number":     {200, active(map[string]any{"token_type": 1}), nil},
	"jti is a number":            {200, active(map[string]any{"jti": 7}), nil},
	"sub is an array":            {200, active(map[string]any{"sub": []string{"a"}}), nil},
	"client_id is a number":      {200, active(map[string]any{"client_id": 7}), nil},
	"account-id is an object":    {200, active(map[string]any{"account-id": map[string]any{}}), nil},
}

func TestValidate_UnclearAnswers(t *testing.T) {
	require.GreaterOrEqual(t, len(unclear), 60)
	for name, row := range unclear {
		t.Run(name, func(t *testing.T) {
			v := newValidator(t, &server{answer: reply(row.status, row.body, row.header...)})
			claims, err := v.Validate(t.Context(), "good")
			assert.Nil(t, claims)
			var refusal *koreauth.Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, koreauth.ErrUnavailable, refusal.Class)
			assert.Positive(t, refusal.RetryAfter)
			assert.NotErrorIs(t, err, koreauth.ErrInvalidToken)
		})
	}
}

// What is clear is judged like a token.
func TestValidate_Answers(t *testing.T) {
	for name, row := range map[string]struct {
		body string
		want error
	}{
		"active":                        {active(nil), nil},
		"white space":                   {" \r\n\t" + active(nil) + "\n", nil},
		"a byte order mark":             {"\ufeff" + active(nil), nil},
		"several audiences":             {active(map[string]any{"aud": []string{"other", "api-gw"}}), nil},
		"no token_type":                 {active(map[string]any{"token_type": nil}), nil},
		"token_type in another case":    {active(map[string]any{"token_type": "bearer"}), nil},
		"typ Bearer":                    {active(map[string]any{"typ": "Bearer"}), nil},
		"no exp":                        {active(map[string]any{"exp": nil}), nil},
		"azp alone":                     {active(map[string]any{"client_id": nil, "azp": "kc_1"}), nil},
		"inactive":                      {`{"active":false}`, introspection.ErrInactive},
		"inactive, with claims":         {strings.Replace(active(nil), "true", "false", 1), introspection.ErrInactive},
		"inactive, with an odd exp":     {`{"active":false,"exp":"x"}`, introspection.ErrInactive},
		"another issuer":                {active(map[string]any{"iss": "https://other.example"}), koreauth.ErrIssuer},
		"an issuer with a slash":        {active(map[string]any{"iss": issuerURL + "/"}), koreauth.ErrIssuer},
		"no issuer":                     {active(map[string]any{"iss": nil}), koreauth.ErrIssuer},
		"another audience":              {active(map[string]any{"aud": "other"}), koreauth.ErrAudience},
		"no audience":                   {active(map[string]any{"aud": nil}), koreauth.ErrAudience},
		"an audience that begins alike": {active(map[string]any{"aud": "api-gw2"}), koreauth.ErrAudience},
		"expired":                       {active(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), koreauth.ErrExpired},
		"expired for ever":              {active(map[string]any{"exp": 0}), koreauth.ErrExpired},
		"for later":                     {active(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), koreauth.ErrNotYetValid},
		"an odd nbf":                    {active(map[string]any{"nbf": "soon"}), koreauth.ErrNotYetValid},
		"a refresh token":               {active(map[string]any{"typ": "Refresh"}), koreauth.ErrTokenType},
		"an ID token":                   {active(map[string]any{"typ": "ID"}), koreauth.ErrTokenType},
		"a refresh token by token_type": {active(map[string]any{"token_type": "refresh_token"}), koreauth.ErrTokenType},
		"another client":                {active(map[string]any{"client_id": "kc_2"}), koreauth.ErrClient},
		"a client in another case":      {active(map[string]any{"client_id": "KC_1"}), koreauth.ErrClient},
	} {
		t.Run(name, func(t *testing.T) {
			v := newValidator(t, &server{answer: reply(200, row.body)}, func(c *introspection.Config) { c.ClientIDs = []string{"kc_1"} })
			for range 2 { // new and remembered
				claims, err := v.Validate(t.Context(), "good")
				if row.want == nil {
					require.NoError(t, err)
					assert.Equal(t, "kc_1", claims.ClientID)
					continue
				}
				assert.Nil(t, claims)
				assert.ErrorIs(t, err, row.want)
				assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
			}
		})
	}
}

// No answer of any kind accepts a token but a clear one.
func FuzzValidate_Answer(f *testing.F) {
	for _, row := range unclear {
		f.Add(row.status, row.body, "application/json")
	}
	f.Add(200, active(nil), "application/json; charset=utf-8")
	f.Add(200, `{"active":false}`, "application/json")
	f.Fuzz(func(t *testing.T, status int, body, contentType string) {
		v := newValidator(t, &server{answer: reply(status, body, "Content-Type", contentType)})
		claims, err := v.Validate(t.Context(), "good")
		assert.NotEqual(t, claims == nil, err == nil)
		if err == nil {
			assert.Equal(t, 200, status)
			assert.Regexp(t, `"(a|\\u0061)[^"]*"\s*:\s*true`, body)
			assert.Equal(t, issuerURL, claims.Issuer)
			assert.Contains(t, claims.Audience, "api-gw")
		}
	})
}

// An outage of any form is 503, and is over when the issuer answers again.
func TestValidate_Outages(t *testing.T) {
	hang := func(req *http.Request, _ url.Values) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	for name, answer := range map[string]func(*http.Request, url.Values) (*http.Response, error){
		"refused": outage, "hanging": hang, "401": reply(401, ""), "429": reply(429, ""), "500": reply(500, ""), "599": reply(599, ""),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{answer: answer}
			v := newValidator(t, s)
			start := time.Now()
			_, err := v.Validate(t.Context(), "good")
			assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
			assert.LessOrEqual(t, time.Since(start), 2*time.Second, name)
			asked := s.count()
			for n := range 100 { // They fail at once, without a request.
				before := time.Now()
				_, err = v.Validate(t.Context(), fmt.Sprint("good", n))
				assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
				assert.Equal(t, before, time.Now(), name)
			}
			assert.Equal(t, asked, s.count(), name)
			s.set(good)
			pass(250 * time.Millisecond)
			_, err = v.Validate(t.Context(), "good")
			assert.NoError(t, err, name)
			_, err = v.Validate(t.Context(), "good2")
			assert.NoError(t, err, name)
		})
	}
}

// After a failure there is one request in 250 ms, whoever asks.
func TestValidate_Probes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: outage}
		v := newValidator(t, s)
		for n := range 1000 {
			_, err := v.Validate(t.Context(), fmt.Sprint("good", n))
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			pass(10 * time.Millisecond)
		}
		assert.InDelta(t, 40, s.count(), 3, "requests in ten seconds")
	})
}

// While one request finds out whether an outage is over, no other is sent.
func TestValidate_OneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(req *http.Request, _ url.Values) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}}
		v := newValidator(t, s)
		_, err := v.Validate(t.Context(), "good")
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		pass(time.Second)
		require.Equal(t, 1, s.count())
		for n := range 100 {
			go func() { _, _ = v.Validate(t.Context(), fmt.Sprint("good", n)) }()
		}
		pass(time.Second)
		assert.Equal(t, 2, s.count())
		pass(2 * time.Second)
	})
}

// What one token's answer is concerns no other token.
func TestValidate_AnOddAnswerConcernsItsToken(t *testing.T) {
	for _, answer := range []answerFunc{
		reply(400, ""), reply(403, ""), reply(404, ""), reply(302, ""), reply(200, "<html>"), reply(200, `{}`),
		reply(200, `{"active":true,"x":"`+strings.Repeat("x", 1<<20)+`"}`), reply(403, strings.Repeat("x", 1<<20+1)),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &server{}
			s.answer = func(req *http.Request, form url.Values) (*http.Response, error) {
				if form.Get("token") == "odd" {
					return answer(req, form)
				}
				return good(req, form)
			}
			v := newValidator(t, s)
			_, err := v.Validate(t.Context(), "odd")
			assert.ErrorIs(t, err, koreauth.ErrUnavailable)
			_, err = v.Validate(t.Context(), "good")
			assert.NoError(t, err)
		})
	}
}
