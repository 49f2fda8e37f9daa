package koreauth_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/koreauth/koreauth"

// allowedImports lists, for each package of this repository, the packages of
// this repository that its non-test files may import. "." is the root package;
// "x/..." stands for the packages below x, and an exact entry takes precedence.
// In addition, every package may import what mayImport says about internal.
var allowedImports = map[string][]string{
	".":                 {},
	"source":            {"."},
	"revocation":        {"."},
	"revocation/...":    {".", "revocation"},
	"introspection":     {"."},
	"tenants":           {"."},
	"proxy":             {},
	"iprange":           {".", "proxy"},
	"mtls":              {".", "proxy"},
	"metadata":          {},
	"koreclient":        {},
	"doctor":            {".", "koreclient", "introspection", "proxy", "mtls", "iprange"},
	"koretest":          {"."},
	"contrib/koreredis": {"revocation"},

	"internal/strictjson": {nothing},
	"internal/jws":        {"internal/strictjson"},
	"internal/clock":      {nothing},
	"internal/challenge":  {nothing},
	"internal/redact":     {"internal/secret"},
	"internal/httpcopy":   {nothing},
	"internal/explain":    {"internal/jws", "internal/redact", "internal/strictjson"},
	"internal/token68":    {nothing},
	"internal/jwk":        {"internal/jws", "internal/redact"},
	"internal/memory":     {"internal/jws"},
	"internal/fetch":      {"internal/clock", "internal/loopback"},
	"internal/loopback":   {nothing},
	"internal/bounded":    {nothing},
	"internal/door":       {nothing},
	"internal/secret":     {nothing},
	"internal/authserver": {"internal/fetch", "internal/loopback", "internal/redact", "internal/strictjson"},
	"internal/folder":     {nothing},
	"internal/limit":      {nothing},
	"internal/keyfile":    {"internal/bounded", "internal/folder"},
	"internal/locked":     {nothing},
	"internal/safelog":    {nothing},
	"internal/seldom":     {nothing},
	"internal/unmap":      {nothing},
	"internal/trials/...": {everything},

	"cmd/...":      {everything},
	"examples/...": {everything},
	"interop":      {everything},
	"interop/...":  {everything},
	"bench":        {everything},
	"bench/...":    {everything},
	"browser":      {everything},
}

const (
	everything = "everything" // all packages but those of cmd, examples, contrib, interop, bench and browser
	nothing    = "nothing"    // not even internal packages
)

// allowedModules are the only packages outside of the standard library and
// this repository that the root package and its internal packages may import.
var allowedModules = []string{"github.com/lestrrat-go/jwx/v2/jwk", "github.com/maypok86/otter/v2"}

func TestImports_FollowTheTable(t *testing.T) {
	assert.Empty(t, importFaults(readImports(t)))
}

func TestImports_CheckerFindsViolations(t *testing.T) {
	for _, row := range []struct {
		pkg, imports string
		want         string // a part of the fault; empty: allowed
	}{
		{".", "net/http", ""},
		{".", modulePath + "/internal/strictjson", ""},
		{".", "github.com/maypok86/otter/v2", ""},
		{".", "github.com/lestrrat-go/jwx/v2/jwt", "package of another module"},
		{".", modulePath + "/koretest", "must not import koretest"},
		{".", modulePath + "/internal/trials/soak", "must not import internal/trials/soak"},
		{"source", modulePath, ""},
		{"source", modulePath + "/koretest", "must not import koretest"},
		{"proxy", modulePath, "must not import ."},
		{"proxy", modulePath + "/internal/strictjson", ""},
		{"mtls", modulePath + "/proxy", ""},
		{"revocation", modulePath + "/revocation/keycloak", "must not import revocation/keycloak"},
		{"revocation/keycloak", modulePath + "/revocation", ""},
		{"revocation/keycloak", modulePath + "/koretest", "must not import koretest"},
		{"internal/strictjson", modulePath, "must not import ."},
		{"internal/strictjson", modulePath + "/internal/door", "must not import internal/door"},
		{"internal/strictjson", "golang.org/x/text/unicode/norm", "package of another module"},
		{"internal/trials/soak", "golang.org/x/text/unicode/norm", ""},
		{"internal/trials/soak", modulePath + "/koretest", ""},
		{"internal/trials/soak", modulePath + "/examples/internal/demo", "must not import examples/internal/demo"},
		{"cmd/koreauth", modulePath + "/doctor", ""},
		{"cmd/koreauth", modulePath + "/cmd/koreauth/internal/devissuer", ""},
		{"cmd/koreauth/internal/devissuer", modulePath + "/koretest", ""},
		{"cmd/koreauth/internal/devissuer", modulePath + "/cmd/koreauth", "must not import cmd/koreauth"},
		{"cmd/koreauth", modulePath + "/contrib/koreredis", "must not import contrib/koreredis"},
		{"cmd/koreauth", modulePath + "/internal/trials/soak", "must not import internal/trials/soak"},
		{"examples/quickstart", modulePath + "/examples/internal/demo", ""},
		{"examples/quickstart", modulePath + "/examples/start", "must not import examples/start"},
		{"koretest", modulePath + "/cmd/koreauth", "must not import cmd/koreauth"},
		{"contrib/koreredis", modulePath + "/revocation", ""},
		{"contrib/koreredis", modulePath, "must not import ."},
		{"bench", modulePath + "/bench/subjects", ""},
		{"bench", modulePath + "/interop", "must not import interop"},
		{"browser", modulePath + "/koretest", ""},
		{"browser", modulePath + "/bench", "must not import bench"},
		{"bench", modulePath + "/browser", "must not import browser"},
		{"shiny/new", "fmt", "shiny/new is not in the table"},
		{"internal/new", "fmt", "internal/new is not in the table"},
	} {
		faults := importFaults(map[string][]string{row.pkg: {row.imports}})
		if row.want == "" {
			assert.Empty(t, faults, "%s imports %s", row.pkg, row.imports)
		} else if assert.Len(t, faults, 1, "%s imports %s", row.pkg, row.imports) {
			assert.Contains(t, faults[0], row.want)
		}
	}
}

// importFaults returns what is wrong with the imports of packages, which are
// given by their folders.
func importFaults(imports map[string][]string) (faults []string) {
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		allowed, ok := allowedFor(pkg)
		if !ok {
			faults = append(faults, fmt.Sprintf("package %s is not in the table: add it to the table in imports_test.go", pkg))
			continue
		}
		for _, imported := range imports[pkg] {
			target, ours := packageOf(imported)
			switch {
			case ours && !mayImport(pkg, allowed, target):
				faults = append(faults, fmt.Sprintf("package %s must not import %s", pkg, target))
			case !ours && ofTheRoot(pkg) && !isStandard(imported) && !slices.Contains(allowedModules, imported):
				faults = append(faults, fmt.Sprintf("package %s must not import %s, a package of another module", pkg, imported))
			}
		}
	}
	return faults
}

// allowedFor returns the entry of the table for pkg.
func allowedFor(pkg string) ([]string, bool) {
	if allowed, ok := allowedImports[pkg]; ok {
		return allowed, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if allowed, ok := allowedImports[dir+"/..."]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func mayImport(pkg string, allowed []string, target string) bool {
	top, _, _ := strings.Cut(target, "/")
	switch top {
	case "bench", "browser", "interop":
		return within(pkg, top)
	case "cmd":
		return within(pkg, "cmd/koreauth") && within(target, "cmd/koreauth/internal")
	case "examples":
		return within(pkg, top) && within(target, "examples/internal")
	case "contrib":
		return false
	case "internal":
		if within(target, "internal/trials") {
			return within(pkg, "internal/trials")
		}
		return !slices.Contains(allowed, nothing)
	}
	return slices.Contains(allowed, everything) || slices.Contains(allowed, target)
}

// within reports whether a package is at or below a folder.
func within(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// packageOf returns the folder of a package of this repository.
func packageOf(importPath string) (dir string, ok bool) {
	if importPath == modulePath {
		return ".", true
	}
	return strings.CutPrefix(importPath, modulePath+"/")
}

// ofTheRoot reports whether a package is the root or one that it may import.
func ofTheRoot(pkg string) bool {
	return pkg == "." || within(pkg, "internal") && !within(pkg, "internal/trials")
}

// isStandard reports whether the standard library has the package.
func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// readImports returns the imports of all non-test files of the repository, by
// folder, whatever their build constraints and modules.
func readImports(t *testing.T) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	require.NoError(t, filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if base := entry.Name(); base == "testdata" || base == "node_modules" || name != "." && strings.ContainsRune("._", rune(base[0])) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(name))
		imports[pkg] = append(imports[pkg], []string{}...)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(imports[pkg], imported) {
				imports[pkg] = append(imports[pkg], imported)
			}
		}
		return nil
	}))
	require.Contains(t, imports, ".")
	return imports
}
