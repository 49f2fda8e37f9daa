package revocation

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/redact"
)

// journal writes to the Logger of a List. A Logger that blocks or panics must not keep
// rules from being applied.
type journal struct {
	once sync.Once
	turn chan struct{} // has an element while the Logger is called

	mu      sync.Mutex // guards the fields below; not held while logging
	running bool
	stuck   bool // a call of the Logger has not returned in time
	lost    int  // records left out because of that
	warned  map[string]time.Time
	audited []audited // the last rules with a record, in no order
	oldest  int       // in audited, when it is full
}

// audited identifies a rule that has an audit record.
type audited struct {
	seq uint64
	at  int64 // in nanoseconds
	key hash
}

// maxRemembered is how many rules with a record are remembered, so that a rule which
// the handler appends gets one, whether the handler or Follow has it first.
const maxRemembered = 256

const (
	logPatience = time.Second // how long a call of the Logger may take
	warnPause   = time.Minute // between two warnings about one subject
)

// log writes a record. It returns when the Logger does, or after logPatience.
func (j *journal) log(to *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	if to == nil {
		return
	}
	j.once.Do(func() { j.turn = make(chan struct{}, 1) })
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	lost, ok := j.begin(timer.C)
	if !ok {
		return
	}
	if lost > 0 {
		attrs = append(attrs, slog.Int("lost_records", lost))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer j.end()
		to.LogAttrs(context.Background(), level, message, attrs...)
	}()
	select {
	case <-done:
	case <-timer.C:
		j.mu.Lock()
		j.stuck = j.running
		j.mu.Unlock()
	}
}

// begin waits until no other call of the Logger runs. It returns false if that takes
// too long; else, how many records were lost before.
func (j *journal) begin(timeout <-chan time.Time) (lost int, ok bool) {
	j.mu.Lock()
	stuck := j.stuck
	j.mu.Unlock()
	if !stuck {
		select {
		case j.turn <- struct{}{}:
			ok = true
		case <-timeout:
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !ok {
		j.lost++
		return 0, false
	}
	lost, j.lost, j.running = j.lost, 0, true
	return lost, true
}

// end is deferred by the goroutine that calls the Logger. No server recovers a panic
// there.
func (j *journal) end() {
	_ = recover()
	j.mu.Lock()
	j.running, j.stuck = false, false
	j.mu.Unlock()
	<-j.turn
}

// warn writes a warning, at most one a minute about each subject.
func (j *journal) warn(to *slog.Logger, subject, message string, attrs ...slog.Attr) {
	if to == nil {
		return
	}
	now := time.Now()
	j.mu.Lock()
	last, ok := j.warned[subject]
	due := !ok || now.Sub(last) >= warnPause
	if due {
		if j.warned == nil {
			j.warned = make(map[string]time.Time)
		}
		j.warned[subject] = now
	}
	j.mu.Unlock()
	if due {
		j.log(to, slog.LevelWarn, message, attrs...)
	}
}

// audit records that a rule was applied. The ID of a token, the account and the
// subject are left out, because they may name a person.
func (j *journal) audit(to *slog.Logger, r *Receipt, k key) {
	if to == nil || r.Seq != 0 && !j.first(audited{r.Seq, r.At.UnixNano(), k.hash}) {
		return
	}
	attrs := redact.Attrs{slog.String("kind", k.kind.String()), slog.Uint64("seq", r.Seq), slog.Time("at", r.At)}
	if r.Rule.Lift {
		attrs = append(attrs, slog.Bool("lift", true))
	}
	attrs.Add("issuer", redact.Verified(r.Rule.Issuer))
	attrs.Add("client", redact.Verified(r.Rule.Client))
	attrs.Add("reason", redact.Text(r.Rule.Reason))
	attrs.Add("by", redact.Text(r.Rule.By))
	j.log(to, slog.LevelInfo, "revocation: rule applied", attrs...)
}

// first notes that a rule has a record, and reports whether it had none.
func (j *journal) first(rule audited) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(j.audited, rule) {
		return false
	}
	if len(j.audited) < maxRemembered {
		j.audited = append(j.audited, rule)
		return true
	}
	j.audited[j.oldest] = rule
	j.oldest = (j.oldest + 1) % maxRemembered
	return true
}
