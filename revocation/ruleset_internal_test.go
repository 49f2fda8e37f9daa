package revocation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRuleSet_CountsGroupsWithoutName matters for speed alone: while there is a group
// without a name, each look-up by name that fails is followed by one by hash.
func TestRuleSet_CountsGroupsWithoutName(t *testing.T) {
	set, now := &ruleSet{}, time.Now()
	add := func(r Rule) {
		r, err := r.Complete(now)
		require.NoError(t, err)
		set.add(&Receipt{Seq: 1, At: now, Rule: r}, keyOfRule(&r), fromStore, now)
	}
	client := Rule{Issuer: testIssuer, Client: "c", Until: now.Add(time.Hour)}
	complete, err := client.Complete(now)
	require.NoError(t, err)
	add(complete.Hashed())
	assert.EqualValues(t, 1, set.unnamed[kindClient].Load())
	add(client)
	assert.Zero(t, set.unnamed[kindClient].Load())
	complete.Client, complete.Subject = "", "s"
	add(complete.Hashed())
	add(Rule{Issuer: testIssuer, Token: "far", Until: now.AddDate(50, 0, 0)})
	assert.EqualValues(t, 1, set.unnamed[kindSubject].Load())
	assert.EqualValues(t, 1, set.unnamed[kindToken].Load())
	set.sweep(now.AddDate(100, 0, 0))
	for k := range kinds {
		assert.Zero(t, set.unnamed[k].Load())
	}
	assert.Zero(t, set.byHash.used+set.byName.used+set.inForce+set.empty+len(set.issuers))
}
