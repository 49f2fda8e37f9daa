// Package jwk reads JSON Web Key Sets (RFC 7517). It is the only package that imports
// jwx.
package jwk

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/redact"
)

// Key is a public key. It is koreauth.Key.
type Key struct {
	ID        string
	Algorithm string
	Public    crypto.PublicKey
}

// MaxKeys is the maximum number of keys of a JWK Set that are read, and of ignored
// keys that are reported.
const MaxKeys = 1000

// Ignored says which keys of a JWK Set were ignored, and why.
type Ignored struct {
	Count   int
	Reasons []string          // of the first 1,000
	ByID    map[string]string // the reason by the ID of the key
	Signing []string          // the reasons of the keys that are not for encryption
}

// add adds the key at that position.
func (i *Ignored) add(key Key, position int, err error) {
	if i.Count++; i.Count > MaxKeys {
		return
	}
	reason := fmt.Sprintf("%s: %v", NameOf(key.ID, position), err)
	i.Reasons = append(i.Reasons, reason)
	if err != errEncryption {
		i.Signing = append(i.Signing, reason)
	}
	if key.ID != "" {
		if i.ByID == nil {
			i.ByID = make(map[string]string)
		}
		i.ByID[key.ID] = err.Error()
	}
}

var (
	errEncryption   = errors.New("not for signatures")
	errUnknownType  = errors.New("not a key of a known type")
	errInvalidKey   = errors.New("not a valid key on a known curve")
	errTooManyInSet = fmt.Errorf("the set has more than %d keys", MaxKeys)
)

// ParseSet returns the keys of a JWK Set that can verify signatures, and says which
// keys were ignored. A set without a usable key is an error.
func ParseSet(jwks []byte) ([]Key, Ignored, error) {
	var document map[string]json.RawMessage // a struct would ignore the case of names
	if err := json.Unmarshal(jwks, &document); err != nil {
		return nil, Ignored{}, errors.New("the key set is not a JSON object")
	}
	members := json.NewDecoder(bytes.NewReader(document["keys"]))
	if start, err := members.Token(); err != nil || start != json.Delim('[') {
		return nil, Ignored{}, errors.New(`the key set has no array "keys"`)
	}
	var keys []Key
	var ignored Ignored
	known := 0 // keys of a known type, each of which takes time
	var member json.RawMessage
	for position := 0; members.More(); position++ {
		if err := members.Decode(&member); err != nil {
			return nil, Ignored{}, errors.New(`the key set has no array "keys"`)
		}
		key, err := Key{}, errTooManyInSet
		if known < MaxKeys {
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
	if ignored.Count > 0 {
		why = strings.Join(ignored.Reasons[:min(10, len(ignored.Reasons))], "; ")
	}
	return nil, ignored, fmt.Errorf("the key set has no usable signing key: %s", why)
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

// NameOf names a key by its ID or, without one, by its position in the set.
func NameOf(id string, position int) string {
	if id == "" {
		return fmt.Sprintf("key %d", position)
	}
	return fmt.Sprintf("key %q", redact.Unverified(id))
}

// parseKey reads one JWK. It reads the members about the key here and leaves only
// the key itself to jwx, so that an unusual member does not make the key unusable.
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
	return key, jws.CheckKey(key.Algorithm, raw)
}
