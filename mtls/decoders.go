package mtls

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
)

// Decoder reads a certificate, or its hash, as a proxy writes it into a header. It returns
// the SHA-256 of the DER encoding. A value is read in one way or not at all: the decoders
// of this package skip nothing.
type Decoder func(value string) (sha256 [32]byte, err error)

// The decoders of this package, by what writes the header.
var (
	// RFC9440 reads the field Client-Cert of RFC 9440 §2.2: the DER encoding in base64,
	// between colons. HAProxy writes it with ":%[ssl_c_der,base64]:".
	RFC9440 Decoder = rfc9440
	// EnvoyXFCC reads X-Forwarded-Client-Cert of Envoy with forward_client_cert_details
	// SANITIZE_SET: one element with Hash, Cert or both. A header with the elements of
	// several proxies is not read, because a client could have sent the first one.
	EnvoyXFCC Decoder = envoyXFCC
	// NginxEscaped reads $ssl_client_escaped_cert of nginx: one certificate in PEM form,
	// with % escapes.
	NginxEscaped Decoder = nginxEscaped
	// ALB reads X-Amzn-Mtls-Clientcert and X-Amzn-Mtls-Clientcert-Leaf of an AWS
	// Application Load Balancer: certificates in PEM form, with % escapes, of which the
	// first is the client's.
	ALB Decoder = alb
	// TraefikPEM reads X-Forwarded-Tls-Client-Cert of Traefik's passTLSClientCert with
	// pem: certificates in base64, separated by commas, of which the first is the
	// client's.
	TraefikPEM Decoder = traefikPEM
	// Base64DER reads a DER encoding in base64, such as Caddy's
	// {http.request.tls.client.certificate_der_base64}.
	Base64DER Decoder = base64DER
	// HexSHA256 reads the SHA-256 of the DER encoding as 64 hexadecimal digits, such as
	// Caddy's {http.request.tls.client.fingerprint}.
	HexSHA256 Decoder = hexSHA256
)

var (
	errBase64 = errors.New("it is not base64 with padding")
	errDER    = errors.New("it is not the DER encoding of one certificate")
	errPEM    = errors.New("it is not a certificate in PEM form")
	errEscape = errors.New("it has a % that is not an escape")
	errHex    = errors.New("want 64 hexadecimal digits")
	errNobody = errors.New("it is the hash of nothing: the proxy saw no certificate")
	errColons = errors.New("want base64 between two colons (RFC 9440 §2.2)")
)

func rfc9440(value string) (sum [32]byte, err error) {
	inner, ok := strings.CutPrefix(value, ":")
	inner, ok2 := strings.CutSuffix(inner, ":")
	if !ok || !ok2 {
		return sum, errColons
	}
	return base64DER(inner)
}

func base64DER(value string) (sum [32]byte, err error) {
	if strings.ContainsAny(value, "\r\n") { // which encoding/base64 skips
		return sum, errBase64
	}
	return decode(value)
}

// decode decodes base64, which may be in several lines, and returns the hash of the
// certificate.
func decode(text string) (sum [32]byte, err error) {
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case err != nil:
		return sum, errBase64
	case !isCertificate(der):
		return sum, errDER
	}
	return sha256.Sum256(der), nil
}

// isCertificate reports whether der is one SEQUENCE of two SEQUENCEs and a BIT STRING, with
// nothing after it (RFC 5280 §4.1). The hash decides which certificate it is, so the
// rest is not read.
func isCertificate(der []byte) bool {
	content, rest, ok := element(der, 0x30)
	if !ok || len(rest) > 0 {
		return false
	}
	for _, tag := range []byte{0x30, 0x30, 0x03} {
		if _, content, ok = element(content, tag); !ok {
			return false
		}
	}
	return len(content) == 0
}

// element splits off an element of a tag (X.690 §8.1, §10.1).
func element(der []byte, tag byte) (content, rest []byte, ok bool) {
	if len(der) < 2 || der[0] != tag {
		return nil, nil, false
	}
	length, after := int(der[1]), der[2:]
	if length >= 0x80 {
		count := length - 0x80
		if count > 3 || len(after) < count {
			return nil, nil, false
		}
		length = 0
		for _, b := range after[:count] {
			length = length<<8 | int(b)
		}
		if after = after[count:]; length < 0x80 || count > 1 && length < 1<<(8*(count-1)) {
			return nil, nil, false
		}
	}
	if length > len(after) {
		return nil, nil, false
	}
	return after[:length], after[length:], true
}

func traefikPEM(value string) (sum [32]byte, err error) {
	for n := 0; ; n++ {
		one, rest, more := strings.Cut(value, ",")
		other, err := base64DER(one)
		if err != nil {
			return [32]byte{}, err
		}
		if n == 0 {
			sum = other
		}
		if !more {
			return sum, nil
		}
		value = rest
	}
}

func nginxEscaped(value string) (sum [32]byte, err error) {
	sum, rest, err := firstPEM(value)
	if err == nil && rest != "" {
		err = errors.New("there is more than one certificate, or text after it")
	}
	return only(sum, err)
}

func alb(value string) (sum [32]byte, err error) {
	sum, rest, err := firstPEM(value)
	for err == nil && rest != "" {
		_, rest, err = readPEM(rest)
	}
	return only(sum, err)
}

// only returns the hash, or none if there is an error.
func only(sum [32]byte, err error) ([32]byte, error) {
	if err != nil {
		return [32]byte{}, err
	}
	return sum, nil
}

// firstPEM reads the first certificate of a text with % escapes, and returns the rest
// without them. A "+" stays a plus sign, which base64 has.
func firstPEM(value string) (sum [32]byte, rest string, err error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return sum, "", errEscape
	}
	return readPEM(text)
}

// readPEM reads a certificate in PEM form at the start of a text (RFC 7468 §5.1).
func readPEM(text string) (sum [32]byte, rest string, err error) {
	body, begins := strings.CutPrefix(text, "-----BEGIN CERTIFICATE-----\n")
	body, rest, ends := strings.Cut(body, "-----END CERTIFICATE-----")
	if !begins || !ends || !strings.HasSuffix(body, "\n") || strings.Contains(body, "\r") {
		return sum, "", errPEM
	}
	sum, err = decode(body)
	return sum, strings.TrimPrefix(rest, "\n"), err
}

func hexSHA256(value string) (sum [32]byte, err error) {
	if len(value) != hex.EncodedLen(len(sum)) {
		return sum, errHex
	}
	if _, err := hex.Decode(sum[:], []byte(value)); err != nil {
		return [32]byte{}, errHex
	}
	if sum == sha256.Sum256(nil) {
		return [32]byte{}, errNobody
	}
	return sum, nil
}

// envoyXFCC reads one element: pairs of a key and a value that may be quoted, separated
// by semicolons.
func envoyXFCC(value string) (sum [32]byte, err error) {
	var hash, certificate string
	for more := true; more; {
		key, after, ok := strings.Cut(value, "=")
		if !ok || strings.ContainsFunc(key, func(c rune) bool { return (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') }) {
			return sum, errors.New("a pair is not a key of letters, and a value")
		}
		text, rest, err := xfccValue(after)
		if err != nil {
			return sum, err
		}
		var place *string
		switch {
		case strings.EqualFold(key, "Hash"):
			place = &hash
		case strings.EqualFold(key, "Cert"):
			place = &certificate
		}
		switch {
		case place == nil:
		case *place != "":
			return sum, errors.New("the key Hash or Cert occurs twice")
		case text == "":
			return sum, errors.New("the value of Hash or Cert is empty")
		default:
			*place = text
		}
		if value, more = strings.CutPrefix(rest, ";"); !more && rest != "" {
			return sum, errors.New("there is more than one element: let the proxy replace the header (SANITIZE_SET)")
		}
	}
	switch {
	case hash == "" && certificate == "":
		return sum, errors.New("it has neither Hash nor Cert")
	case hash == "":
		return nginxEscaped(certificate)
	}
	if sum, err = hexSHA256(hash); err != nil || certificate == "" {
		return sum, err
	}
	if of, err := nginxEscaped(certificate); err != nil || of != sum {
		return [32]byte{}, errors.New("the Hash is not that of the Cert")
	}
	return sum, nil
}

// xfccValue reads a value, and returns what follows it: nothing, a semicolon, or the comma
// before another element.
func xfccValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ";,")
		if end < 0 {
			end = len(text)
		}
		if strings.Contains(text[:end], `"`) {
			return "", "", errors.New("a value has a quote in it")
		}
		return text[:end], text[end:], nil
	}
	for end := 1; end < len(text); end++ {
		switch text[end] {
		case '\\': // A subject may have escapes (RFC 2253 §2.4).
			end++
		case '"':
			return text[1:end], text[end+1:], nil
		}
	}
	return "", "", errors.New("a quoted value has no end")
}
