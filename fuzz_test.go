package koreauth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/source"
)

// The fuzz tests compare the package with models of it. The models use
// encoding/json and net/url and share no code with the package. docs/reports/fuzzing.md
// describes how the fuzz tests were run.

// newValidatorPair returns two validators that accept tokens of signToken: one
// with a memory and one without.
func newValidatorPair(f *testing.F) (caching, uncached *koreauth.Validator) {
	f.Helper()
	config := koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"},
		Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
	}
	caching, err := koreauth.NewValidator(config)
	require.NoError(f, err)
	config.CacheSize = -1
	uncached, err = koreauth.NewValidator(config)
	require.NoError(f, err)
	return caching, uncached
}

// decodeStrict decodes what the package should accept: a JSON object in valid
// UTF-8 without duplicate members and lone surrogates, of at most 64 levels. Numbers
// are json.Numbers.
func decodeStrict(text []byte) (map[string]any, bool) {
	if !utf8.Valid(text) || !json.Valid(text) || hasLoneSurrogate(text) || !uniqueNames(text) || depth(text) > 64 {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return nil, false
	}
	object, ok := value.(map[string]any)
	return object, ok
}

// depth returns the depth of valid JSON.
func depth(text []byte) (deepest int) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	for depth := 0; ; deepest = max(deepest, depth) {
		switch token, err := decoder.Token(); {
		case err != nil:
			return deepest
		case token == json.Delim('{') || token == json.Delim('['):
			depth++
		case token == json.Delim('}') || token == json.Delim(']'):
			depth--
		}
	}
}

// hasIdentities reports whether the claims that identify are strings or null.
func hasIdentities(members map[string]any) bool {
	for _, name := range []string{"sub", "jti", "client_id", "azp", "account-id", "client-type"} {
		if _, isString := members[name].(string); members[name] != nil && !isString {
			return false
		}
	}
	return true
}

// uniqueNames reports whether valid JSON has no object with a duplicate member.
func uniqueNames(text []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value func() bool
	value = func() bool {
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		delim, nested := token.(json.Delim)
		seen := make(map[json.Token]bool)
		for nested && decoder.More() {
			if delim == '{' {
				name, err := decoder.Token()
				if err != nil || seen[name] {
					return false
				}
				seen[name] = true
			}
			if !value() {
				return false
			}
		}
		if nested {
			_, err = decoder.Token()
		}
		return err == nil
	}
	return value()
}

// hasLoneSurrogate reports whether valid JSON has an escaped lone surrogate, which
// encoding/json would replace.
func hasLoneSurrogate(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++
		if text[i] != 'u' {
			continue
		}
		first, _ := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
		i += 4
		switch {
		case first >= 0xDC00 && first < 0xE000:
			return true
		case first >= 0xD800 && first < 0xDC00:
			rest := text[i+1:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return true
			}
			if second, _ := strconv.ParseUint(string(rest[2:6]), 16, 16); second < 0xDC00 || second >= 0xE000 {
				return true
			}
			i += 6
		}
	}
	return false
}

// expectedClaims returns the claims, without dates, that the package should make
// of an object which encoding/json has decoded.
func expectedClaims(members map[string]any) koreauth.Claims {
	text := func(name string) string { s, _ := members[name].(string); return s }
	words := func(name string) []string {
		if s, ok := members[name].(string); ok {
			return append([]string(nil), slices.DeleteFunc(strings.Split(s, " "), func(w string) bool { return w == "" })...)
		}
		return expectedStrings[string](members[name])
	}
	c := koreauth.Claims{
		Issuer: text("iss"), Subject: text("sub"), ID: text("jti"), ClientID: text("azp"),
		Audience: expectedStrings[string](members["aud"]), Scopes: words("scp"),
		AccountID: text("account-id"), ClientType: text("client-type"), ClientOwner: text("client-owner"),
	}
	if aud, ok := members["aud"].(string); ok {
		c.Audience = []string{aud}
	}
	if _, ok := members["client_id"]; ok {
		c.ClientID = text("client_id")
	}
	if _, ok := members["scope"]; ok {
		c.Scopes = words("scope")
	}
	scopes, _ := members["scopes"].(map[string]any)
	c.Resources = expectedResources(scopes["globalResources"])
	for _, product := range expectedResources(scopes["products"]) {
		c.Products = append(c.Products, product.Name)
	}
	return c
}

// expectedRanges returns the entries of ip-range in a payload. An entry that is not a
// string is its JSON text.
func expectedRanges(payload string) (all []string) {
	var members map[string]json.RawMessage
	_ = json.Unmarshal([]byte(payload), &members)
	value := members["ip-range"]
	var elements []json.RawMessage
	if len(value) > 0 && json.Unmarshal(value, &elements) != nil {
		elements = []json.RawMessage{value}
	}
	for _, element := range elements {
		var entry string
		if string(element) == "null" || json.Unmarshal(element, &entry) != nil {
			entry = string(element)
		}
		all = append(all, entry)
	}
	return all
}

// expectedStrings returns the strings of an array of strings, else nil.
func expectedStrings[S ~string](value any) (all []S) {
	elements, _ := value.([]any)
	for _, element := range elements {
		s, ok := element.(string)
		if !ok {
			return nil
		}
		all = append(all, S(s))
	}
	return all
}

// expectedResources returns the resources of an array. It skips elements of the
// wrong shape.
func expectedResources(value any) (all []koreauth.Resource) {
	elements, _ := value.([]any)
	for _, element := range elements {
		switch element := element.(type) {
		case string:
			all = append(all, koreauth.Resource{Name: element})
		case map[string]any:
			if name, ok := element["resourceName"].(string); ok {
				all = append(all, koreauth.Resource{Name: name, Access: expectedStrings[koreauth.Access](element["access"])})
			}
		}
	}
	return all
}

// expectedDate returns a date in seconds, limited to the years 1 to 9999, and
// whether value is a number.
func expectedDate(value any) (float64, bool) {
	number, ok := value.(json.Number)
	seconds, _ := strconv.ParseFloat(string(number), 64)
	return min(max(seconds, -62135596799), 253402300799), ok
}

// requireClaims compares got with the claims that the model expects.
func requireClaims(t *testing.T, payload string, members map[string]any, got *koreauth.Claims) {
	t.Helper()
	want := expectedClaims(members)
	want.IPRanges = expectedRanges(payload)
	for name, date := range map[string]*time.Time{"exp": &got.Expiry, "nbf": &got.NotBefore, "iat": &got.IssuedAt} {
		seconds, isNumber := expectedDate(members[name])
		require.Equal(t, isNumber, !date.IsZero(), "%s of %q", name, payload)
		if isNumber {
			require.InDelta(t, seconds, float64(date.Unix())+float64(date.Nanosecond())/1e9, 1e-3, "%s of %q", name, payload)
		}
	}
	require.Equal(t, want, koreauth.Claims{
		Issuer: got.Issuer, Subject: got.Subject, ID: got.ID, ClientID: got.ClientID, Audience: got.Audience,
		Scopes: got.Scopes, AccountID: got.AccountID, ClientType: got.ClientType, ClientOwner: got.ClientOwner,
		IPRanges: got.IPRanges, Products: got.Products, Resources: got.Resources,
	}, "claims of %q", payload)

	var all, decoded map[string]any
	wantErr := json.Unmarshal([]byte(payload), &all)
	gotErr := got.Decode(&decoded)
	require.Equal(t, wantErr == nil, gotErr == nil, "Decode of %q: %v", payload, gotErr)
	if wantErr == nil {
		require.Equal(t, all, decoded, "Decode of %q", payload)
	}
}

// FuzzTheJSONReaderAgreesWithEncodingJSON checks that UnmarshalJSON accepts exactly
// what decodeStrict accepts, and reads the same values.
func FuzzTheJSONReaderAgreesWithEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		`{"iss":"i","aud":["a","b"],"exp":1.5e3,"scope":"a b","scopes":{"globalResources":[{"resourceName":"A","access":["Read"]}]}}`,
		`{"a":{"a":[{}]},"b":"\ud83d\ude00\u0000"}`, `{"exp":1,"exp":2}`, `{} `, "{\"\xff\":1}", `{"sub":"\u0073"}`,
		`{` + manyMembers(40) + `"sub":""}`, `{"a":"\ud800"}`, `{"a":1e999,"nbf":-0.0e-0,"iat":1E+2}`, "{\"a\\\"\":[true,false,null]}\n",
		`{"scopes":{"products":["P",{"resourceName":"Q"}],"x":[]},"scp":"b","client_id":1,"azp":"z","ip-range":[]}`,
		`{"a":01}`, `{"a":1.}`, `{"a":tru}`, `{"a":"` + "\t" + `"}`, `{"a":"\x"}`, `{"a":[1,]}`, `{"a":1,}`, `{"a" 1}`, `{`, `[]`, `"`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if string(data) == "null" { // By convention, UnmarshalJSON ignores null.
			return
		}
		members, strict := decodeStrict(data)
		var claims koreauth.Claims
		err := claims.UnmarshalJSON(data)
		require.Equal(t, strict && hasIdentities(members), err == nil, "%q: %v", data, err)
		if err == nil {
			requireClaims(t, string(data), members, &claims)
		}
	})
}

// FuzzOneByteChange checks that a token is rejected if one byte is changed, added
// or removed, or if two adjacent bytes are swapped, also by a validator that
// remembers the token.
func FuzzOneByteChange(f *testing.F) {
	algs := []string{"RS256", "ES256", "EdDSA", "PS256"}
	var tokens []string
	var validators []*koreauth.Validator
	var set koreauth.StaticKeySet
	for _, alg := range algs {
		key := signingKeys()[alg]
		set = append(set, koreauth.Key{ID: key.ID, Algorithm: alg, Public: key.Public()})
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: issuerURL, Keys: []*koretest.Key{signingKeys()["RS256"]}})
	require.NoError(f, err)
	require.NoError(f, issuer.Register(koretest.Client{ID: "long", Lifetime: koretest.TwentyFourMonths}))
	for _, alg := range algs {
		token, err := issuer.Mint(koretest.Token{ClientID: "long", Key: signingKeys()[alg]})
		require.NoError(f, err)
		tokens = append(tokens, token)
	}
	for _, size := range []int{0, -1} {
		v, err := koreauth.NewValidator(koreauth.Config{
			Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Algorithms: algs, Keys: set, CacheSize: size,
		})
		require.NoError(f, err)
		validators = append(validators, v)
		for _, token := range tokens {
			_, err := v.Validate(f.Context(), token)
			require.NoError(f, err)
		}
	}
	for i := range algs {
		for change := range uint8(4) {
			f.Add(uint8(i), change, uint16(40), byte('A'))
			f.Add(uint8(i), change, uint16(len(tokens[i])-1), byte('w'))
		}
	}
	f.Fuzz(func(t *testing.T, which, change uint8, position uint16, b byte) {
		token := tokens[int(which)%len(tokens)]
		at := int(position) % len(token)
		changed := []byte(token)
		switch change % 4 {
		case 0:
			changed[at] = b
		case 1:
			changed = slices.Insert(changed, at, b)
		case 2:
			changed = slices.Delete(changed, at, at+1)
		case 3:
			next := (at + 1) % len(token)
			changed[at], changed[next] = changed[next], changed[at]
		}
		if string(changed) == token {
			return
		}
		for _, v := range validators {
			claims, err := v.Validate(t.Context(), string(changed))
			assertExplained(t, v, string(changed), err)
			if claims != nil || !errors.Is(err, koreauth.ErrInvalidToken) {
				t.Fatalf("want ErrInvalidToken, got %v\ntoken   %s\nchanged %s\nkeys %+v", err, token, changed, set)
			}
		}
		_, err := validators[0].Validate(t.Context(), token)
		require.NoError(t, err, "the unchanged token, afterwards")
	})
}

// FuzzSignatures checks that only the issuer's signature is accepted.
func FuzzSignatures(f *testing.F) {
	algs := []string{"RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: issuerURL, Keys: []*koretest.Key{signingKeys()["RS256"]}})
	require.NoError(f, err)
	require.NoError(f, issuer.Register(koretest.Client{ID: "long", Lifetime: koretest.TwentyFourMonths}))
	var set koreauth.StaticKeySet
	var signed []string
	for i, alg := range algs {
		key := signingKeys()[alg]
		set = append(set, koreauth.Key{ID: key.ID, Algorithm: alg, Public: key.Public()})
		token, err := issuer.Mint(koretest.Token{ClientID: "long", Key: key})
		require.NoError(f, err)
		signed = append(signed, token[:strings.LastIndex(token, ".")+1])
		for _, size := range []int{0, 1, 63, 64, 65, 96, 132, 255, 256, 257} {
			f.Add(uint8(i), make([]byte, size))
			f.Add(uint8(i), bytes.Repeat([]byte{0xff}, size))
		}
		if public, ok := key.Public().(*ecdsa.PublicKey); ok {
			n := public.Curve.Params().N
			size := (n.BitLen() + 7) / 8
			for _, r := range []int64{0, 1} {
				f.Add(uint8(i), append(n.FillBytes(make([]byte, size)), make([]byte, size)...))
				f.Add(uint8(i), append(make([]byte, 2*size-1), byte(r)))
			}
		}
	}
	v, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, Algorithms: algs, Keys: set,
	})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, which uint8, signature []byte) {
		if len(signature) > 2048 {
			return // TestToken_LimitedTo16KiB covers large tokens.
		}
		claims, err := v.Validate(t.Context(), signed[int(which)%len(signed)]+rawURL(signature))
		require.Nil(t, claims)
		require.ErrorIs(t, err, koreauth.ErrSignature)
	})
}

// FuzzPayload compares the result for a signed payload with the model: the error,
// and the claims of accepted tokens. The token is new, remembered, or given to a
// validator without a memory.
func FuzzPayload(f *testing.F) {
	for _, tail := range []string{
		`"sub":"s"}`, `"sub":1}`, `"azp":null,"jti":[]}`, `"typ":"DPoP","cnf":{"jkt":"x"}}`, `"ip-range":{"a": 1}}`, `"ip-range":["a", 1,null, [ ] ]}`, `"ip-range":"a"}`, `"typ":"Bearer"}`, `"typ":"ID"}`, `"typ":1}`, `"nbf":1}`, `"nbf":9e9}`, `"nbf":"1"}`, `"cnf":{}}`, `"iss":"x"}`,
		`"scope":"a  b","client_id":"c","azp":"d","account-id":"CO1"}`, `"scp":["a"],"scope":1}`, `"Exp":1,"SCOPE":"a"}`,
		`"scopes":{"globalResources":[{"resourceName":"API Clients","access":["Read"]}],"products":["SuperSIM",{"resourceName":"X"}]}}`,
		`"a":{"b":1,"b":2}}`, `"sub":"\ud83d\ude00","iat":1.5}`, `"x":1} {`, `"client-owner":"a@b","ip-range":["10.0.0.0/8"],"jti":"j"}`, `}`,
	} {
		f.Add(tail)
	}
	caching, uncached := newValidatorPair(f)
	prefix := `{"iss":"` + edIssuer + `","aud":["x","api-gw"],"exp":99999999999,`
	f.Fuzz(func(t *testing.T, tail string) {
		if len(tail) > 8<<10 {
			return
		}
		payload := prefix + tail
		members, strict := decodeStrict([]byte(payload))
		want := expectedPayloadError(members, strict)
		token := signToken(ed25519Header, payload)
		for _, v := range []*koreauth.Validator{caching, caching, uncached} {
			claims, err := v.Validate(t.Context(), token)
			assertExplained(t, v, token, err)
			require.Equal(t, err == nil, claims != nil)
			require.ErrorIs(t, err, want, "payload %q", payload)
			if err == nil {
				requireClaims(t, payload, members, claims)
			}
		}
	})
}

// expectedPayloadError returns the error for a payload that has a valid issuer,
// audience and expiry.
func expectedPayloadError(members map[string]any, strict bool) error {
	if !strict || !hasIdentities(members) {
		return koreauth.ErrMalformed
	}
	if notBefore, ok := members["nbf"]; ok {
		seconds, isNumber := expectedDate(notBefore)
		if !isNumber || seconds > float64(time.Now().Unix()) {
			return koreauth.ErrNotYetValid
		}
	}
	cnf, _ := members["cnf"].(map[string]any)
	known := 0
	for _, name := range []string{"jkt", "x5t#S256"} {
		if value, _ := cnf[name].(string); value != "" {
			known++
		}
	}
	jkt, _ := cnf["jkt"].(string)
	if typ, ok := members["typ"]; ok && typ != "Bearer" && (typ != "DPoP" || jkt == "" || known != len(cnf)) {
		return koreauth.ErrTokenType
	}
	if _, ok := members["cnf"]; ok {
		return koreauth.ErrBinding
	}
	return nil
}

// FuzzHeader compares the result for a signed header with the model. The token is
// new, remembered, or given to a validator without a memory.
func FuzzHeader(f *testing.F) {
	for _, header := range []string{
		ed25519Header, `{"alg":"EdDSA"}`, `{"alg":"EdDSA","Kid":"k"}`, `{"alg":"EdDSA","typ":"Application/JWT"}`, `{"alg":"EdDSA","kid":""}`, `{"alg":"EdDSA","kid":"K"}`, `{"alg":"none"}`, `{"alg":"eddsa"}`, `{"alg":1}`, `{}`,
		`{"alg":"EdDSA","typ":"at+JWT"}`, `{"alg":"EdDSA","typ":"application/at+jwt"}`, `{"alg":"EdDSA","typ":"ID"}`, `{"alg":"EdDSA","typ":null}`,
		`{"alg":"EdDSA","crit":[]}`, `{"alg":"EdDSA","b64":true}`, `{"alg":"EdDSA","Crit":["exp"]}`, `{"alg":"EdDSA","jwk":{"kty":"OKP"},"jku":"https://x"}`,
		`{"alg":"EdDSA","alg":"none"}`, ` {"kid":"k" , "alg" : "\u0045dDSA"} `, `{"alg":"EdDSA","kid":"k"}x`, `{"alg":"HS256","kid":["k"]}`, `[]`, ``,
	} {
		f.Add(header)
	}
	caching, uncached := newValidatorPair(f)
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999}`
	f.Fuzz(func(t *testing.T, header string) {
		if len(header) > 8<<10 {
			return
		}
		members, strict := decodeStrict([]byte(header))
		want := expectedHeaderError(members, strict)
		token := signToken(header, payload)
		for _, v := range []*koreauth.Validator{caching, caching, uncached} {
			claims, err := v.Validate(t.Context(), token)
			assertExplained(t, v, token, err)
			require.Equal(t, err == nil, claims != nil)
			require.ErrorIs(t, err, want, "header %q", header)
		}
	})
}

// expectedHeaderError returns the error for a header.
func expectedHeaderError(members map[string]any, strict bool) error {
	text := func(name, absent string) (string, bool) {
		value, ok := members[name]
		if !ok {
			return absent, true
		}
		s, ok := value.(string)
		return s, ok
	}
	alg, algOK := text("alg", "")
	kid, kidOK := text("kid", "")
	typ, typOK := text("typ", "JWT")
	_, crit := members["crit"]
	_, b64 := members["b64"]
	switch {
	case !strict || !algOK:
		return koreauth.ErrMalformed
	case alg != "EdDSA":
		return koreauth.ErrAlgorithm
	case !kidOK || !typOK:
		return koreauth.ErrMalformed
	case !slices.Contains([]string{"jwt", "at+jwt", "application/jwt", "application/at+jwt"}, strings.ToLower(typ)):
		return koreauth.ErrTokenType
	case crit || b64:
		return koreauth.ErrMalformed
	case kid == "" && slices.ContainsFunc(slices.Collect(maps.Keys(members)), func(name string) bool { return name != "kid" && strings.EqualFold(name, "kid") }):
		return koreauth.ErrUnknownKey
	case kid != "" && kid != "k":
		return koreauth.ErrUnknownKey
	}
	return nil
}

// FuzzValidate checks that of any text only the signed tokens are accepted, that
// an error is an *Error, and that Validate returns either claims or an error.
func FuzzValidate(f *testing.F) {
	caching, uncached := newValidatorPair(f)
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999}`
	valid := []string{signToken(ed25519Header, payload), signToken(`{"alg":"EdDSA"}`, payload)}
	for _, seed := range append(slices.Clone(valid),
		"", ".", "..", "...", "a.b.c", strings.Repeat(".", 8<<10), strings.Repeat("a", 17<<10), valid[0]+"=", valid[0]+".x", "e30.e30.",
		signToken(`{"alg":"EdDSA","kid":"k","crit":[]}`, payload), signToken(ed25519Header, `{"exp":1}`),
		`{"payload":"e30","signatures":[]}`, "\x00.\xff.\n") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, v := range []*koreauth.Validator{caching, uncached} {
			claims, err := v.Validate(t.Context(), token)
			assertExplained(t, v, token, err)
			require.Equal(t, err == nil, claims != nil, "%q", token)
			require.Equal(t, slices.Contains(valid, token), err == nil, "%q", token)
			if err != nil {
				var refusal *koreauth.Error
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, koreauth.ErrInvalidToken, refusal.Class)
				require.ErrorIs(t, refusal.Reason, koreauth.ErrInvalidToken)
			}
		}
	})
}

// FuzzAnswers checks that the guard responds to any request with one of the
// responses of the table, byte for byte, so that nothing of the request is in it,
// and that it calls the handler only for a valid token.
func FuzzAnswers(f *testing.F) {
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999,"scope":"email"`
	valid := signToken(ed25519Header, payload+`,"scopes":{"globalResources":[{"resourceName":"API Clients","access":["Read"]}]}}`)
	ungranted := signToken(ed25519Header, payload+`}`)
	for _, authorization := range []string{
		"", "Bearer " + valid, "bearer  " + ungranted, "Bearer " + valid + "x", "Bearer", "Basic abc", valid, "Bearer a\r\nX: y", "Bearer \"<script>", "\x00", "DPoP x",
	} {
		f.Add("GET", authorization, "", "a=b", "t="+ungranted, "application/json", `{"t":"`+valid+`"}`)
		f.Add("HEAD", authorization, authorization, "t="+valid+"&t=x", "", "application/x-www-form-urlencoded", "t="+ungranted)
		f.Add("POST", authorization, "", "", "t=\"", "application/x-www-form-urlencoded", "t=%zz;"+authorization)
	}
	caching, _ := newValidatorPair(f)
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	guards := make(map[string]http.Handler)
	for name, format := range map[string]koreauth.ErrorFormat{
		"KORE": koreauth.KOREErrors, "RFC 6750": koreauth.RFC6750Errors, "problem": koreauth.ProblemErrors,
	} {
		for _, sources := range [][]koreauth.Source{nil, {
			koreauth.Header("Authorization"), source.Query("t"), source.Cookie("t"), source.Form("t"), source.JSON("t"),
		}} {
			guard := koreauth.New(caching, &koreauth.Options{Errors: format, Sources: sources})
			require := guard.Require(koreauth.Scope("email"), koreauth.Grant("API Clients", koreauth.Read))
			guards[name+" "+strconv.Itoa(len(sources))] = require(served)
		}
	}
	f.Fuzz(func(t *testing.T, method, authorization, second, query, cookie, contentType, body string) {
		for name, guard := range guards {
			r := &http.Request{
				Method: method, URL: &url.URL{Path: "/", RawQuery: query}, Body: io.NopCloser(strings.NewReader(body)),
				Header: http.Header{"Authorization": {authorization}, "Cookie": {cookie}, "Content-Type": {contentType}},
			}
			if second != "" {
				r.Header.Add("Authorization", second)
			}
			w := httptest.NewRecorder()
			guard.ServeHTTP(w, r)
			if w.Code == http.StatusNoContent {
				everything := strings.Join([]string{authorization, query, cookie, body}, "\n")
				unescaped, _ := url.QueryUnescape(everything)
				var member struct{ T string }
				_ = json.Unmarshal([]byte(body), &member)
				require.True(t, strings.Contains(everything, valid) || strings.Contains(unescaped, valid) || formHas(query+"&"+body, valid) || member.T == valid,
					"%s: handler called without the valid token: %q", name, everything)
				continue
			}
			format, _, _ := strings.Cut(name, " ")
			row := response{w.Code, w.Header().Get("Content-Type"), w.Body.String(), w.Header().Get("WWW-Authenticate")}
			if method == http.MethodHead {
				require.Empty(t, row.body)
			} else {
				require.True(t, json.Valid(w.Body.Bytes()))
			}
			require.True(t, slices.ContainsFunc(responsesOf(format), func(want response) bool {
				if method == http.MethodHead {
					want.body = ""
				}
				return row == want
			}), "%s: not a response of the table: %+v", name, row)
			header := maps.Clone(w.Header())
			for _, known := range []string{"Content-Type", "Www-Authenticate"} {
				header.Del(known)
			}
			require.Equal(t, http.Header{"Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}}, header, name)
		}
	})
}

// formHas reports whether t has the value token in a query or a form.
func formHas(encoded, token string) bool {
	for pair := range strings.SplitSeq(encoded, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr == nil && valueErr == nil && name == "t" && value == token {
			return true
		}
	}
	return false
}

type response struct {
	status                       int
	contentType, body, challenge string
}

// responsesOf returns the rows of the README's table of responses that a request
// can cause while the keys are cached.
func responsesOf(format string) []response {
	const (
		bearer  = `Bearer realm="api"`
		bad     = bearer + `, error="invalid_request"`
		invalid = bearer + `, error="invalid_token"`
		scope   = bearer + `, error="insufficient_scope", scope="email API%20Clients:Read"`
		kore    = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
		deny    = `{"message":"User is not authorized to access this resource with an explicit deny","error":"`
	)
	switch format {
	case "KORE":
		return []response{
			{401, "application/json", kore, bearer}, {401, "application/json", kore, bad},
			{403, "application/json", deny + `Invalid or expired token"}`, invalid}, {403, "application/json", deny + `Insufficient scope"}`, scope},
		}
	case "RFC":
		body := func(code, text, more string) string {
			return `{"error":"` + code + `","error_description":"` + text + `"` + more + `}`
		}
		return []response{
			{401, "application/json", body("unauthorized", "The request has no access token", ""), bearer},
			{400, "application/json", body("invalid_request", "The request must carry one access token", ""), bad},
			{401, "application/json", body("invalid_token", "The access token is expired, revoked, malformed or not for this API", ""), invalid},
			{403, "application/json", body("insufficient_scope", "The access token does not grant what the request needs", `,"scope":"email API%20Clients:Read"`), scope},
		}
	}
	body := func(status int, code string) string {
		return `{"type":"about:blank","title":"` + http.StatusText(status) + `","status":` + strconv.Itoa(status) + `,"error":"` + code + `"}`
	}
	const problem = "application/problem+json"
	return []response{
		{401, problem, body(401, "unauthorized"), bearer}, {400, problem, body(400, "invalid_request"), bad},
		{401, problem, body(401, "invalid_token"), invalid}, {403, problem, body(403, "insufficient_scope"), scope},
	}
}

// FuzzParseKeys checks that every key read from a document can verify signatures,
// and that validating a token which names the key does not panic.
func FuzzParseKeys(f *testing.F) {
	for _, document := range keyDocuments() {
		f.Add([]byte(document), []byte("signature"))
		f.Add([]byte(document), make([]byte, 256))
		f.Add([]byte(document), make([]byte, 64))
	}
	algs := []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"}
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999}`
	f.Fuzz(func(t *testing.T, document, signature []byte) {
		keys, err := koreauth.ParseKeys(document)
		require.Equal(t, err == nil, len(keys) > 0)
		for _, key := range keys[:min(len(keys), 4)] {
			require.True(t, utf8.ValidString(key.ID))
			requireValidKey(t, key)
			v, err := koreauth.NewValidator(koreauth.Config{
				Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: algs, Keys: koreauth.StaticKeySet{key}, CacheSize: -1,
			})
			require.NoError(t, err)
			for _, alg := range algs {
				header, err := json.Marshal(map[string]string{"alg": alg, "kid": key.ID})
				require.NoError(t, err)
				claims, err := v.Validate(t.Context(), rawURL(header)+"."+rawURL([]byte(payload))+"."+rawURL(signature))
				require.Nil(t, claims)
				require.ErrorIs(t, err, koreauth.ErrInvalidToken)
			}
		}
	})
}

// requireValidKey checks that key meets the requirements of ParseKeys.
func requireValidKey(t *testing.T, key koreauth.Key) {
	t.Helper()
	switch public := key.Public.(type) {
	case *rsa.PublicKey:
		require.GreaterOrEqual(t, public.N.BitLen(), 2048)
		require.Equal(t, uint(1), public.N.Bit(0))
		require.True(t, public.E >= 3 && public.E <= math.MaxInt32 && public.E%2 == 1, "%d", public.E)
		require.Contains(t, []string{"", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, key.Algorithm)
	case *ecdsa.PublicKey:
		_, err := public.ECDH() // on P-256, P-384 or P-521
		require.NoError(t, err)
		require.Contains(t, []string{"", map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Params().BitSize]}, key.Algorithm)
	case ed25519.PublicKey:
		require.Len(t, public, ed25519.PublicKeySize)
		require.Contains(t, []string{"", "EdDSA"}, key.Algorithm)
	default:
		require.Fail(t, "unexpected type of key", "%T", public)
	}
}

// keyDocuments returns valid and invalid JWK Sets.
func keyDocuments() []string {
	rsaKey := signingKeys()["RS256"].Public().(*rsa.PublicKey)
	return []string{
		edSet("good"), edSet("a", "b"), `{}`, `{"keys":null}`, `{"keys":[]}`, `{"keys":[{}]}`, `null`, `[]`, ``, `<html>`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		jwksOf(`{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`, edJWK("good")), `{"Keys":[` + edJWK("x") + `]}`, jwksOf(edJWK("x"))[:40],
		jwksOf(`{"kty":"RSA","kid":"r","n":"` + rawURL(rsaKey.N.Bytes()) + `","e":"AQAB"}`),
		jwksOf(`{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}`), jwksOf(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`),
		jwksOf(`{"kty":"OKP","crv":"Ed25519","x":"AA","kid":7}`), jwksOf(`{"kty":"OKP","crv":"Ed25519","x":"` + rawURL(edPublic("p")) + `","d":"AA"}`),
		jwksOf(ecJWK("P-256", signingKeys()["ES256"].Public().(*ecdsa.PublicKey), `"kid":"e"`)),
	}
}

// FuzzKeyDocuments checks that a response of any bytes, status and Cache-Control
// never replaces valid keys with none, that a document with usable keys replaces
// them, and that the next refresh is not before MinInterval and not after MaxAge.
func FuzzKeyDocuments(f *testing.F) {
	for i, document := range keyDocuments() {
		f.Add([]byte(document), uint16(200), []string{"", "max-age=60", "no-store", "max-age=99999999999999999999", "max-age=0", `max-age="1"`}[i%6], `"v1"`)
	}
	for _, status := range []uint16{204, 206, 301, 304, 404, 429, 500, 503} {
		f.Add([]byte(edSet("other")), status, "max-age=1", "")
	}
	f.Fuzz(func(t *testing.T, document []byte, status uint16, cacheControl, etag string) {
		if status < 200 || status > 599 {
			return // not the status of a final response (RFC 9110 §15)
		}
		synctest.Test(t, func(t *testing.T) {
			net := new(network)
			net.respondKeys(keysOf("good"))
			set := net.keySet()
			_, err := set.Keys(t.Context(), "good", true)
			require.NoError(t, err)
			want, err := set.Keys(t.Context(), "", false)
			require.NoError(t, err)

			parsed, parseErr := koreauth.ParseKeys(document)
			replaces := status == 200 && parseErr == nil
			if replaces {
				want = parsed
			}
			net.respondKeys(func(req *http.Request) (*http.Response, error) {
				resp, err := reply(int(status), string(document))(req)
				resp.Header["Cache-Control"], resp.Header["Etag"] = []string{cacheControl}, []string{etag}
				return resp, err
			})
			wait(keysMaxAge)
			keys, err := set.Keys(t.Context(), "good", true)
			require.NoError(t, err, "the old key is used during the refresh")
			require.Len(t, keys, 1)
			wait(0)
			keys, err = set.Keys(t.Context(), "", false)
			require.NoError(t, err)
			require.NotEmpty(t, keys)
			assert.Equal(t, want, keys)
			if !replaces {
				return
			}
			fetches := net.requestCount()
			wait(keysInterval - time.Nanosecond)
			_, err = set.Keys(t.Context(), "", true)
			require.NoError(t, err)
			wait(0)
			require.Equal(t, fetches, net.requestCount(), "before MinInterval")
			wait(keysMaxAge - keysInterval + time.Nanosecond)
			_, err = set.Keys(t.Context(), "", true)
			require.NoError(t, err)
			wait(0)
			require.Greater(t, net.requestCount(), fetches, "after MaxAge")
		})
	})
}
