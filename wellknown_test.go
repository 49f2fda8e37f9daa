package koreauth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

// wellKnown is an issuer of testdata/wellknown.
type wellKnown struct{ Name, Metadata, JWKS string }

func TestWellKnown_FindsEveryUsableKey(t *testing.T) {
	text, err := os.ReadFile("testdata/wellknown/issuers.json")
	require.NoError(t, err)
	var issuers []wellKnown
	require.NoError(t, json.Unmarshal(text, &issuers))
	require.Len(t, issuers, 19)
	for _, issuer := range issuers {
		var metadata struct {
			Issuer  string
			JWKSURI string `json:"jwks_uri"`
		}
		require.NoError(t, json.Unmarshal([]byte(issuer.Metadata), &metadata))
		want, weak := usableKeys(t, issuer.JWKS)
		require.NotEmpty(t, want, issuer.Name)
		for how, set := range map[string]*koreauth.RemoteKeySet{
			"by URL": {URL: metadata.JWKSURI}, "by discovery": {Issuer: metadata.Issuer},
		} {
			withFakeTime(t, issuer.Name+" "+how, func(t *testing.T, _ *network) {
				var log bytes.Buffer
				set.Logger = slog.New(slog.NewJSONHandler(&log, nil))
				set.HTTPClient = &http.Client{Transport: responder(func(req *http.Request) (*http.Response, error) {
					switch {
					case req.URL.String() == metadata.JWKSURI:
						return reply(200, issuer.JWKS)(req)
					case strings.HasSuffix(req.URL.Path, "/.well-known/openid-configuration"):
						return reply(200, issuer.Metadata)(req)
					}
					return reply(404, "")(req)
				})}
				all, err := set.Keys(t.Context(), "", true)
				require.NoError(t, err)
				require.Len(t, all, len(want))
				for i, jwk := range want {
					assert.Equal(t, jwk.Kid, all[i].ID)
					assert.Equal(t, jwk.Alg, all[i].Algorithm)
					switch public := all[i].Public.(type) {
					case *rsa.PublicKey:
						assert.Equal(t, jwk.number(t, jwk.N), public.N)
						assert.Equal(t, jwk.number(t, jwk.E), big.NewInt(int64(public.E)))
					case *ecdsa.PublicKey:
						point, err := public.Bytes()
						require.NoError(t, err)
						assert.Equal(t, append(jwk.number(t, jwk.X).Bytes(), jwk.number(t, jwk.Y).Bytes()...), point[1:])
					default:
						t.Errorf("a %T", public)
					}
					found, err := set.Keys(t.Context(), jwk.Kid, true)
					require.NoError(t, err)
					assert.Contains(t, found, all[i])
				}
				synctest.Wait()
				for _, kid := range weak {
					assert.Contains(t, log.String(), `key \"`+kid+`\": an RSA key must have 2048 bits`)
				}
				assert.Equal(t, min(1, len(weak)), strings.Count(log.String(), "\n"), "warnings: %s", log.String())
			})
		}
	}
}

// RoundTrip makes a responder a transport.
func (r responder) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

type publishedKey struct {
	Kty, Crv, Kid, Use, Alg, N, E, X, Y string
}

func (k *publishedKey) number(t *testing.T, text string) *big.Int {
	t.Helper()
	// Battle.net publishes the alphabet of RFC 4648 §4.
	decoded, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(text))
	require.NoError(t, err)
	return new(big.Int).SetBytes(decoded)
}

// usableKeys returns the keys of a document that can verify signatures, in order, and
// the IDs of RSA keys under 2048 bits. It uses encoding/json alone.
func usableKeys(t *testing.T, document string) (usable []publishedKey, weak []string) {
	t.Helper()
	var set struct{ Keys []publishedKey }
	require.NoError(t, json.Unmarshal([]byte(document), &set))
	for _, key := range set.Keys {
		if key.Use == "enc" || key.Kty == "OKP" { // Their only OKP key is for X25519.
			continue
		}
		if key.Kty == "RSA" && key.number(t, key.N).BitLen() < 2048 { // of Yahoo
			weak = append(weak, key.Kid)
			continue
		}
		usable = append(usable, key)
	}
	return usable, weak
}
