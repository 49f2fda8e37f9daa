package koreauth

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Claims are what a token says (RFC 7519 §4, RFC 9068 §2.2, and KORE's own, as
// its documentation shows them). A claim that is absent, or not of the type named here, is
// zero. Those that have no field are had with Decode.
//
// Printed or logged, Claims show issuer, subject, client and account only.
// encoding/json writes the fields by their names here, without ClientOwner; that
// is for answers of one's own, and UnmarshalJSON does not read it back.
type Claims struct {
	Issuer   string   // iss
	Subject  string   // sub
	ID       string   // jti
	ClientID string   // client_id, or azp where there is no client_id
	Audience []string // aud, a string or an array of strings

	// Scopes are the words of scope, split at spaces, or its elements if it is
	// an array; scp counts only where scope is absent.
	Scopes []string

	IssuedAt  time.Time // iat
	NotBefore time.Time // nbf
	Expiry    time.Time // exp

	AccountID   string   // account-id: the one account that the client belongs to
	ClientType  string   // client-type: "admin" or "standard"
	ClientOwner string   `json:"-"` // client-owner: an e-mail address, so not for logs
	IPRanges    []string // ip-range

	// Products are scopes.products: plain strings, or the resourceName of
	// objects.
	Products []string
	// Resources are scopes.globalResources, entry by entry.
	Resources []Resource

	payload *string // all of it, for Decode; fmt prints what is behind no pointer
	judged  judged
}

// Resource is one entry of KORE's scopes.globalResources.
type Resource struct {
	Name   string   // resourceName, such as "API Clients"
	Access []Access // access; nothing if it is not an array of strings
}

// judged is what the validator must know of a payload beyond the fields.
type judged struct {
	kid          string // of the header, for the log
	typ          string // payload typ
	hasType      bool   // typ is there, of whatever type
	bound        bool   // cnf is there
	oddNotBefore bool   // nbf is there and no number
}

// clone returns a copy that shares nothing that can be changed.
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
	return &own
}

// UnmarshalJSON reads claims from the payload of a token or from the answer of
// an introspection endpoint (RFC 7662). It verifies nothing: it is for test
// kits and for what comes from a trusted place. Anything but one JSON object,
// in valid UTF-8 and without duplicate members, is an error; null changes
// nothing.
func (c *Claims) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil // encoding/json's convention
	}
	var read Claims
	payload := string(data)
	if err := read.decode(&payload); err != nil {
		return fmt.Errorf("koreauth: claims: %w", err)
	}
	*c = read
	return nil
}

// decode reads a payload, once. Names match exactly, at every depth.
func (c *Claims) decode(payload *string) error {
	var (
		azp    string
		client bool // client_id is there, of whatever type
		scope  bool // scope is there, of whatever type
	)
	r := readObject(*payload)
	for r.more() {
		switch r.name {
		case "iss":
			c.Issuer, _ = r.str()
		case "sub":
			c.Subject, _ = r.str()
		case "jti":
			c.ID, _ = r.str()
		case "aud":
			c.Audience = r.oneOrMany()
		case "client_id":
			client = true
			c.ClientID, _ = r.str()
		case "azp":
			azp, _ = r.str()
		case "exp":
			c.Expiry = r.date()
		case "nbf":
			c.NotBefore = r.date()
			c.judged.oddNotBefore = c.NotBefore.IsZero()
		case "iat":
			c.IssuedAt = r.date()
		case "typ":
			c.judged.hasType = true
			c.judged.typ, _ = r.str()
		case "cnf":
			c.judged.bound = true
			r.skip()
		case "scope":
			scope = true
			c.Scopes = r.words()
		case "scp":
			if scope {
				r.skip()
			} else {
				c.Scopes = r.words()
			}
		case "scopes":
			c.decodeScopes(r)
		case "account-id":
			c.AccountID, _ = r.str()
		case "client-type":
			c.ClientType, _ = r.str()
		case "client-owner":
			c.ClientOwner, _ = r.str()
		case "ip-range":
			c.IPRanges = strs[string](r)
		default:
			r.skip()
		}
	}
	if !client {
		c.ClientID = azp
	}
	c.payload = payload
	return r.end()
}

// decodeScopes reads KORE's scopes object. What has another shape grants
// nothing, and spoils nothing beside it.
func (c *Claims) decodeScopes(r *jsonReader) {
	if r.peek() != '{' {
		r.skip()
		return
	}
	for r.enter(); r.more(); {
		switch {
		case r.name == "globalResources" && r.peek() == '[':
			for r.enter(); r.more(); {
				if resource, ok := r.resource(); ok {
					c.Resources = append(c.Resources, resource)
				}
			}
		case r.name == "products" && r.peek() == '[':
			for r.enter(); r.more(); {
				if resource, ok := r.resource(); ok {
					c.Products = append(c.Products, resource.Name)
				}
			}
		default:
			r.skip()
		}
	}
}

// resource reads an object with a resourceName, or a plain name.
func (r *jsonReader) resource() (res Resource, ok bool) {
	if r.peek() != '{' {
		res.Name, ok = r.str()
		return res, ok
	}
	for r.enter(); r.more(); {
		switch r.name {
		case "resourceName":
			res.Name, ok = r.str()
		case "access":
			res.Access = strs[Access](r)
		default:
			r.skip()
		}
	}
	return res, ok
}

// oneOrMany reads a string or an array of strings (RFC 7519 §4.1.3).
func (r *jsonReader) oneOrMany() []string {
	if r.peek() == '[' {
		return strs[string](r)
	}
	if one, ok := r.str(); ok {
		return []string{one}
	}
	return nil
}

// words reads a scope: a string of words (RFC 6749 §3.3: U+0020 alone
// separates them), or an array, whose elements are taken whole.
func (r *jsonReader) words() []string {
	if r.peek() == '[' {
		return strs[string](r)
	}
	text, _ := r.str()
	var words []string
	for text != "" {
		var word string
		if word, text, _ = strings.Cut(text, " "); word != "" {
			words = append(words, word)
		}
	}
	return words
}

// The range of a date: years that time.Time can print and compute with, and
// never the zero time, which means that there is none.
const (
	firstSecond = -62135596799 // 0001-01-01T00:00:01Z
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z
)

// date reads a NumericDate (RFC 7519 §2); zero if it is no number. One beyond
// the calendar is its first or last moment: dates never wrap.
func (r *jsonReader) date() time.Time {
	text := r.num()
	if text == "" {
		return time.Time{}
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(min(max(seconds, firstSecond), lastSecond), 0).UTC()
	}
	// Out of range is ±Inf, which is what is wanted; the grammar is checked.
	seconds, _ := strconv.ParseFloat(text, 64)
	whole, fraction := math.Modf(min(max(seconds, firstSecond), lastSecond))
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC()
}

// Decode unmarshals all claims of the token into v, as json.Unmarshal does: for
// those that have no field of their own. encoding/json matches names without
// regard to case; where two members of the token would so come to one field of
// v, Decode fails, for it would not be said which of them counts. Claims that
// were not read from JSON have nothing to decode, which is an error too.
//
// Some of KORE's claims are secrets ("api-key"): do not log what you decode.
func (c *Claims) Decode(v any) error {
	if c == nil || c.payload == nil {
		return errors.New("koreauth: claims were not read from a token: nothing to decode")
	}
	into := reflect.ValueOf(v)
	for into.Kind() == reflect.Pointer || into.Kind() == reflect.Interface {
		into = into.Elem() // json.Unmarshal goes through both.
	}
	if into.IsValid() {
		if err := foldsTogether([]byte(*c.payload), into.Type()); err != nil {
			return err
		}
	}
	if err := json.Unmarshal([]byte(*c.payload), v); err != nil {
		return fmt.Errorf("koreauth: decode claims: %w", err)
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// foldsTogether reports an error if two members of an object in data would be
// decoded to one struct field of t.
func foldsTogether(data []byte, t reflect.Type) error {
	for t != nil && t.Kind() == reflect.Pointer && !t.Implements(unmarshaler) {
		t = t.Elem()
	}
	if t == nil || t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil {
			return nil // No object: json.Unmarshal will say so.
		}
		fields := make(map[string]reflect.StructField)
		for _, field := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" || !field.IsExported() || field.Anonymous && name == "" {
				continue // Not a member; what is embedded comes as fields of its own.
			}
			fields[cmp.Or(name, field.Name)] = field
		}
		for name, field := range fields {
			found := 0
			for member, value := range members {
				if _, elsewhere := fields[member]; member != name && (elsewhere || !strings.EqualFold(member, name)) {
					continue // encoding/json prefers the exact name.
				}
				if found++; found > 1 {
					return fmt.Errorf("koreauth: decode claims: more than one member of the token would be field %s", field.Name)
				}
				if err := foldsTogether(value, field.Type); err != nil {
					return err
				}
			}
		}
	case reflect.Map:
		var members map[string]json.RawMessage
		_ = json.Unmarshal(data, &members) // as above
		for _, value := range members {
			if err := foldsTogether(value, t.Elem()); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		var elements []json.RawMessage
		_ = json.Unmarshal(data, &elements) // as above
		for _, value := range elements {
			if err := foldsTogether(value, t.Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

// LogValue shows issuer, subject, client and account only.
func (c Claims) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("issuer", printable(c.Issuer)),
		slog.String("subject", printable(c.Subject)),
		slog.String("client_id", printable(c.ClientID)),
		slog.String("account_id", printable(c.AccountID)),
	)
}

// String shows issuer, subject, client and account only.
func (c Claims) String() string {
	return fmt.Sprintf("Claims{Issuer:%q Subject:%q ClientID:%q AccountID:%q}",
		printable(c.Issuer), printable(c.Subject), printable(c.ClientID), printable(c.AccountID))
}

// GoString shows issuer, subject, client and account only.
func (c Claims) GoString() string { return "koreauth." + c.String() }
