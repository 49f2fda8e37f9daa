package koreauth

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/koreauth/koreauth/internal/challenge"
	"github.com/koreauth/koreauth/internal/token68"
)

// Options configures a [Middleware]. The zero value of each field selects the
// default.
type Options struct {
	// Realm is the protection space in WWW-Authenticate (RFC 9110 §11.5), in
	// printable ASCII. If Realm is empty, "api" is used.
	Realm string
	// Errors makes the responses to rejected requests. If Errors is nil,
	// [KOREErrors] is used.
	Errors ErrorFormat
	// Sources are the places where the token may be. If Sources is empty, only the
	// Authorization header is read; otherwise list Header("Authorization") to read it
	// too.
	Sources []Source
	// Sender confirms that the sender of the request has each key that
	// [Claims].Confirmation names, for example by a client certificate. It is
	// checked once per request and token, before Require, and for unbound tokens
	// too, so that it can require a binding. An inner guard with an equal Sender
	// does not check it again; functions are never equal. If Sender is nil, bound
	// tokens are rejected with [ErrBinding].
	Sender Requirement
	// Require lists requirements for every request. They are checked once per request
	// and token, after Sender and before the requirements of the route. The
	// requirements get the shared claims, and must not change them.
	Require []Requirement
	// ResourceMetadata is the URL of the API's protected resource metadata. Each
	// challenge has it as "resource_metadata" (RFC 9728 §5.1). If ResourceMetadata is
	// empty, challenges omit it.
	ResourceMetadata string
	// Observe is called once per request and guard, after the decision and before
	// the handler or the response, for metrics and traces. It is not called by
	// [Middleware.Authenticate] and [Middleware.Refuse]. If Observe is nil,
	// nothing is called.
	Observe func(*http.Request, Outcome)
	// Logger gets one record for each rejected request, with the context of the
	// request. No record contains a token, a secret claim or an e-mail address. If
	// Logger is nil, nothing is logged.
	Logger *slog.Logger
}

// Outcome is the decision of a guard about a request.
type Outcome struct {
	// Claims are those of the accepted token. They are shared: do not change them.
	// Nil means that the request was rejected or had no token.
	Claims *Claims
	// Refusal is the rejection, or nil if the request was accepted.
	Refusal *Error
	// Remembered reports that the token was accepted without verifying its
	// signature again: it was in the memory of the Validator, or an outer guard had
	// validated it. It is false for rejected requests.
	Remembered bool
	// Start is the time at which the guard started. Took is the duration of its checks.
	Start time.Time
	Took  time.Duration
}

// Middleware guards handlers. Create one with [New]. The zero Middleware rejects
// every request, and its Wrap methods panic. A Middleware can guard many routes
// and is safe for concurrent use by multiple goroutines.
//
// An inner guard recognizes by the context and the token that an outer guard has
// accepted the request. Do not give the context of a request to another request
// that a guard must check.
type Middleware struct {
	validate   func(*http.Request, string) (claims *Claims, remembered bool, refusal *Error)
	challenges map[error]string // the WWW-Authenticate value of each class, without scope and metadata
	metadata   string           // the resource_metadata parameter, or ""
	format     ErrorFormat
	sources    []Source // nil: the Authorization header
	identity   *identity
	sender     *allOf // Options.Sender alone; nil: none
	require    *allOf // nil: nothing
	observe    func(*http.Request, Outcome)
	logger     *slog.Logger
}

// New returns a middleware that validates tokens with validator. A nil *Options
// selects all defaults. New panics on programmer error: a nil validator, a nil
// Source or Requirement, a realm that is not printable ASCII, or a
// ResourceMetadata that is not an absolute http or https URL.
func New(validator TokenValidator, options *Options) *Middleware {
	if options == nil {
		options = &Options{}
	}
	if slices.ContainsFunc(options.Sources, func(s Source) bool { return s == nil }) {
		panic("koreauth: New: a Source is nil")
	}
	m := &Middleware{
		identity: &identity{options.Sender},
		format:   options.Errors,
		observe:  options.Observe,
		logger:   options.Logger,
	}
	policy := rejectBound
	if options.Sender != nil {
		policy = leaveBound
		m.sender = &allOf{group{nonNil("Options.Sender", []Requirement{options.Sender})}}
	}
	m.validate = validateFunc(validator, policy)
	if m.format == nil {
		m.format = KOREErrors
	}
	if len(options.Sources) > 0 {
		m.sources = slices.Clone(options.Sources)
	}
	if len(options.Require) > 0 {
		m.require = &allOf{group{nonNil("Options.Require", options.Require)}}
	}
	realm := cmp.Or(options.Realm, "api")
	if strings.ContainsFunc(realm, func(c rune) bool { return c < ' ' || c > '~' }) {
		panic("koreauth: New: the realm has characters other than printable ASCII, which cannot be quoted in a header (RFC 9110 §5.6.4)")
	}
	m.challenges = challengesFor(realm)
	if options.ResourceMetadata != "" {
		u, err := url.Parse(options.ResourceMetadata)
		if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsFunc(options.ResourceMetadata, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
			panic("koreauth: New: ResourceMetadata is not an absolute URL, such as https://api.example.com/.well-known/oauth-protected-resource (RFC 9728 §3)")
		}
		m.metadata = `, resource_metadata="` + options.ResourceMetadata + `"`
	}
	return m
}

// validateFunc returns the function with which a Middleware validates tokens. For
// a *Validator it avoids copying the claims, which FromContext copies anyway.
func validateFunc(validator TokenValidator, policy binding) func(*http.Request, string) (*Claims, bool, *Error) {
	validate := sharedValidate(validator)
	if validate == nil {
		panic("koreauth: New needs a TokenValidator; this one is nil")
	}
	if v, ok := validator.(*Validator); ok {
		return func(r *http.Request, token string) (*Claims, bool, *Error) {
			claims, remembered, refusal := v.validate(r.Context(), r, token, policy)
			// A token in base64url is a token68, so only malformed ones are checked.
			if refusal != nil && errors.Is(refusal.Reason, ErrMalformed) && !token68.Valid(token) {
				refusal = asRefusal(errNotToken68)
			}
			return claims, remembered, refusal
		}
	}
	return func(r *http.Request, token string) (*Claims, bool, *Error) {
		switch {
		case !token68.Valid(token):
			return nil, false, asRefusal(errNotToken68)
		case len(token) > maxToken:
			return nil, false, newRefusal(errTooLarge)
		}
		claims, err := validate(r.Context(), token)
		if err == nil && claims == nil {
			err = unavailable(errNoClaims, 0)
		}
		if err != nil {
			return nil, false, asRefusal(err)
		}
		if err := checkBinding(claims, policy); err != nil {
			return nil, false, annotate(newRefusal(err), claims, nil)
		}
		return claims, false, nil
	}
}

// challengesFor returns the WWW-Authenticate value of each class that has one.
func challengesFor(realm string) map[error]string {
	challenge := `Bearer realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `"`
	challenges := make(map[error]string)
	for _, class := range classes {
		code, ok := challengeCode(class)
		if ok && code != "" {
			challenges[class] = challenge + `, error="` + code + `"`
		} else if ok {
			challenges[class] = challenge
		}
	}
	return challenges
}

// Wrap returns a handler that calls next only for requests with a valid token,
// whose claims [FromContext] returns. It can be used with Router.Use of
// gorilla/mux. It panics if next is nil.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return m.guard(next, nil, tokenRequired)
}

// WrapOptional is like Wrap, but also calls next for requests without a token.
// FromContext then has no claims, not even those of an outer guard. A token that
// is present must be valid. It panics if next is nil.
func (m *Middleware) WrapOptional(next http.Handler) http.Handler {
	return m.guard(next, nil, tokenOptional)
}

// Require is like Wrap, but calls next only if the token meets all of the
// requirements. It authenticates too, so a route needs only one of the two; inside
// a Wrap of the same Middleware nothing is verified twice. Require panics if there
// is no requirement, or if one is nil. The function that it returns panics if its
// handler is nil.
func (m *Middleware) Require(requirements ...Requirement) func(http.Handler) http.Handler {
	all := &allOf{group{nonNil("Require", requirements)}}
	return func(next http.Handler) http.Handler { return m.guard(next, all, tokenRequired) }
}

// Authenticate checks a request as Wrap does, for routers and servers where a
// handler cannot be wrapped. It returns the claims, which belong to the caller, or
// the rejection, an [*Error] for [Middleware.Refuse]. A [Source] that reads the
// body restores it in r.
//
// Unlike Wrap it sets no header. If the token may come from a place other than
// Authorization, respond with Cache-Control: private (RFC 6750 §2.3).
func (m *Middleware) Authenticate(r *http.Request) (*Claims, error) {
	found := m.authenticate(r)
	if found.refusal != nil {
		return nil, found.refusal
	}
	return found.claims.clone(), nil
}

// Refuse responds to a request as Wrap does when it rejects one: status and body by
// the [ErrorFormat], a challenge, headers that prevent caching, and a log record. An
// error of no class, or nil, is handled as [ErrUnavailable].
func (m *Middleware) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	refusal := asRefusal(err)
	var token string
	if m.validate != nil && refusal.Class != ErrNoToken && refusal.Class != ErrBadRequest {
		token, _, _ = m.token(r) // If the token cannot be read now, no error text has it.
	}
	accepted := refusal.Class == ErrInsufficientScope || refusal.Class == ErrForbidden
	if a := authenticatedBy(r.Context()); accepted && a != nil && a.by == m.identity && a.token == token && a.claims != nil {
		refusal = annotate(refusal, a.claims, nil) // The handler rejects a request that the guard accepted.
	}
	m.refuse(w, r, refusal, token)
}

// refuse responds and logs. The token is needed to keep it out of the log.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, refusal *Error, token string) {
	if m.validate == nil { // The zero Middleware must not panic on a request.
		m = &Middleware{format: KOREErrors, challenges: challengesFor("api")}
	}
	logRefusal(r, m.logger, refusal, token)
	header := w.Header()
	if len(header) > 0 {
		// Remove headers that an outer handler set for a response that is not sent.
		// Content-Encoding stays, because a compressing writer is still active.
		for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Retry-After"} {
			delete(header, name)
		}
	}
	if refusal.Class == ErrUnavailable {
		// RFC 9110 §10.2.3: whole seconds.
		seconds := int64(refusal.RetryAfter / time.Second)
		if refusal.RetryAfter%time.Second > 0 {
			seconds++
		}
		header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds), 10)}
	}
	// RFC 9110 §11.6.1: a response of any status may have a challenge, so it depends
	// on the class (RFC 6750 §3), not on the status.
	if bearer := m.challenges[refusal.Class]; bearer == "" {
		delete(header, "Www-Authenticate")
	} else {
		if scope := scopeParam(refusal); scope != "" {
			bearer += `, scope="` + scope + `"`
		}
		// The API may accept other schemes too, whose challenges an outer handler set.
		header["Www-Authenticate"] = append(challenge.Without(header["Www-Authenticate"], "Bearer"), bearer+m.metadata)
	}
	status, contentType, body := m.format(r, refusal)
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError // A rejection must not look like a success.
	}
	values := []string{contentType, "no-store", "nosniff"} // one allocation for three headers
	header["Content-Type"], header["Cache-Control"], header["X-Content-Type-Options"] = values[:1:1], values[1:2:2], values[2:]
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // It fails if the client is gone, which is not worth a report.
	}
}

// tokenPolicy says what a guard does with a request that has no token.
type tokenPolicy int

const (
	tokenRequired tokenPolicy = iota
	tokenOptional
)

func (m *Middleware) guard(next http.Handler, required *allOf, policy tokenPolicy) http.Handler {
	if m.validate == nil {
		panic("koreauth: " + errZeroMiddleware.Error())
	}
	if f, ok := next.(http.HandlerFunc); next == nil || ok && f == nil {
		panic("koreauth: the handler to guard is nil")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var start time.Time
		if m.observe != nil {
			start = time.Now()
		}
		found := m.authenticate(r)
		if policy == tokenOptional && found.refusal != nil && found.refusal.Reason == errAbsent && found.token == "" {
			found = result{authenticated: &authenticated{by: m.identity, outer: authenticatedBy(r.Context())}}
		}
		if found.refusal == nil && required != nil {
			found.refusal = found.meets(r, required)
		}
		if m.observe != nil {
			m.observe(r, found.outcome(start))
		}
		if found.refusal != nil {
			m.refuse(w, r, found.refusal, found.token)
			return
		}
		if found.private {
			challenge.KeepPrivate(w.Header())
		}
		found.serve(next, w, r)
	})
}

// token returns the one token of the request, without checking its syntax, and
// whether it came from a place other than the Authorization header, so that the
// response must be private (RFC 6750 §2.3).
func (m *Middleware) token(r *http.Request) (token string, private bool, err error) {
	if m.sources == nil {
		token, err = bearerToken(r.Header)
	} else if token, err = oneToken(r, m.sources); err == nil {
		standard, _ := bearerToken(r.Header)
		private = token != standard
	}
	if err == nil && token == "" {
		err = errAbsent
	}
	return token, private, err
}

// result is what authenticate found out about a request.
type result struct {
	*authenticated        // nil if refusal is set
	token          string // of the request, also of a rejected one
	private        bool   // the response must not be stored by shared caches
	remembered     bool   // as in Outcome
	refusal        *Error // nil: the request is accepted
}

// meets returns the rejection if the token does not meet the requirements of a route.
func (found *result) meets(r *http.Request, required *allOf) *Error {
	if err := required.Check(r, found.claims); err != nil {
		return annotate(asRefusal(err), found.claims, nil)
	}
	return nil
}

// outcome returns what the observer gets.
func (found *result) outcome(start time.Time) Outcome {
	if found.refusal != nil {
		return Outcome{Refusal: found.refusal, Start: start, Took: time.Since(start)}
	}
	return Outcome{Claims: found.claims, Remembered: found.remembered, Start: start, Took: time.Since(start)}
}

// authenticate checks everything but the requirements of a route. It does not check
// a token again that this Middleware has checked for the same request.
func (m *Middleware) authenticate(r *http.Request) (found result) {
	if m.validate == nil {
		return result{refusal: unavailable(errZeroMiddleware, 0)}
	}
	token, private, err := m.token(r)
	if err != nil {
		return result{refusal: asRefusal(err)}
	}
	found = result{token: token, private: private}
	outer := authenticatedBy(r.Context())
	if same := outer.find(func(a *authenticated) bool { return a.by == m.identity && a.token == token }); same != nil {
		found.authenticated, found.remembered = same, true
		if same != outer {
			found.authenticated = &authenticated{by: m.identity, token: token, claims: same.claims, outer: outer}
		}
		return found
	}
	claims, remembered, refusal := m.validate(r, token)
	if refusal == nil {
		refusal = m.checkRequest(r, token, claims, outer)
	}
	if refusal != nil {
		found.refusal = refusal
		return found
	}
	found.remembered = remembered
	found.authenticated = &authenticated{by: m.identity, token: token, claims: claims, outer: outer}
	return found
}

// checkRequest checks Sender, unless an outer guard has checked an equal one, and then
// Options.Require.
func (m *Middleware) checkRequest(r *http.Request, token string, claims *Claims, outer *authenticated) *Error {
	var err error
	confirmed := func(a *authenticated) bool {
		return a.by != nil && a.token == token && sameSender(a.by.sender, m.identity.sender) && sameConfirmation(a.claims, claims)
	}
	if m.sender != nil && outer.find(confirmed) == nil {
		err = m.sender.check(r, claims, claims)
	}
	if err == nil && m.require != nil {
		err = m.require.check(r, claims, claims)
	}
	if err == nil {
		return nil
	}
	return annotate(asRefusal(err), claims, nil)
}

var errZeroMiddleware = errors.New("the Middleware was not created with New")
