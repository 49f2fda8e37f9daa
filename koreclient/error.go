package koreclient

import (
	"fmt"
	"strings"
	"time"
)

// Error says why there is no token. It has no secret and no token.
type Error struct {
	// Status is the status of the token endpoint. Zero means that it did not answer.
	Status int
	// Code is the "error" of the answer (RFC 6749 §5.2), such as "invalid_client". It is
	// empty if the answer has none.
	Code string
	// Description is the "error_description" of the answer, or what else is known, in
	// at most 256 bytes.
	Description string
	// RetryAfter is the time until the endpoint is asked again. Until then each call
	// returns this error. Zero means at once.
	RetryAfter time.Duration

	cause error // such as context.DeadlineExceeded, or nil
}

// Error returns status, code and description.
func (e *Error) Error() string {
	if e == nil {
		return "koreclient: no token"
	}
	parts := []string{"koreclient: no token"}
	if e.Status != 0 {
		parts = append(parts, fmt.Sprintf("the token endpoint answered %s", strings.TrimSpace(fmt.Sprint(e.Status, " ", e.Code))))
	}
	if e.Description != "" {
		parts = append(parts, e.Description)
	}
	switch {
	case e.badCredentials():
		parts = append(parts, "check ClientID, ClientSecret and Style")
	case e.Code == "invalid_scope":
		parts = append(parts, "check Scope")
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause, for example context.DeadlineExceeded.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// badCredentials reports whether the same credentials would be rejected again.
func (e *Error) badCredentials() bool {
	return e.Code == "invalid_client" || e.Code == "unauthorized_client" || e.Status == 401
}
