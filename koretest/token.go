package koretest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/koreauth/koreauth"
)

// Token describes a token for [Issuer.Mint] to make. The zero value describes a
// valid token for [Issuer.Client]. Each field changes one aspect of it.
//
//	Token{Age: 2 * time.Hour}                                       // expired, if the lifetime is OneHour
//	Token{Age: -time.Hour}                                          // issued in the future
//	Token{Claims: map[string]any{"aud": "other"}}                   // for another audience
//	Token{Drop: []string{"exp"}}                                    // without expiry
//	Token{Confirmation: &koreauth.Confirmation{KeySHA256: "…"}}     // bound to a key (DPoP)
//	Token{Header: map[string]any{"crit": []string{"b64"}}}          // with a critical extension
//	Token{Algorithm: "none"}                                        // unsigned
//	Token{Key: &Key{Algorithm: "HS256", Private: []byte("secret")}} // signed with a shared secret
//	Token{BadSignature: true}                                       // with an invalid signature
//	Token{RawPayload: []byte(`{"iss":"a","iss":"b"}`)}              // with a duplicate member
type Token struct {
	// ClientID selects the registered client whose claims the token carries.
	// Empty means that of [Issuer.Client].
	ClientID string
	// Age is the time since the token was issued. Zero means that it is issued
	// now.
	Age time.Duration
	// Confirmation, if not nil, binds the token to a key of its sender. It becomes
	// the cnf claim (RFC 7800), with a member x5t#S256 for CertificateSHA256 (RFC
	// 8705 §3.1) and a member jkt for KeySHA256 (RFC 9449 §6.1). Empty fields
	// are left out; if both are empty, the claim is {}.
	Confirmation *koreauth.Confirmation

	// Claims are added to the claims above and replace those of the same name. A
	// nil value becomes null.
	Claims map[string]any
	// Drop lists claims to remove.
	Drop []string
	// RawPayload, if not nil, is the whole payload, and all fields above are
	// ignored. It need not be JSON.
	RawPayload []byte

	// Header is added to the members alg, typ and kid of the header and replaces
	// those of the same name. It does not change how the token is signed.
	Header map[string]any
	// DropHeader lists header members to remove.
	DropHeader []string
	// RawHeader, if not nil, is the whole header. It need not be JSON.
	RawHeader []byte

	// Key signs the token, and its ID is the header's kid. Nil means
	// [Issuer.SigningKey].
	Key *Key
	// Algorithm is the signature algorithm and the header's alg. Empty means that
	// of the key. For "none" the signature is empty.
	Algorithm string
	// Sign, if not nil, makes the signature. Its input is the encoded header and
	// payload, joined by a dot. Key and Algorithm then only set kid and alg.
	Sign func(input []byte) ([]byte, error)
	// BadSignature flips a bit of the signature.
	BadSignature bool
}

// Mint makes a token. It returns an error if the token cannot be made: if no
// client has the ClientID, if JSON cannot encode a value, or if the key cannot
// sign with the algorithm.
func (i *Issuer) Mint(t Token) (string, error) {
	key := t.Key
	if key == nil {
		key = i.SigningKey()
	}
	algorithm := t.Algorithm
	if algorithm == "" {
		algorithm = key.Algorithm
	}
	payload, err := i.payload(t)
	if err != nil {
		return "", err
	}
	header, err := header(t, algorithm, key.ID)
	if err != nil {
		return "", err
	}
	input := encode(header) + "." + encode(payload)
	signature, err := signature(t, algorithm, key, []byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + encode(signature), nil
}

// Valid returns a valid token for [Issuer.Client].
func (i *Issuer) Valid() string { return i.mint(Token{}) }

// Expired returns a token for [Issuer.Client] that expired an hour ago, which is
// more than any sensible koreauth.Config.Leeway.
func (i *Issuer) Expired() string {
	return i.mint(Token{Age: i.Client().Lifetime + time.Hour})
}

// Ungranted returns a valid token for [Issuer.Client] without permissions: it has
// neither a scopes claim nor a scope claim.
func (i *Issuer) Ungranted() string { return i.mint(Token{Drop: []string{"scopes", "scope"}}) }

// Forged returns a token for [Issuer.Client] that is signed with a key that the
// issuer does not publish. All forged tokens of an issuer have the same key, and
// so the same kid.
func (i *Issuer) Forged() string { return i.mint(Token{Key: i.unpublishedKey()}) }

// mint is Mint for a token that can always be made.
func (i *Issuer) mint(t Token) string {
	token, err := i.Mint(t)
	if err != nil {
		panic(err) // cannot happen: NewIssuer checked the key and registered the client
	}
	return token
}

// header returns the header as Keycloak writes it, with the same spaces:
// {"alg":"RS256","typ" : "JWT","kid" : "…"}.
func header(t Token, algorithm, kid string) ([]byte, error) {
	if t.RawHeader != nil {
		return t.RawHeader, nil
	}
	o := object{{"alg", algorithm}, {"typ", "JWT"}}
	if kid != "" {
		o = append(o, member{"kid", kid})
	}
	return o.with(t.Header, t.DropHeader).encode(" : ")
}

// payload returns the payload, with the members of KORE's sample token in the
// same order, and cnf after them.
func (i *Issuer) payload(t Token) ([]byte, error) {
	if t.RawPayload != nil {
		return t.RawPayload, nil
	}
	id := t.ClientID
	if id == "" {
		id = i.firstClient
	}
	c, ok := i.client(id)
	if !ok {
		return nil, fmt.Errorf("koretest: client %q is not registered", id)
	}
	issued := time.Now().Add(-t.Age)
	subject := sha256.Sum256([]byte(c.ID))
	claims := object{
		{"exp", issued.Add(c.Lifetime).Unix()},
		{"iat", issued.Unix()},
		{"jti", uuid(newID())},
		{"iss", i.URL()},
		{"aud", i.audience},
		{"sub", uuid([16]byte(subject[:]))},
		{"typ", "Bearer"},
		{"azp", c.ID},
		{"scope", c.Scope},
		{"email_verified", false},
		{"clientHost", "127.0.0.1"},
		{"ip-range", c.IPRanges},
		{"api-key", i.apiKey},
		{"account-id", c.AccountID},
		{"client-type", c.Type},
		{"scopes", c.scopes()},
		{"clientAddress", "127.0.0.1"},
		{"client-owner", c.Owner},
		{"client_id", c.ID},
		{"twilio-sid", "koretestSID"},
	}
	if t.Confirmation != nil {
		claims = append(claims, member{"cnf", confirmation{t.Confirmation.CertificateSHA256, t.Confirmation.KeySHA256}})
	}
	return claims.with(t.Claims, t.Drop).encode(":")
}

// confirmation is the cnf claim.
type confirmation struct {
	CertificateSHA256 string `json:"x5t#S256,omitempty"` // RFC 8705 §3.1
	KeySHA256         string `json:"jkt,omitempty"`      // RFC 9449 §6.1
}

// signature returns the signature of input.

func signature(t Token, algorithm string, key *Key, input []byte) ([]byte, error) {
	var signature []byte
	var err error
	switch {
	case t.Sign != nil:
		signature, err = t.Sign(input)
	case algorithm != "none":
		signature, err = sign(algorithm, key.Private, input)
	}
	if err != nil {
		return nil, err
	}
	if t.BadSignature && len(signature) > 0 {
		signature = bytes.Clone(signature)
		signature[len(signature)/2] ^= 1
	}
	return signature, nil
}

// object is a JSON object with ordered members.
type object []member

type member struct {
	name  string
	value any
}

// with returns o with the edits and without the dropped members. Changed members
// keep their place; new ones follow in alphabetical order.
func (o object) with(edits map[string]any, drop []string) object {
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		at := slices.IndexFunc(o, func(m member) bool { return m.name == name })
		if at < 0 {
			o = append(o, member{name, edits[name]})
			continue
		}
		o[at].value = edits[name]
	}
	return slices.DeleteFunc(o, func(m member) bool { return slices.Contains(drop, m.name) })
}

// encode returns o as JSON, with the given colon after every name but the first.
func (o object) encode(colon string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, fmt.Errorf("koretest: member %q: %w", m.name, err)
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, fmt.Errorf("koretest: member %q: %w", m.name, err)
		}
		if i == 0 {
			b.Write(name)
			b.WriteByte(':')
		} else {
			b.WriteByte(',')
			b.Write(name)
			b.WriteString(colon)
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func newID() (b [16]byte) {
	rand.Read(b[:]) // never fails
	return b
}

// uuid returns b as a version 4 UUID.
func uuid(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
