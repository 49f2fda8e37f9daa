package revocation

import (
	"context"
	"log/slog"
)

// loggerKey is the key of the Logger in a context.
type loggerKey struct{}

// withLogger returns a context for the methods of a store, with the Logger of the list
// that calls them. A store of this package reports to it what is no error.
func withLogger(ctx context.Context, logger *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, logger)
}

// loggerOf returns the Logger in a context, or nil if there is none.
func loggerOf(ctx context.Context) *slog.Logger {
	logger, _ := ctx.Value(loggerKey{}).(*slog.Logger)
	return logger
}
