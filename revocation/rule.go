package revocation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/koreauth/koreauth/internal/secret"
	"github.com/koreauth/koreauth/internal/strictjson"
)

// Rule revokes tokens of an issuer: one token, or all tokens of a client, account,
// subject or of the whole issuer that were issued at or before a moment. Set exactly
// one of Token, Client, Account, Subject, Everything and Hash.
type Rule struct {
	// Issuer is the "iss" of the tokens. It is required, unless Hash is set.
	Issuer string `json:"issuer,omitempty"`
	// Token is the "jti" of one token (RFC 7519 §4.1.7).
	Token string `json:"token,omitempty"`
	// Client is the "client_id" of tokens, or their "azp" if they have none.
	Client string `json:"client,omitempty"`
	// Account is the "account-id" of tokens.
	Account string `json:"account,omitempty"`
	// Subject is the "sub" of tokens.
	Subject string `json:"subject,omitempty"`
	// Everything selects all tokens of Issuer.
	Everything bool `json:"everything,omitempty"`
	// IssuedBefore revokes the tokens whose "iat" is at or before it, and those
	// without "iat". Zero means the time at which the rule is appended. A rule with
	// Token does not use it.
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	// Until is when the rule may be forgotten, which should be when the last of the
	// tokens expires. Zero means 24 months and a day after IssuedBefore or, with
	// Token, after the rule is appended.
	Until time.Time `json:"until,omitzero"`
	// Lift ends the earlier rules with the same issuer and the same selection.
	Lift bool `json:"lift,omitempty"`
	// Hash replaces Issuer and the selection. It is for a list that refills its
	// store, which may know nothing else of a rule. See [Rule.Hashed].
	Hash string `json:"hash,omitempty"`
	// Reason and By say why the rule was made, and by whom. They are for the audit
	// log.
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

// Receipt is a rule that a store has.
type Receipt struct {
	// Seq is the number of the rule in its store. It grows with each rule.
	Seq uint64 `json:"seq"`
	// At is when the rule was first appended, by the clock of the store. A store
	// gives each new rule a later At than the one before.
	At   time.Time `json:"at"`
	Rule Rule      `json:"rule"`
}

// maxValue is the maximum length of an issuer and of a selected value, in bytes. A
// longer claim matches no rule.
const maxValue = 256

// kind is what a rule selects.
type kind uint8

const (
	kindToken kind = iota
	kindClient
	kindAccount
	kindSubject
	kindIssuer
	kinds // how many there are
)

var kindNames = [kinds]string{"token", "client", "account", "subject", "issuer"}

func (k kind) String() string { return kindNames[k] }

// selection returns what the rule selects. It must be complete, and have no Hash.
func (r *Rule) selection() (kind, string) {
	switch {
	case r.Token != "":
		return kindToken, r.Token
	case r.Client != "":
		return kindClient, r.Client
	case r.Account != "":
		return kindAccount, r.Account
	case r.Subject != "":
		return kindSubject, r.Subject
	}
	return kindIssuer, ""
}

// lifetime is the longest lifetime of a KORE token, and a day for clocks that differ.
func lifetime(from time.Time) time.Time { return from.AddDate(0, 24, 1) }

// Complete returns the rule with its zero moments filled in, for a rule that is
// appended at that time. A [Store] calls it in Append. The error lists all faults of
// the rule.
func (r Rule) Complete(at time.Time) (Rule, error) {
	var faults []error
	fault := func(found bool, format string, args ...any) {
		if found {
			faults = append(faults, fmt.Errorf("revocation: "+format, args...))
		}
	}
	var set []string
	for _, m := range []struct{ name, value string }{
		{"Token", r.Token}, {"Client", r.Client}, {"Account", r.Account}, {"Subject", r.Subject}, {"Hash", r.Hash},
	} {
		if m.value != "" {
			set = append(set, m.name)
		}
		fault(len(m.value) > maxValue, "Rule.%s is longer than %d bytes: no claim that long is matched", m.name, maxValue)
		fault(!utf8.ValidString(m.value), "Rule.%s is not valid UTF-8: no claim has such a value", m.name)
	}
	if r.Everything {
		set = append(set, "Everything")
	}
	fault(len(set) == 0, "Rule selects no tokens: set Token, Client, Account or Subject, or Everything for all tokens of the issuer")
	fault(len(set) > 1, "Rule has %s: set one of them", strings.Join(set, " and "))
	fault(r.Issuer == "" && r.Hash == "", `Rule.Issuer is empty: set it to the "iss" of the tokens`)
	fault(r.Issuer != "" && r.Hash != "", "Rule has Issuer and Hash: the hash already has the issuer, so leave Issuer empty")
	fault(len(r.Issuer) > maxValue, "Rule.Issuer is longer than %d bytes: no claim that long is matched", maxValue)
	fault(!utf8.ValidString(r.Issuer), "Rule.Issuer is not valid UTF-8: no claim has such a value")
	k := kindToken
	if r.Hash != "" {
		var err error
		k, _, err = parseHash(r.Hash)
		fault(err != nil, "Rule.Hash is not a hash that a List made")
	} else {
		k, _ = r.selection()
	}
	from := at
	if k == kindToken {
		r.IssuedBefore = time.Time{}
	} else {
		if r.IssuedBefore.IsZero() {
			r.IssuedBefore = at
		}
		from = r.IssuedBefore
	}
	if r.Until.IsZero() {
		r.Until = lifetime(from)
	}
	r.IssuedBefore, r.Until = r.IssuedBefore.UTC(), r.Until.UTC()
	fault(r.IssuedBefore.After(r.Until), "Rule.IssuedBefore is after Rule.Until: the rule would be forgotten before it applies, so set a later Until")
	// JSON and RFC 3339 have no other years. Without a matching Until, it depends on
	// IssuedBefore.
	fault(r.IssuedBefore.Year() < 1 || r.Until.Year() < 1 || r.IssuedBefore.Year() > 9999 || r.Until.Year() > 9999,
		"Rule.IssuedBefore or Rule.Until is not in the years 1 to 9999: set other moments")
	if len(faults) > 0 {
		return Rule{}, errors.Join(faults...)
	}
	return r, nil
}

// Hashed returns the rule with Hash in place of the issuer and the selection, and
// without Reason and By. Two rules have the same Hash if they select the same tokens.
// The rule must be valid.
func (r Rule) Hashed() Rule {
	if r.Hash == "" {
		k, value := r.selection()
		r.Hash = formatHash(k, hashOf(k, r.Issuer, value))
	}
	return Rule{IssuedBefore: r.IssuedBefore, Until: r.Until, Lift: r.Lift, Hash: r.Hash}
}

// hash identifies what a rule selects. It is half a SHA-256.
type hash [16]byte

// hashOf returns the hash of a selection. issuer and value have at most maxValue
// bytes.
func hashOf(k kind, issuer, value string) hash {
	var text [3 + 2*maxValue]byte
	b := append(text[:0], byte(k), byte(len(issuer)), byte(len(issuer)>>8))
	b = append(append(b, issuer...), value...)
	sum := sha256.Sum256(b)
	return hash(sum[:16])
}

func formatHash(k kind, h hash) string { return k.String() + ":" + hex.EncodeToString(h[:]) }

func parseHash(text string) (kind, hash, error) {
	name, digits, _ := strings.Cut(text, ":")
	for k := range kinds {
		if kindNames[k] != name {
			continue
		}
		var h hash
		if b, err := hex.DecodeString(digits); err == nil && len(b) == len(h) && digits == strings.ToLower(digits) {
			return k, hash(b), nil
		}
	}
	return 0, hash{}, errors.New("revocation: not a hash")
}

// UnmarshalJSON reads a rule strictly: an unknown or duplicate member, a name in
// another case, and a value of the wrong type are errors. It does not call Complete.
func (r *Rule) UnmarshalJSON(data []byte) error {
	read, err := readRule(string(data))
	if err == nil {
		*r = read
	}
	return err
}

// The members of a rule that somebody may ask for, and of one in a store.
var (
	askedMembers = []string{"issuer", "token", "client", "account", "subject", "everything", "issued_before", "until", "reason"}
	ruleMembers  = append(slices.Clip(askedMembers), "lift", "hash", "by")
)

// readRule reads the JSON object of a rule in a store.
func readRule(text string) (Rule, error) { return readRuleMembers(text, ruleMembers) }

// readRuleMembers reads the JSON object of a rule, with these members and no others. The
// error names the member at fault, and never quotes a value, which may be a token.
func readRuleMembers(text string, members []string) (Rule, error) {
	var rule Rule
	var faults []error
	wrong := func(ok bool, name, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("revocation: member %q must be %s", name, want))
		}
	}
	texts := map[string]*string{
		"issuer": &rule.Issuer, "token": &rule.Token, "client": &rule.Client, "account": &rule.Account,
		"subject": &rule.Subject, "hash": &rule.Hash, "reason": &rule.Reason, "by": &rule.By,
	}
	flags := map[string]*bool{"everything": &rule.Everything, "lift": &rule.Lift}
	times := map[string]*time.Time{"issued_before": &rule.IssuedBefore, "until": &rule.Until}
	r := strictjson.ReadObject(text)
	for r.More() {
		name := r.Name()
		if !slices.Contains(members, name) {
			faults = append(faults, errors.New("revocation: "+unknownName("member", name, members)))
			r.Skip()
		} else if to := texts[name]; to != nil {
			value, ok := r.String()
			*to = value
			wrong(ok, name, "a string")
		} else if to := flags[name]; to != nil {
			value := r.Raw()
			*to = value == "true"
			wrong(value == "true" || value == "false", name, "true or false")
		} else {
			value, ok := r.String()
			moment, err := time.Parse(time.RFC3339, value)
			*times[name] = moment
			wrong(ok && err == nil, name, "a time such as 2026-01-31T12:00:00Z (RFC 3339)")
		}
	}
	if err := r.End(); err != nil {
		if name := duplicateName(text); name != "" {
			err = fmt.Errorf("%w: give %q once", err, name)
		}
		return Rule{}, fmt.Errorf("revocation: not a rule: %w", err)
	}
	return rule, errors.Join(faults...)
}

// unknownName says that a name is not one of the known ones. It quotes the name unless
// that may be a secret which is in the wrong place.
func unknownName(what, name string, known []string) string {
	for _, right := range known {
		if strings.EqualFold(name, right) {
			return fmt.Sprintf("unknown %s %q: write %q", what, name, right)
		}
	}
	if quotable(name) {
		what += fmt.Sprintf(" %q", name)
	}
	return fmt.Sprintf("unknown %s: use %s", what, strings.Join(known, ", "))
}

// quotable reports whether a name of a member can be in an error.
func quotable(name string) bool {
	return len(name) <= 32 && !secret.HasJWT(name) && !strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
	})
}

// duplicateName returns the first name that the members of a JSON object have twice,
// or "" if there is none, or none that can be quoted.
func duplicateName(text string) string {
	in := json.NewDecoder(strings.NewReader(text))
	if start, err := in.Token(); err != nil || start != json.Delim('{') {
		return ""
	}
	for names := map[string]bool{}; in.More(); {
		name, _ := in.Token()
		member, ok := name.(string)
		if names[member] && quotable(member) {
			return member
		}
		names[member] = true
		var value json.RawMessage
		if !ok || in.Decode(&value) != nil {
			break
		}
	}
	return ""
}

// UnmarshalJSON reads a receipt as strictly as [Rule.UnmarshalJSON].
func (r *Receipt) UnmarshalJSON(data []byte) error {
	var read Receipt
	var hasSeq, hasAt, hasRule bool
	var faults []error
	in := strictjson.ReadObject(string(data))
	for in.More() {
		switch in.Name() {
		case "seq":
			hasSeq = json.Unmarshal([]byte(in.Raw()), &read.Seq) == nil
		case "at":
			text, ok := in.String()
			at, err := time.Parse(time.RFC3339, text)
			read.At, hasAt = at, ok && err == nil
		case "rule":
			rule, err := readRule(in.Raw())
			read.Rule, hasRule = rule, err == nil
			faults = append(faults, err)
		default:
			faults = append(faults, errors.New("revocation: unknown member in a receipt"))
			in.Skip()
		}
	}
	if err := in.End(); err != nil {
		return fmt.Errorf("revocation: not a receipt: %w", err)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if !hasSeq || !hasAt || !hasRule {
		return errors.New(`revocation: a receipt needs "seq", "at" and "rule"`)
	}
	*r = read
	return nil
}
