package koreauth_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
)

// Faults that an attack on the package has found, so that they stay mended.

// transport is an http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// serving answers with a key document, until it is told to do otherwise.
func serving(document []byte, otherwise *atomic.Pointer[transport]) *http.Client {
	return &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		if other := otherwise.Load(); other != nil {
			return (*other)(r)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(document))), Request: r}, nil
	})}
}

func TestNoCrowdGetsKeysBeyondMaxStale(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Minute, MaxStale: time.Minute, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		down := transport(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })
		otherwise.Store(&down)
		time.Sleep(time.Minute)
		var served atomic.Int64
		for range 200 {
			var crowd sync.WaitGroup
			for range 32 {
				crowd.Go(func() {
					if keys, err := set.Keys(t.Context(), kid, true); err == nil || len(keys) > 0 {
						served.Add(1)
					}
				})
			}
			crowd.Wait()
			time.Sleep(250 * time.Millisecond)
		}
		assert.Zero(t, served.Load(), "times that keys were served after MaxStale")
	})
}

func TestARefreshThatFailsAfterMaxStaleServesNothing(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Hour, MaxStale: 3 * time.Hour, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		hang := transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		otherwise.Store(&hang)
		time.Sleep(3*time.Hour - time.Second)
		keys, err := set.Keys(t.Context(), kid, true) // waits for 5 s
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Empty(t, keys)
	})
}

// deafBody heeds Close, and nothing else.
type deafBody chan struct{}

func (b deafBody) Read([]byte) (int, error) { <-b; return 0, io.ErrClosedPipe }

func (b deafBody) Close() error {
	select {
	case <-b:
	default:
		close(b)
	}
	return nil
}

func TestABodyThatDoesNotHeedTheContextEndsIn5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: make(deafBody), Request: r}, nil
		})}}
		start := time.Now()
		_, err := set.Keys(t.Context(), "", true)
		require.ErrorIs(t, err, koreauth.ErrUnavailable)
		assert.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestATryThatTakesLongerThanMaxAgeMakesNobodyWaitAgain(t *testing.T) {
	document, kid := documentOf(t, signingKeys()["ES256"]), signingKeys()["ES256"].ID
	synctest.Test(t, func(t *testing.T) {
		var otherwise atomic.Pointer[transport]
		set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", MaxAge: time.Second, HTTPClient: serving(document, &otherwise)}
		_, err := set.Keys(t.Context(), kid, true)
		require.NoError(t, err)
		hang := transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		otherwise.Store(&hang)
		for range 60 {
			time.Sleep(500 * time.Millisecond)
			start := time.Now()
			_, err := set.Keys(t.Context(), kid, true)
			require.NoError(t, err)
			assert.Zero(t, time.Since(start), "waited")
		}
		time.Sleep(5 * time.Second)
	})
}

func TestAKeyWithACurveAndNoPointPanicsNot(t *testing.T) {
	issuer, v := judge(t, "ES256", func(c *koreauth.Config) {
		c.Algorithms, c.HTTPClient = []string{"ES256"}, nil
		c.Keys = koreauth.StaticKeySet{{ID: signingKeys()["ES256"].ID, Public: &ecdsa.PublicKey{Curve: elliptic.P256()}}}
	})
	_, err := v.Validate(t.Context(), issuer.Valid())
	assert.ErrorIs(t, err, koreauth.ErrUnknownKey)
}

// compressing is a writer as gzip middleware makes it.
type compressing struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (c compressing) Write(b []byte) (int, error) { return c.z.Write(b) }

func TestARefusalSurvivesACompressingWriterOutside(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		guard.Wrap(http.NotFoundHandler()).ServeHTTP(compressing{w, z}, r)
	}))
	defer server.Close()
	res, err := server.Client().Get(server.URL) // which takes gzip, and undoes it
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, `{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}`, string(body))
}

func TestNoMoreOfABodyIsReadForTheLog(t *testing.T) {
	for name, logger := range map[string]*slog.Logger{"silent": nil, "logging": slog.New(slog.NewTextHandler(io.Discard, nil))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Logger: logger, Sources: []koreauth.Source{koreauth.Form("access_token")}})
				reader, writer := io.Pipe()
				r := httptest.NewRequest(http.MethodPost, "/", reader)
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				go func() {
					_, _ = writer.Write(make([]byte, 64<<10+1))
					time.Sleep(time.Hour)
					writer.Close()
				}()
				start := time.Now()
				w := httptest.NewRecorder()
				guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
				assert.Equal(t, http.StatusUnauthorized, w.Code)
				assert.Zero(t, time.Since(start), "waited for more of the body")
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestAFormThatParseFormDidNotReadIsRead(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{Subject: "s"}}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("access_token")}})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "QUERY"} {
		r := httptest.NewRequest(method, "/", strings.NewReader("access_token=a.b.c"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		require.NoError(t, r.ParseForm())
		claims, err := guard.Authenticate(r)
		require.NoError(t, err, method)
		assert.Equal(t, "s", claims.Subject, method)
	}
}

func TestABodyCutByADoneContextIsUnavailable(t *testing.T) {
	guard := koreauth.New(koretest.Validator{}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Form("access_token")}})
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	reader, writer := io.Pipe()
	writer.CloseWithError(io.ErrUnexpectedEOF)
	r := httptest.NewRequest(http.MethodPost, "/", reader).WithContext(ctx)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err := guard.Authenticate(r)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	require.ErrorIs(t, err, gone)
}

func TestAWrappedOutageStaysAnOutage(t *testing.T) {
	outage := &koreauth.Error{Class: koreauth.ErrUnavailable, Reason: koreauth.ErrSignature}
	guard := koreauth.New(koretest.Validator{Err: fmt.Errorf("mine: %w", outage)}, nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer a")
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestTheSizeCapIsForEveryValidator(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, nil)
	for size, want := range map[int]error{16 << 10: nil, 16<<10 + 1: koreauth.ErrMalformed} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+strings.Repeat("a", size))
		_, err := guard.Authenticate(r)
		assert.ErrorIs(t, err, want, "%d bytes", size)
	}
}

func TestPrivateMakesNoCachingLaxer(t *testing.T) {
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{}}, &koreauth.Options{Sources: []koreauth.Source{koreauth.Query("t")}})
	for before, want := range map[string]string{
		"":                          "private",
		"no-cache, must-revalidate": "no-cache, must-revalidate, private",
		"max-age=0":                 "max-age=0, private",
		"public, max-age=60":        "private",
		"s-maxage=60":               "private",
		"No-Store":                  "No-Store",
		"private, max-age=60":       "private, max-age=60",
	} {
		w := httptest.NewRecorder()
		if before != "" {
			w.Header().Set("Cache-Control", before)
		}
		guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?t=a", nil))
		assert.Equal(t, want, w.Header().Get("Cache-Control"), "before: %q", before)
	}
}

func TestDecodeLooksBehindAnInterface(t *testing.T) {
	var into any = &struct {
		Plan string `json:"plan"`
	}{}
	require.Error(t, claimsOf(t, `{"plan":"a","Plan":"b"}`).Decode(&into))
	var both struct {
		Lower string `json:"plan"`
		Upper string `json:"PLAN"`
	}
	require.NoError(t, claimsOf(t, `{"plan":"a","PLAN":"b"}`).Decode(&both), "each has a field of its exact name")
	assert.Equal(t, "a", both.Lower)
	assert.Equal(t, "b", both.Upper)
}

func TestKeySetsNameTheirMembersExactly(t *testing.T) {
	document := string(documentOf(t, signingKeys()["ES256"]))
	_, err := koreauth.ParseKeys([]byte(document))
	require.NoError(t, err)
	for _, member := range []string{"keys", "kty", "crv", "x"} {
		_, err := koreauth.ParseKeys([]byte(strings.ReplaceAll(document, `"`+member+`"`, `"`+strings.ToUpper(member)+`"`)))
		assert.Error(t, err, member)
	}
}

func TestNoConnectionIsKeptBetweenFetches(t *testing.T) {
	closing := []bool{}
	set := &koreauth.RemoteKeySet{URL: "https://issuer.example/keys", HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		closing = append(closing, r.Close)
		if r.URL.Path == "/keys" {
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"/moved"}}, Body: http.NoBody, Request: r}, nil
		}
		return nil, errors.New("down")
	})}}
	_, err := set.Keys(t.Context(), "", true)
	require.ErrorIs(t, err, koreauth.ErrUnavailable)
	assert.Equal(t, []bool{true, true}, closing, "the request, and the redirected one")
}

func TestAPrintedContextShowsNoToken(t *testing.T) {
	const token = "a-token-that-nobody-should-read"
	guard := koreauth.New(koretest.Validator{Claims: &koreauth.Claims{ClientOwner: "owner@example.com"}}, nil)
	printed := ""
	handler := guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		type key struct{}
		ctx := context.WithValue(r.Context(), key{}, 1)
		printed = fmt.Sprintf("%v %+v %#v %s %d %v", r.Context(), r.Context(), r.Context(), r.Context(), r.Context(), ctx)
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	handler.ServeHTTP(httptest.NewRecorder(), r)
	assert.NotEmpty(t, printed)
	assert.NotContains(t, printed, token)
	assert.NotContains(t, printed, "owner@")
}
