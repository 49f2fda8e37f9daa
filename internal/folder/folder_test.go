package folder_test

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/folder"
)

func TestSync(t *testing.T) {
	assert.NoError(t, folder.Sync(t.TempDir()))
	if runtime.GOOS != "windows" {
		assert.Error(t, folder.Sync(filepath.Join(t.TempDir(), "nothing")))
	}
}
