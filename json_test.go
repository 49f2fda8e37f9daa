package koreauth_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth"
)

func TestUnmarshalJSON_RejectsInvalidJSON(t *testing.T) {
	for name, text := range map[string]string{
		"empty text":                                        ``,
		"an array":                                          `[]`,
		"a string":                                          `"x"`,
		"two objects":                                       `{}{}`,
		"text after the object":                             `{} x`,
		"a zero byte after the object":                      "{}\x00",
		"a byte order mark":                                 "\xef\xbb\xbf{}",
		"a truncated object":                                `{"a":1`,
		"a duplicate member":                                `{"exp":1,"exp":2}`,
		"a duplicate with an escaped name":                  `{"exp":1,"\u0065xp":2}`,
		"a duplicate in an unknown member":                  `{"x":{"a":1,"b":{"c":1,"c":1}}}`,
		"a duplicate in an array":                           `{"x":[{"a":1,"a":1}]}`,
		"a duplicate in scopes":                             `{"scopes":{"products":[],"products":[]}}`,
		"a duplicate after 200 members":                     `{` + manyMembers(200) + `"m7":1}`,
		"a duplicate of an empty name":                      `{"":1,"":2}`,
		"invalid UTF-8 in a value":                          "{\"a\":\"\xff\"}",
		"invalid UTF-8 in a name":                           "{\"\xc3\":1}",
		"overlong UTF-8":                                    "{\"a\":\"\xc0\xaf\"}",
		"a lone high surrogate":                             `{"a":"\ud800"}`,
		"a low surrogate before a high one":                 `{"a":"\udc00\ud800"}`,
		"a high surrogate before another character":         `{"a":"\ud800\u0041"}`,
		"a lone surrogate as a name":                        `{"\ud800":1}`,
		"a control character":                               "{\"a\":\"\x01\"}",
		"a line break in a string":                          "{\"a\":\"\n\"}",
		"an unknown escape":                                 `{"a":"\x41"}`,
		"a truncated escape":                                `{"a":"\u00"}`,
		"an escape with a letter that is not hexadecimal":   `{"a":"\u00g0"}`,
		"single quotes":                                     `{'a':1}`,
		"a name without quotes":                             `{a:1}`,
		"a trailing comma":                                  `{"a":1,}`,
		"a trailing comma in an array":                      `{"a":[1,]}`,
		"a semicolon in place of a comma":                   `{"a":1;"b":2}`,
		"a semicolon in place of a comma in an array":       `{"a":[1;2]}`,
		"an apostrophe in place of an opening quote":        `{'a":1}`,
		"a letter in place of an opening quote":             `{"a":1,xb":2}`,
		"a literal that begins like null":                   `{"a":nope}`,
		"a literal that begins like true":                   `{"a":trux}`,
		"a literal that begins like false":                  `{"a":falsy}`,
		"a control character after an escape":               "{\"a\":\"\\n\x01\"}",
		"a missing comma":                                   `{"a":1 "b":2}`,
		"no colon":                                          `{"a" 1}`,
		"no value":                                          `{"a":}`,
		"a comment":                                         `{"a":1/**/}`,
		"a number with a leading zero":                      `{"a":01}`,
		"a number with a plus sign":                         `{"a":+1}`,
		"a number that ends in a dot":                       `{"a":1.}`,
		"a number that begins with a dot":                   `{"a":.1}`,
		"a number with an empty exponent":                   `{"a":1e}`,
		"a hexadecimal number":                              `{"a":0x1}`,
		"NaN":                                               `{"a":NaN}`,
		"a minus sign without a number":                     `{"a":-}`,
		"True":                                              `{"a":True}`,
		"nullx":                                             `{"a":nullx}`,
		"mismatched brackets":                               `{"a":[1}`,
		"white space that JSON does not allow":              "{\u00a0}",
		"a vertical tab":                                    "{\v}",
		"a name without its opening quote":                  `{a":1}`,
		"two members without a comma or space between":      `{"a":1"b":2}`,
		"a member after a quote in place of a comma":        `{"a":1""b":2}`,
		"null in another case":                              `{"a":nuLL}`,
		"a tab after an escape":                             "{\"a\":\"\\n\t\"}",
		"the first name again, after many others":           `{` + manyMembers(40) + `"m0":1}`,
		"the 33rd name again":                               `{` + manyMembers(40) + `"m32":1}`,
		"a name again, after an object with the same names": `{"x":{` + manyMembers(20) + `"y":1},` + manyMembers(20) + `"m3":1}`,
		"nesting of 65 levels":                              `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`,
		"nesting of 65 levels of objects":                   strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65),
		"nesting of 65 levels, in a claim that is read":     `{"scopes":{"products":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}}`,
		"nesting of 10,000 levels":                          `{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
	} {
		var claims koreauth.Claims
		assert.Error(t, claims.UnmarshalJSON([]byte(text)), name)
	}
}

// manyMembers returns n members of an object, each with a comma after it.
func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":1,`, i)
	}
	return b.String()
}

func TestUnmarshalJSON_AcceptsValidJSON(t *testing.T) {
	for name, text := range map[string]string{
		"white space":                    " \t\r\n{ \"sub\" : \"s\" } \n",
		"escapes":                        `{"s\u0075b":"\u0073"}`,
		"unknown members":                `{"x":{"y":[1,-2.5e+3,true,false,null,"\"\\\/\b\f\n\r\t"]},"sub":"s"}`,
		"names that differ only in case": `{"Sub":"x","SUB":"y","sub":"s"}`,
		"the same name at two depths":    `{"sub":"s","x":{"sub":"x"}}`,
		"the same name at two depths, the inner one first": `{"x":{"sub":"x"},"sub":"s"}`,
		"the same name in two objects":                     `{"x":[{"a":1},{"a":2}],"sub":"s"}`,
		"a surrogate pair":                                 `{"x":"\ud83d\ude00","sub":"s"}`,
		"characters outside ASCII":                         `{"x":"ſ€😀","sub":"s"}`,
		"DEL":                                              "{\"x\":\"\x7f\",\"sub\":\"s\"}",
		"an empty name":                                    `{"":1,"sub":"s"}`,
		"many members":                                     `{` + manyMembers(500) + `"sub":"s"}`,
		"nesting of 64 levels":                             `{"sub":"s","x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		"names of an inner object are not those of the outer": `{"x":{` + manyMembers(30) + `"y":1},` + manyMembers(30) + `"y":1,"sub":"s"}`,
		"a number that no float64 can hold":                   `{"x":1e99999,"sub":"s"}`,
	} {
		var claims koreauth.Claims
		if assert.NoError(t, claims.UnmarshalJSON([]byte(text)), name) {
			assert.Equal(t, "s", claims.Subject, name)
		}
	}
}

func TestUnmarshalJSON_ReplacesClaims(t *testing.T) {
	claims := koreauth.Claims{Subject: "before", ClientType: "admin"}
	assert.NoError(t, claims.UnmarshalJSON([]byte(`null`)))
	assert.Equal(t, koreauth.Claims{Subject: "before", ClientType: "admin"}, claims, "null changes nothing")
	assert.Error(t, claims.UnmarshalJSON([]byte(`{"sub":"after","sub":"twice"}`)))
	assert.Equal(t, koreauth.Claims{Subject: "before", ClientType: "admin"}, claims, "an error changes nothing")
	assert.NoError(t, claims.UnmarshalJSON([]byte(`{"sub":"after"}`)))
	assert.Equal(t, "after", claims.Subject)
	assert.Empty(t, claims.ClientType, "a claim that is absent")
}

func TestUnmarshalJSON_FindsEveryDuplicate(t *testing.T) {
	for n := range 80 {
		for i := range n {
			var claims koreauth.Claims
			assert.Error(t, claims.UnmarshalJSON(fmt.Appendf(nil, `{%s"m%d":1}`, manyMembers(n), i)), "duplicate of member %d of %d", i, n)
		}
	}
}

func TestUnmarshalJSON_NestedNamesAreSeparate(t *testing.T) {
	for n := range 30 {
		for i := range 60 {
			var claims koreauth.Claims
			assert.NoError(t, claims.UnmarshalJSON(fmt.Appendf(nil, `{%s"x":{"k%d":1},"k%d":1}`, manyMembers(n), i, i)), "k%d after %d", i, n)
		}
	}
}
