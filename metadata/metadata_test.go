package metadata_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/metadata"
)

var full = metadata.Resource{
	Resource:             "https://api.example.com/v1",
	AuthorizationServers: []string{"https://keycloak.example.com/realms/KORE-CIDP"},
	Scopes:               []string{"email", "sims:read"},
	BearerMethods:        []string{"header"},
	CertificateBound:     true,
	Documentation:        "https://docs.example.com/?page=api&v=1",
}

func TestResource_Places(t *testing.T) {
	for resource, want := range map[string]struct{ url, pattern string }{
		"https://api.example.com":           {"https://api.example.com/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://api.example.com/":          {"https://api.example.com/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://api.example.com:8443":      {"https://api.example.com:8443/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"https://api.example.com/v1":        {"https://api.example.com/.well-known/oauth-protected-resource/v1", "/.well-known/oauth-protected-resource/v1"},
		"https://api.example.com/v1/":       {"https://api.example.com/.well-known/oauth-protected-resource/v1/", "/.well-known/oauth-protected-resource/v1/{$}"},
		"https://api.example.com/v1/a%2Fb":  {"https://api.example.com/.well-known/oauth-protected-resource/v1/a%2Fb", "/.well-known/oauth-protected-resource/v1/a%2Fb"},
		"https://api.example.com/a%7Bb%7D":  {"https://api.example.com/.well-known/oauth-protected-resource/a%7Bb%7D", "/.well-known/oauth-protected-resource/a%7Bb%7D"},
		"https://api.example.com/v1?tier=2": {"https://api.example.com/.well-known/oauth-protected-resource/v1?tier=2", "/.well-known/oauth-protected-resource/v1"},
		"http://127.0.0.1:8080/mcp":         {"http://127.0.0.1:8080/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp"},
		"http://[::1]:8080":                 {"http://[::1]:8080/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"},
		"":                                  {"", ""},
		"api.example.com":                   {"", ""},
		"https://a b":                       {"", ""},
	} {
		m := metadata.Resource{Resource: resource}
		assert.Equal(t, want.url, m.URL(), resource)
		assert.Equal(t, want.pattern, m.Pattern(), resource)
		if want.url == "" {
			assert.Error(t, m.Faults(), resource)
			continue
		}
		require.NoError(t, m.Faults(), resource)
		mux := http.NewServeMux()
		mux.Handle(m.Pattern(), m)
		for _, target := range []string{m.URL(), m.URL() + "/more"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
			assert.Equal(t, target == m.URL() || strings.Contains(target, "?"), w.Code == 200, target)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, m.URL(), nil))
		var document struct{ Resource string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
		assert.Equal(t, resource, document.Resource, "to the byte (RFC 9728 §3.3)")
	}
}

func TestResource_Document(t *testing.T) {
	for _, row := range []struct {
		m    metadata.Resource
		want string
	}{
		{full, `{"resource":"https://api.example.com/v1","authorization_servers":["https://keycloak.example.com/realms/KORE-CIDP"],"scopes_supported":["email","sims:read"],` +
			`"bearer_methods_supported":["header"],"tls_client_certificate_bound_access_tokens":true,"resource_documentation":"https://docs.example.com/?page=api&v=1"}` + "\n"},
		{metadata.Resource{Resource: "https://api.example.com", Scopes: []string{}}, `{"resource":"https://api.example.com"}` + "\n"},
	} {
		w := httptest.NewRecorder()
		row.m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, row.want, w.Body.String())
		assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
		assert.Equal(t, "max-age=3600", w.Header().Get("Cache-Control"))
		assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))

		etag := w.Header().Get("ETag")
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("If-None-Match", `"other", `+etag)
		w = httptest.NewRecorder()
		row.m.ServeHTTP(w, r)
		assert.Equal(t, 304, w.Code)
		assert.Empty(t, w.Body.String())
		changed := row.m
		changed.Documentation = "https://docs.example.com/new"
		w = httptest.NewRecorder()
		changed.ServeHTTP(w, r)
		assert.Equal(t, 200, w.Code, "the document has changed")

		w = httptest.NewRecorder()
		row.m.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", nil))
		assert.Equal(t, 200, w.Code)
		assert.Empty(t, w.Body.String())
		assert.Equal(t, fmt.Sprint(len(row.want)), w.Header().Get("Content-Length"))
	}
}

func TestResource_Methods(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodOptions, "/", nil)
	r.Header.Set("Access-Control-Request-Headers", "mcp-protocol-version")
	full.ServeHTTP(w, r)
	assert.Equal(t, 204, w.Code)
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Headers"))
	assert.Equal(t, "GET, HEAD", w.Header().Get("Access-Control-Allow-Methods"))
	for _, method := range []string{http.MethodPost, http.MethodDelete, "get", "X"} {
		w := httptest.NewRecorder()
		full.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		assert.Equal(t, 405, w.Code, method)
		assert.Equal(t, "GET, HEAD, OPTIONS", w.Header().Get("Allow"))
	}
}

func TestResource_IgnoresTheHostOfTheRequest(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "evil.example"
	r.Header.Set("X-Forwarded-Host", "evil.example")
	w := httptest.NewRecorder()
	full.ServeHTTP(w, r)
	assert.NotContains(t, w.Body.String(), "evil")
}

func TestResource_Faults(t *testing.T) {
	require.NoError(t, full.Faults())
	for name, row := range map[string]struct {
		change func(*metadata.Resource)
		says   []string
	}{
		"no resource":          {func(m *metadata.Resource) { m.Resource = "" }, []string{"Resource is empty"}},
		"a name":               {func(m *metadata.Resource) { m.Resource = "api-gw" }, []string{"Resource is not an absolute https URL"}},
		"http":                 {func(m *metadata.Resource) { m.Resource = "http://api.example.com" }, []string{"Resource is http: use https"}},
		"http, like loopback":  {func(m *metadata.Resource) { m.Resource = "http://127.evil.example" }, []string{"Resource is http"}},
		"a fragment":           {func(m *metadata.Resource) { m.Resource += "#a" }, []string{"Resource has a fragment"}},
		"an empty fragment":    {func(m *metadata.Resource) { m.Resource += "#" }, []string{"Resource has a fragment"}},
		"a user":               {func(m *metadata.Resource) { m.Resource = "https://u:p@api.example.com" }, []string{"Resource has a user"}},
		"no host":              {func(m *metadata.Resource) { m.Resource = "https:///v1" }, []string{"Resource is not an absolute"}},
		"a port alone":         {func(m *metadata.Resource) { m.Resource = "https://:443/v1" }, []string{"Resource is not an absolute"}},
		"a quote":              {func(m *metadata.Resource) { m.Resource = `https://api.example.com/"` }, []string{"Resource has a character"}},
		"a letter of no ASCII": {func(m *metadata.Resource) { m.Resource = "https://api.example.com/é" }, []string{"Resource has a character"}},
		"dots":                 {func(m *metadata.Resource) { m.Resource = "https://api.example.com/a/../b" }, []string{"Resource has a path with"}},
		"two slashes":          {func(m *metadata.Resource) { m.Resource = "https://api.example.com//b" }, []string{"Resource has a path with"}},
		"a final double slash": {func(m *metadata.Resource) { m.Resource = "https://api.example.com/b//" }, []string{"Resource has a path with"}},
		"an issuer's query": {func(m *metadata.Resource) {
			m.AuthorizationServers = append(m.AuthorizationServers, "https://a.example/?x")
		}, []string{"AuthorizationServers[1] has a query"}},
		"an issuer's fragment": {func(m *metadata.Resource) { m.AuthorizationServers = []string{"https://a.example/#"} }, []string{"AuthorizationServers[0] has a query or a fragment"}},
		"an issuer on http":    {func(m *metadata.Resource) { m.AuthorizationServers = []string{"http://a.example"} }, []string{"AuthorizationServers[0] is http"}},
		"an empty issuer":      {func(m *metadata.Resource) { m.AuthorizationServers = []string{""} }, []string{"AuthorizationServers[0] is empty"}},
		"an issuer twice": {func(m *metadata.Resource) {
			m.AuthorizationServers = []string{"https://a.example", "https://a.example"}
		}, []string{"AuthorizationServers has a value twice"}},
		"an odd method":        {func(m *metadata.Resource) { m.BearerMethods = []string{"header", "Header"} }, []string{"BearerMethods[1] is \"Header\""}},
		"a method twice":       {func(m *metadata.Resource) { m.BearerMethods = []string{"body", "body"} }, []string{"BearerMethods has a value twice"}},
		"two scopes in one":    {func(m *metadata.Resource) { m.Scopes = []string{"a b"} }, []string{"Scopes[0] is \"a b\""}},
		"an empty scope":       {func(m *metadata.Resource) { m.Scopes = []string{""} }, []string{"Scopes[0] is \"\""}},
		"a quoted scope":       {func(m *metadata.Resource) { m.Scopes = []string{`"a"`} }, []string{"Scopes[0]"}},
		"a scope twice":        {func(m *metadata.Resource) { m.Scopes = []string{"a", "b", "a"} }, []string{"Scopes has a value twice"}},
		"a page without https": {func(m *metadata.Resource) { m.Documentation = "docs" }, []string{"Documentation is not an absolute"}},
		"all": {func(m *metadata.Resource) {
			*m = metadata.Resource{Resource: "x", AuthorizationServers: []string{"y"}, Scopes: []string{""}, BearerMethods: []string{"z"}, Documentation: "d"}
		}, []string{"Resource is", "AuthorizationServers[0] is", "Scopes[0] is", "BearerMethods[0] is", "Documentation is"}},
	} {
		m := full
		row.change(&m)
		err := m.Faults()
		require.Error(t, err, name)
		for _, text := range row.says {
			assert.Contains(t, err.Error(), "metadata: "+text, name)
		}
		assert.Equal(t, len(row.says), 1+strings.Count(err.Error(), "\n"), "%s: %v", name, err)
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		assert.Equal(t, 500, w.Code, name)
		assert.NotContains(t, w.Body.String(), "{", name)
	}
}

// A client finds the document with the challenge of the guard, over the network.
func TestResource_IsNamedInTheChallenge(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	api := metadata.Resource{Resource: server.URL + "/v1/", AuthorizationServers: []string{"https://keycloak.example.com/realms/KORE-CIDP"}}
	require.NoError(t, api.Faults())
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{ResourceMetadata: api.URL()})
	mux.Handle(api.Pattern(), api)
	mux.Handle("/v1/", guard.Wrap(http.NotFoundHandler()))

	res, err := http.Get(server.URL + "/v1/sims")
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, 401, res.StatusCode)
	_, after, found := strings.Cut(res.Header.Get("WWW-Authenticate"), `resource_metadata="`)
	require.True(t, found, res.Header.Get("WWW-Authenticate"))
	place, _, _ := strings.Cut(after, `"`)
	res, err = http.Get(place)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, 200, res.StatusCode)
	assert.JSONEq(t, `{"resource":"`+server.URL+`/v1/","authorization_servers":["https://keycloak.example.com/realms/KORE-CIDP"]}`, string(body))
}

func ExampleResource() {
	api := metadata.Resource{
		Resource:             "https://api.example.com/v1",
		AuthorizationServers: []string{"https://keycloak.example.com/realms/KORE-CIDP"},
		BearerMethods:        []string{"header"},
	}
	if err := api.Faults(); err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle(api.Pattern(), api)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, api.URL(), nil))
	fmt.Println(api.URL())
	fmt.Print(w.Body)
	// Output:
	// https://api.example.com/.well-known/oauth-protected-resource/v1
	// {"resource":"https://api.example.com/v1","authorization_servers":["https://keycloak.example.com/realms/KORE-CIDP"],"bearer_methods_supported":["header"]}
}

func ExampleResource_Faults() {
	fmt.Println(metadata.Resource{Resource: "api.example.com", BearerMethods: []string{"cookie"}}.Faults())
	// Output:
	// metadata: Resource is not an absolute https URL, such as https://api.example.com
	// metadata: BearerMethods[0] is "cookie": use header, body or query (RFC 9728 §2)
}
