package doctor_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/doctor"
	"github.com/koreauth/koreauth/introspection"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/mtls"
)

func startIssuer(t *testing.T) (*koretest.Issuer, koreauth.Config) {
	issuer, err := koretest.NewIssuer(nil)
	require.NoError(t, err)
	t.Cleanup(issuer.Close)
	return issuer, koreauth.Config{Issuer: issuer.URL(), Audience: []string{koretest.Audience}}
}

// find returns the first finding of a check with that level, or fails.
func find(t testing.TB, findings []doctor.Finding, check, level, text string) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if f.Check == check && f.Level == level && strings.Contains(f.Found+"\n"+f.Cure, text) {
			return f
		}
	}
	require.Fail(t, "no such finding", "%s %s %q in %+v", check, level, text, findings)
	return doctor.Finding{}
}

func assertSound(t testing.TB, findings []doctor.Finding) {
	t.Helper()
	for _, f := range findings {
		assert.NotEmpty(t, f.Check)
		assert.Contains(t, []string{"ok", "warn", "fail"}, f.Level)
		assert.NotEmpty(t, f.Found, f.Check)
		assert.Equal(t, f.Level == "ok", f.Cure == "", "%+v", f)
	}
}

func TestRun_HealthyDeployment(t *testing.T) {
	issuer, config := startIssuer(t)
	validator, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	api := httptest.NewServer(koreauth.New(validator, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer api.Close()
	token := issuer.Valid()
	findings := doctor.Run(t.Context(), doctor.Config{Config: config, API: api.URL + "/v1/ping", Token: token})
	assertSound(t, findings)
	for _, f := range findings {
		assert.Equal(t, "ok", f.Level, "%+v", f)
		for segment := range strings.SplitSeq(token, ".") {
			assert.NotContains(t, f.Found+f.Cure, segment)
		}
	}
	for _, check := range []string{
		"TLS", "latency", "clock", "discovery", "issuer", "algorithms", "caching", "keys", "token", "api without a token", "api with garbage",
		"api with two tokens", "api with HEAD", "api with the token", "api with a preflight",
	} {
		find(t, findings, check, "ok", "")
	}
}

func TestRun_FaultsOfTheConfig(t *testing.T) {
	findings := doctor.Run(t.Context(), doctor.Config{API: "api.example", Token: "x"})
	assertSound(t, findings)
	find(t, findings, "configuration", "fail", "Config.Issuer is empty")
	find(t, findings, "configuration", "fail", "Config.Audience is empty")
	find(t, findings, "api", "fail", "https://")
	findings = doctor.Run(t.Context(), doctor.Config{API: "http://api.example/"})
	find(t, findings, "api", "fail", "use https")
}

// rewrite changes the answers of an issuer.
type rewrite func(*http.Request, *http.Response)

func (f rewrite) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		f(req, res)
	}
	return res, err
}

func setBody(res *http.Response, body string) {
	_ = res.Body.Close()
	res.Body = io.NopCloser(strings.NewReader(body))
	res.ContentLength = int64(len(body))
}

func TestRun_Issuer(t *testing.T) {
	discovery := func(req *http.Request) bool { return strings.HasSuffix(req.URL.Path, "openid-configuration") }
	for name, row := range map[string]struct {
		change             rewrite
		config             func(*koreauth.Config)
		check, level, text string
	}{
		"another issuer": {func(req *http.Request, res *http.Response) {
			if discovery(req) {
				setBody(res, `{"issuer":"https://other.example/","jwks_uri":"https://other.example/keys"}`)
			}
		}, nil, "issuer", "fail", "https://other.example/"},
		"a login page": {func(req *http.Request, res *http.Response) {
			if discovery(req) {
				res.Header.Set("Content-Type", "text/html")
				setBody(res, "<html>")
			}
		}, nil, "discovery", "fail", "login page"},
		"not found": {func(_ *http.Request, res *http.Response) { res.StatusCode = 404 }, nil, "discovery", "fail", "/auth"},
		"metadata at the place of RFC 8414": {func(req *http.Request, res *http.Response) {
			if discovery(req) {
				res.StatusCode = 404
			}
			if path, ok := strings.CutPrefix(req.URL.Path, "/.well-known/oauth-authorization-server"); ok {
				issuer := "http://" + req.URL.Host + path
				res.StatusCode = 200
				setBody(res, `{"issuer":"`+issuer+`","jwks_uri":"`+issuer+`/protocol/openid-connect/certs"}`)
			}
		}, nil, "discovery", "ok", "/.well-known/oauth-authorization-server/realms/KORE-CIDP has "},
		"no jwks_uri": {func(req *http.Request, res *http.Response) { setBody(res, `{"issuer":"x"}`) }, nil, "discovery", "fail", "no jwks_uri"},
		"a huge page": {func(_ *http.Request, res *http.Response) { setBody(res, strings.Repeat("x", 2<<20)) }, nil, "discovery", "fail", "1 MiB"},
		"no keys": {func(req *http.Request, res *http.Response) {
			if !discovery(req) {
				setBody(res, `{"keys":[]}`)
			}
		}, nil, "keys", "fail", "there are no keys"},
		"keys refused": {func(req *http.Request, res *http.Response) {
			if !discovery(req) {
				res.StatusCode = 403
			}
		}, nil, "keys", "fail", "answered 403"},
		"an unusable key": {func(req *http.Request, res *http.Response) {
			if !discovery(req) {
				body, _ := io.ReadAll(res.Body)
				setBody(res, strings.Replace(string(body), `{"keys":[`, `{"keys":[{"kty":"EC","kid":"broken","crv":"P-256"},`, 1))
			}
		}, nil, "key", "ok", "broken"},
		"a clock that is a minute ahead":   {dated(time.Minute), nil, "clock", "fail", "NTP"},
		"a clock that is a minute behind":  {dated(-time.Minute), nil, "clock", "fail", "NTP"},
		"a clock that is four seconds off": {dated(4 * time.Second), nil, "clock", "warn", "Leeway"},
		"a clock within the leeway":        {dated(time.Minute), func(c *koreauth.Config) { c.Leeway = 2 * time.Minute }, "clock", "warn", "Leeway"},
		"a clock that is behind, in words": {dated(-time.Minute), nil, "clock", "fail", " s behind"},
		"a clock that is ahead, in words":  {dated(time.Minute), nil, "clock", "fail", " s ahead"},
		"an answer from a cache":           {cached(5 * time.Minute), nil, "clock", "ok", "behind and"},
		"a cache, and a clock ahead":       {cached(4 * time.Minute), nil, "clock", "fail", " s behind"},
		"an odd Age":                       {func(_ *http.Request, res *http.Response) { res.Header.Set("Age", "-300") }, nil, "clock", "ok", ""},
		"no Date":                          {func(_ *http.Request, res *http.Response) { res.Header.Del("Date") }, nil, "clock", "warn", "no Date"},
		"a short max-age":                  {func(_ *http.Request, res *http.Response) { res.Header.Set("Cache-Control", "public, max-age=1") }, nil, "caching", "warn", "10s"},
		"an odd max-age":                   {func(_ *http.Request, res *http.Response) { res.Header.Set("Cache-Control", "max-age=soon") }, nil, "caching", "warn", "not a number"},
		"a long max-age":                   {func(_ *http.Request, res *http.Response) { res.Header.Set("Cache-Control", "max-age=86400") }, nil, "caching", "ok", "24h"},
		"another algorithm":                {func(*http.Request, *http.Response) {}, func(c *koreauth.Config) { c.Algorithms = []string{"ES512"} }, "algorithms", "warn", "Config.Algorithms"},
	} {
		t.Run(name, func(t *testing.T) {
			_, config := startIssuer(t)
			config.HTTPClient = &http.Client{Transport: row.change}
			if row.config != nil {
				row.config(&config)
			}
			findings := doctor.Run(t.Context(), doctor.Config{Config: config})
			assertSound(t, findings)
			find(t, findings, row.check, row.level, row.text)
		})
	}
}

// dated changes the clock of the issuer.
func dated(by time.Duration) rewrite {
	return func(_ *http.Request, res *http.Response) {
		res.Header.Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
	}
}

// cached returns answers that were cached five minutes ago, with that Age.
func cached(age time.Duration) rewrite {
	return func(req *http.Request, res *http.Response) {
		dated(-5*time.Minute)(req, res)
		res.Header.Set("Age", fmt.Sprint(int(age.Seconds())))
	}
}

// Without TLS the keys can be replaced, except on loopback.
func TestRun_HTTP(t *testing.T) {
	issuer, _ := startIssuer(t)
	for name, row := range map[string]struct {
		issuer, keys, last, found string
	}{
		"the metadata":   {"http://issuer.example", "https://issuer.example/keys", "", "not used: http://issuer.example/.well-known"},
		"the keys":       {"https://issuer.example", "http://issuer.example/keys", "", "not used for the keys: http://issuer.example/keys"},
		"after redirect": {"https://issuer.example", "https://issuer.example/keys", "http://issuer.example/elsewhere", "http://issuer.example/elsewhere"},
	} {
		client := &http.Client{Transport: inMemory(func(req *http.Request) (*http.Response, error) {
			res := &http.Response{StatusCode: 200, Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Request: req, Body: http.NoBody}
			if req.URL.Scheme == "https" {
				res.TLS = &tls.ConnectionState{}
			}
			switch {
			case row.last != "" && req.URL.String() != row.last:
				res.StatusCode, res.Header["Location"] = 302, []string{row.last}
			case strings.HasSuffix(req.URL.Path, "openid-configuration") || row.last != "":
				setBody(res, fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, row.issuer, row.keys))
			default:
				setBody(res, string(issuer.JWKS()))
			}
			return res, nil
		})}
		findings := doctor.Run(t.Context(), doctor.Config{Config: koreauth.Config{Issuer: row.issuer, Audience: []string{"a"}, DangerouslyAllowHTTP: true, HTTPClient: client}})
		assertSound(t, findings)
		assert.Contains(t, find(t, findings, "TLS", "warn", "use https").Found, row.found, name)
	}
}

type inMemory func(*http.Request) (*http.Response, error)

func (f inMemory) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A token that is bound in an unknown way is accepted by no API, and one of an odd age
// does not say how long tokens live.
func TestRun_OddTokens(t *testing.T) {
	issuer, config := startIssuer(t)
	config.MaxAge = 2 * time.Hour
	now := time.Now()
	for name, row := range map[string]struct {
		claims map[string]any
		level  string
		says   string
		older  bool // the warning that tokens live longer than MaxAge
	}{
		"an unknown binding":  {map[string]any{"cnf": map[string]any{"kid": "x"}}, "fail", `"x5t#S256"`, false},
		"an empty binding":    {map[string]any{"cnf": map[string]any{}}, "fail", `"x5t#S256"`, false},
		"a known binding":     {map[string]any{"cnf": map[string]any{"jkt": strings.Repeat("A", 43)}}, "ok", "so that nobody else can use it", false},
		"from the future":     {map[string]any{"iat": now.Add(time.Minute).Unix()}, "fail", "the clock of the issuer is ahead", false},
		"no iat":              {map[string]any{"iat": nil}, "fail", `no "iat"`, false},
		"iat in milliseconds": {map[string]any{"iat": now.UnixMilli()}, "fail", "milliseconds", false},
		"a long life":         {map[string]any{"exp": now.Add(3 * time.Hour).Unix()}, "ok", "accepted", true},
		"an old token":        {map[string]any{"iat": now.Add(-3 * time.Hour).Unix()}, "fail", "get a new token", true},
	} {
		token, err := issuer.Mint(koretest.Token{Claims: row.claims})
		require.NoError(t, err)
		findings := doctor.Run(t.Context(), doctor.Config{Config: config, Token: token})
		assertSound(t, findings)
		find(t, findings, "token", row.level, row.says)
		older := false
		for _, f := range findings {
			older = older || strings.Contains(f.Found, "older than Config.MaxAge")
			assert.False(t, f.Check == "token" && f.Level == "ok" && row.level == "fail", "%s: %+v", name, f)
		}
		assert.Equal(t, row.older, older, name)
	}
}

func TestRun_Connections(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	secure, plain := httptest.NewTLSServer(page), httptest.NewServer(page)
	defer secure.Close()
	defer plain.Close()
	for name, row := range map[string]struct {
		issuer             string
		client             *http.Client
		check, level, text string
	}{
		"an unknown authority": {secure.URL, nil, "TLS", "fail", "authority"},
		"another host name":    {strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), secure.Client(), "TLS", "fail", "host name"},
		"a known authority":    {secure.URL, secure.Client(), "TLS", "ok", "TLS 1.3, the certificate ends in"},
		"no TLS":               {strings.Replace(plain.URL, "http:", "https:", 1), nil, "TLS", "fail", "does not speak TLS"},
		"an unknown host":      {"https://nothing.invalid", nil, "DNS", "fail", "DNS server"},
		"nobody listens":       {"https://127.0.0.1:1", nil, "discovery", "fail", "firewalls"},
	} {
		findings := doctor.Run(t.Context(), doctor.Config{Config: koreauth.Config{Issuer: row.issuer, Audience: []string{"a"}, HTTPClient: row.client}})
		assertSound(t, findings)
		find(t, findings, row.check, row.level, row.text)
		_ = name
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	findings := doctor.Run(ctx, doctor.Config{Config: koreauth.Config{Issuer: plain.URL, Audience: []string{"a"}}})
	find(t, findings, "latency", "fail", "gives up after 5s")
}

func TestRun_StaticKeys(t *testing.T) {
	issuer, config := startIssuer(t)
	keys, err := koreauth.ParseKeys(issuer.JWKS())
	require.NoError(t, err)
	config.Keys = koreauth.StaticKeySet(keys)
	before := issuer.Requests(koretest.KeysEndpoint) + issuer.Requests(koretest.DiscoveryEndpoint)
	findings := doctor.Run(t.Context(), doctor.Config{Config: config, Token: issuer.Expired()})
	assertSound(t, findings)
	find(t, findings, "keys", "ok", "1 usable")
	find(t, findings, "token", "fail", "get a new token")
	assert.Equal(t, before, issuer.Requests(koretest.KeysEndpoint)+issuer.Requests(koretest.DiscoveryEndpoint))
}

func TestRun_KeysByURL(t *testing.T) {
	issuer, config := startIssuer(t)
	config.JWKSURL = issuer.KeysURL()
	findings := doctor.Run(t.Context(), doctor.Config{Config: config})
	assertSound(t, findings)
	find(t, findings, "clock", "ok", "")
	assert.Zero(t, issuer.Requests(koretest.DiscoveryEndpoint))
}

func TestRun_API(t *testing.T) {
	issuer, config := startIssuer(t)
	validator, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	guarded := koreauth.New(validator, nil).Wrap(handler)
	changed := func(change func(http.Header, *int, *string)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorder := httptest.NewRecorder()
			guarded.ServeHTTP(recorder, r)
			status, body := recorder.Code, recorder.Body.String()
			change(recorder.Header(), &status, &body)
			maps.Copy(w.Header(), recorder.Header())
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	for name, row := range map[string]struct {
		api                http.Handler
		errors             koreauth.ErrorFormat
		token              string
		check, level, text string
	}{
		"no guard":               {handler, nil, "", "api without a token", "fail", "not guarded"},
		"another format":         {guarded, koreauth.RFC6750Errors, "", "api with garbage", "fail", "Config.Errors"},
		"the format":             {koreauth.New(validator, &koreauth.Options{Errors: koreauth.ProblemErrors}).Wrap(handler), koreauth.ProblemErrors, "", "api with two tokens", "ok", "400"},
		"a rewritten status":     {changed(func(_ http.Header, status *int, _ *string) { *status = 500 }), nil, "", "api without a token", "fail", "a proxy answers"},
		"a rewritten body":       {changed(func(_ http.Header, _ *int, body *string) { *body = "<html>" }), nil, "", "api without a token", "fail", "rewrites error responses"},
		"a removed challenge":    {changed(func(h http.Header, _ *int, _ *string) { h.Del("WWW-Authenticate") }), nil, "", "api without a token", "fail", "WWW-Authenticate"},
		"a changed cache":        {changed(func(h http.Header, _ *int, _ *string) { h.Set("Cache-Control", "public") }), nil, "", "api without a token", "warn", "no-store"},
		"a token for another":    {koretestValidator(t), nil, issuer.Valid(), "api with the token", "fail", "although this Config accepts it"},
		"an accepting API":       {handler, nil, issuer.Expired(), "api with the token", "fail", "although this Config rejects it"},
		"both reject":            {guarded, nil, issuer.Expired(), "api with the token", "ok", "as this Config says"},
		"an outage":              {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), nil, issuer.Valid(), "api with the token", "fail", "no keys"},
		"a broken service":       {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }), nil, issuer.Valid(), "api with the token", "fail", "proxies"},
		"a preflight is allowed": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Access-Control-Allow-Origin", "*") }), nil, "", "api with a preflight", "ok", "allows *"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(row.api)
			defer server.Close()
			findings := doctor.Run(t.Context(), doctor.Config{Config: config, API: server.URL, Token: row.token, Errors: row.errors})
			assertSound(t, findings)
			find(t, findings, row.check, row.level, row.text)
		})
	}
	findings := doctor.Run(t.Context(), doctor.Config{Config: config, API: "http://127.0.0.1:1/"})
	assertSound(t, findings)
	find(t, findings, "api without a token", "fail", "firewalls")
}

// TestRun_BoundToken has a token that is bound to the certificate of the client, which
// HTTPClient has.
func TestRun_BoundToken(t *testing.T) {
	issuer, config := startIssuer(t)
	validator, err := koreauth.NewValidator(config)
	require.NoError(t, err)
	strict := koreauth.New(validator, &koreauth.Options{Sender: &mtls.Sender{Certificate: mtls.FromConnection}})
	careless := koreauth.New(validator, &koreauth.Options{Sender: koreauth.RequirementFunc(func(*http.Request, *koreauth.Claims) error { return nil })})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, row := range map[string]struct {
		api         http.Handler
		level, text string
	}{
		"checked":     {strict.Wrap(handler), "ok", "403"},
		"not checked": {careless.Wrap(handler), "fail", "set Options.Sender"},
		"down":        {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), "fail", "no keys"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(row.api)
			server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
			server.StartTLS()
			t.Cleanup(server.Close)
			own := server.TLS.Certificates[0] // It serves as that of the client too.
			sum := sha256.Sum256(own.Certificate[0])
			token, err := issuer.Mint(koretest.Token{Confirmation: &koreauth.Confirmation{CertificateSHA256: base64.RawURLEncoding.EncodeToString(sum[:])}})
			require.NoError(t, err)
			config := config
			config.HTTPClient = server.Client()
			config.HTTPClient.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
			findings := doctor.Run(t.Context(), doctor.Config{Config: config, API: server.URL, Token: token})
			assertSound(t, findings)
			find(t, findings, "token", "ok", "bound to the certificate")
			find(t, findings, "api with the bound token", row.level, row.text)
		})
	}
}

// koretestValidator returns a guarded handler that rejects every token.
func koretestValidator(t *testing.T) http.Handler {
	t.Helper()
	return koreauth.New(&koretest.Validator{Err: koreauth.ErrAudience}, nil).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

// TestRun_Introspection asks the issuer about the token with the credentials of the API.
func TestRun_Introspection(t *testing.T) {
	issuer, config := startIssuer(t)
	api := issuer.Client()
	opaque, err := issuer.Opaque(koretest.Token{})
	require.NoError(t, err)
	revoked := issuer.Valid()
	issuer.Deactivate(revoked)
	inactive := &http.Client{Transport: rewrite(func(req *http.Request, res *http.Response) {
		if req.Method == http.MethodPost {
			setBody(res, `{"active":false}`)
		}
	})}
	for name, row := range map[string]struct {
		token       string
		change      func(*introspection.Config)
		level, text string
	}{
		"active":            {issuer.Valid(), nil, "ok", "the token is active"},
		"opaque":            {opaque, nil, "ok", "the token is active"},
		"revoked":           {revoked, func(c *introspection.Config) { c.ClientID = api.ID }, "fail", "not active"},
		"an invented token": {"invented", nil, "fail", "it was revoked, or it is not of this issuer"},
		"the audience trap": {issuer.Valid(), func(c *introspection.Config) { c.HTTPClient = inactive }, "fail", `put the client ` + api.ID + ` into their "aud"`},
		"a wrong secret":    {opaque, func(c *introspection.Config) { c.ClientSecret = "mistyped" }, "fail", "check the endpoint, and ClientID"},
		"no such endpoint":  {opaque, func(c *introspection.Config) { c.Endpoint = issuer.URL() + "/nothing" }, "fail", "no clear answer"},
		"another audience":  {opaque, func(c *introspection.Config) { c.Audience = []string{"other"} }, "fail", "the answer does not fit: wrong audience"},
		"expired":           {issuer.Expired(), nil, "warn", "the issuer was not asked: the token was not verified"},
		"forged":            {issuer.Forged(), nil, "warn", "the issuer was not asked: the token was not verified"},
		"not a token":       {"a{b}", nil, "fail", "the issuer was not asked: the text is not a token"},
		"no certificate":    {opaque, func(c *introspection.Config) { c.Style, c.ClientSecret = introspection.None, "" }, "fail", "HTTPClient is nil"},
		"faults of its own": {opaque, func(c *introspection.Config) { c.Audience = nil }, "fail", "Config.Audience is empty"},
		"no token":          {"", nil, "warn", "without a token"},
	} {
		c := introspection.Config{Issuer: issuer.URL(), Audience: config.Audience, ClientID: api.ID, ClientSecret: api.Secret}
		if row.change != nil {
			row.change(&c)
		}
		findings := doctor.Run(t.Context(), doctor.Config{Config: config, Token: row.token, Introspection: c})
		assertSound(t, findings)
		find(t, findings, "introspection", row.level, row.text)
		for _, f := range findings {
			for _, hidden := range []string{api.Secret, "mistyped", opaque} {
				assert.NotContains(t, f.Found+f.Cure, hidden, name)
			}
		}
	}
}

func TestRun_NamesProxies(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
	t.Setenv("NO_PROXY", "127.0.0.1")
	_, config := startIssuer(t)
	findings := doctor.Run(t.Context(), doctor.Config{Config: config})
	f := find(t, findings, "proxy", "ok", "HTTPS_PROXY")
	assert.Equal(t, "HTTPS_PROXY is proxy.example:3128", f.Found)
	find(t, findings, "proxy", "ok", "NO_PROXY is 127.0.0.1")
}

func ExampleRun() {
	issuer, err := koretest.NewIssuer(nil)
	if err != nil {
		panic(err)
	}
	defer issuer.Close()
	findings := doctor.Run(context.Background(), doctor.Config{
		Config: koreauth.Config{Issuer: issuer.URL(), Audience: []string{"reports"}},
		Token:  issuer.Valid(),
	})
	for _, f := range findings {
		if f.Level != "ok" {
			fmt.Printf("%s: %s\n  %s\n", f.Check, f.Found, f.Cure)
		}
	}
	// Output:
	// token: audience: "api-gw": wrong audience
	//   get a token for this API, or add an audience mapper for it to the client at the issuer
}
