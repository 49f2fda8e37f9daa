package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/secret"
	"github.com/koreauth/koreauth/koretest"
)

// result is how the command ended.
type result struct {
	status   int
	out, err string
}

// koreauthCommand runs the command with standard input and the environment.
func koreauthCommand(ctx context.Context, in string, env map[string]string, args ...string) result {
	w := world{getenv: func(name string) string { return env[name] }}
	return w.run(ctx, in, args...)
}

// run runs the command in a world.
func (w world) run(ctx context.Context, in string, args ...string) result {
	var out, errors bytes.Buffer
	w.args, w.in, w.out, w.err = append([]string{"koreauth"}, args...), strings.NewReader(in), &out, &errors
	return result{run(ctx, w), out.String(), errors.String()}
}

// assertNarrow checks that no line is wider than 80 columns.
func assertNarrow(t *testing.T, got result) {
	t.Helper()
	for line := range strings.Lines(got.out + got.err) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
}

// oneLine returns a text without its line breaks.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestHelp_IsNarrow(t *testing.T) {
	for _, name := range []string{"", "explain", "token", "test", "doctor", "revoke", "lift", "list", "issuer"} {
		got := koreauthCommand(t.Context(), "", nil, "help", name)
		assert.Equal(t, statusOK, got.status, name)
		assert.Contains(t, got.out, "koreauth "+name)
		assertNarrow(t, got)
	}
	got := koreauthCommand(t.Context(), "", nil, "explain", "--help")
	assert.Contains(t, got.out, `
   --require RULE [ --require RULE ]        also check RULE: scope:NAME,
                                            product:NAME or
                                            grant:RESOURCE:ACCESS[,ACCESS]
`)
}

func startIssuer(t *testing.T) *koretest.Issuer {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{{
		ID: "kc_1", Secret: "s ecret+%", Lifetime: koretest.OneHour, Resources: map[string][]string{"API Clients": {"Read", "Write"}}, Products: []string{"SuperSIM"},
	}}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

func TestExplain_Status(t *testing.T) {
	issuer := startIssuer(t)
	valid := issuer.Valid()
	args := []string{"explain", "--issuer", issuer.URL(), "--audience", koretest.Audience}
	file := filepath.Join(t.TempDir(), "token.txt")
	require.NoError(t, os.WriteFile(file, []byte(valid+"\r\n"), 0o600))
	for name, row := range map[string]struct {
		in     string
		more   []string
		status int
		out    string
	}{
		"an accepted token":        {valid, nil, statusOK, "accepted\n"},
		"a line break at its end":  {valid + "\n", nil, statusOK, "accepted\n"},
		"from a file":              {"", []string{"--token-file", file}, statusOK, "accepted\n"},
		"an expired token":         {issuer.Expired(), nil, statusRejected, "rejected: invalid token: expired\n"},
		"a forged token":           {issuer.Forged(), nil, statusRejected, "rejected: invalid token: "},
		"Bearer pasted along":      {"Bearer " + valid, nil, statusRejected, "pass only the token"},
		"a grant":                  {valid, []string{"--require", "grant:API Clients:Read,Write"}, statusOK, "API Clients:Read, API"},
		"a missing grant":          {valid, []string{"--require", "grant:Invoices:Read"}, statusRejected, "rejected: insufficient scope\n"},
		"a product":                {valid, []string{"--require", "product:SuperSIM"}, statusOK, "accepted\n"},
		"a scope":                  {valid, []string{"--require", "scope:email"}, statusOK, "accepted\n"},
		"two requirements":         {valid, []string{"--require", "scope:email", "--require", "product:none"}, statusRejected, "rejected: insufficient scope\n"},
		"another algorithm":        {valid, []string{"--alg", "ES256"}, statusRejected, "add it to Config.Algorithms"},
		"the URL of the keys":      {valid, []string{"--jwks-url", issuer.KeysURL()}, statusOK, "accepted\n"},
		"keys that are not served": {valid, []string{"--jwks-url", issuer.URL() + "/nothing"}, statusUnknown, "not judged: temporarily unavailable\n"},
		"another client":           {valid, []string{"--client", "kc_2"}, statusRejected, "client not accepted"},
	} {
		got := koreauthCommand(t.Context(), row.in, nil, append(args, row.more...)...)
		assert.Equal(t, row.status, got.status, "%s: %s%s", name, got.out, got.err)
		assert.Contains(t, got.out, row.out, name)
		assert.Empty(t, got.err, name)
		for segment := range strings.SplitSeq(row.in, ".") {
			if len(segment) > 40 {
				assert.NotContains(t, got.out, segment, name)
			}
		}
		assertNarrow(t, got)
	}
}

// TestExplain_Sender has tokens that are bound to a certificate, or allowed from one
// address.
func TestExplain_Sender(t *testing.T) {
	issuer := startIssuer(t)
	server := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(server.Close)
	own := server.Certificate()
	sum := sha256.Sum256(own.Raw)
	folder := t.TempDir()
	write := func(name, kind string, text []byte) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: text}), 0o600))
		return path
	}
	ownFile := write("own.pem", "CERTIFICATE", own.Raw)
	mint := func(confirmation *koreauth.Confirmation, ranges ...any) string {
		token, err := issuer.Mint(koretest.Token{Confirmation: confirmation, Claims: map[string]any{"ip-range": ranges}})
		require.NoError(t, err)
		return token
	}
	bound := &koreauth.Confirmation{CertificateSHA256: base64.RawURLEncoding.EncodeToString(sum[:])}
	other := &koreauth.Confirmation{CertificateSHA256: strings.Repeat("A", 43)}
	token := mint(bound, "203.0.113.0/24")
	args := []string{"explain", "--issuer", issuer.URL(), "--audience", koretest.Audience}
	for name, row := range map[string]struct {
		in     string
		more   []string
		status int
		says   []string
	}{
		"no certificate":             {token, nil, statusRejected, []string{"rejected: invalid token: sender not confirmed", "bound to the certificate with SHA-256"}},
		"the certificate":            {token, []string{"--cert", ownFile}, statusOK, []string{"accepted\n", "pass    binding"}},
		"both":                       {token, []string{"--cert", ownFile, "--client-address", "203.0.113.9"}, statusOK, []string{"accepted\n", "\"ip-range\" is absent, or has 203.0.113.9"}},
		"another certificate":        {mint(other), []string{"--cert", ownFile}, statusRejected, []string{"sender not confirmed", "the certificate in --cert does not confirm it"}},
		"bound to a key too":         {mint(&koreauth.Confirmation{CertificateSHA256: bound.CertificateSHA256, KeySHA256: other.CertificateSHA256}), []string{"--cert", ownFile}, statusRejected, []string{"FAIL    binding"}},
		"another fault first":        {mint(bound), []string{"--cert", ownFile, "--client", "kc_2"}, statusRejected, []string{"client not accepted"}},
		"a requirement that fails":   {token, []string{"--cert", ownFile, "--require", "scope:admin"}, statusRejected, []string{"rejected: insufficient scope\n", "pass    binding"}},
		"another address":            {token, []string{"--cert", ownFile, "--client-address", "198.51.100.7"}, statusRejected, []string{"rejected: forbidden\n", "198.51.100.7 is in none of the 1 entries"}},
		"an address, no range":       {issuer.Valid(), []string{"--client-address", "198.51.100.7"}, statusOK, []string{"accepted\n"}},
		"an entry of another form":   {mint(nil, "office"), []string{"--client-address", "198.51.100.7"}, statusRejected, []string{"entry 1 of"}},
		"an unbound token, a file":   {issuer.Valid(), []string{"--cert", ownFile}, statusOK, []string{"accepted\n"}},
		"a forged token, a file":     {issuer.Forged(), []string{"--cert", ownFile}, statusRejected, []string{"rejected: invalid token"}},
		"no such file":               {token, []string{"--cert", "/nothing"}, statusUsage, nil},
		"a key in the file":          {token, []string{"--cert", write("key.pem", "PRIVATE KEY", own.Raw)}, statusUsage, nil},
		"a broken certificate":       {token, []string{"--cert", write("broken.pem", "CERTIFICATE", own.Raw[:40])}, statusUsage, nil},
		"an address of another form": {token, []string{"--client-address", "203.0.113.9:80"}, statusUsage, nil},
		"an address with a zone":     {token, []string{"--client-address", "fe80::1%eth0"}, statusUsage, nil},
	} {
		got := koreauthCommand(t.Context(), row.in, nil, append(args, row.more...)...)
		assert.Equal(t, row.status, got.status, "%s: %s%s", name, got.out, got.err)
		for _, text := range row.says {
			assert.Contains(t, strings.Join(strings.Fields(got.out), " ")+got.out, text, name)
		}
		assertNarrow(t, got)
		assert.NotContains(t, got.out+got.err, "eyJ", name)
	}
}

func TestExplain_JSON(t *testing.T) {
	issuer := startIssuer(t)
	got := koreauthCommand(t.Context(), issuer.Expired(), nil, "explain", "--issuer", issuer.URL(), "--audience", koretest.Audience, "--json")
	assert.Equal(t, statusRejected, got.status)
	var explanation struct {
		Accepted      *bool
		Class, Reason string
		Steps         []map[string]any
	}
	decoder := json.NewDecoder(strings.NewReader(got.out))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&explanation))
	assert.False(t, *explanation.Accepted)
	assert.Equal(t, "invalid token", explanation.Class)
	assert.Equal(t, "expired", explanation.Reason)
	require.Len(t, explanation.Steps, 14)
	for _, step := range explanation.Steps {
		assert.Len(t, step, 7)
	}
}

func TestRun_Usage(t *testing.T) {
	issuer := startIssuer(t)
	valid := issuer.Valid()
	good := []string{"explain", "--issuer", issuer.URL(), "--audience", koretest.Audience}
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s"}
	for name, row := range map[string]struct {
		in   string
		args []string
		says string
	}{
		"a token as an argument":     {"", append(good, valid), "an argument looks like a token"},
		"a token in a flag":          {valid, append(good, "--require=scope:"+valid), "an argument looks like a token"},
		"a token before the command": {"", []string{valid}, "an argument looks like a token"},
		"an unknown command":         {"", []string{"explian"}, `no command "explian"`},
		"an unknown flag":            {"", append(good, "--bogus"), "-bogus"},
		"no issuer":                  {valid, []string{"explain", "--audience", "a"}, "--issuer is empty"},
		"no audience":                {valid, []string{"explain", "--issuer", issuer.URL()}, "--audience is empty"},
		"an unknown algorithm":       {valid, append(good, "--alg", "HS256"), "--alg has \"HS256\""},
		"an issuer on http":          {valid, []string{"explain", "--issuer", "http://issuer.example", "--audience", "a"}, "--dangerously-allow-http"},
		"an argument":                {valid, append(good, "x"), "takes no argument"},
		"no token":                   {" \n", good, "there is no token"},
		"a huge token":               {strings.Repeat("x", 70_000), good, "64 KiB"},
		"a file that is not there":   {"", append(good, "--token-file", "/nothing"), "--token-file: open /nothing"},
		"an unknown requirement":     {valid, append(good, "--require", "role:x"), "use scope:NAME"},
		"a grant without access":     {valid, append(good, "--require", "grant:x"), "name the access too"},
		"an empty grant":             {valid, append(good, "--require", "grant::"), "Grant needs a resource"},
		"an empty scope":             {valid, append(good, "--require", "scope:"), "Scope needs at least one scope"},
		"an empty product":           {valid, append(good, "--require", "product:"), "Product needs a name"},
		"token without an endpoint":  {"", []string{"token"}, "--token-url and --issuer are empty"},
		"an unknown style":           {"", []string{"token", "--token-url", issuer.TokenURL(), "--style", "x"}, "use form or basic"},
		"an unknown format":          {"", []string{"token", "--token-url", issuer.TokenURL(), "--format", "x"}, "use token, header, json or env"},
		"a secret as an argument":    {"", []string{"token", "--token-url", issuer.TokenURL(), "secret"}, "token takes no argument"},
		"no secret file":             {"", []string{"token", "--token-url", issuer.TokenURL(), "--secret-file", "/nothing"}, "--secret-file: open /nothing"},
	} {
		got := koreauthCommand(t.Context(), row.in, env, row.args...)
		assert.Equal(t, statusUsage, got.status, name)
		assert.Contains(t, got.err, row.says, name)
		assert.Empty(t, got.out, name)
		assert.NotContains(t, got.err, valid, name)
	}
}

func TestToken_Formats(t *testing.T) {
	issuer := startIssuer(t)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s ecret+%"}
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("s ecret+%\n"), 0o600))
	for name, row := range map[string]struct {
		args   []string
		before string
	}{
		"form":          {[]string{"--token-url", issuer.TokenURL()}, ""},
		"basic":         {[]string{"--token-url", issuer.BasicTokenURL(), "--style", "basic"}, ""},
		"discovery":     {[]string{"--issuer", issuer.URL()}, ""},
		"a secret file": {[]string{"--token-url", issuer.TokenURL(), "--client", "kc_1", "--secret-file", file}, ""},
		"a header":      {[]string{"--token-url", issuer.TokenURL(), "--format", "header"}, "Authorization: Bearer "},
		"a variable":    {[]string{"--token-url", issuer.TokenURL(), "--format", "env"}, "export KORE_TOKEN='"},
	} {
		got := koreauthCommand(t.Context(), "", env, append([]string{"token"}, row.args...)...)
		require.Equal(t, statusOK, got.status, name+got.err)
		text, found := strings.CutPrefix(strings.TrimRight(got.out, "'\n"), row.before)
		require.True(t, found, name)
		_, err := validator.Validate(t.Context(), text)
		assert.NoError(t, err, name)
	}
	got := koreauthCommand(t.Context(), "", env, "token", "--token-url", issuer.TokenURL(), "--format", "json")
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		Expiry      string
		Scope       string
	}
	require.NoError(t, json.Unmarshal([]byte(got.out), &answer))
	_, err = validator.Validate(t.Context(), answer.AccessToken)
	assert.NoError(t, err)
	assert.NotEmpty(t, answer.Expiry)
}

func TestToken_RunsCommands(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are those of a Unix shell")
	}
	issuer := startIssuer(t)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": testSecret}
	run := func(env map[string]string, command ...string) result {
		return koreauthCommand(t.Context(), "input", env, append([]string{"token", "--token-url", issuer.TokenURL(), "--"}, command...)...)
	}
	got := run(env, "sh", "-c", `printf "%s %s " "$KORE_TOKEN" "$1"; cat`, "sh", "--flag")
	require.Equal(t, statusOK, got.status, got.err)
	token, rest, _ := strings.Cut(got.out, " ")
	assert.Equal(t, "--flag input", rest)
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}})
	require.NoError(t, err)
	_, err = validator.Validate(t.Context(), token)
	require.NoError(t, err)

	got = run(env, "sh", "-c", "exit 7")
	assert.Equal(t, result{status: 7}, got)
	got = run(env, "koreauth-has-no-such-command")
	assert.Equal(t, statusUnknown, got.status)
	assert.Contains(t, got.err, "koreauth-has-no-such-command")
	got = run(map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "mistyped"}, "sh", "-c", "echo it ran")
	assert.Equal(t, statusRejected, got.status)
	assert.Empty(t, got.out)
	got = koreauthCommand(t.Context(), "", env, "token", "--token-url", issuer.TokenURL(), "x", "--", "true")
	assert.Equal(t, statusUsage, got.status)
}

func TestToken_Status(t *testing.T) {
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "mistyped-secret"}
	for name, row := range map[string]struct {
		url    string
		status int
		says   string
	}{
		"a wrong secret":    {startIssuer(t).TokenURL(), statusRejected, "401 unauthorized_client"},
		"an error in a 200": {answer(200, `{"error":"invalid_client"}`), statusRejected, "invalid_client"},
		"too many requests": {answer(429, "{}"), statusUnknown, "429"},
		"an outage":         {answer(503, "mistyped-secret"), statusUnknown, "503"},
		"no token":          {answer(200, "{}"), statusUnknown, "no access_token"},
		"no answer":         {closed.URL, statusUnknown, "refused"},
	} {
		got := koreauthCommand(t.Context(), "", env, "token", "--token-url", row.url)
		assert.Equal(t, row.status, got.status, name)
		assert.Contains(t, oneLine(got.err), row.says, name)
		assertNarrow(t, got)
		assert.NotContains(t, got.err, "mistyped-secret", name)
		assert.Empty(t, got.out, name)
	}
}

func TestRun_Completion(t *testing.T) {
	for shell, text := range map[string]string{"bash": "complete ", "zsh": "compdef", "fish": "complete -c koreauth", "pwsh": "Register-ArgumentCompleter"} {
		got := koreauthCommand(t.Context(), "", nil, "completion", shell)
		assert.Equal(t, statusOK, got.status, shell)
		assert.Contains(t, got.out, text, shell)
	}
	for _, args := range [][]string{nil, {"--help"}, {"explain", "--help"}, {"token", "--help"}} {
		got := koreauthCommand(t.Context(), "", nil, args...)
		assert.Equal(t, statusOK, got.status, args)
		assert.Contains(t, got.out, "USAGE", args)
	}
}

// TestIssuer_Serves starts the development issuer, and gets and explains a token of it.
func TestIssuer_Serves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	status := make(chan int, 1)
	keys := filepath.Join(t.TempDir(), "keys.pem")
	go func() {
		status <- run(ctx, world{
			args: []string{"koreauth", "issuer", "--addr", "127.0.0.1:0", "--keys-file", keys}, in: strings.NewReader(""), out: writer, err: io.Discard, getenv: os.Getenv,
		})
		_ = writer.Close()
	}()
	printed := map[string]string{}
	lines := bufio.NewScanner(reader)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Press") {
		if name, value, found := strings.Cut(lines.Text(), " "); found {
			printed[name] = strings.TrimSpace(value)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	require.Contains(t, printed, "Issuer")
	env := map[string]string{"KORE_CLIENT_ID": printed["Client"], "KORE_CLIENT_SECRET": printed["Secret"]}
	got := koreauthCommand(t.Context(), "", env, "token", "--issuer", printed["Issuer"])
	require.Equal(t, statusOK, got.status, "%s %v", got.err, printed)
	got = koreauthCommand(t.Context(), got.out, nil, "explain", "--issuer", printed["Issuer"], "--audience", koretest.Audience)
	assert.Equal(t, statusOK, got.status, got.out)
	assert.FileExists(t, keys)
	cancel()
	assert.Equal(t, statusOK, <-status)
	got = koreauthCommand(t.Context(), "", nil, "issuer", "--addr", "0.0.0.0:8081")
	assert.Equal(t, statusUsage, got.status)
	assert.Contains(t, got.err, "loopback")
}

func TestToken_Cache(t *testing.T) {
	issuer, err := koretest.NewIssuer(&koretest.Options{Clients: []koretest.Client{
		{ID: "kc_hour", Secret: "secret", Lifetime: koretest.OneHour}, {ID: "kc_brief", Secret: "secret", Lifetime: 20 * time.Second},
	}})
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	folder := t.TempDir()
	get := func(id, secret string, more ...string) string {
		env := map[string]string{"KORE_CLIENT_ID": id, "KORE_CLIENT_SECRET": secret}
		w := world{getenv: func(name string) string { return env[name] }, cache: folder}
		got := w.run(t.Context(), "", append([]string{"token", "--token-url", issuer.TokenURL()}, more...)...)
		if got.status != statusOK {
			return got.err
		}
		return got.out
	}
	fetched := func() int { return issuer.Requests(koretest.TokenEndpoint) }

	first := get("kc_hour", "secret")
	assert.Equal(t, first, get("kc_hour", "secret"))
	assert.Equal(t, 1, fetched())
	files, err := filepath.Glob(filepath.Join(folder, "koreauth", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	assert.NotContains(t, files[0], "kc_hour")

	assert.NotEqual(t, first, get("kc_hour", "secret", "--no-cache"))
	assert.NotEqual(t, first, get("kc_hour", "secret", "--scope", "other"))
	assert.Contains(t, get("kc_hour", "wrong"), "unauthorized_client", "a cached token needs the secret that it was got with")
	assert.Equal(t, first, get("kc_hour", "secret"))
	assert.Empty(t, get("kc_hour", "secret", "--forget"))
	assert.NotEqual(t, first, get("kc_hour", "secret"))

	brief := get("kc_brief", "secret")
	assert.NotEqual(t, brief, get("kc_brief", "secret"), "a token with less than 30 s is not cached")

	if runtime.GOOS != "windows" {
		second := get("kc_hour", "secret")
		for _, file := range files {
			require.NoError(t, os.Chmod(file, 0o644))
		}
		assert.NotEqual(t, second, get("kc_hour", "secret"), "a file that others could read is not used")
	}
	for _, file := range files {
		require.NoError(t, os.WriteFile(file, []byte("damaged"), 0o600))
	}
	before := fetched()
	get("kc_hour", "secret")
	assert.Equal(t, before+1, fetched())
}

// Processes that need a token at the same time get one together.
func TestToken_CacheIsLocked(t *testing.T) {
	issuer := startIssuer(t)
	issuer.Behave(koretest.Slow(100*time.Millisecond), koretest.TokenEndpoint)
	folder := t.TempDir()
	var group sync.WaitGroup
	tokens := make([]result, 5)
	for n := range tokens {
		group.Go(func() {
			env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s ecret+%"}
			w := world{getenv: func(name string) string { return env[name] }, cache: folder}
			tokens[n] = w.run(t.Context(), "", "token", "--token-url", issuer.TokenURL())
		})
	}
	group.Wait()
	for _, got := range tokens {
		assert.Equal(t, tokens[0], got)
	}
	assert.Equal(t, statusOK, tokens[0].status, tokens[0].err)
	assert.Equal(t, 1, issuer.Requests(koretest.TokenEndpoint))
}

// A folder that cannot be written does not keep anybody from getting a token.
func TestToken_CacheCannotBeWritten(t *testing.T) {
	issuer := startIssuer(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s ecret+%"}
	w := world{getenv: func(name string) string { return env[name] }, cache: file}
	got := w.run(t.Context(), "", "token", "--token-url", issuer.TokenURL())
	assert.Equal(t, statusOK, got.status)
	assert.Contains(t, got.err, "the token is not cached")
	assert.True(t, secret.HasJWT(got.out))
}

// A signal ends the command also while it waits for input.
func TestRun_Interrupted(t *testing.T) {
	read, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	blocks := func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	for name, args := range map[string][]string{
		"standard input": {"explain", "--issuer", "https://issuer.example", "--audience", "a"},
		"the prompt":     {"token", "--token-url", "https://issuer.example/token", "--client", "kc_1"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var errors bytes.Buffer
		w := world{args: append([]string{"koreauth"}, args...), in: read, out: io.Discard, err: &errors, getenv: func(string) string { return "" }, prompt: blocks}
		time.AfterFunc(50*time.Millisecond, cancel)
		assert.Equal(t, statusUnknown, run(ctx, w), name)
		assert.Equal(t, "koreauth: interrupted\n", errors.String(), name)
	}
}

// What cannot be written is no fault of the caller.
func TestRun_OutputThatFails(t *testing.T) {
	issuer := startIssuer(t)
	env := map[string]string{"KORE_CLIENT_ID": "kc_1", "KORE_CLIENT_SECRET": "s ecret+%"}
	var errors bytes.Buffer
	w := world{
		args: []string{"koreauth", "token", "--token-url", issuer.TokenURL()}, in: strings.NewReader(""), out: failingWriter{}, err: &errors,
		getenv: func(name string) string { return env[name] },
	}
	assert.Equal(t, statusUnknown, run(t.Context(), w))
	assert.Contains(t, errors.String(), "disk full")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestToken_Prompt(t *testing.T) {
	issuer := startIssuer(t)
	w := world{getenv: func(string) string { return "" }, prompt: func(context.Context, string) (string, error) { return "s ecret+%", nil }}
	got := w.run(t.Context(), "", "token", "--token-url", issuer.TokenURL(), "--client", "kc_1")
	assert.Equal(t, statusOK, got.status, got.err)
}
