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
)

// Token is a recipe for [Issuer.Mint]. The zero value makes a valid token for
// [Issuer.Client]; each field that is set spoils or changes one thing.
//
//	Token{Age: 2 * time.Hour}                                       // expired, for a client of OneHour
//	Token{Age: -time.Hour}                                          // issued in the future
//	Token{Claims: map[string]any{"aud": "elsewhere"}}               // for another audience
//	Token{Drop: []string{"exp"}}                                    // never expires
//	Token{Header: map[string]any{"crit": []string{"b64"}}}          // an extension that must be understood
//	Token{Algorithm: "none"}                                        // not signed
//	Token{Key: &Key{Algorithm: "HS256", Private: []byte("secret")}} // signed with a secret
//	Token{BadSignature: true}                                       // changed on its way
//	Token{RawPayload: []byte(`{"iss":"a","iss":"b"}`)}              // signed, whatever it is
type Token struct {
	// ClientID is the registered client whose claims the token has. Empty: that
	// of [Issuer.Client].
	ClientID string
	// Age is how long ago the token was issued. Zero: now.
	Age time.Duration

	// Claims are set over those of the client. A nil value is a JSON null.
	Claims map[string]any
	// Drop names claims to leave out.
	Drop []string
	// RawPayload, if not nil, is the payload byte for byte, and nothing above
	// counts.
	RawPayload []byte

	// Header members are set over alg, typ and kid. They change what the header
	// says, not how the token is signed.
	Header map[string]any
	// DropHeader names header members to leave out.
	DropHeader []string
	// RawHeader, if not nil, is the header byte for byte.
	RawHeader []byte

	// Key signs the token and gives the header its kid. Nil: the issuer's.
	Key *Key
	// Algorithm is how to sign, and the header's alg. Empty: the key's own.
	// "none" leaves the signature empty.
	Algorithm string
	// Sign, if not nil, makes the signature of the two segments with their dot,
	// in place of Key and Algorithm, which the header still names.
	Sign func(input []byte) ([]byte, error)
	// BadSignature flips a bit in the middle of the signature.
	BadSignature bool
}

// Mint makes the token of a recipe. The error is a recipe that cannot be
// followed: an unknown ClientID, a value that JSON cannot hold, a key that
// cannot sign in that way.
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

// Expired returns a token for [Issuer.Client] that has expired a second ago.
func (i *Issuer) Expired() string {
	return i.mint(Token{Age: i.Client().Lifetime + time.Second})
}

// Ungranted returns a valid token for [Issuer.Client] that has neither the
// scopes claim nor the scope claim, so that it allows nothing.
func (i *Issuer) Ungranted() string { return i.mint(Token{Drop: []string{"scopes", "scope"}}) }

// Forged returns a token for [Issuer.Client] whose key, of an ID of its own, the
// issuer never published. It is always the same key.
func (i *Issuer) Forged() string { return i.mint(Token{Key: i.stranger()}) }

func (i *Issuer) mint(t Token) string {
	token, err := i.Mint(t)
	if err != nil {
		panic(err) // NewIssuer has tried the key, and the client is registered
	}
	return token
}

// header is written as Keycloak does, spaces included: {"alg":"RS256","typ" :
// "JWT","kid" : "…"}.
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

// payload has the members of KORE's sample token, in its order.
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
		return nil, fmt.Errorf("koretest: no client %q is registered", id)
	}
	issued := time.Now().Add(-t.Age)
	subject := sha256.Sum256([]byte(c.ID))
	return object{
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
	}.with(t.Claims, t.Drop).encode(":")
}

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

// object is a JSON object that keeps its order.
type object []member

type member struct {
	name  string
	value any
}

// with returns o with the edits in their places, new members sorted at the end,
// and without those dropped.
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

// encode writes o with that colon after every name but the first.
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

// uuid writes b as a version 4 UUID.
func uuid(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
