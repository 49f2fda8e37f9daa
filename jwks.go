package koreauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/koreauth/koreauth/internal/jws"
)

// KeySet finds the keys of an issuer. [StaticKeySet] and [RemoteKeySet] implement
// it; implement it yourself to get keys from elsewhere.
type KeySet interface {
	// Keys returns the keys whose ID is kid, or all keys if kid is empty. If there
	// is none, Keys returns an empty slice or ErrUnknownKey. Any other error counts
	// as ErrUnavailable. Keys may use the network only if fetch is true, and must
	// then return when ctx is done. It is called for every token, and must be safe
	// for concurrent use by multiple goroutines. Neither the caller nor the KeySet
	// may change the returned keys.
	Keys(ctx context.Context, kid string, fetch bool) ([]Key, error)
}

// Key is a public key of an issuer.
type Key struct {
	// ID is the "kid" (RFC 7517 §4.5). If ID is empty, the key is used only for
	// tokens without a "kid".
	ID string
	// Algorithm is the one "alg" that the key may be used with (RFC 7517 §4.4). If
	// Algorithm is empty, the key may be used with any that its type supports.
	Algorithm string
	// Public is an *rsa.PublicKey of at least 2048 bits, an *ecdsa.PublicKey on
	// P-256, P-384 or P-521, or an ed25519.PublicKey.
	Public crypto.PublicKey
}

// equal compares keys by value, because a refresh replaces each key by a copy.
func (k *Key) equal(other *Key) bool {
	if k.ID != other.ID || k.Algorithm != other.Algorithm {
		return false
	}
	switch public := k.Public.(type) {
	case *rsa.PublicKey:
		o, ok := other.Public.(*rsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case *ecdsa.PublicKey:
		o, ok := other.Public.(*ecdsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case ed25519.PublicKey:
		o, ok := other.Public.(ed25519.PublicKey)
		return ok && bytes.Equal(public, o)
	}
	return false
}

// StaticKeySet is a [KeySet] of keys that never change.
type StaticKeySet []Key

// Keys returns the keys whose ID is kid, or all keys if kid is empty. If there is
// none, the error is ErrUnknownKey. Keys searches the slice; a [Validator] makes an
// index of a StaticKeySet.
func (s StaticKeySet) Keys(_ context.Context, kid string, _ bool) ([]Key, error) {
	if kid == "" {
		return slices.Clip(s), nil
	}
	var found []Key
	for _, key := range s {
		if key.ID == kid {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		return nil, ErrUnknownKey
	}
	return found, nil
}

// keyIndex finds keys by their ID.
type keyIndex struct {
	all  []Key
	byID map[string][]Key
}

func newKeyIndex(keys []Key) keyIndex {
	x := keyIndex{slices.Clip(slices.Clone(keys)), make(map[string][]Key, len(keys))}
	for _, key := range x.all {
		x.byID[key.ID] = append(x.byID[key.ID], key)
	}
	for id, same := range x.byID {
		x.byID[id] = slices.Clip(same) // Appending to a result must copy it.
	}
	return x
}

func (x *keyIndex) find(kid string) []Key {
	if kid == "" {
		return x.all
	}
	return x.byID[kid]
}

// Keys implements KeySet, for the index of a StaticKeySet.
func (x *keyIndex) Keys(_ context.Context, kid string, _ bool) ([]Key, error) {
	return x.find(kid), nil
}

// ParseKeys returns the keys of a JWK Set (RFC 7517 §5) that can verify
// signatures. It ignores every other key: keys of other types and curves, keys for
// encryption ("use", "key_ops", "alg"), RSA keys under 2048 bits, points that are
// not on the curve, and private keys, because publishing them has compromised them. If
// no key is usable, the error says why.
func ParseKeys(jwks []byte) ([]Key, error) {
	keys, _, err := parseKeys(jwks)
	return keys, err
}

// maxReasons is the maximum number of ignored keys that are reported one by one.
const maxReasons = 1000

// ignoredKeys says which keys of a JWK Set were ignored.
type ignoredKeys struct {
	count   int
	reasons []string // the first maxReasons of them
}

// parseKeys is ParseKeys that also reports the ignored keys.
func parseKeys(jwks []byte) ([]Key, ignoredKeys, error) {
	var document map[string]json.RawMessage // a struct would ignore the case of names
	if err := json.Unmarshal(jwks, &document); err != nil {
		return nil, ignoredKeys{}, errors.New("koreauth: the key set is not a JSON object")
	}
	var members []json.RawMessage
	if err := json.Unmarshal(document["keys"], &members); err != nil {
		return nil, ignoredKeys{}, errors.New(`koreauth: the key set has no array "keys"`)
	}
	var keys []Key
	var ignored ignoredKeys
	for i, member := range members {
		key, err := parseKey(member)
		if err == nil {
			keys = append(keys, key)
			continue
		}
		if ignored.count++; ignored.count <= maxReasons {
			ignored.reasons = append(ignored.reasons, fmt.Sprintf("%s: %v", nameOf(key, i), err))
		}
	}
	if len(keys) > 0 {
		return keys, ignored, nil
	}
	why := "it is empty"
	if ignored.count > 0 {
		why = strings.Join(ignored.reasons[:min(10, len(ignored.reasons))], "; ")
	}
	return nil, ignored, fmt.Errorf("koreauth: the key set has no usable signing key: %s", why)
}

// nameOf names a key by its ID or, without one, by its position in the set.
func nameOf(key Key, position int) string {
	if key.ID == "" {
		return fmt.Sprintf("key %d", position)
	}
	return fmt.Sprintf("key %q", truncate(printable(key.ID), maxUnverified))
}

// parseKey reads one JWK. It reads the members about the key here and leaves only
// the key itself to jwx, so that an unusual member does not make the key unusable.
func parseKey(member []byte) (key Key, err error) {
	var jwkMembers map[string]json.RawMessage
	if err := json.Unmarshal(member, &jwkMembers); err != nil {
		return key, errors.New("not a JSON object")
	}
	var use string
	operations := []string{"verify"}
	for _, m := range []struct {
		name string
		to   any
	}{{"kid", &key.ID}, {"alg", &key.Algorithm}, {"use", &use}, {"key_ops", &operations}} {
		if value, ok := jwkMembers[m.name]; ok && string(value) != "null" && json.Unmarshal(value, m.to) != nil {
			return key, fmt.Errorf("%q has the wrong type", m.name)
		}
	}
	if _, private := jwkMembers["d"]; private {
		return key, errors.New("a private key")
	}
	if use != "" && use != "sig" || !slices.Contains(operations, "verify") {
		return key, errors.New("not for signatures")
	}
	material := make(map[string]json.RawMessage)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if value, ok := jwkMembers[name]; ok {
			material[name] = value
		}
	}
	document, err := json.Marshal(material)
	if err != nil {
		return key, err
	}
	parsed, err := jwk.ParseKey(document)
	if err != nil {
		return key, errors.New("not a key of a known type")
	}
	if public, ok := parsed.(jwk.RSAPublicKey); ok && new(big.Int).SetBytes(public.E()).Cmp(big.NewInt(jws.MaxExponent)) > 0 {
		return key, errors.New("an RSA exponent over 2^31-1") // Raw would truncate it.
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return key, errors.New("not a key of a known type")
	}
	key.Public = raw
	return key, jws.CheckKey(key.Algorithm, raw)
}
