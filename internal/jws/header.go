package jws

import (
	"errors"
	"fmt"
	"strings"

	"github.com/koreauth/koreauth/internal/strictjson"
)

// Header is a JOSE header (RFC 7515 §4). Embedded and referenced keys ("jwk", "jku",
// "x5c", "x5u") are not read, because an attacker could put them there (RFC 8725
// §3.5, §3.10).
type Header struct {
	Alg, Kid, Typ string    // Typ is "JWT" if the header has none
	Algorithm     Algorithm // of Alg; the zero value if Alg is unknown
	WrongType     bool      // "kid" or "typ" is not a string
	FoldedKid     bool      // it has "kid" in another case, such as "Kid"

	extended bool // it has "crit" or "b64"
}

// ReadHeader parses the text of a header. With an error it returns what it has read.
func ReadHeader(text string) (*Header, error) {
	h := &Header{Typ: "JWT"}
	algOK, kidOK, typOK := true, true, true
	r := strictjson.ReadObject(text)
	for r.More() {
		switch r.Name() {
		case "alg":
			h.Alg, algOK = r.String()
		case "kid":
			h.Kid, kidOK = r.String()
		case "typ":
			h.Typ, typOK = r.String()
		case "crit", "b64":
			h.extended = true
			r.Skip()
		default:
			h.FoldedKid = h.FoldedKid || strings.EqualFold(r.Name(), "kid")
			r.Skip()
		}
	}
	if err := r.End(); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	if !algOK {
		return h, errors.New(`"alg" is not a string`)
	}
	// What is remembered must not keep the whole text.
	h.Alg, h.Kid, h.Typ = strings.Clone(h.Alg), strings.Clone(h.Kid), strings.Clone(h.Typ)
	h.Algorithm, _ = Lookup(h.Alg)
	h.WrongType = !kidOK || !typOK
	return h, nil
}

// Check returns an error if the header has a member of the wrong type or an
// extension.
func (h *Header) Check() error {
	switch {
	case h.WrongType:
		return errors.New(`"kid" or "typ" is not a string`)
	case h.extended:
		return errors.New(`"crit" and "b64" are not supported (RFC 7515 §4.1.11, RFC 7797)`)
	}
	return nil
}
