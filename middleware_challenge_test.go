package koreauth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

const metadataURL = "https://api.example.com/.well-known/oauth-protected-resource"

// Each challenge names the metadata (RFC 9728 §5.1). A response without a
// challenge does not.
func TestChallenge_ResourceMetadata(t *testing.T) {
	const metadata = `, resource_metadata="` + metadataURL + `"`
	for _, row := range []struct {
		name string
		err  error
		want string
	}{
		{"no token", koreauth.ErrNoToken, `Bearer realm="api"` + metadata},
		{"bad request", koreauth.ErrBadRequest, `Bearer realm="api", error="invalid_request"` + metadata},
		{"invalid token", koreauth.ErrExpired, `Bearer realm="api", error="invalid_token"` + metadata},
		{"revoked", koreauth.ErrRevoked, `Bearer realm="api", error="invalid_token"` + metadata},
		{"insufficient scope", koreauth.ErrInsufficientScope, `Bearer realm="api", error="insufficient_scope"` + metadata},
		{"insufficient scope, with names", &koreauth.Error{Class: koreauth.ErrInsufficientScope, Required: []string{"a", "b c"}},
			`Bearer realm="api", error="insufficient_scope", scope="a b%20c"` + metadata},
		{"forbidden", koreauth.ErrForbidden, ""},
		{"unavailable", koreauth.ErrUnavailable, ""},
		{"no class", context.Canceled, ""},
	} {
		for name, format := range errorFormats {
			t.Run(row.name+"/"+name, func(t *testing.T) {
				guard := koreauth.New(koretest.Validator{}, &koreauth.Options{ResourceMetadata: metadataURL, Errors: format})
				w := httptest.NewRecorder()
				guard.Refuse(w, bearerRequest(""), row.err)
				if row.want == "" {
					assert.Empty(t, w.Header()["Www-Authenticate"])
				} else {
					assert.Equal(t, []string{row.want}, w.Header()["Www-Authenticate"])
				}
			})
		}
	}

	t.Run("under a guard", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{ResourceMetadata: metadataURL, Realm: `a "b" \`})
		for token, want := range map[string]string{
			"":       `Bearer realm="a \"b\" \\"` + metadata,
			"forged": `Bearer realm="a \"b\" \\", error="invalid_token"` + metadata,
			"b":      `Bearer realm="a \"b\" \\", error="insufficient_scope", scope="scope-a"` + metadata,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				r := bearerRequest(token)
				r.Method = method
				w := httptest.NewRecorder()
				guard.Require(koreauth.Scope("scope-a"))(whoami).ServeHTTP(w, r)
				assert.Equal(t, []string{want}, w.Header()["Www-Authenticate"])
			}
		}
	})
}

func TestChallenge_ResourceMetadataURL(t *testing.T) {
	options := func(url string) func() {
		return func() { koreauth.New(newTokenTable(), &koreauth.Options{ResourceMetadata: url}) }
	}
	var wrong []misuse
	for _, url := range []string{
		"api.example.com", "/.well-known/oauth-protected-resource", "//api.example.com/x", "ftp://api.example.com/x", "mailto:a@b", "https:", "https://",
		"https:///path", "https://api.example.com/a b", "https://api.example.com/\r\nX: y", `https://api.example.com/"`, `https://api.example.com/\`,
		"https://api.example.com/ä", "https://api.example.com/\x7f", "https://api.example.com/%zz", "http://[::1", " https://api.example.com/",
		"javascript:alert(1)", "\x00", "https://:443/x", "https://user:password@api.example.com/x",
	} {
		wrong = append(wrong, misuse{url, options(url)})
	}
	runMisuse(t, wrong)
	for _, url := range []string{metadataURL, "http://localhost:8080/x", "HTTPS://API.example.com", "https://[::1]:8443/a?b=c&d=%22", "https://api.example.com/a,b;c='d'"} {
		assert.NotPanics(t, options(url), url)
	}
}

// An ErrorFormat gets the request, for example to put a trace ID in the body.
func TestErrorFormat_GetsRequest(t *testing.T) {
	type traceKey struct{}
	format := func(r *http.Request, err error) (int, string, []byte) {
		status, contentType, _ := koreauth.KOREErrors(r, err)
		body, _ := json.Marshal(map[string]any{"trace": r.Header.Get("Traceparent"), "path": r.URL.Path, "context": r.Context().Value(traceKey{})})
		return status, contentType, body
	}
	guard := koreauth.New(newTokenTable(), &koreauth.Options{Errors: format})
	authenticate := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := guard.Authenticate(r)
		require.Error(t, err)
		guard.Refuse(w, r, err)
	})
	refuse := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guard.Refuse(w, r, koreauth.ErrForbidden) })
	for _, row := range []struct {
		name    string
		handler http.Handler
		token   string
		status  int
	}{
		{"Wrap", guard.Wrap(whoami), "", 401},
		{"WrapOptional", guard.WrapOptional(whoami), "forged", 403},
		{"Require", guard.Require(koreauth.Scope("scope-b"))(whoami), "a", 403},
		{"a nested guard", guard.Wrap(guard.Require(koreauth.Scope("scope-b"))(whoami)), "a", 403},
		{"Authenticate and Refuse", authenticate, "forged", 403},
		{"Refuse in a handler", guard.Wrap(refuse), "a", 403},
	} {
		r := bearerRequest(row.token)
		r.URL.Path = "/v1/sims"
		r.Header.Set("Traceparent", "00-1-2-01")
		status, body := serve(row.handler, r.WithContext(context.WithValue(r.Context(), traceKey{}, "c")))
		assert.Equal(t, row.status, status, row.name)
		assert.JSONEq(t, `{"trace":"00-1-2-01","path":"/v1/sims","context":"c"}`, body, row.name)
	}
}

// The formats of the package do not need the request.
func TestErrorFormat_IgnoresRequest(t *testing.T) {
	for name, format := range errorFormats {
		for _, class := range classesAndReasons {
			status, contentType, body := format(nil, class.class)
			withStatus, withType, withBody := format(bearerRequest("a"), class.class)
			assert.Equal(t, status, withStatus, name)
			assert.Equal(t, contentType, withType, name)
			assert.Equal(t, body, withBody, name)
		}
	}
}

// A rejection replaces the Bearer challenges that an outer handler set, and keeps
// those of other schemes (RFC 9110 §11.6.1).
func TestChallenge_OtherSchemes(t *testing.T) {
	const own = `Bearer realm="api"`
	for _, row := range []struct {
		name      string
		set, kept []string
	}{
		{"none", nil, nil},
		{"another scheme", []string{`Basic realm="a"`}, []string{`Basic realm="a"`}},
		{"a scheme without parameters", []string{"Negotiate"}, []string{"Negotiate"}},
		{"two lines", []string{"Negotiate", `Basic realm="a"`}, []string{"Negotiate", `Basic realm="a"`}},
		{"Bearer", []string{`Bearer realm="a", error="invalid_token"`}, nil},
		{"Bearer in another case", []string{`bEARER realm="a"`}, nil},
		{"Bearer alone", []string{"Bearer"}, nil},
		{"Bearer in another line", []string{`Bearer realm="a"`, "Negotiate"}, []string{"Negotiate"}},
		{"Bearer first", []string{`Bearer realm="a", scope="b", Basic realm="c", charset="UTF-8"`}, []string{`Basic realm="c", charset="UTF-8"`}},
		{"Bearer in the middle", []string{`Negotiate, Bearer realm="a", scope="b", Basic realm="c"`}, []string{`Negotiate, Basic realm="c"`}},
		{"Bearer last", []string{`Basic realm="c",Bearer realm="a"`}, []string{`Basic realm="c"`}},
		{"a comma in a string", []string{`Basic realm="a, Bearer b"`}, []string{`Basic realm="a, Bearer b"`}},
		{"an escaped quote", []string{`Basic realm="a\", Bearer b", x="\\", Bearer realm="c"`}, []string{`Basic realm="a\", Bearer b", x="\\"`}},
		{"spaces around an equals sign", []string{`Bearer realm = "a", scope = "b", Negotiate`}, []string{"Negotiate"}},
		{"a parameter named Bearer", []string{`Digest realm="a", bearer="b", bearer ="c"`}, []string{`Digest realm="a", bearer="b", bearer ="c"`}},
		{"empty parts", []string{`, Negotiate,, Basic realm="a",`}, []string{`Negotiate, Basic realm="a"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header()["Www-Authenticate"] = row.set
			koreauth.New(newTokenTable(), nil).Wrap(whoami).ServeHTTP(w, bearerRequest(""))
			assert.Equal(t, append(row.kept, own), w.Header()["Www-Authenticate"])
		})
	}
}

// addingWriter adds to the headers of each response, as outer handlers do.
type addingWriter struct{ http.ResponseWriter }

func (w addingWriter) WriteHeader(status int) {
	for _, name := range []string{"Content-Type", "Cache-Control"} {
		w.Header().Add(name, "added")
	}
	w.ResponseWriter.WriteHeader(status)
}

// The headers of a rejection do not share memory that an outer handler can overwrite.
func TestChallenge_HeadersAreIndependent(t *testing.T) {
	w := httptest.NewRecorder()
	koreauth.New(newTokenTable(), nil).Wrap(whoami).ServeHTTP(addingWriter{w}, bearerRequest(""))
	assert.Equal(t, []string{"no-store", "added"}, w.Header()["Cache-Control"])
	assert.Equal(t, []string{"nosniff"}, w.Header()["X-Content-Type-Options"])
}
