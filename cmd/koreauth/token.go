package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth/koreclient"
)

func tokenCommand(w world) *cli.Command {
	return &cli.Command{
		Name:  "token",
		Usage: "get a token with the client-credentials grant",
		Description: "The credentials are read from the variables KORE_CLIENT_ID and KORE_CLIENT_SECRET. " +
			"The secret may be in --secret-file instead, or is asked for on a terminal. The token is " +
			"cached until 30 seconds before it expires. A command after -- is run with the token in " +
			"the variable KORE_TOKEN.",
		UsageText: "koreauth token --token-url URL [options] [-- COMMAND...]",
		Flags: append(tokenFlags(),
			&cli.StringFlag{Name: "format", Value: "token", Usage: "what to print: token, header, json or env"},
			&cli.BoolFlag{Name: "no-cache", Usage: "get a new token, and do not keep it"},
			&cli.BoolFlag{Name: "forget", Usage: "remove the cached token, and get none"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			var command []string
			if n := slices.Index(w.args, "--"); n >= 0 {
				command = w.args[n+1:]
			}
			if !slices.Equal(c.Args().Slice(), command) {
				return usage("token takes no argument: set KORE_CLIENT_SECRET, or use --secret-file")
			}
			return getToken(ctx, w, c, command)
		},
	}
}

// tokenFlags are the flags that describe a koreclient.Config.
func tokenFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "token-url", Usage: "the `URL` of the token endpoint"},
		&cli.StringFlag{Name: "issuer", Usage: "the `URL` of the issuer; without --token-url, the endpoint is discovered"},
		&cli.StringFlag{Name: "client", Usage: "the client's `ID`, instead of KORE_CLIENT_ID"},
		&cli.StringFlag{Name: "secret-file", Usage: "read the secret from `FILE`"},
		&cli.StringFlag{Name: "style", Value: "form", Usage: "how the credentials are sent: form (KORE) or basic"},
		&cli.StringFlag{Name: "scope", Usage: "the requested scope"},
		&cli.StringFlag{Name: "resource", Usage: "the requested resource (RFC 8707)"},
	}
}

// formats print a token.
var formats = map[string]func(io.Writer, koreclient.Token) error{
	"token": func(out io.Writer, t koreclient.Token) error {
		_, err := fmt.Fprintln(out, t.Value)
		return err
	},
	"header": func(out io.Writer, t koreclient.Token) error {
		_, err := fmt.Fprintln(out, "Authorization: Bearer "+t.Value)
		return err
	},
	"env": func(out io.Writer, t koreclient.Token) error {
		_, err := fmt.Fprintln(out, "export KORE_TOKEN='"+t.Value+"'") // It has no quote.
		return err
	},
	"json": func(out io.Writer, t koreclient.Token) error {
		answer := struct {
			AccessToken string `json:"access_token"`
			TokenType   string `json:"token_type"`
			Expiry      string `json:"expiry,omitempty"`
			Scope       string `json:"scope,omitempty"`
		}{AccessToken: t.Value, TokenType: "Bearer", Scope: t.Scope}
		if !t.Expiry.IsZero() {
			answer.Expiry = t.Expiry.UTC().Format(time.RFC3339)
		}
		return json.NewEncoder(out).Encode(answer)
	},
}

// getToken prints a token or, if there is a command, runs that with the token.
func getToken(ctx context.Context, w world, c *cli.Command, command []string) error {
	write := formats[c.String("format")]
	if write == nil {
		return usage("--format %q: use token, header, json or env", c.String("format"))
	}
	if len(command) > 0 {
		write = func(_ io.Writer, t koreclient.Token) error { return runWithToken(ctx, w, command, t) }
	}
	config, err := clientConfig(ctx, w, c, c.String("client"))
	if err != nil {
		return err
	}
	config.Issuer = c.String("issuer")
	client, err := newClient(config)
	if err != nil {
		return err
	}
	cache := newTokenCache(w.cache, config)
	switch {
	case c.Bool("forget"):
		return cache.forget()
	case c.Bool("no-cache"):
		cache = tokenCache{}
	}
	token, err := cachedOrNew(ctx, w, cache, client)
	if err != nil {
		return err
	}
	return write(w.out, token)
}

// cachedOrNew returns the cached token or, if there is none, a new one. Of the
// processes that need one at the same time, one gets it.
func cachedOrNew(ctx context.Context, w world, cache tokenCache, client *koreclient.Client) (koreclient.Token, error) {
	if token, ok := cache.find(); ok {
		return token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	unlock, err := cache.lock(ctx)
	if err != nil {
		fmt.Fprintln(w.err, "koreauth: the cache of tokens cannot be locked:", err)
	}
	defer unlock()
	if token, ok := cache.find(); ok {
		return token, nil
	}
	token, err := client.Token(ctx)
	if err != nil {
		return token, &failure{tokenStatus(err), errors.New(tokenFailure(err))}
	}
	if err := cache.keep(token); err != nil {
		fmt.Fprintln(w.err, "koreauth: the token is not cached:", err)
	}
	return token, nil
}

// runWithToken runs a command with the token in KORE_TOKEN. Its exit status is that of
// the command.
func runWithToken(ctx context.Context, w world, command []string, t koreclient.Token) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "KORE_TOKEN="+t.Value)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = w.in, w.out, w.err
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return &failure{status: exit.ExitCode()}
	case err != nil:
		return &failure{statusUnknown, fmt.Errorf("%s: %w", command[0], err)}
	}
	return nil
}

// tokenFailure describes an error of the token endpoint.
func tokenFailure(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "the token endpoint did not answer in time"
	}
	return strings.TrimPrefix(err.Error(), "koreclient: ")
}

// tokenStatus returns the exit status for an error of the token endpoint: a 4xx other
// than 429 is a rejection, and anything else does not tell.
func tokenStatus(err error) int {
	var failed *koreclient.Error
	if errors.As(err, &failed) && (failed.Status >= 400 && failed.Status <= 499 && failed.Status != 429 || failed.Status == 200 && failed.Code != "") {
		return statusRejected
	}
	return statusUnknown
}

// newClient returns a client. The faults of its Config are those of the caller.
func newClient(config koreclient.Config) (*koreclient.Client, error) {
	client, err := koreclient.New(config)
	if err != nil {
		return nil, usage("%s", clientFlags.Replace(err.Error()))
	}
	return client, nil
}

// clientConfig reads the flags and variables. If id is empty, it is that of
// KORE_CLIENT_ID.
func clientConfig(ctx context.Context, w world, c *cli.Command, id string) (koreclient.Config, error) {
	config := koreclient.Config{
		TokenURL: c.String("token-url"), ClientID: id, ClientSecret: w.getenv("KORE_CLIENT_SECRET"),
		Scope: c.String("scope"), Resource: c.String("resource"),
	}
	if config.ClientID == "" {
		config.ClientID = w.getenv("KORE_CLIENT_ID")
	}
	switch c.String("style") {
	case "form":
	case "basic":
		config.Style = koreclient.Basic
	default:
		return config, usage("--style %q: use form or basic", c.String("style"))
	}
	if file := c.String("secret-file"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return config, usage("--secret-file: %w", err)
		}
		config.ClientSecret = strings.TrimRight(string(text), "\r\n")
	}
	if config.ClientSecret == "" && w.prompt != nil {
		secret, err := w.prompt(ctx, "Client secret: ")
		switch {
		case ctx.Err() != nil:
			return config, errInterrupted
		case err != nil:
			return config, usage("reading the secret: %w", err)
		}
		config.ClientSecret = secret
	}
	return config, nil
}

// clientFlags turns the names of fields of koreclient and introspection into those of flags.
var clientFlags = strings.NewReplacer("koreclient: ", "", "introspection: ", "", "Config.Endpoint", "--introspection-url", "Config.Audience", "--audience", "Config.TokenURL and Issuer", "--token-url and --issuer", "Config.TokenURL", "--token-url",
	"Config.Issuer", "--issuer", "Config.ClientID", "KORE_CLIENT_ID", "Config.ClientSecret and Secret are empty: set one of them",
	"KORE_CLIENT_SECRET is empty: set it, or use --secret-file", "Config.Scope", "--scope")
