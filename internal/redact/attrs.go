package redact

import (
	"log/slog"
	"time"
)

// Attrs are the attributes of a log record.
type Attrs []slog.Attr

// Add adds a text, unless it is empty.
func (a *Attrs) Add(name, value string) {
	if value != "" {
		*a = append(*a, slog.String(name, value))
	}
}

// Between adds the time between two moments in whole seconds, unless one is zero.
func (a *Attrs) Between(name string, from, to time.Time) {
	if !from.IsZero() && !to.IsZero() {
		*a = append(*a, slog.Duration(name, to.Sub(from).Round(time.Second)))
	}
}
