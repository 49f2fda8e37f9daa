package tenants

import (
	"errors"
	"net/url"
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
		return nil, errors.New("has more than one placeholder, or another one than {tenant}")
	case err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("is not an absolute https URL with one {tenant}")
	case strings.ContainsAny(text, "?#%\\ "):
		return nil, errors.New("has a query, a fragment, an escape or a space, which an issuer must not have (RFC 8414 §2)")
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return nil, errors.New("is http: use https")
	case !strings.HasSuffix(before, "/") && !strings.HasSuffix(before, ".") || after != "" && !strings.ContainsAny(after[:1], "/."):
		return nil, errors.New("has a {tenant} that is a part of a name: it must be a whole label of the host, or a whole segment of the path")
	}
	t := &template{before: before, after: after}
	_, authority, _ := strings.Cut(before, "://")
	if strings.Contains(authority, "/") {
		return t, nil
	}
	// The tenants of one domain, and not all domains of the world.
	domain, _, _ := strings.Cut(after, "/")
	if strings.Count(domain, ".") < 2 {
		return nil, errors.New("has a {tenant} in its host that is not followed by a domain of yours, such as .id.example.com")
	}
	return t, nil
}

// matches reports whether an issuer is one of the template. The name of a tenant has
// lower-case letters, digits and hyphens only, so that it ends where the template says.
func (t *template) matches(issuer string) bool {
	rest, ok := strings.CutPrefix(issuer, t.before)
	name, ok2 := strings.CutSuffix(rest, t.after)
	return ok && ok2 && name != "" && len(name) <= maxName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
