package limit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/limit"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := limit.Rate{Interval: time.Second, Burst: 3}
		take := func() (n int) {
			for range 10 {
				if r.Take() {
					n++
				}
			}
			return n
		}
		assert.Equal(t, 3, take())
		time.Sleep(time.Second)
		assert.Equal(t, 1, take())
		time.Sleep(2 * time.Second)
		assert.Equal(t, 2, take())
		time.Sleep(time.Hour)
		assert.Equal(t, 3, take(), "a quiet time saves no more than a burst")
	})
}

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := limit.Recent[string, int]{Max: 2}
		has := func(key string, want int, ok bool) {
			t.Helper()
			value, found := r.Find(key)
			assert.Equal(t, ok, found, key)
			assert.Equal(t, want, value, key)
		}
		has("a", 0, false)
		r.Forget("a")
		r.Add("a", 1, time.Minute)
		r.Add("b", 2, time.Minute)
		r.Add("a", 3, time.Minute)
		has("a", 3, true)
		r.Add("c", 4, time.Minute)
		has("a", 0, false)
		has("b", 2, true)
		has("c", 4, true)
		r.Forget("b")
		has("b", 0, false)
		r.Add("b", 5, 2*time.Minute)
		has("b", 5, true)
		time.Sleep(time.Minute)
		has("c", 0, false)
		has("b", 5, true)
		for n := range 1000 {
			r.Add(string(rune('d'+n)), n, time.Minute)
		}
		assert.Equal(t, 2, r.Len())
		has(string(rune('d'+998)), 998, true)
		has(string(rune('d'+999)), 999, true)
	})
}
