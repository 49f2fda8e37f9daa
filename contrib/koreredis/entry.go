package koreredis

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

var (
	//go:embed append.lua
	appendSource string
	appendScript = redis.NewScript(appendSource)
)

// leaseTime is how long a lease of refills lasts if it is not renewed.
const leaseTime = time.Second

// rule is what the script needs to append a rule.
type rule struct {
	at     string // nanoseconds since 1970; empty: the time of the call
	until  string // seconds since 1970, or "default"; empty: it is never deleted
	latest string // microseconds since 1970 after which it is not appended; empty: none
	text   string // JSON
	nonce  string
}

// newRule returns a rule that is appended for the first time. The log has it as it
// was given: its moments are filled in by whoever reads it, from the time that Redis
// has given it.
func newRule(r revocation.Rule) (rule, error) {
	for _, text := range []string{r.Issuer, r.Token, r.Client, r.Account, r.Subject, r.Reason, r.By} {
		if !utf8.ValidString(text) {
			return rule{}, errors.New("koreredis: Rule has a text that is not valid UTF-8, which no claim is")
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return rule{}, errors.New("koreredis: Rule has a time after the year 9999")
	}
	n := rule{text: string(text), nonce: random()}
	if _, err := r.Complete(r.Until.Add(1)); err != nil && !r.Until.IsZero() {
		n.latest = strconv.FormatInt(r.Until.UnixMicro(), 10)
	}
	switch {
	case r.Lift:
		// A lift must stay as long as the rules that it ends.
	case !r.Until.IsZero():
		n.until = seconds(r.Until)
	case r.IssuedBefore.IsZero():
		n.until = "default"
	default:
		n.until = seconds(r.IssuedBefore.AddDate(0, 24, 2))
	}
	return n, nil
}

// oldRule returns a rule that keeps its time.
func oldRule(r revocation.Receipt) (n rule, err error) {
	if r.Rule, err = r.Rule.Complete(r.At); err == nil {
		n, err = newRule(r.Rule)
	}
	n.at = strconv.FormatInt(r.At.UnixNano(), 10)
	return n, err
}

func seconds(t time.Time) string { return strconv.FormatInt(t.Unix()+1, 10) }

// call is what the script needs beside the rules.
type call struct {
	now    time.Time
	token  string // of the lease; empty: the rules are new
	accept bool   // what the log has lost
}

// append calls the script. reply[0] is "ok", "late" or "lease"; "ok" is followed by
// the id and the fields of the last rule.
func (s *store) append(ctx context.Context, c redis.Scripter, how call, rules ...rule) (reply []any, err error) {
	args := make([]any, 0, 5+5*len(rules))
	accept := ""
	if how.accept {
		accept = "1"
	}
	args = append(args, how.token, leaseTime.Milliseconds(), random(), how.now.UnixMicro(), accept)
	for _, r := range rules {
		args = append(args, r.at, r.until, r.latest, r.text, r.nonce)
	}
	reply, err = appendScript.Run(ctx, c, []string{s.log, s.head, s.lease}, args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(reply) == 3 && reply[0] == "ok" || len(reply) == 1 && (reply[0] == "late" || reply[0] == "lease") {
		return reply, nil
	}
	return nil, errOdd
}

// mark returns the number and the nonce of an entry. ok is false if it is not ours.
func mark(id string, fields map[string]any) (seq uint64, nonce string, ok bool) {
	number, sub, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	nonce, _ = fields["nonce"].(string)
	return seq, nonce, err == nil && sub == "0" && nonce != ""
}

// readEntry reads an entry of the log. If ok is false, the entry is not a rule, and
// the receipt has only Seq.
func readEntry(id string, fields map[string]any) (receipt revocation.Receipt, ok bool) {
	seq, _, ours := mark(id, fields)
	none := revocation.Receipt{Seq: seq}
	text, _ := fields["rule"].(string)
	at, known := readTime(fields["at"])
	if !ours || !known {
		return none, false
	}
	base := at
	if now, ok := readTime(fields["now"]); ok {
		base = now
	}
	var r revocation.Rule
	if r.UnmarshalJSON([]byte(text)) != nil {
		return none, false
	}
	r, err := r.Complete(base)
	if err != nil {
		return none, false
	}
	return revocation.Receipt{Seq: seq, At: at, Rule: r}, true
}

// readTime reads nanoseconds since 1970.
func readTime(value any) (time.Time, bool) {
	text, _ := value.(string)
	ns, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(0, ns).UTC(), err == nil && ns > 0
}

// fieldsOf returns the fields of an entry that are given one after the other.
func fieldsOf(list []any) map[string]any {
	fields := make(map[string]any, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		fields[name] = list[i+1]
	}
	return fields
}
