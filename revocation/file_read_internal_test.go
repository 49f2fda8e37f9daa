package revocation

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A file that is emptied or cut while it is read is not taken for the file of another
// program.
func TestPosition_FileThatBecomesShorter(t *testing.T) {
	header := string(newHeader())
	for length := range len(header) {
		var p position
		_, err := p.read(context.Background(), strings.NewReader(header[:length]), 1000, func(*line) error { return nil })
		assert.NoError(t, err, "%d bytes", length)
		assert.Zero(t, p, "%d bytes", length)
	}
}
