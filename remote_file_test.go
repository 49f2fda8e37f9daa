//go:build unix

package koreauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/koretest"
)

// newFileValidator returns a validator of a program that has just started.
func newFileValidator(t testing.TB, issuer *koretest.Issuer, file string, change ...func(*koreauth.Config)) *koreauth.Validator {
	t.Helper()
	config := koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}, KeyFile: file}
	for _, c := range change {
		c(&config)
	}
	v, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	return v
}

func startTestIssuer(t testing.TB) *koretest.Issuer {
	t.Helper()
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer
}

// keyFile returns the name of a file in a folder of its own, in which a key set may still
// write when the test ends.
func keyFile(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "koreauth")
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.Eventually(t, func() bool { return os.RemoveAll(folder) == nil }, 10*time.Second, time.Millisecond)
	})
	return filepath.Join(folder, "keys.json")
}

// changeKeyFile changes the JSON object that a key file is.
func changeKeyFile(t testing.TB, file string, change func(record map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	record := map[string]any{}
	require.NoError(t, json.Unmarshal(text, &record))
	change(record)
	text, err = json.Marshal(record)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
}

// A program that starts while the issuer is down has the keys of the file.
func TestRemoteKeySet_StartsDuringAnOutage(t *testing.T) {
	issuer, file := startTestIssuer(t), keyFile(t)
	token := issuer.Valid()
	first := newFileValidator(t, issuer, file)
	require.NoError(t, first.Ready(t.Context()))
	require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 10*time.Second, time.Millisecond)
	fetched := first.Status()[0].Fetched

	issuer.Behave(koretest.Down)
	log := &locked.Buffer{}
	restarted := newFileValidator(t, issuer, file, func(c *koreauth.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	_, err := restarted.Validate(t.Context(), token)
	require.NoError(t, err)
	_, err = restarted.Validate(t.Context(), issuer.Forged())
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	status := restarted.Status()[0]
	assert.Equal(t, file, status.Source)
	assert.Error(t, status.Err)
	assert.Equal(t, 1, status.Keys)
	assert.WithinDuration(t, fetched, status.Fetched, time.Second)
	assert.WithinDuration(t, fetched.Add(24*time.Hour), status.StaleAt, time.Second, "MaxStale counts from the fetch")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "using the keys on disk") }, 10*time.Second, time.Millisecond)

	without := newFileValidator(t, issuer, "")
	_, err = without.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	log = &locked.Buffer{}
	missing := newFileValidator(t, issuer, keyFile(t), func(c *koreauth.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	_, err = missing.Validate(t.Context(), token)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.NotContains(t, log.String(), "on disk", "a file that was never written is no fault")

	changeKeyFile(t, file, func(record map[string]any) { record["fetched"] = fetched.Add(-time.Hour) })
	later := newFileValidator(t, issuer, file)
	_, err = later.Validate(t.Context(), token)
	require.NoError(t, err)
	assert.WithinDuration(t, fetched.Add(-time.Hour), later.Status()[0].Fetched, time.Second)
	assert.WithinDuration(t, fetched.Add(23*time.Hour), later.Status()[0].StaleAt, time.Second)

	// The issuer is back: its keys replace those of the file.
	issuer.Behave(nil)
	issuer.Rotate()
	require.Eventually(t, func() bool {
		_, err := restarted.Validate(t.Context(), issuer.Valid())
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
	assert.Equal(t, issuer.KeysURL(), restarted.Status()[0].Source)
}

// While the issuer can be reached, a key that it removed does not come back from the
// file.
func TestRemoteKeySet_RemovedKeyStaysRemoved(t *testing.T) {
	issuer, file := startTestIssuer(t), keyFile(t)
	leaked, id := issuer.Valid(), issuer.SigningKey().ID
	require.NoError(t, newFileValidator(t, issuer, file).Ready(t.Context()))
	require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 10*time.Second, time.Millisecond)
	issuer.Rotate()
	issuer.RemoveKey(id)
	restarted := newFileValidator(t, issuer, file)
	_, err := restarted.Validate(t.Context(), leaked)
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(file)
		var record struct{ Document []byte }
		return err == nil && json.Unmarshal(text, &record) == nil && !bytes.Contains(record.Document, []byte(id))
	}, 10*time.Second, time.Millisecond, "the file has the new keys")
}

// A file that is not used is an outage as without one, and the log says why.
func TestRemoteKeySet_FileThatIsNotUsed(t *testing.T) {
	issuer := startTestIssuer(t)
	token := issuer.Valid()
	for name, row := range map[string]struct {
		change func(t *testing.T, file string)
		config func(*koreauth.Config)
		says   string
	}{
		"others can write it": {func(t *testing.T, file string) { require.NoError(t, os.Chmod(file, 0o666)) }, nil, "can be written by others"},
		"damaged":             {func(t *testing.T, file string) { require.NoError(t, os.WriteFile(file, []byte("{"), 0o600)) }, nil, "is damaged"},
		"another URL":         {nil, func(c *koreauth.Config) { c.JWKSURL = issuer.KeysURL() }, "has the keys of"},
		"no usable key": {func(t *testing.T, file string) {
			changeKeyFile(t, file, func(record map[string]any) { record["document"] = []byte(`{"keys":[]}`) })
		}, nil, "no usable signing key"},
	} {
		file := keyFile(t)
		issuer.Behave(nil)
		require.NoError(t, newFileValidator(t, issuer, file).Ready(t.Context()))
		require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 10*time.Second, time.Millisecond)
		if row.change != nil {
			row.change(t, file)
		}
		issuer.Behave(koretest.Down)
		log := &locked.Buffer{}
		v := newFileValidator(t, issuer, file, func(c *koreauth.Config) {
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			if row.config != nil {
				row.config(c)
			}
		})
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, name)
		assert.Contains(t, log.String(), "the keys on disk are not used", name)
		assert.Contains(t, log.String(), row.says, name)
	}
}

func TestNewValidator_KeyFileFaults(t *testing.T) {
	static := edStatic("k")
	_, err := koreauth.NewValidator(koreauth.Config{Issuer: "https://one.example", Audience: []string{"a"}, Keys: static, KeyFile: "keys.json"})
	assert.ErrorContains(t, err, "Config has Keys and KeyFile: give the file to the key set (RemoteKeySet.File)")
	one := koreauth.Config{Issuer: "https://one.example", Audience: []string{"a"}, KeyFile: "keys.json"}
	two := koreauth.Config{Issuer: "https://two.example", Audience: []string{"a"}, KeyFile: "keys.json"}
	_, err = koreauth.NewValidator(one, two)
	assert.ErrorContains(t, err, "Config.KeyFile is that of another Config")
	one.KeyFile, two.KeyFile = "", ""
	_, err = koreauth.NewValidator(one, two)
	assert.NoError(t, err)

	// One file has several names, and it can be that of a RemoteKeySet.
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	t.Chdir(dir)
	config := func(issuer, file string) koreauth.Config {
		return koreauth.Config{Issuer: issuer, Audience: []string{"a"}, KeyFile: file}
	}
	set := func(issuer, file string) koreauth.Config {
		return koreauth.Config{Issuer: issuer, Audience: []string{"a"}, Keys: &koreauth.RemoteKeySet{Issuer: issuer, File: file}}
	}
	file := filepath.Join(dir, "keys.json")
	for _, name := range []string{file, dir + "/./keys.json", dir + "//keys.json", "keys.json", "./keys.json", link + "/keys.json", dir + "/x/../keys.json"} {
		for _, first := range []koreauth.Config{config(one.Issuer, file), set(one.Issuer, file)} {
			for _, second := range []koreauth.Config{config(two.Issuer, name), set(two.Issuer, name)} {
				_, err := koreauth.NewValidator(first, second)
				assert.ErrorContains(t, err, "Config 2 of 2: Config.KeyFile is that of another Config", name)
			}
		}
	}
	_, err = koreauth.NewValidator(config(one.Issuer, file), set(two.Issuer, file+"2"), koreauth.Config{Issuer: "https://three.example", Audience: []string{"a"}, Keys: static})
	assert.NoError(t, err)
	shared := set(one.Issuer, file)
	other := shared
	other.Issuer = two.Issuer
	_, err = koreauth.NewValidator(shared, other)
	assert.NoError(t, err, "two issuers that use one key set use one file")
}

// A program that is killed while it writes leaves the old keys or the new ones.
func TestRemoteKeySet_FileSurvivesKill(t *testing.T) {
	if file := os.Getenv("KOREAUTH_TEST_KEY_FILE"); file != "" {
		writeKeysForEver(t, file)
	}
	if testing.Short() {
		t.Skip("it starts programs")
	}
	issuer, file := startTestIssuer(t), keyFile(t)
	token := issuer.Valid()
	for range 15 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRemoteKeySet_FileSurvivesKill$")
		cmd.Env = append(os.Environ(), "KOREAUTH_TEST_KEY_FILE="+file, "KOREAUTH_TEST_ISSUER="+issuer.URL())
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, 4+rand.IntN(40))) // a dot for each write that began
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		issuer.Behave(koretest.Down)
		_, err = newFileValidator(t, issuer, file).Validate(t.Context(), token)
		require.NoError(t, err)
		issuer.Behave(nil)
	}
	require.NoError(t, newFileValidator(t, issuer, file).Ready(t.Context()))
	assert.Eventually(t, func() bool {
		entries, err := os.ReadDir(filepath.Dir(file))
		return err == nil && len(entries) == 1
	}, 10*time.Second, time.Millisecond, "nothing else is left in the folder")
}

// writeKeysForEver is the program that is killed: each of its key sets writes the file.
func writeKeysForEver(t *testing.T, file string) {
	for n := 0; ; n++ {
		issuer := os.Getenv("KOREAUTH_TEST_ISSUER")
		set := &koreauth.RemoteKeySet{Issuer: issuer, File: file, HTTPClient: http.DefaultClient}
		if _, err := set.Keys(context.Background(), "", true); err != nil {
			t.Fatal(err)
		}
		fmt.Print(".")
	}
}
