package browser_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPage_MintsAndExplainsAToken(t *testing.T) {
	i := startIssuer(t)
	b := openPage(t, i)
	assert.Equal(t, "koreauth development issuer", value[string](b, "document.title"))
	assert.Contains(t, b.text("use"), i.Issuer)
	assert.NotContains(t, value[string](b, "document.documentElement.outerHTML"), i.Secret, "the secret is in the terminal only")

	assert.Equal(t, "Accepted", b.submit("mint"))
	token := b.text("token")
	assert.Len(t, strings.Split(token, "."), 3)
	colors := value[[]string](b, `[...document.querySelectorAll("#token span")].map((s) => getComputedStyle(s).color)`)
	require.Len(t, colors, 3)
	assert.NotEqual(t, colors[0], colors[1])
	assert.NotEqual(t, colors[1], colors[2])
	assert.NotEqual(t, colors[0], colors[2])

	steps := value[[]string](b, `[...document.querySelectorAll("#steps th")].map((s) => s.firstChild.textContent)`)
	assert.Equal(t, []string{"form", "header", "algorithm", "key", "signature", "payload", "issuer", "audience", "expiry",
		"not-before", "age", "type", "client", "binding", "requirement"}, steps)
	assert.Equal(t, "curl -i 'http://127.0.0.1:8080/v1/clients' -H 'Authorization: Bearer "+token+"'", b.text("curl"))
	assert.Equal(t, i.Page, value[string](b, "location.href"))
}

// verdicts are what the page says of each fault. The default requirement is met.
var verdicts = map[string]string{
	"none":          "Accepted",
	"expired":       "Rejected: invalid token: expired",
	"no-expiry":     "Rejected: invalid token: expired",
	"not-before":    "Rejected: invalid token: not yet valid",
	"audience":      "Rejected: invalid token: wrong audience",
	"issuer":        "Rejected: invalid token: wrong issuer",
	"issuer-slash":  "Rejected: invalid token: wrong issuer",
	"id-token":      "Rejected: invalid token: not an access token",
	"refresh-token": "Rejected: invalid token: not an access token",
	"bound":         "Rejected: invalid token: sender not confirmed",
	"no-permission": "Rejected: insufficient scope",
	"signature":     "Rejected: invalid token: bad signature",
	"unknown-key":   "Rejected: invalid token: unknown key",
	"unsigned":      "Rejected: invalid token: algorithm not accepted",
	"shared-secret": "Rejected: invalid token: algorithm not accepted",
	"critical":      "Rejected: invalid token: malformed",
	"cut":           "Rejected: invalid token: malformed",
	"quoted":        "Rejected: invalid token: malformed",
}

func TestPage_ExplainsEachFault(t *testing.T) {
	b := openPage(t, startIssuer(t))
	faults := b.options("fault")
	assert.Len(t, faults, len(verdicts))
	for _, fault := range faults {
		b.choose("fault", fault)
		assert.Equal(t, verdicts[fault], b.submit("mint"), fault)
		assert.NotEmpty(t, b.text("token"), fault)
		if fault != "none" {
			assert.Contains(t, b.text("steps"), "fail", fault)
			assert.NotZero(t, value[int](b, `document.querySelectorAll("#steps .hint").length`), "%s: a hint says what to do", fault)
		}
	}
	b.shoot("fault")
}

func TestPage_MintsForEachClientAndLifetime(t *testing.T) {
	b := openPage(t, startIssuer(t))
	seconds := map[string]float64{"1m": 60, "1h": 3600, "1d": 86400, "30d": 30 * 86400, "24mo": 730 * 86400}
	clients, lifetimes := b.options("client"), b.options("lifetime")
	assert.Len(t, clients, 3)
	assert.Len(t, lifetimes, len(seconds))
	b.choose("requires", "none")
	for _, client := range clients {
		for _, lifetime := range lifetimes {
			b.choose("client", client)
			b.choose("lifetime", lifetime)
			assert.Equal(t, "Accepted", b.submit("mint"))
			payload := value[string](b, `atob(document.getElementById("token").textContent.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))`)
			var claims struct {
				Client   string `json:"client_id"`
				Exp, Iat float64
			}
			require.NoError(t, json.Unmarshal([]byte(payload), &claims))
			assert.Equal(t, client, claims.Client)
			assert.InDelta(t, seconds[lifetime], claims.Exp-claims.Iat, 1, lifetime)
		}
	}
}

func TestPage_JudgesWhatTheRouteRequires(t *testing.T) {
	b := openPage(t, startIssuer(t))
	for _, row := range []struct{ client, requires, want string }{
		{"kc_demo", "delete", "Accepted"},
		{"kc_reader", "read", "Accepted"},
		{"kc_reader", "delete", "Rejected: insufficient scope"},
		{"kc_reader", "product", "Rejected: insufficient scope"},
		{"kc_standard", "product", "Accepted"},
		{"kc_standard", "scope", "Accepted"},
		{"kc_standard", "read", "Rejected: insufficient scope"},
	} {
		b.choose("client", row.client)
		b.choose("requires", row.requires)
		assert.Equal(t, row.want, b.submit("mint"), "%v", row)
	}
}

func TestPage_KeepsAPastedTokenToItself(t *testing.T) {
	i := startIssuer(t)
	b := openPage(t, i)
	other := startIssuer(t)
	b.do(chromedp.SetValue(chromedp.ID("pasted"), "Bearer "+tokenOf(t, other)))
	assert.Equal(t, "Rejected: invalid token: malformed", b.submit("explain"))
	assert.Contains(t, b.text("steps"), "remove what stands before it")

	b.do(chromedp.SetValue(chromedp.ID("pasted"), tokenOf(t, other)))
	b.do(chromedp.Click(chromedp.CSS("#explain button")))
	b.until(`document.getElementById("verdict").textContent.includes("unknown key")`)

	assert.Equal(t, i.Page, value[string](b, "location.href"))
	assert.Equal(t, 0, value[int](b, `localStorage.length + sessionStorage.length + document.cookie.length`))
	assert.Equal(t, 0, value[int](b, `indexedDB.databases().then((all) => all.length)`))
	assert.Equal(t, 0, value[int](b, `caches.keys().then((all) => all.length)`))
	assert.Equal(t, "null", value[string](b, `JSON.stringify(history.state)`))
	assert.NotContains(t, b.requested(), "eyJ")
	b.do(chromedp.Reload())
	assert.Empty(t, value[string](b, `document.getElementById("pasted").value`))
	assert.False(t, value[bool](b, `document.body.textContent.includes("eyJ")`))
}

func TestPage_BreaksTheIssuer(t *testing.T) {
	i := startIssuer(t)
	b := openPage(t, i)
	keys := i.Issuer + "/protocol/openid-connect/certs"
	b.choose("behavior", "500")
	b.choose("at", "keys")
	b.do(chromedp.Click(chromedp.CSS("#endpoints button")))
	b.until(`document.getElementById("applied").textContent.includes("answer 500")`)
	assert.Equal(t, http.StatusInternalServerError, status(t, keys))
	assert.NotEmpty(t, tokenOf(t, i), "the token endpoint still works")
	assert.Equal(t, "Accepted", b.submit("mint"), "so does the page")

	b.do(chromedp.Reload())
	assert.Equal(t, "500", value[string](b, `document.getElementById("behavior").value`), "the page shows what was chosen")
	b.choose("behavior", "normal")
	b.do(chromedp.Click(chromedp.CSS("#endpoints button")))
	b.until(`document.getElementById("applied").textContent.includes("normal")`)
	assert.Equal(t, http.StatusOK, status(t, keys))
}

func TestPage_CopiesTheCurlLine(t *testing.T) {
	i := startIssuer(t)
	b := openPage(t, i)
	b.permit(i, "clipboard-read", browser.PermissionSettingGranted)
	b.permit(i, "clipboard-write", browser.PermissionSettingGranted)
	b.submit("mint")
	b.do(chromedp.SetValue(chromedp.ID("api"), "http://127.0.0.1:9/"), chromedp.SendKeys(chromedp.ID("api"), "it's"))
	b.do(chromedp.Click(chromedp.CSS(`[data-copy="curl"]`)))
	b.until(`document.querySelector("#result").textContent.includes("Copied")`)
	assert.Equal(t, b.text("curl"), value[string](b, "navigator.clipboard.readText()"))
	assert.Contains(t, b.text("curl"), `'http://127.0.0.1:9/it'\''s' `, "the URL is quoted for a shell")

	b.do(chromedp.Click(chromedp.CSS(`[data-copy="token"]`)))
	b.until(`navigator.clipboard.readText().then((text) => text === document.getElementById("token").textContent)`)
}

func TestPage_SelectsWhatItMayNotCopy(t *testing.T) {
	i := startIssuer(t)
	b := openPage(t, i)
	b.permit(i, "clipboard-write", browser.PermissionSettingDenied)
	b.submit("mint")
	b.do(chromedp.Click(chromedp.CSS(`[data-copy="curl"]`)))
	b.until(`document.querySelector("#result").textContent.includes("Selected: press Ctrl+C")`)
	assert.Equal(t, b.text("curl"), value[string](b, "getSelection().toString()"))
}

func TestPage_SaysWhatIsWrong(t *testing.T) {
	i := startIssuer(t)
	b := openTab(t)
	b.do(chromedp.Navigate(i.Page))
	b.submit("mint")
	for _, row := range []struct{ claims, want string }{
		{"[]", `devissuer: the claims must be a JSON object, such as {"account-id": "CO42"}`},
		{strings.Repeat("x", 70000), "devissuer: the text is too long: keep it under 60,000 characters"},
	} {
		b.do(chromedp.SetValue(chromedp.ID("claims"), row.claims), chromedp.Click(chromedp.CSS("#mint button")))
		b.until(`!document.getElementById("problem").hidden`)
		assert.Equal(t, row.want, b.text("problem"))
		assert.True(t, value[bool](b, `document.getElementById("result").hidden`), "the token before is not shown")
	}
	b.do(chromedp.SetValue(chromedp.ID("claims"), `{"aud": "other"}`))
	assert.Equal(t, "Rejected: invalid token: wrong audience", b.submit("mint"))
	assert.True(t, value[bool](b, `document.getElementById("problem").hidden`))

	i.stop()
	b.do(chromedp.Click(chromedp.CSS("#mint button")))
	b.until(`!document.getElementById("problem").hidden`)
	assert.Equal(t, "The issuer cannot be reached: is it still running?", b.text("problem"))
}

// permit allows or denies something to the page.
func (b *tab) permit(i issuer, name string, setting browser.PermissionSetting) {
	b.t.Helper()
	_, err := chromedp.CallBrowser(b.ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission:       &browser.PermissionDescriptor{Name: name},
		Setting:          setting,
		Origin:           strings.TrimSuffix(i.Page, "/"),
		BrowserContextID: chromedp.FromContext(b.ctx).BrowserContextID,
	})
	require.NoError(b.t, err)
}

// key presses a key as a person does.
func key(b *tab, keys string) { b.t.Helper(); b.do(chromedp.KeyEvent(keys)) }

func TestPage_WorksWithTheKeyboardAlone(t *testing.T) {
	b := openPage(t, startIssuer(t))
	focused := func() string {
		return value[string](b, `document.activeElement.id || document.activeElement.dataset.copy || document.activeElement.className || document.activeElement.textContent`)
	}
	tab := func(want string) {
		t.Helper()
		key(b, kb.Tab)
		assert.Equal(t, want, focused())
		assert.NotEqual(t, "none", value[string](b, `getComputedStyle(document.activeElement).outlineStyle`), "the focus on %s is visible", want)
	}
	tab("client")
	tab("lifetime")
	tab("fault")
	key(b, "e") // selects "expired an hour ago"
	tab("requires")
	tab("claims")
	key(b, "{}")
	tab("Get token")
	key(b, kb.Enter)
	assert.Equal(t, "Rejected: invalid token: expired", b.verdict())
	assert.Equal(t, "Get token", focused(), "the focus stays where it was")
	tab("pasted")
	key(b, "garbage")
	tab("Explain")
	key(b, " ")
	b.until(`document.getElementById("verdict").textContent.includes("malformed")`)
	tab("at")
	tab("behavior")
	tab("Apply")
	tab("token")
	tab("curl")
	tab("api")
	key(b, "x")
	assert.Contains(t, b.text("curl"), "curl -i 'x' ", "the line follows the URL")
	tab("scroll")
}

func TestPage_PolicyBlocksForeignContent(t *testing.T) {
	foreign := httptest.NewServer(http.NotFoundHandler())
	defer foreign.Close()
	b := openTab(t)
	b.do(chromedp.Navigate(startIssuer(t).Page))
	for directive, attempt := range map[string]string{
		"connect-src":               fmt.Sprintf(`fetch(%q).catch(() => {})`, foreign.URL),
		"img-src":                   fmt.Sprintf(`new Image().src = %q`, foreign.URL),
		"style-src-attr":            `document.body.setAttribute("style", "color: red")`,
		"frame-src":                 fmt.Sprintf(`{ const f = document.createElement("iframe"); f.src = %q; document.body.append(f) }`, foreign.URL),
		"form-action":               `document.getElementById("mint").submit()`,
		"require-trusted-types-for": `try { document.body.innerHTML = "<p>" } catch {}`,
	} {
		got := value[string](b, `new Promise((resolve) => {
			document.addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective), { once: true });
			`+attempt+`;
		})`)
		assert.Equal(t, directive, got)
	}
}

func TestPage_IsClosedToOtherPages(t *testing.T) {
	i := startIssuer(t)
	port := i.Page[strings.LastIndex(i.Page, ":"):]

	t.Run("a name that resolves to loopback", func(t *testing.T) {
		b := openTab(t)
		response, err := chromedp.Run(b.ctx, chromedp.NavigateResponse("http://"+rebound+port))
		require.NoError(t, err)
		assert.EqualValues(t, http.StatusForbidden, response.Status)
		assert.NotContains(t, value[string](b, "document.documentElement.outerHTML"), "<form")
	})
	t.Run("requests of another page", func(t *testing.T) {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<!DOCTYPE html><title>other</title>")
		}))
		defer other.Close()
		b := openTab(t)
		b.do(chromedp.Navigate(other.URL))
		assert.Equal(t, "TypeError", value[string](b, fmt.Sprintf(`fetch(%q).then(() => "read it", (e) => e.name)`, i.Page)))
		for _, contentType := range []string{"text/plain", "application/json"} {
			value[string](b, fmt.Sprintf(`fetch("%spage/endpoints", { method: "POST", mode: "no-cors", headers: { "Content-Type": %q },
				body: '{"endpoints":"all","behavior":"500"}' }).then((r) => r.type, (e) => e.name)`, i.Page, contentType))
		}
		assert.Equal(t, http.StatusOK, status(t, i.Issuer+"/protocol/openid-connect/certs"), "the issuer still works")
		blocked := value[bool](b, fmt.Sprintf(`new Promise((resolve) => {
			const f = document.createElement("iframe");
			f.onload = () => { try { resolve(f.contentDocument === null) } catch { resolve(true) } };
			f.src = %q;
			document.body.append(f);
		})`, i.Page))
		assert.True(t, blocked)
	})
}

// tokenOf gets a token of the first client.
func tokenOf(t *testing.T, i issuer) string {
	t.Helper()
	base := strings.TrimSuffix(i.Page, "/")
	response, err := http.Post(base+"/api-services/v1/auth/token", "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=client_credentials&client_id=kc_demo&client_secret="+i.Secret))
	require.NoError(t, err)
	defer response.Body.Close()
	var body struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	return body.Token
}

// status returns the status of a GET.
func status(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	return response.StatusCode
}
