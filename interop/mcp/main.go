// Command mcp is a server of the Model Context Protocol that accepts KORE access tokens.
// Its clients need only its URL: they learn from its metadata (RFC 9728) where to get a
// token.
//
//	go run ./mcp -issuer https://keycloak.example.com/realms/KORE-CIDP -audience api-gw
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/metadata"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8082", "listen on this `address`")
	resource := flag.String("resource", "http://127.0.0.1:8082/mcp", "the `URL` that clients use")
	issuer := flag.String("issuer", "", "the `URL` of the issuer")
	audience := flag.String("audience", "", "the audience of the tokens")
	flag.Parse()
	api, err := handler(*resource, koreauth.Config{Issuer: *issuer, Audience: []string{*audience}})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: *addr, Handler: api, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// handler returns the guarded server and its metadata. The metadata are not guarded,
// because clients read them before they have a token.
func handler(resource string, config koreauth.Config) (http.Handler, error) {
	validator, err := koreauth.NewValidator(config)
	if err != nil {
		return nil, err
	}
	described := metadata.Resource{Resource: resource, AuthorizationServers: []string{config.Issuer}, BearerMethods: []string{"header"}}
	if err := described.Faults(); err != nil {
		return nil, err
	}
	guard := koreauth.New(validator, &koreauth.Options{
		ResourceMetadata: described.URL(),
		Errors:           koreauth.RFC6750Errors, // as MCP requires: 401 for an invalid token
	})

	server := mcp.NewServer(&mcp.Implementation{Name: "koreauth-example", Version: "v1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "whoami", Description: "names the client whose token was sent"}, whoami)
	stream := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true})

	mux := http.NewServeMux()
	mux.Handle(described.Pattern(), described)
	mux.Handle("/mcp", guard.Wrap(stream))
	return mux, nil
}

// client is what the tool answers.
type client struct {
	ID string `json:"id"`
}

func whoami(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, client, error) {
	claims, _ := koreauth.FromContext(ctx) // The guard has put them there.
	return nil, client{ID: claims.ClientID}, nil
}
