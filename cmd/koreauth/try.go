package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/authserver"
	"github.com/koreauth/koreauth/internal/loopback"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/koreclient"
)

func testCommand(w world) *cli.Command {
	var flags []cli.Flag
	for _, flag := range slices.Concat(tokenFlags(), validatorFlags(), senderFlags()) {
		if slices.ContainsFunc(flags, func(f cli.Flag) bool { return f.Names()[0] == flag.Names()[0] }) {
			continue // --issuer and --client are of both.
		}
		flags = append(flags, flag)
	}
	return &cli.Command{
		Name:  "test",
		Usage: "get a token and try it: what is sent, what comes back, what is wrong",
		Description: "The token is checked if --audience is set, and sent to --api if that is set. The " +
			"secret and the token are not printed.",
		UsageText: "koreauth test --token-url URL --issuer URL --audience NAME [--api URL] [options]",
		Flags: append(flags,
			&cli.StringSliceFlag{Name: "require", Usage: "also check `RULE`, as explain does"},
			&cli.StringFlag{Name: "api", Usage: "call this `URL` with the token"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("test takes no argument: set KORE_CLIENT_SECRET, or use --secret-file")
			}
			return test(ctx, w, c)
		},
	}
}

func test(ctx context.Context, w world, c *cli.Command) error {
	config, err := clientConfig(ctx, w, c, c.String("client"))
	if err != nil {
		return err
	}
	config.Issuer = c.String("issuer")
	if config.TokenURL != "" {
		config.Issuer = ""
	}
	recorder := &recorder{out: w.out, secrets: authserver.Forms(config.ClientID, config.ClientSecret)}
	config.HTTPClient = &http.Client{Transport: recorder}
	client, err := newClient(config)
	if err != nil {
		return err
	}
	var validator *koreauth.Validator
	if len(c.StringSlice("audience")) > 0 {
		if validator, err = newValidator(c); err != nil {
			return err
		}
	} else {
		for _, name := range []string{"require", "cert", "client-address"} {
			if c.IsSet(name) {
				return usage("--%s needs --audience, and --issuer: without them the token is not checked", name)
			}
		}
	}
	requirements, err := parseRequirements(c.StringSlice("require"))
	if err != nil {
		return err
	}
	from, err := newSender(c)
	if err != nil {
		return err
	}
	api, err := apiRequest(ctx, c.String("api"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	token, err := client.Token(ctx)
	if err != nil {
		recorder.end()
		status := tokenStatus(err)
		fmt.Fprintln(w.out)
		_ = printWrapped(w.out, "", "", "Auth Test Failed: "+tokenFailure(err))
		fmt.Fprint(w.out, documented(err))
		return &failure{status: status}
	}
	fmt.Fprintf(w.out, "\nAuth Test Succeeded: the token expires %s\n", expiry(token))
	status := statusOK
	if validator != nil {
		_ = validator.Ready(ctx) // as in explain
		explanation := from.explain(ctx, validator, token.Value, requirements)
		fmt.Fprintf(w.out, "\n%s", explanation)
		status = explanationStatus(explanation.Err)
	}
	if api != nil {
		recorder.secrets = append(recorder.secrets, token.Value)
		api.Header.Set("Authorization", "Bearer "+token.Value)
		res, err := recorder.RoundTrip(api.WithContext(ctx))
		answered := statusUnknown
		if err != nil {
			_ = printWrapped(w.out, "", "", "the API did not answer: "+recorder.clean(err.Error()))
		} else {
			_ = res.Body.Close()
			answered = apiStatus(res.StatusCode)
		}
		if status != statusRejected {
			status = max(status, answered)
		}
	}
	if status != statusOK {
		return &failure{status: status}
	}
	return nil
}

// apiStatus returns the exit status for what an API answered.
func apiStatus(code int) int {
	switch {
	case code <= 299:
		return statusOK
	case code <= 399 || code == http.StatusTooManyRequests || code >= 500:
		return statusUnknown
	}
	return statusRejected
}

// parseURL returns the URL that a flag says where the token is sent.
func parseURL(flag, text, form string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || strings.Contains(u.Host, "*") || u.Scheme != "https" && u.Scheme != "http":
		return nil, usage("%s is not an absolute URL: use the form %s", flag, form)
	case strings.HasSuffix(u.Host, ":"):
		return nil, usage("%s has an empty port: remove the colon after the host", flag)
	case u.User != nil:
		return nil, usage("%s has credentials in it: remove them, because the token is sent", flag)
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return nil, usage("%s is http, so that anyone on the network could read the token: use https", flag)
	}
	return u, nil
}

// apiRequest returns the request to the API, or nil if there is none to call.
func apiRequest(ctx context.Context, text string) (*http.Request, error) {
	if text == "" {
		return nil, nil
	}
	if _, err := parseURL("--api", text, "https://api.example.com/v1/ping"); err != nil {
		return nil, err
	}
	return http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
}

func expiry(t koreclient.Token) string {
	if t.Expiry.IsZero() {
		return "at an unknown time"
	}
	return "at " + t.Expiry.UTC().Format(time.RFC3339)
}

// documented names the documented error that a failure is.
func documented(err error) string {
	var failed *koreclient.Error
	if !errors.As(err, &failed) {
		return ""
	}
	switch {
	case failed.Code == "unauthorized_client" && failed.Status == http.StatusUnauthorized:
		return "This is KORE's documented error for an unknown client or a wrong secret.\n"
	case failed.Code != "":
		return "This is the error " + redact.Unverified(failed.Code) + " of RFC 6749 §5.2.\n"
	case failed.Status == 0:
		return "There was no answer: check the URL, DNS, the proxy and TLS.\n"
	}
	return "This is no documented answer of a token endpoint: check the URL.\n"
}

// recorder prints each request as it is sent, and its answer, without secrets.
type recorder struct {
	out io.Writer

	mu      sync.Mutex // guards out and ended
	ended   bool
	secrets []string
}

// end waits for what is being printed. Nothing more is printed then: the client may still
// wait for an answer that nobody waits for.
func (r *recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// show prints something, unless the recorder has ended.
func (r *recorder) show(print func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		print()
	}
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	r.show(func() {
		fmt.Fprintln(r.out)
		r.print(">", req.Method+" "+redact.Text(req.URL.Redacted()))
		r.printHeader(">", req.Header)
		r.printBody(">", body)
	})
	times := &timings{}
	res, err := http.DefaultTransport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), times.trace())))
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(answer))
	r.show(func() {
		fmt.Fprintln(r.out)
		r.print("<", fmt.Sprintf("%s (%s)", r.clean(res.Status), times))
		r.printHeader("<", res.Header)
		r.printBody("<", answer)
	})
	return res, nil
}

// printHeader prints the fields in order.
func (r *recorder) printHeader(mark string, header http.Header) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		value := strings.Join(header[name], ", ")
		switch scheme, _, _ := strings.Cut(value, " "); name {
		case "Authorization":
			value = scheme + " [redacted]"
		case "Set-Cookie", "Cookie":
			value = "[redacted]"
		}
		if secretName.MatchString(name) {
			value = "[redacted]"
		}
		r.print(mark, name+": "+r.clean(value))
	}
}

// print prints a line of a request or an answer. What does not fit is indented.
func (r *recorder) print(mark, text string) { _ = printWrapped(r.out, mark+" ", mark+"   ", text) }

// printBody prints the start of a body, without secrets.
func (r *recorder) printBody(mark string, body []byte) {
	if len(body) > 0 {
		r.print(mark, "")
		r.print(mark, r.clean(withoutTokens(body)))
	}
}

// clean returns a text that can be printed, without the secrets.
func (r *recorder) clean(text string) string { return authserver.Redact(text, r.secrets...) }

// timings are the times of a request.
type timings struct {
	start time.Time

	mu                     sync.Mutex // guards the fields below: a second connection may be made at the same time
	lookUp, connect, hello time.Duration
	first                  time.Duration
}

func (t *timings) trace() *httptrace.ClientTrace {
	t.start = time.Now()
	since := func(d *time.Duration) {
		t.mu.Lock()
		defer t.mu.Unlock()
		*d = time.Since(t.start).Round(time.Millisecond / 10)
	}
	return &httptrace.ClientTrace{
		DNSDone:              func(httptrace.DNSDoneInfo) { since(&t.lookUp) },
		ConnectDone:          func(string, string, error) { since(&t.connect) },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { since(&t.hello) },
		GotFirstResponseByte: func() { since(&t.first) },
	}
}

// String lists how long after the start each part was done.
func (t *timings) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for _, part := range []struct {
		name string
		took time.Duration
	}{{"DNS", t.lookUp}, {"TCP", t.connect}, {"TLS", t.hello}, {"first byte", t.first}} {
		if part.took > 0 {
			parts = append(parts, part.name+" "+part.took.String())
		}
	}
	return strings.Join(parts, ", ")
}
