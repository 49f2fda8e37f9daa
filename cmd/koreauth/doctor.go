package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/doctor"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koreclient"
)

const (
	again     = 2 * time.Second  // until doctor checks again, with --wait
	leastWait = 10 * time.Second // so that an answer that is late is recognized as such
)

func doctorCommand(w world) *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check the issuer, its keys, the clocks, and an API",
		UsageText: "koreauth doctor --issuer URL --audience NAME [--api URL] [options]",
		Flags: append(validatorFlags(),
			&cli.StringFlag{Name: "api", Usage: "also check how the API at this `URL` answers"},
			&cli.StringFlag{Name: "token-file", Usage: "also check the token in `FILE`, and send it to the API"},
			&cli.BoolFlag{Name: "introspect", Usage: "also ask the issuer about the token, with the API's credentials in KORE_CLIENT_ID and KORE_CLIENT_SECRET"},
			&cli.StringFlag{Name: "introspection-url", Usage: "the `URL` of the introspection endpoint; without it, it is discovered"},
			&cli.StringFlag{Name: "secret-file", Usage: "read the API's secret from `FILE`"},
			&cli.StringFlag{Name: "style", Value: "basic", Usage: "how the API's credentials are sent: basic or form"},
			&cli.StringFlag{Name: "format", Value: "kore", Usage: "the format of the API's rejections: kore, rfc6750 or problem"},
			&cli.DurationFlag{Name: "wait", Usage: "check again until nothing fails, for at most this time, such as 60s"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON array"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("doctor takes no argument: pass a token in a file with --token-file")
			}
			return runDoctor(ctx, w, c)
		},
	}
}

func runDoctor(ctx context.Context, w world, c *cli.Command) error {
	if _, err := newValidator(c); err != nil {
		return err // the caller's
	}
	config := doctor.Config{Config: validatorConfig(c), API: c.String("api")}
	switch c.String("format") {
	case "kore":
	case "rfc6750":
		config.Errors = koreauth.RFC6750Errors
	case "problem":
		config.Errors = koreauth.ProblemErrors
	default:
		return usage("--format %q: use kore, rfc6750 or problem", c.String("format"))
	}
	if _, err := apiRequest(ctx, config.API); err != nil {
		return err
	}
	if file := c.String("token-file"); file != "" {
		token, err := readToken(ctx, w, file)
		if err != nil {
			return err
		}
		config.Token = token
	}
	if c.Bool("introspect") {
		if err := introspects(ctx, w, c, &config); err != nil {
			return err
		}
	}
	findings := untilHealthy(ctx, config, c.Duration("wait"))
	if err := printFindings(w, findings, c.Bool("json")); err != nil {
		return err
	}
	if failing(findings) {
		return &failure{status: statusRejected}
	}
	return nil
}

// introspects makes the API of the Config one that asks the issuer about tokens.
func introspects(ctx context.Context, w world, c *cli.Command, config *doctor.Config) error {
	client, err := clientConfig(ctx, w, c, "")
	if err != nil {
		return err
	}
	config.Introspection = introspection.Config{
		Endpoint: c.String("introspection-url"), Issuer: config.Config.Issuer, Audience: config.Config.Audience,
		ClientIDs: config.Config.ClientIDs, Leeway: config.Config.Leeway,
		ClientID: client.ClientID, ClientSecret: client.ClientSecret, DangerouslyAllowHTTP: config.Config.DangerouslyAllowHTTP,
	}
	if client.Style != koreclient.Basic {
		config.Introspection.Style = introspection.Post
	}
	opaque, err := introspection.New(config.Introspection)
	if err != nil {
		return usage("%s", clientFlags.Replace(err.Error()))
	}
	config.Config.Opaque = opaque
	return nil
}

// untilHealthy makes the checks until none fails, or the time is over. If it is zero,
// the checks are made once, however long they take.
func untilHealthy(ctx context.Context, config doctor.Config, wait time.Duration) []doctor.Finding {
	if wait <= 0 {
		return doctor.Run(ctx, config)
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, leastWait))
	defer cancel()
	findings := doctor.Run(ctx, config)
	for failing(findings) {
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return findings
		}
		next := doctor.Run(ctx, config)
		if ctx.Err() != nil && failing(next) {
			break // It was not finished.
		}
		findings = next
	}
	return findings
}

func failing(findings []doctor.Finding) bool {
	return slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Level == "fail" })
}

// printFindings prints the findings, at most 80 columns wide.
func printFindings(w world, findings []doctor.Finding, asJSON bool) error {
	if asJSON {
		type finding struct {
			Check string `json:"check"`
			Level string `json:"level"`
			Found string `json:"found"`
			Cure  string `json:"cure"`
		}
		all := make([]finding, len(findings))
		for n, f := range findings {
			all[n] = finding(f)
		}
		encoder := json.NewEncoder(w.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(all)
	}
	for _, f := range findings {
		mark := f.Level
		if mark == "fail" {
			mark = "FAIL"
		}
		const indent = "      "
		if err := printWrapped(w.out, fmt.Sprintf("%-6s", mark), indent, f.Check+": "+f.Found); err != nil {
			return err
		}
		if f.Cure != "" {
			if err := printWrapped(w.out, indent, indent, "→ "+f.Cure); err != nil {
				return err
			}
		}
	}
	return nil
}
