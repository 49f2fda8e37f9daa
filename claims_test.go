package koreauth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
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
		Own   koreauth.Claims `json:"own"`
		None  inner           `json:"-"`
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
		{`{"own":{"subject":"a","SUBJECT":"b"}}`, false},
		{`{"-":{"name":"a","Name":"b"}}`, false},
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
	assert.NotContains(t, claims.LogValue().String(), "example.com", "an e-mail address as the subject")
	assert.NotContains(t, claims.LogValue().String(), "eyJ", "a token as the client")
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

func TestClaims_Confirmation(t *testing.T) {
	assert.Nil(t, parseClaims(t, `{}`).Confirmation, "no cnf")
	assert.Nil(t, parseClaims(t, `{"CNF":{"jkt":"key"},"x":{"cnf":{"jkt":"key"}}}`).Confirmation, "the name is compared exactly")
	for _, row := range confirmations {
		payload, err := json.Marshal(map[string]any{"cnf": row.value, "iss": "after"})
		require.NoError(t, err)
		claims := parseClaims(t, string(payload))
		assert.Equal(t, &row.want, claims.Confirmation, row.name)
		assert.Equal(t, "after", claims.Issuer, "%s: the claims after it are read", row.name)
	}
	for _, payload := range []string{
		`{"cnf":{"jkt":"a"},"cnf":{"jkt":"b"}}`, `{"cnf":{"jkt":"a","jkt":"b"}}`, `{"cnf":{"jkt":"a"}`, `{"cnf":{"jkt":"a",}}`, `{"cnf":}`,
	} {
		assert.Error(t, new(koreauth.Claims).UnmarshalJSON([]byte(payload)), payload)
	}
	assert.Equal(t, &koreauth.Confirmation{KeySHA256: "a"}, parseClaims(t, `{"cnf" : { "\u006akt" : "\u0061" } }`).Confirmation, "escapes are read")
}

// Every copy of the claims has its own Confirmation.
func TestClaims_ConfirmationIsCopied(t *testing.T) {
	bound := &koreauth.Claims{Confirmation: &koreauth.Confirmation{CertificateSHA256: "cert", KeySHA256: "key"}}
	want := *bound.Confirmation
	change := func(c *koreauth.Claims) {
		require.NotNil(t, c.Confirmation)
		require.Equal(t, want, *c.Confirmation)
		*c.Confirmation = koreauth.Confirmation{CertificateSHA256: "changed"}
		c.Confirmation = nil
	}
	changing := koreauth.RequirementFunc(func(_ *http.Request, c *koreauth.Claims) error { change(c); return nil })
	issuer, v := newIssuer(t, "RS256", nil)
	options := &koreauth.Options{Sender: new(probe)}
	for name, guard := range map[string]*koreauth.Middleware{
		"a Validator":             koreauth.New(v, options),
		"a custom TokenValidator": koreauth.New(validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return bound, nil }), options),
	} {
		r := bearerRequest(mintToken(t, issuer, koretest.Token{Confirmation: &want}))
		for range 2 {
			claims, err := guard.Authenticate(r)
			require.NoError(t, err, name)
			change(claims)
			status, _ := serve(guard.Require(changing)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for range 2 {
					claims, _ := koreauth.FromContext(r.Context())
					change(claims)
				}
			})), r)
			assert.Equal(t, http.StatusOK, status, name)
		}
	}
	given := &koreauth.Claims{Confirmation: &koreauth.Confirmation{CertificateSHA256: "cert", KeySHA256: "key"}}
	ctx := koreauth.NewContext(t.Context(), given)
	change(given)
	claims, _ := koreauth.FromContext(ctx)
	change(claims)
	assert.Equal(t, want, *bound.Confirmation)
}

func TestClaims_ConfirmationInJSON(t *testing.T) {
	encoded, err := json.Marshal(parseClaims(t, `{"cnf":{"jkt":"key"}}`))
	require.NoError(t, err)
	assert.Contains(t, string(encoded), `"Confirmation":{"CertificateSHA256":"","KeySHA256":"key"}`)
	encoded, err = json.Marshal(parseClaims(t, `{}`))
	require.NoError(t, err)
	assert.Contains(t, string(encoded), `"Confirmation":null`)
	shown := fmt.Sprintf("%v %+v %#v", parseClaims(t, `{"cnf":{"jkt":"thumbprint"}}`), *parseClaims(t, `{"cnf":{"jkt":"thumbprint"}}`), parseClaims(t, `{"cnf":{"jkt":"thumbprint"}}`))
	assert.NotContains(t, shown, "thumbprint")
}

// Whatever shape ip-range has, it restricts, unless it is absent, null or [].
func TestClaims_IPRanges(t *testing.T) {
	for _, row := range []struct {
		value string // "" means that the claim is absent
		want  []string
	}{
		{``, nil},
		{`null`, nil},
		{`[]`, nil},
		{`[ ]`, nil},
		{`"10.0.0.0/8"`, []string{"10.0.0.0/8"}},
		{`"10.0.0.0/8 192.0.2.1"`, []string{"10.0.0.0/8 192.0.2.1"}},
		{`"10.0.0.0\/8"`, []string{"10.0.0.0/8"}},
		{`""`, []string{""}},
		{`" "`, []string{" "}},
		{`"null"`, []string{"null"}},
		{`0`, []string{"0"}},
		{`10.5`, []string{"10.5"}},
		{`-1e9`, []string{"-1e9"}},
		{`true`, []string{"true"}},
		{`false`, []string{"false"}},
		{`{}`, []string{"{}"}},
		{`{"cidr":"10.0.0.0/8"}`, []string{`{"cidr":"10.0.0.0/8"}`}},
		{`["10.0.0.0/8"]`, []string{"10.0.0.0/8"}},
		{`["10.0.0.0/8","2001:db8::/32"]`, []string{"10.0.0.0/8", "2001:db8::/32"}},
		{`[""]`, []string{""}},
		{`[null]`, []string{"null"}},
		{`[[]]`, []string{"[]"}},
		{`["10.0.0.0/8",null,7,true,"192.0.2.1"]`, []string{"10.0.0.0/8", "null", "7", "true", "192.0.2.1"}},
		{`["10.0.0.0/8",["192.0.2.1"]]`, []string{"10.0.0.0/8", `["192.0.2.1"]`}},
		{`[["10.0.0.0/8",["192.0.2.1",{"a":[1]}]],"x"]`, []string{`["10.0.0.0/8",["192.0.2.1",{"a":[1]}]]`, "x"}},
		{`[{"from":"10.0.0.1","to":"10.0.0.9"},"192.0.2.1"]`, []string{`{"from":"10.0.0.1","to":"10.0.0.9"}`, "192.0.2.1"}},
	} {
		payload := `{"iss":"before","sub":"after"}`
		if row.value != "" {
			payload = `{"iss":"before", "ip-range" : ` + row.value + ` ,"sub":"after"}`
		}
		claims := parseClaims(t, payload)
		assert.Equal(t, row.want, claims.IPRanges, row.value)
		assert.Equal(t, "after", claims.Subject, "%s: the claims after it are read", row.value)
		for _, entry := range claims.IPRanges {
			odd := !slices.Contains([]string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.1"}, entry)
			_, prefixErr := netip.ParsePrefix(entry)
			_, addressErr := netip.ParseAddr(entry)
			assert.Equal(t, odd, prefixErr != nil && addressErr != nil, "entry %q of %s is an address", entry, row.value)
		}
	}
	for _, payload := range []string{`{"ip-range":["a"}`, `{"ip-range":[[1}`, `{"ip-range":[nul]}`, `{"ip-range":{"a":1,"a":2}}`, `{"ip-range":"a","ip-range":[]}`, `{"ip-range":01}`} {
		assert.Error(t, new(koreauth.Claims).UnmarshalJSON([]byte(payload)), payload)
	}
}

func TestClaims_DecodeIntoPointerToItself(t *testing.T) {
	var x any
	x = &x
	assert.ErrorContains(t, parseClaims(t, `{"sub":"a"}`).Decode(x), "refers to itself")
}

func TestClaims_EveryVerbHidesSecrets(t *testing.T) {
	claims := &koreauth.Claims{Issuer: "i", ClientID: "kc_1", ClientOwner: "jane@example.com"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%t", "%10v"} {
		for _, value := range []any{claims, *claims} {
			text := fmt.Sprintf(verb, value)
			assert.NotContains(t, text, "jane", verb)
			assert.Contains(t, text, "kc_1", verb)
		}
	}
}
