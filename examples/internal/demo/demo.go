// Package demo is what the programs under examples have in common: it serves an
// API on loopback, sends it real requests, prints both sides, and says whether
// the answers are those that were promised.
package demo

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// Step is a request to the API, and the answer that it must have.
type Step struct {
	// Title says what the request shows.
	Title string
	// Method and Path are the request's.
	Method, Path string
	// Token goes into the Authorization header. Empty: there is no such header.
	Token string
	// Status is what the answer's must be.
	Status int
	// Body is what the answer's must be, to the byte. Empty: not looked at.
	Body string
	// Has are texts that the answer's body must hold.
	Has []string
}

// Curl returns the step as a line for a shell.
func (s Step) Curl(api string) string {
	line := "curl -i"
	if s.Method != http.MethodGet {
		line += " -X " + s.Method
	}
	if s.Token != "" {
		line += " -H 'Authorization: Bearer " + s.Token + "'"
	}
	return line + " '" + api + s.Path + "'"
}

// Tour sends requests and prints them with their answers.
type Tour struct {
	// Out is where to print.
	Out io.Writer
	// API is the URL that paths are relative to.
	API string

	wrong []string
}

// Show sends the request of a step, and prints request, answer and verdict.
func (t *Tour) Show(ctx context.Context, s Step) {
	fmt.Fprintf(t.Out, "\n%s\n", s.Title)
	req, err := http.NewRequestWithContext(ctx, s.Method, t.API+s.Path, nil)
	if err != nil {
		t.verdict(s.Title, err)
		return
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	status, body, err := t.Exchange(req, "")
	if err == nil {
		err = s.check(status, string(body))
	}
	t.verdict(s.Title, err)
}

func (s Step) check(status int, body string) error {
	if status != s.Status {
		return fmt.Errorf("got %d, want %d", status, s.Status)
	}
	if s.Body != "" && body != s.Body {
		return fmt.Errorf("got another body than %s", s.Body)
	}
	for _, text := range s.Has {
		if !strings.Contains(body, text) {
			return fmt.Errorf("the body lacks %s", text)
		}
	}
	return nil
}

// Expect prints whether something beside an answer is as promised.
func (t *Tour) Expect(what string, ok bool) {
	var err error
	if !ok {
		err = errors.New("it is not so")
	}
	t.verdict(what, err)
}

func (t *Tour) verdict(what string, err error) {
	if err == nil {
		fmt.Fprintln(t.Out, "  ok")
		return
	}
	fmt.Fprintf(t.Out, "  WRONG: %v\n", err)
	t.wrong = append(t.wrong, what)
}

// Wrong returns what was not as promised, or nil.
func (t *Tour) Wrong() error {
	if len(t.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("not as promised: %s", strings.Join(t.wrong, "; "))
}

// Exchange sends a request, and prints it and its answer; form is its body, if
// it has one. Secrets of the request are cut short; the answer's body is
// printed as it came.
func (t *Tour) Exchange(req *http.Request, form string) (status int, body []byte, err error) {
	if form != "" {
		req.Body = io.NopCloser(strings.NewReader(form))
		req.ContentLength = int64(len(form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	fmt.Fprintf(t.Out, "  > %s %s\n  > Host: %s\n", req.Method, req.URL.RequestURI(), req.URL.Host)
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		fmt.Fprintf(t.Out, "  > %s: %s\n", name, shorten(req.Header.Get(name)))
	}
	if form != "" {
		fmt.Fprintf(t.Out, "  >\n  > %s\n", shorten(form))
	}
	res, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(t.Out, "  < no answer: %v\n", err)
		return 0, nil, err
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		return 0, nil, err
	}
	fmt.Fprintf(t.Out, "  < %s %s\n", res.Proto, res.Status)
	for _, name := range slices.Sorted(maps.Keys(res.Header)) {
		if name != "Date" && name != "Content-Length" { // nothing to learn from
			fmt.Fprintf(t.Out, "  < %s: %s\n", name, res.Header.Get(name))
		}
	}
	fmt.Fprintf(t.Out, "  <\n  < %s\n", bytes.TrimSuffix(body, []byte("\n")))
	return res.StatusCode, body, nil
}

// client opens a connection for each request, so that none is left when the
// server goes.
var client = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// secret is a token or a client's secret, after its first characters.
var secret = regexp.MustCompile(`(eyJ[\w-]{5})[\w.-]{20,}|(client_secret=)[^&]+`)

func shorten(text string) string { return secret.ReplaceAllString(text, "$1$2…") }

// Server serves on loopback until it is closed.
type Server struct {
	// URL is where it listens.
	URL string

	server *http.Server
}

// Serve starts serving a handler.
func Serve(addr string, handler http.Handler) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{"http://" + listener.Addr().String(), &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}}
	go func() { _ = s.server.Serve(listener) }() // ends with Close
	return s, nil
}

// Close ends it.
func (s *Server) Close() { _ = s.server.Close() }

// Writer makes a writer safe for a program and the server within it.
func Writer(w io.Writer) io.Writer { return &lockedWriter{w: w} }

type lockedWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Logger returns a logger of everything, one indented line a record.
func Logger(out io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(indented{out}, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

type indented struct{ io.Writer }

func (w indented) Write(p []byte) (int, error) {
	_, err := fmt.Fprintf(w.Writer, "  log %s", p)
	return len(p), err
}

// Main is the main function of a small example: it starts an issuer and the
// API, shows the steps, prints them for curl, and serves on until it is
// interrupted. It takes the flags -addr and -once, and ends the program.
func Main(newAPI func(koreauth.TokenValidator) http.Handler, steps func(*koretest.Issuer) []Step) {
	ctx, stop := Interrupted()
	status := run(ctx, os.Args[1:], Writer(os.Stdout), newAPI, steps)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, out io.Writer, newAPI func(koreauth.TokenValidator) http.Handler, steps func(*koretest.Issuer) []Step) int {
	addr, once, err := Flags(args, out)
	if err != nil {
		return 2
	}
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer issuer.Close()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	server, err := Serve(addr, newAPI(validator))
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer server.Close()
	tour := &Tour{Out: out, API: server.URL}
	shown := steps(issuer)
	for _, step := range shown {
		tour.Show(ctx, step)
	}
	return End(ctx, tour, once, shown...)
}

// Flags reads the flags that every example has.
func Flags(args []string, out io.Writer) (addr string, once bool, err error) {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&addr, "addr", "127.0.0.1:0", "where the API listens; port 0 is a free one")
	flags.BoolVar(&once, "once", false, "end after the requests, with status 1 if an answer is not as promised")
	return addr, once, flags.Parse(args)
}

// End prints the steps for curl and waits for an interrupt, unless there is no
// more to be served, and returns the exit status.
func End(ctx context.Context, tour *Tour, once bool, steps ...Step) int {
	if !once {
		fmt.Fprintln(tour.Out, "\nTo try by hand, in another terminal:")
		for _, step := range steps {
			fmt.Fprintf(tour.Out, "\n# %d: %s\n%s\n", step.Status, step.Title, step.Curl(tour.API))
		}
		fmt.Fprintf(tour.Out, "\nServing on %s until interrupted (Ctrl-C).\n", tour.API)
		<-ctx.Done()
	}
	if err := tour.Wrong(); err != nil {
		fmt.Fprintf(tour.Out, "\n%v\n", err)
		return 1
	}
	return 0
}

// Interrupted returns a context that ends with the program's interruption.
func Interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt)
}

// The bodies that KORE documents, and the one for a missing grant.
const (
	Unauthorized = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	Forbidden    = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	NoGrant      = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
	Unavailable  = `{"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}`
)
