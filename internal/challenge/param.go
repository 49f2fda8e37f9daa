package challenge

import "strings"

// Param returns a parameter of the first challenge of a scheme that has it, or "". Scheme
// and name are compared without regard to case. Commas between parameters may be missing.
func Param(lines []string, scheme, name string) string {
	for _, line := range lines {
		current := ""
		for line != "" {
			var word, value string
			var isParameter bool
			word, line = cutToken(strings.TrimLeft(line, " \t,"))
			value, line, isParameter = cutValue(line)
			switch {
			case !isParameter:
				current = word
			case strings.EqualFold(current, scheme) && strings.EqualFold(word, name):
				return value
			}
		}
	}
	return ""
}

// cutToken cuts a name off the start of text: all up to a separator.
func cutToken(text string) (token, rest string) {
	if end := strings.IndexAny(text, " \t,=\""); end >= 0 {
		return text[:end], text[end:]
	}
	return text, ""
}

// cutValue cuts "= value" off the start of text, where the value may be quoted. Without
// "=" it returns false, and cuts at least one character if there is one.
func cutValue(text string) (value, rest string, found bool) {
	after, found := strings.CutPrefix(strings.TrimLeft(text, " \t"), "=")
	if !found {
		return "", text[min(1, len(text)):], false
	}
	after = strings.TrimLeft(after, " \t")
	if !strings.HasPrefix(after, `"`) {
		end := strings.IndexAny(after, " \t,")
		if end < 0 {
			end = len(after)
		}
		return after[:end], after[end:], true
	}
	var unquoted strings.Builder
	for i := 1; i < len(after); i++ {
		switch after[i] {
		case '"':
			return unquoted.String(), after[i+1:], true
		case '\\':
			if i++; i == len(after) {
				return "", "", true
			}
		}
		unquoted.WriteByte(after[i])
	}
	return "", "", true // The quotes are not closed.
}
