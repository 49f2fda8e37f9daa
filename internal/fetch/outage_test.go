package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/koreauth/koreauth/internal/fetch"
)

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A fetch failed in an outage only if none of its requests had an answer of the issuer.
func TestOutage(t *testing.T) {
	const (
		issuer = "https://issuer.example/one"
		openID = issuer + "/.well-known/openid-configuration"
		oauth  = "https://issuer.example/.well-known/oauth-authorization-server/one"
		keys   = "https://issuer.example/keys"
	)
	good := `{"issuer":"` + issuer + `","jwks_uri":"` + keys + `"}`
	for _, row := range []struct {
		name    string
		answers map[string]string // a status and a body; without one, there is no connection
		read    error             // of the keys
		want    bool
	}{
		{"nothing answers", nil, nil, true},
		{"the keys do not answer", map[string]string{openID: "200 " + good}, nil, true},
		{"404 for the keys", map[string]string{openID: "200 " + good, keys: "404 "}, nil, false},
		{"429 and 404 for the metadata", map[string]string{openID: "429 ", oauth: "404 "}, nil, true},
		{"404 and 503 for the metadata", map[string]string{openID: "404 ", oauth: "503 "}, nil, true},
		{"404, and no connection for the second place", map[string]string{openID: "404 "}, nil, true},
		{"404 and 404 for the metadata", map[string]string{openID: "404 ", oauth: "404 "}, nil, false},
		{"499 and 499 for the metadata", map[string]string{openID: "499 ", oauth: "499 "}, nil, false},
		{"an array as metadata", map[string]string{openID: "200 []"}, nil, true},
		{"null as metadata", map[string]string{openID: "200 null"}, nil, true},
		{"http as jwks_uri", map[string]string{openID: "200 " + strings.ReplaceAll(good, keys, "http://x.example")}, nil, false},
		{"keys that are not JSON", map[string]string{openID: "200 " + good, keys: "200 <html>"}, errors.New("odd"), true},
		{"keys that are null", map[string]string{openID: "200 " + good, keys: "200 null"}, errors.New("odd"), true},
		{"keys that are an object", map[string]string{openID: "200 " + good, keys: "200 {}"}, errors.New("odd"), false},
		{"a document over 1 MiB", map[string]string{openID: "200 " + good, keys: "200 " + strings.Repeat(" ", 1<<20+1)}, nil, false},
		{"a redirect that is not followed", map[string]string{openID: "302 https://other.example/"}, nil, false},
		{"the fifth redirect", map[string]string{openID: "302 " + openID}, nil, false},
	} {
		client := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			answer, ok := row.answers[r.URL.String()]
			if !ok {
				return nil, errors.New("no connection")
			}
			res := &http.Response{Header: http.Header{}, Request: r}
			var body string
			_, _ = fmt.Sscan(answer, &res.StatusCode)
			_, body, _ = strings.Cut(answer, " ")
			res.Header.Set("Location", body)
			res.Body = io.NopCloser(strings.NewReader(body))
			return res, nil
		})}
		source := fetch.New(fetch.Config{Issuer: issuer, Client: client, Timeout: time.Second})
		err := source.Fetch(t.Context(), fetch.Request{ETag: func(string) string { return "" }, Read: func(*fetch.Document) error { return row.read }})
		source.Close()
		assert.Error(t, err, row.name)
		assert.Equal(t, row.want, fetch.Outage(err), "%s: %v", row.name, err)
	}
	assert.False(t, fetch.Outage(nil))
	assert.False(t, fetch.Outage(context.DeadlineExceeded), "only the errors of a request count")
	status := func(code int) error { return &fetch.StatusError{Status: code} }
	assert.True(t, fetch.Outage(errors.Join(status(503), status(429))))
	assert.False(t, fetch.Outage(errors.Join(status(503), status(404))), "one of the requests had an answer")
}

// What the HTTP client of a user does with redirects is an answer that is not used.
func TestOutage_CheckRedirect(t *testing.T) {
	for name, check := range map[string]error{"an error": errors.New("odd"), "the last response": http.ErrUseLastResponse} {
		client := &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return check },
			Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 302, Header: http.Header{"Location": {r.URL.String()}}, Body: http.NoBody, Request: r}, nil
			}),
		}
		source := fetch.New(fetch.Config{URL: "https://issuer.example/keys", Client: client, Timeout: time.Second})
		err := source.Fetch(t.Context(), fetch.Request{ETag: func(string) string { return "" }})
		source.Close()
		assert.Error(t, err, name)
		assert.False(t, fetch.Outage(err), name)
	}
}
