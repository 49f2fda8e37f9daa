package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/iprange"
	"github.com/koreauth/koreauth/mtls"
)

// sender is who is supposed to send a token.
type sender struct {
	address     netip.Addr // not valid: unknown
	certificate *[32]byte  // the SHA-256; nil: unknown
}

// senderFlags are the flags that describe a sender.
func senderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "cert", Usage: "check a bound token with the client's certificate in `FILE`, in PEM form"},
		&cli.StringFlag{Name: "client-address", Usage: "check \"ip-range\" with this `ADDRESS` of the client"},
	}
}

func newSender(c *cli.Command) (s sender, err error) {
	if text := c.String("client-address"); text != "" {
		if s.address, err = netip.ParseAddr(text); err != nil || s.address.Zone() != "" {
			return s, usage("--client-address %.64q is not an address: use the form 203.0.113.9", text)
		}
	}
	if file := c.String("cert"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return s, usage("--cert: %w", err)
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return s, usage("--cert: the file does not begin with a certificate in PEM form")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return s, usage("--cert: %w", err)
		}
		sum := sha256.Sum256(block.Bytes)
		s.certificate = &sum
	}
	return s, nil
}

// fromAddress is a requirement: "ip-range" has the address.
type fromAddress struct{ address netip.Addr }

func (f fromAddress) Check(_ *http.Request, c *koreauth.Claims) error {
	return iprange.Within(nil).Check(&http.Request{RemoteAddr: netip.AddrPortFrom(f.address, 1).String()}, c)
}

// explain explains a token that the sender sends.
func (s sender) explain(ctx context.Context, v *koreauth.Validator, token string, requirements []koreauth.Requirement) *koreauth.Explanation {
	if s.address.IsValid() {
		requirements = append(slices.Clip(requirements), fromAddress{s.address})
	}
	e := v.Explain(ctx, token, requirements...)
	if s.address.IsValid() {
		last := &e.Steps[len(e.Steps)-1]
		last.Rule, last.Want = "KORE", `"ip-range" is absent, or has `+s.address.String()
	}
	at := slices.IndexFunc(e.Steps, func(step koreauth.Step) bool { return step.Name == "binding" && step.Verdict == "fail" })
	if s.certificate == nil || at < 0 {
		return e
	}
	// Explain does not know the sender. If the binding is the first fault, it may be none.
	validate := door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
	claims, err := validate(ctx, v, nil, token)
	if err != nil {
		return e
	}
	confirm := &mtls.Sender{Certificate: func(*http.Request) ([32]byte, bool, error) { return *s.certificate, true, nil }}
	binding := &e.Steps[at]
	if err := confirm.Check(&http.Request{}, claims); err != nil {
		binding.Hint = "the certificate in --cert does not confirm it"
		return e
	}
	binding.Verdict, binding.Hint, e.Err = "pass", "", nil
	for _, q := range requirements {
		if err := q.Check(nil, claims); err != nil {
			e.Err = err
			break
		}
	}
	return e
}
