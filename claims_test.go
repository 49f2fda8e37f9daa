package koreauth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// claimsOf reads a payload that nobody has signed.
func claimsOf(t *testing.T, payload string) *koreauth.Claims {
	t.Helper()
	claims := new(koreauth.Claims)
	require.NoError(t, json.Unmarshal([]byte(payload), claims))
	return claims
}

// samplePayload is the payload of the token that KORE's documentation shows.
func samplePayload(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("testdata/kore-sample-token.txt")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(page), ".")
	segment, _, _ := strings.Cut(rest, ".")
	payload, err := base64.RawURLEncoding.DecodeString(segment)
	require.NoError(t, err)
	return string(payload)
}

func TestTheSampleOfKOREsDocumentationComesOutTyped(t *testing.T) {
	claims := claimsOf(t, samplePayload(t))
	assert.Equal(t, "https://keycloak.dev.nginx.k1d.k8.cin.kore.korewireless.com/realms/KORE-CIDP", claims.Issuer)
	assert.Equal(t, "74663e17-66e4-4e42-a58b-e2b7e5227ebe", claims.Subject)
	assert.Equal(t, "ebf11282-f6d0-40f1-b2e9-5c313a29ac2d", claims.ID)
	assert.Equal(t, "kc_01hxaz4se2eh6r36qgptqahw1d", claims.ClientID)
	assert.Equal(t, []string{"api-gw"}, claims.Audience)
	assert.Equal(t, []string{"email"}, claims.Scopes)
	assert.Equal(t, time.Unix(1715133925, 0).UTC(), claims.IssuedAt)
	assert.Equal(t, time.Unix(1715137525, 0).UTC(), claims.Expiry)
	assert.True(t, claims.NotBefore.IsZero())
	assert.Equal(t, "CO1686726qunzorx356280", claims.AccountID)
	assert.Equal(t, "admin", claims.ClientType)
	assert.True(t, strings.HasSuffix(claims.ClientOwner, "@korewireless.com"))
	assert.Empty(t, claims.IPRanges)
	assert.Empty(t, claims.Products)
	assert.Equal(t, []koreauth.Resource{{
		Name:   "API Clients",
		Access: []koreauth.Access{koreauth.Read, koreauth.Write, koreauth.Modify, koreauth.Delete},
	}}, claims.Resources)

	var more struct {
		TwilioSID  string `json:"twilio-sid"`
		ClientHost string `json:"clientHost"`
	}
	require.NoError(t, claims.Decode(&more))
	assert.Equal(t, "devportalSIDtest", more.TwilioSID)
	assert.Equal(t, "10.233.69.0", more.ClientHost)
}

func TestScopesInEveryShape(t *testing.T) {
	for payload, want := range map[string][]string{
		`{"scope":"a b"}`:                      {"a", "b"},
		`{"scope":"  a  b "}`:                  {"a", "b"},
		`{"scope":"a\tb c"}`:                   {"a\tb", "c"},
		`{"scope":["a b","c"]}`:                {"a b", "c"},
		`{"scope":""}`:                         nil,
		`{"scope":["a",1]}`:                    nil,
		`{"scope":7,"scp":"a"}`:                nil,
		`{"scp":"a","scope":null}`:             nil,
		`{"scp":"a b"}`:                        {"a", "b"},
		`{"scp":["a","b"]}`:                    {"a", "b"},
		`{"scp":"a","scope":"b"}`:              {"b"},
		`{"scope":"b","scp":"a"}`:              {"b"},
		`{"Scope":"a","scp":{}}`:               nil,
		`{"scope":"\u0061\u0020b"}`:            {"a", "b"},
		"{\"scope\":\"a\u00a0b c\"}":           {"a\u00a0b", "c"},
		`{"scopes":"a b"}`:                     nil,
		`{"\u0073cope":"escaped names count"}`: {"escaped", "names", "count"},
	} {
		assert.Equal(t, want, claimsOf(t, payload).Scopes, payload)
	}
}

func TestResourcesAndProductsInEveryShape(t *testing.T) {
	for _, row := range []struct {
		name, scopes string
		resources    []koreauth.Resource
		products     []string
	}{
		{"products as plain strings", `{"products":["SuperSIM","ProgrammableWireless"]}`, nil, []string{"SuperSIM", "ProgrammableWireless"}},
		{"a product as an object", `{"products":[{"resourceName":"SuperSIM","access":["Read"]},"X"]}`, nil, []string{"SuperSIM", "X"}},
		{"a product of another shape", `{"products":[7,null,{},{"resourceName":7},"X"]}`, nil, []string{"X"}},
		{"products as one string", `{"products":"SuperSIM"}`, nil, nil},
		{"two entries of one name", `{"globalResources":[{"resourceName":"A","access":["Read"]},{"access":["Write"],"resourceName":"A"}]}`,
			[]koreauth.Resource{{Name: "A", Access: []koreauth.Access{"Read"}}, {Name: "A", Access: []koreauth.Access{"Write"}}}, nil},
		{"access as one string", `{"globalResources":[{"resourceName":"A","access":"Read"}]}`, []koreauth.Resource{{Name: "A"}}, nil},
		{"access with a number in it", `{"globalResources":[{"resourceName":"A","access":["Read",1]}]}`, []koreauth.Resource{{Name: "A"}}, nil},
		{"names in another case", `{"GlobalResources":[{"resourceName":"A","access":["Read"]}]}`, nil, nil},
		{"an inner name in another case", `{"globalResources":[{"ResourceName":"A","access":["Read"]}]}`, nil, nil},
		{"an entry of another shape spoils no other", `{"globalResources":[7,[],{"access":["Read"]},{"resourceName":"A","access":["Read"]}]}`,
			[]koreauth.Resource{{Name: "A", Access: []koreauth.Access{"Read"}}}, nil},
		{"one object in place of a list", `{"globalResources":{"resourceName":"A","access":["Read"]}}`, nil, nil},
		{"an array", `[{"globalResources":[]}]`, nil, nil},
		{"null", `null`, nil, nil},
	} {
		claims := claimsOf(t, `{"scopes":`+row.scopes+`}`)
		assert.Equal(t, row.resources, claims.Resources, row.name)
		assert.Equal(t, row.products, claims.Products, row.name)
	}
}

func TestDatesNeverWrap(t *testing.T) {
	for number, want := range map[string]string{
		"0":                      "1970-01-01T00:00:00Z",
		"-0":                     "1970-01-01T00:00:00Z",
		"1715137525":             "2024-05-08T03:05:25Z",
		"1715137525.25":          "2024-05-08T03:05:25.25Z",
		"1.715137525e9":          "2024-05-08T03:05:25Z",
		"17151375250E-1":         "2024-05-08T03:05:25Z",
		"-1.5":                   "1969-12-31T23:59:58.5Z",
		"9223372036854775807":    "9999-12-31T23:59:59Z",
		"9223372036854775808":    "9999-12-31T23:59:59Z",
		"-9223372036854775808":   "0001-01-01T00:00:01Z",
		"1e999":                  "9999-12-31T23:59:59Z",
		"-1e999":                 "0001-01-01T00:00:01Z",
		"-62135596800":           "0001-01-01T00:00:01Z",
		strings.Repeat("9", 400): "9999-12-31T23:59:59Z",
	} {
		claims := claimsOf(t, `{"exp":`+number+`}`)
		assert.Equal(t, want, claims.Expiry.Format(time.RFC3339Nano), number)
		assert.False(t, claims.Expiry.IsZero(), number)
	}
}

func TestUnmarshalRefusesWhatIsNotOneStrictObject(t *testing.T) {
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

func TestUnmarshalAcceptsWhatTheRFCsAllow(t *testing.T) {
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

func TestDecodeFailsWhereTwoMembersWouldFoldToOneField(t *testing.T) {
	type inner struct {
		Name string `json:"name"`
	}
	type into struct {
		Plan  string           `json:"plan"`
		Inner inner            `json:"inner"`
		List  []*inner         `json:"list"`
		Map   map[string]inner `json:"map"`
		Other json.RawMessage  `json:"other"`
		Plain string
	}
	for _, row := range []struct {
		payload string
		folds   bool
	}{
		{`{"plan":"a"}`, false},
		{`{"Plan":"a"}`, false},
		{`{"plan":"a","Plan":"b"}`, true},
		{`{"plan":"a","ſub":"b","sub":"c"}`, false},
		{`{"plain":"a","PLAIN":"b"}`, true},
		{`{"exp":1,"Exp":2,"plan":"a"}`, false},
		{`{"inner":{"name":"a","Name":"b"}}`, true},
		{`{"list":[{"name":"a"},{"name":"a","NAME":"b"}]}`, true},
		{`{"map":{"x":{"name":"a","NAME":"b"}}}`, true},
		{`{"map":{"x":{"name":"a"},"X":{"name":"b"}}}`, false},
		{`{"other":{"name":"a","Name":"b"}}`, false},
	} {
		var v into
		err := claimsOf(t, row.payload).Decode(&v)
		assert.Equal(t, row.folds, err != nil, "%s: %v", row.payload, err)
	}
	var all map[string]any
	require.NoError(t, claimsOf(t, `{"plan":"a","Plan":"b"}`).Decode(&all), "a map folds nothing")
	assert.Len(t, all, 2)
}

func TestDecodeSaysWhatItCannotDo(t *testing.T) {
	var v map[string]any
	require.ErrorContains(t, new(koreauth.Claims).Decode(&v), "not read from a token")
	require.ErrorContains(t, (*koreauth.Claims)(nil).Decode(&v), "not read from a token")
	require.Error(t, claimsOf(t, `{}`).Decode(nil))
	require.Error(t, claimsOf(t, `{}`).Decode(v))
	var wrong struct{ Exp string }
	require.ErrorContains(t, claimsOf(t, `{"exp":1}`).Decode(&wrong), "decode claims")
}

func TestClaimsShowNoSecret(t *testing.T) {
	claims := claimsOf(t, samplePayload(t))
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("x", "pointer", claims, "value", *claims)
	}
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v", claims, claims, claims, claims, claims, *claims, *claims, *claims)
	for _, want := range []string{claims.Issuer, claims.Subject, claims.ClientID, claims.AccountID} {
		assert.Contains(t, shown, want)
	}
	for _, secret := range []string{"jben", "o2gYFN7q", "devportalSIDtest", "API Clients", claims.ID, "10.233"} {
		assert.NotContains(t, shown, secret)
	}
	assert.NotRegexp(t, regexp.MustCompile(`[\w.]+@[\w.]+`), shown)

	// fmt calls no methods of what is in an unexported field.
	hidden := fmt.Sprintf("%v %+v %#v", struct{ c koreauth.Claims }{*claims}, struct{ c koreauth.Claims }{*claims}, struct{ c koreauth.Claims }{*claims})
	assert.NotContains(t, hidden, "o2gYFN7q")
	encoded, err := json.Marshal(claims)
	require.NoError(t, err)
	assert.NotContains(t, string(encoded), "jben")
	assert.NotContains(t, string(encoded), "o2gYFN7q")

	claims.Subject, claims.ClientID = "someone@example.com", koretestToken(t)
	assert.NotContains(t, claims.String(), "example.com", "an e-mail address as the subject")
	assert.NotContains(t, claims.String(), "eyJ", "a token as the client")
}

func koretestToken(t *testing.T) string {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: judgedIssuer, Keys: []*koretest.Key{signingKeys()["ES256"]}})
	require.NoError(t, err)
	return issuer.Valid()
}

func TestADuplicateIsFoundAmongAnyNumberOfMembers(t *testing.T) {
	for n := range 80 {
		for i := range n {
			var claims koreauth.Claims
			assert.Error(t, claims.UnmarshalJSON(fmt.Appendf(nil, `{%s"m%d":1}`, manyMembers(n), i)), "member %d of %d again", i, n)
		}
	}
}

func TestNamesOfAnInnerObjectAreItsOwn(t *testing.T) {
	for n := range 30 {
		for i := range 60 {
			var claims koreauth.Claims
			assert.NoError(t, claims.UnmarshalJSON(fmt.Appendf(nil, `{%s"x":{"k%d":1},"k%d":1}`, manyMembers(n), i, i)), "k%d after %d", i, n)
		}
	}
}

func TestDecodeLooksBehindAnInterface(t *testing.T) {
	var into any = &struct {
		Plan string `json:"plan"`
	}{}
	require.Error(t, claimsOf(t, `{"plan":"a","Plan":"b"}`).Decode(&into))
	var both struct {
		Lower string `json:"plan"`
		Upper string `json:"PLAN"`
	}
	require.NoError(t, claimsOf(t, `{"plan":"a","PLAN":"b"}`).Decode(&both), "each has a field of its exact name")
	assert.Equal(t, "a", both.Lower)
	assert.Equal(t, "b", both.Upper)
}

func TestJSONThatIsAlmostRight(t *testing.T) {
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
