package main

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed *.txt
var lists embed.FS

// mutant is one change of the source.
type mutant struct {
	list        string // NAME of NAME.txt
	line        int    // in the list
	source      string // the file to change, from the root of the repository
	tests       []string
	description string // what the changed source no longer checks
	old, new    string
	imports     string // a package that new needs

	number   int    // in the shared binary; zero: not in it
	original string // the source file
	mutated  string // the changed source file
	copies   string // the changed functions, for the shared binary
	verdict  string // the test that failed, or what else happened
	killed   bool
}

// readLists reads all lists. In NAME.txt, a mutant is a line "== what is no
// longer checked", then lines that begin with "-", whose text must be in the
// source exactly once, then lines that begin with "+", which replace it. The
// first and the last line may be parts of lines of the source. "&strings"
// imports a package. "# " begins a comment.
//
// The source file is NAME.go in the root, unless the list begins with
// "source: PATH". Then "tests: PACKAGE..." may name the packages whose tests
// are run; the default is the package of the source file, and then the root.
func readLists() ([]*mutant, error) {
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
		more, err := readList(strings.TrimSuffix(entry.Name(), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		mutants = append(mutants, more...)
	}
	return mutants, nil
}

func readList(name, text string) (mutants []*mutant, err error) {
	source := name + ".go"
	var tests []string
	var m *mutant
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		description, begins := strings.CutPrefix(line, "== ")
		switch {
		case begins:
			m = &mutant{list: name, line: number, source: source, tests: packages(source, tests), description: description}
			mutants = append(mutants, m)
		case line == "", strings.HasPrefix(line, "# "):
		case m == nil && strings.HasPrefix(line, "source: "):
			source = strings.TrimPrefix(line, "source: ")
		case m == nil && strings.HasPrefix(line, "tests: "):
			tests = strings.Fields(strings.TrimPrefix(line, "tests: "))
		case m != nil && line[0] == '-':
			m.old += line[1:] + "\n"
		case m != nil && line[0] == '+':
			m.new += line[1:] + "\n"
		case m != nil && line[0] == '&':
			m.imports = line[1:]
		default:
			return nil, fmt.Errorf("%s.txt:%d: unexpected line %q", name, number, line)
		}
	}
	for _, m := range mutants {
		m.old, m.new = strings.TrimSuffix(m.old, "\n"), strings.TrimSuffix(m.new, "\n")
	}
	return mutants, nil
}

// packages returns the packages whose tests are run for a source file.
func packages(source string, named []string) []string {
	switch dir := path.Dir(source); {
	case named != nil:
		return named
	case dir == ".":
		return []string{"."}
	default:
		return []string{"./" + dir, "."}
	}
}

// apply makes the changed source file.
func (m *mutant) apply() error {
	text, err := os.ReadFile(m.source)
	if err != nil {
		return fmt.Errorf("does not match: %w", err)
	}
	if m.old == "" {
		return fmt.Errorf("does not match: it replaces no text")
	}
	m.original = string(text)
	if n := strings.Count(m.original, m.old); n != 1 {
		return fmt.Errorf("does not match: its text is in %s %d times", m.source, n)
	}
	m.mutated = strings.Replace(m.original, m.old, m.new, 1)
	if m.imports != "" {
		m.mutated = withImport(m.mutated, m.imports)
	}
	return nil
}

// withImport adds an import to a source file, unless it has it.
func withImport(text, name string) string {
	file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.ImportsOnly)
	if err != nil {
		return text // The compiler reports it.
	}
	quoted := strconv.Quote(name)
	if slices.ContainsFunc(file.Imports, func(spec *ast.ImportSpec) bool { return spec.Path.Value == quoted }) {
		return text
	}
	end := file.Name.End() - 1
	return text[:end] + "; import " + quoted + text[end:]
}
