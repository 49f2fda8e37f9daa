package source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

func TestSources_FindToken(t *testing.T) {
	type rows []struct {
		name  string
		r     *http.Request
		token string
		err   error
	}
	none, bad := koreauth.ErrNoToken, koreauth.ErrBadRequest
	pathRequest := func(value string) *http.Request {
		r := getRequest("/")
		r.SetPathValue("token", value)
		return r
	}
	for source, test := range map[string]struct {
		source koreauth.Source
		rows   rows
	}{
		"Query": {source.Query("access_token"), rows{
			{"present", getRequest("/?x=1&access_token=abc&y"), "abc", nil},
			{"percent-encoded", getRequest("/?access%5Ftoken=a%2Bb%3D"), "a+b=", nil},
			{"absent", getRequest("/?x=1"), "", none},
			{"empty", getRequest("/?access_token="), "", none},
			{"name without a value", getRequest("/?access_token"), "", none},
			{"names are case-sensitive", getRequest("/?Access_Token=abc"), "", none},
			{"a plus sign is decoded to a space", getRequest("/?access_token=a+b"), "", bad},
			{"twice", getRequest("/?access_token=abc&access_token=def"), "", bad},
			{"twice, with the same value", getRequest("/?access_token=abc&access_token=abc"), "", bad},
			{"twice, once empty", getRequest("/?access_token=&access_token=abc"), "", bad},
			{"twice, one name escaped", getRequest("/?access_token=abc&access%5ftoken=def"), "", bad},
			{"a semicolon, which may hide a second token", getRequest("/?access_token=abc;access_token=def"), "", bad},
			{"an invalid escape, which may hide a second token", getRequest("/?access_token=abc&access%zztoken=def"), "", bad},
			{"the body is not read", postRequest(formMedia, "access_token=abc"), "", none},
		}},
		"Form": {source.Form("access_token"), rows{
			{"present", postRequest(formMedia, "x=1&access_token=abc"), "abc", nil},
			{"media type with parameters, in any case", postRequest("Application/X-WWW-Form-URLencoded; charset=UTF-8", "access_token=abc"), "abc", nil},
			{"media type with an invalid parameter", postRequest(formMedia+"; charset", "access_token=abc"), "abc", nil},
			{"media type with spaces around it", postRequest(" "+formMedia+" ; charset=utf-8", "access_token=abc"), "abc", nil},
			{"PUT", newRequest("PUT", "/", formMedia, "access_token=abc"), "abc", nil},
			{"PATCH", newRequest("PATCH", "/", formMedia, "access_token=abc"), "abc", nil},
			{"DELETE", newRequest("DELETE", "/", formMedia, "access_token=abc"), "abc", nil},
			{"absent", postRequest(formMedia, "x=1"), "", none},
			{"empty", postRequest(formMedia, "access_token="), "", none},
			{"empty body", postRequest(formMedia, ""), "", none},
			{"the query is not read", newRequest("POST", "/?access_token=abc", formMedia, "x=1"), "", none},
			{"not read in a GET request (RFC 6750 §2.2)", newRequest("GET", "/", formMedia, "access_token=abc"), "", none},
			{"not read in a HEAD request", newRequest("HEAD", "/", formMedia, "access_token=abc"), "", none},
			{"not read without a method, which means GET", withoutMethod(postRequest(formMedia, "access_token=abc")), "", none},
			{"no media type", postRequest("", "access_token=abc"), "", none},
			{"another media type", postRequest("text/plain", "access_token=abc"), "", none},
			{"multipart", postRequest("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\nabc\r\n--b--\r\n"), "", none},
			{"JSON", postRequest(jsonMedia, `{"access_token":"abc"}`), "", none},
			{"twice", postRequest(formMedia, "access_token=abc&access_token=def"), "", bad},
			{"twice, once empty", postRequest(formMedia, "access_token=abc&access_token="), "", bad},
			{"a semicolon", postRequest(formMedia, "access_token=abc;x=1"), "", bad},
			{"an invalid escape", postRequest(formMedia, "access_token=abc&x=%"), "", bad},
			{"not a b64token", postRequest(formMedia, "access_token=a+b"), "", bad},
		}},
		"JSON": {source.JSON("access_token"), rows{
			{"present", postRequest(jsonMedia, `{"x":[1,{"access_token":"no"}],"access_token":"abc"}`), "abc", nil},
			{"white space is ignored", postRequest(jsonMedia, "\r\n\t {\n \"access_token\" : \"abc\" }\n "), "abc", nil},
			{"a quote in a string", postRequest(jsonMedia, `{"x":"\"{","\\":"\\","access_token":"abc"}`), "abc", nil},
			{"escapes are decoded", postRequest(jsonMedia, `{"access\u005ftoken":"\u0061bc"}`), "abc", nil},
			{"media type with parameters, in any case", postRequest("APPLICATION/JSON; charset=utf-8", `{"access_token":"abc"}`), "abc", nil},
			{"media type with the suffix +json", postRequest("application/vnd.kore.v1+json", `{"access_token":"abc"}`), "abc", nil},
			{"media type of the maximum length (RFC 6838 §4.2)", postRequest("application/"+strings.Repeat("x", 250-len("application/"))+"+json", `{"access_token":"abc"}`), "abc", nil},
			{"media type that is too long", postRequest("application/"+strings.Repeat("x", 251-len("application/"))+"+json", `{"access_token":"abc"}`), "", none},
			{"absent", postRequest(jsonMedia, `{"x":1}`), "", none},
			{"empty", postRequest(jsonMedia, `{"access_token":""}`), "", none},
			{"names are case-sensitive", postRequest(jsonMedia, `{"Access_Token":"abc"}`), "", none},
			{"only the top level is read", postRequest(jsonMedia, `{"auth":{"access_token":"abc"}}`), "", none},
			{"empty body", postRequest(jsonMedia, ""), "", none},
			{"an array", postRequest(jsonMedia, `[{"access_token":"abc"}]`), "", none},
			{"a string", postRequest(jsonMedia, `"access_token"`), "", none},
			{"null", postRequest(jsonMedia, `null`), "", none},
			{"not read in a GET request", newRequest("GET", "/", jsonMedia, `{"access_token":"abc"}`), "", none},
			{"not read in a HEAD request", newRequest("HEAD", "/", jsonMedia, `{"access_token":"abc"}`), "", none},
			{"another media type", postRequest("text/json-ish", `{"access_token":"abc"}`), "", none},
			{"no media type", postRequest("", `{"access_token":"abc"}`), "", none},
			{"an invalid media type", postRequest(";", `{"access_token":"abc"}`), "", none},
			{"twice", postRequest(jsonMedia, `{"access_token":"abc","access_token":"def"}`), "", bad},
			{"twice, one name escaped", postRequest(jsonMedia, `{"access_token":"abc","access\u005ftoken":"def"}`), "", bad},
			{"twice, once empty", postRequest(jsonMedia, `{"access_token":"","access_token":"abc"}`), "", bad},
			{"a number", postRequest(jsonMedia, `{"access_token":1}`), "", bad},
			{"the token in an array", postRequest(jsonMedia, `{"access_token":["abc"]}`), "", bad},
			{"the token in an object", postRequest(jsonMedia, `{"access_token":{"access_token":"abc"}}`), "", bad},
			{"not JSON", postRequest(jsonMedia, `access_token=abc`), "", bad},
			{"truncated", postRequest(jsonMedia, `{"access_token":"abc"`), "", bad},
			{"followed by another value", postRequest(jsonMedia, `{"access_token":"abc"} {"access_token":"def"}`), "", bad},
			{"trailing comma", postRequest(jsonMedia, `{"access_token":"abc",}`), "", bad},
			{"byte order mark", postRequest(jsonMedia, "\ufeff"+`{"access_token":"abc"}`), "", bad},
			{"nested too deeply", postRequest(jsonMedia, `{"x":`+strings.Repeat("[", 30_000)), "", bad},
			{"not a b64token", postRequest(jsonMedia, `{"access_token":"a b"}`), "", bad},
		}},
		"Cookie": {source.Cookie("token"), rows{
			{"present", getRequest("/", "Cookie", "x=1; token=abc; y=2"), "abc", nil},
			{"in the second Cookie line", getRequest("/", "Cookie", "x=1", "Cookie", "token=abc"), "abc", nil},
			{"quoted (RFC 6265 §4.1.1)", getRequest("/", "Cookie", `token="abc"`), "abc", nil},
			{"absent", getRequest("/", "Cookie", "x=1"), "", none},
			{"empty", getRequest("/", "Cookie", "token="), "", none},
			{"names are case-sensitive", getRequest("/", "Cookie", "Token=abc"), "", none},
			{"twice", getRequest("/", "Cookie", "token=abc; token=def"), "", bad},
			{"twice, in two lines", getRequest("/", "Cookie", "token=abc", "Cookie", "token=def"), "", bad},
			{"not a b64token", getRequest("/", "Cookie", "token=a:b"), "", bad},
		}},
		"Path": {source.Path("token"), rows{
			{"present", pathRequest("abc"), "abc", nil},
			{"absent", getRequest("/abc"), "", none},
			{"not a b64token", pathRequest("a b"), "", bad},
		}},
	} {
		for _, row := range test.rows {
			t.Run(source+"/"+row.name, func(t *testing.T) {
				token, err := tokenFrom(row.r, test.source)
				assert.Equal(t, row.token, token)
				assert.Equal(t, row.err, err)
			})
		}
	}
}

func TestSources_RejectTwoTokens(t *testing.T) {
	all := []koreauth.Source{
		koreauth.Header("Authorization"), koreauth.Header("X-Token"), source.Query("t"), source.Cookie("t"),
		source.Form("t"), source.JSON("t"), source.Path("t"), source.PathVars(mux.Vars, "t"),
	}
	// Each function puts the token in one place.
	places := map[string]func(*http.Request, string) *http.Request{
		"Authorization": func(r *http.Request, token string) *http.Request {
			r.Header.Set("Authorization", "Bearer "+token)
			return r
		},
		"X-Token": func(r *http.Request, token string) *http.Request { r.Header.Set("X-Token", token); return r },
		"query":   func(r *http.Request, token string) *http.Request { r.URL.RawQuery = "t=" + token; return r },
		"cookie": func(r *http.Request, token string) *http.Request {
			r.AddCookie(&http.Cookie{Name: "t", Value: token})
			return r
		},
		"form": func(r *http.Request, token string) *http.Request {
			r.Header.Set("Content-Type", formMedia)
			r.Body = io.NopCloser(strings.NewReader("t=" + token))
			return r
		},
		"JSON": func(r *http.Request, token string) *http.Request {
			r.Header.Set("Content-Type", jsonMedia)
			r.Body = io.NopCloser(strings.NewReader(`{"t":"` + token + `"}`))
			return r
		},
		"path": func(r *http.Request, token string) *http.Request { r.SetPathValue("t", token); return r },
		"route": func(r *http.Request, token string) *http.Request {
			return mux.SetURLVars(r, map[string]string{"t": token})
		},
	}
	for one, put := range places {
		t.Run("a token only in "+one, func(t *testing.T) {
			token, err := tokenFrom(put(postRequest("", ""), "abc"), all...)
			assert.NoError(t, err)
			assert.Equal(t, "abc", token)
		})
		for other, putToo := range places {
			if one == other || one == "form" && other == "JSON" || one == "JSON" && other == "form" {
				continue // A request has one body.
			}
			t.Run("a token in "+one+" and another in "+other, func(t *testing.T) {
				_, err := tokenFrom(putToo(put(postRequest("", ""), "abc"), "def"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err)
				_, err = tokenFrom(putToo(put(postRequest("", ""), "abc"), "abc"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err, "the same token twice")
			})
		}
	}
	t.Run("no token anywhere", func(t *testing.T) {
		_, err := tokenFrom(postRequest("", ""), all...)
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("Authorization is not read unless it is one of the sources", func(t *testing.T) {
		token, err := tokenFrom(getRequest("/?t=abc", "Authorization", "Bearer def"), source.Query("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = tokenFrom(getRequest("/", "Authorization", "Bearer def"), source.Query("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("an empty list means the Authorization header", func(t *testing.T) {
		token, err := tokenFrom(getRequest("/", "Authorization", "Bearer abc"), []koreauth.Source{}...)
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
}

func TestSources_PathVariables(t *testing.T) {
	validator := newRecordingValidator()
	guardBy := func(source koreauth.Source) *koreauth.Middleware {
		return koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{source}})
	}
	serveMux := http.NewServeMux()
	serveMux.Handle("GET /hook/{token}/sims", guardBy(source.Path("token")).Wrap(echoClient))
	router := mux.NewRouter()
	router.Use(guardBy(source.PathVars(mux.Vars, "token")).Wrap)
	router.Handle("/hook/{token}/sims", echoClient)
	router.Handle("/plain", echoClient)

	for name, handler := range map[string]http.Handler{"net/http": serveMux, "gorilla/mux": router} {
		for path, want := range map[string]int{"/hook/a/sims": 200, "/hook/forged/sims": 403, "/hook/a%20b/sims": 401} {
			t.Run(name+path, func(t *testing.T) {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, getRequest(path))
				assert.Equal(t, want, w.Code)
				if want == http.StatusOK {
					assert.Equal(t, "client-a", w.Body.String())
					assert.Equal(t, "private", w.Header().Get("Cache-Control"))
				}
			})
		}
	}
	t.Run("a route without the variable", func(t *testing.T) {
		status, _ := respond(router, getRequest("/plain"))
		assert.Equal(t, http.StatusUnauthorized, status)
	})
}

// The handler can read the whole body after a Source has read it.
func TestSources_RestoreBody(t *testing.T) {
	for _, test := range []struct {
		name, contentType, body string
		source                  koreauth.Source
	}{
		{"a form", formMedia, "x=%7e&t=a&&y=+", source.Form("t")},
		{"JSON, with white space and member order kept", jsonMedia, " {\"z\":1,\r\n\t\"t\":\"a\",\"b\":1e2}\n", source.JSON("t")},
		{"a body of another media type, not read", "application/octet-stream", "t=a\x00\xff", source.Form("t")},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := koreauth.New(newRecordingValidator(), &koreauth.Options{Sources: []koreauth.Source{test.source, source.Query("t")}})
			target := "/"
			if test.contentType == "application/octet-stream" {
				target = "/?t=a"
			}
			body := &closeCounter{Reader: iotest.OneByteReader(strings.NewReader(test.body))}
			r := httptest.NewRequest(http.MethodPost, target, body)
			r.Header.Set("Content-Type", test.contentType)
			status, answer := respond(guard.Wrap(guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				assert.Equal(t, test.body, string(got))
				assert.NoError(t, r.Body.Close())
			}))), r)
			assert.Equal(t, http.StatusOK, status, answer)
			assert.Equal(t, 1, body.closed, "the original body is closed when the handler closes the body that it got")
		})
	}

	t.Run("ParseForm can read it", func(t *testing.T) {
		guard := koreauth.New(newRecordingValidator(), &koreauth.Options{Sources: []koreauth.Source{source.Form("t")}})
		respond(guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			require.NoError(t, r.ParseForm())
			assert.Equal(t, url.Values{"t": {"a"}, "x": {"1", "2"}}, r.PostForm)
		})), postRequest(formMedia, "x=1&t=a&x=2"))
	})
	t.Run("a form that was already parsed", func(t *testing.T) {
		r := postRequest(formMedia, "t=abc")
		require.NoError(t, r.ParseForm())
		token, err := tokenFrom(r, source.Form("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
	t.Run("the next Source can read it", func(t *testing.T) {
		token, err := tokenFrom(postRequest(jsonMedia, `{"b":"abc"}`), source.JSON("a"), source.JSON("b"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = tokenFrom(postRequest(formMedia, `a=abc&b=def`), source.Form("a"), source.Form("b"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("it can be read after Authenticate", func(t *testing.T) {
		guard := koreauth.New(newRecordingValidator(), &koreauth.Options{Sources: []koreauth.Source{source.Form("t")}})
		r := postRequest(formMedia, "t=a")
		for range 2 {
			_, err := guard.Authenticate(r)
			assert.NoError(t, err)
		}
		got, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "t=a", string(got))
	})
	t.Run("over HTTP, chunked", func(t *testing.T) {
		guard := koreauth.New(newRecordingValidator(), &koreauth.Options{Sources: []koreauth.Source{source.JSON("t")}})
		server := httptest.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })))
		defer server.Close()
		sent := `{"t":"a","rest":"` + strings.Repeat("x", 10_000) + `"}`
		res, err := http.Post(server.URL, jsonMedia, io.MultiReader(strings.NewReader(sent)))
		require.NoError(t, err)
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, sent, string(got))
	})
}

// closeCounter is a body that counts calls of Close.
type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestSources_LimitBody(t *testing.T) {
	const limit = 64 << 10
	bodies := map[string]struct {
		source              koreauth.Source
		contentType, before string
	}{
		"form": {source.Form("t"), formMedia, "t=abc&x="},
		"JSON": {source.JSON("t"), jsonMedia, `{"t":"abc"}`},
	}
	for name, body := range bodies {
		fill := map[string]string{"form": "y", "JSON": " "}[name]
		for _, test := range []struct {
			name string
			size int
			err  error
		}{
			{"of exactly 64 KiB is read", limit, nil},
			{"of one byte more is a bad request", limit + 1, koreauth.ErrBadRequest},
			{"of four times the limit is a bad request", 4 * limit, koreauth.ErrBadRequest},
		} {
			t.Run(name+" "+test.name, func(t *testing.T) {
				sent := body.before + strings.Repeat(fill, test.size-len(body.before))
				reader := bytes.NewReader([]byte(sent))
				r := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(reader))
				r.Header.Set("Content-Type", body.contentType)
				_, err := tokenFrom(r, body.source)
				assert.Equal(t, test.err, err)
				assert.GreaterOrEqual(t, reader.Len(), test.size-limit-1, "bytes read beyond the limit")
				if err == nil {
					got, err := io.ReadAll(r.Body)
					require.NoError(t, err)
					assert.Equal(t, len(sent), len(got))
					assert.Equal(t, sent, string(got))
				}
			})
		}
	}
	t.Run("a body of another media type may have any size", func(t *testing.T) {
		r := newRequest(http.MethodPost, "/", "application/octet-stream", strings.Repeat("x", 2*limit), "Authorization", "Bearer abc")
		_, err := tokenFrom(r, koreauth.Header("Authorization"), source.Form("t"), source.JSON("t"))
		assert.NoError(t, err)
	})
	t.Run("a truncated body is a bad request", func(t *testing.T) {
		broken := io.MultiReader(strings.NewReader("t=abc"), iotest.ErrReader(io.ErrUnexpectedEOF))
		r := httptest.NewRequest(http.MethodPost, "/", broken)
		r.Header.Set("Content-Type", formMedia)
		_, err := tokenFrom(r, source.Form("t"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("a nil body", func(t *testing.T) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Header: http.Header{"Content-Type": {formMedia}}}
		_, err := tokenFrom(r, source.Form("t"), source.JSON("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
}

// FuzzSources checks that any request yields either one b64token or an error
// with a class, and that the handler can still read the body.
func FuzzSources(f *testing.F) {
	f.Add("t=abc", "t=abc", "t=abc", "abc", true)
	f.Add("", `{"t":"abc"}`, "", "", false)
	f.Add("t=1&t=2;%zz", `{"t":1,"t":{}}`, "t=\"", " ", false)
	f.Fuzz(func(t *testing.T, query, body, cookie, header string, form bool) {
		contentType := jsonMedia
		if form {
			contentType = formMedia
		}
		r := postRequest(contentType, body)
		r.URL.RawQuery = query
		maps.Copy(r.Header, http.Header{"Cookie": {cookie}, "X-Token": {header}})
		validator := &recordingValidator{}
		guard := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{
			source.Query("t"), source.Cookie("t"), koreauth.Header("X-Token"), source.Form("t"), source.JSON("t"),
		}})
		_, err := guard.Authenticate(r)
		rejected := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if rejected == (len(validator.tokens) > 0) || len(validator.tokens) > 1 {
			t.Fatalf("got tokens %q and error %v", validator.tokens, err)
		}
		if rejected {
			return
		}
		if token := validator.tokens[0]; !b64token.MatchString(token) {
			t.Errorf("got token %q, which is not a b64token", token)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
			t.Errorf("the handler read body %q and error %v, want %q", got, err, body)
		}
	})
}

func TestForm_AfterParseForm(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Subject: "s"}}, &koreauth.Options{Sources: []koreauth.Source{source.Form("access_token")}})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "QUERY"} {
		r := httptest.NewRequest(method, "/", strings.NewReader("access_token=a.b.c"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		require.NoError(t, r.ParseForm())
		claims, err := guard.Authenticate(r)
		require.NoError(t, err, method)
		assert.Equal(t, "s", claims.Subject, method)
	}
}

func TestForm_CanceledRequest(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Sources: []koreauth.Source{source.Form("access_token")}})
	cause := errors.New("canceled by the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	reader, writer := io.Pipe()
	writer.CloseWithError(io.ErrUnexpectedEOF)
	r := httptest.NewRequest(http.MethodPost, "/", reader).WithContext(ctx)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err := guard.Authenticate(r)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, err, cause)
}

func TestJSON_RejectsNonStrings(t *testing.T) {
	for _, value := range []string{`null`, `["a"]`, `{"t":"a"}`, `7`, `true`} {
		_, err := tokenFrom(postRequest(jsonMedia, `{"t":`+value+`}`), source.JSON("t"))
		assert.Equal(t, http.StatusBadRequest, statusOf(err), value)
	}
}

func statusOf(err error) int {
	status, _, _ := koreauth.RFC6750Errors(nil, err)
	return status
}

var b64token = regexp.MustCompile(`\A[A-Za-z0-9._~+/-]+=*\z`)

// FuzzEachSource compares each source with a model made of net/url and
// encoding/json: a source finds a token only if the model finds the same one and
// no other. The handler can still read the body.
func FuzzEachSource(f *testing.F) {
	for source := range uint8(5) {
		f.Add(source, "POST", "application/x-www-form-urlencoded", "t=a.b.c")
		f.Add(source, "POST", "application/json; charset=utf-8", `{"t":"a.b.c"}`)
		f.Add(source, "GET", "application/json", `t=a&%74=b&t`)
		f.Add(source, "POST", "application/vnd.x+json", `{"t":"a","T":"b","x":{"t":"c"},"t":null}`)
		f.Add(source, "PUT", "text/plain; x", "t=a; t=b; u=\"t=c\"")
	}
	f.Fuzz(func(t *testing.T, which uint8, method, contentType, place string) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: "/"}, Body: io.NopCloser(strings.NewReader(place)),
			Header: http.Header{"Content-Type": {contentType}},
		}
		var find koreauth.Source
		var model func() []string
		switch which % 5 {
		case 0:
			r.Header["X-Token"] = []string{place}
			find, model = koreauth.Header("X-Token"), func() []string { return []string{place} }
		case 1:
			find, model = source.Form("t"), func() []string { return formValues(place) }
		case 2:
			find, model = source.JSON("t"), func() []string { return jsonValues(place) }
		case 3:
			r.URL.RawQuery = place
			find, model = source.Query("t"), func() []string { return formValues(place) }
		case 4:
			r.Header["Cookie"] = []string{place}
			find, model = source.Cookie("t"), func() []string { return cookieValues(place) }
		}
		values, err := find(r.Clone(t.Context()))
		if which%5 == 1 || which%5 == 2 {
			r.Body = io.NopCloser(strings.NewReader(place))
		}
		require.False(t, err != nil && len(values) > 0, "%q and %v", values, err)

		validator := &recordingValidator{}
		_, err = koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{find}}).Authenticate(r)
		none := errors.Is(err, koreauth.ErrNoToken)
		if len(validator.tokens) == 0 {
			require.True(t, none || errors.Is(err, koreauth.ErrBadRequest), "%v", err)
		} else {
			require.Len(t, validator.tokens, 1)
			require.Regexp(t, b64token, validator.tokens[0])
			require.Equal(t, []string{validator.tokens[0]}, model(), "%q", place)
		}
		if none || len(validator.tokens) > 0 {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, place, string(body), "body that the handler reads")
		}
	})
}

// formValues returns the values of t in a query or a form.
func formValues(encoded string) (values []string) {
	for pair := range strings.SplitSeq(encoded, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr == nil && valueErr == nil && name == "t" {
			values = append(values, value)
		}
	}
	return values
}

// jsonValues returns the values of t at the top level of a JSON object. It does
// not look for duplicates in nested objects.
func jsonValues(body string) (values []string) {
	decoder := json.NewDecoder(strings.NewReader(body))
	_, _ = decoder.Token()
	for decoder.More() {
		name, _ := decoder.Token()
		var value any
		if decoder.Decode(&value) != nil {
			return values
		}
		if text, _ := value.(string); name == "t" {
			values = append(values, text)
		}
	}
	return values
}

// cookieValues returns the values of t in a Cookie line. Like net/http, it skips
// values that no cookie may have (RFC 6265 §4.1.1), but allows space and comma.
func cookieValues(line string) (values []string) {
	for pair := range strings.SplitSeq(line, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t\r\n"), "=")
		if unquoted := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`); len(value)-len(unquoted) == 2 {
			value = unquoted
		}
		invalid := strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
		if strings.Trim(name, " \t\r\n") == "t" && !invalid {
			values = append(values, value)
		}
	}
	return values
}

func TestSources_PanicOnMisuse(t *testing.T) {
	nilVars := (func(*http.Request) map[string]string)(nil)
	for name, misuse := range map[string]func(){
		"Form without a name":         func() { source.Form("") },
		"JSON without a name":         func() { source.JSON("") },
		"Query without a name":        func() { source.Query("") },
		"Path without a name":         func() { source.Path("") },
		"Cookie without a name":       func() { source.Cookie("") },
		"PathVars without a name":     func() { source.PathVars(mux.Vars, "") },
		"PathVars without a function": func() { source.PathVars(nilVars, "t") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				value := recover()
				if assert.NotNil(t, value, "no panic") {
					assert.True(t, strings.HasPrefix(fmt.Sprint(value), "koreauth: "), "the panic value is %q", value)
				}
			}()
			misuse()
		})
	}
}

// recordingValidator is a TokenValidator that accepts the tokens in claims and
// records every token that it is asked to validate.
type recordingValidator struct {
	claims map[string]*koreauth.Claims
	tokens []string
}

// newRecordingValidator returns a validator that accepts the token "a".
func newRecordingValidator() *recordingValidator {
	return &recordingValidator{claims: map[string]*koreauth.Claims{
		"a": {ClientID: "client-a", Scopes: []string{"scope-a"}},
	}}
}

func (v *recordingValidator) Validate(_ context.Context, token string) (*koreauth.Claims, error) {
	v.tokens = append(v.tokens, token)
	if claims, ok := v.claims[token]; ok {
		return claims, nil
	}
	return nil, koreauth.ErrSignature
}

// tokenFrom returns the token that the sources find in a request, or the class
// of the error if they do not find one.
func tokenFrom(r *http.Request, sources ...koreauth.Source) (token string, err error) {
	validator := &recordingValidator{}
	_, err = koreauth.New(validator, &koreauth.Options{Sources: sources}).Authenticate(r)
	if len(validator.tokens) == 1 && errors.Is(err, koreauth.ErrSignature) {
		return validator.tokens[0], nil // The validator accepts no token.
	}
	if len(validator.tokens) > 0 {
		return strings.Join(validator.tokens, " AND "), err
	}
	for _, class := range []error{koreauth.ErrNoToken, koreauth.ErrBadRequest} {
		if errors.Is(err, class) {
			return "", class
		}
	}
	return "", err
}

// echoClient writes the client ID of the claims in the request's context.
var echoClient = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if claims, ok := koreauth.FromContext(r.Context()); ok {
		fmt.Fprint(w, claims.ClientID)
	}
})

// respond sends r to handler and returns the status and the body.
func respond(handler http.Handler, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const (
	formMedia = "application/x-www-form-urlencoded"
	jsonMedia = "application/json"
)

func withoutMethod(r *http.Request) *http.Request {
	r.Method = ""
	return r
}

// newRequest returns a request with the given header names and values.
func newRequest(method, target, contentType, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func postRequest(contentType, body string) *http.Request {
	return newRequest(http.MethodPost, "/", contentType, body)
}

func getRequest(target string, header ...string) *http.Request {
	return newRequest(http.MethodGet, target, "", "", header...)
}
