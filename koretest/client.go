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

// The lifetimes that KORE offers for the tokens of a client.
const (
	OneHour          = time.Hour
	OneDay           = 24 * time.Hour
	ThirtyDays       = 30 * OneDay
	TwentyFourMonths = 2 * 365 * OneDay
)

// maxForm bounds what the token endpoints read.
const maxForm = 64 << 10

// Client is an API client as KORE registers it: credentials, and what its
// tokens say.
type Client struct {
	// ID is the client_id. It is required.
	ID string
	// Secret is the client_secret. Empty: the token endpoints refuse the client,
	// and only [Issuer.Mint] makes tokens for it.
	Secret string
	// AccountID is the account-id claim. Empty: the demo account.
	AccountID string
	// Type is the client-type claim. Empty: "admin" for a client that has
	// Resources, else "standard".
	Type string
	// Owner is the client-owner claim. Empty: "owner@example.com".
	Owner string
	// Resources is what the client may do, by the name of the resource:
	// {"API Clients": {"Read", "Write"}}. Nil: nothing.
	Resources map[string][]string
	// Products are the products that the client may use. Nil: none.
	Products []string
	// Scope is the scope claim. Empty: "email", as with KORE.
	Scope string
	// IPRanges is the ip-range claim. Nil: an empty list.
	IPRanges []string
	// Lifetime is how long a token is valid. Zero: [OneHour].
	Lifetime time.Duration
}

// demoClient may do everything. Its secret is of this process alone: a demo
// listens on a machine where others can reach it.
func demoClient() Client {
	return Client{
		ID:        "kc_demo",
		Secret:    randomText(24),
		Resources: map[string][]string{"API Clients": {"Read", "Write", "Modify", "Delete"}},
		Products:  []string{"SuperSIM", "ProgrammableWireless"},
	}
}

// withDefaults returns a copy with what is empty filled in.
func (c Client) withDefaults() (Client, error) {
	if c.ID == "" {
		return Client{}, errors.New("koretest: a client needs an ID")
	}
	if c.Lifetime < 0 {
		return Client{}, fmt.Errorf("koretest: client %q: the lifetime %v is negative", c.ID, c.Lifetime)
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

// clone returns a copy that shares nothing.
func (c Client) clone() Client {
	c.Resources = maps.Clone(c.Resources)
	for name, access := range c.Resources {
		c.Resources[name] = slices.Clone(access)
	}
	c.Products = slices.Clone(c.Products)
	c.IPRanges = append([]string{}, c.IPRanges...)
	return c
}

// scopes is the claim that KORE grants resources and products with.
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

// tokenAnswer is what a token endpoint says on success, RFC 6749 §5.1.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	TokenType   string `json:"token_type"`
	Scope       string `json:"scope,omitempty"`
}

// refusal is what it says otherwise, RFC 6749 §5.2.
type refusal struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// badClient is in the words that KORE documents.
var badClient = &refusal{http.StatusUnauthorized, "unauthorized_client", "Invalid client or Invalid client credentials"}

func invalidRequest(description string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request", description}
}

// serveToken is both token endpoints: KORE's, where id and secret stand in the
// form, and the one where they come by HTTP Basic.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	answer, refused := i.grant(w, r)
	if refused == nil {
		writeJSON(w, http.StatusOK, answer)
		return
	}
	if refused == badClient && r.URL.Path == basicTokenPath {
		w.Header().Set("WWW-Authenticate", `Basic realm="koretest", charset="UTF-8"`)
	}
	writeJSON(w, refused.status, refused)
}

func (i *Issuer) grant(w http.ResponseWriter, r *http.Request) (*tokenAnswer, *refusal) {
	form, refused := readForm(w, r)
	if refused != nil {
		return nil, refused
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if secret != "" && r.Header.Get("Authorization") != "" { // RFC 6749 §2.3
		return nil, invalidRequest("Two client authentications")
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
		return nil, &refusal{http.StatusBadRequest, "unsupported_grant_type", "The grant_type is not client_credentials"}
	}
	token, err := i.Mint(Token{ClientID: client.ID})
	if err != nil {
		return nil, &refusal{http.StatusInternalServerError, "server_error", "The token cannot be made"}
	}
	answer := &tokenAnswer{token, int64(client.Lifetime / time.Second), "Bearer", client.Scope}
	if basic && form.Get("scope") == "" {
		answer.Scope = "" // RFC 6749 §5.1: only where it may not be what was asked for
	}
	return answer, nil
}

// readForm returns the parameters of the body.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *refusal) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, invalidRequest("The body is not a form")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, invalidRequest("The form cannot be read")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 { // RFC 6749 §3.2
			return nil, invalidRequest("A parameter is repeated")
		}
	}
	return r.PostForm, nil
}

// basicCredentials decodes each half as a form would, RFC 6749 §2.3.1. Both are
// empty where there is nothing to decode.
func basicCredentials(r *http.Request) (id, secret string) {
	id, secret, _ = r.BasicAuth()
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	if errID != nil || errSecret != nil {
		return "", ""
	}
	return id, secret
}

// authenticate returns the client of these credentials. An unknown client costs
// the same comparison as a known one.
func (i *Issuer) authenticate(id, secret string) (Client, bool) {
	client, _ := i.client(id)
	got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(client.Secret))
	equal := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	return client, equal && client.Secret != ""
}

// writeJSON answers in a way that nobody keeps, RFC 6749 §5.1.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
