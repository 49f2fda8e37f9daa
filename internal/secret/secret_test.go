package secret_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/secret"
)

// expression is what Like matches, in one expression.
var expression = regexp.MustCompile(`@|%40|eyJ[\w-]{4,}|\be(?:yAi|wo|w0K|wk)[\w-]{6,}|[\w-]{10,}\.[\w-]{10,}\.[\w-]{20,}`)

func TestLike(t *testing.T) {
	pieces := []string{
		"eyJ", "eyAi", "ewo", "ew0K", "ewk", "e", ".", ".", ".", "aaaaaaaaaa", "bbbbbbbbb", "0123456789", "ccccccccccccccccccc",
		"-", "_", "@", "%40", "%", "`", "{", "[", "/", " ", "\n", "é", "\xff", "X", "Z",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		var text strings.Builder
		for range random.IntN(9) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		if !assert.Equal(t, expression.MatchString(text.String()), secret.Like(text.String()), "%q", text.String()) {
			return
		}
	}
}

func TestLike_SegmentsAreAdjacent(t *testing.T) {
	first, second, third := strings.Repeat("a", 10), strings.Repeat("b", 10), strings.Repeat("c", 20)
	assert.True(t, secret.Like("x "+first+"."+second+"."+third+" x"))
	for _, text := range []string{
		first + "." + second + ". " + third, first + "." + second + " ." + third, first + ". " + second + "." + third,
		first + " ." + second + "." + third, first + ".." + second + "." + third, first + "." + second + third,
	} {
		assert.False(t, secret.Like(text), text)
	}
}
