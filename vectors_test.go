package koreauth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	_ "crypto/sha1" // for MGF1 and digests that no token may use
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/source"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestVectors runs every file of testdata/vectors. README.md there describes the
// format. The clock is stopped at 2000-01-01T00:00:00Z, which is 946684800.
func TestVectors(t *testing.T) {
	keys := readVectorKeys(t)
	files, err := filepath.Glob("testdata/vectors/*.txt")
	require.NoError(t, err)
	rejected, accepted, moved := 0, 0, 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			v := readVector(t, file)
			if v.expect == "accept" {
				accepted++
			} else {
				rejected++
			}
			synctest.Test(t, func(t *testing.T) {
				token, config := v.makeToken(t, keys), v.makeConfig(t, keys)
				v.run(t, keys, token, newValidator(t, config))
				if testing.Short() {
					return
				}
				v.runBesideAnotherIssuer(t, keys, token, config)
				v.runWithSwappedKeys(t, token, config)
				if v.expect == "accept" && v.runMoved(t, keys, config) {
					moved++
				}
			})
		})
	}
	if t.Failed() || len(files) != rejected+accepted {
		return // With -run only some files run, so there is nothing to count.
	}
	assert.GreaterOrEqual(t, rejected, 330, "number of files to reject")
	assert.GreaterOrEqual(t, accepted, 70, "number of files to accept")
	if testing.Short() {
		return
	}
	assert.GreaterOrEqual(t, moved, 100, "number of files whose token was moved to another issuer")
}

// vectorReasons are the errors that a file may expect, and vectorStatus the status
// of each class in KORE's format.
var (
	vectorReasons = map[string]error{
		"ErrMalformed": koreauth.ErrMalformed, "ErrAlgorithm": koreauth.ErrAlgorithm, "ErrSignature": koreauth.ErrSignature,
		"ErrUnknownKey": koreauth.ErrUnknownKey, "ErrExpired": koreauth.ErrExpired, "ErrNotYetValid": koreauth.ErrNotYetValid,
		"ErrTooOld": koreauth.ErrTooOld, "ErrIssuer": koreauth.ErrIssuer, "ErrAudience": koreauth.ErrAudience,
		"ErrTokenType": koreauth.ErrTokenType, "ErrClient": koreauth.ErrClient, "ErrBinding": koreauth.ErrBinding,
		"ErrInvalidToken": koreauth.ErrInvalidToken, "ErrNoToken": koreauth.ErrNoToken,
		"ErrBadRequest": koreauth.ErrBadRequest, "ErrInsufficientScope": koreauth.ErrInsufficientScope,
	}
	vectorStatus = map[error]int{
		koreauth.ErrInvalidToken: http.StatusForbidden, koreauth.ErrInsufficientScope: http.StatusForbidden,
		koreauth.ErrNoToken: http.StatusUnauthorized, koreauth.ErrBadRequest: http.StatusUnauthorized,
	}
	vectorB64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`) // RFC 6750 §2.1
)

// vector is the content of one file.
type vector struct {
	expect                              string // "accept" or the name of an error
	config, keys, jwks                  string
	header, payload, sign, token        string
	claims                              []string
	method, target, body, require, wrap string
	sources, lines                      []string
}

func readVector(t *testing.T, file string) vector {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	v := vector{
		keys:    "rsa",
		header:  `{"alg":"RS256","typ":"JWT","kid":"rsa"}`,
		payload: `{<claims>}`,
		sign:    "rsa RS256",
		token:   "<header>.<payload>.<signature>",
		method:  "GET",
		target:  "/v1/ping",
	}
	see, comment := "", false
	one := map[string]*string{
		"expect": &v.expect, "see": &see, "config": &v.config, "keys": &v.keys, "jwks": &v.jwks, "header": &v.header,
		"payload": &v.payload, "sign": &v.sign, "token": &v.token, "method": &v.method, "target": &v.target,
		"body": &v.body, "require": &v.require, "wrap": &v.wrap,
	}
	many := map[string]*[]string{"claim": &v.claims, "source": &v.sources, "line": &v.lines}
	used := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# ") {
			comment = true
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		if list := many[key]; list != nil {
			*list = append(*list, value)
			continue
		}
		require.Contains(t, one, key, "a line must start with a known key")
		require.False(t, used[key], "duplicate key %s", key)
		used[key], *one[key] = true, value
	}
	require.True(t, comment, "a file must describe the attack in a comment")
	require.Equal(t, v.expect == "accept", strings.HasPrefix(filepath.Base(file), "accept-"), "the file name must agree with expect")
	require.NotEmpty(t, see, "a file must name its rule or CVE")
	if v.expect != "accept" {
		require.Contains(t, vectorReasons, v.expect, "expect must be accept or the name of an error")
		require.Empty(t, v.claims, "a rejected token has no claims")
	}
	return v
}

// isRequest reports whether the file describes more than the token.
func (v vector) isRequest() bool {
	return v.sources != nil || v.lines != nil || v.body != "" || v.method != "GET" || v.target != "/v1/ping" || v.require != "" || v.wrap != ""
}

// run validates the token of the file, directly and in a request, and checks the
// results.
func (v vector) run(t *testing.T, keys vectorKeys, token string, validator *koreauth.Validator) {
	if !v.isRequest() {
		claims, err := validator.Validate(t.Context(), token)
		v.check(t, token, claims, err)
		assertExplained(t, validator, token, err)
	}

	handled := (*koreauth.Claims)(nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handled, _ = koreauth.FromContext(r.Context()) })
	var options koreauth.Options
	for _, line := range v.sources {
		options.Sources = append(options.Sources, vectorSource(t, line))
	}
	var refusal error
	options.Errors = func(_ *http.Request, err error) (int, string, []byte) {
		refusal = err
		return koreauth.KOREErrors(nil, err)
	}
	guard := koreauth.New(validator, &options)
	var guarded http.Handler
	switch {
	case v.require != "":
		guarded = guard.Require(vectorRequirement(t, v.require))(handler)
	case v.wrap == "optional":
		guarded = guard.WrapOptional(handler)
	default:
		require.Empty(t, v.wrap, "wrap must be optional or absent")
		guarded = guard.Wrap(handler)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/{rest...}", guarded)
	mux.Handle("/v1/token/{token}", guarded)

	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, v.request(t, keys, token))
	if !v.isRequest() && !vectorB64token.MatchString(token) {
		// A token that is not a b64token makes the request a bad request. But white
		// space around a token is part of the header, and does not.
		if vectorB64token.MatchString(strings.Trim(token, " \t")) {
			return
		}
		v.expect = "ErrBadRequest"
	}
	if v.expect == "accept" {
		assert.Equal(t, http.StatusOK, answer.Code, "status; the error is %v", refusal)
		assert.NoError(t, refusal)
		if v.isRequest() && v.claims != nil {
			v.check(t, token, handled, nil)
		}
		return
	}
	v.check(t, token, handled, refusal)
	for class, status := range vectorStatus {
		if errors.Is(vectorReasons[v.expect], class) {
			assert.Equal(t, status, answer.Code, "status")
		}
	}
}

// check compares claims and err with what the file expects.
func (v vector) check(t *testing.T, token string, claims *koreauth.Claims, err error) {
	t.Helper()
	if v.expect == "accept" {
		if !assert.NoError(t, err) || !assert.NotNil(t, claims) {
			return
		}
		for _, line := range v.claims {
			name, want, _ := strings.Cut(line, "=")
			assert.Equal(t, want, vectorClaim(t, claims, name), "claim %s", name)
		}
		return
	}
	want := vectorReasons[v.expect]
	assert.True(t, errors.Is(err, want), "want %s, got %v", v.expect, err)
	assert.Nil(t, claims, "claims of a rejected token")
	if err == nil {
		return
	}
	var refusal *koreauth.Error
	assert.ErrorAs(t, err, &refusal)
	// No 16 characters in a row of the error text may come from the token.
	for i := range max(0, len(err.Error())-15) {
		piece := err.Error()[i : i+16]
		if strings.Contains(token, piece) || strings.Contains(v.header, piece) || strings.Contains(v.payload, piece) {
			assert.Fail(t, "the error quotes the token", "%q in %v", piece, err)
			break
		}
	}
	for _, secret := range []string{"owner@example.com", "not-for-any-log"} {
		assert.NotContains(t, err.Error(), secret)
	}
}

// makeConfig returns the Config of the file. By default it has KORE's issuer,
// audience and algorithm, and the public keys that the file names.
func (v vector) makeConfig(t *testing.T, keys vectorKeys) koreauth.Config {
	config := koreauth.Config{Issuer: vectorIssuer, Audience: []string{"api-gw"}}
	for word := range strings.FieldsSeq(v.config) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "issuer":
			config.Issuer = value
		case "audience":
			config.Audience = strings.Split(value, ",")
		case "algorithms":
			config.Algorithms = strings.Split(value, ",")
		case "client-ids":
			config.ClientIDs = strings.Split(value, ",")
		case "leeway":
			config.Leeway, err = time.ParseDuration(value)
		case "max-age":
			config.MaxAge, err = time.ParseDuration(value)
		default:
			err = errors.New("unknown word")
		}
		require.NoError(t, err, "config %q", word)
	}
	document := v.jwks
	if document == "" {
		var all []string
		for name := range strings.FieldsSeq(v.keys) {
			all = append(all, "<"+name+">")
		}
		document = `{"keys":[` + strings.Join(all, ",") + `]}`
	}
	set, err := koreauth.ParseKeys([]byte(v.expand(t, keys, document)))
	require.NoError(t, err, "keys")
	config.Keys = koreauth.StaticKeySet(set)
	return config
}

// otherVectorIssuer is as long as vectorIssuer, so that lengths stay.
const otherVectorIssuer = "https://another.example/realms/KORE-IDP"

// vectorAlgorithms are all algorithms that a Config can accept.
var vectorAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// otherKeysOf returns keys with the same IDs, algorithms and types that are not the
// same keys.
func otherKeysOf(t *testing.T, set koreauth.KeySet) koreauth.StaticKeySet {
	var others koreauth.StaticKeySet
	for _, key := range set.(koreauth.StaticKeySet) {
		alg := "RS256"
		switch public := key.Public.(type) {
		case *ecdsa.PublicKey:
			alg = map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}[public.Curve]
		case ed25519.PublicKey:
			alg = "EdDSA"
		}
		require.Contains(t, signingKeys(), alg)
		key.Public = signingKeys()[alg].Public()
		others = append(others, key)
	}
	return others
}

// runBesideAnotherIssuer runs the file with a validator that has another issuer
// too. The results must be the same, but for the order of two checks.
func (v vector) runBesideAnotherIssuer(t *testing.T, keys vectorKeys, token string, config koreauth.Config) {
	other := config
	other.Issuer, other.Keys = otherVectorIssuer, otherKeysOf(t, config.Keys)
	beside := v
	beside.expect = v.expectBeside(token, config)
	beside.run(t, keys, token, newValidator(t, config, other)) // the same key IDs, audience and algorithms

	other = koreauth.Config{
		Issuer: otherVectorIssuer, Audience: []string{"reports"}, Algorithms: vectorAlgorithms, Leeway: time.Hour,
		Keys: config.Keys, // even the same keys
	}
	beside.run(t, keys, token, newValidator(t, other, config))
}

// expectBeside returns what the file expects if there are several issuers: "iss"
// selects the keys, so the payload is read, and an unknown issuer is rejected,
// before the signature is verified.
func (v vector) expectBeside(token string, config koreauth.Config) string {
	if v.expect != "ErrSignature" && v.expect != "ErrUnknownKey" {
		return v.expect
	}
	issuer, ok := vectorIssuerOf(token)
	switch {
	case !ok:
		return "ErrMalformed"
	case issuer != config.Issuer:
		return "ErrIssuer"
	}
	return v.expect
}

// vectorIssuerOf returns "iss" of a token. It returns false if the payload is not
// one strict JSON object.
func vectorIssuerOf(token string) (issuer string, ok bool) {
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(segments[1])
	if err != nil || string(payload) == "null" { // UnmarshalJSON accepts null
		return "", false
	}
	var claims koreauth.Claims
	err = claims.UnmarshalJSON(payload)
	return claims.Issuer, err == nil
}

// runWithSwappedKeys checks that no token of the file is accepted if only another
// issuer has its key.
func (v vector) runWithSwappedKeys(t *testing.T, token string, config koreauth.Config) {
	other := config
	other.Issuer = otherVectorIssuer
	config.Keys = otherKeysOf(t, config.Keys)
	validator := newValidator(t, config, other)
	for range 2 {
		claims, err := validator.Validate(t.Context(), token)
		assert.Error(t, err, "only the other issuer has the key")
		assert.Nil(t, claims)
		if _, isToken := vectorIssuerOf(token); v.expect == "accept" && isToken {
			assert.True(t, errors.Is(err, koreauth.ErrSignature) || errors.Is(err, koreauth.ErrUnknownKey), "got %v", err)
		}
	}
}

// runMoved signs the claims of the file for another issuer and checks that the
// token is accepted only with the key and the audience of that one. It returns
// false if the file does not name its issuer literally.
func (v vector) runMoved(t *testing.T, keys vectorKeys, config koreauth.Config) bool {
	v.payload = strings.ReplaceAll(v.expand(t, keys, v.payload), config.Issuer, otherVectorIssuer)
	token := v.makeToken(t, keys)
	if issuer, ok := vectorIssuerOf(token); !ok || issuer != otherVectorIssuer {
		return false
	}
	other := config
	other.Issuer = otherVectorIssuer
	with := func(first, second koreauth.Config) error {
		_, err := newValidator(t, first, second).Validate(t.Context(), token)
		return err
	}
	strangers, reports := otherKeysOf(t, config.Keys), []string{"reports"}
	withKeys := func(c koreauth.Config, keys koreauth.KeySet) koreauth.Config { c.Keys = keys; return c }
	withAudience := func(c koreauth.Config) koreauth.Config { c.Audience = reports; return c }

	assert.NoError(t, with(withKeys(config, strangers), other), "the other issuer has the key")
	assert.NoError(t, with(withAudience(config), other), "the audience of the first issuer does not matter")
	assert.ErrorIs(t, with(config, withAudience(other)), koreauth.ErrAudience, "the audience of the first issuer")
	err := with(config, withKeys(other, strangers))
	assert.True(t, errors.Is(err, koreauth.ErrSignature) || errors.Is(err, koreauth.ErrUnknownKey), "signed with the key of the first issuer: got %v", err)
	other.Issuer = "https://third.example"
	assert.ErrorIs(t, with(config, other), koreauth.ErrIssuer, "no Config for the issuer")
	return true
}

// request returns the request of the file. By default the token is in the
// Authorization header.
func (v vector) request(t *testing.T, keys vectorKeys, token string) *http.Request {
	fill := func(text string) string {
		return v.expand(t, keys, strings.ReplaceAll(text, "<token>", token))
	}
	r := httptest.NewRequest(v.method, fill(v.target), strings.NewReader(fill(v.body)))
	if !v.isRequest() || v.sources == nil && v.lines == nil && v.target == "/v1/ping" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, line := range v.lines {
		name, value, ok := strings.Cut(line, ":")
		require.True(t, ok, "a header line must have a colon")
		name = http.CanonicalHeaderKey(name)
		r.Header[name] = append(r.Header[name], fill(strings.TrimPrefix(value, " ")))
	}
	return r
}

// vectorSource returns the Source of a line such as "query access_token".
func vectorSource(t *testing.T, line string) koreauth.Source {
	kind, name, _ := strings.Cut(line, " ")
	makers := map[string]func(string) koreauth.Source{
		"header": koreauth.Header, "form": source.Form, "json": source.JSON,
		"query": source.Query, "path": source.Path, "cookie": source.Cookie,
	}
	require.Contains(t, makers, kind, "source")
	return makers[kind](name)
}

// vectorRequirement returns the Requirement of a line: "scope a b",
// "any-scope a b", "product name" or "grant Read,Write of resource".
func vectorRequirement(t *testing.T, line string) koreauth.Requirement {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "scope":
		return koreauth.Scope(strings.Fields(rest)...)
	case "any-scope":
		return koreauth.AnyScope(strings.Fields(rest)...)
	case "product":
		return koreauth.Product(rest)
	case "grant":
		names, resource, ok := strings.Cut(rest, " of ")
		require.True(t, ok, "grant %q", rest)
		var access []koreauth.Access
		for name := range strings.SplitSeq(names, ",") {
			access = append(access, koreauth.Access(name))
		}
		return koreauth.Grant(resource, access...)
	}
	require.Fail(t, "unknown requirement", line)
	return nil
}

// vectorClaim returns a claim as the files write it: elements of a list are
// separated by "|", dates are in seconds, and a resource is "name:access,access".
func vectorClaim(t *testing.T, c *koreauth.Claims, name string) string {
	date := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', -1, 64)
	}
	switch name {
	case "issuer":
		return c.Issuer
	case "subject":
		return c.Subject
	case "id":
		return c.ID
	case "client":
		return c.ClientID
	case "audience":
		return strings.Join(c.Audience, "|")
	case "scopes":
		return strings.Join(c.Scopes, "|")
	case "issued":
		return date(c.IssuedAt)
	case "not-before":
		return date(c.NotBefore)
	case "expiry":
		return date(c.Expiry)
	case "account":
		return c.AccountID
	case "client-type":
		return c.ClientType
	case "owner":
		return c.ClientOwner
	case "products":
		return strings.Join(c.Products, "|")
	case "ip-ranges":
		return strings.Join(c.IPRanges, "|")
	case "resources":
		var all []string
		for _, r := range c.Resources {
			access := make([]string, len(r.Access))
			for i, a := range r.Access {
				access[i] = string(a)
			}
			all = append(all, r.Name+":"+strings.Join(access, ","))
		}
		return strings.Join(all, "|")
	}
	require.Fail(t, "unknown claim", name)
	return ""
}

const vectorIssuer = "https://issuer.example/realms/KORE-CIDP"

// vectorMembers are the members of <claims>, as in KORE's tokens.
var vectorMembers = [][2]string{
	{"iss", `"` + vectorIssuer + `"`}, {"aud", `"api-gw"`}, {"exp", `946688400`}, {"iat", `946684800`},
	{"jti", `"ebf11282-f6d0"`}, {"sub", `"74663e17-66e4"`}, {"typ", `"Bearer"`}, {"azp", `"kc_01hxaz"`},
	{"client_id", `"kc_01hxaz"`}, {"scope", `"email sims:read"`}, {"account-id", `"CO168672"`}, {"client-type", `"admin"`},
	{"client-owner", `"owner@example.com"`}, {"api-key", `"not-for-any-log"`},
	{"scopes", `{"globalResources":[{"resourceName":"API Clients","access":["Read","Write"]}]}`},
}

var vectorMacro = regexp.MustCompile(`<([a-z][a-z0-9.-]*)( [^<>]*)?>`)

// expand replaces the macros of a line, which the README describes. An unknown
// macro fails the test.
func (v vector) expand(t *testing.T, keys vectorKeys, text string) string {
	fill := -1
	text = vectorMacro.ReplaceAllStringFunc(text, func(found string) string {
		word := vectorMacro.FindStringSubmatch(found)
		argument := strings.TrimPrefix(word[2], " ")
		switch word[1] {
		case "claims":
			without := strings.Fields(argument)
			var members []string
			for _, m := range vectorMembers {
				if !slices.Contains(without, "-"+m[0]) {
					members = append(members, strconv.Quote(m[0])+":"+m[1])
				}
			}
			require.Len(t, members, len(vectorMembers)-len(without), "macro %s names an unknown claim", found)
			return strings.Join(members, ",")
		case "hex":
			raw, err := hex.DecodeString(strings.ReplaceAll(argument, " ", ""))
			require.NoError(t, err, "macro %s", found)
			return string(raw)
		case "times":
			count, what, _ := strings.Cut(argument, " ")
			n, err := strconv.Atoi(count)
			require.NoError(t, err, "macro %s", found)
			return strings.Repeat(what, n)
		case "fill":
			var err error
			fill, err = strconv.Atoi(argument)
			require.NoError(t, err, "macro %s", found)
			return "\x00fill\x00"
		}
		key, field, _ := strings.Cut(word[1], ".")
		require.Contains(t, keys, key, "macro %s", found)
		if field == "" {
			return keys[key].public(t)
		}
		require.NotEmpty(t, keys[key][field], "macro %s", found)
		return keys[key][field]
	})
	if fill >= 0 {
		text = strings.Replace(text, "\x00fill\x00", strings.Repeat("a", fill-len(text)+len("\x00fill\x00")), 1)
	}
	return text
}

// makeToken encodes and signs the header and the payload and inserts them into
// the token line.
func (v vector) makeToken(t *testing.T, keys vectorKeys) string {
	header, payload := v.expand(t, keys, v.header), v.expand(t, keys, v.payload)
	places := map[string]string{"header": vectorB64([]byte(header)), "payload": vectorB64([]byte(payload)), "header.raw": header, "payload.raw": payload}
	text := v.token
	place := regexp.MustCompile(`<(header|payload|signature)((?:\.[a-z]+)?)>`)
	put := func(text string) string {
		return place.ReplaceAllStringFunc(text, func(found string) string {
			word := place.FindStringSubmatch(found)
			if whole, ok := places[word[1]+word[2]]; ok {
				return whole
			}
			if word[1] == "signature" && places["signature"] == "" {
				return found // not signed yet
			}
			return respell(t, places[word[1]], word[2])
		})
	}
	text = put(text)
	words := strings.Fields(v.sign)
	if words[0] != "none" {
		input := places["header"] + "." + places["payload"]
		if slices.Contains(words, "as-written") { // Sign the text of the token line.
			i := strings.LastIndex(text, ".<signature")
			require.Positive(t, i, "as-written needs .<signature>")
			input, words = text[:i], slices.DeleteFunc(words, func(w string) bool { return w == "as-written" })
		}
		signature := keys.sign(t, words, []byte(input))
		places["signature.hex"] = hex.EncodeToString(signature)
		places["signature"] = vectorB64(signature)
	} else {
		text = strings.ReplaceAll(text, "<signature>", "")
	}
	return v.expand(t, keys, put(text))
}

func vectorB64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// respell returns a segment in another encoding of the same bytes.
func respell(t *testing.T, segment, how string) string {
	raw, err := base64.RawURLEncoding.DecodeString(segment)
	require.NoError(t, err)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	switch how {
	case ".padded":
		require.NotZero(t, len(segment)%4, "the segment needs no padding")
		return base64.URLEncoding.EncodeToString(raw)
	case ".std":
		std := base64.RawStdEncoding.EncodeToString(raw)
		require.NotEqual(t, segment, std, "the segment is the same in both alphabets")
		return std
	case ".bits": // Set the lowest unused bit.
		require.NotZero(t, len(segment)%4, "the segment has no unused bits")
		last := strings.IndexByte(alphabet, segment[len(segment)-1])
		return segment[:len(segment)-1] + alphabet[last+1:last+2]
	case ".line": // A line break after 64 characters, as in PEM and MIME.
		return segment[:min(64, len(segment)/2)] + "\n" + segment[min(64, len(segment)/2):]
	}
	require.Fail(t, "unknown encoding", how)
	return ""
}

// vectorKeys are the private JWKs of keys.json by name. They are used for tests
// only.
type vectorKeys map[string]vectorKey

type vectorKey map[string]string

func readVectorKeys(t *testing.T) vectorKeys {
	text, err := os.ReadFile("testdata/vectors/keys.json")
	require.NoError(t, err)
	var keys vectorKeys
	require.NoError(t, json.Unmarshal(text, &keys))
	return keys
}

// public returns the public JWK of the key.
func (k vectorKey) public(t *testing.T) string {
	out := maps.Clone(k)
	delete(out, "d")
	text, err := json.Marshal(out)
	require.NoError(t, err)
	return string(text)
}

// number returns the integer that a member of the key encodes.
func (k vectorKey) number(t *testing.T, name string) *big.Int {
	raw, err := base64.RawURLEncoding.DecodeString(k[name])
	require.NoError(t, err)
	require.NotEmpty(t, raw, "the key has no %s", name)
	return new(big.Int).SetBytes(raw)
}

func (k vectorKey) rsaWidth(t *testing.T) int { return (k.number(t, "n").BitLen() + 7) / 8 }

var rsaPowers sync.Map // results of vectorKey.rsa, because one takes 5 ms

// rsa raises a block to the private exponent: RSASP1 of RFC 8017 §5.2.1.
func (k vectorKey) rsa(t *testing.T, block []byte) []byte {
	id := k["n"] + string(block)
	if s, ok := rsaPowers.Load(id); ok {
		return slices.Clone(s.([]byte))
	}
	n := k.number(t, "n")
	s := new(big.Int).Exp(new(big.Int).SetBytes(block), k.number(t, "d"), n)
	out := s.FillBytes(make([]byte, k.rsaWidth(t)))
	rsaPowers.Store(id, slices.Clone(out))
	return out
}

func (k vectorKey) curve(t *testing.T) elliptic.Curve {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	require.Contains(t, curves, k["crv"])
	return curves[k["crv"]]
}

// publicDER returns the key as a SubjectPublicKeyInfo or, with pkcs1, as an
// RSAPublicKey.
func (k vectorKey) publicDER(t *testing.T, pkcs1 bool) []byte {
	der := func(v any) []byte {
		out, err := asn1.Marshal(v)
		require.NoError(t, err)
		return out
	}
	type algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters asn1.RawValue
	}
	type info struct {
		Algorithm algorithm
		Key       asn1.BitString
	}
	var id algorithm
	var bits []byte
	if k["kty"] == "RSA" {
		bits = der(struct{ N, E *big.Int }{k.number(t, "n"), k.number(t, "e")})
		if pkcs1 {
			return bits
		}
		id = algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue}
	} else {
		require.Equal(t, "P-256", k["crv"])
		id = algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.RawValue{FullBytes: der(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})}}
		bits = slices.Concat([]byte{4}, k.number(t, "x").FillBytes(make([]byte, 32)), k.number(t, "y").FillBytes(make([]byte, 32)))
	}
	return der(info{id, asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)}})
}

// sign makes a signature from the words of a sign line: a key, an algorithm and
// the faults of the signature. It does not use koreauth.
func (keys vectorKeys) sign(t *testing.T, words []string, input []byte) []byte {
	if words[0] == "hex" {
		raw, err := hex.DecodeString(strings.Join(words[1:], ""))
		require.NoError(t, err)
		return raw
	}
	require.GreaterOrEqual(t, len(words), 2, "sign needs a key and an algorithm")
	require.Contains(t, keys, words[0], "key")
	key, alg, faults := keys[words[0]], words[1], words[2:]
	hashes := map[string]crypto.Hash{"1": crypto.SHA1, "256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	hash := hashes[alg[2:]]
	digest := func() []byte {
		require.True(t, hash.Available(), "algorithm %s", alg)
		h := hash.New()
		h.Write(input)
		return h.Sum(nil)
	}
	var signature []byte
	switch {
	case alg == "EdDSA":
		signature, faults = key.signEd25519(t, input, faults)
	case alg[:2] == "RS":
		var block []byte
		block, faults = pkcs1Block(t, hash, digest(), key.rsaWidth(t), faults)
		signature = key.rsa(t, block)
	case alg[:2] == "PS":
		var block []byte
		block, faults = pssBlock(t, hash, digest(), key.number(t, "n").BitLen()-1, faults)
		signature = key.rsa(t, block)
	case alg[:2] == "ES":
		signature, faults = key.signECDSA(t, digest(), faults)
	case alg[:2] == "HS":
		require.Len(t, faults, 1, "an HMAC needs one secret")
		mac := hmac.New(hash.New, key.secret(t, faults[0]))
		mac.Write(input)
		signature, faults = mac.Sum(nil), nil
	default:
		require.Fail(t, "unknown algorithm", alg)
	}
	for _, fault := range faults {
		signature = key.alter(t, signature, fault)
	}
	return signature
}

// secret returns data that a verifier might use as the secret of an HMAC by
// mistake.
func (k vectorKey) secret(t *testing.T, kind string) []byte {
	kind, text, _ := strings.Cut(kind, "=")
	block := func(pkcs1 bool) []byte {
		title := "PUBLIC KEY"
		if pkcs1 {
			title = "RSA PUBLIC KEY"
		}
		return pem.EncodeToMemory(&pem.Block{Type: title, Bytes: k.publicDER(t, pkcs1)})
	}
	member := func(name string) []byte { raw, _ := base64.RawURLEncoding.DecodeString(k[name]); return raw }
	switch kind {
	case "pem":
		return block(false)
	case "pem-no-newline":
		return []byte(strings.TrimSpace(string(block(false))))
	case "pem-space-first":
		return append([]byte("\n "), block(false)...)
	case "pkcs1-pem":
		return block(true)
	case "der":
		return k.publicDER(t, false)
	case "pkcs1-der":
		return k.publicDER(t, true)
	case "jwk":
		return []byte(k.public(t))
	case "jwks":
		return []byte(`{"keys":[` + k.public(t) + `]}`)
	case "n", "x":
		return member(kind)
	case "n-text":
		return []byte(k["n"])
	case "text":
		return []byte(text)
	}
	require.Fail(t, "unknown secret", kind)
	return nil
}

// alter applies a fault to a finished signature.
func (k vectorKey) alter(t *testing.T, s []byte, fault string) []byte {
	kind, value, _ := strings.Cut(fault, "=")
	count, _ := strconv.Atoi(value)
	number := func() *big.Int { return new(big.Int).SetBytes(s) }
	switch kind {
	case "flip": // a bit
		s = slices.Clone(s)
		s[count/8] ^= 1 << (count % 8)
	case "cut": // bytes from the end
		s = s[:len(s)-count]
	case "behead": // bytes from the start
		s = s[count:]
	case "zeros-after":
		s = append(s, make([]byte, count)...)
	case "zeros-before":
		s = append(make([]byte, count), s...)
	case "plus-n":
		s = new(big.Int).Add(number(), k.number(t, "n")).Bytes()
	case "minus": // n - s
		s = new(big.Int).Sub(k.number(t, "n"), number()).FillBytes(make([]byte, len(s)))
	case "n-itself":
		s = k.number(t, "n").FillBytes(make([]byte, len(s)))
	case "n-minus-1":
		s = new(big.Int).Sub(k.number(t, "n"), big.NewInt(1)).FillBytes(make([]byte, len(s)))
	case "all": // every byte has this value
		raw, err := hex.DecodeString(value)
		require.NoError(t, err)
		s = []byte(strings.Repeat(string(raw), len(s)))
	case "number":
		s = big.NewInt(int64(count)).FillBytes(make([]byte, len(s)))
	case "twice":
		s = append(slices.Clone(s), s...)
	case "hex-text":
		s = []byte(hex.EncodeToString(s))
	default:
		require.Fail(t, "unknown fault", fault)
	}
	return s
}

// takeFault returns the text after "=" of a fault, whether the fault is in the
// list, and the list without it.
func takeFault(faults []string, kind string) (string, bool, []string) {
	for i, fault := range faults {
		if name, value, _ := strings.Cut(fault, "="); name == kind {
			return value, true, slices.Delete(slices.Clone(faults), i, i+1)
		}
	}
	return "", false, faults
}

// digestInfos are the prefixes of RFC 8017 §9.2.
var digestInfos = map[crypto.Hash]string{
	crypto.SHA1:   "3021300906052b0e03021a05000414",
	crypto.SHA256: "3031300d060960864801650304020105000420",
	crypto.SHA384: "3041300d060960864801650304020205000430",
	crypto.SHA512: "3051300d060960864801650304020305000440",
}

// pkcs1Block returns an EMSA-PKCS1-v1_5 block (RFC 8017 §9.2), or one with faults
// that a careless verifier might accept. The fault "info" sets the DigestInfo
// before the digest.
func pkcs1Block(t *testing.T, hash crypto.Hash, digest []byte, width int, faults []string) ([]byte, []string) {
	info, set, faults := takeFault(faults, "info")
	if !set {
		info = digestInfos[hash]
	}
	prefix, err := hex.DecodeString(info)
	require.NoError(t, err)
	tail := append(prefix, digest...)
	start, set, faults := takeFault(faults, "start")
	if !set {
		start = "0001"
	}
	first, err := hex.DecodeString(start)
	require.NoError(t, err)
	fill, set, faults := takeFault(faults, "fill")
	if !set {
		fill = "ff"
	}
	filler, err := hex.DecodeString(fill)
	require.NoError(t, err)
	garbage := 0
	if value, is, rest := takeFault(faults, "garbage-after"); is { // eight bytes of padding, and garbage after the digest
		garbage, faults = width-len(first)-8-1-len(tail), rest
		require.Empty(t, value)
	}
	padding := width - len(first) - 1 - len(tail) - garbage
	require.Positive(t, padding)
	return slices.Concat(first, []byte(strings.Repeat(string(filler), padding)), []byte{0}, tail, make([]byte, garbage)), faults
}

// pssBlock returns an EMSA-PSS block (RFC 8017 §9.1). The salt is as long as the
// hash, unless a fault sets another length.
func pssBlock(t *testing.T, hash crypto.Hash, digest []byte, bits int, faults []string) ([]byte, []string) {
	length, width, maskHash, trailer := hash.Size(), (bits+7)/8, hash, byte(0xbc)
	value, set, faults := takeFault(faults, "salt")
	if value == "max" {
		length = width - hash.Size() - 2
	} else if set {
		length, _ = strconv.Atoi(value)
	}
	if _, sha1, rest := takeFault(faults, "mgf-sha1"); sha1 {
		maskHash, faults = crypto.SHA1, rest
	}
	if _, other, rest := takeFault(faults, "trailer-cc"); other {
		trailer, faults = 0xcc, rest
	}
	salt := make([]byte, length)
	_, _ = rand.Read(salt)
	h := hash.New()
	h.Write(make([]byte, 8))
	h.Write(digest)
	h.Write(salt)
	sum := h.Sum(nil)
	db := make([]byte, width-len(sum)-1)
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt)
	if _, dirty, rest := takeFault(faults, "dirty-padding"); dirty {
		db[1], faults = 0x42, rest
	}
	var mask []byte
	for i := uint32(0); len(mask) < len(db); i++ {
		h := maskHash.New()
		h.Write(sum)
		h.Write(binary.BigEndian.AppendUint32(nil, i))
		mask = h.Sum(mask)
	}
	for i := range db {
		db[i] ^= mask[i]
	}
	db[0] &= 0xff >> (8*width - bits)
	return slices.Concat(db, sum, []byte{trailer}), faults
}

// signECDSA signs as RFC 7518 §3.4 requires. Faults change r and s.
func (k vectorKey) signECDSA(t *testing.T, digest []byte, faults []string) ([]byte, []string) {
	curve := k.curve(t)
	n, width := curve.Params().N, (curve.Params().BitSize+7)/8
	scalar, err := base64.RawURLEncoding.DecodeString(k["d"])
	require.NoError(t, err)
	private, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	require.NoError(t, err)
	_, smallR, faults := takeFault(faults, "short-r") // r with a leading zero byte
	_, smallS, faults := takeFault(faults, "short-s") // likewise s
	_, high, faults := takeFault(faults, "high-s")    // the larger of s and n-s
	r, s := new(big.Int), new(big.Int)
	for {
		r, s, err = ecdsa.Sign(rand.Reader, private, digest)
		require.NoError(t, err)
		if (!smallR || r.BitLen() <= 8*(width-1)) && (!smallS || s.BitLen() <= 8*(width-1)) {
			break
		}
	}
	if other := new(big.Int).Sub(n, s); high && other.Cmp(s) > 0 {
		s = other
	}
	encode := func() []byte {
		return append(r.FillBytes(make([]byte, width)), s.FillBytes(make([]byte, width))...)
	}
	var rest []string
	for _, fault := range faults {
		name, value, _ := strings.Cut(fault, "=")
		altered := map[string]*big.Int{
			"0": new(big.Int), "1": big.NewInt(1), "n": n, "n-1": new(big.Int).Sub(n, big.NewInt(1)),
			"p": curve.Params().P, "r+n": new(big.Int).Add(r, n), "s+n": new(big.Int).Add(s, n), "r": r, "s": s, "n-r": new(big.Int).Sub(n, r),
		}[value]
		switch {
		case name == "r" && altered != nil:
			r = altered
		case name == "s" && altered != nil:
			s = altered
		case name == "swap":
			r, s = s, r
		case name == "width":
			width, _ = strconv.Atoi(value)
		case name == "der":
			der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
			require.NoError(t, err)
			return der, nil
		case name == "trim": // no leading zeros
			return append(r.Bytes(), s.Bytes()...), nil
		case name == "zero-between":
			return slices.Concat(r.FillBytes(make([]byte, width)), []byte{0}, s.FillBytes(make([]byte, width))), nil
		default:
			rest = append(rest, fault)
		}
	}
	return encode(), rest
}

// signEd25519 signs as RFC 8037 §3.1 requires. Faults select a similar signature
// scheme or change the signature.
func (k vectorKey) signEd25519(t *testing.T, input []byte, faults []string) ([]byte, []string) {
	seed, err := base64.RawURLEncoding.DecodeString(k["d"])
	require.NoError(t, err)
	private := ed25519.NewKeyFromSeed(seed)
	options := &ed25519.Options{}
	if value, context, rest := takeFault(faults, "context"); context {
		options.Context, faults = value, rest
	}
	if _, prehash, rest := takeFault(faults, "prehash"); prehash {
		options.Hash, faults = crypto.SHA512, rest
		h := crypto.SHA512.New()
		h.Write(input)
		input = h.Sum(nil)
	}
	signature, err := private.Sign(rand.Reader, input, options)
	require.NoError(t, err)
	if _, greater, rest := takeFault(faults, "s-plus-l"); greater {
		faults = rest
		s := slices.Clone(signature[32:])
		slices.Reverse(s)
		order, ok := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
		require.True(t, ok)
		sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
		slices.Reverse(sum)
		signature = append(signature[:32], sum...)
	}
	return signature, faults
}
