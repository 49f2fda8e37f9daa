package koreredis_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The handler tells how many replicas have all rules, and what it does not know while
// Redis is down.
func TestRevocations_Handler(t *testing.T) {
	s := startRedis(t, "--appendonly", "yes")
	store := koreredis.Revocations(s.client(), "handler")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 2 {
		go func() { _ = new(revocation.List).Follow(ctx, koreredis.Revocations(s.client(), "handler")) }()
	}
	handler := revocation.Handler(store, new(revocation.List))
	do := func(method, target, body string) (int, string) {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r = r.WithContext(koreauth.NewContext(r.Context(), &koreauth.Claims{ClientID: "kc_operator"}))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for i, body := range []string{`{"issuer":"i","token":"t"}`, `{"issuer":"i","client":"c"}`, `{"issuer":"i","everything":true}`} {
		status, answer := do("POST", "/", body)
		require.Equal(t, http.StatusCreated, status, answer)
		assert.True(t, strings.HasPrefix(answer, `{"seq":`+string(rune('1'+i))+`,`), answer)
	}
	status, answer := do("DELETE", "/", `{"issuer":"i","everything":true}`)
	require.Equal(t, http.StatusCreated, status, answer)

	status, answer = do("GET", "/?after=1&limit=2", "")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, answer, `"client":"c"`)
	assert.NotContains(t, answer, `"token":"t"`)
	assert.Contains(t, answer, `"next":3,`)
	_, answer = do("GET", "/?after=1000", "")
	assert.True(t, strings.HasPrefix(answer, `{"rules":[],"next":1000,`), answer)
	require.Eventually(t, func() bool {
		_, answer = do("GET", "/?after=3", "")
		return strings.Contains(answer, `"lift":true`) && strings.HasSuffix(answer, `,"next":4,"replicas":{"known":2,"current":2}}`)
	}, 10*time.Second, 50*time.Millisecond)

	s.stop()
	for _, method := range []string{"POST", "DELETE", "GET"} {
		began := time.Now()
		status, answer := do(method, "/", `{"issuer":"i","token":"t"}`)
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.NotContains(t, answer, "127.0.0.1")
		assert.Less(t, time.Since(began), 7*time.Second)
	}
	s.start()
	require.Eventually(t, func() bool { status, _ = do("GET", "/", ""); return status == http.StatusOK }, 10*time.Second, 100*time.Millisecond)
}
