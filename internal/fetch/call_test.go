package fetch_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/fetch"
)

func TestEnded_IsOver(t *testing.T) {
	done := make(chan error, 1)
	go func() { done <- fetch.Ended.Wait(t.Context()) }()
	assert.NoError(t, <-done)
}

func TestCall_IsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call, over := fetch.NewCall(fetch.NoKeys, false), false
		go func() { _ = call.Wait(t.Context()); over = true }()
		synctest.Wait()
		assert.False(t, over)
		call.End(nil)
		synctest.Wait()
		assert.True(t, over)
	})
}
