package koreauth

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/koreauth/koreauth/internal/token68"
)

// Source finds tokens in one place of a request. It returns no token or one
// empty string if there is none, and all of them if there are several: a request
// with more than one token is rejected with [ErrBadRequest] (RFC 6750 §2). An error
// of no class also counts as ErrBadRequest. It means that the place cannot be read,
// and is ignored if a header has a token.
//
// Tokens belong in the Authorization header. Every other place is more likely to
// be logged, cached or forwarded (RFC 6750 §5.3). Package source has a Source for
// each of the usual ones.
type Source func(*http.Request) ([]string, error)

// Header returns a [Source] for the header of that name, whose value is the token,
// alone or after the scheme Bearer. Header("Authorization") requires the scheme. It is
// the default; list it to read it in addition to other sources. Proxies and logs that
// redact Authorization usually do not redact other headers. Header panics if name is
// not a valid header name.
func Header(name string) Source {
	if !token68.IsName(name) {
		panic("koreauth: Header needs a valid header name (RFC 9110 §5.1)")
	}
	name = http.CanonicalHeaderKey(name)
	if name == "Authorization" {
		return authorization
	}
	return func(r *http.Request) ([]string, error) {
		lines := r.Header[name]
		if len(lines) != 1 {
			return lines, nil
		}
		token, isBearer := token68.CutBearer(lines[0])
		if isBearer && token == "" {
			return nil, fmt.Errorf("%w: %s is Bearer without a token", errHeader, name)
		} else if isBearer {
			return []string{token}, nil
		}
		return lines, nil
	}
}

// authorization is the Source for the header of RFC 6750 §2.1.
func authorization(r *http.Request) ([]string, error) {
	token, err := bearerToken(r.Header)
	return []string{token}, err
}

// bearerToken returns what follows the scheme Bearer in the Authorization header.
// It returns "" without an error if there is no such header, if it is empty, or
// if it has another scheme.
func bearerToken(header http.Header) (string, error) {
	lines := header["Authorization"]
	if len(lines) == 0 {
		return "", nil
	}
	if len(lines) > 1 {
		return "", fmt.Errorf("%w: more than one Authorization header", errHeader)
	}
	// RFC 9110 §11.4: the scheme, one or more spaces, then the credentials.
	if token, usual := strings.CutPrefix(lines[0], "Bearer "); usual && token != "" && token[0] > ' ' && token[len(token)-1] > ' ' {
		return token, nil
	}
	token, isBearer := token68.CutBearer(lines[0])
	if !isBearer {
		return "", nil
	}
	if token == "" {
		return "", fmt.Errorf("%w: Authorization is Bearer without a token", errHeader)
	}
	return token, nil
}

// oneToken returns the one token that the sources find, or "".
func oneToken(r *http.Request, sources []Source) (string, error) {
	var tokens []string
	var unreadable error // of the first place that cannot be read
	for _, source := range sources {
		found, err := source(r)
		switch class := classOf(err); {
		case class == nil && err != nil:
			unreadable = cmp.Or(unreadable, fmt.Errorf("%w: %w", ErrBadRequest, err))
		case class == ErrBadRequest && !errors.Is(err, errHeader):
			unreadable = cmp.Or(unreadable, err)
		case err != nil && class != ErrNoToken:
			return "", err
		case err == nil && (len(found) != 1 || found[0] != ""): // for example not an empty form field
			tokens = append(tokens, found...)
		}
	}
	switch {
	case unreadable != nil && (len(tokens) == 0 || !inHeader(r.Header, tokens[0])):
		return "", unreadable // A second token may be hidden there.
	case len(tokens) == 0:
		return "", nil
	case len(tokens) > 1:
		return "", badRequest("more than one token (RFC 6750 §2)")
	}
	return tokens[0], nil
}

// inHeader reports whether the token is the value of a header, alone or after Bearer.
func inHeader(header http.Header, token string) bool {
	lines := slices.Concat(slices.Collect(maps.Values(header))...)
	return slices.ContainsFunc(lines, func(line string) bool {
		bearer, isBearer := token68.CutBearer(line)
		return line == token || isBearer && bearer == token
	})
}

// errHeader is the ErrBadRequest of a Header, which is not ignored.
var errHeader = fmt.Errorf("%w", ErrBadRequest)

var errNotToken68 = badRequest("not one b64token (RFC 6750 §2.1)")

func badRequest(cause string) error { return fmt.Errorf("%w: %s", ErrBadRequest, cause) }
