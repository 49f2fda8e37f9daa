package revocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/redact"
)

// List rejects revoked tokens. It is a [koreauth.Requirement] for
// [koreauth.Config].Require, and then applies to all tokens, new and remembered,
// opaque ones too.
//
// Fill it with [List.Follow] or [List.Apply]: it has all rules in memory, so that
// Check asks nobody and never waits. Rules are only added: if a store loses some, the
// list keeps them. A rule is forgotten five minutes after its Until.
//
// Set the fields before the first use and do not change them afterwards. The zero
// value is ready to use, and a List must not be copied. It is safe for concurrent use
// by multiple goroutines.
type List struct {
	// MaxStale is how long the list is used without proof that it is complete; then
	// Check returns [koreauth.ErrUnavailable]. Its age is measured by the wall clock
	// and by the monotonic clock, whichever says older. A list that was fed by Apply
	// alone is always complete. Zero means one hour. If MaxStale is negative, Follow
	// and Apply return an error, and Check always returns ErrUnavailable.
	MaxStale time.Duration
	// StartEmpty makes Check accept tokens before the list was loaded for the first
	// time. If StartEmpty is false, Check returns [koreauth.ErrUnavailable] until then.
	StartEmpty bool
	// AllowNoID accepts tokens without "jti", which cannot be revoked one by one. If
	// AllowNoID is false, they are rejected with [koreauth.ErrRevoked].
	AllowNoID bool
	// CacheFile is a file in which the last known list is kept, so that a restart
	// during an outage of the store does not forget it. The file has the hashes of
	// what is revoked, and when the list was complete, from which MaxStale counts.
	// It is written with mode 0600 within five seconds of a change, from time to time
	// without one, and when Follow ends. It is read when Follow is first called.
	//
	// A file that is damaged, or that others can write, is not read and is replaced.
	// One that is not of this package, or that belongs to another user, is neither
	// read nor replaced. Both are reported to Logger. On Windows, owner and mode are
	// not checked. Several processes may have the same CacheFile. If CacheFile is
	// empty, no file is used.
	CacheFile string
	// Logger gets a record of each rule that is applied, with its kind, seq, Reason
	// and By, and a summary of more than 100 at once; and warnings, for example once
	// a minute while the list is over ten seconds old. If Logger is nil, nothing is
	// logged.
	Logger *slog.Logger

	fresh   freshness
	rules   ruleSet
	known   known
	cache   cacheFile
	journal journal
	replica replica
}

const defaultMaxStale = time.Hour

var (
	errNegative  = errors.New("revocation: List.MaxStale is negative: set it to zero, for one hour, or more")
	errNotLoaded = errors.New("revocation: the list has not been loaded: call List.Follow or List.Apply; if Follow runs, see List.Status for the cause")
	errStale     = errors.New("revocation: the list is older than List.MaxStale: see List.Status for the cause")
	errNoClaims  = errors.New("revocation: Check needs a List and claims")
	errNoID      = fmt.Errorf(`%w: the token has no "jti", so it cannot be revoked by id: set List.AllowNoID to accept such tokens`, koreauth.ErrRevoked)
)

// unavailable is the rejection of a token that may be revoked.
func unavailable(cause error) error {
	return &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: cause, RetryAfter: time.Second}
}

// revokedError is the rejection of a revoked token.
type revokedError struct{ found }

// Error names the kind and the seq of the rule.
func (e *revokedError) Error() string {
	text := koreauth.ErrRevoked.Error() + ": by " + e.kind.String() + " rule "
	if e.seq == 0 {
		return text + "0 (from List.Apply)"
	}
	return text + strconv.FormatUint(e.seq, 10)
}

func (e *revokedError) Unwrap() error { return koreauth.ErrRevoked }

// Check returns nil if the token is not revoked. If it is, the error wraps
// [koreauth.ErrRevoked] and names the kind and the seq of the rule. The error is
// [koreauth.ErrUnavailable] if the list was not loaded, or is older than MaxStale. An
// issuer or a value over 256 bytes matches no rule. Check does not use r.
func (l *List) Check(r *http.Request, c *koreauth.Claims) error {
	if l == nil || c == nil {
		return unavailable(errNoClaims)
	}
	if err := l.usable(); err != nil {
		return unavailable(err)
	}
	if c.ID == "" && !l.AllowNoID {
		return errNoID
	}
	generation := l.rules.generation.Load() // before the look-up
	token, clean := l.known.look(c, generation)
	if clean {
		return nil
	}
	var id *hash
	if c.ID != "" && len(c.ID) <= maxValue {
		id = &token.hash
	}
	if rule, revoked := l.rules.find(c, token.issuer, id); revoked {
		return &revokedError{rule}
	}
	token.isClean(generation)
	return nil
}

// usable returns why the list must not be used, or nil.
func (l *List) usable() error {
	s := l.fresh.standing.Load()
	switch {
	case l.MaxStale < 0:
		return errNegative
	case s != nil && s.alone:
		return nil
	case s == nil || s.stamp == nil:
		if l.StartEmpty {
			return nil
		}
		return errNotLoaded
	case s.stamp.age() > cmp.Or(l.MaxStale, defaultMaxStale):
		return errStale
	}
	return nil
}

// Follow loads the rules of the store and follows it, and connects again after
// failures, until ctx is done. It then returns the error of ctx. It returns another
// error at once if s is nil or a field of the list is wrong.
//
// If the store is a [Fleet], Follow also reports how far this process is, and gives
// back rules that the store has lost or never had. To follow two stores, call Follow
// twice: the list then has the rules of both, and is complete when both say so.
//
// A receipt that is not valid is skipped, and reported in Status and to Logger. A panic
// of the store counts as a failure.
func (l *List) Follow(ctx context.Context, s Store) error {
	err := error(nil)
	switch {
	case l == nil:
		return errors.New("revocation: Follow needs a List")
	case isNil(s):
		err = errors.New("revocation: Follow needs a Store: use Memory or File, or koreredis.Revocations")
	case l.MaxStale < 0:
		err = errNegative
	}
	if err != nil {
		l.journal.log(l.Logger, slog.LevelError, err.Error()) // The result of "go l.Follow(…)" is lost.
		return err
	}
	l.cache.once.Do(l.loadCache)
	return (&following{list: l, store: s}).follow(withLogger(ctx, l.Logger))
}

// Apply applies rules in this process only: no store and no CacheFile gets them. It is
// for tests and for lists that do not change. If a rule is not valid, none is applied,
// and the error says what is wrong with each.
//
// A list that is fed by Apply alone counts as loaded, and never gets stale. Apply
// without rules makes a list that revokes nothing.
func (l *List) Apply(rules ...Rule) error {
	if l.MaxStale < 0 {
		return errNegative
	}
	now := time.Now()
	receipts, keys := make([]Receipt, len(rules)), make([]key, len(rules))
	var faults []error
	for i, r := range rules {
		complete, err := r.Complete(now)
		if err != nil {
			faults = append(faults, fmt.Errorf("rule %d of %d: %w", i+1, len(rules), err))
			continue
		}
		receipts[i].Rule, keys[i] = complete, keyOfRule(&complete)
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	l.rules.mu.Lock()
	l.rules.tokens.reserve(len(rules))
	for i := range receipts {
		receipts[i].At = l.rules.nextAt(now)
		l.rules.add(&receipts[i], keys[i], fromApply, now)
	}
	l.rules.mu.Unlock()
	l.rules.tidy()
	l.fresh.apply()
	for i := range min(len(rules), maxAudited) {
		l.journal.audit(l.Logger, &receipts[i], keys[i])
	}
	if more := len(rules) - maxAudited; more > 0 {
		l.journal.log(l.Logger, slog.LevelInfo, "revocation: rules applied", slog.Int("rules", len(rules)), slog.Int("without_record", more))
	}
	return nil
}

// Status describes the list.
func (l *List) Status() Status {
	entries := l.rules.entries()
	seq, current, err := l.fresh.status()
	return Status{Entries: entries, Seq: seq, Current: current, Err: err}
}

// wouldStop returns how many of the last 10,000 tokens that Check has seen, and that
// have not expired, the rule selects, whether they are already revoked or not, and
// their clients in order.
func (l *List) wouldStop(rule Rule) (tokens int, clients []string) {
	now := time.Now()
	complete, err := rule.Complete(now)
	if err != nil {
		return 0, nil
	}
	return l.known.stoppedBy(&complete, now)
}

// loadCache reads CacheFile.
func (l *List) loadCache() {
	if l.CacheFile == "" {
		return
	}
	current, err := l.cache.load(l.CacheFile, &l.rules)
	l.cache.generation, l.cache.current = l.rules.generation.Load(), current
	l.fresh.load(current, err)
	if err != nil {
		l.warnOfCache(err)
	}
}

// saveCache writes CacheFile if that is due, or at the end of Follow.
func (l *List) saveCache(last bool) {
	s := l.fresh.standing.Load()
	if l.CacheFile == "" || s == nil || s.stamp == nil {
		return
	}
	if last {
		l.cache.mu.Lock()
	} else if !l.cache.mu.TryLock() {
		return // Another Follow writes it.
	}
	defer l.cache.mu.Unlock()
	c, generation, current := &l.cache, l.rules.generation.Load(), s.stamp.at
	isNew, passed := generation != c.generation, current.Sub(c.current)
	switch {
	case !isNew && passed <= 0:
		return
	case last, isNew && time.Since(c.begun) >= cachePause, passed >= max(cachePause, cmp.Or(l.MaxStale, defaultMaxStale)/10):
	default:
		return
	}
	c.begun = time.Now()
	if err := c.save(l.CacheFile, current, &l.rules); err != nil {
		l.warnOfCache(err)
		return
	}
	c.generation, c.current = generation, current
}

// cachePause is the time between two writes of CacheFile. With the second between two
// looks, a change is written within five seconds.
const cachePause = 4 * time.Second

func (l *List) warnOfCache(err error) {
	l.journal.warn(l.Logger, "cache", "revocation: the cache file cannot be used", slog.String("file", l.CacheFile), slog.String("cause", redact.Text(err.Error())))
}
