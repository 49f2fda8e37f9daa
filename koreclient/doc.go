// Package koreclient gets access tokens with the client-credentials grant (RFC 6749
// §4.4), caches them, and sends them to an API.
//
//	client, err := koreclient.New(koreclient.Config{
//		TokenURL:     "https://keycloak.example.com/realms/KORE-CIDP/protocol/openid-connect/token",
//		ClientID:     os.Getenv("KORE_CLIENT_ID"),
//		ClientSecret: os.Getenv("KORE_CLIENT_SECRET"),
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	resp, err := client.HTTPClient("api.example.com").Get("https://api.example.com/v1/ping")
//
// All callers share one cached token and one fetch. The token is replaced in the
// background before it expires. If the token endpoint is down, the token is used until
// it expires, and the endpoint is asked less and less often. A wrong secret is sent at
// most once a minute.
package koreclient
