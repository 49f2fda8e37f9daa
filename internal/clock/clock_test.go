package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/clock"
)

// clock.Suspend is for the whole program, so these tests must not be parallel.

func TestInstant_AgeIsTheLargerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		instant := clock.Now()
		assert.Zero(t, instant.Age())
		time.Sleep(time.Minute)
		assert.Equal(t, time.Minute, instant.Age(), "both clocks")
		undo := clock.Suspend(time.Hour)
		assert.Equal(t, time.Hour+time.Minute, instant.Age(), "the wall clock is ahead")
		undo()
		assert.Equal(t, time.Minute, instant.Age())
		undo = clock.Suspend(-time.Hour)
		assert.Equal(t, time.Minute, instant.Age(), "the wall clock was set back")
		later := clock.Now()
		undo()
		assert.Equal(t, time.Hour, later.Age(), "the wall clock was set forward again")
	})
}

func TestInstant_Zero(t *testing.T) {
	assert.Greater(t, clock.Instant{}.Age(), 200*365*24*time.Hour)
	assert.True(t, clock.Instant{}.Wall().IsZero())
}

func TestInstant_Wall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer clock.Suspend(time.Hour)()
		assert.True(t, clock.Now().Wall().Equal(time.Now().Add(time.Hour)))
	})
}

func TestInstant_OfALaterMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		instant := clock.Now()
		time.Sleep(time.Minute + 7)
		later := clock.Now()
		time.Sleep(time.Hour)
		assert.Equal(t, time.Minute+7, instant.AgeAt(later), "the hour after it does not count")
		assert.Equal(t, 7, later.Wall().Nanosecond())
		undo := clock.Suspend(time.Hour)
		defer undo()
		assert.True(t, clock.Now().Time().Equal(time.Now()), "Time is what time.Now returns")
	})
}
