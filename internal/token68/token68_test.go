package token68_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/token68"
)

const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

// Each byte is tried at each place of texts that are shorter and longer than what
// Valid reads at once.
func TestValid_FindsEachByteAtEachPlace(t *testing.T) {
	for _, length := range []int{1, 2, 15, 16, 17, 31, 32, 33, 50} {
		for place := range length {
			for c := range 256 {
				text := []byte(strings.Repeat("a", length))
				text[place] = byte(c)
				want := strings.IndexByte(allowed, byte(c)) >= 0 || c == '=' && place == length-1 && length > 1
				if token68.Valid(string(text)) != want {
					t.Errorf("byte %#02x at %d of %d: got %t, want %t", c, place, length, !want, want)
				}
			}
		}
	}
}

func TestValid_Padding(t *testing.T) {
	for text, want := range map[string]bool{"": false, "=": false, "===": false, "a=": true, "a==": true, "a===": true, "a=b": false, "=a": false} {
		assert.Equal(t, want, token68.Valid(text), "%q", text)
	}
}
