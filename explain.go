package koreauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/koreauth/koreauth/internal/clock"
	"github.com/koreauth/koreauth/internal/explain"
	"github.com/koreauth/koreauth/internal/jws"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/internal/token68"
)

// Explanation says how a token was judged, check by check. It has no token, no
// signature, no secret claim and no e-mail address. Show it to operators only: the
// client must not learn more than the response of a guard tells.
type Explanation struct {
	Steps []Step // in the order in which a token is checked
	Err   error  // what Validate returns, or the first requirement that failed; nil: accepted

	own    *Error // Err as Explain set it, or nil
	reason string // of own, without the token
}

// Step is one check of a token.
type Step struct {
	Name     string // form, header, algorithm, key, signature, payload, issuer, audience, expiry, not-before, age, type, client, binding, opaque or requirement
	Rule     string // where the check is specified, such as "RFC 7519 §4.1.3"
	Want     string // what was expected
	Found    string // what the token has, without secrets
	Verdict  string // "pass", "fail", "skipped", or "unknown" if it could not be judged
	Verified bool   // the signature was verified; otherwise anybody may have written Found
	Hint     string // what to do; empty: nothing
}

// String returns a table of at most 80 columns.
func (e Explanation) String() string {
	class, reason := e.words()
	verdict := "accepted"
	switch {
	case errors.Is(e.Err, ErrUnavailable):
		verdict = "not judged: " + class
	case reason != "":
		verdict = "rejected: " + class + ": " + reason
	case class != "":
		verdict = "rejected: " + class
	}
	return explain.Text(verdict, e.steps())
}

// MarshalJSON writes an object with the members accepted, class, reason and steps.
// Class and reason are the words that the log uses, and empty if the token was
// accepted. Each step has the members name, rule, want, found, verdict, verified and
// hint.
func (e Explanation) MarshalJSON() ([]byte, error) {
	class, reason := e.words()
	return explain.JSON(class, reason, e.steps())
}

func (e Explanation) steps() []explain.Step {
	steps := make([]explain.Step, len(e.Steps))
	for n, step := range e.Steps {
		steps[n] = explain.Step(step)
	}
	return steps
}

// words returns the class and the reason in the words of the log. The reason of
// another package is named by its text after the class.
func (e Explanation) words() (class, reason string) {
	if e.Err == nil {
		return "", ""
	}
	refusal := asRefusal(e.Err)
	class = withoutPrefix(refusal.Class)
	switch known := reasonOf(refusal); {
	case known != nil:
		reason = withoutClass(known)
	case e.own != nil && e.Err == error(e.own):
		reason = e.reason
	case refusal.Reason != nil && refusal.Class == ErrInvalidToken:
		reason = redact.Text(withoutClass(refusal.Reason))
	}
	return class, reason
}

// Explain checks a token as [Validator.Validate] does, and then the requirements,
// and says what each check expected and found. It goes on after a check that fails.
// Requirements are checked only if the signature was verified; they get no request.
// Like Validate it may fetch keys. It neither uses nor fills the memory of verified
// tokens. Explain panics if a requirement is nil.
//
// Explain is for people. It costs much more than Validate.
func (v *Validator) Explain(ctx context.Context, token string, requirements ...Requirement) *Explanation {
	if slices.ContainsFunc(requirements, isNil) {
		panic("koreauth: Explain: a requirement is nil")
	}
	x := &explanation{parsedToken: &parsedToken{whole: token, expected: v.expected}}
	x.about = &explain.Token{Text: token}
	if x.open(ctx, v) {
		return x.done(x.explainOpaque(ctx, v.opaque, requirements))
	}
	i := x.verify(ctx, v)
	x.check(v, i)
	var claims *Claims
	if x.content != nil {
		claims = &x.content.claims
	}
	return x.done(append(x.about.Steps(), x.require(i, claims, requirements)...))
}

// explanation collects what Explain finds out about a token.
type explanation struct {
	*parsedToken
	about  *explain.Token
	err    error   // the first one, which Validate returns
	claims *Claims // of an opaque token that was accepted; else nil
}

// note keeps the result of a check.
func (x *explanation) note(check explain.Check, err error) { x.about.Results[check] = x.result(err) }

// result returns the result of a check. The first error becomes that of the
// explanation.
func (x *explanation) result(err error) explain.Result {
	if x.err == nil {
		x.err = err
	}
	switch {
	case err == nil:
		return explain.Result{Verdict: explain.Pass}
	case classOf(err) == ErrUnavailable:
		return explain.Result{Verdict: explain.Unknown, Err: err}
	}
	return explain.Result{Verdict: explain.Fail, Err: err}
}

// open reads the token. It reports whether the token is opaque.
func (x *explanation) open(ctx context.Context, v *Validator) (opaque bool) {
	if len(v.issuers) == 0 {
		x.err = unavailable(errZeroValidator, 0)
	}
	err := x.split(x.whole)
	if err == errSegments && v.opaque != nil {
		return true
	}
	var header string
	if err == nil {
		if ctx.Err() != nil && x.err == nil {
			x.err = unavailable(context.Cause(ctx), 0)
		}
		header, err = x.decode()
	}
	if x.note(explain.Form, err); err != nil {
		return false
	}
	if x.header, err = jws.ReadHeader(header); err != nil {
		x.note(explain.Header, malformed(err))
	} else {
		x.note(explain.Algorithm, accepts(v.algorithms, x.header))
		x.note(explain.Header, checkHeader(x.header))
	}
	claims := &x.content.claims
	x.payloadErr, claims.extra.kid = claims.decode(&x.content.payload), x.header.Kid
	return false
}

// verify verifies the signature. It returns the issuer of the token, or nil.
func (x *explanation) verify(ctx context.Context, v *Validator) *issuer {
	if x.content == nil || len(v.issuers) == 0 {
		return v.only
	}
	var payloadErr error
	if x.payloadErr != nil {
		payloadErr = fmt.Errorf("%w: payload: %w", ErrMalformed, x.payloadErr)
	}
	i := v.issuerOf(&x.content.claims)
	if v.only == nil { // as in validateNew
		x.note(explain.Payload, payloadErr)
		if i == nil {
			x.note(explain.Issuer, ErrIssuer)
			return nil
		}
		if x.about.Results[explain.Algorithm].Verdict == explain.Pass {
			x.note(explain.Algorithm, accepts(i.algorithms, x.header))
		}
	}
	x.expected = i.expected
	// A token of a wrong type is verified too, so that its claims are known to be true.
	if x.about.Results[explain.Algorithm].Verdict == explain.Pass && (x.err == nil || errors.Is(x.err, ErrTokenType)) {
		now := clock.Now()
		err := i.verify(ctx, x.parsedToken, now, cmp.Or(x.err, i.fault(keyChecks, &x.content.claims, now.Time())))
		switch {
		case x.verified:
			x.note(explain.Key, nil)
			x.note(explain.Signature, nil)
		case errors.Is(err, ErrSignature):
			x.note(explain.Key, nil)
			x.note(explain.Signature, err)
		default:
			x.note(explain.Key, err)
		}
	}
	x.note(explain.Payload, payloadErr)
	return i
}

// accepts returns nil if the algorithm is one of the accepted ones.
func accepts(algorithms map[string]bool, h *jws.Header) error {
	if !algorithms[h.Alg] {
		return ErrAlgorithm
	}
	return nil
}

// check checks the claims, and describes them.
func (x *explanation) check(v *Validator, i *issuer) {
	now := time.Now()
	x.about.Now, x.about.Verified, x.about.Header, x.about.Signature = now, x.verified, x.header, x.signature
	x.about.Keys, x.about.Want = x.keysFor(v, i), cmp.Or(x.expected, &explain.Want{})
	if x.content == nil || x.payloadErr != nil && x.payloadErr != x.content.claims.extra.oddIdentity {
		return
	}
	c := &x.content.claims
	x.about.Payload, x.about.Claims = x.content.payload, shown(c)
	if i == nil {
		return
	}
	for n, check := range claimChecks {
		x.note(explain.Issuer+explain.Check(n), check(i, c, now))
	}
	x.note(explain.Binding, checkBinding(c, rejectBound))
}

// keysFor lists the cached keys of the issuer of a token, which may be nil.
func (x *explanation) keysFor(v *Validator, i *issuer) (keys explain.Keys) {
	for _, one := range v.issuers {
		all, listed := cachedKeys(one.keys)
		for _, key := range all {
			if one == i {
				keys.IDs = append(keys.IDs, key.ID)
			} else if x.header != nil && x.header.Kid == key.ID && key.ID != "" {
				keys.Of = one.name
			}
		}
		keys.Listed = keys.Listed || one == i && listed
	}
	return keys
}

// cachedKeys returns the keys that are cached. It returns false for a custom KeySet.
func cachedKeys(set KeySet) (keys []Key, listed bool) {
	switch set := set.(type) {
	case *keyIndex:
		return set.all, true
	case *RemoteKeySet:
		if snap := set.current.Load(); snap != nil {
			keys = snap.all
		}
		return keys, true
	}
	return nil, false
}

// shown returns the claims that an explanation shows.
func shown(c *Claims) explain.Claims {
	claims := explain.Claims{
		Issuer: c.Issuer, Type: c.extra.typ, ClientID: c.ClientID, Account: c.AccountID, Audience: c.Audience,
		IssuedAt: c.IssuedAt, NotBefore: c.NotBefore, Expiry: c.Expiry, HasType: c.extra.hasType,
		Scopes: c.Scopes, Products: c.Products,
	}
	for _, r := range c.Resources {
		for _, a := range r.Access {
			claims.Grants = append(claims.Grants, r.Name+":"+string(a))
		}
	}
	if bound := c.Confirmation; bound != nil {
		claims.Bound, claims.CertificateSHA256, claims.KeySHA256 = true, bound.CertificateSHA256, bound.KeySHA256
	}
	return claims
}

// require checks the requirements of the Config, and then those that were asked for.
func (x *explanation) require(i *issuer, c *Claims, asked []Requirement) (steps []explain.Step) {
	var ofConfig []Requirement
	if i != nil && i.require != nil {
		ofConfig = i.require.requirements
	}
	for _, all := range [][]Requirement{ofConfig, asked} {
		own := group{all}.own(c)
		for n, q := range all {
			result := explain.Result{}
			if x.verified {
				var err error
				if err = checkOne(q, nil, c, own); err != nil {
					err = asRefusal(insufficient(err, namesOf(all, n, err)))
				}
				result = x.result(err)
			}
			steps = append(steps, x.about.Requirement(namesOf([]Requirement{q}, -1, nil), fmt.Sprintf("%T", q), result))
		}
	}
	return steps
}

// explainOpaque asks what validates the opaque tokens of an issuer.
func (x *explanation) explainOpaque(ctx context.Context, i *issuer, asked []Requirement) []explain.Step {
	if !token68.Valid(x.whole) {
		x.result(errSegments)
		return explain.Opaque(x.whole, explain.Result{})
	}
	claims, err := i.opaque(ctx, x.whole)
	if err == nil && claims == nil {
		err = unavailable(errNoClaims, 0)
	}
	if err != nil {
		return explain.Opaque(x.whole, x.result(asRefusal(err)))
	}
	x.claims, x.expected = claims, i.expected
	x.verified, x.about.Verified, x.about.Now = true, true, time.Now()
	x.about.Payload, x.about.Claims, x.about.Want = "{}", shown(claims), i.expected
	steps := explain.Opaque(x.whole, x.result(nil))
	x.note(explain.Binding, checkBinding(claims, rejectBound))
	steps = append(steps, x.about.Steps()[explain.Binding])
	return append(steps, x.require(i, claims, asked)...)
}

// done returns the explanation.
func (x *explanation) done(steps []explain.Step) *Explanation {
	e := &Explanation{Steps: make([]Step, len(steps))}
	for n, step := range steps {
		e.Steps[n] = Step(step)
	}
	if x.err == nil {
		return e
	}
	e.own = x.refusal(x.err)
	if x.claims != nil {
		annotate(e.own, x.claims, x.expected)
	}
	if e.Err = e.own; e.own.Reason != nil && e.own.Class == ErrInvalidToken {
		e.reason = redact.Text(withoutClass(e.own.Reason), x.whole)
	}
	return e
}
