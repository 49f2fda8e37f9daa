//go:build !race

package koreauth_test

const raceDetector = false
