//go:build !race

package revocation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestRuleSet_StaysSmall revokes two million tokens that live for an hour, and some
// clients, over a week.
func TestRuleSet_StaysSmall(t *testing.T) {
	perMinute := 200
	if testing.Short() {
		perMinute = 20
	}
	set, start, most := &ruleSet{}, time.Now(), 0
	for minute := range 7 * 24 * 60 {
		now := start.Add(time.Duration(minute) * time.Minute)
		for n := range perMinute {
			k := key{hash: hashOfNumber(minute*perMinute + n)}
			if n%100 == 0 {
				k.kind = kindClient
			}
			set.add(&Receipt{Seq: 1, At: now, Rule: Rule{Until: now.Add(time.Hour)}}, k, fromStore, now)
		}
		set.sweep(now)
		if minute%10 == 0 {
			set.tokens.trim()
			bytes := 8 * cap(*set.byHash.slots.Load())
			for i := range set.tokens.shards {
				if s := set.tokens.shards[i].Load(); s != nil {
					bytes += 8 * len(s.words)
				}
			}
			most = max(most, bytes)
		}
	}
	lasting := 65 * perMinute
	t.Logf("at most %d bytes for %d rules", most, lasting)
	assert.LessOrEqual(t, most, 60*lasting)
	assert.InDelta(t, lasting, set.tokens.live+set.inForce, float64(2*perMinute))
}
