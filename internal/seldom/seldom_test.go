package seldom_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/seldom"
)

func TestLimit_AllowsOnceInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l, other seldom.Limit
		assert.True(t, l.Allow(time.Minute))
		assert.False(t, l.Allow(time.Minute))
		time.Sleep(time.Minute - 1)
		assert.False(t, l.Allow(time.Minute))
		time.Sleep(time.Nanosecond)
		assert.True(t, l.Allow(time.Minute))
		assert.False(t, l.Allow(time.Minute))
		assert.True(t, other.Allow(time.Minute))
	})
}
