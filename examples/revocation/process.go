package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/koreauth/koreauth/examples/internal/demo"
)

// serving is what a process of the API prints before its URL.
const serving = "serving on "

// serve is the main function of a process of the API, without the process. Its
// arguments are "serve", the address, the issuer and the file. It prints the URL of the
// API when it has loaded the rules, and ends when ctx is done or its standard input is closed.
func serve(ctx context.Context, args []string, out io.Writer) int {
	if len(args) != 4 {
		fmt.Fprintln(out, "usage: revocation serve ADDRESS ISSUER FILE")
		return 2
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out = demo.Writer(out)
	a, err := newAPI(args[2], args[3], demo.Logger(out))
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	followed := make(chan error, 1)
	go func() { followed <- a.revoked.Follow(ctx, a.store) }()
	for a.revoked.Status().Current.IsZero() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond) // Until the rules are loaded, each token gets 503.
	}
	server, err := demo.Serve(args[1], a.handler)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer server.Close()
	fmt.Fprintln(out, serving+server.URL)
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, os.Stdin) // until the tour ends
	}()
	<-followed
	return 0
}

// process is a running process of the API.
type process struct {
	url     string
	command *exec.Cmd
	stdin   io.Closer
	printed chan struct{} // closed when all that it wrote is printed
}

// start starts a process of the API, which is this program again.
func (t *tour) start(ctx context.Context, i int, addr string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, program, serveCommand, addr, t.issuer.URL(), t.file)
	command.Stderr, command.WaitDelay = t.Out, 5*time.Second
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	p := &process{command: command, stdin: stdin, printed: make(chan struct{})}
	t.apis[i] = p
	lines := bufio.NewScanner(stdout)
	for p.url == "" && lines.Scan() {
		if url, found := strings.CutPrefix(lines.Text(), serving); found {
			p.url = url
		} else {
			fmt.Fprintf(t.Out, "  API %d %s\n", i+1, lines.Text())
		}
	}
	go func() {
		defer close(p.printed)
		for lines.Scan() {
			fmt.Fprintf(t.Out, "  API %d %s\n", i+1, lines.Text())
		}
	}()
	if p.url == "" {
		return fmt.Errorf("API %d does not start", i+1)
	}
	return nil
}

// stop ends the process.
func (p *process) stop() {
	_ = p.stdin.Close()
	<-p.printed
	_ = p.command.Wait()
}

// stop ends the processes that were started.
func (t *tour) stop() {
	for _, p := range t.apis {
		if p != nil {
			p.stop()
		}
	}
}

// call calls the API, and returns the status, or zero if there is no response.
func (p *process) call(ctx context.Context, token string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/v1/me", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}
