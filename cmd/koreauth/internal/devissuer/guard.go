package devissuer

import (
	"net"
	"net/http"
	"strings"

	"github.com/koreauth/koreauth/internal/loopback"
)

// onLoopback rejects requests whose Host is not a name of loopback. Otherwise a web
// page could use the issuer through a name of its own that it lets resolve to
// 127.0.0.1 (DNS rebinding).
func onLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
			host = host[1 : len(host)-1] // an IPv6 address without a port
		}
		if !isLoopback(host) {
			http.Error(w, "devissuer: Host must be localhost or an address of loopback, such as 127.0.0.1", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether a host, without a port, is on loopback. A browser sends no
// zone.
func isLoopback(host string) bool { return loopback.Is(host) && !strings.Contains(host, "%") }
