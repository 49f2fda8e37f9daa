package koreauth_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// notes are what the handler, an outer middleware and the client observe.
type notes struct {
	mu    sync.Mutex // guards the fields
	lines []string
	files []string // temporary files of multipart forms
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

// scene is one exchange with a real server.
type scene struct {
	name   string
	only1  bool // HTTP/1.1 only
	handle func(n *notes, w http.ResponseWriter, r *http.Request)
	send   func(t *testing.T, n *notes, server *httptest.Server)
}

// request sends a request with a token and notes the response.
func request(t *testing.T, n *notes, server *httptest.Server, edit func(*http.Request), body io.Reader) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/sims/7", body)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer a")
	if edit != nil {
		edit(r)
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		n.add("client: an error")
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	n.add("client: %d %q %v, trailer %v", resp.StatusCode, text, err, resp.Trailer)
}

// raw sends bytes over a plain connection and notes the status line.
func raw(t *testing.T, n *notes, server *httptest.Server, text string) {
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	n.add("client: %q %v", line, err)
}

func multipartBody(t *testing.T) (contentType string, body *bytes.Buffer) {
	body = new(bytes.Buffer)
	form := multipart.NewWriter(body)
	part, err := form.CreateFormFile("file", "a.bin")
	require.NoError(t, err)
	_, _ = part.Write(make([]byte, 200<<10))
	require.NoError(t, form.WriteField("field", "value"))
	require.NoError(t, form.Close())
	return form.FormDataContentType(), body
}

func sendMultipart(t *testing.T, n *notes, server *httptest.Server) {
	contentType, body := multipartBody(t)
	request(t, n, server, func(r *http.Request) { r.Header.Set("Content-Type", contentType) }, body)
}

func noteFile(n *notes, r *http.Request) {
	n.add("handler: ParseMultipartForm: %v", r.ParseMultipartForm(1))
	file, _, err := r.FormFile("file")
	if err != nil {
		n.add("handler: FormFile: %v", err)
		return
	}
	defer file.Close()
	onDisk, ok := file.(*os.File)
	n.add("handler: the file is on disk: %t", ok)
	if ok {
		n.mu.Lock()
		n.files = append(n.files, onDisk.Name())
		n.mu.Unlock()
	}
}

func scenes() []scene {
	plain := func(t *testing.T, n *notes, server *httptest.Server) { request(t, n, server, nil, nil) }
	text := func(t *testing.T, n *notes, server *httptest.Server) {
		request(t, n, server, nil, strings.NewReader("hello"))
	}
	form := func(t *testing.T, n *notes, server *httptest.Server) {
		request(t, n, server, func(r *http.Request) {
			r.URL.RawQuery = "q=1"
			r.Header.Set("Content-Type", formType)
		}, strings.NewReader("a=1&a=2"))
	}
	return []scene{
		{"no body", false, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			n.add("handler: %q %v %d", body, err, r.ContentLength)
		}, plain},
		{"a multipart form", false, func(n *notes, _ http.ResponseWriter, r *http.Request) { noteFile(n, r) }, sendMultipart},
		{"a multipart form, and a panic that outer middleware recovers", false, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			noteFile(n, r)
			panic("of the handler")
		}, sendMultipart},
		{"a multipart form that is read in parts", false, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			reader, err := r.MultipartReader()
			n.add("handler: MultipartReader: %v", err)
			for err == nil {
				var part *multipart.Part
				if part, err = reader.NextPart(); err == nil {
					n.add("handler: part %s", part.FormName())
				}
			}
			n.add("handler: then ParseMultipartForm: %v", r.ParseMultipartForm(1))
		}, sendMultipart},
		{"a form", false, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			n.add("handler: %v %v", r.FormValue("a"), r.FormValue("q"))
		}, form},
		{"a form that is not parsed", false, func(*notes, http.ResponseWriter, *http.Request) {}, form},
		{"announced trailers", false, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			_, announced := r.Trailer["X-Sum"]
			body, err := io.ReadAll(r.Body)
			n.add("handler: announced %t, body %q %v, X-Sum %q", announced, body, err, r.Trailer.Get("X-Sum"))
		}, func(t *testing.T, n *notes, server *httptest.Server) {
			var sent *http.Request
			body := readerFunc(func(p []byte) (int, error) {
				sent.Trailer.Set("X-Sum", "7")
				return copy(p, "hello"), io.EOF
			})
			request(t, n, server, func(r *http.Request) {
				r.Trailer, r.ContentLength, sent = http.Header{"X-Sum": nil}, -1, r
			}, body)
		}},
		{"trailers that are not announced", true, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			n.add("handler: body %q %v, X-Late %q", body, err, r.Trailer.Get("X-Late"))
		}, func(t *testing.T, n *notes, server *httptest.Server) {
			raw(t, n, server, "POST /v1/sims/7 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 7\r\n\r\n")
		}},
		{"trailers of the response", false, func(_ *notes, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Done")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Done", "yes")
			w.Header().Set(http.TrailerPrefix+"X-Late", "too")
		}, plain},
		{"ResponseController", false, func(n *notes, w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			deadline := time.Now().Add(time.Minute)
			n.add("handler: read %v, write %v, duplex %t", c.SetReadDeadline(deadline), c.SetWriteDeadline(deadline), c.EnableFullDuplex() == nil)
			_, _ = io.WriteString(w, "a")
			n.add("handler: flush %v", c.Flush())
			body, err := io.ReadAll(r.Body)
			n.add("handler: %q %v", body, err)
		}, text},
		{"interfaces of the writer", false, func(n *notes, w http.ResponseWriter, r *http.Request) {
			_, flusher := w.(http.Flusher)
			_, hijacker := w.(http.Hijacker)
			_, pusher := w.(http.Pusher)
			//lint:ignore SA1019 Old handlers still use it.
			_, notifier := w.(http.CloseNotifier)
			_, readerFrom := w.(io.ReaderFrom)
			n.add("handler: flusher %t hijacker %t pusher %t notifier %t ReaderFrom %t; %s", flusher, hijacker, pusher, notifier, readerFrom, r.Proto)
		}, plain},
		{"Hijack", true, func(n *notes, w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			n.add("handler: hijack %v", err)
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		}, plain},
		{"Expect: 100-continue, and a handler that reads", true, func(n *notes, _ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			n.add("handler: %q %v", body, err)
		}, sendExpect},
		{"Expect: 100-continue, and a handler that does not read", true, func(_ *notes, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
		}, sendExpect},
		{"a large upload is streamed", false, func(n *notes, w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 1<<10))
			w.WriteHeader(http.StatusAccepted)
			_ = http.NewResponseController(w).EnableFullDuplex()
			_ = http.NewResponseController(w).Flush() // The client sends the rest when it has this.
			rest, restErr := io.Copy(io.Discard, r.Body)
			n.add("handler: %v, then %d %v", err, rest, restErr)
		}, func(t *testing.T, n *notes, server *httptest.Server) {
			reader, writer := io.Pipe()
			got := make(chan struct{})
			go func() {
				_, _ = writer.Write(make([]byte, 1<<10))
				<-got
				for range 64 {
					_, _ = writer.Write(make([]byte, 64<<10))
				}
				writer.Close()
			}()
			request(t, n, server, func(r *http.Request) {
				*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotFirstResponseByte: func() { close(got) }}))
			}, reader)
		}},
		{"the handler's panic", true, func(*notes, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, plain},
	}
}

// sendExpect sends a body when the server asks for it.
func sendExpect(t *testing.T, n *notes, server *httptest.Server) {
	server.Client().Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
	request(t, n, server, func(r *http.Request) {
		r.Header.Set("Expect", "100-continue")
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got100Continue: func() { n.add("client: 100") },
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { n.add("client: %d", code); return nil },
		}))
	}, strings.NewReader("hello"))
}

// observe plays the scene and returns what was observed.
func (s *scene) observe(t *testing.T, http2, muxInside bool, guard func(http.Handler) http.Handler) []string {
	n := new(notes)
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.add("handler: pattern %q, id %q, path %q", r.Pattern, r.PathValue("id"), r.PathValue("rest"))
		s.handle(n, w, r)
	}))
	mux := http.NewServeMux()
	const pattern = "POST /v1/{kind}/{rest...}"
	if muxInside {
		mux.Handle(pattern, handler)
		handler = guard(mux)
	} else {
		mux.Handle(pattern, guard(handler))
		handler = mux
	}
	var running sync.WaitGroup
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		defer func() {
			p := recover()
			n.add("outer: panic %v, pattern %q, kind %q, rest %q, Form %v, PostForm %v, multipart %t, X-Sum %q, X-Late %q", p, r.Pattern, r.PathValue("kind"), r.PathValue("rest"),
				r.Form, r.PostForm, r.MultipartForm != nil, r.Trailer.Get("X-Sum"), r.Trailer.Get("X-Late"))
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
		}()
		handler.ServeHTTP(w, r)
	})
	server := httptest.NewUnstartedServer(outer)
	server.EnableHTTP2 = http2
	if http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	s.send(t, n, server)
	server.Close() // waits for the end of all requests, but of those whose connection was hijacked
	running.Wait()
	for _, file := range n.files {
		_, err := os.Stat(file)
		n.add("file: removed %t", errors.Is(err, os.ErrNotExist))
		_ = os.Remove(file)
	}
	return n.sorted()
}

// sorted returns the lines by observer, since the client and the server run at the
// same time.
func (n *notes) sorted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := slices.Clone(n.lines)
	slices.SortStableFunc(lines, func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return lines
}

// The handler, an outer middleware, net/http and the client observe the same with and
// without a guard.
func TestMiddleware_SameRequest(t *testing.T) {
	none := func(next http.Handler) http.Handler { return next }
	guards := map[string]func(http.Handler) http.Handler{
		"Wrap":                   koreauth.New(newTokenTable(), nil).Wrap,
		"WrapOptional":           koreauth.New(newTokenTable(), nil).WrapOptional,
		"Require":                koreauth.New(newTokenTable(), nil).Require(koreauth.Scope("scope-a")),
		"Require inside of Wrap": nil,
		"two Middlewares": func(next http.Handler) http.Handler {
			return koreauth.New(newTokenTable(), nil).Wrap(koreauth.New(newTokenTable(), nil).Wrap(next))
		},
	}
	one := koreauth.New(newTokenTable(), nil)
	guards["Require inside of Wrap"] = func(next http.Handler) http.Handler { return one.Wrap(one.Require(koreauth.Scope("scope-a"))(next)) }
	for _, s := range scenes() {
		for _, http2 := range []bool{false, true} {
			if http2 && s.only1 {
				continue
			}
			for _, muxInside := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, HTTP/2 %t, ServeMux inside %t", s.name, http2, muxInside), func(t *testing.T) {
					want := s.observe(t, http2, muxInside, none)
					require.NotEmpty(t, want)
					for name, guard := range guards {
						assert.Equal(t, want, s.observe(t, http2, muxInside, guard), name)
					}
				})
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A guard rejects a request without reading its body.
func TestMiddleware_RejectsWithoutReading(t *testing.T) {
	for _, validator := range []koreauth.TokenValidator{newTokenTable(), koretest.Validator{Err: koreauth.ErrUnavailable}} {
		server := httptest.NewServer(koreauth.New(validator, nil).Wrap(whoami))
		n := new(notes)
		server.Client().Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
		request(t, n, server, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer wrong")
			r.Header.Set("Expect", "100-continue")
			*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got100Continue: func() { n.add("100") }}))
		}, readerFunc(func([]byte) (int, error) {
			n.add("the body is sent")
			return 0, io.EOF
		}))
		server.Close()
		require.Len(t, n.lines, 1)
		assert.Contains(t, n.lines[0], "client: ")
	}
}
