// Package source finds access tokens in places other than the Authorization
// header, for clients that cannot set it:
//
//	guard := koreauth.New(validator, &koreauth.Options{Sources: []koreauth.Source{
//		koreauth.Header("Authorization"),
//		source.Form("access_token"),
//	}})
//
// [koreauth.Options].Sources replaces the default, so list the Authorization
// header too if it should be read. Only the listed places are read, and a request
// with tokens in two of them is rejected. So is a request with a place that cannot be
// read, because a second token may be hidden there, unless the token is in a header.
//
// Each of these places exposes the token more than the Authorization header does
// (RFC 6750 §5.3). The functions say how.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/koreauth/koreauth"
)

// maxBody is the maximum size of a body that is read for a token.
const maxBody = 64 << 10

// Form finds the token in a field of a form body (RFC 6750 §2.2). It reads only
// bodies of type application/x-www-form-urlencoded, and never those of GET or HEAD
// requests. A body over 64 KiB cannot be read. The body is restored for the handler.
// If an outer handler has called [http.Request.ParseForm], its result is used.
//
// Logs of bodies then contain the token. Set [http.Server].ReadTimeout, because a
// slow sender can otherwise keep the request open. Form panics if name is empty.
func Form(name string) koreauth.Source {
	requireName("Form", name)
	return func(r *http.Request) ([]string, error) {
		if !hasBody(r, func(t string) bool { return t == "application/x-www-form-urlencoded" }) {
			return nil, nil
		}
		// http.Request.ParseForm has read the body already. It does so with these
		// methods only.
		if r.PostForm != nil && (r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch) {
			if size(r.PostForm) > maxBody || r.ContentLength > maxBody {
				return nil, errTooLarge
			}
			return r.PostForm[name], nil
		}
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		return formValues(string(body), name)
	}
}

// JSON finds the token in a member of a body that is a JSON object. It reads only
// bodies of type application/json or of a type that ends in +json, and never those
// of GET or HEAD requests. A body over 64 KiB cannot be read. The body is restored
// for the handler.
//
// Logs of bodies then contain the token. Set [http.Server].ReadTimeout, because a
// slow sender can otherwise keep the request open. JSON panics if name is empty.
func JSON(name string) koreauth.Source {
	requireName("JSON", name)
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

// Query finds the token in a query parameter (RFC 6750 §2.3). A query with a ";" or
// with a "%" that is not an escape cannot be read.
//
// URLs, and the tokens in them, are kept in access logs, browser histories and
// Referer headers. Use Query only for clients that support nothing else. Query
// panics if name is empty.
func Query(name string) koreauth.Source {
	requireName("Query", name)
	return func(r *http.Request) ([]string, error) { return formValues(r.URL.RawQuery, name) }
}

// Path finds the token in a wildcard of a net/http pattern
// ([http.Request.PathValue]). It exposes the token as [Query] does, and also in
// metrics that are labeled with the path. Path panics if name is empty.
func Path(name string) koreauth.Source {
	requireName("Path", name)
	return func(r *http.Request) ([]string, error) { return []string{r.PathValue(name)}, nil }
}

// PathVars finds the token in a path variable of a router that has a function for
// them, such as mux.Vars of gorilla/mux. It exposes the token as [Path] does.
// PathVars panics if vars is nil or name is empty.
func PathVars(vars func(*http.Request) map[string]string, name string) koreauth.Source {
	requireName("PathVars", name)
	if vars == nil {
		panic("koreauth: source.PathVars needs the function of the router, such as mux.Vars")
	}
	return func(r *http.Request) ([]string, error) { return []string{vars(r)[name]}, nil }
}

// Cookie finds the token in a cookie. Browsers also send cookies with requests
// that other sites cause: add protection against those, such as
// [http.CrossOriginProtection]. Cookie panics if name is empty.
func Cookie(name string) koreauth.Source {
	requireName("Cookie", name)
	return func(r *http.Request) ([]string, error) {
		var values []string
		for _, cookie := range r.CookiesNamed(name) {
			values = append(values, cookie.Value)
		}
		return values, nil
	}
}

func requireName(function, name string) {
	if name == "" {
		panic("koreauth: source." + function + " needs a name")
	}
}

func badRequest(cause string) error { return fmt.Errorf("%w: %s", koreauth.ErrBadRequest, cause) }

// hasBody reports whether the request has a body of a matching type. GET and HEAD
// requests have none (RFC 6750 §2.2).
func hasBody(r *http.Request, matches func(mediaType string) bool) bool {
	if r.Body == nil || r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" {
		return false
	}
	// mime.ParseMediaType would take long for many parameters.
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return len(mediaType) <= maxMediaType && matches(strings.ToLower(strings.TrimSpace(mediaType)))
}

// maxMediaType is the maximum length of a media type (RFC 6838 §4.2).
const maxMediaType = 127 + len("/") + 127

var errTooLarge = badRequest("a body that may contain a token is larger than 64 KiB")

// size returns the number of bytes in a form.
func size(form url.Values) int {
	size := 0
	for name, values := range form {
		for _, value := range values {
			size += len(name) + len(value) + len("=&")
		}
	}
	return size
}

// readBody returns the body and restores it for the handler, also after an error.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	if ctx := r.Context(); err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", koreauth.ErrUnavailable, context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", koreauth.ErrBadRequest, err)
	}
	if len(body) > maxBody {
		return nil, errTooLarge
	}
	return body, nil
}

// formValues returns all values of a name. Text that cannot be parsed is an error, as
// in url.ParseQuery, because it might hide a second token.
func formValues(encoded, name string) ([]string, error) {
	var values []string
	for part := range strings.SplitSeq(encoded, "&") {
		escapedKey, escapedValue, _ := strings.Cut(part, "=")
		key, keyErr := url.QueryUnescape(escapedKey)
		value, valueErr := url.QueryUnescape(escapedValue)
		if keyErr != nil || valueErr != nil || strings.Contains(part, ";") {
			return nil, badRequest("the form or query cannot be parsed")
		}
		if key == name {
			values = append(values, value)
		}
	}
	return values, nil
}

// jsonMembers returns the values of all top-level members of that name. Duplicate
// members of other names are left to the handler.
func jsonMembers(body []byte, name string) ([]string, error) {
	if len(body) == 0 {
		return nil, nil
	}
	if !json.Valid(body) {
		return nil, badRequest("the body is not JSON")
	}
	var values []string
	var key []byte
	depth := 0
	// The text is valid, so brackets, strings and colons are enough to follow it: only
	// an object has a colon at depth 1.
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			key = stringAt(body[i:])
			i += len(key) - 1
		case ':':
			if depth != 1 || decoded(key) != name {
				continue
			}
			value := bytes.TrimLeft(body[i+1:], space)
			if value[0] != '"' {
				return nil, badRequest("the token in the body is not a string")
			}
			values = append(values, decoded(stringAt(value)))
		}
	}
	return values, nil
}

// space is the white space of JSON (RFC 8259 §2).
const space = " \t\r\n"

// stringAt returns the string at the beginning of valid JSON, with its quotes.
func stringAt(text []byte) []byte {
	end := 1
	for ; text[end] != '"'; end++ {
		if text[end] == '\\' {
			end++
		}
	}
	return text[:end+1]
}

// decoded returns the value of a valid JSON string.
func decoded(text []byte) (value string) {
	if !bytes.Contains(text, []byte(`\`)) { // Bytes that are no UTF-8 are in no token.
		return string(text[1 : len(text)-1])
	}
	_ = json.Unmarshal(text, &value)
	return value
}
