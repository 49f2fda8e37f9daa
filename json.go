package koreauth

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Faults of a JSON text. They never quote it.
var (
	errJSONSyntax    = errors.New("not valid JSON")
	errJSONUTF8      = errors.New("JSON is not valid UTF-8")
	errJSONDuplicate = errors.New("JSON object has a duplicate member")
	errJSONTrailing  = errors.New("something follows the JSON object")
	errJSONObject    = errors.New("not a JSON object")
	errJSONDepth     = errors.New("JSON is nested too deeply")
)

const (
	maxJSONDepth = 10_000 // as encoding/json
	manyMembers  = 32     // an object with more keeps its names in a map
)

// jsonReader reads one JSON text, once, as strictly as a token needs it: valid
// UTF-8 (RFC 7519 §7.2), no duplicate member at any depth (RFC 7519 §4), names
// as they are spelled. encoding/json would take the last of two members, fold
// case and mend bad UTF-8. What this accepts, encoding/json accepts too.
//
// After a fault every method returns zero values, so that callers look at err
// once, at the end.
type jsonReader struct {
	text  string
	pos   int
	err   error
	name  string      // of the member that more stopped at
	open  []jsonFrame // the containers around pos
	names []string    // of the members read so far, of all open objects
}

type jsonFrame struct {
	array  bool
	first  bool
	base   int                 // where its names begin
	filter uint64              // a bit for each name, so that most need no search
	many   map[string]struct{} // the names, once they are many
}

// readers are kept for their room for frames and names.
var readers = sync.Pool{New: func() any {
	return &jsonReader{open: make([]jsonFrame, 0, 8), names: make([]string, 0, 32)}
}}

// readObject begins to read text, which must be one object. Call end when done.
func readObject(text string) *jsonReader {
	r := readers.Get().(*jsonReader)
	r.text = text
	switch {
	case !utf8.ValidString(text):
		r.fail(errJSONUTF8)
	case r.peek() != '{':
		r.fail(errJSONObject)
	default:
		r.enter()
	}
	return r
}

// end reports the first fault, or whether something follows the text. The reader
// must not be used any more.
func (r *jsonReader) end() error {
	if r.peek(); r.pos < len(r.text) {
		r.fail(errJSONTrailing)
	}
	err := r.err
	if cap(r.open) <= 64 && cap(r.names) <= 1024 { // not grown by an oddity
		clear(r.open[:cap(r.open)])
		clear(r.names[:cap(r.names)])
		*r = jsonReader{open: r.open[:0], names: r.names[:0]}
		readers.Put(r)
	}
	return err
}

func (r *jsonReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.text)
	r.open = r.open[:0]
}

// peek passes over white space and returns the next byte, zero at the end.
func (r *jsonReader) peek() byte {
	for ; r.pos < len(r.text); r.pos++ {
		switch c := r.text[r.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// enter begins the object or array at pos.
func (r *jsonReader) enter() {
	if len(r.open) == maxJSONDepth {
		r.fail(errJSONDepth)
		return
	}
	r.open = append(r.open, jsonFrame{array: r.text[r.pos] == '[', first: true, base: len(r.names)})
	r.pos++
}

// more goes to the next value of the innermost container; in an object, name
// is then its member's name. At the end it leaves the container and reports
// false.
func (r *jsonReader) more() bool {
	if len(r.open) == 0 {
		return false
	}
	frame := &r.open[len(r.open)-1]
	c := r.peek()
	if frame.array && c == ']' || !frame.array && c == '}' {
		r.pos++
		r.names = r.names[:frame.base]
		r.open = r.open[:len(r.open)-1]
		return false
	}
	if !frame.first {
		if c != ',' {
			r.fail(errJSONSyntax)
			return false
		}
		r.pos++
		c = r.peek()
	}
	frame.first = false
	if frame.array {
		return true
	}
	if c != '"' {
		r.fail(errJSONSyntax)
		return false
	}
	name := r.readString()
	if r.err == nil && r.peek() != ':' {
		r.fail(errJSONSyntax)
	}
	if r.err != nil {
		return false
	}
	r.pos++
	if !r.note(frame, name) {
		r.fail(errJSONDuplicate)
		return false
	}
	r.name = name
	return true
}

// note adds a name to those of the frame; false if it is there already.
func (r *jsonReader) note(frame *jsonFrame, name string) bool {
	bit := uint64(1) << (len(name) & 63)
	if len(name) > 0 {
		bit = 1 << ((uint(len(name))*7 ^ uint(name[0]) ^ uint(name[len(name)-1])*5 ^ uint(name[len(name)/2])*3) & 63)
	}
	seen := frame.filter&bit != 0
	frame.filter |= bit
	if frame.many != nil {
		if _, ok := frame.many[name]; ok {
			return false
		}
		frame.many[name] = struct{}{}
		return true
	}
	own := r.names[frame.base:]
	if seen && slices.Contains(own, name) {
		return false
	}
	r.names = append(r.names, name)
	if len(own) == manyMembers {
		frame.many = make(map[string]struct{}, 4*manyMembers)
		for _, n := range r.names[frame.base:] {
			frame.many[n] = struct{}{}
		}
	}
	return true
}

// skip passes over the next value, whatever it is.
func (r *jsonReader) skip() {
	outer := len(r.open)
	for {
		switch c := r.peek(); {
		case c == '{' || c == '[':
			r.enter()
		case c == '"':
			r.readString()
		case c == '-' || '0' <= c && c <= '9':
			r.number()
		default:
			r.literal(c)
		}
		for r.err == nil && len(r.open) > outer && !r.more() {
		}
		if len(r.open) <= outer {
			return
		}
	}
}

// str reads a string; any other value is passed over, with false.
func (r *jsonReader) str() (string, bool) {
	if r.peek() != '"' {
		r.skip()
		return "", false
	}
	s := r.readString()
	return s, r.err == nil
}

// strs reads an array of strings; any other value, also an array that holds
// something else, is passed over, with nil.
func strs[S ~string](r *jsonReader) []S {
	if r.peek() != '[' {
		r.skip()
		return nil
	}
	all, ok := []S(nil), true
	for r.enter(); r.more(); {
		if all == nil {
			all = make([]S, 0, 4)
		}
		s, is := r.str()
		ok = ok && is
		all = append(all, S(s))
	}
	if !ok || r.err != nil {
		return nil
	}
	return all
}

// num reads a number as it is written; any other value is passed over, with "".
func (r *jsonReader) num() string {
	if c := r.peek(); c != '-' && (c < '0' || c > '9') {
		r.skip()
		return ""
	}
	return r.number()
}

// number reads a number (RFC 8259 §6).
func (r *jsonReader) number() string {
	start := r.pos
	if r.at('-') {
		r.pos++
	}
	if r.at('0') {
		r.pos++
	} else {
		r.digits()
	}
	if r.at('.') {
		r.pos++
		r.digits()
	}
	if r.at('e') || r.at('E') {
		r.pos++
		if r.at('+') || r.at('-') {
			r.pos++
		}
		r.digits()
	}
	if r.err != nil {
		return ""
	}
	return r.text[start:r.pos]
}

func (r *jsonReader) at(c byte) bool { return r.pos < len(r.text) && r.text[r.pos] == c }

// digits passes over one digit or more.
func (r *jsonReader) digits() {
	start := r.pos
	for r.pos < len(r.text) && '0' <= r.text[r.pos] && r.text[r.pos] <= '9' {
		r.pos++
	}
	if r.pos == start {
		r.fail(errJSONSyntax)
	}
}

func (r *jsonReader) literal(c byte) {
	word := "null"
	switch c {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	if !strings.HasPrefix(r.text[r.pos:], word) {
		r.fail(errJSONSyntax)
		return
	}
	r.pos += len(word)
}

// readString reads the string at pos, without a copy if nothing in it is
// escaped.
func (r *jsonReader) readString() string {
	r.pos++
	start := r.pos
	for ; r.pos < len(r.text); r.pos++ {
		switch c := r.text[r.pos]; {
		case c == '"':
			s := r.text[start:r.pos]
			r.pos++
			return s
		case c == '\\':
			return r.unescape(start)
		case c < ' ':
			r.fail(errJSONSyntax)
			return ""
		}
	}
	r.fail(errJSONSyntax)
	return ""
}

// unescape reads on from the first backslash of a string that began at start.
func (r *jsonReader) unescape(start int) string {
	out := append(make([]byte, 0, 64), r.text[start:r.pos]...)
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		r.pos++
		switch {
		case c == '"':
			return string(out)
		case c < ' ':
			r.fail(errJSONSyntax)
			return ""
		case c != '\\':
			out = append(out, c)
		case r.at('u'):
			out = utf8.AppendRune(out, r.escapedRune())
		case r.pos < len(r.text):
			i := strings.IndexByte(`"\/bfnrt`, r.text[r.pos])
			if i < 0 {
				r.fail(errJSONSyntax)
				return ""
			}
			out = append(out, "\"\\/\b\f\n\r\t"[i])
			r.pos++
		}
	}
	r.fail(errJSONSyntax)
	return ""
}

// escapedRune reads uXXXX, and a second one after the first half of a pair. Half
// a pair alone is no character, and would not be valid UTF-8 (RFC 7493 §2.1).
func (r *jsonReader) escapedRune() rune {
	first := r.hex4()
	if !utf16.IsSurrogate(first) {
		return first
	}
	if !strings.HasPrefix(r.text[r.pos:], `\u`) {
		r.fail(errJSONUTF8)
		return utf8.RuneError
	}
	r.pos++
	pair := utf16.DecodeRune(first, r.hex4())
	if pair == utf8.RuneError {
		r.fail(errJSONUTF8)
	}
	return pair
}

// hex4 reads the "u" at pos and four hexadecimal digits.
func (r *jsonReader) hex4() rune {
	if r.pos+5 > len(r.text) {
		r.fail(errJSONSyntax)
		return 0
	}
	var value rune
	for _, c := range []byte(r.text[r.pos+1 : r.pos+5]) {
		switch {
		case '0' <= c && c <= '9':
			value = value<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			value = value<<4 | rune(c|0x20-'a'+10)
		default:
			r.fail(errJSONSyntax)
			return 0
		}
	}
	r.pos += 5
	return value
}
