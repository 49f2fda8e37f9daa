package memory

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// Headers remembers the headers of valid tokens by their encoded bytes, since an
// issuer sends the same few again and again.
type Headers[V any] struct {
	// Max is how many headers are remembered.
	Max int

	known atomic.Pointer[map[string]V] // immutable; replaced to change it
	mu    sync.Mutex                   // guards replacing it
}

// Find returns the header with that encoding.
func (h *Headers[V]) Find(encoded string) (header V, ok bool) {
	if known := h.known.Load(); known != nil {
		header, ok = (*known)[encoded]
	}
	return header, ok
}

// maxEncoded is the length of an encoded header that is remembered. Most have 100 bytes.
const maxEncoded = 1 << 10

// Add remembers a header, unless it is long. If there are Max, any other is dropped: it
// is decoded once more.
func (h *Headers[V]) Add(encoded string, header V) {
	if _, ok := h.Find(encoded); ok || len(encoded) > maxEncoded {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	grown := make(map[string]V)
	if known := h.known.Load(); known != nil {
		maps.Copy(grown, *known)
	}
	for other := range grown { // in random order
		if len(grown) < h.Max {
			break
		}
		delete(grown, other)
	}
	grown[strings.Clone(encoded)] = header
	h.known.Store(&grown)
}
