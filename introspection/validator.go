package introspection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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
	errZero  = errors.New("the introspection.Validator was not created with New or Also")
)

const (
	maxToken    = 16 << 10 // bytes
	logInterval = time.Minute
)

// The functions of package koreauth that are not exported.
var (
	judgeOf         = door.Judge.(func(issuer string, audience, clients []string, leeway time.Duration) func(*koreauth.Claims, time.Time) error)
	clone           = door.Clone.(func(*koreauth.Claims) *koreauth.Claims)
	validate        = door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
	verifySignature = door.VerifySignature.(func(context.Context, *koreauth.Validator, string) (*koreauth.Claims, error))
	require         = door.Require.(func(*koreauth.Validator, *koreauth.Claims) error)
)

// Validator is a koreauth.TokenValidator that asks the issuer. Create it with [New] or
// [Also]. It is safe for concurrent use by multiple goroutines, and there is nothing to
// close: its only goroutines are those of requests to the issuer.
type Validator struct {
	config  Config
	jwt     *koreauth.Validator // of Also, or nil
	asker   *asker
	judge   func(*koreauth.Claims, time.Time) error
	memory  *memory
	gate    gate
	logs    map[string]*seldom.Limit // by message
	anyGood atomic.Bool              // some token was active

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

// Also returns a Validator that also asks the issuer about JWTs that jwt can verify, for
// example Keycloak's lightweight tokens, whose claims the issuer tells: pass it to
// koreauth.New. Their signature, "iss" and "exp" are verified each time; the other claims
// are those of the answer, also for the Require of jwt's Config, which is asked without a
// request. If the token and the answer differ, the token counts as not checked.
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
		config: c, jwt: jwt, judge: judgeOf(c.Issuer, c.Audience, c.ClientIDs, c.Leeway), memory: newMemory(), calls: make(map[digest]*call),
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

func init() {
	door.AddShared(func(validator any) any {
		if v, ok := validator.(*Validator); ok {
			return v.shared
		}
		return nil
	})
}

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
	switch {
	case verified == nil && (len(token) > maxToken || !token68.Valid(token)):
		return nil, koreauth.ErrMalformed
	case v.config.Shape != nil && !v.config.Shape(token):
		return nil, errShape
	case ctx.Err() != nil:
		return nil, unavailable(context.Cause(ctx), 0)
	}
	d := jws.SHA256(token)
	last, known := v.memory.good.GetIfPresent(d)
	if age := last.at.Age(); known && age < v.config.MaxAge {
		if age >= v.renewAt(d) {
			v.join(d, token, verified, known) // It ends in the background.
		}
		return v.accepted(d, last)
	}
	if err := v.memory.rejected(d); err != nil {
		return nil, err
	}
	stale := known && v.mayServeStale(last)
	c := v.join(d, token, verified, known)
	if !stale || !v.gate.isDown() { // Otherwise it ends in the background.
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, unavailable(context.Cause(ctx), 0)
		}
	}
	select {
	case <-c.done:
		switch {
		case c.err == nil:
			return v.accepted(d, c.answer)
		case !c.down:
			return nil, c.err
		}
	default:
	}
	if stale && v.mayServeStale(last) {
		return v.accepted(d, last)
	}
	return nil, c.err
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

// accepted judges a good answer, which may be an old one, at this moment.
func (v *Validator) accepted(d digest, a goodAnswer) (*koreauth.Claims, error) {
	if err := v.judgeNow(a.verdict); err != nil {
		v.memory.reject(d, err, v.badAge())
		return nil, err
	}
	return a.claims, nil
}

// judgeNow judges the claims of an active token as those of a JWT.
func (v *Validator) judgeNow(a *verdict) error {
	claims, now := a.claims, time.Now()
	if a.endless {
		without := *claims
		without.Expiry = now.Add(time.Hour) // It is good for MaxAge.
		claims = &without
	}
	if !a.access {
		return errType
	}
	return v.judge(claims, now)
}

// badAge is how long a rejection is used.
func (v *Validator) badAge() time.Duration { return min(badFor, v.config.MaxAge) }

// join returns the current request about a token, or begins one. If none may begin, it
// returns one that has ended.
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
	if err := v.gate.enter(k); err != nil {
		c.err, c.down = unavailable(err, time.Second), true
		close(c.done)
		return c
	}
	v.calls[d] = c
	go v.run(c, d, k, strings.Clone(token), verified)
	return c
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
	}
	v.gate.result(failed != nil && failed.down && err != errQueue)
	switch {
	case failed != nil:
		c.err, c.down = unavailable(failed, max(failed.retryAfter, time.Second)), failed.down
		v.report(failed)
	case !answer.active:
		c.err = ErrInactive
		v.memory.reject(d, c.err, v.badAge())
		if verified != nil && !v.anyGood.Load() {
			v.log(slog.LevelWarn, logAudience, slog.String("client_id", v.config.ClientID))
		}
	default:
		v.anyGood.Store(true)
		if c.err = v.judgeNow(answer); c.err != nil {
			v.memory.reject(d, c.err, v.badAge())
			break
		}
		c.answer = goodAnswer{answer, at}
		v.memory.accept(d, c.answer)
	}
	v.mu.Lock()
	delete(v.calls, d)
	v.mu.Unlock()
	close(c.done)
}

// The messages of the log.
const (
	logCredentials = "introspection: the issuer rejects the credentials of this API: correct ClientID, the secret and Style"
	logFailed      = "introspection: no clear answer, so tokens cannot be checked"
	logAudience    = "introspection: a token that was verified is not active for this client, and no token was so far: " +
		"put this client into the \"aud\" of the tokens, with an audience mapper (Keycloak 26.6.2 and later)"
)

func (v *Validator) report(f *failure) {
	if f.credentials {
		v.log(slog.LevelError, logCredentials, slog.String("client_id", v.config.ClientID), slog.String("cause", f.text))
		return
	}
	v.log(slog.LevelWarn, logFailed, slog.String("cause", f.text))
}

// log logs a message at most once a minute.
func (v *Validator) log(level slog.Level, message string, attrs ...slog.Attr) {
	if v.config.Logger != nil && v.logs[message].Allow(logInterval) {
		safelog.Log(context.Background(), v.config.Logger, level, message, attrs...)
	}
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
