package koreauth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testdata/interop holds what Keycloak and node-oidc-provider sent to the tests
// of the module in interop/, which runs these servers. The tests here validate it
// again, without a server, at the time when it was sent: a bubble of
// testing/synctest starts in the year 2000 and sleeps until that time.

// recordedIssuer is a folder of testdata/interop.
type recordedIssuer struct {
	name     string
	url      string // the issuer
	keysURL  string
	document map[string][]byte // file name to JSON
	tokens   []recordedToken
}

// recordedToken is an entry of tokens.json.
type recordedToken struct {
	What     string
	Want     string   // "accepted", or the name of the expected error
	Audience []string // audiences that the API accepts besides api-gw
	Rotated  bool     // signed with a key that is not in keys.json
	Token    string
}

var recordedReasons = map[string]error{
	"ErrAlgorithm":  koreauth.ErrAlgorithm,
	"ErrAudience":   koreauth.ErrAudience,
	"ErrBinding":    koreauth.ErrBinding,
	"ErrMalformed":  koreauth.ErrMalformed,
	"ErrTokenType":  koreauth.ErrTokenType,
	"ErrUnknownKey": koreauth.ErrUnknownKey,
}

func readRecorded(t *testing.T, name string) *recordedIssuer {
	t.Helper()
	issuer := &recordedIssuer{name: name, document: map[string][]byte{}}
	dir := filepath.Join("testdata", "interop", name)
	for _, file := range []string{"discovery.json", "keys.json", "keys-rotated.json", "keys-removed.json", "tokens.json"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		issuer.document[file] = text
	}
	require.NoError(t, json.Unmarshal(issuer.document["tokens.json"], &issuer.tokens))
	var discovery struct {
		Issuer  string
		KeysURL string `json:"jwks_uri"`
	}
	require.NoError(t, json.Unmarshal(issuer.document["discovery.json"], &discovery))
	issuer.url, issuer.keysURL = discovery.Issuer, discovery.KeysURL
	return issuer
}

func eachRecorded(t *testing.T, test func(*testing.T, *recordedIssuer)) {
	for _, name := range []string{"keycloak", "oidc-provider"} {
		t.Run(name, func(t *testing.T) { test(t, readRecorded(t, name)) })
	}
}

// config returns a Config for the issuer with every algorithm that it uses.
func (i *recordedIssuer) config(audience ...string) koreauth.Config {
	return koreauth.Config{
		Issuer:     i.url,
		Audience:   append([]string{"api-gw"}, audience...),
		Algorithms: []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
	}
}

// recordedMembers returns the members of a segment, decoded without koreauth.
func recordedMembers(t *testing.T, token string, segment int) map[string]any {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[segment])
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(text, &members))
	return members
}

func recordedTime(t *testing.T, token, claim string) time.Time {
	t.Helper()
	seconds, ok := recordedMembers(t, token, 1)[claim].(float64)
	require.True(t, ok, claim)
	return time.Unix(int64(seconds), 0)
}

func TestRecorded_Tokens(t *testing.T) {
	eachRecorded(t, func(t *testing.T, issuer *recordedIssuer) {
		require.NotEmpty(t, issuer.tokens)
		sent := recordedTime(t, issuer.tokens[0].Token, "iat").Add(time.Minute)
		for _, recorded := range issuer.tokens {
			t.Run(recorded.What, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(sent))
					document := issuer.document["keys.json"]
					if recorded.Rotated {
						document = issuer.document["keys-rotated.json"]
					}
					keys, err := koreauth.ParseKeys(document)
					require.NoError(t, err)
					config := issuer.config(recorded.Audience...)
					config.Keys = koreauth.StaticKeySet(keys)
					validator, err := koreauth.NewValidator(config)
					require.NoError(t, err)

					claims, err := validator.Validate(t.Context(), recorded.Token)
					if recorded.Want != "accepted" {
						require.Contains(t, recordedReasons, recorded.Want)
						assert.ErrorIs(t, err, recordedReasons[recorded.Want])
						return
					}
					require.NoError(t, err)
					assertRecordedClaims(t, recordedMembers(t, recorded.Token, 1), claims)

					// RFC 7519 §4.1.4: it must not be accepted on or after exp.
					time.Sleep(time.Until(recordedTime(t, recorded.Token, "exp")) - 1)
					_, err = validator.Validate(t.Context(), recorded.Token)
					assert.NoError(t, err, "a nanosecond before exp")
					time.Sleep(time.Nanosecond)
					_, err = validator.Validate(t.Context(), recorded.Token)
					assert.ErrorIs(t, err, koreauth.ErrExpired, "at exp")
				})
			})
		}
	})
}

// assertRecordedClaims compares claims with the payload that encoding/json decoded.
func assertRecordedClaims(t *testing.T, payload map[string]any, claims *koreauth.Claims) {
	t.Helper()
	assert.Equal(t, payload["iss"], claims.Issuer)
	assert.Equal(t, payload["sub"], claims.Subject)
	assert.Equal(t, payload["jti"], claims.ID)
	client := payload["client_id"]
	if client == nil {
		client = payload["azp"]
	}
	assert.Equal(t, client, claims.ClientID)
	if one, ok := payload["aud"].(string); ok {
		assert.Equal(t, []string{one}, claims.Audience)
	} else {
		assert.Equal(t, recordedStrings(payload["aud"]), claims.Audience)
	}
	assert.Equal(t, strings.Fields(payload["scope"].(string)), claims.Scopes)
	assert.EqualValues(t, payload["iat"], claims.IssuedAt.Unix())
	assert.EqualValues(t, payload["exp"], claims.Expiry.Unix())
	assert.Equal(t, payload["account-id"], claims.AccountID)
	assert.Equal(t, payload["client-type"], claims.ClientType)
	assert.Equal(t, payload["client-owner"], claims.ClientOwner)
	assert.Equal(t, recordedStrings(payload["ip-range"]), recordedStrings(claims.IPRanges))
	scopes := payload["scopes"].(map[string]any)
	assert.Equal(t, recordedStrings(scopes["products"]), claims.Products)
	granted, _ := scopes["globalResources"].([]any)
	require.Len(t, claims.Resources, len(granted))
	for i, resource := range granted {
		resource := resource.(map[string]any)
		assert.Equal(t, resource["resourceName"], claims.Resources[i].Name)
		assert.Equal(t, recordedStrings(resource["access"]), recordedStrings(claims.Resources[i].Access))
	}
	var all map[string]any
	require.NoError(t, claims.Decode(&all))
	assert.Equal(t, payload, all)
}

// recordedStrings returns the strings of an array or slice of any type. It never
// returns nil.
func recordedStrings(array any) []string {
	text, _ := json.Marshal(array)
	var all []string
	_ = json.Unmarshal(text, &all)
	return append([]string{}, all...)
}

func TestRecorded_KeyDocuments(t *testing.T) {
	eachRecorded(t, func(t *testing.T, issuer *recordedIssuer) {
		for _, file := range []string{"keys.json", "keys-rotated.json", "keys-removed.json"} {
			var document struct {
				Keys []struct{ Kid, Use, Alg string }
			}
			require.NoError(t, json.Unmarshal(issuer.document[file], &document))
			var want, got []string
			for _, key := range document.Keys {
				if key.Use == "sig" {
					want = append(want, key.Kid+" "+key.Alg)
				}
			}
			keys, err := koreauth.ParseKeys(issuer.document[file])
			require.NoError(t, err)
			for _, key := range keys {
				got = append(got, key.ID+" "+key.Algorithm)
			}
			assert.Equal(t, want, got, file)
		}
	})
}

// recordedServer serves the recorded documents at their URLs.
type recordedServer struct {
	*recordedIssuer
	keys     string // name of the key document to serve
	requests []string
}

func (s *recordedServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.requests = append(s.requests, r.URL.String())
	resp := &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Cache-Control": {"no-cache"}}, Body: http.NoBody, Request: r}
	file, ok := map[string]string{s.url + "/.well-known/openid-configuration": "discovery.json", s.keysURL: s.keys}[r.URL.String()]
	if ok {
		resp.StatusCode = http.StatusOK
		resp.Body = io.NopCloser(bytes.NewReader(s.document[file]))
	}
	return resp, nil
}

// The recorded rotation: the issuer first adds a new key and later removes the
// old one.
func TestRecorded_Rotation(t *testing.T) {
	eachRecorded(t, func(t *testing.T, issuer *recordedIssuer) {
		synctest.Test(t, func(t *testing.T) {
			old := issuer.tokens[0].Token
			rotated := issuer.tokens[len(issuer.tokens)-1]
			require.True(t, rotated.Rotated)
			server := &recordedServer{recordedIssuer: issuer, keys: "keys.json"}
			config := issuer.config()
			config.HTTPClient = &http.Client{Transport: server}
			validator, err := koreauth.NewValidator(config)
			require.NoError(t, err)
			accepts := func(token string) {
				t.Helper()
				_, err := validator.Validate(t.Context(), token)
				assert.NoError(t, err)
			}

			time.Sleep(time.Until(recordedTime(t, old, "iat")))
			accepts(old)
			assert.Equal(t, []string{issuer.url + "/.well-known/openid-configuration", issuer.keysURL}, server.requests)

			server.keys = "keys-rotated.json"
			accepts(rotated.Token) // accepted on its first request
			accepts(old)

			server.keys = "keys-removed.json"
			time.Sleep(16 * time.Minute) // longer than MaxAge
			accepts(rotated.Token)       // starts a refresh in the background
			synctest.Wait()
			accepts(rotated.Token)
			_, err = validator.Validate(t.Context(), old)
			assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
		})
	})
}
