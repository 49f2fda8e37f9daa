// Command client is an example of a service that calls a protected API. It
// fetches a token with the client credentials grant, sends it with each request,
// and fetches a new token before the old one expires. It does so with both kinds
// of token endpoint: KORE's, which takes the credentials in the form, and one
// that takes them by HTTP Basic.
//
// In the folder interop, run:
//
//	go run ./client
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

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// timeout limits each request, to the token endpoint and to the API.
const timeout = 10 * time.Second

// newClient returns an HTTP client that sends a token with every request. It
// caches the token and replaces it ten seconds before it expires. One client
// is enough for the whole program; it is safe for concurrent use by multiple
// goroutines.
//
// Set style to oauth2.AuthStyleInParams for KORE's endpoint, and to
// oauth2.AuthStyleInHeader for HTTP Basic. oauth2.AuthStyleAutoDetect tries both,
// and so sends the secret twice.
func newClient(tokenURL string, style oauth2.AuthStyle, id, secret string) *http.Client {
	config := clientcredentials.Config{
		ClientID:     id,
		ClientSecret: secret,
		TokenURL:     tokenURL,
		AuthStyle:    style,
	}
	// The context carries the HTTP client for the token endpoint. The returned
	// client keeps it, so do not pass the context of a request.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: timeout})
	client := config.Client(ctx)
	client.Timeout = timeout
	// Do not follow redirects: the client would send the token to any host.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client
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
	api := httptest.NewServer(koreauth.New(validator, nil).Wrap(hello))
	defer api.Close()

	for _, endpoint := range []struct {
		name, url string
		style     oauth2.AuthStyle
	}{
		{"KORE's endpoint, credentials in the form", issuer.TokenURL(), oauth2.AuthStyleInParams},
		{"An endpoint with HTTP Basic", issuer.BasicTokenURL(), oauth2.AuthStyleInHeader},
	} {
		fmt.Fprintf(out, "\n%s: POST %s\n", endpoint.name, endpoint.url)
		for _, credentials := range []struct {
			id, secret, explanation string
			want                    int
		}{
			{"kc_hour", "s+e/c=r&e%t", "valid for one hour, so one token is enough", 1},
			{"kc_brief", "secret", "valid for ten seconds, so every token is about to expire", 3},
		} {
			client := newClient(endpoint.url, endpoint.style, credentials.id, credentials.secret)
			before := issuer.Requests(koretest.TokenEndpoint)
			for range 3 {
				body, err := call(ctx, client, api.URL)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "  200 %s", body)
			}
			fetched := issuer.Requests(koretest.TokenEndpoint) - before
			fmt.Fprintf(out, "  calls: 3, tokens fetched: %d (%s)\n", fetched, credentials.explanation)
			if fetched != credentials.want {
				return fmt.Errorf("%s: got %d token requests, want %d", credentials.id, fetched, credentials.want)
			}
		}
		_, err := call(ctx, newClient(endpoint.url, endpoint.style, "kc_hour", "wrong"), api.URL)
		if err == nil {
			return fmt.Errorf("%s: a wrong secret was accepted", endpoint.name)
		}
		fmt.Fprintf(out, "  with a wrong secret: %v\n", err)
	}
	return nil
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, _ := koreauth.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s; your token expires at %s\n", claims.ClientID, claims.Expiry.Format(time.RFC3339))
})
