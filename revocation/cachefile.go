package revocation

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/koreauth/koreauth/internal/folder"
)

// cacheMagic is the first line of a cache file. The number is the version of the
// format:
//
//	the moment at which the list was complete
//	records: tagToken, hash, at, until, seq; or tagRule, kind, lift, hash, at, issued before, until, seq
//	tagEnd, the number of records, and the CRC-32C of all before it
//
// Numbers are big-endian. at and until of a token are in nanoseconds since 1970; all
// other moments are seconds since 1970, and nanoseconds.
const cacheMagic = "koreauth revocation cache 1\n"

const (
	tagEnd byte = iota
	tagToken
	tagRule
)

const (
	tokenSize = 16 + 8 + 8 + 8
	ruleSize  = 1 + 1 + 16 + 3*instantSize + 8

	instantSize = 12
	// From the year -6749 to 10680: more than RFC 3339 has, and so little that no
	// arithmetic overflows.
	maxSeconds = 1 << 38
)

// cacheFault says why a cache file is not used.
type cacheFault struct {
	cause error
	// foreign: the file is not ours, so it is not replaced either.
	foreign bool
}

func (f *cacheFault) Error() string {
	if f.foreign {
		return fmt.Sprintf("revocation: List.CacheFile is neither read nor written, because it %v", f.cause)
	}
	return fmt.Sprintf("revocation: List.CacheFile is not read and will be replaced, because it %v", f.cause)
}

func foreign(format string, args ...any) error {
	return &cacheFault{fmt.Errorf(format, args...), true}
}

var errDamaged = &cacheFault{errors.New("is damaged"), false}

// cacheFile writes and reads a CacheFile.
type cacheFile struct {
	once sync.Once // for load

	mu         sync.Mutex // guards the fields below; held while the file is written
	begun      time.Time  // when it was last written
	generation uint64     // of the rules in it
	current    time.Time  // when the list was complete
}

// openCache opens a cache file of ours, and returns the moment in it. The error is
// fs.ErrNotExist or a cacheFault.
func openCache(path string) (*os.File, time.Time, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, time.Time{}, fs.ErrNotExist
	case err != nil:
		return nil, time.Time{}, foreign("cannot be read: %w", err)
	case !info.Mode().IsRegular():
		return nil, time.Time{}, foreign("is not a regular file: name a file for this purpose alone")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|cacheFlags, 0)
	if err != nil {
		return nil, time.Time{}, foreign("cannot be read: give this user the permission: %w", err)
	}
	at, err := checkCache(file)
	if err != nil {
		_ = file.Close()
		return nil, time.Time{}, err
	}
	return file, at, nil
}

// checkCache checks whose file it is, and reads its beginning.
func checkCache(file *os.File) (time.Time, error) {
	var start [len(cacheMagic) + instantSize]byte
	n, err := io.ReadFull(file, start[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return time.Time{}, foreign("cannot be read: %w", err)
	}
	if magic := start[:min(n, len(cacheMagic))]; !bytes.HasPrefix([]byte(cacheMagic), magic) {
		return time.Time{}, foreign("was not written by this version of this package: name another file, or remove it")
	}
	if err := checkOwner(file); err != nil {
		return time.Time{}, err
	}
	if n < len(start) {
		return time.Time{}, errDamaged
	}
	at, ok := readInstant(start[len(cacheMagic):])
	if !ok {
		return time.Time{}, errDamaged
	}
	_, err = file.Seek(0, io.SeekStart)
	return at.time(), err
}

// cacheReader reads a cache file, and computes the checksum of what it read.
type cacheReader struct {
	in  *bufio.Reader
	sum interface {
		io.Writer
		Sum32() uint32
	}
	buf [ruleSize]byte
}

// readCache calls each with the rules of a cache file. It returns the number of rules,
// and the moment at which they were complete. It does not know before the end whether
// the file is damaged.
func readCache(in io.Reader, each func(*sharedRule)) (rules uint64, current time.Time, err error) {
	r := &cacheReader{in: bufio.NewReaderSize(in, 64<<10), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	if magic, ok := r.next(len(cacheMagic)); !ok || string(magic) != cacheMagic {
		return 0, time.Time{}, errDamaged
	}
	start, ok := r.next(instantSize)
	if !ok {
		return 0, time.Time{}, errDamaged
	}
	at, ok := readInstant(start)
	for ; ok; rules++ {
		var tag []byte
		if tag, ok = r.next(1); !ok {
			break
		}
		var rule sharedRule
		switch tag[0] {
		case tagEnd:
			if !r.isWhole(rules) {
				return 0, time.Time{}, errDamaged
			}
			return rules, at.time(), nil
		case tagToken:
			ok = r.token(&rule)
		case tagRule:
			ok = r.rule(&rule)
		default:
			ok = false
		}
		if ok {
			each(&rule)
		}
	}
	return 0, time.Time{}, errDamaged
}

// next reads n bytes, at most len(buf).
func (r *cacheReader) next(n int) ([]byte, bool) {
	if _, err := io.ReadFull(r.in, r.buf[:n]); err != nil {
		return nil, false
	}
	_, _ = r.sum.Write(r.buf[:n])
	return r.buf[:n], true
}

// isWhole reads what follows tagEnd.
func (r *cacheReader) isWhole(rules uint64) bool {
	b, ok := r.next(8)
	if !ok || binary.BigEndian.Uint64(b) != rules {
		return false
	}
	sum := r.sum.Sum32()
	b, ok = r.next(4)
	if !ok || binary.BigEndian.Uint32(b) != sum {
		return false
	}
	_, err := r.in.ReadByte()
	return errors.Is(err, io.EOF)
}

func (r *cacheReader) token(rule *sharedRule) bool {
	b, ok := r.next(tokenSize)
	if !ok {
		return false
	}
	t := tokenRule{at: int64(binary.BigEndian.Uint64(b[16:])), until: int64(binary.BigEndian.Uint64(b[24:])), seq: binary.BigEndian.Uint64(b[32:])}
	rule.kind, rule.hash, rule.heldRule = kindToken, [16]byte(b), t.held()
	return t.seq > 0
}

func (r *cacheReader) rule(rule *sharedRule) bool {
	b, ok := r.next(ruleSize)
	if !ok {
		return false
	}
	at, ok1 := readInstant(b[18:])
	before, ok2 := readInstant(b[18+instantSize:])
	until, ok3 := readInstant(b[18+2*instantSize:])
	*rule = sharedRule{
		kind: kind(b[0]), lift: b[1] == 1, hash: [16]byte(b[2:]),
		heldRule: heldRule{at: at, issuedBefore: before, until: until, seq: binary.BigEndian.Uint64(b[18+3*instantSize:])},
	}
	return ok1 && ok2 && ok3 && rule.kind < kinds && b[1] <= 1 && rule.seq > 0
}

func readInstant(b []byte) (instant, bool) {
	m := instant{int64(binary.BigEndian.Uint64(b)), int32(binary.BigEndian.Uint32(b[8:]))}
	return m, m.sec < maxSeconds && m.sec > -maxSeconds && m.nsec >= 0 && m.nsec < 1e9
}

func appendInstant(b []byte, m instant) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(m.sec)), uint32(m.nsec))
}

// writeCache writes the rules, which were complete at a moment.
func writeCache(to io.Writer, current time.Time, rules *ruleSet) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	out := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	b := appendInstant([]byte(cacheMagic), instantOf(current))
	_, err := out.Write(b)
	n := uint64(0)
	rules.export(func(r *sharedRule) {
		n++
		at, ok1 := toNanoseconds(r.at.time())
		until, ok2 := toNanoseconds(r.until.time())
		if r.kind == kindToken && !r.lift && ok1 && ok2 {
			b = append(append(b[:0], tagToken), r.hash[:]...)
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(at)), uint64(until))
		} else {
			b = append(append(b[:0], tagRule, byte(r.kind), byte(count(r.lift))), r.hash[:]...)
			b = appendInstant(appendInstant(appendInstant(b, r.at), r.issuedBefore), r.until)
		}
		b = binary.BigEndian.AppendUint64(b, r.seq)
		if _, failed := out.Write(b); err == nil {
			err = failed
		}
	})
	b = binary.BigEndian.AppendUint64(append(b[:0], tagEnd), n)
	if _, failed := out.Write(b); err == nil {
		err = failed
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = to.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	}
	return err
}

// load adds the rules of the file to the set. It returns the moment at which they
// were complete, which is zero if that is unknown. A file that does not exist is no
// error.
func (*cacheFile) load(path string, rules *ruleSet) (time.Time, error) {
	removeOldTemporaries(path)
	file, _, err := openCache(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = file.Close() }()
	// First the checksum. The file is never changed, only replaced.
	n, current, err := readCache(file, func(*sharedRule) {})
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	rules.mu.Lock()
	rules.tokens.reserve(int(min(n, 1<<30)))
	rules.mu.Unlock()
	_, _, err = readCache(file, func(r *sharedRule) {
		rules.mu.Lock()
		defer rules.mu.Unlock()
		receipt := Receipt{Seq: r.seq, At: r.at.time(), Rule: Rule{Lift: r.lift, IssuedBefore: r.issuedBefore.time(), Until: r.until.time()}}
		rules.add(&receipt, key{kind: r.kind, hash: r.hash}, fromCache, now)
	})
	if current.After(now.Add(grace)) {
		current = time.Time{} // A clock is wrong, so nobody knows how old the file is.
	}
	return current, err
}

// save replaces the file, which is at least as old as the moment.
func (*cacheFile) save(path string, current time.Time, rules *ruleSet) (err error) {
	old, newest, err := openCache(path)
	if err == nil {
		_ = old.Close()
		if newest.After(current) && !newest.After(time.Now().Add(grace)) {
			return nil // Another process is further.
		}
	}
	var fault *cacheFault
	if errors.As(err, &fault) && fault.foreign {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), temporaryPattern(path)) // with mode 0600
	if err != nil {
		return fmt.Errorf("revocation: List.CacheFile cannot be written: %w", err)
	}
	defer func() {
		if err != nil {
			_ = temporary.Close()
			_ = os.Remove(temporary.Name())
			err = fmt.Errorf("revocation: List.CacheFile cannot be written: %w", err)
		}
	}()
	if err := writeCache(temporary, current, rules); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	_ = folder.Sync(filepath.Dir(path)) // If it fails, the older file may come back after a crash.
	return nil
}

func temporaryPattern(path string) string { return "." + filepath.Base(path) + ".koreauth-*" }

// removeOldTemporaries removes what processes that were killed have left.
func removeOldTemporaries(path string) {
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), temporaryPattern(path)))
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(name)
		}
	}
}
