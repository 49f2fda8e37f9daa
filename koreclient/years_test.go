package koreclient_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestClient_TwoYears uses a client every 14 minutes for two years. Tokens live for an
// hour, the clock of the issuer differs, and once a week the endpoint is down for 30
// minutes.
func TestClient_TwoYears(t *testing.T) {
	weeks := 2 * 365 / 7
	if testing.Short() {
		weeks = 10
	}
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		t.Run(fmt.Sprintf("the issuer is %v ahead", ahead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const lifetime, outage = time.Hour, 30 * time.Minute
				start := time.Now()
				down := func() bool { return time.Since(start)%(7*24*time.Hour) < outage && time.Since(start) > outage }
				issued := make(map[string]time.Time)
				s := &server{}
				s.set(func(req *http.Request) (*http.Response, error) {
					if down() {
						return nil, errors.New("connection refused")
					}
					iat := time.Now().Add(ahead).Unix()
					claims := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":"%d"}`, iat, iat+int64(lifetime/time.Second), len(issued))
					token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
					issued[token] = time.Now()
					return reply(200, fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, token))(req)
				})
				c := newClient(t, s)
				calls, failed := 0, 0
				for time.Since(start) < time.Duration(weeks)*7*24*time.Hour {
					token, err := c.Token(t.Context())
					synctest.Wait()
					if calls++; down() && err != nil {
						failed++
					} else {
						require.NoError(t, err, "after %v", time.Since(start))
						require.Less(t, time.Since(issued[token.Value]), lifetime, "after %v", time.Since(start))
					}
					time.Sleep(14 * time.Minute)
				}
				assert.InDelta(t, calls/4, len(issued), float64(calls/40), "tokens: one for four calls")
				assert.LessOrEqual(t, failed, 3*weeks, "calls without a token")
				assert.LessOrEqual(t, s.count()-len(issued), 4*weeks, "requests during outages")
			})
		})
	}
}
