package revocation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
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
		start := make([]byte, min(size, int64(headerLength)))
		n, err := f.ReadAt(start, 0) // It may have become shorter.
		if err != nil && err != io.EOF {
			return tail{}, err
		}
		epoch, err := readHeader(start[:n])
		if err != nil || epoch == "" {
			return tail{length: size}, err
		}
		p.epoch, p.offset, p.number = epoch, int64(headerLength), 1
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
	if l.at.After(p.latest) {
		p.latest = l.at
	}
}

// holds reports whether the file still has at p what was read there.
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

// past checks that a file continues what was read of it before, up to that position.
// Compaction may have dropped some of the lines, but never the last.
type past struct{ positions []position }

// line returns errOther if a line contradicts what was read before.
func (h *past) line(epoch string, l *line) error {
	for _, p := range h.positions {
		if p.seq == 0 || l.seq > p.seq {
			continue
		}
		// A line that was appended since has a later At. One with the same Seq may
		// have replaced a line that the position has passed.
		if epoch != p.epoch || l.at.After(p.latest) || l.seq == p.seq && l.sum != p.sum {
			return errOther
		}
	}
	return nil
}

// end returns errOther if a file that was read to its end lacks what was read before.
func (h *past) end(now position) error {
	for _, p := range h.positions {
		if p.seq > 0 && (now.epoch != p.epoch || now.seq < p.seq) {
			return errOther
		}
	}
	return nil
}
