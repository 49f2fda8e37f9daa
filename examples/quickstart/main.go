// Command quickstart shows koreauth at work: it starts an issuer and a guarded
// API on loopback and sends real requests between them, each printed with its
// answer. Then it goes on serving, and prints curl lines to try by hand.
//
//	go run ./examples/quickstart                        # the tour, then serves until interrupted
//	go run ./examples/quickstart -once                  # the tour alone; status 1 if an answer is not as promised
//	go run ./examples/quickstart -addr 127.0.0.1:8080   # where the API listens; a free port if not given
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"

	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

func main() {
	ctx, stop := demo.Interrupted()
	status := run(ctx, os.Args[1:], os.Stdout, newAPI)
	stop()
	os.Exit(status)
}

// run is the program, with the API to show.
func run(ctx context.Context, args []string, out io.Writer, newAPI func(issuer string, logger *slog.Logger) (http.Handler, error)) int {
	out = demo.Writer(out)
	addr, once, err := demo.Flags(args, out)
	if err != nil {
		return 2
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{
		ID:        "kc_quickstart",
		Secret:    rand.Text(), // of this process alone
		Resources: map[string][]string{"API Clients": {"Read", "Write"}},
		Products:  []string{"SuperSIM"},
		Lifetime:  koretest.OneDay,
	}}})
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer issuer.Close()
	api, err := newAPI(issuer.URL(), demo.Logger(out))
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	server, err := demo.Serve(addr, api)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer server.Close()
	fmt.Fprintf(out, "issuer %s\nAPI    %s\n", issuer.URL(), server.URL)
	fmt.Fprintln(out, "Below, > is sent, < is received, and log is what the operator of the API reads.")

	t := tour{demo.Tour{Out: out, API: server.URL}, issuer}
	return demo.End(ctx, &t.Tour, once, t.walk(ctx)...)
}

// tour is the way through what koreauth does.
type tour struct {
	demo.Tour
	issuer *koretest.Issuer
}

// walk shows everything, and returns what can be tried by hand afterwards.
func (t *tour) walk(ctx context.Context) []demo.Step {
	token := t.fetchToken(ctx, "1. A client gets a token for its credentials, at the token endpoint")
	account := `"account":"` + t.issuer.Client().AccountID + `"`

	good := demo.Step{Title: "A good token: the handler reads its claims (net/http)",
		Method: "GET", Path: "/v1/me", Token: token, Status: 200, Has: []string{account, `"API Clients"`}}
	granted := demo.Step{Title: "A route that needs a grant which the token has (gorilla/mux)",
		Method: "GET", Path: "/v2/clients/42", Token: token, Status: 200, Has: []string{account, `"id":"42"`}}
	none := demo.Step{Title: "No token", Method: "GET", Path: "/v1/me", Status: 401, Body: demo.Unauthorized}
	garbage := demo.Step{Title: "A garbage token", Method: "GET", Path: "/v1/me", Token: "garbage", Status: 403, Body: demo.Forbidden}
	expired := demo.Step{Title: "An expired token", Method: "GET", Path: "/v1/me", Token: t.issuer.Expired(), Status: 403, Body: demo.Forbidden}
	ungranted := demo.Step{Title: `A token without the needed grant: it may read and write "API Clients", not delete (gorilla/mux)`,
		Method: "DELETE", Path: "/v2/clients/42", Token: token, Status: 403, Body: demo.NoGrant}

	t.show(ctx, "2. ", good)
	t.show(ctx, "3. ", granted)
	t.show(ctx, "4. ", none)
	t.show(ctx, "5. ", garbage)
	t.show(ctx, "6. ", expired)
	t.show(ctx, "7. ", ungranted)

	fetched := t.issuer.Requests(koretest.KeysEndpoint)
	fmt.Fprintf(t.Out, "\n8. The issuer signs with a new key from now on: %s\n", t.issuer.Rotate())
	rotated := t.fetchToken(ctx, "8a. The next token that the client fetches is signed with it")
	newKey, oldKey := good, good
	newKey.Token = rotated
	newKey.Title = "8b. The API takes it at once: it has fetched the new key"
	oldKey.Title = "8c. The tokens from before are still good"
	t.Show(ctx, newKey)
	t.Show(ctx, oldKey)
	fetches := t.issuer.Requests(koretest.KeysEndpoint) - fetched
	fmt.Fprintf(t.Out, "\n8d. Times that the API asked for keys: %d\n", fetches)
	t.Expect("one fetch for a rotation", fetches == 1)

	fmt.Fprintln(t.Out, "\n9. The issuer is down: it answers nobody")
	t.issuer.Behave(koretest.Down)
	t.refused(ctx, "9a. No new token can be had")
	outage := newKey
	outage.Title = "9b. The API answers with the keys that it has"
	t.Show(ctx, outage)
	t.Show(ctx, demo.Step{Title: "9c. A token of a key that it has not: that is not the token's fault, so the client is told to try again",
		Method: "GET", Path: "/v1/me", Token: t.issuer.Forged(), Status: 503, Body: demo.Unavailable})
	t.issuer.Behave(nil)

	good.Token, granted.Token, ungranted.Token = rotated, rotated, rotated
	return []demo.Step{good, granted, none, garbage, expired, ungranted}
}

func (t *tour) show(ctx context.Context, number string, step demo.Step) {
	step.Title = number + step.Title
	t.Show(ctx, step)
}

// fetchToken gets a token as KORE's documentation says: id and secret in a form.
func (t *tour) fetchToken(ctx context.Context, title string) (token string) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	status, body, err := t.post(ctx)
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	t.Expect(title, err == nil && status == http.StatusOK && answer.AccessToken != "")
	return answer.AccessToken
}

// refused shows that no token can be had.
func (t *tour) refused(ctx context.Context, title string) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	_, _, err := t.post(ctx)
	t.Expect(title, err != nil)
}

func (t *tour) post(ctx context.Context) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.issuer.TokenURL(), nil)
	if err != nil {
		return 0, nil, err
	}
	client := t.issuer.Client()
	return t.Exchange(req, "grant_type=client_credentials&"+url.Values{
		"client_id": {client.ID}, "client_secret": {client.Secret},
	}.Encode())
}
