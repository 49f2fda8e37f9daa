package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/koreauth/koreauth/proxy"
)

func ExampleNew() {
	_, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.1/8"))
	fmt.Println(err)
	// Output:
	// proxy: 0.0.0.0/0 trusts every client to name its own address: list the addresses of your proxies
	// proxy: 10.0.0.1/8 has bits after its length: did you mean 10.0.0.0/8 or 10.0.0.1/32?
}

func ExampleProxies_Client() {
	behind, err := proxy.New("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.7:41000" // the nearest proxy
	r.Header.Set("X-Forwarded-For", "192.0.2.1, 203.0.113.9, 10.0.0.3")
	fmt.Println(behind.Client(r))

	r.RemoteAddr = "203.0.113.66:41000" // somebody who writes the header itself
	fmt.Println(behind.Client(r))
	// Output:
	// 203.0.113.9 true
	// 203.0.113.66 true
}

func ExampleConnContext() {
	server := &http.Server{Handler: http.NotFoundHandler(), ConnContext: proxy.ConnContext}
	fmt.Println(server.ConnContext != nil)
	// Output: true
}
