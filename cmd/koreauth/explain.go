package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/bounded"
)

// maxInput is how many bytes of a token are read.
const maxInput = 64 << 10

// patience is how long the issuer is waited for.
const patience = 20 * time.Second

func explainCommand(w world) *cli.Command {
	return &cli.Command{
		Name:  "explain",
		Usage: "check a token, and show each check",
		Description: "The token is read from standard input, or from --token-file. The table shows neither " +
			"the token nor a secret claim.",
		UsageText: "koreauth explain --issuer URL --audience NAME [options] <token.txt",
		Flags: append(slices.Concat(validatorFlags(), senderFlags()),
			&cli.StringSliceFlag{Name: "require", Usage: "also check `RULE`: scope:NAME, product:NAME or grant:RESOURCE:ACCESS[,ACCESS]"},
			&cli.StringFlag{Name: "token-file", Usage: "read the token from `FILE` instead of standard input"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("explain takes no argument: pass the token on standard input, or in a file with --token-file")
			}
			return runExplain(ctx, w, c)
		},
	}
}

// validatorFlags are the flags that describe a koreauth.Config.
func validatorFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "issuer", Usage: "the exact \"iss\" of the tokens, a `URL`"},
		&cli.StringSliceFlag{Name: "audience", Usage: "an accepted \"aud\"; repeat it for several"},
		&cli.StringFlag{Name: "jwks-url", Usage: "the `URL` of the keys; default: discovered from the issuer"},
		&cli.StringSliceFlag{Name: "alg", Usage: "an accepted algorithm; default: RS256"},
		&cli.StringSliceFlag{Name: "client", Usage: "an accepted client; default: all"},
		&cli.DurationFlag{Name: "leeway", Usage: "the allowed clock skew, such as 5s"},
		&cli.DurationFlag{Name: "max-age", Usage: "the maximum age of a token, such as 24h"},
		&cli.BoolFlag{Name: "dangerously-allow-http", Usage: "fetch keys over http from any host"},
	}
}

func runExplain(ctx context.Context, w world, c *cli.Command) error {
	validator, err := newValidator(c)
	if err != nil {
		return err
	}
	requirements, err := parseRequirements(c.StringSlice("require"))
	if err != nil {
		return err
	}
	from, err := newSender(c)
	if err != nil {
		return err
	}
	token, err := readToken(ctx, w, c.String("token-file"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// With keys, the reason is the real one. If there are none, the table says why.
	_ = validator.Ready(ctx)
	explanation := from.explain(ctx, validator, token, requirements)
	if err := printExplanation(w.out, explanation, c.Bool("json")); err != nil {
		return err
	}
	if status := explanationStatus(explanation.Err); status != statusOK {
		return &failure{status: status}
	}
	return nil
}

// explanationStatus returns the exit status for the error of an explanation.
func explanationStatus(err error) int {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, koreauth.ErrUnavailable):
		return statusUnknown
	}
	return statusRejected
}

func printExplanation(out io.Writer, explanation *koreauth.Explanation, asJSON bool) error {
	if !asJSON {
		_, err := io.WriteString(out, explanation.String())
		return err
	}
	text, err := json.MarshalIndent(explanation, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

// newValidator returns the validator that the flags describe. Its faults are those of
// the caller.
func newValidator(c *cli.Command) (*koreauth.Validator, error) {
	validator, err := koreauth.NewValidator(validatorConfig(c))
	if err != nil {
		return nil, usage("%s", inFlags.Replace(err.Error()))
	}
	return validator, nil
}

// validatorConfig returns the Config that the flags describe.
func validatorConfig(c *cli.Command) koreauth.Config {
	return koreauth.Config{
		Issuer: c.String("issuer"), Audience: c.StringSlice("audience"), JWKSURL: c.String("jwks-url"),
		Algorithms: c.StringSlice("alg"), ClientIDs: c.StringSlice("client"),
		Leeway: c.Duration("leeway"), MaxAge: c.Duration("max-age"),
		DangerouslyAllowHTTP: c.Bool("dangerously-allow-http"),
	}
}

// inFlags turns the names of fields into those of flags.
var inFlags = strings.NewReplacer("koreauth: ", "", "Config.Issuer", "--issuer", "Config.Audience", "--audience", "Config.Algorithms", "--alg",
	"Config.ClientIDs", "--client", "Config.Leeway", "--leeway", "Config.MaxAge", "--max-age", "DangerouslyAllowHTTP", "--dangerously-allow-http")

// parseRequirements reads the values of --require.
func parseRequirements(rules []string) (all []koreauth.Requirement, err error) {
	for _, rule := range rules {
		kind, name, _ := strings.Cut(rule, ":")
		var one koreauth.Requirement
		func() {
			defer func() {
				if p := recover(); p != nil { // The constructors panic on an invalid name.
					err = usage("--require %q: %s", rule, strings.TrimPrefix(fmt.Sprint(p), "koreauth: "))
				}
			}()
			switch kind {
			case "scope":
				one = koreauth.Scope(strings.Fields(name)...)
			case "product":
				one = koreauth.Product(name)
			case "grant":
				one, err = parseGrant(rule, name)
			default:
				err = usage("--require %q: use scope:NAME, product:NAME or grant:RESOURCE:ACCESS, such as 'grant:API Clients:Read'", rule)
			}
		}()
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func parseGrant(rule, text string) (koreauth.Requirement, error) {
	end := strings.LastIndex(text, ":")
	if end < 0 {
		return nil, usage("--require %q: name the access too, such as 'grant:API Clients:Read'", rule)
	}
	var access []koreauth.Access
	for name := range strings.SplitSeq(text[end+1:], ",") {
		access = append(access, koreauth.Access(name))
	}
	return koreauth.Grant(text[:end], access...), nil
}

// readToken reads the token from the file or, if there is none, from standard input.
// White space around it is not part of it.
func readToken(ctx context.Context, w world, file string) (string, error) {
	in := w.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("--token-file: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := bounded.Call(ctx, func(context.Context) ([]byte, error) { return io.ReadAll(io.LimitReader(in, maxInput+1)) })
	switch {
	case ctx.Err() != nil:
		return "", errInterrupted
	case err != nil:
		return "", usage("reading the token: %w", err)
	case len(text) > maxInput:
		return "", usage("the token is larger than 64 KiB: pass one token")
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", usage("there is no token: pass it on standard input, or in a file with --token-file")
	}
	return token, nil
}
