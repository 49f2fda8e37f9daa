package iprange

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// list is a list of entries that was read.
type list struct {
	entries []string
	spans   []span
	err     error // of the first entry that cannot be read, which is entries[len(spans)]
}

// span is a range of addresses. Both ends belong to it.
type span struct{ from, to netip.Addr }

func (s span) contains(a netip.Addr) bool {
	return s.from.BitLen() == a.BitLen() && s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0
}

// lists keeps the lists of recent tokens, since a remembered token has the same one
// in every request. A lost list costs time and changes no result.
type lists [256]atomic.Pointer[list]

// maxKept is how many entries a list that is kept may have.
const maxKept = 64

var seed = maphash.MakeSeed()

// read returns the list with these entries, of which there is at least one.
func (l *lists) read(entries []string) *list {
	sum := maphash.String(seed, entries[0]) ^ 3*maphash.String(seed, entries[len(entries)-1])
	slot := &l[sum%uint64(len(l))]
	if known := slot.Load(); known != nil && slices.Equal(known.entries, entries) {
		return known
	}
	read := &list{}
	for _, entry := range entries {
		from, to, err := parse(entry)
		if err != nil {
			read.err = err
			break
		}
		read.spans = append(read.spans, span{from, to})
	}
	if len(entries) <= maxKept {
		for _, entry := range entries {
			read.entries = append(read.entries, strings.Clone(entry)) // without the token, which it is a part of
		}
		slot.Store(read)
	}
	return read
}
