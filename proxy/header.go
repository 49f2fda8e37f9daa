package proxy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/koreauth/koreauth/internal/token68"
)

// lastElement cuts the last element off a list.
func lastElement(list string) (rest, element string, more bool) {
	at := strings.LastIndexByte(list, ',')
	return list[:max(0, at)], list[at+1:], at >= 0
}

// lastForwarded cuts the last element off a list whose elements may have quoted strings,
// with commas in them. It reads from the end, so that nothing before the element can
// change where it begins.
func lastForwarded(list string) (rest, element string, more bool) {
	quoted := false
	for at := len(list) - 1; at >= 0; at-- {
		switch {
		case list[at] == ',' && !quoted:
			return list[:at], list[at+1:], true
		case list[at] == '"' && !(quoted && strings.HasSuffix(list[:at], `\`)): // not escaped
			quoted = !quoted
		}
	}
	return "", list, false
}

// address reads an address as proxies write it in X-Forwarded-For: with or without a
// port, brackets and quotes. A zone is not accepted: it has a meaning on the machine of
// the proxy only.
func address(text string) (netip.Addr, bool) {
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), a.Zone() == ""
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		return bracketed(inner, isPort)
	}
	host, port, found := strings.Cut(text, ":")
	a, err := netip.ParseAddr(host)
	return a, err == nil && found && isPort(port)
}

// bracketed reads what follows the "[" of an IPv6 address, with or without a port.
func bracketed(text string, isPort func(string) bool) (netip.Addr, bool) {
	host, port, found := strings.Cut(text, "]")
	a, err := netip.ParseAddr(host)
	if err != nil || !found || !a.Is6() || a.Zone() != "" || port != "" && (port[0] != ':' || !isPort(port[1:])) {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// isPort reports whether the text is a port, of one to five digits.
func isPort(text string) bool {
	return text != "" && len(text) <= 5 && strings.Trim(text, "0123456789") == ""
}

// isNodePort reports whether the text is a port, or a name in place of one (RFC 7239 §6).
func isNodePort(text string) bool { return isPort(text) || isObfuscated(text) }

func isObfuscated(text string) bool {
	name, ok := strings.CutPrefix(text, "_")
	return ok && token68.IsName(name) && !strings.ContainsAny(name, "!#$%&'*+^`|~")
}

// forwardedFor returns the address in the "for" of an element of Forwarded (RFC 7239 §4).
// An element that is not of that form has none.
func forwardedFor(element string) (a netip.Addr, ok bool) {
	var seen [8]string // the names so far; more than these are not expected
	found := false
	element = strings.TrimLeft(element, ";") // Empty pairs are allowed.
	for count := 0; element != ""; count++ {
		name, after, isPair := strings.Cut(element, "=")
		again := func(other string) bool { return strings.EqualFold(other, name) }
		if !isPair || !token68.IsName(name) || count == len(seen) || slices.ContainsFunc(seen[:count], again) {
			return netip.Addr{}, false // Each parameter may occur once.
		}
		value, rest, valid := forwardedValue(after)
		if !valid || rest != "" && rest[0] != ';' {
			return netip.Addr{}, false
		}
		element = strings.TrimLeft(rest, ";")
		if seen[count] = name; strings.EqualFold(name, "for") {
			a, ok = node(value)
			found = true
		}
	}
	return a, ok && found
}

// forwardedValue reads a token or a quoted string, and returns what follows it.
func forwardedValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, ';')
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], token68.IsName(text[:end])
	}
	plain := true
	for end := 1; end < len(text); end++ {
		switch c := text[end]; {
		case c == '"':
			if value = text[1:end]; !plain {
				value = unescape(value)
			}
			return value, text[end+1:], true
		case c == '\\':
			plain = false
			end++
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", "", false
		}
	}
	return "", "", false
}

// unescape removes the backslashes of quoted pairs (RFC 9110 §5.6.4).
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// node reads the address of a node (RFC 7239 §6). "unknown" and names that begin with
// "_" are none.
func node(text string) (netip.Addr, bool) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		return bracketed(inner, isNodePort)
	}
	host, port, found := strings.Cut(text, ":")
	a, err := netip.ParseAddr(host)
	return a, err == nil && (!found || isNodePort(port))
}
