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

// The keys of all rows, made once: making them takes time, and nothing in the
// table depends on which they are.
var (
	firstKey    = makeKey("first", "ES256")
	secondKey   = makeKey("second", "ES256")
	rsaKey      = makeKey("rsa", "RS256")
	edKey       = makeKey("ed", "EdDSA")
	strangerKey = makeKey("stranger", "ES256") // the issuer never publishes it
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

// world is a guarded API and the issuer that it fetches keys from, in a bubble.
type world struct {
	t      *testing.T
	issuer *koretest.Issuer
	client *http.Client
	api    http.Handler
	keys   *koreauth.RemoteKeySet

	conns    chan net.Conn
	requests atomic.Int64 // connections asked for: each carries one request
	network  network      // what is wrong with it; changed only while nothing runs
	pending  sync.WaitGroup
	kids     int // how many were invented

	mu sync.Mutex // guards the row
	row
}

// network is what can be wrong below HTTP.
type network struct {
	dial  func(context.Context) error // instead of a connection
	reset bool                        // what the server closes is a reset to the client
}

// row is a line of the table.
type row struct {
	fault, when        string
	known, fresh, fake answers
	asked              int64         // requests to the issuer
	back               time.Duration // from its end to the first 200; less than zero: not looked at
	looked             bool          // at how much a fetch takes
	fetch, kept        int64         // bytes
	why                string        // a valid token may be refused here, because
}

// answers are the statuses that tokens of one sort got, in the order of sending.
type answers struct {
	statuses []int
	slowest  time.Duration
}

// play runs one row in a world of its own.
func play(t *testing.T, fault, when, why string, script func(w *world)) (result row) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := koretest.NewIssuer(&koretest.Options{URL: "http://" + issuerHost, Keys: []*koretest.Key{firstKey}})
		require.NoError(t, err)
		w := &world{t: t, issuer: issuer, conns: make(chan net.Conn), row: row{fault: fault, when: when, back: -1, why: why}}
		server := &http.Server{Handler: issuer}
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
		time.Sleep(time.Minute) // the last dial ends
		require.NoError(t, server.Close())
		result = w.row
	})
	return result
}

// guard makes the guard of w.keys.
func (w *world) guard() {
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: w.issuer.URL(), Audience: []string{koretest.Audience}, Keys: w.keys, Algorithms: []string{"RS256", "ES256", "EdDSA"},
	})
	require.NoError(w.t, err)
	w.api = koreauth.New(validator, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

// broken says which promises the row breaks.
func (r row) broken() []string {
	var broken []string
	valid := slices.Concat(r.known.statuses, r.fresh.statuses)
	if slices.ContainsFunc(valid, func(status int) bool { return status != 200 && status != 403 && status != 503 }) {
		broken = append(broken, "a valid token got something odd")
	}
	if refused := slices.Contains(valid, 403); refused && r.why == "" {
		broken = append(broken, "a valid token was refused")
	} else if !refused && r.why != "" {
		broken = append(broken, "no valid token is refused any more: the reason can go")
	}
	for _, status := range r.fake.statuses {
		if status != 403 && status != 503 {
			broken = append(broken, "a forged token was not refused")
			break
		}
	}
	if r.slowest() > 10*time.Second {
		broken = append(broken, "a request waited for more than two fetches")
	}
	if r.fetch > 32<<20 {
		broken = append(broken, "a fetch took too much memory")
	}
	if r.kept > 4<<20 {
		broken = append(broken, "too much memory is kept")
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
	w.requests.Add(1)
	// net/http lets a dial go on when its request has been given up; what ends it
	// is the dialer's own timeout, as long as http.DefaultTransport's.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if w.network.dial != nil {
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

// misbehave begins a fault, and a nil one ends it.
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

// valid returns a token of that key that was never sent.
func (w *world) valid(key *koretest.Key) string { return w.mint(koretest.Token{Key: key}) }

// invented returns a forged token of a kid that nobody has heard of.
func (w *world) invented() string {
	w.kids++
	return w.mint(koretest.Token{Key: named(strangerKey, "invented-"+strconv.Itoa(w.kids)), Sign: func([]byte) ([]byte, error) {
		return make([]byte, 64), nil // There is no key to look at it with.
	}})
}

// forgeries returns tokens that are good but for their signature, by no key of
// the issuer's, under that kid.
func (w *world) forgeries(kid string) []string {
	return []string{
		w.mint(koretest.Token{Key: named(strangerKey, kid)}),
		w.mint(koretest.Token{Key: named(firstKey, kid), BadSignature: true}),
		w.mint(koretest.Token{Key: named(firstKey, kid), Algorithm: "none"}),
	}
}

// send sends a request with each token, all at once but in this order.
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

// ask returns the status of one request, and how long it took.
func (w *world) ask(token string) (int, time.Duration) {
	start := time.Now()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, r)
	if recorder.Code == http.StatusServiceUnavailable {
		seconds, err := strconv.Atoi(recorder.Header().Get("Retry-After"))
		assert.NoError(w.t, err, "every 503 says when to try again")
		assert.Positive(w.t, seconds)
	}
	return recorder.Code, time.Since(start)
}

// ends is the end of a fault: it tells what a fetch allocates while the fault
// lasts, and how long after it a token of that key is accepted.
func (w *world) ends(key *koretest.Key) {
	w.pending.Wait()
	w.asked = w.requests.Load()
	if *update { // It takes time, and is not compared.
		w.fetch, w.looked = w.fetched(), true
	}
	w.misbehave(nil)
	w.until200(key)
}

// until200 looks how long it takes until a token of that key is accepted.
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

// fetched returns by how much memory grows while a key set that has none makes
// one fetch, the less of two tries. Garbage is collected at once, so that it
// counts as little as can be.
func (w *world) fetched() int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	least := int64(math.MaxInt64)
	for range 2 {
		set := &koreauth.RemoteKeySet{URL: w.keys.URL, Issuer: w.keys.Issuer, HTTPClient: w.client}
		before := settledHeap()
		peak.Store(before)
		_, _ = set.Keys(w.t.Context(), "", true) // Whether there are keys is told elsewhere.
		least = min(least, max(peak.Load(), heap())-before)
	}
	return least
}

// peak is the most memory in use since it was set, looked at by watchHeap.
var peak atomic.Int64

// watchHeap runs outside of all bubbles, on real time.
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
	runtime.GC() // what a sync.Pool holds survives the first
	return heap()
}

// String tells the order of a valid token's answers: "503, then 200".
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

// set tells the answers in no order: "403, 503".
func (a answers) set() string {
	statuses := slices.Clone(a.statuses)
	slices.Sort(statuses)
	return strings.ReplaceAll(answers{statuses: statuses}.String(), ", then ", ", ")
}

// cells are the row's that come out the same each time.
func (r row) cells() []string {
	back := "–"
	if r.back >= 0 {
		back = r.back.String()
	}
	known := r.known.String()
	if r.known.slowest > 0 {
		known += " after " + r.known.slowest.String()
	}
	note := r.fault
	if r.why != "" {
		note += " (" + r.why + ")"
	}
	return []string{note, r.when, known, r.fresh.String(), r.fake.set(), strconv.FormatInt(r.asked, 10), r.slowest().String(), back}
}

// line is the row as Markdown.
func (r row) line() string {
	fetch := "–"
	if r.looked {
		fetch = megabytes(r.fetch)
	}
	return "| " + strings.Join(append(r.cells(), fetch, megabytes(r.kept)), " | ") + " |"
}

// megabytes are rounded up, for the last digits differ each time.
func megabytes(bytes int64) string {
	return fmt.Sprintf("%.1f MB", math.Ceil(float64(max(bytes, 1))/(1<<20)*10)/10)
}
