package revocation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"time"
)

// position is a place in a file, after a line that was read.
type position struct {
	epoch  string    // of the file; empty if it has none yet
	offset int64     // where the next line begins
	number int       // of the last line
	length int       // of the last line, or 0 if that is the first line of the file
	sum    uint32    // of the last line
	seq    uint64    // of the last line
	latest time.Time // the latest At
	sums   []uint32  // of all lines
	prefix uint32    // checksum of all bytes
}

// damage is the error of a line that is damaged and not the last.
type damage struct{ number int }

func (d *damage) Error() string {
	return fmt.Sprintf("line %d is damaged: put back a copy of the file, or delete that line; lists that run still know its rule, and append it again", d.number)
}

// errOther is returned by the function given to read if the file is another than the
// one that was read before.
var errOther = errors.New("the file is another one")

// maxFileSeq leaves room for rules that are appended.
const maxFileSeq = math.MaxUint64 / 2

// tail is what follows the last undamaged line of a file.
type tail struct {
	length int64
	whole  bool // it may be a line that was stored and is damaged
}

// read reads the lines from p to the end of the file, which has that size, and calls
// each with them. It moves p past each line for which each returned nil.
func (p *position) read(ctx context.Context, f io.ReaderAt, size int64, each func(*line) error) (tail, error) {
	if p.offset == 0 {
		start, err := readStart(f, size)
		if err != nil {
			return tail{}, err
		}
		epoch, err := readHeader(start)
		if err != nil || epoch == "" {
			return tail{length: int64(len(start))}, err
		}
		p.begin(epoch)
	}
	chunk := make([]byte, 0, min(256<<10, max(size-p.offset, 0)))
	for at := p.offset; at < size; {
		if len(chunk) == cap(chunk) {
			chunk = append(make([]byte, 0, 2*cap(chunk)), chunk...)
		}
		n, err := f.ReadAt(chunk[len(chunk):min(int64(cap(chunk)), int64(len(chunk))+size-at)], at)
		if err != nil && err != io.EOF {
			return tail{}, err
		}
		if n == 0 {
			break // It became shorter.
		}
		at += int64(n)
		chunk = chunk[:len(chunk)+n]
		used, err := p.lines(ctx, chunk, at == size, each)
		if err != nil {
			return tail{}, err
		}
		chunk = chunk[:copy(chunk, chunk[used:])]
		if len(chunk) > maxLine {
			return tail{}, &damage{p.number + 1}
		}
	}
	last := line{number: p.number + 1, whole: chunk}
	whole, err := last.checkTail()
	return tail{int64(len(chunk)), whole}, err
}

// readStart returns the first line of a file, or as much as there is of it.
func readStart(f io.ReaderAt, size int64) ([]byte, error) {
	start := make([]byte, min(size, int64(headerLength)))
	n, err := f.ReadAt(start, 0)
	if err == io.EOF {
		err = nil // It became shorter.
	}
	return start[:n], err
}

// begin moves p past the first line of a file.
func (p *position) begin(epoch string) {
	header := formatHeader(epoch)
	*p = position{epoch: epoch, offset: int64(len(header)), number: 1, latest: p.latest}
	p.prefix = crc32.Checksum(header, castagnoli)
}

// lines reads the complete lines of a chunk, and returns how many bytes they have. At
// the end of the file it leaves the last line if that is damaged.
func (p *position) lines(ctx context.Context, chunk []byte, end bool, each func(*line) error) (used int, err error) {
	for {
		length := bytes.IndexByte(chunk[used:], '\n') + 1
		if length == 0 {
			return used, nil
		}
		l := line{number: p.number + 1, offset: p.offset, whole: chunk[used : used+length]}
		undamaged := l.parse()
		if !undamaged && end && used+length == len(chunk) {
			return used, nil // read checks it.
		}
		if !undamaged || l.seq <= p.seq || l.seq > maxFileSeq {
			return used, &damage{l.number}
		}
		if err := ctx.Err(); err != nil {
			return used, err
		}
		if err := each(&l); err != nil {
			return used, err
		}
		p.pass(&l)
		used += length
	}
}

// pass moves p past a line.
func (p *position) pass(l *line) {
	p.offset, p.number, p.length = l.offset+int64(len(l.whole)), l.number, len(l.whole)
	p.sum, p.seq = l.sum, l.seq
	p.sums, p.prefix = append(p.sums, l.sum), crc32.Update(p.prefix, castagnoli, l.whole)
	if l.at.After(p.latest) {
		p.latest = l.at
	}
}

// holds reports whether the file still has the first line, and at p the last line, that
// were read.
func (p *position) holds(f io.ReaderAt, size int64) (bool, error) {
	if p.offset == 0 || size < p.offset {
		return false, nil
	}
	start, last := make([]byte, headerLength), make([]byte, p.length)
	for _, at := range []struct {
		bytes  []byte
		offset int64
	}{{start, 0}, {last, p.offset - int64(p.length)}} {
		if _, err := f.ReadAt(at.bytes, at.offset); err == io.EOF {
			return false, nil // It became shorter.
		} else if err != nil {
			return false, err
		}
	}
	epoch, err := readHeader(start)
	if err != nil {
		return false, err
	}
	l := line{whole: last}
	return epoch == p.epoch && (p.length == 0 || l.parse() && l.sum == p.sum && l.seq == p.seq), nil
}

// unchanged reports whether the file still has all that was read up to p.
func (p *position) unchanged(ctx context.Context, f io.ReaderAt) (bool, error) {
	var sum uint32
	chunk := make([]byte, min(256<<10, p.offset))
	for at := int64(0); at < p.offset; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := f.ReadAt(chunk[:min(int64(len(chunk)), p.offset-at)], at)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			return false, nil // It became shorter.
		}
		sum = crc32.Update(sum, castagnoli, chunk[:n])
		at += int64(n)
	}
	return sum == p.prefix, nil
}

// past checks that a file continues what was read of it before, up to some positions.
// Compaction may have dropped some of the lines, but never the last.
type past struct {
	positions []position
	next      []int // how many of the sums of each position were passed
}

// add adds a position that was read up to before.
func (h *past) add(p position) {
	if p.seq > 0 {
		h.positions, h.next = append(h.positions, p), append(h.next, 0)
	}
}

// again begins to check a file from its start.
func (h *past) again() { clear(h.next) }

// line returns errOther if a line is not one of those that were read before.
func (h *past) line(epoch string, l *line) error {
	for i, p := range h.positions {
		if l.seq > p.seq {
			continue
		}
		found := slices.Index(p.sums[h.next[i]:], l.sum)
		if epoch != p.epoch || found < 0 {
			return errOther
		}
		h.next[i] += found + 1
	}
	return nil
}

// end returns errOther if a file that was read to its end ends before what was read
// before.
func (h *past) end(now position) error {
	for _, p := range h.positions {
		if now.epoch != p.epoch || now.seq < p.seq {
			return errOther
		}
	}
	return nil
}
