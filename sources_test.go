package koreauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
		r := get("/")
		r.SetPathValue("token", value)
		return r
	}
	for source, test := range map[string]struct {
		source koreauth.Source
		rows   rows
	}{
		"Header": {koreauth.Header("x-token"), rows{
			{"stands alone, in any spelling of the name", get("/", "X-TOKEN", "abc"), "abc", nil},
			{"is not there", get("/"), "", none},
			{"is empty", get("/", "X-Token", ""), "", none},
			{"Authorization is not looked at", get("/", "Authorization", "Bearer abc"), "", none},
			{"has a scheme", get("/", "X-Token", "Bearer abc"), "", bad},
			{"comes twice", get("/", "X-Token", "abc", "X-Token", "abc"), "", bad},
			{"comes twice, once empty", get("/", "X-Token", "", "X-Token", "abc"), "", bad},
			{"is joined", get("/", "X-Token", "abc, def"), "", bad},
			{"is no b64token", get("/", "X-Token", `"abc"`), "", bad},
		}},
		"Query": {koreauth.Query("access_token"), rows{
			{"is there", get("/?x=1&access_token=abc&y"), "abc", nil},
			{"is escaped", get("/?access%5Ftoken=a%2Bb%3D"), "a+b=", nil},
			{"is not there", get("/?x=1"), "", none},
			{"is empty", get("/?access_token="), "", none},
			{"is a name alone", get("/?access_token"), "", none},
			{"names have a case", get("/?Access_Token=abc"), "", none},
			{"a plus is a space", get("/?access_token=a+b"), "", bad},
			{"comes twice", get("/?access_token=abc&access_token=def"), "", bad},
			{"comes twice the same", get("/?access_token=abc&access_token=abc"), "", bad},
			{"comes twice, once empty", get("/?access_token=&access_token=abc"), "", bad},
			{"comes twice, once escaped", get("/?access_token=abc&access%5ftoken=def"), "", bad},
			{"a semicolon might hide a second", get("/?access_token=abc;access_token=def"), "", bad},
			{"a bad escape might hide a second", get("/?access_token=abc&access%zztoken=def"), "", bad},
			{"the body is not the query", post(formType, "access_token=abc"), "", none},
		}},
		"Form": {koreauth.Form("access_token"), rows{
			{"is there", post(formType, "x=1&access_token=abc"), "abc", nil},
			{"the type has parameters and any case", post("Application/X-WWW-Form-URLencoded; charset=UTF-8", "access_token=abc"), "abc", nil},
			{"the type has a broken parameter", post(formType+"; charset", "access_token=abc"), "abc", nil},
			{"PUT", newRequest("PUT", "/", formType, "access_token=abc"), "abc", nil},
			{"PATCH", newRequest("PATCH", "/", formType, "access_token=abc"), "abc", nil},
			{"DELETE", newRequest("DELETE", "/", formType, "access_token=abc"), "abc", nil},
			{"is not there", post(formType, "x=1"), "", none},
			{"is empty", post(formType, "access_token="), "", none},
			{"the body is empty", post(formType, ""), "", none},
			{"the query is not the body", newRequest("POST", "/?access_token=abc", formType, "x=1"), "", none},
			{"never with GET (RFC 6750 §2.2)", newRequest("GET", "/", formType, "access_token=abc"), "", none},
			{"never with HEAD", newRequest("HEAD", "/", formType, "access_token=abc"), "", none},
			{"no type", post("", "access_token=abc"), "", none},
			{"another type", post("text/plain", "access_token=abc"), "", none},
			{"multipart", post("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\nabc\r\n--b--\r\n"), "", none},
			{"JSON", post(jsonType, `{"access_token":"abc"}`), "", none},
			{"comes twice", post(formType, "access_token=abc&access_token=def"), "", bad},
			{"comes twice, once empty", post(formType, "access_token=abc&access_token="), "", bad},
			{"a semicolon", post(formType, "access_token=abc;x=1"), "", bad},
			{"a bad escape", post(formType, "access_token=abc&x=%"), "", bad},
			{"is no b64token", post(formType, "access_token=a+b"), "", bad},
		}},
		"JSON": {koreauth.JSON("access_token"), rows{
			{"is there", post(jsonType, `{"x":[1,{"access_token":"no"}],"access_token":"abc"}`), "abc", nil},
			{"white space does not matter", post(jsonType, "\r\n\t {\n \"access_token\" : \"abc\" }\n "), "abc", nil},
			{"escapes are read", post(jsonType, `{"access\u005ftoken":"\u0061bc"}`), "abc", nil},
			{"the type has parameters and any case", post("APPLICATION/JSON; charset=utf-8", `{"access_token":"abc"}`), "abc", nil},
			{"a type that ends in +json", post("application/vnd.kore.v1+json", `{"access_token":"abc"}`), "abc", nil},
			{"is not there", post(jsonType, `{"x":1}`), "", none},
			{"is empty", post(jsonType, `{"access_token":""}`), "", none},
			{"names have a case", post(jsonType, `{"Access_Token":"abc"}`), "", none},
			{"deeper is the handler's business", post(jsonType, `{"auth":{"access_token":"abc"}}`), "", none},
			{"an empty body", post(jsonType, ""), "", none},
			{"an array", post(jsonType, `[{"access_token":"abc"}]`), "", none},
			{"a string", post(jsonType, `"access_token"`), "", none},
			{"null", post(jsonType, `null`), "", none},
			{"never with GET", newRequest("GET", "/", jsonType, `{"access_token":"abc"}`), "", none},
			{"never with HEAD", newRequest("HEAD", "/", jsonType, `{"access_token":"abc"}`), "", none},
			{"another type", post("text/json-ish", `{"access_token":"abc"}`), "", none},
			{"no type", post("", `{"access_token":"abc"}`), "", none},
			{"a type that is none", post(";", `{"access_token":"abc"}`), "", none},
			{"comes twice", post(jsonType, `{"access_token":"abc","access_token":"def"}`), "", bad},
			{"comes twice, once escaped", post(jsonType, `{"access_token":"abc","access\u005ftoken":"def"}`), "", bad},
			{"comes twice, once empty", post(jsonType, `{"access_token":"","access_token":"abc"}`), "", bad},
			{"a number", post(jsonType, `{"access_token":1}`), "", bad},
			{"an array of it", post(jsonType, `{"access_token":["abc"]}`), "", bad},
			{"an object of it", post(jsonType, `{"access_token":{"access_token":"abc"}}`), "", bad},
			{"no JSON", post(jsonType, `access_token=abc`), "", bad},
			{"cut off", post(jsonType, `{"access_token":"abc"`), "", bad},
			{"something behind it", post(jsonType, `{"access_token":"abc"} {"access_token":"def"}`), "", bad},
			{"a comma too much", post(jsonType, `{"access_token":"abc",}`), "", bad},
			{"a byte-order mark", post(jsonType, "\ufeff"+`{"access_token":"abc"}`), "", bad},
			{"too deep for anybody", post(jsonType, `{"x":`+strings.Repeat("[", 30_000)), "", bad},
			{"is no b64token", post(jsonType, `{"access_token":"a b"}`), "", bad},
		}},
		"Cookie": {koreauth.Cookie("token"), rows{
			{"is there", get("/", "Cookie", "x=1; token=abc; y=2"), "abc", nil},
			{"is in a second line", get("/", "Cookie", "x=1", "Cookie", "token=abc"), "abc", nil},
			{"is quoted (RFC 6265 §4.1.1)", get("/", "Cookie", `token="abc"`), "abc", nil},
			{"is not there", get("/", "Cookie", "x=1"), "", none},
			{"is empty", get("/", "Cookie", "token="), "", none},
			{"names have a case", get("/", "Cookie", "Token=abc"), "", none},
			{"comes twice", get("/", "Cookie", "token=abc; token=def"), "", bad},
			{"comes twice, in two lines", get("/", "Cookie", "token=abc", "Cookie", "token=def"), "", bad},
			{"is no b64token", get("/", "Cookie", "token=a:b"), "", bad},
		}},
		"Path": {koreauth.Path("token"), rows{
			{"is there", pathRequest("abc"), "abc", nil},
			{"is not there", get("/abc"), "", none},
			{"is no b64token", pathRequest("a b"), "", bad},
		}},
		"a Source of one's own": {func(r *http.Request) ([]string, error) { return r.Header["X"], r.Context().Err() }, rows{
			{"finds one", get("/", "X", "abc"), "abc", nil},
			{"finds none", get("/"), "", none},
			{"finds an empty one", get("/", "X", ""), "", none},
			{"finds two", get("/", "X", "abc", "X", "def"), "", bad},
			{"finds what is none", get("/", "X", "a\nb"), "", bad},
		}},
	} {
		for _, row := range test.rows {
			t.Run(source+"/"+row.name, func(t *testing.T) {
				token, err := findToken(row.r, test.source)
				assert.Equal(t, row.token, token)
				assert.Equal(t, row.err, err)
			})
		}
	}
}

func TestSources_RejectTwoTokens(t *testing.T) {
	all := []koreauth.Source{
		koreauth.Header("Authorization"), koreauth.Header("X-Token"), koreauth.Query("t"), koreauth.Cookie("t"),
		koreauth.Form("t"), koreauth.JSON("t"), koreauth.Path("t"), koreauth.PathVars(mux.Vars, "t"),
	}
	// Each puts the token into one place.
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
			r.Header.Set("Content-Type", formType)
			r.Body = io.NopCloser(strings.NewReader("t=" + token))
			return r
		},
		"JSON": func(r *http.Request, token string) *http.Request {
			r.Header.Set("Content-Type", jsonType)
			r.Body = io.NopCloser(strings.NewReader(`{"t":"` + token + `"}`))
			return r
		},
		"path": func(r *http.Request, token string) *http.Request { r.SetPathValue("t", token); return r },
		"route": func(r *http.Request, token string) *http.Request {
			return mux.SetURLVars(r, map[string]string{"t": token})
		},
	}
	for one, put := range places {
		t.Run("a token in "+one+" alone", func(t *testing.T) {
			token, err := findToken(put(post("", ""), "abc"), all...)
			assert.NoError(t, err)
			assert.Equal(t, "abc", token)
		})
		for other, putToo := range places {
			if one == other || one == "form" && other == "JSON" || one == "JSON" && other == "form" {
				continue // A request has one body.
			}
			t.Run("a token in "+one+" and one in "+other, func(t *testing.T) {
				_, err := findToken(putToo(put(post("", ""), "abc"), "def"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err)
				_, err = findToken(putToo(put(post("", ""), "abc"), "abc"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err, "though it is the same")
			})
		}
	}
	t.Run("no token anywhere", func(t *testing.T) {
		_, err := findToken(post("", ""), all...)
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("Authorization is none of the places if it is not named", func(t *testing.T) {
		token, err := findToken(get("/?t=abc", "Authorization", "Bearer def"), koreauth.Query("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = findToken(get("/", "Authorization", "Bearer def"), koreauth.Query("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("an empty list is the default", func(t *testing.T) {
		token, err := findToken(bearerRequest("abc"), []koreauth.Source{}...)
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
}

func TestSources_PathVariables(t *testing.T) {
	validator := newTokenTable()
	guardBy := func(source koreauth.Source) *koreauth.Middleware {
		return koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{source}})
	}
	serveMux := http.NewServeMux()
	serveMux.Handle("GET /hook/{token}/sims", guardBy(koreauth.Path("token")).Wrap(whoami))
	router := mux.NewRouter()
	router.Use(guardBy(koreauth.PathVars(mux.Vars, "token")).Wrap)
	router.Handle("/hook/{token}/sims", whoami)
	router.Handle("/plain", whoami)

	for name, handler := range map[string]http.Handler{"net/http": serveMux, "gorilla/mux": router} {
		for path, want := range map[string]int{"/hook/a/sims": 200, "/hook/forged/sims": 403, "/hook/a%20b/sims": 401} {
			t.Run(name+path, func(t *testing.T) {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, get(path))
				assert.Equal(t, want, w.Code)
				if want == http.StatusOK {
					assert.Equal(t, "client-a", w.Body.String())
					assert.Equal(t, "private", w.Header().Get("Cache-Control"))
				}
			})
		}
	}
	t.Run("a route without the variable", func(t *testing.T) {
		status, _ := serve(router, get("/plain"))
		assert.Equal(t, http.StatusUnauthorized, status)
	})
}

// A body that a Source has read is there for the handler, to the last byte.
func TestSources_RestoreBody(t *testing.T) {
	for _, test := range []struct {
		name, contentType, body string
		source                  koreauth.Source
	}{
		{"a form", formType, "x=%7e&t=a&&y=+", koreauth.Form("t")},
		{"JSON, with its white space and order", jsonType, " {\"z\":1,\r\n\t\"t\":\"a\",\"b\":1e2}\n", koreauth.JSON("t")},
		{"a body of another type, unread", "application/octet-stream", "t=a\x00\xff", koreauth.Form("t")},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{test.source, koreauth.Query("t")}})
			target := "/"
			if test.contentType == "application/octet-stream" {
				target = "/?t=a"
			}
			body := &closeCounter{Reader: iotest.OneByteReader(strings.NewReader(test.body))}
			r := httptest.NewRequest(http.MethodPost, target, body)
			r.Header.Set("Content-Type", test.contentType)
			status, answer := serve(guard.Wrap(guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				assert.Equal(t, test.body, string(got))
				assert.NoError(t, r.Body.Close())
			}))), r)
			assert.Equal(t, http.StatusOK, status, answer)
			assert.Equal(t, 1, body.closed, "the body that came is closed when the handler closes its own")
		})
	}

	t.Run("for ParseForm", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("t")}})
		serve(guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			require.NoError(t, r.ParseForm())
			assert.Equal(t, url.Values{"t": {"a"}, "x": {"1", "2"}}, r.PostForm)
		})), post(formType, "x=1&t=a&x=2"))
	})
	t.Run("a form that is parsed already", func(t *testing.T) {
		r := post(formType, "t=abc")
		require.NoError(t, r.ParseForm())
		token, err := findToken(r, koreauth.Form("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
	t.Run("for the next Source", func(t *testing.T) {
		token, err := findToken(post(jsonType, `{"b":"abc"}`), koreauth.JSON("a"), koreauth.JSON("b"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = findToken(post(formType, `a=abc&b=def`), koreauth.Form("a"), koreauth.Form("b"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("after Authenticate", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("t")}})
		r := post(formType, "t=a")
		for range 2 {
			_, err := guard.Authenticate(r)
			assert.NoError(t, err)
		}
		got, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "t=a", string(got))
	})
	t.Run("over HTTP, chunked", func(t *testing.T) {
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{koreauth.JSON("t")}})
		server := httptest.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })))
		defer server.Close()
		sent := `{"t":"a","rest":"` + strings.Repeat("x", 10_000) + `"}`
		res, err := http.Post(server.URL, jsonType, io.MultiReader(strings.NewReader(sent)))
		require.NoError(t, err)
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, sent, string(got))
	})
}

// closeCounter is a body that counts how often it is closed.
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
		"form": {koreauth.Form("t"), formType, "t=abc&x="},
		"JSON": {koreauth.JSON("t"), jsonType, `{"t":"abc"}`},
	}
	for name, body := range bodies {
		fill := map[string]string{"form": "y", "JSON": " "}[name]
		for _, test := range []struct {
			name string
			size int
			err  error
		}{
			{"of exactly 64 KiB is read", limit, nil},
			{"of a byte more is a bad request", limit + 1, koreauth.ErrBadRequest},
			{"of much more is a bad request", 4 * limit, koreauth.ErrBadRequest},
		} {
			t.Run(name+" "+test.name, func(t *testing.T) {
				sent := body.before + strings.Repeat(fill, test.size-len(body.before))
				reader := bytes.NewReader([]byte(sent))
				r := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(reader))
				r.Header.Set("Content-Type", body.contentType)
				_, err := findToken(r, body.source)
				assert.Equal(t, test.err, err)
				assert.GreaterOrEqual(t, reader.Len(), test.size-limit-1, "no more is read than need be")
				if err == nil {
					got, err := io.ReadAll(r.Body)
					require.NoError(t, err)
					assert.Equal(t, len(sent), len(got))
					assert.Equal(t, sent, string(got))
				}
			})
		}
	}
	t.Run("of another type may be of any size", func(t *testing.T) {
		r := newRequest(http.MethodPost, "/", "application/octet-stream", strings.Repeat("x", 2*limit), "Authorization", "Bearer abc")
		_, err := findToken(r, koreauth.Header("Authorization"), koreauth.Form("t"), koreauth.JSON("t"))
		assert.NoError(t, err)
	})
	t.Run("a body that breaks off is a bad request", func(t *testing.T) {
		broken := io.MultiReader(strings.NewReader("t=abc"), iotest.ErrReader(io.ErrUnexpectedEOF))
		r := httptest.NewRequest(http.MethodPost, "/", broken)
		r.Header.Set("Content-Type", formType)
		_, err := findToken(r, koreauth.Form("t"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("no body at all", func(t *testing.T) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Header: http.Header{"Content-Type": {formType}}}
		_, err := findToken(r, koreauth.Form("t"), koreauth.JSON("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
}

// FuzzSources: whatever comes, there is either one b64token or a class, and
// the body is there afterwards.
func FuzzSources(f *testing.F) {
	f.Add("t=abc", "t=abc", "t=abc", "abc", true)
	f.Add("", `{"t":"abc"}`, "", "", false)
	f.Add("t=1&t=2;%zz", `{"t":1,"t":{}}`, "t=\"", " ", false)
	f.Fuzz(func(t *testing.T, query, body, cookie, header string, form bool) {
		contentType := jsonType
		if form {
			contentType = formType
		}
		r := post(contentType, body)
		r.URL.RawQuery = query
		maps.Copy(r.Header, http.Header{"Cookie": {cookie}, "X-Token": {header}})
		validator := &tokenTable{}
		guard := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{
			koreauth.Query("t"), koreauth.Cookie("t"), koreauth.Header("X-Token"), koreauth.Form("t"), koreauth.JSON("t"),
		}})
		_, err := guard.Authenticate(r)
		refused := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if refused == (len(validator.validated) > 0) || len(validator.validated) > 1 {
			t.Fatalf("tokens %q and the error %v", validator.validated, err)
		}
		if refused {
			return
		}
		if token := validator.validated[0]; strings.Trim(strings.TrimRight(token, "="), b64tokenChars) != "" {
			t.Errorf("%q is no b64token", token)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
			t.Errorf("the handler gets the body %q and the error %v, not %q", got, err, body)
		}
	})
}

func TestForm_AfterParseForm(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Subject: "s"}}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("access_token")}})
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
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("access_token")}})
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	reader, writer := io.Pipe()
	writer.CloseWithError(io.ErrUnexpectedEOF)
	r := httptest.NewRequest(http.MethodPost, "/", reader).WithContext(ctx)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err := guard.Authenticate(r)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, err, gone)
}

func TestJSON_RejectsNonStrings(t *testing.T) {
	for _, value := range []string{`null`, `["a"]`, `{"t":"a"}`, `7`, `true`} {
		_, err := findToken(post(jsonType, `{"t":`+value+`}`), koreauth.JSON("t"))
		assert.Equal(t, http.StatusBadRequest, statusOf(err), value)
	}
}

func statusOf(err error) int {
	status, _, _ := koreauth.RFC6750Errors(err)
	return status
}

var b64token = regexp.MustCompile(`\A[A-Za-z0-9._~+/-]+=*\z`)

// FuzzEachSource: the token that a source yields is the only one there, as
// net/url and encoding/json see the place, and the body is put back.
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
		var source koreauth.Source
		var model func() []string
		switch which % 5 {
		case 0:
			r.Header["X-Token"] = []string{place}
			source, model = koreauth.Header("X-Token"), func() []string { return []string{place} }
		case 1:
			source, model = koreauth.Form("t"), func() []string { return formValues(place) }
		case 2:
			source, model = koreauth.JSON("t"), func() []string { return jsonValues(place) }
		case 3:
			r.URL.RawQuery = place
			source, model = koreauth.Query("t"), func() []string { return formValues(place) }
		case 4:
			r.Header["Cookie"] = []string{place}
			source, model = koreauth.Cookie("t"), func() []string { return cookieValues(place) }
		}
		values, err := source(r.Clone(t.Context()))
		if which%5 == 1 || which%5 == 2 {
			r.Body = io.NopCloser(strings.NewReader(place))
		}
		require.False(t, err != nil && len(values) > 0, "%q and %v", values, err)

		book := new(tokenTable)
		_, err = koreauth.New(book, &koreauth.Options{Sources: []koreauth.Source{source}}).Authenticate(r)
		none := errors.Is(err, koreauth.ErrNoToken)
		if len(book.validated) == 0 {
			require.True(t, none || errors.Is(err, koreauth.ErrBadRequest), "%v", err)
		} else {
			require.Len(t, book.validated, 1)
			require.Regexp(t, b64token, book.validated[0])
			require.Equal(t, []string{book.validated[0]}, model(), "%q", place)
		}
		if none || len(book.validated) > 0 {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, place, string(body), "what the handler reads")
		}
	})
}

// pairsModel are the values of t in a query or a form.
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

// memberModel are the values of t at the top of a JSON object, without regard
// to duplicates deeper down.
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

// cookieModel are the values of t in a Cookie line. Those that no cookie can
// have (RFC 6265 §4.1.1, but for space and comma) are none, as to net/http.
func cookieValues(line string) (values []string) {
	for pair := range strings.SplitSeq(line, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t\r\n"), "=")
		if unquoted := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`); len(value)-len(unquoted) == 2 {
			value = unquoted
		}
		odd := strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
		if strings.Trim(name, " \t\r\n") == "t" && !odd {
			values = append(values, value)
		}
	}
	return values
}
