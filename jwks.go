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
	// is none, Keys returns an empty slice or ErrUnknownKey, or the keys without an
	// ID, one of which may have signed the token. Any other error counts
	// as ErrUnavailable. Keys may use the network only if fetch is true, and must
	// then return when ctx is done. It is called for every token, and must be safe
	// for concurrent use by multiple goroutines. The caller does not change the
	// result, and neither may the KeySet.
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
	return k.ID == other.ID && k.Algorithm == other.Algorithm && samePublicKey(k.Public, other.Public)
}

func samePublicKey(a, b crypto.PublicKey) bool {
	switch public := a.(type) {
	case *rsa.PublicKey:
		o, ok := b.(*rsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case *ecdsa.PublicKey:
		o, ok := b.(*ecdsa.PublicKey)
		return ok && (public == o || public.Equal(o))
	case ed25519.PublicKey:
		o, ok := b.(ed25519.PublicKey)
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
// not on the curve, and private keys, which their publication has compromised. A
// document without a usable key is an error that says why.
func ParseKeys(jwks []byte) ([]Key, error) {
	keys, _, err := parseKeys(jwks)
	return keys, err
}

// maxKeys is the maximum number of keys of a JWK Set that are read, and of ignored
// keys that are reported.
const maxKeys = 1000

// ignoredKeys says which keys of a JWK Set were ignored, and why.
type ignoredKeys struct {
	count   int
	reasons []string          // of the first maxKeys
	byID    map[string]string // the reason by the ID of the key
	signing []string          // the reasons of the keys that are not for encryption
}

// add adds the key at that position.
func (i *ignoredKeys) add(key Key, position int, err error) {
	if i.count++; i.count > maxKeys {
		return
	}
	reason := fmt.Sprintf("%s: %v", nameOf(key, position), err)
	i.reasons = append(i.reasons, reason)
	if err != errEncryption {
		i.signing = append(i.signing, reason)
	}
	if key.ID != "" {
		if i.byID == nil {
			i.byID = make(map[string]string)
		}
		i.byID[key.ID] = err.Error()
	}
}

var (
	errEncryption   = errors.New("not for signatures")
	errUnknownType  = errors.New("not a key of a known type")
	errInvalidKey   = errors.New("not a valid key on a known curve")
	errTooManyInSet = fmt.Errorf("the set has more than %d keys", maxKeys)
)

// parseKeys is ParseKeys that also reports the ignored keys.
func parseKeys(jwks []byte) ([]Key, ignoredKeys, error) {
	var document map[string]json.RawMessage // a struct would ignore the case of names
	if err := json.Unmarshal(jwks, &document); err != nil {
		return nil, ignoredKeys{}, errors.New("koreauth: the key set is not a JSON object")
	}
	members := json.NewDecoder(bytes.NewReader(document["keys"]))
	if start, err := members.Token(); err != nil || start != json.Delim('[') {
		return nil, ignoredKeys{}, errors.New(`koreauth: the key set has no array "keys"`)
	}
	var keys []Key
	var ignored ignoredKeys
	known := 0 // keys of a known type, each of which takes time
	var member json.RawMessage
	for position := 0; members.More(); position++ {
		if err := members.Decode(&member); err != nil {
			return nil, ignoredKeys{}, errors.New(`koreauth: the key set has no array "keys"`)
		}
		key, err := Key{}, errTooManyInSet
		if known < maxKeys {
			key, err = parseKey(member)
		}
		if err != errUnknownType {
			known++
		}
		if err == nil {
			keys = append(keys, key)
		} else {
			ignored.add(key, position, err)
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

// hasFold reports whether a member has that name in any case.
func hasFold(members map[string]json.RawMessage, name string) bool {
	for member := range members {
		if strings.EqualFold(member, name) {
			return true
		}
	}
	return false
}

// nameOf names a key by its ID or, without one, by its position in the set.
func nameOf(key Key, position int) string {
	if key.ID == "" {
		return fmt.Sprintf("key %d", position)
	}
	return fmt.Sprintf("key %q", printable(truncate(key.ID)))
}

// parseKey reads one JWK. It reads the members about the key here and leaves only
// the key itself to jwx, so that an unusual member does not lose the key.
func parseKey(member []byte) (key Key, err error) {
	var jwkMembers map[string]json.RawMessage
	if member[0] != '{' || json.Unmarshal(member, &jwkMembers) != nil {
		return key, errUnknownType
	}
	var kty, use string
	operations := []string{"verify"}
	for _, m := range []struct {
		name string
		to   any
	}{{"kty", &kty}, {"kid", &key.ID}, {"alg", &key.Algorithm}, {"use", &use}, {"key_ops", &operations}} {
		if value, ok := jwkMembers[m.name]; ok && string(value) != "null" && json.Unmarshal(value, m.to) != nil {
			return key, fmt.Errorf("%q has the wrong type", m.name)
		}
	}
	if _, named := jwkMembers["kid"]; !named && hasFold(jwkMembers, "kid") {
		return key, errors.New(`"kid" is spelled in another case`)
	}
	if kty != "RSA" && kty != "EC" && kty != "OKP" {
		return key, errUnknownType
	}
	if _, private := jwkMembers["d"]; private {
		return key, errors.New("a private key")
	}
	encrypts := slices.ContainsFunc([]string{"RSA-OAEP", "RSA1_5", "ECDH-ES"}, func(p string) bool { return strings.HasPrefix(key.Algorithm, p) })
	curve := string(jwkMembers["crv"])
	encrypts = encrypts || curve == `"X25519"` || curve == `"X448"`                      // RFC 8037 §3.2
	if encrypts || use != "" && use != "sig" || !slices.Contains(operations, "verify") { // RFC 7518 §4.1
		return key, errEncryption
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
		return key, errInvalidKey
	}
	if public, ok := parsed.(jwk.RSAPublicKey); ok && new(big.Int).SetBytes(public.E()).Cmp(big.NewInt(jws.MaxExponent)) > 0 {
		return key, errors.New("an RSA exponent over 2^31-1") // Raw would truncate it.
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return key, errInvalidKey
	}
	key.Public = raw
	if err := jws.CheckKey(raw); err != nil {
		return key, err
	}
	if alg, _ := jws.Lookup(key.Algorithm); key.Algorithm != "" && !alg.Accepts(raw) {
		return key, errors.New(`"alg" is not a signature algorithm for this type of key`)
	}
	return key, nil
}
