//go:build race

package tenants_test

const raceDetector = true
