package fetch

import "context"

// Call is a fetch that several callers may wait for.
type Call struct {
	// Why is the reason of the caller that began it.
	Why Reason
	// Awaited says that callers whose keys are older than two MaxAge wait for it too.
	Awaited bool
	// Err is the result. It is valid after Wait has returned nil.
	Err error

	done chan struct{} // closed when the fetch has ended
}

// NewCall returns a Call that has not ended.
func NewCall(why Reason, awaited bool) *Call {
	return &Call{Why: why, Awaited: awaited, done: make(chan struct{})}
}

// Ended stands for a fetch that ended after the caller looked at the keys. The caller
// must look again.
var Ended = func() *Call {
	c := NewCall(NoKeys, true)
	c.End(nil)
	return c
}()

// End sets the result and wakes the callers.
func (c *Call) End(err error) {
	c.Err = err
	close(c.done)
}

// Wait returns when the fetch has ended, or with an error when ctx is done.
func (c *Call) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
