package keyfile

import (
	"path/filepath"
	"runtime"
	"strings"
)

// Same reports whether two names are those of one file, which need not exist. An empty
// name is that of none.
func Same(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	a, b = resolved(a), resolved(b)
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return strings.EqualFold(a, b)
	}
	return a == b
}

// resolved returns an absolute name without symbolic links. The file itself is no link, and
// the last folders may be missing.
func resolved(name string) string {
	name, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	for in, rest := filepath.Dir(name), filepath.Base(name); ; in, rest = filepath.Dir(in), filepath.Join(filepath.Base(in), rest) {
		if found, err := filepath.EvalSymlinks(in); err == nil {
			return filepath.Join(found, rest)
		}
		if in == filepath.Dir(in) {
			return name
		}
	}
}
