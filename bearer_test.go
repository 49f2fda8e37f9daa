package koreauth_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/source"
)

// findToken returns the token that the sources find in a request, or the class
// of the error if they do not find one.
func findToken(r *http.Request, sources ...koreauth.Source) (token string, err error) {
	validator := &tokenTable{}
	_, err = koreauth.New(validator, &koreauth.Options{Sources: sources}).Authenticate(r)
	if len(validator.validated) == 1 && errors.Is(err, koreauth.ErrSignature) {
		return validator.validated[0], nil // The empty table accepts no token.
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

// authorizationRows are Authorization header lines, and the token or the class of
// the error that each of them yields.
var authorizationRows = []struct {
	name  string
	lines []string
	token string
	err   error
}{
	{"no line", nil, "", koreauth.ErrNoToken},
	{"an empty line", []string{""}, "", koreauth.ErrNoToken},
	{"a line of white space", []string{"  \t "}, "", koreauth.ErrNoToken},
	{"a token", []string{"Bearer abc"}, "abc", nil},
	{"every character that a b64token may have", []string{"Bearer azAZ09-._~+/=="}, "azAZ09-._~+/==", nil},
	{"the scheme is case-insensitive: lower", []string{"bearer abc"}, "abc", nil},
	{"the scheme is case-insensitive: upper", []string{"BEARER abc"}, "abc", nil},
	{"the scheme is case-insensitive: mixed", []string{"bEaReR abc"}, "abc", nil},
	{"several spaces after the scheme", []string{"Bearer    abc"}, "abc", nil},
	{"white space around the value is not part of it", []string{" \tBearer abc\t "}, "abc", nil},
	{"white space after the token is not part of it", []string{"Bearer abc \t"}, "abc", nil},
	{"the token is case-sensitive", []string{"Bearer AbC"}, "AbC", nil},
	{"another scheme: Basic", []string{"Basic dTpw"}, "", koreauth.ErrNoToken},
	{"another scheme: DPoP", []string{"DPoP abc"}, "", koreauth.ErrNoToken},
	{"another scheme: Digest, with parameters", []string{`Digest username="Bearer abc"`}, "", koreauth.ErrNoToken},
	{"another scheme that begins with Bearer", []string{"Bearerx abc"}, "", koreauth.ErrNoToken},
	{"another scheme that ends with Bearer", []string{"x-Bearer abc"}, "", koreauth.ErrNoToken},
	{"a token without a scheme", []string{"abc"}, "", koreauth.ErrNoToken},
	{"a JWT without a scheme", []string{"eyJhbGciOiJSUzI1NiJ9.e30.abc"}, "", koreauth.ErrNoToken},
	{"no space after the scheme", []string{"Bearerabc"}, "", koreauth.ErrNoToken},
	{"a colon after the scheme", []string{"Bearer: abc"}, "", koreauth.ErrNoToken},
	{"an equals sign after the scheme", []string{"Bearer=abc"}, "", koreauth.ErrNoToken},
	{"a comma before the scheme", []string{", Bearer abc"}, "", koreauth.ErrNoToken},
	{"a quoted scheme", []string{`"Bearer" abc`}, "", koreauth.ErrNoToken},
	{"another credential before it", []string{"Basic dTpw, Bearer abc"}, "", koreauth.ErrNoToken},
	{"a no-break space after the scheme", []string{"Bearer\u00a0abc"}, "", koreauth.ErrNoToken},
	{"a full-width scheme", []string{"Ｂｅａｒｅｒ abc"}, "", koreauth.ErrNoToken},
	{"a byte order mark before the scheme", []string{"\ufeffBearer abc"}, "", koreauth.ErrNoToken},
	{"only the scheme", []string{"Bearer"}, "", koreauth.ErrBadRequest},
	{"the scheme and spaces", []string{"Bearer   "}, "", koreauth.ErrBadRequest},
	{"only the scheme, in lower case", []string{"bearer"}, "", koreauth.ErrBadRequest},
	{"a tab after the scheme", []string{"Bearer\tabc"}, "", koreauth.ErrBadRequest},
	{"a tab after a space", []string{"Bearer \tabc"}, "", koreauth.ErrBadRequest},
	{"two words", []string{"Bearer abc def"}, "", koreauth.ErrBadRequest},
	{"a tab between two words", []string{"Bearer abc\tdef"}, "", koreauth.ErrBadRequest},
	{"the scheme twice", []string{"Bearer Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two credentials with a comma and a space between", []string{"Bearer abc, Bearer def"}, "", koreauth.ErrBadRequest},
	{"two tokens with a comma between", []string{"Bearer abc,def"}, "", koreauth.ErrBadRequest},
	{"a comma after the token", []string{"Bearer abc,"}, "", koreauth.ErrBadRequest},
	{"another credential after it", []string{"Bearer abc, Basic dTpw"}, "", koreauth.ErrBadRequest},
	{"a quoted token", []string{`Bearer "abc"`}, "", koreauth.ErrBadRequest},
	{"a parameter in place of the token", []string{`Bearer token="abc"`}, "", koreauth.ErrBadRequest},
	{"only padding", []string{"Bearer =="}, "", koreauth.ErrBadRequest},
	{"padding inside the token", []string{"Bearer a=b"}, "", koreauth.ErrBadRequest},
	{"padding before the token", []string{"Bearer =a"}, "", koreauth.ErrBadRequest},
	{"a letter outside ASCII", []string{"Bearer abcé"}, "", koreauth.ErrBadRequest},
	{"a byte outside ASCII", []string{"Bearer abc\xff"}, "", koreauth.ErrBadRequest},
	{"a NUL byte", []string{"Bearer abc\x00"}, "", koreauth.ErrBadRequest},
	{"a line break", []string{"Bearer abc\r\nX: y"}, "", koreauth.ErrBadRequest},
	{"a percent escape", []string{"Bearer abc%20"}, "", koreauth.ErrBadRequest},
	{"a colon, an at sign, a semicolon", []string{"Bearer a:b@c;d"}, "", koreauth.ErrBadRequest},
	{"two lines", []string{"Bearer abc", "Bearer def"}, "", koreauth.ErrBadRequest},
	{"two lines with the same token", []string{"Bearer abc", "Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two lines, the first with another scheme", []string{"Basic dTpw", "Bearer abc"}, "", koreauth.ErrBadRequest},
	{"two lines, the second with another scheme", []string{"Bearer abc", "Basic dTpw"}, "", koreauth.ErrBadRequest},
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

			token, err = findToken(r, source.Query("t"), koreauth.Header("authorization"))
			assert.Equal(t, test.token, token, "Header among other sources")
			assert.Equal(t, test.err, err, "Header among other sources")
		})
	}
}

// Each byte value, at each position of a token, is either a character of a
// b64token (RFC 6750 §2.1) or makes the request a bad request.
func TestBearer_EveryByteOfToken(t *testing.T) {
	for c := range 256 {
		for at := range 19 {
			token := []byte("abcdefghABCDEFGH019")
			token[at] = byte(c)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Authorization"] = []string{"Bearer " + string(token)}
			got, err := findToken(r)
			valid := strings.IndexByte(b64tokenChars, byte(c)) >= 0 || c == '=' && at == 18
			trimmed := at == 0 && c == ' ' || at == 18 && (c == ' ' || c == '\t') // space around the token
			if trimmed || valid == (err == nil) && (!valid || got == string(token)) {
				continue
			}
			t.Errorf("byte %q at position %d: got token %q and error %v", byte(c), at, got, err)
		}
	}
}

// FuzzBearerHeader checks that a header line yields either a token or an error,
// and that the token is a b64token which the line contains.
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
		rejected := errors.Is(err, koreauth.ErrNoToken) || errors.Is(err, koreauth.ErrBadRequest)
		if rejected == (len(validator.validated) > 0) || len(validator.validated) > 1 {
			t.Fatalf("line %q: got tokens %q and error %v", line, validator.validated, err)
		}
		if rejected {
			return
		}
		token := validator.validated[0]
		if strings.Trim(token, "=") == "" || strings.Trim(strings.TrimRight(token, "="), b64tokenChars) != "" {
			t.Errorf("line %q: got token %q, which is not a b64token", line, token)
		}
		scheme, rest, _ := strings.Cut(strings.Trim(line, " \t"), " ")
		if !strings.EqualFold(scheme, "Bearer") || strings.TrimLeft(rest, " ") != token {
			t.Errorf("line %q: got token %q", line, token)
		}
	})
}

func TestSource_ErrorKeepsItsClass(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"an error without a class is a bad request", io.EOF, koreauth.ErrBadRequest},
		{"an error with a class keeps it", koreauth.ErrUnavailable, koreauth.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := func(*http.Request) ([]string, error) { return []string{"abc"}, test.err }
			validator := &tokenTable{}
			_, err := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{source}}).Authenticate(get("/"))
			assert.ErrorIs(t, err, test.want)
			assert.ErrorIs(t, err, test.err)
			assert.Empty(t, validator.validated, "a token returned with an error is not validated")
		})
	}
	t.Run("a Source that returns ErrNoToken does not hide the token of another", func(t *testing.T) {
		none := func(*http.Request) ([]string, error) { return nil, koreauth.ErrNoToken }
		token, err := findToken(get("/?t=abc"), none, source.Query("t"))
		assert.Equal(t, "abc", token)
		assert.NoError(t, err)
	})
	t.Run("a Source that returns ErrNoToken does not hide the invalid token of another", func(t *testing.T) {
		none := func(*http.Request) ([]string, error) { return nil, koreauth.ErrNoToken }
		guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{none, source.Query("t")}})
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
		{"present, with the name in any case", get("/", "X-TOKEN", "abc"), "abc", nil},
		{"absent", get("/"), "", none},
		{"empty", get("/", "X-Token", ""), "", none},
		{"the Authorization header is not read", get("/", "Authorization", "Bearer abc"), "", none},
		{"with the scheme Bearer", get("/", "X-Token", "Bearer abc"), "abc", nil},
		{"with the scheme in lower case", get("/", "X-Token", "bearer abc"), "abc", nil},
		{"with the scheme in upper case and several spaces", get("/", "X-Token", "BEARER   abc"), "abc", nil},
		{"with the scheme and white space around it", get("/", "X-Token", " Bearer abc\t"), "abc", nil},
		{"the scheme alone", get("/", "X-Token", "Bearer"), "", bad},
		{"the scheme and spaces", get("/", "X-Token", "Bearer  "), "", bad},
		{"the scheme twice", get("/", "X-Token", "Bearer Bearer abc"), "", bad},
		{"the scheme and two words", get("/", "X-Token", "Bearer abc def"), "", bad},
		{"a tab after the scheme", get("/", "X-Token", "Bearer\tabc"), "", bad},
		{"a token that begins like the scheme", get("/", "X-Token", "Bearerabc"), "Bearerabc", nil},
		{"another scheme", get("/", "X-Token", "Basic abc"), "", bad},
		{"twice, with and without the scheme", get("/", "X-Token", "Bearer abc", "X-Token", "abc"), "", bad},
		{"twice", get("/", "X-Token", "abc", "X-Token", "abc"), "", bad},
		{"twice, once empty", get("/", "X-Token", "", "X-Token", "abc"), "", bad},
		{"two values in one line", get("/", "X-Token", "abc, def"), "", bad},
		{"not a b64token", get("/", "X-Token", `"abc"`), "", bad},
	})
}

func TestSource_Custom(t *testing.T) {
	none, bad := koreauth.ErrNoToken, koreauth.ErrBadRequest
	source := func(r *http.Request) ([]string, error) { return r.Header["X"], r.Context().Err() }
	runSourceRows(t, source, []sourceRow{
		{"one token", get("/", "X", "abc"), "abc", nil},
		{"no token", get("/"), "", none},
		{"an empty token", get("/", "X", ""), "", none},
		{"two tokens", get("/", "X", "abc", "X", "def"), "", bad},
		{"not a b64token", get("/", "X", "a\nb"), "", bad},
	})
}

func TestHeader_PanicsOnMisuse(t *testing.T) {
	runMisuse(t, []misuse{
		{"no name", func() { koreauth.Header("") }},
		{"an invalid name", func() { koreauth.Header("X Token") }},
	})
}

// Bearer without a token is not a place that cannot be read.
func TestHeader_BearerAloneIsNotIgnored(t *testing.T) {
	guard := koreauth.New(newTokenTable(), &koreauth.Options{Sources: []koreauth.Source{koreauth.Header("X-Token"), koreauth.Header("Authorization")}})
	r := bearerRequest("a")
	_, err := guard.Authenticate(r)
	require.NoError(t, err)
	r.Header.Set("X-Token", "Bearer")
	_, err = guard.Authenticate(r)
	assert.ErrorIs(t, err, koreauth.ErrBadRequest)
}
