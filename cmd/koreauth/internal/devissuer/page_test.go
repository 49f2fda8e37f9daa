package devissuer_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// routes are requests for every path, each with its normal status.
var routes = []struct {
	method, path, body string
	status             int
}{
	{"GET", "/", "", 200},
	{"GET", "/page/page.css", "", 200},
	{"GET", "/page/page.js", "", 200},
	{"GET", "/page/icon.svg", "", 200},
	{"POST", "/page/token", `{"client":"kc_demo","lifetime":"1h","fault":"none","requires":"none"}`, 200},
	{"POST", "/page/explain", `{"token":"x","requires":"none"}`, 200},
	{"POST", "/page/endpoints", `{"endpoints":"all","behavior":"normal"}`, 200},
	{"GET", "/realms/KORE-CIDP/.well-known/openid-configuration", "", 200},
	{"GET", "/realms/KORE-CIDP/protocol/openid-connect/certs", "", 200},
	{"POST", "/api-services/v1/auth/token", "", 400},
	{"POST", "/oauth/v2/token", "", 400},
	{"GET", "/missing", "", 404},
	{"GET", "/page/", "", 404},
	{"GET", "/page/page.html", "", 404},
}

func TestIssuer_AnswersOnlyOnLoopbackNames(t *testing.T) {
	issuer := newIssuer(t)
	for _, host := range []string{"127.0.0.1:8081", "127.0.0.1", "localhost:8081", "LocalHost", "[::1]:8081", "[::1]", "127.1.2.3:1"} {
		for _, route := range routes {
			w := send(issuer, route.method, route.path, route.body, func(r *http.Request) { r.Host = host })
			assert.Equal(t, route.status, w.Code, "%s of %s", route.path, host)
		}
	}
	for _, host := range []string{
		"", "rebound.example", "rebound.example:8081", "127.0.0.1.rebound.example:8081", "localhost.rebound.example",
		"192.0.2.1:8081", "0.0.0.0:8081", "[::]:8081", "[fe80::1%25lo]:8081", "[::1%25lo]", "127.1", "2130706433", "0x7f000001",
		"localhost.", "evil@localhost", "127.0.0.1:8081:8081", "[::1", ":8081", "127.0.0.1 ",
	} {
		for _, route := range routes {
			w := send(issuer, route.method, route.path, route.body, func(r *http.Request) { r.Host = host })
			assert.Equal(t, http.StatusForbidden, w.Code, "%s of %q", route.path, host)
			assert.Equal(t, "devissuer: Host must be localhost or an address of loopback, such as 127.0.0.1\n", w.Body.String())
		}
	}
}

func TestIssuer_RejectsRequestsOfOtherPages(t *testing.T) {
	issuer := newIssuer(t)
	for name, edit := range map[string]func(*http.Request){
		"another site":          func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"another port":          func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"an older browser":      func(r *http.Request) { r.Header.Set("Origin", "https://other.example") },
		"a page without origin": func(r *http.Request) { r.Header.Set("Origin", "null") },
	} {
		for _, route := range routes {
			w := send(issuer, route.method, route.path, route.body, edit)
			want := http.StatusForbidden
			if route.method == "GET" {
				want = route.status // changes nothing, and the other page cannot read it
			}
			assert.Equal(t, want, w.Code, "%s, %s", name, route.path)
			for header := range w.Header() {
				assert.NotContains(t, header, "Access-Control")
			}
		}
	}
	for _, route := range routes {
		w := send(issuer, route.method, route.path, route.body, func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			r.Header.Set("Origin", base)
		})
		assert.Equal(t, route.status, w.Code, "the page itself, %s", route.path)
	}
}

func TestPage_HasAStrictPolicy(t *testing.T) {
	issuer := newIssuer(t)
	for _, route := range routes[:7] {
		h := send(issuer, route.method, route.path, route.body, nil).Header()
		policy := strings.Split(h.Get("Content-Security-Policy"), "; ")
		assert.Subset(t, policy, []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
			"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"}, route.path)
		assert.NotContains(t, h.Get("Content-Security-Policy"), "unsafe")
		assert.Equal(t, "no-store", h.Get("Cache-Control"), route.path)
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), route.path)
		assert.Equal(t, "no-referrer", h.Get("Referrer-Policy"), route.path)
		assert.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"), route.path)
		assert.NotEmpty(t, h.Get("Content-Type"), route.path)
	}
}

// TestPage_NeedsNothingElse reads what is embedded: no inline code, which the policy
// blocks, and no other host.
func TestPage_NeedsNothingElse(t *testing.T) {
	page := send(newIssuer(t), "GET", "/", "", nil).Body.String()
	assert.NotRegexp(t, `(?i)<style|style=|\son\w+=|javascript:|<script[^>]*>\s*[^<\s]`, page)
	for _, link := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		assert.Regexp(t, `^/page/`, link[1])
	}
	for _, name := range []string{"page.css", "page.js", "icon.svg", "page.html"} {
		text, err := os.ReadFile("page/" + name)
		require.NoError(t, err)
		for _, address := range regexp.MustCompile(`https?://[^/"'\s]*`).FindAllString(string(text), -1) {
			assert.Contains(t, []string{"http://www.w3.org", "http://127.0.0.1:8080"}, address, name)
		}
		assert.NotRegexp(t, `@import|\burl\(|localStorage|sessionStorage|indexedDB|document\.cookie|innerHTML|history\.|location`, string(text), name)
	}
}

func TestPage_HasNoSecret(t *testing.T) {
	issuer := newIssuer(t)
	for _, route := range routes {
		assert.NotContains(t, send(issuer, route.method, route.path, route.body, nil).Body.String(), issuer.Client().Secret, route.path)
	}
}

func TestPage_RejectsOddRequests(t *testing.T) {
	issuer := newIssuer(t)
	token := mint(t, issuer, "kc_demo", "1h", "none", "none").Token
	const reload = "devissuer: the body is not what the page sends: reload the page"
	const unknown = "devissuer: that cannot be chosen: reload the page"
	for _, row := range []struct {
		name, path, contentType, body string
		status                        int
		want                          string
	}{
		{"a form", "/page/explain", "application/x-www-form-urlencoded", "token=" + token, 415, "devissuer: the body must be application/json"},
		{"text", "/page/explain", "text/plain", `{"token":"` + token + `"}`, 415, "devissuer: the body must be application/json"},
		{"no type", "/page/explain", "", `{}`, 415, "devissuer: the body must be application/json"},
		{"nothing", "/page/explain", "application/json", ``, 400, reload},
		{"no JSON", "/page/explain", "application/json", token, 400, reload},
		{"an unknown member", "/page/explain", "application/json", `{"` + token + `":1}`, 400, reload},
		{"another type", "/page/explain", "application/json", `{"token":["` + token + `"]}`, 400, reload},
		{"two values", "/page/explain", "application/json", `{"token":"` + token + `","requires":"none"} {}`, 400, reload},
		{"too much", "/page/explain", "application/json", `{"token":"` + strings.Repeat("x", 64<<10) + `"}`, 413, "devissuer: the text is too long: keep it under 60,000 characters"},
		{"no requirement", "/page/explain", "application/json; charset=utf-8", `{"token":"` + token + `"}`, 400, unknown},
		{"an unknown requirement", "/page/explain", "application/json", `{"token":"x","requires":"` + token + `"}`, 400, unknown},
		{"no client", "/page/token", "application/json", `{"lifetime":"1h","fault":"none","requires":"none"}`, 400, unknown},
		{"an unknown client", "/page/token", "application/json", `{"client":"x","lifetime":"1h","fault":"none","requires":"none"}`, 400, unknown},
		{"an unknown lifetime", "/page/token", "application/json", `{"client":"kc_demo","lifetime":"2h","fault":"none","requires":"none"}`, 400, unknown},
		{"an unknown fault", "/page/token", "application/json", `{"client":"kc_demo","lifetime":"1h","fault":"x","requires":"none"}`, 400, unknown},
		{"an unknown route", "/page/token", "application/json", `{"client":"kc_demo","lifetime":"1h","fault":"none","requires":"x"}`, 400, unknown},
		{"an unknown endpoint", "/page/endpoints", "application/json", `{"endpoints":"x","behavior":"down"}`, 400, unknown},
		{"an unknown behavior", "/page/endpoints", "application/json", `{"endpoints":"all","behavior":"x"}`, 400, unknown},
	} {
		w := send(issuer, "POST", row.path, row.body, func(r *http.Request) { r.Header.Set("Content-Type", row.contentType) })
		assert.Equal(t, row.status, w.Code, row.name)
		assert.JSONEq(t, `{"error":"`+row.want+`"}`, w.Body.String(), row.name)
	}
	for _, path := range []string{"/page/token", "/page/explain", "/page/endpoints"} {
		assert.Equal(t, http.StatusNotFound, send(issuer, "PUT", path, "{}", nil).Code, path)
		assert.Equal(t, http.StatusNotFound, send(issuer, "GET", path, "", nil).Code, "no token in a URL")
	}
}

func TestPage_ShowsATokenThatIsHTML(t *testing.T) {
	issuer := newIssuer(t)
	w := send(issuer, "POST", "/page/explain", `{"token":"<script>alert(1)</script>","requires":"none"}`, nil)
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	a := read(t, w)
	assert.Equal(t, "malformed", a.Explanation.Reason)
	assert.Equal(t, "<script>alert(1)</script>", a.Token)
}
