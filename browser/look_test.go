package browser_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// contrasts returns the texts and borders of controls whose contrast is too low (WCAG
// 2.2, 1.4.3 and 1.4.11). All backgrounds of the page are opaque.
const contrasts = `(() => {
	const rgb = (color) => color.match(/[\d.]+/g).map(Number);
	const luminance = (color) => {
		const [r, g, b] = rgb(color).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const color = getComputedStyle(e).backgroundColor;
			if (rgb(color)[3] !== 0) return color;
		}
		return "rgb(255, 255, 255)";
	};
	const ratio = (a, b) => {
		const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
		return (high + 0.05) / (low + 0.05);
	};
	const found = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || e.tagName === "OPTION") continue;
		const style = getComputedStyle(e);
		const words = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim() !== "");
		if (words && ratio(style.color, behind(e)) < 4.5) found.push("text " + e.textContent.slice(0, 30) + " " + ratio(style.color, behind(e)));
		if (e.matches("input, select, textarea") && ratio(style.borderTopColor, behind(e.parentElement)) < 3) found.push("border of " + e.id);
	}
	return found;
})()`

func TestPage_IsReadableInLightAndDark(t *testing.T) {
	b := openPage(t, startIssuer(t))
	for _, scheme := range []string{"light", "dark"} {
		b.prefer(scheme)
		assert.Equal(t, scheme == "dark", value[bool](b, `matchMedia("(prefers-color-scheme: dark)").matches`))
		b.shoot("start-" + scheme)
		for _, fault := range []string{"none", "audience", "shared-secret"} {
			b.choose("fault", fault)
			b.submit("mint")
			assert.Empty(t, value[[]string](b, contrasts), "%s, %s", scheme, fault)
			b.shoot(fault + "-" + scheme)
		}
	}
	background := value[string](b, `getComputedStyle(document.body).backgroundColor`)
	assert.NotEqual(t, "rgb(243, 244, 246)", background, "dark is dark")
}

func TestPage_FitsNarrowWindows(t *testing.T) {
	b := openPage(t, startIssuer(t))
	for _, width := range []int64{320, 390, 1280} {
		b.do(chromedp.EmulateViewport(width, 800))
		b.choose("fault", "audience")
		b.submit("mint")
		assert.LessOrEqual(t, value[int64](b, "document.documentElement.scrollWidth"), width, "WCAG 2.2, 1.4.10: no scrolling in two directions")
	}
	b.do(chromedp.EmulateViewport(390, 800))
	b.shoot("narrow")
}

func TestPage_HasNamesForScreenReaders(t *testing.T) {
	b := openPage(t, startIssuer(t))
	b.submit("mint")
	named := map[string][]string{}
	for _, node := range call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role, name := text(node.Role), text(node.Name)
		named[role] = append(named[role], name)
		switch role {
		case "button", "combobox", "textbox", "form", "region", "heading", "columnheader", "rowheader":
			assert.NotEmpty(t, name, "a %s has no name", role)
		}
	}
	assert.Len(t, named["main"], 1)
	assert.Len(t, named["banner"], 1)
	assert.ElementsMatch(t, []string{"koreauth development issuer", "Get a token", "Explain a token", "Break the issuer", "Token", "Call your API", "Checks", "Use this issuer"}, named["heading"])
	assert.ElementsMatch(t, []string{"Get token", "Explain", "Apply", "Copy token", "Copy curl"}, named["button"])
	assert.Equal(t, []string{"Client", "Lifetime", "Fault", "The route requires", "Endpoints", "Behavior"}, named["combobox"])
	assert.Equal(t, []string{"Get a token", "Explain a token", "Break the issuer"}, named["form"])
	assert.Equal(t, []string{"Claims to add or replace (JSON)", "Token", "URL"}, named["textbox"])
	assert.Equal(t, []string{"Verdict", "Check", "Found", "Wanted"}, named["columnheader"])
	assert.Len(t, named["rowheader"], 15)
	assert.NotEmpty(t, named["status"], "the verdict is announced")
	assert.Equal(t, "en", value[string](b, "document.documentElement.lang"))
	assert.Equal(t, 0, value[int](b, `document.querySelectorAll("[tabindex]:not([tabindex='0'])").length`), "the order of the focus is that of the page")
	ids := value[[]string](b, `[...document.querySelectorAll("[id]")].map((e) => e.id)`)
	seen := map[string]bool{}
	for _, id := range ids {
		assert.False(t, seen[id], "two elements have the ID %s", id)
		seen[id] = true
	}
}

// axe is the file of axe-core, which finds what people with a disability cannot use.
const axe = "node_modules/axe-core/axe.min.js"

func TestPage_IsAccessible(t *testing.T) {
	script, err := os.ReadFile(axe)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("axe-core is not installed: run npm ci")
	}
	require.NoError(t, err)
	b := openPage(t, startIssuer(t))
	check := func(state string) {
		t.Helper()
		b.do(chromedp.Evaluate[chromedp.Void](string(script)))
		assert.Empty(t, value[[]string](b, `axe.run({ resultTypes: ["violations"] }).then((found) => found.violations.flatMap(
			(v) => v.nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary)))`), state)
	}
	for _, scheme := range []string{"light", "dark"} {
		b.prefer(scheme)
		check(scheme)
		for _, fault := range []string{"none", "audience", "shared-secret"} {
			b.choose("fault", fault)
			b.submit("mint")
			check(scheme + ", " + fault)
		}
		b.do(chromedp.Click(chromedp.CSS("#endpoints button")))
		b.until(`document.getElementById("applied").textContent !== ""`)
		check(scheme + ", applied")
	}
}

// prefer reloads the page for a reader who prefers light or dark.
func (b *tab) prefer(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.do(chromedp.Reload())
}

// text returns a text of the accessibility tree.
func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}
