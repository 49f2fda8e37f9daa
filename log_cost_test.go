package koreauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// hostileTokens are tokens of nearly 16 KiB that anybody can make. Their signatures
// are wrong, and they reach each check that a forged token can reach.
func hostileTokens(t *testing.T) map[string]string {
	issuer := testIssuer()
	tokens := map[string]string{}
	mint := func(name string, recipe koretest.Token) {
		token, err := issuer.Mint(recipe)
		require.NoError(t, err)
		require.LessOrEqual(t, len(token), 16<<10, name)
		tokens[name] = token
	}
	fill := func(part string, size int) string { return strings.Repeat(part, size/len(part)) }
	for content, part := range map[string]string{
		"letters": "x", "at signs": "@", "dots": "a.", "e-mails": "jane.doe@example.com ", "JWT fragments": "eyJhbGciOiJSUzI1NiJ9.", "nearly a JWT": "ey.", "percent": "%40",
		"words that look like a secret": "aaaaaaaaaa.bbbbbbbbbb.", "new lines": "\n", "ANSI escapes": "\x1b[31m", "nulls": "\x00", "other scripts": "日本", "direction": "\u202e",
	} {
		const size = 1500 // in JSON, a control character takes six bytes, and in base64 a third more
		text := fill(part, size)
		for _, member := range []string{"kid", "typ", "alg"} {
			mint(content+" as "+member, koretest.Token{Header: map[string]any{member: text}, BadSignature: true})
		}
		for _, claim := range []string{"iss", "client_id", "sub", "aud", "jti", "typ", "account-id"} {
			mint(content+" as "+claim, koretest.Token{Claims: map[string]any{claim: text}, BadSignature: true})
			mint(content+" as "+claim+" with an unknown kid", koretest.Token{Claims: map[string]any{claim: text}, Header: map[string]any{"kid": "x"}})
		}
		var many []string
		for range 10 {
			many = append(many, fill(part, size/10))
		}
		mint(content+" as an array of aud", koretest.Token{Claims: map[string]any{"aud": many}, BadSignature: true, Header: map[string]any{"kid": "x"}})
	}
	for _, member := range []string{"kid", "typ", "alg"} {
		mint("11 KB as "+member, koretest.Token{Header: map[string]any{member: fill("z", 11_000)}, BadSignature: true})
	}
	for _, claim := range []string{"iss", "client_id", "sub", "aud", "typ"} {
		mint("11 KB as "+claim, koretest.Token{Claims: map[string]any{claim: fill("z", 11_000)}, BadSignature: true})
	}
	var thousand []string
	for i := range 1000 {
		thousand = append(thousand, fmt.Sprint("api", i))
	}
	mint("1,000 audiences", koretest.Token{Claims: map[string]any{"aud": thousand}, Header: map[string]any{"kid": "x"}})
	mint("scopes", koretest.Token{Claims: map[string]any{"scope": fill("a ", 10_000)}, BadSignature: true})
	tokens["garbage"] = fill("x", 16<<10)
	tokens["garbage of slashes"] = fill("/+", 16<<10)
	tokens["garbage of dots"] = fill(".", 16<<10)
	tokens["three segments of garbage"] = fill("x", 5<<10) + "." + fill("y", 5<<10) + "." + fill("z", 5<<10)
	tokens["over 16 KiB"] = fill("/", 1<<20)
	tokens["not a token68"] = fill("\x80", 16<<10)
	tokens["invalid UTF-8 in JSON"] = encodeSegment(`{"alg":"RS256","kid":"`+fill("\xff", 5000)+`"}`) + ".e30." + fill("A", 342)
	tokens["a deep header"] = encodeSegment(`{"alg":"RS256","x":`+fill("[", 5000)) + ".e30.AAAA"
	return tokens
}

// rejectionCost returns what one rejection allocates.
func rejectionCost(guard *koreauth.Middleware, r *http.Request) (allocs, size float64) {
	handler := guard.Wrap(whoami)
	w := discardingWriter{}
	handler.ServeHTTP(w, r)
	allocs, size = math.Inf(1), math.Inf(1)
	// The smallest of some runs is the cost: in the others a pool may have been empty.
	for range 5 {
		clear(w)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		handler.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		allocs, size = min(allocs, float64(after.Mallocs-before.Mallocs)), min(size, float64(after.TotalAlloc-before.TotalAlloc))
	}
	return allocs, size
}

type discardingWriter http.Header

func (w discardingWriter) Header() http.Header       { return http.Header(w) }
func (discardingWriter) Write(p []byte) (int, error) { return len(p), nil }
func (discardingWriter) WriteHeader(int)             {}

// No record costs more than twice its rejection, whatever 16 KiB the token holds.
// Memory is counted, and the text that reaches the handler: both bound the work.
func TestLog_CostIsBounded(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	validators := map[string]koreauth.TokenValidator{
		"a Validator":             newTestValidator(t),
		"a custom TokenValidator": validateFunc(func(context.Context, string) (*koreauth.Claims, error) { return nil, koreauth.ErrExpired }),
		"a TokenValidator that quotes the token": validateFunc(func(_ context.Context, token string) (*koreauth.Claims, error) {
			return nil, fmt.Errorf("%w: https://issuer.example/?token=%s", koreauth.ErrUnavailable, url.QueryEscape(token))
		}),
	}
	for validatorName, validator := range validators {
		silent := koreauth.New(validator, nil)
		logging := koreauth.New(validator, &koreauth.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		sized := &sizeHandler{}
		measured := koreauth.New(validator, &koreauth.Options{Logger: slog.New(sized)})
		for name, token := range hostileTokens(t) {
			r := bearerRequest(token)
			allocs, size := rejectionCost(silent, r)
			allocsLogged, sizeLogged := rejectionCost(logging, r)
			// The fixed part of a record, its attributes, is that of a record about nothing.
			assert.LessOrEqual(t, allocsLogged-allocs, 2*max(allocs, 20), "%s, %s: allocations of a record, of the rejection: %.0f", validatorName, name, allocs)
			assert.LessOrEqual(t, sizeLogged-size, 2*max(size, 2000), "%s, %s: bytes of a record, of the rejection: %.0f", validatorName, name, size)
			sized.bytes = 0
			measured.Wrap(whoami).ServeHTTP(discardingWriter{}, r)
			assert.Positive(t, sized.bytes, name)
			assert.LessOrEqual(t, sized.bytes, 2500, "%s, %s: bytes of text in the record", validatorName, name)
		}
	}
}

// sizeHandler adds up the lengths of the names and values of records.
type sizeHandler struct{ bytes int }

func (*sizeHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *sizeHandler) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		h.bytes += len(a.Key) + len(a.Value.String())
		return true
	})
	return nil
}

func (h *sizeHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *sizeHandler) WithGroup(string) slog.Handler { return h }

// A handler that does not quote gets printable text alone: no control characters,
// no line breaks, no invalid UTF-8, no e-mail addresses and no part of a JWT.
func TestLog_HostileTextIsPrintable(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(&plainHandler{&log})
	for name, token := range hostileTokens(t) {
		for _, method := range []string{"GET", "G\x1b[31m\nT", strings.Repeat("M", 10_000)} {
			log.Reset()
			r := bearerRequest(token)
			r.Method = method
			koreauth.New(newTestValidator(t), &koreauth.Options{Logger: logger}).Wrap(whoami).ServeHTTP(discardingWriter{}, r)
			koreauth.New(koretest.Validator{Err: fmt.Errorf("%w: %s", koreauth.ErrExpired, hostileText)}, &koreauth.Options{Logger: logger}).Wrap(whoami).ServeHTTP(discardingWriter{}, r)
			written := log.String()
			require.NotEmpty(t, written)
			assert.True(t, utf8.ValidString(written), name)
			for _, c := range written {
				require.True(t, unicode.IsPrint(c), "%s: %q in %q", name, c, written)
			}
			assert.NotContains(t, written, "@", name)
			assert.NotContains(t, written, "eyJ", name)
			assert.Less(t, len(written), 4000, name)
		}
	}
}

const hostileText = "a\nb\x1b[31m\x00\xff\u202e jane@example.com eyJhbGciOiJSUzI1NiJ9"

// plainHandler writes the values as they are.
type plainHandler struct{ to *bytes.Buffer }

func (*plainHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *plainHandler) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(h.to, "%s=%v ", a.Key, a.Value)
		return true
	})
	return nil
}

func (h *plainHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *plainHandler) WithGroup(string) slog.Handler { return h }

// A custom TokenValidator or Requirement may quote the token in its error, in any
// encoding of a URL.
func TestLog_TokenInCustomErrors(t *testing.T) {
	const opaque = "NgXCXRKcPq8d+T2mVb3sYz/Wk5eJh7uLf9aQ4oR6iM~z0Yjw==" // no part of it looks like a secret
	lower := func(text string) string {
		return strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d", "%7E", "%7e").Replace(text)
	}
	everyByte := func(text string) string {
		var all strings.Builder
		for i := range len(text) {
			fmt.Fprintf(&all, "%%%02x", text[i])
		}
		return all.String()
	}
	for name, quoted := range map[string]string{
		"as it is":                    opaque,
		"QueryEscape":                 url.QueryEscape(opaque),
		"PathEscape":                  url.PathEscape(opaque),
		"with lower-case hex":         lower(url.QueryEscape(opaque)),
		"escaped twice":               url.QueryEscape(url.QueryEscape(opaque)),
		"each byte escaped":           everyByte(opaque),
		"after another percent sign":  "100%&token=" + url.QueryEscape(opaque),
		"in quotes":                   fmt.Sprintf("%q", opaque),
		"in a JSON string":            mustMarshal(opaque),
		"in a URL":                    "https://issuer.example/introspect?a=%zz&token=" + url.QueryEscape(opaque) + "&b=%",
		"after a line break":          "x\n" + opaque + "\ny",
		"twice":                       opaque + " and " + url.QueryEscape(opaque),
		"at the cut of a long text":   strings.Repeat("x ", 505) + opaque,
		"escaped, at the cut of text": strings.Repeat("x ", 505) + url.QueryEscape(opaque),
	} {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("asked %s: %w", quoted, io.EOF)
			guards := []*koreauth.Middleware{}
			var log bytes.Buffer
			for _, validator := range []koreauth.TokenValidator{koretest.Validator{Err: err}, koretest.Validator{Claims: &koreauth.Claims{ClientID: "c"}}} {
				guards = append(guards, koreauth.New(validator, &koreauth.Options{Logger: slog.New(&plainHandler{&log})}))
			}
			guards[0].Wrap(whoami).ServeHTTP(discardingWriter{}, bearerRequest(opaque))
			guards[1].Require(&probe{err: err})(whoami).ServeHTTP(discardingWriter{}, bearerRequest(opaque))
			written := log.String()
			assert.Contains(t, written, "asked", "the rest of the cause stays")
			decoded := written
			for range 3 {
				for _, part := range []string{"XRKcPq8d", "Vb3sYz", "f9aQ4oR6", "0Yjw"} {
					assert.NotContains(t, decoded, part)
				}
				decoded = lenientUnescape(decoded)
			}
		})
	}
}

func mustMarshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func lenientUnescape(text string) string {
	var all strings.Builder
	for i := 0; i < len(text); i++ {
		if i+2 < len(text) && text[i] == '%' {
			if c, err := url.PathUnescape(text[i : i+3]); err == nil {
				all.WriteString(c)
				i += 2
				continue
			}
		}
		all.WriteByte(text[i])
	}
	return all.String()
}
