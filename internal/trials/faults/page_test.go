package faults_test

import (
	"cmp"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"
)

const intro = `# When the issuer fails

What clients of a guarded API get while the endpoint that its keys come from is broken, slow, lying or gone. Made by

    go test ./internal/trials/faults -update

on {{date}}, koreauth {{version}}, {{go}}. The test behind it runs with all the others: it plays every row again, compares each column
but the two of memory with this page, and fails if a valid token gets 401 or 403 in a row that does not say why, if a forged one gets anything but
403 or 503, if a 503 has no Retry-After, or if any request waits more than 10 s; and, when it writes the page, if a fetch takes more than 32 MB or
leaves more than 4 MB.

**How it is made.** A guard with a RemoteKeySet of default intervals stands before a real net/http server and client, on connections in
memory and on simulated time, so that hours pass at once and the counts are exact. *At the start*: the API has no keys, and for two seconds ten
valid tokens a second arrive, each with four forged ones (an invented key ID, a wrong key, a changed signature, no signature). *Keys held*: the
API has had keys for 15 minutes, their age for a refresh, when the fault begins and the issuer begins to sign with a second key; for two
minutes, every five seconds, come a token seen before and a new one of the first key, one of the second, and the forged ones. Bodies of many keys and endless headers have a fifth of that time. Other rows say what
happens in them.

**How to read it.** *Known key*: what valid tokens got whose key the API had; *new key*: those whose key it had yet to fetch. "403, then 200"
tells the order. A 503 says "not now", and the client keeps its token; a 401 or 403 would have it throw a good token away. Where a row in brackets says
why a valid token was refused, that is the price of the design, and no row accepts a forged one. *Forged*: all statuses that forged tokens got, 503 where
their key could not be looked for. *Requests*: those that reached for the issuer, redirects counted, before the fault ended. *Slowest*: the longest
that any of the requests waited. *Then 200 after*: from the end of the fault, or from the change, to the first valid token accepted; of the new key where there is one. *A
fetch*: by how much memory grew at most in one fetch; there is never more than one at a time. *Left*: what was still held at the end of the row,
remembered tokens and the endpoint's own share included, as everything runs in one process.

| fault | when | known key | new key | forged | requests | slowest | then 200 after | a fetch | left |
|---|---|---|---|---|---|---|---|---|---|
`

// released finds the newest version that the changelog tells of.
var released = regexp.MustCompile(`(?m)^## \[(.*?)\]`)

func render(rows []row) string {
	changelog, _ := os.ReadFile("../../../CHANGELOG.md") // Without it there is no version to tell.
	version := ""
	if found := released.FindSubmatch(changelog); found != nil {
		version = strings.ToLower(string(found[1]))
	}
	var text strings.Builder
	text.WriteString(strings.NewReplacer(
		"{{date}}", time.Now().UTC().Format(time.DateOnly),
		"{{version}}", cmp.Or(version, "of no version"),
		"{{go}}", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH,
	).Replace(intro))
	for _, r := range rows {
		text.WriteString(r.line() + "\n")
	}
	return text.String()
}

// measured are the lines of the table without their columns of memory.
func measured(page string) []string {
	var lines []string
	for line := range strings.Lines(page) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "|") && len(cells) > 2 {
			lines = append(lines, strings.Join(cells[:len(cells)-2], " | "))
		}
	}
	return lines
}
