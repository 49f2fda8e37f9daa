//go:build !unix

package main

import "time"

// processorTime returns the wall time, because the processor time is not available here without a library.
func processorTime() time.Duration { return wallTime() }
