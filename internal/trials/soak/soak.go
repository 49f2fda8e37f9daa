package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// phase says what the crowd does.
type phase int32

const (
	settling phase = iota // between the phases that are measured
	alone
	calm
	load
)

func (p phase) String() string { return [...]string{"settling", "alone", "calm", "load"}[p] }

// cycle is the duration of one round of all phases. All other durations are
// parts of it.
type cycle time.Duration

func cycleOf(duration time.Duration) cycle {
	return cycle(duration / max(1, duration.Round(30*time.Second)/(30*time.Second)))
}

func (c cycle) part(of float64) time.Duration { return time.Duration(float64(c) * of) }
func (c cycle) minInterval() time.Duration    { return c.part(1. / 60) }
func (c cycle) maxAge() time.Duration         { return c.part(1. / 20) }

// world is an API, its issuer and its clients.
type world struct {
	cycle   cycle
	issuer  *koretest.Issuer
	url     string // of the API
	phase   atomic.Int32
	signing atomic.Pointer[koretest.Key]
	removed atomic.Pointer[string] // a token of a removed key, or nil
	fresh   chan token             // tokens that were never sent
	probe   *http.Client           // used by direct and rotate

	mu     sync.Mutex // guards the fields below
	report report
	waits  map[phase][]time.Duration // of valid requests
}

// token is a valid token and the key that signed it.
type token struct {
	text string
	key  *koretest.Key
}

// soak runs everything for a duration, and closes it.
func soak(duration time.Duration) (*report, error) {
	keys, err := newKeys(1)
	if err != nil {
		return nil, err
	}
	issuer, err := koretest.NewIssuer(&koretest.Options{Keys: keys})
	if err != nil {
		return nil, err
	}
	defer issuer.Close()
	w := &world{cycle: cycleOf(duration), issuer: issuer, fresh: make(chan token, 64), probe: newClient()}
	w.signing.Store(keys[0])
	w.report = report{
		duration: duration, cycles: int(duration / time.Duration(w.cycle)), answers: map[string]map[int]int{},
		waits: map[phase]waits{}, busy: map[phase]float64{},
	}
	w.waits = map[phase][]time.Duration{}
	w.behave(func(next http.Handler) http.Handler { return next })
	stop, err := w.serve()
	if err != nil {
		return nil, err
	}
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	clients.Go(func() { w.mint(ctx) })
	clients.Go(func() { w.refreshing(ctx) })
	for i := range 8 {
		clients.Go(func() { w.steady(ctx, i) })
		clients.Go(func() { w.crowd(ctx, i) })
	}
	for c := range w.report.cycles {
		if err = w.direct(c); err != nil {
			break
		}
	}
	cancel()
	clients.Wait()
	w.probe.CloseIdleConnections()
	for p, all := range w.waits {
		w.report.waits[p] = summary(all)
	}
	w.report.fetches = issuer.Requests(koretest.KeysEndpoint)
	result := w.report // a copy, so that the world can be collected
	return &result, err
}

func newKeys(count int) ([]*koretest.Key, error) {
	keys := make([]*koretest.Key, count)
	for i := range keys {
		key, err := koretest.NewKey("RS256")
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	return keys, nil
}

// serve starts the guarded API.
func (w *world) serve() (stop func(), err error) {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: w.issuer.URL(), Audience: []string{koretest.Audience},
		Keys: &koreauth.RemoteKeySet{URL: w.issuer.KeysURL(), MinInterval: w.cycle.minInterval(), MaxAge: w.cycle.maxAge()},
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.url = "http://" + listener.Addr().String()
	read := koreauth.New(validator, nil).Require(koreauth.Grant("API Clients", koreauth.Read))
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: read(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(out, "ok")
	}))}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return func() {
		_ = server.Close()
		serving.Wait()
	}, nil
}

// direct runs the phases of one cycle.
func (w *world) direct(number int) error {
	keys, err := newKeys(2)
	if err != nil {
		return err
	}
	time.Sleep(w.cycle.part(.03)) // Requests delayed by newKeys are done after this.
	w.during(alone, func() { time.Sleep(w.cycle.part(.1)) })
	w.during(calm, func() { time.Sleep(w.cycle.part(.28)) })
	old := w.valid(w.signing.Load())
	w.expect("a cached token", old, http.StatusOK)
	w.during(load, func() {
		w.outage(2*number, .12)
		first := w.signing.Load()
		w.publish(keys[0])
		time.Sleep(w.cycle.part(.1)) // two MaxAge, so that the key is known
		w.signing.Store(keys[0])
		w.outage(2*number+1, .12)
		time.Sleep(w.cycle.part(.04)) // In this time the flood uses up the fetches.
		w.rotate(keys[1])
		time.Sleep(max(w.cycle.part(.04), 500*time.Millisecond)) // In this time the clients send their tokens of older keys.
		w.issuer.RemoveKey(first.ID)
		w.issuer.RemoveKey(keys[0].ID)
		time.Sleep(w.cycle.part(.06))
	})
	time.Sleep(w.cycle.part(.1))
	w.expect("forged: removed key", old, http.StatusForbidden)
	w.removed.Store(&old)
	return nil
}

// during runs script in a phase.
func (w *world) during(p phase, script func()) {
	idle, total := processors()
	w.phase.Store(int32(p))
	script()
	w.phase.Store(int32(settling))
	idleAfter, totalAfter := processors()
	w.report.busy[p] += (1 - (idleAfter-idle)/(totalAfter-total)) / float64(w.report.cycles)
}

// processors returns the idle time and the total time of the processors, in
// seconds.
func processors() (idle, total float64) {
	runtime.GC() // updates these metrics
	samples := []metrics.Sample{{Name: "/cpu/classes/idle:cpu-seconds"}, {Name: "/cpu/classes/total:cpu-seconds"}}
	metrics.Read(samples)
	return samples[0].Value.Float64(), samples[1].Value.Float64()
}

// outage makes the issuer fail for a part of the cycle, in a way that depends on
// number.
func (w *world) outage(number int, part float64) {
	ctx, cancel := context.WithTimeout(context.Background(), w.cycle.part(part))
	defer cancel()
	hanging := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			<-ctx.Done()
			panic(http.ErrAbortHandler)
		})
	}
	w.behave([]koretest.Behavior{
		koretest.Down, hanging, koretest.Status(http.StatusServiceUnavailable), koretest.Garbage, koretest.Empty, koretest.Slow(w.cycle.part(part / 4)),
	}[number%6])
	<-ctx.Done()
	w.behave(func(next http.Handler) http.Handler { return next })
	w.report.outages++
}

// behave sets the behavior of all endpoints. The token endpoint signs with the current
// key of the world.
func (w *world) behave(b koretest.Behavior) {
	w.issuer.Behave(b, koretest.DiscoveryEndpoint, koretest.KeysEndpoint)
	w.issuer.Behave(func(http.Handler) http.Handler {
		return b(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(out).Encode(map[string]any{
				"access_token": w.valid(w.signing.Load()), "token_type": "Bearer", "expires_in": max(10, int(w.cycle.part(.5)/time.Second)),
			})
		}))
	}, koretest.TokenEndpoint)
}

func (w *world) publish(key *koretest.Key) {
	if err := w.issuer.AddKey(key); err != nil {
		panic(err) // cannot happen: the key is from NewKey
	}
}

// rotate publishes a key that signs immediately, and measures how long it takes
// until its tokens are accepted.
func (w *world) rotate(key *koretest.Key) {
	text := w.valid(key)
	w.publish(key)
	start := time.Now()
	for {
		sent := time.Now()
		status, err := w.send(w.probe, text)
		if status == http.StatusOK {
			break
		}
		w.count("valid, key signs immediately", status)
		if status == http.StatusForbidden {
			w.report.rejected++
		}
		// The limit allows for one interval and for a fetch on a busy machine.
		if limit := w.cycle.minInterval() + 2*time.Second; err != nil || status != http.StatusForbidden && status != http.StatusServiceUnavailable || sent.Sub(start) > limit {
			w.wrong("a key that signs immediately: %d (%v) after %v", status, err, sent.Sub(start))
			break
		}
		time.Sleep(w.cycle.minInterval() / 20)
	}
	w.report.abrupt = append(w.report.abrupt, time.Since(start))
	w.signing.Store(key)
}

// expect sends a request and checks its status.
func (w *world) expect(what, text string, want int) {
	status, err := w.send(w.probe, text)
	w.count(what, status)
	if status != want {
		w.wrong("%s: %d (%v), want %d", what, status, err, want)
	}
}

// send returns the status of a request, or zero if there was no response.
func (w *world) send(client *http.Client, text string) (int, error) {
	r, err := http.NewRequest(http.MethodGet, w.url, nil)
	if err != nil {
		return 0, err
	}
	if text != "" {
		r.Header.Set("Authorization", "Bearer "+text)
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: time.Minute}
}

func (w *world) valid(key *koretest.Key) string {
	text, err := w.issuer.Mint(koretest.Token{Key: key})
	if err != nil {
		panic(err) // cannot happen: the key is from NewKey
	}
	return text
}

func (w *world) count(what string, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report.answers[what] == nil {
		w.report.answers[what] = map[int]int{}
	}
	w.report.answers[what][status]++
}

func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report.wrongs++; len(w.report.wrong) < 10 {
		w.report.wrong = append(w.report.wrong, fmt.Sprintf(format, args...))
	}
}

// remaining returns the number of goroutines and the size of the heap. It waits
// up to five seconds for goroutines that are about to end.
func remaining(goroutines int) (int, int64) {
	for range 50 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return runtime.NumGoroutine(), int64(stats.HeapAlloc)
}
