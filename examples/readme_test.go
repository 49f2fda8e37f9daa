package examples_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// programs returns the Go files here.
func programs(t *testing.T) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			files = append(files, unindented(read(t, path)))
		}
		return err
	}))
	return files
}

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// unindented returns the lines of a text without what stands before them.
func unindented(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n") + "\n"
}

// The Go of the README is that of programs which the tests run.
func TestReadmeCodeIsRunElsewhere(t *testing.T) {
	files := programs(t)
	blocks := goBlock.FindAllStringSubmatch(read(t, "../README.md"), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code := "\n" + unindented(block[1])
		assert.True(t, slices.ContainsFunc(files, func(file string) bool {
			return strings.Contains(file, code)
		}), "in no program under examples:%s", code)
	}
}

// The start is twelve lines, the first that the README shows, equal to a whole
// program and to the package comment.
func TestReadmeBeginsWithTheStart(t *testing.T) {
	start := goBlock.FindStringSubmatch(read(t, "../README.md"))[1]
	assert.Len(t, strings.Fields(regexp.MustCompile(`[^\n]+`).ReplaceAllString(start, "x")), 12, "lines that are not blank")
	assert.Contains(t, unindented(read(t, "start/main.go")), unindented(start))
	comment := regexp.MustCompile(`(?m)^//`).ReplaceAllString(read(t, "../doc.go"), "")
	assert.Contains(t, unindented(comment), unindented(start))
}

// rows are the table rows of the README that begin with a name in code.
func rows(t *testing.T, heading string) map[string]string {
	t.Helper()
	_, table, found := strings.Cut(read(t, "../README.md"), "| "+heading+" |")
	require.True(t, found, "no table of: %s", heading)
	table, _, _ = strings.Cut(table, "\n\n")
	byName := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*$").FindAllStringSubmatch(table, -1) {
		byName[row[1]] = row[0]
	}
	return byName
}

// Each field has its row, and each row its field.
func TestReadmeHasAllFields(t *testing.T) {
	for _, v := range []any{koreauth.Config{}, koreauth.Options{}, &koreauth.RemoteKeySet{}} {
		typ := reflect.Indirect(reflect.ValueOf(v)).Type()
		table := rows(t, "field of `"+typ.Name()+"`")
		for _, field := range reflect.VisibleFields(typ) {
			if field.IsExported() {
				assert.Contains(t, table, field.Name, typ.Name())
				delete(table, field.Name)
			}
		}
		assert.Empty(t, table, "no fields of %s", typ.Name())
	}
}

// What the README says of each class is what a client gets.
func TestReadmeTableOfRefusals(t *testing.T) {
	table := rows(t, "class")
	assert.Len(t, table, 5)
	for name, err := range map[string]error{
		"ErrNoToken":           koreauth.ErrNoToken,
		"ErrBadRequest":        koreauth.ErrBadRequest,
		"ErrInvalidToken":      koreauth.ErrExpired,
		"ErrInsufficientScope": koreauth.Grant("API Clients", koreauth.Read).Check(nil, &koreauth.Claims{}),
		"ErrUnavailable":       koreauth.ErrUnavailable,
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, table, name)
			columns := strings.Split(table[name], " | ")
			require.Len(t, columns, 5)

			kore := refused(koreauth.KOREErrors, err)
			assert.Equal(t, strconv.Itoa(kore.Code)+" `"+kore.Body.String()+"`", columns[2])
			challenge := strings.TrimSuffix(columns[4], " |")
			if want := kore.Header().Get("WWW-Authenticate"); want != "" {
				assert.Equal(t, "`"+want+"`", challenge)
			} else {
				assert.Equal(t, "none, but `Retry-After`", challenge)
				assert.NotEmpty(t, kore.Header().Get("Retry-After"))
			}
			for _, format := range []koreauth.ErrorFormat{koreauth.RFC6750Errors, koreauth.ProblemErrors} {
				answer := refused(format, err)
				status, code, _ := strings.Cut(columns[3], " ")
				assert.Equal(t, strconv.Itoa(answer.Code), status)
				assert.Contains(t, answer.Body.String(), `"error":"`+strings.Trim(code, "`")+`"`)
				assert.Equal(t, kore.Header().Get("WWW-Authenticate"), answer.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func refused(format koreauth.ErrorFormat, err error) *httptest.ResponseRecorder {
	validator := &koreauth.Validator{}
	w := httptest.NewRecorder()
	koreauth.New(validator, &koreauth.Options{Errors: format}).Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), err)
	return w
}

// Every source, every requirement, and every reason is in the README.
func TestReadmeNamesEverything(t *testing.T) {
	readme := read(t, "../README.md")
	files, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	named := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			for _, name := range toName(decl) {
				assert.Contains(t, readme, "`"+name)
				named++
			}
		}
	}
	assert.Greater(t, named, 20)
}

// toName returns what a declaration has that the README must name.
func toName(decl ast.Decl) (names []string) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv != nil || !decl.Name.IsExported() || decl.Type.Results == nil {
			return nil
		}
		if result, ok := decl.Type.Results.List[0].Type.(*ast.Ident); ok && (result.Name == "Source" || result.Name == "Requirement") {
			names = append(names, decl.Name.Name+"(")
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			if values, ok := spec.(*ast.ValueSpec); ok && strings.HasPrefix(values.Names[0].Name, "Err") {
				names = append(names, values.Names[0].Name+"`")
			}
		}
	}
	return names
}

var link = regexp.MustCompile(`\]\(([^)#][^)]*)\)`)

// No link of the README leads nowhere.
func TestReadmeLinks(t *testing.T) {
	for _, found := range link.FindAllStringSubmatch(read(t, "../README.md"), -1) {
		assert.FileExists(t, filepath.Join("..", found[1]))
	}
}
