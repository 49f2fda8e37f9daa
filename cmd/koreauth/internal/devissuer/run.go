package devissuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/koreauth/koreauth/koretest"
)

// DefaultAddr is the address that [Run] listens on if it is given none.
const DefaultAddr = "127.0.0.1:8081"

// ErrAddr is wrapped by the error of [Run] if the address is not one of loopback.
var ErrAddr = errors.New("devissuer: the address must be on loopback")

// Run serves an issuer at addr until ctx is done, and then returns nil. The host of
// addr is localhost or an address of loopback; port 0 selects a free port. If addr is
// empty, it is [DefaultAddr].
//
// The keys are in keysFile, which is created with a new key if it does not exist. If
// keysFile is empty, the key is new and is not stored.
//
// Run prints to out what a developer needs: the URLs, a client and its secret. It does
// so once the issuer accepts connections.
func Run(ctx context.Context, addr, keysFile string, out io.Writer) error {
	if addr == "" {
		addr = DefaultAddr
	}
	if err := checkAddr(addr); err != nil {
		return err
	}
	keys, created, err := loadKeys(keysFile)
	if err != nil {
		return err
	}
	listener, base, err := listen(addr)
	if err != nil {
		return err
	}
	issuer, err := New(base, keys)
	if err != nil {
		_ = listener.Close()
		return err
	}
	if _, err := io.WriteString(out, issuer.greeting(base, keysFile, created)); err != nil {
		_ = listener.Close()
		return fmt.Errorf("devissuer: cannot print the client: %w", err)
	}
	return serve(ctx, listener, issuer)
}

// checkAddr returns an error if addr does not name a host of loopback and a port.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil || port == "":
		return fmt.Errorf("%w: %q is not a host and a port: use one like %s", ErrAddr, addr, DefaultAddr)
	case host == "":
		return fmt.Errorf("%w: %q names no host, which means all addresses: use 127.0.0.1:%s", ErrAddr, addr, port)
	case !isLoopback(host):
		return fmt.Errorf("%w: anyone who reaches %q could make tokens: use 127.0.0.1:%s", ErrAddr, addr, port)
	}
	return nil
}

// listen returns a listener, and the scheme and host of its URL: the host as in addr,
// and the port that was selected.
func listen(addr string) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, "", fmt.Errorf("devissuer: cannot listen: use another address: %w", err)
	}
	at, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() { // localhost may be another address in the hosts file.
		_ = listener.Close()
		return nil, "", fmt.Errorf("%w: %q is %v: use 127.0.0.1", ErrAddr, addr, listener.Addr())
	}
	host, _, _ := net.SplitHostPort(addr) // checkAddr did it too
	return listener, "http://" + net.JoinHostPort(strings.ToLower(host), fmt.Sprint(at.Port)), nil
}

// serve serves until ctx is done, and aborts the requests in progress then.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(listener)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("devissuer: %w", err)
}

// greeting is what Run prints.
func (i *Issuer) greeting(base, keysFile string, created bool) string {
	keys := "new ones at each start; to keep them, use --keys-file"
	switch {
	case created:
		keys = "created " + keysFile
	case keysFile != "":
		keys = "from " + keysFile
	}
	client := i.Client()
	var b strings.Builder
	b.WriteString("A development issuer. Any program on this machine can get tokens from it.\n\n")
	for _, row := range [][2]string{
		{"Page", base + "/"},
		{"Issuer", i.issuer.URL()},
		{"Audience", koretest.Audience},
		{"Token URL", i.issuer.TokenURL() + " (form)"},
		{"", i.issuer.BasicTokenURL() + " (Basic)"},
		{"Client", client.ID},
		{"Secret", client.Secret},
		{"Keys", keys},
	} {
		fmt.Fprintf(&b, "%-10s %s\n", row[0], row[1])
	}
	b.WriteString("\nPress Ctrl-C to stop.\n")
	return b.String()
}
