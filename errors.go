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
)

// The classes of refusal. Every refusal is one of them by errors.Is; the class
// alone decides what the client is told.
var (
	// ErrNoToken means that the request carries no bearer token (RFC 6750 §3.1).
	ErrNoToken = errors.New("koreauth: no token")
	// ErrBadRequest means that the request carries more than one token, or one that is
	// not a token at all (RFC 6750 §2, §3.1 "invalid_request").
	ErrBadRequest = errors.New("koreauth: bad request")
	// ErrInvalidToken means that the token was judged and is not good; one of the
	// reasons below says why (RFC 6750 §3.1 "invalid_token").
	ErrInvalidToken = errors.New("koreauth: invalid token")
	// ErrInsufficientScope means that the token is good, and a [Requirement] was not met
	// (RFC 6750 §3.1 "insufficient_scope").
	ErrInsufficientScope = errors.New("koreauth: insufficient scope")
	// ErrUnavailable means that the token could not be judged, because the issuer's keys
	// cannot be had or the request's context is done. It says nothing against
	// the token; the client may try the same one again.
	ErrUnavailable = errors.New("koreauth: temporarily unavailable")
)

// The reasons for [ErrInvalidToken], which each of them wraps: count them, log
// them, but do not tell the client.
var (
	// ErrMalformed means that it is not a compact JWS of strict base64url and strict JSON, or
	// larger than 16 KiB (RFC 7515 §5.2, RFC 7519 §7.2).
	ErrMalformed = fmt.Errorf("%w: malformed", ErrInvalidToken)
	// ErrAlgorithm means that "alg" is missing or not in Config.Algorithms (RFC 8725 §3.1).
	ErrAlgorithm = fmt.Errorf("%w: algorithm not accepted", ErrInvalidToken)
	// ErrSignature means that the key did not make this signature.
	ErrSignature = fmt.Errorf("%w: bad signature", ErrInvalidToken)
	// ErrUnknownKey means that the issuer publishes no key that fits "kid" and "alg".
	ErrUnknownKey = fmt.Errorf("%w: unknown key", ErrInvalidToken)
	// ErrExpired means that "exp" has come, or is missing or no number (RFC 7519 §4.1.4).
	ErrExpired = fmt.Errorf("%w: expired", ErrInvalidToken)
	// ErrNotYetValid means that "nbf" is still to come, or no number (RFC 7519 §4.1.5).
	ErrNotYetValid = fmt.Errorf("%w: not yet valid", ErrInvalidToken)
	// ErrTooOld means that under Config.MaxAge "iat" is too long ago, in the future,
	// missing or no number.
	ErrTooOld = fmt.Errorf("%w: too old", ErrInvalidToken)
	// ErrIssuer means that "iss" is not Config.Issuer (RFC 8725 §3.8).
	ErrIssuer = fmt.Errorf("%w: wrong issuer", ErrInvalidToken)
	// ErrAudience means that "aud" names none of Config.Audience (RFC 8725 §3.9).
	ErrAudience = fmt.Errorf("%w: wrong audience", ErrInvalidToken)
	// ErrTokenType means that it is not an access token, such as Keycloak's ID and refresh
	// tokens (RFC 8725 §3.11).
	ErrTokenType = fmt.Errorf("%w: not an access token", ErrInvalidToken)
	// ErrClient means that the client is not in Config.ClientIDs.
	ErrClient = fmt.Errorf("%w: client not accepted", ErrInvalidToken)
	// ErrBinding means that the token is bound to a key of its sender ("cnf", RFC 7800),
	// which nothing here can confirm.
	ErrBinding = fmt.Errorf("%w: sender not confirmed", ErrInvalidToken)
)

var classes = []error{ErrNoToken, ErrBadRequest, ErrInvalidToken, ErrInsufficientScope, ErrUnavailable}

var reasons = []error{
	ErrMalformed, ErrAlgorithm, ErrSignature, ErrUnknownKey, ErrExpired, ErrNotYetValid,
	ErrTooOld, ErrIssuer, ErrAudience, ErrTokenType, ErrClient, ErrBinding,
}

// Error is a refusal. Its text is for the operator and holds nothing that the
// token says; what the client reads is made by an [ErrorFormat].
type Error struct {
	// Class is one of the five classes; nil counts as ErrUnavailable.
	Class error
	// Reason is why: under ErrInvalidToken one of the reasons, else the cause.
	// It may wrap more, and may be nil.
	Reason error
	// Required names what a failed requirement asked for: scopes as they are,
	// a grant as "resource:access", a product by its name.
	Required []string
	// RetryAfter is how long, under ErrUnavailable, no other answer can come.
	// Zero means not known.
	RetryAfter time.Duration
	// KeyID, Issuer and ClientID are what the token says of itself, as far as
	// it was read. Unless the signature held they are anybody's text.
	KeyID, Issuer, ClientID string

	verified bool // the signature held
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

// Unwrap returns Class and Reason, so that errors.Is finds either.
func (e *Error) Unwrap() []error {
	if e == nil {
		return []error{ErrUnavailable}
	}
	return slices.DeleteFunc([]error{e.Class, e.Reason}, func(err error) bool { return err == nil })
}

// classOf returns the class of err, or nil if it has none.
func classOf(err error) error {
	if err == errAbsent { // most often, and cheap to tell
		return ErrNoToken
	}
	// A refusal has the class that it says, whatever its cause wraps.
	e, ok := err.(*Error)
	if (ok || errors.As(err, &e)) && e != nil && slices.Contains(classes, e.Class) {
		return e.Class
	}
	for _, class := range classes {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

// asRefusal returns err as an Error that is the caller's own. What has no class
// could not be judged: a user's own validator may fail in any way, never into an
// accept.
func asRefusal(err error) *Error {
	refusal := &Error{}
	direct, ok := err.(*Error)
	if found := direct; found != nil || errors.As(err, &found) && found != nil {
		*refusal = *found
	}
	class := classOf(err)
	if !ok && err != nil || direct != nil && direct.Class != class {
		refusal.Reason = err // Something was wrapped round it, or it is not ours.
	}
	if refusal.Class = class; class == nil {
		refusal.Class = ErrUnavailable
	}
	return refusal
}

// unavailable is the refusal of a token that could not be judged.
func unavailable(cause error, retryAfter time.Duration) *Error {
	return &Error{Class: ErrUnavailable, Reason: fmt.Errorf("%w: %w", ErrUnavailable, cause), RetryAfter: retryAfter}
}

// ErrorFormat makes the answer to a refusal. The error is an [*Error], so that
// errors.Is finds its class; those here take an error of no class, or nil, for
// [ErrUnavailable]. A status outside 400-599 is sent as 500. Headers
// are not its business: the challenge follows the class.
type ErrorFormat func(err error) (status int, contentType string, body []byte)

// answer is what a client is told of a class, in either dialect.
type answer struct {
	koreStatus  int
	koreBody    string
	status      int    // RFC 6750 §3.1
	code        string // likewise, or the nearest there is
	description string
}

const (
	koreUnauthorized = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	koreForbidden    = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	koreScope        = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
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
	}
	return answer{503, koreUnavailable, 503, "temporarily_unavailable", "The access token cannot be judged now; try it again"}
}

// KOREErrors answers as KORE's documentation says that its gateway does: 401
// without a usable request, 403 for a token that is not good or does not suffice, and 503
// in an outage, as application/json.
func KOREErrors(err error) (status int, contentType string, body []byte) {
	a := answerTo(err)
	return a.koreStatus, "application/json", []byte(a.koreBody)
}

// RFC6750Errors answers with the statuses and error codes of RFC 6750 §3.1, as
// application/json: {"error":…,"error_description":…}, and "scope" where that
// is what is missing.
func RFC6750Errors(err error) (status int, contentType string, body []byte) {
	a := answerTo(err)
	body = mustJSON(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Scope       string `json:"scope,omitempty"`
	}{a.code, a.description, scopeParam(asRefusal(err))})
	return a.status, "application/json", body
}

// ProblemErrors answers with the statuses of RFC 6750 §3.1 and a problem
// document of RFC 9457, whose "error" member is the code of RFC 6750.
func ProblemErrors(err error) (status int, contentType string, body []byte) {
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

// errorCode is the "error" parameter of a class's challenge; none where RFC 6750
// §3.1 wants none: a request without a token, and no challenge at all in an
// outage.
func errorCode(class error) string {
	if class == ErrNoToken || class == ErrUnavailable {
		return ""
	}
	return answerTo(class).code
}

// scopeParam lists what was required as RFC 6750 §3 wants it: separated by
// spaces, in characters that need no escape within quotes.
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
