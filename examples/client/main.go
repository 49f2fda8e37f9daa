// Command client is a service that calls a guarded API. It fetches its token
// with client credentials, sends it with each call, and fetches the next one
// before it expires, against both kinds of token endpoint: KORE's, which wants
// id and secret in the form, and the one that wants HTTP Basic.
//
//	go run ./examples/client
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/examples/internal/demo"
	"github.com/koreauth/koreauth/koretest"
)

// newClient returns an HTTP client that sends a token with every request, and
// keeps it until ten seconds before it expires: one for the whole program, used
// by as many goroutines as like. For KORE's endpoint the style is
// oauth2.AuthStyleInParams, for HTTP Basic oauth2.AuthStyleInHeader; left to find
// out by itself, the package sends the secret both ways.
func newClient(tokenURL string, style oauth2.AuthStyle, id, secret string) *http.Client {
	config := clientcredentials.Config{
		ClientID:     id,
		ClientSecret: secret,
		TokenURL:     tokenURL,
		AuthStyle:    style,
	}
	// The context says with which client tokens are fetched. It is kept as
	// long as the client, so it must not be one that ends with a request.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: 10 * time.Second})
	client := config.Client(ctx)
	client.Timeout = 10 * time.Second
	// The token goes with every request, to wherever a redirect leads.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
}

// call asks the API once.
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
		return "", fmt.Errorf("the API answers %s: %s", res.Status, body)
	}
	return string(body), nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run is the demonstration: an issuer, an API, and calls with four clients.
func run(ctx context.Context, out io.Writer) error {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{
		{ID: "kc_hour", Secret: "s+e/c=r&e%t", Lifetime: koretest.OneHour},
		{ID: "kc_brief", Secret: "secret", Lifetime: 10 * time.Second},
	}})
	if err != nil {
		return err
	}
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	if err != nil {
		return err
	}
	api, err := demo.Serve("127.0.0.1:0", koreauth.New(validator, nil).Wrap(hello))
	if err != nil {
		return err
	}
	defer api.Close()

	for _, endpoint := range []struct {
		name, url string
		style     oauth2.AuthStyle
	}{
		{"KORE's endpoint, the secret in the form", issuer.TokenURL(), oauth2.AuthStyleInParams},
		{"the endpoint that wants HTTP Basic", issuer.BasicTokenURL(), oauth2.AuthStyleInHeader},
	} {
		fmt.Fprintf(out, "\n%s: POST %s\n", endpoint.name, endpoint.url)
		for _, kind := range []struct {
			id, secret, says string
			want             int
		}{
			{"kc_hour", "s+e/c=r&e%t", "one hour: one token for all calls", 1},
			{"kc_brief", "secret", "ten seconds: always about to expire, so each call has a new token", 3},
		} {
			client := newClient(endpoint.url, endpoint.style, kind.id, kind.secret)
			before := issuer.Requests(koretest.TokenEndpoint)
			for range 3 {
				body, err := call(ctx, client, api.URL)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "  200 %s", body)
			}
			fetched := issuer.Requests(koretest.TokenEndpoint) - before
			fmt.Fprintf(out, "  3 calls, tokens fetched: %d (they live %s)\n", fetched, kind.says)
			if fetched != kind.want {
				return fmt.Errorf("%s: tokens were fetched %d times, not %d", kind.id, fetched, kind.want)
			}
		}
		_, err := call(ctx, newClient(endpoint.url, endpoint.style, "kc_hour", "wrong"), api.URL)
		if err == nil {
			return fmt.Errorf("%s: a wrong secret was taken", endpoint.name)
		}
		fmt.Fprintf(out, "  a wrong secret: %v\n", err)
	}
	return nil
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s; your token lasts until %s\n", claims.ClientID, claims.Expiry.Format(time.RFC3339))
})
