package browser_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var screenshots = flag.String("screenshots", "", "`folder` for pictures of the page; empty: none")

// rebound is a name that Chromium resolves to loopback, as an attacker can let it.
const rebound = "rebound.example"

// chromium is the context of the browser, which all tests share; nil: none is installed.
var chromium context.Context

// command is the path of the program koreauth.
var command string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return m.Run() // All tests are skipped.
	}
	folder, err := os.MkdirTemp("", "koreauth-browser")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	command = filepath.Join(folder, "koreauth")
	build := exec.Command("go", "build", "-o", command, "./cmd/koreauth")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("cannot build cmd/koreauth: %v\n%s", err, out)
		return 1
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.Flag("host-resolver-rules", "MAP "+rebound+" 127.0.0.1"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has no sandbox for root.
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		fmt.Println("cannot start chromium:", err)
		return 1
	}
	chromium = ctx
	return m.Run()
}

// issuer is a running "koreauth issuer".
type issuer struct {
	Page   string
	Issuer string
	Secret string
	stop   func()
}

// startIssuer runs the command until the test ends.
func startIssuer(t *testing.T) issuer {
	t.Helper()
	if chromium == nil {
		t.Skip("chromium is not installed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, command, "issuer", "--addr", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	i := issuer{stop: sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })}
	t.Cleanup(i.stop)
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Press"); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch value = strings.TrimSpace(value); name {
		case "Page":
			i.Page = value
		case "Issuer":
			i.Issuer = value
		case "Secret":
			i.Secret = value
		}
	}
	require.NotEmpty(t, i.Page, "the command prints the URL of its page")
	return i
}

// tab is a tab of the browser, and what it saw.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // guards the fields below
	requests []string   // URLs
	messages []string   // of the console, and exceptions
}

// openTab opens a new tab that shares nothing with others.
func openTab(t *testing.T) *tab {
	t.Helper()
	b := &tab{t: t}
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx)) // without a deadline, which would close the tab
	b.ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	_, err := chromedp.Call(b.ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	return b
}

// openPage opens the page of an issuer. When the test ends, it checks that the page
// wrote nothing to the console and that every request was for the issuer.
func openPage(t *testing.T, i issuer) *tab {
	t.Helper()
	b := openTab(t)
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(i.Page))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		assert.Empty(t, b.messages, "messages of the console")
		assert.NotEmpty(t, b.requests)
		for _, request := range b.requests {
			assert.True(t, strings.HasPrefix(request, i.Page), "a request for %s", request)
		}
	})
	return b
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(event.Request.URL); err != nil || u.Scheme != "data" && u.Scheme != "about" {
			b.requests = append(b.requests, event.Request.URL)
		}
	case *runtime.EventConsoleAPICalled:
		b.messages = append(b.messages, fmt.Sprintf("%s: %v", event.Type, event.Args))
	case *runtime.EventExceptionThrown:
		b.messages = append(b.messages, event.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.messages = append(b.messages, fmt.Sprintf("%s: %s %s", event.Entry.Level, event.Entry.Text, event.Entry.URL))
	}
}

// requested returns the URLs of all requests, one a line.
func (b *tab) requested() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.requests, "\n")
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, actions...))
}

// value returns what a JavaScript expression, or the promise that it returns, is.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, expression)
	return v
}

// until waits until a JavaScript expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(20*time.Second)))
	require.NoError(b.t, err, expression)
}

// text returns the text of the element with an ID.
func (b *tab) text(id string) string {
	b.t.Helper()
	return value[string](b, fmt.Sprintf("document.getElementById(%q).textContent", id))
}

// choose selects an option.
func (b *tab) choose(id, option string) {
	b.t.Helper()
	b.do(chromedp.SetValue(chromedp.ID(id), option))
	require.Equal(b.t, option, value[string](b, fmt.Sprintf("document.getElementById(%q).value", id)))
}

// options returns the values of a list.
func (b *tab) options(id string) []string {
	b.t.Helper()
	return value[[]string](b, fmt.Sprintf("[...document.getElementById(%q).options].map((o) => o.value)", id))
}

// submit clicks the button of a form, and waits for the verdict on a token.
func (b *tab) submit(form string) (verdict string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("#" + form + " button")))
	return b.verdict()
}

func (b *tab) verdict() string {
	b.t.Helper()
	b.until(`!document.getElementById("result").hidden && document.querySelector("#verdict strong") !== null`)
	return value[string](b, `document.querySelector("#verdict strong").textContent`)
}

// call sends a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	require.NoError(b.t, err)
	return result
}

// shoot writes a picture of the page, if that is asked for.
func (b *tab) shoot(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	require.NoError(b.t, os.MkdirAll(*screenshots, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(*screenshots, name+".png"), picture, 0o644))
}
