package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/examples/internal/demo"
)

// TestMain is also the main function of the processes of the API, which run this
// program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		os.Exit(serve(context.Background(), os.Args[1:], os.Stdout))
	}
	os.Exit(m.Run())
}

func TestRun_ShowsTour(t *testing.T) {
	var out bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-once"}, &out), &out)
	text := out.String()
	assert.NotContains(t, text, "WRONG")
	for _, shown := range []string{
		"< hello, kc_customer\n", `{"tokens":1,"clients":["kc_customer"]}`, "< HTTP/1.1 201 Created", "API 1 answers 403", "API 2 answers 403",
		`"replicas":{"known":1,"current":1}`, `"lift":true`, "kind=token seq=1", "kind=client seq=3", `reason="leaked secret" by=kc_operator`, "starts again",
	} {
		assert.Contains(t, text, shown)
	}
	whole := regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)
	assert.NotRegexp(t, whole, text, "no token is printed")
}

// The tour fails if a process does not get the rules.
func TestRun_FailsOnWrongAnswers(t *testing.T) {
	var out bytes.Buffer
	tour := &tour{Tour: demo.Tour{Out: &out}}
	server, err := demo.Serve("127.0.0.1:0", nil) // it answers 404
	require.NoError(t, err)
	defer server.Close()
	tour.apis = [2]*process{{url: server.URL}, {url: server.URL}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tour.within(ctx, "both reject the token", "any", 403)
	assert.Equal(t, 2, strings.Count(out.String(), "WRONG"))
	assert.EqualError(t, tour.Wrong(), "wrong responses: both reject the token; both reject the token")
}

func TestRun_ReportsInvalidFlags(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	var out bytes.Buffer
	assert.Equal(t, 1, run(t.Context(), []string{"-once", "-addr", taken.Addr().String()}, &out))
	assert.Contains(t, out.String(), "address already in use")
	assert.Contains(t, out.String(), "API 1 does not start")
	assert.Equal(t, 2, run(t.Context(), []string{"-nonsense"}, &out))
	assert.Equal(t, 2, serve(t.Context(), []string{"serve"}, &out))
}
