package koreauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// reasonRow produces one record with a real issuer and a real request.
type reasonRow struct {
	name   string
	of     string                 // the class, or the reason of an invalid token, as in the log
	edit   func(*koreauth.Config) // or nil
	other  func(*koreauth.Config) // a second issuer, or nil
	sender koreauth.Requirement   // Options.Sender, or nil
	route  koreauth.Requirement   // of the route, or nil
	down   bool                   // the issuer answers with 500
	token  koretest.Token
	edits  func(r *http.Request, token string) // instead of the header, or nil
	want   map[string]any                      // beside those that each record has
}

// verifiedAttrs are the attributes of a record about a verified token.
func verifiedAttrs(more map[string]any) map[string]any {
	return withAttrs(map[string]any{"issuer": issuerURL + "/realms/KORE-CIDP", "client_id": "kc_demo", "key_id": signingKeys()["RS256"].ID, "account_id": "CO1", "token_id": "t-1"}, more)
}

// unverifiedAttrs are the attributes of a record about a token that was not verified.
func unverifiedAttrs(more map[string]any) map[string]any {
	return withAttrs(map[string]any{"unverified_issuer": issuerURL + "/realms/KORE-CIDP", "unverified_client_id": "kc_demo", "unverified_key_id": signingKeys()["RS256"].ID}, more)
}

func withAttrs(all, more map[string]any) map[string]any {
	maps.Copy(all, more)
	return all
}

func seconds(n float64) float64 { return n * float64(time.Second) }

func reasonRows() []reasonRow {
	claim := func(name string, value any) koretest.Token {
		return koretest.Token{Claims: map[string]any{name: value}}
	}
	header := func(name string, value any) koretest.Token {
		return koretest.Token{Header: map[string]any{name: value}}
	}
	at := func(d time.Duration) int64 { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Unix() }
	fails := func(err error) koreauth.Requirement { return &probe{err: err} }
	iss := issuerURL + "/realms/KORE-CIDP"
	kid := signingKeys()["RS256"].ID
	return []reasonRow{
		{name: "no header", of: "no token", edits: func(*http.Request, string) {},
			want: map[string]any{"level": "DEBUG", "authorization": "absent"}},
		{name: "another scheme", of: "no token", edits: func(r *http.Request, _ string) { r.SetBasicAuth("user", "password") },
			want: map[string]any{"level": "DEBUG", "authorization": "Basic"}},
		{name: "the token without a scheme", of: "no token", edits: func(r *http.Request, token string) { r.Header.Set("Authorization", token) },
			want: map[string]any{"level": "DEBUG", "authorization": "without a scheme"}},

		{name: "two headers", of: "bad request", edits: func(r *http.Request, token string) {
			r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token}
		}, want: map[string]any{"cause": "more than one Authorization header"}},
		{name: "Bearer alone", of: "bad request", edits: func(r *http.Request, _ string) { r.Header.Set("Authorization", "Bearer") },
			want: map[string]any{"cause": "Authorization is Bearer without a token"}},
		{name: "a space in the token", of: "bad request", edits: func(r *http.Request, token string) { r.Header.Set("Authorization", "Bearer a "+token) },
			want: map[string]any{"cause": "not one b64token (RFC 6750 §2.1)"}},

		{name: "an opaque token", of: "malformed", edits: func(r *http.Request, _ string) { r.Header.Set("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA") },
			want: map[string]any{"cause": "not three segments"}},
		{name: "over 16 KiB", of: "malformed", token: claim("x", strings.Repeat("y", 16<<10)), want: map[string]any{"cause": "larger than 16 KiB"}},
		{name: "padded", of: "malformed", edits: func(r *http.Request, token string) { r.Header.Set("Authorization", "Bearer "+token+"==") },
			want: map[string]any{"cause": "not base64url without padding"}},
		{name: "an odd identity", of: "malformed", token: claim("sub", 7),
			want: verifiedAttrs(map[string]any{"cause": `payload: "sub" is neither a string nor null`, "account_id": nil, "token_id": "t-1"})},

		{name: "alg", of: "algorithm not accepted", token: header("alg", "HS256"), edit: func(c *koreauth.Config) { c.Algorithms = []string{"RS256", "PS256"} },
			want: map[string]any{"unverified_key_id": kid, "unverified_algorithm": "HS256", "expected_algorithm": "PS256 RS256"}},
		{name: "alg none", of: "algorithm not accepted", token: header("alg", "none"),
			want: map[string]any{"unverified_key_id": kid, "unverified_algorithm": "none", "expected_algorithm": "RS256"}},
		{name: "alg of none of several issuers", of: "algorithm not accepted", token: header("alg", "HS256"), other: func(c *koreauth.Config) { c.Algorithms = []string{"PS256"} },
			want: map[string]any{"unverified_key_id": kid, "unverified_algorithm": "HS256", "expected_algorithm": "PS256 RS256"}},
		{name: "alg of another issuer", of: "algorithm not accepted", token: koretest.Token{},
			edit: func(c *koreauth.Config) { c.Algorithms = []string{"ES256"} }, other: func(c *koreauth.Config) { c.Algorithms = []string{"RS256"} },
			want: unverifiedAttrs(map[string]any{"unverified_algorithm": "RS256", "expected_algorithm": "ES256"})},

		{name: "changed in transit", of: "bad signature", token: koretest.Token{BadSignature: true}, want: unverifiedAttrs(nil)},

		{name: "a key that the issuer does not have", of: "unknown key", token: header("kid", "gone"),
			want: unverifiedAttrs(map[string]any{"unverified_key_id": "gone", "unverified_algorithm": "RS256", "expected_issuer": iss,
				"unverified_audience": koretest.Audience, "expected_audience": koretest.Audience})},
		{name: "not fetched: another issuer", of: "unknown key", token: koretest.Token{Header: map[string]any{"kid": "gone"}, Claims: map[string]any{"iss": "https://staging.example"}},
			want: unverifiedAttrs(map[string]any{"unverified_key_id": "gone", "unverified_issuer": "https://staging.example", "unverified_algorithm": "RS256", "expected_issuer": iss,
				"unverified_audience": koretest.Audience, "expected_audience": koretest.Audience,
				"cause": "not fetched: the token would be rejected anyway: wrong issuer"})},
		{name: "not fetched: another audience", of: "unknown key", token: koretest.Token{Header: map[string]any{"kid": "gone"}, Claims: map[string]any{"aud": "account"}},
			want: unverifiedAttrs(map[string]any{"unverified_key_id": "gone", "unverified_algorithm": "RS256", "expected_issuer": iss,
				"unverified_audience": "account", "expected_audience": koretest.Audience,
				"cause": "not fetched: the token would be rejected anyway: wrong audience"})},
		{name: "not fetched: expired", of: "unknown key", token: koretest.Token{Header: map[string]any{"kid": "gone"}, Claims: map[string]any{"exp": at(-time.Hour)}},
			want: unverifiedAttrs(map[string]any{"unverified_key_id": "gone", "unverified_algorithm": "RS256", "expected_issuer": iss,
				"unverified_audience": koretest.Audience, "expected_audience": koretest.Audience,
				"cause": "not fetched: the token would be rejected anyway: expired"})},

		{name: "iss", of: "wrong issuer", token: claim("iss", iss+"/"),
			want: verifiedAttrs(map[string]any{"issuer": iss + "/", "expected_issuer": iss})},
		{name: "iss of several", of: "wrong issuer", token: claim("iss", "https://c.example"), other: func(*koreauth.Config) {},
			want: unverifiedAttrs(map[string]any{"unverified_issuer": "https://c.example", "expected_issuer": iss + " https://other.example"})},

		{name: "aud", of: "wrong audience", token: claim("aud", "account"), want: verifiedAttrs(map[string]any{"audience": "account", "expected_audience": koretest.Audience})},
		{name: "aud for one of several issuers", of: "wrong audience", token: claim("aud", "account"), other: func(c *koreauth.Config) { c.Audience = []string{"account"} },
			want: verifiedAttrs(map[string]any{"audience": "account", "expected_audience": koretest.Audience})},
		{name: "several aud", of: "wrong audience", token: claim("aud", []string{"a", "b", "c", "d", "e"}),
			edit: func(c *koreauth.Config) { c.Audience = []string{"v", "w", "x", "y", "z"} },
			want: verifiedAttrs(map[string]any{"audience": "a b c d …", "expected_audience": "v w x y …"})},
		{name: "no aud", of: "wrong audience", token: koretest.Token{Drop: []string{"aud"}}, want: verifiedAttrs(map[string]any{"expected_audience": koretest.Audience})},

		{name: "exp", of: "expired", token: claim("exp", at(-90*time.Second)), want: verifiedAttrs(map[string]any{"expired_for": seconds(90)})},
		{name: "no exp", of: "expired", token: koretest.Token{Drop: []string{"exp"}}, want: verifiedAttrs(map[string]any{"cause": `"exp" is missing or not a number`})},

		{name: "exp with a fraction", of: "expired", token: claim("exp", float64(at(-90*time.Second))+0.25), want: verifiedAttrs(map[string]any{"expired_for": seconds(90)})},
		{name: "nbf", of: "not yet valid", token: claim("nbf", at(30*time.Second)), want: verifiedAttrs(map[string]any{"valid_in": seconds(30)})},
		{name: "an odd nbf", of: "not yet valid", token: claim("nbf", "soon"), want: verifiedAttrs(map[string]any{"cause": `"nbf" is not a number`})},

		{name: "iat", of: "too old", token: claim("iat", at(-2*time.Hour)), edit: func(c *koreauth.Config) { c.MaxAge = time.Hour },
			want: verifiedAttrs(map[string]any{"age": seconds(7200), "max_age": seconds(3600)})},
		{name: "iat in the future", of: "too old", token: claim("iat", at(time.Minute)), edit: func(c *koreauth.Config) { c.MaxAge = time.Hour },
			want: verifiedAttrs(map[string]any{"age": seconds(-60), "max_age": seconds(3600), "cause": `"iat" is in the future: if a clock is wrong, set Config.Leeway`})},
		{name: "no iat", of: "too old", token: koretest.Token{Drop: []string{"iat"}}, edit: func(c *koreauth.Config) { c.MaxAge = time.Hour },
			want: verifiedAttrs(map[string]any{"max_age": seconds(3600), "cause": `"iat" is missing or not a number`})},

		{name: "typ of the header", of: "not an access token", token: header("typ", "logout+jwt"),
			want: map[string]any{"unverified_key_id": kid, "unverified_header_type": "logout+jwt", "cause": `header "typ" is not JWT, at+jwt, application/jwt or application/at+jwt`}},
		{name: "typ of the payload", of: "not an access token", token: claim("typ", "ID"),
			want: verifiedAttrs(map[string]any{"header_type": "JWT", "type": "ID", "cause": `payload "typ" is not Bearer`})},

		{name: "the client", of: "client not accepted", edit: func(c *koreauth.Config) { c.ClientIDs = []string{"kc_1", "kc_2"} },
			want: verifiedAttrs(map[string]any{"expected_client_id": "kc_1 kc_2"})},

		{name: "a certificate, without a Sender", of: "sender not confirmed", token: koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: "x"}},
			want: verifiedAttrs(map[string]any{"bound_to": "certificate"})},
		{name: "DPoP, without a Sender", of: "sender not confirmed", token: koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "x"}},
			want: verifiedAttrs(map[string]any{"bound_to": "DPoP key"})},
		{name: "a Sender that does not confirm it", of: "sender not confirmed", token: koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "x"}},
			sender: fails(fmt.Errorf("%w: no DPoP header", koreauth.ErrBinding)),
			want:   verifiedAttrs(map[string]any{"bound_to": "DPoP key", "cause": "no DPoP header"})},
		{name: "an unknown binding", of: "sender not confirmed", token: claim("cnf", map[string]any{"kid": "x"}),
			want: verifiedAttrs(map[string]any{"cause": `"cnf" must have "x5t#S256", "jkt" or both, and no other member`})},

		{name: "revoked", of: "revoked", edit: func(c *koreauth.Config) {
			c.Require = []koreauth.Requirement{fails(fmt.Errorf("%w: rule 7: leaked key", koreauth.ErrRevoked))}
		}, want: verifiedAttrs(map[string]any{"cause": "rule 7: leaked key"})},

		{name: "a grant and a scope", of: "insufficient scope", route: koreauth.AllOf(koreauth.Grant("API Clients", koreauth.Delete), koreauth.Scope("x")),
			want: verifiedAttrs(map[string]any{"required": "API%20Clients:Delete x"})},
		{name: "forbidden", of: "forbidden", route: fails(fmt.Errorf("%w: 192.0.2.1 is not in ip-range", koreauth.ErrForbidden)),
			want: verifiedAttrs(map[string]any{"cause": "192.0.2.1 is not in ip-range"})},

		{name: "the issuer is down", of: "temporarily unavailable", down: true,
			want: unverifiedAttrs(map[string]any{"level": "ERROR", "retry_after": nil, "cause": nil})},
		{name: "a requirement that cannot tell", of: "temporarily unavailable", route: fails(fmt.Errorf("%w: database is down", koreauth.ErrUnavailable)),
			want: verifiedAttrs(map[string]any{"level": "ERROR", "cause": "database is down"})},
	}
}

// record returns the record that the row produces.
func (row *reasonRow) record(t *testing.T) map[string]any {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		var second func(*koreauth.Config)
		issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) {
			second = func(other *koreauth.Config) { *other = *c }
			if row.edit != nil {
				row.edit(c)
			}
		})
		if row.other != nil {
			var first, other koreauth.Config
			second(&first)
			second(&other)
			if row.edit != nil {
				row.edit(&first)
			}
			other.Issuer = "https://other.example"
			row.other(&other)
			var err error
			v, err = koreauth.NewValidator(first, other)
			require.NoError(t, err)
		}
		if row.down {
			issuer.Behave(koretest.Status(500))
		}
		guard := koreauth.New(v, &koreauth.Options{
			Sender: row.sender,
			Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		handler := guard.Wrap(whoami)
		if row.route != nil {
			handler = guard.Require(row.route)(whoami)
		}
		mux := http.NewServeMux()
		mux.Handle("POST /v1/clients/{id}", handler)
		recipe := row.token
		claims := map[string]any{"jti": "t-1", "account-id": "CO1"}
		recipe.Claims = withAttrs(claims, recipe.Claims)
		token := mintToken(t, issuer, recipe)
		r := httptest.NewRequest(http.MethodPost, "/v1/clients/7", nil)
		if row.edits != nil {
			row.edits(r, token)
		} else {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.GreaterOrEqual(t, w.Code, 400, "the request is rejected")
	})
	var record map[string]any
	require.NoError(t, json.Unmarshal(log.Bytes(), &record), "one record: %s", log.String())
	delete(record, "time")
	return record
}

// TestLog_EachReason produces a record for each reason and class. It names what was
// expected and what was found, so that an operator knows the cure without the token.
func TestLog_EachReason(t *testing.T) {
	for _, row := range reasonRows() {
		t.Run(row.of+"/"+row.name, func(t *testing.T) {
			got := row.record(t)
			want := map[string]any{"level": "INFO", "msg": "koreauth: request rejected", "method": "POST", "pattern": "POST /v1/clients/{id}", "class": row.of}
			for _, reason := range classesAndReasons[2].reasons {
				if reason.Error() == koreauth.ErrInvalidToken.Error()+": "+row.of {
					want["class"], want["reason"] = "invalid token", row.of
				}
			}
			for name, value := range row.want {
				if value == nil { // any value
					value = got[name]
				}
				want[name] = value
			}
			assert.Equal(t, want, got)
		})
	}
}

// A client that hung up is no fault of the API or the issuer.
func TestLog_ClientHungUp(t *testing.T) {
	for _, row := range []struct {
		name  string
		err   error // of the validator
		done  func(context.Context) (context.Context, context.CancelFunc)
		level string
	}{
		{"the client hung up", nil, canceled, "INFO"},
		{"the client hung up, which a custom validator reports", context.Canceled, canceled, "INFO"},
		{"the client hung up after the issuer had failed", errors.New("status 500"), canceled, "ERROR"},
		{"the request timed out", nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 0)
		}, "ERROR"},
		{"a fetch was canceled, and the client waits", context.Canceled, context.WithCancel, "ERROR"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var validator koreauth.TokenValidator = newTestValidator(t)
			if row.err != nil {
				validator = koretest.Validator{Err: row.err}
			}
			ctx, cancel := row.done(t.Context())
			defer cancel()
			got := logRecords(t, validator, bearerRequest(testIssuer().Valid()).WithContext(ctx))
			require.Len(t, got, 1)
			assert.Equal(t, row.level, got[0]["level"])
			assert.Equal(t, "temporarily unavailable", got[0]["class"])
		})
	}
}

func canceled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx, cancel
}

// TestLog_TroubleshootingTable holds the table of the page against real records.
func TestLog_TroubleshootingTable(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "## What the record says\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	attrs := map[string][]string{} // by class or reason
	for _, line := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(line[2], -1) {
			attrs[line[1]] = append(attrs[line[1]], name[1])
		}
	}
	produced := map[string]map[string]bool{} // the attributes of all records of a class or reason
	for _, row := range reasonRows() {
		if produced[row.of] == nil {
			produced[row.of] = map[string]bool{}
		}
		for name := range row.record(t) {
			produced[row.of][strings.TrimPrefix(name, "unverified_")] = true
		}
	}
	for _, c := range classesAndReasons {
		names := []string{strings.TrimPrefix(c.class.Error(), "koreauth: ")}
		if c.class == koreauth.ErrInvalidToken {
			names = nil
			for _, reason := range c.reasons {
				names = append(names, strings.TrimPrefix(reason.Error(), c.class.Error()+": "))
			}
		}
		for _, name := range names {
			assert.NotEmpty(t, attrs[name], "the page has no row for %s", name)
			assert.NotEmpty(t, produced[name], "no record for %s", name)
			for _, attr := range attrs[name] {
				assert.True(t, produced[name][attr], "%s: the page names %s, which no record has", name, attr)
			}
			special := 0 // attributes that not every record has
			for attr := range produced[name] {
				switch attr {
				case "level", "msg", "class", "reason", "method", "pattern", "client_id", "key_id", "issuer", "account_id", "token_id":
				default:
					special++
					assert.Contains(t, attrs[name], attr, "%s: the page does not name an attribute of its record", name)
				}
			}
			delete(attrs, name)
		}
	}
	assert.Empty(t, attrs, "rows of the page that are neither a class nor a reason")
}

// A requirement may answer with any reason. What was expected is not known then.
func TestLog_ReasonsOfRequirements(t *testing.T) {
	for _, reason := range classesAndReasons[2].reasons {
		var out bytes.Buffer
		guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Audience: []string{"reports"}, AccountID: "CO1", ID: "jti-1"}}, &koreauth.Options{
			Logger:  slog.New(slog.NewTextHandler(&out, nil)),
			Require: []koreauth.Requirement{koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return reason })},
		})
		status, _ := serve(guard.Wrap(whoami), bearerRequest("a.b.c"))
		assert.Equal(t, http.StatusForbidden, status, reason)
		assert.Contains(t, out.String(), "account_id=CO1 token_id=jti-1", reason)
	}
}
