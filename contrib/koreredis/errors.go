package koreredis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// end returns the error with which a call ends that waits for ctx.
func (s *store) end(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.explain(ctx, doing, err)
}

// explain returns an error that says what could not be done, and the cure where it
// is known. Errors of Redis have a text alone.
func (s *store) explain(ctx context.Context, doing string, err error) error {
	text := err.Error()
	has := func(code string) bool { return strings.Contains(text, code) }
	cure := ""
	switch {
	case has("WRONGTYPE"):
		cure = s.wrongType(ctx)
	case redis.IsReadOnlyError(err) || has("READONLY"):
		cure = "this server is a replica that cannot be written: connect to the master"
	case redis.IsPermissionError(err) || has("NOPERM") || has("can't run this command"):
		cure = "the Redis user lacks a right: the package comment lists them"
	case redis.IsAuthError(err) || has("NOAUTH") || has("WRONGPASS"):
		cure = "Redis does not accept the user name or password of the client"
	case redis.IsOOMError(err) || has("OOM command"):
		cure = "Redis has reached maxmemory: raise it, or delete other data"
	case has("MISCONF"):
		cure = "Redis cannot write to its disk: see its log"
	case has("NOREPLICAS"):
		cure = "too few replicas are connected to the master (min-replicas-to-write)"
	case has("KOREAUTH"):
		cure = fmt.Sprintf("key %q has an entry of another program whose id leaves no room for more: rename the key, and the replicas will fill a new one", s.log)
	case has("MOVED"):
		if cluster, ok := s.client.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx)
		}
	}
	if cure != "" {
		cure += ": "
	}
	return fmt.Errorf("koreredis: cannot %s: %s%w", doing, cure, err)
}

// wrongType names the keys that hold a value of another type.
func (s *store) wrongType(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wrong []string
	for key, want := range map[string]string{s.log: "stream", s.head: "hash", s.lease: "string", s.replicas: "zset", s.applied: "hash"} {
		if t, err := s.client.Type(ctx, key).Result(); err == nil && t != want && t != "none" {
			wrong = append(wrong, fmt.Sprintf("key %q holds a %s", key, t))
		}
	}
	if len(wrong) == 0 { // the user may not ask
		wrong = []string{fmt.Sprintf("a key %q holds a value of another type", s.log[:len(s.log)-3]+"*")}
	}
	return strings.Join(wrong, ", ") + ", which another program has set: use another name, or rename the key"
}
