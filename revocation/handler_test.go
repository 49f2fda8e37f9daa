package revocation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
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
)

// operator is the client that sends the requests of the tests.
const operator = "kc_operator"

// request returns a request that a guard let through. The headers are names and values.
func request(method, target, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r.WithContext(koreauth.NewContext(r.Context(), &koreauth.Claims{ClientID: operator}))
}

func send(handler http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
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

// In the bubble it is 2000-01-01T00:00:00Z.
func TestHandler_AppendsRules(t *testing.T) {
	const issuer, by = `"issuer":"https://issuer.example"`, `"by":"kc_operator"`
	for _, row := range []struct{ name, method, body, rule string }{
		{"a token", "POST", `{` + issuer + `,"token":"trrtcc:7f0c2b51","reason":"leaked"}`,
			`{` + issuer + `,"token":"trrtcc:7f0c2b51","until":"2002-01-02T00:00:00Z","reason":"leaked",` + by + `}`},
		{"a client", "POST", `{` + issuer + `,"client":"kc_1"}`,
			`{` + issuer + `,"client":"kc_1","issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z",` + by + `}`},
		{"an account", "POST", `{` + issuer + `,"account":"CO1"}`,
			`{` + issuer + `,"account":"CO1","issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z",` + by + `}`},
		{"a subject", "POST", `{` + issuer + `,"subject":"person@example.com"}`,
			`{` + issuer + `,"subject":"person@example.com","issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z",` + by + `}`},
		{"everything", "POST", `{` + issuer + `,"everything":true}`,
			`{` + issuer + `,"everything":true,"issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z",` + by + `}`},
		{"moments in another zone, white space, and empty members", "POST",
			" {\n" + issuer + `, "client" : "kc_1", "token":"", "everything": false, "issued_before":"1999-12-31T13:00:00.5+02:00", "until":"2000-06-01T00:00:00Z"}` + "\n",
			`{` + issuer + `,"client":"kc_1","issued_before":"1999-12-31T11:00:00.5Z","until":"2000-06-01T00:00:00Z",` + by + `}`},
		{"an escaped value", "POST", `{` + issuer + `,"client":"a\"\u00e9<","reason":"caf\u00e9 & co"}`,
			`{` + issuer + `,"client":"a\"é\u003c","issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z","reason":"café \u0026 co",` + by + `}`},
		{"the lift of a client", "DELETE", `{` + issuer + `,"client":"kc_1","reason":"a mistake"}`,
			`{` + issuer + `,"client":"kc_1","issued_before":"2000-01-01T00:00:00Z","until":"2002-01-02T00:00:00Z","lift":true,"reason":"a mistake",` + by + `}`},
		{"the lift of a token", "DELETE", `{` + issuer + `,"token":"t"}`,
			`{` + issuer + `,"token":"t","until":"2002-01-02T00:00:00Z","lift":true,` + by + `}`},
		{"the lift of a rule that has ended", "DELETE", `{` + issuer + `,"client":"kc_1","issued_before":"1999-01-01T00:00:00Z","until":"1999-06-01T00:00:00Z"}`,
			`{` + issuer + `,"client":"kc_1","issued_before":"1999-01-01T00:00:00Z","until":"1999-06-01T00:00:00Z","lift":true,` + by + `}`},
	} {
		for _, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON;Charset=\"UTF-8\""} {
			t.Run(row.name+" as "+contentType, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := revocation.Memory()
					handler := revocation.Handler(store, new(revocation.List))
					r := request(row.method, "/", row.body)
					if contentType != "" {
						r.Header.Set("Content-Type", contentType)
					}
					w := send(handler, r)
					receipt := `{"seq":1,"at":"2000-01-01T00:00:00Z","rule":` + row.rule + `}`
					assert.Equal(t, receipt, w.Body.String())
					assert.Equal(t, http.StatusCreated, w.Code)
					assert.Equal(t, http.Header{
						"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"},
					}, w.Header())
					w = send(handler, request("GET", "/", ""))
					assert.Equal(t, `{"rules":[`+receipt+`],"next":1,"replicas":{"known":1,"current":1}}`, w.Body.String())
				})
			})
		}
	}
}

func TestHandler_RefusesRequests(t *testing.T) {
	const valid = `{"issuer":"i","client":"kc_1"}`
	const use = "use issuer, token, client, account, subject, everything, issued_before, until, reason"
	long := strings.Repeat("x", 257)
	for _, row := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code, description          string
	}{
		{"HEAD", "HEAD", "/", "", nil, 405, "method_not_allowed", "Use POST to revoke, DELETE to lift, and GET to list"},
		{"OPTIONS", "OPTIONS", "/", "", nil, 405, "method_not_allowed", "Use POST to revoke, DELETE to lift, and GET to list"},
		{"PUT", "PUT", "/", valid, nil, 405, "method_not_allowed", "Use POST to revoke, DELETE to lift, and GET to list"},
		{"an invented method", "LIFT", "/", valid, nil, 405, "method_not_allowed", "Use POST to revoke, DELETE to lift, and GET to list"},

		{"a form", "POST", "/", valid, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"an empty Content-Type", "POST", "/", valid, []string{"Content-Type", ""}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"two Content-Types", "POST", "/", valid, []string{"Content-Type", "application/json", "Content-Type", "application/json"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"another charset", "DELETE", "/", valid, []string{"Content-Type", "application/json; charset=utf-16"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"another parameter", "POST", "/", valid, []string{"Content-Type", "application/json; version=1"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"a parameter with another name", "POST", "/", valid, []string{"Content-Type", "application/json; version=utf-8"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},
		{"a compressed body", "POST", "/", valid, []string{"Content-Encoding", "gzip"}, 415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a Content-Encoding"},

		{"no body", "POST", "/", "", nil, 400, "invalid_request", "Not a rule: not a JSON object"},
		{"an array", "POST", "/", "[" + valid + "]", nil, 400, "invalid_request", "Not a rule: not a JSON object"},
		{"null", "DELETE", "/", "null", nil, 400, "invalid_request", "Not a rule: not a JSON object"},
		{"a body that is cut", "POST", "/", valid[:len(valid)-1], nil, 400, "invalid_request", "Not a rule: not valid JSON"},
		{"two objects", "POST", "/", valid + valid, nil, 400, "invalid_request", "Not a rule: data after the JSON object"},
		{"invalid UTF-8", "POST", "/", "{\"issuer\":\"i\",\"client\":\"\xff\"}", nil, 400, "invalid_request", "Not a rule: JSON is not valid UTF-8"},
		{"a byte order mark", "POST", "/", "\ufeff" + valid, nil, 400, "invalid_request", "Not a rule: not a JSON object"},
		{"a duplicate member", "POST", "/", `{"issuer":"i","client":"a","client":"b"}`, nil, 400, "invalid_request", `Not a rule: JSON object has a duplicate member: give "client" once`},
		{"a duplicate member in a value", "POST", "/", `{"issuer":"i","client":{"a":1,"a":2}}`, nil, 400, "invalid_request", "Not a rule: JSON object has a duplicate member"},
		{"an unknown member", "POST", "/", `{"issuer":"i","client":"a","expires":"2000-01-01T00:00:00Z"}`, nil, 400, "invalid_request", `Unknown member "expires": ` + use},
		{"an unknown member that may be a secret", "POST", "/", `{"issuer":"i","client":"a","xK9 secret":""}`, nil, 400, "invalid_request", "Unknown member: " + use},
		{"a member in upper case", "POST", "/", `{"issuer":"i","Client":"a"}`, nil, 400, "invalid_request", `Unknown member "Client": write "client"`},
		{"a member in both cases", "POST", "/", `{"issuer":"i","client":"a","CLIENT":"a"}`, nil, 400, "invalid_request", `Unknown member "CLIENT": write "client"`},
		{"by", "POST", "/", `{"issuer":"i","client":"a","by":""}`, nil, 400, "invalid_request", `Unknown member "by": ` + use},
		{"hash", "POST", "/", `{"hash":"client:00112233445566778899aabbccddeeff"}`, nil, 400, "invalid_request", `Unknown member "hash": ` + use},
		{"lift", "DELETE", "/", `{"issuer":"i","client":"a","lift":true}`, nil, 400, "invalid_request", `Unknown member "lift": ` + use},
		{"a number as a text", "POST", "/", `{"issuer":"i","client":1}`, nil, 400, "invalid_request", `Member "client" must be a string`},
		{"null as a text", "POST", "/", `{"issuer":"i","client":"a","reason":null}`, nil, 400, "invalid_request", `Member "reason" must be a string`},
		{"a text as a flag", "POST", "/", `{"issuer":"i","everything":"true"}`, nil, 400, "invalid_request", `Member "everything" must be true or false`},
		{"a number as a time", "POST", "/", `{"issuer":"i","client":"a","until":1796256000}`, nil, 400, "invalid_request", `Member "until" must be a time such as 2026-01-31T12:00:00Z (RFC 3339)`},
		{"a date as a time", "POST", "/", `{"issuer":"i","client":"a","issued_before":"2000-01-01"}`, nil, 400, "invalid_request", `Member "issued_before" must be a time such as 2026-01-31T12:00:00Z (RFC 3339)`},
		{"an empty time", "POST", "/", `{"issuer":"i","client":"a","issued_before":""}`, nil, 400, "invalid_request", `Member "issued_before" must be a time such as 2026-01-31T12:00:00Z (RFC 3339)`},
		{"two faults", "POST", "/", `{"issuer":1,"client":true}`, nil, 400, "invalid_request", `Member "issuer" must be a string; member "client" must be a string`},

		{"no selection", "POST", "/", `{"issuer":"i"}`, nil, 400, "invalid_request", `The rule selects no tokens: set "token", "client", "account" or "subject", or "everything" for all tokens of the issuer`},
		{"an empty selection", "POST", "/", `{"issuer":"i","client":"","everything":false}`, nil, 400, "invalid_request", `The rule selects no tokens: set "token", "client", "account" or "subject", or "everything" for all tokens of the issuer`},
		{"an empty object", "DELETE", "/", `{}`, nil, 400, "invalid_request", `The rule selects no tokens: set "token", "client", "account" or "subject", or "everything" for all tokens of the issuer; "issuer" is empty: set it to the "iss" of the tokens`},
		{"two selections", "POST", "/", `{"issuer":"i","token":"t","subject":"s"}`, nil, 400, "invalid_request", `The rule has "token" and "subject": set one of them`},
		{"everything and a client", "POST", "/", `{"issuer":"i","client":"c","everything":true}`, nil, 400, "invalid_request", `The rule has "client" and "everything": set one of them`},
		{"no issuer", "POST", "/", `{"client":"c"}`, nil, 400, "invalid_request", `"issuer" is empty: set it to the "iss" of the tokens`},
		{"a long value", "POST", "/", `{"issuer":"i","account":"` + long + `"}`, nil, 400, "invalid_request", `"account" is longer than 256 bytes: no claim that long is matched`},
		{"a long issuer", "POST", "/", `{"issuer":"` + long + `","everything":true}`, nil, 400, "invalid_request", `"issuer" is longer than 256 bytes: no claim that long is matched`},
		{"a moment after the end", "POST", "/", `{"issuer":"i","client":"c","issued_before":"2001-01-01T00:00:00Z","until":"2000-06-01T00:00:00Z"}`, nil, 400, "invalid_request", `"issued_before" is after "until": the rule would be forgotten before it applies, so set a later "until"`},
		{"an end that has passed", "POST", "/", `{"issuer":"i","client":"c","issued_before":"1999-01-01T00:00:00Z","until":"1999-06-01T00:00:00Z"}`, nil, 400, "invalid_request", `Member "until" is in the past, so the rule would be forgotten at once: give a later time, or leave it out`},
		{"a moment whose end no date can have", "POST", "/", `{"issuer":"i","client":"c","issued_before":"9999-01-01T00:00:00Z"}`, nil, 400, "invalid_request", `"issued_before" or "until" is not in the years 1 to 9999: set other moments`},
		{"an end that no date can have", "POST", "/", `{"issuer":"i","token":"c","until":"9999-12-31T23:59:59-12:00"}`, nil, 400, "invalid_request", `"issued_before" or "until" is not in the years 1 to 9999: set other moments`},
		{"a moment before all dates", "POST", "/", `{"issuer":"i","client":"c","issued_before":"0000-01-01T00:00:00+12:00"}`, nil, 400, "invalid_request", `"issued_before" or "until" is not in the years 1 to 9999: set other moments`},
		{"a long reason", "POST", "/", `{"issuer":"i","client":"c","reason":"` + strings.Repeat("é", 257) + `"}`, nil, 400, "invalid_request", `Member "reason" must be printable text of up to 512 bytes, on one line`},
		{"a reason of two lines", "POST", "/", `{"issuer":"i","client":"c","reason":"a\nb"}`, nil, 400, "invalid_request", `Member "reason" must be printable text of up to 512 bytes, on one line`},

		{"dry-run=1", "POST", "/?dry-run=1", valid, nil, 400, "invalid_request", `Parameter "dry-run" must be true or false`},
		{"dry-run without a value", "POST", "/?dry-run", valid, nil, 400, "invalid_request", `Parameter "dry-run" must be true or false`},
		{"dry-run=TRUE", "DELETE", "/?dry-run=TRUE", valid, nil, 400, "invalid_request", `Parameter "dry-run" must be true or false`},
		{"dry-run twice", "POST", "/?dry-run=true&dry-run=true", valid, nil, 400, "invalid_request", `Parameter "dry-run" must be there once`},
		{"a misspelled dry-run", "POST", "/?dry_run=true", valid, nil, 400, "invalid_request", `Unknown parameter "dry_run": use dry-run`},
		{"dry-run in upper case", "POST", "/?Dry-Run=true", valid, nil, 400, "invalid_request", `Unknown parameter "Dry-Run": write "dry-run"`},
		{"a query that cannot be parsed", "POST", "/?dry-run=true;x", valid, nil, 400, "invalid_request", "The query cannot be parsed: escape its values"},
		{"after with POST", "POST", "/?after=1", valid, nil, 400, "invalid_request", `Unknown parameter "after": use dry-run`},
		{"dry-run with GET", "GET", "/?dry-run=true", "", nil, 400, "invalid_request", `Unknown parameter "dry-run": use after, limit`},
		{"a negative after", "GET", "/?after=-1", "", nil, 400, "invalid_request", `Parameter "after" must be the "seq" of a rule, or the "next" of a page`},
		{"an after that is too large", "GET", "/?after=18446744073709551616", "", nil, 400, "invalid_request", `Parameter "after" must be the "seq" of a rule, or the "next" of a page`},
		{"an empty after", "GET", "/?after=&limit=1", "", nil, 400, "invalid_request", `Parameter "after" must be the "seq" of a rule, or the "next" of a page`},
		{"limit 0", "GET", "/?limit=0", "", nil, 400, "invalid_request", `Parameter "limit" must be a number from 1 to 1000`},
		{"a limit that overflows", "GET", "/?limit=9223372036854775808", "", nil, 400, "invalid_request", `Parameter "limit" must be a number from 1 to 1000`},
		{"limit 1001", "GET", "/?limit=1001", "", nil, 400, "invalid_request", `Parameter "limit" must be a number from 1 to 1000`},
		{"a limit that is no number", "GET", "/?limit=all", "", nil, 400, "invalid_request", `Parameter "limit" must be a number from 1 to 1000`},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := revocation.Memory()
				w := send(revocation.Handler(store, new(revocation.List)), request(row.method, row.target, row.body, row.headers...))
				assert.Equal(t, row.status, w.Code)
				var body struct {
					Error       string
					Description string `json:"error_description"`
				}
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
				assert.Equal(t, row.code, body.Error)
				assert.Equal(t, row.description, body.Description)
				want := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}}
				if row.status == 405 {
					want.Set("Allow", "DELETE, GET, POST")
				}
				assert.Equal(t, want, w.Header())
				assert.Empty(t, stored(t, store), "nothing was appended")
			})
		})
	}
}

func TestHandler_LimitsBody(t *testing.T) {
	rule := func(size int) string {
		body := `{"issuer":"i","token":"t"}`
		return body + strings.Repeat(" ", size-len(body))
	}
	for _, row := range []struct {
		name   string
		body   string
		length int64
		status int
		read   int // at most
	}{
		{"64 KiB", rule(64 << 10), 64 << 10, 201, 64 << 10},
		{"64 KiB, chunked", rule(64 << 10), -1, 201, 64 << 10},
		{"a byte more", rule(64<<10 + 1), 64<<10 + 1, 413, 0},
		{"a byte more, chunked", rule(64<<10 + 1), -1, 413, 64<<10 + 1},
		{"a megabyte, chunked", rule(1 << 20), -1, 413, 64<<10 + 1},
		{"a length that overflows", rule(100), 1 << 62, 413, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			store := revocation.Memory()
			r := request("POST", "/", "")
			body := &countingReader{Reader: strings.NewReader(row.body)}
			r.Body, r.ContentLength = io.NopCloser(body), row.length
			w := send(revocation.Handler(store, new(revocation.List)), r)
			assert.Equal(t, row.status, w.Code, w.Body)
			assert.LessOrEqual(t, body.read, row.read)
			if row.status == 413 {
				assert.Equal(t, `{"error":"request_too_large","error_description":"The body must have at most 64 KiB"}`, w.Body.String())
				assert.Equal(t, "close", w.Header().Get("Connection"), "the server does not read the rest")
				assert.Empty(t, stored(t, store))
			}
		})
	}
	t.Run("a body that ends too early", func(t *testing.T) {
		r := request("POST", "/", "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"issuer":"i","token":"t"}`), failingReader{}))
		w := send(revocation.Handler(revocation.Memory(), new(revocation.List)), r)
		assert.Equal(t, `{"error":"invalid_request","error_description":"The body was not received completely"}`, w.Body.String())
		assert.Equal(t, 400, w.Code)
	})
	t.Run("a request without a body", func(t *testing.T) {
		r := request("POST", "/", "")
		r.Body = nil
		assert.Equal(t, 400, send(revocation.Handler(revocation.Memory(), new(revocation.List)), r).Code)
	})
}

type countingReader struct {
	io.Reader
	read int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Whoever waits for the answer gets a token that is not revoked by the rule.
func TestHandler_AnswersWhenTheSecondHasPassed(t *testing.T) {
	at := func(d time.Duration) string {
		return `,"issued_before":"` + time.Now().Add(d).Format(time.RFC3339Nano) + `"`
	}
	for _, row := range []struct {
		name  string
		start time.Duration // into the second
		body  func() string
		wait  time.Duration
	}{
		{"now", 300 * time.Millisecond, func() string { return "" }, 700 * time.Millisecond},
		{"now, at the end of the second", 999_999_999, func() string { return "" }, 1},
		{"now, at the start of the second", 0, func() string { return "" }, time.Second},
		{"a moment of this second that has passed", 300 * time.Millisecond, func() string { return at(-200 * time.Millisecond) }, 700 * time.Millisecond},
		{"a moment of this second to come", 300 * time.Millisecond, func() string { return at(200 * time.Millisecond) }, 700 * time.Millisecond},
		{"a moment of the last second", 300 * time.Millisecond, func() string { return at(-301 * time.Millisecond) }, 0},
		{"two seconds ahead", 300 * time.Millisecond, func() string { return at(2 * time.Second) }, 2700 * time.Millisecond},
		{"a whole second ahead", 0, func() string { return at(time.Second) }, 2 * time.Second},
		{"an hour ahead", 300 * time.Millisecond, func() string { return at(time.Hour) }, 0},
		{"a year ago", 300 * time.Millisecond, func() string { return at(-365 * 24 * time.Hour) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(row.start)
				list, store := new(revocation.List), revocation.Memory()
				handler := revocation.Handler(store, list)
				body := `{"issuer":"i","client":"c"` + row.body() + `}`
				start := time.Now()
				require.Equal(t, 201, send(handler, request("POST", "/", body)).Code)
				assert.Equal(t, row.wait, time.Since(start))
				if row.wait > 0 {
					rule := stored(t, store)[0].Rule
					assert.Greater(t, time.Now().Unix(), rule.IssuedBefore.Unix(), "iat of a new token is after the moment")
				}

				start = time.Now()
				require.Equal(t, 201, send(handler, request("DELETE", "/", body)).Code)
				require.Equal(t, 201, send(handler, request("POST", "/", `{"issuer":"i","token":"t"}`)).Code)
				require.Equal(t, 200, send(handler, request("POST", "/?dry-run=true", body)).Code)
				assert.Zero(t, time.Since(start), "lifts, tokens and dry runs do not wait")
			})
		})
	}
	t.Run("the end of the request ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := revocation.Memory()
			r := request("POST", "/", `{"issuer":"i","client":"c"}`)
			ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			w := send(revocation.Handler(store, new(revocation.List)), r.WithContext(ctx))
			assert.Equal(t, 100*time.Millisecond, time.Since(start))
			assert.Equal(t, 201, w.Code, "the rule is in the store")
			assert.Len(t, stored(t, store), 1)
		})
	})
}

// tokenTexts are texts with a JWT or a part of one. secretPart is in each of them.
func tokenTexts(t testing.TB) (texts []string, parts []string) {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	require.NoError(t, err)
	token := issuer.Valid()
	parts = strings.Split(token, ".")
	return []string{
		token, "Bearer " + token, "bearer " + parts[0] + "." + parts[1], parts[0] + "." + parts[1][:20], parts[1] + "." + parts[2], parts[0],
		`"` + token + `"`, "token_" + token, "https://example.com/?access_token=" + parts[0] + "." + parts[1], strings.ReplaceAll(parts[0]+"."+parts[1], ".", "%2E"),
	}, parts
}

func TestHandler_NeverEchoesTokens(t *testing.T) {
	texts, parts := tokenTexts(t)
	var log strings.Builder
	store := revocation.Memory()
	handler := revocation.Handler(store, &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	check := func(t *testing.T, w *httptest.ResponseRecorder) {
		t.Helper()
		assert.Equal(t, 400, w.Code, w.Body)
		for _, part := range parts {
			assert.NotContains(t, w.Body.String()+log.String()+fmt.Sprint(w.Header()), part[:12])
		}
	}
	for i, text := range texts {
		encoded, err := json.Marshal(text)
		require.NoError(t, err)
		for _, name := range []string{"issuer", "token", "client", "account", "subject", "reason", "issued_before", "until", "everything", "by", "hash", "lift", "jti", "Token"} {
			body := map[string]any{"issuer": "i", "client": "c"}
			switch name {
			case "token", "account", "subject":
				delete(body, "client")
			}
			body[name] = text
			whole, err := json.Marshal(body)
			require.NoError(t, err)
			for _, method := range []string{"POST", "DELETE"} {
				t.Run(fmt.Sprintf("%s with text %d as %s", method, i, name), func(t *testing.T) {
					w := send(handler, request(method, "/", string(whole)))
					check(t, w)
					assert.Contains(t, w.Body.String(), name, "the answer says which member")
				})
			}
		}
		t.Run(fmt.Sprintf("text %d elsewhere", i), func(t *testing.T) {
			for _, body := range []string{
				text, string(encoded), `{` + string(encoded) + `:"x"}`, `{"issuer":"i","client":"c",` + string(encoded) + `:1,` + string(encoded) + `:1}`,
				`{"issuer":"i","client":["` + parts[0] + `"]}`, `{"issuer":"i","client":{` + string(encoded) + `:1}}`, `{"client":"` + parts[0],
			} {
				check(t, send(handler, request("POST", "/", body)))
			}
			for _, name := range []string{"dry-run", "after", "limit", "token", parts[0]} {
				r := request("POST", "/", `{"issuer":"i","client":"c"}`)
				q := r.URL.Query()
				q.Set(name, text)
				r.URL.RawQuery = q.Encode()
				check(t, send(handler, r))
				r.Method = "GET"
				check(t, send(handler, r))
			}
		})
	}
	assert.Empty(t, stored(t, store))

	t.Run("a token in a rule that another program appended", func(t *testing.T) {
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: "i", Client: "c", Reason: "Bearer " + texts[0], By: parts[0]})
		require.NoError(t, err)
		w := send(handler, request("GET", "/", ""))
		assert.Equal(t, 200, w.Code)
		for _, part := range parts {
			assert.NotContains(t, w.Body.String(), part[:12])
		}
		assert.Contains(t, w.Body.String(), `"client":"c"`)
		assert.Contains(t, w.Body.String(), `"reason":"[redacted]","by":"[redacted]"`)
	})
}

func TestHandler_NeedsToKnowTheCaller(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"no claims":             t.Context(),
		"nil claims":            koreauth.NewContext(t.Context(), nil),
		"claims without client": koreauth.NewContext(t.Context(), &koreauth.Claims{Subject: "s"}),
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS"} {
			t.Run(name+", "+method, func(t *testing.T) {
				store := revocation.Memory()
				handler := revocation.Handler(store, new(revocation.List))
				w := send(handler, request(method, "/", `{"issuer":"i","client":"c"}`).WithContext(ctx))
				assert.Equal(t, 403, w.Code)
				assert.Equal(t, `{"error":"access_denied","error_description":"The caller is not known: this needs the token of a client, and a guard around this handler"}`, w.Body.String())
				assert.Empty(t, stored(t, store))
			})
		}
	}
	t.Run("the guard names the caller", func(t *testing.T) {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
		require.NoError(t, err)
		validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient()})
		require.NoError(t, err)
		handler := koreauth.New(validator, nil).Wrap(revocation.Handler(revocation.Memory(), new(revocation.List)))
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"issuer":"i","token":"t"}`))
		assert.Equal(t, 401, send(handler, r).Code)
		r = httptest.NewRequest("POST", "/", strings.NewReader(`{"issuer":"i","token":"t"}`))
		r.Header.Set("Authorization", "Bearer "+issuer.Valid())
		w := send(handler, r)
		assert.Equal(t, 201, w.Code)
		assert.Contains(t, w.Body.String(), `"by":"kc_demo"`)
	})
}

func TestHandler_ListsRulesInPages(t *testing.T) {
	store := revocation.Memory()
	handler := revocation.Handler(store, new(revocation.List))
	w := send(handler, request("GET", "/", ""))
	assert.Equal(t, `{"rules":[],"next":0,"replicas":{"known":1,"current":1}}`, w.Body.String())

	for i := range 250 {
		_, err := store.Append(t.Context(), revocation.Rule{Issuer: "i", Token: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	for _, row := range []struct {
		query       string
		first, last uint64
		next        uint64
	}{
		{"", 1, 100, 100},
		{"?after=100", 101, 200, 200},
		{"?after=200", 201, 250, 250},
		{"?after=250", 0, 0, 250},
		{"?after=251", 0, 0, 251},
		{"?after=18446744073709551615", 0, 0, 18446744073709551615},
		{"?limit=1", 1, 1, 1},
		{"?after=7&limit=2", 8, 9, 9},
		{"?after=249&limit=1", 250, 250, 250},
		{"?limit=1000", 1, 250, 250},
	} {
		t.Run(row.query, func(t *testing.T) {
			w := send(handler, request("GET", "/"+row.query, ""))
			require.Equal(t, 200, w.Code, w.Body)
			var page struct {
				Rules []revocation.Receipt
				Next  uint64
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &page))
			assert.Equal(t, row.next, page.Next)
			if row.last == 0 {
				assert.Empty(t, page.Rules)
				assert.Contains(t, w.Body.String(), `"rules":[]`)
				return
			}
			require.Len(t, page.Rules, int(row.last-row.first+1))
			for i, rule := range page.Rules {
				assert.Equal(t, row.first+uint64(i), rule.Seq)
				assert.Equal(t, fmt.Sprint(rule.Seq-1), rule.Rule.Token)
			}
		})
	}
}

// fleet is a store whose replicas are counted elsewhere.
type fleet struct {
	revocation.Store
	replicas func(context.Context) (known, current int, err error)
}

func (f fleet) Refill(context.Context, []revocation.Receipt) error { return nil }
func (f fleet) Report(context.Context, string, uint64) error       { return nil }
func (f fleet) Replicas(ctx context.Context) (int, int, error)     { return f.replicas(ctx) }

// alone is a store that is not a Fleet.
type alone struct{ revocation.Store }

func TestHandler_CountsReplicas(t *testing.T) {
	for _, row := range []struct {
		name   string
		store  revocation.Store
		status int
		want   string
	}{
		{"a fleet", fleet{revocation.Memory(), func(context.Context) (int, int, error) { return 50, 49, nil }}, 200, `{"rules":[],"next":0,"replicas":{"known":50,"current":49}}`},
		{"a store of one process", alone{revocation.Memory()}, 200, `{"rules":[],"next":0,"replicas":{"known":1,"current":1}}`},
		{"a fleet that fails", fleet{revocation.Memory(), func(context.Context) (int, int, error) { return 0, 0, errors.New("secret cause") }}, 503, unavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := send(revocation.Handler(row.store, new(revocation.List)), request("GET", "/", ""))
			assert.Equal(t, row.status, w.Code)
			assert.Equal(t, row.want, w.Body.String())
		})
	}
}

const unavailable = `{"error":"temporarily_unavailable","error_description":"The store of the rules did not answer. Repeat the request: it does no harm if the rule is already there"}`

// failing is a store that does what its functions do.
type failing struct {
	append func(context.Context) (revocation.Receipt, error)
	follow func(ctx context.Context, apply func(revocation.Receipt), current func(time.Time)) error
}

func (f failing) Append(ctx context.Context, _ revocation.Rule) (revocation.Receipt, error) {
	return f.append(ctx)
}

func (f failing) Follow(ctx context.Context, _ uint64, apply func(revocation.Receipt), current func(time.Time)) error {
	return f.follow(ctx, apply, current)
}

// same returns a store that does the same in both methods.
func same(do func(context.Context) error) failing {
	return failing{
		func(ctx context.Context) (revocation.Receipt, error) { return revocation.Receipt{}, do(ctx) },
		func(ctx context.Context, _ func(revocation.Receipt), _ func(time.Time)) error { return do(ctx) },
	}
}

func TestHandler_FailingStore(t *testing.T) {
	receipt := revocation.Receipt{Seq: 1, At: time.Now(), Rule: revocation.Rule{Issuer: "i", Token: "t", Until: time.Now()}}
	odd := receipt
	odd.Rule.Until = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name  string
		store failing
		wait  time.Duration
		cause string
	}{
		{"an error", same(func(context.Context) error { return errors.New("secret cause of user:password@redis") }), 0, "secret cause of [redacted]"},
		{"a panic", same(func(context.Context) error { panic("secret cause") }), 0, "it panicked with a string"},
		{"it hangs until its context is done", same(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), 5 * time.Second, "context deadline exceeded"},
		{"it ignores its context", same(func(context.Context) error { time.Sleep(time.Minute); return nil }), 5 * time.Second, "context deadline exceeded"},
		{"no error and no result", same(func(context.Context) error { return nil }), 0, "returned"},
		{"a receipt without Seq", failing{
			func(context.Context) (revocation.Receipt, error) { return revocation.Receipt{At: receipt.At}, nil },
			func(_ context.Context, apply func(revocation.Receipt), _ func(time.Time)) error {
				apply(revocation.Receipt{At: receipt.At})
				return errors.New("returned")
			},
		}, 0, "returned"},
		{"a date that JSON cannot have", failing{
			func(context.Context) (revocation.Receipt, error) { return odd, nil },
			func(_ context.Context, apply func(revocation.Receipt), _ func(time.Time)) error {
				apply(odd)
				return errors.New("1 to 9999")
			},
		}, 0, "1 to 9999"},
	} {
		for _, r := range []*http.Request{request("POST", "/", `{"issuer":"i","token":"t"}`), request("DELETE", "/", `{"issuer":"i","token":"t"}`), request("GET", "/", "")} {
			t.Run(row.name+", "+r.Method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log strings.Builder
					handler := revocation.Handler(row.store, &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))})
					start := time.Now()
					w := send(handler, r.WithContext(koreauth.NewContext(t.Context(), &koreauth.Claims{ClientID: operator})))
					assert.Equal(t, row.wait, time.Since(start))
					assert.Equal(t, 503, w.Code)
					assert.Equal(t, unavailable, w.Body.String())
					assert.Equal(t, "1", w.Header().Get("Retry-After"))
					assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
					assert.Contains(t, log.String(), "level=ERROR msg=\"revocation: the handler's call of the store failed\" method="+r.Method+" cause=")
					assert.Contains(t, log.String(), row.cause)
					assert.Equal(t, 1, strings.Count(log.String(), "\n"))
					time.Sleep(time.Hour) // goroutines that ignore their context end
				})
			})
		}
	}
	t.Run("rules that are not valid are left out of a page", func(t *testing.T) {
		store := failing{follow: func(ctx context.Context, apply func(revocation.Receipt), current func(time.Time)) error {
			valid := receipt
			valid.Seq, odd.Seq = 3, 2
			for _, r := range []revocation.Receipt{odd, {Seq: 2}, valid, {Seq: 4, At: time.Now(), Rule: revocation.Rule{Issuer: "i"}}} {
				apply(r)
			}
			current(time.Now())
			<-ctx.Done()
			return ctx.Err()
		}}
		w := send(revocation.Handler(store, new(revocation.List)), request("GET", "/", ""))
		assert.Equal(t, 200, w.Code)
		assert.Contains(t, w.Body.String(), `{"rules":[{"seq":3,`)
		assert.Contains(t, w.Body.String(), `],"next":3,`)
	})
	t.Run("a client that has disconnected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log strings.Builder
			handler := revocation.Handler(same(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), &revocation.List{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			r := request("POST", "/", `{"issuer":"i","token":"t"}`)
			ctx, cancel := context.WithCancel(r.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			assert.Equal(t, 503, send(handler, r.WithContext(ctx)).Code)
			assert.Equal(t, time.Second, time.Since(start))
			assert.Contains(t, log.String(), "level=INFO")
		})
	})
	t.Run("a Logger that panics", func(t *testing.T) {
		list := &revocation.List{Logger: slog.New(panicking{slog.DiscardHandler})}
		w := send(revocation.Handler(same(func(context.Context) error { return errors.New("x") }), list), request("GET", "/", ""))
		assert.Equal(t, unavailable, w.Body.String())
		w = send(revocation.Handler(revocation.Memory(), list), request("POST", "/", `{"issuer":"i","token":"t"}`))
		assert.Equal(t, 201, w.Code)
	})
	t.Run("calls that never return are bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			release := make(chan struct{})
			handler := revocation.Handler(same(func(context.Context) error { calls.Add(1); <-release; return errors.New("x") }), new(revocation.List))
			for range 100 {
				go send(handler, request("POST", "/", `{"issuer":"i","token":"t"}`))
			}
			time.Sleep(time.Minute)
			assert.EqualValues(t, 64, calls.Load())
			close(release)
			time.Sleep(time.Minute)
			send(handler, request("POST", "/", `{"issuer":"i","token":"t"}`))
			assert.EqualValues(t, 65, calls.Load(), "it works again")
		})
	})
}

// panicking is a log handler that panics.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("log") }

// GET ends when it has its page, and leaves no goroutine.
func TestHandler_PageOfABusyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		busy := failing{follow: func(ctx context.Context, apply func(revocation.Receipt), _ func(time.Time)) error {
			more := 5 // rules that it gives although the page has ended
			for seq := uint64(1); ctx.Err() == nil || more > 0; seq++ {
				if ctx.Err() != nil {
					more--
				}
				apply(revocation.Receipt{Seq: seq, At: time.Now(), Rule: revocation.Rule{Issuer: "i", Token: "t"}})
			}
			ended++
			return ctx.Err()
		}}
		w := send(revocation.Handler(busy, new(revocation.List)), request("GET", "/?limit=3", ""))
		assert.Equal(t, 200, w.Code)
		assert.Contains(t, w.Body.String(), `"next":3,`)
		assert.Equal(t, 3, strings.Count(w.Body.String(), `"seq":`), w.Body)
		synctest.Wait()
		assert.Equal(t, 1, ended)
	})
}

// Each change has one record in its process, whether the list follows the store or not.
func TestHandler_AuditsEachChangeOnce(t *testing.T) {
	for _, row := range []struct{ body, want string }{
		{`"token":"trrtcc:1"`, "kind=token seq=%d at=2000-01-01T%s%sissuer=i reason=leaked by=kc_operator"},
		{`"client":"kc_1"`, "kind=client seq=%d at=2000-01-01T%s%sissuer=i client=kc_1 reason=leaked by=kc_operator"},
		{`"account":"CO1"`, "kind=account seq=%d at=2000-01-01T%s%sissuer=i reason=leaked by=kc_operator"},
		{`"subject":"person"`, "kind=subject seq=%d at=2000-01-01T%s%sissuer=i reason=leaked by=kc_operator"},
		{`"everything":true`, "kind=issuer seq=%d at=2000-01-01T%s%sissuer=i reason=leaked by=kc_operator"},
	} {
		for _, follows := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the list follows: %v", row.body, follows), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log, store := new(records), revocation.Memory()
					list := &revocation.List{Logger: slog.New(slog.NewTextHandler(log, nil))}
					if follows {
						follow(t, list, store)
					}
					handler, want := revocation.Handler(store, list), ""
					for i, method := range []string{"POST", "DELETE", "POST"} {
						time.Sleep(time.Second)
						at, lift := time.Now().UTC().Format("15:04:05.000Z "), ""
						if method == "DELETE" {
							lift = "lift=true "
						}
						w := send(handler, request(method, "/", `{"issuer":"i","reason":"leaked",`+row.body+`}`))
						require.Equal(t, 201, w.Code, w.Body)
						want += "level=INFO msg=\"revocation: rule applied\" " + fmt.Sprintf(row.want, i+1, at, lift) + "\n"
						time.Sleep(10 * time.Second)
						assert.Equal(t, want, regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), ""))
					}
					send(handler, request("POST", "/?dry-run=true", `{"issuer":"i",`+row.body+`}`))
					send(handler, request("POST", "/", `{"issuer":"",`+row.body+`}`))
					send(handler, request("GET", "/", ""))
					time.Sleep(10 * time.Second)
					assert.Equal(t, 3, strings.Count(log.String(), "\n"), "what changes nothing has no record")
				})
			})
		}
	}
	t.Run("many at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log, store := new(records), revocation.Memory()
			list := &revocation.List{Logger: slog.New(slog.NewTextHandler(log, nil))}
			follow(t, list, store)
			handler := revocation.Handler(store, list)
			for i := range 80 {
				go send(handler, request("POST", "/", fmt.Sprintf(`{"issuer":"i","token":"%d"}`, i)))
			}
			time.Sleep(10 * time.Second)
			assert.Equal(t, 80, strings.Count(log.String(), "rule applied"))
			for seq := range 80 {
				assert.Equal(t, 1, strings.Count(log.String(), fmt.Sprintf(" seq=%d ", seq+1)))
			}
		})
	})
}

func TestHandler_DryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, list := revocation.Memory(), new(revocation.List)
		require.NoError(t, list.Apply())
		handler := revocation.Handler(store, list)
		dryRun := func(method, body string) string {
			t.Helper()
			w := send(handler, request(method, "/?dry-run=true", body))
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			return w.Body.String()
		}
		assert.Equal(t, `{"tokens":0,"clients":[]}`, dryRun("POST", `{"issuer":"i","everything":true}`))
		for i, client := range []string{"kc_2", "kc_1", "kc_2"} {
			require.NoError(t, list.Check(nil, &koreauth.Claims{
				Issuer: "i", ID: fmt.Sprint(i), ClientID: client, AccountID: "CO1", Subject: client, IssuedAt: time.Now(), Expiry: time.Now().Add(time.Hour),
			}))
		}
		for body, want := range map[string]string{
			`{"issuer":"i","everything":true}`:                                      `{"tokens":3,"clients":["kc_1","kc_2"]}`,
			`{"issuer":"i","client":"kc_2"}`:                                        `{"tokens":2,"clients":["kc_2"]}`,
			`{"issuer":"i","client":"kc_2","issued_before":"1999-12-31T23:59:59Z"}`: `{"tokens":0,"clients":[]}`,
			`{"issuer":"i","client":"kc_3"}`:                                        `{"tokens":0,"clients":[]}`,
			`{"issuer":"j","client":"kc_2"}`:                                        `{"tokens":0,"clients":[]}`,
			`{"issuer":"i","account":"CO1"}`:                                        `{"tokens":3,"clients":["kc_1","kc_2"]}`,
			`{"issuer":"i","subject":"kc_1"}`:                                       `{"tokens":1,"clients":["kc_1"]}`,
			`{"issuer":"i","token":"2"}`:                                            `{"tokens":1,"clients":["kc_2"]}`,
		} {
			assert.Equal(t, want, dryRun("POST", body), body)
			assert.Equal(t, `{"tokens":0,"clients":[]}`, dryRun("DELETE", body), "a lift stops nothing")
		}
		assert.Empty(t, stored(t, store))
		w := send(handler, request("POST", "/?dry-run=false", `{"issuer":"i","token":"2"}`))
		assert.Equal(t, 201, w.Code)
		assert.Len(t, stored(t, store), 1)
	})
}

// A revoked token is rejected when POST has answered, and accepted when DELETE has.
func TestHandler_RevokesAndLifts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
		require.NoError(t, err)
		store, list := revocation.Memory(), new(revocation.List)
		follow(t, list, store)
		validator, err := koreauth.NewValidator(koreauth.Config{
			Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient(), Require: []koreauth.Requirement{list},
		})
		require.NoError(t, err)
		synctest.Wait()
		handler := revocation.Handler(store, list)
		token := issuer.Valid()
		claims, err := validator.Validate(t.Context(), token)
		require.NoError(t, err)
		for _, selection := range []string{
			`"token":"` + claims.ID + `"`, `"client":"` + claims.ClientID + `"`, `"account":"` + claims.AccountID + `"`, `"subject":"` + claims.Subject + `"`, `"everything":true`,
		} {
			body := `{"issuer":"` + issuer.URL() + `",` + selection + `}`
			require.Equal(t, 201, send(handler, request("POST", "/", body)).Code)
			synctest.Wait()
			_, err = validator.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrRevoked, selection)
			fresh := issuer.Valid()
			_, err = validator.Validate(t.Context(), fresh)
			assert.NoError(t, err, "a token fetched after the answer: %s", selection)
			require.Equal(t, 201, send(handler, request("DELETE", "/", body)).Code)
			synctest.Wait()
			_, err = validator.Validate(t.Context(), token)
			assert.NoError(t, err, selection)
		}
	})
}

func TestHandler_PanicsWithoutStoreOrList(t *testing.T) {
	assert.PanicsWithValue(t, "revocation: Handler needs a Store, such as the result of File", func() { revocation.Handler(nil, new(revocation.List)) })
	var typed *nilStore
	assert.PanicsWithValue(t, "revocation: Handler needs a Store, such as the result of File", func() { revocation.Handler(typed, new(revocation.List)) })
	assert.PanicsWithValue(t, "revocation: Handler needs a *List, which has the Logger and knows the tokens for a dry run", func() { revocation.Handler(revocation.Memory(), nil) })
}

type nilStore struct{ revocation.Store }

func FuzzHandler(f *testing.F) {
	texts, _ := tokenTexts(f)
	for _, body := range []string{
		`{"issuer":"i","client":"c"}`, `{"issuer":"i","token":"MARK!","reason":"x"}`, `{"issuer":"i","everything":true,"issued_before":"2026-01-31T12:00:00Z","until":"9999-12-31T23:59:59Z"}`,
		`{"issuer":"i","client":"c","client":"MARK!"}`, `{"a":{"b":[1,2,{"c":"MARK!"}]}}`, `{"issuer":"` + texts[0] + `"}`, `{"until":"0000-01-01T00:00:00+23:59","issuer":"i","client":"c"}`, "{", "",
	} {
		f.Add("POST", "", body)
		f.Add("DELETE", "dry-run=true", body)
		f.Add("GET", "after=1&limit=1", body)
	}
	f.Add("POST", "dry-run=MARK!", "{}")
	f.Add("GET", "limit=MARK%21&MARK%21=1", "")
	f.Fuzz(func(t *testing.T, method, query, body string) {
		synctest.Test(t, func(t *testing.T) {
			handler := revocation.Handler(revocation.Memory(), new(revocation.List))
			r := request("POST", "/", body)
			r.Method, r.URL.RawQuery = method, query
			w := send(handler, r)
			assert.Less(t, w.Code, 500)
			require.True(t, json.Valid(w.Body.Bytes()), w.Body)
			if w.Code < 300 {
				return
			}
			// The answer has no string of the request that is not the name of a member.
			assert.NotContains(t, w.Body.String(), "MARK!")
			var answer map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			assert.Len(t, answer, 2)
			assert.LessOrEqual(t, len(answer["error_description"]), 1000)
			w = send(handler, request("GET", "/", ""))
			assert.Contains(t, w.Body.String(), `"rules":[]`, "nothing was appended")
		})
	})
}

// Two processes have a handler each, and one file.
func TestHandler_File(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked.log")
	first, second := revocation.Handler(revocation.File(path), new(revocation.List)), revocation.Handler(revocation.File(path), new(revocation.List))
	assert.Equal(t, `{"rules":[],"next":0,"replicas":{"known":1,"current":1}}`, send(second, request("GET", "/", "")).Body.String())
	var receipts []string
	for i, handler := range []http.Handler{first, second, first} {
		w := send(handler, request("POST", "/", fmt.Sprintf(`{"issuer":"i","token":"%d"}`, i)))
		require.Equal(t, 201, w.Code, w.Body)
		receipts = append(receipts, w.Body.String())
	}
	w := send(first, request("DELETE", "/", `{"issuer":"i","token":"1"}`))
	require.Equal(t, 201, w.Code, w.Body)
	receipts = append(receipts, w.Body.String())
	for _, handler := range []http.Handler{first, second} {
		w := send(handler, request("GET", "/?after=1&limit=2", ""))
		assert.Equal(t, `{"rules":[`+receipts[1]+`,`+receipts[2]+`],"next":3,"replicas":{"known":1,"current":1}}`, w.Body.String())
		w = send(handler, request("GET", "/?after=3", ""))
		assert.Equal(t, `{"rules":[`+receipts[3]+`],"next":4,"replicas":{"known":1,"current":1}}`, w.Body.String())
		w = send(handler, request("GET", "/?after=9", ""))
		assert.Equal(t, `{"rules":[],"next":9,"replicas":{"known":1,"current":1}}`, w.Body.String())
	}

	require.NoError(t, os.WriteFile(path, []byte("not ours\n"), 0o600))
	for _, method := range []string{"GET", "POST", "DELETE"} {
		w := send(first, request(method, "/", `{"issuer":"i","token":"t"}`))
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, unavailable, w.Body.String())
	}
}
