// Package metadata serves the protected resource metadata of an API (RFC 9728), from
// which clients learn where to get a token:
//
//	api := metadata.Resource{
//		Resource:             "https://api.example.com/v1",
//		AuthorizationServers: []string{"https://keycloak.example.com/realms/KORE-CIDP"},
//	}
//	if err := api.Faults(); err != nil {
//		log.Fatal(err)
//	}
//	mux.Handle(api.Pattern(), api) // not guarded: clients have no token yet
//	guard := koreauth.New(validator, &koreauth.Options{ResourceMetadata: api.URL()})
package metadata

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/loopback"
)

// Resource is the metadata of an API, and the handler that serves it. Call Faults when
// the program starts.
type Resource struct {
	// Resource is the resource identifier: the https URL that clients use for the API,
	// without a fragment. It is required. It is never taken from a request, whose Host
	// the client chooses. It should be one of the audiences that the API accepts
	// (RFC 8707).
	Resource string
	// AuthorizationServers are the issuers whose tokens the API accepts. If it is empty,
	// the document does not name any.
	AuthorizationServers []string
	// Scopes are the scopes that clients may need. If Scopes is empty, the document does
	// not name any.
	Scopes []string
	// BearerMethods are the places where the API reads a token: "header", "body" and
	// "query" (RFC 6750 §2). If it is empty, the document does not name any.
	BearerMethods []string
	// CertificateBound says that the API accepts only tokens that are bound to the
	// certificate of the client (RFC 8705 §3), as with Required of mtls.Sender.
	CertificateBound bool
	// Documentation is the URL of a page for developers. If it is empty, the document
	// does not name any.
	Documentation string
}

const wellKnown = "/.well-known/oauth-protected-resource"

// URL returns the URL of the document, whose path begins with
// /.well-known/oauth-protected-resource and goes on with that of
// Resource (RFC 9728 §3.1). It returns "" if Resource is no URL. Set it as
// ResourceMetadata of the guard's Options.
func (m Resource) URL() string {
	u, err := url.Parse(m.Resource)
	if err != nil || u.Host == "" {
		return ""
	}
	place := u.Scheme + "://" + u.Host + place(u)
	if u.RawQuery != "" {
		place += "?" + u.RawQuery
	}
	return place
}

// Pattern returns the pattern of the document's path for [http.ServeMux]. It returns ""
// if Resource is no URL.
func (m Resource) Pattern() string {
	u, err := url.Parse(m.Resource)
	if err != nil || u.Host == "" {
		return ""
	}
	pattern := place(u)
	if strings.HasSuffix(pattern, "/") {
		pattern += "{$}" // or it would match all paths below
	}
	return pattern
}

// place returns the path of the document. The slash after the host, if it is the whole
// path, is removed (RFC 9728 §3.1).
func place(u *url.URL) string {
	if u.EscapedPath() == "/" {
		return wellKnown
	}
	return wellKnown + u.EscapedPath()
}

// document is what is served (RFC 9728 §2). What is empty is omitted (§3.2).
type document struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	Scopes               []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported,omitempty"`
	CertificateBound     bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	Documentation        string   `json:"resource_documentation,omitempty"`
}

// ServeHTTP serves the document for GET and HEAD, to pages of any origin, and answers
// preflight requests. It answers 500 without the document if there are Faults.
func (m Resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		header.Set("Allow", "GET, HEAD, OPTIONS")
		header.Set("Access-Control-Allow-Methods", "GET, HEAD")
		header.Set("Access-Control-Allow-Headers", "*")
		header.Set("Access-Control-Max-Age", "3600")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		header.Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	body, err := m.encode()
	if err != nil {
		http.Error(w, "the metadata of this API are not configured correctly", http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(body)
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "max-age=3600")
	header.Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// encode returns the document as JSON.
func (m Resource) encode() ([]byte, error) {
	if err := m.Faults(); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(document(m))
	return body.Bytes(), err
}

// Faults returns an error that names all fields with a fault and the cure, or nil. It
// judges the fields alone, and sends no request.
func (m Resource) Faults() error {
	var faults []error
	add := func(field, fault string) {
		if fault != "" {
			faults = append(faults, fmt.Errorf("metadata: %s %s", field, fault))
		}
	}
	add("Resource", resourceFault(m.Resource))
	for n, server := range m.AuthorizationServers {
		fault := urlFault(server)
		if fault == "" && strings.ContainsAny(server, "?#") {
			fault = "has a query or a fragment, which an issuer must not have (RFC 8414 §2)"
		}
		add(fmt.Sprintf("AuthorizationServers[%d]", n), fault)
	}
	for n, method := range m.BearerMethods {
		if method != "header" && method != "body" && method != "query" {
			add(fmt.Sprintf("BearerMethods[%d]", n), fmt.Sprintf("is %.32q: use header, body or query (RFC 9728 §2)", method))
		}
	}
	for n, scope := range m.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
			add(fmt.Sprintf("Scopes[%d]", n), fmt.Sprintf("is %.32q: list each scope by itself, without spaces, quotes and backslashes (RFC 6749 §3.3)", scope))
		}
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"AuthorizationServers", m.AuthorizationServers}, {"BearerMethods", m.BearerMethods}, {"Scopes", m.Scopes}} {
		if sorted := slices.Sorted(slices.Values(list.values)); len(slices.Compact(sorted)) < len(list.values) {
			add(list.field, "has a value twice: remove one")
		}
	}
	if m.Documentation != "" {
		add("Documentation", urlFault(m.Documentation))
	}
	return errors.Join(faults...)
}

// resourceFault says what is wrong with a resource identifier, or "".
func resourceFault(text string) string {
	if fault := urlFault(text); fault != "" {
		return fault
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.Contains(text, "#"):
		return "has a fragment, which a resource identifier must not have: remove what begins with # (RFC 9728 §1.2)"
	case u.Path != "" && path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") && u.Path != "/":
		return `has a path with "//", "." or "..": a ServeMux would redirect requests for the metadata`
	}
	return ""
}

// urlFault says what is wrong with a URL, or "".
func urlFault(text string) string {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return "is empty: set it to an https URL, such as https://api.example.com"
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "is not an absolute https URL, such as https://api.example.com"
	case strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }):
		return "has a character that a URL cannot have: escape it with % (RFC 3986 §2)"
	case u.User != nil:
		return "has a user in it, which everybody could read: remove it"
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return "is http: use https"
	}
	return ""
}
