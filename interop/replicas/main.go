// Command replicas measures what a thousand replicas of an API ask of Keycloak and of
// Redis, and writes docs/reports/replicas.md. Run it with make replicas, which starts
// Keycloak.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koreclient"
)

const (
	count   = 1000
	maxAge  = time.Minute // in place of 15 minutes, to save time
	cycles  = 4           // of maxAge
	outage  = 2 * time.Minute
	pageURL = "../docs/reports/replicas.md"
)

func main() {
	page, err := measure(context.Background())
	if err == nil {
		err = os.WriteFile(filepath.FromSlash(pageURL), []byte(page), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// replica is the part of an API that koreauth is.
type replica struct {
	validator *koreauth.Validator
	keys      *koreauth.RemoteKeySet
}

// counter counts requests to Keycloak by the second.
type counter struct {
	start time.Time
	base  http.RoundTripper

	mu       sync.Mutex
	inSecond map[int]int
	failed   int
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.inSecond[int(time.Since(c.start)/time.Second)]++
	c.mu.Unlock()
	res, err := c.base.RoundTrip(r)
	if err != nil {
		c.mu.Lock()
		c.failed++
		c.mu.Unlock()
	}
	return res, err
}

// between returns the requests between two times: the most in a second, and all.
func (c *counter) between(from, to time.Duration) (most, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for second, n := range c.inSecond {
		if at := time.Duration(second) * time.Second; at >= from && at < to {
			most, all = max(most, n), all+n
		}
	}
	return most, all
}

func measure(ctx context.Context) (string, error) {
	base := "http://127.0.0.1:" + os.Getenv("KEYCLOAK_PORT")
	issuer := base + "/realms/KORE-CIDP"
	client, err := koreclient.New(koreclient.Config{TokenURL: issuer + "/protocol/openid-connect/token", ClientID: "kc_admin", ClientSecret: os.Getenv("KORE_CLIENT_SECRET")})
	if err != nil {
		return "", err
	}
	token, err := client.Token(ctx)
	if err != nil {
		return "", err
	}
	requests := &counter{base: http.DefaultTransport.(*http.Transport).Clone(), start: time.Now(), inSecond: map[int]int{}}
	var all [count]replica
	for n := range all {
		all[n].keys = &koreauth.RemoteKeySet{Issuer: issuer, MaxAge: maxAge, HTTPClient: &http.Client{Transport: requests}}
		if all[n].validator, err = koreauth.NewValidator(koreauth.Config{Issuer: issuer, Audience: []string{"api-gw"}, Keys: all[n].keys}); err != nil {
			return "", err
		}
	}

	log.Print("readiness…")
	others := newOthers(ctx, issuer)
	start := time.Now()
	var group sync.WaitGroup
	var failed atomic.Int64
	for n := range all {
		group.Go(func() {
			if all[n].validator.Ready(ctx) != nil {
				failed.Add(1)
			}
		})
	}
	group.Wait()
	ready := time.Since(start)
	atStart := others.stop()
	_, startRequests := requests.between(0, time.Hour)

	log.Print("refreshes…")
	use := func(d time.Duration) (rejected int) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			next := time.Now().Add(time.Second)
			for n := range all {
				if _, err := all[n].validator.Validate(ctx, token.Value); err != nil {
					rejected++
				}
			}
			time.Sleep(time.Until(next))
		}
		return rejected
	}
	from := time.Since(requests.start)
	wrong := use(cycles * maxAge)
	most, total := requests.between(from+maxAge, from+cycles*maxAge)

	log.Print("an outage…")
	if err := server(ctx, "stop"); err != nil {
		return "", err
	}
	from = time.Since(requests.start)
	wrongInOutage := use(outage)
	mostInOutage, inOutage := requests.between(from, from+outage)
	if err := server(ctx, "start"); err != nil {
		return "", err
	}
	start = time.Now()
	for {
		old := 0
		for n := range all {
			if status := all[n].validator.Status()[0]; status.Err != nil {
				old++
			}
			_, _ = all[n].validator.Validate(ctx, token.Value)
		}
		if old == 0 {
			break
		}
		time.Sleep(time.Second)
	}
	recovered := time.Since(start)

	log.Print("revocations…")
	redis, err := revocations(ctx)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, `# A thousand replicas

Written by %s on %s: a thousand key sets and a thousand revocation lists in one process, with Keycloak and Redis on
the same machine of two processors. On machines of their own all would be faster; what is counted does not depend on that.

## Keys, against Keycloak

| what | measured |
|---|---|
| all %d replicas are ready after | %.1f s, %d of them failed; %d requests |
| token requests of others meanwhile, p99 | %.0f ms (%d requests) |
| refreshes: most requests in one second | %d, with a MaxAge of %v; %.1f on average |
| rejected tokens meanwhile | %d of %d |
| an outage of %v: most requests in one second | %d; %.1f on average |
| rejected tokens in the outage | %d of %d |
| after the outage, all replicas have fetched after | %.0f s |

`, "`make replicas`", time.Now().UTC().Format(time.DateOnly), count, ready.Seconds(), failed.Load(), startRequests,
		atStart.p99.Seconds()*1000, atStart.count, most, maxAge, float64(total)/((cycles-1)*maxAge).Seconds(), wrong, count*cycles*int(maxAge/time.Second),
		outage, mostInOutage, float64(inOutage)/outage.Seconds(), wrongInOutage, count*int(outage/time.Second), recovered.Seconds())
	fmt.Fprintf(&text, `**Extrapolated.** With the default MaxAge of 15 minutes instead of one, there are a fifteenth of the refreshes: %.1f in a second on
average. The test of simulated time has 12 to 14 at most in the worst second, and 31 to 34 in an outage of an hour after the
first one ([test](../../remote_spread_test.go)).

## Revocations, against Redis

| what | measured |
|---|---|
| all %d lists are loaded after | %.2f s |
| commands in a second while idle | %.0f |
| one rule: until all lists reject, median of %.0f | %.0f ms |
| one rule: until all lists reject, longest | %.0f ms |
| after a restart of Redis, all lists are current after | %.1f s |
| reconnections in the second with most of them | %.0f |

The rows are those of `+"`BenchmarkRevocations_ThousandReplicas`"+` in contrib/koreredis. No list was without its rules at any time.
`, float64(total)/((cycles-1)*maxAge).Seconds()/15, count, redis["load-s"], redis["idle-commands/s"], redis["deliveries"], redis["reach-p50-ms"], redis["reach-max-ms"], redis["restart-s"], redis["connections/s"])
	return text.String(), nil
}

// others are clients that get tokens from Keycloak meanwhile.
type others struct {
	cancel context.CancelFunc
	done   chan struct{}
	took   []time.Duration
}

type latency struct {
	p99   time.Duration
	count int
}

func newOthers(ctx context.Context, issuer string) *others {
	ctx, cancel := context.WithCancel(ctx)
	o := &others{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for ctx.Err() == nil {
			start := time.Now()
			res, err := http.PostForm(issuer+"/protocol/openid-connect/token", url.Values{
				"grant_type": {"client_credentials"}, "client_id": {"kc_standard"}, "client_secret": {os.Getenv("KORE_CLIENT_SECRET")},
			})
			if err == nil {
				_ = res.Body.Close()
				o.took = append(o.took, time.Since(start))
			}
		}
	}()
	return o
}

func (o *others) stop() latency {
	o.cancel()
	<-o.done
	slices.Sort(o.took)
	if len(o.took) == 0 {
		return latency{}
	}
	return latency{o.took[len(o.took)*99/100], len(o.took)}
}

func server(ctx context.Context, verb string) error {
	out, err := exec.CommandContext(ctx, "keycloak/server.sh", verb).CombinedOutput()
	if err != nil {
		return fmt.Errorf("keycloak/server.sh %s: %w\n%s", verb, err, out)
	}
	return nil
}

// revocations runs the benchmark of contrib/koreredis, which no package imports.
func revocations(ctx context.Context) (map[string]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "ThousandReplicas", "-benchtime", "20x")
	cmd.Dir = filepath.Join("..", "contrib", "koreredis")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the benchmark of contrib/koreredis: %w\n%s", err, out)
	}
	metrics := map[string]float64{}
	fields := strings.Fields(string(out))
	for i := 1; i < len(fields); i++ {
		if value, err := strconv.ParseFloat(fields[i-1], 64); err == nil {
			metrics[fields[i]] = value
		}
	}
	if metrics["reach-p50-ms"] == 0 {
		return nil, errors.New("the benchmark of contrib/koreredis measured nothing: is redis-server installed?")
	}
	return metrics, nil
}
