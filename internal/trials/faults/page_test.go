package faults_test

import (
	"cmp"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The sections of the page.
const (
	noKeys     = "No keys yet"
	cachedKeys = "Keys cached"
	oneHour    = "Cache headers"
	newKey     = "ETags"
)

const intro = `# When the issuer fails

This report shows what clients of a guarded API get while the issuer's key endpoint is down, slow, wrong or malicious.
It was written by

    go test ./internal/trials/faults -update

on {{date}}, koreauth {{version}}, {{go}}. The test runs with all others.
It repeats every row, compares all columns except memory with this page, and fails if

- a valid token gets anything but 200 or 503, except 403 in a row with a note that says why,
- a forged token gets anything but 403 or 503,
- a 503 has no Retry-After,
- a request waits longer than 10 s,
- with -update: a fetch uses more than 32 MB of memory, or more than 4 MB stay in use.

## How it is measured

A guard with a default RemoteKeySet uses a real net/http client and server, with connections in memory and simulated
time. So hours pass immediately, and the counts are exact.

- **No keys yet.** The API has not fetched keys. For two seconds, ten valid tokens a second arrive. With each come
  four forged ones: invented key ID, wrong key, changed signature, no signature.
- **Keys cached.** The fault begins when the keys are 15 minutes old and due for a refresh. At the same time the issuer
  begins to sign with a second key. For two minutes, every five seconds, a cached token, a new token of each key and the
  forged ones arrive.
- Bodies with many keys and endless headers have a fifth of that time. Other rows describe their own course.
- **Cache headers.** One hour, with a request every ten seconds.
- **ETags.** One hour, with a new key after 30 minutes.

## How to read it

- **known key**, **new key**: the responses to valid tokens of a key that the API had, or had to fetch, in this order.
  With 503 a client keeps its token and tries again; with 401 or 403 it would discard a valid token.
- **forged**: all different responses to forged tokens. 503 means that their key could not be looked up.
- **200 after**: the time from the end of the fault, or from the change, to the first accepted valid token; of the new
  key, if there is one.
- **requests**: requests to the issuer before the fault ended, including redirects. **slowest**: the longest wait.
- **fetch**: the most memory that one fetch used; there is never more than one fetch at a time. **kept**: the memory in
  use at the end, including cached tokens and the endpoint itself, which runs in the same process.
`

// released finds the newest version in the changelog.
var released = regexp.MustCompile(`(?m)^## \[(.*?)\]`)

func render(rows []row) string {
	changelog, _ := os.ReadFile("../../../CHANGELOG.md") // Without it, the version is unknown.
	version := ""
	if found := released.FindSubmatch(changelog); found != nil {
		version = strings.ToLower(string(found[1]))
	}
	var text strings.Builder
	text.WriteString(strings.NewReplacer(
		"{{date}}", time.Now().UTC().Format(time.DateOnly),
		"{{version}}", cmp.Or(version, "without a version"),
		"{{go}}", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH,
	).Replace(intro))
	for _, section := range sections(rows) {
		text.WriteString("\n## " + section[0].when + "\n\n### Responses\n\n| fault | known key | new key | forged | 200 after |\n|---|---|---|---|---|\n")
		var notes strings.Builder
		for _, r := range section {
			text.WriteString(line(r.responses()))
			if r.why != "" {
				notes.WriteString("- " + r.fault + ":\n  " + r.why + ".\n")
			}
		}
		if notes.String() != "" {
			text.WriteString("\nWhy valid tokens are rejected here:\n\n" + notes.String())
		}
		text.WriteString("\n### Requests, waits and memory\n\n| fault | requests | slowest | fetch | kept |\n|---|---|---|---|---|\n")
		for _, r := range section {
			text.WriteString(line(r.costs()))
		}
	}
	return text.String()
}

func line(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

// sections groups the rows by their sections, in the order of the first rows.
func sections(rows []row) (sections [][]row) {
	for _, r := range rows {
		i := slices.IndexFunc(sections, func(section []row) bool { return section[0].when == r.when })
		if i < 0 {
			i = len(sections)
			sections = append(sections, nil)
		}
		sections[i] = append(sections[i], r)
	}
	return sections
}

// measured returns the lines of the tables, without memory, and with their
// section.
func measured(page string) []string {
	var lines []string
	section, memory := "", 0
	for line := range strings.Lines(page) {
		if heading, found := strings.CutPrefix(line, "## "); found {
			section = strings.TrimSpace(heading)
		}
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		if cells[0] == "| fault" {
			memory = 0
			if cells[1] == "requests" {
				memory = 2
			}
		}
		lines = append(lines, section+": "+strings.Join(cells[:len(cells)-memory], " | "))
	}
	return lines
}
