package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// trial knows the tests, and runs them.
type trial struct {
	dir       string // for temporary files
	with      string // the program that runs test binaries; "": none
	timeout   time.Duration
	noticedBy map[string]string // the test that noticed a mutant last time, by its key

	packages []string          // all that are tested
	folder   map[string]string // of each package
	tests    map[string][]test // of each package
	unstable []string          // tests that fail in the shared binary even without a mutant
}

type test struct {
	name string
	took time.Duration
}

// slow tests run last: most mutants need none of them.
const slow = 300 * time.Millisecond

// sourceTests look at the files of the repository. They do not run the code, so
// they cannot notice a mutant.
const sourceTests = `^(TestDocs|TestImports|TestRootFiles)_`

const survived = "**nothing: it survived**"

// prepare runs all tests without a mutant, where they must pass, and builds the
// shared binary.
func (t *trial) prepare(mutants []*mutant) error {
	t.folder, t.tests = map[string]string{}, map[string][]test{}
	for _, m := range mutants {
		for _, pkg := range m.tests {
			if !slices.Contains(t.packages, pkg) {
				t.packages = append(t.packages, pkg)
			}
		}
	}
	plain := filepath.Join(t.dir, "plain")
	if out, err := t.build(plain, nil, t.packages); err != nil {
		return fmt.Errorf("without any mutant: %w\n%s", err, out)
	}
	for _, pkg := range t.packages {
		t.folder[pkg] = filepath.FromSlash(pkg)
		out, err := t.runTests(context.Background(), binary(plain, pkg), pkg, 0, "-test.v", "-test.skip="+sourceTests)
		if err != nil {
			return fmt.Errorf("without any mutant, %s: %w\n%s", pkg, err, lastLines(out))
		}
		for _, found := range passed.FindAllSubmatch(out, -1) {
			seconds, _ := strconv.ParseFloat(string(found[2]), 64)
			t.tests[pkg] = append(t.tests[pkg], test{string(found[1]), time.Duration(seconds * float64(time.Second))})
		}
	}

	shared := filepath.Join(t.dir, "shared")
	if err := t.share(mutants); err != nil {
		return err
	}
	for _, pkg := range t.packages {
		out, err := t.runTests(context.Background(), binary(shared, pkg), pkg, 0, "-test.v", "-test.skip="+sourceTests)
		for _, found := range failure.FindAllSubmatch(out, -1) {
			t.unstable = append(t.unstable, string(found[1]))
		}
		if err != nil && t.unstable == nil {
			return fmt.Errorf("the binary for many mutants, without any, %s: %w\n%s", pkg, err, lastLines(out))
		}
	}
	return nil
}

// passed and failure find the tests that passed or failed, without subtests.
var (
	passed  = regexp.MustCompile(`(?m)^--- (?:PASS|SKIP): (\w+) \(([0-9.]+)s\)`)
	failure = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
)

func lastLines(out []byte) []byte { return out[max(0, len(out)-4000):] }

// build compiles the tests of packages with some files replaced.
func (t *trial) build(dir string, replace map[string]string, packages []string) (out []byte, err error) {
	absolute := map[string]string{}
	for name, by := range replace {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		absolute[path] = by
	}
	overlay, err := json.Marshal(map[string]any{"Replace": absolute})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := write(file, string(overlay)); err != nil {
		return nil, err
	}
	for _, pkg := range packages {
		out, err := exec.Command("go", "test", "-c", "-vet=off", "-gcflags=-e", "-ldflags=-s -w", "-overlay", file, "-o", binary(dir, pkg), pkg).CombinedOutput()
		if err != nil {
			return out, err
		}
	}
	return nil, nil
}

// binary returns the file of a package's tests.
func binary(dir, pkg string) string {
	return filepath.Join(dir, strings.ReplaceAll(strings.Trim(pkg, "./"), "/", "_")+".test")
}

// runTests runs a package's tests with a mutant of the shared binary.
func (t *trial) runTests(ctx context.Context, binary, pkg string, number int, flags ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, binary, flags...)
	if t.with != "" {
		cmd = exec.CommandContext(ctx, t.with, append([]string{binary}, flags...)...)
	}
	cmd.Dir = t.folder[pkg]
	cmd.Env = append(os.Environ(), environment+"="+strconv.Itoa(number))
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

// try returns which test noticed a mutant.
func (t *trial) try(dir string, m *mutant) (verdict string, killed bool) {
	if m.number != 0 {
		if verdict, killed := t.testAll(filepath.Join(t.dir, "shared"), m, t.unstable); killed {
			return verdict, true
		}
	}
	changed := filepath.Join(dir, m.source)
	if err := write(changed, m.mutated); err != nil {
		return "**" + err.Error() + "**", false
	}
	if out, err := t.build(dir, map[string]string{m.source: changed}, m.tests); err != nil {
		return fmt.Sprintf("**does not compile: %s**", bytes.ReplaceAll(bytes.TrimSpace(out), []byte("\n"), []byte(" "))), false
	}
	alone := *m
	alone.number = 0
	return t.testAll(dir, &alone, nil)
}

// testAll runs the tests until one fails: first those that are likely to
// notice, last those that are slow. A test that fails must fail again, because some
// fail at times, for example if other programs use the processor.
func (t *trial) testAll(dir string, m *mutant, skip []string) (verdict string, killed bool) {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	for _, step := range t.steps(m) {
		names := slices.DeleteFunc(step.tests, func(name string) bool { return slices.Contains(skip, name) })
		for len(names) > 0 {
			first, err := t.fails(ctx, dir, step.pkg, m, names)
			again := names
			if first != crash {
				again = []string{first}
			}
			if err == nil && first != "" {
				verdict, err = t.fails(ctx, dir, step.pkg, m, again)
			}
			switch {
			case ctx.Err() != nil:
				return "the tests hang", true
			case err != nil:
				return "**" + err.Error() + "**", false
			case verdict != "":
				return verdict, true
			case first == "" || first == crash:
				names = nil
			}
			names = slices.DeleteFunc(names, func(name string) bool { return name == first })
		}
	}
	return survived, false
}

const crash = "a crash of the tests"

// fails runs tests. It returns the name of the first that failed, crash if the program
// ended, or "" if all passed.
func (t *trial) fails(ctx context.Context, dir, pkg string, m *mutant, names []string) (verdict string, err error) {
	out, err := t.runTests(ctx, binary(dir, pkg), pkg, m.number, "-test.failfast", "-test.run=^("+strings.Join(names, "|")+")$")
	var exit *exec.ExitError
	if failed := failure.FindSubmatch(out); failed != nil {
		return string(failed[1]), nil
	} else if errors.As(err, &exit) {
		return crash, nil
	}
	return "", err
}

type step struct {
	pkg   string
	tests []string
}

// steps returns in which order to run the tests: the one that noticed the mutant
// last time, those of the source file, the quick ones, the slow ones.
func (t *trial) steps(m *mutant) []step {
	subject := ownTests(m.source)
	rank := func(test test) int {
		switch {
		case test.name == t.noticedBy[m.key()]:
			return 0
		case test.took >= slow:
			return 3
		case slices.Contains(subject, test.name):
			return 1
		}
		return 2
	}
	var steps []step
	for r := range 4 {
		for _, pkg := range m.tests {
			s := step{pkg: pkg}
			for _, test := range t.tests[pkg] {
				if rank(test) == r {
					s.tests = append(s.tests, test.name)
				}
			}
			steps = append(steps, s)
		}
	}
	return steps
}

// ownTests returns the names of the tests in the test files of a source file: those
// next to it, and those in the root that have its name.
func ownTests(source string) (names []string) {
	beside := strings.TrimSuffix(source, ".go")
	for _, name := range []string{beside, path.Base(beside)} {
		files, _ := filepath.Glob(name + "_*test.go") // The pattern is valid.
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for _, found := range declared.FindAllSubmatch(text, -1) {
				names = append(names, string(found[1]))
			}
		}
	}
	return names
}

var declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

func write(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o600)
}
