// Package token68 checks the syntax of bearer tokens and of the headers that carry
// them.
package token68

import "strings"

// Valid reports whether s is a token68 (RFC 9110 §11.2), which RFC 6750 calls
// b64token.
func Valid(s string) bool {
	s = strings.TrimRight(s, "=")
	if s == "" {
		return false
	}
	// Every request pays for every byte. Looking up pairs takes half the time of
	// looking up single bytes.
	var bad byte
	for ; len(s) >= 16; s = s[16:] {
		bad |= invalidPair[pair(s[0], s[1])] | invalidPair[pair(s[2], s[3])] |
			invalidPair[pair(s[4], s[5])] | invalidPair[pair(s[6], s[7])] |
			invalidPair[pair(s[8], s[9])] | invalidPair[pair(s[10], s[11])] |
			invalidPair[pair(s[12], s[13])] | invalidPair[pair(s[14], s[15])]
	}
	for i := range len(s) {
		bad |= invalidPair[pair('A', s[i])]
	}
	return bad == 0
}

func pair(a, b byte) uint16 { return uint16(a) | uint16(b)<<8 }

// invalidPair is 1 for each two bytes of which one is not allowed in a token68.
var invalidPair = func() *[1 << 16]byte {
	var allowed [256]bool
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		allowed[c] = true
	}
	set := new([1 << 16]byte)
	for a := range 256 {
		for b := range 256 {
			if !allowed[a] || !allowed[b] {
				set[pair(byte(a), byte(b))] = 1
			}
		}
	}
	return set
}()

// CutBearer returns what follows the scheme Bearer and one or more spaces (RFC 9110
// §11.4). The scheme is case-insensitive (§11.1).
func CutBearer(value string) (token string, isBearer bool) {
	scheme, token := strings.Trim(value, " \t"), ""
	if end := strings.IndexAny(scheme, " \t"); end >= 0 {
		scheme, token = scheme[:end], strings.TrimLeft(scheme[end:], " ")
	}
	return token, strings.EqualFold(scheme, "Bearer")
}

// IsName reports whether name can be that of a header (RFC 9110 §5.1, §5.6.2).
func IsName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}
