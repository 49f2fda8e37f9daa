package interop_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/proxy"
)

// Middleware that believes any client about its address does not make the client a
// trusted proxy.
func TestRouters_MiddlewareThatRewritesRemoteAddr(t *testing.T) {
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	require.NoError(t, err)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address, ok := behind.Client(r)
		fmt.Fprint(w, address, " ", ok, " ", behind.Trusts(r))
	})
	for name, rewriting := range map[string]func(http.Handler) http.Handler{"chi": middleware.RealIP, "gorilla": handlers.ProxyHeaders} {
		for _, pretended := range []string{"10.0.0.9", "10.0.0.9:80", "[::ffff:10.0.0.9]:80"} {
			server := httptest.NewUnstartedServer(rewriting(answer))
			server.Config.ConnContext = proxy.ConnContext
			server.Start()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			for _, header := range []string{"X-Real-IP", "True-Client-IP", "X-Forwarded-For"} {
				req.Header.Set(header, pretended)
			}
			req.Header.Set("Forwarded", "for="+pretended)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			server.Close()
			require.NoError(t, err)
			assert.Equal(t, "127.0.0.1 true false", string(body), "%s, %s", name, pretended)
		}
	}
}
