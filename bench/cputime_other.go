//go:build !unix

package main

import "time"

// processorTime is not to be had here without a library, so it is the time that passes.
func processorTime() time.Duration { return wallTime() }
