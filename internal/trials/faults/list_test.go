package faults_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/koreauth/koreauth/koretest"
)

// fault is one way in which the key endpoint is broken or odd.
type fault struct {
	name    string
	behave  koretest.Behavior
	network network
	forged  func(w *world) []string // tokens that this fault invites
	brief   bool                    // a fifth of the time, for it is expensive to play
}

// faults are played at the start of an API and while it has keys.
func faults() []fault {
	const problem = `{"error":"temporarily_unavailable","error_description":"try later"}`
	return []fault{
		{name: "none"},
		{name: "down: connection refused", network: network{dial: func(context.Context) error { return syscall.ECONNREFUSED }}},
		{name: "down: packets vanish", network: network{dial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}},
		{name: "down: name not found", network: network{dial: func(context.Context) error {
			return &net.DNSError{Err: "no such host", Name: "localhost", IsNotFound: true}
		}}},
		{name: "closed without an answer", behave: koretest.Down},
		{name: "reset before the answer", behave: koretest.Down, network: network{reset: true}},
		{name: "reset in the middle of the body", behave: cutShort, network: network{reset: true}},
		{name: "truncated, with the Content-Length of the whole", behave: cutShort},
		{name: "truncated, in good form", behave: document(func(s string) string { return s[:len(s)/2] })},
		{name: "hangs before the answer", behave: koretest.Hanging},
		{name: "hangs in the middle of the body", behave: drip(0)},
		{name: "drips a byte every 100 ms", behave: drip(100 * time.Millisecond)},
		{name: "answers after 4 s", behave: koretest.Slow(4 * time.Second)},
		{name: "404 without a body", behave: status(404, "")},
		{name: "404 with JSON", behave: status(404, problem)},
		{name: "404 with the key set", behave: withStatus(404)},
		{name: "500 without a body", behave: status(500, "")},
		{name: "500 with JSON", behave: status(500, problem)},
		{name: "500 with the key set", behave: withStatus(500)},
		{name: "503 without a body", behave: status(503, "", "Retry-After: 3600")},
		{name: "503 with JSON", behave: status(503, problem, "Retry-After: 3600")},
		{name: "429 with Retry-After: 3600", behave: status(429, "", "Retry-After: 3600")},
		{name: "401 with JSON", behave: status(401, problem)},
		{name: "204", behave: status(204, "")},
		{name: "206 with the key set", behave: withStatus(206)},
		{name: "200 with an error in JSON", behave: status(200, problem)},
		{name: "HTML called JSON", behave: koretest.Garbage},
		{name: "empty body", behave: koretest.Empty},
		{name: "`{}`", behave: status(200, `{}`)},
		{name: "`{\"keys\":null}`", behave: status(200, `{"keys":null}`)},
		{name: "`{\"keys\":[]}`", behave: status(200, `{"keys":[]}`)},
		{name: "`{\"keys\":{}}`", behave: status(200, `{"keys":{}}`)},
		{name: "`{\"Keys\":[…]}`", behave: document(func(s string) string { return strings.Replace(s, `"keys"`, `"Keys"`, 1) })},
		{name: "`null`", behave: status(200, `null`)},
		{name: "a JSON array", behave: document(func(s string) string { return "[" + s + "]" })},
		{name: "1 MB of `[`", behave: status(200, strings.Repeat("[", 1<<20)), brief: true},
		{name: "key set with something after it", behave: document(func(s string) string { return s + "{}" })},
		{name: "key set called text/html", behave: status200(func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html") })},
		{name: "50 MB", behave: flood(50<<20, nil)},
		{name: "50 MB with a Content-Length", behave: flood(50<<20, func(h http.Header) { h.Set("Content-Length", strconv.Itoa(50<<20)) })},
		{name: "endless body", behave: flood(1<<40, nil)},
		{name: "endless header", behave: raw("HTTP/1.1 200 OK\r\n", "X-Endless: "+strings.Repeat("x", 1000)+"\r\n"), brief: true},
		{name: "endless 103 Early Hints", behave: raw("", "HTTP/1.1 103 Early Hints\r\nLink: <"+strings.Repeat("x", 1000)+">\r\n\r\n"), brief: true},
		{name: "not HTTP", behave: raw("SSH-2.0-OpenSSH_9.9\r\n", "")},
		{name: "gzip bomb, 1 MB for 1 GB", behave: bomb},
		{name: "gzip that is none", behave: status(200, "not gzip", "Content-Encoding: gzip")},
		{name: "100,000 keys, 17 MB", behave: among(many(100_000)), brief: true},
		{name: "2,000 keys, 350 KB", behave: among(many(2_000)), brief: true},
		{name: "20,000 `{}` among good keys", behave: among(strings.Repeat("{},", 20_000)), brief: true},
		{name: "one broken key among good ones", behave: among(`{"kty":"RSA","kid":"broken","n":"*","e":"AQAB"},`)},
		{name: "`null`, a number and a string among good keys", behave: among(`null,1,"x",`)},
		{name: "only a broken key", behave: status(200, `{"keys":[{"kty":"RSA","kid":"first","n":"*","e":"AQAB"}]}`)},
		{name: "ML-DSA and other unknown types among good keys", behave: among(unknownTypes()), forged: func(w *world) []string {
			return []string{w.mint(koretest.Token{Key: named(strangerKey, "pq"), Header: map[string]any{"alg": "ML-DSA-44"}})}
		}},
		{name: "only ML-DSA and other unknown types", behave: status(200, set(unknownTypes()))},
		{name: "a private key among good ones", behave: among(privateKey()), forged: signedByTheLeaked},
		{name: "only a private key", behave: status(200, set(privateKey())), forged: signedByTheLeaked},
		{name: "a shared secret among good keys", behave: among(`{"kty":"oct","kid":"shared","alg":"HS256","k":"c2VjcmV0"},`), forged: func(w *world) []string {
			return []string{w.mint(koretest.Token{Key: &koretest.Key{ID: "shared", Algorithm: "HS256", Private: []byte("secret")}})}
		}},
		{name: "redirect to itself, for ever", behave: redirect(func(int) string { return "?" })},
		{name: "redirect loop of two", behave: redirect(func(hop int) string { return "?hop=" + strconv.Itoa(1-hop%2) })},
		{name: "three redirects to the same host", behave: hops(3)},
		{name: "four redirects to the same host", behave: hops(4)},
		{name: "redirect to another port, which has a forger's keys", behave: elsewhere("http://" + otherHost), forged: signedByTheStranger},
		{name: "redirect to another host, which has a forger's keys", behave: elsewhere("http://127.0.0.1:8080"), forged: signedByTheStranger},
		{name: "redirect to another scheme", behave: elsewhere("https://" + issuerHost)},
		{name: "redirect without a Location", behave: status(302, "")},
	}
}

func signedByTheLeaked(w *world) []string {
	return []string{w.valid(named(strangerKey, "leaked"))}
}

func signedByTheStranger(w *world) []string { return []string{w.valid(strangerKey)} }

// handle is a Behavior that does not ask the issuer.
func handle(h http.HandlerFunc) koretest.Behavior {
	return func(http.Handler) http.Handler { return h }
}

func status(code int, body string, lines ...string) koretest.Behavior {
	return handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
}

// proper is the issuer's own answer to a request.
func proper(next http.Handler, r *http.Request) string {
	r = r.Clone(r.Context())
	r.Header.Del("If-None-Match")
	recorder := httptest.NewRecorder()
	next.ServeHTTP(recorder, r)
	return recorder.Body.String()
}

// changed is a Behavior that answers with something made of the proper document.
func changed(answer func(w http.ResponseWriter, r *http.Request, document string)) koretest.Behavior {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, proper(next, r)) })
	}
}

func document(change func(string) string) koretest.Behavior {
	return changed(func(w http.ResponseWriter, _ *http.Request, s string) { _, _ = io.WriteString(w, change(s)) })
}

func withStatus(code int) koretest.Behavior {
	return status200(func(w http.ResponseWriter) { w.WriteHeader(code) })
}

// status200 is the proper document after whatever before does.
func status200(before func(http.ResponseWriter)) koretest.Behavior {
	return changed(func(w http.ResponseWriter, _ *http.Request, s string) {
		before(w)
		_, _ = io.WriteString(w, s)
	})
}

// among puts more keys before the proper ones.
func among(members string) koretest.Behavior {
	return changed(func(w http.ResponseWriter, _ *http.Request, s string) {
		for _, part := range []string{`{"keys":[`, members, strings.TrimPrefix(s, `{"keys":[`)} {
			_, _ = io.WriteString(w, part) // Who has read enough hangs up.
		}
	})
}

var cutShort = changed(func(w http.ResponseWriter, _ *http.Request, s string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(s)))
	_, _ = io.WriteString(w, s[:len(s)/2])
	panic(http.ErrAbortHandler)
})

// drip sends a byte at a time. Zero means one byte, and no more.
func drip(pause time.Duration) koretest.Behavior {
	return changed(func(w http.ResponseWriter, r *http.Request, s string) {
		w.Header().Set("Content-Length", strconv.Itoa(len(s)))
		for i := range s {
			if _, err := io.WriteString(w, s[i:i+1]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			if pause == 0 {
				<-r.Context().Done()
				return
			}
			time.Sleep(pause)
		}
	})
}

var piece = bytes.Repeat([]byte(" "), 64<<10)

// flood sends so many spaces, or as many as somebody reads.
func flood(size int64, header func(http.Header)) koretest.Behavior {
	return handle(func(w http.ResponseWriter, _ *http.Request) {
		if header != nil {
			header(w.Header())
		}
		for range size / int64(len(piece)) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
}

// raw answers with these bytes, then with the others for as long as somebody
// reads.
func raw(first, endlessly string) koretest.Behavior {
	again := []byte(endlessly)
	return handle(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err) // HTTP/1.1 can be hijacked
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, first)
		for err == nil && len(again) > 0 {
			_, err = conn.Write(again)
		}
	})
}

// bomb is gzip of many members, each 1 MB of spaces.
var bomb = handle(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	for range 1 << 10 {
		if _, err := w.Write(spaces()); err != nil {
			return
		}
	}
})

var spaces = sync.OnceValue(func() []byte {
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	for range (1 << 20) / len(piece) {
		_, _ = writer.Write(piece) // A Buffer never fails.
	}
	_ = writer.Close()
	return packed.Bytes()
})

// ecJWK is a P-256 key as RFC 7518 §6.2 writes it, with more members if wanted.
func ecJWK(kid string, key *koretest.Key, more string) string {
	point, err := key.Public().(*ecdsa.PublicKey).Bytes() // 4, X, Y
	if err != nil {
		panic(err) // NewKey made it
	}
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q%s},`, kid, base64URL(point[1:33]), base64URL(point[33:]), more)
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// set is a key set of those members, each with a comma behind it.
func set(members string) string { return `{"keys":[` + strings.TrimSuffix(members, ",") + `]}` }

// many is so many good keys, each of another kid.
func many(count int) string {
	var document strings.Builder
	key := strings.SplitN(ecJWK("", strangerKey, `,"alg":"ES256"`), `"kid":""`, 2)
	for i := range count {
		fmt.Fprintf(&document, `%s"kid":"one-of-many-%d"%s`, key[0], i, key[1])
	}
	return document.String()
}

func unknownTypes() string {
	pub := base64URL(make([]byte, 1312))
	return `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"` + pub + `"},` +
		`{"kty":"OKP","crv":"X25519","kid":"dh","x":"` + pub[:43] + `"},` +
		`{"kty":"OKP","crv":"Ed448","kid":"448","x":"` + pub[:76] + `"},` +
		`{"kty":"EC","crv":"secp256k1","kid":"k1","x":"` + pub[:43] + `","y":"` + pub[:43] + `"},` +
		`{"kty":"??","kid":"odd"},`
}

// privateKey is the stranger's key, private half and all.
func privateKey() string {
	d, err := strangerKey.Private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		panic(err) // NewKey made it
	}
	return ecJWK("leaked", strangerKey, `,"d":"`+base64URL(d)+`"`)
}

// redirect answers with a redirect to the place of that hop, zero first.
func redirect(to func(hop int) string) koretest.Behavior {
	return handle(func(w http.ResponseWriter, r *http.Request) {
		hop, _ := strconv.Atoi(r.URL.Query().Get("hop")) // None is the first.
		w.Header().Set("Location", to(hop))
		w.WriteHeader(http.StatusFound)
	})
}

// hops answers after so many redirects.
func hops(count int) koretest.Behavior {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hop, _ := strconv.Atoi(r.URL.Query().Get("hop")); hop < count {
				w.Header().Set("Location", "?hop="+strconv.Itoa(hop+1))
				w.WriteHeader(http.StatusFound)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// elsewhere redirects to another origin, where a forger's keys are.
func elsewhere(origin string) koretest.Behavior {
	return handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("there") {
			_, _ = io.WriteString(w, set(ecJWK(strangerKey.ID, strangerKey, "")))
			return
		}
		http.Redirect(w, r, origin+r.URL.Path+"?there", http.StatusFound)
	})
}
