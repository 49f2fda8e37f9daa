package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// verdicts keeps the verdicts of earlier runs in a file, one JSON object a line, so
// that a run can be interrupted, or made list by list. A verdict counts only for the
// same source, tests and mutant. A nil *verdicts keeps nothing.
type verdicts struct {
	trees map[string][sha256.Size]byte // of the source and the tests of each package
	known map[string]verdict

	mu   sync.Mutex // guards the file
	file *os.File
}

// verdict is a line of the file.
type verdict struct {
	Key     string // what the verdict depends on
	Mutant  string
	Verdict string
	Killed  bool
}

// openVerdicts reads the file, which it creates if there is none.
func openVerdicts(name string, mutants []*mutant) (*verdicts, error) {
	trees := map[string][sha256.Size]byte{}
	for _, pkg := range packagesOf(mutants) {
		tree, err := hashTree(pkg)
		if err != nil {
			return nil, err
		}
		trees[pkg] = tree
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	all := &verdicts{trees: trees, known: map[string]verdict{}, file: file}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var one verdict
		if json.Unmarshal(lines.Bytes(), &one) == nil { // The last line may be incomplete.
			all.known[one.Key] = one
		}
	}
	return all, lines.Err()
}

// find sets the verdict of a mutant to the one that is known, and reports whether
// there is one.
func (all *verdicts) find(m *mutant) bool {
	if all == nil {
		return false
	}
	one, ok := all.known[all.key(m)]
	if ok {
		m.verdict, m.killed = one.Verdict, one.Killed
	}
	return ok
}

// add writes the verdict of a mutant to the file.
func (all *verdicts) add(m *mutant) error {
	if all == nil {
		return nil
	}
	line, err := json.Marshal(verdict{all.key(m), m.key(), m.verdict, m.killed})
	if err != nil {
		return err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	_, err = all.file.Write(append(line, '\n'))
	return err
}

// noticedBy adds which test noticed each mutant last, on whatever source.
func (all *verdicts) noticedBy(tests map[string]string) {
	if all == nil {
		return
	}
	for _, one := range all.known {
		if one.Killed {
			tests[one.Mutant] = one.Verdict
		}
	}
}

func (all *verdicts) key(m *mutant) string {
	sum := sha256.New()
	for _, part := range []string{m.source, m.mutated} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	for _, pkg := range m.tests {
		fmt.Fprintf(sum, "%s:%x", pkg, all.trees[pkg])
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// packagesOf returns the packages whose tests the mutants need.
func packagesOf(mutants []*mutant) (packages []string) {
	for _, m := range mutants {
		packages = append(packages, m.tests...)
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// hashTree returns the hash of all files that the tests of a package depend on, but
// for those of other modules, whose versions are in go.sum.
func hashTree(pkg string) (tree [sha256.Size]byte, err error) {
	out, err := exec.Command("go", "list", "-deps", "-test", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", pkg).Output()
	if err != nil {
		return tree, fmt.Errorf("go list: %w", err)
	}
	folders := strings.Fields(string(out))
	slices.Sort(folders)
	files := []string{"go.mod", "go.sum"}
	for _, folder := range slices.Compact(folders) {
		code, _ := filepath.Glob(filepath.Join(folder, "*.go")) // The pattern is valid.
		files = append(files, code...)
		err := filepath.WalkDir(filepath.Join(folder, "testdata"), func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.Type().IsRegular() {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return tree, err
		}
	}
	sum := sha256.New()
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return tree, err
		}
		fmt.Fprintf(sum, "%s %x\n", filepath.Base(name), sha256.Sum256(text))
	}
	return [sha256.Size]byte(sum.Sum(nil)), nil
}
