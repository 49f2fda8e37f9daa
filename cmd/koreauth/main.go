// Command koreauth finds out why a token is rejected, gets tokens, and revokes them.
//
//	go install github.com/koreauth/koreauth/cmd/koreauth@latest
//	koreauth explain --issuer URL --audience NAME <token.txt
//	koreauth token --token-url URL
//	koreauth revoke --file revoked.log --issuer URL --client ID
//
// It exits with status 0 if all is well, 1 if something was rejected, 2 if it was called
// wrongly, and 3 if it could not find out. Secrets and tokens are never taken from
// arguments, which other users of the machine can read.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/koreauth/koreauth/internal/bounded"
	"github.com/koreauth/koreauth/internal/secret"
)

// The exit statuses.
const (
	statusOK       = 0
	statusRejected = 1
	statusUsage    = 2
	statusUnknown  = 3 // it could not be judged
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	w := world{args: os.Args, in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	w.cache, _ = os.UserCacheDir() // If there is none, nothing is cached.
	if term.IsTerminal(int(os.Stdin.Fd())) {
		w.prompt = prompt
	}
	status := run(ctx, w)
	stop()
	os.Exit(status)
}

// world is what the command sees of the machine.
type world struct {
	args     []string
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	cache    string                                                 // the folder for cached tokens; empty: none are cached
	prompt   func(ctx context.Context, text string) (string, error) // asks on the terminal, without echo; nil: there is none
}

// prompt asks for a secret on the terminal, until ctx is done.
func prompt(ctx context.Context, text string) (string, error) {
	terminal := int(os.Stdin.Fd())
	before, err := term.GetState(terminal)
	if err != nil {
		return "", err
	}
	fmt.Fprint(os.Stderr, text)
	secret, err := bounded.Call(ctx, func(context.Context) ([]byte, error) { return term.ReadPassword(terminal) })
	_ = term.Restore(terminal, before) // It may still be read from, without echo.
	fmt.Fprintln(os.Stderr)
	return string(secret), err
}

// errInterrupted ends the command after a signal.
var errInterrupted = &failure{statusUnknown, errors.New("interrupted")}

// failure ends the command with a status, and with a message unless err is nil.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string {
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}

func usage(format string, args ...any) error {
	return &failure{statusUsage, fmt.Errorf(format, args...)}
}

// run runs the command, and returns its exit status.
func run(ctx context.Context, w world) int {
	if slices.ContainsFunc(w.args[1:], secret.HasJWT) {
		_ = printWrapped(w.err, "", "", "koreauth: an argument looks like a token, and other users of the machine can read arguments: "+
			"pass the token on standard input, or in a file with --token-file; it may have to be revoked now")
		return statusUsage
	}
	err := newCommand(w).Run(ctx, w.args)
	var failed *failure
	switch {
	case err == nil:
		return statusOK
	case !errors.As(err, &failed):
		failed = &failure{statusUnknown, err} // for example of writing
	}
	if failed.err != nil {
		_ = printWrapped(w.err, "", "", "koreauth: "+err.Error())
	}
	return failed.status
}

func newCommand(w world) *cli.Command {
	commands := []*cli.Command{
		explainCommand(w), tokenCommand(w), testCommand(w), doctorCommand(w), revokeCommand(w), liftCommand(w), listCommand(w), issuerCommand(w),
	}
	for _, c := range commands {
		c.OnUsageError = usageError
		c.DisableSliceFlagSeparator = true // A grant may have a comma.
	}
	return &cli.Command{
		Name:      "koreauth",
		Usage:     "find out why a token is rejected, get tokens, and revoke them",
		Writer:    w.out,
		ErrWriter: w.err,
		Reader:    w.in,
		Commands:  commands,
		// Errors end the program in main.
		ExitErrHandler:        func(context.Context, *cli.Command, error) {},
		OnUsageError:          usageError,
		EnableShellCompletion: true,
		Suggest:               true,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("there is no command %q: see koreauth help", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		},
	}
}

// usageError returns errors of flags without printing the help.
func usageError(_ context.Context, _ *cli.Command, err error, _ bool) error {
	return &failure{statusUsage, err}
}
