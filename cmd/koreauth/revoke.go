package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/revocation"
)

func revokeCommand(w world) *cli.Command {
	return &cli.Command{
		Name:  "revoke",
		Usage: "end tokens before they expire",
		Description: "The rule is appended to a file, or sent to the revocation handler of an API, with " +
			"the token in the file that KORE_TOKEN_FILE names, or one that is fetched with " +
			"KORE_CLIENT_ID, KORE_CLIENT_SECRET and --token-url.",
		UsageText: "koreauth revoke --url URL | --file FILE --issuer URL --client ID [options]",
		Flags: append(append(storeFlags(), ruleFlags()...),
			&cli.StringFlag{Name: "reason", Usage: "why, for the audit log"},
			&cli.BoolFlag{Name: "dry-run", Usage: "append nothing; say how many known tokens it would stop (with --url)"},
			&cli.BoolFlag{Name: "wait", Usage: "wait until all replicas have the rule (with --url)"},
		),
		Action: func(ctx context.Context, c *cli.Command) error { return changeRule(ctx, w, c, false) },
	}
}

func liftCommand(w world) *cli.Command {
	return &cli.Command{
		Name:      "lift",
		Usage:     "end a rule, so that its tokens work again",
		UsageText: "koreauth lift --url URL | --file FILE --issuer URL --client ID [options]",
		Flags:     append(storeFlags(), ruleFlags()...),
		Action:    func(ctx context.Context, c *cli.Command) error { return changeRule(ctx, w, c, true) },
	}
}

func listCommand(w world) *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list the rules that end tokens, oldest first",
		UsageText: "koreauth list --url URL | --file FILE [options]",
		Flags:     storeFlags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			store, err := openStore(ctx, w, c)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			receipts, err := store.list(ctx)
			if err != nil {
				return err
			}
			return printRules(w, receipts, c.Bool("json"))
		},
	}
}

// storeFlags say where the rules are.
func storeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "url", Usage: "the `URL` of the revocation handler"},
		&cli.StringFlag{Name: "file", Usage: "the `FILE` of the rules, of the APIs on this machine"},
		&cli.StringFlag{Name: "token-url", Usage: "the `URL` of the token endpoint, for --url without KORE_TOKEN_FILE"},
		&cli.StringFlag{Name: "style", Value: "form", Usage: "how credentials are sent: form (KORE) or basic"},
		&cli.StringFlag{Name: "secret-file", Usage: "read the secret from `FILE` instead of KORE_CLIENT_SECRET"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
	}
}

// ruleFlags say which tokens a rule is about.
func ruleFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "issuer", Usage: "the \"iss\" of the tokens"},
		&cli.StringFlag{Name: "token-file", Usage: "the token in `FILE`"},
		&cli.StringFlag{Name: "jti", Usage: "the token with this \"jti\""},
		&cli.StringFlag{Name: "client", Usage: "all tokens of this client, issued until now"},
		&cli.StringFlag{Name: "account", Usage: "all tokens of this account, issued until now"},
		&cli.StringFlag{Name: "subject", Usage: "all tokens of this subject, issued until now"},
		&cli.BoolFlag{Name: "everything", Usage: "all tokens of the issuer, issued until now"},
	}
}

// ruleStore is where the rules are.
type ruleStore interface {
	change(ctx context.Context, r revocation.Rule) (revocation.Receipt, error)
	list(ctx context.Context) ([]revocation.Receipt, error)
	// dryRun returns how many tokens the rule would stop, and of which clients.
	dryRun(ctx context.Context, r revocation.Rule) (tokens int, clients []string, err error)
	// wait returns when all replicas have all rules.
	wait(ctx context.Context) error
}

func openStore(ctx context.Context, w world, c *cli.Command) (ruleStore, error) {
	url, file := c.String("url"), c.String("file")
	switch {
	case c.Args().Present():
		return nil, usage("%s takes no argument: use flags", c.Name)
	case url == "" && file == "":
		return nil, usage("--url and --file are empty: set one of them")
	case url != "" && file != "":
		return nil, usage("--url and --file are both set: remove one of them")
	case file != "":
		if c.Bool("wait") {
			return nil, usage("--wait needs --url: the APIs of this machine read the file every 200 ms")
		}
		return fileStore{revocation.File(file)}, nil
	case c.Bool("wait") && c.Bool("dry-run"):
		return nil, usage("--wait and --dry-run are both set: remove one of them, because a dry run changes nothing")
	}
	return newHandlerStore(ctx, w, c)
}

// changeRule appends a rule, or one that lifts it.
func changeRule(ctx context.Context, w world, c *cli.Command, lift bool) error {
	store, err := openStore(ctx, w, c)
	if err != nil {
		return err
	}
	rule, err := readRule(c)
	if err != nil {
		return err
	}
	rule.Lift = lift
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if c.Bool("dry-run") {
		tokens, clients, err := store.dryRun(ctx, rule)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return json.NewEncoder(w.out).Encode(map[string]any{"tokens": tokens, "clients": clients})
		}
		if _, err := fmt.Fprintf(w.out, "would stop %d known tokens, of %d clients\n", tokens, len(clients)); err != nil {
			return err
		}
		for _, client := range clients {
			if err := printWrapped(w.out, "  ", "    ", redact.Text(client)); err != nil {
				return err
			}
		}
		return nil
	}
	receipt, err := store.change(ctx, rule)
	if err != nil {
		return err
	}
	if err := printRules(w, []revocation.Receipt{receipt}, c.Bool("json")); err != nil {
		return err
	}
	if c.Bool("wait") {
		return store.wait(ctx)
	}
	return nil
}

// readRule returns the rule that the flags describe.
func readRule(c *cli.Command) (revocation.Rule, error) {
	rule := revocation.Rule{
		Issuer: c.String("issuer"), Token: c.String("jti"), Client: c.String("client"), Account: c.String("account"), Subject: c.String("subject"),
		Everything: c.Bool("everything"), Reason: c.String("reason"),
	}
	if file := c.String("token-file"); file != "" {
		if rule.Token != "" {
			return rule, usage("--token-file and --jti are both set: remove one of them")
		}
		id, err := idOf(file)
		if err != nil {
			return rule, err
		}
		rule.Token = id
	}
	matchers := 0
	for _, value := range []string{rule.Token, rule.Client, rule.Account, rule.Subject} {
		if value != "" {
			matchers++
		}
	}
	if rule.Everything {
		matchers++
	}
	if matchers != 1 {
		return rule, usage("use exactly one of --token-file, --jti, --client, --account, --subject and --everything")
	}
	if _, err := rule.Complete(time.Now()); err != nil {
		return rule, usage("%s", ruleFlagNames.Replace(err.Error()))
	}
	return rule, nil
}

var ruleFlagNames = strings.NewReplacer("revocation: ", "", "Rule.Issuer", "--issuer", "Rule.Token", "--jti", "Rule.Client", "--client",
	"Rule.Account", "--account", "Rule.Subject", "--subject", "Rule.Everything", "--everything")

// idOf returns the "jti" of the token in a file. The token is not verified: whoever may
// revoke it may also name its ID.
func idOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", usage("--token-file: %w", err)
	}
	parts := strings.Split(strings.TrimSpace(string(text)), ".")
	var claims struct {
		ID string `json:"jti"`
	}
	if len(parts) == 3 {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil {
			_ = json.Unmarshal(payload, &claims) // If it fails, there is no ID.
		}
	}
	if claims.ID == "" {
		return "", usage(`--token-file: the file has no JWT with a "jti": revoke the tokens of its client with --client`)
	}
	return claims.ID, nil
}

// printRules prints receipts, at most 80 columns wide.
func printRules(w world, receipts []revocation.Receipt, asJSON bool) error {
	for _, r := range receipts {
		if asJSON {
			if err := json.NewEncoder(w.out).Encode(r); err != nil {
				return err
			}
			continue
		}
		what := "revoked"
		if r.Rule.Lift {
			what = "lifted"
		}
		lines := []string{"issuer " + r.Rule.Issuer, "at " + r.At.UTC().Format(time.RFC3339)}
		if r.Rule.By != "" {
			lines = append(lines, "by "+r.Rule.By)
		}
		if r.Rule.Reason != "" {
			lines = append(lines, "reason "+r.Rule.Reason)
		}
		const indent = "   "
		if err := printWrapped(w.out, fmt.Sprintf("%d  %s  ", r.Seq, what), indent, redact.Text(subjectOf(r.Rule))); err != nil {
			return err
		}
		for _, line := range lines {
			if err := printWrapped(w.out, indent, indent, redact.Text(line)); err != nil {
				return err
			}
		}
	}
	return nil
}

// subjectOf names what a rule is about.
func subjectOf(r revocation.Rule) string {
	for _, one := range []struct{ name, value string }{{"token", r.Token}, {"client", r.Client}, {"account", r.Account}, {"subject", r.Subject}, {"hash", r.Hash}} {
		if one.value != "" {
			return one.name + " " + one.value
		}
	}
	return "everything"
}

// fileStore is the file of the APIs on this machine.
type fileStore struct{ store revocation.Store }

func (s fileStore) change(ctx context.Context, r revocation.Rule) (revocation.Receipt, error) {
	receipt, err := s.store.Append(ctx, r)
	if err != nil {
		return receipt, &failure{statusUnknown, err}
	}
	return receipt, nil
}

func (s fileStore) list(ctx context.Context) (receipts []revocation.Receipt, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	complete := false
	err = s.store.Follow(ctx, 0, func(r revocation.Receipt) { receipts = append(receipts, r) }, func(time.Time) {
		complete = true
		cancel()
	})
	if !complete {
		return nil, &failure{statusUnknown, err}
	}
	return receipts, nil
}

func (s fileStore) dryRun(context.Context, revocation.Rule) (int, []string, error) {
	return 0, nil, usage("--dry-run needs --url: only a running API knows which tokens it has seen")
}

// wait is not called: openStore rejects --wait with a file.
func (s fileStore) wait(context.Context) error { return nil }
