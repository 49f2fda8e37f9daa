package main

import (
	"encoding/json"
	"regexp"
	"strings"
)

var (
	// secretName is the end of the name of a member or field whose value is secret, such
	// as access_token.
	secretName = regexp.MustCompile(`(?i)(token|secret|password|assertion|key)s?$`)
	// secretValue is such a name and its value in a text of another form than JSON.
	secretValue = regexp.MustCompile(`(?i)((?:token|secret|password|assertion|key)s?["']?\s*[:=>]\s*["']?)[^"'&<>\s]+`)
)

// withoutTokens returns a body without the values of tokens and secrets, whatever
// member they are in. Of broken JSON, nothing after the first of them is left.
func withoutTokens(body []byte) string {
	var shown strings.Builder
	valid := json.Valid(body)
	rest := string(body)
	for {
		start := strings.IndexByte(rest, '"')
		if start < 0 {
			break
		}
		end := start + stringEnd(rest[start:])
		var name string
		_ = json.Unmarshal([]byte(rest[start:end]), &name) // If it is none, it is not a name.
		value := end + len(rest[end:]) - len(strings.TrimLeft(rest[end:], " \t\r\n:"))
		shown.WriteString(rest[:value])
		isName := strings.Contains(rest[end:value], ":")
		if rest = rest[value:]; isName && secretName.MatchString(name) {
			shown.WriteString(`"[redacted]"`)
			if !valid {
				return shown.String()
			}
			rest = rest[valueEnd(rest):]
		}
	}
	shown.WriteString(rest)
	if valid {
		return shown.String()
	}
	return secretValue.ReplaceAllString(shown.String(), "${1}[redacted]")
}

// stringEnd returns the length of the JSON string that text begins with.
func stringEnd(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// valueEnd returns the length of the JSON value that text begins with. That of an object
// or array is the whole text: all that follows is hidden.
func valueEnd(text string) int {
	switch {
	case text == "":
		return 0
	case text[0] == '"':
		return stringEnd(text)
	case text[0] == '{' || text[0] == '[':
		return len(text)
	}
	if end := strings.IndexAny(text, ",}]"); end >= 0 {
		return end
	}
	return len(text)
}
