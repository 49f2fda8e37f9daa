package koreauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// Claims are the claims of a token: those of RFC 7519 §4 and RFC 9068 §2.2, and
// those that KORE documents. A field is zero if the claim is absent or has the
// wrong type; only sub, jti, client_id, azp, account-id and client-type must
// be strings or null. Use Decode to read any other claim.
//
// fmt and log/slog print only issuer, subject, client and account. json.Marshal
// writes the fields under their Go names, without ClientOwner, for use in your own
// responses. UnmarshalJSON reads the claim names of a token, so it does not accept
// what json.Marshal writes.
type Claims struct {
	Issuer   string   // iss
	Subject  string   // sub
	ID       string   // jti
	ClientID string   // client_id, or azp if there is no client_id
	Audience []string // aud, a string or an array of strings

	// Scopes are the scope claim split at spaces, or its elements if it is an
	// array. scp is used if there is no scope claim.
	Scopes []string

	IssuedAt  time.Time // iat
	NotBefore time.Time // nbf
	Expiry    time.Time // exp

	AccountID   string // account-id: the one account that the client belongs to
	ClientType  string // client-type: "admin" or "standard"
	ClientOwner string `json:"-"` // client-owner: an e-mail address, so do not log it

	// IPRanges is ip-range: the addresses that may send the token, such as
	// "10.0.0.0/8". It is empty if the claim is absent, null or []. A string is one
	// entry. A value or an array element of another type becomes an entry with its
	// JSON text. No address matches it, so the token stays restricted.
	IPRanges []string

	// Products are scopes.products: strings, or the resourceName of objects.
	Products []string
	// Resources are the entries of scopes.globalResources.
	Resources []Resource

	// Confirmation is cnf (RFC 7800 §3), the key that the sender must prove
	// possession of. Nil means that the token is not bound to a key.
	Confirmation *Confirmation

	payload *string // the whole payload, for Decode; fmt does not follow pointers inside a struct, so it cannot print secrets
	extra   extraClaims
}

// Resource is one entry of KORE's scopes.globalResources.
type Resource struct {
	Name   string   // resourceName, such as "API Clients"
	Access []Access // access; nil if it is not an array of strings
}

// Access is a permission on a KORE resource. Values are compared exactly.
type Access string

// The permissions that KORE documents.
const (
	Read   Access = "Read"
	Write  Access = "Write"
	Modify Access = "Modify"
	Delete Access = "Delete"
)

// Confirmation names the key that a token is bound to (RFC 7800 §3). If both
// fields are set, the sender must prove possession of both keys. If both are empty, the
// token is bound in a way that this package does not support, and is rejected.
type Confirmation struct {
	CertificateSHA256 string // x5t#S256, of a client certificate (RFC 8705 §3.1)
	KeySHA256         string // jkt, of a DPoP key (RFC 9449 §6.1)
}

// extraClaims are what the validator needs beyond the exported fields.
type extraClaims struct {
	kid          string // of the header, for logs
	typ          string // typ of the payload
	hasType      bool   // typ is present, with any type
	oddNotBefore bool   // nbf is present and not a number
	oddIdentity  error  // a claim that identifies is neither a string nor null
}

// clone returns a deep copy.
func (c *Claims) clone() *Claims {
	if c == nil {
		return nil
	}
	own := *c
	own.Audience = slices.Clone(c.Audience)
	own.Scopes = slices.Clone(c.Scopes)
	own.IPRanges = slices.Clone(c.IPRanges)
	own.Products = slices.Clone(c.Products)
	own.Resources = slices.Clone(c.Resources)
	for i := range own.Resources {
		own.Resources[i].Access = slices.Clone(own.Resources[i].Access)
	}
	if c.Confirmation != nil {
		confirmation := *c.Confirmation
		own.Confirmation = &confirmation
	}
	return &own
}

// isAccessToken reports whether the payload "typ" is that of an access token.
// Keycloak signs ID and refresh tokens with the same keys; its DPoP-bound access
// tokens say DPoP.
func (c *Claims) isAccessToken() bool {
	return !c.extra.hasType || c.extra.typ == "Bearer" ||
		c.extra.typ == "DPoP" && c.Confirmation != nil && c.Confirmation.KeySHA256 != ""
}

// UnmarshalJSON reads claims from the payload of a token or from an introspection
// response (RFC 7662 §2.2). It verifies nothing: use it in tests and for data from
// a trusted source. The data must be one JSON object in valid UTF-8 without
// duplicate members; null changes nothing.
func (c *Claims) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // the convention of encoding/json
	}
	var read Claims
	payload := string(data)
	if err := read.decode(&payload); err != nil {
		return fmt.Errorf("koreauth: claims: %w", err)
	}
	*c = read
	return nil
}

// decode reads a payload. Names are compared exactly, at every depth.
func (c *Claims) decode(payload *string) error {
	var (
		azp    string
		client bool // client_id is present, with any type
		scope  bool // scope is present, with any type
	)
	r := strictjson.ReadObject(*payload)
	for r.More() {
		switch r.Name() {
		case "iss":
			c.Issuer, _ = r.String()
		case "sub":
			c.Subject = c.identity(r)
		case "jti":
			c.ID = c.identity(r)
		case "aud":
			c.Audience = strictjson.OneOrMany(r)
		case "client_id":
			client = true
			c.ClientID = c.identity(r)
		case "azp":
			azp = c.identity(r)
		case "exp":
			c.Expiry = strictjson.NumericDate(r)
		case "nbf":
			c.NotBefore = strictjson.NumericDate(r)
			c.extra.oddNotBefore = c.NotBefore.IsZero()
		case "iat":
			c.IssuedAt = strictjson.NumericDate(r)
		case "typ":
			c.extra.hasType = true
			c.extra.typ, _ = r.String()
		case "cnf":
			c.Confirmation = readConfirmation(r)
		case "scope":
			scope = true
			c.Scopes = strictjson.Words(r)
		case "scp":
			if scope {
				r.Skip()
			} else {
				c.Scopes = strictjson.Words(r)
			}
		default:
			c.decodeKORE(r)
		}
	}
	if !client {
		c.ClientID = azp
	}
	c.payload = payload
	if err := r.End(); err != nil {
		return err
	}
	return c.extra.oddIdentity
}

// identity reads a claim that names somebody or something. A value of another type
// than string is an error, because different values would all be read as "".
func (c *Claims) identity(r *strictjson.Reader) string {
	name := r.Name()
	if kind := r.Peek(); kind != '"' && kind != 'n' {
		c.extra.oddIdentity = fmt.Errorf("%q is neither a string nor null", name)
	}
	text, _ := r.String()
	return text
}

// decodeKORE reads the current member, if it is one of KORE's claims.
func (c *Claims) decodeKORE(r *strictjson.Reader) {
	switch r.Name() {
	case "scopes":
		c.decodeScopes(r)
	case "account-id":
		c.AccountID = c.identity(r)
	case "client-type":
		c.ClientType = c.identity(r)
	case "client-owner":
		c.ClientOwner, _ = r.String()
	case "ip-range":
		c.IPRanges = strictjson.Entries(r) // An entry of another type matches no address.
	default:
		r.Skip()
	}
}

// decodeScopes reads KORE's scopes object. A part of another type grants nothing
// and does not affect the other parts.
func (c *Claims) decodeScopes(r *strictjson.Reader) {
	if r.Peek() != '{' {
		r.Skip()
		return
	}
	for r.Enter(); r.More(); {
		switch {
		case r.Name() == "globalResources" && r.Peek() == '[':
			for r.Enter(); r.More(); {
				if resource, ok := readResource(r); ok {
					c.Resources = append(c.Resources, resource)
				}
			}
		case r.Name() == "products" && r.Peek() == '[':
			for r.Enter(); r.More(); {
				if resource, ok := readResource(r); ok {
					c.Products = append(c.Products, resource.Name)
				}
			}
		default:
			r.Skip()
		}
	}
}

// readConfirmation reads cnf. An unknown or empty member may be a restriction that this
// package does not know: both fields are then empty.
func readConfirmation(r *strictjson.Reader) *Confirmation {
	c, unsupported := &Confirmation{}, false
	if r.Peek() != '{' {
		r.Skip()
		return c
	}
	for r.Enter(); r.More(); {
		value := ""
		switch r.Name() {
		case "x5t#S256":
			c.CertificateSHA256, _ = r.String()
			value = c.CertificateSHA256
		case "jkt":
			c.KeySHA256, _ = r.String()
			value = c.KeySHA256
		default:
			r.Skip()
		}
		unsupported = unsupported || value == ""
	}
	if unsupported {
		return &Confirmation{}
	}
	return c
}

// readResource reads an object with a resourceName, or a string.
func readResource(r *strictjson.Reader) (res Resource, ok bool) {
	if r.Peek() != '{' {
		res.Name, ok = r.String()
		return res, ok
	}
	for r.Enter(); r.More(); {
		switch r.Name() {
		case "resourceName":
			res.Name, ok = r.String()
		case "access":
			res.Access = strictjson.Strings[Access](r)
		default:
			r.Skip()
		}
	}
	return res, ok
}

// Decode unmarshals all claims of the token into v, as json.Unmarshal does.
// encoding/json ignores the case of names: if two members of the token would be
// decoded into one field of v, Decode returns an error, because it would be
// ambiguous which one counts. It also returns an error if the claims were not read
// from JSON.
//
// Some claims of KORE's tokens are secrets, such as "api-key": do not log what you
// decode.
func (c *Claims) Decode(v any) error {
	if c == nil || c.payload == nil {
		return errors.New("koreauth: the claims were not read from a token, so there is nothing to decode")
	}
	into := reflect.ValueOf(v)
	for depth := 0; into.Kind() == reflect.Pointer || into.Kind() == reflect.Interface; depth++ {
		if depth == 100 {
			return errors.New("koreauth: decode claims: the pointer refers to itself")
		}
		into = into.Elem() // as json.Unmarshal does
	}
	if into.IsValid() {
		if field, ok := strictjson.AmbiguousField([]byte(*c.payload), into.Type()); ok {
			return fmt.Errorf("koreauth: decode claims: more than one member of the token matches field %s", field)
		}
	}
	if err := json.Unmarshal([]byte(*c.payload), v); err != nil {
		return fmt.Errorf("koreauth: decode claims: %w", err)
	}
	return nil
}

// LogValue returns issuer, subject, client and account only.
func (c Claims) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("issuer", redact.Verified(c.Issuer)),
		slog.String("subject", redact.Verified(c.Subject)),
		slog.String("client_id", redact.Verified(c.ClientID)),
		slog.String("account_id", redact.Verified(c.AccountID)),
	)
}

// String returns issuer, subject, client and account only.
func (c Claims) String() string {
	return fmt.Sprintf("Claims{Issuer:%q Subject:%q ClientID:%q AccountID:%q}",
		redact.Verified(c.Issuer), redact.Verified(c.Subject), redact.Verified(c.ClientID), redact.Verified(c.AccountID))
}

// Format writes what String or, for %#v, GoString returns, whatever the verb is.
func (c Claims) Format(f fmt.State, verb rune) {
	text := c.String()
	if verb == 'v' && f.Flag('#') {
		text = c.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// GoString returns issuer, subject, client and account only.
func (c Claims) GoString() string { return "koreauth." + c.String() }
