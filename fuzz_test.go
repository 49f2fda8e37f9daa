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
	"regexp"
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
)

// The fuzz tests hold the package against models of it, which are written with
// encoding/json and net/url and share nothing with it. docs/reports/fuzzing.md tells
// how they were run.

// fuzzSigned signs a header and a payload, whatever they are, with the key "k".
func fuzzSigned(header, payload string) string {
	signed := rawURL([]byte(header)) + "." + rawURL([]byte(payload))
	return signed + "." + rawURL(ed25519.Sign(edKey("k"), []byte(signed)))
}

const fuzzHeader = `{"alg":"EdDSA","kid":"k"}`

// fuzzValidators accept such tokens: one remembers them, one does not.
func fuzzValidators(f *testing.F) (remembering, without *koreauth.Validator) {
	f.Helper()
	config := koreauth.Config{
		Issuer: edIssuer, Audience: []string{"api-gw"}, Algorithms: []string{"EdDSA"},
		Keys: koreauth.StaticKeySet{{ID: "k", Algorithm: "EdDSA", Public: edPublic("k")}},
	}
	remembering, err := koreauth.NewValidator(config)
	require.NoError(f, err)
	config.CacheSize = -1
	without, err = koreauth.NewValidator(config)
	require.NoError(f, err)
	return remembering, without
}

// strictObject is what jsonReader should accept: a JSON object in valid UTF-8,
// without duplicate members and half surrogate pairs. Numbers stay as written.
func strictObject(text []byte) (map[string]any, bool) {
	if !utf8.Valid(text) || !json.Valid(text) || hasHalfPair(text) || !allUnique(text) {
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

// allUnique reports whether no object in valid JSON has a member twice.
func allUnique(text []byte) bool {
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

// hasHalfPair reports whether valid JSON escapes half a surrogate pair, which
// encoding/json would mend.
func hasHalfPair(text []byte) bool {
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

// claimsModel is what the exported fields but the dates should be, of an object
// that encoding/json has decoded.
func claimsModel(members map[string]any) koreauth.Claims {
	text := func(name string) string { s, _ := members[name].(string); return s }
	words := func(name string) []string {
		if s, ok := members[name].(string); ok {
			return slices.DeleteFunc(strings.Split(s, " "), func(w string) bool { return w == "" })
		}
		return modelStrings[string](members[name])
	}
	c := koreauth.Claims{
		Issuer: text("iss"), Subject: text("sub"), ID: text("jti"), ClientID: text("azp"),
		Audience: modelStrings[string](members["aud"]), Scopes: words("scp"),
		AccountID: text("account-id"), ClientType: text("client-type"), ClientOwner: text("client-owner"),
		IPRanges: modelStrings[string](members["ip-range"]),
	}
	if aud, ok := members["aud"].(string); ok {
		c.Audience = []string{aud}
	}
	if _, there := members["client_id"]; there {
		c.ClientID = text("client_id")
	}
	if _, there := members["scope"]; there {
		c.Scopes = words("scope")
	}
	scopes, _ := members["scopes"].(map[string]any)
	c.Resources = modelResources(scopes["globalResources"])
	for _, product := range modelResources(scopes["products"]) {
		c.Products = append(c.Products, product.Name)
	}
	return c
}

// modelStrings is an array of strings; nil for all else.
func modelStrings[S ~string](value any) (all []S) {
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

func modelResources(value any) (all []koreauth.Resource) {
	elements, _ := value.([]any)
	for _, element := range elements {
		switch element := element.(type) {
		case string:
			all = append(all, koreauth.Resource{Name: element})
		case map[string]any:
			if name, ok := element["resourceName"].(string); ok {
				all = append(all, koreauth.Resource{Name: name, Access: modelStrings[koreauth.Access](element["access"])})
			}
		}
	}
	return all
}

// modelDate is a date in seconds, within the calendar; false if it is no number.
func modelDate(value any) (float64, bool) {
	number, ok := value.(json.Number)
	seconds, _ := strconv.ParseFloat(string(number), 64)
	return min(max(seconds, -62135596799), 253402300799), ok
}

// requireClaims compares claims with what the model says of their payload.
func requireClaims(t *testing.T, payload string, members map[string]any, got *koreauth.Claims) {
	t.Helper()
	want := claimsModel(members)
	for name, date := range map[string]*time.Time{"exp": &got.Expiry, "nbf": &got.NotBefore, "iat": &got.IssuedAt} {
		seconds, isNumber := modelDate(members[name])
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

// FuzzTheJSONReaderAgreesWithEncodingJSON: it accepts what is strict, no less
// and no more, and reads the same from it.
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
		if string(data) == "null" { // encoding/json's convention
			return
		}
		members, strict := strictObject(data)
		var claims koreauth.Claims
		err := claims.UnmarshalJSON(data)
		require.Equal(t, strict, err == nil, "%q: %v", data, err)
		if err == nil {
			requireClaims(t, string(data), members, &claims)
		}
	})
}

// FuzzOneByteChange: a token of which one byte is changed, added or taken away,
// or two neighbours change places, is refused, also by a validator that
// remembers the token and its header.
func FuzzOneByteChange(f *testing.F) {
	algs := []string{"RS256", "ES256", "EdDSA", "PS256"}
	var tokens []string
	var validators []*koreauth.Validator
	var set koreauth.StaticKeySet
	for _, alg := range algs {
		key := signingKeys()[alg]
		set = append(set, koreauth.Key{ID: key.ID, Algorithm: alg, Public: key.Public()})
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: judgedIssuer, Keys: []*koretest.Key{signingKeys()["RS256"]}})
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
			if claims != nil || !errors.Is(err, koreauth.ErrInvalidToken) {
				t.Fatalf("accepted, or not refused as invalid: %v\ntoken   %s\nchanged %s\nkeys %+v", err, token, changed, set)
			}
		}
		_, err := validators[0].Validate(t.Context(), token)
		require.NoError(t, err, "the token itself, afterwards")
	})
}

// FuzzSignatures: no signature but the issuer's is good.
func FuzzSignatures(f *testing.F) {
	algs := []string{"RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"}
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: judgedIssuer, Keys: []*koretest.Key{signingKeys()["RS256"]}})
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
			return // refused by its length: TestTheLargestTokenIs16KiB
		}
		claims, err := v.Validate(t.Context(), signed[int(which)%len(signed)]+rawURL(signature))
		require.Nil(t, claims)
		require.ErrorIs(t, err, koreauth.ErrSignature)
	})
}

// FuzzPayload: of signed payloads those are accepted that the model says, for
// the reason that it says, and the claims are those of the bytes that verified:
// new, remembered, and where nothing is remembered.
func FuzzPayload(f *testing.F) {
	for _, tail := range []string{
		`"sub":"s"}`, `"typ":"Bearer"}`, `"typ":"ID"}`, `"typ":1}`, `"nbf":1}`, `"nbf":9e9}`, `"nbf":"1"}`, `"cnf":{}}`, `"iss":"x"}`,
		`"scope":"a  b","client_id":"c","azp":"d","account-id":"CO1"}`, `"scp":["a"],"scope":1}`, `"Exp":1,"SCOPE":"a"}`,
		`"scopes":{"globalResources":[{"resourceName":"API Clients","access":["Read"]}],"products":["SuperSIM",{"resourceName":"X"}]}}`,
		`"a":{"b":1,"b":2}}`, `"sub":"\ud83d\ude00","iat":1.5}`, `"x":1} {`, `"client-owner":"a@b","ip-range":["10.0.0.0/8"],"jti":"j"}`, `}`,
	} {
		f.Add(tail)
	}
	remembering, without := fuzzValidators(f)
	prefix := `{"iss":"` + edIssuer + `","aud":["x","api-gw"],"exp":99999999999,`
	f.Fuzz(func(t *testing.T, tail string) {
		if len(tail) > 8<<10 {
			return
		}
		payload := prefix + tail
		members, strict := strictObject([]byte(payload))
		want := judgedByModel(members, strict)
		token := fuzzSigned(fuzzHeader, payload)
		for _, v := range []*koreauth.Validator{remembering, remembering, without} {
			claims, err := v.Validate(t.Context(), token)
			require.Equal(t, err == nil, claims != nil)
			require.ErrorIs(t, err, want, "payload %q", payload)
			if err == nil {
				requireClaims(t, payload, members, claims)
			}
		}
	})
}

// judgedByModel says what should become of a payload whose issuer, audience and
// expiry are good, unless they are there twice.
func judgedByModel(members map[string]any, strict bool) error {
	if !strict {
		return koreauth.ErrMalformed
	}
	if notBefore, there := members["nbf"]; there {
		seconds, isNumber := modelDate(notBefore)
		if !isNumber || seconds > float64(time.Now().Unix()) {
			return koreauth.ErrNotYetValid
		}
	}
	if typ, there := members["typ"]; there && typ != "Bearer" {
		return koreauth.ErrTokenType
	}
	if _, there := members["cnf"]; there {
		return koreauth.ErrBinding
	}
	return nil
}

// FuzzHeader: of signed headers those are accepted that the model says, for the
// reason that it says, new and remembered.
func FuzzHeader(f *testing.F) {
	for _, header := range []string{
		fuzzHeader, `{"alg":"EdDSA"}`, `{"alg":"EdDSA","kid":""}`, `{"alg":"EdDSA","kid":"K"}`, `{"alg":"none"}`, `{"alg":"eddsa"}`, `{"alg":1}`, `{}`,
		`{"alg":"EdDSA","typ":"at+JWT"}`, `{"alg":"EdDSA","typ":"application/at+jwt"}`, `{"alg":"EdDSA","typ":"ID"}`, `{"alg":"EdDSA","typ":null}`,
		`{"alg":"EdDSA","crit":[]}`, `{"alg":"EdDSA","b64":true}`, `{"alg":"EdDSA","Crit":["exp"]}`, `{"alg":"EdDSA","jwk":{"kty":"OKP"},"jku":"https://x"}`,
		`{"alg":"EdDSA","alg":"none"}`, ` {"kid":"k" , "alg" : "\u0045dDSA"} `, `{"alg":"EdDSA","kid":"k"}x`, `{"alg":"HS256","kid":["k"]}`, `[]`, ``,
	} {
		f.Add(header)
	}
	remembering, without := fuzzValidators(f)
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999}`
	f.Fuzz(func(t *testing.T, header string) {
		if len(header) > 8<<10 {
			return
		}
		members, strict := strictObject([]byte(header))
		want := headerJudgedByModel(members, strict)
		token := fuzzSigned(header, payload)
		for _, v := range []*koreauth.Validator{remembering, remembering, without} {
			claims, err := v.Validate(t.Context(), token)
			require.Equal(t, err == nil, claims != nil)
			require.ErrorIs(t, err, want, "header %q", header)
		}
	})
}

func headerJudgedByModel(members map[string]any, strict bool) error {
	text := func(name, absent string) (string, bool) {
		value, there := members[name]
		if !there {
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
	case !slices.Contains([]string{"jwt", "at+jwt", "application/at+jwt"}, strings.ToLower(typ)):
		return koreauth.ErrTokenType
	case crit || b64:
		return koreauth.ErrMalformed
	case kid != "" && kid != "k":
		return koreauth.ErrUnknownKey
	}
	return nil
}

// FuzzValidate: of arbitrary text nothing is good but the tokens that were
// signed, an error is a refusal, and there are claims exactly if there is none.
func FuzzValidate(f *testing.F) {
	remembering, without := fuzzValidators(f)
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999}`
	good := []string{fuzzSigned(fuzzHeader, payload), fuzzSigned(`{"alg":"EdDSA"}`, payload)}
	for _, seed := range append(slices.Clone(good),
		"", ".", "..", "...", "a.b.c", strings.Repeat(".", 8<<10), strings.Repeat("a", 17<<10), good[0]+"=", good[0]+".x", "e30.e30.",
		fuzzSigned(`{"alg":"EdDSA","kid":"k","crit":[]}`, payload), fuzzSigned(fuzzHeader, `{"exp":1}`),
		`{"payload":"e30","signatures":[]}`, "\x00.\xff.\n") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, v := range []*koreauth.Validator{remembering, without} {
			claims, err := v.Validate(t.Context(), token)
			require.Equal(t, err == nil, claims != nil, "%q", token)
			require.Equal(t, slices.Contains(good, token), err == nil, "%q", token)
			if err != nil {
				var refusal *koreauth.Error
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, koreauth.ErrInvalidToken, refusal.Class)
				require.ErrorIs(t, refusal.Reason, koreauth.ErrInvalidToken)
			}
		}
	})
}

var b64token = regexp.MustCompile(`\A[A-Za-z0-9._~+/-]+=*\z`)

// FuzzEachSource: the token that a source yields is the only one there, as
// net/url and encoding/json see the place, and the body is put back.
func FuzzEachSource(f *testing.F) {
	for source := range uint8(5) {
		f.Add(source, "POST", "application/x-www-form-urlencoded", "t=a.b.c")
		f.Add(source, "POST", "application/json; charset=utf-8", `{"t":"a.b.c"}`)
		f.Add(source, "GET", "application/json", `t=a&%74=b&t`)
		f.Add(source, "POST", "application/vnd.x+json", `{"t":"a","T":"b","x":{"t":"c"},"t":null}`)
		f.Add(source, "PUT", "text/plain; x", "t=a; t=b; u=\"t=c\"")
	}
	f.Fuzz(func(t *testing.T, which uint8, method, contentType, place string) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: "/"}, Body: io.NopCloser(strings.NewReader(place)),
			Header: http.Header{"Content-Type": {contentType}},
		}
		var source koreauth.Source
		var model func() []string
		switch which % 5 {
		case 0:
			r.Header["X-Token"] = []string{place}
			source, model = koreauth.Header("X-Token"), func() []string { return []string{place} }
		case 1:
			source, model = koreauth.Form("t"), func() []string { return pairsModel(place) }
		case 2:
			source, model = koreauth.JSON("t"), func() []string { return memberModel(place) }
		case 3:
			r.URL.RawQuery = place
			source, model = koreauth.Query("t"), func() []string { return pairsModel(place) }
		case 4:
			r.Header["Cookie"] = []string{place}
			source, model = koreauth.Cookie("t"), func() []string { return cookieModel(place) }
		}
		values, err := source(r.Clone(t.Context()))
		if which%5 == 1 || which%5 == 2 {
			r.Body = io.NopCloser(strings.NewReader(place))
		}
		require.False(t, err != nil && len(values) > 0, "%q and %v", values, err)

		book := new(tokenBook)
		_, err = koreauth.New(book, &koreauth.Options{Sources: []koreauth.Source{source}}).Authenticate(r)
		none := errors.Is(err, koreauth.ErrNoToken)
		if len(book.asked) == 0 {
			require.True(t, none || errors.Is(err, koreauth.ErrBadRequest), "%v", err)
		} else {
			require.Len(t, book.asked, 1)
			require.Regexp(t, b64token, book.asked[0])
			require.Equal(t, []string{book.asked[0]}, model(), "%q", place)
		}
		if none || len(book.asked) > 0 {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, place, string(body), "what the handler reads")
		}
	})
}

// pairsModel are the values of t in a query or a form.
func pairsModel(encoded string) (values []string) {
	for pair := range strings.SplitSeq(encoded, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr == nil && valueErr == nil && name == "t" {
			values = append(values, value)
		}
	}
	return values
}

// memberModel are the values of t at the top of a JSON object, without regard
// to duplicates deeper down.
func memberModel(body string) (values []string) {
	decoder := json.NewDecoder(strings.NewReader(body))
	_, _ = decoder.Token()
	for decoder.More() {
		name, _ := decoder.Token()
		var value any
		if decoder.Decode(&value) != nil {
			return values
		}
		if text, _ := value.(string); name == "t" {
			values = append(values, text)
		}
	}
	return values
}

// cookieModel are the values of t in a Cookie line. Those that no cookie can
// have (RFC 6265 §4.1.1, but for space and comma) are none, as to net/http.
func cookieModel(line string) (values []string) {
	for pair := range strings.SplitSeq(line, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t\r\n"), "=")
		if unquoted := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`); len(value)-len(unquoted) == 2 {
			value = unquoted
		}
		odd := strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
		if strings.Trim(name, " \t\r\n") == "t" && !odd {
			values = append(values, value)
		}
	}
	return values
}

// FuzzAnswers: whatever the request, the guard's answer is one of the table's,
// byte for byte, so that nothing of the request is in it; and the handler is
// served only with a token that was signed.
func FuzzAnswers(f *testing.F) {
	payload := `{"iss":"` + edIssuer + `","aud":"api-gw","exp":99999999999,"scope":"email"`
	good := fuzzSigned(fuzzHeader, payload+`,"scopes":{"globalResources":[{"resourceName":"API Clients","access":["Read"]}]}}`)
	poor := fuzzSigned(fuzzHeader, payload+`}`)
	for _, authorization := range []string{
		"", "Bearer " + good, "bearer  " + poor, "Bearer " + good + "x", "Bearer", "Basic abc", good, "Bearer a\r\nX: y", "Bearer \"<script>", "\x00", "DPoP x",
	} {
		f.Add("GET", authorization, "", "a=b", "t="+poor, "application/json", `{"t":"`+good+`"}`)
		f.Add("HEAD", authorization, authorization, "t="+good+"&t=x", "", "application/x-www-form-urlencoded", "t="+poor)
		f.Add("POST", authorization, "", "", "t=\"", "application/x-www-form-urlencoded", "t=%zz;"+authorization)
	}
	remembering, _ := fuzzValidators(f)
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	guards := make(map[string]http.Handler)
	for name, format := range map[string]koreauth.ErrorFormat{
		"KORE": koreauth.KOREErrors, "RFC 6750": koreauth.RFC6750Errors, "problem": koreauth.ProblemErrors,
	} {
		for _, sources := range [][]koreauth.Source{nil, {
			koreauth.Header("Authorization"), koreauth.Query("t"), koreauth.Cookie("t"), koreauth.Form("t"), koreauth.JSON("t"),
		}} {
			guard := koreauth.New(remembering, &koreauth.Options{Errors: format, Sources: sources})
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
				require.True(t, strings.Contains(everything, good) || strings.Contains(unescaped, good) || pairsHave(query+"&"+body, good) || member.T == good,
					"%s: served without the good token: %q", name, everything)
				continue
			}
			format, _, _ := strings.Cut(name, " ")
			row := tableRow{w.Code, w.Header().Get("Content-Type"), w.Body.String(), w.Header().Get("WWW-Authenticate")}
			if method == http.MethodHead {
				require.Empty(t, row.body)
			} else {
				require.True(t, json.Valid(w.Body.Bytes()))
			}
			require.True(t, slices.ContainsFunc(answersOf(format), func(want tableRow) bool {
				if method == http.MethodHead {
					want.body = ""
				}
				return row == want
			}), "%s: not an answer of the table: %+v", name, row)
			header := maps.Clone(w.Header())
			for _, known := range []string{"Content-Type", "Www-Authenticate"} {
				header.Del(known)
			}
			require.Equal(t, http.Header{"Cache-Control": {"no-store"}, "X-Content-Type-Options": {"nosniff"}}, header, name)
		}
	})
}

func pairsHave(encoded, token string) bool { return slices.Contains(pairsModel(encoded), token) }

type tableRow struct {
	status                       int
	contentType, body, challenge string
}

// answersOf are the rows of the README's table of refusals that a request can
// bring about where the keys are at hand.
func answersOf(format string) []tableRow {
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
		return []tableRow{
			{401, "application/json", kore, bearer}, {401, "application/json", kore, bad},
			{403, "application/json", deny + `Invalid or expired token"}`, invalid}, {403, "application/json", deny + `Insufficient scope"}`, scope},
		}
	case "RFC":
		body := func(code, text, more string) string {
			return `{"error":"` + code + `","error_description":"` + text + `"` + more + `}`
		}
		return []tableRow{
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
	return []tableRow{
		{401, problem, body(401, "unauthorized"), bearer}, {400, problem, body(400, "invalid_request"), bad},
		{401, problem, body(401, "invalid_token"), invalid}, {403, problem, body(403, "insufficient_scope"), scope},
	}
}

// FuzzParseKeys: every key that is read from a document can verify, and a token
// that names it is judged without a panic.
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
			requireUsable(t, key)
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

func requireUsable(t *testing.T, key koreauth.Key) {
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
		require.Fail(t, "a key of another kind", "%T", public)
	}
}

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

// FuzzKeyDocuments: a key document of any bytes, with any status and any
// Cache-Control, never replaces good keys with none; one with usable keys
// replaces them; and the next refresh is neither before MinInterval nor after
// MaxAge.
func FuzzKeyDocuments(f *testing.F) {
	for i, document := range keyDocuments() {
		f.Add([]byte(document), uint16(200), []string{"", "max-age=60", "no-store", "max-age=99999999999999999999", "max-age=0", `max-age="1"`}[i%6], `"v1"`)
	}
	for _, status := range []uint16{204, 206, 301, 304, 404, 429, 500, 503} {
		f.Add([]byte(edSet("other")), status, "max-age=1", "")
	}
	f.Fuzz(func(t *testing.T, document []byte, status uint16, cacheControl, etag string) {
		if status < 200 || status > 599 {
			return // no final answer of HTTP (RFC 9110 §15)
		}
		synctest.Test(t, func(t *testing.T) {
			net := new(network)
			net.keys(keysOf("good"))
			set := net.set()
			_, err := set.Keys(t.Context(), "good", true)
			require.NoError(t, err)
			want, err := set.Keys(t.Context(), "", false)
			require.NoError(t, err)

			parsed, parseErr := koreauth.ParseKeys(document)
			replaces := status == 200 && parseErr == nil
			if replaces {
				want = parsed
			}
			net.keys(func(req *http.Request) (*http.Response, error) {
				resp, err := reply(int(status), string(document))(req)
				resp.Header["Cache-Control"], resp.Header["Etag"] = []string{cacheControl}, []string{etag}
				return resp, err
			})
			pass(keysMaxAge)
			keys, err := set.Keys(t.Context(), "good", true)
			require.NoError(t, err, "the old key serves during the refresh")
			require.Len(t, keys, 1)
			pass(0)
			keys, err = set.Keys(t.Context(), "", false)
			require.NoError(t, err)
			require.NotEmpty(t, keys)
			assert.Equal(t, want, keys)
			if !replaces {
				return
			}
			asked := net.count()
			pass(keysInterval - time.Nanosecond)
			_, err = set.Keys(t.Context(), "", true)
			require.NoError(t, err)
			pass(0)
			require.Equal(t, asked, net.count(), "before MinInterval")
			pass(keysMaxAge - keysInterval + time.Nanosecond)
			_, err = set.Keys(t.Context(), "", true)
			require.NoError(t, err)
			pass(0)
			require.Greater(t, net.count(), asked, "after MaxAge")
		})
	})
}
