//go:build unix

package main

import (
	"syscall"
	"time"
)

// processorTime returns the processor time of this program. Other programs on the machine do not add to it.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return wallTime()
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
