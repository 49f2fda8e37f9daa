package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadList(t *testing.T) {
	mutants, err := readList("reader", "# a comment\n\nsource: internal/reader/reader.go\n"+
		"== the first check\n-\tif bad {\n-\t}\n+\tif false {\n+\t}\n\n== the second check\n&strings\n-a\n+b\n")
	require.NoError(t, err)
	require.Len(t, mutants, 2)
	assert.Equal(t, &mutant{
		list: "reader", line: 4, source: "internal/reader/reader.go", tests: []string{"./internal/reader", "."},
		description: "the first check", old: "\tif bad {\n\t}", new: "\tif false {\n\t}",
	}, mutants[0])
	assert.Equal(t, "strings", mutants[1].imports)

	mutants, err = readList("claims", "tests: . ./koretest\n== a check\n-a\n+b\n")
	require.NoError(t, err)
	assert.Equal(t, []string{".", "./koretest"}, mutants[0].tests)
	assert.Equal(t, "claims.go", mutants[0].source)

	_, err = readList("claims", "== a check\n-a\nb\n")
	assert.ErrorContains(t, err, "claims.txt:3")
}

func TestMutant_ApplyWantsItsTextOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("a.go", []byte("package a\n\nvar b, c = 1, 1\n"), 0o600))
	for old, fault := range map[string]string{"b": "", "1": "2 times", "d": "0 times", "": "no text"} {
		m := &mutant{source: "a.go", old: old, new: "x"}
		if err := m.apply(); fault == "" {
			require.NoError(t, err)
			assert.Equal(t, "package a\n\nvar x, c = 1, 1\n", m.mutated)
		} else {
			assert.ErrorContains(t, err, fault)
		}
	}
	assert.ErrorContains(t, (&mutant{source: "gone.go", old: "a"}).apply(), "gone.go")
}

// TestSharedFile_UsesTheChosenMutant builds a program with mutants of functions
// of all shapes, and runs it with each.
func TestSharedFile_UsesTheChosenMutant(t *testing.T) {
	const source = `package main

import "fmt"

type list[E any] []E

func (l list[E]) size() int { return len(l) }

func (*list[E]) nothing(int, string) { fmt.Println("nothing") }

func sum(_ string, numbers ...int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}

func first[E any](all []E) E { return all[0] }

var limit = 10

func main() {
	l := list[int]{1, 2, 3}
	fmt.Println(l.size(), sum("", l...), first(l), limit)
	l.nothing(1, "")
}
`
	dir := t.TempDir()
	file, err := newSharedFile("main.go", source)
	require.NoError(t, err)
	rows := []struct{ old, new, output string }{
		{"len(l)", "len(l) + 1", "4 6 1 10\nnothing\n"},
		{"total += n", "total -= n", "3 -6 1 10\nnothing\n"},
		{"all[0]", "all[1]", "3 6 2 10\nnothing\n"},
		{`"nothing"`, `strings.ToUpper("nothing")`, "3 6 1 10\nNOTHING\n"},
	}
	var inside []*mutant
	for i, row := range rows {
		m := &mutant{number: i + 1, source: "main.go", old: row.old, new: row.new, original: source}
		if i == 3 {
			m.imports = "strings"
		}
		m.mutated = replaceOnce(source, row.old, row.new)
		if m.imports != "" {
			m.mutated = withImport(m.mutated, m.imports)
		}
		assert.True(t, file.add(m), row.new)
		inside = append(inside, m)
	}
	for _, text := range []string{
		replaceOnce(source, "limit = 10", "limit = 11"),             // a variable
		replaceOnce(source, "size() int", "size() (n int)"),         // a signature
		replaceOnce(source, "first[E any](all []E) E", "other() E"), // a name
		replaceOnce(source, "package main", "package"),              // no Go
		source, // no change
	} {
		assert.False(t, file.add(&mutant{number: 9, mutated: text}), text)
	}

	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(file.render(inside)), 0o600))
	require.NoError(t, write(filepath.Join(dir, "number.go"), numberFile("main")))
	program := filepath.Join(dir, "program")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, filepath.Join(dir, "main.go"), filepath.Join(dir, "number.go")).CombinedOutput()
	require.NoError(t, err, string(out))
	for number, want := range []string{"3 6 1 10\nnothing\n", rows[0].output, rows[1].output, rows[2].output, rows[3].output} {
		tr := &trial{folder: map[string]string{"main": dir}}
		out, err := tr.runTests(t.Context(), program, "main", number)
		require.NoError(t, err)
		assert.Equal(t, want, string(out), number)
	}
}

func TestPage_IsReadBack(t *testing.T) {
	mutants := []*mutant{
		{source: "a.go", description: "a check", verdict: "TestA"},
		{source: "b.go", description: "a check", verdict: survived},
	}
	name := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, write(name, string(table(mutants, 1, 0))))
	noticedBy := readPage(name)
	assert.Equal(t, "TestA", noticedBy[mutants[0].key()])
	assert.Equal(t, survived, noticedBy[mutants[1].key()])
	assert.Empty(t, readPage(name+"x"))
}

func TestVerdicts_CountForTheSameSourceOnly(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"go.mod": "module a\n", "go.sum": "", "a.go": "package a\n", "a_test.go": "package a\n", "testdata/x": "x"} {
		require.NoError(t, write(name, text))
	}
	m := func() *mutant {
		return &mutant{source: "a.go", tests: []string{"."}, description: "a check", mutated: "package a // changed\n"}
	}
	tried := m()
	tried.verdict, tried.killed = "TestA", true
	past, err := openVerdicts("verdicts", []*mutant{tried})
	require.NoError(t, err)
	require.False(t, past.find(m()))
	require.NoError(t, past.add(tried))

	found := func(wanted *mutant) bool {
		past, err := openVerdicts("verdicts", []*mutant{wanted})
		require.NoError(t, err)
		return past.find(wanted)
	}
	same := m()
	require.True(t, found(same))
	assert.Equal(t, tried, same)
	other := m()
	other.mutated += "\n"
	assert.False(t, found(other), "another mutant")
	for _, name := range []string{"go.mod", "go.sum", "a.go", "a_test.go", "testdata/x"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, write(name, string(text)+"\n"))
		assert.False(t, found(m()), "%s changed", name)
		require.NoError(t, write(name, string(text)))
		assert.True(t, found(m()), name)
	}

	tests := map[string]string{}
	past.noticedBy(tests)
	assert.Empty(t, tests, "what was known when the file was read")
	past, err = openVerdicts("verdicts", []*mutant{tried})
	require.NoError(t, err)
	past.noticedBy(tests)
	assert.Equal(t, map[string]string{"a.go: a check": "TestA"}, tests)

	var none *verdicts
	assert.False(t, none.find(m()))
	assert.NoError(t, none.add(m()))
}

func replaceOnce(text, old, by string) string {
	before, after, _ := strings.Cut(text, old)
	return before + by + after
}
