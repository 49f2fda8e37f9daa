// Package strictjson reads JSON objects strictly, without reflection and mostly
// without copies. It is for tokens: where encoding/json is lenient, two parsers
// could read the same signed text differently.
package strictjson

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// The errors of End. They never quote the text.
var (
	errSyntax    = errors.New("not valid JSON")
	errUTF8      = errors.New("JSON is not valid UTF-8")
	errDuplicate = errors.New("JSON object has a duplicate member")
	errTrailing  = errors.New("data after the JSON object")
	errNotObject = errors.New("not a JSON object")
	errDepth     = errors.New("JSON is nested too deeply")
)

const (
	maxDepth    = 64 // more than any token needs
	manyMembers = 32 // an object with more members keeps their names in a map
)

// Reader reads one JSON object in a single pass. It rejects invalid UTF-8 (RFC
// 7519 §7.2) and duplicate members at any depth (RFC 7519 §4), and it compares
// member names exactly. encoding/json would use the last of two members, ignore
// case and replace invalid UTF-8. Everything that Reader accepts is accepted by
// encoding/json too.
//
// After the first error, every method returns a zero value, so that callers
// check for an error once, with End.
type Reader struct {
	text  string
	pos   int
	err   error
	name  string      // the name of the current member
	open  []container // the containers that pos is in, outermost first
	names []string    // the member names read so far in all open objects
}

// container is an object or array that has not ended yet.
type container struct {
	array  bool
	first  bool                // no value has been read yet
	base   int                 // where its names begin in Reader.names
	filter uint64              // one bit per name; a clear bit saves the search
	many   map[string]struct{} // the names, if there are more than manyMembers
}

// readers reuses the slices for containers and names.
var readers = sync.Pool{New: func() any {
	return &Reader{open: make([]container, 0, 8), names: make([]string, 0, 32)}
}}

// ReadObject starts reading text, which must be one JSON object, and enters the
// object. The caller must call End exactly once.
func ReadObject(text string) *Reader {
	r := readers.Get().(*Reader)
	r.text = text
	switch {
	case !utf8.ValidString(text):
		r.fail(errUTF8)
	case r.Peek() != '{':
		r.fail(errNotObject)
	default:
		r.Enter()
	}
	return r
}

// End returns the first error, or an error if data follows the object. The
// Reader must not be used afterwards.
func (r *Reader) End() error {
	if r.Peek(); r.pos < len(r.text) {
		r.fail(errTrailing)
	}
	err := r.err
	if cap(r.open) <= 64 && cap(r.names) <= 1024 { // do not keep unusually large slices
		clear(r.open[:cap(r.open)])
		clear(r.names[:cap(r.names)])
		*r = Reader{open: r.open[:0], names: r.names[:0]}
		readers.Put(r)
	}
	return err
}

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.text)
	r.open = r.open[:0]
}

// Peek skips white space and returns the next byte, or zero at the end.
func (r *Reader) Peek() byte {
	for ; r.pos < len(r.text); r.pos++ {
		switch c := r.text[r.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// Enter enters the object or array at the current position.
func (r *Reader) Enter() {
	if len(r.open) == maxDepth {
		r.fail(errDepth)
		return
	}
	r.open = append(r.open, container{array: r.text[r.pos] == '[', first: true, base: len(r.names)})
	r.pos++
}

// More moves to the next value of the innermost container and reports whether
// there is one. In an object, Name then returns the member's name. At the end of
// the container, More leaves it.
func (r *Reader) More() bool {
	if len(r.open) == 0 {
		return false
	}
	in := &r.open[len(r.open)-1]
	c := r.Peek()
	if in.array && c == ']' || !in.array && c == '}' {
		r.pos++
		r.names = r.names[:in.base]
		r.open = r.open[:len(r.open)-1]
		return false
	}
	if !in.first {
		if c != ',' {
			r.fail(errSyntax)
			return false
		}
		r.pos++
		c = r.Peek()
	}
	in.first = false
	if in.array {
		return true
	}
	if c != '"' {
		r.fail(errSyntax)
		return false
	}
	name := r.readString()
	if r.err == nil && r.Peek() != ':' {
		r.fail(errSyntax)
	}
	if r.err != nil {
		return false
	}
	r.pos++
	if !r.addName(in, name) {
		r.fail(errDuplicate)
		return false
	}
	r.name = name
	return true
}

// Name returns the name of the member that More has moved to.
func (r *Reader) Name() string { return r.name }

// addName adds a name to those of the container. It returns false if the name is
// already there.
func (r *Reader) addName(in *container, name string) bool {
	bit := uint64(1) << (len(name) & 63)
	if len(name) > 0 {
		bit = 1 << ((uint(len(name))*7 ^ uint(name[0]) ^ uint(name[len(name)-1])*5 ^ uint(name[len(name)/2])*3) & 63)
	}
	mayExist := in.filter&bit != 0
	in.filter |= bit
	if in.many != nil {
		if _, ok := in.many[name]; ok {
			return false
		}
		in.many[name] = struct{}{}
		return true
	}
	own := r.names[in.base:]
	if mayExist && slices.Contains(own, name) {
		return false
	}
	r.names = append(r.names, name)
	if len(own) == manyMembers {
		in.many = make(map[string]struct{}, 4*manyMembers)
		for _, n := range r.names[in.base:] {
			in.many[n] = struct{}{}
		}
	}
	return true
}

// Skip skips the next value of any type.
func (r *Reader) Skip() {
	outer := len(r.open)
	for {
		switch c := r.Peek(); {
		case c == '{' || c == '[':
			r.Enter()
		case c == '"':
			r.readString()
		case c == '-' || '0' <= c && c <= '9':
			r.number()
		default:
			r.literal(c)
		}
		for r.err == nil && len(r.open) > outer && !r.More() {
		}
		if len(r.open) <= outer {
			return
		}
	}
}

// Raw returns the text of the next value of any type.
func (r *Reader) Raw() string {
	r.Peek()
	start := r.pos
	if r.Skip(); r.err != nil {
		return ""
	}
	return r.text[start:r.pos]
}

// String reads a string. It skips any other value and returns false.
func (r *Reader) String() (string, bool) {
	if r.Peek() != '"' {
		r.Skip()
		return "", false
	}
	s := r.readString()
	return s, r.err == nil
}

// Strings reads an array of strings. It skips any other value, including an array
// with an element that is not a string, and returns nil.
func Strings[S ~string](r *Reader) []S {
	if r.Peek() != '[' {
		r.Skip()
		return nil
	}
	all, ok := []S(nil), true
	for r.Enter(); r.More(); {
		if all == nil {
			all = make([]S, 0, 4)
		}
		s, is := r.String()
		ok = ok && is
		all = append(all, S(s))
	}
	if !ok || r.err != nil {
		return nil
	}
	return all
}

// Number reads a number and returns its text. It skips any other value and
// returns "".
func (r *Reader) Number() string {
	if c := r.Peek(); c != '-' && (c < '0' || c > '9') {
		r.Skip()
		return ""
	}
	return r.number()
}

// number reads a number (RFC 8259 §6).
func (r *Reader) number() string {
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

func (r *Reader) at(c byte) bool { return r.pos < len(r.text) && r.text[r.pos] == c }

// digits skips one or more digits.
func (r *Reader) digits() {
	start := r.pos
	for r.pos < len(r.text) && '0' <= r.text[r.pos] && r.text[r.pos] <= '9' {
		r.pos++
	}
	if r.pos == start {
		r.fail(errSyntax)
	}
}

func (r *Reader) literal(c byte) {
	word := "null"
	switch c {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	if !strings.HasPrefix(r.text[r.pos:], word) {
		r.fail(errSyntax)
		return
	}
	r.pos += len(word)
}

// readString reads the string at pos. It copies only if the string has an escape.
func (r *Reader) readString() string {
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
			r.fail(errSyntax)
			return ""
		}
	}
	r.fail(errSyntax)
	return ""
}

// unescape reads the rest of a string that began at start, from its first
// backslash on.
func (r *Reader) unescape(start int) string {
	out := append(make([]byte, 0, 64), r.text[start:r.pos]...)
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		r.pos++
		switch {
		case c == '"':
			return string(out)
		case c < ' ':
			r.fail(errSyntax)
			return ""
		case c != '\\':
			out = append(out, c)
		case r.at('u'):
			out = utf8.AppendRune(out, r.escapedRune())
		case r.pos < len(r.text):
			i := strings.IndexByte(`"\/bfnrt`, r.text[r.pos])
			if i < 0 {
				r.fail(errSyntax)
				return ""
			}
			out = append(out, "\"\\/\b\f\n\r\t"[i])
			r.pos++
		}
	}
	r.fail(errSyntax)
	return ""
}

// escapedRune reads uXXXX and, if that is the first half of a surrogate pair, the
// second half. A lone surrogate is rejected (RFC 7493 §2.1).
func (r *Reader) escapedRune() rune {
	first := r.hex4()
	if !utf16.IsSurrogate(first) {
		return first
	}
	if !strings.HasPrefix(r.text[r.pos:], `\u`) {
		r.fail(errUTF8)
		return utf8.RuneError
	}
	r.pos++
	pair := utf16.DecodeRune(first, r.hex4())
	if pair == utf8.RuneError {
		r.fail(errUTF8)
	}
	return pair
}

// hex4 reads the "u" at pos and four hexadecimal digits.
func (r *Reader) hex4() rune {
	if r.pos+5 > len(r.text) {
		r.fail(errSyntax)
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
			r.fail(errSyntax)
			return 0
		}
	}
	r.pos += 5
	return value
}
