package koretest

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// The token lifetimes that KORE offers for a client.
const (
	OneHour          = time.Hour
	OneDay           = 24 * time.Hour
	ThirtyDays       = 30 * OneDay
	TwentyFourMonths = 2 * 365 * OneDay
)

// maxForm limits the size of a request to a token endpoint.
const maxForm = 64 << 10

// Client is a registered API client: its credentials, and the claims of its
// tokens.
type Client struct {
	// ID is the client_id. It is required.
	ID string
	// Secret is the client_secret. If Secret is empty, the token endpoints reject
	// the client, and only [Issuer.Mint] makes tokens for it.
	Secret string
	// AccountID is the account-id claim. If empty, it is that of a demo account.
	AccountID string
	// Type is the client-type claim. If empty, it is "admin" for a client with
	// Resources and "standard" for any other.
	Type string
	// Owner is the client-owner claim. If empty, it is "owner@example.com".
	Owner string
	// Resources are the client's permissions by resource name, such as
	// {"API Clients": {"Read", "Write"}}. Nil means none.
	Resources map[string][]string
	// Products are the products that the client may use. Nil means none.
	Products []string
	// Scope is the scope claim. If empty, it is "email", as in KORE's tokens.
	Scope string
	// IPRanges is the ip-range claim. Nil means an empty array.
	IPRanges []string
	// Lifetime is the time between issue and expiry of a token. Zero means
	// [OneHour].
	Lifetime time.Duration
}

// demoClient returns a client with every permission. Its secret is random,
// because other users of the machine can reach the issuer of a demo.
func demoClient() Client {
	return Client{
		ID:        "kc_demo",
		Secret:    randomText(24),
		Resources: map[string][]string{"API Clients": {"Read", "Write", "Modify", "Delete"}},
		Products:  []string{"SuperSIM", "ProgrammableWireless"},
	}
}

// withDefaults returns a copy of c with defaults for the empty fields.
func (c Client) withDefaults() (Client, error) {
	if c.ID == "" {
		return Client{}, errors.New("koretest: Client.ID is required")
	}
	if c.Lifetime < 0 {
		return Client{}, fmt.Errorf("koretest: client %q: Lifetime %v is negative", c.ID, c.Lifetime)
	}
	if c.Type == "" {
		c.Type = "standard"
		if len(c.Resources) > 0 {
			c.Type = "admin"
		}
	}
	c.AccountID = cmp.Or(c.AccountID, "CO1700000000koretest")
	c.Owner = cmp.Or(c.Owner, "owner@example.com")
	c.Scope = cmp.Or(c.Scope, "email")
	c.Lifetime = cmp.Or(c.Lifetime, OneHour)
	return c.clone(), nil
}

// clone returns a deep copy of c.
func (c Client) clone() Client {
	c.Resources = maps.Clone(c.Resources)
	for name, access := range c.Resources {
		c.Resources[name] = slices.Clone(access)
	}
	c.Products = slices.Clone(c.Products)
	c.IPRanges = append([]string{}, c.IPRanges...)
	return c
}

// scopes is KORE's scopes claim, which lists the granted resources and products.
type scopes struct {
	GlobalResources []resource `json:"globalResources,omitempty"`
	Products        []string   `json:"products,omitempty"`
}

type resource struct {
	Name   string   `json:"resourceName"`
	Access []string `json:"access"`
}

func (c Client) scopes() scopes {
	s := scopes{Products: c.Products}
	for _, name := range slices.Sorted(maps.Keys(c.Resources)) {
		s.GlobalResources = append(s.GlobalResources, resource{name, c.Resources[name]})
	}
	return s
}

// tokenResponse is the body of a successful response (RFC 6749 §5.1).
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	TokenType   string `json:"token_type"`
	Scope       string `json:"scope,omitempty"`
}

// errorResponse is the body of an error response (RFC 6749 §5.2).
type errorResponse struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// badClient is the response that KORE documents for wrong credentials.
var badClient = &errorResponse{http.StatusUnauthorized, "unauthorized_client", "Invalid client or Invalid client credentials"}

func invalidRequest(description string) *errorResponse {
	return &errorResponse{http.StatusBadRequest, "invalid_request", description}
}

// serveToken serves both token endpoints: KORE's, which takes the credentials in
// the form, and the one that takes them by HTTP Basic.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	response, failure := i.grant(w, r)
	if failure == nil {
		writeJSON(w, http.StatusOK, response)
		return
	}
	if failure == badClient && r.URL.Path == basicTokenPath {
		w.Header().Set("WWW-Authenticate", `Basic realm="koretest", charset="UTF-8"`)
	}
	writeJSON(w, failure.status, failure)
}

// grant authenticates the client of a token request and mints its token.
func (i *Issuer) grant(w http.ResponseWriter, r *http.Request) (*tokenResponse, *errorResponse) {
	form, failure := readForm(w, r)
	if failure != nil {
		return nil, failure
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if secret != "" && r.Header.Get("Authorization") != "" { // RFC 6749 §2.3
		return nil, invalidRequest("The client authenticates in more than one way")
	}
	basic := r.URL.Path == basicTokenPath
	if basic {
		id, secret = basicCredentials(r)
	}
	client, ok := i.authenticate(id, secret)
	if !ok {
		return nil, badClient
	}
	switch form.Get("grant_type") {
	case "client_credentials":
	case "":
		return nil, invalidRequest("The grant_type is missing")
	default:
		return nil, &errorResponse{http.StatusBadRequest, "unsupported_grant_type", "The grant_type must be client_credentials"}
	}
	token, err := i.Mint(Token{ClientID: client.ID})
	if err != nil {
		return nil, &errorResponse{http.StatusInternalServerError, "server_error", "The token could not be made"}
	}
	response := &tokenResponse{token, int64(client.Lifetime / time.Second), "Bearer", client.Scope}
	if basic && form.Get("scope") == "" {
		response.Scope = "" // RFC 6749 §5.1: required only if it differs from the requested scope
	}
	return response, nil
}

// readForm returns the parameters in the request body.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *errorResponse) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, invalidRequest("The body must be a form")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, invalidRequest("The form is malformed or too large")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 { // RFC 6749 §3.2
			return nil, invalidRequest("A parameter is repeated")
		}
	}
	return r.PostForm, nil
}

// basicCredentials returns the credentials of HTTP Basic, each decoded from
// application/x-www-form-urlencoded (RFC 6749 §2.3.1). Both are empty if they are
// missing or malformed.
func basicCredentials(r *http.Request) (id, secret string) {
	id, secret, _ = r.BasicAuth()
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	if errID != nil || errSecret != nil {
		return "", ""
	}
	return id, secret
}

// authenticate returns the client with these credentials. It compares secrets for
// an unknown client too, so that timing does not reveal which clients exist.
func (i *Issuer) authenticate(id, secret string) (Client, bool) {
	client, _ := i.client(id)
	got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(client.Secret))
	equal := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	return client, equal && client.Secret != ""
}

// writeJSON sends v as a response that caches must not store (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot happen: v has only strings and numbers
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
