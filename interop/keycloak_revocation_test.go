package interop_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/revocation"
	kc "github.com/koreauth/koreauth/revocation/keycloak"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// admittingClient sets the admin URL of the client api-gw until the test ends, and
// returns the path of the client in the admin API.
func admittingClient(t *testing.T, adminURL string) (path string) {
	t.Helper()
	var found []map[string]any
	admin(t, "GET", "/admin/realms/KORE-CIDP/clients?clientId=api-gw", nil, &found)
	require.Len(t, found, 1)
	path = "/admin/realms/KORE-CIDP/clients/" + found[0]["id"].(string)
	set := func(url string) {
		found[0]["adminUrl"], found[0]["notBefore"] = url, 0
		admin(t, "PUT", path, found[0], nil)
	}
	set(adminURL)
	t.Cleanup(func() { set("") })
	return path
}

// pushes is a receiver of pushes that keeps the bodies and the statuses.
type pushes struct {
	next http.Handler

	mu       sync.Mutex // guards the fields below
	bodies   []string
	statuses []int
}

func (p *pushes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	recorder := httptest.NewRecorder()
	p.next.ServeHTTP(recorder, r)
	p.mu.Lock()
	p.bodies, p.statuses = append(p.bodies, string(body)), append(p.statuses, recorder.Code)
	p.mu.Unlock()
	w.WriteHeader(recorder.Code)
}

// last returns the last push and how it was answered.
func (p *pushes) last(t *testing.T) (body string, status int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.NotEmpty(t, p.bodies, "Keycloak has pushed nothing")
	return p.bodies[len(p.bodies)-1], p.statuses[len(p.statuses)-1]
}

// Keycloak revokes all tokens of the realm, and pushes that to an API with a List. An
// API without a List accepts the tokens: see README.md.
func TestKeycloak_NotBeforePolicy(t *testing.T) {
	store, list := revocation.Memory(), new(revocation.List)
	ctx, stop := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_ = list.Follow(ctx, store)
	}()
	t.Cleanup(func() { stop(); <-followed })
	config := keycloakConfig(t)
	config.Require = []koreauth.Requirement{list}
	a, without := newAPI(t, config), newAPI(t, keycloakConfig(t))

	received := &pushes{next: kc.PushNotBefore(store, kc.Config{Issuer: realm(t, "KORE-CIDP"), ClientID: "api-gw"})}
	mux := http.NewServeMux()
	mux.Handle("POST /k_push_not_before", received)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client := admittingClient(t, server.URL)
	t.Cleanup(func() { admin(t, "PUT", "/admin/realms/KORE-CIDP", map[string]any{"notBefore": 0}, nil) })

	// push sets the not-before of the realm, and pushes it.
	push := func(notBefore int64) {
		t.Helper()
		admin(t, "PUT", "/admin/realms/KORE-CIDP", map[string]any{"notBefore": notBefore}, nil)
		var result struct{ SuccessRequests, FailedRequests []string }
		admin(t, "POST", "/admin/realms/KORE-CIDP/push-revocation", nil, &result)
		assert.Equal(t, []string{server.URL}, result.SuccessRequests)
		assert.Empty(t, result.FailedRequests)
	}
	// revoked waits until the API rejects the token.
	revoked := func(token string) {
		t.Helper()
		eventually(t, "the list has the rule", func() bool {
			_, err := a.Validate(t.Context(), token)
			return err != nil
		})
		a.rejects(t, token, koreauth.ErrRevoked)
		without.accepts(t, token)
	}

	token := credentials(t, "kc_admin")
	issued := a.accepts(t, token).IssuedAt
	require.True(t, introspect(t, token))

	// Keycloak accepts the tokens of the second of the not-before, and so does the API.
	push(issued.Unix())
	assert.True(t, introspect(t, token))
	a.accepts(t, token)
	body, status := received.last(t)
	assert.Equal(t, http.StatusNoContent, status)
	header, payload := decode(t, body)
	assert.Equal(t, "JWT", header["typ"])
	assert.Len(t, payload, 5, "%v", payload)
	assert.NotContains(t, payload, "iss")

	push(issued.Unix() + 1)
	assert.False(t, introspect(t, token), "Keycloak itself has revoked the token")
	revoked(token)

	// A push is no token, and a token is no push.
	body, _ = received.last(t)
	_, err := without.Validate(t.Context(), body)
	assert.ErrorIs(t, err, koreauth.ErrInvalidToken)
	resp, err := http.Post(server.URL+"/k_push_not_before", "text/plain", bytes.NewReader([]byte(token)))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)

	var fresh string
	eventually(t, "Keycloak issues a token that is valid", func() bool {
		fresh = credentials(t, "kc_admin")
		return introspect(t, fresh)
	})
	issued = a.accepts(t, fresh).IssuedAt
	a.rejects(t, token, koreauth.ErrRevoked)

	// The policy of a client is pushed in the same form.
	admin(t, "PUT", client, map[string]any{"clientId": "api-gw", "adminUrl": server.URL, "notBefore": issued.Unix() + 1}, nil)
	admin(t, "POST", client+"/push-revocation", nil, nil)
	_, status = received.last(t)
	assert.Equal(t, http.StatusNoContent, status)
	revoked(fresh)

	// An administrator removes the policies. The rules stay until they are lifted.
	admin(t, "PUT", client, map[string]any{"clientId": "api-gw", "adminUrl": server.URL, "notBefore": 0}, nil)
	before := list.Status().Seq
	push(0)
	_, status = received.last(t)
	assert.Equal(t, http.StatusNoContent, status)
	assert.Equal(t, before, list.Status().Seq)
	a.rejects(t, token, koreauth.ErrRevoked)
	_, err = store.Append(t.Context(), revocation.Rule{Issuer: realm(t, "KORE-CIDP"), Everything: true, Lift: true})
	require.NoError(t, err)
	eventually(t, "the API accepts the token again", func() bool {
		_, err := a.Validate(t.Context(), fresh)
		return err == nil
	})
	a.accepts(t, token)
}
