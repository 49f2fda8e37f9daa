//go:build !unix

package revocation_test

var platformFaults []faultyFile
