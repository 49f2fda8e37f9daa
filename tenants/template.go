package tenants

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/koreauth/koreauth/internal/loopback"
)

const (
	placeholder = "{tenant}"
	maxName     = 63 // characters of the name of a tenant
)

// template is a parsed Set.Match.
type template struct{ before, after string }

// parseTemplate parses a template. The texts of errors follow its name.
func parseTemplate(text string) (*template, error) {
	before, after, found := strings.Cut(text, placeholder)
	u, err := url.Parse(before + "tenant" + after)
	switch {
	case text == "":
		return nil, errors.New("is empty: set it to the issuers that are accepted, such as https://id.example.com/realms/{tenant}")
	case !found:
		return nil, errors.New("has no {tenant}: write it where the name of the tenant is")
	case strings.ContainsAny(before+after, "{}"):
		return nil, errors.New("has more than one placeholder, or another than {tenant}")
	case err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("is not an absolute https URL with one {tenant}")
	case strings.ContainsAny(text, "?#%\\ "):
		return nil, errors.New("has a query, a fragment, an escape or a space, which an issuer must not have (RFC 8414 §2)")
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return nil, errors.New("is http: use https")
	case u.String() != before+"tenant"+after || strings.ToLower(u.Scheme+u.Host) != u.Scheme+u.Host || strings.Trim(u.Host, hostCharacters) != "":
		return nil, errors.New("is not in its normal form: write scheme and host in lower case, and other names than ASCII as xn--")
	case !isPort(u):
		return nil, errors.New("has a port that no issuer has: leave out that of the scheme, and use 1 to 65535")
	case slices.ContainsFunc(strings.Split(u.Path, "/")[1:], func(segment string) bool { return segment == "." || segment == ".." }):
		return nil, errors.New("has a . or .. in its path: remove it")
	}
	t := &template{before: before, after: after}
	_, authority, _ := strings.Cut(before, "://")
	inPath := strings.Contains(authority, "/")
	begins := strings.HasSuffix(before, "/") || !inPath && strings.HasSuffix(before, ".")
	ends := after == "" || after[0] == '/' || !inPath && after[0] == '.'
	switch {
	case !begins || !ends:
		return nil, errors.New("has a {tenant} that is a part of a name: it must be a whole label of the host, or a whole segment of the path")
	case !inPath && !isDomain(after):
		return nil, errors.New("has a {tenant} in its host that is not followed by a domain of yours, such as .id.example.com")
	}
	return t, nil
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyz0123456789-.:[]"

// isPort reports whether a URL has no port, or one that its scheme does not imply.
func isPort(u *url.URL) bool {
	port, err := strconv.Atoi(u.Port())
	implied := u.Scheme == "https" && port == 443 || u.Scheme == "http" && port == 80
	return u.Port() == "" && !strings.HasSuffix(u.Host, ":") || err == nil && port >= 1 && port <= 65535 && !implied && u.Port()[0] != '0'
}

// isDomain reports whether the text begins with a dot and a domain of at least two labels,
// whose last one is not a number. It does not know the suffixes under which anybody can
// have a domain, such as co.uk.
func isDomain(text string) bool {
	host, _, _ := strings.Cut(text, "/")
	host, _, _ = strings.Cut(host, ":")
	labels := strings.Split(strings.TrimPrefix(host, "."), ".")
	last := labels[len(labels)-1]
	return strings.HasPrefix(host, ".") && len(labels) >= 2 && !slices.Contains(labels, "") && strings.Trim(last, "0123456789") != ""
}

// matches reports whether an issuer is one of the template. The name of a tenant has
// lower-case letters, digits and hyphens only, so that it ends where the template says.
func (t *template) matches(issuer string) bool {
	rest, ok := strings.CutPrefix(issuer, t.before)
	name, ok2 := strings.CutSuffix(rest, t.after)
	return ok && ok2 && name != "" && len(name) <= maxName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
