package main

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/bench/subjects"
	"github.com/koreauth/koreauth/introspection"
)

// introspection measures tokens whose answer is remembered, against a remembered JWT: one that is opaque, one that the
// issuer says is not active, and a JWT that is verified and asked about.
func (b *bench) introspection() error {
	token := b.tokens[subjects.RS256][0]
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token.Raw, ".")[1])
	if err != nil {
		return err
	}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.FormValue("token") == inactive {
			_, _ = w.Write([]byte(`{"active":false}`))
			return
		}
		_, _ = w.Write([]byte(`{"active":true,` + string(payload[1:])))
	}))
	defer endpoint.Close()

	config := introspection.Config{
		Endpoint: endpoint.URL, Issuer: b.issuer.URL, Audience: []string{subjects.Audience}, ClientID: "api", ClientSecret: "secret",
		MaxAge: time.Hour,
	}
	asking, err := introspection.New(config)
	if err != nil {
		return err
	}
	jwt, err := koreauth.NewValidator(koreauth.Config{Issuer: b.issuer.URL, Audience: []string{subjects.Audience}})
	if err != nil {
		return err
	}
	also, err := introspection.Also(jwt, config)
	if err != nil {
		return err
	}
	opaque, alone := b.guard(subjects.RS256, koreauth.Config{Opaque: asking}), b.guard(subjects.RS256, koreauth.Config{})

	base := requests("a remembered JWT", alone(trivial), served, same(token))
	good := requests("an opaque token", opaque(trivial), served, always("remembered"))
	bad := requests("an opaque token that is not active", opaque(trivial), rejected, always(inactive))
	both := requests("a JWT that is asked about", koreauth.New(also, nil).Wrap(trivial), served, same(token))
	for _, s := range []side{base, good, bad, both} {
		s.worker()(4)
	}
	of, each := b.against(base, good, both, bad)
	for _, m := range each[:2] {
		more := m.more(of)
		b.report.atMost("introspection, "+m.name+", its answer remembered: ns more than a remembered JWT", more, 2000, "%.0f")
		b.report.atMost("introspection, "+m.name+": allocations more than for a remembered JWT", exactly(m.allocations-of.allocations), 1, "%.0f")
	}
	b.report.told("introspection, "+each[2].name+": µs", each[2].ns.times(1e-3), "%.2f")
	return nil
}

// inactive is an opaque token that the endpoint does not know.
const inactive = "unknown"

func always(opaque string) func(int) []string {
	header := []string{"Bearer " + opaque}
	return func(int) []string { return header }
}
