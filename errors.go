package koreauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/redact"
)

// The classes of errors. Each rejected request has an error of one of them, which
// errors.Is finds. Only the class determines the response to the client.
var (
	// ErrNoToken means that the request has no bearer token (RFC 6750 §3.1).
	ErrNoToken = errors.New("koreauth: no token")

	// ErrBadRequest means that the request has more than one token, or one whose
	// syntax is not that of a bearer token (RFC 6750 §2, §3.1 "invalid_request").
	ErrBadRequest = errors.New("koreauth: bad request")

	// ErrInvalidToken means that the token is not valid. One of the reasons below
	// says why (RFC 6750 §3.1 "invalid_token").
	ErrInvalidToken = errors.New("koreauth: invalid token")

	// ErrInsufficientScope means that the token is valid and does not meet a
	// [Requirement] (RFC 6750 §3.1 "insufficient_scope").
	ErrInsufficientScope = errors.New("koreauth: insufficient scope")

	// ErrForbidden means that the token is valid and sufficient, and that the
	// request is not allowed for another reason, such as its address or an account
	// that is not the client's. Another token of the client would not help, so the
	// response has no challenge (RFC 9110 §15.5.4).
	ErrForbidden = errors.New("koreauth: forbidden")

	// ErrUnavailable means that the token could not be checked, because the keys of
	// the issuer could not be fetched or the context of the request is done. The
	// token may be valid: the client should retry with it (RFC 9110 §15.6.4).
	ErrUnavailable = errors.New("koreauth: temporarily unavailable")
)

// The reasons for [ErrInvalidToken]. Each wraps it. Reasons are for logs and
// counters, not for the client.
var (
	ErrMalformed   = reason("malformed")              // not a compact JWS of strict base64url and JSON, or over 16 KiB (RFC 7515 §5.2)
	ErrAlgorithm   = reason("algorithm not accepted") // "alg" is missing or not in Config.Algorithms (RFC 8725 §3.1)
	ErrSignature   = reason("bad signature")          // no key with this "kid" verifies the signature (RFC 7515 §5.2)
	ErrUnknownKey  = reason("unknown key")            // the issuer has no key for this "kid" and "alg" (RFC 7515 §4.1.4)
	ErrIssuer      = reason("wrong issuer")           // "iss" is not Config.Issuer (RFC 8725 §3.8)
	ErrAudience    = reason("wrong audience")         // "aud" has none of Config.Audience (RFC 8725 §3.9)
	ErrExpired     = reason("expired")                // "exp" is in the past, missing or not a number (RFC 7519 §4.1.4)
	ErrNotYetValid = reason("not yet valid")          // "nbf" is in the future or not a number (RFC 7519 §4.1.5)
	ErrTooOld      = reason("too old")                // "iat" is over Config.MaxAge ago, in the future, or missing (RFC 7519 §4.1.6)
	ErrTokenType   = reason("not an access token")    // "typ" is that of another token, such as an ID token (RFC 8725 §3.11)
	ErrClient      = reason("client not accepted")    // the client is not in Config.ClientIDs (RFC 9068 §2.2)
	ErrBinding     = reason("sender not confirmed")   // the token is bound to a key ("cnf") that was not confirmed (RFC 7800 §3)
	ErrRevoked     = reason("revoked")                // a Requirement found that the token was revoked (RFC 7009)
)

func reason(text string) error { return fmt.Errorf("%w: %s", ErrInvalidToken, text) }

var classes = []error{ErrNoToken, ErrBadRequest, ErrInvalidToken, ErrInsufficientScope, ErrForbidden, ErrUnavailable}

var reasons = []error{
	ErrMalformed, ErrAlgorithm, ErrSignature, ErrUnknownKey, ErrIssuer, ErrAudience, ErrExpired,
	ErrNotYetValid, ErrTooOld, ErrTokenType, ErrClient, ErrBinding, ErrRevoked,
}

// errAbsent is the ErrNoToken of a request without a token. WrapOptional lets a
// request through for this error only, not for an ErrNoToken that a
// TokenValidator returns.
var errAbsent = fmt.Errorf("%w", ErrNoToken)

// Error says why a request was rejected. Its text is for operators, and contains no
// claim of the token. An [ErrorFormat] makes the response to the client.
type Error struct {
	// Class is one of the classes. If Class is nil, ErrUnavailable is used.
	Class error
	// Reason says why. For ErrInvalidToken it is or wraps one of the reasons;
	// for the other classes it is the cause, or nil.
	Reason error
	// Required lists what a failed requirement requires: scopes, grants in the form
	// "resource:access", and names of products.
	Required []string
	// RetryAfter is the time until the keys may be fetched again, for
	// ErrUnavailable. Zero means unknown.
	RetryAfter time.Duration
	// KeyID, Issuer and ClientID are those of the token, if they could be read.
	// Unless the signature was verified, an attacker may have written them.
	KeyID, Issuer, ClientID string

	verified bool // the signature was verified
	about    described
}

// described is what a rejection is about. It adds attributes for the log: what was
// expected and what was found. prefix and found depend on whether the signature was
// verified.
type described interface {
	describe(attrs *redact.Attrs, reason error, prefix string, found func(string) string)
}

// Error returns the class, the reason and what was required.
func (e *Error) Error() string {
	if e == nil {
		return ErrUnavailable.Error()
	}
	text := ErrUnavailable.Error()
	switch {
	case e.Reason != nil && (e.Class == nil || errors.Is(e.Reason, e.Class)):
		text = e.Reason.Error()
	case e.Reason != nil:
		text = e.Class.Error() + ": " + e.Reason.Error()
	case e.Class != nil:
		text = e.Class.Error()
	}
	if len(e.Required) > 0 {
		text += ": requires " + strings.Join(e.Required, " ")
	}
	return text
}

// GoString returns the text, so that %#v shows no value of a token and no e-mail address.
func (e Error) GoString() string { return redact.Text(e.Error()) }

// MarshalJSON writes the same text, as a string.
func (e Error) MarshalJSON() ([]byte, error) { return json.Marshal(e.GoString()) }

// Unwrap returns Class and Reason, so that errors.Is finds either.
func (e *Error) Unwrap() []error {
	if e == nil {
		return []error{ErrUnavailable}
	}
	return slices.DeleteFunc([]error{e.Class, e.Reason}, func(err error) bool { return err == nil })
}

// classOf returns the class of err, or nil if it has none.
func classOf(err error) error {
	if err == errAbsent { // the most frequent one, found without a search
		return ErrNoToken
	}
	// An *Error has the class of its field, whatever its Reason wraps.
	e, _ := errors.AsType[*Error](err)
	if e != nil && slices.Contains(classes, e.Class) {
		return e.Class
	}
	for _, class := range classes {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

// asRefusal returns a copy of err as an Error. An error of no class becomes
// ErrUnavailable, so that no failure of a user's TokenValidator accepts a token.
func asRefusal(err error) *Error {
	if err == errAbsent { // as in classOf
		return &Error{Class: ErrNoToken, Reason: err}
	}
	refusal := &Error{}
	direct, ok := err.(*Error)
	if found, _ := errors.AsType[*Error](err); found != nil {
		*refusal = *found
	}
	class := classOf(err)
	if !ok && err != nil || direct != nil && direct.Class != class {
		refusal.Reason = err // Keep what wraps the *Error, or an error that is not one.
	}
	if refusal.Class = class; class == nil {
		refusal.Class = ErrUnavailable
	}
	return refusal
}

// unavailable is the rejection of a token that could not be checked.
func unavailable(cause error, retryAfter time.Duration) *Error {
	return &Error{Class: ErrUnavailable, Reason: fmt.Errorf("%w: %w", ErrUnavailable, cause), RetryAfter: retryAfter}
}

// ErrorFormat makes the response to a rejected request. The error is an [*Error]:
// use errors.Is to find its class. The formats of this package handle nil and
// errors of no class as [ErrUnavailable]. A status outside 400-599 is sent as
// 500. An ErrorFormat cannot set headers: WWW-Authenticate depends on the class
// alone. It must be safe for concurrent use by multiple goroutines.
type ErrorFormat func(r *http.Request, err error) (status int, contentType string, body []byte)

// answer is the response for a class, in KORE's format and in the others.
type answer struct {
	koreStatus  int
	koreBody    string
	status      int    // RFC 6750 §3.1
	code        string // RFC 6750 §3.1, or a similar code if it has none
	description string
}

const (
	koreUnauthorized = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	koreForbidden    = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	koreScope        = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
	koreDenied       = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}`
	koreUnavailable  = `{"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}`
)

func answerTo(err error) answer {
	switch classOf(err) {
	case ErrNoToken:
		return answer{401, koreUnauthorized, 401, "unauthorized", "The request has no access token"}
	case ErrBadRequest:
		return answer{401, koreUnauthorized, 400, "invalid_request", "The request must carry one access token"}
	case ErrInvalidToken:
		return answer{403, koreForbidden, 401, "invalid_token", "The access token is expired, revoked, malformed or not for this API"}
	case ErrInsufficientScope:
		return answer{403, koreScope, 403, "insufficient_scope", "The access token does not grant what the request needs"}
	case ErrForbidden:
		return answer{403, koreDenied, 403, "access_denied", "The request is not allowed"}
	}
	return answer{503, koreUnavailable, 503, "temporarily_unavailable", "The access token cannot be checked now; retry later"}
}

// KOREErrors responds with the statuses and JSON bodies documented for KORE's API
// gateway: 401 if the request has no usable token, 403 if the token is invalid or
// not sufficient or the request is forbidden, and 503 if the token could not be
// checked.
func KOREErrors(_ *http.Request, err error) (status int, contentType string, body []byte) {
	a := answerTo(err)
	return a.koreStatus, "application/json", []byte(a.koreBody)
}

// RFC6750Errors responds with the statuses and error codes of RFC 6750 §3.1, as
// application/json: {"error":…,"error_description":…}. It adds a "scope" member
// if a requirement was not met.
func RFC6750Errors(_ *http.Request, err error) (status int, contentType string, body []byte) {
	a := answerTo(err)
	body = mustJSON(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Scope       string `json:"scope,omitempty"`
	}{a.code, a.description, scopeParam(asRefusal(err))})
	return a.status, "application/json", body
}

// ProblemErrors responds with the statuses of RFC 6750 §3.1 and a problem document
// (RFC 9457), whose "error" member is the error code of RFC 6750.
func ProblemErrors(_ *http.Request, err error) (status int, contentType string, body []byte) {
	a := answerTo(err)
	body = mustJSON(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Error  string `json:"error"`
	}{"about:blank", http.StatusText(a.status), a.status, a.code})
	return a.status, "application/problem+json", body
}

// mustJSON encodes a struct of strings and numbers, which cannot fail.
func mustJSON(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("koreauth: " + err.Error())
	}
	return body
}

// challengeCode returns the "error" parameter of the challenge of a class. It
// returns false if a response of that class has no challenge, because another token
// would not help. A request without a token gets no error code (RFC 6750 §3.1).
func challengeCode(class error) (code string, ok bool) {
	switch class {
	case ErrNoToken:
		return "", true
	case ErrForbidden, ErrUnavailable:
		return "", false
	}
	return answerTo(class).code, true
}

// scopeParam returns what was required in the form of the "scope" parameter (RFC
// 6750 §3): separated by spaces, in characters that need no escape in quotes.
func scopeParam(refusal *Error) string {
	if refusal.Class != ErrInsufficientScope || len(refusal.Required) == 0 {
		return ""
	}
	escaped := make([]string, len(refusal.Required))
	for i, name := range refusal.Required {
		escaped[i] = url.PathEscape(name)
	}
	return strings.Join(escaped, " ")
}
