//go:build unix

package koreauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/locked"
	"github.com/koreauth/koreauth/koretest"
)

// written waits until a key file is there.
func written(t testing.TB, file string) {
	t.Helper()
	require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 10*time.Second, time.Millisecond)
}

// responds returns a Behavior that responds with a status and a body.
func responds(status int, body string) koretest.Behavior {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
}

// The file is used in an outage, and not if the issuer has answered: it may have removed
// the keys.
func TestRemoteKeySet_FileIsForOutages(t *testing.T) {
	cut := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"keys":[`)
		})
	}
	issuer, file := startTestIssuer(t), keyFile(t)
	token := issuer.Valid()
	require.NoError(t, newFileValidator(t, issuer, file).Ready(t.Context()))
	written(t, file)
	html := "<html>the proxy is in maintenance</html>"
	moved := func(http.Handler) http.Handler {
		return http.RedirectHandler("https://other.example/keys", http.StatusFound)
	}
	for _, row := range []struct {
		name   string
		behave koretest.Behavior
		at     koretest.Endpoint
		used   bool
	}{
		{"no connection", koretest.Down, koretest.KeysEndpoint, true},
		{"no connection for the metadata", koretest.Down, koretest.DiscoveryEndpoint, true},
		{"a body that is cut", cut, koretest.KeysEndpoint, true},
		{"500", koretest.Status(500), koretest.KeysEndpoint, true},
		{"502 with a page", responds(502, html), koretest.KeysEndpoint, true},
		{"503 for the metadata", koretest.Status(503), koretest.DiscoveryEndpoint, true},
		{"429", koretest.Status(429), koretest.KeysEndpoint, true},
		{"429 for the metadata", koretest.Status(429), koretest.DiscoveryEndpoint, true},
		{"408", koretest.Status(408), koretest.KeysEndpoint, true},
		{"a page with 200", responds(200, html), koretest.KeysEndpoint, true},
		{"a page with 200 for the metadata", responds(200, html), koretest.DiscoveryEndpoint, true},
		{"an empty body", responds(200, ""), koretest.KeysEndpoint, true},
		{"broken JSON", responds(200, `{"keys":[`), koretest.KeysEndpoint, true},
		{"broken JSON for the metadata", responds(200, `{"issuer":`), koretest.DiscoveryEndpoint, true},

		{"an empty key set", responds(200, `{"keys":[]}`), koretest.KeysEndpoint, false},
		{"only keys for encryption", responds(200, `{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}`), koretest.KeysEndpoint, false},
		{"an object without keys", responds(200, `{}`), koretest.KeysEndpoint, false},
		{"404", koretest.Status(404), koretest.KeysEndpoint, false},
		{"410", koretest.Status(410), koretest.KeysEndpoint, false},
		{"401", koretest.Status(401), koretest.KeysEndpoint, false},
		{"403", koretest.Status(403), koretest.KeysEndpoint, false},
		{"204", koretest.Status(204), koretest.KeysEndpoint, false},
		{"404 for the metadata", koretest.Status(404), koretest.DiscoveryEndpoint, false},
		{"another issuer", responds(200, `{"issuer":"https://other.example","jwks_uri":"https://other.example/keys"}`), koretest.DiscoveryEndpoint, false},
		{"no jwks_uri", responds(200, fmt.Sprintf(`{"issuer":%q}`, issuer.URL())), koretest.DiscoveryEndpoint, false},
		{"a redirect to another host", moved, koretest.KeysEndpoint, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			issuer.Behave(nil)
			issuer.Behave(row.behave, row.at)
			log := &locked.Buffer{}
			v := newFileValidator(t, issuer, file, func(c *koreauth.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			for range 2 {
				_, err := v.Validate(t.Context(), token)
				if row.used {
					assert.NoError(t, err)
				} else {
					assert.ErrorIs(t, err, koreauth.ErrUnavailable)
				}
			}
			if row.used {
				assert.Contains(t, log.String(), "the keys could not be fetched; using the keys on disk")
			} else {
				assert.NotContains(t, log.String(), "on disk")
			}
		})
	}
}

// A token of a key that is not in the file gets 503 in an outage, also if it is the one
// that caused the fetch.
func TestRemoteKeySet_FileWithoutTheNewKey(t *testing.T) {
	issuer, file := startTestIssuer(t), keyFile(t)
	require.NoError(t, newFileValidator(t, issuer, file).Ready(t.Context()))
	written(t, file)
	old := issuer.Valid()
	issuer.Rotate()
	token := issuer.Valid()
	issuer.Behave(koretest.Down)
	v := newFileValidator(t, issuer, file)
	for n := range 6 {
		_, err := v.Validate(t.Context(), token)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable, "try %d", n)
		assert.NotErrorIs(t, err, koreauth.ErrUnknownKey, "try %d", n)
	}
	_, err := v.Validate(t.Context(), old)
	assert.NoError(t, err)

	set := &koreauth.RemoteKeySet{Issuer: issuer.URL(), File: file}
	_, err = set.Keys(t.Context(), "unknown", true)
	assert.ErrorIs(t, err, koreauth.ErrUnavailable)
}

// A file that is not used is reported once, not with each retry.
func TestRemoteKeySet_FileFaultIsReportedOnce(t *testing.T) {
	file := keyFile(t)
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		log, tries := &locked.Buffer{}, 0
		client := &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
			tries++
			return nil, errors.New("no connection")
		})}
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: client, File: file, Logger: slog.New(slog.NewTextHandler(log, nil))}
		for range 60 {
			_, err := set.Keys(t.Context(), "", true)
			require.ErrorIs(t, err, koreauth.ErrUnavailable)
			time.Sleep(time.Second)
		}
		assert.Greater(t, tries, 5)
		assert.Equal(t, 1, strings.Count(log.String(), "the keys on disk are not used"))
	})
}

// With a MaxStale under an hour, the file is young enough whenever the issuer goes down.
func TestRemoteKeySet_FileWithAShortMaxStale(t *testing.T) {
	file, document := keyFile(t), testIssuer().JWKS()
	synctest.Test(t, func(t *testing.T) {
		down := false
		client := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if down {
				return nil, errors.New("no connection")
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(document)), Request: r}, nil
		})}
		newSet := func() *koreauth.RemoteKeySet {
			return &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: client, MaxAge: 5 * time.Minute, MaxStale: 30 * time.Minute, File: file}
		}
		set := newSet()
		for range 50 {
			_, err := set.Keys(t.Context(), "", true)
			require.NoError(t, err)
			synctest.Wait()
			time.Sleep(time.Minute)
		}
		down = true
		_, err := newSet().Keys(t.Context(), "", true)
		assert.NoError(t, err, "the keys were fetched a few minutes ago")
		time.Sleep(30 * time.Minute)
		_, err = newSet().Keys(t.Context(), "", true)
		assert.ErrorIs(t, err, koreauth.ErrUnavailable)
	})
}

// A file that is removed while the process is well is written after the next fetch.
func TestRemoteKeySet_FileIsWrittenAnew(t *testing.T) {
	issuer, file := startTestIssuer(t), keyFile(t)
	v := newFileValidator(t, issuer, file)
	require.NoError(t, v.Ready(t.Context()))
	written(t, file)
	require.NoError(t, os.Remove(file))
	_, err := v.Validate(t.Context(), issuer.Forged()) // It causes a fetch, which a 304 may answer.
	require.Error(t, err)
	written(t, file)
}

// Two issuers with one file, in two validators, are a warning, and the first one keeps it.
func TestRemoteKeySet_FileOfAnotherIssuer(t *testing.T) {
	first, second, file := startTestIssuer(t), startTestIssuer(t), keyFile(t)
	require.NoError(t, newFileValidator(t, first, file).Ready(t.Context()))
	written(t, file)
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	log := &locked.Buffer{}
	v := newFileValidator(t, second, file, func(c *koreauth.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	require.NoError(t, v.Ready(t.Context()))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "the keys are not kept on disk") }, 10*time.Second, time.Millisecond)
	assert.Contains(t, log.String(), "use one file for each issuer")
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(now))
}
