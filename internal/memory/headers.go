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

// Add remembers a header.
func (h *Headers[V]) Add(encoded string, header V) {
	if _, ok := h.Find(encoded); ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	grown := make(map[string]V)
	// When full, start again: a header that was dropped is decoded once more.
	if known := h.known.Load(); known != nil && len(*known) < h.Max {
		maps.Copy(grown, *known)
	}
	grown[strings.Clone(encoded)] = header
	h.known.Store(&grown)
}
