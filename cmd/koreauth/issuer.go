package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
)

func issuerCommand(w world) *cli.Command {
	return &cli.Command{
		Name:        "issuer",
		Usage:       "run an issuer for development, with a page that makes tokens",
		Description: "It listens on loopback alone, and prints a client and its secret.",
		UsageText:   "koreauth issuer [--addr 127.0.0.1:8081] [--keys-file FILE]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Value: devissuer.DefaultAddr, Usage: "listen on this `ADDRESS`, which must be on loopback"},
			&cli.StringFlag{Name: "keys-file", Usage: "keep the keys in `FILE`, so that tokens stay valid; it is created if it is not there"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usage("issuer takes no argument: use --addr and --keys-file")
			}
			err := devissuer.Run(ctx, c.String("addr"), c.String("keys-file"), w.out)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, devissuer.ErrAddr):
				return usage("--addr: %w", err)
			}
			return &failure{statusUnknown, err}
		},
	}
}
