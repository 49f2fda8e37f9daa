// Command client is an example of a service that calls a protected API. Package
// koreclient fetches a token with the client credentials grant, sends it with each
// request, and fetches a new one before it expires. The example uses both kinds of token
// endpoint: KORE's, which takes the credentials in the form, and one that takes them by
// HTTP Basic.
//
//	go run ./examples/client
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koreclient"
	"github.com/koreauth/koreauth/koretest"
)

// newClient returns an HTTP client that sends a token with every request to host, and
// to no other host. One client is enough for the whole program.
func newClient(config koreclient.Config, host string) (*http.Client, error) {
	tokens, err := koreclient.New(config)
	if err != nil {
		return nil, err
	}
	client := tokens.HTTPClient(host)
	client.Timeout = 10 * time.Second
	return client, nil
}

// call sends one request to the API and returns the body of the response.
func call(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the API responded %s: %s", res.Status, body)
	}
	return string(body), nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run starts an issuer and an API, and calls the API with clients of either
// token endpoint.
func run(ctx context.Context, out io.Writer) error {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{ID: "kc_demo", Secret: "s+e/c=r&e%t", Lifetime: koretest.OneHour}}})
	if err != nil {
		return err
	}
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	if err != nil {
		return err
	}
	api := httptest.NewServer(koreauth.New(validator, nil).Wrap(hello))
	defer api.Close()

	for _, endpoint := range []struct {
		name, url string
		style     koreclient.Style
	}{
		{"KORE's endpoint, credentials in the form", issuer.TokenURL(), koreclient.Form},
		{"An endpoint with HTTP Basic", issuer.BasicTokenURL(), koreclient.Basic},
	} {
		fmt.Fprintf(out, "\n%s: POST %s\n", endpoint.name, endpoint.url)
		config := koreclient.Config{TokenURL: endpoint.url, Style: endpoint.style, ClientID: "kc_demo", ClientSecret: "s+e/c=r&e%t"}
		client, err := newClient(config, "127.0.0.1")
		if err != nil {
			return err
		}
		before := issuer.Requests(koretest.TokenEndpoint)
		for range 3 {
			if err := greet(ctx, out, client, api.URL); err != nil {
				return err
			}
		}
		if err := count(out, "calls: 3", issuer.Requests(koretest.TokenEndpoint)-before, 1); err != nil {
			return err
		}

		config.ClientSecret = "wrong"
		client, err = newClient(config, "127.0.0.1")
		if err != nil {
			return err
		}
		_, err = call(ctx, client, api.URL)
		if err == nil {
			return fmt.Errorf("%s: a wrong secret was accepted", endpoint.name)
		}
		fmt.Fprintf(out, "  with a wrong secret: %v\n", err)
	}
	return nil
}

// greet calls the API and prints its answer.
func greet(ctx context.Context, out io.Writer, client *http.Client, url string) error {
	body, err := call(ctx, client, url)
	if err == nil {
		fmt.Fprintf(out, "  200 %s", body)
	}
	return err
}

// count prints how many tokens were fetched, which must be want.
func count(out io.Writer, what string, fetched, want int) error {
	fmt.Fprintf(out, "  %s, tokens fetched: %d\n", what, fetched)
	if fetched != want {
		return fmt.Errorf("got %d token requests, want %d", fetched, want)
	}
	return nil
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s; your token expires at %s\n", claims.ClientID, claims.Expiry.Format(time.RFC3339))
})
