package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun_ShowsBothTokenEndpoints(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	for _, want := range []string{
		"/api-services/v1/auth/token", "/oauth/v2/token", "hello, kc_demo", "calls: 3, tokens fetched: 1", "401 unauthorized_client",
	} {
		assert.Contains(t, out.String(), want)
	}
}
