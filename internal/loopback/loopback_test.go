package loopback_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/loopback"
)

func TestIs(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "127.": false, "127.evil.example": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
		"128.0.0.1": false, "10.0.0.1": false, "0.0.0.0": false, "::": false, "::2": false, "127.1": false,
	} {
		assert.Equal(t, want, loopback.Is(host), host)
	}
}
