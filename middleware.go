package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options are the ways in which a [Middleware] may differ. The zero value of
// each field is the usual choice.
type Options struct {
	// Realm is the protection space that challenges name (RFC 9110 §11.5), in
	// printable ASCII. Empty: api.
	Realm string
	// Errors makes the answers to refusals. Nil: [KOREErrors].
	Errors ErrorFormat
	// Sources are the places where the token may be, instead of the
	// Authorization header. Empty: that header alone.
	Sources []Source
	// Logger gets one record for each refusal, none with a token, a secret
	// claim or an e-mail address in it. Nil: silence.
	Logger *slog.Logger
}

// Middleware guards handlers. Make it with [New]: that of the zero value panics
// when it is to wrap one, and lets nobody in. It may be used for many routes and
// by many goroutines at once.
type Middleware struct {
	judge      func(context.Context, string) (*Claims, error)
	challenges map[error]string // of each class, but for the scope
	format     ErrorFormat
	sources    []Source // nil: the Authorization header
	logger     *slog.Logger
}

// New returns a middleware that asks validator about tokens. A nil *Options
// stands for the usual choices. New panics on a programmer's mistake: a nil
// validator, a nil Source, or a realm that cannot be quoted.
func New(validator TokenValidator, options *Options) *Middleware {
	if validator == nil {
		panic("koreauth: New needs a TokenValidator")
	}
	if options == nil {
		options = &Options{}
	}
	m := &Middleware{
		judge: func(ctx context.Context, token string) (*Claims, error) {
			if !isToken68(token) {
				return nil, errNotToken68
			}
			if len(token) > maxToken {
				return nil, errTooLarge
			}
			return validator.Validate(ctx, token)
		},
		format:  options.Errors,
		sources: slices.Clone(options.Sources),
		logger:  options.Logger,
	}
	if v, ok := validator.(*Validator); ok {
		if v == nil {
			panic("koreauth: New needs a TokenValidator, and has a nil *Validator")
		}
		m.judge = func(ctx context.Context, token string) (*Claims, error) {
			return v.judge(ctx, token, true) // Claims are copied for those who ask for them.
		}
	}
	if m.format == nil {
		m.format = KOREErrors
	}
	for _, source := range m.sources {
		if source == nil {
			panic("koreauth: New: a Source is nil")
		}
	}
	if len(m.sources) == 0 {
		m.sources = nil
	}
	realm := cmp.Or(options.Realm, "api")
	if strings.ContainsFunc(realm, func(c rune) bool { return c < ' ' || c > '~' }) {
		panic("koreauth: New: the realm has characters other than printable ASCII, which cannot be quoted in a header (RFC 9110 §5.6.4)")
	}
	m.challenges = challengesOf(realm)
	return m
}

// challengesOf returns the challenge of each class, but for the scope.
func challengesOf(realm string) map[error]string {
	challenge := `Bearer realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `"`
	challenges := make(map[error]string)
	for _, class := range classes {
		challenges[class] = challenge
		if code := errorCode(class); code != "" {
			challenges[class] += `, error="` + code + `"`
		}
	}
	return challenges
}

// Wrap guards next: it is served only requests with a good token, whose claims
// [FromContext] then returns. It fits gorilla/mux's Router.Use. It panics if
// next is nil.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return m.guard(next, nil, false)
}

// WrapOptional serves next requests without a token too; then FromContext has
// no claims, not even those of another guard further out. A token that is sent
// must be good all the same. It panics if next is nil.
func (m *Middleware) WrapOptional(next http.Handler) http.Handler {
	return m.guard(next, nil, true)
}

// Require guards as Wrap does, and serves only tokens that meet every one of
// the requirements. Nothing else is needed on the route: Require authenticates
// too, and under a Wrap of the same Middleware nothing is verified twice. It
// panics without a requirement and for a nil one; what it returns panics for a
// nil handler.
func (m *Middleware) Require(requirements ...Requirement) func(http.Handler) http.Handler {
	all := allOf(checkRequirements("Require", requirements))
	return func(next http.Handler) http.Handler { return m.guard(next, all, false) }
}

// Authenticate judges the token of a request, as Wrap does, and returns its
// claims, which are the caller's own, or the refusal, an [*Error], for
// [Middleware.Refuse]: for those who cannot wrap a handler. A [Source] that
// reads the body puts it back into r. Unlike Wrap it sets no header: if the
// token may be elsewhere than in Authorization, answer with Cache-Control:
// private (RFC 6750 §2.3).
func (m *Middleware) Authenticate(r *http.Request) (*Claims, error) {
	pass, _, _, err := m.authenticate(r)
	if err != nil {
		return nil, asRefusal(err)
	}
	return pass.claims.clone(), nil
}

// Refuse answers a request as Wrap would: status and body by the [ErrorFormat],
// challenge, headers against caching, and a record to the Logger. An error of no
// class, or nil, is answered as [ErrUnavailable].
func (m *Middleware) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	refusal := asRefusal(err)
	var token string
	if m.judge != nil && refusal.Class != ErrNoToken && refusal.Class != ErrBadRequest {
		token, _, _ = m.token(r) // What cannot be read is in no text either.
	}
	if p := passOf(r.Context()); p != nil && p.by == m && p.token == token && refusal.Class == ErrInsufficientScope {
		refusal = p.sign(refusal) // A handler refuses what the guard let in.
	}
	m.refuse(w, r, refusal, token)
}

// refuse answers, and keeps the token out of what it logs.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, refusal *Error, token string) {
	if m.judge == nil { // Not made by New: a request must not find out by a panic.
		m = &Middleware{format: KOREErrors, challenges: challengesOf("api")}
	}
	logRefusal(r.Context(), m.logger, refusal, token)
	header := w.Header()
	if len(header) > 0 {
		// What an outer handler said of the answer that is not given now. Its
		// Content-Encoding stays: a writer that compresses is still there.
		for _, name := range []string{"Content-Length", "Etag", "Last-Modified", "Retry-After", "Www-Authenticate"} {
			delete(header, name)
		}
	}
	if refusal.Class == ErrUnavailable {
		// RFC 9110 §10.2.3 has whole seconds only.
		seconds := int64(refusal.RetryAfter / time.Second)
		if refusal.RetryAfter%time.Second > 0 {
			seconds++
		}
		header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds), 10)}
	} else {
		// RFC 9110 §11.6.1: a challenge may stand on any status, so it follows
		// the class (RFC 6750 §3).
		challenge := m.challenges[refusal.Class]
		if scope := scopeParam(refusal); scope != "" {
			challenge += `, scope="` + scope + `"`
		}
		header["Www-Authenticate"] = []string{challenge}
	}
	status, contentType, body := m.format(refusal)
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError // A refusal must not look like a success.
	}
	header["Content-Type"] = []string{contentType}
	header["Cache-Control"] = []string{"no-store"}
	header["X-Content-Type-Options"] = []string{"nosniff"}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// A client that is gone is no fault to report.
		_, _ = w.Write(body)
	}
}

func (m *Middleware) guard(next http.Handler, required allOf, optional bool) http.Handler {
	if m.judge == nil {
		panic("koreauth: " + errNotNew.Error())
	}
	if f, ok := next.(http.HandlerFunc); next == nil || ok && f == nil {
		panic("koreauth: the handler to guard is nil")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, token, elsewhere, err := m.authenticate(r)
		if optional && err == errAbsent {
			found, err = &pass{by: m, outer: passOf(r.Context())}, nil
		}
		if err != nil {
			m.refuse(w, r, asRefusal(err), token)
			return
		}
		if refusal := found.meets(required); refusal != nil {
			m.refuse(w, r, refusal, token)
			return
		}
		if elsewhere {
			keepPrivate(w.Header())
		}
		next.ServeHTTP(w, found.attach(r))
	})
}

// keepPrivate keeps shared caches from storing what a token in the URL, a body
// or a cookie has opened: of themselves they spare only what came with
// Authorization (RFC 6750 §2.3, RFC 9111 §3.5).
func keepPrivate(header http.Header) {
	value := strings.Join(header.Values("Cache-Control"), ", ")
	switch has := strings.ToLower(value); {
	case strings.Contains(has, "no-store"), strings.Contains(has, "private"):
	case value == "", strings.Contains(has, "public"), strings.Contains(has, "s-maxage"):
		header.Set("Cache-Control", "private")
	default:
		header.Set("Cache-Control", value+", private")
	}
}

// pass is what a guard found of a request, and the context that says so.
type pass struct {
	context.Context
	by     *Middleware // nil: NewContext, which no guard believes
	token  string
	claims *Claims // shared: copied for whoever asks; nil: none
	outer  *pass
}

type passKey struct{}

var (
	errNotNew   = errors.New("the Middleware was not made by New")
	errNoClaims = errors.New("the TokenValidator returned neither claims nor an error")
)

func (p *pass) Value(key any) any {
	if key == (passKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// Format keeps the token out of whatever prints a context.
func (p *pass) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%v.WithValue(koreauth)", p.Context) }

func passOf(ctx context.Context) *pass {
	p, _ := ctx.Value(passKey{}).(*pass)
	return p
}

// authenticate returns the pass for the request's token: the one it has of this
// Middleware already, if it still carries the same token, or a new one. The
// token is there with an error too, if the request has one.
func (m *Middleware) authenticate(r *http.Request) (p *pass, token string, elsewhere bool, err error) {
	if m.judge == nil {
		return nil, "", false, unavailable(errNotNew, 0)
	}
	if token, elsewhere, err = m.token(r); err != nil {
		return nil, "", false, err
	}
	outer := passOf(r.Context())
	var claims *Claims
	for has := outer; has != nil && claims == nil; has = has.outer {
		if has.by == m && has.token == token {
			claims = has.claims
		}
	}
	if claims != nil && outer.by == m && outer.claims == claims {
		return outer, token, elsewhere, nil
	}
	if claims == nil {
		if claims, err = m.judge(r.Context(), token); err != nil {
			return nil, token, elsewhere, err
		}
	}
	if claims == nil {
		return nil, token, elsewhere, unavailable(errNoClaims, 0)
	}
	return &pass{by: m, token: token, claims: claims, outer: outer}, token, elsewhere, nil
}

// meets returns the refusal if the claims do not meet what is required.
func (p *pass) meets(required allOf) *Error {
	if len(required) == 0 {
		return nil
	}
	err := required.Check(p.claims)
	if err == nil {
		return nil
	}
	return p.sign(asRefusal(err))
}

// sign adds what is known of the token, if the refusal does not say.
func (p *pass) sign(refusal *Error) *Error {
	if p.claims != nil && refusal.Issuer == "" && refusal.ClientID == "" {
		refusal.Issuer, refusal.ClientID, refusal.verified = p.claims.Issuer, p.claims.ClientID, true
		refusal.KeyID = p.claims.judged.kid
	}
	return refusal
}

// attach returns the request with the pass as its innermost.
func (p *pass) attach(r *http.Request) *http.Request {
	outer := passOf(r.Context())
	if p == outer || p.claims == nil && outer == nil {
		return r
	}
	p.Context = r.Context()
	return r.WithContext(p)
}

// FromContext returns the claims of the token that the innermost guard found
// good; false if there was none. They are the caller's own: what is changed in
// them reaches nobody else.
func FromContext(ctx context.Context) (*Claims, bool) {
	p := passOf(ctx)
	if p == nil || p.claims == nil {
		return nil, false
	}
	return p.claims.clone(), true
}

// NewContext returns a context from which [FromContext] returns claims: to test
// a handler without a guard. No guard ever believes them. Nil claims are none.
func NewContext(ctx context.Context, claims *Claims) context.Context {
	return &pass{Context: ctx, claims: claims.clone(), outer: passOf(ctx)}
}
