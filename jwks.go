package koreauth

import (
	"context"
	"crypto"
	"fmt"
	"slices"

	"github.com/koreauth/koreauth/internal/jwk"
	"github.com/koreauth/koreauth/internal/jws"
)

// KeySet finds the keys of an issuer. [StaticKeySet] and [RemoteKeySet] implement
// it; implement it yourself to get keys from elsewhere.
type KeySet interface {
	// Keys returns the keys whose ID is kid, or all keys if kid is empty. If there
	// is none, Keys returns an empty slice or ErrUnknownKey, or the keys without an
	// ID, one of which may have signed the token. Any other error counts
	// as ErrUnavailable. Keys may use the network only if fetch is true, and must
	// then return when ctx is done. It is called for every token, and must be safe
	// for concurrent use by multiple goroutines. Neither the caller nor the KeySet
	// may change the returned keys.
	Keys(ctx context.Context, kid string, fetch bool) ([]Key, error)
}

// Key is a public key of an issuer.
type Key struct {
	// ID is the "kid" (RFC 7517 §4.5). If ID is empty, the key is used for tokens
	// whose "kid" no key has, and for tokens without a "kid".
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
	return k.ID == other.ID && k.Algorithm == other.Algorithm && jws.SameKey(k.Public, other.Public)
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
	found := slices.DeleteFunc(slices.Clone(s), func(k Key) bool { return k.ID != kid })
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

// mayHaveSigned returns the keys to try for a token with that kid: if no key has the
// ID, those without an ID.
func (x *keyIndex) mayHaveSigned(kid string) []Key {
	if keys := x.find(kid); len(keys) > 0 {
		return keys
	}
	return x.byID[""]
}

// Keys implements KeySet, for the index of a StaticKeySet.
func (x *keyIndex) Keys(_ context.Context, kid string, _ bool) ([]Key, error) {
	return x.mayHaveSigned(kid), nil
}

// ParseKeys returns the keys of a JWK Set (RFC 7517 §5) that can verify
// signatures. It ignores every other key: keys of other types and curves, keys for
// encryption ("use", "key_ops", "alg"), RSA keys under 2048 bits, points that are
// not on the curve, and private keys, because publishing them has compromised them. If
// no key is usable, the error says why.
func ParseKeys(jwks []byte) ([]Key, error) {
	keys, _, err := parseKeys(jwks)
	if err != nil {
		return nil, fmt.Errorf("koreauth: %w", err)
	}
	return keys, nil
}

// parseKeys is ParseKeys that also says which keys were ignored.
func parseKeys(jwks []byte) ([]Key, jwk.Ignored, error) {
	parsed, ignored, err := jwk.ParseSet(jwks)
	keys := make([]Key, len(parsed))
	for i := range parsed {
		keys[i] = Key(parsed[i])
	}
	return keys, ignored, err
}
