package examples_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// guideImports are the packages that the guides' fragments may use without an
// import of their own.
var guideImports = []string{
	"context", "crypto/sha256", "crypto/tls", "crypto/x509", "database/sql", "encoding/json", "errors", "expvar", "fmt", "log", "log/slog", "net/http", "net/netip", "os", "slices", "strings",
	"sync", "sync/atomic", "time",
	"github.com/gorilla/mux",
	"github.com/koreauth/koreauth",
	"github.com/koreauth/koreauth/doctor",
	"github.com/koreauth/koreauth/introspection",
	"github.com/koreauth/koreauth/iprange",
	"github.com/koreauth/koreauth/koreclient",
	"github.com/koreauth/koreauth/koretest",
	"github.com/koreauth/koreauth/metadata",
	"github.com/koreauth/koreauth/mtls",
	"github.com/koreauth/koreauth/proxy",
	"github.com/koreauth/koreauth/revocation",
	"github.com/koreauth/koreauth/revocation/keycloak",
	"github.com/koreauth/koreauth/source",
	"github.com/koreauth/koreauth/tenants",
}

// guideStubs declare what the guides' fragments assume to exist.
const guideStubs = `
var (
	ctx       context.Context
	w         http.ResponseWriter
	r         *http.Request
	validator *koreauth.Validator
	guard     *koreauth.Middleware
	logger    *slog.Logger
	api       http.Handler
	store     revocation.Store
	revoked   *revocation.List

	ping, listClients, listSIMs, deleteClient, createMessage, coverage http.Handler

	mayRead, mayDelete func(http.Handler) http.Handler

	cors, securityHeaders func(http.Handler) http.Handler
)

func open(http.ResponseWriter, *http.Request) {}

func isCustomer(context.Context, string) (bool, error) { return true, nil }
`

// guideBlock matches a block of Go. A comment before it names the file that
// contains the same code, for code that needs a module which is not in go.mod.
var guideBlock = regexp.MustCompile("(?s)(?:<!-- code of (\\S+) -->\n)?```go\n(.*?)```")

func guidePages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	return pages
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestGuides_CodeCompiles(t *testing.T) {
	for _, page := range guidePages(t) {
		for i, block := range guideBlock.FindAllStringSubmatch(readPage(t, page), -1) {
			t.Run(fmt.Sprintf("%s, block %d", filepath.Base(page), i+1), func(t *testing.T) {
				if file := block[1]; file != "" {
					code := trimLines(readPage(t, filepath.Join("..", file)))
					assert.True(t, strings.Contains(code, trimLines(block[2])), "%s has not:\n%s", file, block[2])
					return
				}
				assert.NoError(t, checkFragment(t, block[2]), "%s", block[2])
			})
		}
	}
}

// The test above must notice an error. These are the ones that it must find.
func TestGuides_CodeWithAnErrorFails(t *testing.T) {
	assert.NoError(t, checkFragment(t, "validator, err := koreauth.NewValidator(koreauth.Config{})"))
	for _, code := range []string{
		"koreauth.NoSuchName()",                             // a name that does not exist
		"koreauth.Config{NoSuchField: 1}",                   // a field that does not exist
		"var _ int = koreauth.New(validator, nil)",          // the wrong type
		"undeclared.Wrap(ping)",                             // something that no guide declares
		"func broken( {",                                    // not Go
		"package p\nvar _ = koreauth.Read\n",                // a whole file without its import
		"func f() error {\n\tguard.Wrap(ping)\n\treturn\n}", // no result
	} {
		assert.Error(t, checkFragment(t, code), code)
	}
}

// checkFragment type-checks a whole file, declarations, or statements.
func checkFragment(t *testing.T, code string) error {
	t.Helper()
	files := token.NewFileSet()
	var file *ast.File
	var err error
	if strings.HasPrefix(code, "package ") {
		file, err = parser.ParseFile(files, "guide.go", code, parser.SkipObjectResolution)
	} else {
		var imports strings.Builder
		for _, path := range guideImports {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
		before := "package guide\n" + imports.String() + guideStubs
		file, err = parser.ParseFile(files, "guide.go", before+code, parser.SkipObjectResolution)
		if err != nil { // Not declarations, so statements.
			file, err = parser.ParseFile(files, "guide.go", before+"func _() {\n"+code+"\n}", parser.SkipObjectResolution)
		}
	}
	if err != nil {
		return err
	}
	var faults []error
	config := types.Config{
		Importer: exportData(t),
		Error: func(err error) {
			// A fragment need not use all of its variables, nor all imports.
			if fault, ok := err.(types.Error); !ok || !fault.Soft {
				faults = append(faults, err)
			}
		},
	}
	_, _ = config.Check("guide", files, []*ast.File{file}, nil)
	return errors.Join(faults...)
}

// exportData returns an importer of what the guides' code may import, from the
// files that the compiler writes.
var exportData = func() func(*testing.T) types.Importer {
	load := sync.OnceValues(func() (types.Importer, error) {
		args := []string{"list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}}\t{{.Export}}{{end}}"}
		command := exec.Command("go", append(args, guideImports...)...)
		var stderr bytes.Buffer
		command.Stderr = &stderr
		out, err := command.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w: %s", err, &stderr)
		}
		paths := map[string]string{}
		for line := range strings.Lines(string(out)) {
			path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
			paths[path] = file
		}
		return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
			if paths[path] == "" {
				return nil, fmt.Errorf("%s is not among the packages that the guides may import", path)
			}
			return os.Open(paths[path])
		}), nil
	})
	return func(t *testing.T) types.Importer {
		t.Helper()
		imports, err := load()
		require.NoError(t, err)
		return imports
	}
}()

// trimLines removes the indentation, which differs between page and file.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// A new class or reason needs a row that tells its cause and what to do.
func TestGuides_TroubleshootingHasEveryError(t *testing.T) {
	texts := map[string]error{
		"ErrNoToken":           koreauth.ErrNoToken,
		"ErrBadRequest":        koreauth.ErrBadRequest,
		"ErrInvalidToken":      koreauth.ErrInvalidToken,
		"ErrInsufficientScope": koreauth.ErrInsufficientScope,
		"ErrForbidden":         koreauth.ErrForbidden,
		"ErrUnavailable":       koreauth.ErrUnavailable,
		"ErrMalformed":         koreauth.ErrMalformed,
		"ErrAlgorithm":         koreauth.ErrAlgorithm,
		"ErrSignature":         koreauth.ErrSignature,
		"ErrUnknownKey":        koreauth.ErrUnknownKey,
		"ErrExpired":           koreauth.ErrExpired,
		"ErrNotYetValid":       koreauth.ErrNotYetValid,
		"ErrTooOld":            koreauth.ErrTooOld,
		"ErrIssuer":            koreauth.ErrIssuer,
		"ErrAudience":          koreauth.ErrAudience,
		"ErrTokenType":         koreauth.ErrTokenType,
		"ErrClient":            koreauth.ErrClient,
		"ErrBinding":           koreauth.ErrBinding,
		"ErrRevoked":           koreauth.ErrRevoked,
	}
	page := readPage(t, "../docs/troubleshooting.md")
	root, err := exportData(t).Import("github.com/koreauth/koreauth")
	require.NoError(t, err)
	found := 0
	for _, name := range root.Scope().Names() {
		if _, isVar := root.Scope().Lookup(name).(*types.Var); !isVar || !strings.HasPrefix(name, "Err") {
			continue
		}
		found++
		if !assert.Contains(t, texts, name, "add the new error here, and its row to the page") {
			continue
		}
		text := strings.TrimPrefix(texts[name].Error(), "koreauth: ")
		if name != "ErrInvalidToken" {
			text = strings.TrimPrefix(text, "invalid token: ")
		}
		row := fmt.Sprintf("| `%s` | `%s` | ", name, text)
		assert.True(t, strings.Contains(page, "\n"+row), "docs/troubleshooting.md has no row that begins with: %s", row)
	}
	assert.Len(t, texts, found, "a row for an error that no longer exists")
}

// The causes of an outage that the page lists are in the errors.
func TestGuides_TroubleshootingCauses(t *testing.T) {
	page := readPage(t, "../docs/troubleshooting.md")
	for phrase, answer := range map[string]http.HandlerFunc{
		"status 404":                    http.NotFound,
		"must equal the configured one": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"issuer":"https://other.example"}`) },
		"redirect":                      http.RedirectHandler("https://other.example/keys", http.StatusFound).ServeHTTP,
		"no usable signing key":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[{"kty":"oct","k":"AAAA"}]}`) },
		"deadline exceeded":             func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"connection refused":            nil, // the server is closed
	} {
		t.Run(phrase, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			config := koreauth.Config{Issuer: server.URL, Audience: []string{"api-gw"}}
			switch phrase {
			case "no usable signing key":
				config.JWKSURL = server.URL
			case "deadline exceeded":
				config.HTTPClient = &http.Client{Timeout: 50 * time.Millisecond}
			case "connection refused":
				server.Close()
			}
			validator, err := koreauth.NewValidator(config)
			require.NoError(t, err)
			err = validator.Ready(t.Context())
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			assert.ErrorContains(t, err, phrase)
			assert.True(t, strings.Contains(page, "`"+phrase+"`"), "docs/troubleshooting.md has not: %s", phrase)
		})
	}
}

// The sample records are what a guard really writes.
func TestGuides_LogSamples(t *testing.T) {
	key, err := koretest.NewKey("RS256")
	require.NoError(t, err)
	key.ID = "2026-11"
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://keycloak.example.com", Keys: []*koretest.Key{key}})
	require.NoError(t, err)
	validator, err := koreauth.NewValidator(koreauth.Config{
		Issuer: issuer.URL(), Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient(),
	})
	require.NoError(t, err)
	require.NoError(t, validator.Ready(t.Context()))
	mint := func(recipe koretest.Token) string {
		claims := map[string]any{"jti": "7f0c2b51"}
		maps.Copy(claims, recipe.Claims)
		recipe.Claims = claims
		token, err := issuer.Mint(recipe)
		require.NoError(t, err)
		return token
	}

	var log bytes.Buffer
	guard := koreauth.New(validator, &koreauth.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	mux := http.NewServeMux()
	mux.Handle("GET /v1/clients", guard.Require(koreauth.Grant("API Clients", koreauth.Read))(http.NotFoundHandler()))
	for _, token := range []string{
		mint(koretest.Token{Claims: map[string]any{"exp": time.Now().Add(-12 * time.Minute).Unix()}}),
		mint(koretest.Token{BadSignature: true}),
		mint(koretest.Token{Drop: []string{"scopes"}}),
	} {
		r := httptest.NewRequest("GET", "/v1/clients", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		mux.ServeHTTP(httptest.NewRecorder(), r)
	}
	when := regexp.MustCompile(`time=\S+ `)
	page := when.ReplaceAllString(readPage(t, "../docs/logging.md"), "")
	written := strings.ReplaceAll(when.ReplaceAllString(log.String(), ""), "expired_for=12m1s", "expired_for=12m0s")
	records := strings.Split(strings.TrimSpace(written), "\n")
	require.Len(t, records, 3)
	for _, record := range records {
		assert.True(t, strings.Contains(page, "\n"+record+"\n"), "docs/logging.md has not: %s", record)
	}
}

func TestGuides_ShowCode(t *testing.T) {
	for _, page := range guidePages(t) {
		assert.Regexp(t, guideBlock, readPage(t, page), page)
	}
}

// TestPages_Layout checks that the pages are easy to read in a terminal too, and
// that their links work. It leaves out bench/RESULTS.md, which make bench writes.
func TestPages_Layout(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/reports/*.md", "../bench/README.md", "../interop/README.md", "../testdata/*/README.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		pages = append(pages, found...)
	}
	for _, path := range pages {
		t.Run(strings.TrimPrefix(path, "../"), func(t *testing.T) {
			page := readPage(t, path)
			checkLinks(t, path, page)
			code, lines := false, 0
			for line := range strings.SplitSeq(page, "\n") {
				switch {
				case strings.HasPrefix(line, "```"):
					code, lines = !code, 0
				case code:
				case strings.HasPrefix(line, "|"):
					assert.LessOrEqual(t, len([]rune(line)), 120, line)
					assert.LessOrEqual(t, strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"), 6, line)
				case line == "", strings.HasPrefix(line, "- "), strings.HasPrefix(line, "#"), strings.HasPrefix(line, "[!"):
					lines = 0
				default:
					lines++
					assert.LessOrEqual(t, lines, 5, "a long paragraph: %s", line)
				}
			}
		})
	}
}

// checkLinks checks that the links of a page lead to files and folders of the
// repository, and to headings in them. It does not check links to other sites.
func checkLinks(t *testing.T, path, page string) {
	t.Helper()
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(withoutBlocks(page), -1) {
		if strings.HasPrefix(link[1], "https://") {
			continue
		}
		target, anchor, _ := strings.Cut(link[1], "#")
		if target == "" {
			target = filepath.Base(path)
		}
		target = filepath.Join(filepath.Dir(path), target)
		if _, err := os.Stat(target); !assert.NoError(t, err) || anchor == "" {
			continue
		}
		var headings []string
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutBlocks(readPage(t, target)), -1) {
			name := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
			headings = append(headings, strings.ReplaceAll(name, " ", "-"))
		}
		assert.Contains(t, headings, anchor, target)
	}
}
