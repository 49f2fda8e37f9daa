package introspection

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"time"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	assertionLife = time.Minute
)

// algorithm is how a key signs (RFC 7518 §3.1, RFC 8037 §3.1).
type algorithm struct {
	name string
	hash crypto.Hash
	size int // of each half of an ECDSA signature, in bytes; zero: another kind of key
}

var errNoKey = errors.New("is empty: set it to the private key of this client")

// algorithmOf returns the algorithm of a key.
func algorithmOf(key crypto.Signer) (_ algorithm, err error) {
	defer func() {
		if recover() != nil { // A key without its numbers panics.
			err = errNoKey
		}
	}()
	if own, ok := key.(ed25519.PrivateKey); key == nil || ok && len(own) != ed25519.PrivateKeySize {
		return algorithm{}, errNoKey
	}
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() == 0 {
			return algorithm{}, errNoKey
		}
		if public.N.BitLen() < 2048 {
			return algorithm{}, errors.New("is an RSA key of less than 2048 bits: use a longer one (RFC 7518 §3.3)")
		}
		return algorithm{name: "RS256", hash: crypto.SHA256}, nil
	case *ecdsa.PublicKey:
		switch public.Curve.Params().Name {
		case "P-256":
			return algorithm{"ES256", crypto.SHA256, 32}, nil
		case "P-384":
			return algorithm{"ES384", crypto.SHA384, 48}, nil
		case "P-521":
			return algorithm{"ES512", crypto.SHA512, 66}, nil
		}
	case ed25519.PublicKey:
		return algorithm{name: "EdDSA"}, nil
	}
	return algorithm{}, errors.New("is of an unknown kind: use an RSA key, an ECDSA key on P-256, P-384 or P-521, or an Ed25519 key")
}

// assertion returns a JWT that authenticates the client (RFC 7523 §3).
func assertion(key crypto.Signer, client, audience string, now time.Time) (string, error) {
	alg, err := algorithmOf(key)
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(map[string]string{"alg": alg.name, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode(header) + "." + encode(claims)
	signature, err := alg.sign(key, []byte(text))
	return text + "." + encode(signature), err
}

// sign returns the signature of a JWS (RFC 7518 §3).
func (a algorithm) sign(key crypto.Signer, text []byte) ([]byte, error) {
	if a.hash != 0 {
		hash := a.hash.New()
		hash.Write(text)
		text = hash.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, text, a.hash)
	if err != nil || a.size == 0 {
		return signature, err
	}
	// A Signer returns ASN.1; a JWS has both numbers one after the other (§3.4).
	var numbers struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &numbers); err != nil || len(rest) > 0 || max(numbers.R.BitLen(), numbers.S.BitLen()) > 8*a.size {
		return nil, errors.New("the key returned no ECDSA signature")
	}
	raw := make([]byte, 2*a.size)
	numbers.R.FillBytes(raw[:a.size])
	numbers.S.FillBytes(raw[a.size:])
	return raw, nil
}
