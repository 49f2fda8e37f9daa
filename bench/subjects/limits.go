package subjects

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// Verify is the lower bound for a new token. It hashes the signed part and verifies the signature with a given key, and
// parses and decodes nothing. It reports whether the signature is valid.
func Verify(key crypto.PublicKey, t *Token) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		digest := sha256.Sum256(t.Input)
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], t.Signature) == nil
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(t.Input)
		return ecdsa.VerifyASN1(key, digest[:], t.Signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, t.Input, t.Signature)
	}
	return false
}

// Cached is the lower bound for a cached token: its SHA-256 and a map lookup.
type Cached map[[sha256.Size]byte]bool

// Add stores a token.
func (m Cached) Add(t *Token) { m[sha256.Sum256(t.Bytes)] = true }

// Has reports whether a token was added.
func (m Cached) Has(t *Token) bool { return m[sha256.Sum256(t.Bytes)] }

// OnlyVerifies is the lower bound for a server: a middleware that splits the token, verifies its RS256 signature, and
// checks nothing else.
func OnlyVerifies(key *rsa.PublicKey) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			dot := strings.LastIndexByte(token, '.')
			signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
			if err != nil {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			digest := sha256.Sum256([]byte(token[:max(dot, 0)]))
			if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
