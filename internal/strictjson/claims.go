package strictjson

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// OneOrMany reads a string or an array of strings (RFC 7519 §4.1.3).
func OneOrMany(r *Reader) []string {
	if r.Peek() == '[' {
		return Strings[string](r)
	}
	if one, ok := r.String(); ok {
		return []string{one}
	}
	return nil
}

// Entries reads a string or an array of strings. A value of another type becomes its
// JSON text, so that nothing is left out. null is no entry.
func Entries(r *Reader) []string {
	switch r.Peek() {
	case 'n':
		r.Skip()
		return nil
	case '[':
		var entries []string
		for r.Enter(); r.More(); {
			entries = append(entries, stringOrRaw(r))
		}
		return entries
	}
	return []string{stringOrRaw(r)}
}

// stringOrRaw reads a string, or the JSON text of any other value.
func stringOrRaw(r *Reader) string {
	if r.Peek() != '"' {
		return r.Raw()
	}
	text, _ := r.String()
	return text
}

// Text returns a member of a JSON object, or "" if it is absent or no string.
func Text(object, name string) (text string, err error) {
	r := ReadObject(object)
	for r.More() {
		if r.Name() == name {
			text, _ = r.String()
		} else {
			r.Skip()
		}
	}
	return text, r.End()
}

// Words reads a scope: a string that is split at U+0020 (RFC 6749 §3.3), or an
// array of strings.
func Words(r *Reader) []string {
	if r.Peek() == '[' {
		return Strings[string](r)
	}
	text, _ := r.String()
	var words []string
	sparse := false
	for text != "" {
		var word string
		if word, text, _ = strings.Cut(text, " "); word != "" {
			words = append(words, word)
		} else {
			sparse = true
		}
	}
	if sparse { // The words must not keep many spaces in memory.
		for i := range words {
			words[i] = strings.Clone(words[i])
		}
	}
	return words
}

// The range of a date: the years that time.Time can format, without the zero time,
// which means that there is no date.
const (
	firstSecond = -62135596799 // 0001-01-01T00:00:01Z
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z
)

// NumericDate reads a NumericDate (RFC 7519 §2), or returns the zero time if the value
// is not a number. A date out of range is clamped, so that it never overflows.
func NumericDate(r *Reader) time.Time {
	text := r.Number()
	if text == "" {
		return time.Time{}
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(min(max(seconds, firstSecond), lastSecond), 0).UTC()
	}
	// ParseFloat returns ±Inf if the number is out of range, and is clamped below.
	// It cannot fail otherwise, because the syntax has been checked.
	seconds, _ := strconv.ParseFloat(text, 64)
	whole, fraction := math.Modf(min(max(seconds, firstSecond), lastSecond))
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC()
}
