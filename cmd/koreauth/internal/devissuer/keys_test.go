package devissuer_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
)

// keysFile writes a file with the key that all tests share.
func keysFile(t *testing.T) string {
	t.Helper()
	return writeKeys(t, block(t, "PRIVATE KEY", signingKey().Private))
}

func writeKeys(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.pem")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// block returns a private key in PEM.
func block(t *testing.T, kind string, private any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestRun_KeepsItsKeysInAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.pem")
	first := start(t, "127.0.0.1:0", file)
	assert.Contains(t, first.printed, "Keys       created "+file+"\n")
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	token := first.token(t)
	require.NoError(t, first.stop())

	second := start(t, strings.TrimSuffix(strings.TrimPrefix(first.value("Page"), "http://"), "/"), file)
	assert.Contains(t, second.printed, "Keys       from "+file+"\n")
	assert.Equal(t, first.value("Secret"), second.value("Secret"))
	_, err = second.validator(t).Validate(t.Context(), token)
	assert.NoError(t, err, "a token is valid after a restart")
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no other file is left")
}

func TestRun_MakesNewKeysWithoutAFile(t *testing.T) {
	t.Parallel()
	first, second := start(t, "127.0.0.1:0", ""), start(t, "127.0.0.1:0", "")
	assert.Contains(t, first.printed, "Keys       new ones at each start; to keep them, use --keys-file\n")
	assert.NotEqual(t, first.value("Secret"), second.value("Secret"))
}

func TestRun_CreatesOneFileForSeveral(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.pem")
	var mu sync.Mutex // guards secrets and created
	secrets := map[string]int{}
	created := 0
	t.Run("at once", func(t *testing.T) {
		for range 3 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r := start(t, "127.0.0.1:0", file)
				mu.Lock()
				defer mu.Unlock()
				secrets[r.value("Secret")]++
				created += strings.Count(r.printed, "created")
			})
		}
	})
	assert.Len(t, secrets, 1, "all have the same key")
	assert.Equal(t, 1, created)
}

func TestRun_ReadsKeysOfEachKind(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var text strings.Builder
	text.WriteString("a comment\n")
	var kinds []any
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		kinds = append(kinds, key)
	}
	for _, key := range append(kinds, ed, signingKey().Private) {
		r := start(t, "127.0.0.1:0", writeKeys(t, block(t, "PRIVATE KEY", key)))
		assert.NotEmpty(t, r.token(t))
		text.WriteString(block(t, "PRIVATE KEY", key))
	}
	r := start(t, "127.0.0.1:0", writeKeys(t, block(t, "PRIVATE KEY", signingKey().Private)+text.String()))
	_, err = r.validator(t).Validate(t.Context(), r.token(t))
	assert.NoError(t, err, "the first key signs")
}

func TestRun_RejectsOddKeysFiles(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	whole := block(t, "PRIVATE KEY", signingKey().Private)
	const kinds = "block 1: the key must be RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519"
	for name, row := range map[string]struct{ text, want string }{
		"empty":            {"", "it has no PRIVATE KEY in PEM: delete it, and a new one is created"},
		"text":             {"secret words", "it has no PRIVATE KEY in PEM: delete it, and a new one is created"},
		"JSON":             {`{"keys":[]}`, "it has no PRIVATE KEY in PEM: delete it, and a new one is created"},
		"another block":    {block(t, "RSA PRIVATE KEY", signingKey().Private), "block 1 is not a PRIVATE KEY: convert it with openssl pkcs8 -topk8 -nocrypt"},
		"a second block":   {block(t, "PRIVATE KEY", signingKey().Private) + block(t, "CERTIFICATE", signingKey().Private), "block 2 is not a PRIVATE KEY"},
		"garbage":          {string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret words")})), "block 1: the key cannot be read: delete the file, and a new one is created"},
		"a cut block":      {whole + whole[:len(whole)/2], "block 2 is damaged: delete the file, and a new one is created"},
		"a weak key":       {block(t, "PRIVATE KEY", weak), kinds},
		"another curve":    {block(t, "PRIVATE KEY", small), kinds},
		"a key to agree":   {block(t, "PRIVATE KEY", agreement), kinds},
		"too many letters": {strings.Repeat("x", 256<<10+1), "it has more than 262144 bytes: give another path"},
	} {
		file := writeKeys(t, row.text)
		err := devissuer.Run(t.Context(), "127.0.0.1:0", file, io.Discard)
		assert.ErrorContains(t, err, "devissuer: keys file "+file+": "+row.want, name)
		assert.NotContains(t, err.Error(), "secret words")
		kept, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, row.text, string(kept), "%s: the file is not changed", name)
	}
	for path, want := range map[string]string{
		t.TempDir(): "it is not a regular file: give another path",
		filepath.Join(t.TempDir(), "none", "keys.pem"): "it cannot be created: use another folder: ",
	} {
		assert.ErrorContains(t, devissuer.Run(t.Context(), "127.0.0.1:0", path, io.Discard), "devissuer: keys file "+path+": "+want)
	}
}
