// Package httpcopy passes a copy of a request to a handler, and gives back to the
// original what the handler's copy got.
package httpcopy

import (
	"context"
	"net/http"
	"strings"
)

// WithContext returns a copy of r with another context.
func WithContext(ctx context.Context, r *http.Request) *http.Request {
	if r.ContentLength < 0 && r.Trailer == nil {
		// net/http sets trailers that were not announced in r, after the handler has
		// read the body: both requests must have the same map.
		r.Trailer = http.Header{}
	}
	return r.WithContext(ctx)
}

// GiveBack copies what the handler's copy of the request got, for net/http, which
// removes the files of a MultipartForm, and for outer middleware.
func GiveBack(r, inner *http.Request) {
	if r.MultipartForm == nil {
		r.MultipartForm = inner.MultipartForm
	}
	if r.Form == nil {
		r.Form, r.PostForm = inner.Form, inner.PostForm
	}
	if inner.Pattern == r.Pattern {
		return
	}
	r.Pattern = inner.Pattern
	for rest := inner.Pattern; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			return
		}
		name, after, _ := strings.Cut(after, "}")
		if name = strings.TrimSuffix(name, "..."); name != "" && name != "$" {
			r.SetPathValue(name, inner.PathValue(name))
		}
		rest = after
	}
}
