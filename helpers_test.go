package koreauth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// bearerRequest returns a request with the token in its Authorization header, or
// without the header if token is empty.
func bearerRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// testIssuer has its own signing key and serves no HTTP.
var testIssuer = sync.OnceValue(func() *koretest.Issuer {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://issuer.example"})
	if err != nil {
		panic(err)
	}
	return issuer
})

// newTestValidator returns a validator with the keys of testIssuer.
func newTestValidator(t *testing.T) *koreauth.Validator {
	t.Helper()
	keys, err := koreauth.ParseKeys(testIssuer().JWKS())
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: testIssuer().URL(), Audience: []string{koretest.Audience}, Keys: koreauth.StaticKeySet(keys),
	})
	require.NoError(t, err)
	return validator
}

// tokenTable is a TokenValidator that accepts the tokens in claims and records
// every token that it is asked to validate.
type tokenTable struct {
	claims map[string]*koreauth.Claims

	mu        sync.Mutex // guards validated
	validated []string
}

// newTokenTable returns a table with the tokens a and b. Token a has scope-a and
// token b has scope-b.
func newTokenTable() *tokenTable {
	return &tokenTable{claims: map[string]*koreauth.Claims{
		"a": {ClientID: "client-a", Scopes: []string{"scope-a"}},
		"b": {ClientID: "client-b", Scopes: []string{"scope-b"}},
	}}
}

func (b *tokenTable) Validate(_ context.Context, token string) (*koreauth.Claims, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.validated = append(b.validated, token)
	if claims, ok := b.claims[token]; ok {
		return claims, nil
	}
	return nil, koreauth.ErrSignature
}

// whoami writes the client ID of the claims in the context, or "nobody".
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, ok := koreauth.FromContext(r.Context())
	if !ok {
		fmt.Fprint(w, "nobody")
		return
	}
	fmt.Fprint(w, claims.ClientID)
})

// serve sends r to handler and returns the status and the body.
func serve(handler http.Handler, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// replaceToken is a middleware that sets the request's token. An empty token
// removes it.
func replaceToken(token string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.Header.Del("Authorization")
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// injectClaims is a middleware that adds claims to the context with NewContext.
func injectClaims(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims := &koreauth.Claims{ClientID: "injected", Scopes: []string{"scope-a", "scope-b"}}
		next.ServeHTTP(w, r.WithContext(koreauth.NewContext(r.Context(), claims)))
	})
}

// chain nests the middlewares. The first is the outermost.
func chain(handler http.Handler, middlewares ...func(http.Handler) http.Handler) http.Handler {
	for _, middleware := range slices.Backward(middlewares) {
		handler = middleware(handler)
	}
	return handler
}

// mutate changes every field of c, and everything that its fields point to.
func mutate(c *koreauth.Claims) {
	for _, list := range [][]string{c.Scopes, c.Audience, c.Products, c.IPRanges} {
		for i := range list {
			list[i] = "changed"
		}
		_ = append(list[:0], "changed", "changed")
	}
	for i := range c.Resources {
		for k := range c.Resources[i].Access {
			c.Resources[i].Access[k] = "changed"
		}
		c.Resources[i] = koreauth.Resource{Name: "changed", Access: []koreauth.Access{"changed"}}
	}
	*c = koreauth.Claims{ClientID: "changed"}
}

// fullClaims returns claims with a value in every slice.
func fullClaims() *koreauth.Claims {
	return &koreauth.Claims{
		ClientID: "c", Scopes: []string{"s", "t"}, Audience: []string{"api-gw"}, Products: []string{"SuperSIM"}, IPRanges: []string{"10.0.0.0/8"},
		Resources: []koreauth.Resource{{Name: "API Clients", Access: []koreauth.Access{koreauth.Read, koreauth.Write}}},
	}
}

// validateFunc is a function that is a TokenValidator.
type validateFunc func(context.Context, string) (*koreauth.Claims, error)

func (f validateFunc) Validate(ctx context.Context, token string) (*koreauth.Claims, error) {
	return f(ctx, token)
}

// signingKeys returns one key for each algorithm. All tests share the keys.
var signingKeys = sync.OnceValue(func() map[string]*koretest.Key {
	keys := make(map[string]*koretest.Key)
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		key, err := koretest.NewKey(alg)
		if err != nil {
			panic(err)
		}
		keys[alg] = key
	}
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512"} {
		keys[alg] = &koretest.Key{ID: "kid-" + alg, Algorithm: alg, Private: keys["RS256"].Private}
	}
	return keys
})

const issuerURL = "https://issuer.example"

// newIssuer returns an issuer that needs no network, and a validator for it. The
// issuer signs with the key for alg. edit may be nil.
func newIssuer(t *testing.T, alg string, edit func(*koreauth.Config)) (*koretest.Issuer, *koreauth.Validator) {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: issuerURL, Keys: []*koretest.Key{signingKeys()[alg]}})
	require.NoError(t, err)
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient()}
	if edit != nil {
		edit(&config)
	}
	v, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	return issuer, v
}

// mintToken returns the token that issuer makes of recipe.
func mintToken(t *testing.T, issuer *koretest.Issuer, recipe koretest.Token) string {
	t.Helper()
	token, err := issuer.Mint(recipe)
	require.NoError(t, err)
	return token
}

// keySetFunc is a function that is a custom KeySet.
type keySetFunc func(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error)

func (f keySetFunc) Keys(ctx context.Context, kid string, fetch bool) ([]koreauth.Key, error) {
	return f(ctx, kid, fetch)
}

// parseClaims returns the claims of a payload. No signature is involved.
func parseClaims(t *testing.T, payload string) *koreauth.Claims {
	t.Helper()
	claims := new(koreauth.Claims)
	require.NoError(t, json.Unmarshal([]byte(payload), claims))
	return claims
}

// b64tokenChars are the characters of a b64token without its padding (RFC 6750
// §2.1).
const b64tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

func post(contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

// get returns a GET request with the given header names and values.
func get(target string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// keyDocument returns a JWK Set with the public key of key.
func keyDocument(t *testing.T, key *koretest.Key) []byte {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: issuerURL, Keys: []*koretest.Key{key}})
	require.NoError(t, err)
	return issuer.JWKS()
}

// signToken returns a token with any header and payload, signed with the Ed25519
// key "k".
func signToken(header, payload string) string {
	signed := rawURL([]byte(header)) + "." + rawURL([]byte(payload))
	return signed + "." + rawURL(ed25519.Sign(edKey("k"), []byte(signed)))
}

// ed25519Header is the usual header of a token made by signToken.
const ed25519Header = `{"alg":"EdDSA","kid":"k"}`

// misuse is a programming error that must panic.
type misuse struct {
	name string
	do   func()
}

func runMisuse(t *testing.T, all []misuse) {
	for _, test := range all {
		t.Run(test.name, func(t *testing.T) {
			defer func() {
				value := recover()
				if assert.NotNil(t, value, "no panic") {
					assert.True(t, strings.HasPrefix(fmt.Sprint(value), "koreauth: "), "the panic value is %q", value)
				}
			}()
			test.do()
		})
	}
}
