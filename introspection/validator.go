package introspection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/limit"
	"github.com/koreauth/koreauth/internal/safelog"
	"github.com/koreauth/koreauth/internal/seldom"
	"github.com/koreauth/koreauth/internal/token68"
)

// ErrInactive is the reason if the issuer says that a token is not active: it was
// revoked, has expired or is not one of the issuer's (RFC 7662 §2.2). It wraps
// koreauth.ErrInvalidToken.
var ErrInactive = fmt.Errorf("%w: not active", koreauth.ErrInvalidToken)

var (
	errShape = fmt.Errorf("%w: not of the form that Config.Shape accepts", koreauth.ErrMalformed)
	errType  = fmt.Errorf(`%w: "token_type" is not Bearer or DPoP`, koreauth.ErrTokenType)
	errDPoP  = fmt.Errorf(`%w: "token_type" is DPoP, and "cnf" has no "jkt"`, koreauth.ErrTokenType)
	errZero  = errors.New("the introspection.Validator was not created with New or Also")
)

const (
	maxToken    = 16 << 10 // bytes
	logInterval = time.Minute
	logTime     = 100 * time.Millisecond // for which callers wait for the Logger
	overhead    = 1 << 10                // bytes of a verdict, its claims and the entry that refers to them
)

// The functions of package koreauth that are not exported.
var (
	judgeOf         = door.Judge.(func(issuer string, audience, clients []string, leeway time.Duration) func(*koreauth.Claims, time.Time) error)
	sizeOf          = door.Size.(func(*koreauth.Claims) int)
	clone           = door.Clone.(func(*koreauth.Claims) *koreauth.Claims)
	validate        = door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
	verifySignature = door.VerifySignature.(func(context.Context, *koreauth.Validator, string) (*koreauth.Claims, error))
	require         = door.Require.(func(*koreauth.Validator, *koreauth.Claims) error)
)

// Validator is a koreauth.TokenValidator that asks the issuer. Create it with [New] or
// [Also]. It is safe for concurrent use by multiple goroutines, and there is nothing to
// close: its only goroutines are those of requests to the issuer, and of idle connections,
// which close after 90 seconds if HTTPClient is nil.
type Validator struct {
	config  Config
	jwt     *koreauth.Validator // of Also, or nil
	asker   *asker
	judge   func(*koreauth.Claims, time.Time) error
	memory  *memory
	gate    gate
	logs    map[string]*seldom.Limit // by message
	logging safelog.Warner
	anyGood atomic.Bool // some token was active

	mu    sync.Mutex // guards calls
	calls map[digest]*call
}

// call is a request that callers wait for.
type call struct {
	done   chan struct{} // closed at its end; then the fields below are set
	answer goodAnswer    // of a token that is accepted
	err    error         // why it is not
	down   bool          // because the issuer is down
}

// New returns a Validator for opaque tokens: set it as Opaque of koreauth.Config, or
// pass it to koreauth.New alone. It makes no request. The error lists all faults of the
// Config, joined.
func New(c Config) (*Validator, error) { return newValidator(nil, c) }

// Also returns a Validator that verifies JWTs with jwt and then asks the issuer about them,
// for tokens whose claims only the issuer knows, such as Keycloak's lightweight tokens.
// Pass it to koreauth.New. Signature, "iss", "exp", "nbf" and "typ" of the JWT are verified
// each time. The claims are those of the answer. Audience, ClientIDs and Leeway of c apply
// to them, and MaxAge, ClientIDs and Require of jwt (without the *http.Request). Leeway must
// be set in both Configs. If the answer lacks a claim that identifies or restricts the
// token, that of the JWT is used. If the two contradict each other, the error is
// koreauth.ErrUnavailable.
//
// Tokens that are not JWTs, and those of other issuers than Config.Issuer, are
// validated by jwt alone. The error lists all faults, joined.
func Also(jwt *koreauth.Validator, c Config) (*Validator, error) {
	if jwt == nil {
		return nil, errors.Join(errors.New("introspection: Also needs a Validator: make one with koreauth.NewValidator"), c.faults())
	}
	return newValidator(jwt, c)
}

func newValidator(jwt *koreauth.Validator, c Config) (*Validator, error) {
	err := c.faults()
	if jwt != nil {
		known := false
		for _, status := range jwt.Status() {
			known = known || status.Issuer == c.Issuer
		}
		if !known && c.Issuer != "" {
			err = errors.Join(err, errors.New("introspection: Config.Issuer is not an issuer of the Validator: set it to that of its koreauth.Config"))
		}
	}
	if err != nil {
		return nil, err
	}
	v := &Validator{
		config: c, jwt: jwt, judge: judgeOf(c.Issuer, slices.Clone(c.Audience), slices.Clone(c.ClientIDs), c.Leeway), memory: newMemory(), calls: make(map[digest]*call),
		gate: gate{places: make(chan struct{}, maxInFlight), rate: limit.Rate{Interval: askInterval, Burst: askBurst}},
		logs: map[string]*seldom.Limit{logCredentials: {}, logFailed: {}, logAudience: {}},
	}
	if v.config.MaxAge == 0 {
		v.config.MaxAge = defaultAge
	}
	v.asker = newAsker(&v.config)
	return v, nil
}

// Validate returns the claims of an active token, which belong to the caller. The error
// is, or wraps, ErrInactive, another reason of koreauth.ErrInvalidToken, or
// koreauth.ErrUnavailable if there is no clear answer. The claims of a bound token
// have a Confirmation, which the guard's Options.Sender must confirm.
func (v *Validator) Validate(ctx context.Context, token string) (*koreauth.Claims, error) {
	claims, err := v.shared(ctx, token)
	if err != nil {
		return nil, err
	}
	return clone(claims), nil
}

func init() { door.AddShared(func(v *Validator) any { return v.shared }) }

// shared is Validate without the copy: its claims must not be changed.
func (v *Validator) shared(ctx context.Context, token string) (*koreauth.Claims, error) {
	switch {
	case v == nil || v.asker == nil:
		return nil, unavailable(errZero, 0)
	case v.jwt == nil:
		return v.judged(ctx, token, nil)
	case strings.Count(token, ".") != 2:
		return validate(ctx, v.jwt, nil, token)
	}
	verified, err := verifySignature(ctx, v.jwt, token)
	switch {
	case err != nil:
		return nil, err
	case verified.Issuer != v.config.Issuer:
		return validate(ctx, v.jwt, nil, token)
	}
	claims, err := v.judged(ctx, token, verified)
	if err == nil {
		err = require(v.jwt, claims)
	}
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// judged returns the shared claims of a token that is active and valid. verified are
// the claims of a JWT, or nil.
func (v *Validator) judged(ctx context.Context, token string, verified *koreauth.Claims) (*koreauth.Claims, error) {
	if verified == nil && (len(token) > maxToken || !token68.Valid(token)) {
		return nil, koreauth.ErrMalformed
	}
	switch shaped, err := v.hasShape(token); {
	case err != nil:
		return nil, unavailable(err, 0)
	case !shaped:
		return nil, errShape
	case ctx.Err() != nil:
		return nil, unavailable(context.Cause(ctx), 0)
	}
	d := jws.SHA256(token)
	last, known := v.memory.good.GetIfPresent(d)
	if age := last.at.Age(); known && age < v.config.MaxAge {
		if age >= v.renewAt(d) {
			v.join(d, token, verified, known) // Nobody waits for it.
		}
		return v.accepted(d, last)
	}
	if err := v.memory.rejected(d); err != nil {
		return nil, err
	}
	c := v.join(d, token, verified, known)
	if !known || !v.mayServeStale(last) {
		return c.wait(ctx)
	}
	if v.gate.isDown() && !c.ended() {
		return v.accepted(d, last) // Nobody waits for the request.
	}
	claims, err := c.wait(ctx)
	if c.ended() && c.down && v.mayServeStale(last) {
		return v.accepted(d, last)
	}
	return claims, err
}

// hasShape calls Config.Shape. A panic of it is an error.
func (v *Validator) hasShape(token string) (ok bool, err error) {
	if v.config.Shape == nil {
		return true, nil
	}
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, fmt.Errorf("Config.Shape panicked with a %T", p)
		}
	}()
	return v.config.Shape(token), nil
}

// ended reports whether the request has ended.
func (c *call) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the request, and returns its result.
func (c *call) wait(ctx context.Context) (*koreauth.Claims, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, unavailable(context.Cause(ctx), 0)
	}
	if refusal, ok := c.err.(*koreauth.Error); ok {
		own := *refusal // Each caller gets its own.
		return nil, &own
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.answer.claims, nil
}

// renewAt returns the age at which an answer is replaced in the background, so that no
// request waits: 70 to 90 % of MaxAge, spread over the tokens.
func (v *Validator) renewAt(d digest) time.Duration {
	return v.config.MaxAge/10*9 - v.config.MaxAge/5/256*time.Duration(d[0])
}

// mayServeStale reports whether an old answer may be used while the issuer is down.
func (v *Validator) mayServeStale(a goodAnswer) bool {
	return !a.endless && a.at.Age() < v.config.ServeStale
}

// accepted judges an answer that was good, at this moment.
func (v *Validator) accepted(d digest, a goodAnswer) (*koreauth.Claims, error) {
	if err := v.judgeNow(a.verdict); err != nil {
		v.reject(d, err, a.claims)
		return nil, err
	}
	return a.claims, nil
}

// judgeNow judges the claims of an active token as those of a JWT.
func (v *Validator) judgeNow(a *verdict) error {
	claims, now := a.claims, time.Now()
	if claims.Expiry.IsZero() && a.endless {
		without := *claims
		without.Expiry = now.Add(time.Hour) // It is good for MaxAge.
		claims = &without
	}
	switch bound := claims.Confirmation; {
	case !a.access:
		return errType
	case a.dpop && (bound == nil || bound.KeySHA256 == ""):
		return errDPoP
	}
	return v.judge(claims, now)
}

// reject remembers why a token is rejected, unless that changes soon.
func (v *Validator) reject(d digest, err error, c *koreauth.Claims) {
	keep := min(badFor, v.config.MaxAge)
	if errors.Is(err, koreauth.ErrNotYetValid) {
		keep = min(keep, time.Until(c.NotBefore)-v.config.Leeway)
	}
	v.memory.reject(d, err, keep)
}

// join returns the current request about a token, or begins one. If there is nothing to
// ask, or it must not be asked, join returns one that has ended.
func (v *Validator) join(d digest, token string, verified *koreauth.Claims, known bool) *call {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.calls[d]; c != nil {
		return c
	}
	c, k := &call{done: make(chan struct{})}, unknown
	if known {
		k = wasGood
	}
	if c.answer, c.err = v.justEnded(d); c.answer.verdict != nil || c.err != nil {
		close(c.done)
		return c
	}
	if err := v.gate.enter(k); err != nil {
		c.err, c.down = unavailable(err, time.Second), true
		close(c.done)
		return c
	}
	v.calls[d] = c
	go v.run(c, d, k, strings.Clone(token), verified)
	return c
}

// justEnded returns the result of a request that has ended since the caller of join
// looked, or nothing.
func (v *Validator) justEnded(d digest) (goodAnswer, error) {
	last, ok := v.memory.good.GetIfPresent(d)
	if age := last.at.Age(); ok && age < v.config.MaxAge && age < v.renewAt(d) && v.judgeNow(last.verdict) == nil {
		return last, nil
	}
	return goodAnswer{}, v.memory.rejected(d)
}

// run asks about a token, and lets the callers go on.
func (v *Validator) run(c *call, d digest, k kind, token string, verified *koreauth.Claims) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	at := clock.Now()
	var answer *verdict
	err := v.gate.wait(ctx, k)
	if err == nil {
		answer, err = bounded.Call(ctx, func(ctx context.Context) (*verdict, error) {
			defer v.gate.leave(k) // also if it ends later than ctx
			return v.asker.ask(ctx, token)
		})
	}
	if err == nil && answer.active && verified != nil {
		err = answer.complete(verified)
	}
	failed, ok := errors.AsType[*failure](err)
	if err != nil && !ok {
		failed = &failure{text: err.Error(), down: !errors.Is(err, errNotClear)} // of the context, or a panic
		if errors.Is(err, context.DeadlineExceeded) {
			failed.text = fmt.Sprintf("the issuer did not answer within %v", timeout)
		}
	}
	if err == errQueue { // It says nothing of the issuer.
		v.gate.giveUp()
	} else {
		v.gate.result(failed != nil && failed.down)
	}
	trap := false
	switch {
	case failed != nil:
		c.err, c.down = unavailable(failed, min(max(failed.retryAfter, time.Second), time.Minute)), failed.down
	case !answer.active:
		c.err = ErrInactive
		v.reject(d, c.err, nil)
		trap = verified != nil && !v.anyGood.Load()
	default:
		v.anyGood.Store(true)
		if c.err = v.judgeNow(answer); c.err != nil {
			v.reject(d, c.err, answer.claims)
			break
		}
		answer.bytes += overhead + sizeOf(answer.claims)
		c.answer = goodAnswer{answer, at}
		v.memory.accept(d, c.answer)
	}
	v.report(failed, trap)
	v.mu.Lock()
	delete(v.calls, d)
	v.mu.Unlock()
	close(c.done)
}

// The messages of the log.
const (
	logCredentials = "introspection: the issuer rejects the credentials of this API: correct ClientID, the secret and Style"
	logFailed      = "introspection: no clear answer, so tokens cannot be checked"
	logAudience    = "introspection: a JWT that was verified is not active for this client, and none has been active yet: " +
		"put this client into the \"aud\" of the tokens, with an audience mapper (Keycloak 26.6.2 and later)"
)

// report logs how a request ended, each message at most once a minute. It does not wait
// long for a Logger that hangs.
func (v *Validator) report(f *failure, trap bool) {
	level, message, attr := slog.LevelWarn, logFailed, slog.String("client_id", v.config.ClientID)
	switch {
	case trap:
		message = logAudience
	case f == nil:
		return
	case f.credentials:
		level, message = slog.LevelError, logCredentials
	}
	if v.config.Logger == nil || !v.logs[message].Allow(logInterval) {
		return
	}
	attrs := []slog.Attr{attr}
	if f != nil {
		attrs = append(attrs, slog.String("cause", f.text))
	}
	ctx, cancel := context.WithTimeout(context.Background(), logTime)
	defer cancel()
	_, _ = bounded.Call(ctx, func(context.Context) (any, error) {
		v.logging.Log(context.Background(), v.config.Logger, level, message, attrs...)
		return nil, nil
	})
}

// unavailable is the rejection of a token that could not be checked.
func unavailable(cause error, retryAfter time.Duration) *koreauth.Error {
	return &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: fmt.Errorf("%w: %w", koreauth.ErrUnavailable, cause), RetryAfter: retryAfter}
}

// Format writes the Config without secrets, whatever the verb is.
func (v *Validator) Format(f fmt.State, _ rune) {
	if v == nil {
		_, _ = f.Write([]byte("introspection.Validator(nil)"))
		return
	}
	fmt.Fprintf(f, "introspection.Validator{%v}", v.config)
}
