package koreredis_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documentedUsers returns the ACL commands of the package comment for a name.
func documentedUsers(t *testing.T, name string) [][]any {
	t.Helper()
	commands := usersOf(t, "doc.go", name)
	require.Len(t, commands, 2)
	require.Equal(t, commands, usersOf(t, "README.md", name), "the documents agree")
	return commands
}

// usersOf returns the ACL commands in a file.
func usersOf(t *testing.T, file, name string) (commands [][]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	text = regexp.MustCompile("(?m)^//[ \t]*|^```$").ReplaceAll(text, nil)
	for _, part := range strings.Split(string(text), "ACL SETUSER ")[1:] {
		part, _, _ = strings.Cut(part, "\n\n")
		command := []any{"ACL", "SETUSER"}
		for word := range strings.FieldsSeq(strings.ReplaceAll(part, "koreauth:koreauth", "koreauth:"+name)) {
			command = append(command, word)
		}
		commands = append(commands, command)
	}
	return commands
}

func TestRevocations_DocumentedRightsSuffice(t *testing.T) {
	s := startRedis(t)
	for _, command := range documentedUsers(t, name) {
		s.do(command...)
	}
	as := func(user string) func() redis.UniversalClient {
		return func() redis.UniversalClient {
			return s.client(func(o *redis.Options) { o.Username, o.Password = user, "password" })
		}
	}
	followers, writers := startReplicas(t, 2, as("api")), startReplicas(t, 2, as("admin"))
	all := append(followers, writers...)
	follower, writer := koreredis.Revocations(as("api")(), name), koreredis.Revocations(as("admin")(), name)
	revoke(t, writer, names(1, 3)...)
	converge(t, within, all, names(1, 3)...)
	s.do("FLUSHDB")
	staysOnce(t, s, names(1, 3)...)
	s.do("XTRIM", stream, "MAXLEN", "1")
	staysOnce(t, s, names(1, 3)...)
	for _, r := range all {
		assert.NotContains(t, r.warnings(), "could not report")
	}
	for _, s := range []revocation.Store{follower, writer} {
		require.NoError(t, s.(revocation.Fleet).Report(t.Context(), "me", 3))
		_, _, err := s.(revocation.Fleet).Replicas(t.Context())
		require.NoError(t, err)
	}

	receipts := read(t, follower)
	_, err := follower.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t4"})
	require.ErrorContains(t, err, "the package comment lists them")
	require.NoError(t, follower.(revocation.Fleet).Refill(t.Context(), receipts), "nothing is lacking")
	lacking := revocation.Receipt{At: time.Now(), Rule: revocation.Rule{Issuer: issuer, Token: "t5"}}
	err = follower.(revocation.Fleet).Refill(t.Context(), append(receipts, lacking))
	require.ErrorContains(t, err, "the package comment lists them")
	assert.Empty(t, notOnce(t, s, names(1, 3)...))

	s.do("XTRIM", stream, "MAXLEN", "2")
	require.NoError(t, follower.(revocation.Fleet).Refill(t.Context(), receipts[1:]), "nothing is lacking of what it knows")

	other := koreredis.Revocations(as("admin")(), "other")
	_, err = other.Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t"})
	require.ErrorContains(t, err, "the package comment lists them", "the rights are for one name")
}

// A store that lost rules is filled by whoever may write, and followers of it are no
// less current.
func TestRevocations_FollowersWithoutRights(t *testing.T) {
	s := startRedis(t)
	s.do(documentedUsers(t, name)[0]...)
	api := func() redis.UniversalClient {
		return s.client(func(o *redis.Options) { o.Username, o.Password = "api", "password" })
	}
	followers := startReplicas(t, 3, api)
	writer := koreredis.Revocations(s.client(), name)
	revoke(t, writer, names(1, 5)...)
	converge(t, within, followers, names(1, 5)...)
	s.do("XTRIM", stream, "MAXLEN", "1")
	eventually(t, within, "the lists say that they cannot refill", func() bool {
		return strings.Contains(followers[0].warnings(), "could not be given back")
	})
	revoke(t, writer, "t6")
	converge(t, within, followers, names(1, 6)...)
	assert.True(t, current(followers))
	one := startReplicas(t, 1, func() redis.UniversalClient { return s.client() })
	converge(t, within, one, "t5", "t6")
	assert.False(t, one[0].rejects("t1"), "nobody who may write has seen it")
}

func TestRevocations_Passwords(t *testing.T) {
	s := startRedis(t)
	s.do("CONFIG", "SET", "requirepass", "secret")
	for _, row := range []struct{ password, want string }{{"", "user name or password"}, {"wrong", "user name or password"}, {"secret", ""}} {
		c := s.client(func(o *redis.Options) { o.Password = row.password })
		_, err := koreredis.Revocations(c, name).Append(t.Context(), revocation.Rule{Issuer: issuer, Token: "t"})
		if row.want == "" {
			assert.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, row.want)
		err = koreredis.Revocations(c, name).Follow(t.Context(), 0, nil, nil)
		require.ErrorContains(t, err, row.want)
	}
}
