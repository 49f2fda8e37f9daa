package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// key identifies a mutant on the page.
func (m *mutant) key() string { return m.source + ": " + m.description }

// table returns the page. earlier is the number of verdicts that are not of this run.
func table(mutants []*mutant, failed, earlier int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, intro, time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, len(mutants), failed)
	if earlier > 0 {
		fmt.Fprintf(&b, resumed, earlier)
	}
	source := ""
	for _, m := range mutants {
		if m.source != source {
			source = m.source
			fmt.Fprintf(&b, "\n## %s\n\n| what is no longer checked | noticed by |\n|---|---|\n", source)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", m.description, m.verdict)
	}
	return b.Bytes()
}

const intro = `# Mutants

Each row is one check in the source. If this check alone is removed or weakened, a test fails: the last column names
the first test that does. The changes are in ` + "`internal/trials/mutants/*.txt`. `make mutants`" + ` tries them all and
writes this page; this was on %s, with %s %s/%s.

%d mutants, %d not noticed. The lists leave out changes that no test could notice, because a second check rejects the
same input: a missing ` + "`iat`" + ` is also too old, a fourth segment is also not base64url, a key without a curve fits no EC
algorithm, and the rate limit for failed refreshes is also kept by the time for which the old keys count as fresh. The
comments in the lists name the others.
`

const resumed = `
The verdicts came from several runs: %d of them are those of earlier ones (` + "`-resume`" + `), which count only if the source,
the tests and the mutant were the same.
`

// readPage returns which test noticed each mutant when the page was written.
func readPage(name string) map[string]string {
	noticedBy := map[string]string{}
	text, err := os.ReadFile(name)
	if err != nil {
		return noticedBy // Without it, the tests run in another order.
	}
	source := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if heading, found := strings.CutPrefix(line, "## "); found {
			source = heading
		}
		if cells := strings.Split(strings.Trim(line, "|"), " | "); len(cells) == 2 {
			noticedBy[source+": "+strings.TrimSpace(cells[0])] = strings.TrimSpace(cells[1])
		}
	}
	return noticedBy
}
