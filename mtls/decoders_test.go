package mtls_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/mtls"
)

var decoders = map[string]mtls.Decoder{
	"RFC9440": mtls.RFC9440, "EnvoyXFCC": mtls.EnvoyXFCC, "NginxEscaped": mtls.NginxEscaped, "ALB": mtls.ALB,
	"TraefikPEM": mtls.TraefikPEM, "Base64DER": mtls.Base64DER, "HexSHA256": mtls.HexSHA256,
}

// nothing is the SHA-256 of nothing, which Caddy sends without a certificate.
const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// headers are values for each decoder that name the own certificate, and values that no
// decoder may read.
func headers() map[string]struct{ good, bad []string } {
	own, other := ownForms()
	derWith := func(change func(der []byte) []byte) string {
		return base64.StdEncoding.EncodeToString(change(append([]byte(nil), own.der...)))
	}
	badBase64 := []string{
		"", " ", "x", "=", "====", strings.TrimRight(own.base64, "=") + "=" + "=" + "=", own.base64 + "A", own.base64 + "====", own.base64 + " ", " " + own.base64,
		own.base64[:40] + "\n" + own.base64[40:], own.base64[:40] + "\r\n" + own.base64[40:], own.base64 + "\n", own.base64[:40] + " " + own.base64[40:],
		strings.ReplaceAll(own.base64, "/", "_") + "-", own.base64[:len(own.base64)-8], base64.StdEncoding.EncodeToString([]byte("no certificate")),
		derWith(func(der []byte) []byte { return append(der, 0) }),                                  // trailing bytes
		derWith(func(der []byte) []byte { return der[:len(der)-1] }),                                // cut
		derWith(func(der []byte) []byte { return append(der, der...) }),                             // twice
		derWith(func(der []byte) []byte { der[0] = 0x31; return der }),                              // a SET
		derWith(func(der []byte) []byte { der[1] = 0x80; return der }),                              // an indefinite length
		derWith(func([]byte) []byte { return []byte{0x30, 0} }),                                     // empty
		derWith(func([]byte) []byte { return []byte{0x30, 6, 0x30, 0, 0x30, 0, 0x04, 0} }),          // another type
		derWith(func([]byte) []byte { return []byte{0x30, 0x81, 6, 0x30, 0, 0x30, 0, 0x03, 0} }),    // a length that is too long
		derWith(func([]byte) []byte { return []byte{0x30, 8, 0x30, 0, 0x30, 0, 0x03, 0, 5, 0} }),    // four members
		derWith(func([]byte) []byte { return []byte{0x30, 0x84, 0, 0, 0, 6, 0x30, 0, 0x30, 0, 3} }), // a length of four bytes
		derWith(func([]byte) []byte { return []byte{0x30, 0x80} }),
		derWith(func([]byte) []byte { return []byte{0x30, 0x82, 1} }),
		derWith(func(der []byte) []byte { return append([]byte{0x30, 0x83, 0}, der[2:]...) }),                   // a length with a leading zero
		derWith(func(der []byte) []byte { return append([]byte{0x30, 0x89, 1, 0, 0, 0, 0, 0, 0}, der[2:]...) }), // a length that overflows
		own.pem, own.hex, own.escaped,
	}
	unpadded := strings.TrimRight(own.base64, "=")
	if unpadded != own.base64 {
		badBase64 = append(badBase64, unpadded, unpadded[:len(unpadded)-1]+"/"+strings.Repeat("=", len(own.base64)-len(unpadded)))
	}
	wrap := func(before, after string, values ...string) (all []string) {
		for _, value := range values {
			all = append(all, before+value+after)
		}
		return all
	}
	badPEM := []string{
		"", own.base64, own.hex, "x" + own.escaped, "%0A" + own.escaped, own.escaped + "x", own.escaped + "%0A", own.escaped + own.escaped[:40], "%", own.escaped + "%", own.escaped + "%zz",
		strings.ReplaceAll(own.escaped, "CERTIFICATE", "PUBLIC%20KEY"), strings.ReplaceAll(own.escaped, "CERTIFICATE", "TRUSTED%20CERTIFICATE"), strings.ReplaceAll(own.escaped, "%0A", "%0D%0A"),
		strings.ReplaceAll(own.escaped, "%0A", ""), strings.ReplaceAll(own.escaped, "%0A", "%20"), strings.ReplaceAll(own.escaped, "%20", "+"), strings.Replace(own.escaped, "BEGIN", "begin", 1),
		strings.Replace(own.escaped, "-----%0A", "-----%0AProc-Type:%204%0A%0A", 1), strings.Replace(own.escaped, "-----END", "----END", 1), own.escaped[:len(own.escaped)-40],
		strings.Replace(own.escaped[:60], "%0A", "%0A", 1) + strings.Replace(own.escaped[60:], "%0A", "%0D%0A", 1), strings.Replace(own.escaped, "%0A-----END", "-----END", 1),
		own.escaped[strings.Index(own.escaped, "%0A")+3:], own.escaped[:strings.Index(own.escaped, "-----END")],
		"-----BEGIN%20CERTIFICATE-----%0A-----END%20CERTIFICATE-----%0A", strings.ReplaceAll(own.escaped, "%2B", "%20") + "%20",
	}
	badHex := []string{"", nothing, strings.ToUpper(nothing), own.hex[1:], own.hex + "0", "g" + own.hex[1:], own.hex[:62] + "é", " " + own.hex[1:], own.hex[:32] + ":" + own.hex[33:], "0x" + own.hex[2:], own.base64, own.thumbprint()}
	return map[string]struct{ good, bad []string }{
		"Base64DER": {[]string{own.base64}, append(badBase64, ":"+own.base64+":", own.base64+","+other.base64)},
		"RFC9440": {[]string{":" + own.base64 + ":"}, append(wrap(":", ":", badBase64...), own.base64, ":"+own.base64, own.base64+":", "::", ":", "", " :"+own.base64+":",
			":"+own.base64+": ", ":"+own.base64+":;a=1", ":"+own.base64+":, :"+other.base64+":", "::"+own.base64+"::", "\""+own.base64+"\"")},
		"TraefikPEM": {[]string{own.base64, own.base64 + "," + other.base64, own.base64 + "," + other.base64 + "," + own.base64},
			append(wrap(own.base64+",", "", badBase64...), append(badBase64, ","+own.base64, own.base64+", "+other.base64)...)},
		"NginxEscaped": {[]string{own.escaped, own.escapedALB, strings.TrimSuffix(own.escaped, "%0A"), own.pem}, append(badPEM, own.escaped+other.escaped)},
		"ALB": {[]string{own.escaped, own.escapedALB, own.escapedALB + other.escapedALB, own.escapedALB + other.escapedALB + own.escapedALB},
			append(badPEM, own.escapedALB+"%0A"+other.escapedALB, own.escapedALB+other.base64, own.escapedALB+other.escapedALB+"x")},
		"HexSHA256": {[]string{own.hex, strings.ToUpper(own.hex)}, badHex},
		"EnvoyXFCC": {[]string{
			"Hash=" + own.hex, "hash=" + own.hex, "HASH=" + strings.ToUpper(own.hex), `Hash="` + own.hex + `"`, "By=spiffe://a/b;Hash=" + own.hex + ";URI=spiffe://c/d",
			`Hash=` + own.hex + `;Cert="` + own.escaped + `";Subject="CN=kc_\"1\",O=Acme\, Inc\; x=y";URI=`, `Cert="` + own.escaped + `"`, "Cert=" + own.escaped,
			`Hash=` + own.hex + `;Chain="` + other.escaped + `"`, `Subject="\\";Hash=` + own.hex, `Subject="";Hash=` + own.hex, "Hash=" + own.hex + ";DNS=a.example;DNS=b.example",
		}, append(append(wrap("Hash=", "", badHex...), wrap(`Cert="`, `"`, badPEM...)...),
			"Hash", "Hash="+own.hex+";", ";Hash="+own.hex, ";", "=", "Hash="+own.hex+";;URI=", "Hash="+own.hex+",", ",Hash="+own.hex, "Hash="+own.hex+",Hash="+own.hex, "Hash="+own.hex+",Hash="+other.hex,
			"Hash="+own.hex+";Hash="+own.hex, "Hash="+own.hex+";hash="+other.hex, "Hash="+own.hex+";URI=spiffe://a;Hash="+other.hex, "Hash="+own.hex+";URI=spiffe://a,Hash="+other.hex, "Hash="+own.hex+";x,Hash="+other.hex,
			"Hash="+own.hex+` ;URI=`, "Hash ="+own.hex, " Hash="+own.hex, `Hash="`+own.hex, `Hash="`+own.hex+`"x`, `Hash="`+own.hex+`\"`, `Hash=`+own.hex+`"`, `Subject="CN=a;Hash=`+own.hex, `Subject="CN=a\";Hash=`+own.hex,
			`URI=spiffe://a"b;Hash=`+own.hex, "URI=spiffe://a", "Subject=\"CN=a\"", `Hash=`+own.hex+`;Cert="`+other.escaped+`"`, `Hash=`+other.hex+`;Cert="`+own.escaped+`"`, `Hash=`+own.hex+`;Cert="`+own.base64+`"`, `Hash=`+own.hex+`;Cert=""`,
			`Cert="`+own.escaped+`";Cert="`+own.escaped+`"`, `Cert="`+own.escaped+other.escaped+`"`)},
	}
}

func TestDecoders(t *testing.T) {
	own, _ := ownForms()
	all := headers()
	assert.Len(t, all, len(decoders))
	for name, decode := range decoders {
		for _, value := range all[name].good {
			sum, err := decode(value)
			assert.NoError(t, err, "%s: %q", name, value)
			assert.Equal(t, own.sum, sum, "%s: %q", name, value)
		}
		for _, value := range all[name].bad {
			sum, err := decode(value)
			if assert.Error(t, err, "%s: %q", name, value) {
				assert.Less(t, len(err.Error()), 120)
			}
			assert.Zero(t, sum, "%s: %q", name, value)
		}
	}
}

// FuzzDecoders checks that what is accepted has one reading: the hash of a certificate that
// crypto/x509 can read too, or a hash that the value has in it.
func FuzzDecoders(f *testing.F) {
	for _, kind := range headers() {
		for _, value := range append(kind.good, kind.bad...) {
			f.Add(value)
		}
	}
	f.Fuzz(func(t *testing.T, value string) {
		for name, decode := range decoders {
			sum, err := decode(value)
			if err != nil {
				assert.Zero(t, sum, name)
				continue
			}
			switch name {
			case "RFC9440":
				value := strings.TrimSuffix(strings.TrimPrefix(value, ":"), ":")
				der, err := base64.StdEncoding.DecodeString(value)
				assert.NoError(t, err)
				assert.Equal(t, value, base64.StdEncoding.EncodeToString(der))
				assert.Equal(t, sum, formsOf(der).sum)
			case "Base64DER":
				der, err := base64.StdEncoding.DecodeString(value)
				assert.NoError(t, err)
				assert.Equal(t, value, base64.StdEncoding.EncodeToString(der))
				assert.Equal(t, sum, formsOf(der).sum)
			case "HexSHA256":
				assert.Len(t, value, 64)
			case "EnvoyXFCC":
				lower := strings.ToLower(value)
				assert.True(t, strings.Contains(lower, hex.EncodeToString(sum[:])) || strings.Contains(lower, "cert="))
			}
		}
		if certificate, err := x509.ParseCertificate([]byte(value)); err == nil {
			sum, err := mtls.Base64DER(base64.StdEncoding.EncodeToString(certificate.Raw))
			assert.NoError(t, err)
			assert.Equal(t, formsOf(certificate.Raw).sum, sum)
		}
	})
}
