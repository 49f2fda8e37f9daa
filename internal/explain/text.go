package explain

import (
	"encoding/json"
	"strings"
	"unicode"
)

// The columns of the table.
const (
	width  = 80
	margin = 20 // of what is described
)

// JSON returns what koreauth.Explanation.MarshalJSON describes.
func JSON(class, reason string, steps []Step) ([]byte, error) {
	return json.Marshal(struct {
		Accepted bool   `json:"accepted"`
		Class    string `json:"class"`
		Reason   string `json:"reason"`
		Steps    []Step `json:"steps"`
	}{class == "", class, reason, steps})
}

// Text returns a table of at most 80 columns, which begins with a line that says how
// the token was judged.
func Text(verdict string, steps []Step) string {
	var b strings.Builder
	row(&b, 0, "", verdict)
	b.WriteString("\n")
	for len(steps) > 0 {
		s, n := steps[0], 1
		if s.Verdict == Skipped && s.Found == "" { // Such steps share a row.
			names := []string{s.Name}
			for n < len(steps) && steps[n].Verdict == Skipped && steps[n].Found == "" {
				names = append(names, steps[n].Name)
				n++
			}
			row(&b, 8, Skipped, strings.Join(names, ", "))
		} else {
			s.write(&b)
		}
		steps = steps[n:]
	}
	return b.String()
}

// write writes the rows of a step.
func (s Step) write(b *strings.Builder) {
	found, verdict := s.Found, s.Verdict
	if !s.Verified && s.Name != checks[Form].name && s.Verdict != Skipped {
		found = "(unverified) " + found
	}
	if verdict == Fail {
		verdict = "FAIL"
	}
	row(b, margin, pad(verdict, 8)+s.Name, found)
	for _, more := range [][2]string{{"wanted", s.Want}, {"rule", s.Rule}} {
		if s.Verdict == Fail || s.Verdict == Unknown || s.Name == requirement && more[0] == "wanted" {
			row(b, margin, pad("", 11)+more[0], more[1])
		}
	}
	if s.Hint != "" {
		row(b, margin, pad("", 11)+"hint", s.Hint)
	}
}

// row writes a text beside its name, in lines that begin at the margin.
func row(b *strings.Builder, margin int, name, text string) {
	for _, line := range Wrap(text, width-margin) {
		b.WriteString(strings.TrimRight(pad(name, margin)+line, " ") + "\n")
		name = ""
	}
}

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-Columns(text)))
}

// Wrap breaks a text into lines, at spaces if possible. An empty text is one line.
func Wrap(text string, columns int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		for {
			free := columns - Columns(line)
			if line != "" {
				free--
			}
			if Columns(word) <= free {
				line = strings.TrimPrefix(line+" "+word, " ")
				break
			}
			if line == "" { // a word that is longer than a line
				end := fitting(word, columns)
				lines, word = append(lines, word[:end]), word[end:]
				continue
			}
			lines, line = append(lines, line), ""
		}
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// fitting returns how many bytes of a text fit into a line. It is at least one
// character.
func fitting(text string, columns int) int {
	for end, r := range text {
		if columns -= runeColumns(r); columns < 0 && end > 0 {
			return end
		}
	}
	return len(text)
}

// Columns returns how many columns of a terminal a text takes.
func Columns(text string) (n int) {
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

// wide are most of the characters that take two columns (Unicode Standard Annex #11).
var wide = []*unicode.RangeTable{unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana, {
	R16: []unicode.Range16{{Lo: 0x3000, Hi: 0x303e, Stride: 1}, {Lo: 0xff01, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}},
}}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, wide...):
		return 2
	}
	return 1
}
