package koreclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koreclient"
	"github.com/koreauth/koreauth/koretest"
)

// startIssuer starts an issuer and an API that accepts its tokens. Your program has the
// URLs of real ones.
func startIssuer() (issuer *koretest.Issuer, api *httptest.Server) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{ID: "kc_1", Secret: "secret", Lifetime: koretest.OneHour}}})
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	if err != nil {
		log.Fatal(err)
	}
	return issuer, httptest.NewServer(koreauth.New(validator, nil).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "pong")
	})))
}

func Example() {
	issuer, api := startIssuer()
	defer issuer.Close()
	defer api.Close()

	client, err := koreclient.New(koreclient.Config{
		TokenURL:     issuer.TokenURL(),
		ClientID:     "kc_1",
		ClientSecret: "secret",
	})
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.HTTPClient("127.0.0.1").Get(api.URL + "/v1/ping")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(body))
	// Output: 200 OK pong
}

// All faults are reported at once.
func ExampleNew() {
	_, err := koreclient.New(koreclient.Config{TokenURL: "http://issuer.example/token"})
	fmt.Println(err)
	// Output:
	// koreclient: Config.TokenURL is http, so that anyone on the network could read the secret: use https
	// koreclient: Config.ClientID is empty: set it to the client_id that KORE gave you
	// koreclient: Config.ClientSecret and Secret are empty: set one of them
}

// Use Token for what is not net/http, such as the metadata of gRPC.
func ExampleClient_Token() {
	issuer, api := startIssuer()
	defer issuer.Close()
	defer api.Close()
	client, err := koreclient.New(koreclient.Config{
		TokenURL:     issuer.BasicTokenURL(),
		Style:        koreclient.Basic,
		ClientID:     "kc_1",
		ClientSecret: "secret",
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	token, err := client.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Count(token.Value, "."), time.Until(token.Expiry) > 59*time.Minute)

	client.Invalidate(token) // An API has rejected it.
	another, err := client.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(another.Value != token.Value)
	// Output:
	// 2 true
	// true
}

// A transport of your own gets requests with the token.
func ExampleClient_Transport() {
	issuer, api := startIssuer()
	defer issuer.Close()
	defer api.Close()
	client, err := koreclient.New(koreclient.Config{Issuer: issuer.URL(), ClientID: "kc_1", ClientSecret: "secret"})
	if err != nil {
		log.Fatal(err)
	}
	base := &http.Transport{MaxIdleConnsPerHost: 10}
	defer base.CloseIdleConnections()
	httpClient := &http.Client{Transport: client.Transport(base, "127.0.0.1"), Timeout: 10 * time.Second}
	resp, err := httpClient.Get(api.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}

func ExampleError() {
	issuer, api := startIssuer()
	defer issuer.Close()
	defer api.Close()
	client, err := koreclient.New(koreclient.Config{TokenURL: issuer.TokenURL(), ClientID: "kc_1", ClientSecret: "mistyped"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Token(context.Background())
	var failed *koreclient.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Status, failed.Code, failed.RetryAfter)
	}
	fmt.Println(err)
	// Output:
	// 401 unauthorized_client 1m0s
	// koreclient: no token: the token endpoint answered 401 unauthorized_client: Invalid client or Invalid client credentials: check ClientID, ClientSecret and Style
}
