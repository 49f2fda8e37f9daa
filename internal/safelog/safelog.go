// Package safelog calls the Logger of a user from goroutines in which no server recovers:
// a panic there would end the program.
package safelog

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// Log writes a record. It does nothing if the logger is nil, and ignores a panic of it.
func Log(ctx context.Context, logger *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	if logger == nil {
		return
	}
	defer func() { _ = recover() }()
	logger.LogAttrs(ctx, level, message, attrs...)
}

// Warner writes warnings, one at a time: while the Logger has not returned, others are
// left out. Its zero value is ready.
type Warner struct{ busy atomic.Bool }

// Warn writes a warning as Log does.
func (w *Warner) Warn(ctx context.Context, logger *slog.Logger, message string, attrs ...slog.Attr) {
	w.Log(ctx, logger, slog.LevelWarn, message, attrs...)
}

// Log writes a record of another level as Warn does.
func (w *Warner) Log(ctx context.Context, logger *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	if !w.busy.CompareAndSwap(false, true) {
		return
	}
	defer w.busy.Store(false)
	Log(ctx, logger, level, message, attrs...)
}
