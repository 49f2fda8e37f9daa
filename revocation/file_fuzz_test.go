package revocation_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth/revocation"
)

// FuzzFile has any bytes as a file. Whatever they are, Follow and Append agree on
// whether it can be used. If it cannot, it is left as it is. If it can, no rule in it is
// lost, and what is appended can be read.
func FuzzFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "revoked.log")
	store := revocation.File(path)
	for _, rule := range []revocation.Rule{
		fileRule("a"), {Issuer: fileIssuer, Client: "c", Reason: "a \"reason\"\n"}, {Issuer: fileIssuer, Everything: true},
		{Issuer: fileIssuer, Client: "c", Lift: true}, fileRule("a").Hashed(),
	} {
		_, err := store.Append(f.Context(), rule)
		require.NoError(f, err)
	}
	good, err := os.ReadFile(path)
	require.NoError(f, err)
	lines := bytes.SplitAfter(good, []byte("\n"))
	signed := func(text string) []byte {
		return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)), text)
	}
	for _, seed := range [][]byte{
		nil, good, good[:40], good[:len(good)-1], good[:len(good)-30], good[:200],
		bytes.Join([][]byte{lines[0], lines[2], lines[1]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], lines[1]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], lines[3]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], lines[0], lines[2]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], []byte("\n"), lines[2]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], make([]byte, 100), lines[2]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], bytes.TrimSpace(lines[2]), lines[3]}, nil),
		bytes.Join([][]byte{lines[0], lines[1], bytes.TrimSpace(lines[2]), []byte("x")}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"seq":18446744073709551615,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"t"}}`)}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"seq":1,"at":"9999-12-31T23:59:59.999999999Z","rule":{"issuer":"i","token":"t"}}`)}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"rule":{"issuer":"i","token":"t"},"at":"2026-01-01T00:00:00+01:00","seq":7}`)}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"seq":1,"at":"2026-01-01T00:00:00Z","rule":{}}`), lines[2]}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"seq":1,"at":"2026-01-01T00:00:00Z","rule":{"issuer":"i","token":"t"},"new":1}`), lines[2]}, nil),
		bytes.Join([][]byte{lines[0], signed(`{"seq":1,"at":"2026-01-01T00:00:00Z","rule":{"new":1}}`), lines[2]}, nil),
		[]byte("hello\n"), []byte("koreauth revocations 2 \n"), bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
	} {
		f.Add(seed)
	}
	folder := fastFolder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) { tryFile(t, folder, data) })
	})
}

func tryFile(t *testing.T, folder string, data []byte) {
	own, err := os.MkdirTemp(folder, "file")
	require.NoError(t, err)
	defer os.RemoveAll(own)
	path := filepath.Join(own, "revoked.log")
	writeFile(t, path, data)
	before, err := load(revocation.File(path), 0)
	if err != nil {
		assert.True(t, strings.HasPrefix(err.Error(), "revocation: file "+path+": "), err)
		assert.Equal(t, data, readFile(t, path))
	}
	store := revocation.File(path)
	added, appendErr := store.Append(t.Context(), revocation.Rule{Issuer: fileIssuer, Token: "added", Until: time.Now().AddDate(9, 0, 0)})
	if err != nil && strings.Contains(err.Error(), "a newer version") {
		return // Append may add to what it does not understand.
	}
	if err != nil {
		require.Error(t, appendErr)
		assert.Equal(t, data, readFile(t, path))
		assert.Error(t, store.(revocation.Fleet).Refill(t.Context(), before))
		assert.Equal(t, data, readFile(t, path))
		return
	}
	if appendErr != nil {
		assert.ErrorContains(t, appendErr, "after the year 9999", "the latest At is the last that there is")
		return
	}
	want := append(before, added)
	assert.Equal(t, want, mustLoad(t, store))
	assert.Equal(t, want, mustLoad(t, revocation.File(path)))
	require.NoError(t, store.(revocation.Fleet).Refill(t.Context(), []revocation.Receipt{added}))
	assert.Equal(t, want, mustLoad(t, revocation.File(path)))
}
