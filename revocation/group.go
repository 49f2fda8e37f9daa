package revocation

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// instant is a time in less memory than a time.Time.
type instant struct {
	sec  int64
	nsec int32
}

func instantOf(t time.Time) instant { return instant{t.Unix(), int32(t.Nanosecond())} }

func (m instant) time() time.Time { return time.Unix(m.sec, int64(m.nsec)).UTC() }

func (m instant) compare(n instant) int {
	return cmp.Or(cmp.Compare(m.sec, n.sec), cmp.Compare(m.nsec, n.nsec))
}

func latest(a, b instant) instant {
	if a.compare(b) < 0 {
		return b
	}
	return a
}

// key is what a rule selects.
type key struct {
	kind  kind
	hash  hash
	clear bool // issuer and value are known
	// They are empty if clear is false.
	issuer, value string
}

// keyOfRule returns the key of a complete rule.
func keyOfRule(r *Rule) key {
	if r.Hash != "" {
		k, h, _ := parseHash(r.Hash) // Complete has checked it.
		return key{kind: k, hash: h}
	}
	k, value := r.selection()
	return key{kind: k, hash: hashOf(k, r.Issuer, value), clear: true, issuer: r.Issuer, value: value}
}

// heldRule is a rule of a known key, or a lift.
type heldRule struct {
	at, issuedBefore, until instant
	seq                     uint64
	foreign                 bool // as in tokenRule
}

// compare compares by at, then by seq.
func (r *heldRule) compare(other *heldRule) int {
	return cmp.Or(r.at.compare(other.at), cmp.Compare(r.seq, other.seq))
}

// same reports whether the two were appended as one rule. A store that was refilled
// gives it another seq.
func (r *heldRule) same(other *heldRule) bool {
	return r.at == other.at && r.issuedBefore == other.issuedBefore && r.until == other.until
}

// covers reports whether other makes no difference beside r: r is at least as late,
// so that whatever lifts r lifts other, and it revokes at least as much for as long.
func (r *heldRule) covers(other *heldRule) bool {
	return r.compare(other) >= 0 && r.issuedBefore.compare(other.issuedBefore) >= 0 && r.until.compare(other.until) >= 0
}

// layer has the rules of one key from the stores, or those from Apply. It has what
// every order of the same rules leaves: the last lift, and the rules that are not
// earlier and that no other rule covers. It is immutable.
type layer struct {
	lift  *lift
	rules []heldRule
}

// lift is the last lift of a key. Its until is the latest of all that it lifts, since
// another replica may bring them back.
type lift struct {
	heldRule
	forget instant // when it is dropped
}

// effect is what adding a rule changed.
type effect int

const (
	repeated effect = iota // the rule is held already
	covered                // the rule is new and makes no difference
	changed
)

// with returns the layer with one more rule.
func (l layer) with(r heldRule) (layer, effect) {
	if l.lift != nil && r.compare(&l.lift.heldRule) < 0 {
		if r.until.compare(l.lift.until) <= 0 {
			return l, covered
		}
		longer := *l.lift
		longer.until, longer.forget = r.until, latest(longer.forget, r.until)
		l.lift = &longer
		return l, covered
	}
	for i := range l.rules {
		held := &l.rules[i]
		if held.same(&r) {
			if r.seq <= held.seq && held.foreign == (held.foreign && r.foreign) {
				return l, repeated
			}
			l.rules = slices.Clone(l.rules)
			l.rules[i].seq, l.rules[i].foreign = max(held.seq, r.seq), held.foreign && r.foreign
			return l, repeated
		}
		if held.covers(&r) {
			return l, covered
		}
	}
	l.rules = slices.DeleteFunc(slices.Clone(l.rules), func(held heldRule) bool { return r.covers(&held) })
	l.rules = append(slices.Clip(l.rules), r)
	return l, changed
}

// withLift returns the layer with one more lift, which is kept until forget or longer.
func (l layer) withLift(r heldRule, forget instant) (layer, effect) {
	next := lift{r, latest(forget, r.until)}
	result := changed
	if old := l.lift; old != nil {
		last := old.heldRule
		switch {
		case old.at == r.at && old.issuedBefore == r.issuedBefore:
			result = repeated
			last.seq, last.foreign = max(last.seq, r.seq), last.foreign && r.foreign
		case old.compare(&r) > 0:
			result = covered
		default:
			last = r
		}
		last.until = latest(old.until, r.until)
		next = lift{last, latest(latest(old.forget, next.forget), last.until)}
		if next == *old {
			return l, result
		}
	}
	l.lift = &next
	l.rules = slices.DeleteFunc(slices.Clone(l.rules), func(held heldRule) bool {
		if held.compare(&next.heldRule) >= 0 {
			return false
		}
		next.until, next.forget = latest(next.until, held.until), latest(next.forget, held.until)
		return true
	})
	l.rules = slices.Clip(l.rules)
	return l, result
}

// foreign returns how many of the rules are foreign.
func (l *layer) foreign() (n int) {
	for i := range l.rules {
		if l.rules[i].foreign {
			n++
		}
	}
	if l.lift != nil && l.lift.foreign {
		n++
	}
	return n
}

// verdict is what the rules of a key say together. The zero verdict revokes nothing.
type verdict struct {
	issuedBefore instant // a token with a later "iat" is not revoked
	until        instant // and nothing is revoked from grace later on
	seq          uint64  // of the rule with issuedBefore
	revokes      bool
}

// groupState is immutable.
type groupState struct {
	// shared has the rules from the stores, and local those from Apply: a local lift
	// must not make the list forget rules that it may have to give back to a store.
	shared, local layer
	verdict       verdict
}

// lastLift returns the last lift of the two layers, or nil.
func (s *groupState) lastLift() *heldRule {
	var last *heldRule
	for _, l := range s.layers() {
		if l.lift != nil && (last == nil || l.lift.compare(last) > 0) {
			last = &l.lift.heldRule
		}
	}
	return last
}

func (s *groupState) layers() [2]*layer { return [...]*layer{&s.shared, &s.local} }

// judge sets verdict. Of the rules that are not earlier than the last lift, the
// latest IssuedBefore and the latest Until count.
func (s *groupState) judge() {
	last, v := s.lastLift(), verdict{}
	for _, l := range s.layers() {
		for i := range l.rules {
			if r := &l.rules[i]; !r.isLifted(last) {
				v.include(r)
			}
		}
	}
	s.verdict = v
}

// isLifted reports whether the last lift, if there is one, ends the rule.
func (r *heldRule) isLifted(last *heldRule) bool { return last != nil && r.compare(last) < 0 }

func (v *verdict) include(r *heldRule) {
	if c := r.issuedBefore.compare(v.issuedBefore); !v.revokes || c > 0 || c == 0 && r.seq > v.seq {
		v.issuedBefore, v.seq = r.issuedBefore, r.seq
	}
	if !v.revokes || r.until.compare(v.until) > 0 {
		v.until = r.until
	}
	v.revokes = true
}

// expired returns the state without what has ended at the moment. The rules in force
// end together, because the latest Until counts. A lift stays as long as there is
// something that it lifts.
func (s *groupState) expired(ended instant) *groupState {
	next, last := *s, s.lastLift()
	for _, l := range next.layers() {
		l.rules = slices.DeleteFunc(slices.Clone(l.rules), func(r heldRule) bool {
			if r.isLifted(last) {
				return r.until.compare(ended) <= 0
			}
			return s.verdict.until.compare(ended) <= 0
		})
	}
	for _, l := range next.layers() {
		if l.lift != nil && l.lift.forget.compare(ended) <= 0 && !next.hasRuleBefore(&l.lift.heldRule) {
			l.lift = nil
		}
	}
	next.judge()
	return &next
}

func (s *groupState) hasRuleBefore(lift *heldRule) bool {
	for _, l := range s.layers() {
		if slices.ContainsFunc(l.rules, func(r heldRule) bool { return r.isLifted(lift) }) {
			return true
		}
	}
	return false
}

func (s *groupState) isEmpty() bool {
	return s.shared.lift == nil && s.local.lift == nil && len(s.shared.rules)+len(s.local.rules) == 0
}

// due returns when expired changes something, or later than any moment.
func (s *groupState) due() instant {
	due, last := instant{sec: neverDue}, s.lastLift()
	include := func(m instant) {
		if m.compare(due) < 0 {
			due = m
		}
	}
	for _, l := range s.layers() {
		for i := range l.rules {
			if l.rules[i].isLifted(last) {
				include(l.rules[i].until)
			}
		}
		if l.lift != nil && !s.hasRuleBefore(&l.lift.heldRule) {
			include(l.lift.forget)
		}
	}
	if s.verdict.revokes {
		include(s.verdict.until)
	}
	return due
}

// group has the rules of one key.
type group struct {
	kind  kind
	clear bool // issuer and value are set
	hash  hash
	// issuer and value are set before the group is added to the index by name.
	issuer, value string
	place         uint64 // in the index by name
	state         atomic.Pointer[groupState]
}

// emptyState is the state of a group without rules.
var emptyState = new(groupState)
