package subjects

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The measured algorithms.
const (
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// Audience is the `aud` of every valid token; KORE uses the same.
const Audience = "api-gw"

// koreIssuerLength is the length of `iss` in KORE's published sample token. The issuer's URL has the same length, so that
// its tokens have the size of KORE's.
const koreIssuerLength = 76

// Issuer serves discovery and keys on loopback and counts the requests for keys. It signs with only the standard library.
type Issuer struct {
	URL     string
	Fetches atomic.Int64

	server *httptest.Server
	rsa    *rsa.PrivateKey
	ecdsa  *ecdsa.PrivateKey
	ed     ed25519.PrivateKey
}

// NewIssuer starts an issuer with a key for each algorithm and, like Keycloak, one for encryption.
func NewIssuer() (*Issuer, error) {
	i := &Issuer{}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if i.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if _, i.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return nil, err
	}
	encryption, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	keys, err := i.jwks(&encryption.PublicKey)
	if err != nil {
		return nil, err
	}

	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
			json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.jwksURL()})
		case strings.HasSuffix(r.URL.Path, "/protocol/openid-connect/certs"):
			i.Fetches.Add(1)
			w.Write(keys)
		default:
			http.NotFound(w, r)
		}
	}))
	const realm = "/realms/KORE-CIDP"
	padding := strings.Repeat("x", koreIssuerLength-len(i.server.URL)-len("/")-len(realm))
	i.URL = i.server.URL + "/" + padding + realm
	return i, nil
}

// Close stops the server.
func (i *Issuer) Close() { i.server.Close() }

// Setup returns the setup of a resource server that accepts the issuer's tokens of one algorithm.
func (i *Issuer) Setup(algorithm string) Setup {
	return Setup{Issuer: i.URL, JWKSURL: i.jwksURL(), Audience: Audience, Algorithm: algorithm}
}

// Public returns the public key for an algorithm.
func (i *Issuer) Public(algorithm string) crypto.PublicKey {
	switch algorithm {
	case ES256:
		return &i.ecdsa.PublicKey
	case EdDSA:
		return i.ed.Public()
	}
	return &i.rsa.PublicKey
}

// KeyID returns the `kid` of that key, in the length that Keycloak uses.
func KeyID(algorithm string) string {
	digest := sha256.Sum256([]byte(algorithm))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

func (i *Issuer) jwksURL() string { return i.URL + "/protocol/openid-connect/certs" }

func (i *Issuer) jwks(encryption *rsa.PublicKey) ([]byte, error) {
	type jwk map[string]string
	b64 := base64.RawURLEncoding.EncodeToString
	rsaKey := func(kid, alg, use string, k *rsa.PublicKey) jwk {
		e := binary.BigEndian.AppendUint32(nil, uint32(k.E))[1:]
		return jwk{"kty": "RSA", "kid": kid, "alg": alg, "use": use, "n": b64(k.N.Bytes()), "e": b64(e)}
	}
	point, err := i.ecdsa.PublicKey.Bytes() // 0x04, X, Y
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string][]jwk{"keys": {
		rsaKey(KeyID("RSA-OAEP"), "RSA-OAEP", "enc", encryption),
		rsaKey(KeyID(RS256), RS256, "sig", &i.rsa.PublicKey),
		{"kty": "EC", "kid": KeyID(ES256), "alg": ES256, "use": "sig", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "kid": KeyID(EdDSA), "alg": EdDSA, "use": "sig", "crv": "Ed25519", "x": b64(i.ed.Public().(ed25519.PublicKey))},
	}})
}

// Token is a signed token, prepared for a request and for Verify.
type Token struct {
	Raw    string
	Bytes  []byte   // Raw as bytes
	Header []string // the value of Authorization

	Input     []byte // the signed part
	Signature []byte // in the form that the standard library verifies
}

// Spec says how a token differs from a valid one. The zero value is a new, valid token.
type Spec struct {
	Audience string    // empty: Audience
	Issuer   string    // empty: the issuer's URL
	Expiry   time.Time // zero: in a day
	KeyID    string    // empty: the signing key's
	Tamper   bool      // change the payload after signing
}

// Sign makes a token like KORE's published sample: it has the same members in the same order and of the same lengths. Each
// token has its own ID, subject, client and api-key.
func (i *Issuer) Sign(algorithm string, s Spec) (Token, error) {
	audience, issuer, expiry, kid := s.Audience, s.Issuer, s.Expiry, s.KeyID
	if audience == "" {
		audience = Audience
	}
	if issuer == "" {
		issuer = i.URL
	}
	if expiry.IsZero() {
		expiry = time.Now().Add(24 * time.Hour)
	}
	if kid == "" {
		kid = KeyID(algorithm)
	}

	// Keycloak writes these spaces.
	header := fmt.Sprintf(`{"alg":%q,"typ" : "JWT","kid" : %q}`, algorithm, kid)
	client := "kc_" + strings.ToLower(rand.Text()) // 29 characters
	payload := fmt.Sprintf(`{"exp":%d,"iat":%d,"jti":%q,"iss":%q,"aud":%q,"sub":%q,"typ":"Bearer","azp":%q,`+
		`"scope":"email","email_verified":false,"clientHost":"10.233.69.0","ip-range":[],"api-key":%q,`+
		`"account-id":"CO%.20s","client-type":"admin","scopes":{"globalResources":[{"resourceName":"API Clients",`+
		`"access":["Read","Write","Modify","Delete"]}]},"clientAddress":"10.233.69.0",`+
		`"client-owner":"owner@api.example.com","client_id":%q,"twilio-sid":"devportalSIDtest"}`,
		expiry.Unix(), expiry.Add(-25*time.Hour).Unix(), uuid(), issuer, audience, uuid(), client,
		base64.StdEncoding.EncodeToString(random(82)), rand.Text(), client)

	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	raw, bare, err := i.signature(algorithm, []byte(input))
	if err != nil {
		return Token{}, err
	}
	if s.Tamper {
		input = b64([]byte(header)) + "." + b64([]byte(strings.Replace(payload, `"admin"`, `"tamed"`, 1)))
	}
	token := newToken(input + "." + b64(raw))
	token.Input, token.Signature = token.Bytes[:len(input)], bare
	return token, nil
}

// Forge returns the token with an unknown `kid`, so that its signature cannot be verified.
func (t Token) Forge(algorithm string) Token {
	_, rest, _ := strings.Cut(t.Raw, ".")
	header := fmt.Sprintf(`{"alg":%q,"typ" : "JWT","kid" : %q}`, algorithm, KeyID(rand.Text()))
	return newToken(base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest)
}

// newToken stores the token twice instead of four times, because live memory makes garbage collection slower.
func newToken(raw string) Token {
	header := "Bearer " + raw
	return Token{Raw: header[len("Bearer "):], Bytes: []byte(raw), Header: []string{header}}
}

// SignMany makes n tokens, using all cores.
func (i *Issuer) SignMany(n int, algorithm string, spec func(n int) Spec) ([]Token, error) {
	tokens := make([]Token, n)
	errs := make(chan error, runtime.NumCPU())
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for k := int(next.Add(1)) - 1; k < n; k = int(next.Add(1)) - 1 {
				token, err := i.Sign(algorithm, spec(k))
				if err != nil {
					errs <- err
					return
				}
				tokens[k] = token
			}
		})
	}
	workers.Wait()
	close(errs)
	return tokens, <-errs
}

// signature returns a signature in the form of RFC 7518, and in the form that the standard library verifies.
func (i *Issuer) signature(algorithm string, input []byte) (raw, bare []byte, err error) {
	digest := sha256.Sum256(input)
	switch algorithm {
	case ES256:
		r, s, err := ecdsa.Sign(rand.Reader, i.ecdsa, digest[:])
		if err != nil {
			return nil, nil, err
		}
		raw = make([]byte, 64)
		r.FillBytes(raw[:32])
		s.FillBytes(raw[32:])
		bare, err = asn1.Marshal(struct{ R, S *big.Int }{r, s})
		return raw, bare, err
	case EdDSA:
		raw = ed25519.Sign(i.ed, input)
		return raw, raw, nil
	}
	raw, err = rsa.SignPKCS1v15(nil, i.rsa, crypto.SHA256, digest[:])
	return raw, raw, err
}

func uuid() string {
	b := random(16)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
