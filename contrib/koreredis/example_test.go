package koreredis_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/contrib/koreredis"
	"github.com/koreauth/koreauth/revocation"
	"github.com/redis/go-redis/v9"
)

func ExampleRevocations() {
	const issuer = "https://keycloak.example.com/realms/KORE-CIDP"
	rdb := redis.NewClient(&redis.Options{Addr: "redis.example.com:6379"})
	defer rdb.Close()
	store := koreredis.Revocations(rdb, "koreauth")

	// Each replica of the API follows the store, until ctx is done.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	revoked := &revocation.List{CacheFile: "/var/lib/api/revoked", Logger: slog.New(slog.DiscardHandler)}
	go revoked.Follow(ctx, store)
	_, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer, Audience: []string{"api-gw"}, Require: []koreauth.Requirement{revoked},
	})
	if err != nil {
		fmt.Println(err)
	}

	// Another program revokes all tokens of a client.
	_, err = store.Append(ctx, revocation.Rule{Issuer: issuer, Client: "kc_1", Reason: "leaked key"})
	if err != nil {
		fmt.Println("not revoked: append it again")
	}
	// Output: not revoked: append it again
}
