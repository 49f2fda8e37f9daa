// Command revocation revokes a token that has leaked. Two processes of an API run on
// this machine and follow one file of rules; no other server is needed. A rule that an
// operator gives to one process makes both reject the token, also after a restart.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

// serveCommand is the first argument of the processes of the API.
const serveCommand = "serve"

// promptly is how soon all processes must have a rule.
const promptly = 500 * time.Millisecond

func main() {
	ctx, stop := demo.Interrupted()
	run := run
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		run = serve
	}
	status := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(status)
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, out io.Writer) int {
	out = demo.Writer(out)
	addr, once, err := demo.Flags(args, out)
	if err != nil {
		return 2
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{
		{ID: "kc_customer", Lifetime: koretest.TwentyFourMonths},
		{ID: "kc_operator", Resources: map[string][]string{"Revocations": {"Write"}}},
	}})
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer issuer.Close()
	dir, err := os.MkdirTemp("", "revocation")
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer os.RemoveAll(dir)
	t := &tour{Tour: demo.Tour{Out: out}, issuer: issuer, file: filepath.Join(dir, "revoked.log")}
	defer t.stop()
	for i, addr := range []string{addr, "127.0.0.1:0"} {
		if err := t.start(ctx, i, addr); err != nil {
			fmt.Fprintln(out, err)
			return 1
		}
	}
	fmt.Fprintf(out, "issuer %s\nAPI 1  %s\nAPI 2  %s\n", issuer.URL(), t.apis[0].url, t.apis[1].url)
	fmt.Fprintln(out, "Below, > marks a request, < its response, and API the log of a process.")
	steps := t.walk(ctx)
	t.API = t.apis[0].url
	return demo.End(ctx, &t.Tour, once, steps...)
}

// tour sends the requests of the demonstration.
type tour struct {
	demo.Tour
	issuer *koretest.Issuer
	file   string
	apis   [2]*process
}

// walk sends all requests and returns those that can be repeated with curl.
func (t *tour) walk(ctx context.Context) []demo.Step {
	operator, leaked := t.mint("kc_operator"), t.mint("kc_customer")
	issuer := `"issuer":"` + t.issuer.URL() + `"`
	byToken := `{` + issuer + `,"token":"` + tokenID(leaked) + `","reason":"leaked in a public repository"}`
	byClient := `{` + issuer + `,"client":"kc_customer","reason":"leaked secret"}`
	me := demo.Step{Method: http.MethodGet, Path: "/v1/me", Token: leaked, Status: 200, Has: []string{"hello, kc_customer"}}
	change := func(title, method, query, body string, status int, has ...string) demo.Step {
		return demo.Step{Title: title, Method: method, Path: "/v1/revocations" + query, Token: operator, JSON: body, Status: status, Has: has}
	}

	t.show(ctx, "1. A client calls the first process with a token that is valid for 24 months", 0, me)
	t.show(ctx, "2. It calls the second process", 1, me)

	dryRun := change("3. The token has leaked. An operator asks what a rule would stop", http.MethodPost, "?dry-run=true", byClient, 200, `{"tokens":1,"clients":["kc_customer"]}`)
	t.show(ctx, dryRun.Title, 0, dryRun)
	t.show(ctx, "4. The operator revokes the token, at the first process", 0, change("", http.MethodPost, "", byToken, 201, `"by":"kc_operator"`))
	t.within(ctx, "5. Both processes reject the token", leaked, 403)
	list := demo.Step{Title: "6. All processes have the rule", Method: http.MethodGet, Path: "/v1/revocations", Token: operator, Status: 200, Has: []string{`"seq":1`, `"replicas":{"known":1,"current":1}`}}
	t.show(ctx, list.Title, 1, list)
	t.within(ctx, "7. Another token of the client is still valid", t.mint("kc_customer"), 200)

	t.show(ctx, "8. The token was not the one that leaked. The operator lifts the rule, at the second process", 1, change("", http.MethodDelete, "", byToken, 201, `"lift":true`))
	t.within(ctx, "9. Both processes accept the token again", leaked, 200)

	t.show(ctx, "10. The operator revokes all tokens that the client has now", 0, change("", http.MethodPost, "", byClient, 201))
	t.within(ctx, "11. Both processes reject the token", leaked, 403)
	t.restart(ctx, "12. The second process ends, and starts again")
	t.within(ctx, "13. Both processes still reject the token", leaked, 403)
	fresh := t.mint("kc_customer")
	t.within(ctx, "14. The client has a new secret and a new token, which is valid", fresh, 200)

	me.Title, me.Token = "A new token of the client", fresh
	revoked := demo.Step{Title: "The revoked token", Method: http.MethodGet, Path: "/v1/me", Token: leaked, Status: 403, Body: demo.Forbidden}
	dryRun.Title, list.Title, dryRun.Has = "What would the rule stop now?", "All rules", nil
	return []demo.Step{me, revoked, dryRun, list}
}

// show sends the request of a step to a process.
func (t *tour) show(ctx context.Context, title string, api int, step demo.Step) {
	step.Title, t.API = title, t.apis[api].url
	t.Show(ctx, step)
}

// within checks that both processes soon answer a request that has the token with a
// status.
func (t *tour) within(ctx context.Context, title, token string, want int) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	start := time.Now()
	for i, api := range t.apis {
		status := 0
		for status != want && time.Since(start) < 10*time.Second && ctx.Err() == nil {
			if status = api.call(ctx, token); status != want {
				time.Sleep(5 * time.Millisecond)
			}
		}
		took := time.Since(start)
		fmt.Fprintf(t.Out, "  API %d answers %d after %d ms\n", i+1, status, took.Milliseconds())
		t.Expect(title, status == want && took <= promptly)
	}
}

// restart ends the second process and starts another one.
func (t *tour) restart(ctx context.Context, title string) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	t.apis[1].stop()
	err := t.start(ctx, 1, "127.0.0.1:0")
	if err != nil {
		fmt.Fprintf(t.Out, "  %v\n", err)
	}
	t.Expect(title, err == nil)
}

func (t *tour) mint(client string) string {
	token, err := t.issuer.Mint(koretest.Token{ClientID: client})
	if err != nil {
		panic(err) // cannot happen: the client is registered
	}
	return token
}

// tokenID returns the "jti" of a token, which is not verified for that.
func tokenID(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		ID string `json:"jti"`
	}
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	return claims.ID
}
