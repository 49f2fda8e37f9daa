package devissuer_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
)

// running is an issuer that Run serves.
type running struct {
	printed string
	stop    func() error // ends it and returns what Run returned
}

// start runs an issuer until the test ends.
func start(t *testing.T, addr, keysFile string) running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	printed := make(printer, 1)
	ended := make(chan error, 1)
	go func() { ended <- devissuer.Run(ctx, addr, keysFile, printed) }()
	select {
	case text := <-printed:
		r := running{text, func() error { cancel(); err := <-ended; ended <- err; return err }}
		t.Cleanup(func() { _ = r.stop() })
		return r
	case err := <-ended:
		cancel()
		require.NoError(t, err)
		panic("Run ended without an error")
	}
}

// printer sends what is written to it.
type printer chan string

func (p printer) Write(text []byte) (int, error) { p <- string(text); return len(text), nil }

// value returns what is printed beside a name.
func (r running) value(name string) string {
	line := regexp.MustCompile(`(?m)^` + name + ` +(\S+)`).FindStringSubmatch(r.printed)
	if line == nil {
		return ""
	}
	return line[1]
}

// token gets a token of the client that was printed.
func (r running) token(t *testing.T) string {
	t.Helper()
	response, err := http.PostForm(r.value("Token URL"), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {r.value("Client")}, "client_secret": {r.value("Secret")},
	})
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	require.NotEmpty(t, body.Token)
	return body.Token
}

// validator returns a validator that fetches the keys of the issuer.
func (r running) validator(t *testing.T) *koreauth.Validator {
	t.Helper()
	validator, err := koreauth.NewValidator(koreauth.Config{Issuer: r.value("Issuer"), Audience: []string{r.value("Audience")}})
	require.NoError(t, err)
	return validator
}

func TestRun_PrintsWhatADeveloperNeeds(t *testing.T) {
	t.Parallel()
	file := keysFile(t)
	r := start(t, "127.0.0.1:0", file)
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(r.printed)[1]
	want := strings.NewReplacer("PORT", port, "SECRET", r.value("Secret"), "FILE", file).Replace(`A development issuer. Any program on this machine can get tokens from it.

Page       http://127.0.0.1:PORT/
Issuer     http://127.0.0.1:PORT/realms/KORE-CIDP
Audience   api-gw
Token URL  http://127.0.0.1:PORT/api-services/v1/auth/token (form)
           http://127.0.0.1:PORT/oauth/v2/token (Basic)
Client     kc_demo
Secret     SECRET
Keys       from FILE

Press Ctrl-C to stop.
`)
	assert.Equal(t, want, r.printed)
	for line := range strings.Lines(strings.ReplaceAll(r.printed, file, "keys.pem")) {
		assert.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 80)
	}
	claims, err := r.validator(t).Validate(t.Context(), r.token(t))
	require.NoError(t, err)
	assert.Equal(t, "kc_demo", claims.ClientID)
	response, err := http.Get(r.value("Page"))
	require.NoError(t, err)
	_ = response.Body.Close()
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.NoError(t, r.stop())
	_, err = http.Get(r.value("Page"))
	assert.Error(t, err, "it no longer listens")
}

func TestRun_ListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	file := keysFile(t)
	for _, host := range []string{"localhost", "LOCALHOST", "127.0.0.1", "[::1]"} {
		if listener, err := net.Listen("tcp", host+":0"); err != nil {
			t.Logf("%s: skipped: %v", host, err)
			continue
		} else {
			_ = listener.Close()
		}
		r := start(t, host+":0", file)
		assert.Regexp(t, `^http://`+regexp.QuoteMeta(strings.ToLower(host))+`:\d+/realms/KORE-CIDP$`, r.value("Issuer"))
		claims, err := r.validator(t).Validate(t.Context(), r.token(t))
		require.NoError(t, err)
		assert.Equal(t, r.value("Issuer"), claims.Issuer)
		require.NoError(t, r.stop())
	}
	for addr, cure := range map[string]string{
		":8081":               `":8081" names no host, which means all addresses: use 127.0.0.1:8081`,
		"0.0.0.0:8081":        `anyone who reaches "0.0.0.0:8081" could make tokens: use 127.0.0.1:8081`,
		"[::]:8081":           `use 127.0.0.1:8081`,
		"192.0.2.1:80":        `use 127.0.0.1:80`,
		"example.com:80":      `use 127.0.0.1:80`,
		"localhost.:80":       `use 127.0.0.1:80`,
		"[::1%lo]:80":         `use 127.0.0.1:80`,
		"127.0.0.1":           `"127.0.0.1" is not a host and a port: use one like 127.0.0.1:8081`,
		"127.0.0.1:":          `use one like 127.0.0.1:8081`,
		"localhost":           `use one like 127.0.0.1:8081`,
		"http://127.0.0.1:80": `use one like 127.0.0.1:8081`,
	} {
		err := devissuer.Run(t.Context(), addr, filepath.Join(t.TempDir(), "none"), io.Discard)
		assert.ErrorIs(t, err, devissuer.ErrAddr, addr)
		assert.ErrorContains(t, err, "devissuer: the address must be on loopback: ", addr)
		assert.ErrorContains(t, err, cure, addr)
	}
	assert.Equal(t, "127.0.0.1:8081", devissuer.DefaultAddr)
}

func TestRun_ReportsWhatFails(t *testing.T) {
	t.Parallel()
	file := keysFile(t)
	r := start(t, "127.0.0.1:0", file)
	taken := strings.TrimSuffix(strings.TrimPrefix(r.value("Page"), "http://"), "/")
	err := devissuer.Run(t.Context(), taken, file, io.Discard)
	assert.ErrorContains(t, err, "devissuer: cannot listen: use another address: ")
	assert.NotErrorIs(t, err, devissuer.ErrAddr)
	assert.ErrorContains(t, devissuer.Run(t.Context(), "127.0.0.1:99999", file, io.Discard), "devissuer: cannot listen: use another address: ")

	ended, end := context.WithCancel(t.Context())
	end()
	assert.NoError(t, devissuer.Run(ended, "127.0.0.1:0", file, io.Discard), "that is its end")

	err = devissuer.Run(t.Context(), "127.0.0.1:0", file, broken{})
	assert.EqualError(t, err, "devissuer: cannot print the client: broken")
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

// TestRun_EndsWithItsContext ends it while a client waits for an answer and another
// one has not sent its body.
func TestRun_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := start(t, "127.0.0.1:0", keysFile(t))
	response, err := http.Post(r.value("Page")+"page/endpoints", "application/json", strings.NewReader(`{"endpoints":"all","behavior":"hanging"}`))
	require.NoError(t, err)
	_ = response.Body.Close()
	answered := make(chan error, 2)
	for _, ask := range []func() (*http.Response, error){
		func() (*http.Response, error) { return http.Get(r.value("Issuer") + "/protocol/openid-connect/certs") },
		func() (*http.Response, error) {
			reader, _ := io.Pipe()
			return http.Post(r.value("Token URL"), "application/x-www-form-urlencoded", reader)
		},
	} {
		go func() {
			response, err := ask()
			if err == nil {
				_ = response.Body.Close()
			}
			answered <- err
		}()
	}
	assert.NoError(t, r.stop())
	for range 2 {
		select {
		case err := <-answered:
			assert.Error(t, err)
		case <-time.After(10 * time.Second):
			t.Fatal("a request is still in progress")
		}
	}
}
