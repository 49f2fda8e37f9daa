package devissuer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/koreauth/koreauth/koretest"
)

const (
	maxKeysFile = 256 << 10
	keyBlock    = "PRIVATE KEY" // PKCS #8 (RFC 7468 §10)
)

// loadKeys returns the keys of a file. If the file does not exist, it is created with
// a new RS256 key. If path is empty, the key is new and is not stored.
func loadKeys(path string) (keys []*koretest.Key, created bool, err error) {
	if path == "" {
		key, err := newKey()
		return []*koretest.Key{key}, false, err
	}
	keys, err = readKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createKeys(path); err == nil || errors.Is(err, fs.ErrExist) { // Another process may have been faster.
			created = err == nil
			keys, err = readKeys(path)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("devissuer: keys file %s: %w", path, err)
	}
	return keys, created, nil
}

// newKey makes an RS256 key. Its ID depends on the public key alone, as in Keycloak.
func newKey() (*koretest.Key, error) {
	key, err := koretest.NewKey("RS256")
	if err != nil {
		return nil, fmt.Errorf("devissuer: %w", err)
	}
	return key, setID(key)
}

func setID(key *koretest.Key) error {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	digest := sha256.Sum256(public)
	key.ID = base64.RawURLEncoding.EncodeToString(digest[:])
	return err
}

// createKeys creates a file with a new key. The file appears with its whole content,
// and an existing one is kept: then the error is fs.ErrExist.
func createKeys(path string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key.Private)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // with mode 0600
	if err != nil {
		return fmt.Errorf("it cannot be created: use another folder: %w", err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	err = pem.Encode(temporary, &pem.Block{Type: keyBlock, Bytes: private})
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return fmt.Errorf("it cannot be written: %w", err)
	}
	if err := os.Link(temporary.Name(), path); err != nil { // A rename would replace the file of another process.
		return fmt.Errorf("it cannot be created: use another folder: %w", err)
	}
	return nil
}

// readKeys returns the keys of a file that only this user can read.
func readKeys(path string) ([]*koretest.Key, error) {
	file, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxKeysFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeysFile {
		return nil, fmt.Errorf("it has more than %d bytes: give another path", maxKeysFile)
	}
	return parseKeys(text)
}

// openOwn opens a regular file that only this user can read and write. It does not
// follow a symbolic link, which somebody else may have put there.
func openOwn(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := checkOwn(info); err != nil {
		return nil, err // A FIFO or a device is not even opened.
	}
	file, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil {
		err = checkOwn(info)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func checkOwn(info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link: give the path of the file itself")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file: give another path")
	}
	return checkAccess(info)
}

// parseKeys reads the keys of a file in PEM. It never tells what the file has.
func parseKeys(text []byte) (keys []*koretest.Key, err error) {
	for n := 1; ; n++ {
		block, rest := pem.Decode(text)
		if block == nil && bytes.Contains(text, []byte("-----BEGIN ")) {
			return nil, fmt.Errorf("block %d is damaged: delete the file, and a new one is created", n)
		}
		if block == nil {
			break
		}
		if block.Type != keyBlock {
			return nil, fmt.Errorf("block %d is not a %s: convert it with openssl pkcs8 -topk8 -nocrypt", n, keyBlock)
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", n, err)
		}
		keys, text = append(keys, key), rest
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it has no %s in PEM: delete it, and a new one is created", keyBlock)
	}
	return keys, nil
}

func parseKey(der []byte) (*koretest.Key, error) {
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the key cannot be read: delete the file, and a new one is created")
	}
	algorithm, err := algorithmOf(private)
	if err != nil {
		return nil, err
	}
	key := &koretest.Key{Algorithm: algorithm, Private: private}
	return key, setID(key)
}

// algorithmOf returns the algorithm that a key signs with.
func algorithmOf(private crypto.PrivateKey) (string, error) {
	switch key := private.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() >= 2048 { // RFC 7518 §3.3
			return "RS256", nil
		}
	case *ecdsa.PrivateKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ES256", nil
		case 384:
			return "ES384", nil
		case 521:
			return "ES512", nil
		}
	case ed25519.PrivateKey:
		return "EdDSA", nil
	}
	return "", errors.New("the key must be RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519")
}
