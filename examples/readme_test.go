package examples_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

const readmePath = "../README.md"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// codeBlocks returns the code blocks of the README in one language.
func codeBlocks(t *testing.T, language string) (blocks []string) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(read(t, readmePath), -1) {
		blocks = append(blocks, block[1])
	}
	require.NotEmpty(t, blocks, "blocks of %s", language)
	return blocks
}

// readmeTable returns the rows of the table with the given header, each split into
// its columns, without the header.
func readmeTable(t *testing.T, header string) (rows [][]string) {
	t.Helper()
	_, table, found := strings.Cut(read(t, readmePath), "\n"+header+"\n")
	require.True(t, found, "no table has the header %s", header)
	for line := range strings.Lines(table) {
		line, isRow := strings.CutPrefix(strings.TrimSpace(line), "| ")
		if isRow {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, " |"), " | "))
		} else if !strings.HasPrefix(line, "|--") {
			break
		}
	}
	require.NotEmpty(t, rows, "no rows below %s", header)
	return rows
}

// withoutBlocks returns a page without its blocks of code.
func withoutBlocks(page string) string {
	return regexp.MustCompile("(?s)```.*?```").ReplaceAllString(page, "")
}

// codeSpans returns what a text has between backquotes.
func codeSpans(text string) (spans []string) {
	for _, span := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		spans = append(spans, span[1])
	}
	return spans
}

// withoutIndent removes the spaces around each line, which differ between the
// README and a program.
func withoutIndent(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

// compiledCode returns all Go files of the examples and of the test of routers,
// with their names.
func compiledCode(t *testing.T) map[string]string {
	t.Helper()
	const routers = "../interop/routers_test.go"
	files := map[string]string{routers: withoutIndent(read(t, routers))}
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" && path != "readme_test.go" {
			files[path] = withoutIndent(read(t, path))
		}
		return err
	}))
	return files
}

func TestReadme_CodeIsCompiled(t *testing.T) {
	files := compiledCode(t)
	for _, block := range codeBlocks(t, "go") {
		code, found := withoutIndent(block), false
		for _, file := range files {
			found = found || strings.Contains(file, code)
		}
		assert.True(t, found, "no file contains this code:%s", code)
	}
}

func TestReadme_RouterTable(t *testing.T) {
	var all strings.Builder
	for _, file := range compiledCode(t) {
		all.WriteString(file)
	}
	rows := readmeTable(t, "| Router | A group of routes | One route |")
	assert.Len(t, rows, 5)
	for _, row := range rows {
		for _, span := range codeSpans(strings.Join(row, " ")) {
			assert.True(t, strings.Contains(all.String(), span), "no file contains %s", span)
		}
	}
}

// TestReadme_QuickStart runs the program of the README with another issuer and
// port, sends the requests of the README and compares the responses.
func TestReadme_QuickStart(t *testing.T) {
	program := codeBlocks(t, "go")[0]
	assert.True(t, strings.HasSuffix(read(t, "start/main.go"), "\n"+program), "the first block is examples/start/main.go without its comment")

	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	defer issuer.Close()
	addr := freeAddr(t)
	for old, replacement := range map[string]string{"https://keycloak.example.com/realms/KORE-CIDP": issuer.URL(), "127.0.0.1:8080": addr} {
		require.True(t, strings.Contains(program, old), "the program does not contain %s", old)
		program = strings.ReplaceAll(program, old, replacement)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "main.exe"), filepath.Join(dir, "main.go")).CombinedOutput()
	require.NoError(t, err, string(out))
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "main.exe"))
	require.NoError(t, command.Start())
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()

	console := codeBlocks(t, "console")[0]
	commands := regexp.MustCompile(`(?m)^\$ curl (-i )?(?:-H "Authorization: Bearer \$TOKEN" )?http://127\.0\.0\.1:8080(\S+)\n`).FindAllStringSubmatchIndex(console, -1)
	require.Len(t, commands, strings.Count(console, "$ "), "the commands that this test understands")
	for i, at := range commands {
		end := len(console)
		if i+1 < len(commands) {
			end = commands[i+1][0]
		}
		want := strings.TrimSpace(console[at[1]:end])
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+console[at[4]:at[5]], nil)
		require.NoError(t, err)
		if strings.Contains(console[at[0]:at[1]], "$TOKEN") {
			r.Header.Set("Authorization", "Bearer "+issuer.Valid())
		}
		assert.Equal(t, want, printed(t, r, at[2] >= 0), console[at[0]:at[1]])
	}
}

// freeAddr returns an address on loopback that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// printed returns what curl prints, without the headers Date and Content-Length. It
// waits until the server listens.
func printed(t *testing.T, r *http.Request, withHeader bool) string {
	t.Helper()
	var resp *http.Response
	require.Eventually(t, func() bool {
		var err error
		resp, err = http.DefaultClient.Do(r)
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	text := strings.TrimSpace(string(body))
	if withHeader {
		resp.Header.Del("Date")
		resp.Header.Del("Content-Length")
		var header bytes.Buffer
		require.NoError(t, resp.Header.Write(&header))
		text = resp.Proto + " " + resp.Status + "\n" + strings.ReplaceAll(header.String(), "\r\n", "\n") + "\n" + text
	}
	return text
}

// TestReadme_ErrorResponses compares the table with real responses.
func TestReadme_ErrorResponses(t *testing.T) {
	bodies := map[string]string{}
	for line := range strings.Lines(codeBlocks(t, "text")[0]) {
		name, body, _ := strings.Cut(strings.TrimSpace(line), " ")
		bodies[name] = body
	}
	require.Len(t, bodies, 3)
	// Both replace the error of B.
	forbidden := func(text string) string {
		return strings.Replace(bodies["B"], `"Invalid or expired token"`, strconv.Quote(text), 1)
	}
	causes := []struct {
		name string
		err  error
	}{
		{"ErrNoToken", koreauth.ErrNoToken},
		{"ErrBadRequest", koreauth.ErrBadRequest},
		{"ErrInvalidToken", koreauth.ErrExpired},
		{"ErrInsufficientScope", koreauth.ErrInsufficientScope},
		{"ErrForbidden", koreauth.ErrForbidden},
		{"ErrUnavailable", koreauth.ErrUnavailable},
	}
	rows := readmeTable(t, "| Class | When | `KOREErrors` (default) | `RFC6750Errors`, `ProblemErrors` |")
	require.Len(t, rows, len(causes))
	for i, cause := range causes {
		t.Run(cause.name, func(t *testing.T) {
			row := rows[i]
			require.Len(t, row, 4)
			assert.Equal(t, "`"+cause.name+"`", row[0])

			status, body, _ := strings.Cut(row[2], " ")
			want := bodies[body]
			if spans := codeSpans(body); len(spans) > 0 {
				want = forbidden(spans[0])
			}
			kore := refuse(nil, cause.err)
			assert.Equal(t, status, strconv.Itoa(kore.Code))
			assert.Equal(t, want, kore.Body.String())

			// "The first four classes also send WWW-Authenticate, the last one Retry-After."
			assert.Equal(t, i < 4, kore.Header().Get("WWW-Authenticate") != "", "WWW-Authenticate")
			assert.Equal(t, i == 5, kore.Header().Get("Retry-After") != "", "Retry-After")

			status, code, _ := strings.Cut(row[3], " ")
			for _, format := range []koreauth.ErrorFormat{koreauth.RFC6750Errors, koreauth.ProblemErrors} {
				answer := refuse(format, cause.err)
				assert.Equal(t, status, strconv.Itoa(answer.Code))
				assert.Contains(t, answer.Body.String(), `"error":"`+strings.Trim(code, "`")+`"`)
			}
		})
	}
}

// refuse returns the response of a guard with the given format.
func refuse(format koreauth.ErrorFormat, err error) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	guard := koreauth.New(&koreauth.Validator{}, &koreauth.Options{Errors: format})
	guard.Refuse(w, httptest.NewRequest(http.MethodGet, "/", nil), err)
	return w
}

// notGo matches commands and variables of a shell, log attributes and the texts of errors.
var notGo = regexp.MustCompile(`^(?:go|cd|make) |^[$]|^class=|^[A-Z][a-z]+ [a-z]+$`)

// TestReadme_NamesExist checks the names in running text; those in blocks of code
// are compiled.
func TestReadme_NamesExist(t *testing.T) {
	names, fields := exported(t, ".."), exported(t, "../koretest")
	for name := range names {
		fields[name] = true
	}
	prose := withoutBlocks(read(t, readmePath))
	// The names of other packages and of HTTP.
	known := []string{"Authorization", "Authenticate", "Bearer", "Handle", "Handler", "HandlerFunc", "Server", "Delete", "With", "Use", "Group", "WrapH",
		"WrapMiddleware", "Retry", "After", "WWW"}
	found := 0
	for _, span := range codeSpans(prose) {
		if notGo.MatchString(span) {
			continue
		}
		span = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(span, "")
		for _, name := range regexp.MustCompile(`(?:\b(?:Config|Options|Claims)\.)?\b[A-Z]\w+`).FindAllString(span, -1) {
			found++
			if !slices.Contains(known, name) {
				assert.True(t, fields[name], "`%s` names %s, which does not exist", span, name)
			}
		}
	}
	assert.Greater(t, found, 40, "the names that were checked")
}

// exported returns the exported names of a package; fields and methods both alone
// and with the name of their type.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.FuncDecl:
				names[node.Name.Name] = true
				return false
			case *ast.TypeSpec:
				names[node.Name.Name] = true
				if structure, ok := node.Type.(*ast.StructType); ok {
					for _, field := range structure.Fields.List {
						for _, name := range field.Names {
							names[name.Name] = true
							names[node.Name.Name+"."+name.Name] = true
						}
					}
				}
				return false
			case *ast.ValueSpec:
				for _, name := range node.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	return names
}

// TestReadme_Requirements checks that the table has each function that makes one.
func TestReadme_Requirements(t *testing.T) {
	var table strings.Builder
	for _, row := range readmeTable(t, "| Requirement | The token must have |") {
		table.WriteString(row[0])
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../scopes.go", nil, 0)
	require.NoError(t, err)
	found := 0
	for _, decl := range file.Decls {
		if function, ok := decl.(*ast.FuncDecl); ok && function.Recv == nil && function.Name.IsExported() {
			assert.Contains(t, table.String(), "`"+function.Name.Name+"(")
			found++
		}
	}
	assert.Equal(t, 6, found)
}

func TestReadme_ConfigTable(t *testing.T) {
	full := koreauth.Config{Issuer: "https://keycloak.example.com", Audience: []string{"api-gw"}}
	_, err := koreauth.NewValidator(full)
	require.NoError(t, err)
	for _, row := range readmeTable(t, "| `Config` | Meaning | Default |") {
		name := strings.Trim(row[0], "`")
		config := full
		field := reflect.ValueOf(&config).Elem().FieldByName(name)
		if !assert.True(t, field.IsValid(), "Config has no field %s", name) {
			continue
		}
		field.SetZero()
		_, err := koreauth.NewValidator(config)
		assert.Equal(t, row[2] == "required", err != nil, "%s: %v", name, err)
	}
}

// TestReadme_LogRecord checks that a record has all attributes of the sample.
func TestReadme_LogRecord(t *testing.T) {
	key, err := koretest.NewKey("RS256")
	require.NoError(t, err)
	key.ID = "2026-11"
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com", Keys: []*koretest.Key{key}, Audience: []string{"account"}})
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient(),
	})
	require.NoError(t, err)
	require.NoError(t, validator.Ready(t.Context()))
	var log bytes.Buffer
	guard := koreauth.New(validator, &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	mux := http.NewServeMux()
	mux.Handle("GET /v1/clients", guard.Wrap(http.NotFoundHandler()))
	token, err := issuer.Mint(koretest.Token{Claims: map[string]any{"jti": "7f0c2b51"}})
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodGet, "/v1/clients", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	mux.ServeHTTP(httptest.NewRecorder(), r)

	attributes := regexp.MustCompile(`\w+=(?:"[^"]*"|\S+)`)
	sample := attributes.FindAllString(codeBlocks(t, "text")[1], -1)
	assert.Greater(t, len(sample), 5)
	assert.Equal(t, attributes.FindAllString(log.String(), -1)[1:], sample, "all attributes but the time")
}

// TestReadme_Troubleshooting checks that the table names reasons, and only as
// they are logged. TestGuides_TroubleshootingHasEveryError checks that the guide
// has a row for each reason.
func TestReadme_Troubleshooting(t *testing.T) {
	guide := read(t, "../docs/troubleshooting.md")
	rows := readmeTable(t, "| Reason | Usual cause | What to do |")
	assert.GreaterOrEqual(t, len(rows), 5)
	for _, row := range rows {
		assert.Regexp(t, "(?m)^\\| `Err\\w+` \\| "+row[0]+" \\|", guide)
	}
}

// TestReadme_Figures compares the figures with those that make bench wrote.
func TestReadme_Figures(t *testing.T) {
	page, results := read(t, readmePath), read(t, "../bench/RESULTS.md")
	_, rs256, found := strings.Cut(results, "\n### RS256\n")
	require.True(t, found)
	new := figures(rs256)
	header := "| | koreauth | auth0 v3 | go-oidc | golang-jwt + keyfunc |"
	libraries := strings.Split(strings.Trim(header, "| "), " | ")
	rows := readmeTable(t, header)
	last := rows[len(rows)-1]
	require.Equal(t, "cost of a new RS256 token", last[0])
	const byDefault = "koreauth, default cache, filling"
	for i, library := range libraries {
		if library == "koreauth" {
			library = byDefault
		}
		require.Contains(t, new, library)
		assert.Equal(t, new[library][0]+" ×", last[i+1], library)
	}

	next := ""
	for name, row := range new {
		if !strings.HasPrefix(name, "koreauth") && name != "bare verification" && (next == "" || number(t, row[0]) < number(t, next)) {
			next = row[0]
		}
	}
	words := strings.Join(strings.Fields(page), " ")
	assert.Contains(t, words, fmt.Sprintf("costs %s × a bare signature check, or %s × without the cache (next best library: %s ×)",
		new[byDefault][0], new["koreauth"][0], next))

	_, cached, found := strings.Cut(results, "\n| SHA-256 and a map look")
	require.True(t, found)
	assert.Contains(t, words, fmt.Sprintf("the same token again costs %.1f µs", number(t, figures(cached)["koreauth"][1])))
}

// figures returns the first two columns of a table by its first column, without
// what is in brackets.
func figures(table string) map[string][]string {
	rows := map[string][]string{}
	inTable := false
	for line := range strings.Lines(table) {
		if columns := strings.Split(strings.TrimSpace(line), " | "); strings.HasPrefix(line, "| ") && len(columns) > 2 {
			inTable = true
			if columns[0] == "|" {
				continue // the header
			}
			name := strings.TrimPrefix(columns[0], "| ")
			first, _, _ := strings.Cut(columns[1], " (")
			rows[name] = []string{first, columns[2]}
		} else if inTable && strings.TrimSpace(line) == "" {
			break
		}
	}
	return rows
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return n
}

func TestReadme_GoVersionAndModules(t *testing.T) {
	page := read(t, readmePath)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	require.NotNil(t, version)
	assert.Contains(t, page, "supports Go "+version[1]+",")

	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "..").Output()
	require.NoError(t, err)
	modules := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out)))))
	assert.Len(t, modules, 8, "the README says: Eight other modules")
	assert.Contains(t, page, "Eight other modules are compiled in.")
}

func TestReadme_StaysShort(t *testing.T) {
	page := read(t, readmePath)
	assert.LessOrEqual(t, strings.Count(page, "\n"), 205, "lines")
	assert.LessOrEqual(t, len(page), 12_000, "bytes")
}
