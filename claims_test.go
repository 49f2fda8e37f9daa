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

// samplePayload returns the payload of the token in KORE's documentation.
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

func TestClaims_KORESampleToken(t *testing.T) {
	claims := parseClaims(t, samplePayload(t))
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

func TestClaims_Scopes(t *testing.T) {
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
		assert.Equal(t, want, parseClaims(t, payload).Scopes, payload)
	}
}

func TestClaims_ResourcesAndProducts(t *testing.T) {
	for _, row := range []struct {
		name, scopes string
		resources    []koreauth.Resource
		products     []string
	}{
		{"products as plain strings", `{"products":["SuperSIM","ProgrammableWireless"]}`, nil, []string{"SuperSIM", "ProgrammableWireless"}},
		{"a product as an object", `{"products":[{"resourceName":"SuperSIM","access":["Read"]},"X"]}`, nil, []string{"SuperSIM", "X"}},
		{"products of the wrong shape are skipped", `{"products":[7,null,{},{"resourceName":7},"X"]}`, nil, []string{"X"}},
		{"products as a string", `{"products":"SuperSIM"}`, nil, nil},
		{"two entries with the same name", `{"globalResources":[{"resourceName":"A","access":["Read"]},{"access":["Write"],"resourceName":"A"}]}`,
			[]koreauth.Resource{{Name: "A", Access: []koreauth.Access{"Read"}}, {Name: "A", Access: []koreauth.Access{"Write"}}}, nil},
		{"access as a string", `{"globalResources":[{"resourceName":"A","access":"Read"}]}`, []koreauth.Resource{{Name: "A"}}, nil},
		{"access with a number in the list", `{"globalResources":[{"resourceName":"A","access":["Read",1]}]}`, []koreauth.Resource{{Name: "A"}}, nil},
		{"a member name in another case", `{"GlobalResources":[{"resourceName":"A","access":["Read"]}]}`, nil, nil},
		{"an inner member name in another case", `{"globalResources":[{"ResourceName":"A","access":["Read"]}]}`, nil, nil},
		{"entries of the wrong shape are skipped", `{"globalResources":[7,[],{"access":["Read"]},{"resourceName":"A","access":["Read"]}]}`,
			[]koreauth.Resource{{Name: "A", Access: []koreauth.Access{"Read"}}}, nil},
		{"an object in place of a list", `{"globalResources":{"resourceName":"A","access":["Read"]}}`, nil, nil},
		{"an array", `[{"globalResources":[]}]`, nil, nil},
		{"null", `null`, nil, nil},
	} {
		claims := parseClaims(t, `{"scopes":`+row.scopes+`}`)
		assert.Equal(t, row.resources, claims.Resources, row.name)
		assert.Equal(t, row.products, claims.Products, row.name)
	}
}

func TestClaims_DatesDoNotOverflow(t *testing.T) {
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
		claims := parseClaims(t, `{"exp":`+number+`}`)
		assert.Equal(t, want, claims.Expiry.Format(time.RFC3339Nano), number)
		assert.False(t, claims.Expiry.IsZero(), number)
	}
}

func TestClaims_DecodeRejectsFoldedNames(t *testing.T) {
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
		err := parseClaims(t, row.payload).Decode(&v)
		assert.Equal(t, row.folds, err != nil, "%s: %v", row.payload, err)
	}
	var all map[string]any
	require.NoError(t, parseClaims(t, `{"plan":"a","Plan":"b"}`).Decode(&all), "a map keeps both names")
	assert.Len(t, all, 2)
}

func TestClaims_DecodeErrors(t *testing.T) {
	var v map[string]any
	require.ErrorContains(t, new(koreauth.Claims).Decode(&v), "not read from a token")
	require.ErrorContains(t, (*koreauth.Claims)(nil).Decode(&v), "not read from a token")
	require.Error(t, parseClaims(t, `{}`).Decode(nil))
	require.Error(t, parseClaims(t, `{}`).Decode(v))
	var wrong struct{ Exp string }
	require.ErrorContains(t, parseClaims(t, `{"exp":1}`).Decode(&wrong), "decode claims")
}

func TestClaims_PrintNoSecrets(t *testing.T) {
	claims := parseClaims(t, samplePayload(t))
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

	// fmt does not call methods of values in unexported fields.
	hidden := fmt.Sprintf("%v %+v %#v", struct{ c koreauth.Claims }{*claims}, struct{ c koreauth.Claims }{*claims}, struct{ c koreauth.Claims }{*claims})
	assert.NotContains(t, hidden, "o2gYFN7q")
	encoded, err := json.Marshal(claims)
	require.NoError(t, err)
	assert.NotContains(t, string(encoded), "jben")
	assert.NotContains(t, string(encoded), "o2gYFN7q")

	claims.Subject, claims.ClientID = "someone@example.com", mintValidToken(t)
	assert.NotContains(t, claims.String(), "example.com", "an e-mail address as the subject")
	assert.NotContains(t, claims.String(), "eyJ", "a token as the client")
}

// mintValidToken returns a token that is signed with the ES256 key.
func mintValidToken(t *testing.T) string {
	t.Helper()
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: issuerURL, Keys: []*koretest.Key{signingKeys()["ES256"]}})
	require.NoError(t, err)
	return issuer.Valid()
}

func TestClaims_DecodeIntoInterface(t *testing.T) {
	var into any = &struct {
		Plan string `json:"plan"`
	}{}
	require.Error(t, parseClaims(t, `{"plan":"a","Plan":"b"}`).Decode(&into))
	var both struct {
		Lower string `json:"plan"`
		Upper string `json:"PLAN"`
	}
	require.NoError(t, parseClaims(t, `{"plan":"a","PLAN":"b"}`).Decode(&both), "each member has a field with exactly its name")
	assert.Equal(t, "a", both.Lower)
	assert.Equal(t, "b", both.Upper)
}
