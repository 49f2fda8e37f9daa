// Package koreredis keeps the revocation rules of a fleet in Redis or Valkey. See
// [Revocations].
//
//	rdb := redis.NewClient(&redis.Options{Addr: "redis.example.com:6379"})
//	store := koreredis.Revocations(rdb, "koreauth")
//	revoked := &revocation.List{CacheFile: "/var/lib/api/revoked"}
//	go revoked.Follow(ctx, store)
//
// # The server
//
// Redis 6.2 or later, or Valkey, with any of the clients of go-redis: a single server,
// Sentinel, or a Cluster. All keys of a name are on one node. Read from the master:
// a replica may lack the last rules, and Follow refuses one. Set on the server
//
//	maxmemory-policy noeviction   # or the rules may be evicted
//	appendonly yes
//	appendfsync always            # or a crash may lose the last second
//	min-replicas-to-write 1       # with replicas: or a failover may lose the last rules
//
// Rules that are lost all the same come back from the lists that have seen them, if
// one of these may write.
//
// # Rights
//
// A follower, which may report how far it is but change no rule (Redis 7):
//
//	ACL SETUSER api on >password resetchannels -@all
//	    %R~{koreauth:koreauth}:log %R~{koreauth:koreauth}:head
//	    ~{koreauth:koreauth}:replicas ~{koreauth:koreauth}:applied
//	    +xread +xrange +xlen +hmget +role
//	    +eval +evalsha +time +zadd +zrangebyscore +zrem +hset +hget +hdel +pexpire
//
// A writer, which may also revoke, lift and refill. At least some of the lists should
// be writers, or nobody can refill a store that lost rules:
//
//	ACL SETUSER admin on >password resetchannels -@all
//	    ~{koreauth:koreauth}:*
//	    +xread +xrange +xlen +hmget +role
//	    +eval +evalsha +time +zadd +zrangebyscore +zrem +hset +hget +hdel +pexpire
//	    +xadd +xdel +xrevrange +xinfo|stream +get +set +del +pttl
//
// Add +type to both for better errors, and +client|setinfo, +client|setname and
// +select if the client uses them.
package koreredis
