package koreauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Limits of the root package, without its tests.
const (
	maxFileLines     = 450
	maxFunctionLines = 60 // from "func" to its closing brace
	maxPackageLines  = 3500

	// explainFile does not count for maxPackageLines, because no request uses it. It
	// has Validator.Explain, although Validator is in another file.
	explainFile = "explain.go"
)

func TestRootFiles_StaySmall(t *testing.T) {
	assert.Empty(t, sizeFaults(parseFiles(t, rootFiles(t))))
}

func TestRootFiles_HaveMethodsWithTheirTypes(t *testing.T) {
	assert.Empty(t, strayMethods(parseFiles(t, rootFiles(t))))
}

// TestRootFiles_UseEachOtherWithoutCycles requires an order of the files in which
// each uses only declarations of the files below it.
func TestRootFiles_UseEachOtherWithoutCycles(t *testing.T) {
	assert.Empty(t, cycles(uses(t, parseFiles(t, rootFiles(t)), exportData(t))))
}

func TestRootFiles_CheckerFindsViolations(t *testing.T) {
	t.Run("a long file, a long function and a large package", func(t *testing.T) {
		long := "package p\n\nfunc f() {\n" + strings.Repeat("\n", maxFunctionLines-1) + "}\n"
		assert.Equal(t, []string{"long.go:3: f has 61 lines, over 60"}, sizeFaults(parseFiles(t, map[string]string{"long.go": long})))
		files := map[string]string{"a.go": "package p\n" + strings.Repeat("\n", maxFileLines)}
		assert.Equal(t, []string{"a.go has 451 lines, over 450"}, sizeFaults(parseFiles(t, files)))
		for i := range 8 {
			files[fmt.Sprintf("%d.go", i)] = "package p\n" + strings.Repeat("\n", maxFileLines-1)
		}
		delete(files, "a.go")
		files[explainFile] = "package p\n"
		assert.Equal(t, []string{"the package has 3600 lines, over 3500"}, sizeFaults(parseFiles(t, files)))
	})
	t.Run("a method away from its type", func(t *testing.T) {
		files := map[string]string{
			"a.go": "package p\ntype T[E any] struct{}\nfunc (T[E]) Here() {}\n",
			"b.go": "package p\nfunc (t *T[E]) There() {}\n",
		}
		assert.Equal(t, []string{"b.go:2: method There of T belongs in a.go"}, strayMethods(parseFiles(t, files)))
	})
	for _, row := range []struct {
		name string
		b    string // a.go is "package p; func A() int { return B().field }"
		want string
	}{
		{"no cycle", `type T struct{ field int }; func B() (t T) { return t }`, ""},
		{"a function", `type T struct{ field int }; func B() (t T) { A(); return t }`, "a.go uses B, T.field of b.go"},
		{"a function shadowed by a variable", `type T struct{ field int }; func B() (t T) { A := 1; _ = A; return t }`, ""},
		{"a constant", `type T struct{ field int }; func B() (t T) { return T{C} }`, "b.go uses C of a.go"},
		{"a type", `type T struct{ field int; m M }; func B() (t T) { return t }`, "b.go uses M of a.go"},
		{"a method of a value whose type is not named", `type T struct{ field int }; func B() (t T) { value().Do(); return t }`, "b.go uses M.Do of a.go"},
	} {
		t.Run(row.name, func(t *testing.T) {
			files := parseFiles(t, map[string]string{
				"a.go": "package p\nconst C = 1\ntype M struct{}\nfunc (M) Do() {}\nfunc A() int { return B().field }\n",
				"b.go": "package p\n" + row.b + "\n",
				"c.go": "package p\nfunc value() (m M) { return m }\n",
			})
			found := strings.Join(cycles(uses(t, files, nil)), "\n")
			if row.want == "" {
				assert.Empty(t, found)
			} else {
				assert.Contains(t, found, row.want)
			}
		})
	}
}

// sourceFiles are the parsed files of one package.
type sourceFiles struct {
	set   *token.FileSet
	names []string // in order
	trees map[string]*ast.File
	lines map[string]int
}

// rootFiles returns the root package's non-test files, by name.
func rootFiles(t *testing.T) map[string]string {
	t.Helper()
	pkg, err := build.ImportDir(".", 0)
	require.NoError(t, err)
	files := map[string]string{}
	for _, name := range pkg.GoFiles {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		files[name] = string(text)
	}
	return files
}

func parseFiles(t *testing.T, files map[string]string) sourceFiles {
	t.Helper()
	parsed := sourceFiles{set: token.NewFileSet(), names: slices.Sorted(maps.Keys(files)), trees: map[string]*ast.File{}, lines: map[string]int{}}
	for _, name := range parsed.names {
		tree, err := parser.ParseFile(parsed.set, name, files[name], parser.SkipObjectResolution)
		require.NoError(t, err)
		parsed.trees[name], parsed.lines[name] = tree, strings.Count(files[name], "\n")
	}
	return parsed
}

// functions calls f with each function and method declared in the files.
func (s sourceFiles) functions(f func(file string, line int, decl *ast.FuncDecl)) {
	for _, name := range s.names {
		for _, decl := range s.trees[name].Decls {
			if function, ok := decl.(*ast.FuncDecl); ok {
				f(name, s.set.Position(function.Pos()).Line, function)
			}
		}
	}
}

// sizeFaults returns the files and functions that are over the limits.
func sizeFaults(files sourceFiles) (faults []string) {
	total := 0
	for _, name := range files.names {
		if name != explainFile {
			total += files.lines[name]
		}
		if files.lines[name] > maxFileLines {
			faults = append(faults, fmt.Sprintf("%s has %d lines, over %d", name, files.lines[name], maxFileLines))
		}
	}
	files.functions(func(file string, line int, decl *ast.FuncDecl) {
		if n := files.set.Position(decl.End()).Line - line + 1; n > maxFunctionLines {
			faults = append(faults, fmt.Sprintf("%s:%d: %s has %d lines, over %d", file, line, decl.Name.Name, n, maxFunctionLines))
		}
	})
	if total > maxPackageLines {
		faults = append(faults, fmt.Sprintf("the package has %d lines, over %d", total, maxPackageLines))
	}
	return faults
}

// strayMethods returns the methods that are not in the file of their type.
func strayMethods(files sourceFiles) (faults []string) {
	home := map[string]string{}
	for _, name := range files.names {
		for _, decl := range files.trees[name].Decls {
			if decl, ok := decl.(*ast.GenDecl); ok && decl.Tok == token.TYPE {
				for _, spec := range decl.Specs {
					home[spec.(*ast.TypeSpec).Name.Name] = name
				}
			}
		}
	}
	files.functions(func(file string, line int, decl *ast.FuncDecl) {
		if decl.Recv == nil {
			return
		}
		receiver := receiverName(decl.Recv.List[0].Type)
		if home[receiver] != file && (file != explainFile || decl.Name.Name != "Explain") {
			faults = append(faults, fmt.Sprintf("%s:%d: method %s of %s belongs in %s", file, line, decl.Name.Name, receiver, home[receiver]))
		}
	})
	return faults
}

// receiverName returns the name of a receiver's type, without pointers and
// type parameters.
func receiverName(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		return receiverName(expr.X)
	case *ast.IndexExpr:
		return receiverName(expr.X)
	case *ast.IndexListExpr:
		return receiverName(expr.X)
	case *ast.Ident:
		return expr.Name
	}
	return ""
}

// exportData returns an importer for what the root package imports.
func exportData(t *testing.T) func(*token.FileSet) types.Importer {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}"}
	if raceDetector { // so that all of it is in the build cache
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.NoError(t, err, string(exit.Stderr))
	}
	require.NoError(t, err)
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[name] = file
	}
	return func(set *token.FileSet) types.Importer {
		return importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
			data, err := os.ReadFile(exports[path])
			return io.NopCloser(bytes.NewReader(data)), err
		})
	}
}

// uses returns, for each file, the files whose declarations it uses, and which
// of them: functions, types, variables, constants, and methods and fields of
// types.
func uses(t *testing.T, files sourceFiles, imports func(*token.FileSet) types.Importer) map[string]map[string][]string {
	t.Helper()
	config := types.Config{Sizes: types.SizesFor("gc", runtime.GOARCH)}
	if imports != nil {
		config.Importer = imports(files.set)
	}
	var trees []*ast.File
	for _, name := range files.names {
		trees = append(trees, files.trees[name])
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	pkg, err := config.Check("p", files.set, trees, info)
	require.NoError(t, err)

	names := shownNames(pkg)
	graph := map[string]map[string][]string{}
	for ident, object := range info.Uses {
		name, ok := names[origin(object)]
		if !ok {
			continue
		}
		from, to := files.set.Position(ident.Pos()).Filename, files.set.Position(object.Pos()).Filename
		if from == to {
			continue
		}
		if graph[from] == nil {
			graph[from] = map[string][]string{}
		}
		if !slices.Contains(graph[from][to], name) {
			graph[from][to] = append(graph[from][to], name)
		}
	}
	return graph
}

// shownNames returns what the package declares at its top level, and the
// methods and fields of its types, each with the name to show for it.
func shownNames(pkg *types.Package) map[types.Object]string {
	names := map[types.Object]string{}
	for _, name := range pkg.Scope().Names() {
		object := pkg.Scope().Lookup(name)
		names[object] = name
		named, ok := object.Type().(*types.Named)
		if _, isType := object.(*types.TypeName); !ok || !isType {
			continue
		}
		for method := range named.Methods() {
			names[method] = name + "." + method.Name()
		}
		switch under := named.Underlying().(type) {
		case *types.Struct:
			for field := range under.Fields() {
				names[field] = name + "." + field.Name()
			}
		case *types.Interface:
			for method := range under.ExplicitMethods() {
				names[method] = name + "." + method.Name()
			}
		}
	}
	return names
}

// origin returns the declared object of one that belongs to an instance of a
// generic type.
func origin(object types.Object) types.Object {
	switch object := object.(type) {
	case *types.Func:
		return object.Origin()
	case *types.Var:
		return object.Origin()
	}
	return object
}

// cycles returns a text for each group of files that use each other, directly
// or through others: a shortest cycle, and all uses within the group.
func cycles(graph map[string]map[string][]string) (found []string) {
	done := map[string]bool{}
	for _, start := range slices.Sorted(maps.Keys(graph)) {
		path := shortestCycle(graph, start)
		if path == nil || done[start] {
			continue
		}
		var group []string
		for _, file := range slices.Sorted(maps.Keys(graph)) {
			if reaches(graph, start, file) && reaches(graph, file, start) {
				group = append(group, file)
				done[file] = true
			}
		}
		var text strings.Builder
		text.WriteString("cycle of files: " + strings.Join(path, " → "))
		for _, from := range group {
			for _, to := range group {
				if used := graph[from][to]; used != nil && from != to {
					text.WriteString(fmt.Sprintf("\n  %s uses %s of %s", from, strings.Join(slices.Sorted(slices.Values(used)), ", "), to))
				}
			}
		}
		found = append(found, text.String())
	}
	return found
}

func reaches(graph map[string]map[string][]string, from, to string) bool {
	return shortestPath(graph, from, to) != nil
}

func shortestCycle(graph map[string]map[string][]string, start string) []string {
	return shortestPath(graph, start, start)
}

// shortestPath returns the files on a shortest path of at least one step.
func shortestPath(graph map[string]map[string][]string, from, to string) []string {
	paths := [][]string{{from}}
	seen := map[string]bool{}
	for len(paths) > 0 {
		path := paths[0]
		paths = paths[1:]
		for _, next := range slices.Sorted(maps.Keys(graph[path[len(path)-1]])) {
			if next == to {
				return append(slices.Clone(path), next)
			}
			if !seen[next] {
				seen[next] = true
				paths = append(paths, append(slices.Clone(path), next))
			}
		}
	}
	return nil
}
