// Package doctor checks a deployment: whether the issuer can be reached and what it
// publishes, whether the clocks agree, and whether an API answers as it should.
//
//	for _, f := range doctor.Run(ctx, doctor.Config{Config: config, API: "https://api.example.com/v1/ping"}) {
//		fmt.Println(f.Level, f.Check, f.Found, f.Cure)
//	}
//
// It is for people and for init containers, not for each request. It sends no secret
// anywhere, and the given token to the API alone.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/internal/door"
	"github.com/koreauth/koreauth/internal/redact"
	"github.com/koreauth/koreauth/introspection"
)

// Config says what to check.
type Config struct {
	// Config is that of the API's validator. All requests to the issuer go through
	// its HTTPClient.
	Config koreauth.Config
	// API is the URL of a guarded route that can be called with GET and HEAD. If API
	// is empty, no API is checked. It must be https, unless the host is on loopback.
	API string
	// Token is a token to check and to send to the API. If Token is empty, these
	// checks are left out.
	Token string
	// Introspection is how the API asks about tokens, for checking that with Token. If its
	// ClientID is empty, it is not checked.
	Introspection introspection.Config
	// Errors is the format of the API's rejections. If Errors is nil,
	// koreauth.KOREErrors is expected.
	Errors koreauth.ErrorFormat
}

// Finding is the result of one check. It has no token and no secret.
type Finding struct {
	Check string // what was checked, such as "clock"
	Level string // "ok", "warn" or "fail"
	Found string // what was found
	Cure  string // what to do; empty: nothing
}

// The levels of a Finding.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "fail"
)

// timeout is how long one request may take.
const timeout = 10 * time.Second

// Run makes the checks and returns what it found, in the order of the checks. Each
// request ends after ten seconds, or when ctx is done. Faults of the Config are
// findings too.
func Run(ctx context.Context, c Config) []Finding {
	r := &run{config: c, client: &http.Client{}}
	if c.Config.HTTPClient != nil {
		*r.client = *c.Config.HTTPClient
	}
	if r.config.Errors == nil {
		r.config.Errors = koreauth.KOREErrors
	}
	validator, err := koreauth.NewValidator(c.Config)
	if err != nil {
		r.faults("configuration", err)
	} else {
		r.proxies()
		r.issuer(ctx, validator)
	}
	if c.Token != "" && validator != nil {
		r.token(ctx, validator)
	}
	if c.Introspection.ClientID != "" && validator != nil {
		r.introspection(ctx, validator)
	}
	if c.API != "" {
		r.api(ctx)
	}
	return r.findings
}

// run collects the findings.
type run struct {
	config   Config
	client   *http.Client
	findings []Finding
	accepted bool     // the given token was accepted by the validator
	bound    bool     // it would have been, but it is bound to its sender
	verified bool     // the given token was
	audience []string // of that token
}

// add adds a finding. All texts are made printable, and lose what looks like a secret.
func (r *run) add(check, level, found, cure string) {
	clean := func(text string) string { return redact.Truncate(redact.Text(text, r.config.Token), 512) }
	r.findings = append(r.findings, Finding{check, level, clean(found), clean(cure)})
}

// faults adds a finding for each fault of a Config, whose text ends with its remedy.
func (r *run) faults(check string, err error) {
	for line := range strings.Lines(err.Error()) {
		text := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "koreauth: "), "introspection: ")
		found, cure, ok := strings.Cut(text, ": ")
		if !ok {
			cure = "correct it"
		}
		r.add(check, levelFail, found, cure)
	}
}

// proxies names the proxies that the environment configures.
func (r *run) proxies() {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		if u, err := url.Parse(value); err == nil && u.Host != "" {
			value = u.Host // without credentials
		}
		r.add("proxy", levelOK, name+" is "+value, "")
	}
}

// token checks the given token.
func (r *run) token(ctx context.Context, validator *koreauth.Validator) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	explanation := validator.Explain(ctx, r.config.Token)
	r.accepted = explanation.Err == nil
	if errors.Is(explanation.Err, koreauth.ErrBinding) {
		validate := door.Validate.(func(context.Context, *koreauth.Validator, *http.Request, string) (*koreauth.Claims, error))
		_, err := validate(ctx, validator, nil, r.config.Token)
		r.bound = !errors.Is(err, koreauth.ErrBinding) // Otherwise nothing can confirm it.
	}
	for _, step := range explanation.Steps {
		switch {
		case step.Verdict == "fail" && step.Name == "binding" && r.bound:
			r.add("token", levelOK, step.Found+", so that nobody else can use it", "")
		case step.Verdict == "fail":
			cure := step.Hint
			if cure == "" {
				cure = "see the table of koreauth explain"
			}
			r.add("token", levelFail, step.Name+": "+step.Found, cure)
		case step.Verdict == "unknown":
			r.add("token", levelWarn, step.Name+": "+step.Found, "try again when the keys can be fetched")
		}
	}
	if r.accepted {
		r.add("token", levelOK, "accepted", "")
	}
	verify := door.VerifySignature.(func(context.Context, *koreauth.Validator, string) (*koreauth.Claims, error))
	claims, err := verify(ctx, validator, r.config.Token)
	if err == nil {
		r.verified, r.audience = true, claims.Audience
	}
	if limit := r.config.Config.MaxAge; err == nil && limit > 0 && !claims.IssuedAt.IsZero() && claims.Expiry.Sub(claims.IssuedAt) > limit {
		r.add("token", levelWarn, fmt.Sprintf("tokens are older than Config.MaxAge, %v, before they expire", limit), "let clients get new tokens more often, or raise MaxAge")
	}
}
