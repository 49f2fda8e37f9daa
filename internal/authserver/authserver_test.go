package authserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/authserver"
)

func TestRedact_HidesEachFormOfASecret(t *testing.T) {
	const client, secret = "my client", "a+b c"
	form, basic := "a%2Bb+c", base64.StdEncoding.EncodeToString([]byte("my+client:a%2Bb+c"))
	for name, text := range map[string]string{"as it is": secret, "in a form": form, "in HTTP Basic": basic} {
		cleaned := authserver.Redact("refused: <"+text+">", authserver.Forms(client, secret)...)
		assert.Equal(t, "refused: <[redacted]>", cleaned, name)
	}
	assert.Equal(t, "a [redacted]", authserver.Redact("a x", authserver.Forms(client, "x")...), "a short secret")
	assert.Empty(t, authserver.Forms(client, ""))
	assert.Equal(t, "refused", authserver.Redact("refused", ""), "no secret")
}

func TestContextError(t *testing.T) {
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		assert.Equal(t, known, authserver.ContextError(fmt.Errorf("POST: %w", known)))
	}
	assert.NoError(t, authserver.ContextError(errors.New("refused")))
	assert.NoError(t, authserver.ContextError(nil))
}

// Only an issuer that says 4xx has its metadata at the other place (RFC 8414 §5).
func TestDiscover_SecondPlace(t *testing.T) {
	for status, want := range map[int]bool{204: false, 302: false, 400: true, 404: true, 499: true, 500: false, 503: false} {
		asked := false
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/.well-known/oauth-authorization-server/realms/one" {
				asked = true
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		_, last, err := authserver.Discover(t.Context(), authserver.Client(server.Client()), server.URL+"/realms/one", "token_endpoint", "TokenURL")
		server.Close()
		assert.ErrorContains(t, err, "set Config.TokenURL", status)
		assert.Equal(t, status, last.Status)
		assert.Equal(t, want, asked, status)
	}
}
