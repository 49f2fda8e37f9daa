package koretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Audience is the aud claim of KORE's tokens, and of an [Issuer]'s unless
// [Options] says otherwise.
const Audience = "api-gw"

// Paths of the endpoints. The paths below the realm are Keycloak's.
const (
	realmPath      = "/realms/KORE-CIDP"
	discoveryPath  = realmPath + "/.well-known/openid-configuration"
	keysPath       = realmPath + "/protocol/openid-connect/certs"
	formTokenPath  = "/api-services/v1/auth/token"
	basicTokenPath = "/oauth/v2/token"
	introspectPath = realmPath + "/protocol/openid-connect/token/introspect"
)

// Options configures an [Issuer]. The zero value of each field selects the
// default.
type Options struct {
	// Addr is the address to listen on. If Addr is empty, the issuer listens on a
	// free port of 127.0.0.1, unless URL is set.
	Addr string
	// URL is the scheme and host that clients use, without a path. If URL is
	// empty, it is http and the address that the issuer listens on, with
	// 127.0.0.1 for an unspecified address such as ":8080". If URL is set and
	// Addr is not, the issuer does not listen: use [Issuer.HTTPClient] or
	// [Issuer.ServeHTTP].
	URL string
	// Audience is the aud claim. If Audience is empty, it is [Audience]. One value
	// is a string in the token, as in KORE's; several are an array.
	Audience []string
	// Clients are the registered clients. If Clients is empty, a demo client is
	// registered, see [Issuer.Client].
	Clients []Client
	// Keys are published, and the first one signs. If Keys is empty, the issuer
	// makes an RS256 key.
	Keys []*Key
	// CacheControl is the Cache-Control header of the discovery document and of
	// the key set. If CacheControl is empty, the header is not sent.
	CacheControl string
}

// Issuer is an issuer of KORE access tokens: a Keycloak realm with a discovery
// document, a key set, two token endpoints and an introspection endpoint. Create one
// with [NewIssuer].
// An Issuer is safe for concurrent use by multiple goroutines.
type Issuer struct {
	base         string // scheme://host
	audience     any    // string or []string
	cacheControl string
	firstClient  string
	apiKey       string
	mux          *http.ServeMux
	close        func()
	requests     [endpointCount]atomic.Int64

	unpublishedKey func() *Key // the key of Forged

	mu        sync.Mutex // guards the fields below; never held while waiting
	clients   map[string]Client
	signing   Key
	published []Key
	behaviors [endpointCount]Behavior
	opaque    map[string]string   // the payloads of the opaque tokens
	inactive  map[string]struct{} // tokens
}

// NewIssuer starts an issuer. Nil options mean the defaults. The caller must call
// [Issuer.Close] when done. NewIssuer returns an error if an option is invalid or
// the address cannot be listened on.
func NewIssuer(options *Options) (*Issuer, error) {
	var o Options
	if options != nil {
		o = *options
	}
	i := &Issuer{
		cacheControl: o.CacheControl,
		apiKey:       randomText(80),
		close:        func() {},
		clients:      map[string]Client{},
		opaque:       map[string]string{},
		inactive:     map[string]struct{}{},
	}
	if err := i.setUp(o); err != nil {
		return nil, err
	}
	if o.URL != "" && o.Addr == "" {
		return i, nil
	}
	if err := i.listen(o.Addr); err != nil {
		return nil, err
	}
	return i, nil
}

// setUp does everything except listening.
func (i *Issuer) setUp(o Options) error {
	if err := i.setURL(o.URL); err != nil {
		return err
	}
	if err := i.setKeys(o.Keys); err != nil {
		return err
	}
	i.audience = Audience
	if len(o.Audience) == 1 {
		i.audience = o.Audience[0]
	} else if len(o.Audience) > 1 {
		i.audience = slices.Clone(o.Audience)
	}
	clients := o.Clients
	if len(clients) == 0 {
		clients = []Client{demoClient()}
	}
	for _, client := range clients {
		if err := i.Register(client); err != nil {
			return err
		}
	}
	i.firstClient = clients[0].ID

	i.mux = http.NewServeMux()
	i.mux.Handle("GET "+discoveryPath, i.at(DiscoveryEndpoint, i.serveDiscovery))
	i.mux.Handle("GET "+keysPath, i.at(KeysEndpoint, i.serveKeys))
	i.mux.Handle("POST "+formTokenPath, i.at(TokenEndpoint, i.serveToken))
	i.mux.Handle("POST "+basicTokenPath, i.at(TokenEndpoint, i.serveToken))
	i.mux.Handle("POST "+introspectPath, i.at(IntrospectionEndpoint, i.serveIntrospection))
	return nil
}

func (i *Issuer) setURL(base string) error {
	if base == "" {
		return nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("koretest: Options.URL: %w", err)
	}
	i.base = u.Scheme + "://" + u.Host
	if u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || base != i.base {
		return fmt.Errorf("koretest: Options.URL %q must be http:// or https:// and a host, without a path", base)
	}
	return nil
}

func (i *Issuer) setKeys(keys []*Key) error {
	if len(keys) == 0 {
		key, err := NewKey("RS256")
		if err != nil {
			return err
		}
		keys = []*Key{key}
	}
	for _, key := range keys {
		if err := i.AddKey(key); err != nil {
			return err
		}
	}
	i.signing = *keys[0]
	if _, err := sign(i.signing.Algorithm, i.signing.Private, nil); err != nil {
		return err
	}
	algorithm := i.signing.Algorithm // Rotate does not change it
	i.unpublishedKey = sync.OnceValue(func() *Key { return mustNewKey(algorithm) })
	return nil
}

func (i *Issuer) listen(addr string) error {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("koretest: %w", err)
	}
	if i.base == "" {
		at := *listener.Addr().(*net.TCPAddr)
		if at.IP.IsUnspecified() {
			at.IP = net.IPv4(127, 0, 0, 1) // clients cannot connect to "[::]:8080"
		}
		i.base = "http://" + at.String()
	}
	// Server.Close does not cancel the context of a request whose body has not
	// been read, so Close cancels the base context as well.
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           i,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	i.close = sync.OnceFunc(func() {
		cancel()
		_ = server.Close()
		serving.Wait()
	})
	return nil
}

// Close stops listening and aborts requests in progress. Further calls do
// nothing. [Issuer.Mint] and [Issuer.HTTPClient] still work after Close. An issuer
// that does not listen need not be closed.
func (i *Issuer) Close() { i.close() }

// URL returns the issuer's identifier: the iss claim, and the value for
// koreauth.Config.Issuer.
func (i *Issuer) URL() string { return i.base + realmPath }

// KeysURL returns the URL of the key set.
func (i *Issuer) KeysURL() string { return i.base + keysPath }

// TokenURL returns the URL of KORE's token endpoint,
// POST /api-services/v1/auth/token, which takes client_id and client_secret in the
// form.
func (i *Issuer) TokenURL() string { return i.base + formTokenPath }

// BasicTokenURL returns the URL of the token endpoint POST /oauth/v2/token, which
// takes client_id and client_secret by HTTP Basic. Each must be form-urlencoded
// first (RFC 6749 §2.3.1).
func (i *Issuer) BasicTokenURL() string { return i.base + basicTokenPath }

// Client returns the first of Options.Clients. If there is none, it returns the
// demo client kc_demo, which has a random secret, every permission on "API
// Clients", the products SuperSIM and ProgrammableWireless, and a lifetime of
// [OneHour].
func (i *Issuer) Client() Client {
	client, _ := i.client(i.firstClient)
	return client.clone()
}

// Register adds a client or replaces the one with the same ID. As with KORE, only
// new tokens carry the changed claims. Register returns an error if the client has
// no ID or a negative lifetime.
func (i *Issuer) Register(client Client) error {
	client, err := client.withDefaults()
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clients[client.ID] = client
	return nil
}

func (i *Issuer) client(id string) (Client, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	client, ok := i.clients[id]
	return client, ok
}

// SigningKey returns a copy of the key that signs tokens now.
func (i *Issuer) SigningKey() *Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := i.signing
	return &key
}

// Rotate makes a new key for the same algorithm, publishes it and signs all
// further tokens with it. Earlier keys stay published. Rotate returns the ID of
// the new key.
func (i *Issuer) Rotate() string {
	key := mustNewKey(i.SigningKey().Algorithm)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.signing = *key
	i.published = append(i.published, *key)
	return key.ID
}

// AddKey publishes a key. It signs only tokens whose [Token].Key it is. Several
// keys may have the same ID. AddKey returns an error if the key has no public half.
func (i *Issuer) AddKey(key *Key) error {
	if _, err := key.jwk(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = append(i.published, *key)
	return nil
}

// RemoveKey stops publishing the keys with the given ID. If the signing key is
// among them, it still signs until [Issuer.Rotate] is called. An unknown ID changes
// nothing.
func (i *Issuer) RemoveKey(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.DeleteFunc(i.published, func(k Key) bool { return k.ID == id })
}

// KeyIDs returns the IDs of the published keys, oldest first. The encryption key
// in the key set is not among them.
func (i *Issuer) KeyIDs() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	ids := make([]string, 0, len(i.published))
	for _, key := range i.published {
		ids = append(ids, key.ID)
	}
	return ids
}

// JWKS returns the current key set, as the keys endpoint serves it. It lists an
// encryption key (use "enc") before the published keys, as Keycloak does.
func (i *Issuer) JWKS() []byte {
	keys := []Key{encryptionKey()} // before locking, because making it takes time
	i.mu.Lock()
	keys = append(keys, i.published...)
	i.mu.Unlock()
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, key := range keys {
		public, err := key.jwk()
		if err != nil {
			panic(err) // cannot happen: AddKey checked the key
		}
		set.Keys = append(set.Keys, public)
	}
	document, err := json.Marshal(set)
	if err != nil {
		panic(err) // cannot happen: it has only strings
	}
	return document
}

// Behave sets the behavior of the given endpoints, or of all endpoints if none is
// given, for all further requests. Nil restores the normal behavior. Behave does
// not affect [Issuer.Mint] and the methods that call it.
func (i *Issuer) Behave(b Behavior, at ...Endpoint) {
	if len(at) == 0 {
		at = []Endpoint{DiscoveryEndpoint, KeysEndpoint, TokenEndpoint, IntrospectionEndpoint}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, endpoint := range at {
		i.behaviors[endpoint] = b
	}
}

// Requests returns the number of requests that the endpoint received, including
// those without a response.
func (i *Issuer) Requests(at Endpoint) int { return int(i.requests[at].Load()) }

// ServeHTTP serves the issuer's endpoints, for tests that run their own server.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.mux.ServeHTTP(w, r) }

// at returns the handler of an endpoint, which counts requests and applies the
// endpoint's behavior.
func (i *Issuer) at(endpoint Endpoint, serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.requests[endpoint].Add(1)
		i.mu.Lock()
		behavior := i.behaviors[endpoint]
		i.mu.Unlock()
		if behavior == nil {
			serve(w, r)
			return
		}
		behavior(serve).ServeHTTP(w, r)
	})
}

// metadata is the discovery document (OpenID Connect Discovery 1.0 §3, RFC 8414 §2).
type metadata struct {
	Issuer        string   `json:"issuer"`
	Keys          string   `json:"jwks_uri"`
	Token         string   `json:"token_endpoint"`
	Introspection string   `json:"introspection_endpoint"`
	Methods       []string `json:"token_endpoint_auth_methods_supported"`
	Grants        []string `json:"grant_types_supported"`
	Responses     []string `json:"response_types_supported"`
	Subjects      []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	document, err := json.Marshal(metadata{
		i.URL(), i.KeysURL(), i.TokenURL(), i.IntrospectionURL(),
		[]string{"client_secret_post"}, []string{"client_credentials"}, []string{"none"}, []string{"public"}, []string{i.SigningKey().Algorithm},
	})
	if err != nil {
		panic(err) // cannot happen: it has only strings
	}
	i.serveDocument(w, r, document)
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	i.serveDocument(w, r, i.JWKS())
}

// serveDocument sends a document with an ETag, or 304 if the client has it.
func (i *Issuer) serveDocument(w http.ResponseWriter, r *http.Request, document []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(document)))
	if i.cacheControl != "" {
		h.Set("Cache-Control", i.cacheControl)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
}

// HTTPClient returns a client whose requests are handled in the goroutine of the
// caller, without a connection, for use in a testing/synctest bubble. It works
// whether or not the issuer listens. Requests to any other host fail. Responses are
// not streamed: the client gets a response when the handler has returned.
func (i *Issuer) HTTPClient() *http.Client { return &http.Client{Transport: transport{i}} }

// transport is the http.RoundTripper of HTTPClient.
type transport struct{ issuer *Issuer }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	if base := r.URL.Scheme + "://" + r.URL.Host; base != t.issuer.base {
		return nil, fmt.Errorf("koretest: %s is not the issuer %s", base, t.issuer.base)
	}
	ctx := r.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	recorder := httptest.NewRecorder()
	aborted := serveAborting(t.issuer, recorder, serverRequest(r))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if aborted {
		return nil, fmt.Errorf("koretest: the connection was closed without a response: %w", io.EOF)
	}
	response := recorder.Result()
	response.Request = r
	if r.Method == http.MethodHead {
		response.Body = http.NoBody
	}
	return response, nil
}

// serverRequest converts a client's request to the form that a server gets.
func serverRequest(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	r.RequestURI = r.URL.RequestURI()
	r.RemoteAddr = "127.0.0.1:1"
	return r
}

// serveAborting calls the handler and reports whether it panicked with
// http.ErrAbortHandler. It panics again with any other value.
func serveAborting(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			aborted = true
			return
		}
		panic(v)
	}()
	h.ServeHTTP(w, r)
	return false
}
