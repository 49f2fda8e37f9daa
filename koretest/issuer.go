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

// Where things are. The realm and what is under it are Keycloak's.
const (
	realmPath      = "/realms/KORE-CIDP"
	discoveryPath  = realmPath + "/.well-known/openid-configuration"
	keysPath       = realmPath + "/protocol/openid-connect/certs"
	formTokenPath  = "/api-services/v1/auth/token"
	basicTokenPath = "/oauth/v2/token"
)

// Options say how an [Issuer] is set up. The zero value of each field is the
// usual choice; nil *Options stand for them all.
type Options struct {
	// Addr is where to listen. Empty: a free port of 127.0.0.1, unless URL is
	// set.
	Addr string
	// URL is the issuer's scheme and host as its clients know it, with no path.
	// Empty: http and the address listened on, or 127.0.0.1 where that is every
	// address. With a URL and no Addr nothing listens: requests come through
	// [Issuer.HTTPClient] or [Issuer.ServeHTTP].
	URL string
	// Audience is the aud claim. Empty: [Audience]. One alone is a plain
	// string in the token, as with KORE; several are an array.
	Audience []string
	// Clients may get tokens. Empty: one demo client, see [Issuer.Client].
	Clients []Client
	// Keys are published, and the first of them signs. Empty: one new RS256 key.
	Keys []*Key
	// CacheControl is the Cache-Control header of the discovery document and of
	// the key set. Empty: there is none.
	CacheControl string
}

// Issuer is an issuer of KORE access tokens: a Keycloak realm with a discovery
// document and a key set, and two token endpoints. Its methods may be called
// at any time by any goroutine.
type Issuer struct {
	base         string // scheme://host
	audience     any    // string or []string
	cacheControl string
	firstClient  string
	apiKey       string
	mux          *http.ServeMux
	stranger     func() *Key
	close        func()
	requests     [endpoints]atomic.Int64

	mu        sync.Mutex // guards what is below; nothing waits while holding it
	clients   map[string]Client
	signing   Key
	published []Key
	behaviors [endpoints]Behavior
}

// NewIssuer starts an issuer. Nil options mean zero options. Close it when done.
// The error is an option that cannot be used, or an address that cannot be
// listened on.
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

// setUp does all that needs no network.
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
	return nil
}

func (i *Issuer) setURL(base string) error {
	if base == "" {
		return nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("koretest: URL: %w", err)
	}
	i.base = u.Scheme + "://" + u.Host
	if u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || base != i.base {
		return fmt.Errorf("koretest: URL %q is not http or https and a host alone", base)
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
	algorithm := i.signing.Algorithm // Rotate keeps it
	i.stranger = sync.OnceValue(func() *Key { return mustNewKey(algorithm) })
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
			at.IP = net.IPv4(127, 0, 0, 1) // ":8080" is no place to go to
		}
		i.base = "http://" + at.String()
	}
	// Closing connections does not reach a handler whose request has a body yet
	// to be read; ending the context does.
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

// Close stops listening and ends the requests under way. Later calls do
// nothing. Minting and [Issuer.HTTPClient] work on. An issuer that does not
// listen needs no Close.
func (i *Issuer) Close() { i.close() }

// URL is the issuer itself: the iss claim, and what koreauth.Config wants as
// Issuer.
func (i *Issuer) URL() string { return i.base + realmPath }

// KeysURL is where the key set is.
func (i *Issuer) KeysURL() string { return i.base + keysPath }

// TokenURL is KORE's token endpoint, POST /api-services/v1/auth/token, which
// takes client_id and client_secret in the form.
func (i *Issuer) TokenURL() string { return i.base + formTokenPath }

// BasicTokenURL is the token endpoint POST /oauth/v2/token, which takes
// client_id and client_secret by HTTP Basic, each form-urlencoded first (RFC
// 6749 §2.3.1).
func (i *Issuer) BasicTokenURL() string { return i.base + basicTokenPath }

// Client returns the first of Options.Clients or, where there was none, a demo
// client: kc_demo, with a random secret, every access to "API Clients", the
// products SuperSIM and ProgrammableWireless, and tokens of [OneHour].
func (i *Issuer) Client() Client {
	client, _ := i.client(i.firstClient)
	return client.clone()
}

// Register adds a client, or replaces the one of the same ID. As with KORE, only
// new tokens show the change. The error is a client that cannot be used.
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

// SigningKey returns the key that signs, as it is now.
func (i *Issuer) SigningKey() *Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := i.signing
	return &key
}

// Rotate makes a new key for the same algorithm, publishes it, and signs with it
// from now on. The keys before it stay published. It returns the new key's ID.
func (i *Issuer) Rotate() string {
	key := mustNewKey(i.SigningKey().Algorithm)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.signing = *key
	i.published = append(i.published, *key)
	return key.ID
}

// AddKey publishes a key, which signs nothing unless a [Token] names it. Nothing
// keeps two keys from having one ID. The error is a key that has no public half.
func (i *Issuer) AddKey(key *Key) error {
	if _, err := key.jwk(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = append(i.published, *key)
	return nil
}

// RemoveKey ends the publication of the keys with that ID. The key that signs
// goes on signing until [Issuer.Rotate]. An unknown ID changes nothing.
func (i *Issuer) RemoveKey(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.DeleteFunc(i.published, func(k Key) bool { return k.ID == id })
}

// KeyIDs returns the IDs of the published keys, oldest first, without the
// encryption key that the key set lists before them.
func (i *Issuer) KeyIDs() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	ids := make([]string, 0, len(i.published))
	for _, key := range i.published {
		ids = append(ids, key.ID)
	}
	return ids
}

// JWKS returns the key set as it is now, as the keys endpoint serves it: the
// published keys and, as Keycloak does, an encryption key (use "enc") before
// them.
func (i *Issuer) JWKS() []byte {
	keys := []Key{encryptionKey()} // made before the lock is held, for that takes time
	i.mu.Lock()
	keys = append(keys, i.published...)
	i.mu.Unlock()
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, key := range keys {
		public, err := key.jwk()
		if err != nil {
			panic(err) // AddKey has tried it
		}
		set.Keys = append(set.Keys, public)
	}
	document, err := json.Marshal(set)
	if err != nil {
		panic(err) // strings always marshal
	}
	return document
}

// Behave makes the endpoints named, or all of them if none is, behave so from
// the next request on. Nil ends any misbehaviour. [Issuer.Mint] and its like
// never misbehave.
func (i *Issuer) Behave(b Behavior, at ...Endpoint) {
	if len(at) == 0 {
		at = []Endpoint{DiscoveryEndpoint, KeysEndpoint, TokenEndpoint}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, endpoint := range at {
		i.behaviors[endpoint] = b
	}
}

// Requests returns how many requests have come to that endpoint, answered or
// not.
func (i *Issuer) Requests(at Endpoint) int { return int(i.requests[at].Load()) }

// ServeHTTP answers as the issuer, for tests that bring a server of their own.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.mux.ServeHTTP(w, r) }

// at counts the requests to an endpoint and makes it behave as it was told.
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

func (i *Issuer) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	document, err := json.Marshal(map[string]any{
		"issuer":                                i.URL(),
		"jwks_uri":                              i.KeysURL(),
		"token_endpoint":                        i.TokenURL(),
		"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		"grant_types_supported":                 []string{"client_credentials"},
		"response_types_supported":              []string{"none"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{i.SigningKey().Algorithm},
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	i.serveDocument(w, r, document)
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	i.serveDocument(w, r, i.JWKS())
}

// serveDocument answers with an ETag and, to who has the document, with 304.
func (i *Issuer) serveDocument(w http.ResponseWriter, r *http.Request, document []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(document)))
	if i.cacheControl != "" {
		h.Set("Cache-Control", i.cacheControl)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
}

// HTTPClient returns a client whose requests the issuer answers in the caller's
// goroutine, without a connection, whether it listens or not: the client to use
// in a testing/synctest bubble. Requests to any other host fail. An answer
// arrives whole, once all of it has been written.
func (i *Issuer) HTTPClient() *http.Client { return &http.Client{Transport: transport{i}} }

// transport is the http.RoundTripper of HTTPClient.
type transport struct{ issuer *Issuer }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	if base := r.URL.Scheme + "://" + r.URL.Host; base != t.issuer.base {
		return nil, fmt.Errorf("koretest: %s is not the issuer, which is %s", base, t.issuer.base)
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
		return nil, fmt.Errorf("koretest: the connection was closed without an answer: %w", io.EOF)
	}
	response := recorder.Result()
	response.Request = r
	if r.Method == http.MethodHead {
		response.Body = http.NoBody
	}
	return response, nil
}

// serverRequest is a client's request as a server sees it.
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

// serveAborting tells whether the handler aborted as a server's handler may, by
// http.ErrAbortHandler. Any other panic goes on.
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
