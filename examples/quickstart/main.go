// Command quickstart demonstrates koreauth. It starts an issuer and a protected
// API on loopback, sends real requests to both, and prints each request and its
// response. Then it keeps serving and prints curl commands to try.
//
//	go run ./examples/quickstart                        # sends the requests, then serves until interrupted
//	go run ./examples/quickstart -once                  # sends the requests and exits, with status 1 if a response is wrong
//	go run ./examples/quickstart -addr 127.0.0.1:8080   # listens on this address instead of a free port
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

// run is main with its parameters and the API to demonstrate. It returns the exit
// status.
func run(ctx context.Context, args []string, out io.Writer, newAPI func(issuer string, own credentials, logger *slog.Logger) (http.Handler, error)) int {
	out = demo.Writer(out)
	addr, once, err := demo.Flags(args, out)
	if err != nil {
		return 2
	}
	own := credentials{"api", rand.Text()} // a new one for each process
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{
		ID:        "kc_quickstart",
		Secret:    rand.Text(),
		Resources: map[string][]string{"API Clients": {"Read", "Write"}},
		Products:  []string{"SuperSIM"},
		Lifetime:  koretest.OneDay,
	}, {
		ID: own.id, Secret: own.secret, Lifetime: koretest.OneHour,
	}}})
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer issuer.Close()
	api, err := newAPI(issuer.URL(), own, demo.Logger(out))
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
	fmt.Fprintln(out, "Below, > marks a request, < its response, and log the log of the API.")

	t := tour{demo.Tour{Out: out, API: server.URL}, issuer}
	return demo.End(ctx, &t.Tour, once, t.walk(ctx)...)
}

// tour sends the requests of the demonstration.
type tour struct {
	demo.Tour
	issuer *koretest.Issuer
}

// walk sends all requests and returns those that can be repeated with curl.
func (t *tour) walk(ctx context.Context) []demo.Step {
	token := t.fetchToken(ctx, "1. A client gets a token from the token endpoint with its credentials")
	account := `"account":"` + t.issuer.Client().AccountID + `"`

	valid := demo.Step{Title: "A valid token: the handler reads its claims (net/http)",
		Method: "GET", Path: "/v1/me", Token: token, Status: 200, Has: []string{account, `"API Clients"`}}
	granted := demo.Step{Title: "A route that requires a grant, and a token with the grant (gorilla/mux)",
		Method: "GET", Path: "/v2/clients/42", Token: token, Status: 200, Has: []string{account, `"id":"42"`}}
	none := demo.Step{Title: "No token", Method: "GET", Path: "/v1/me", Status: 401, Body: demo.Unauthorized}
	garbage := demo.Step{Title: "A token that is not a JWT", Method: "GET", Path: "/v1/me", Token: "garbage", Status: 403, Body: demo.Forbidden}
	expired := demo.Step{Title: "An expired token", Method: "GET", Path: "/v1/me", Token: t.issuer.Expired(), Status: 403, Body: demo.Forbidden}
	ungranted := demo.Step{Title: `A token without the required grant: its client may read and write "API Clients", but not delete them (gorilla/mux)`,
		Method: "DELETE", Path: "/v2/clients/42", Token: token, Status: 403, Body: demo.NoGrant}

	t.show(ctx, "2. ", valid)
	t.show(ctx, "3. ", granted)
	t.show(ctx, "4. ", none)
	t.show(ctx, "5. ", garbage)
	t.show(ctx, "6. ", expired)
	t.show(ctx, "7. ", ungranted)

	fetched := t.issuer.Requests(koretest.KeysEndpoint)
	fmt.Fprintf(t.Out, "\n8. The issuer rotates its key; the new key is %s\n", t.issuer.Rotate())
	rotated := t.fetchToken(ctx, "8a. The client gets a token that is signed with the new key")
	newKey, oldKey := valid, valid
	newKey.Token = rotated
	newKey.Title = "8b. The API accepts the token: it fetches the new key"
	oldKey.Title = "8c. Tokens signed with the old key are still valid"
	t.Show(ctx, newKey)
	t.Show(ctx, oldKey)
	fetches := t.issuer.Requests(koretest.KeysEndpoint) - fetched
	fmt.Fprintf(t.Out, "\n8d. Fetches of the key set since the rotation: %d\n", fetches)
	t.Expect("8d. One fetch of the key set", fetches == 1)

	fmt.Fprintln(t.Out, "\n9. The issuer is down")
	t.issuer.Behave(koretest.Down)
	t.expectFailure(ctx, "9a. Clients cannot get a token")
	outage := newKey
	outage.Title = "9b. The API still accepts tokens: it uses the keys that it has"
	t.Show(ctx, outage)
	t.Show(ctx, demo.Step{Title: "9c. A token with an unknown key: the API cannot fetch the keys, so it tells the client to try again",
		Method: "GET", Path: "/v1/me", Token: t.issuer.Forged(), Status: 503, Body: demo.Unavailable})
	t.issuer.Behave(nil)

	opaque := valid
	opaque.Title, opaque.Token = "An opaque token: the API asks the issuer about it", t.opaque()
	t.show(ctx, "10. ", opaque)
	t.show(ctx, "10a. Again. ", opaque)
	asked := t.issuer.Requests(koretest.IntrospectionEndpoint)
	fmt.Fprintf(t.Out, "\n10b. Requests to the introspection endpoint: %d\n", asked)
	t.Expect("10b. One request to the introspection endpoint", asked == 1)

	valid.Token, granted.Token, ungranted.Token = rotated, rotated, rotated
	return []demo.Step{valid, granted, none, garbage, expired, ungranted}
}

// show sends the request of a numbered step.
func (t *tour) show(ctx context.Context, number string, step demo.Step) {
	step.Title = number + step.Title
	t.Show(ctx, step)
}

// opaque returns an opaque token of the client. An issuer of your own decides by its
// configuration what its tokens are.
func (t *tour) opaque() string {
	token, err := t.issuer.Opaque(koretest.Token{})
	t.Expect("10. The issuer makes an opaque token", err == nil)
	return token
}

// fetchToken gets a token as KORE documents, with the credentials in the form.
func (t *tour) fetchToken(ctx context.Context, title string) (token string) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	status, body, err := t.post(ctx)
	var response struct {
		AccessToken string `json:"access_token"`
	}
	if err == nil {
		err = json.Unmarshal(body, &response)
	}
	t.Expect(title, err == nil && status == http.StatusOK && response.AccessToken != "")
	return response.AccessToken
}

// expectFailure shows that the token endpoint does not respond.
func (t *tour) expectFailure(ctx context.Context, title string) {
	fmt.Fprintf(t.Out, "\n%s\n", title)
	_, _, err := t.post(ctx)
	t.Expect(title, err != nil)
}

// post sends a token request.
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
