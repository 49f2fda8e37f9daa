package koreauth_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

// logRecords returns the records that a guard logs for a request.
func logRecords(t *testing.T, validator koreauth.TokenValidator, r *http.Request, required ...koreauth.Requirement) []map[string]any {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	guard := koreauth.New(validator, &koreauth.Options{Logger: logger})
	handler := guard.Wrap(whoami)
	if len(required) > 0 {
		handler = guard.Wrap(guard.Require(required...)(whoami))
	}
	handler.ServeHTTP(httptest.NewRecorder(), r)
	var all []map[string]any
	for line := range strings.Lines(log.String()) {
		var record map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &record))
		delete(record, "time")
		all = append(all, record)
	}
	return all
}

func TestLog_OneRecordPerRejection(t *testing.T) {
	kid := testIssuer().SigningKey().ID
	iss := testIssuer().URL()
	named := func(recipe koretest.Token) string {
		recipe.Claims = map[string]any{"jti": "t-1", "account-id": "CO1"}
		return mintToken(t, testIssuer(), recipe)
	}
	const message = "koreauth: request rejected"
	for _, test := range []struct {
		name      string
		validator koreauth.TokenValidator
		r         *http.Request
		required  []koreauth.Requirement
		want      map[string]any // without msg and cause
	}{
		{"no token is logged at debug level", newTestValidator(t), bearerRequest(""), nil,
			map[string]any{"level": "DEBUG", "class": "no token", "authorization": "absent"}},
		{"a bad request is logged at info level", newTestValidator(t), get("/", "Authorization", "Bearer"), nil,
			map[string]any{"level": "INFO", "class": "bad request"}},
		{"a malformed token has no values to log", newTestValidator(t), bearerRequest("garbage"), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "reason": "malformed"}},
		{"values of an expired token are verified", newTestValidator(t), bearerRequest(named(koretest.Token{Age: 3 * time.Hour})), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "reason": "expired", "issuer": iss, "client_id": "kc_demo", "key_id": kid,
				"expired_for": float64(2 * time.Hour), "account_id": "CO1", "token_id": "t-1"}},
		{"values of a forged token are not verified", newTestValidator(t), bearerRequest(mintToken(t, testIssuer(), koretest.Token{BadSignature: true})), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "reason": "bad signature",
				"unverified_issuer": iss, "unverified_client_id": "kc_demo", "unverified_key_id": kid}},
		{"an unknown key", newTestValidator(t), bearerRequest(mintToken(t, testIssuer(), koretest.Token{Header: map[string]any{"kid": "other"}})), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "reason": "unknown key",
				"unverified_issuer": iss, "unverified_client_id": "kc_demo", "unverified_key_id": "other", "unverified_algorithm": "RS256",
				"expected_issuer": iss, "unverified_audience": koretest.Audience, "expected_audience": koretest.Audience}},
		{"insufficient scope has the client and the required names", newTestValidator(t), bearerRequest(named(koretest.Token{})),
			[]koreauth.Requirement{koreauth.Scope("a"), koreauth.Grant("API Clients", koreauth.Read)},
			map[string]any{"level": "INFO", "class": "insufficient scope", "issuer": iss, "client_id": "kc_demo", "key_id": kid, "required": "a API%20Clients:Read",
				"account_id": "CO1", "token_id": "t-1"}},
		{"unavailable is logged at error level", koretest.Validator{Err: koreauth.ErrUnavailable}, bearerRequest("a"), nil,
			map[string]any{"level": "ERROR", "class": "temporarily unavailable"}},
		{"unavailable, with the time to wait", koretest.Validator{Err: &koreauth.Error{Class: koreauth.ErrUnavailable, RetryAfter: time.Second}}, bearerRequest("a"), nil,
			map[string]any{"level": "ERROR", "class": "temporarily unavailable", "retry_after": float64(time.Second)}},
		{"a custom validator that fails", koretest.Validator{Err: errors.New("look-up failed")}, bearerRequest("a"), nil,
			map[string]any{"level": "ERROR", "class": "temporarily unavailable"}},
		{"a reason of a custom validator", koretest.Validator{Err: fmt.Errorf("wrapped: %w", koreauth.ErrTooOld)}, bearerRequest("a"), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "reason": "too old"}}, // There are no claims to describe.
		{"values from a custom validator are not verified",
			koretest.Validator{Err: &koreauth.Error{Class: koreauth.ErrInvalidToken, KeyID: "k", Issuer: "i", ClientID: "c"}}, bearerRequest("a"), nil,
			map[string]any{"level": "INFO", "class": "invalid token", "unverified_key_id": "k", "unverified_issuer": "i", "unverified_client_id": "c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := logRecords(t, test.validator, test.r, test.required...)
			require.Len(t, got, 1)
			delete(got[0], "cause")
			test.want["msg"], test.want["method"] = message, "GET"
			if ago, ok := got[0]["expired_for"].(float64); ok {
				got[0]["expired_for"] = float64(time.Duration(ago).Truncate(time.Minute))
			}
			assert.Equal(t, test.want, got[0])
		})
	}

	t.Run("an accepted request is not logged", func(t *testing.T) {
		assert.Empty(t, logRecords(t, newTestValidator(t), bearerRequest(testIssuer().Valid())))
	})
	t.Run("the cause is logged", func(t *testing.T) {
		got := logRecords(t, koretest.Validator{Err: io.ErrUnexpectedEOF}, bearerRequest("a"))
		assert.Contains(t, got[0]["cause"], "unexpected EOF")
		got = logRecords(t, newTokenTable(), bearerRequest("a"), koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return errors.New("the first cause") }))
		assert.Contains(t, got[0]["cause"], "the first cause")
	})
	t.Run("Refuse logs a record", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		guard.Refuse(httptest.NewRecorder(), bearerRequest("a"), koreauth.ErrExpired)
		assert.Contains(t, log.String(), `reason=expired`)
	})
	t.Run("Refuse in a handler logs the client that the guard verified", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(newTestValidator(t), &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			guard.Refuse(w, r, koreauth.ErrInsufficientScope)
		})).ServeHTTP(httptest.NewRecorder(), bearerRequest(testIssuer().Valid()))
		assert.Contains(t, log.String(), " client_id=kc_demo")
	})
	t.Run("values of a second, forged token are not verified", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(newTestValidator(t), &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		forged := mintToken(t, testIssuer(), koretest.Token{RawPayload: []byte(`{}`), Header: map[string]any{"kid": "attacker"}, BadSignature: true})
		chain(whoami, guard.Wrap, replaceToken(forged), guard.Wrap).ServeHTTP(httptest.NewRecorder(), bearerRequest(testIssuer().Valid()))
		assert.Contains(t, log.String(), " unverified_key_id=attacker")
		assert.NotContains(t, log.String(), "kc_demo", "the client of the first token must not be logged")
	})
	t.Run("the logger's level is respected", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		guard.Wrap(whoami).ServeHTTP(httptest.NewRecorder(), bearerRequest(""))
		assert.Empty(t, log.String(), "Debug is not enabled")
	})
	t.Run("without a Logger nothing is logged, not even by the default logger", func(t *testing.T) {
		var log bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		defer slog.SetDefault(before)
		koreauth.New(koretest.Validator{Err: io.EOF}, nil).Wrap(whoami).ServeHTTP(httptest.NewRecorder(), bearerRequest("a"))
		assert.Empty(t, log.String())
	})
	t.Run("the record has the request's context", func(t *testing.T) {
		type key struct{}
		handler := &contextHandler{}
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Logger: slog.New(handler)})
		guard.Wrap(whoami).ServeHTTP(httptest.NewRecorder(), bearerRequest("x").WithContext(context.WithValue(t.Context(), key{}, "here")))
		require.NotNil(t, handler.ctx)
		assert.Equal(t, "here", handler.ctx.Value(key{}))
	})
}

// contextHandler records the context of the last record.
type contextHandler struct{ ctx context.Context }

func (*contextHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *contextHandler) Handle(ctx context.Context, _ slog.Record) error {
	h.ctx = ctx
	return nil
}

func (h *contextHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *contextHandler) WithGroup(string) slog.Handler { return h }

// Values of a token whose signature was not verified may be written by an
// attacker.
func TestLog_UnverifiedValues(t *testing.T) {
	jwt := testIssuer().Valid()
	segment, _, _ := strings.Cut(jwt, ".")
	for _, test := range []struct{ name, value, want string }{
		{"an ordinary value", "kc_1", "kc_1"},
		{"64 bytes are kept", strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{"65 bytes are cut to 64", strings.Repeat("x", 65), strings.Repeat("x", 64)},
		{"10 KB are cut to 64 bytes", strings.Repeat("y", 10_000), strings.Repeat("y", 64)},
		{"a value is cut between characters", strings.Repeat("x", 63) + "é" + "z", strings.Repeat("x", 63)},
		{"an e-mail address is dropped", "jane@example.com", ""},
		{"an e-mail address in a URL is dropped", "https://a/?u=jane%40example.com", ""},
		{"an e-mail address after 64 bytes is cut off", strings.Repeat("x", 100) + "jane@example.com", strings.Repeat("x", 64)},
		{"a JWT is dropped", jwt, ""},
		{"a JWT after 64 bytes is cut off", strings.Repeat("x", 100) + " " + jwt, strings.Repeat("x", 64)},
		{"an e-mail address that begins before 64 bytes is dropped or cut off", strings.Repeat("x", 60) + "@example.com", ""},
		{"a JWT that begins before 64 bytes is dropped", strings.Repeat("x", 50) + " " + jwt, ""},
		{"a part of a JWT is dropped", segment, ""},
		{"a JWT with a prefix is dropped", "Bearer " + jwt, ""},
		{"a JWT whose header begins with a space is dropped", encodeSegment(`{ "alg":"RS256","typ":"JWT"}`) + ".x.y", ""},
		{"a JWT whose header begins with a line break is dropped", encodeSegment("{\n\"alg\":\"RS256\"}") + ".x.y", ""},
		{"a JWT whose header begins with two spaces is dropped", encodeSegment(`{  "alg":"RS256"}`) + "." + encodeSegment(`{"iss":"https://issuer.example"}`) + "." + strings.Repeat("A", 86), ""},
		{"three long segments are dropped", strings.Repeat("A", 10) + "." + strings.Repeat("B", 10) + "." + strings.Repeat("C", 20), ""},
		{"a line break is replaced", "a\nlevel=ERROR", "a\ufffdlevel=ERROR"},
		{"control characters are replaced", "a\x00\a\b\t\v\r\x7fb", "a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdb"},
		{"ANSI escapes are replaced", "\x1b[31mred\x1b[0m\u009b1m", "\ufffd[31mred\ufffd[0m\ufffd1m"},
		{"characters that change the direction of text are replaced", "a\u202eb\u2066c\u200bd\u2028e\ufefff", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"},
		{"a replaced value has 64 bytes at most", strings.Repeat("\n", 64), strings.Repeat("\ufffd", 21)},
		{"letters of all languages stay", "Zoë 日本", "Zoë 日本"},
	} {
		t.Run(test.name, func(t *testing.T) {
			refusal := &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: koreauth.ErrSignature, KeyID: test.value, Issuer: test.value, ClientID: test.value}
			forged := mintToken(t, testIssuer(), koretest.Token{
				Claims: map[string]any{"client_id": test.value}, Header: map[string]any{"kid": test.value}, BadSignature: true,
			})
			for _, record := range [][]map[string]any{
				logRecords(t, koretest.Validator{Err: refusal}, bearerRequest("a")),
				logRecords(t, newTestValidator(t), bearerRequest(forged)),
			} {
				require.Len(t, record, 1)
				for _, name := range []string{"unverified_key_id", "unverified_client_id"} {
					got, _ := record[0][name].(string)
					if record[0]["reason"] == "malformed" { // The token is too large to be read.
						continue
					}
					assert.Equal(t, test.want, got, name)
					assert.True(t, utf8.ValidString(got))
				}
				for name, value := range record[0] {
					assert.True(t, strings.HasPrefix(name, "unverified_") || value != test.value, "%s is %q", name, value)
				}
			}
		})
	}
	t.Run("a value that is not UTF-8", func(t *testing.T) {
		refusal := &koreauth.Error{Class: koreauth.ErrInvalidToken, KeyID: strings.Repeat("\x80", 100)}
		assert.NotPanics(t, func() { logRecords(t, koretest.Validator{Err: refusal}, bearerRequest("a")) })
	})
	t.Run("a line break does not start a new record", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(koretest.Validator{Err: &koreauth.Error{Class: koreauth.ErrInvalidToken, KeyID: "a\nlevel=ERROR msg=forged"}},
			&koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		guard.Wrap(whoami).ServeHTTP(httptest.NewRecorder(), bearerRequest("a"))
		assert.Equal(t, 1, strings.Count(log.String(), "\n"))
	})
}

// The signature fits one of two keys, and the token does not say which one made it.
func TestLog_AmbiguousKey(t *testing.T) {
	keys := koreauth.StaticKeySet{{ID: "a", Public: signingKeys()["RS256"].Public()}}
	for i := range 4 {
		keys = append(keys, koreauth.Key{ID: "b", Public: &rsa.PublicKey{N: modulus(2048 + 8*i), E: 65537}})
	}
	issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.HTTPClient, c.Keys = nil, keys })
	records := logRecords(t, v, bearerRequest(mintToken(t, issuer, koretest.Token{DropHeader: []string{"kid"}})))
	require.Len(t, records, 1)
	assert.Equal(t, "unknown key", records[0]["reason"])
	assert.Equal(t, "kc_demo", records[0]["unverified_client_id"])
	assert.NotContains(t, records[0], "client_id")
}

func encodeSegment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// secretKey and secretOwner stand for secrets that KORE's tokens contain.
const (
	secretKey   = "w2gYFN7q00ckhm9vyxiuk45TF/SSMGKIYtHLP2SSGRokJdcCP/aQ5xtYQ4UZsbDw=="
	secretOwner = "jane.doe@korewireless.example"
)

// TestLog_NoSecrets sends tokens with secrets through everything that logs,
// fails or prints, and searches the output for the secrets and for the token.
func TestLog_NoSecrets(t *testing.T) {
	claims := map[string]any{"api-key": secretKey, "client-owner": secretOwner, "email": secretOwner}
	withSecrets := func(recipe koretest.Token) string {
		all := map[string]any{}
		for _, from := range []map[string]any{claims, recipe.Claims} {
			maps.Copy(all, from)
		}
		recipe.Claims = all
		return mintToken(t, testIssuer(), recipe)
	}
	valid := withSecrets(koretest.Token{})
	tokens := map[string]string{
		"valid":                            valid,
		"expired":                          withSecrets(koretest.Token{Age: 3 * time.Hour}),
		"forged":                           withSecrets(koretest.Token{BadSignature: true}),
		"of another issuer":                withSecrets(koretest.Token{Claims: map[string]any{"iss": secretOwner}}),
		"for another audience":             withSecrets(koretest.Token{Claims: map[string]any{"aud": secretOwner}}),
		"with an e-mail address as client": withSecrets(koretest.Token{Claims: map[string]any{"client_id": secretOwner}}),
		"with secrets as account and ID":   withSecrets(koretest.Token{Claims: map[string]any{"aud": "reports", "account-id": secretOwner, "jti": secretOwner}}),
		"an ID token":                      withSecrets(koretest.Token{Claims: map[string]any{"typ": secretOwner}}),
		"bound":                            withSecrets(koretest.Token{Claims: map[string]any{"cnf": map[string]any{"jkt": secretKey}}}),
		"with a secret as kid":             withSecrets(koretest.Token{Header: map[string]any{"kid": secretOwner}}),
		"with a token as kid":              withSecrets(koretest.Token{Header: map[string]any{"kid": valid}}),
		"with a secret as alg":             withSecrets(koretest.Token{Header: map[string]any{"alg": secretOwner}}),
		"with a secret as typ":             withSecrets(koretest.Token{Header: map[string]any{"typ": secretOwner}}),
		"with a secret header":             withSecrets(koretest.Token{Header: map[string]any{"crit": []string{secretOwner}}}),
		"with a broken payload":            mintToken(t, testIssuer(), koretest.Token{RawPayload: []byte(`{"client-owner":"` + secretOwner + `","api-key":"` + secretKey + `",}`)}),
		"with a duplicate member":          mintToken(t, testIssuer(), koretest.Token{RawPayload: []byte(`{"` + secretOwner + `":1,"` + secretOwner + `":2}`)}),
		"with a broken header":             mintToken(t, testIssuer(), koretest.Token{RawHeader: []byte(`{"alg":"RS256","x":"` + secretOwner + `"`)}),
		"with a string as exp":             withSecrets(koretest.Token{Claims: map[string]any{"exp": secretOwner}}),
		"with a fourth segment":            valid + ".e30",
		"padded":                           valid + "==",
		"too large":                        strings.Repeat(valid, 20),
	}
	var out bytes.Buffer
	check := func(t *testing.T, sent string) {
		t.Helper()
		written := out.String()
		out.Reset()
		for _, secret := range append(chunks(sent), secretKey, secretOwner, strings.ReplaceAll(secretOwner, "@", "%40")) {
			if at := strings.Index(written, secret); at >= 0 {
				t.Errorf("secret %q found in %q", secret, written[max(0, at-200):min(len(written), at+100)])
				return
			}
		}
	}
	required := koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error {
		return fmt.Errorf("rejected: %s, %v, %+v", c.ClientOwner, c, *c)
	})
	loggers := map[string]*slog.Logger{
		"text": slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		"JSON": slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	validators := map[string]koreauth.TokenValidator{
		"a Validator": newTestValidator(t),
		"a validator that quotes the token": validateFunc(func(_ context.Context, token string) (*koreauth.Claims, error) {
			return nil, fmt.Errorf("asking https://issuer.example/introspect?token=%s for %q: %w", token, secretOwner, io.EOF)
		}),
		"a validator that quotes the token with a reason": validateFunc(func(_ context.Context, token string) (*koreauth.Claims, error) {
			return nil, fmt.Errorf("%w: %s of <%s>", koreauth.ErrExpired, token, secretOwner)
		}),
	}
	for loggerName, logger := range loggers {
		for validatorName, validator := range validators {
			for tokenName, token := range tokens {
				t.Run(loggerName+"/"+validatorName+"/"+tokenName, func(t *testing.T) {
					for _, format := range errorFormats {
						guard := koreauth.New(validator, &koreauth.Options{Logger: logger, Errors: format, Sources: []koreauth.Source{
							koreauth.Header("Authorization"), source.Query("t"), source.Form("t"), source.JSON("t"),
						}})
						for _, r := range []*http.Request{
							bearerRequest(token), get("/?t=" + token), get("/?t="+token, "Authorization", "Bearer "+token), get("/?t=%zz" + token),
							get("/", "Authorization", "Bearer "+token+" "+secretOwner),
							post(formType, "t="+token+"&t="+token), post(jsonType, `{"t":"`+token), post(jsonType, `{"t":["`+token+`"]}`),
						} {
							w := httptest.NewRecorder()
							guard.Require(required)(whoami).ServeHTTP(w, r)
							assert.NotEqual(t, http.StatusOK, w.Code)
							fmt.Fprint(&out, w.Header(), w.Body)
						}
					}
					check(t, token)
				})
			}
		}
	}

	t.Run("an opaque token that the validator quotes", func(t *testing.T) {
		// A token for introspection need not look like a JWT.
		const opaque = "NgXCXRKcPq8dT2mVb3sYzWk5eJh7uLf9aQ4oR6iMz0Yjw="
		for _, logger := range loggers {
			koreauth.New(validators["a validator that quotes the token"], &koreauth.Options{Logger: logger}).Wrap(whoami).
				ServeHTTP(httptest.NewRecorder(), bearerRequest(opaque))
			check(t, opaque)
		}
	})

	t.Run("claims and errors, printed in every way", func(t *testing.T) {
		validator := newTestValidator(t)
		claims, err := validator.Validate(t.Context(), valid)
		require.NoError(t, err)
		assert.Equal(t, secretOwner, claims.ClientOwner, "the field has the value")
		var printed []any
		for _, token := range tokens {
			if _, err := validator.Validate(t.Context(), token); err != nil {
				printed = append(printed, err)
			}
		}
		for _, logger := range loggers {
			for _, value := range append(printed, claims, *claims) {
				logger.Info("x", "value", value)
				logger.Info("x", slog.Group("g", slog.Any("value", value)))
				check(t, valid)
			}
		}
		printed = append(printed, claims, *claims, []any{claims, *claims}, map[string]any{"c": *claims, "p": claims},
			struct{ Claims koreauth.Claims }{*claims}, struct{ Claims *koreauth.Claims }{claims})
		for _, value := range printed {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X"} {
				if _, ok := value.(error); ok && verb == "%#v" {
					continue // %#v prints the fields of an Error, which hold unverified values.
				}
				fmt.Fprintf(&out, verb, value)
				check(t, valid)
			}
		}
		text := fmt.Sprint(claims)
		assert.Contains(t, text, testIssuer().URL())
		assert.Contains(t, text, "kc_demo")
		assert.Contains(t, text, claims.Subject)
		assert.Contains(t, text, claims.AccountID)
		assert.NotEmpty(t, claims.AccountID)
	})
}

// chunks cuts the segments of a token into pieces of 20 characters, so that a
// part of the token is found too.
func chunks(token string) []string {
	var all []string
	for segment := range strings.SplitSeq(token, ".") {
		for ; len(segment) >= 20; segment = segment[20:] {
			all = append(all, segment[:20])
		}
	}
	return all
}

func TestLog_ReadsNoMoreOfBody(t *testing.T) {
	for name, logger := range map[string]*slog.Logger{"silent": nil, "logging": slog.New(slog.NewTextHandler(io.Discard, nil))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Logger: logger, Sources: []koreauth.Source{source.Form("access_token")}})
				reader, writer := io.Pipe()
				r := httptest.NewRequest(http.MethodPost, "/", reader)
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				go func() {
					_, _ = writer.Write(make([]byte, 64<<10+1))
					time.Sleep(time.Hour)
					writer.Close()
				}()
				start := time.Now()
				w := httptest.NewRecorder()
				guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
				assert.Equal(t, http.StatusUnauthorized, w.Code)
				assert.Zero(t, time.Since(start), "the guard waited for more of the body")
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestLog_CauseIsOneLine(t *testing.T) {
	records := logRecords(t, koretest.Validator{Err: errors.Join(errors.New("first"), errors.New("second"))}, bearerRequest("a"))
	require.Len(t, records, 1)
	assert.Equal(t, "first; second", records[0]["cause"])
}

// The outer guard accepts the token in the header, the inner one finds none in the
// query.
func TestLog_RefuseWithoutToken(t *testing.T) {
	var log bytes.Buffer
	inner := koreauth.New(newTestValidator(t), &koreauth.Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Sources: []koreauth.Source{source.Query("t")},
	})
	handler := inner.WrapOptional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.Refuse(w, r, koreauth.ErrForbidden)
	}))
	koreauth.New(newTestValidator(t), nil).Wrap(handler).ServeHTTP(httptest.NewRecorder(), bearerRequest(testIssuer().Valid()))
	assert.Contains(t, log.String(), "forbidden")
	assert.NotContains(t, log.String(), "kc_demo")
}

// A requirement may reject a token because of another one, which it names.
func TestLog_ErrorNamesAnotherToken(t *testing.T) {
	for _, other := range []*koreauth.Error{
		{Class: koreauth.ErrForbidden, Issuer: "other"}, {Class: koreauth.ErrForbidden, ClientID: "other"},
	} {
		records := logRecords(t, newTestValidator(t), bearerRequest(testIssuer().Valid()),
			koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return other }))
		require.Len(t, records, 1)
		assert.NotContains(t, records[0], "issuer")
		assert.NotContains(t, records[0], "client_id")
	}
}

func TestLog_RefuseNamesCurrentClient(t *testing.T) {
	var log bytes.Buffer
	guard := koreauth.New(newTestValidator(t), &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer another")
		guard.Refuse(w, r, koreauth.ErrInsufficientScope)
	})).ServeHTTP(httptest.NewRecorder(), bearerRequest(testIssuer().Valid()))
	assert.Contains(t, log.String(), "insufficient scope")
	assert.NotContains(t, log.String(), "kc_demo")
}

// A rejection by a requirement is logged with the client, whose token was
// verified, and with what the requirement says.
func TestLog_RejectedByRequirement(t *testing.T) {
	for _, at := range []place{inConfig, asSender, inOptions, onRoute} {
		for name, row := range map[string]struct {
			err  error
			want map[string]any
		}{
			"revoked":   {fmt.Errorf("%w: rule 7", koreauth.ErrRevoked), map[string]any{"class": "invalid token", "reason": "revoked", "cause": "rule 7"}},
			"forbidden": {fmt.Errorf("%w: 192.0.2.1", koreauth.ErrForbidden), map[string]any{"class": "forbidden", "cause": "192.0.2.1"}},
			"no class":  {errors.New("look-up: no"), map[string]any{"class": "insufficient scope", "cause": "look-up: no"}},
		} {
			t.Run(placeNames[at]+"/"+name, func(t *testing.T) {
				probes := newPlaceProbes()
				probes.at[at].err = row.err
				issuer, v := newIssuer(t, "RS256", func(c *koreauth.Config) { c.Require = []koreauth.Requirement{probes.at[inConfig]} })
				var log bytes.Buffer
				guard := koreauth.New(v, &koreauth.Options{
					Sender: probes.at[asSender], Require: []koreauth.Requirement{probes.at[inOptions]}, Logger: slog.New(slog.NewJSONHandler(&log, nil)),
				})
				serve(guard.Require(probes.at[onRoute])(whoami), bearerRequest(issuer.Valid()))
				var record map[string]any
				require.NoError(t, json.Unmarshal(log.Bytes(), &record), "one record")
				assert.Equal(t, "INFO", record["level"])
				assert.Equal(t, "kc_demo", record["client_id"])
				assert.Equal(t, issuer.URL(), record["issuer"])
				for name, want := range row.want {
					assert.Equal(t, want, record[name], name)
				}
			})
		}
	}
	t.Run("a handler that rejects as forbidden", func(t *testing.T) {
		var log bytes.Buffer
		guard := koreauth.New(newTestValidator(t), &koreauth.Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		serve(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guard.Refuse(w, r, koreauth.ErrForbidden) })), bearerRequest(testIssuer().Valid()))
		assert.Contains(t, log.String(), `"class":"forbidden"`)
		assert.Contains(t, log.String(), `"client_id":"kc_demo"`)
	})
}

// An attacker chooses the length of the values of a forged token, so a long one
// must not make its record expensive.
func TestLog_LongUnverifiedValueIsCheap(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	record := func(length int) time.Duration {
		value := strings.Repeat("x", length)
		refusal := &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: koreauth.ErrSignature, KeyID: value, Issuer: value, ClientID: value}
		fastest := time.Hour
		for range 200 {
			start := time.Now()
			guard.Refuse(httptest.NewRecorder(), bearerRequest("a"), refusal)
			fastest = min(fastest, time.Since(start))
		}
		return fastest
	}
	short, long := record(64), record(12_000)
	assert.Less(t, long, 5*short, "a record with values of 64 bytes takes %v, with values of 12,000 bytes %v", short, long)
}

// An opaque token looks like nothing, so the log must know its forms.
func TestLog_NoOpaqueToken(t *testing.T) {
	const token = "s3cr3t/opaque+token=="
	for name, text := range map[string]string{
		"as it is":      token,
		"in a query":    "https://issuer.example/?token=" + url.QueryEscape(token),
		"in a path":     "https://issuer.example/" + url.PathEscape(token) + "/check",
		"twice, quoted": fmt.Sprintf("%q for %q", token, url.QueryEscape(token)),
	} {
		records := logRecords(t, koretest.Validator{Err: errors.New("look-up of " + text)}, bearerRequest(token))
		require.Len(t, records, 1)
		assert.Contains(t, records[0]["cause"], "look-up of ", name)
		assert.NotContains(t, records[0]["cause"], "s3cr3t", name)
	}
}

func TestLog_NoSecretInRequired(t *testing.T) {
	valid := testIssuer().Valid()
	for _, secret := range []string{"jane@example.com", "jane doe@example.com", valid} {
		records := logRecords(t, newTestValidator(t), bearerRequest(valid), koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error {
			return &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"sims:read", secret}}
		}))
		require.Len(t, records, 1)
		assert.Equal(t, "sims:read [redacted]", records[0]["required"])
	}
	records := logRecords(t, koretest.Validator{Claims: fullClaims()}, bearerRequest("opaque-token"), koreauth.Product("opaque-token"))
	require.Len(t, records, 1)
	assert.Equal(t, "[redacted]", records[0]["required"])
}

// A value of a verified token has more room than one that anybody may have written.
func TestLog_VerifiedValues(t *testing.T) {
	long := strings.Repeat("c", 300)
	token := mintToken(t, testIssuer(), koretest.Token{Claims: map[string]any{"client_id": long, "aud": "other"}})
	records := logRecords(t, newTestValidator(t), bearerRequest(token))
	require.Len(t, records, 1)
	assert.Equal(t, long[:256], records[0]["client_id"])
}

// A request without a token is logged with the scheme that it has, but not with a
// word that may be a token.
func TestLog_Scheme(t *testing.T) {
	for value, want := range map[string]string{
		"": "absent", "   ": "absent",
		"Basic abc": "Basic", " Basic abc": "Basic", "Vapid-2 abc": "without a scheme", "AWS-HMAC abc": "AWS-HMAC",
		"Basic": "without a scheme", "abc_def ghi": "without a scheme", "Zoë abc": "without a scheme",
		strings.Repeat("a", 16) + " x": strings.Repeat("a", 16), strings.Repeat("a", 17) + " x": "without a scheme",
		strings.Repeat("a", 30) + " x": "without a scheme",
	} {
		r := bearerRequest("")
		r.Header["Authorization"] = []string{value}
		records := logRecords(t, newTestValidator(t), r)
		require.Len(t, records, 1)
		assert.Equal(t, want, records[0]["authorization"], "%q", value)
	}
}

func TestLog_CauseIsCut(t *testing.T) {
	cause := errors.New(strings.Repeat("a ", 1000) + "end")
	refusal := &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: cause}
	records := logRecords(t, koretest.Validator{Err: refusal}, bearerRequest("a"))
	require.Len(t, records, 1)
	assert.Equal(t, cause.Error()[:1024], records[0]["cause"])
}

func TestLog_TokenAfterPercentSign(t *testing.T) {
	refusal := &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: errors.New("100%%61bcdefghij failed")}
	records := logRecords(t, koretest.Validator{Err: refusal}, bearerRequest("abcdefghij"))
	require.Len(t, records, 1)
	assert.Equal(t, "[redacted] failed", records[0]["cause"])
}
