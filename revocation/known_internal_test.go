package revocation

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

const testIssuer = "https://issuer.example"

// seen makes a list see a token.
func seen(t testing.TB, l *List, c koreauth.Claims) {
	t.Helper()
	if c.Issuer == "" {
		c.Issuer = testIssuer
	}
	_ = l.Check(nil, &c)
}

func newList(t testing.TB) *List {
	t.Helper()
	l := &List{}
	require.NoError(t, l.Apply())
	return l
}

func TestList_wouldStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		l := newList(t)
		later := now.Add(time.Hour)
		for _, c := range []koreauth.Claims{
			{ID: "1", ClientID: "b", AccountID: "A", Subject: "s1", IssuedAt: now, Expiry: later},
			{ID: "2", ClientID: "b", AccountID: "A", Subject: "s1", IssuedAt: now.Add(-time.Hour), Expiry: later},
			{ID: "3", ClientID: "a", AccountID: "A", Subject: "s2", Expiry: later},
			{ID: "4", ClientID: "c", AccountID: "B", Subject: "s3", IssuedAt: now},
			{ID: "5", Subject: "s4", IssuedAt: now, Expiry: now.Add(time.Minute)},
			{ID: "1", ClientID: "other", Issuer: "https://other.example", IssuedAt: now, Expiry: later},
			{ID: strings.Repeat("x", 257), ClientID: strings.Repeat("y", 257), AccountID: "A", IssuedAt: now, Expiry: later},
		} {
			seen(t, l, c)
			seen(t, l, c)
		}
		type result struct {
			tokens  int
			clients string
		}
		rows := []struct {
			rule Rule
			want result
		}{
			{Rule{Issuer: testIssuer, Token: "1"}, result{1, "b"}},
			{Rule{Issuer: testIssuer, Token: "9"}, result{0, ""}},
			{Rule{Issuer: testIssuer, Client: "b"}, result{2, "b"}},
			{Rule{Issuer: testIssuer, Client: "b", IssuedBefore: now.Add(-time.Minute)}, result{1, "b"}},
			{Rule{Issuer: testIssuer, Client: "a", IssuedBefore: now.AddDate(-10, 0, 0)}, result{1, "a"}}, // without iat
			{Rule{Issuer: testIssuer, Account: "A"}, result{4, "a b"}},
			{Rule{Issuer: testIssuer, Subject: "s1"}, result{2, "b"}},
			{Rule{Issuer: testIssuer, Subject: "s4"}, result{1, ""}},
			{Rule{Issuer: testIssuer, Everything: true}, result{6, "a b c"}},
			{Rule{Issuer: "https://other.example", Everything: true}, result{1, "other"}},
			{Rule{Issuer: testIssuer}, result{0, ""}},
		}
		check := func() {
			t.Helper()
			for _, row := range rows {
				for _, rule := range []Rule{row.rule, hashed(row.rule)} {
					tokens, clients := l.wouldStop(rule)
					assert.Equal(t, row.want, result{tokens, strings.Join(clients, " ")}, "%+v", rule)
				}
			}
		}
		check()
		require.NoError(t, l.Apply(Rule{Issuer: testIssuer, Everything: true}))
		check()
		time.Sleep(time.Minute)
		tokens, _ := l.wouldStop(Rule{Issuer: testIssuer, Subject: "s4"})
		assert.Zero(t, tokens, "expired")
		time.Sleep(time.Hour)
		tokens, clients := l.wouldStop(Rule{Issuer: testIssuer, Everything: true})
		assert.Equal(t, 1, tokens, "the one without exp")
		assert.Equal(t, []string{"c"}, clients)
	})
}

func hashed(r Rule) Rule {
	complete, err := r.Complete(time.Now())
	if err != nil {
		return r
	}
	return complete.Hashed()
}

func TestList_wouldStop_KnowsTheLast10000Tokens(t *testing.T) {
	l := newList(t)
	expiry := time.Now().Add(time.Hour)
	claims := func(n int) koreauth.Claims {
		return koreauth.Claims{ID: fmt.Sprint(n), ClientID: fmt.Sprint("client-", n%300), Expiry: expiry}
	}
	everything := Rule{Issuer: testIssuer, Everything: true}
	knows := func(n int) bool {
		tokens, _ := l.wouldStop(Rule{Issuer: testIssuer, Token: fmt.Sprint(n)})
		return tokens == 1
	}
	for n := range 10_000 {
		seen(t, l, claims(n))
		seen(t, l, claims(n/2))
	}
	tokens, clients := l.wouldStop(everything)
	assert.Equal(t, 10_000, tokens)
	assert.Len(t, clients, 300)
	seen(t, l, claims(7))
	for n := 10_000; n < 19_990; n++ {
		seen(t, l, claims(n))
	}
	assert.True(t, knows(7), "seen after all others but 9,990")
	assert.False(t, knows(6))
	for n := 19_990; n < 20_500; n++ {
		seen(t, l, claims(n))
	}
	tokens, clients = l.wouldStop(everything)
	assert.Equal(t, 10_000, tokens)
	assert.Len(t, clients, 300)
	assert.False(t, knows(7))
	for n := 20_499; n > 20_499-9_999; n -= 101 {
		require.True(t, knows(n), "token %d", n)
	}
	for n := range 50 {
		require.False(t, knows(n), "token %d", n)
	}
	assert.Equal(t, 300, len(l.known.parties))
}

// TestList_Check_KeepsNoPayload lets claims point into payloads, as those of a token
// do.
func TestList_Check_KeepsNoPayload(t *testing.T) {
	l := newList(t)
	freed := make(chan struct{})
	func() {
		payload := new([1 << 20]byte)
		copy(payload[:], "abc")
		runtime.AddCleanup(payload, func(int) { close(freed) }, 0)
		text := unsafe.String(&payload[0], len(payload))
		seen(t, l, koreauth.Claims{Issuer: text[:1], ID: text[1:2], ClientID: text[2:3], AccountID: text[0:2], Subject: text[1:3], Expiry: time.Now().Add(time.Hour)})
	}()
	require.Eventually(t, func() bool {
		runtime.GC()
		select {
		case <-freed:
			return true
		default:
			return false
		}
	}, 10*time.Second, 10*time.Millisecond)
	tokens, clients := l.wouldStop(Rule{Issuer: "a", Token: "b"})
	assert.Equal(t, 1, tokens)
	assert.Equal(t, []string{"c"}, clients)
}

func TestList_Check_KnowsTokensOfManyGoroutines(t *testing.T) {
	l := newList(t)
	require.NoError(t, l.Apply(Rule{Issuer: testIssuer, Client: "bad"}))
	var workers sync.WaitGroup
	expiry := time.Now().Add(time.Hour)
	for worker := range 4 {
		workers.Go(func() {
			for n := range 40_000 {
				c := &koreauth.Claims{Issuer: testIssuer, ID: fmt.Sprint(n * (1 + worker%2) % 15_000), ClientID: "good", Expiry: expiry}
				if len(c.ID)%2 == 0 {
					c.ClientID = "bad"
				}
				if err := l.Check(nil, c); (err != nil) != (c.ClientID == "bad") {
					t.Errorf("token %s of %s: %v", c.ID, c.ClientID, err)
					return
				}
			}
		})
	}
	workers.Wait()
	tokens, clients := l.wouldStop(Rule{Issuer: testIssuer, Everything: true})
	assert.Equal(t, 10_000, tokens)
	assert.Equal(t, []string{"bad", "good"}, clients)
}
