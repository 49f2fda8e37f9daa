package koretest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash.New
	_ "crypto/sha512" // for crypto.Hash.New
	"encoding/base64"
	"fmt"
	"math/big"
	"sync"
)

// Key is a key that signs tokens. An [Issuer] publishes its public half.
type Key struct {
	// ID is the key's kid, in the key set and in the header of its tokens. If ID
	// is empty, kid is left out.
	ID string
	// Algorithm is the signature algorithm: RS256, RS384, RS512, PS256, PS384,
	// PS512, ES256, ES384, ES512, EdDSA, HS256, HS384 or HS512. Keys for the HS
	// algorithms cannot be published.
	Algorithm string
	// Use is the published use of the key. Empty means "sig".
	Use string
	// Private is an *rsa.PrivateKey, an *ecdsa.PrivateKey, an
	// ed25519.PrivateKey, or a secret of type []byte for the HS algorithms.
	Private crypto.PrivateKey
}

// NewKey returns a new key for the algorithm, with a random ID. RSA keys have
// 2048 bits. Making one takes a noticeable part of a second, so tests with many
// issuers should share a key through [Options].Keys. NewKey returns an error if
// [Key] does not list the algorithm.
func NewKey(algorithm string) (*Key, error) {
	private, err := generate(algorithm)
	if err != nil {
		return nil, err
	}
	return &Key{ID: randomText(32), Algorithm: algorithm, Private: private}, nil
}

func generate(algorithm string) (crypto.PrivateKey, error) {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case "HS256", "HS384", "HS512":
		return []byte(randomText(64)), nil
	}
	return nil, fmt.Errorf("koretest: NewKey: algorithm %q is not supported", algorithm)
}

// Public returns the public half of the key: an *rsa.PublicKey, an
// *ecdsa.PublicKey or an ed25519.PublicKey. It returns nil if Private is a secret
// or not set.
func (k *Key) Public() crypto.PublicKey {
	if signer, ok := k.Private.(crypto.Signer); ok {
		return signer.Public()
	}
	return nil
}

// mustNewKey is NewKey for an algorithm that is known to be supported.
func mustNewKey(algorithm string) *Key {
	key, err := NewKey(algorithm)
	if err != nil {
		panic(err)
	}
	return key
}

// encryptionKey returns the key that Keycloak lists before the signing keys. It
// is never used, so all issuers of a process share one.
var encryptionKey = sync.OnceValue(func() Key {
	key := mustNewKey("RS256")
	key.Algorithm, key.Use = "RSA-OAEP", "enc"
	return *key
})

// jwk is a public key as a JSON Web Key (RFC 7517), with Keycloak's order of
// members.
type jwk struct {
	ID        string `json:"kid,omitempty"`
	Type      string `json:"kty"`
	Algorithm string `json:"alg,omitempty"`
	Use       string `json:"use"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

func (k *Key) jwk() (jwk, error) {
	j := jwk{ID: k.ID, Algorithm: k.Algorithm, Use: cmp.Or(k.Use, "sig")}
	switch public := k.Public().(type) {
	case *rsa.PublicKey:
		j.Type = "RSA"
		j.N = encode(public.N.Bytes())
		j.E = encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, X, Y
		if err != nil {
			return jwk{}, fmt.Errorf("koretest: key %q: %w", k.ID, err)
		}
		half := len(point) / 2
		j.Type, j.Curve = "EC", public.Curve.Params().Name
		j.X, j.Y = encode(point[1:1+half]), encode(point[1+half:])
	case ed25519.PublicKey:
		j.Type, j.Curve, j.X = "OKP", "Ed25519", encode(public)
	default:
		return jwk{}, fmt.Errorf("koretest: key %q has no public half and cannot be published", k.ID)
	}
	return j, nil
}

// sign returns a signature as specified in RFC 7518 §3, or in RFC 8037 for EdDSA.
// It accepts weak keys and keys of another curve, because tests need them.
func sign(algorithm string, private crypto.PrivateKey, input []byte) ([]byte, error) {
	family, size := algorithm[:min(2, len(algorithm))], algorithm[min(2, len(algorithm)):]
	hash, hashed := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[size]
	var digest []byte
	if hashed {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	switch key := private.(type) {
	case *rsa.PrivateKey:
		if hashed && family == "RS" {
			return rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
		}
		if hashed && family == "PS" {
			return rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PrivateKey:
		if hashed && family == "ES" {
			return signECDSA(key, digest)
		}
	case ed25519.PrivateKey:
		if algorithm == "EdDSA" {
			return ed25519.Sign(key, input), nil
		}
	case []byte:
		if hashed && family == "HS" {
			mac := hmac.New(hash.New, key)
			mac.Write(input)
			return mac.Sum(nil), nil
		}
	}
	return nil, fmt.Errorf("koretest: a key of type %T cannot sign with algorithm %q", private, algorithm)
}

// signECDSA returns R and S, each as long as the curve's order (RFC 7518 §3.4).
// The ASN.1 form of crypto/ecdsa is not allowed in a JWS.
func signECDSA(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().N.BitLen() + 7) / 8
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return signature, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// randomText returns n random bytes, encoded in base64url.
func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return encode(b)
}
