// Package faults has no code but its test, which puts a guard in front of every
// way in which an issuer's key endpoint can fail, and writes down what clients
// get: docs/reports/faults.md. It runs on real net/http, over connections in memory and
// on the fake time of testing/synctest, so that an outage of a day takes no time
// and every figure but those of memory comes out the same each time.
//
//	go test ./internal/trials/faults           # the stored table is still true
//	go test ./internal/trials/faults -update   # writes it
package faults
