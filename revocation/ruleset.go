package revocation

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
)

// grace is how long after its Until a rule still revokes, for clocks that differ.
const grace = 5 * time.Minute

// ruleSet has the rules that a List knows. find takes no lock: it never waits for a
// change.
type ruleSet struct {
	// generation grows with each change of what is revoked. A token that was not
	// revoked stays so as long as generation stays.
	generation atomic.Uint64
	tokens     table
	// The groups have the rules of all other keys, and those of tokens that have
	// more than one rule. byName has the groups whose issuer and value are known.
	byHash, byName index
	// unnamed counts the groups that are not in byName, by kind. Groups of tokens
	// never are.
	unnamed [kinds]atomic.Int64

	mu      sync.Mutex // guards changes of all fields
	inForce int        // groups that revoke something
	empty   int        // groups without rules
	foreign int        // rules that no store has given
	due     instant    // no group expires earlier
	started bool       // the fields below and due are set
	issuers map[string]string
	last    time.Time // the latest At
}

// found is a rule that revokes a token.
type found struct {
	kind kind
	seq  uint64
}

// find returns the rule that revokes a token, if there is one. token is the hash of
// its ID, or nil if no rule can match the ID.
func (s *ruleSet) find(c *koreauth.Claims, issuer uint64, token *hash) (found, bool) {
	if len(c.Issuer) > maxValue {
		return found{}, false
	}
	if token != nil {
		if r, ok := s.tokens.find(*token); ok && time.Now().Before(time.Unix(0, r.until).Add(grace)) {
			return found{kindToken, r.seq}, true
		}
		if s.unnamed[kindToken].Load() > 0 {
			if g := s.byHash.findHash(kindToken, *token); g != nil {
				if v := &g.state.Load().verdict; v.applies(time.Time{}) {
					return found{kindToken, v.seq}, true
				}
			}
		}
	}
	for k, value := range [kinds]string{kindClient: c.ClientID, kindAccount: c.AccountID, kindSubject: c.Subject} {
		k := kind(k)
		if k == kindToken || value == "" && k != kindIssuer || len(value) > maxValue {
			continue
		}
		unnamed := s.unnamed[k].Load() // before the look-up by name, because groups get names
		g := s.byName.findName(placeOf(k, issuer, value), k, c.Issuer, value)
		if g == nil && unnamed > 0 {
			g = s.byHash.findHash(k, hashOf(k, c.Issuer, value))
		}
		if g != nil {
			if v := &g.state.Load().verdict; v.applies(c.IssuedAt) {
				return found{k, v.seq}, true
			}
		}
	}
	return found{}, false
}

// applies reports whether a token with this "iat", or with none, is revoked.
func (v *verdict) applies(issuedAt time.Time) bool {
	return v.revokes &&
		instantOf(issuedAt).compare(v.issuedBefore) <= 0 && // The zero time is earlier than any other.
		time.Now().Before(v.until.time().Add(grace))
}

// origin is where a rule comes from.
type origin int

const (
	fromStore origin = iota
	fromCache
	fromApply
)

// add adds a valid rule. The caller must hold mu.
func (s *ruleSet) add(r *Receipt, k key, from origin, now time.Time) effect {
	s.start()
	if r.At.After(s.last) {
		s.last = r.At
	}
	if !r.Rule.Lift && !now.Before(r.Rule.Until.Add(grace)) {
		return repeated
	}
	if k.kind == kindToken && !r.Rule.Lift {
		if result, ok := s.addToken(r, k, from); ok {
			return result
		}
	}
	return s.addToGroup(r, k, from, now)
}

func (s *ruleSet) start() {
	if s.started {
		return
	}
	s.started = true
	s.byHash.placeOf, s.byName.placeOf = groupsByHash, groupsByName
	s.due = instant{sec: neverDue}
	s.issuers = make(map[string]string)
}

// nextAt returns At for a rule of Apply: later than that of any other rule, so that a
// lift ends what the list has, even if the clock of the store is ahead.
func (s *ruleSet) nextAt(now time.Time) time.Time {
	if now.After(s.last) {
		return now.Round(0)
	}
	return s.last.Add(1)
}

// addToken adds the rule of a token to the table. It returns false if the rules of
// the token belong in a group.
func (s *ruleSet) addToken(r *Receipt, k key, from origin) (effect, bool) {
	if s.unnamed[kindToken].Load() > 0 && s.byHash.findHash(kindToken, k.hash) != nil {
		return 0, false
	}
	at, ok := toNanoseconds(r.At)
	until, alsoOK := toNanoseconds(r.Rule.Until)
	t := tokenRule{hash: k.hash, at: at, until: until, seq: r.Seq, foreign: from == fromCache}
	if !ok || !alsoOK || !t.fits() {
		return 0, false
	}
	held, ok := s.tokens.find(k.hash)
	switch {
	case !ok:
		s.tokens.insert(t)
	case (held.seq == 0) != (t.seq == 0), held.at == t.at && held.until != t.until:
		return 0, false
	case held.at == t.at:
		t.seq, t.foreign = max(t.seq, held.seq), t.foreign && held.foreign
		s.countForeign(held.foreign, t.foreign)
		s.tokens.update(t)
		return repeated, true
	case held.at > t.at && held.until >= t.until:
		return covered, true
	case held.at < t.at && held.until <= t.until:
		s.tokens.insert(t)
		s.tokens.remove(k.hash, held.at)
	default:
		return 0, false
	}
	s.countForeign(held.foreign, t.foreign)
	s.generation.Add(1)
	return changed, true
}

func (s *ruleSet) countForeign(before, after bool) {
	if before {
		s.foreign--
	}
	if after {
		s.foreign++
	}
}

// addToGroup adds a rule to the group of its key.
func (s *ruleSet) addToGroup(r *Receipt, k key, from origin, now time.Time) effect {
	g := s.byHash.findHash(k.kind, k.hash)
	isNew := g == nil
	if isNew {
		g = &group{kind: k.kind, hash: k.hash}
		g.state.Store(emptyState)
		s.empty++
	}
	old := g.state.Load()
	next := *old
	if ended := instantOf(now.Add(-grace)); old.due().compare(ended) <= 0 {
		next = *old.expired(ended)
	}
	compact, wasCompact := tokenRule{}, false
	if k.kind == kindToken {
		if compact, wasCompact = s.tokens.find(k.hash); wasCompact {
			l, rule := next.layer(compact.seq == 0), compact.held()
			*l, _ = l.with(rule)
			s.countForeign(compact.foreign, false) // replace counts it again
		}
	}
	held := heldRule{instantOf(r.At), instantOf(r.Rule.IssuedBefore), instantOf(r.Rule.Until), r.Seq, from == fromCache}
	l, result := next.layer(from == fromApply), changed
	if r.Rule.Lift {
		// What it lifts may arrive later, and may last longer than the lift.
		*l, result = l.withLift(held, latest(instantOf(lifetime(r.At)), instantOf(now.Add(24*time.Hour))))
	} else {
		*l, result = l.with(held)
	}
	next.judge()
	s.replace(g, &next)
	if isNew {
		s.byHash.add(g)
		s.unnamed[g.kind].Add(1)
	}
	s.name(g, k)
	if wasCompact {
		s.tokens.remove(k.hash, compact.at) // after the group has it
	}
	if next.verdict != old.verdict || wasCompact {
		s.generation.Add(1)
	}
	return result
}

// held returns the rule in the form of groups.
func (r *tokenRule) held() heldRule {
	return heldRule{at: instantOf(time.Unix(0, r.at)), issuedBefore: instantOf(time.Time{}), until: instantOf(time.Unix(0, r.until)), seq: r.seq, foreign: r.foreign}
}

func (s *groupState) layer(local bool) *layer {
	if local {
		return &s.local
	}
	return &s.shared
}

// replace sets the state of a group.
func (s *ruleSet) replace(g *group, next *groupState) {
	old := g.state.Load()
	s.foreign += next.shared.foreign() - old.shared.foreign()
	s.inForce += count(next.verdict.revokes) - count(old.verdict.revokes)
	s.empty += count(next.isEmpty()) - count(old.isEmpty())
	if due := next.due(); due.compare(s.due) < 0 {
		s.due = due
	}
	g.state.Store(next)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// name adds a group to byName, if its name is known and it is not there.
func (s *ruleSet) name(g *group, k key) {
	if !k.clear || g.clear || g.kind == kindToken {
		return
	}
	issuer, ok := s.issuers[k.issuer]
	if !ok {
		issuer = strings.Clone(k.issuer)
		s.issuers[issuer] = issuer
	}
	g.issuer, g.value, g.clear = issuer, strings.Clone(k.value), true
	g.place = placeOf(g.kind, hashOfIssuer(issuer), g.value)
	s.byName.add(g)
	s.unnamed[g.kind].Add(-1) // after the group can be found by name
}

// sweep removes what has ended. The caller must hold mu.
func (s *ruleSet) sweep(now time.Time) {
	s.start()
	ended := now.Add(-grace)
	for i := range s.tokens.shards {
		s.tokens.sweep(i, ended.UnixNano(), func(r tokenRule) { s.countForeign(r.foreign, false) })
	}
	last := instantOf(ended)
	if s.due.compare(last) > 0 {
		return
	}
	s.due = instant{sec: neverDue}
	for g := range s.byHash.all() {
		next := g.state.Load()
		if next.due().compare(last) <= 0 {
			next = next.expired(last)
		}
		s.replace(g, next) // also for s.due
	}
	if s.empty > s.byHash.used/8 {
		s.dropEmpty()
	}
}

// dropEmpty removes the groups without rules.
func (s *ruleSet) dropEmpty() {
	keep := func(g *group) bool { return !g.state.Load().isEmpty() }
	s.byName.retain(keep)
	s.byHash.retain(func(g *group) bool {
		if !keep(g) && !g.clear {
			s.unnamed[g.kind].Add(-1)
		}
		return keep(g)
	})
	s.empty = 0
	clear(s.issuers)
	for g := range s.byName.all() {
		s.issuers[g.issuer] = g.issuer
	}
}

// tidy makes the set as small as it can be.
func (s *ruleSet) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(time.Now())
	s.tokens.trim()
}

// entries returns how many keys have rules in force.
func (s *ruleSet) entries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(time.Now())
	return s.tokens.live + s.inForce
}

// hasForeign reports whether there are rules from the cache file that no store has
// given.
func (s *ruleSet) hasForeign() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.foreign > 0
}

// sharedRule is a rule that stores have, or should have.
type sharedRule struct {
	kind kind
	hash hash
	lift bool
	heldRule
}

// receipt returns the rule as it was appended, but for the name.
func (r *sharedRule) receipt() Receipt {
	return Receipt{Seq: r.seq, At: r.at.time(), Rule: Rule{
		Hash: formatHash(r.kind, r.hash), Lift: r.lift, IssuedBefore: r.issuedBefore.time(), Until: r.until.time(),
	}}
}

// export calls f with all rules that are not from Apply. A rule that is added at the
// same time may be left out. f is called without the lock.
func (s *ruleSet) export(f func(*sharedRule)) {
	ended := instantOf(time.Now().Add(-grace))
	var batch []sharedRule
	flush := func() {
		s.mu.Unlock()
		for i := range batch {
			if r := &batch[i]; r.lift || r.until.compare(ended) > 0 {
				f(r)
			}
		}
		batch = batch[:0]
	}
	// The table first: a rule moves from there to the groups, and never back.
	for i := range s.tokens.shards {
		s.mu.Lock()
		if sh := s.tokens.shards[i].Load(); sh != nil {
			for slot := range sh.size {
				if r := sh.rule(slot); r.at != 0 && r.seq != 0 {
					batch = append(batch, sharedRule{kindToken, r.hash, false, r.held()})
				}
			}
		}
		flush()
	}
	s.mu.Lock()
	for g := range s.byHash.all() {
		l := &g.state.Load().shared
		for _, r := range l.rules {
			batch = append(batch, sharedRule{g.kind, g.hash, false, r})
		}
		if l.lift != nil {
			batch = append(batch, sharedRule{g.kind, g.hash, true, l.lift.heldRule})
		}
	}
	flush()
}
