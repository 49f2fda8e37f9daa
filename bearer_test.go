package koreauth_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth"
)

// found is the token that the sources find in a request, and the class of
// refusal where they do not.
func findToken(r *http.Request, sources ...koreauth.Source) (token string, err error) {
	validator := &tokenTable{}
	_, err = koreauth.New(validator, &koreauth.Options{Sources: sources}).Authenticate(r)
	if len(validator.validated) == 1 && errors.Is(err, koreauth.ErrSignature) {
		return validator.validated[0], nil // The book knows no token at all.
	}
	if len(validator.validated) > 0 {
		return strings.Join(validator.validated, " AND "), err
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

func TestBearer_AuthorizationHeader(t *testing.T) {
	for _, test := range authorizationRows {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Authorization"] = test.lines
			token, err := findToken(r)
			assert.Equal(t, test.token, token)
			assert.Equal(t, test.err, err)

			token, err = findToken(r, koreauth.Query("t"), koreauth.Header("authorization"))
			assert.Equal(t, test.token, token, "as one Source of several")
			assert.Equal(t, test.err, err, "as one Source of several")
		})
	}
}

// Each byte, at each place of a token, is in the set of RFC 6750 §2.1 or makes
// it a bad request.
func TestBearer_EveryByteOfToken(t *testing.T) {
	for c := range 256 {
		for at := range 19 {
			token := []byte("abcdefghABCDEFGH019")
			token[at] = byte(c)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Authorization"] = []string{"Bearer " + string(token)}
			got, err := findToken(r)
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
		validator := &tokenTable{}
		_, err := koreauth.New(validator, nil).Authenticate(r)
		refused := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if refused == (len(validator.validated) > 0) || len(validator.validated) > 1 {
			t.Fatalf("the line %q: tokens %q and the error %v", line, validator.validated, err)
		}
		if refused {
			return
		}
		token := validator.validated[0]
		if strings.Trim(token, "=") == "" || strings.Trim(strings.TrimRight(token, "="), b64tokenChars) != "" {
			t.Errorf("the line %q yields %q, which is no b64token", line, token)
		}
		scheme, rest, _ := strings.Cut(strings.Trim(line, " \t"), " ")
		if !strings.EqualFold(scheme, "Bearer") || strings.TrimLeft(rest, " ") != token {
			t.Errorf("the line %q yields %q", line, token)
		}
	})
}

func TestSource_ErrorKeepsItsClass(t *testing.T) {
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
			validator := &tokenTable{}
			_, err := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{source}}).Authenticate(get("/"))
			assert.ErrorIs(t, err, test.want)
			assert.ErrorIs(t, err, test.err)
			assert.Empty(t, validator.validated, "a token beside an error is not looked at")
		})
	}
	t.Run("a Source that says ErrNoToken does not hide another's bad token", func(t *testing.T) {
		source := func(*http.Request) ([]string, error) { return nil, koreauth.ErrNoToken }
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{source, koreauth.Query("t")}})
		status, _ := serve(guard.WrapOptional(whoami), get("/?t=forged"))
		assert.NotEqual(t, http.StatusOK, status)
	})
}

// sourceRow is a request, and the token or the error that a Source finds in it.
type sourceRow struct {
	name  string
	r     *http.Request
	token string
	err   error
}

func runSourceRows(t *testing.T, source koreauth.Source, rows []sourceRow) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			token, err := findToken(row.r, source)
			assert.Equal(t, row.token, token)
			assert.Equal(t, row.err, err)
		})
	}
}

func TestHeader_CustomName(t *testing.T) {
	none, bad := koreauth.ErrNoToken, koreauth.ErrBadRequest
	runSourceRows(t, koreauth.Header("x-token"), []sourceRow{
		{"stands alone, in any spelling of the name", get("/", "X-TOKEN", "abc"), "abc", nil},
		{"is not there", get("/"), "", none},
		{"is empty", get("/", "X-Token", ""), "", none},
		{"Authorization is not looked at", get("/", "Authorization", "Bearer abc"), "", none},
		{"has a scheme", get("/", "X-Token", "Bearer abc"), "", bad},
		{"comes twice", get("/", "X-Token", "abc", "X-Token", "abc"), "", bad},
		{"comes twice, once empty", get("/", "X-Token", "", "X-Token", "abc"), "", bad},
		{"is joined", get("/", "X-Token", "abc, def"), "", bad},
		{"is no b64token", get("/", "X-Token", `"abc"`), "", bad},
	})
}

func TestSource_Custom(t *testing.T) {
	none, bad := koreauth.ErrNoToken, koreauth.ErrBadRequest
	source := func(r *http.Request) ([]string, error) { return r.Header["X"], r.Context().Err() }
	runSourceRows(t, source, []sourceRow{
		{"finds one", get("/", "X", "abc"), "abc", nil},
		{"finds none", get("/"), "", none},
		{"finds an empty one", get("/", "X", ""), "", none},
		{"finds two", get("/", "X", "abc", "X", "def"), "", bad},
		{"finds what is none", get("/", "X", "a\nb"), "", bad},
	})
}

func TestHeader_PanicsOnMisuse(t *testing.T) {
	runMisuse(t, []misuse{
		{"no name", func() { koreauth.Header("") }},
		{"an invalid name", func() { koreauth.Header("X Token") }},
	})
}
