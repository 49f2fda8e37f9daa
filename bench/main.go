// Command bench measures the cost of guarding a request with koreauth and with similar libraries, compares it with lower
// bounds, and writes RESULTS.md and results.svg. README.md explains how.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/koreauth/koreauth/bench/subjects"
)

func main() {
	rounds := flag.Int("rounds", 15, "how many times to measure each subject")
	slice := flag.Duration("slice", 100*time.Millisecond, "how long to measure each time")
	out := flag.String("out", ".", "the `folder` for the results")
	part := flag.String("part", "", "measure only the parts with this `text` in their name; print the results instead of writing them")
	flag.Parse()

	if err := run(context.Background(), clock{rounds: *rounds, slice: *slice}, *out, *part); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, c clock, out, only string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	b, err := newBench(ctx, c)
	if err != nil {
		return err
	}
	defer b.issuer.Close()

	for _, part := range []struct {
		name    string
		measure func() error
	}{
		{"new tokens, RS256", func() error { return b.newTokens(ctx, subjects.RS256, 1.15) }},
		{"new tokens, ES256", func() error { return b.newTokens(ctx, subjects.ES256, 1.10) }},
		{"new tokens, EdDSA", func() error { return b.newTokens(ctx, subjects.EdDSA, 1.10) }},
		{"cached tokens", func() error { b.cachedTokens(); return nil }},
		{"two cores", func() error { b.twoCores(); return nil }},
		{"rejections", func() error { return b.rejections(ctx) }},
		{"bad signatures", func() error { return b.badSignatures(ctx) }},
		{"sizes", b.sizes},
		{"issuers", b.issuers},
		{"revocation", func() error { return b.revocation(ctx) }},
		{"introspection", b.introspection},
		{"servers", b.servers},
	} {
		if !strings.Contains(part.name, only) {
			continue
		}
		log.Printf("%s…", part.name)
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}

	results := b.report.markdown("make bench", c, time.Since(start))
	if only != "" {
		_, err := os.Stdout.Write(results)
		return err
	}
	svg, err := chart(b.report.newTokens[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "results.svg"), svg, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "RESULTS.md"), results, 0o644); err != nil {
		return err
	}
	log.Printf("wrote RESULTS.md and results.svg in %v; all targets met: %t", time.Since(start).Round(time.Second), b.report.allMet())
	return nil
}
