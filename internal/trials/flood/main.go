// Command flood shows that memory stays flat when each token is sent only once.
// It signs and validates ten million different tokens, and compares the heap at
// the end with the heap after the first million. In between it sends one token
// again and again, which must stay cached.
//
//	go run ./internal/trials/flood
package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
)

const issuer = "https://issuer.example/realms/KORE-CIDP"

func main() {
	n := flag.Int("n", 10_000_000, "number of tokens")
	flag.Parse()

	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer:     issuer,
		Audience:   []string{"api-gw"},
		Algorithms: []string{"EdDSA"},
		Keys:       koreauth.StaticKeySet{{ID: "flood", Public: public}},
	})
	if err != nil {
		log.Fatal(err)
	}
	validate := func(token string) {
		if _, err := validator.Validate(context.Background(), token); err != nil {
			log.Fatal(err)
		}
	}
	steady := mint(private, -1)
	validate(steady)

	var base uint64
	step := max(*n/10, 1)
	for done := 0; done < *n; done += step {
		var next atomic.Int64
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for i := next.Add(1); i <= int64(step); i = next.Add(1) {
					validate(mint(private, done+int(i)))
					if i%100 == 0 {
						validate(steady)
					}
				}
			})
		}
		workers.Wait()
		heap := heapAlloc()
		if base == 0 {
			base = heap
		}
		fmt.Printf("%9d tokens  heap %5.1f MB  %+.1f MB since the first line  %.0f allocations for the cached token\n",
			done+step, mega(heap), mega(heap)-mega(base), allocations(func() { validate(steady) }))
	}
	if grown := mega(heapAlloc()) - mega(base); grown > 5 {
		fmt.Printf("the heap grew by %.1f MB\n", grown)
		os.Exit(1)
	}
	runtime.KeepAlive(validator)
}

// mint signs a token with jti i.
func mint(key ed25519.PrivateKey, i int) string {
	signed := encode(`{"alg":"EdDSA","typ":"JWT","kid":"flood"}`) + "." +
		encode(fmt.Sprintf(`{"iss":%q,"aud":"api-gw","exp":%d,"jti":"%d","scope":"email"}`, issuer, time.Now().Add(24*time.Hour).Unix(), i))
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func heapAlloc() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// allocations returns how many allocations f makes. Verifying a signature makes
// more than finding a cached token.
func allocations(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

func mega(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
