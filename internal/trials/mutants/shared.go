package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// environment names the variable with the number of the mutant that the shared
// binary uses.
const environment = "KOREAUTH_MUTANT"

// sharedFile is a source file with many mutants in it. A function that they
// change begins with a switch that calls the mutant's copy of the function.
type sharedFile struct {
	path      string
	text      string
	functions []*function
	imports   []string
}

// function is a declaration that mutants can change.
type function struct {
	decl  *ast.FuncDecl
	cases []string
}

// newSharedFile parses a source file.
func newSharedFile(path, text string) (*sharedFile, error) {
	functions, _, err := split(text)
	return &sharedFile{path: path, text: text, functions: functions}, err
}

// split returns the functions of a source file, and the text between them,
// without imports.
func split(text string) (functions []*function, rest string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			functions = append(functions, &function{decl: decl})
		case *ast.GenDecl:
			if decl.Tok != token.IMPORT {
				rest += slice(text, decl.Pos(), decl.End()) + "\n"
			}
		}
	}
	return functions, rest, nil
}

// slice returns a part of a text that is the only file of its set.
func slice(text string, from, to token.Pos) string { return text[from-1 : to-1] }

// add puts a mutant into the file, and reports whether it fits: whether it
// changes only the bodies of functions.
func (s *sharedFile) add(m *mutant) bool {
	functions, rest, err := split(m.mutated)
	_, originalRest, _ := split(s.text)
	if err != nil || rest != originalRest || len(functions) != len(s.functions) {
		return false
	}
	var changed []int
	for i, f := range functions {
		before, after := s.functions[i].decl, f.decl
		if slice(s.text, before.Pos(), before.Body.Pos()) != slice(m.mutated, after.Pos(), after.Body.Pos()) {
			return false
		}
		body := slice(s.text, before.Body.Pos(), before.End())
		if body == slice(m.mutated, after.Body.Pos(), after.End()) {
			continue
		}
		if strings.Contains(body, "recover()") { // It works only in a deferred function itself.
			return false
		}
		changed = append(changed, i)
	}
	var text strings.Builder
	for _, i := range changed {
		f := s.functions[i]
		name := fmt.Sprintf("mutant%d_%s", m.number, f.decl.Name.Name)
		f.cases = append(f.cases, fmt.Sprintf("case %d: %s", m.number, f.call(name, s.text)))
		decl := functions[i].decl
		fmt.Fprintf(&text, "//line mutant%d.go:1\n%s%s%s\n", m.number, slice(m.mutated, decl.Pos(), decl.Name.Pos()), name, slice(m.mutated, decl.Name.End(), decl.End()))
	}
	m.copies = text.String()
	if m.imports != "" {
		s.imports = append(s.imports, m.imports)
	}
	return len(changed) > 0
}

// call returns the statements that call a copy of f and return its results.
func (f *function) call(name, text string) string {
	if f.decl.Recv != nil {
		name = "mutantReceiver." + name
		if names := f.decl.Recv.List[0].Names; len(names) > 0 && names[0].Name != "_" {
			name = names[0].Name + strings.TrimPrefix(name, "mutantReceiver")
		}
	}
	if params := f.decl.Type.TypeParams; params != nil {
		var names []string
		for _, field := range params.List {
			for _, ident := range field.Names {
				names = append(names, ident.Name)
			}
		}
		name += "[" + strings.Join(names, ", ") + "]"
	}
	var arguments []string
	for _, field := range f.decl.Type.Params.List {
		dots := ""
		if _, variadic := field.Type.(*ast.Ellipsis); variadic {
			dots = "..."
		}
		for i := range max(len(field.Names), 1) {
			argument := fmt.Sprint("mutantArgument", len(arguments))
			if len(field.Names) > 0 && field.Names[i].Name != "_" {
				argument = field.Names[i].Name
			}
			arguments = append(arguments, argument+dots)
		}
	}
	call := name + "(" + strings.Join(arguments, ", ") + ")"
	if f.decl.Type.Results == nil {
		return call + "; return"
	}
	return "return " + call
}

// render returns the file with its mutants.
func (s *sharedFile) render(mutants []*mutant) string {
	type edit struct {
		from, to token.Pos
		text     string
	}
	var edits []edit
	for _, f := range s.functions {
		if len(f.cases) == 0 {
			continue
		}
		// Parameters without a name get one.
		unnamed := func(field *ast.Field, name string) {
			if len(field.Names) == 0 {
				edits = append(edits, edit{field.Type.Pos(), field.Type.Pos(), name + " "})
			}
		}
		if f.decl.Recv != nil {
			field := f.decl.Recv.List[0]
			unnamed(field, "mutantReceiver")
			if len(field.Names) > 0 && field.Names[0].Name == "_" {
				edits = append(edits, edit{field.Names[0].Pos(), field.Names[0].End(), "mutantReceiver"})
			}
		}
		n := 0
		for _, field := range f.decl.Type.Params.List {
			unnamed(field, fmt.Sprint("mutantArgument", n))
			for i, ident := range field.Names {
				if ident.Name == "_" {
					edits = append(edits, edit{ident.Pos(), ident.End(), fmt.Sprint("mutantArgument", n+i)})
				}
			}
			n += max(len(field.Names), 1)
		}
		brace := f.decl.Body.Pos() + 1
		edits = append(edits, edit{brace, brace, " switch mutantNumber {\n" + strings.Join(f.cases, "\n") + "\n}\n"})
	}
	text := s.text
	for _, e := range slices.Backward(edits) {
		text = slice(text, 1, e.from) + e.text + text[e.to-1:]
	}
	for _, name := range s.imports {
		text = withImport(text, name)
	}
	var b strings.Builder
	b.WriteString(text + "\n")
	for _, m := range mutants {
		b.WriteString(m.copies)
	}
	return b.String()
}

// share compiles as many of the mutants as it can into one test binary for each
// tested package, and gives them their numbers.
func (t *trial) share(mutants []*mutant) error {
	candidates := slices.Clone(mutants)
	for i, m := range candidates {
		m.number = i + 1
	}
	for {
		inside, overlay, err := t.sharedOverlay(candidates)
		if err != nil {
			return err
		}
		out, err := t.build(filepath.Join(t.dir, "shared"), overlay, t.packages)
		bad := map[int]bool{}
		for _, found := range culprit.FindAllSubmatch(out, -1) {
			number, _ := strconv.Atoi(string(found[1]))
			bad[number] = true
		}
		switch {
		case err == nil:
			for _, m := range mutants {
				if !slices.Contains(inside, m) {
					m.number = 0
				}
			}
			return nil
		case len(bad) == 0:
			return fmt.Errorf("the binary for many mutants: %w\n%s", err, bytes.TrimSpace(out))
		}
		candidates = slices.DeleteFunc(inside, func(m *mutant) bool { return bad[m.number] })
	}
}

// culprit finds the mutant in whose copy a compiler's error is.
var culprit = regexp.MustCompile(`(?m)\bmutant(\d+)\.go:\d+`)

// sharedOverlay writes the files with mutants in them, and returns the mutants
// that fit, and what replaces what.
func (t *trial) sharedOverlay(candidates []*mutant) (inside []*mutant, overlay map[string]string, err error) {
	overlay = map[string]string{}
	bySource := map[string][]*mutant{}
	for _, m := range candidates {
		bySource[m.source] = append(bySource[m.source], m)
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		file, err := newSharedFile(source, bySource[source][0].original)
		if err != nil {
			return nil, nil, err
		}
		var fitting []*mutant
		for _, m := range bySource[source] {
			if file.add(m) {
				fitting = append(fitting, m)
			}
		}
		inside = append(inside, fitting...)
		changed := filepath.Join(t.dir, "shared", source)
		if err := write(changed, file.render(fitting)); err != nil {
			return nil, nil, err
		}
		overlay[source] = changed

		tree, err := parser.ParseFile(token.NewFileSet(), "", file.text, parser.PackageClauseOnly)
		if err != nil {
			return nil, nil, err
		}
		number := filepath.Join(filepath.Dir(source), "mutantnumber.go")
		overlay[number] = filepath.Join(t.dir, "shared", number)
		if err := write(overlay[number], numberFile(tree.Name.Name)); err != nil {
			return nil, nil, err
		}
	}
	return inside, overlay, nil
}

// numberFile is the source that reads the environment variable.
func numberFile(pkg string) string { return fmt.Sprintf(numberSource, pkg, environment) }

const numberSource = `package %s

import (
	"os"
	"strconv"
)

var mutantNumber = func() int {
	n, _ := strconv.Atoi(os.Getenv(%q))
	return n
}()
`
