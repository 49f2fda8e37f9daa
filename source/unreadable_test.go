package source_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/source"
)

// chunked hides the length of a body, as a client does that does not know it.
func chunked(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

// unreadable are requests in which one place cannot be read.
func unreadable() map[string]struct {
	source koreauth.Source
	r      *http.Request
	body   string // that the handler must read, with every error of the body
} {
	large := strings.Repeat("x", 100<<10)
	post := func(contentType, body string) *http.Request { return postRequest(contentType, body) }
	broken := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("t=abc"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	broken.Header.Set("Content-Type", formMedia)
	return map[string]struct {
		source koreauth.Source
		r      *http.Request
		body   string
	}{
		"a query with a semicolon":            {source.Query("t"), getRequest("/?filter=a;b=c"), ""},
		"a query with a bare percent sign":    {source.Query("t"), getRequest("/?discount=100%"), ""},
		"a query with a wrong escape":         {source.Query("t"), getRequest("/?x=%zz&t=abc"), ""},
		"a query with a wrong escape in name": {source.Query("t"), getRequest("/?%zz=1"), ""},
		"a form with a semicolon":             {source.Form("t"), post(formMedia, "a=b;c=d"), "a=b;c=d"},
		"a form with a bare percent sign":     {source.Form("t"), post(formMedia, "a=100%"), "a=100%"},
		"a form over 64 KiB":                  {source.Form("t"), post(formMedia, "a="+large), "a=" + large},
		"a form over 64 KiB in chunks":        {source.Form("t"), chunked(post(formMedia, "a="+large)), "a=" + large},
		"a form that breaks off":              {source.Form("t"), broken, "t=abc unexpected EOF"},
		"JSON over 64 KiB":                    {source.JSON("t"), post(jsonMedia, `"`+large+`"`), `"` + large + `"`},
		"JSON over 64 KiB in chunks":          {source.JSON("t"), chunked(post(jsonMedia, `"`+large+`"`)), `"` + large + `"`},
		"a body that is not JSON":             {source.JSON("t"), post(jsonMedia, "{"), "{"},
		"JSON with a number as the token":     {source.JSON("t"), post(jsonMedia, `{"t":7}`), `{"t":7}`},
		"a custom source, an error without a class": {
			func(*http.Request) ([]string, error) { return nil, errors.New("odd") }, getRequest("/"), ""},
		"a custom source, a bad request": {
			func(*http.Request) ([]string, error) { return []string{"x"}, koreauth.ErrBadRequest }, getRequest("/"), ""},
	}
}

// A token in a header is not spoiled by another place that cannot be read, and the
// handler still reads the whole body. A token in any other place is, because a second
// one may be hidden in the place that cannot be read.
func TestSources_UnreadablePlace(t *testing.T) {
	elsewhere := koreauth.Source(func(*http.Request) ([]string, error) { return []string{"elsewhere"}, nil })
	cookie := source.Cookie("session")
	for name := range unreadable() {
		t.Run(name, func(t *testing.T) {
			_, err := tokenFrom(unreadable()[name].r, unreadable()[name].source)
			assert.Equal(t, koreauth.ErrBadRequest, err, "alone")

			for _, header := range []struct{ source, name, value string }{
				{"Authorization", "Authorization", "Bearer abc"}, {"Authorization", "Authorization", "bearer   abc"},
				{"X-Token", "X-Token", "abc"}, {"X-Token", "X-Token", "Bearer abc"},
			} {
				for _, first := range []bool{true, false} {
					row := unreadable()[name]
					row.r.Header.Set(header.name, header.value)
					sources := []koreauth.Source{koreauth.Header(header.source), row.source}
					if !first {
						sources = []koreauth.Source{row.source, koreauth.Header(header.source)}
					}
					got, err := tokenFrom(row.r, sources...)
					assert.NoError(t, err, "%s: %s", header.name, header.value)
					assert.Equal(t, "abc", got)
					body, err := io.ReadAll(row.r.Body)
					if err != nil {
						body = append(body, " "+err.Error()...)
					}
					assert.True(t, row.body == string(body), "the handler read %d bytes, want %d", len(body), len(row.body))
				}
			}

			row := unreadable()[name]
			row.r.Header.Set("X-Other", "Bearer")
			for _, other := range []koreauth.Source{elsewhere, cookie} {
				row.r.AddCookie(&http.Cookie{Name: "session", Value: "abc"})
				_, err = tokenFrom(row.r, row.source, other)
				assert.Equal(t, koreauth.ErrBadRequest, err, "a token elsewhere")
				_, err = tokenFrom(row.r, other, row.source)
				assert.Equal(t, koreauth.ErrBadRequest, err, "a token elsewhere")
			}

			for _, second := range []string{"abc", "def"} {
				row := unreadable()[name]
				row.r.Header.Set("Authorization", "Bearer abc")
				row.r.Header.Set("X-Token", second)
				_, err = tokenFrom(row.r, koreauth.Header("Authorization"), row.source, koreauth.Header("X-Token"))
				assert.Equal(t, koreauth.ErrBadRequest, err, "two tokens in headers")
			}

			row = unreadable()[name]
			row.r.Header["Authorization"] = []string{"Bearer abc", "Bearer abc"}
			row.r.Header.Set("X-Token", "abc")
			_, err = tokenFrom(row.r, koreauth.Header("Authorization"), row.source, koreauth.Header("X-Token"))
			assert.Equal(t, koreauth.ErrBadRequest, err, "two Authorization headers are not a place that cannot be read")
			for _, bearer := range []string{"Bearer", "Bearer "} {
				row.r.Header["Authorization"] = []string{bearer}
				_, err = tokenFrom(row.r, koreauth.Header("X-Token"), row.source, koreauth.Header("Authorization"))
				assert.Equal(t, koreauth.ErrBadRequest, err, "Bearer without a token is not either")
			}
		})
	}
	t.Run("the first error is told", func(t *testing.T) {
		fails := func(text string) koreauth.Source {
			return func(*http.Request) ([]string, error) { return nil, errors.New(text) }
		}
		second := func(*http.Request) ([]string, error) { return nil, fmt.Errorf("%w: second", koreauth.ErrBadRequest) }
		for _, other := range []koreauth.Source{fails("second"), second} {
			_, err := koreauth.New(&recordingValidator{}, &koreauth.Options{Sources: []koreauth.Source{fails("first"), other}}).Authenticate(getRequest("/"))
			assert.ErrorContains(t, err, "first")
			assert.NotContains(t, err.Error(), "second")
		}
	})
	t.Run("an error of another class decides at once", func(t *testing.T) {
		for _, class := range []error{koreauth.ErrUnavailable, koreauth.ErrInvalidToken, koreauth.ErrForbidden, koreauth.ErrRevoked} {
			failing := koreauth.Source(func(*http.Request) ([]string, error) { return nil, class })
			_, err := tokenFrom(getRequest("/", "Authorization", "Bearer abc"), koreauth.Header("Authorization"), failing)
			assert.ErrorIs(t, err, class)
		}
	})
	t.Run("a word of a header is not a token in it", func(t *testing.T) {
		row := unreadable()["a query with a semicolon"]
		row.r.Header.Set("Authorization", "Basic elsewhere")
		row.r.Header.Set("User-Agent", "agent elsewhere")
		_, err := tokenFrom(row.r, koreauth.Header("Authorization"), elsewhere, row.source)
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("two readable tokens are rejected, whether they differ or not", func(t *testing.T) {
		for _, other := range []string{"abc", "def"} {
			r := newRequest("POST", "/?t="+other, formMedia, "", "Authorization", "Bearer abc")
			_, err := tokenFrom(r, koreauth.Header("Authorization"), source.Query("t"))
			assert.Equal(t, koreauth.ErrBadRequest, err)
			r = newRequest("POST", "/", formMedia, "t="+other, "Authorization", "Bearer abc")
			_, err = tokenFrom(r, koreauth.Header("Authorization"), source.Form("t"))
			assert.Equal(t, koreauth.ErrBadRequest, err)
			r = newRequest("POST", "/", jsonMedia, `{"t":"`+other+`"}`, "Authorization", "Bearer abc")
			_, err = tokenFrom(r, koreauth.Header("Authorization"), source.JSON("t"))
			assert.Equal(t, koreauth.ErrBadRequest, err)
		}
	})
}

// A body whose length is known and over 64 KiB is not read at all: the client of
// Expect: 100-continue then does not send it.
func TestSources_TooLargeIsNotRead(t *testing.T) {
	for contentType, s := range map[string]koreauth.Source{formMedia: source.Form("t"), jsonMedia: source.JSON("t")} {
		for length, read := range map[int64]bool{64 << 10: true, 64<<10 + 1: false, 1 << 40: false} {
			body := &closeCounter{Reader: strings.NewReader("")}
			reads := 0
			r := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(readerFunc(func(p []byte) (int, error) {
				reads++
				return body.Read(p)
			})))
			r.ContentLength = length
			r.Header.Set("Content-Type", contentType)
			_, err := tokenFrom(r, s)
			assert.Equal(t, read, reads > 0, "%s of %d bytes", contentType, length)
			if !read {
				assert.Equal(t, koreauth.ErrBadRequest, err)
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// After an outer handler parsed the form, Form finds what it would find itself.
func TestForm_AfterOuterFormValue(t *testing.T) {
	for name, row := range map[string]struct {
		target, body string
		want         string
		err          error
	}{
		"a token":                        {"/", "t=abc&x=1", "abc", nil},
		"no token":                       {"/", "x=1", "", koreauth.ErrNoToken},
		"values of the query":            {"/?t=abc", "x=1", "", koreauth.ErrNoToken},
		"a value of the query beside it": {"/?t=def", "t=abc", "abc", nil},
		"two tokens":                     {"/", "t=abc&t=def", "", koreauth.ErrBadRequest},
		"the same token twice":           {"/", "t=abc&t=abc", "", koreauth.ErrBadRequest},
		"an empty one beside it":         {"/", "t=&t=abc", "", koreauth.ErrBadRequest},
		"over 64 KiB":                    {"/", "t=abc&x=" + strings.Repeat("y", 64<<10), "", koreauth.ErrBadRequest},
		"over 64 KiB in escapes":         {"/", "t=abc&x=" + strings.Repeat("%41", 22<<10), "", koreauth.ErrBadRequest},
	} {
		for _, outer := range []func(*http.Request){
			func(*http.Request) {},
			func(r *http.Request) { r.FormValue("x") },
			func(r *http.Request) { _ = r.ParseForm() },
			func(r *http.Request) { r.PostFormValue("t") },
			func(r *http.Request) { _ = r.ParseMultipartForm(1 << 20) },
		} {
			r := newRequest("POST", row.target, formMedia, row.body)
			outer(r)
			got, err := tokenFrom(r, source.Form("t"))
			assert.Equal(t, row.err, err, name)
			assert.Equal(t, row.want, got, name)
		}
	}
	t.Run("over 64 KiB in chunks", func(t *testing.T) {
		r := chunked(newRequest("POST", "/", formMedia, "t=abc&x="+strings.Repeat("y", 64<<10)))
		r.FormValue("x")
		_, err := tokenFrom(r, source.Form("t"))
		assert.Equal(t, koreauth.ErrBadRequest, err)
	})
	t.Run("what counts for the size", func(t *testing.T) {
		for name, form := range map[string]url.Values{
			"names":      {"t": {"abc"}, strings.Repeat("y", 64<<10): {""}},
			"separators": {"t": {"abc"}, "y": make([]string, 30<<10)},
		} {
			r := chunked(newRequest("POST", "/", formMedia, ""))
			r.PostForm = form
			_, err := tokenFrom(r, source.Form("t"))
			assert.Equal(t, koreauth.ErrBadRequest, err, name)
		}
	})
	t.Run("a multipart form has no token", func(t *testing.T) {
		body := "--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nabc\r\n--b--\r\n"
		r := newRequest("POST", "/", "multipart/form-data; boundary=b", body)
		require.Equal(t, "abc", r.FormValue("t"))
		_, err := tokenFrom(r, source.Form("t"))
		assert.Equal(t, koreauth.ErrNoToken, err)
	})
}

// What a source costs is limited by what it reads, whatever an attacker sends. Bytes
// are counted, since they do not depend on the machine as times do.
func TestSources_CostIsBounded(t *testing.T) {
	const header = 800 << 10
	cost := func(make func() *http.Request, s koreauth.Source) int64 {
		const runs = 4
		var requests [runs]*http.Request
		for i := range requests {
			requests[i] = make()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, r := range requests {
			_, _ = s(r)
		}
		runtime.ReadMemStats(&after)
		return int64(after.TotalAlloc-before.TotalAlloc) / runs
	}
	fill := func(part string, size int) string { return strings.Repeat(part, size/len(part)) }
	for name, row := range map[string]struct {
		source koreauth.Source
		r      func() *http.Request
		limit  int64
	}{
		"a Content-Type of many parameters":       {source.Form("t"), func() *http.Request { return postRequest(formMedia+fill("; a=b", header), "") }, 4 << 10},
		"a Content-Type of many parameters, JSON": {source.JSON("t"), func() *http.Request { return postRequest(fill("a/json;x*0*=y", header), "") }, 4 << 10},
		"a Content-Type of one long word":         {source.JSON("t"), func() *http.Request { return postRequest(fill("A", header)+"+json", "") }, 4 << 10},
		"a query of many parameters":              {source.Query("t"), func() *http.Request { return getRequest("/?" + fill("a=b&", header)) }, 4 << 10},
		"a query of escapes":                      {source.Query("t"), func() *http.Request { return getRequest("/?" + fill("%61=%62&", header)) }, 5 * header},
		"a form of many fields":                   {source.Form("t"), func() *http.Request { return postRequest(formMedia, fill("a=b&", 64<<10)) }, 512 << 10},
		"JSON of many members":                    {source.JSON("t"), func() *http.Request { return postRequest(jsonMedia, "{"+fill(`"a":1,`, 60<<10)+`"a":1}`) }, 512 << 10},
		"JSON of many escaped members":            {source.JSON("t"), func() *http.Request { return postRequest(jsonMedia, "{"+fill(`"\u0074x":"",`, 60<<10)+`"a":1}`) }, 3 << 20},
		"JSON of nested arrays":                   {source.JSON("t"), func() *http.Request { return postRequest(jsonMedia, fill("[", 9<<10)+fill("]", 9<<10)) }, 512 << 10},
		"JSON of many small objects":              {source.JSON("t"), func() *http.Request { return postRequest(jsonMedia, `{"x":[`+fill(`{},`, 60<<10)+`{}]}`) }, 512 << 10},
	} {
		assert.LessOrEqual(t, cost(row.r, row.source), row.limit, name)
	}
}
