package koreauth_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// found is the token that the sources find in a request, and the class of
// refusal where they do not.
func found(r *http.Request, sources ...koreauth.Source) (token string, err error) {
	validator := &tokenBook{}
	_, err = koreauth.New(validator, &koreauth.Options{Sources: sources}).Authenticate(r)
	if len(validator.asked) == 1 && errors.Is(err, koreauth.ErrSignature) {
		return validator.asked[0], nil // The book knows no token at all.
	}
	if len(validator.asked) > 0 {
		return strings.Join(validator.asked, " AND "), err
	}
	for _, class := range []error{koreauth.ErrNoToken, koreauth.ErrBadRequest} {
		if errors.Is(err, class) {
			return "", class
		}
	}
	return "", err
}

// Rows for the Authorization header: the lines, the token, and the class of
// refusal.
var authorizationRows = []struct {
	name  string
	lines []string
	token string
	err   error
}{
	{"no line is no token", nil, "", koreauth.ErrNoToken},
	{"an empty line is no token", []string{""}, "", koreauth.ErrNoToken},
	{"a line of spaces is no token", []string{"  \t "}, "", koreauth.ErrNoToken},
	{"a token", []string{"Bearer abc"}, "abc", nil},
	{"every character of a b64token", []string{"Bearer azAZ09-._~+/=="}, "azAZ09-._~+/==", nil},
	{"the scheme is case-insensitive: lower", []string{"bearer abc"}, "abc", nil},
	{"the scheme is case-insensitive: upper", []string{"BEARER abc"}, "abc", nil},
	{"the scheme is case-insensitive: mixed", []string{"bEaReR abc"}, "abc", nil},
	{"several spaces separate as one does", []string{"Bearer    abc"}, "abc", nil},
	{"space around the value is none of it", []string{" \tBearer abc\t "}, "abc", nil},
	{"the token has a case", []string{"Bearer AbC"}, "AbC", nil},
	{"another scheme: Basic", []string{"Basic dTpw"}, "", koreauth.ErrNoToken},
	{"another scheme: DPoP", []string{"DPoP abc"}, "", koreauth.ErrNoToken},
	{"another scheme: Digest, with parameters", []string{`Digest username="Bearer abc"`}, "", koreauth.ErrNoToken},
	{"another scheme that begins with Bearer", []string{"Bearerx abc"}, "", koreauth.ErrNoToken},
	{"another scheme that ends with Bearer", []string{"x-Bearer abc"}, "", koreauth.ErrNoToken},
	{"a bare token", []string{"abc"}, "", koreauth.ErrNoToken},
	{"a bare JWT", []string{"eyJhbGciOiJSUzI1NiJ9.e30.abc"}, "", koreauth.ErrNoToken},
	{"no space behind the scheme", []string{"Bearerabc"}, "", koreauth.ErrNoToken},
	{"a colon behind the scheme", []string{"Bearer: abc"}, "", koreauth.ErrNoToken},
	{"an equals sign behind the scheme", []string{"Bearer=abc"}, "", koreauth.ErrNoToken},
	{"a comma before the scheme", []string{", Bearer abc"}, "", koreauth.ErrNoToken},
	{"a quoted scheme", []string{`"Bearer" abc`}, "", koreauth.ErrNoToken},
	{"another credential joined before it", []string{"Basic dTpw, Bearer abc"}, "", koreauth.ErrNoToken},
	{"a no-break space is no space", []string{"Bearer\u00a0abc"}, "", koreauth.ErrNoToken},
	{"a full-width scheme", []string{"Ｂｅａｒｅｒ abc"}, "", koreauth.ErrNoToken},
	{"a byte-order mark before the scheme", []string{"\ufeffBearer abc"}, "", koreauth.ErrNoToken},
	{"the scheme alone", []string{"Bearer"}, "", koreauth.ErrBadRequest},
	{"the scheme and spaces", []string{"Bearer   "}, "", koreauth.ErrBadRequest},
	{"the scheme in lower case alone", []string{"bearer"}, "", koreauth.ErrBadRequest},
	{"a tab is no space", []string{"Bearer\tabc"}, "", koreauth.ErrBadRequest},
	{"a tab after a space", []string{"Bearer \tabc"}, "", koreauth.ErrBadRequest},
	{"two words", []string{"Bearer abc def"}, "", koreauth.ErrBadRequest},
	{"a tab between two words", []string{"Bearer abc\tdef"}, "", koreauth.ErrBadRequest},
	{"the scheme twice", []string{"Bearer Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two joined by a comma", []string{"Bearer abc, Bearer def"}, "", koreauth.ErrBadRequest},
	{"two joined by a comma alone", []string{"Bearer abc,def"}, "", koreauth.ErrBadRequest},
	{"a comma behind it", []string{"Bearer abc,"}, "", koreauth.ErrBadRequest},
	{"another credential joined behind it", []string{"Bearer abc, Basic dTpw"}, "", koreauth.ErrBadRequest},
	{"a quoted token", []string{`Bearer "abc"`}, "", koreauth.ErrBadRequest},
	{"a parameter", []string{`Bearer token="abc"`}, "", koreauth.ErrBadRequest},
	{"padding alone", []string{"Bearer =="}, "", koreauth.ErrBadRequest},
	{"padding within", []string{"Bearer a=b"}, "", koreauth.ErrBadRequest},
	{"padding before", []string{"Bearer =a"}, "", koreauth.ErrBadRequest},
	{"a letter beyond ASCII", []string{"Bearer abcé"}, "", koreauth.ErrBadRequest},
	{"a byte beyond ASCII", []string{"Bearer abc\xff"}, "", koreauth.ErrBadRequest},
	{"a NUL", []string{"Bearer abc\x00"}, "", koreauth.ErrBadRequest},
	{"a line break", []string{"Bearer abc\r\nX: y"}, "", koreauth.ErrBadRequest},
	{"a percent escape", []string{"Bearer abc%20"}, "", koreauth.ErrBadRequest},
	{"a colon, an at sign, a semicolon", []string{"Bearer a:b@c;d"}, "", koreauth.ErrBadRequest},
	{"two lines", []string{"Bearer abc", "Bearer def"}, "", koreauth.ErrBadRequest},
	{"two lines of one token", []string{"Bearer abc", "Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two lines, the first of another scheme", []string{"Basic dTpw", "Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two lines, the second of another scheme", []string{"Bearer abc", "Basic dTpw"}, "", koreauth.ErrBadRequest},
	{"two lines, one empty", []string{"", "Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two empty lines", []string{"", ""}, "", koreauth.ErrBadRequest},
}

func TestAuthorization(t *testing.T) {
	for _, test := range authorizationRows {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Authorization"] = test.lines
			token, err := found(r)
			assert.Equal(t, test.token, token)
			assert.Equal(t, test.err, err)

			token, err = found(r, koreauth.Query("t"), koreauth.Header("authorization"))
			assert.Equal(t, test.token, token, "as one Source of several")
			assert.Equal(t, test.err, err, "as one Source of several")
		})
	}
}

// Each byte, at each place of a token, is in the set of RFC 6750 §2.1 or makes
// it a bad request.
func TestEveryByteOfAToken(t *testing.T) {
	for c := range 256 {
		for at := range 19 {
			token := []byte("abcdefghABCDEFGH019")
			token[at] = byte(c)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Authorization"] = []string{"Bearer " + string(token)}
			got, err := found(r)
			good := strings.IndexByte(b64tokenChars, byte(c)) >= 0 || c == '=' && at == 18
			outside := at == 0 && c == ' ' || at == 18 && (c == ' ' || c == '\t') // space around the token
			if outside || good == (err == nil) && (!good || got == string(token)) {
				continue
			}
			t.Errorf("%q at %d: got %q and %v", byte(c), at, got, err)
		}
	}
}

// FuzzBearerHeader: no header line yields both a token and an error; a token
// is one b64token, and stands in the line.
func FuzzBearerHeader(f *testing.F) {
	for _, row := range authorizationRows {
		if len(row.lines) == 1 {
			f.Add(row.lines[0])
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = []string{line}
		validator := &tokenBook{}
		_, err := koreauth.New(validator, nil).Authenticate(r)
		refused := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if refused == (len(validator.asked) > 0) || len(validator.asked) > 1 {
			t.Fatalf("the line %q: tokens %q and the error %v", line, validator.asked, err)
		}
		if refused {
			return
		}
		token := validator.asked[0]
		if strings.Trim(token, "=") == "" || strings.Trim(strings.TrimRight(token, "="), b64tokenChars) != "" {
			t.Errorf("the line %q yields %q, which is no b64token", line, token)
		}
		scheme, rest, _ := strings.Cut(strings.Trim(line, " \t"), " ")
		if !strings.EqualFold(scheme, "Bearer") || strings.TrimLeft(rest, " ") != token {
			t.Errorf("the line %q yields %q", line, token)
		}
	})
}

const b64tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

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

func post(contentType, body string) *http.Request {
	return newRequest(http.MethodPost, "/", contentType, body)
}

func get(target string, header ...string) *http.Request {
	return newRequest(http.MethodGet, target, "", "", header...)
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

func TestSources(t *testing.T) {
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
				token, err := found(row.r, test.source)
				assert.Equal(t, row.token, token)
				assert.Equal(t, row.err, err)
			})
		}
	}
}

func TestSourceErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"an error of no class is a bad request", io.EOF, koreauth.ErrBadRequest},
		{"an error of a class is of that class", koreauth.ErrUnavailable, koreauth.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := func(*http.Request) ([]string, error) { return []string{"abc"}, test.err }
			validator := &tokenBook{}
			_, err := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{source}}).Authenticate(get("/"))
			assert.ErrorIs(t, err, test.want)
			assert.ErrorIs(t, err, test.err)
			assert.Empty(t, validator.asked, "a token beside an error is not looked at")
		})
	}
	t.Run("a Source that says ErrNoToken does not hide another's bad token", func(t *testing.T) {
		source := func(*http.Request) ([]string, error) { return nil, koreauth.ErrNoToken }
		guard := koreauth.New(book(), &koreauth.Options{Sources: []koreauth.Source{source, koreauth.Query("t")}})
		status, _ := ask(guard.WrapOptional(whoami), get("/?t=forged"))
		assert.NotEqual(t, http.StatusOK, status)
	})
}

func TestSeveralSources(t *testing.T) {
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
			token, err := found(put(post("", ""), "abc"), all...)
			assert.NoError(t, err)
			assert.Equal(t, "abc", token)
		})
		for other, putToo := range places {
			if one == other || one == "form" && other == "JSON" || one == "JSON" && other == "form" {
				continue // A request has one body.
			}
			t.Run("a token in "+one+" and one in "+other, func(t *testing.T) {
				_, err := found(putToo(put(post("", ""), "abc"), "def"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err)
				_, err = found(putToo(put(post("", ""), "abc"), "abc"), all...)
				assert.Equal(t, koreauth.ErrBadRequest, err, "though it is the same")
			})
		}
	}
	t.Run("no token anywhere", func(t *testing.T) {
		_, err := found(post("", ""), all...)
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("Authorization is none of the places if it is not named", func(t *testing.T) {
		token, err := found(get("/?t=abc", "Authorization", "Bearer def"), koreauth.Query("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = found(get("/", "Authorization", "Bearer def"), koreauth.Query("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
	t.Run("an empty list is the default", func(t *testing.T) {
		token, err := found(bearer("abc"), []koreauth.Source{}...)
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
}

func TestPathSourcesInRouters(t *testing.T) {
	validator := book()
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
		status, _ := ask(router, get("/plain"))
		assert.Equal(t, http.StatusUnauthorized, status)
	})
}

// A body that a Source has read is there for the handler, to the last byte.
func TestBodyIsPutBack(t *testing.T) {
	for _, test := range []struct {
		name, contentType, body string
		source                  koreauth.Source
	}{
		{"a form", formType, "x=%7e&t=a&&y=+", koreauth.Form("t")},
		{"JSON, with its white space and order", jsonType, " {\"z\":1,\r\n\t\"t\":\"a\",\"b\":1e2}\n", koreauth.JSON("t")},
		{"a body of another type, unread", "application/octet-stream", "t=a\x00\xff", koreauth.Form("t")},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := koreauth.New(book(), &koreauth.Options{Sources: []koreauth.Source{test.source, koreauth.Query("t")}})
			target := "/"
			if test.contentType == "application/octet-stream" {
				target = "/?t=a"
			}
			body := &closeCounter{Reader: iotest.OneByteReader(strings.NewReader(test.body))}
			r := httptest.NewRequest(http.MethodPost, target, body)
			r.Header.Set("Content-Type", test.contentType)
			status, answer := ask(guard.Wrap(guard.Require(koreauth.Scope("scope-a"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		guard := koreauth.New(book(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("t")}})
		ask(guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			require.NoError(t, r.ParseForm())
			assert.Equal(t, url.Values{"t": {"a"}, "x": {"1", "2"}}, r.PostForm)
		})), post(formType, "x=1&t=a&x=2"))
	})
	t.Run("a form that is parsed already", func(t *testing.T) {
		r := post(formType, "t=abc")
		require.NoError(t, r.ParseForm())
		token, err := found(r, koreauth.Form("t"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
	})
	t.Run("for the next Source", func(t *testing.T) {
		token, err := found(post(jsonType, `{"b":"abc"}`), koreauth.JSON("a"), koreauth.JSON("b"))
		assert.NoError(t, err)
		assert.Equal(t, "abc", token)
		_, err = found(post(formType, `a=abc&b=def`), koreauth.Form("a"), koreauth.Form("b"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("after Authenticate", func(t *testing.T) {
		guard := koreauth.New(book(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("t")}})
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
		guard := koreauth.New(book(), &koreauth.Options{Sources: []koreauth.Source{koreauth.JSON("t")}})
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

func TestBodyLimit(t *testing.T) {
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
				_, err := found(r, body.source)
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
		_, err := found(r, koreauth.Header("Authorization"), koreauth.Form("t"), koreauth.JSON("t"))
		assert.NoError(t, err)
	})
	t.Run("a body that breaks off is a bad request", func(t *testing.T) {
		broken := io.MultiReader(strings.NewReader("t=abc"), iotest.ErrReader(io.ErrUnexpectedEOF))
		r := httptest.NewRequest(http.MethodPost, "/", broken)
		r.Header.Set("Content-Type", formType)
		_, err := found(r, koreauth.Form("t"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("no body at all", func(t *testing.T) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/"}, Header: http.Header{"Content-Type": {formType}}}
		_, err := found(r, koreauth.Form("t"), koreauth.JSON("t"))
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
		validator := &tokenBook{}
		guard := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{
			koreauth.Query("t"), koreauth.Cookie("t"), koreauth.Header("X-Token"), koreauth.Form("t"), koreauth.JSON("t"),
		}})
		_, err := guard.Authenticate(r)
		refused := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if refused == (len(validator.asked) > 0) || len(validator.asked) > 1 {
			t.Fatalf("tokens %q and the error %v", validator.asked, err)
		}
		if refused {
			return
		}
		if token := validator.asked[0]; strings.Trim(strings.TrimRight(token, "="), b64tokenChars) != "" {
			t.Errorf("%q is no b64token", token)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
			t.Errorf("the handler gets the body %q and the error %v, not %q", got, err, body)
		}
	})
}

func TestAFormThatParseFormDidNotReadIsRead(t *testing.T) {
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

func TestABodyCutByADoneContextIsUnavailable(t *testing.T) {
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

func TestATokenInJSONIsAString(t *testing.T) {
	for _, value := range []string{`null`, `["a"]`, `{"t":"a"}`, `7`, `true`} {
		_, err := found(post(jsonType, `{"t":`+value+`}`), koreauth.JSON("t"))
		assert.Equal(t, http.StatusBadRequest, statusOf(err), value)
	}
}

func statusOf(err error) int {
	status, _, _ := koreauth.RFC6750Errors(err)
	return status
}
