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
		"nothing":                              ``,
		"an array":                             `[]`,
		"a string":                             `"x"`,
		"two objects":                          `{}{}`,
		"something after it":                   `{} x`,
		"a zero byte after it":                 "{}\x00",
		"a byte order mark":                    "\xef\xbb\xbf{}",
		"no end":                               `{"a":1`,
		"a duplicate member":                   `{"exp":1,"exp":2}`,
		"a duplicate that is escaped":          `{"exp":1,"\u0065xp":2}`,
		"a duplicate in an unknown member":     `{"x":{"a":1,"b":{"c":1,"c":1}}}`,
		"a duplicate in an array":              `{"x":[{"a":1,"a":1}]}`,
		"a duplicate in scopes":                `{"scopes":{"products":[],"products":[]}}`,
		"a duplicate after many":               `{` + manyMembers(200) + `"m7":1}`,
		"a duplicate of an empty name":         `{"":1,"":2}`,
		"bad UTF-8 in a value":                 "{\"a\":\"\xff\"}",
		"bad UTF-8 in a name":                  "{\"\xc3\":1}",
		"an overlong encoding":                 "{\"a\":\"\xc0\xaf\"}",
		"half of a surrogate pair":             `{"a":"\ud800"}`,
		"the wrong half of a pair":             `{"a":"\udc00\ud800"}`,
		"half a pair and a character":          `{"a":"\ud800\u0041"}`,
		"half a pair as a name":                `{"\ud800":1}`,
		"a control character":                  "{\"a\":\"\x01\"}",
		"a line break in a string":             "{\"a\":\"\n\"}",
		"an unknown escape":                    `{"a":"\x41"}`,
		"an escape cut short":                  `{"a":"\u00"}`,
		"an escape of no hexadecimal":          `{"a":"\u00g0"}`,
		"single quotes":                        `{'a':1}`,
		"a bare name":                          `{a:1}`,
		"a comma too many":                     `{"a":1,}`,
		"a comma too many in an array":         `{"a":[1,]}`,
		"another mark for a comma":             `{"a":1;"b":2}`,
		"another mark for a comma in an array": `{"a":[1;2]}`,
		"another mark for a quote":             `{'a":1}`,
		"another mark for a quote, later":      `{"a":1,xb":2}`,
		"a literal that begins like null":      `{"a":nope}`,
		"a literal that begins like true":      `{"a":trux}`,
		"a literal that begins like false":     `{"a":falsy}`,
		"a control character after an escape":  "{\"a\":\"\\n\x01\"}",
		"a comma too few":                      `{"a":1 "b":2}`,
		"no colon":                             `{"a" 1}`,
		"no value":                             `{"a":}`,
		"a comment":                            `{"a":1/**/}`,
		"a number with a leading zero":         `{"a":01}`,
		"a number with a plus":                 `{"a":+1}`,
		"a number that ends in a dot":          `{"a":1.}`,
		"a number that begins with a dot":      `{"a":.1}`,
		"a number with an empty exponent":      `{"a":1e}`,
		"hexadecimal":                          `{"a":0x1}`,
		"NaN":                                  `{"a":NaN}`,
		"a minus alone":                        `{"a":-}`,
		"True":                                 `{"a":True}`,
		"nullx":                                `{"a":nullx}`,
		"the wrong bracket":                    `{"a":[1}`,
		"white space that is not JSON's":       "{\u00a0}",
		"a vertical tab":                       "{\v}",
		"nesting beyond encoding/json's limit": `{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
	} {
		var claims koreauth.Claims
		assert.Error(t, claims.UnmarshalJSON([]byte(text)), name)
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":1,`, i)
	}
	return b.String()
}

func TestUnmarshalJSON_AcceptsValidJSON(t *testing.T) {
	for name, text := range map[string]string{
		"white space":                   " \t\r\n{ \"sub\" : \"s\" } \n",
		"escapes":                       `{"s\u0075b":"\u0073"}`,
		"unknown members":               `{"x":{"y":[1,-2.5e+3,true,false,null,"\"\\\/\b\f\n\r\t"]},"sub":"s"}`,
		"names that differ in case":     `{"Sub":"x","SUB":"y","sub":"s"}`,
		"one name at different depths":  `{"sub":"s","x":{"sub":"x"}}`,
		"one name, the inner one first": `{"x":{"sub":"x"},"sub":"s"}`,
		"one name in two objects":       `{"x":[{"a":1},{"a":2}],"sub":"s"}`,
		"a surrogate pair":              `{"x":"\ud83d\ude00","sub":"s"}`,
		"characters beyond ASCII":       `{"x":"ſ€😀","sub":"s"}`,
		"DEL":                           "{\"x\":\"\x7f\",\"sub\":\"s\"}",
		"an empty name":                 `{"":1,"sub":"s"}`,
		"many members":                  `{` + manyMembers(500) + `"sub":"s"}`,
		"deep nesting":                  `{"sub":"s","x":` + strings.Repeat("[", 9_999) + strings.Repeat("]", 9_999) + `}`,
		"a number beyond every machine": `{"x":1e99999,"sub":"s"}`,
	} {
		var claims koreauth.Claims
		if assert.NoError(t, claims.UnmarshalJSON([]byte(text)), name) {
			assert.Equal(t, "s", claims.Subject, name)
		}
	}
}

func TestUnmarshalJSON_FindsEveryDuplicate(t *testing.T) {
	for n := range 80 {
		for i := range n {
			var claims koreauth.Claims
			assert.Error(t, claims.UnmarshalJSON(fmt.Appendf(nil, `{%s"m%d":1}`, manyMembers(n), i)), "member %d of %d again", i, n)
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

func TestUnmarshalJSON_AlmostValid(t *testing.T) {
	for name, text := range map[string]string{
		"a name without its first quote":              `{a":1}`,
		"a member without a comma":                    `{"a":1"b":2}`,
		"a member after a quote in place of a comma":  `{"a":1""b":2}`,
		"true, but for the last letter":               `{"a":trux}`,
		"false, but for the last letter":              `{"a":falsy}`,
		"null, in another case":                       `{"a":nuLL}`,
		"a control character after an escape":         "{\"a\":\"\\n\t\"}",
		"the first name again, after many others":     `{` + manyMembers(40) + `"m0":1}`,
		"the name that made them many, again":         `{` + manyMembers(40) + `"m32":1}`,
		"a name again, after an object with the same": `{"x":{` + manyMembers(20) + `"y":1},` + manyMembers(20) + `"m3":1}`,
	} {
		var claims koreauth.Claims
		assert.Error(t, claims.UnmarshalJSON([]byte(text)), name)
	}
	var claims koreauth.Claims
	again := `{"x":{` + manyMembers(30) + `"y":1},` + manyMembers(30) + `"y":1}`
	assert.NoError(t, claims.UnmarshalJSON([]byte(again)), "names of an inner object are not those of the outer")
}
