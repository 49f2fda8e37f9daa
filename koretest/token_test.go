package koretest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// sampleHeader and samplePayload are KORE's documented sample token, decoded. The
// secret, the owner and the host are invented.
const (
	sampleHeader  = `{"alg":"RS256","typ" : "JWT","kid" : "2aFei3EsV5XhyR-XORS_Ef71niQiUfIz8Uqs_FX5Upk"}`
	samplePayload = `{"exp":1715137525,"iat":1715133925,"jti":"ebf11282-f6d0-40f1-b2e9-5c313a29ac2d",` +
		`"iss":"https://keycloak.example/realms/KORE-CIDP","aud":"api-gw","sub":"74663e17-66e4-4e42-a58b-e2b7e5227ebe",` +
		`"typ":"Bearer","azp":"kc_01hxaz4se2eh6r36qgptqahw1d","scope":"email","email_verified":false,` +
		`"clientHost":"10.233.69.0","ip-range":[],"api-key":"c2VjcmV0","account-id":"CO1686726qunzorx356280",` +
		`"client-type":"admin","scopes":{"globalResources":[{"resourceName":"API Clients",` +
		`"access":["Read","Write","Modify","Delete"]}]},"clientAddress":"10.233.69.0",` +
		`"client-owner":"owner@example.com","client_id":"kc_01hxaz4se2eh6r36qgptqahw1d","twilio-sid":"devportalSIDtest"}`
)

// parts returns the decoded header, payload and signature of a token.
func parts(t *testing.T, token string) (header, payload string, signature []byte) {
	t.Helper()
	segments := strings.Split(token, ".")
	require.Len(t, segments, 3)
	var decoded [3][]byte
	for i, segment := range segments {
		var err error
		decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(segment)
		require.NoError(t, err)
	}
	return string(decoded[0]), string(decoded[1]), decoded[2]
}

func headerOf(t *testing.T, token string) map[string]any {
	t.Helper()
	header, _, _ := parts(t, token)
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(header), &members))
	return members
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	_, payload, _ := parts(t, token)
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(payload), &members))
	return members
}

// verify verifies a token with jwx, which shares no code with koretest, and with
// the algorithm in the token's header.
func verify(t *testing.T, token string, key any) {
	t.Helper()
	algorithm := jwa.SignatureAlgorithm(headerOf(t, token)["alg"].(string))
	_, err := jws.Verify([]byte(token), jws.WithKey(algorithm, key))
	assert.NoError(t, err)
}

func mint(t *testing.T, issuer *koretest.Issuer, token koretest.Token) string {
	t.Helper()
	s, err := issuer.Mint(token)
	require.NoError(t, err)
	return s
}

func TestIssuer_MintsTokensLikeKORE(t *testing.T) {
	client := koretest.Client{
		ID:        "kc_01hxaz4se2eh6r36qgptqahw1d",
		AccountID: "CO1686726qunzorx356280",
		Resources: map[string][]string{"API Clients": {"Read", "Write", "Modify", "Delete"}},
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{
		URL: "https://keycloak.example", Clients: []koretest.Client{client},
		Keys: []*koretest.Key{{ID: "2aFei3EsV5XhyR-XORS_Ef71niQiUfIz8Uqs_FX5Upk", Algorithm: "RS256", Private: signingKey().Private}},
	})
	require.NoError(t, err)
	header, payload, signature := parts(t, issuer.Valid())
	assert.Equal(t, sampleHeader, header)
	assert.Len(t, signature, 256)

	// Values that differ from token to token or from issuer to issuer.
	for _, value := range []string{
		`"exp":\d{10}`, `"iat":\d{10}`, `"jti":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"`,
		`"sub":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"`,
		`"clientHost":"[0-9.]+"`, `"clientAddress":"[0-9.]+"`, `"api-key":"[^"]{8,}"`, `"twilio-sid":"\w+"`,
	} {
		pattern := regexp.MustCompile(value)
		sample := pattern.FindString(samplePayload)
		require.NotEmpty(t, sample, value)
		require.Regexp(t, pattern, payload)
		payload = pattern.ReplaceAllLiteralString(payload, sample)
	}
	assert.Equal(t, samplePayload, payload)
}

func TestIssuer_MintsClaimsOfClient(t *testing.T) {
	issuer := newIssuer(t, koretest.Client{ID: "first"}, koretest.Client{
		ID: "second", AccountID: "CO1", Owner: "o@example.com", Scope: "a b", IPRanges: []string{"10.0.0.0/8"},
		Products: []string{"SuperSIM"}, Lifetime: koretest.TwentyFourMonths,
	}, koretest.Client{
		ID: "third", Type: "other", Resources: map[string][]string{"B": {"Read"}, "A": {}},
	})
	first := claimsOf(t, issuer.Valid())
	assert.Equal(t, "first", first["client_id"])
	assert.Equal(t, "standard", first["client-type"])
	assert.Equal(t, map[string]any{}, first["scopes"])
	assert.Equal(t, "email", first["scope"])
	assert.Equal(t, "api-gw", first["aud"])
	assert.Equal(t, 3600.0, first["exp"].(float64)-first["iat"].(float64))

	second := claimsOf(t, mint(t, issuer, koretest.Token{ClientID: "second"}))
	assert.Equal(t, "second", second["azp"])
	assert.Equal(t, "CO1", second["account-id"])
	assert.Equal(t, "o@example.com", second["client-owner"])
	assert.Equal(t, "a b", second["scope"])
	assert.Equal(t, []any{"10.0.0.0/8"}, second["ip-range"])
	assert.Equal(t, map[string]any{"products": []any{"SuperSIM"}}, second["scopes"])
	assert.Equal(t, 730*24*3600.0, second["exp"].(float64)-second["iat"].(float64))
	assert.NotEqual(t, first["sub"], second["sub"])
	assert.Equal(t, first["sub"], claimsOf(t, issuer.Valid())["sub"], "sub is the same in all tokens of a client")
	assert.NotEqual(t, first["jti"], claimsOf(t, issuer.Valid())["jti"], "jti is unique")

	third := claimsOf(t, mint(t, issuer, koretest.Token{ClientID: "third"}))
	assert.Equal(t, "other", third["client-type"])
	assert.Equal(t, map[string]any{"globalResources": []any{
		map[string]any{"resourceName": "A", "access": []any{}},
		map[string]any{"resourceName": "B", "access": []any{"Read"}},
	}}, third["scopes"])
}

func TestIssuer_HasDemoClient(t *testing.T) {
	issuer, other := newIssuer(t), newIssuer(t)
	demo := issuer.Client()
	assert.Equal(t, "kc_demo", demo.ID)
	assert.NotEqual(t, other.Client().Secret, demo.Secret, "the secret must be random")
	assert.Equal(t, "admin", demo.Type)
	assert.Equal(t, koretest.OneHour, demo.Lifetime)

	demo.Resources["API Clients"][0] = "Changed"
	demo.Products[0] = "Changed"
	assert.Equal(t, "Read", issuer.Client().Resources["API Clients"][0], "Client must return a copy")
	assert.Equal(t, "SuperSIM", issuer.Client().Products[0])
}

func TestIssuer_MintsOneOrSeveralAudiences(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{
		URL: "https://issuer.example", Keys: []*koretest.Key{signingKey()}, Audience: []string{"a", "b"},
	})
	require.NoError(t, err)
	assert.Equal(t, []any{"a", "b"}, claimsOf(t, issuer.Valid())["aud"])
	issuer, err = koretest.NewIssuer(&koretest.Options{
		URL: "https://issuer.example", Keys: []*koretest.Key{signingKey()}, Audience: []string{"a"},
	})
	require.NoError(t, err)
	assert.Equal(t, "a", claimsOf(t, issuer.Valid())["aud"])
}

func TestIssuer_RegisterAffectsOnlyNewTokens(t *testing.T) {
	issuer := newIssuer(t)
	before := issuer.Valid()
	client := issuer.Client()
	client.Products = []string{"Other"}
	require.NoError(t, issuer.Register(client))
	assert.Contains(t, claimsOf(t, before)["scopes"].(map[string]any)["products"], "SuperSIM")
	assert.Equal(t, []any{"Other"}, claimsOf(t, issuer.Valid())["scopes"].(map[string]any)["products"])
	assert.Error(t, issuer.Register(koretest.Client{}))
}

func TestIssuer_MintsCommonTokens(t *testing.T) {
	issuer := newIssuer(t)
	public := issuer.SigningKey().Public()
	verify(t, issuer.Valid(), public)

	verify(t, issuer.Expired(), public)
	expired := claimsOf(t, issuer.Expired())
	assert.InDelta(t, time.Now().Add(-time.Hour).Unix(), expired["exp"], 2)
	assert.Equal(t, 3600.0, expired["exp"].(float64)-expired["iat"].(float64))

	verify(t, issuer.Ungranted(), public)
	assert.NotContains(t, claimsOf(t, issuer.Ungranted()), "scopes")
	assert.NotContains(t, claimsOf(t, issuer.Ungranted()), "scope")

	forged := issuer.Forged()
	assert.NotContains(t, issuer.KeyIDs(), headerOf(t, forged)["kid"])
	assert.Equal(t, headerOf(t, forged)["kid"], headerOf(t, issuer.Forged())["kid"])
	_, err := jws.Verify([]byte(forged), jws.WithKey(jwa.RS256, public))
	assert.Error(t, err)
}

func TestIssuer_MintsUnusualTokens(t *testing.T) {
	issuer := newIssuer(t)
	public := issuer.SigningKey().Public().(*rsa.PublicKey)

	t.Run("an unsigned token has an empty signature", func(t *testing.T) {
		token := mint(t, issuer, koretest.Token{Algorithm: "none", BadSignature: true})
		assert.Equal(t, "none", headerOf(t, token)["alg"])
		assert.True(t, strings.HasSuffix(token, "."))
	})
	t.Run("changed claims keep their place, new ones are last, dropped ones are removed", func(t *testing.T) {
		token := mint(t, issuer, koretest.Token{
			Claims: map[string]any{"exp": "soon", "b": nil, "a": 1.5}, Drop: []string{"iat", "unknown"},
		})
		_, payload, _ := parts(t, token)
		assert.True(t, strings.HasPrefix(payload, `{"exp":"soon","jti":`), payload)
		assert.True(t, strings.HasSuffix(payload, `"twilio-sid":"koretestSID","a":1.5,"b":null}`), payload)
		verify(t, token, public)
	})
	t.Run("header members do not change how the token is signed", func(t *testing.T) {
		token := mint(t, issuer, koretest.Token{
			Header: map[string]any{"typ": "at+jwt", "crit": []string{"b64"}}, DropHeader: []string{"kid"},
		})
		header, _, _ := parts(t, token)
		assert.Equal(t, `{"alg":"RS256","typ" : "at+jwt","crit" : ["b64"]}`, header)

		token = mint(t, issuer, koretest.Token{Header: map[string]any{"alg": "RS512"}})
		_, err := jws.Verify([]byte(token), jws.WithKey(jwa.RS512, public))
		assert.Error(t, err, "the token is signed with RS256")
	})
	t.Run("raw bytes are signed unchanged", func(t *testing.T) {
		raw := `{"alg":"RS256","alg":"none"}`
		token := mint(t, issuer, koretest.Token{RawHeader: []byte(raw), RawPayload: []byte("\xff{}")})
		header, payload, signature := parts(t, token)
		assert.Equal(t, raw, header)
		assert.Equal(t, "\xff{}", payload)
		digest := sha256.Sum256([]byte(token[:strings.LastIndex(token, ".")]))
		assert.NoError(t, rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature))

		token = mint(t, issuer, koretest.Token{RawPayload: []byte{}})
		assert.Contains(t, token, "..", "an empty RawPayload is used")
	})
	t.Run("a public key can be used as a secret", func(t *testing.T) {
		secret := public.N.Bytes()
		token := mint(t, issuer, koretest.Token{Key: &koretest.Key{ID: issuer.KeyIDs()[0], Algorithm: "HS256", Private: secret}})
		_, _, signature := parts(t, token)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(token[:strings.LastIndex(token, ".")]))
		assert.Equal(t, mac.Sum(nil), signature)
	})
	t.Run("a key without an ID has no kid", func(t *testing.T) {
		token := mint(t, issuer, koretest.Token{Key: &koretest.Key{Algorithm: "RS256", Private: signingKey().Private}})
		assert.NotContains(t, headerOf(t, token), "kid")
	})
	t.Run("Sign makes the signature", func(t *testing.T) {
		var signed string
		token := mint(t, issuer, koretest.Token{
			Sign: func(input []byte) ([]byte, error) { signed = string(input); return []byte("\x01\x02"), nil },
		})
		assert.Equal(t, signed+".AQI", token)

		signature := []byte("\x01\x02")
		token = mint(t, issuer, koretest.Token{BadSignature: true, Sign: func([]byte) ([]byte, error) { return signature, nil }})
		assert.True(t, strings.HasSuffix(token, ".AQM"))
		assert.Equal(t, "\x01\x02", string(signature), "the slice that Sign returned must not change")
		assert.Equal(t, "RS256", headerOf(t, token)["alg"])
	})
	t.Run("a weak key signs", func(t *testing.T) {
		weak, err := rsa.GenerateKey(rand.Reader, 1024)
		require.NoError(t, err)
		token := mint(t, issuer, koretest.Token{Key: &koretest.Key{ID: "weak", Algorithm: "RS256", Private: weak}})
		digest := sha256.Sum256([]byte(token[:strings.LastIndex(token, ".")]))
		_, _, signature := parts(t, token)
		assert.NoError(t, rsa.VerifyPKCS1v15(&weak.PublicKey, crypto.SHA256, digest[:], signature))
	})
	t.Run("a key of another curve signs", func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		require.NoError(t, err)
		token := mint(t, issuer, koretest.Token{Key: &koretest.Key{Algorithm: "ES256", Private: key}})
		digest := sha256.Sum256([]byte(token[:strings.LastIndex(token, ".")]))
		_, _, signature := parts(t, token)
		require.Len(t, signature, 96)
		r, s := new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])
		assert.True(t, ecdsa.Verify(&key.PublicKey, digest[:], r, s))
	})
	t.Run("a negative age is in the future", func(t *testing.T) {
		claims := claimsOf(t, mint(t, issuer, koretest.Token{Age: -koretest.OneDay}))
		assert.InDelta(t, time.Now().Add(koretest.OneDay).Unix(), claims["iat"], 2)
	})
}

func TestIssuer_MintsBoundTokens(t *testing.T) {
	issuer := newIssuer(t)
	validator := newValidator(t, issuer, issuer.HTTPClient())
	require.NoError(t, validator.Ready(t.Context()))
	for _, test := range []struct {
		name  string
		token koretest.Token
		want  any
	}{
		{"certificate", koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: "c"}}, map[string]any{"x5t#S256": "c"}},
		{"key", koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "k"}}, map[string]any{"jkt": "k"}},
		{"certificate and key", koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: "c", KeySHA256: "k"}},
			map[string]any{"x5t#S256": "c", "jkt": "k"}},
		{"neither", koretest.Token{Confirmation: &koreauth.Confirmation{}}, map[string]any{}},
		{"replaced by Claims", koretest.Token{
			Confirmation: &koreauth.Confirmation{KeySHA256: "k"}, Claims: map[string]any{"cnf": map[string]any{"kid": "x"}},
		}, map[string]any{"kid": "x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := mint(t, issuer, test.token)
			verify(t, token, issuer.SigningKey().Public())
			assert.Equal(t, test.want, claimsOf(t, token)["cnf"])
			_, err := validator.Validate(t.Context(), token)
			assert.ErrorIs(t, err, koreauth.ErrBinding)
		})
	}
	t.Run("dropped", func(t *testing.T) {
		token := mint(t, issuer, koretest.Token{Confirmation: &koreauth.Confirmation{KeySHA256: "k"}, Drop: []string{"cnf"}})
		assert.NotContains(t, claimsOf(t, token), "cnf")
	})
	t.Run("not bound", func(t *testing.T) {
		assert.NotContains(t, claimsOf(t, issuer.Valid()), "cnf")
	})
}

func TestIssuer_MintReportsErrors(t *testing.T) {
	issuer := newIssuer(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	broken := errors.New("broken")
	for _, test := range []struct {
		name  string
		token koretest.Token
		want  string
	}{
		{"a client that is not registered", koretest.Token{ClientID: "nobody"}, `client "nobody" is not registered`},
		{"a claim that JSON cannot encode", koretest.Token{Claims: map[string]any{"f": func() {}}}, `member "f"`},
		{"a header member that JSON cannot encode", koretest.Token{Header: map[string]any{"c": make(chan int)}}, `member "c"`},
		{"an unknown algorithm", koretest.Token{Algorithm: "RS1"}, `"RS1"`},
		{"an algorithm of another family", koretest.Token{Algorithm: "ES256"}, "*rsa.PrivateKey cannot sign"},
		{"an algorithm of one letter", koretest.Token{Algorithm: "R"}, `"R"`},
		{"an unknown EdDSA algorithm", koretest.Token{Key: &koretest.Key{Algorithm: "Ed256", Private: edKey}}, `"Ed256"`},
		{"a key without a private half", koretest.Token{Key: &koretest.Key{ID: "x", Algorithm: "RS256"}}, "<nil> cannot sign"},
		{"a signer that fails", koretest.Token{Sign: func([]byte) ([]byte, error) { return nil, broken }}, "broken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := issuer.Mint(test.token)
			assert.Empty(t, token)
			assert.ErrorContains(t, err, test.want)
		})
	}
}
