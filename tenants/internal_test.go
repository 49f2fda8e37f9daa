package tenants

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
)

func TestControl(t *testing.T) {
	for address, refused := range map[string]bool{
		"93.184.216.34": false, "8.8.8.8": false, "2606:2800:220:1::1": false, "172.32.0.1": false, "100.128.0.1": false,
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "0.0.0.0": true, "0.1.2.3": true, "::": true, "10.0.0.1": true, "172.16.0.1": true, "192.168.1.1": true,
		"169.254.169.254": true, "fe80::1": true, "fe80::1%eth0": true, "fc00::1": true, "fd12::1": true, "100.64.0.1": true, "100.127.255.255": true,
		"224.0.0.1": true, "255.255.255.255": true, "240.0.0.1": true, "ff02::1": true, "::ffff:127.0.0.1": true, "::ffff:10.0.0.1": true, "::ffff:8.8.8.8": false,
		"64:ff9b::7f00:1": true, "64:ff9b::808:808": true, "64:ff9b:1::1": true, "2002:7f00:1::": true, "2001:0:1::1": true, "::127.0.0.1": true, "fec0::1": true,
		"::ffff:0:127.0.0.1": true, "::ffff:0:10.0.0.1": true, "2606:4700::5efe:a00:1": true, "2606:4700::200:5efe:a00:1": true, "192.88.99.1": true, "2001:2::1": true,
		"100::1": true, "2001:db8::1": true, "3fff::1": true, "5f00::1": true, "2001:10::1": true, "192.0.2.1": true, "198.51.100.1": true, "203.0.113.1": true,
		"1::1": true, "4000::1": true, "fe00::1": true, "168.63.129.16": true, "2001:4860:4860::8888": false, "2620:fe::fe": false,
		"198.18.0.1": true, "::ffff:100.64.0.1": true, "::ffff:198.18.0.1": true, "192.0.0.1": true,
	} {
		err := control("tcp", netip.AddrPortFrom(netip.MustParseAddr(address), 443).String(), nil)
		assert.Equal(t, refused, err != nil, address)
	}
	assert.Error(t, control("tcp", "nonsense", nil))
}

// However many issuers are no tenants, 1,024 are remembered.
func TestSet_RejectedIssuersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Set{Match: "https://{tenant}.id.example.com", Resolve: func(context.Context, string) (koreauth.Config, error) {
			return koreauth.Config{}, koreauth.ErrIssuer
		}}
		require.NoError(t, s.Faults())
		for n := range 3000 {
			_, err := s.find(t.Context(), fmt.Sprintf("https://t%d.id.example.com", n))
			require.ErrorIs(t, err, koreauth.ErrIssuer)
			time.Sleep(resolveEvery)
		}
		assert.LessOrEqual(t, s.bad.Len(), maxBad)
		assert.Empty(t, s.calls)
	})
}

func TestSet_IdleTenantsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Set{Match: "https://{tenant}.id.example.com", Idle: 10 * time.Minute, Resolve: func(context.Context, string) (koreauth.Config, error) {
			return koreauth.Config{Audience: []string{"a"}}, nil
		}}
		require.NoError(t, s.Faults())
		use := func(name string) {
			_, err := s.find(t.Context(), "https://"+name+".id.example.com")
			require.NoError(t, err)
			synctest.Wait()
		}
		use("a")
		use("b")
		for range 11 {
			time.Sleep(time.Minute)
			use("b")
		}
		assert.Len(t, s.tenants, 1)
		assert.NotNil(t, s.tenants["https://b.id.example.com"])
	})
}

// The copy of a RemoteKeySet has each of its fields, and two that differ in one are not the
// same: a field that is added later must not be forgotten.
func TestKeysOf_EachField(t *testing.T) {
	values := map[reflect.Type]any{
		reflect.TypeFor[string]():        "text",
		reflect.TypeFor[bool]():          true,
		reflect.TypeFor[time.Duration](): time.Minute,
		reflect.TypeFor[*slog.Logger]():  slog.New(slog.DiscardHandler),
		reflect.TypeFor[*http.Client]():  &http.Client{Timeout: time.Second},
	}
	kind := reflect.TypeFor[koreauth.RemoteKeySet]()
	for n := range kind.NumField() {
		field := kind.Field(n)
		if !field.IsExported() {
			continue
		}
		set := &koreauth.RemoteKeySet{}
		reflect.ValueOf(set).Elem().Field(n).Set(reflect.ValueOf(values[field.Type]))
		assert.False(t, sameKeys(set, &koreauth.RemoteKeySet{}), field.Name)
		copied, kept := keysOf(&koreauth.Config{Keys: set}, &url.URL{Scheme: "https", Host: "id.example.com"}, nil)
		assert.False(t, kept)
		assert.Equal(t, values[field.Type], reflect.ValueOf(copied).Elem().Field(n).Interface(), field.Name)
	}
}

func TestNewClient_OneHost(t *testing.T) {
	client := newClient(&url.URL{Scheme: "https", Host: "id.example.com"})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://keys.example.com/", nil)
	require.NoError(t, err)
	_, err = client.Do(req)
	assert.ErrorContains(t, err, "which is not the host of the issuer")
	assert.ErrorContains(t, client.CheckRedirect(req, nil), "is not followed")
	for address, other := range map[string]bool{"id.example.com:443": false, "ID.example.com:443": false, "id.example.com:80": true, "a.id.example.com:443": true} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Transport.(*http.Transport).DialContext(ctx, "tcp", address)
		require.Error(t, err)
		assert.Equal(t, other, strings.Contains(err.Error(), "not the host"), address)
	}
	assert.Nil(t, client.Transport.(*http.Transport).Proxy, "a proxy would connect in place of this machine")
}
