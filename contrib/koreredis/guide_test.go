package koreredis_test

import (
	"context"
	"log/slog"

	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

// A replica of a fleet, as in docs/revocation.md.
func ExampleRevocations_fleet() {
	ctx, logger := context.Background(), slog.Default()

	store := koreredis.Revocations(redis.NewClient(&redis.Options{Addr: "redis.example.com:6379"}), "api")
	revoked := &revocation.List{CacheFile: "/var/lib/api/revoked.cache", Logger: logger}
	go revoked.Follow(ctx, store)
}
