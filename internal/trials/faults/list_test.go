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

// fault is one way in which the key endpoint fails or behaves unusually.
type fault struct {
	name    string
	behave  koretest.Behavior
	network network
	forged  func(w *world) []string // forged tokens that this fault might let in
	why     string                  // why a valid token may be rejected
	brief   bool                    // run for a fifth of the time, because it takes long
}

// faults returns the faults to test, each with an API that has no keys yet and
// with one that has.
func faults() []fault {
	const problem = `{"error":"temporarily_unavailable","error_description":"try later"}`
	return []fault{
		{name: "none"},
		{name: "down: connection refused", network: network{dial: func(context.Context) error { return syscall.ECONNREFUSED }}},
		{name: "down: packets vanish", network: network{dial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}},
		{name: "down: name not found", network: network{dial: func(context.Context) error {
			return &net.DNSError{Err: "no such host", Name: "localhost", IsNotFound: true}
		}}},
		{name: "closed without a response", behave: koretest.Down},
		{name: "reset before the response", behave: koretest.Down, network: network{reset: true}},
		{name: "reset in the middle of the body", behave: cutShort, network: network{reset: true}},
		{name: "truncated, Content-Length of the whole body", behave: cutShort},
		{name: "truncated, matching Content-Length", behave: document(func(s string) string { return s[:len(s)/2] })},
		{name: "hangs before the response", behave: koretest.Hanging},
		{name: "hangs in the middle of the body", behave: drip(0)},
		{name: "sends a byte every 100 ms", behave: drip(100 * time.Millisecond)},
		{name: "responds after 4 s", behave: koretest.Slow(4 * time.Second)},
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
		{name: "HTML with Content-Type application/json", behave: koretest.Garbage},
		{name: "empty body", behave: koretest.Empty},
		{name: "`{}`", behave: status(200, `{}`)},
		{name: "`{\"keys\":null}`", behave: status(200, `{"keys":null}`)},
		{name: "`{\"keys\":[]}`", behave: status(200, `{"keys":[]}`)},
		{name: "`{\"keys\":{}}`", behave: status(200, `{"keys":{}}`)},
		{name: "`{\"Keys\":[…]}`", behave: document(func(s string) string { return strings.Replace(s, `"keys"`, `"Keys"`, 1) })},
		{name: "`null`", behave: status(200, `null`)},
		{name: "a JSON array", behave: document(func(s string) string { return "[" + s + "]" })},
		{name: "1 MB of `[`", behave: status(200, strings.Repeat("[", 1<<20)), brief: true},
		{name: "key set, then more JSON", behave: document(func(s string) string { return s + "{}" })},
		{name: "key set with Content-Type text/html", behave: status200(func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html") })},
		{name: "50 MB", behave: flood(50<<20, nil)},
		{name: "50 MB with a Content-Length", behave: flood(50<<20, func(h http.Header) { h.Set("Content-Length", strconv.Itoa(50<<20)) })},
		{name: "endless body", behave: flood(1<<40, nil)},
		{name: "endless header", behave: raw("HTTP/1.1 200 OK\r\n", "X-Endless: "+strings.Repeat("x", 1000)+"\r\n"), brief: true},
		{name: "endless 103 Early Hints", behave: raw("", "HTTP/1.1 103 Early Hints\r\nLink: <"+strings.Repeat("x", 1000)+">\r\n\r\n"), brief: true},
		{name: "not HTTP", behave: raw("SSH-2.0-OpenSSH_9.9\r\n", "")},
		{name: "gzip bomb, 1 MB for 1 GB", behave: bomb},
		{name: "Content-Encoding gzip, body not gzip", behave: status(200, "not gzip", "Content-Encoding: gzip")},
		{name: "100,000 keys, 17 MB", behave: among(many(100_000)), brief: true},
		{name: "1,000 keys, 175 KB", behave: among(many(997)), brief: true},
		{name: "2,000 keys, 350 KB", behave: among(many(2_000)), brief: true, why: "only the first 1,000 keys are read, and the issuer's are behind them"},
		{name: "20,000 `{}` among valid keys", behave: among(strings.Repeat("{},", 20_000)), brief: true},
		{name: "one invalid key among valid ones", behave: among(`{"kty":"RSA","kid":"broken","n":"*","e":"AQAB"},`)},
		{name: "`null`, a number and a string among valid keys", behave: among(`null,1,"x",`)},
		{name: "only an invalid key", behave: status(200, `{"keys":[{"kty":"RSA","kid":"first","n":"*","e":"AQAB"}]}`)},
		{name: "ML-DSA and other unknown types among valid keys", behave: among(unknownTypes()), forged: func(w *world) []string {
			return []string{w.mint(koretest.Token{Key: named(forgerKey, "pq"), Header: map[string]any{"alg": "ML-DSA-44"}})}
		}},
		{name: "only ML-DSA and other unknown types", behave: status(200, set(unknownTypes()))},
		{name: "a private key among valid keys", behave: among(privateKey()), forged: signedByTheLeakedKey},
		{name: "only a private key", behave: status(200, set(privateKey())), forged: signedByTheLeakedKey},
		{name: "a shared secret among valid keys", behave: among(`{"kty":"oct","kid":"shared","alg":"HS256","k":"c2VjcmV0"},`), forged: func(w *world) []string {
			return []string{w.mint(koretest.Token{Key: &koretest.Key{ID: "shared", Algorithm: "HS256", Private: []byte("secret")}})}
		}},
		{name: "endless redirect to itself", behave: redirect(func(int) string { return "?" })},
		{name: "redirect loop of two", behave: redirect(func(hop int) string { return "?hop=" + strconv.Itoa(1-hop%2) })},
		{name: "three redirects to the same host", behave: hops(3)},
		{name: "four redirects to the same host", behave: hops(4)},
		{name: "redirect to another port, with a forger's keys", behave: otherOrigin("http://" + otherHost), forged: signedByTheForger},
		{name: "redirect to another host, with a forger's keys", behave: otherOrigin("http://127.0.0.1:8080"), forged: signedByTheForger},
		{name: "redirect to another scheme", behave: otherOrigin("https://" + issuerHost)},
		{name: "redirect without a Location", behave: status(302, "")},
	}
}

func signedByTheLeakedKey(w *world) []string {
	return []string{w.valid(named(forgerKey, "leaked"))}
}

func signedByTheForger(w *world) []string { return []string{w.valid(forgerKey)} }

// handle is a Behavior that responds instead of the issuer.
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

// proper returns the body that the issuer itself would send.
func proper(next http.Handler, r *http.Request) string {
	r = r.Clone(r.Context())
	r.Header.Del("If-None-Match")
	recorder := httptest.NewRecorder()
	next.ServeHTTP(recorder, r)
	return recorder.Body.String()
}

// changed is a Behavior whose response is made from the proper document.
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

// status200 calls before, and then sends the proper document.
func status200(before func(http.ResponseWriter)) koretest.Behavior {
	return changed(func(w http.ResponseWriter, _ *http.Request, s string) {
		before(w)
		_, _ = io.WriteString(w, s)
	})
}

// among adds members before the proper keys.
func among(members string) koretest.Behavior {
	return changed(func(w http.ResponseWriter, _ *http.Request, s string) {
		for _, part := range []string{`{"keys":[`, members, strings.TrimPrefix(s, `{"keys":[`)} {
			_, _ = io.WriteString(w, part) // An error means that the client has read enough.
		}
	})
}

var cutShort = changed(func(w http.ResponseWriter, _ *http.Request, s string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(s)))
	_, _ = io.WriteString(w, s[:len(s)/2])
	panic(http.ErrAbortHandler)
})

// drip sends one byte at a time. Without a pause it sends one byte and then hangs.
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

// flood sends size spaces, or fewer if the client stops reading.
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

// raw sends the bytes of first, and then those of endlessly until the client stops
// reading.
func raw(first, endlessly string) koretest.Behavior {
	again := []byte(endlessly)
	return handle(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err) // cannot happen: the server speaks HTTP/1.1
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, first)
		for err == nil && len(again) > 0 {
			_, err = conn.Write(again)
		}
	})
}

// bomb sends gzip with many members, each of 1 MB of spaces.
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

// ecJWK returns a P-256 key in the form of RFC 7518 §6.2, with more members.
func ecJWK(kid string, key *koretest.Key, more string) string {
	point, err := key.Public().(*ecdsa.PublicKey).Bytes() // 4, X, Y
	if err != nil {
		panic(err) // cannot happen: the key is from NewKey
	}
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q%s},`, kid, base64URL(point[1:33]), base64URL(point[33:]), more)
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// set returns a key set of members, each of which ends in a comma.
func set(members string) string { return `{"keys":[` + strings.TrimSuffix(members, ",") + `]}` }

// many returns valid keys, each with its own kid.
func many(count int) string {
	var document strings.Builder
	key := strings.SplitN(ecJWK("", forgerKey, `,"alg":"ES256"`), `"kid":""`, 2)
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

// privateKey returns the forger's key with its private part.
func privateKey() string {
	d, err := forgerKey.Private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		panic(err) // cannot happen: the key is from NewKey
	}
	return ecJWK("leaked", forgerKey, `,"d":"`+base64URL(d)+`"`)
}

// redirect responds with a redirect to the URL for a hop. The first hop is zero.
func redirect(to func(hop int) string) koretest.Behavior {
	return handle(func(w http.ResponseWriter, r *http.Request) {
		hop, _ := strconv.Atoi(r.URL.Query().Get("hop")) // An error means zero: the first hop.
		w.Header().Set("Location", to(hop))
		w.WriteHeader(http.StatusFound)
	})
}

// hops responds properly after count redirects.
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

// otherOrigin redirects to another origin, which serves a forger's keys.
func otherOrigin(origin string) koretest.Behavior {
	return handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("there") {
			_, _ = io.WriteString(w, set(ecJWK(forgerKey.ID, forgerKey, "")))
			return
		}
		http.Redirect(w, r, origin+r.URL.Path+"?there", http.StatusFound)
	})
}
