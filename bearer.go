package koreauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// maxBody is how much of a body a Source reads.
const maxBody = 64 << 10

// Source is a place of a request where a token may be. It returns what it finds
// there: nothing or an empty string, one token, or more, which is a bad request,
// as two tokens from two sources are (RFC 6750 §2). An error of no class is a
// bad request too.
//
// Tokens belong into the Authorization header: every other place is more likely
// to be logged, cached or passed on (RFC 6750 §5.3).
type Source func(*http.Request) ([]string, error)

// Header finds the token in a header of that name, where it stands alone.
// Header("Authorization") is the default of [Options].Sources, for use beside
// others: there the scheme must be Bearer. Proxies and logs that know to hide
// Authorization do not know a header of your own. It panics if name is no header
// name.
func Header(name string) Source {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isTokenChar(c) }) {
		panic("koreauth: Header needs the name of a header (RFC 9110 §5.1)")
	}
	name = http.CanonicalHeaderKey(name)
	if name == "Authorization" {
		return authorization
	}
	return func(r *http.Request) ([]string, error) { return r.Header[name], nil }
}

// Form finds the token in a field of a form body (RFC 6750 §2.2), which is read
// up to 64 KiB (more is a bad request) and put back. Only application/x-www-form-urlencoded is read, and
// never with GET or HEAD. Whatever logs bodies logs the token. Give the server a
// ReadTimeout, or a slow sender holds the request. It panics for an empty name.
func Form(name string) Source {
	needName("Form", name)
	return func(r *http.Request) ([]string, error) {
		if !hasBody(r, func(t string) bool { return t == "application/x-www-form-urlencoded" }) {
			return nil, nil
		}
		// Somebody has read the body already: http.Request.ParseForm, which does
		// so with these methods alone.
		if r.PostForm != nil && (r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch) {
			return r.PostForm[name], nil
		}
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		return formValues(string(body), name)
	}
}

// JSON finds the token in a member of a body that is a JSON object, which is
// read up to 64 KiB (more is a bad request) and put back. Only application/json and types that end in
// +json are read, and never with GET or HEAD. Whatever logs bodies logs the
// token. Give the server a ReadTimeout, or a slow sender holds the request. It
// panics for an empty name.
func JSON(name string) Source {
	needName("JSON", name)
	return func(r *http.Request) ([]string, error) {
		if !hasBody(r, func(t string) bool { return t == "application/json" || strings.HasSuffix(t, "+json") }) {
			return nil, nil
		}
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		return jsonMembers(body, name)
	}
}

// Query finds the token in a query parameter (RFC 6750 §2.3). URLs are kept in
// logs, histories and Referer headers, and the token with them: use it only for
// clients that can do nothing else. A query that cannot be parsed might hide a
// second token, so it is a bad request. It panics for an empty name.
func Query(name string) Source {
	needName("Query", name)
	return func(r *http.Request) ([]string, error) { return formValues(r.URL.RawQuery, name) }
}

// Path finds the token in a wildcard of a net/http pattern
// ([http.Request.PathValue]). It leaks as Query does, and into metrics that
// count by path as well. It panics for an empty name.
func Path(name string) Source {
	needName("Path", name)
	return func(r *http.Request) ([]string, error) { return []string{r.PathValue(name)}, nil }
}

// PathVars finds the token in a path variable of a router that has a function
// for them, such as gorilla's mux.Vars. It leaks as Path does. It panics for a
// nil function or an empty name.
func PathVars(vars func(*http.Request) map[string]string, name string) Source {
	needName("PathVars", name)
	if vars == nil {
		panic("koreauth: PathVars needs the router's function, such as mux.Vars")
	}
	return func(r *http.Request) ([]string, error) { return []string{vars(r)[name]}, nil }
}

// Cookie finds the token in a cookie. Browsers send cookies with requests that
// other sites make: guard against those too ([http.CrossOriginProtection]). It
// panics for an empty name.
func Cookie(name string) Source {
	needName("Cookie", name)
	return func(r *http.Request) ([]string, error) {
		var values []string
		for _, cookie := range r.CookiesNamed(name) {
			values = append(values, cookie.Value)
		}
		return values, nil
	}
}

func needName(maker, name string) {
	if name == "" {
		panic("koreauth: " + maker + " needs a name")
	}
}

func badRequest(cause string) error { return fmt.Errorf("%w: %s", ErrBadRequest, cause) }

// authorization reads the header of RFC 6750 §2.1.
func authorization(r *http.Request) ([]string, error) {
	token, err := bearerToken(r.Header)
	if token == "" {
		return nil, err
	}
	return []string{token}, nil
}

// bearerToken returns what stands behind the scheme of the Authorization header;
// nothing, and no error, if there is no such header, an empty one, or another
// scheme.
func bearerToken(header http.Header) (string, error) {
	lines := header["Authorization"]
	if len(lines) == 0 {
		return "", nil
	}
	if len(lines) > 1 {
		return "", badRequest("more than one Authorization header")
	}
	// RFC 9110 §11.4: scheme, one or more spaces, then what the scheme wants.
	if token, usual := strings.CutPrefix(lines[0], "Bearer "); usual && token != "" && token[0] > ' ' && token[len(token)-1] > ' ' {
		return token, nil
	}
	scheme, token := strings.Trim(lines[0], " \t"), ""
	if end := strings.IndexAny(scheme, " \t"); end >= 0 {
		scheme, token = scheme[:end], strings.TrimLeft(scheme[end:], " ")
	}
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1: in any case
		return "", nil
	}
	if token == "" {
		return "", badRequest("Authorization is Bearer with nothing")
	}
	return token, nil
}

// token returns the one token of the request, as far as can be told from where
// it stands, and whether it came from elsewhere than the Authorization header.
func (m *Middleware) token(r *http.Request) (token string, elsewhere bool, err error) {
	if m.sources == nil {
		token, err = bearerToken(r.Header)
	} else if token, err = oneToken(r, m.sources); err == nil {
		standard, _ := bearerToken(r.Header)
		elsewhere = token != standard
	}
	if err == nil && token == "" {
		err = errAbsent
	}
	return token, elsewhere, err
}

// errAbsent is ErrNoToken as only the request can cause it: a validator that
// says ErrNoToken of a token does not make it an absent one.
var errAbsent = fmt.Errorf("%w", ErrNoToken)

func oneToken(r *http.Request, sources []Source) (string, error) {
	var tokens []string
	for _, source := range sources {
		found, err := source(r)
		if classOf(err) == ErrNoToken {
			continue // Another source may have one.
		}
		if err != nil && classOf(err) == nil {
			err = fmt.Errorf("%w: %w", ErrBadRequest, err)
		}
		if err != nil {
			return "", err
		}
		if len(found) == 1 && found[0] == "" { // a field that was left empty
			continue
		}
		tokens = append(tokens, found...)
	}
	switch {
	case len(tokens) == 0:
		return "", nil
	case len(tokens) > 1:
		return "", badRequest("more than one token (RFC 6750 §2)")
	case tokens[0] == "":
		return "", badRequest("an empty token")
	}
	return tokens[0], nil
}

var errNotToken68 = badRequest("not one b64token (RFC 6750 §2.1)")

func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	if s == "" {
		return false
	}
	// Every request pays for every byte: eight at a time costs a third.
	var bad byte
	for ; len(s) >= 8; s = s[8:] {
		bad |= notToken68[s[0]] | notToken68[s[1]] | notToken68[s[2]] | notToken68[s[3]] |
			notToken68[s[4]] | notToken68[s[5]] | notToken68[s[6]] | notToken68[s[7]]
	}
	for i := range len(s) {
		bad |= notToken68[s[i]]
	}
	return bad == 0
}

// notToken68 is 1 for every byte that is not of token68 (RFC 9110 §11.2).
var notToken68 = func() (set [256]byte) {
	for i := range set {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/", byte(i)) < 0 {
			set[i] = 1
		}
	}
	return set
}()

// isTokenChar reports whether c is a tchar (RFC 9110 §5.6.2).
func isTokenChar(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

// hasBody reports whether the request has a body of the type. RFC 6750 §2.2:
// not where the method gives a body no meaning.
func hasBody(r *http.Request, is func(mediaType string) bool) bool {
	if r.Body == nil || r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" {
		return false
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter)) && is(mediaType)
}

// readBody returns the body, and puts it back for the handler.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if ctx := r.Context(); err != nil && ctx.Err() != nil {
		return nil, unavailable(context.Cause(ctx), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrBadRequest, err)
	}
	if len(body) > maxBody {
		return nil, badRequest("a body that may carry a token is larger than 64 KiB")
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), r.Body}
	return body, nil
}

// formValues finds the values of a name. What cannot be parsed might hide a
// second one, so it is refused.
func formValues(encoded, name string) ([]string, error) {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, badRequest("the form or query cannot be parsed")
	}
	return values[name], nil
}

// jsonMembers finds the values of all members of that name at the top of a JSON
// object; other members are the handler's business.
func jsonMembers(body []byte, name string) ([]string, error) {
	if len(body) == 0 {
		return nil, nil
	}
	if !json.Valid(body) {
		return nil, badRequest("the body is not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, nil // valid JSON, but no object
	}
	var values []string
	for decoder.More() {
		member, err := decoder.Token()
		if err != nil {
			return nil, badRequest("the body is not JSON")
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, badRequest("the body is not JSON")
		}
		if member != name {
			continue
		}
		var token string
		if value[0] != '"' || json.Unmarshal(value, &token) != nil {
			return nil, badRequest("the token in the body is not a string")
		}
		values = append(values, token)
	}
	return values, nil
}
