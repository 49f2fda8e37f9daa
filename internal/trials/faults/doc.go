// Package faults contains only a test. It makes an issuer's key endpoint fail in
// many ways and records what clients of a guarded API get, in
// docs/reports/faults.md.
//
// The test uses real net/http, with connections in memory and the simulated time
// of testing/synctest. So an outage of a day takes no time, and all figures but
// those of memory are the same in every run.
//
//	go test ./internal/trials/faults           # compares the results with the report
//	go test ./internal/trials/faults -update   # writes the report
package faults
