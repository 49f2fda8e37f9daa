// Command mutants shows that the tests of the root package notice when a check
// is weakened. Each *.txt file beside it lists weakenings of one source file;
// each is tried alone, and the tests must fail. Run it in the root of the
// repository:
//
//	go run ./internal/trials/mutants           # all of them; writes docs/reports/mutants.md
//	go run ./internal/trials/mutants iat       # those whose file or sentence has these words
//
// It ends with 1 if a mutant survives, does not compile, or no longer fits the
// source, and with 2 where nothing could be tried. The source is not touched: a
// mutant is laid over it (go build -overlay).
package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed *.txt
var lists embed.FS

// mutant is one weakening.
type mutant struct {
	file     string // of the root package
	sentence string // what no longer holds
	old, new string
	imports  string // a package that new needs
	verdict  string
	killed   bool
}

// timeout bounds one run of the tests; a mutant that hangs them is noticed too.
const timeout = 3 * time.Minute

const page = "docs/reports/mutants.md"

func main() {
	survived, err := run(strings.Join(os.Args[1:], " "))
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	case survived > 0:
		fmt.Fprintln(os.Stderr, "mutants: the tests do not notice", survived)
		os.Exit(1)
	}
}

func run(word string) (survived int, err error) {
	all, err := read()
	if err != nil {
		return 0, err
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool {
		return !strings.Contains(m.file+" "+m.sentence, word)
	})
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// What fails without a mutant would kill them all.
	if verdict, killed := try(dir, nil); killed || verdict != nothing {
		return 0, fmt.Errorf("without any mutant: %s", verdict)
	}
	tryAll(dir, chosen)
	for _, m := range chosen {
		if !m.killed {
			survived++
		}
	}
	if len(chosen) < len(all) {
		return survived, nil
	}
	return survived, os.WriteFile(page, table(all, survived), 0o644)
}

// table is the page of all mutants.
func table(mutants []*mutant, survived int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Mutants

Each row is a check of the source. With that check taken away or weakened, and
nothing else, the tests of the root package fail: the last column names the
first that does. The weakenings stand in `+"`internal/trials/mutants/*.txt`, and `make mutants`"+`
tries them all, which takes an hour on two processors, and writes this page.

%d mutants, %d survived. Not among them is what nobody can notice from outside,
because a second check says the same: a missing iat is also too old, a fourth
segment is also no base64url, a key without a curve is of no EC algorithm, and
the limit of failed refreshes is also kept by how long the old keys count as
fresh.

| file | what no longer holds | noticed by |
|---|---|---|
`, len(mutants), survived)
	for _, m := range mutants {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.file, m.sentence, m.verdict)
	}
	return b.Bytes()
}

// read reads the lists. In NAME.txt, for NAME.go, a mutant is a line "== what
// no longer holds", then lines that begin with "-", which must stand in the
// source exactly once, then lines that begin with "+" in their place. The first
// and last may be parts of lines of the source. "&strings" imports a package.
func read() ([]*mutant, error) {
	entries, err := lists.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var mutants []*mutant
	for _, entry := range entries {
		text, err := lists.ReadFile(entry.Name())
		if err != nil {
			return nil, err
		}
		file := strings.TrimSuffix(entry.Name(), ".txt") + ".go"
		for _, block := range strings.Split("\n"+string(text), "\n== ")[1:] {
			sentence, edit, _ := strings.Cut(block, "\n")
			m := &mutant{file: file, sentence: sentence}
			var before, after []string
			for line := range strings.Lines(edit) {
				line = strings.TrimSuffix(line, "\n")
				switch {
				case strings.HasPrefix(line, "-"):
					before = append(before, line[1:])
				case strings.HasPrefix(line, "+"):
					after = append(after, line[1:])
				case strings.HasPrefix(line, "&"):
					m.imports = line[1:]
				case line != "":
					return nil, fmt.Errorf("%s: %s: a line begins with neither - nor + nor &: %q", entry.Name(), sentence, line)
				}
			}
			m.old, m.new = strings.Join(before, "\n"), strings.Join(after, "\n")
			mutants = append(mutants, m)
		}
	}
	return mutants, nil
}

// tryAll tries as many mutants at once as there are processors.
func tryAll(dir string, mutants []*mutant) {
	next := make(chan *mutant)
	var workers sync.WaitGroup
	for i := range runtime.GOMAXPROCS(0) {
		own := filepath.Join(dir, fmt.Sprint(i))
		workers.Go(func() {
			for m := range next {
				m.verdict, m.killed = try(own, m)
				fmt.Fprintf(os.Stderr, "%s: %s: %s\n", m.file, m.sentence, m.verdict)
			}
		})
	}
	for _, m := range mutants {
		next <- m
	}
	close(next)
	workers.Wait()
}

// try runs the tests with a mutant, or as they are, and returns which test
// failed.
func try(dir string, m *mutant) (verdict string, killed bool) {
	overlay := "{}"
	if m != nil {
		source, err := os.ReadFile(m.file)
		if err != nil {
			return "**cannot be read: " + err.Error() + "**", false
		}
		if n := strings.Count(string(source), m.old); n != 1 || m.old == "" {
			return fmt.Sprintf("**does not fit: its text is there %d times**", n), false
		}
		changed := filepath.Join(dir, m.file)
		overlay = replacement(m.file, changed)
		mutated := strings.Replace(string(source), m.old, m.new, 1)
		if m.imports != "" {
			mutated = strings.Replace(mutated, "\n\n", "\n\nimport \""+m.imports+"\"\n\n", 1)
		}
		if err := write(changed, mutated); err != nil {
			return "**" + err.Error() + "**", false
		}
	}
	if err := write(filepath.Join(dir, "overlay.json"), overlay); err != nil {
		return "**" + err.Error() + "**", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	binary := filepath.Join(dir, "root.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Sprintf("**does not compile: %s**", bytes.ReplaceAll(out, []byte("\n"), []byte(" "))), false
	}
	// Fuzz tests run with their seeds.
	for _, which := range []string{"-test.skip=" + slow, "-test.run=" + slow} {
		out, err := exec.CommandContext(ctx, binary, "-test.failfast", which).CombinedOutput()
		if ctx.Err() != nil {
			return "the tests hang", true
		}
		if failed := failure.FindSubmatch(out); failed != nil {
			return string(failed[1]), true
		}
		if err != nil {
			return "a crash of the tests", true
		}
	}
	return nothing, false
}

// nothing is the verdict on a mutant that survived.
const nothing = "**nothing: it survived**"

// slow are the tests that come last, since most mutants need none of them.
const slow = "^(TestVectors|TestTheLargestTokenIs16KiB|TestMemoryStaysFlat|TestAFloodOfOneOffTokensPushesNoSteadyOneOut|TestNothingIsLeftRunning)$"

// failure finds the test that failed, and not the rows of it.
var failure = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

func replacement(file, by string) string {
	path, err := filepath.Abs(file)
	if err != nil {
		return "{}"
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: by}})
	if err != nil {
		return "{}"
	}
	return string(overlay)
}

func write(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o600)
}
