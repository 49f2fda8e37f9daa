// Command flood shows that memory stays flat under tokens that come once: it
// signs ten million different ones, has each judged, and compares the heap
// after the first million with that at the end. Between them one token comes
// again and again, and must stay remembered.
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
	n := flag.Int("n", 10_000_000, "how many tokens")
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
	judge := func(token string) {
		if _, err := validator.Validate(context.Background(), token); err != nil {
			log.Fatal(err)
		}
	}
	steady := mint(private, -1)
	judge(steady)

	var base uint64
	step := max(*n/10, 1)
	for done := 0; done < *n; done += step {
		var next atomic.Int64
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for i := next.Add(1); i <= int64(step); i = next.Add(1) {
					judge(mint(private, done+int(i)))
					if i%100 == 0 {
						judge(steady)
					}
				}
			})
		}
		workers.Wait()
		heap := heapAlloc()
		if base == 0 {
			base = heap
		}
		fmt.Printf("%9d tokens  heap %5.1f MB  %+.1f MB since the first line  the steady token took %.0f allocations\n",
			done+step, mega(heap), mega(heap)-mega(base), allocations(func() { judge(steady) }))
	}
	if grown := mega(heapAlloc()) - mega(base); grown > 5 {
		fmt.Printf("the heap grew by %.1f MB\n", grown)
		os.Exit(1)
	}
	runtime.KeepAlive(validator)
}

// mint signs a token that differs from all others by its jti.
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

// allocations tells whether a signature was verified: that takes more.
func allocations(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

func mega(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
