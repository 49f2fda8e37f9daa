package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

const (
	issuerHost = "localhost:8080"
	otherHost  = "localhost:8081" // not the issuer's
)

// The keys of all rows. They are made once, because that takes time and no result
// depends on them.
var (
	firstKey  = makeKey("first", "ES256")
	secondKey = makeKey("second", "ES256")
	rsaKey    = makeKey("rsa", "RS256")
	edKey     = makeKey("ed", "EdDSA")
	forgerKey = makeKey("forger", "ES256") // never published by the issuer
)

func makeKey(id, algorithm string) *koretest.Key {
	key, err := koretest.NewKey(algorithm)
	if err != nil {
		panic(err)
	}
	key.ID = id
	return key
}

func named(key *koretest.Key, id string) *koretest.Key {
	other := *key
	other.ID = id
	return &other
}

// world is a guarded API and its issuer, in a bubble.
type world struct {
	t      *testing.T
	issuer *koretest.Issuer
	client *http.Client
	api    http.Handler
	keys   *koreauth.RemoteKeySet

	conns    chan net.Conn
	requests atomic.Int64 // that arrived, and those for which there was no connection
	network  network      // changed only while no request is running
	pending  sync.WaitGroup
	kids     int // number of invented kids

	mu sync.Mutex // guards the row
	row
}

// network is what can fail below HTTP.
type network struct {
	dial  func(context.Context) error // instead of a connection
	reset bool                        // the client sees a reset when the server closes
}

// row is a line of the table.
type row struct {
	fault, when        string
	known, fresh, fake answers
	asked              int64         // requests to the issuer before the fault ended
	back               time.Duration // from the end of the fault to the first 200; negative: not measured
	measured           bool          // whether fetch was
	fetch, kept        int64         // bytes of memory
	why                string        // why a valid token may be rejected
}

// answers are the statuses that tokens of one kind got, in the order in which they
// were sent.
type answers struct {
	statuses []int
	slowest  time.Duration
}

// play runs one row in its own world.
func play(t *testing.T, fault, when, why string, script func(w *world)) (result row) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "http://" + issuerHost, Keys: []*koretest.Key{firstKey}})
		require.NoError(t, err)
		w := &world{t: t, issuer: issuer, conns: make(chan net.Conn), row: row{fault: fault, when: when, back: -1, why: why}}
		server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			w.requests.Add(1)
			issuer.ServeHTTP(out, r)
		})}
		go func() { _ = server.Serve(w) }()
		w.client = &http.Client{Transport: &http.Transport{DialContext: w.dial}}
		w.keys = &koreauth.RemoteKeySet{URL: issuer.KeysURL(), HTTPClient: w.client}
		w.guard()
		before := settledHeap()
		script(w)
		w.pending.Wait()
		w.kept = settledHeap() - before
		if w.asked == 0 {
			w.asked = w.requests.Load()
		}
		time.Sleep(time.Minute) // Now the last dial has ended.
		require.NoError(t, server.Close())
		result = w.row
	})
	return result
}

// guard makes the guarded API, with w.keys.
func (w *world) guard() {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: w.issuer.URL(), Audience: []string{koretest.Audience}, Keys: w.keys, Algorithms: []string{"RS256", "ES256", "EdDSA"},
	})
	require.NoError(w.t, err)
	w.api = koreauth.New(validator, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

// violations returns which requirements the row does not meet.
func (r row) violations() []string {
	var broken []string
	valid := slices.Concat(r.known.statuses, r.fresh.statuses)
	if slices.ContainsFunc(valid, func(status int) bool { return status != 200 && status != 403 && status != 503 }) {
		broken = append(broken, "a valid token got an unexpected status")
	}
	if rejected := slices.Contains(valid, 403); rejected && r.why == "" {
		broken = append(broken, "a valid token was rejected")
	} else if !rejected && r.why != "" {
		broken = append(broken, "no valid token was rejected, so remove the reason")
	}
	for _, status := range r.fake.statuses {
		if status != 403 && status != 503 {
			broken = append(broken, "a forged token was not rejected")
			break
		}
	}
	if r.slowest() > 10*time.Second {
		broken = append(broken, "a request waited for longer than two fetches")
	}
	if r.fetch > 32<<20 {
		broken = append(broken, "a fetch used too much memory")
	}
	if r.kept > 4<<20 {
		broken = append(broken, "too much memory was kept")
	}
	return broken
}

func (r row) slowest() time.Duration { return max(r.known.slowest, r.fresh.slowest, r.fake.slowest) }

// Accept, Close and Addr make w the listener of the issuer's server.
func (w *world) Accept() (net.Conn, error) {
	if conn, ok := <-w.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (w *world) Close() error {
	close(w.conns)
	return nil
}

func (w *world) Addr() net.Addr { return &net.TCPAddr{} }

func (w *world) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	// net/http does not cancel a dial when its request is canceled. The dial ends
	// with the timeout of the dialer; this one is that of http.DefaultTransport.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if w.network.dial != nil {
		w.requests.Add(1)
		return nil, w.network.dial(ctx)
	}
	ours, theirs := net.Pipe()
	select {
	case w.conns <- theirs:
		return clientConn{ours, w.network.reset}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type clientConn struct {
	net.Conn
	reset bool
}

func (c clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.reset && errors.Is(err, io.EOF) {
		err = syscall.ECONNRESET
	}
	return n, err
}

// misbehave starts a fault. If f is nil, it ends the current one.
func (w *world) misbehave(f *fault) {
	synctest.Wait()
	if f == nil {
		f = &fault{}
	}
	w.network = f.network
	w.issuer.Behave(f.behave, koretest.KeysEndpoint)
}

func (w *world) mint(t koretest.Token) string {
	token, err := w.issuer.Mint(t)
	require.NoError(w.t, err)
	return token
}

// valid returns a new token signed with key.
func (w *world) valid(key *koretest.Key) string { return w.mint(koretest.Token{Key: key}) }

// invented returns a forged token with a kid that no key has.
func (w *world) invented() string {
	w.kids++
	return w.mint(koretest.Token{Key: named(forgerKey, "invented-"+strconv.Itoa(w.kids)), Sign: func([]byte) ([]byte, error) {
		return make([]byte, 64), nil // No key exists to verify it with.
	}})
}

// forgeries returns tokens that are valid except for their signature, which is not
// from a key of the issuer. They have the given kid.
func (w *world) forgeries(kid string) []string {
	return []string{
		w.mint(koretest.Token{Key: named(forgerKey, kid)}),
		w.mint(koretest.Token{Key: named(firstKey, kid), BadSignature: true}),
		w.mint(koretest.Token{Key: named(firstKey, kid), Algorithm: "none"}),
	}
}

// send sends a request with each token. The requests start in this order and do
// not wait for each other.
func (w *world) send(to *answers, tokens ...string) {
	for _, token := range tokens {
		w.mu.Lock()
		slot := len(to.statuses)
		to.statuses = append(to.statuses, 0)
		w.mu.Unlock()
		w.pending.Go(func() {
			status, took := w.ask(token)
			w.mu.Lock()
			defer w.mu.Unlock()
			to.statuses[slot] = status
			to.slowest = max(to.slowest, took)
		})
		synctest.Wait()
	}
}

// ask sends one request and returns its status and how long it took.
func (w *world) ask(token string) (int, time.Duration) {
	start := time.Now()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, r)
	if recorder.Code == http.StatusServiceUnavailable {
		seconds, err := strconv.Atoi(recorder.Header().Get("Retry-After"))
		assert.NoError(w.t, err, "every 503 has a Retry-After")
		assert.Positive(w.t, seconds)
	}
	return recorder.Code, time.Since(start)
}

// ends measures how much memory a fetch uses during the fault. Then it ends the
// fault and measures how long it takes until a token of key is accepted.
func (w *world) ends(key *koretest.Key) {
	w.pending.Wait()
	w.asked = w.requests.Load()
	if *update { // This takes long, and the result is not compared.
		w.fetch, w.measured = w.fetched(), true
	}
	w.misbehave(nil)
	w.until200(key)
}

// until200 measures how long it takes until a token of key is accepted.
func (w *world) until200(key *koretest.Key) {
	start := time.Now()
	for time.Since(start) < time.Hour {
		if status, _ := w.ask(w.valid(key)); status == http.StatusOK {
			w.back = time.Since(start)
			return
		}
		pause := 50 * time.Millisecond
		if time.Since(start) >= 10*time.Second {
			pause = 5 * time.Second
		}
		time.Sleep(pause)
	}
	assert.Failf(w.t, "no 200 within an hour", "%q %s", w.fault, w.when)
}

// fetched returns by how much the heap grows while a new key set makes one fetch.
// It is the smaller of two results, and garbage is collected immediately, so that
// little of it is counted.
func (w *world) fetched() int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	least := int64(math.MaxInt64)
	for range 2 {
		set := &koreauth.RemoteKeySet{URL: w.keys.URL, Issuer: w.keys.Issuer, HTTPClient: w.client}
		before := settledHeap()
		peak.Store(before)
		_, _ = set.Keys(w.t.Context(), "", true) // The fetch may fail: only its memory matters.
		least = min(least, max(peak.Load(), heap())-before)
	}
	return least
}

// peak is the largest heap that watchHeap has seen since peak was set.
var peak atomic.Int64

// watchHeap updates peak. It runs outside of all bubbles, in real time.
func watchHeap(ctx context.Context) {
	for ticker := time.NewTicker(200 * time.Microsecond); ctx.Err() == nil; <-ticker.C {
		peak.Store(max(peak.Load(), heap()))
	}
}

func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

func settledHeap() int64 {
	if !*update {
		return 0
	}
	runtime.GC()
	runtime.GC() // The content of a sync.Pool survives the first.
	return heap()
}

// String returns the statuses in their order: "503, then 200".
func (a answers) String() string {
	if len(a.statuses) == 0 {
		return "–"
	}
	runs := slices.Compact(slices.Clone(a.statuses))
	texts := make([]string, len(runs))
	for i, status := range runs {
		texts[i] = strconv.Itoa(status)
	}
	return strings.Join(texts, ", then ")
}

// set returns the different statuses: "403, 503".
func (a answers) set() string {
	statuses := slices.Clone(a.statuses)
	slices.Sort(statuses)
	return strings.ReplaceAll(answers{statuses: statuses}.String(), ", then ", ", ")
}

// responses returns the cells of the table of responses.
func (r row) responses() []string {
	back := "–"
	if r.back >= 0 {
		back = r.back.String()
	}
	known := r.known.String()
	if r.known.slowest > 0 {
		known += " after " + r.known.slowest.String()
	}
	return []string{r.fault, known, r.fresh.String(), r.fake.set(), back}
}

// costs returns the cells of the table of costs. The last two are memory.
func (r row) costs() []string {
	fetch := "–"
	if r.measured {
		fetch = megabytes(r.fetch)
	}
	return []string{r.fault, strconv.FormatInt(r.asked, 10), r.slowest().String(), fetch, megabytes(r.kept)}
}

// megabytes returns bytes in MB, rounded up, because the last digits differ in each
// run.
func megabytes(bytes int64) string {
	return fmt.Sprintf("%.1f MB", math.Ceil(float64(max(bytes, 1))/(1<<20)*10)/10)
}
