// Package devissuer is the issuer that the command "koreauth issuer" runs: an
// issuer of KORE access tokens for development, with a page that makes tokens,
// valid or not, and explains them.
//
// Anyone who can connect to it can make any token. So it listens on loopback only,
// answers only requests whose Host is a name of loopback, and rejects the requests
// of other web pages.
package devissuer

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"sync"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// Issuer is a development issuer and its page. Create one with [New]. It is an
// http.Handler, and safe for concurrent use by multiple goroutines.
type Issuer struct {
	issuer      *koretest.Issuer
	validator   *koreauth.Validator // explains tokens
	unpublished func() (*koretest.Key, error)
	handler     http.Handler

	mu        sync.Mutex // guards endpoints and behavior
	endpoints string     // which endpoints behave that way
	behavior  string
}

// New returns an issuer whose URL is base and /realms/KORE-CIDP. base is a scheme and
// a host, such as http://127.0.0.1:8081. The keys are published, and the first one
// signs. The secrets of the clients are derived from it, so that they stay the same
// with the same key.
func New(base string, keys []*koretest.Key) (*Issuer, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("devissuer: there is no key: pass at least one")
	}
	registered, err := withSecrets(keys[0])
	if err != nil {
		return nil, err
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: base, Clients: registered, Keys: keys})
	if err != nil {
		return nil, fmt.Errorf("devissuer: %w", err)
	}
	validator, err := newValidator(issuer, keys)
	if err != nil {
		return nil, err
	}
	i := &Issuer{issuer: issuer, validator: validator, endpoints: endpoints[0].ID, behavior: behaviors[0].ID}
	i.unpublished = sync.OnceValues(func() (*koretest.Key, error) { return koretest.NewKey(keys[0].Algorithm) })
	mux := http.NewServeMux()
	mux.Handle("/", issuer)
	i.servePage(mux)
	i.handler = onLoopback(http.NewCrossOriginProtection().Handler(mux))
	return i, nil
}

// newValidator returns a validator that accepts what an API with the issuer's URL and
// audience accepts. It fetches no keys, because it has them.
func newValidator(issuer *koretest.Issuer, keys []*koretest.Key) (*koreauth.Validator, error) {
	published, err := koreauth.ParseKeys(issuer.JWKS())
	if err != nil {
		return nil, fmt.Errorf("devissuer: %w", err)
	}
	config := koreauth.Config{
		Issuer:   issuer.URL(),
		Audience: []string{koretest.Audience},
		Keys:     koreauth.StaticKeySet(published),
	}
	seen := map[string]bool{}
	for _, key := range keys {
		if !seen[key.Algorithm] {
			seen[key.Algorithm] = true
			config.Algorithms = append(config.Algorithms, key.Algorithm)
		}
	}
	validator, err := koreauth.NewValidator(config)
	if err != nil {
		return nil, fmt.Errorf("devissuer: %w", err)
	}
	return validator, nil
}

// ServeHTTP serves the endpoints of the issuer, and the page at "/".
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.handler.ServeHTTP(w, r) }

// Client returns the client whose credentials are printed. It has every permission.
func (i *Issuer) Client() koretest.Client { return i.issuer.Client() }

// withSecrets returns the clients, each with a secret that is derived from the key.
func withSecrets(key *koretest.Key) ([]koretest.Client, error) {
	private, err := x509.MarshalPKCS8PrivateKey(key.Private)
	if err != nil {
		return nil, fmt.Errorf("devissuer: the first key cannot be used: %w", err)
	}
	secrets := make([]koretest.Client, len(clients))
	for n, registered := range clients {
		client := registered.client
		client.ID = registered.ID
		secret, err := hkdf.Key(sha256.New, private, nil, "koreauth issuer: the secret of "+client.ID, 24)
		if err != nil {
			return nil, fmt.Errorf("devissuer: the secret of %s cannot be derived: %w", client.ID, err)
		}
		client.Secret = base64.RawURLEncoding.EncodeToString(secret)
		secrets[n] = client
	}
	return secrets, nil
}
