package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/examples/internal/demo"
)

func TestRun_ShowsTour(t *testing.T) {
	var out bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-once"}, &out, newAPI), out.String())
	text := out.String()
	assert.NotContains(t, text, "WRONG")
	for _, shown := range []string{
		"> POST /api-services/v1/auth/token",
		`"account":"CO1700000000koretest"`,
		`"resources":[{"Name":"API Clients","Access":["Read","Write"]}]`,
		"< HTTP/1.1 200 OK", "< HTTP/1.1 401 Unauthorized", "< HTTP/1.1 403 Forbidden", "< HTTP/1.1 503 Service Unavailable",
		"  < " + demo.Unauthorized + "\n", "  < " + demo.Forbidden + "\n", "  < " + demo.NoGrant + "\n", "  < " + demo.Unavailable + "\n",
		"reason=malformed", "reason=expired", `required=API%20Clients:Delete`,
		"new key", "The issuer is down", "< no response", "Requests to the introspection endpoint: 1\n",
	} {
		assert.Contains(t, text, shown)
	}
}

func TestRun_PrintsNoSecrets(t *testing.T) {
	var out bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-once"}, &out, newAPI))
	whole := regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "  < ") { // response bodies are printed unchanged
			assert.NotRegexp(t, whole, line)
		}
		if _, secret, sent := strings.Cut(line, "client_secret="); sent {
			assert.Equal(t, "…\n", secret)
		}
	}
}

func TestRun_FailsOnWrongResponse(t *testing.T) {
	for _, test := range []struct {
		name string
		api  http.HandlerFunc
		want string
	}{
		{"an API that accepts every request", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"account":"CO1700000000koretest","id":"42","r":"API Clients"}`)
		}, "WRONG: got 200, want 401"},
		{"an API that rejects every request", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, demo.Forbidden)
		}, "WRONG: got 403, want 200"},
		{"an API that aborts every request", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "WRONG: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			status := run(t.Context(), []string{"-once"}, &out, func(string, credentials, *slog.Logger) (http.Handler, error) { return test.api, nil })
			assert.Equal(t, 1, status)
			assert.Contains(t, out.String(), test.want)
			assert.Contains(t, out.String(), "wrong responses: ")
		})
	}
}

// The body of a rejection must be the one that KORE documents.
func TestRun_FailsOnWrongBody(t *testing.T) {
	var out bytes.Buffer
	status := run(t.Context(), []string{"-once"}, &out, func(issuer string, own credentials, logger *slog.Logger) (http.Handler, error) {
		api, err := newAPI(issuer, own, logger)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			api.ServeHTTP(w, r)
			if r.Header.Get("Authorization") == "" {
				_, _ = io.WriteString(w, " ")
			}
		}), err
	})
	assert.Equal(t, 1, status)
	assert.Contains(t, out.String(), "wrong responses: 4. No token\n")
}

func TestRun_ReportsInvalidFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	var out bytes.Buffer
	assert.Equal(t, 1, run(t.Context(), []string{"-once", "-addr", taken.Addr().String()}, &out, newAPI))
	assert.Contains(t, out.String(), "address already in use")

	assert.Equal(t, 2, run(t.Context(), []string{"-nonsense"}, &out, newAPI))
}
