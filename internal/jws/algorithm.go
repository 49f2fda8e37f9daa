// Package jws verifies the signatures of JSON Web Signatures (RFC 7515) and decodes
// their segments. It calls the standard library for both.
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // for the algorithms below
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Algorithm is a signature algorithm of RFC 7518 §3.1 or RFC 8037 §3.1.
type Algorithm struct {
	hash   crypto.Hash
	scheme scheme
	curve  elliptic.Curve // for ECDSA
}

type scheme int

const (
	noScheme scheme = iota // the zero Algorithm, which verifies nothing
	rsaPKCS1
	rsaPSS
	ecdsaRaw
	ed25519Pure
)

// Lookup returns the algorithm of that name. It returns false if the name is
// unknown, or is that of an algorithm without a public key.
func Lookup(name string) (Algorithm, bool) {
	a, ok := algorithms[name]
	return a, ok
}

var algorithms = map[string]Algorithm{
	"RS256": {crypto.SHA256, rsaPKCS1, nil},
	"RS384": {crypto.SHA384, rsaPKCS1, nil},
	"RS512": {crypto.SHA512, rsaPKCS1, nil},
	"PS256": {crypto.SHA256, rsaPSS, nil},
	"PS384": {crypto.SHA384, rsaPSS, nil},
	"PS512": {crypto.SHA512, rsaPSS, nil},
	"ES256": {crypto.SHA256, ecdsaRaw, elliptic.P256()},
	"ES384": {crypto.SHA384, ecdsaRaw, elliptic.P384()},
	"ES512": {crypto.SHA512, ecdsaRaw, elliptic.P521()},
	"EdDSA": {0, ed25519Pure, nil},
}

// Accepts reports whether the algorithm can be used with the key.
func (a Algorithm) Accepts(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return (a.scheme == rsaPKCS1 || a.scheme == rsaPSS) && checkRSA(key) == nil
	case *ecdsa.PublicKey:
		return a.scheme == ecdsaRaw && hasPoint(key) && key.Curve == a.curve
	case ed25519.PublicKey:
		return a.scheme == ed25519Pure && len(key) == ed25519.PublicKeySize
	}
	return false
}

// Verify verifies a signature with a key that the algorithm accepts. It calls the
// standard library, because jws.Verify of jwx accepts PSS salts of any length and
// RFC 7518 §3.5 requires the length of the hash.
func (a Algorithm) Verify(key crypto.PublicKey, signed string, signature []byte) bool {
	if a.scheme == ed25519Pure {
		return ed25519.Verify(key.(ed25519.PublicKey), []byte(signed), signature)
	}
	pool := hashers[a.hash]
	if pool == nil { // the zero Algorithm
		return false
	}
	h := pool.Get().(*hasher)
	defer pool.Put(h)
	digest := h.sumOf(signed)
	switch a.scheme {
	case rsaPKCS1:
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), a.hash, digest, signature) == nil
	case rsaPSS:
		salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(key.(*rsa.PublicKey), a.hash, digest, signature, salt) == nil
	case ecdsaRaw:
		// RFC 7518 §3.4: R and S, each as long as the order of the curve.
		size := (a.curve.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		var buffer [2*66 + 9]byte // enough for P-521
		return ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), digest, appendASN1(buffer[:0], signature[:size], signature[size:]))
	}
	return false
}

// appendASN1 appends the signature in the form that crypto/ecdsa takes: a
// SEQUENCE of two INTEGERs (RFC 3279 §2.2.3). R and S are unsigned and have at
// most 66 bytes.
func appendASN1(to, r, s []byte) []byte {
	var body [2 * (2 + 1 + 66)]byte
	content := appendInteger(appendInteger(body[:0], r), s)
	to = append(to, 0x30)
	if len(content) > 127 {
		to = append(to, 0x81)
	}
	return append(append(to, byte(len(content))), content...)
}

func appendInteger(to, n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	if n[0] > 127 { // A leading zero keeps the number positive.
		return append(append(to, 2, byte(len(n)+1), 0), n...)
	}
	return append(append(to, 2, byte(len(n))), n...)
}

// CheckKey returns an error if no algorithm can use the key or, unless name is
// empty, if the algorithm of that name cannot.
func CheckKey(name string, public crypto.PublicKey) error {
	if err := checkPublic(public); err != nil {
		return err
	}
	if a, _ := Lookup(name); name != "" && !a.Accepts(public) {
		return errors.New(`"alg" is not a signature algorithm for this type of key`)
	}
	return nil
}

func checkPublic(public crypto.PublicKey) error {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return checkRSA(public)
	case *ecdsa.PublicKey:
		if !hasPoint(public) {
			return errors.New("an empty EC key")
		}
		if _, err := public.ECDH(); err != nil {
			return errors.New("not a point on P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return errors.New("an Ed25519 key must have 32 bytes")
		}
	default:
		return fmt.Errorf("a %T is not a public key: use an *rsa.PublicKey, an *ecdsa.PublicKey or an ed25519.PublicKey", public)
	}
	return nil
}

// hasPoint reports whether the key is complete: crypto/ecdsa panics if it is not.
func hasPoint(public *ecdsa.PublicKey) bool {
	//lint:ignore SA1019 Nothing else tells whether the coordinates are nil.
	return public != nil && public.Curve != nil && public.X != nil && public.Y != nil
}

// MaxExponent is the largest RSA exponent that crypto/rsa accepts.
const MaxExponent = 1<<31 - 1

func checkRSA(public *rsa.PublicKey) error {
	if public == nil || public.N == nil || public.N.BitLen() < 2048 {
		return errors.New("an RSA key must have 2048 bits or more (RFC 7518 §3.3)")
	}
	if public.N.Bit(0) == 0 || public.E < 3 || public.E%2 == 0 || public.E > MaxExponent {
		return errors.New("an RSA modulus must be odd, and its exponent odd and between 3 and 2^31-1")
	}
	return nil
}

// Digest is the SHA-256 of a whole token. It identifies a token without storing
// it.
type Digest = [sha256.Size]byte

// SHA256 returns the SHA-256 of s.
func SHA256(s string) Digest {
	h := sha256Hashers.Get().(*hasher)
	defer sha256Hashers.Put(h)
	return Digest(h.sumOf(s))
}

// hasher hashes strings without copying them as a whole.
type hasher struct {
	hash   hash.Hash
	buffer [1024]byte
	sum    [64]byte // enough for SHA-512
}

// sumOf returns the hash of s, which is overwritten by the next call.
func (h *hasher) sumOf(s string) []byte {
	h.hash.Reset()
	for s != "" {
		n := copy(h.buffer[:], s)
		h.hash.Write(h.buffer[:n])
		s = s[n:]
	}
	return h.hash.Sum(h.sum[:0])
}

var (
	sha256Hashers = newHashers(crypto.SHA256)
	hashers       = map[crypto.Hash]*sync.Pool{
		crypto.SHA256: sha256Hashers,
		crypto.SHA384: newHashers(crypto.SHA384),
		crypto.SHA512: newHashers(crypto.SHA512),
	}
)

func newHashers(h crypto.Hash) *sync.Pool {
	return &sync.Pool{New: func() any { return &hasher{hash: h.New()} }}
}
