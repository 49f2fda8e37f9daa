package revocation

import (
	"os"
	"time"
)

// Faults are called in place of calls to the disk, if they are set.
type Faults struct {
	Write      func(f *os.File, text []byte) (int, error)
	Sync       func(f *os.File) error
	Truncate   func(f *os.File, size int64) error
	Rename     func(from, to string) error
	SyncFolder func(path string) error
}

// FileWithFaults is File with a disk that fails.
func FileWithFaults(path string, faults *Faults) Store {
	s := File(path).(*file)
	real := s.w.disk
	s.w.disk = disk{
		write: func(f *os.File, text []byte) (int, error) {
			if faults.Write != nil {
				return faults.Write(f, text)
			}
			return real.write(f, text)
		},
		sync: func(f *os.File) error {
			if faults.Sync != nil {
				return faults.Sync(f)
			}
			return real.sync(f)
		},
		truncate: func(f *os.File, size int64) error {
			if faults.Truncate != nil {
				return faults.Truncate(f, size)
			}
			return real.truncate(f, size)
		},
		rename: func(from, to string) error {
			if faults.Rename != nil {
				return faults.Rename(from, to)
			}
			return real.rename(from, to)
		},
		syncFolder: func(path string) error {
			if faults.SyncFolder != nil {
				return faults.SyncFolder(path)
			}
			return real.syncFolder(path)
		},
	}
	return s
}

// Needed returns the receipts that compaction keeps at a time.
func Needed(receipts []Receipt, now time.Time) []Receipt {
	var lines []summary
	for i, r := range receipts {
		lines = append(lines, summarizeReceipt(r, i))
	}
	keep, _ := needed(lines, nanoseconds(now))
	var kept []Receipt
	for i, r := range receipts {
		if keep == nil || keep[i] {
			kept = append(kept, r)
		}
	}
	return kept
}

// FormatLine returns the line of a receipt in a file.
func FormatLine(r Receipt) ([]byte, error) {
	text, _, err := formatLine(r)
	return text, err
}
