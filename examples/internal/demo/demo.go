// Package demo is shared by the programs under examples. It serves an API on
// loopback, sends requests to it, prints requests and responses, and checks the
// responses.
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

// Step is a request to the API and the expected response.
type Step struct {
	// Title says what the request demonstrates.
	Title string
	// Method and Path of the request.
	Method, Path string
	// Token is sent in the Authorization header. If empty, there is no such header.
	Token string
	// JSON is the body. If empty, there is no body.
	JSON string
	// Status is the expected status.
	Status int
	// Body is the exact body expected. If empty, any body is accepted.
	Body string
	// Has lists texts that the body must contain.
	Has []string
}

// Curl returns the request as a curl command.
func (s Step) Curl(api string) string {
	line := "curl -i"
	if s.Method != http.MethodGet {
		line += " -X " + s.Method
	}
	if s.Token != "" {
		line += " -H 'Authorization: Bearer " + s.Token + "'"
	}
	if s.JSON != "" {
		line += " -H 'Content-Type: application/json' -d '" + s.JSON + "'"
	}
	return line + " '" + api + s.Path + "'"
}

// Tour sends requests and prints them with their responses.
type Tour struct {
	// Out is where requests and responses are printed.
	Out io.Writer
	// API is the URL that the paths are appended to.
	API string

	wrong []string // titles of steps with a wrong response
}

// Show sends the request of a step, checks the response and prints both.
func (t *Tour) Show(ctx context.Context, s Step) {
	fmt.Fprintf(t.Out, "\n%s\n", s.Title)
	req, err := http.NewRequestWithContext(ctx, s.Method, t.API+s.Path, nil)
	if err != nil {
		t.report(s.Title, err)
		return
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	if s.JSON != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	status, body, err := t.Exchange(req, s.JSON)
	if err == nil {
		err = s.check(status, string(body))
	}
	t.report(s.Title, err)
}

// check compares a response with the expected one.
func (s Step) check(status int, body string) error {
	if status != s.Status {
		return fmt.Errorf("got %d, want %d", status, s.Status)
	}
	if s.Body != "" && body != s.Body {
		return fmt.Errorf("got another body, want %s", s.Body)
	}
	for _, text := range s.Has {
		if !strings.Contains(body, text) {
			return fmt.Errorf("the body does not contain %s", text)
		}
	}
	return nil
}

// Expect prints whether a condition other than a response is met.
func (t *Tour) Expect(title string, ok bool) {
	var err error
	if !ok {
		err = errors.New("the condition is not met")
	}
	t.report(title, err)
}

// report prints whether a step succeeded.
func (t *Tour) report(title string, err error) {
	if err == nil {
		fmt.Fprintln(t.Out, "  ok")
		return
	}
	fmt.Fprintf(t.Out, "  WRONG: %v\n", err)
	t.wrong = append(t.wrong, title)
}

// Wrong returns an error that lists the wrong responses, or nil if there are none.
func (t *Tour) Wrong() error {
	if len(t.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("wrong responses: %s", strings.Join(t.wrong, "; "))
}

// Exchange sends a request and prints it with its response. If content is not empty,
// it is the body, and a form unless the request has a Content-Type. Secrets in the
// request are shortened; the body of the response is printed unchanged.
func (t *Tour) Exchange(req *http.Request, content string) (status int, body []byte, err error) {
	if content != "" {
		req.Body = io.NopCloser(strings.NewReader(content))
		req.ContentLength = int64(len(content))
		if req.Header.Get("Content-Type") == "" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}
	fmt.Fprintf(t.Out, "  > %s %s\n  > Host: %s\n", req.Method, req.URL.RequestURI(), req.URL.Host)
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		fmt.Fprintf(t.Out, "  > %s: %s\n", name, shorten(req.Header.Get(name)))
	}
	if content != "" {
		fmt.Fprintf(t.Out, "  >\n  > %s\n", shorten(content))
	}
	res, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(t.Out, "  < no response: %v\n", err)
		return 0, nil, err
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		return 0, nil, err
	}
	fmt.Fprintf(t.Out, "  < %s %s\n", res.Proto, res.Status)
	for _, name := range slices.Sorted(maps.Keys(res.Header)) {
		if name != "Date" && name != "Content-Length" { // irrelevant here
			fmt.Fprintf(t.Out, "  < %s: %s\n", name, res.Header.Get(name))
		}
	}
	fmt.Fprintf(t.Out, "  <\n  < %s\n", bytes.TrimSuffix(body, []byte("\n")))
	return res.StatusCode, body, nil
}

// client opens a new connection for each request, so that no idle connection
// remains when the server is closed.
var client = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// secret matches a token or a client secret. The groups are the part to keep.
var secret = regexp.MustCompile(`(eyJ[\w-]{5})[\w.-]{20,}|(Bearer [\w-]{8})[\w-]{20,}|(client_secret=)[^&]+`)

// shorten truncates the secrets in text.
func shorten(text string) string { return secret.ReplaceAllString(text, "$1$2$3…") }

// Server is a running server.
type Server struct {
	// URL is the URL of the server.
	URL string

	server *http.Server
}

// Serve starts a server for the handler. The caller must call Close.
func Serve(addr string, handler http.Handler) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{"http://" + listener.Addr().String(), &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}}
	go func() { _ = s.server.Serve(listener) }() // ends with Close
	return s, nil
}

// Close stops the server.
func (s *Server) Close() { _ = s.server.Close() }

// Writer returns a writer that is safe for concurrent use, so that a program and
// its server can both write to w.
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

// Logger returns a logger that writes every record as an indented line.
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

// Main is the main function of a small example. It starts an issuer and the API,
// shows the steps, prints them as curl commands, and serves until interrupted. It
// parses the flags -addr and -once, and calls os.Exit.
func Main(newAPI func(koreauth.TokenValidator) http.Handler, steps func(*koretest.Issuer) []Step) {
	ctx, stop := Interrupted()
	status := run(ctx, os.Args[1:], Writer(os.Stdout), newAPI, steps)
	stop()
	os.Exit(status)
}

// run is Main without the process: it returns the exit status.
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

// Flags parses the flags of an example.
func Flags(args []string, out io.Writer) (addr string, once bool, err error) {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&addr, "addr", "127.0.0.1:0", "`address` to listen on; port 0 selects a free port")
	flags.BoolVar(&once, "once", false, "exit after the requests, with status 1 if a response is wrong")
	return addr, once, flags.Parse(args)
}

// End returns the exit status: 1 if a response was wrong. Unless once is set, it
// first prints the steps as curl commands and waits until ctx is done.
func End(ctx context.Context, tour *Tour, once bool, steps ...Step) int {
	if !once {
		fmt.Fprintln(tour.Out, "\nTry these in another terminal:")
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

// Interrupted returns a context that is canceled when the program is interrupted.
func Interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt)
}

// The bodies of error responses.
const (
	Unauthorized = `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`
	Forbidden    = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Invalid or expired token"}`
	NoGrant      = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Insufficient scope"}`
	Denied       = `{"message":"User is not authorized to access this resource with an explicit deny","error":"Access denied"}`
	Unavailable  = `{"message":"Authorization is temporarily unavailable","error":"temporarily_unavailable"}`
)
