package koreauth_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

var updateGolden = flag.Bool("update", false, "rewrite the files of testdata/golden; review the changes")

// bodyA and bodyB are the bodies that KORE documents, byte for byte. The others
// have the same form.
const (
	bodyA      = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	bodyB      = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	bodyScope  = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
	bodyDenied = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}`
	bodyDown   = `{"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}`
)

var errorFormats = map[string]koreauth.ErrorFormat{
	"KOREErrors":    koreauth.KOREErrors,
	"RFC6750Errors": koreauth.RFC6750Errors,
	"ProblemErrors": koreauth.ProblemErrors,
}

var classesAndReasons = []struct {
	class   error
	reasons []error
}{
	{koreauth.ErrNoToken, nil},
	{koreauth.ErrBadRequest, nil},
	{koreauth.ErrInvalidToken, []error{
		koreauth.ErrMalformed, koreauth.ErrAlgorithm, koreauth.ErrSignature, koreauth.ErrUnknownKey,
		koreauth.ErrExpired, koreauth.ErrNotYetValid, koreauth.ErrTooOld, koreauth.ErrIssuer,
		koreauth.ErrAudience, koreauth.ErrTokenType, koreauth.ErrClient, koreauth.ErrBinding, koreauth.ErrRevoked,
	}},
	{koreauth.ErrInsufficientScope, nil},
	{koreauth.ErrForbidden, nil},
	{koreauth.ErrUnavailable, nil},
}

// rejection is a request that a guard rejects.
type rejection struct {
	name      string
	header    []string // Authorization
	validator koretest.Validator
	require   koreauth.Requirement
}

func rejections() []rejection {
	bearer := []string{"Bearer abc"}
	rows := []rejection{
		{"no Authorization", nil, koretest.Validator{}, nil},
		{"another scheme", []string{"Basic dTpw"}, koretest.Validator{}, nil},
		{"two Authorization lines", []string{"Bearer abc", "Bearer abc"}, koretest.Validator{}, nil},
		{"Bearer without a token", []string{"Bearer"}, koretest.Validator{}, nil},
		{"invalid token, no reason given", bearer, koretest.Validator{Err: koreauth.ErrInvalidToken}, nil},
	}
	for _, reason := range classesAndReasons[2].reasons {
		name := strings.TrimPrefix(reason.Error(), "koreauth: ")
		rows = append(rows, rejection{name, bearer, koretest.Validator{Err: reason}, nil})
	}
	claims := koretest.Validator{Claims: &koreauth.Claims{}}
	return append(rows,
		rejection{"one scope is missing", bearer, claims, koreauth.Scope("sims:read")},
		rejection{"one grant is missing", bearer, claims, koreauth.Grant("API Clients", koreauth.Read)},
		rejection{"several requirements are not met", bearer, claims,
			koreauth.AllOf(koreauth.Grant("API Clients", koreauth.Read, koreauth.Delete), koreauth.Scope("a", "b"), koreauth.Product("SuperSIM"))},
		rejection{"a custom requirement that names nothing", bearer, claims,
			koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return errors.New("no") })},
		rejection{"forbidden by a custom requirement", bearer, claims,
			koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return koreauth.ErrForbidden })},
		rejection{"forbidden by one of two requirements", bearer, claims,
			koreauth.AnyOf(koreauth.Scope("a"), koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return koreauth.ErrForbidden }))},
		rejection{"revoked by a custom requirement", bearer, claims,
			koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return koreauth.ErrRevoked })},
		rejection{"unavailable, for an unknown time", bearer, koretest.Validator{Err: koreauth.ErrUnavailable}, nil},
		rejection{"unavailable for 1.5 s", bearer,
			koretest.Validator{Err: &koreauth.Error{Class: koreauth.ErrUnavailable, RetryAfter: 1500 * time.Millisecond}}, nil},
		rejection{"the validator's error has no class", bearer, koretest.Validator{Err: io.ErrUnexpectedEOF}, nil},
	)
}

// respond sends the row's request to a guard that uses format.
func (row rejection) respond(t *testing.T, method string, format koreauth.ErrorFormat) *http.Response {
	t.Helper()
	guard := koreauth.New(row.validator, &koreauth.Options{Errors: format})
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	handler := guard.Wrap(next)
	if row.require != nil {
		handler = guard.Require(row.require)(next)
	}
	r := httptest.NewRequest(method, "/", nil)
	r.Header["Authorization"] = row.header
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Result()
}

// dumpResponse returns the status, all headers and the body of a response.
func dumpResponse(t *testing.T, res *http.Response) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, res.Status)
	require.NoError(t, res.Header.Write(&b))
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return strings.ReplaceAll(b.String(), "\r\n", "\n") + "\n" + string(body)
}

// TestErrors_Golden compares the response to each kind of rejected request with
// a file. Run it with -update after an intended change.
func TestErrors_Golden(t *testing.T) {
	for name, format := range errorFormats {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, row := range rejections() {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					fmt.Fprintf(&b, "=== %s %s\n%s\n", method, row.name, dumpResponse(t, row.respond(t, method, format)))
				}
			}
			file := filepath.Join("testdata", "golden", name+".txt")
			if *updateGolden {
				require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), b.String())
		})
	}
}

// TestErrors_ResponsesByClass checks the table of responses in code, so that
// -update cannot change it by accident.
func TestErrors_ResponsesByClass(t *testing.T) {
	const realm = `Bearer realm="api"`
	for _, test := range []struct {
		name       string
		err        error
		koreStatus int
		koreBody   string
		status     int
		code       string
		challenge  string
	}{
		{"no token", koreauth.ErrNoToken, 401, bodyA, 401, "unauthorized", realm},
		{"bad request", koreauth.ErrBadRequest, 401, bodyA, 400, "invalid_request", realm + `, error="invalid_request"`},
		{"invalid token", koreauth.ErrExpired, 403, bodyB, 401, "invalid_token", realm + `, error="invalid_token"`},
		{"insufficient scope", &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"API Clients:Read", "a"}},
			403, bodyScope, 403, "insufficient_scope", realm + `, error="insufficient_scope", scope="API%20Clients:Read a"`},
		{"insufficient scope, unknown which", koreauth.ErrInsufficientScope,
			403, bodyScope, 403, "insufficient_scope", realm + `, error="insufficient_scope"`},
		{"revoked", koreauth.ErrRevoked, 403, bodyB, 401, "invalid_token", realm + `, error="invalid_token"`},
		{"forbidden", koreauth.ErrForbidden, 403, bodyDenied, 403, "access_denied", ""},
		{"forbidden, with required names", &koreauth.Error{Class: koreauth.ErrForbidden, Required: []string{"a"}}, 403, bodyDenied, 403, "access_denied", ""},
		{"unavailable", koreauth.ErrUnavailable, 503, bodyDown, 503, "temporarily_unavailable", ""},
		{"an error without a class", errors.New("look-up failed"), 503, bodyDown, 503, "temporarily_unavailable", ""},
		{"a nil error", nil, 503, bodyDown, 503, "temporarily_unavailable", ""},
	} {
		for name, format := range errorFormats {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				w := httptest.NewRecorder()
				guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Errors: format})
				guard.Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), test.err)

				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
				assert.Equal(t, test.challenge, w.Header().Get("WWW-Authenticate"))
				assert.Equal(t, test.status == 503, w.Header().Get("Retry-After") == "1", "Retry-After: %v", w.Header()["Retry-After"])
				assert.Equal(t, test.challenge != "", w.Header()["Www-Authenticate"] != nil)
				if name == "KOREErrors" {
					assert.Equal(t, test.koreStatus, w.Code)
					assert.Equal(t, test.koreBody, w.Body.String())
					assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
					return
				}
				assert.Equal(t, test.status, w.Code)
				var body map[string]any
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
				assert.Equal(t, test.code, body["error"])
				if name == "RFC6750Errors" {
					assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
					assert.NotEmpty(t, body["error_description"])
					scope, _ := body["scope"].(string)
					assert.Equal(t, strings.Contains(test.challenge, "scope="), scope != "", "scope is %q", scope)
					return
				}
				assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
				assert.Equal(t, map[string]any{
					"type": "about:blank", "title": http.StatusText(test.status), "status": float64(test.status), "error": test.code,
				}, body)
			})
		}
	}
}

// httptest.ResponseRecorder does not treat HEAD as a server does, so this test
// uses a server.
func TestErrors_OverHTTP(t *testing.T) {
	server := httptest.NewServer(koreauth.New(koretest.Validator{}, nil).Wrap(http.NotFoundHandler()))
	defer server.Close()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, "BREW"} {
		t.Run(method, func(t *testing.T) {
			req, err := http.NewRequest(method, server.URL, nil)
			require.NoError(t, err)
			res, err := server.Client().Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
			assert.Equal(t, `Bearer realm="api"`, res.Header.Get("WWW-Authenticate"))
			if method == http.MethodHead {
				assert.Empty(t, body)
				return
			}
			assert.Equal(t, bodyA, string(body))
			assert.EqualValues(t, len(bodyA), res.ContentLength)
		})
	}
}

func TestErrors_CustomFormat(t *testing.T) {
	answerWith := func(format koreauth.ErrorFormat, method string, err error) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		koreauth.New(koretest.Validator{}, &koreauth.Options{Errors: format}).
			Refuse(w, httptest.NewRequest(method, "/", nil), err)
		return w
	}

	t.Run("it sets only status, content type and body", func(t *testing.T) {
		var got error
		w := answerWith(func(_ *http.Request, err error) (int, string, []byte) {
			got = err
			return http.StatusTeapot, "text/plain", []byte("short and stout")
		}, http.MethodGet, fmt.Errorf("wrapped: %w", koreauth.ErrExpired))
		assert.Equal(t, http.StatusTeapot, w.Code)
		assert.Equal(t, "text/plain", w.Header().Get("Content-Type"))
		assert.Equal(t, "short and stout", w.Body.String())
		assert.Equal(t, `Bearer realm="api", error="invalid_token"`, w.Header().Get("WWW-Authenticate"))
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))

		var refusal *koreauth.Error
		require.ErrorAs(t, got, &refusal)
		assert.Equal(t, koreauth.ErrInvalidToken, refusal.Class)
		assert.ErrorIs(t, got, koreauth.ErrExpired)
	})

	t.Run("HEAD has no body", func(t *testing.T) {
		w := answerWith(func(*http.Request, error) (int, string, []byte) { return 400, "text/plain", []byte("no") }, http.MethodHead, nil)
		assert.Empty(t, w.Body.String())
	})

	for _, test := range []struct{ status, want int }{
		{200, 500}, {204, 500}, {304, 500}, {399, 500}, {400, 400}, {418, 418}, {599, 599}, {600, 500}, {0, 500}, {-1, 500},
		{100, 500}, {1 << 30, 500},
	} {
		t.Run(fmt.Sprintf("status %d is sent as %d", test.status, test.want), func(t *testing.T) {
			w := answerWith(func(*http.Request, error) (int, string, []byte) { return test.status, "text/plain", []byte("no") }, http.MethodGet, koreauth.ErrNoToken)
			assert.Equal(t, test.want, w.Code)
			assert.Equal(t, `Bearer realm="api"`, w.Header().Get("WWW-Authenticate"))
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		})
	}
}

func TestErrors_RetryAfterRoundsUp(t *testing.T) {
	for _, test := range []struct {
		after time.Duration
		want  string
	}{
		{0, "1"}, {-time.Hour, "1"}, {1, "1"}, {250 * time.Millisecond, "1"}, {time.Second, "1"}, {time.Second + 1, "2"},
		{10 * time.Second, "10"}, {9999 * time.Millisecond, "10"},
		{math.MaxInt64, "9223372037"},
	} {
		t.Run(test.after.String(), func(t *testing.T) {
			w := httptest.NewRecorder()
			koreauth.New(koretest.Validator{}, nil).Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil),
				&koreauth.Error{Class: koreauth.ErrUnavailable, RetryAfter: test.after})
			assert.Equal(t, test.want, w.Header().Get("Retry-After"))
		})
	}

	t.Run("only a 503 has it", func(t *testing.T) {
		w := httptest.NewRecorder()
		koreauth.New(koretest.Validator{}, nil).Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil),
			&koreauth.Error{Class: koreauth.ErrInvalidToken, RetryAfter: time.Minute})
		assert.Empty(t, w.Header()["Retry-After"])
	})
}

// An outer handler may have set headers for a response that is not sent.
func TestErrors_ReplaceHeaders(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, nil)
	for _, err := range []error{koreauth.ErrNoToken, koreauth.ErrUnavailable} {
		t.Run(err.Error(), func(t *testing.T) {
			w := httptest.NewRecorder()
			for name, value := range map[string]string{
				"Content-Length": "7", "ETag": `"x"`, "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
				"Cache-Control": "public, max-age=60", "Content-Type": "text/html", "WWW-Authenticate": "Basic", "Retry-After": "99",
				"X-Request-Id": "7",
			} {
				w.Header().Set(name, value)
			}
			guard.Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), err)
			for _, name := range []string{"Content-Length", "ETag", "Last-Modified"} {
				assert.Empty(t, w.Header().Get(name), name)
			}
			assert.Equal(t, []string{"no-store"}, w.Header().Values("Cache-Control"))
			assert.Equal(t, []string{"application/json"}, w.Header().Values("Content-Type"))
			assert.Equal(t, "7", w.Header().Get("X-Request-Id"), "other headers are kept")
			if errors.Is(err, koreauth.ErrUnavailable) {
				assert.Equal(t, "1", w.Header().Get("Retry-After"))
				assert.Empty(t, w.Header().Values("WWW-Authenticate"), "503 has no challenge")
			} else {
				assert.Equal(t, []string{"Basic", `Bearer realm="api"`}, w.Header().Values("WWW-Authenticate"), "challenges of other schemes are kept")
				assert.Empty(t, w.Header().Values("Retry-After"), "only a 503 has Retry-After")
			}
		})
	}
}

func TestErrors_Is(t *testing.T) {
	var all []error
	for _, c := range classesAndReasons {
		all = append(append(all, c.class), c.reasons...)
	}
	for _, c := range classesAndReasons {
		for _, err := range append([]error{c.class}, c.reasons...) {
			t.Run(err.Error(), func(t *testing.T) {
				assert.True(t, strings.HasPrefix(err.Error(), "koreauth: "))
				assert.Equal(t, 1, strings.Count(err.Error(), "koreauth: "))
				assert.Equal(t, strings.ToLower(err.Error()), err.Error())
				for _, other := range all {
					want := other == err || other == c.class
					assert.Equal(t, want, errors.Is(err, other), "errors.Is(%v, %v)", err, other)
				}
				refusal := fmt.Errorf("wrapped: %w", &koreauth.Error{Class: c.class, Reason: err})
				assert.ErrorIs(t, refusal, c.class)
				assert.ErrorIs(t, refusal, err)
				var found *koreauth.Error
				require.ErrorAs(t, refusal, &found)
				assert.Equal(t, err.Error(), found.Error(), "the class is in the text once")
			})
		}
	}
}

func TestErrors_Text(t *testing.T) {
	for _, test := range []struct {
		name string
		err  *koreauth.Error
		want string
	}{
		{"a class alone", &koreauth.Error{Class: koreauth.ErrNoToken}, "koreauth: no token"},
		{"a reason includes its class", &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: koreauth.ErrExpired}, "koreauth: invalid token: expired"},
		{"a reason without a class", &koreauth.Error{Reason: koreauth.ErrExpired}, "koreauth: invalid token: expired"},
		{"a cause that does not include the class", &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: io.EOF},
			"koreauth: temporarily unavailable: EOF"},
		{"the required scopes", &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"a", "API Clients:Read"}},
			"koreauth: insufficient scope: requires a API Clients:Read"},
		{"the zero value", &koreauth.Error{}, "koreauth: temporarily unavailable"},
		{"nil", nil, "koreauth: temporarily unavailable"},
		{"values from the token are left out",
			&koreauth.Error{Class: koreauth.ErrInvalidToken, KeyID: "kid", Issuer: "iss", ClientID: "cid"}, "koreauth: invalid token"},
	} {
		t.Run(test.name, func(t *testing.T) { assert.Equal(t, test.want, test.err.Error()) })
	}
	assert.ErrorIs(t, (*koreauth.Error)(nil), koreauth.ErrUnavailable)
	for _, cause := range []error{koreauth.ErrExpired, io.EOF} {
		err := authenticateError(t, &koreauth.Error{Class: cause})
		assert.True(t, errors.Is(err, cause), "%v in the Class field is lost", cause)
	}

	// "It is invalid for an Unwrap method to return an []error containing a nil
	// error value" (package errors).
	for _, err := range []*koreauth.Error{{}, {Class: koreauth.ErrNoToken}, {Reason: io.EOF}, nil} {
		assert.NotContains(t, err.Unwrap(), nil, "%v", err)
	}
}

// authenticateError returns the error of Authenticate for a validator's error.
func authenticateError(t *testing.T, err error) error {
	t.Helper()
	_, err = koreauth.New(koretest.Validator{Err: err}, nil).Authenticate(bearerRequest("a"))
	require.Error(t, err)
	return err
}

// The class of an Error is its Class field, whatever its reason wraps: an outage
// must never be reported as an invalid token.
func TestErrors_OwnClassDecides(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		status int
	}{
		{"unavailable, with ErrExpired as reason", &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: koreauth.ErrExpired}, 503},
		{"unavailable, with a reason that wraps ErrNoToken",
			&koreauth.Error{Class: koreauth.ErrUnavailable, Reason: fmt.Errorf("%w: %w", koreauth.ErrUnavailable, koreauth.ErrNoToken)}, 503},
		{"a reason in the Class field", &koreauth.Error{Class: koreauth.ErrExpired}, 403},
		{"a reason without a class", &koreauth.Error{Reason: koreauth.ErrExpired}, 403},
		{"a class that is not one of the package", &koreauth.Error{Class: io.EOF}, 503},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			koreauth.New(koretest.Validator{}, nil).Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), test.err)
			assert.Equal(t, test.status, w.Code)
			_, err := koreauth.New(koretest.Validator{Err: test.err}, nil).Authenticate(bearerRequest("abc"))
			status, _, _ := koreauth.KOREErrors(nil, err)
			assert.Equal(t, test.status, status)
			var refusal *koreauth.Error
			require.ErrorAs(t, err, &refusal)
			assert.True(t, slices.ContainsFunc(classesAndReasons, func(c struct {
				class   error
				reasons []error
			}) bool {
				return c.class == refusal.Class
			}), "Class is %v", refusal.Class)
		})
	}

	t.Run("a canceled context is unavailable, whatever its cause", func(t *testing.T) {
		for _, cause := range []error{context.Canceled, koreauth.ErrExpired, koreauth.ErrNoToken} {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			guard := koreauth.New(newTestValidator(t), nil)
			_, err := guard.Authenticate(bearerRequest(testIssuer().Valid()).WithContext(ctx))
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.ErrorIs(t, err, cause)
			status, _, _ := koreauth.KOREErrors(nil, err)
			assert.Equal(t, http.StatusServiceUnavailable, status, "the cause is %v", cause)
		}
	})
}

// An error that contains a nil *Error means that the token could not be verified.
// It must not cause a panic.
func TestErrors_TypedNil(t *testing.T) {
	typedNil := (*koreauth.Error)(nil)
	accept := koretest.Validator{Claims: &koreauth.Claims{}}
	for name, handler := range map[string]http.Handler{
		"from a validator":          koreauth.New(koretest.Validator{Err: typedNil}, nil).Wrap(whoami),
		"from a validator, wrapped": koreauth.New(koretest.Validator{Err: fmt.Errorf("x: %w", typedNil)}, nil).Wrap(whoami),
		"from a requirement":        koreauth.New(accept, nil).Require(koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return typedNil }))(whoami),
		"from a Source": koreauth.New(accept, &koreauth.Options{
			Sources: []koreauth.Source{func(*http.Request) ([]string, error) { return nil, typedNil }},
		}).Wrap(whoami),
		"in Refuse": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { koreauth.New(accept, nil).Refuse(w, r, typedNil) }),
		"in a format": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			status, _, _ := koreauth.RFC6750Errors(nil, typedNil)
			w.WriteHeader(status)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			assert.NotPanics(t, func() {
				status, _ := serve(handler, bearerRequest("a"))
				assert.Equal(t, http.StatusServiceUnavailable, status)
			})
		})
	}
}

// Changing an *Error must not affect another request.
func TestErrors_AreNotShared(t *testing.T) {
	change := func(err error) {
		var refusal *koreauth.Error
		require.ErrorAs(t, err, &refusal)
		*refusal = koreauth.Error{Class: koreauth.ErrUnavailable, Required: []string{"changed"}, RetryAfter: time.Hour, KeyID: "changed"}
	}
	plain := koreauth.New(newTokenTable(), nil)
	changing := koreauth.New(newTokenTable(), &koreauth.Options{Errors: func(_ *http.Request, err error) (int, string, []byte) {
		change(err)
		return koreauth.KOREErrors(nil, koreauth.ErrNoToken)
	}})
	for name, r := range map[string]*http.Request{
		"no token": bearerRequest(""), "bad request": get("/", "Authorization", "Bearer"), "invalid token": bearerRequest("x"),
	} {
		t.Run(name, func(t *testing.T) {
			want := httptest.NewRecorder()
			plain.Wrap(whoami).ServeHTTP(want, r)
			_, err := plain.Authenticate(r)
			change(err)
			challenge := httptest.NewRecorder()
			changing.Wrap(whoami).ServeHTTP(challenge, r)
			assert.Equal(t, want.Header().Get("WWW-Authenticate"), challenge.Header().Get("WWW-Authenticate"), "the format does not change the challenge")
			got := httptest.NewRecorder()
			plain.Wrap(whoami).ServeHTTP(got, r)
			assert.Equal(t, want.Result(), got.Result())
		})
	}
}

// TestErrors_FormatsCalledDirectly calls the formats as a custom ErrorFormat
// would.
func TestErrors_FormatsCalledDirectly(t *testing.T) {
	for name, format := range errorFormats {
		for _, err := range []error{nil, io.EOF, koreauth.ErrBinding, fmt.Errorf("x: %w", koreauth.ErrBadRequest), &koreauth.Error{}} {
			status, contentType, body := format(nil, err)
			assert.True(t, 400 <= status && status <= 599, "%s(%v) has status %d", name, err, status)
			assert.Contains(t, contentType, "json")
			assert.True(t, json.Valid(body), "%s(%v) has body %q", name, err, body)
			if len(body) > 0 {
				body[0] = 'x'
			}
			_, _, again := format(nil, err)
			assert.True(t, json.Valid(again), "the caller may change the returned body")
		}
	}
}

// FuzzRefusal checks that for any *Error the response body is JSON, the challenge
// is well-formed, and neither contains a value from the token.
func FuzzRefusal(f *testing.F) {
	f.Add("scope", "kid", 1)
	f.Add("a\"b\\c\r\nX: y", "<script>", 3)
	f.Add("\xff\x00 é", "", 4)
	f.Fuzz(func(t *testing.T, required, value string, class int) {
		const mark = "ATTACKER-"
		refusal := &koreauth.Error{
			Class: classesAndReasons[uint(class)%uint(len(classesAndReasons))].class, Required: []string{required, "b"},
			KeyID: mark + value, Issuer: mark + value, ClientID: mark + value,
		}
		for name, format := range errorFormats {
			w := httptest.NewRecorder()
			koreauth.New(koretest.Validator{}, &koreauth.Options{Errors: format}).
				Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), refusal)
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: the body is not JSON: %q", name, w.Body)
			}
			if strings.Contains(w.Body.String(), mark) || strings.Contains(fmt.Sprint(w.Header()), mark) {
				t.Errorf("%s: the response contains a value from the token: %q %v", name, w.Body, w.Header())
			}
			challenge := w.Header().Get("WWW-Authenticate")
			if strings.ContainsFunc(challenge, func(c rune) bool { return c < ' ' || c > '~' }) || strings.Count(challenge, `"`)%2 != 0 {
				t.Errorf("%s: the challenge is malformed: %q", name, challenge)
			}
			if after := w.Header().Get("Retry-After"); after != "" {
				if n, err := strconv.Atoi(after); err != nil || n < 1 {
					t.Errorf("%s: Retry-After is %q", name, after)
				}
			}
		}
	})
}

func TestErrors_ScopeOnlyIfInsufficient(t *testing.T) {
	w := httptest.NewRecorder()
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Errors: koreauth.RFC6750Errors})
	guard.Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), &koreauth.Error{Class: koreauth.ErrInvalidToken, Required: []string{"a"}})
	assert.Equal(t, `Bearer realm="api", error="invalid_token"`, w.Header().Get("WWW-Authenticate"))
	assert.NotContains(t, w.Body.String(), `"scope"`)
}

// gzipWriter compresses what is written to it, as gzip middleware does.
type gzipWriter struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (c gzipWriter) Write(b []byte) (int, error) { return c.z.Write(b) }

func TestErrors_InsideGzipMiddleware(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		guard.Wrap(http.NotFoundHandler()).ServeHTTP(gzipWriter{w, z}, r)
	}))
	defer server.Close()
	res, err := server.Client().Get(server.URL) // The client decompresses the body.
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`, string(body))
}

func TestErrors_WrappedOutageIs503(t *testing.T) {
	outage := &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: koreauth.ErrSignature, RetryAfter: 7 * time.Second}
	guard := koreauth.New(koretest.Validator{Err: fmt.Errorf("wrapped: %w", outage)}, nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer a")
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.Equal(t, "7", w.Header().Get("Retry-After"), "its fields are kept")
}

func TestError_GoStringHidesValues(t *testing.T) {
	refusal := &koreauth.Error{Class: koreauth.ErrInvalidToken, Reason: koreauth.ErrSignature, KeyID: "eyJhbGciOi", ClientID: "jane@example.com"}
	assert.Equal(t, "koreauth: invalid token: bad signature", fmt.Sprintf("%#v", refusal))
}
